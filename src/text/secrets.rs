//! `redact`: replaces secrets in free text: tokens, passwords, private keys, credentials in URLs.
//! `is_of_secret`: whether a name is the name of a secret. `SHORTEST_TOKEN`: the length of the shortest token.
//!
//! A secret is recognized by its format (AWS, Hugging Face, GitHub and other tokens, JSON Web Tokens, private keys), by
//! the word before it (`Bearer`, `--token`, `password:`), by its name (`api_key=…`), or by its position in a URL. Other
//! secrets are not recognized. Text of a node is shown only to the user.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::tsv::rows;

/// Placeholder for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Length of the shortest token, with its prefix.
pub(super) const SHORTEST_TOKEN: usize = 15;

/// Prefixes of tokens, each with the minimum number of characters that follow the prefix.
static SHAPES: LazyLock<Vec<(&str, usize)>> = LazyLock::new(|| {
    rows(include_str!("data/token_shapes.tsv")).filter_map(|row| Some((row[0], row.get(1)?.parse().ok()?))).collect()
});

/// Placeholder for words that were already omitted.
const LEFT_OUT: &str = "…";

/// What the previous word shows about the next word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Plain,
    /// The next word is a secret.
    Secret,
    /// The next word is a secret if it looks random.
    SecretIfRandom,
    /// The next word continues a value in quotes.
    UntilQuote(char),
    /// The next word continues a private key.
    UntilPemEnd,
}

/// Returns `text` without secrets. Its words must be separated by single spaces.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    if !is_suspicious(text) {
        return Cow::Borrowed(text);
    }
    let mut told = String::with_capacity(text.len());
    let mut next = Next::Plain;
    for (place, word) in text.split(' ').enumerate() {
        let (shown, then) = word_after(next, word);
        next = then;
        if place > 0 && (word.is_empty() || !shown.is_empty()) {
            told.push(' ');
        }
        told.push_str(&shown);
    }
    Cow::Owned(told)
}

/// Returns whether the text can contain a secret. This check is fast, since it runs for every string of a report.
fn is_suspicious(text: &str) -> bool {
    // Numbers, times, PCI addresses and UUIDs do not contain the name of a secret or the start of a token.
    let is_of_number = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'-' | b'T' | b'Z');
    if text.bytes().all(is_of_number) {
        return false;
    }
    let has_scheme = || ["earer", "asic", "BEARER", "BASIC"].iter().any(|scheme| text.contains(scheme));
    let has_shape = || SHAPES.iter().any(|(start, least)| text.len() >= start.len() + least && text.contains(start));
    // The word after a scheme such as `Bearer` is a credential.
    text.bytes().any(|byte| matches!(byte, b'=' | b':' | b'@'))
        || text.contains("--")
        || text.contains(' ') && has_scheme()
        || has_shape()
}

/// Returns the word without secrets, and what the word means for the next word.
fn word_after(before: Next, word: &str) -> (String, Next) {
    if word.is_empty() {
        return (String::new(), before);
    }
    match before {
        Next::UntilQuote(quote) => {
            let then = if word.contains(quote) { Next::Plain } else { before };
            return (String::new(), then);
        }
        Next::UntilPemEnd => {
            let then = if word.contains("-----END") { Next::Plain } else { before };
            return (String::new(), then);
        }
        Next::Secret if scheme(word).is_some() => return (word.to_owned(), Next::Secret),
        Next::Secret if word != LEFT_OUT => return (REDACTED.to_owned(), Next::Plain),
        Next::SecretIfRandom if is_random(word) => return (REDACTED.to_owned(), Next::Plain),
        _ => {}
    }
    if word.contains("-----BEGIN") {
        return (REDACTED.to_owned(), Next::UntilPemEnd);
    }
    if let Some(then) = scheme(word) {
        return (word.to_owned(), then);
    }
    let word = without_userinfo(word);
    let (word, then) = without_values(&word);
    (without_shapes(&word), then)
}

/// If `word` is an authentication scheme, returns how to treat the next word, because that is the credential. `None`
/// for other words.
fn scheme(word: &str) -> Option<Next> {
    let bare = word.trim_matches(|character: char| !character.is_ascii_alphanumeric());
    match bare.to_ascii_lowercase().as_str() {
        "bearer" => Some(Next::Secret),
        "basic" => Some(Next::SecretIfRandom),
        _ => None,
    }
}

