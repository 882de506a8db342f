//! `PartialMessage`: joins driver messages that a text log splits into several lines.
//! `start`: whether a line begins such a message.
//!
//! The kernel buffer stores such a message in one record. `dmesg` and syslog print the lines separately, possibly with
//! other lines in between.

/// The format of a message that consists of several lines.
struct Shape {
    /// Prefix of the first line.
    begins: &'static str,
    /// A text is complete if it contains one of these parts.
    whole: &'static [&'static str],
    /// Parts of the lines after the first line.
    further: &'static [&'static str],
}

const SHAPES: [Shape; 3] = [
    // A GPU that fell off the bus during initialization, or a GPU that this driver does not support.
    Shape {
        begins: "NVRM: The NVIDIA GPU ",
        whole: &["fallen off the bus", "is not supported", "requires use of", "supported through"],
        further: &["(PCI ID: ", "installed in this system", "fallen off the bus"],
    },
    // Lines: `the client has the version X, but / this kernel module has the version Y`, and since R5xx
    // `the client 'NAME' (pid N) / has the version X, but this kernel module has / the version Y`.
    Shape {
        begins: "NVRM: API mismatch: ",
        whole: &["kernel module has the version "],
        further: &["has the version ", "this kernel module has", "the version ", "kernel module has the version"],
    },
    Shape {
        begins: "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid",
        whole: &[" @ 0x"],
        further: &["BAR"],
    },
];

/// Maximum number of driver lines after the first line of a message. The message must be complete within these lines.
const REACH: u32 = 4;

#[derive(Debug)]
pub(super) struct PartialMessage {
    text: String,
    shape: usize,
    left: u32,
}

/// How a line was used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineUse {
    /// The line is not part of the message.
    NotPart,
    /// The line was added to the message.
    Kept,
    /// The line completed the message. The value is the complete text.
    Completes(String),
    /// The message was not completed. The value contains its lines so far. The new line is not part of the message.
    GivenUp(String),
}

/// Returns the incomplete message if a text is the first line of a message of several lines.
pub(super) fn start(text: &str) -> Option<PartialMessage> {
    if !text.starts_with("NVRM: ") {
        return None;
    }
    let shape = SHAPES.iter().position(|shape| text.starts_with(shape.begins))?;
    // A record of the kernel buffer contains all lines.
    let joined = text.replace("\nNVRM: ", " ");
    let pending = PartialMessage { text: joined.trim_end().to_owned(), shape, left: REACH };
    (!pending.is_whole()).then_some(pending)
}

impl PartialMessage {
    fn shape(&self) -> &'static Shape {
        &SHAPES[self.shape.min(SHAPES.len() - 1)]
    }

    fn is_whole(&self) -> bool {
        self.shape().whole.iter().any(|words| self.text.contains(words))
    }

    /// Adds the next driver line if the line belongs to the message.
    pub(super) fn add_line(&mut self, text: &str) -> LineUse {
        let Some(part) = text.strip_prefix("NVRM: ") else { return LineUse::NotPart };
        let further = self.shape().further.iter().any(|words| part.starts_with(words) || part.contains(words));
        if !further || text.starts_with(self.shape().begins) {
            self.left = self.left.saturating_sub(1);
            return if self.left == 0 { LineUse::GivenUp(std::mem::take(&mut self.text)) } else { LineUse::NotPart };
        }
        self.text.push(' ');
        self.text.push_str(part.trim_end());
        if self.is_whole() { LineUse::Completes(std::mem::take(&mut self.text)) } else { LineUse::Kept }
    }

    /// Returns the lines so far. Called at the end of the log.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_three_lines_is_one_message_even_with_others_between() {
        let mut pending = start("NVRM: The NVIDIA GPU 0000:b3:00.0").expect("a beginning");
        assert_eq!(pending.add_line("NVRM: (PCI ID: 10de:26b5) installed in this system has"), LineUse::Kept);
        assert_eq!(pending.add_line("usb 1-1: new device"), LineUse::NotPart);
        assert_eq!(pending.add_line("NVRM: something else"), LineUse::NotPart);
        let whole = "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system has \
                     fallen off the bus and is not responding to commands.";
        assert_eq!(
            pending.add_line("NVRM: fallen off the bus and is not responding to commands."),
            LineUse::Completes(whole.to_owned())
        );
    }

    #[test]
    fn a_message_that_never_ends_is_given_up() {
        let mut pending = start("NVRM: API mismatch: the client has the version 1.2, but").expect("a beginning");
        let steps: Vec<LineUse> = (0..4).map(|_| pending.add_line("NVRM: other")).collect();
        assert!(matches!(steps.last(), Some(LineUse::GivenUp(text)) if text.ends_with("1.2, but")));
        assert!(start("NVRM: loading NVIDIA UNIX").is_none());
    }

    #[test]
    fn both_wordings_of_a_version_mismatch_end_with_the_second_version() {
        for lines in [
            &[
                "NVRM: API mismatch: the client has the version 535.54.03, but",
                "NVRM: this kernel module has the version 535.86.10.  Please",
            ][..],
            &[
                "NVRM: API mismatch: the client 'nvidia-smi' (pid 4711)",
                "NVRM: has the version 535.54.03, but this kernel module has",
                "NVRM: the version 535.86.10.  Please make sure that this",
            ],
        ] {
            let mut pending = start(lines[0]).expect("a beginning");
            let (last, between) = lines[1..].split_last().expect("more lines");
            assert!(between.iter().all(|line| pending.add_line(line) == LineUse::Kept));
            assert!(
                matches!(pending.add_line(last), LineUse::Completes(text) if text.contains("has the version 535.86.10"))
            );
        }
    }
}
