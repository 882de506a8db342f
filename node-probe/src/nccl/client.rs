//! `ask`: sends one status request to NCCL, with limits for time and size. The protocol consists of lines of text.
//!
//! ```text
//!   CLIENT PROTOCOL 2 ─▶ SERVER PROTOCOL 2    TIMEOUT 1 ─▶ OK
//!   MONITOR x ─▶ ERROR: Invalid event group (since 2.29.2)    SET FORMAT json ─▶ OK
//!   STATUS ─▶ a JSON document, and the end of the connection
//! ```
//!
//! The status request runs code of NCCL in the processes of the job. Before 2.29.2, this code reads out of bounds and
//! can crash the job (NVIDIA/nccl#1762, #1669, #1718). In the text format, this also happens in later versions (#2346).
//! The protocol has the same number in all versions, so `MONITOR` is used to detect old versions. It exists since
//! 2.29.2, and with a group that does not exist it changes nothing. An older version responds that the command is
//! unknown. In this case, nothing more is sent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::answer::{self, Answer};

/// Maximum size of an answer. 4,096 ranks of one communicator need 2.6 MB of JSON.
const MAX_ANSWER: u64 = 4 << 20;
/// Maximum length of a line before the answer.
const MAX_LINE: usize = 256;
/// Time limit for the first line. Several processes of a pod can share the port. A stopped process accepts the
/// connection but does not respond.
const GREETING_TIME: Duration = Duration::from_millis(700);
/// Number of connections that are tried.
const TRIES: usize = 4;
/// Time in seconds after which NCCL no longer waits for processes whose connections are delayed.
const NCCL_TIME: u32 = 1;
const TOO_OLD: &str =
    "NCCL is too old to be queried safely: a status request can crash the job in versions before 2.29.2";

/// Requests the status until `end`. `check` tests whether the address still belongs to the pod. It is called after each
/// connection, before the first line is sent.
pub(super) fn ask(address: SocketAddr, end: Instant, check: impl Fn() -> io::Result<()>) -> io::Result<Answer> {
    let mut last = io::Error::other("no request was sent");
    for _ in 0..TRIES {
        match greeted(address, end.min(Instant::now() + GREETING_TIME), &check) {
            Ok(stream) => return Connection { stream, end }.status(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && Instant::now() < end => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn greeted(address: SocketAddr, end: Instant, check: impl Fn() -> io::Result<()>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, left(end)?)?;
    check()?;
    let mut connection = Connection { stream, end };
    match connection.request("CLIENT PROTOCOL 2\n")?.starts_with("SERVER PROTOCOL ") {
        true => Ok(connection.stream),
        false => Err(io::Error::other("the service does not use NCCL's protocol")),
    }
}

struct Connection {
    stream: TcpStream,
    end: Instant,
}

impl Connection {
    fn status(mut self) -> io::Result<Answer> {
        self.request(&format!("TIMEOUT {NCCL_TIME}\n"))?;
        let is_safe = self.request("MONITOR x\n")?.starts_with("ERROR: Invalid event group");
        if !is_safe || self.request("SET FORMAT json\n")? != "OK" {
            return Err(io::Error::other(TOO_OLD));
        }
        self.send("STATUS\n")?;
        let mut bytes = Vec::new();
        (&mut self).take(MAX_ANSWER + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(io::Error::other(format!("the answer is longer than {} MiB", MAX_ANSWER >> 20)));
        }
        answer::from_json(&bytes)
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(self.end)?))?;
        self.stream.write_all(line.as_bytes())
    }

    /// Sends a line and returns the line of the response. NCCL sends nothing more before the next request.
    fn request(&mut self, line: &str) -> io::Result<String> {
        self.send(line)?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while self.read(&mut byte)? == 1 {
            if byte == *b"\n" {
                return Ok(String::from_utf8_lossy(&answer).trim_end().to_owned());
            }
            answer.push(byte[0]);
            if answer.len() > MAX_LINE {
                return Err(io::Error::other("a line of the answer is too long"));
            }
        }
        Err(io::Error::other("the service closed the connection"))
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.end)?))?;
        self.stream.read(buffer).map_err(|error| match error.kind() {
            // A socket returns this error if its timeout has expired.
            io::ErrorKind::WouldBlock => late(),
            _ => error,
        })
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no complete answer in time")
}
