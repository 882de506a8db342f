//! `Input`: the standard input of a shell. It ends early after a process closes its standard output, as in containerd.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Number of bytes of standard input that containerd passes on to a process that has closed its standard output.
const MAX_AFTER_CLOSED_STDOUT: usize = 192 * 1024;

/// Standard input, read piece by piece.
pub(super) struct Input {
    from: mpsc::Receiver<Bytes>,
    rest: Bytes,
    /// Number of bytes that containerd still passes on; `None` for all bytes.
    left: Option<usize>,
}

impl Input {
    pub(super) fn new(from: mpsc::Receiver<Bytes>) -> Self {
        Self { from, rest: Bytes::new(), left: None }
    }

    /// Limits the input because the process closed its standard output.
    pub(super) fn limit(&mut self) {
        self.left = Some(MAX_AFTER_CLOSED_STDOUT);
    }

    /// Reads until the end of the input, up to `most` bytes.
    pub(super) async fn read(&mut self, most: usize) -> Vec<u8> {
        let most = most.min(self.left.unwrap_or(usize::MAX));
        let mut all = Vec::new();
        while all.len() < most {
            if self.rest.is_empty() {
                match self.from.recv().await {
                    Some(piece) => self.rest = piece,
                    None => break,
                }
            }
            let piece = self.rest.split_to(self.rest.len().min(most - all.len()));
            all.extend_from_slice(&piece);
        }
        if let Some(left) = &mut self.left {
            *left -= all.len();
        }
        all
    }
}
