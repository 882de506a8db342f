//! `brand`, `fabric_state`, `p2p_status` and others: return the text for a number of an NVML enum (`enum_names.tsv`).
//! `clock_reasons`, `fabric_issues`: the texts of a bit mask. `nvlink_version`: the NVLink generation.
//!
//! A number that is not in the table is from a newer driver.

use std::sync::LazyLock;

use syringe_core::facts::clock_events::REASONS;
use syringe_core::tsv::rows;

/// Parts of the fabric health mask (`NVML_GPU_FABRIC_HEALTH_MASK_…`): shift, width mask, the values that mean a problem,
/// name. Values of a two-bit part: 1 is true, 2 is false, 0 is unknown. Values of the configuration: 0 is unknown, 1 is
/// correct, higher values are kinds of errors.
const FABRIC_ISSUES: &[(u32, u32, std::ops::RangeInclusive<u32>, &str)] = &[
    (0, 0x3, 1..=1, "degraded_bandwidth"),
    (2, 0x3, 1..=1, "route_recovery"),
    (4, 0x3, 1..=1, "route_unhealthy"),
    (6, 0x3, 1..=1, "access_timeout"),
    (8, 0xf, 2..=15, "incorrect_configuration"),
];

/// NVLink generations: NVML's number (`nvmlNvlinkVersion_t`), the kernel driver's
/// (`NV2080_CTRL_NVLINK_CAPS_NVLINK_VERSION_…`) and the generation.
const NVLINK_VERSIONS: &[(u32, u32, u32)] = &[
    (1, 1, 1),
    (2, 2, 2),
    (3, 4, 2), // 2.2
    (4, 5, 3),
    (5, 6, 3), // 3.1
    (6, 7, 4),
    (7, 8, 5),
    (8, 9, 6),
];

/// The NVLink generation of each architecture (`nvmlDeviceArchitecture_t`).
const NVLINK_OF_ARCHITECTURE: &[(u32, u32)] = &[(4, 1), (5, 2), (6, 2), (7, 3), (9, 4), (10, 5), (13, 6)];

/// The columns: enum, number, text.
static NAMES: LazyLock<Vec<(&str, u32, &str)>> = LazyLock::new(|| {
    let rows = rows(include_str!("enum_names.tsv"));
    rows.filter_map(|row| Some((row[0], row.get(1)?.parse().ok()?, *row.get(2)?))).collect()
});

fn word(of: &str, number: u32) -> Option<&'static str> {
    NAMES.iter().find(|row| row.0 == of && row.1 == number).map(|row| row.2)
}

fn word_or_number(of: &str, number: u32) -> String {
    word(of, number).map_or_else(|| format!("unknown ({number})"), str::to_owned)
}

/// Returns the brand; 0 is NVML's "unknown".
pub(in crate::nvml) fn brand(number: u32) -> String {
    word_or_number("brand", number)
}

/// Returns the architecture; `None` for NVML's own "unknown".
pub(in crate::nvml) fn architecture(number: u32) -> Option<String> {
    (number != u32::MAX).then(|| word_or_number("architecture", number))
}

pub(in crate::nvml) fn compute_mode(number: u32) -> String {
    word_or_number("compute_mode", number)
}

pub(in crate::nvml) fn virtualization_mode(number: u32) -> String {
    word_or_number("virtualization_mode", number)
}

pub(in crate::nvml) fn licensable(number: u32) -> String {
    word_or_number("licensable", number)
}

/// Returns whether a fault limits the clocks, and the text of every reason.
pub(in crate::nvml) fn clock_reasons(mask: u64) -> (bool, Vec<String>) {
    let set = || REASONS.iter().filter(|reason| mask & reason.bit != 0);
    let known = REASONS.iter().fold(0, |bits, reason| bits | reason.bit);
    let mut words: Vec<_> = set().map(|reason| reason.label.to_owned()).collect();
    if mask & !known != 0 {
        words.push(format!("unknown ({:#x})", mask & !known));
    }
    (set().any(|reason| reason.is_fault), words)
}

pub(in crate::nvml) fn fabric_state(number: u32) -> String {
    word_or_number("fabric_state", number)
}

pub(in crate::nvml) fn fabric_health(number: u32) -> String {
    word_or_number("fabric_health", number)
}

/// Returns the problems in a fabric health mask.
pub(in crate::nvml) fn fabric_issues(mask: u32) -> Vec<String> {
    let wrong = FABRIC_ISSUES.iter().filter(|(shift, width, trouble, _)| trouble.contains(&(mask >> shift & width)));
    wrong.map(|(.., name)| (*name).to_owned()).collect()
}

/// Returns the kind of the incorrect configuration in a fabric health mask (bits 8 to 11).
pub(in crate::nvml) fn fabric_misconfiguration(mask: u32) -> Option<String> {
    let number = mask >> 8 & 0xf;
    (number >= 2).then(|| word_or_number("fabric_configuration", number))
}

