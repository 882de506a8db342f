//! `describe`: converts a result of `nvmlDeviceGetGpuFabricInfoV` to facts, without values that the state rules out.

use syringe_core::facts::topology::Fabric;

use super::{enum_names, raw};
use crate::nvml::errors::NvmlError;

/// The value of `NVML_GPU_FABRIC_STATE_COMPLETED`.
const FABRIC_COMPLETED: u32 = 3;

/// Describes a registration. Only a completed registration has a result, a location, a cluster and a health state.
/// Before that, the driver has not measured the health, and nvidia-smi does not show it.
pub(in crate::nvml) fn describe(info: raw::FabricInfo) -> Fabric {
    let is_completed = info.state == FABRIC_COMPLETED;
    let status = NvmlError::check(info.status).map_or_else(|error| error.code(), |()| "success");
    Fabric {
        state: enum_names::fabric_state(info.state),
        status: is_completed.then(|| status.to_owned()),
        clique_id: is_completed.then_some(info.clique_id),
        cluster_uuid: uuid(info.cluster_uuid).filter(|_| is_completed),
        health: info.health_summary.filter(|_| is_completed).map(enum_names::fabric_health),
        health_issues: if is_completed { enum_names::fabric_issues(info.health_mask) } else { Vec::new() },
        misconfiguration: enum_names::fabric_misconfiguration(info.health_mask).filter(|_| is_completed),
    }
}

/// Returns the UUID as `8-4-4-4-12` hex digits; `None` if all bytes are zero.
fn uuid(bytes: [u8; 16]) -> Option<String> {
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    let parts = [hex.get(0..8)?, hex.get(8..12)?, hex.get(12..16)?, hex.get(16..20)?, hex.get(20..32)?];
    (number != 0).then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::{describe, raw, uuid};

    #[test]
    fn a_single_node_has_no_cluster() {
        assert_eq!(uuid([0; 16]), None);
        assert_eq!(uuid([0xab; 16]).as_deref(), Some("abababab-abab-abab-abab-abababababab"));
    }

    #[test]
    fn only_a_completed_registration_has_a_result() {
        let info = |state, status| raw::FabricInfo {
            cluster_uuid: [0xab; 16],
            status,
            clique_id: 7,
            state,
            health_mask: 0,
            health_summary: Some(1),
        };
        let waiting = describe(info(2, 0));
        assert_eq!((waiting.state.as_str(), waiting.status, waiting.clique_id), ("in_progress", None, None));
        assert_eq!((waiting.cluster_uuid, describe(info(3, 0)).cluster_uuid.is_some()), (None, true));
        assert_eq!(describe(info(3, 0)).status.as_deref(), Some("success"));
        assert_eq!(describe(info(3, 999)).status.as_deref(), Some("unknown"));
    }

    #[test]
    fn only_a_completed_registration_has_a_health_state() {
        // Bandwidth degraded, no partition.
        let info = |state| raw::FabricInfo {
            cluster_uuid: [0xab; 16],
            status: 0,
            clique_id: 7,
            state,
            health_mask: 1 | 3 << 8,
            health_summary: Some(3),
        };
        for state in 0..3 {
            let told = describe(info(state));
            assert_eq!((told.health, told.health_issues, told.misconfiguration), (None, Vec::new(), None), "{state}");
        }
        let told = describe(info(3));
        assert_eq!(told.health.as_deref(), Some("limited_capacity"));
        assert!(!told.health_issues.is_empty() && told.misconfiguration.is_some(), "{told:?}");
    }
}
