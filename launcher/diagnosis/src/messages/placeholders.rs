//! `host`: finds a configuration placeholder in a message that should name a host. `advice`: the action for it.
//!
//! A program with such a name fails like a program without a network, but the network and the name server work.

use syringe_core::text::clean;

/// Words that come before the name of a host, in lower case.
const BEFORE: [&str; 8] = [
    "could not resolve host: ",
    "could not resolve hostname ",
    "temporary failure resolving ",
    "unable to resolve host address ",
    "unknown host: ",
    "lookup ",
    "http://",
    "https://",
];

/// Words that are used as placeholders, in lower case.
const WORDS: [&str; 6] = ["changeme", "change-me", "change_me", "replace-me", "replace_me", "placeholder"];

/// Maximum length of a name.
const MAX_NAME: usize = 80;

/// Returns the placeholder that a message contains instead of a host name.
pub(crate) fn host(message: &str) -> Option<String> {
    let lower = message.to_ascii_lowercase();
    let places = BEFORE.iter().flat_map(|words| lower.match_indices(words).map(|(at, words)| at + words.len()));
    let names = places.map(|at| message[at..].trim_start_matches(['"', '\'', '`']));
    let names = names.map(|rest| {
        let end = rest.find(|one: char| one.is_whitespace() || "\"'`/,;:)".contains(one)).unwrap_or(rest.len());
        &rest[..end]
    });
    names.into_iter().find(|name| is_placeholder(name)).map(|name| clean(name, MAX_NAME))
}

/// Returns whether a name is a placeholder: a variable that was not replaced, a word such as `changeme`, or a name with
/// only capital letters, which host names in configurations do not have.
fn is_placeholder(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_variable =
        name.starts_with("${") || name.starts_with("{{") || (name.starts_with('<') && name.ends_with('>'));
    let is_capital = name.len() > 4 && name.bytes().all(|byte| byte.is_ascii_uppercase() || b"_-".contains(&byte));
    is_variable || is_capital || WORDS.iter().any(|word| lower.contains(word)) || lower.starts_with("your-")
}

/// Returns the action for a placeholder instead of a host name.
pub(crate) fn advice(name: String) -> String {
    format!(
        "{name} looks like a placeholder. Set the real host name in the settings or the specification that contains this name."
    )
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_name_that_was_not_replaced_is_a_placeholder() {
        for name in ["HTTPENDPOINT", "YOUR_SERVER", "${MIRROR}", "<mirror>", "changeme.example", "your-registry"] {
            for message in [
                format!("0curl: (6) Could not resolve host: {name}"),
                format!("Temporary failure resolving '{name}'"),
                format!("Get \"http://{name}/x.run\": dial tcp: lookup {name}: no such host"),
            ] {
                assert_eq!(host(&message), Some(super::clean(name, 80)), "{message}");
            }
        }
        for name in ["archive.ubuntu.com", "train-0", "NODE7", "registry", "10.0.0.1", "NAS.example.org", "GPU1"] {
            assert_eq!(host(&format!("Could not resolve host: {name}")), None, "{name}");
        }
        assert_eq!(host("ERROR: HTTPENDPOINT"), None);
    }
}