/// Returns whether a word looks random: a long word with a digit, or a very long word.
fn is_random(word: &str) -> bool {
    let bare = word.trim_matches(|character: char| !character.is_ascii_alphanumeric());
    bare.len() >= 24 || (bare.len() >= 8 && bare.bytes().any(|byte| byte.is_ascii_digit()))
}

/// Replaces `user:password` in `https://user:password@host` with [`REDACTED`].
fn without_userinfo(word: &str) -> Cow<'_, str> {
    let Some(start) = word.find("://").map(|at| at + 3) else { return Cow::Borrowed(word) };
    let end = word[start..].find(['/', '?', '#']).map_or(word.len(), |at| start + at);
    match word[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}{REDACTED}{}", &word[..start], &word[start + at..])),
        // A password may contain a slash.
        None if word[end..].contains('@') && word[start..end].contains(':') && !has_port(&word[start..end]) => {
            let at = word.rfind('@').unwrap_or(end);
            Cow::Owned(format!("{}{REDACTED}{}", &word[..start], &word[at..]))
        }
        None => Cow::Borrowed(word),
    }
}

fn has_port(authority: &str) -> bool {
    let port = authority.rsplit(':').next().unwrap_or_default();
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes the values of `name=value`, `name:value` and similar, if this is the name of a secret. Also returns what the
/// text means for the next word: if the text ends with such a name, the next word is a secret.
fn without_values(word: &str) -> (String, Next) {
    let mut shown = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['=', ':']) {
        let (head, tail) = rest.split_at(at);
        let (mark, value) = tail.split_at(1);
        shown.push_str(head);
        shown.push_str(mark);
        let name = name_before(head);
        if !is_of_secret(name) || is_requirement(mark, value) {
            rest = value;
            continue;
        }
        let quoted = value.trim_start_matches('\\').chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
        match quoted {
            _ if value.is_empty() => {
                let surely = mark == "=" || is_password(name);
                return (shown, if surely { Next::Secret } else { Next::SecretIfRandom });
            }
            Some(quote) => {
                let inside = value.find(quote).map_or(0, |at| at + 1);
                shown.push_str(REDACTED);
                match value[inside..].find(quote) {
                    Some(end) => rest = &value[inside + end + 1..],
                    None => return (shown, Next::UntilQuote(quote)),
                }
            }
            None => {
                let end = value.find('&').unwrap_or(value.len());
                if is_count(name, &value[..end]) || &value[..end] == LEFT_OUT {
                    shown.push_str(&value[..end]);
                } else {
                    shown.push_str(REDACTED);
                }
                rest = &value[end..];
            }
        }
    }
    shown.push_str(rest);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_option = |name: &&str| shown.len() == name.len() + 2 && name.bytes().all(plain) && is_of_secret(name);
    let option = rest.strip_prefix("--").filter(is_option);
    (shown, if option.is_some() { Next::Secret } else { Next::Plain })
}

/// Returns the name before a `=`, as in `{"api_key"`.
fn name_before(head: &str) -> &str {
    let head = head.trim_end_matches(['"', '\'', '`', '\\']);
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    let start = head.char_indices().rev().take_while(|(_, character)| plain(*character)).last();
    start.map_or("", |(at, _)| &head[at..])
}

/// Returns whether a name is the name of a secret: `HF_TOKEN`, `api-key`, `clientSecret`, `password2`.
pub(super) fn is_of_secret(name: &str) -> bool {
    const PARTS: [&str; 9] =
        ["token", "key", "secret", "password", "passwd", "passphrase", "credential", "authorization", "cookie"];
    // The name `tokenizer` contains `token` but is not a secret.
    let name = name.to_ascii_lowercase().replace("tokeniz", "");
    PARTS.iter().any(|part| name.contains(part))
        || name.split(['-', '_', '.']).any(|part| matches!(part, "pwd" | "pass"))
}

fn is_password(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "authorization", "secret", "apikey", "api_key", "api-key"]
        .iter()
        .any(|word| name.ends_with(word))
}

/// Returns whether the value is the version in a requirement of a Python package: `keyring==24.3.0`.
fn is_requirement(mark: &str, value: &str) -> bool {
    let Some(version) = value.strip_prefix('=').filter(|_| mark == "=") else { return false };
    let version = version.split([',', ';', ')', '\'', '"']).next().unwrap_or(version).trim_end_matches('.');
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.len() < 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() > 1
        && parts.len() < 6
        && parts.iter().take(2).all(is_number)
        && parts.iter().all(|part| part.len() < 12)
}

