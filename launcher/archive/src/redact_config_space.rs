//! `without_serial`: removes serial numbers (Device Serial Number and Vital Product Data) from the dump of a PCI
//! configuration space.

use syringe_core::raw_file::RawFile;

/// Offset of the first extended capability.
const EXTENDED: usize = 0x100;
/// ID of the capability Device Serial Number, and the size of the number after its header.
const SERIAL: u16 = 3;
const SERIAL_SIZE: usize = 8;
/// Offset of the first capability in the header, ID of the capability Vital Product Data, and offset of its data
/// register.
const CAPABILITIES: usize = 0x34;
const PRODUCT_DATA: u8 = 3;
const PRODUCT_DATA_REGISTER: std::ops::Range<usize> = 4..8;
/// The conventional part has space for at most 48 capabilities.
const MAX_CONVENTIONAL: usize = 48;
/// The extended part has space for at most 960 capabilities. A longer list contains a cycle.
const MAX_CAPABILITIES: usize = 960;

/// Returns the dump with zeros in place of the serial number; `None` if the file is not a dump.
pub(crate) fn without_serial(file: &RawFile) -> Option<RawFile> {
    let mut bytes = file.bytes()?;
    let mut at = bytes.get(CAPABILITIES).map_or(0, |start| usize::from(start & !3));
    for _ in 0..MAX_CONVENTIONAL {
        let Some(&[id, next]) = bytes.get(at..at + 2).filter(|_| at != 0) else { break };
        if id == PRODUCT_DATA {
            let register = PRODUCT_DATA_REGISTER;
            bytes.iter_mut().skip(at + register.start).take(register.len()).for_each(|byte| *byte = 0);
        }
        at = usize::from(next & !3);
    }
    let mut at = EXTENDED;
    for _ in 0..MAX_CAPABILITIES {
        let Some(&[id, more, version_and_next, next]) = bytes.get(at..at + 4) else { break };
        if u16::from_le_bytes([id, more]) == SERIAL {
            bytes.iter_mut().skip(at + 4).take(SERIAL_SIZE).for_each(|byte| *byte = 0);
        }
        at = usize::from(version_and_next >> 4) | usize::from(next) << 4;
        at &= !3;
        if at < EXTENDED {
            break;
        }
    }
    Some(RawFile::of_bytes(file.path.clone(), &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a configuration space with product data at 0x60, AER at 0x100, and a serial number at 0x148 that is
    /// followed by AER again.
    fn with_serial() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[0x34] = 0x40;
        bytes[0x40..0x42].copy_from_slice(&[0x10, 0x60]);
        bytes[0x60..0x62].copy_from_slice(&[PRODUCT_DATA, 0x40]);
        bytes[0x62..0x64].copy_from_slice(&[4, 0x80]);
        bytes[0x64..0x68].copy_from_slice(b"1654");
        bytes[0x100..0x104].copy_from_slice(&[1, 0, 0x82, 0x14]);
        bytes[0x148..0x14c].copy_from_slice(&[3, 0, 0x01, 0x10]);
        bytes[0x14c..0x154].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes[0x154] = 9;
        bytes
    }

    #[test]
    fn the_serial_number_is_zero_and_the_rest_stays() {
        let mut bytes = with_serial();
        let without = without_serial(&RawFile::of_bytes("x".into(), &bytes)).expect("a dump");
        bytes[0x14c..0x154].fill(0);
        bytes[0x64..0x68].fill(0);
        assert_eq!(without.bytes(), Some(bytes));
    }

    #[test]
    fn a_short_space_and_a_text_are_not_changed() {
        let short = RawFile::of_bytes("x".into(), &with_serial()[..96]);
        assert_eq!(without_serial(&short), Some(short));
        assert_eq!(without_serial(&RawFile { lines: vec!["GPU UUID: x".into()], ..RawFile::default() }), None);
    }
}
