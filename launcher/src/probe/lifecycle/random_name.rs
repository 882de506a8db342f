//! Random names: of probe pods, containers and sessions.

use syringe_core::PROBE_NAME_PREFIX;

/// The name of a new probe.
pub(crate) fn probe_name() -> String {
    format!("{PROBE_NAME_PREFIX}{}", random_suffix())
}

/// Ten letters and digits: 50 bits, so that no two pods ever share a name.
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 10];
    // Fails only on systems without a source of randomness; a repeated name is then refused by the API server.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| ALPHABET[usize::from(byte & 31)] as char).collect()
}
