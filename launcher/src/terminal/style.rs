//! `paint`, `named`, `headline`: mark words with a colour (`Paint`) by severity. `without_marks`: shows or drops the
//! colours. A coloured word contains invisible marks until it is printed, so that layout and cleaning see plain text.

use anstyle::{AnsiColor, Style};
use diagnosis::finding::Verdict;
use diagnosis::health::HealthStatus;
use serde::Serialize;
use syringe_core::classification::Severity;

use crate::answer::wire::variant_name::variant_name;

/// Colour of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// The object is out of service or lost.
    Fatal,
    /// The object needs action.
    Critical,
    /// The object works, but has a defect.
    Warning,
    /// The object has no fault.
    Good,
    /// The state is not known.
    Unknown,
}

const PAINTS: [Paint; 5] = [Paint::Fatal, Paint::Critical, Paint::Warning, Paint::Good, Paint::Unknown];
/// Marks are tag characters of Unicode. They have no width, and `syringe_core::text::clean` removes them from untrusted
/// text.
const FIRST_MARK: u32 = 0xE0041;
const END_MARK: char = '\u{E007F}';

impl Paint {
    fn mark(self) -> char {
        char::from_u32(FIRST_MARK + self as u32).unwrap_or(END_MARK)
    }

    fn style(self) -> Style {
        match self {
            Self::Fatal => AnsiColor::Red.on_default().bold(),
            Self::Critical => AnsiColor::Red.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Unknown => AnsiColor::Magenta.on_default(),
        }
    }
}

/// A value that is printed in a colour.
pub(crate) trait HasPaint: Copy + Serialize {
    fn paint(self) -> Option<Paint>;
}

impl HasPaint for Severity {
    fn paint(self) -> Option<Paint> {
        match self {
            Severity::Info => None,
            Severity::Warning => Some(Paint::Warning),
            Severity::Critical => Some(Paint::Critical),
            Severity::Fatal => Some(Paint::Fatal),
        }
    }
}

impl HasPaint for Verdict {
    fn paint(self) -> Option<Paint> {
        Some(match self {
            Verdict::Healthy | Verdict::NoFaultFound => Paint::Good,
            Verdict::Unknown => Paint::Unknown,
            Verdict::Warning => Paint::Warning,
            Verdict::Critical => Paint::Critical,
            Verdict::Fatal => Paint::Fatal,
        })
    }
}

impl HasPaint for HealthStatus {
    fn paint(self) -> Option<Paint> {
        Some(match self {
            HealthStatus::Healthy => Paint::Good,
            HealthStatus::Unknown => Paint::Unknown,
            HealthStatus::Degraded => Paint::Warning,
            HealthStatus::Unhealthy => Paint::Critical,
        })
    }
}

/// Colours a text. Each word is coloured separately, so that a line may break between words.
pub(crate) fn paint(text: &str, paint: impl Into<Option<Paint>>) -> String {
    let Some(paint) = paint.into() else { return text.to_owned() };
    let word = |word: &str| format!("{}{word}{END_MARK}", paint.mark());
    text.split(' ').map(|part| if part.is_empty() { String::new() } else { word(part) }).collect::<Vec<_>>().join(" ")
}

/// Returns the name of a severity, verdict or status as in JSON, coloured: `fatal`.
pub(crate) fn named(value: impl HasPaint) -> String {
    paint(&variant_name(value), value.paint())
}

/// Returns the name as the headline of an answer, coloured: `NO FAULT FOUND`.
pub(crate) fn headline(value: impl HasPaint) -> String {
    paint(&variant_name(value).replace('_', " ").to_uppercase(), value.paint())
}

/// Replaces each part of the text outside the marks with the result of `plain`, and keeps the marks.
pub(super) fn map_plain(text: &str, mut plain: impl FnMut(&str) -> String) -> String {
    let mut mapped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_mark) {
        let mark = rest[at..].chars().next().unwrap_or_default();
        mapped.push_str(&plain(&rest[..at]));
        mapped.push(mark);
        rest = &rest[at + mark.len_utf8()..];
    }
    mapped + &plain(rest)
}

/// Replaces the marks with escape sequences, or removes them.
pub(super) fn without_marks(text: &str, colored: bool) -> String {
    let mut printed = String::with_capacity(text.len());
    let mut open = None;
    for letter in text.chars() {
        let paint = PAINTS.into_iter().find(|paint| paint.mark() == letter);
        let ends = letter == END_MARK || letter == '\n';
        if let Some(style) = open.take_if(|_| ends || paint.is_some()) {
            printed.push_str(&reset(style));
        }
        match paint {
            Some(paint) if colored => printed.push_str(&open.insert(paint.style()).render().to_string()),
            Some(_) => {}
            None if letter == END_MARK => {}
            None => printed.push(letter),
        }
    }
    printed + &open.map(reset).unwrap_or_default()
}

fn reset(style: Style) -> String {
    style.render_reset().to_string()
}

fn is_mark(letter: char) -> bool {
    letter == END_MARK || PAINTS.iter().any(|paint| paint.mark() == letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_painted_word_is_plain_without_colour() {
        let text = format!("[{}] {}", named(Severity::Fatal), headline(Verdict::NoFaultFound));
        assert_eq!(without_marks(&text, false), "[fatal] NO FAULT FOUND");
        let colored = without_marks(&text, true);
        assert!(colored.contains("\x1b[1m\x1b[31mfatal\x1b[0m]"), "{colored:?}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), "[fatal] NO FAULT FOUND");
    }

    #[test]
    fn no_colour_outlives_its_line() {
        let mark = Paint::Fatal.mark();
        let colored = without_marks(&format!("{mark}a\nb{mark}c"), true);
        assert!(colored.contains("a\x1b[0m\nb") && colored.ends_with("c\x1b[0m"), "{colored:?}");
    }

    #[test]
    fn foreign_text_cannot_carry_marks() {
        let hostile: String = PAINTS.iter().map(|paint| paint.mark()).chain([END_MARK]).collect();
        let cleaned = syringe_core::text::clean(&format!("a{hostile}b"), 80);
        assert!(!cleaned.contains(is_mark), "{cleaned:?}");
    }
}
