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

fn is_hidden(character: char) -> bool {
    character.is_control()
        || character.is_whitespace()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(character, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::clean;

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
