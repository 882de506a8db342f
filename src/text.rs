//! `clean` and its variants: remove control characters and secrets from text and truncate it. `of_file`: decodes text.
//! The modules shorten command lines, find hidden characters, and remove Markdown, private keys and other secrets.

pub mod command;
mod hidden;
mod markdown;
mod private_keys;
mod secrets;

use std::borrow::Cow;

pub use hidden::is_hidden;
pub use private_keys::without_private_keys;

/// Number of characters after the limit that are also checked, to find a secret that begins before the limit.
const BEHIND_CAP: usize = 256;

/// Returns `text` without control characters (each run becomes one space), truncated to `cap` characters with `…`.
///
/// Invisible characters are also removed (see [`is_hidden`]), because they change what a person reads. Text that looks
/// like a secret becomes `[redacted]`. Images, links and tags of Markdown and HTML are broken up, so that no program
/// loads or renders them.
pub fn clean(text: &str, cap: usize) -> String {
    cleaned(text, cap).into_owned()
}

/// Returns the text that [`clean`] would put in place of `text`; `None` if `text` is clean.
pub(crate) fn replacement(text: &str, cap: usize) -> Option<String> {
    match cleaned(text, cap) {
        Cow::Borrowed(clean) if clean.len() == text.len() => None,
        clean => Some(clean.into_owned()),
    }
}

/// Cleans `text`. Most texts of a report are already clean; they are not copied.
fn cleaned(text: &str, cap: usize) -> Cow<'_, str> {
    // Most texts of a report are names: they contain nothing hidden, and they are shorter than a secret.
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if text.len() < secrets::SHORTEST_TOKEN.min(cap) && text.bytes().all(is_of_name) {
        return Cow::Borrowed(text);
    }
    fn then<'a>(text: Cow<'a, str>, step: impl for<'b> FnOnce(&'b str) -> Cow<'b, str>) -> Cow<'a, str> {
        match text {
            Cow::Borrowed(text) => step(text),
            Cow::Owned(text) => Cow::Owned(step(&text).into_owned()),
        }
    }
    let seen = visible(text, cap.saturating_add(BEHIND_CAP));
    let told = then(seen, secrets::redact);
    let plain = then(told, markdown::defuse);
    then(plain, |text| cut(text.trim_end(), cap))
}

/// Returns the text of a file that a person wrote: UTF-8, or UTF-16 with a byte order mark, which PowerShell 5 writes.
pub fn of_file(bytes: &[u8]) -> Cow<'_, str> {
    let units =
        |of: fn([u8; 2]) -> u16| bytes.chunks_exact(2).skip(1).map(|pair| of([pair[0], pair[1]])).collect::<Vec<_>>();
    match bytes {
        [0xff, 0xfe, ..] => String::from_utf16_lossy(&units(u16::from_le_bytes)).into(),
        [0xfe, 0xff, ..] => String::from_utf16_lossy(&units(u16::from_be_bytes)).into(),
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8_lossy(text),
        text => String::from_utf8_lossy(text),
    }
}

/// Cleans text that was composed of clean texts. Line breaks and spaces are kept.
pub fn clean_keeping_lines(text: &str) -> String {
    let line = |line: &str| {
        let seen: String = line.chars().map(|character| if is_hidden(character) { ' ' } else { character }).collect();
        markdown::defuse(&secrets::redact(&seen)).into_owned()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Returns up to `most` visible characters. Each run of invisible characters becomes one space.
fn visible(text: &str, most: usize) -> Cow<'_, str> {
    // Most texts of a report are short, visible and without spaces.
    if text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len().min(most.saturating_mul(4)));
    let mut blank = true;
    let mut length = 0;
    for character in text.chars() {
        let character = if is_hidden(character) { ' ' } else { character };
        if character == ' ' && blank {
            continue;
        }
        if length == most {
            break;
        }
        blank = character == ' ';
        seen.push(character);
        length += 1;
    }
    Cow::Owned(seen)
}

