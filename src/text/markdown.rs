//! Images, links and tags of Markdown and HTML: a host that renders an answer must not load what a node's text names.

use std::borrow::Cow;

/// What stands in angle brackets and is no tag: the placeholders that kernels and Kubernetes write.
const PLACEHOLDERS: [&str; 3] = ["unknown>", "none>", "nil>"];

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

/// Whether what follows a `<` may be a tag, a comment or a link. Every name counts: a list of tags would miss one.
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
    fn what_the_kernel_writes_stays() {
        for line in
            ["python3[4242]: segfault", "pid='<unknown>', name=<unknown>", "pci 0000:16:00.0: [10de:26b9] type 00"]
        {
            assert_eq!(defuse(line), line);
        }
    }
}