/// Returns the peer-to-peer state: `ok`, or the reason why peer-to-peer access is not possible.
pub(in crate::nvml) fn p2p_status(number: u32) -> &'static str {
    word("p2p", number).unwrap_or("unknown")
}

/// Returns the distance between two GPUs; `?` for an unknown level.
pub(in crate::nvml) fn topology_level(number: u32) -> &'static str {
    word("level", number).unwrap_or("?")
}

/// Returns the type of device at the remote end of an NVLink.
pub(in crate::nvml) fn link_end(number: u32) -> &'static str {
    word("link_end", number).unwrap_or("unknown")
}

/// Returns the NVLink generation for a number that `nvmlDeviceGetNvLinkVersion` returned, e.g. `4`.
///
/// According to the header, the number is an `nvmlNvlinkVersion_t` (6 for NVLink 4), but some drivers return the kernel
/// driver's number (H100: 7), and mocks return the generation. The architecture determines which number it is.
pub(in crate::nvml) fn nvlink_version(number: u32, architecture: Option<u32>) -> u32 {
    let by_header = NVLINK_VERSIONS.iter().find(|(nvml, ..)| *nvml == number).map(|(.., generation)| *generation);
    let by_kernel = NVLINK_VERSIONS.iter().find(|(_, kernel, _)| *kernel == number).map(|(.., generation)| *generation);
    let known = NVLINK_OF_ARCHITECTURE.iter().find(|(known, _)| Some(*known) == architecture);
    let readings = [by_header, by_kernel, Some(number)];
    match known {
        Some((_, generation)) if readings.contains(&Some(*generation)) => *generation,
        _ => by_header.unwrap_or(number),
    }
}

#[cfg(test)]
mod tests {
    use super::{architecture, clock_reasons, fabric_issues, fabric_misconfiguration, nvlink_version};

    #[test]
    fn an_nvlink_generation_is_found_from_each_of_its_numbers() {
        const AMPERE: Option<u32> = Some(7);
        const HOPPER: Option<u32> = Some(9);
        const BLACKWELL: Option<u32> = Some(10);
        assert_eq!([4, 5, 6].map(|number| nvlink_version(number, AMPERE)), [3, 3, 3]);
        assert_eq!([4, 6, 7].map(|number| nvlink_version(number, HOPPER)), [4, 4, 4]);
        assert_eq!([5, 7, 8].map(|number| nvlink_version(number, BLACKWELL)), [5, 5, 5]);
        const RUBIN: Option<u32> = Some(13);
        assert_eq!([6, 8, 9].map(|number| nvlink_version(number, RUBIN)), [6, 6, 6]);
        assert_eq!((nvlink_version(6, None), nvlink_version(8, None)), (4, 6));
        assert_eq!(nvlink_version(42, HOPPER), 42);
    }

    #[test]
    fn a_power_cap_at_full_load_is_a_reason_but_no_throttling() {
        assert_eq!(clock_reasons(0x4), (false, vec!["SW power cap".to_owned()]));
        assert_eq!(clock_reasons(0), (false, vec![]));
    }

    #[test]
    fn fault_like_reasons_come_first_and_alone_count_as_throttling() {
        let (active, reasons) = clock_reasons(0x1 | 0x4 | 0x8 | 0x40);
        assert!(active);
        assert_eq!(reasons, ["HW thermal slowdown", "HW slowdown", "SW power cap", "idle"]);
    }

    #[test]
    fn reasons_of_a_newer_driver_are_named_by_their_bits() {
        assert_eq!(clock_reasons(0x400 | 0x20), (true, vec!["SW thermal slowdown".into(), "unknown (0x400)".into()]));
    }

    #[test]
    fn the_fabric_mask_names_only_what_is_wrong() {
        // Every two-bit part is 2 (false), and the configuration is 1 (no error).
        assert!(fabric_issues(0b10_10_10_10 | 1 << 8).is_empty());
        assert!(fabric_issues(0).is_empty());
        assert_eq!(fabric_issues(0b10_10_10_01 | 5 << 8), ["degraded_bandwidth", "incorrect_configuration"]);
        let kind = |number: u32| fabric_misconfiguration(0b10_10_10_10 | number << 8);
        assert_eq!((kind(0), kind(1)), (None, None));
        assert_eq!((kind(4), kind(15)), (Some("no_partition".to_owned()), Some("unknown (15)".to_owned())));
    }

    #[test]
    fn an_architecture_from_the_future_has_its_number() {
        assert_eq!(architecture(9).as_deref(), Some("Hopper"));
        assert_eq!(architecture(14).as_deref(), Some("unknown (14)"));
        assert_eq!(architecture(u32::MAX), None);
    }
}
