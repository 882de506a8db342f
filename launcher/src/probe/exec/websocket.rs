//! `run`: runs one `Command` in a container over a websocket and reads its output (`ExecOutput`, `ExecEnd`, or
//! `ExecError`).
//!
//! This module replaces kube's `AttachedProcess`, for three reasons:
//!
//! - Standard input must work with version 4 of the protocol, which cannot signal the end of standard input.
//! - A process that is stuck in the driver never exits. So the document is returned as soon as it is complete, without the
//!   status on channel 3, which follows all output. A lost connection is reported at once.
//! - Pings are needed: proxies close a connection that is silent while a slow probe reads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Sink, SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{AttachParams, Request};
use syringe_core::document_size;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;

/// Maximum size of standard output. A probe leaves out sections that would make its report larger.
const MAX_OUTPUT_BYTES: usize = document_size::MAX_BYTES;
/// Maximum size of standard error, which is only quoted in messages.
const MAX_STDERR_BYTES: usize = 4096;
/// Maximum time to wait for the status after a complete document. A process that is stuck in the driver never exits.
const STATUS_GRACE: Duration = Duration::from_secs(2);

/// Interval of pings. Proxies and load balancers close a connection that is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(5);
/// If a server that has answered a ping is silent for this time, a firewall or a VPN has dropped the connection.
const DEAD_AFTER: Duration = Duration::from_secs(16);

/// Maximum number of bytes of standard input in one frame.
const INPUT_FRAME_BYTES: usize = 32 << 10;

/// Size of the buffer for reads. The library's default of 128 KiB would use most of the memory of a call about many
/// nodes, and the buffer is filled with zeros before each read.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// The output of one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecOutput {
    /// Standard output. It is complete unless the connection was cut.
    pub(crate) stdout: Vec<u8>,
    /// The beginning of standard error.
    pub(crate) stderr: String,
    pub(crate) ended: ExecEnd,
    /// Whether the client could signal the end of standard input (version 5 of the protocol).
    pub(crate) half_close: bool,
}

/// The way in which an exec ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ExecEnd {
    /// The process exited with this code.
    Exit(i32),
    /// A complete document arrived, but no status: the process does not exit.
    DocumentOnly,
    /// The connection was lost before a status or a complete document arrived.
    #[default]
    Disconnected,
}

/// The reason why a command did not run, or did not run until it exited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// The API server or a proxy rejected the request.
    #[error("{}", kube_read::failure::kube_reason(.0))]
    Kube(#[from] kube::Error),
    /// There was no response to the upgrade request.
    #[error("the API server did not answer the exec request within {0:?}")]
    Timeout(Duration),
    /// The message of a runtime that could not run the command. Until Kubernetes 1.35, a container that is not
    /// running yet causes this error too.
    #[error("{0}")]
    Refused(String),
    /// The command ran, and printed more than the maximum size of a report.
    #[error("{0}")]
    TooLarge(TooLarge),
}

/// The error for a document of more than [`MAX_OUTPUT_BYTES`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the probe printed more than 4 MiB, which is more than a report may have{}", .section.as_deref().unwrap_or_default())]
pub(crate) struct TooLarge {
    /// The section that is too large, for the message. `None` if the output is not a report.
    pub(crate) section: Option<String>,
}

impl TooLarge {
    pub(crate) fn of(document: &[u8]) -> Self {
        let section = document_size::largest_section(document).map(|(name, size)| {
            let mebibytes = size as f64 / f64::from(1 << 20);
            format!("; the section {name} has {mebibytes:.1} MiB or more")
        });
        Self { section }
    }
}

/// A container and the command to run in it.
pub(crate) struct Command<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) argv: &'a [String],
    /// Standard input. Version 4 cannot signal the end of the input, so the command must get the length as an argument.
    pub(crate) input: &'a [u8],
    /// Receives how many bytes of the input were sent.
    pub(crate) sent: &'a AtomicUsize,
}

