//! One message of the driver that a text log shows as several lines, put together again.
//!
//! The kernel's buffer keeps such a message in one record; `dmesg` and syslog print its lines one by one, with other
//! lines possibly in between. Two messages matter: the GPU that fell off the bus at probe, and the API mismatch.

/// How a message begins, and what the last of its lines contains.
const MESSAGES: [(&str, &str); 2] =
    [("NVRM: The NVIDIA GPU ", "fallen off the bus"), ("NVRM: API mismatch: ", "kernel module has the version")];

/// Driver lines after the first within which a message must end.
const REACH: u32 = 4;

/// A message that has begun.
#[derive(Debug)]
pub(super) struct Pending {
    text: String,
    last_contains: &'static str,
    left: u32,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is no part of a message.
    Alone,
    /// It was kept.
    Kept,
    /// It ended the message, whose whole text this is.
    Done(String),
    /// The message never ended: its lines so far. The line itself is no part of it.
    GivenUp(String),
}

/// Whether a text opens a message whose end is missing.
pub(super) fn opens(text: &str) -> Option<Pending> {
    let (_, last_contains) = MESSAGES.iter().find(|(first, last)| text.starts_with(first) && !text.contains(last))?;
    Some(Pending { text: text.trim_end().to_owned(), last_contains, left: REACH })
}

impl Pending {
    /// Offers the next line of the driver.
    pub(super) fn offer(&mut self, text: &str) -> Step {
        let Some(part) = text.strip_prefix("NVRM: ") else { return Step::Alone };
        let continues = part.starts_with("(PCI ID: ") || part.contains("installed in this system");
        let ends = part.contains(self.last_contains);
        if !continues && !ends {
            self.left = self.left.saturating_sub(1);
            return if self.left == 0 { Step::GivenUp(std::mem::take(&mut self.text)) } else { Step::Alone };
        }
        self.text.push(' ');
        self.text.push_str(part.trim_end());
        if ends { Step::Done(std::mem::take(&mut self.text)) } else { Step::Kept }
    }

    /// The lines so far, when the log ends.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_three_lines_is_one_message_even_with_others_between() {
        let mut pending = opens("NVRM: The NVIDIA GPU 0000:b3:00.0").expect("a beginning");
        assert_eq!(pending.offer("NVRM: (PCI ID: 10de:26b5) installed in this system has"), Step::Kept);
        assert_eq!(pending.offer("usb 1-1: new device"), Step::Alone);
        assert_eq!(pending.offer("NVRM: something else"), Step::Alone);
        let whole = "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system has \
                     fallen off the bus and is not responding to commands.";
        assert_eq!(
            pending.offer("NVRM: fallen off the bus and is not responding to commands."),
            Step::Done(whole.to_owned())
        );
    }

    #[test]
    fn a_message_that_never_ends_is_given_up() {
        let mut pending = opens("NVRM: API mismatch: the client has the version 1.2, but").expect("a beginning");
        let steps: Vec<Step> = (0..4).map(|_| pending.offer("NVRM: other")).collect();
        assert!(matches!(steps.last(), Some(Step::GivenUp(text)) if text.ends_with("1.2, but")));
        assert!(opens("NVRM: loading NVIDIA UNIX").is_none());
    }
}
