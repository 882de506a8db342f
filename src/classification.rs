//! Enums that classify kernel events and findings: `Severity`, `Class` of the fault and recommended `ActionCode`.
//! `ActionCode::includes`: whether an action makes another action unnecessary.

use serde::{Deserialize, Serialize};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Information only; no action is needed.
    #[default]
    Info,
    /// The component works; plan an action.
    Warning,
    /// Workloads fail or will fail.
    Critical,
    /// The component is out of service.
    Fatal,
}

/// The cause of the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program that ran on the GPU.
    #[default]
    Application,
    /// The driver, the firmware, or the configuration.
    Driver,
    /// The GPU or its board.
    Hardware,
    /// NVLink, NVSwitch or PCIe.
    Fabric,
    /// Temperature.
    Thermal,
    /// Power supply.
    Power,
}

/// The recommended action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActionCode {
    /// No action.
    #[default]
    None,
    /// Check again later.
    Watch,
    /// Change the request of the pod, because the request can never be met.
    ChangeRequest,
    /// Correct the program, its image or its configuration.
    FixApplication,
    /// Raise a limit of the pod, or use less of the limited resource.
    FixLimits,
    /// Restart the pod.
    RestartPod,
    /// Update the driver or firmware, or change the configuration.
    UpdateSoftware,
    /// Reset the GPU.
    ResetGpu,
    /// Drain the node, then reset the GPU.
    DrainAndReset,
    /// Drain the node, then reboot it.
    DrainAndReboot,
    /// Check fans, airflow and coolant.
    CheckCooling,
    /// Check cables, seating and slots.
    CheckCabling,
    /// Contact the vendor; an RMA is likely.
    ContactVendor,
}

impl ActionCode {
    /// Every action.
    pub const ALL: [Self; 13] = [
        Self::None,
        Self::Watch,
        Self::ChangeRequest,
        Self::FixApplication,
        Self::FixLimits,
        Self::RestartPod,
        Self::UpdateSoftware,
        Self::ResetGpu,
        Self::DrainAndReset,
        Self::DrainAndReboot,
        Self::CheckCooling,
        Self::CheckCabling,
        Self::ContactVendor,
    ];

    /// The other actions that each action includes. [`Self::None`] and [`Self::Watch`] are not listed. A drain stops
    /// the pods, a reboot resets every GPU, and a GPU is drained before it is returned.
    const INCLUDED: &[(Self, &[Self])] = &[
        (Self::DrainAndReset, &[Self::ResetGpu, Self::RestartPod]),
        (Self::DrainAndReboot, &[Self::DrainAndReset, Self::ResetGpu, Self::RestartPod]),
        (Self::ContactVendor, &[Self::DrainAndReset, Self::ResetGpu, Self::RestartPod]),
    ];

    /// Returns whether this action makes the other action unnecessary. This is a partial order. A reboot does not
    /// include a return of the GPU, and a return does not include a reboot, so both are needed.
    pub fn includes(self, other: Self) -> bool {
        let known = Self::INCLUDED.iter().find(|(action, _)| *action == self).map_or(&[][..], |(_, included)| included);
        self == other || other == Self::None || (other == Self::Watch && self != Self::None) || known.contains(&other)
    }
}

#[cfg(test)]
mod tests {
    use super::ActionCode;

    #[test]
    fn the_inclusion_of_actions_is_a_partial_order() {
        for one in ActionCode::ALL {
            assert!(one.includes(one));
            for other in ActionCode::ALL {
                assert!(one == other || !(one.includes(other) && other.includes(one)), "{one:?} {other:?}");
                for third in ActionCode::ALL {
                    let chain = one.includes(other) && other.includes(third);
                    assert!(!chain || one.includes(third), "{one:?} {other:?} {third:?}");
                }
            }
        }
    }
}