/// Runs a command and reads its output. `connect_time` limits only the upgrade. The caller sets a timeout for the rest.
/// `started` is called when the connection is open.
pub(crate) async fn run(
    client: &Client,
    command: &Command<'_>,
    connect_time: Duration,
    started: impl FnOnce(),
) -> Result<ExecOutput, ExecError> {
    let Command { namespace, pod, container, argv, input, sent } = command;
    // Standard input is always requested: without it, some runtimes end the output after the first flush.
    let params = AttachParams::default().container(*container).stdin(true).stdout(true).stderr(true).tty(false);
    let path = <k8s_openapi::api::core::v1::Pod as kube::Resource>::url_path(&(), Some(namespace));
    let request = Request::new(path).exec(pod, argv.iter().cloned(), &params).map_err(kube::Error::BuildRequest)?;
    let connection =
        timeout(connect_time, client.connect(request)).await.map_err(|_| ExecError::Timeout(connect_time))??;
    started();
    let half_close = connection.supports_stream_close();
    // No data was read from the stream yet, so its buffers can still be replaced by smaller buffers.
    let stream = connection.into_stream().into_inner();
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let stream = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
    let (mut sink, mut stream) = stream.split();
    let mut output = ExecOutput { half_close, ..ExecOutput::default() };
    let ended = {
        let mut writing = std::pin::pin!(async {
            feed(&mut sink, input, half_close, sent).await;
            keep_open(&mut sink, PING_EVERY).await;
        });
        let mut written = false;
        let mut answers_pings = false;
        loop {
            let grace = is_document(&output.stdout);
            let next = tokio::select! {
                () = &mut writing, if !written => {
                    written = true;
                    continue;
                }
                () = sleep(STATUS_GRACE), if grace => break Ok(ExecEnd::DocumentOnly),
                () = sleep(DEAD_AFTER), if answers_pings => break Ok(ExecEnd::Disconnected),
                next = stream.next() => next,
            };
            match next {
                Some(Ok(Message::Binary(frame))) => {
                    if let Some(ended) = output.take(&frame) {
                        break ended;
                    }
                }
                Some(Ok(Message::Pong(_))) => answers_pings = true,
                Some(Ok(Message::Ping(_) | Message::Text(_) | Message::Frame(_))) => {}
                // If there was no status, the connection was cut, even if it was closed properly.
                Some(Ok(Message::Close(_)) | Err(_)) | None => break Ok(ExecEnd::Disconnected),
            }
        }
    };
    let _ = timeout(Duration::from_millis(200), sink.close()).await;
    Ok(ExecOutput { ended: ended?, ..output })
}

/// Sends standard input and signals its end. If the process stops reading, the error is in the status of the process.
async fn feed(sink: &mut (impl Sink<Message> + Unpin), input: &[u8], half_close: bool, sent: &AtomicUsize) {
    for piece in input.chunks(INPUT_FRAME_BYTES) {
        let mut frame = Vec::with_capacity(piece.len() + 1);
        frame.push(STDIN);
        frame.extend_from_slice(piece);
        if sink.send(Message::Binary(frame.into())).await.is_err() {
            return;
        }
        sent.fetch_add(piece.len(), Ordering::Relaxed);
    }
    if half_close {
        let _ = sink.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await;
    }
}

/// Sends pings, because proxies close a silent connection. Returns when sending fails. The function that reads reports
/// the reason.
async fn keep_open(sink: &mut (impl Sink<Message> + Unpin), every: Duration) {
    loop {
        sleep(every).await;
        if sink.send(Message::Ping(Bytes::new())).await.is_err() {
            return;
        }
    }
}

/// Returns whether this is a complete document: one line that ends with a newline.
fn is_document(stdout: &[u8]) -> bool {
    stdout.ends_with(b"}\n")
}

