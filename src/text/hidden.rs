//! `is_hidden`: whether a character is invisible or changes how other characters are displayed.
//!
//! Source: the Unicode Character Database, version 17: `Default_Ignorable_Code_Point` and general category `Cf`. A test
//! compares the table with a library that is generated from that database.

/// First and last character of each run, in order.
const HIDDEN: [(u32, u32); 25] = [
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x1_10bd, 0x1_10bd),
    (0x1_10cd, 0x1_10cd),
    (0x1_3430, 0x1_343f),
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0xe_0000, 0xe_0fff),
];

/// Returns whether cleaning replaces the character with a space. True for control characters (C0 and C1), all white
/// space (including the space), category `Cf`, and all characters that Unicode allows a renderer to ignore.
pub fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control() || character == ' ';
    }
    let code = u32::from(character);
    character.is_control()
        || character.is_whitespace()
        || HIDDEN.get(HIDDEN.partition_point(|(_, last)| *last < code)).is_some_and(|(first, _)| *first <= code)
}

#[cfg(test)]
mod tests {
    use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, WhiteSpace};
    use icu_properties::{CodePointMapData, CodePointSetData};

    use super::is_hidden;
    use crate::text::clean;

    #[test]
    fn of_all_code_points_none_that_unicode_calls_invisible_passes() {
        let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
        let blank = CodePointSetData::new::<WhiteSpace>();
        let category = CodePointMapData::<GeneralCategory>::new();
        let mut passed = Vec::new();
        let mut taken_for_nothing = Vec::new();
        for character in '\0'..=char::MAX {
            let of = category.get(character);
            let meant = ignorable.contains(character)
                || blank.contains(character)
                || matches!(of, GeneralCategory::Format | GeneralCategory::Control);
            let stays = !is_hidden(character) && character != ' ';
            assert!(stays || clean(&format!("a{character}b"), 9) == "a b", "{character:?}");
            match (meant, stays) {
                (true, true) => passed.push(u32::from(character)),
                (false, false) => taken_for_nothing.push(u32::from(character)),
                _ => {}
            }
        }
        assert!(passed.is_empty(), "{} pass: {passed:x?}", passed.len());
        assert!(taken_for_nothing.is_empty(), "visible characters were removed: {taken_for_nothing:x?}");
    }
}
