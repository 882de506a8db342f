//! `Session`: one exec on an upgraded connection. It passes client frames to the process, and output to the client.
//! `Start`: the process, or why there is none. `StreamOptions`: the requested streams.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::channels::{self, CLOSE, STDERR, STDIN, STDOUT, Sink, failure_status, finish, send};
use crate::faults::ExecInjection;
use crate::programs::{Invocation, Process, Programs, Streams};

/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// Capacity of the channels between the process and the socket.
const CHANNEL_CAPACITY: usize = 4;

/// The streams that the client requested.
pub(super) struct StreamOptions {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// The process on the connection, or the reason why no process was started.
pub(super) enum Start {
    /// No process was started. The status has this reason.
    Failed(String),
    Process {
        programs: Arc<dyn Programs>,
        invocation: Invocation,
        /// This token is cancelled when the container exits, which also kills the process.
        ended: CancellationToken,
        injection: ExecInjection,
    },
}

pub(super) struct Session {
    pub(super) options: StreamOptions,
    /// Whether the client can close standard input (v5).
    pub(super) half_close: bool,
    pub(super) start: Start,
}

/// The reason why writing to the client ended.
enum WriteEnd {
    /// The process exited, and all of its output is written.
    Exited(i32),
    /// The container exited, or the limit of stdout is reached.
    Killed,
    /// The client disconnected.
    Disconnected,
}

impl Session {
    /// Runs until the process exits or the client disconnects.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, socket: WebSocketStream<S>) {
        let Self { options, half_close, start } = self;
        let (mut sink, stream) = socket.split();
        let (invocation, programs, ended, injection) = match start {
            Start::Failed(reason) => return finish(&mut sink, &failure_status(reason)).await,
            Start::Process { programs, invocation, ended, injection } => (invocation, programs, ended, injection),
        };
        let (stdin_tx, stdin) = mpsc::channel(CHANNEL_CAPACITY);
        let (stdout, out) = mpsc::channel(CHANNEL_CAPACITY);
        let (stderr, err) = mpsc::channel(CHANNEL_CAPACITY);
        let program = invocation.argv.join(" ");
        let Some(process) = programs.start(&invocation, Streams { stdin, stdout, stderr }) else {
            return finish(&mut sink, &failure_status(channels::not_found(&program))).await;
        };
        let reading = read(stream, options.stdin.then_some(stdin_tx), half_close, injection.clone());
        let writing = async {
            injection.hang().await;
            // An empty frame shows the client that the stream is open. A real runtime also sends this frame.
            let first = if options.stdout { STDOUT } else { STDERR };
            if send(&mut sink, first, b"").await.is_err() {
                return;
            }
            let end = tokio::select! {
                end = write(&mut sink, &options, process, out, err, injection.stdout_limit()) => end,
                () = ended.cancelled() => WriteEnd::Killed,
            };
            let code = match end {
                WriteEnd::Disconnected => return,
                WriteEnd::Exited(code) => code,
                WriteEnd::Killed => KILLED,
            };
            if !injection.is_disconnected() {
                finish(&mut sink, &channels::exit_status(injection.exit_code(code), &program)).await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
}

/// Passes the frames of the client to the process. Returns when the client disconnects.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<S>>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    half_close: bool,
    mut injection: ExecInjection,
) {
    while let Some(Ok(message)) = stream.next().await {
        // The websocket library responds to pings.
        let Message::Binary(frame) = message else { continue };
        match (frame.first(), frame.get(1)) {
            (Some(&STDIN), Some(_)) => {
                let (data, is_last) = injection.pass_input(frame.slice(1..));
                if let Some(to) = &stdin
                    && (to.send(data).await.is_err() || is_last)
                {
                    stdin = None;
                }
            }
            (Some(&CLOSE), Some(&STDIN)) if half_close => stdin = None,
            _ => {}
        }
    }
}

/// Writes output until the process has exited and all of its output is written.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    options: &StreamOptions,
    mut process: Process,
    mut out: mpsc::Receiver<Bytes>,
    mut err: mpsc::Receiver<Bytes>,
    mut stdout_limit: usize,
) -> WriteEnd {
    let mut code = None;
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open || code.is_none() {
        let (channel, data) = tokio::select! {
            data = out.recv(), if out_open => match data {
                Some(data) => (STDOUT, data),
                None => { out_open = false; continue }
            },
            data = err.recv(), if err_open => match data {
                Some(data) => (STDERR, data),
                None => { err_open = false; continue }
            },
            exit = &mut process, if code.is_none() => { code = Some(exit); continue }
        };
        let is_stdout = channel == STDOUT;
        if !(if is_stdout { options.stdout } else { options.stderr }) {
            continue;
        }
        let length = if is_stdout { data.len().min(stdout_limit) } else { data.len() };
        if send(sink, channel, &data[..length]).await.is_err() {
            return WriteEnd::Disconnected;
        }
        if is_stdout {
            stdout_limit -= length;
            if stdout_limit == 0 {
                return WriteEnd::Killed;
            }
        }
    }
    code.map_or(WriteEnd::Disconnected, WriteEnd::Exited)
}
