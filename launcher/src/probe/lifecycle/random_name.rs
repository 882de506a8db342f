//! `probe_name`, `random_suffix`: return random names for probe pods, containers and sessions.

use kube_read::Failure;
use syringe_core::PROBE_NAME_PREFIX;

/// Returns the name of a new probe.
pub(crate) fn probe_name() -> Result<String, Failure> {
    Ok(format!("{PROBE_NAME_PREFIX}{}", random_suffix()?))
}

/// Returns ten random letters and digits: 50 bits, so that no two pods ever have the same name.
pub(crate) fn random_suffix() -> Result<String, Failure> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            "Choosing a random name",
            format!("the system has no random numbers: {error}"),
            "Check the source of random numbers of this machine (getrandom).",
        )
    })?;
    Ok(bytes.iter().map(|byte| ALPHABET[usize::from(byte & 31)] as char).collect())
}
