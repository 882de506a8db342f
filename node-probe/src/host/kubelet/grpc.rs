//! `call`: makes one unary gRPC call without arguments over a unix socket.
//!
//! A gRPC library needs an asynchronous runtime and is as large as the whole probe, which is uploaded to the node. One
//! call on a separate connection needs only a part of HTTP/2 (RFC 9113): the client sends literal headers, and reads
//! only the message and the end of the stream from the response. Response headers are not decoded: a response without a
//! message is an error, whatever its `grpc-status` is.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bounded;

/// Frame types.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;

/// Flags of HTTP/2 frames. `END_STREAM` and `ACK` are the same bit, in different types of frames.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STREAM: u32 = 1;

/// The default maximum frame size, because no larger size was negotiated.
const MAX_FRAME: usize = 16 * 1024;

/// A message without fields: not compressed, no bytes.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Calls `path` (`/package.Service/Method`) with an empty request. Returns the response message, limited to `most` bytes.
/// `name` is the socket path, used in problems.
pub(in crate::host) fn call(socket: &Path, name: &Path, path: &str, most: u32, time: Duration) -> io::Result<Vec<u8>> {
    call_on(connect(socket, name)?, path, most, time)
}

/// Like [`call`], on a stream that is already connected.
pub(in crate::host) fn call_on(stream: UnixStream, path: &str, most: u32, time: Duration) -> io::Result<Vec<u8>> {
    let mut connection = Connection { stream, deadline: Instant::now() + time, most: most as usize };
    connection.send(&request(path, most))?;
    message(&connection.answer()?)
}

/// Connects to the socket. The call blocks while the kubelet does not accept waiting connections.
fn connect(socket: &Path, name: &Path) -> io::Result<UnixStream> {
    let at = socket.to_owned();
    bounded::in_time(name, move || UnixStream::connect(at))
}

/// Returns all frames of the request as one buffer. The flow control windows have `most` bytes, so that no updates are
/// needed.
fn request(path: &str, most: u32) -> Vec<u8> {
    // Identifiers and values of the settings: no header table, no server push, the window of the stream.
    let settings: [(u16, u32); 3] = [(1, 0), (2, 0), (4, most)];
    let settings: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    // `:method POST`, `:scheme http` and the names of the next three headers are in the static table of HPACK.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")] {
        headers.extend([name, &length(value), value.as_bytes()].concat());
    }
    headers.extend(b"\x00\x02te\x08trailers");
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &settings),
        &frame(WINDOW_UPDATE, 0, 0, &most.to_be_bytes()),
        &frame(HEADERS, END_HEADERS, STREAM, &headers),
        &frame(DATA, END_STREAM, STREAM, &EMPTY_MESSAGE),
    ]
    .concat()
}

/// Returns the length of a literal that is not Huffman coded. One byte is enough for texts of less than 127 bytes.
fn length(value: &str) -> [u8; 1] {
    debug_assert!(value.len() < 127);
    [value.len() as u8]
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

struct Connection {
    stream: UnixStream,
    deadline: Instant,
    /// Maximum number of bytes of a response.
    most: usize,
}

impl Connection {
    /// Returns the stream with a timeout, so that every wait stops at the deadline of the call.
    fn waiting(&self) -> io::Result<&UnixStream> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))?;
        Ok(&self.stream)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting()?.write_all(bytes)
    }

    /// Returns the data of the stream, read until the stream ends.
    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let mut head = [0; 9];
            self.waiting()?.read_exact(&mut head)?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let ours = u32::from_be_bytes(stream) & 0x7fff_ffff == STREAM;
            if length > MAX_FRAME {
                return Err(io::Error::other(format!("an HTTP/2 frame of {length} bytes")));
            }
            let mut payload = vec![0; length];
            self.waiting()?.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[]))?,
                PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload))?,
                GOAWAY => return Err(io::Error::other("the server closed the connection")),
                RST_STREAM if ours => return Err(io::Error::other("the server reset the call")),
                DATA if ours => data.extend_from_slice(unpadded(&payload, flags)?),
                _ => {}
            }
            if data.len() > self.most {
                return Err(io::Error::other(format!("a response of more than {} bytes", self.most)));
            }
            if ours && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Ok(data);
            }
        }
    }
}

/// Returns the data of a frame without its padding.
fn unpadded(payload: &[u8], flags: u8) -> io::Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let unpadded =
        payload.split_first().and_then(|(padding, rest)| rest.get(..rest.len().checked_sub(*padding as usize)?));
    unpadded.ok_or_else(|| io::Error::other("an HTTP/2 frame with more padding than bytes"))
}

/// Returns the only message of a stream. A message starts with the compression flag and the length.
fn message(data: &[u8]) -> io::Result<Vec<u8>> {
    let [compressed, a, b, c, d, message @ ..] = data else {
        return Err(io::Error::other("the server rejected the call"));
    };
    if *compressed != 0 || u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return Err(io::Error::other("the response is truncated or compressed"));
    }
    Ok(message.to_vec())
}

/// The server's side of a call, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Reads a frame header: the length of the payload, the type and the flags.
    pub(crate) fn frame_head(stream: &mut UnixStream) -> (usize, u8, u8) {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        (u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, head[3], head[4])
    }

    /// Returns the frames that a server sends for a message: settings, a ping, headers, the message in two
    /// frames (the second frame has padding), trailers.
    pub(crate) fn answer(message: &[u8]) -> Vec<u8> {
        let data = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        let (first, second) = data.split_at(data.len() / 2);
        [
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x40, 0]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(PING, 0, 0, b"12345678"),
            frame(HEADERS, END_HEADERS, STREAM, b"\x88"),
            frame(DATA, 0, STREAM, first),
            frame(DATA, PADDED, STREAM, &[&[3][..], second, &[0; 3]].concat()),
            frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\x00\x0bgrpc-status\x010"),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::testing::answer;
    use super::*;

    /// Returns the result of a call to a server that sends these bytes and keeps the connection open.
    fn called(said: Vec<u8>) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("the socket can be made");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a call");
            stream.write_all(&said).expect("the caller listens");
            stream
        });
        let answer = call(&socket, &socket, "/package.Service/Method", 1000, Duration::from_millis(200));
        drop(server.join());
        answer
    }

    #[test]
    fn the_message_is_assembled_from_its_frames() {
        assert_eq!(called(answer(b"hello")).expect("an answer"), b"hello");
        assert_eq!(called(answer(b"")).expect("an answer"), b"");
    }

    #[test]
    fn other_answers_are_errors_within_the_deadline() {
        let refusal = frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\x88");
        let whole = answer(b"hello");
        for (said, expected) in [
            (refusal, "rejected the call"),
            (frame(GOAWAY, 0, 0, &[0; 8]), "closed"),
            (frame(RST_STREAM, 0, STREAM, &[0; 4]), "reset the call"),
            (answer(&[7; 2000]), "more than 1000 bytes"),
            (frame(DATA, PADDED, STREAM, &[9, 0]), "padding"),
            (frame(DATA, END_STREAM, STREAM, &[0, 0, 0, 0, 9, 1]), "truncated"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "frame of"),
            (whole[..whole.len() - 40].to_vec(), "temporarily unavailable"),
            (Vec::new(), "temporarily unavailable"),
        ] {
            let error = called(said).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}, not {expected}");
        }
    }
}
