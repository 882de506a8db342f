//! `fields`, `text`: return the bytes or the text of a field of a protobuf message (only length-delimited fields).

/// Returns the bytes of every length-delimited field `number`, in order. Other fields are skipped.
/// Returns `None` if the message is truncated or invalid.
pub(in crate::host) fn fields(message: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let mut rest = message;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (field, behind) = rest.split_at_checked(length)?;
                if key >> 3 == number {
                    found.push(field);
                }
                rest = behind;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

/// Returns the text in field `number`; empty if the field is missing, because protobuf omits empty texts.
pub(in crate::host) fn text(message: &[u8], number: u64) -> Option<String> {
    let field = fields(message, number)?.last().copied().unwrap_or_default();
    Some(String::from_utf8_lossy(field).into_owned())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_other_types_and_numbers_are_skipped() {
        // 1: "ab", 2: 300 (varint), 3: 8 fixed bytes, 4: 4 fixed bytes, 1: "c".
        let message = b"\x0a\x02ab\x10\xac\x02\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x0a\x01c";
        assert_eq!(fields(message, 1), Some(vec![&b"ab"[..], b"c"]));
        assert_eq!((text(message, 1).as_deref(), text(message, 9).as_deref()), (Some("c"), Some("")));
    }

    #[test]
    fn a_truncated_or_invalid_message_is_none() {
        for broken in [&b"\x0a"[..], b"\x0a\x05ab", b"\x0b", b"\x80", b"\x19\0", &[0xff; 11]] {
            assert_eq!(fields(broken, 1), None, "{broken:?}");
        }
    }
}