fn cut(text: &str, cap: usize) -> Cow<'_, str> {
    if text.len() <= cap || text.chars().nth(cap).is_none() {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(cap.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

/// Cleans `text` like [`clean`], but removes the middle of a long text: `head … tail`.
///
/// This is for text that has the reason at its end, such as errors of container runtimes: each layer adds its name before
/// the error of the layer below. The end of the text gets two thirds of `cap`.
pub fn clean_keeping_end(text: &str, cap: usize) -> String {
    // Secrets are removed from the whole text, before the text is truncated.
    without_middle(clean(text, usize::MAX), cap)
}

/// Cleans `text` like [`clean_keeping_end`], but keeps its line breaks, because the form of a program's message is in its
/// lines.
///
/// If a secret extends over several lines, the line breaks are lost.
pub fn clean_lines_keeping_end(text: &str, cap: usize) -> String {
    let whole = clean(text, usize::MAX);
    let lines = text.lines().map(|line| clean(line, usize::MAX)).filter(|line| !line.is_empty());
    let lines = lines.collect::<Vec<_>>().join("\n");
    let marks = |text: &str| text.split_whitespace().collect::<String>();
    // The label of a link definition can extend over several lines.
    let lines = if marks(&lines) == marks(&whole) { lines.replace("]:", "] :") } else { whole };
    without_middle(lines, cap)
}

/// Removes the middle of a clean text that is longer than `cap`.
fn without_middle(cleaned: String, cap: usize) -> String {
    const GAP: &str = " … ";
    let length = cleaned.chars().count();
    let Some(room) = cap.checked_sub(GAP.chars().count()).filter(|room| *room > 1) else { return clean(&cleaned, cap) };
    if length <= cap {
        return cleaned;
    }
    let head: String = cleaned.chars().take(room / 3).collect();
    let tail: String = cleaned.chars().skip(length - (room - room / 3)).collect();
    format!("{}{GAP}{}", head.trim_end(), tail.trim_start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{clean, clean_keeping_end, clean_keeping_lines, clean_lines_keeping_end, is_hidden, of_file};

    #[test]
    fn a_message_keeps_its_lines_unless_a_secret_extends_over_them() {
        let lines = |text| clean_lines_keeping_end(text, 200);
        assert_eq!(
            lines("Traceback:\r\n  File \"a.py\"\n\nKeyError: \u{1b}[31m'x'"),
            "Traceback:\nFile \"a.py\"\nKeyError: [31m'x'"
        );
        assert_eq!(lines("[1]:\n  rank: 0"), "[1] :\nrank: 0");
        let secret = "-----BEGIN PRIVATE KEY-----\nTr0ub4dorTr0ub4dor\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(lines(secret), clean(secret, 200));
        let split = "password:\nTr0ub4dorTr0ub4dor";
        assert!(!lines(split).contains("Tr0ub4dor"), "{}", lines(split));
        assert_eq!(lines("[\nlog\n]: https://evil.example/x"), "[\nlog\n] : https://evil.example/x");
        assert!(clean_lines_keeping_end(&"a b\n".repeat(99), 40).chars().count() <= 40);
    }

    #[test]
    fn a_file_of_any_encoding_of_windows_has_its_text() {
        let utf_16 = |mark: u16, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            std::iter::once(mark).chain("{\"ä\": 1}".encode_utf16()).flat_map(bytes).collect()
        };
        let files = [
            "{\"ä\": 1}".as_bytes().to_vec(),
            "\u{feff}{\"ä\": 1}".as_bytes().to_vec(),
            utf_16(0xfeff, u16::to_le_bytes),
            utf_16(0xfeff, u16::to_be_bytes),
        ];
        for file in files {
            assert_eq!(of_file(&file), "{\"ä\": 1}", "{file:x?}");
        }
    }

    #[test]
    fn a_long_text_keeps_its_head_and_its_end() {
        let runtime = format!("failed to create containerd task: {}: no space left on device", "a layer: ".repeat(60));
        let cut = clean_keeping_end(&runtime, 60);
        assert!(cut.starts_with("failed to create"), "{cut}");
        assert!(cut.ends_with("no space left on device"), "{cut}");
        assert!(cut.contains(" … ") && cut.chars().count() <= 60, "{cut}");
    }

    #[test]
    fn a_text_that_keeps_its_end_is_cleaned_first_and_its_cap_holds() {
        assert_eq!(clean_keeping_end("a\u{1b}[31mb\r\n\tc\u{202e}d", 80), "a [31mb c d");
        assert_eq!(clean_keeping_end("äöüß", 4), "äöüß");
        for cap in 0..12 {
            assert!(clean_keeping_end("äöüß äöüß\u{202e}äöüß", cap).chars().count() <= cap.max(1), "{cap}");
        }
    }

    #[test]
    fn control_characters_never_pass() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\tc\u{202e}d", 80), "a [31mb c d");
    }

    #[test]
    fn truncated_text_is_marked_and_within_the_limit() {
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("äöüß", 4), "äöüß");
        assert_eq!(clean("  abc  ", 4), "abc");
    }

    #[test]
    fn a_secret_at_the_limit_is_recognized() {
        let cleaned = clean(&format!("token hf_{}", "a1".repeat(20)), 12);
        assert!(!cleaned.contains("hf_"), "{cleaned}");
    }

    #[test]
    fn tidying_keeps_lines_and_columns() {
        let table = " NODE   READY\n gpu-1  yes \n\n";
        assert_eq!(clean_keeping_lines(table), table);
        assert_eq!(clean_keeping_lines("a  \u{200b}b\n--token  x"), "a   b\n--token  [redacted]");
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(text in "\\PC{0,40}|[a-z=:/@!\\[\\]() _-]{0,60}", cap in 1_usize..80) {
            let once = clean(&text, cap);
            prop_assert!(once.chars().count() <= cap);
            prop_assert!(!once.chars().any(|character| character != ' ' && is_hidden(character)));
            prop_assert_eq!(clean(&once, cap), once);
        }
    }
}
