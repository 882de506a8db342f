//! `without_private_keys`: removes private keys that span several lines.
//!
//! The other functions clean each line of a log separately, so they would keep all lines of a key after its first line.
//! The beginning or the end of a key can be missing, because only the end of a log is read.

use super::secrets::REDACTED;

/// Number of characters in each line of a key, except for the last line.
const LINE: usize = 64;

/// The kind of text to which the previous line belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    Key,
    /// The rest of a key whose beginning is missing.
    Rest,
}

/// Returns the lines without the lines of private keys. The first line of a key keeps the text before it.
pub fn without_private_keys<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut inside = Inside::Nothing;
    for line in lines {
        let begin = line.find("-----BEGIN").filter(|at| line[*at..].contains("KEY"));
        let end = line.find("-----END");
        inside = match (inside, begin, end) {
            // The whole key is in one line.
            (Inside::Nothing, Some(begin), Some(end)) if begin < end => {
                kept.push(line.to_owned());
                Inside::Nothing
            }
            (_, Some(begin), _) => {
                kept.push(format!("{}{REDACTED}", &line[..begin]));
                Inside::Key
            }
            (Inside::Key | Inside::Rest, None, Some(_)) => Inside::Nothing,
            (Inside::Key, None, None) if is_of_key(line) => Inside::Key,
            (Inside::Rest, None, None) if is_base64(line) => Inside::Rest,
            (Inside::Nothing, None, _) if is_base64(line) && line.trim().len() >= LINE => {
                kept.push(REDACTED.to_owned());
                Inside::Rest
            }
            // A key does not contain other text, so its end is missing.
            (_, None, _) => {
                kept.push(line.to_owned());
                Inside::Nothing
            }
        };
    }
    kept
}

/// Returns whether the line can be inside a key: base64, a header such as `Proc-Type: 4,ENCRYPTED`, or an empty line.
fn is_of_key(line: &str) -> bool {
    let header = |line: &str| ["Proc-Type:", "DEK-Info:"].iter().any(|name| line.starts_with(name));
    line.trim().is_empty() || is_base64(line) || header(line.trim())
}

fn is_base64(line: &str) -> bool {
    let line = line.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    !line.is_empty() && line.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lines: usize) -> String {
        let body: String =
            (0..lines).map(|line| format!("{}{line:04}\n", "MIIEvQIBADANBgkq".repeat(4)[..60].to_owned())).collect();
        format!("-----BEGIN RSA PRIVATE KEY-----\n{body}c2VjcmV0==\n-----END RSA PRIVATE KEY-----\n")
    }

    #[test]
    fn no_line_of_a_key_stays_wherever_the_log_is_cut() {
        let text = format!("before\nkey: {}after\n", key(50));
        let all: Vec<&str> = text.lines().collect();
        for first in 0..all.len() {
            for last in first..=all.len() {
                let kept = without_private_keys(all[first..last].iter().copied());
                assert!(!kept.iter().any(|line| line.contains("MIIE")), "{first}..{last}: {kept:?}");
                let after = all[first..last].contains(&"after");
                assert_eq!(kept.iter().any(|line| line == "after"), after, "{first}..{last}: {kept:?}");
            }
        }
        assert_eq!(without_private_keys(all), ["before", "key: [redacted]", "after"]);
    }

    #[test]
    fn other_lines_stay() {
        let lines =
            ["ready", "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd", "-----BEGIN CERTIFICATE-----", "", "x -----END"];
        assert_eq!(without_private_keys(lines), lines);
        let one = "-----BEGIN PRIVATE KEY----- MIIE -----END PRIVATE KEY----- after";
        assert_eq!(without_private_keys([one, "next"]), [one, "next"]);
    }
}
