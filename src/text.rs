//! Text that comes from a node is data: cleaned and capped before it enters a report.

/// `text` without control characters (each run becomes one blank) and at most `cap` characters long; a cut ends in `…`.
///
/// Bidirectional overrides and other invisible format characters go too: they change what a person reads.
pub fn clean(text: &str, cap: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(cap * 4));
    let mut blank = true;
    let mut length = 0;
    for character in text.chars() {
        let character = if is_hidden(character) { ' ' } else { character };
        if character == ' ' && blank {
            continue;
        }
        if length == cap {
            cleaned.pop();
            cleaned.push('…');
            return cleaned;
        }
        blank = character == ' ';
        cleaned.push(character);
        length += 1;
    }
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

/// Cleans `text` like [`clean`], but a cut leaves out its middle: the head (`head … tail`) and the tail stay.
///
/// For text whose writer puts the reason last, as container runtimes do: each layer puts its own name before the error
/// of the layer below. Two thirds of `cap` go to the tail.
pub fn clean_keeping_end(text: &str, cap: usize) -> String {
    const GAP: &str = " … ";
    // Nothing is cut in the first pass: a text has at most as many characters as bytes.
    let cleaned = clean(text, text.len());
    let length = cleaned.chars().count();
    let Some(room) = cap.checked_sub(GAP.chars().count()).filter(|room| *room > 1) else { return clean(text, cap) };
    if length <= cap {
        return cleaned;
    }
    let head: String = cleaned.chars().take(room / 3).collect();
    let tail: String = cleaned.chars().skip(length - (room - room / 3)).collect();
    format!("{}{GAP}{}", head.trim_end(), tail.trim_start())
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || character.is_whitespace()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(character, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::{clean, clean_keeping_end};

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
    fn a_cut_is_visible_and_the_cap_holds() {
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("äöüß", 4), "äöüß");
        assert_eq!(clean("  abc  ", 4), "abc");
    }
}
