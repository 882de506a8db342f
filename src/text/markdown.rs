//! `defuse`: breaks up images, links and tags of Markdown and HTML so that they are not rendered.
//!
//! A program that displays an answer must not load anything that the text of a node refers to.

use std::borrow::Cow;

/// Placeholders in angle brackets that are not tags. The kernel and Kubernetes use them.
const PLACEHOLDERS: [&str; 3] = ["unknown>", "none>", "nil>"];

/// Inserts a space into each image, link or tag that would be rendered.
pub(super) fn defuse(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'[' | b'<' | b'!')) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    // A link definition is at the start of a line: `[name]: address`.
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

/// Returns whether the text after a `<` may be a tag, a comment or a link. Every name counts as a tag, because a list of
/// tags would be incomplete.
fn is_tag(rest: &str) -> bool {
    let first = rest.chars().next();
    let opens = first.is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, '/' | '!' | '?'));
    opens && !PLACEHOLDERS.iter().any(|placeholder| rest.starts_with(placeholder))
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
            ("<div style=background:url(https://evil.example)>", "< div style=background:url(https://evil.example)>"),
            ("<a/href=x>", "< a/href=x>"),
            ("<source src=x>", "< source src=x>"),
            ("</b><?xml?><!-- x -->", "< /b>< ?xml?>< !-- x -->"),
        ] {
            assert_eq!(defuse(text), plain);
            assert_eq!(defuse(plain), plain, "once is enough");
        }
    }

    #[test]
    fn placeholders_of_the_kernel_are_kept() {
        for line in
            ["python3[4242]: segfault", "pid='<unknown>', name=<unknown>", "pci 0000:16:00.0: [10de:26b9] type 00"]
        {
            assert_eq!(defuse(line), line);
        }
    }
}
