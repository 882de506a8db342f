//! `uid`, `suffix`: derive UIDs and name suffixes from a number. `now`: the current time. `is_subdomain`: checks a
//! name.

use jiff::Timestamp;

/// The characters of generated names in Kubernetes: no vowels, and no characters that look similar.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the generated suffix of a name.
const SUFFIX_LENGTH: usize = 5;

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Distributes consecutive numbers over 64 bits (the finalizer of SplitMix64), so that the derived names differ
/// clearly.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Returns a version 4 UUID derived from `number`.
pub(crate) fn uid(number: u64) -> String {
    let (high, low) = (mix(number), mix(number ^ 0x5bd1_e995_0000_0001));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}

/// Returns the generated suffix of a name, derived from `number`.
pub(crate) fn suffix(number: u64) -> String {
    let mut rest = mix(number);
    let base = ALPHABET.len() as u64;
    let mut character = || {
        let at = (rest % base) as usize;
        rest /= base;
        char::from(ALPHABET[at])
    };
    (0..SUFFIX_LENGTH).map(|_| character()).collect()
}

/// Returns whether `name` is a DNS-1123 subdomain of at most 253 characters, as the name of a pod must be.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| inner(*byte))
            && bytes.last().is_some_and(|byte| inner(*byte))
            && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_numbers_make_different_names_and_uids() {
        let names: std::collections::BTreeSet<_> = (0..1_000).map(suffix).collect();
        let uids: std::collections::BTreeSet<_> = (0..1_000).map(uid).collect();
        assert_eq!((names.len(), uids.len()), (1_000, 1_000));
        assert_eq!(uid(7).len(), 36);
    }

    #[test]
    fn only_subdomains_are_names() {
        assert!(is_subdomain("gpu-1.example"));
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }
}
