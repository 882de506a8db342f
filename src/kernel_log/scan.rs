//! `after`, `between`, `word`, `decimal`, `hex` and others: find markers, words and numbers in a text.
//! `unescape`, `unescape_octal`: decode escaped characters.

/// Returns the text after the first `marker`.
pub(super) fn after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let at = memchr::memmem::find(text.as_bytes(), marker.as_bytes())?;
    text.get(at + marker.len()..)
}

/// Returns the text before and after the first comma that is followed by a space.
pub(super) fn split_list(text: &str) -> Option<(&str, &str)> {
    let mut commas = memchr::memchr_iter(b',', text.as_bytes());
    let at = commas.find(|at| text.as_bytes().get(at + 1) == Some(&b' '))?;
    Some((text.get(..at)?, text.get(at + 2..)?))
}

/// Returns the text before and after the first occurrence of an ASCII character. Faster than `str::split_once` on long text.
pub(super) fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    debug_assert!(byte.is_ascii(), "the separator must be ASCII: any other byte is only a part of a character");
    let at = memchr::memchr(byte, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Returns the text between `open` and the next `close`.
pub(super) fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let rest = after(text, open)?;
    rest.find(close).and_then(|at| rest.get(..at))
}

/// Returns the text up to the first byte that cannot be part of a word (`A-Z a-z 0-9 _ - .` and `/`), and the rest.
pub(super) fn word(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !(byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)));
    text.split_at(end.unwrap_or(text.len()))
}

/// Parses a decimal number at the start of `text`. Returns the number and the rest.
pub(super) fn decimal(text: &str) -> Option<(u64, &str)> {
    let (mut value, mut end) = (0_u64, 0);
    for digit in text.bytes().take_while(u8::is_ascii_digit) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    (end > 0).then(|| (value, text.split_at(end).1))
}

/// Parses a decimal number with an optional minus sign.
pub(super) fn signed(text: &str) -> Option<(i64, &str)> {
    match text.strip_prefix('-') {
        Some(digits) => decimal(digits).and_then(|(number, rest)| Some((-i64::try_from(number).ok()?, rest))),
        None => decimal(text).and_then(|(number, rest)| Some((i64::try_from(number).ok()?, rest))),
    }
}

/// Parses a hexadecimal number at the start of `text`, with or without `0x`. A `_` in the number is skipped.
pub(super) fn hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let (mut value, mut length, mut end) = (0_u64, 0, digits.len());
    for (at, byte) in digits.bytes().enumerate() {
        match char::from(byte).to_digit(16) {
            Some(digit) => {
                length += 1;
                value = value << 4 | u64::from(digit);
            }
            None if byte == b'_' && length > 0 => {}
            None => {
                end = at;
                break;
            }
        }
    }
    (1..=16).contains(&length).then(|| (value, digits.split_at(end).1))
}

/// Returns the hexadecimal number of up to 16 digits after `marker`, as `0x…` in lower case without leading zeroes.
pub(super) fn hex_after(text: &str, marker: &str) -> Option<String> {
    let (value, _) = hex(after(text, marker)?.trim_start())?;
    Some(format!("{value:#x}"))
}

/// Returns the decimal number after `marker`.
pub(super) fn decimal_after(text: &str, marker: &str) -> Option<u64> {
    decimal(after(text, marker)?.trim_start()).map(|(number, _)| number)
}

/// Returns the word after `marker`, if there is a word.
pub(super) fn word_after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let (found, _) = word(after(text, marker)?.trim_start());
    let found = found.trim_end_matches('.');
    (!found.is_empty()).then_some(found)
}

/// Decodes `\xNN`, which the kernel prints for a byte that is not plain text. Borrows the text if nothing is escaped.
pub(super) fn unescape(text: &str) -> std::borrow::Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match bytes.get(at..at + 4) {
            Some(&[b'\\', b'x', high, low]) => nibble(high).zip(nibble(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                plain.push(high << 4 | low);
                at += 4;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    match String::from_utf8(plain) {
        Ok(plain) => plain.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}

/// Decodes `#NNN`, the octal form in which rsyslog prints a control character. Borrows the text if nothing is escaped.
pub(super) fn unescape_octal(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("#0") {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        plain.push_str(before);
        let digits = after.get(..3).filter(|digits| digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)));
        let control = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii_control);
        rest = match control {
            Some(byte) => {
                plain.push(char::from(byte));
                after.get(3..).unwrap_or_default()
            }
            None => {
                plain.push('#');
                after
            }
        };
    }
    plain.push_str(rest);
    plain.into()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_reverted_and_other_text_is_kept() {
        assert_eq!(unescape(r"a\x0ab\x5cc"), "a\nb\\c");
        assert_eq!(unescape(r"\x4 \xzz \x"), r"\x4 \xzz \x");
        assert_eq!(unescape(r"\xc3\xa4\xff"), "ä\u{fffd}");
    }

    #[test]
    fn control_characters_of_rsyslog_are_undone() {
        assert_eq!(unescape_octal("a#012b#011c#033[0m"), "a\nb\tc\u{1b}[0m");
        assert_eq!(unescape_octal("ticket #0123, #08 #"), "ticket \n3, #08 #");
        assert_eq!(unescape_octal("bug #141 #101"), "bug #141 #101", "letters are never escaped");
    }

    #[test]
    fn numbers_stop_where_they_end() {
        assert_eq!(decimal("12, rest"), Some((12, ", rest")));
        assert_eq!(decimal("99999999999999999999"), None);
        assert_eq!(signed("-1,"), Some((-1, ",")));
        assert_eq!(hex("0x7f29_5b8c9000. Fault"), Some((0x7f29_5b8c_9000, ". Fault")));
        assert_eq!(hex("0x"), None);
        assert_eq!(hex("_1"), None);
        assert_eq!(hex("11112222333344445"), None);
    }
}
