//! The conversation on an upgraded connection: channels in, channels out, and the status at the end.
//!
//! ```text
//!   0 stdin   ──▶ process          1 stdout, 2 stderr ◀── process
//!   4 resize  ──▶ (ignored)        3 status           ◀── exit code, once stdout and stderr are through
//!   255 close ──▶ ends stdin (v5)
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::super::answer::Refusal;
use super::super::faults::ExecFault;
use super::super::programs::{Invocation, Process, Programs, Streams};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;

/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// Pieces that wait between the process and the socket.
const PIPE: usize = 4;

/// The streams that the client asked for.
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// What is to happen on the connection.
pub(super) enum Verdict {
    /// Only a failure is told, for the reason given.
    Refused(String),
    /// A process is to be started.
    Started {
        programs: Arc<dyn Programs>,
        invocation: Invocation,
        /// Cancelled when the container ends, and the process with it.
        ended: CancellationToken,
        fault: Option<ExecFault>,
    },
}

/// One exec.
pub(super) struct Session {
    pub(super) wanted: Wanted,
    /// Whether a client may end stdin alone (v5).
    pub(super) half_close: bool,
    pub(super) verdict: Verdict,
}

type Sink<S> = SplitSink<WebSocketStream<S>, Message>;

/// How the writing side came to its end.
enum End {
    /// The process ended, and all of its output is written.
    Exit(i32),
    /// A fault's limit of stdout is written.
    Limit,
    /// The client left.
    Gone,
}

impl Session {
    /// Speaks until the process ends or the client leaves.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, socket: WebSocketStream<S>) {
        let Self { wanted, half_close, verdict } = self;
        let (mut sink, stream) = socket.split();
        let (stdin_tx, stdin) = mpsc::channel(PIPE);
        let (stdout, out) = mpsc::channel(PIPE);
        let (stderr, err) = mpsc::channel(PIPE);
        let (program, process, ended, fault) = match verdict {
            Verdict::Refused(why) => return finish(&mut sink, &failure(why)).await,
            Verdict::Started { programs, invocation, ended, fault } => {
                let process = programs.start(&invocation, Streams { stdin, stdout, stderr });
                (invocation.argv.join(" "), process, ended, fault)
            }
        };
        let Some(process) = process else { return finish(&mut sink, &failure(not_found(&program))).await };
        let reading = read(stream, wanted.stdin.then_some(stdin_tx), half_close, fault.clone());
        let writing = async {
            if fault == Some(ExecFault::Hang) {
                std::future::pending::<()>().await;
            }
            // An empty frame tells the client that the stream is open, as the real runtime's does.
            let first = if wanted.stdout { STDOUT } else { STDERR };
            if send(&mut sink, first, b"").await.is_err() {
                return;
            }
            let limit = limit(fault.as_ref());
            let end = tokio::select! {
                end = write(&mut sink, &wanted, process, out, err, limit) => end,
                () = ended.cancelled() => End::Exit(KILLED),
            };
            conclude(&mut sink, end, fault.as_ref(), &program).await;
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
}

/// How much of stdout a fault lets through.
fn limit(fault: Option<&ExecFault>) -> usize {
    match fault {
        Some(
            ExecFault::Cut { after_bytes } | ExecFault::Truncated { after_bytes } | ExecFault::Killed { after_bytes },
        ) => *after_bytes,
        _ => usize::MAX,
    }
}

/// Tells how it ended, as far as the fault lets it.
async fn conclude<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    end: End,
    fault: Option<&ExecFault>,
    program: &str,
) {
    match (end, fault) {
        // The socket is dropped without a close frame, as by a proxy that went away.
        (End::Gone, _) | (_, Some(ExecFault::Cut { .. })) => {}
        (_, Some(ExecFault::Truncated { .. })) => finish(sink, &exit(0, program)).await,
        (_, Some(ExecFault::Killed { .. })) | (End::Limit, _) => finish(sink, &exit(KILLED, program)).await,
        (End::Exit(code), _) => finish(sink, &exit(code, program)).await,
    }
}

