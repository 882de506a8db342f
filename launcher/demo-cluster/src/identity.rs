//! Names, UIDs and the time: what a server makes up for a new object. Deterministic, apart from the time.

use jiff::Timestamp;

/// The characters that Kubernetes uses in generated names: no vowels, nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them a generated name ends in.
const SUFFIX: usize = 5;

/// Now.
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

/// Spreads neighbouring numbers over 64 bits (the finaliser of SplitMix64), so that names do not look alike.
fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A version 4 UUID made of `number`.
pub(super) fn uid(number: u64) -> String {
    let (high, low) = (spread(number), spread(number ^ 0x5bd1_e995_0000_0001));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}

/// The end of a generated name.
pub(super) fn suffix(number: u64) -> String {
    let mut rest = spread(number);
    let base = ALPHABET.len() as u64;
    let mut character = || {
        let at = (rest % base) as usize;
        rest /= base;
        char::from(ALPHABET[at])
    };
    (0..SUFFIX).map(|_| character()).collect()
}

/// Whether `name` is a DNS-1123 subdomain of at most 253 characters: what the name of a pod must be.
pub(super) fn is_subdomain(name: &str) -> bool {
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
