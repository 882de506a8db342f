//! `JsonLines`: the transport on standard input and output, which also answers lines that are not JSON.
//!
//! The transport of the library ignores these lines without an answer. The host then waits until its own time limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rmcp::RoleServer;
use rmcp::model::ErrorData;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::{AsyncRwTransport, DEFAULT_MAX_LINE_LENGTH};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const NOT_JSON: &str = "the line is not JSON";
const TOO_LONG: &str = "the line is longer than 16 MiB";

/// A transport with one message on each line.
pub(super) struct JsonLines<R: AsyncRead + Unpin, W: AsyncWrite> {
    transport: AsyncRwTransport<RoleServer, CheckedLines<R>, W>,
    /// The reasons why lines are not messages.
    wrong: UnboundedReceiver<&'static str>,
}

impl<R, W> JsonLines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub(super) fn new((reader, writer): (R, W)) -> Self {
        let (report, wrong) = unbounded_channel();
        let lines = CheckedLines { reader, report, line: Vec::new(), is_too_long: false };
        Self { transport: AsyncRwTransport::new_server(lines, writer), wrong }
    }
}

fn parse_error(why: &'static str) -> TxJsonRpcMessage<RoleServer> {
    TxJsonRpcMessage::<RoleServer>::error(ErrorData::parse_error(why, None), None)
}

impl<R, W> Transport<RoleServer> for JsonLines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.transport.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            tokio::select! {
                message = self.transport.receive() => {
                    if message.is_none() {
                        while let Ok(why) = self.wrong.try_recv() {
                            let _ = self.transport.send(parse_error(why)).await;
                        }
                    }
                    return message;
                }
                // The caller may drop this future at any time, so a separate task sends the answer.
                Some(why) = self.wrong.recv() => drop(tokio::spawn(self.transport.send(parse_error(why)))),
            }
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.transport.close()
    }
}

/// A reader that reports each line that is not JSON or is too long. The bytes are passed on unchanged.
struct CheckedLines<R> {
    reader: R,
    report: UnboundedSender<&'static str>,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    is_too_long: bool,
}

impl<R> CheckedLines<R> {
    fn check(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > DEFAULT_MAX_LINE_LENGTH {
                self.is_too_long = true;
                self.line = Vec::new();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let is_blank = self.line.trim_ascii().is_empty();
                let why = match self.is_too_long {
                    true => Some(TOO_LONG),
                    false => serde_json::from_slice::<Value>(&self.line).is_err().then_some(NOT_JSON),
                };
                if let Some(why) = why.filter(|_| self.is_too_long || !is_blank) {
                    let _ = self.report.send(why);
                }
                self.line.clear();
                self.is_too_long = false;
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for CheckedLines<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let known = buffer.filled().len();
        ready!(Pin::new(&mut this.reader).poll_read(context, buffer))?;
        this.check(&buffer.filled()[known..]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_is_no_json_is_reported_once_however_it_is_cut() {
        let text = "{\"a\": 1}\n{bad json\n\n  \r\n[1,\n\"x\"\nhello?\n{";
        for size in 1..text.len() {
            let (report, mut wrong) = unbounded_channel();
            let mut lines = CheckedLines { reader: (), report, line: Vec::new(), is_too_long: false };
            text.as_bytes().chunks(size).for_each(|part| lines.check(part));
            let found: Vec<_> = std::iter::from_fn(|| wrong.try_recv().ok()).collect();
            assert_eq!(found, [NOT_JSON; 3], "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_and_the_next_one_is_read() {
        let (report, mut wrong) = unbounded_channel();
        let mut lines = CheckedLines { reader: (), report, line: Vec::new(), is_too_long: false };
        let part = vec![b'1'; DEFAULT_MAX_LINE_LENGTH / 2 + 1];
        for part in [&part[..], &part[..], b"\n", b"{}\n", b"{\n"] {
            lines.check(part);
        }
        let found: Vec<_> = std::iter::from_fn(|| wrong.try_recv().ok()).collect();
        assert_eq!(found, [TOO_LONG, NOT_JSON]);
    }
}