impl ExecOutput {
    /// Handles one frame: a channel number and bytes. Returns `Some` for the last frame.
    fn take(&mut self, frame: &[u8]) -> Option<Result<ExecEnd, ExecError>> {
        let (channel, data) = frame.split_first()?;
        match *channel {
            STDOUT if self.stdout.len() + data.len() > MAX_OUTPUT_BYTES => {
                Some(Err(ExecError::TooLarge(TooLarge::of(&self.stdout))))
            }
            STDOUT => {
                self.stdout.extend_from_slice(data);
                None
            }
            STDERR => {
                let room = MAX_STDERR_BYTES.saturating_sub(self.stderr.len());
                self.stderr.push_str(&String::from_utf8_lossy(&data[..data.len().min(room)]));
                None
            }
            STATUS => Some(ended(data)),
            _ => None,
        }
    }
}

/// Parses the status frame: success, an exit code, or the reason why the command could not run.
fn ended(data: &[u8]) -> Result<ExecEnd, ExecError> {
    let refused = |why: &str| Err(ExecError::Refused(syringe_core::text::clean(why, 300)));
    let Ok(status) = serde_json::from_slice::<Status>(data) else {
        return refused(&String::from_utf8_lossy(data));
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExecEnd::Exit(0));
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()).and_then(|code| code.parse().ok()) {
        Some(code) => Ok(ExecEnd::Exit(code)),
        None => refused(&status.message.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::SinkExt;
    use futures_util::sink::unfold;
    use tokio_tungstenite::tungstenite::Message;

    use super::{ExecEnd, ExecError, ExecOutput, ended, keep_open};

    #[tokio::test]
    async fn a_silent_connection_is_pinged_until_nothing_can_be_sent() {
        let mut sent = Vec::new();
        let mut sink = Box::pin(
            unfold(&mut sent, async |sent: &mut Vec<Message>, message: Message| {
                sent.push(message);
                if sent.len() < 3 { Ok(sent) } else { Err(()) }
            })
            .sink_map_err(drop),
        );
        keep_open(&mut sink, Duration::from_millis(1)).await;
        drop(sink);
        assert!(sent.len() == 3 && sent.iter().all(Message::is_ping), "{sent:?}");
    }

    #[test]
    fn exit_codes_come_from_the_status() {
        let text = |end: Result<ExecEnd, ExecError>| end.expect_err("refused").to_string();
        assert_eq!(ended(br#"{"status":"Success"}"#).expect("the command ran"), ExecEnd::Exit(0));
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#;
        assert_eq!(ended(failed).expect("the command ran"), ExecEnd::Exit(137));
        let missing = br#"{"status":"Failure","message":"container not found (\"probe\")"}"#;
        assert_eq!(text(ended(missing)), "container not found (\"probe\")");
        assert_eq!(text(ended(b"\x00\x01junk")), "junk");
    }

    #[test]
    fn frames_go_to_their_channels_and_a_flood_is_stopped() {
        let mut output = ExecOutput::default();
        for frame in [b"\x01{\"a\":".as_slice(), b"\x02warning", b"", b"\x011}\n"] {
            assert!(output.take(frame).is_none());
        }
        assert_eq!((output.stdout.as_slice(), output.stderr.as_str()), (b"{\"a\":1}\n".as_slice(), "warning"));
        let flood = [vec![1], vec![b' '; super::MAX_OUTPUT_BYTES]].concat();
        let Some(Err(ExecError::TooLarge(why))) = output.take(&flood) else { panic!("the output is refused") };
        assert_eq!(why.section, None, "the output is not a report");
    }

    #[test]
    fn a_document_that_is_too_large_is_refused_with_the_section_that_grew() {
        let mut output = ExecOutput::default();
        let begin = r#"{"sections":{"inventory":{"status":"ok"},"processes":{"data":[""#;
        assert!(output.take(&[b"\x01", begin.as_bytes()].concat()).is_none());
        let frame = [vec![1], vec![b'x'; 1 << 20]].concat();
        assert!((0..3).all(|_| output.take(&frame).is_none()));
        let Some(Err(ExecError::TooLarge(why))) = output.take(&frame) else { panic!("the output is refused") };
        let why = why.to_string();
        assert!(why.contains("section processes has 3.0 MiB or more"), "{why}");
    }
}