/// Returns whether the value is a number of tokens of a language model.
fn is_count(name: &str, value: &str) -> bool {
    name.to_ascii_lowercase().contains("tokens") && value.len() <= 9 && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the word without tokens of a known format.
fn without_shapes(word: &str) -> String {
    let mut shown = String::new();
    let mut rest = word;
    'word: while !rest.is_empty() {
        for (at, _) in rest.char_indices() {
            let begins = !rest[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
            let found = SHAPES.iter().filter(|_| begins).find_map(|(start, least)| {
                let tail = rest[at..].strip_prefix(start)?;
                let length = tail.bytes().take_while(|byte| is_of_token(*byte)).count();
                (length >= *least).then_some(at + start.len() + length)
            });
            if let Some(end) = found {
                shown.push_str(&rest[..at]);
                shown.push_str(REDACTED);
                rest = &rest[end..];
                continue 'word;
            }
        }
        break;
    }
    shown.push_str(rest);
    shown
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'=' | b'~')
}

#[cfg(test)]
mod tests {
    use super::{SHAPES, SHORTEST_TOKEN, redact};
    use crate::text::clean;

    #[test]
    fn no_token_is_shorter_than_the_shortest() {
        assert_eq!(SHAPES.iter().map(|(start, least)| start.len() + least).min(), Some(SHORTEST_TOKEN));
    }

    /// A secret without a recognizable format.
    const SECRET: &str = "Tr0ub4dor";

    #[test]
    fn values_with_the_name_of_a_secret_are_removed() {
        for text in [
            "https://user:Tr0ub4dor@registry.example/v2/",
            "https://Tr0ub4dor@registry.example",
            "https://user:Tr0/ub4@x.example",
            "Authorization: Bearer Tr0ub4dor",
            "authorization: basic Tr0ub4dor==",
            "got header 'Bearer Tr0ub4dor'",
            "--token Tr0ub4dor --next",
            "--api-key=Tr0ub4dor",
            "HF_TOKEN=Tr0ub4dor",
            "clientSecret=Tr0ub4dor",
            "password: Tr0ub4dor",
            "password = x", // nothing is next to the name
            "{\"password\":\"Tr0ub4dor\"}",
            "{\\\"api_key\\\":\\\"Tr0ub4dor\\\"}",
            "secret='a Tr0ub4dor b' end",
            "https://x.example/?access_token=Tr0ub4dor&y=1",
            "DB_PASS=Tr0ub4dor",
            "-----BEGIN RSA PRIVATE KEY----- Tr0ub4dor -----END RSA PRIVATE KEY----- after",
        ] {
            let told = redact(text);
            assert!(!told.contains(SECRET) && !told.contains("ub4"), "{text} → {told}");
        }
        assert_eq!(
            redact("https://x.example/?access_token=Tr0ub4dor&y=1"),
            "https://x.example/?access_token=[redacted]&y=1"
        );
        assert_eq!(redact("--token Tr0ub4dor --next"), "--token [redacted] --next");
        assert_eq!(redact("secret='a b' end"), "secret=[redacted] end");
    }

    #[test]
    fn tokens_of_a_known_shape_are_not_shown_wherever_they_stand() {
        let random = "a1B2c3D4e5F6g7H8i9J0";
        for token in [
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            format!("hf_{random}"),
            format!("ghp_{random}"),
            format!("nvapi-{random}"),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl".to_owned(),
        ] {
            for text in [token.clone(), format!("x {token} y"), format!("a={token},b"), format!("(\"{token}\")")] {
                let told = clean(&text, 200);
                assert!(!told.contains(&token[..12]) && told.contains("redacted"), "{text} → {told}");
            }
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "couldn't find key nvidia.com/gpu in Secret ml/registry",
            "invalid token: expired",
            "max_tokens=4096 seed=1",
            "ImportError: tokenizers>=0.21,<0.22 is required, but found tokenizers==0.20.3. Try: pip install -U tokenizers",
            "keyring==24.3.0 and cookiecutter==2.6",
            "tokenizer_version: 0.20.3",
            "its credentials with --image-pull-secret, a mirror with --registry-mirror",
            "basic.service: Main process exited, code=exited, status=1/FAILURE",
            "http://10.0.0.1:6443/api/v1/nodes/gpu-1@x",
            "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd",
            "00000000:5d:00.0",
            "2026-11-21T02:31:07Z",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
