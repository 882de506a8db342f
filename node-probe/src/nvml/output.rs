//! The output of the NVML process: one line of JSON for each answer.

use std::io::Write;

use super::answer::Answer;

/// Writes answers.
pub(super) struct Output<W>(pub(super) W);

impl<W: Write> Output<W> {
    /// Writes one answer.
    pub(super) fn send(&mut self, answer: &Answer) {
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        // On an error the parent no longer reads, and kills this process.
        let _ = self.0.write_all(&line);
    }
}