/// Passes the client's frames on. Comes back when the client has left; keeps the connection alive until then.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<S>>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    half_close: bool,
    mut fault: Option<ExecFault>,
) {
    while let Some(Ok(message)) = stream.next().await {
        // Pings are answered by the websocket layer.
        let Message::Binary(frame) = message else { continue };
        match (frame.first(), frame.get(1)) {
            (Some(&STDIN), Some(_)) => {
                let data = spoil(frame.slice(1..), &mut fault);
                let ends = matches!(fault, Some(ExecFault::InputCut { after_bytes: 0 }));
                if let Some(to) = &stdin
                    && (to.send(data).await.is_err() || ends)
                {
                    stdin = None;
                }
            }
            (Some(&CLOSE), Some(&STDIN)) if half_close => stdin = None,
            _ => {}
        }
    }
}

/// What a fault leaves of a piece of standard input.
fn spoil(data: Bytes, fault: &mut Option<ExecFault>) -> Bytes {
    match fault {
        Some(ExecFault::InputGarbled) => {
            *fault = None;
            let mut garbled = data.to_vec();
            // Behind a tar's header: the archive stays one, its file is another.
            let at = garbled.len() * 3 / 4;
            garbled[at] ^= 0x20;
            garbled.into()
        }
        Some(ExecFault::InputCut { after_bytes }) => {
            let left = data.len().min(*after_bytes);
            *after_bytes -= left;
            data.slice(..left)
        }
        _ => data,
    }
}

/// Writes output until the process has ended and nothing is left.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    wanted: &Wanted,
    mut process: Process,
    mut out: mpsc::Receiver<Bytes>,
    mut err: mpsc::Receiver<Bytes>,
    mut left: usize,
) -> End {
    let mut code = None;
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open || code.is_none() {
        let (channel, piece) = tokio::select! {
            piece = out.recv(), if out_open => match piece {
                Some(piece) => (STDOUT, piece),
                None => { out_open = false; continue }
            },
            piece = err.recv(), if err_open => match piece {
                Some(piece) => (STDERR, piece),
                None => { err_open = false; continue }
            },
            exit = &mut process, if code.is_none() => { code = Some(exit); continue }
        };
        let is_stdout = channel == STDOUT;
        if !(if is_stdout { wanted.stdout } else { wanted.stderr }) {
            continue;
        }
        let allowed = if is_stdout { piece.len().min(left) } else { piece.len() };
        if send(sink, channel, &piece[..allowed]).await.is_err() {
            return End::Gone;
        }
        if is_stdout {
            left -= allowed;
            if left == 0 {
                return End::Limit;
            }
        }
    }
    code.map_or(End::Gone, End::Exit)
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(sink: &mut Sink<S>, channel: u8, data: &[u8]) -> Result<(), Error> {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(data);
    sink.send(Message::Binary(frame.freeze())).await
}

/// Sends the status and closes. A client that has left already does not need either.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(sink: &mut Sink<S>, status: &Status) {
    let text = serde_json::to_vec(status).unwrap_or_default();
    if send(sink, STATUS, &text).await.is_ok() {
        let _ = sink.close().await;
    }
}

/// The status of a process that ran.
fn exit(code: i32, program: &str) -> Status {
    if code == 0 {
        return Status { status: Some("Success".to_owned()), ..Status::default() };
    }
    let cause =
        StatusCause { reason: Some("ExitCode".to_owned()), message: Some(code.to_string()), ..StatusCause::default() };
    Status {
        status: Some("Failure".to_owned()),
        reason: Some("NonZeroExitCode".to_owned()),
        message: Some(format!(
            "command terminated with non-zero exit code: error executing command [{program}], exit code {code}"
        )),
        details: Some(StatusDetails { causes: Some(vec![cause]), ..StatusDetails::default() }),
        ..Status::default()
    }
}

/// The status of a process that could not be started.
fn failure(why: String) -> Status {
    Refusal::Internal(why).status()
}

fn not_found(program: &str) -> String {
    let program = program.split(' ').next().unwrap_or_default();
    format!(
        "error executing command in container: failed to exec in container: failed to start exec: OCI runtime exec \
         failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH"
    )
}
