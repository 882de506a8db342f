//! `send`, `finish`: write the frames of an exec (channel number, then data). `STDIN`, `STDOUT`, `STDERR`, `CLOSE`: the
//! channels. `exit_status`, `failure_status`: the status of a process. `not_found`: the message for a missing program.
//!
//! ```text
//!   0 stdin   ──▶ process          1 stdout, 2 stderr ◀── process
//!   4 resize  ──▶ (ignored)        3 status           ◀── exit code, after all of stdout and stderr
//!   255 close ──▶ closes stdin (v5)
//! ```

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::api_error::ApiError;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
const STATUS: u8 = 3;
pub(super) const CLOSE: u8 = 255;

/// The half of a websocket to which frames are written.
pub(super) type Sink<S> = SplitSink<WebSocketStream<S>, Message>;

/// Sends data on a channel.
pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    channel: u8,
    data: &[u8],
) -> Result<(), Error> {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(data);
    sink.send(Message::Binary(frame.freeze())).await
}

/// Sends the status and closes the connection. The client may have disconnected already.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(sink: &mut Sink<S>, status: &Status) {
    let text = serde_json::to_vec(status).unwrap_or_default();
    if send(sink, STATUS, &text).await.is_ok() {
        let _ = sink.close().await;
    }
}

/// Returns the status of a process with this exit code.
pub(super) fn exit_status(code: i32, program: &str) -> Status {
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

/// Returns the status of a process that was not started.
pub(super) fn failure_status(reason: String) -> Status {
    ApiError::Internal(reason).status()
}

/// Returns the error message for a program that the image does not have.
pub(super) fn not_found(program: &str) -> String {
    let program = program.split(' ').next().unwrap_or_default();
    format!(
        "error executing command in container: failed to exec in container: failed to start exec: OCI runtime exec \
         failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH"
    )
}
