//! `Lines`: splits chunks of bytes into lines with a maximum length.

/// Maximum length of a line. The kernel prints at most 1 KiB of text in a record, and a journal line also has other fields.
const MAX_LINE: usize = 64 * 1024;

/// Joins lines that arrive in pieces. A line that is longer than the maximum is truncated.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// Whether the last line ended with a carriage return. A newline directly after it does not end another line.
    returned: bool,
}

impl Lines {
    /// Adds the next chunk, and calls `line` for every complete line.
    pub(super) fn push(&mut self, chunk: &[u8], mut line: impl FnMut(&str)) {
        let mut rest = chunk;
        // A serial console may end its lines with only a carriage return.
        while let Some(at) = rest.iter().position(|byte| matches!(*byte, b'\n' | b'\r')) {
            let (end, following) = rest.split_at(at);
            rest = following.get(1..).unwrap_or_default();
            let newline = following.first() == Some(&b'\n');
            let rest_of_end = std::mem::replace(&mut self.returned, !newline) && newline;
            if rest_of_end && end.is_empty() && self.begun.is_empty() {
                continue;
            }
            if self.begun.is_empty() {
                line(&String::from_utf8_lossy(end.get(..MAX_LINE).unwrap_or(end)));
            } else {
                self.begin(end);
                self.finish(&mut line);
            }
        }
        self.begin(rest);
    }

    /// Calls `line` for the last line, if the log does not end with a newline.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.begun.is_empty() {
            line(&String::from_utf8_lossy(&self.begun));
            self.begun.clear();
        }
    }

    fn begin(&mut self, part: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        chunks.iter().for_each(|chunk| lines.push(chunk, |line| found.push(line.to_owned())));
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        assert_eq!(lines(&[b"a\nb", b"", b"c\n\nd", b"\n", b"e"]), ["a", "bc", "", "d", "e"]);
    }

    #[test]
    fn a_carriage_return_ends_a_line_too() {
        assert_eq!(lines(&[b"a\rb\r\nc\r", b"\nd\n\ne"]), ["a", "b", "c", "d", "", "e"]);
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let long = vec![b'x'; MAX_LINE];
        let found = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!((found[0].len(), found[1].as_str()), (MAX_LINE, "next"));
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(lines(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }
}
