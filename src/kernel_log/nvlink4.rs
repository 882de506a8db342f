//! `decode`, `worst`: decode the register words of Xid 74 (NVLink up to generation 4) into `Bit`s and a `RegisterClass`.
//!
//! Source: the Xid 74 workflow in NVIDIA's Xid documentation. A line contains seven words, r1 to r7; on Hopper only r1,
//! r3, r4 and r5 are used. One event is seldom sufficient: several classes count only if they repeat on a link.

/// The meaning of a set bit, in order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegisterClass {
    /// The bit alone has no meaning.
    Ignore,
    /// Corrected errors reached their threshold. No action.
    Corrected,
    /// The error is a consequence of another error, in another component.
    Secondary,
    /// The error is a consequence of another error, in another component, but the fabric must be reset.
    SecondaryFabricReset,
    /// The signal is marginal: watch the link, or reseat the board.
    SignalIntegrity,
    /// Report the error if it repeats.
    ReportRepeated,
    /// Run the field diagnostic if the error repeats.
    DiagnoseRepeated,
    /// The fault may be mechanical: reseat the board, then report.
    Mechanical,
    /// The error should never occur: report it.
    Unexpected,
    /// Hardware ECC or parity error: more than two on the same link lead to an RMA.
    Hardware,
}

impl RegisterClass {
    /// Returns the word for the details of an event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Corrected => "corrected_threshold",
            Self::Secondary => "secondary",
            Self::SecondaryFabricReset => "secondary_fabric_reset",
            Self::SignalIntegrity => "signal_integrity",
            Self::ReportRepeated => "report_if_repeated",
            Self::DiagnoseRepeated => "diagnose_if_repeated",
            Self::Mechanical => "mechanical",
            Self::Unexpected => "unexpected",
            Self::Hardware => "hardware",
        }
    }
}

/// Register word, bits and class. The words are numbered from 1, as in NVIDIA's documentation.
const TABLE: [(usize, &[u32], RegisterClass); 14] = [
    (1, &[0, 23, 30], RegisterClass::Ignore),
    (1, &[1, 20], RegisterClass::Secondary),
    (1, &[4, 5], RegisterClass::Hardware),
    (1, &[8, 9, 12, 16, 17, 24, 28], RegisterClass::Mechanical),
    (1, &[21, 22], RegisterClass::SignalIntegrity),
    (1, &[27, 29], RegisterClass::ReportRepeated),
    (3, &[0, 1, 2, 6], RegisterClass::Hardware),
    (3, &[13], RegisterClass::Unexpected),
    (3, &[16, 19], RegisterClass::DiagnoseRepeated),
    (3, &[17, 18], RegisterClass::ReportRepeated),
    (4, &[16, 17], RegisterClass::Secondary),
    (4, &[18], RegisterClass::SecondaryFabricReset),
    (5, &[18, 19, 21, 22, 24, 25, 27, 28], RegisterClass::Hardware),
    (5, &[20, 23, 26, 29], RegisterClass::Corrected),
];

/// A set bit that is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Number of the word, 1 to 7.
    pub word: usize,
    /// Number of the bit, 0 to 31.
    pub bit: u32,
    pub class: RegisterClass,
}

/// Returns the set bits that are in the table, most severe first.
pub fn decode(words: &[u32]) -> Vec<Bit> {
    let mut found = Vec::new();
    for &(word, bits, class) in &TABLE {
        let Some(value) = words.get(word - 1) else { continue };
        found.extend(bits.iter().filter(|&&bit| value >> bit & 1 == 1).map(|&bit| Bit { word, bit, class }));
    }
    found.sort_by_key(|found| (std::cmp::Reverse(found.class), found.word, found.bit));
    found
}

/// Returns the most severe class of the set bits. `None` if no set bit is in the table.
pub fn worst(words: &[u32]) -> Option<RegisterClass> {
    decode(words).first().map(|bit| bit.class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parity_bit_outweighs_a_secondary_one() {
        let found = decode(&[1 << 1 | 1 << 4, 0, 0, 1 << 17, 0, 0, 0]);
        assert_eq!(found.first().map(|bit| (bit.word, bit.bit, bit.class)), Some((1, 4, RegisterClass::Hardware)));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn each_class_has_its_bits() {
        for (words, class) in [
            (vec![1 << 23], RegisterClass::Ignore),
            (vec![1 << 16], RegisterClass::Mechanical),
            (vec![1 << 21], RegisterClass::SignalIntegrity),
            (vec![1 << 27], RegisterClass::ReportRepeated),
            (vec![0, 0, 1 << 13], RegisterClass::Unexpected),
            (vec![0, 0, 1 << 16], RegisterClass::DiagnoseRepeated),
            (vec![0, 0, 0, 1 << 18], RegisterClass::SecondaryFabricReset),
            (vec![0, 0, 0, 0, 1 << 20], RegisterClass::Corrected),
        ] {
            assert_eq!(worst(&words), Some(class), "{words:x?}");
        }
    }

    #[test]
    fn words_without_known_bits_have_no_class() {
        assert_eq!(worst(&[0x40, 0xffff_ffff, 0, 0, 0, 0, 0]), None);
        assert_eq!(worst(&[]), None);
    }
}
