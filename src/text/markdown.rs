//! Images, links and tags of Markdown and HTML: a host that renders an answer must not load what a node's text names.

use std::borrow::Cow;

/// Beginnings of tags that load something or lead somewhere.
const TAGS: [&str; 20] = [
    "img", "a ", "a>", "http", "ftp", "mailto", "script", "iframe", "svg", "picture", "video", "audio", "object",
    "embed", "link", "style", "meta", "form", "input", "base",
];

/// The same text with a blank in the middle of whatever would be rendered.
pub(super) fn defuse(text: &str) -> Cow<'_, str> {
    if !text.contains(['[', '<', '!']) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    // A definition of a link stands at the start of a line: `[name]: address`.
    let may_define = text.starts_with('[');
    for (at, character) in text.char_indices() {
        plain.push(character);
        let rest = &text[at + character.len_utf8()..];
        let splits = match character {
            '!' => rest.starts_with('['),
            ']' if rest.starts_with(':') => may_define,
            ']' => rest.starts_with(['(', '[']),
            '<' => is_tag(rest),
            _ => false,
        };
        if splits {
            plain.push(' ');
        }
    }
    Cow::Owned(plain)
}

fn is_tag(rest: &str) -> bool {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let begins = |tag: &&str| rest.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    rest.starts_with("!--") || TAGS.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::defuse;

    #[test]
    fn images_links_and_tags_are_broken_up() {
        for (text, plain) in [
            ("![x](https://evil.example/?q=1)", "! [x] (https://evil.example/?q=1)"),
            ("see [this](javascript:x)", "see [this] (javascript:x)"),
            ("![x][y]", "! [x] [y]"),
            ("[y]: https://evil.example", "[y] : https://evil.example"),
            ("<IMG src=x>", "< IMG src=x>"),
            ("<https://evil.example>", "< https://evil.example>"),
        ] {
            assert_eq!(defuse(text), plain);
            assert_eq!(defuse(plain), plain, "once is enough");
        }
    }

    #[test]
    fn what_the_kernel_writes_stays() {
        for line in
            ["python3[4242]: segfault", "pid='<unknown>', name=<unknown>", "pci 0000:16:00.0: [10de:26b9] type 00"]
        {
            assert_eq!(defuse(line), line);
        }
    }
}
