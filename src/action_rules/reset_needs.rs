//! `needs`: what a GPU reset requires: a reboot instead, steps before the reset, and other GPUs that are reset with it.

pub use super::nvlink_group::ResetGroup;
use super::nvlink_group::group_of;
use super::reset_plan::{ResetConditions, plan};
use crate::report::{Report, Section};

/// Blockers of a reset that only a reboot removes.
const NEEDS_REBOOT: [&str; 5] = ["gpu_lost", "fell_off_bus", "mode_change_pending", "reboot_required", "bus_reset"];

/// Blockers of a reset that can be removed by a command before the reset.
const NEEDS_STEP: [&str; 6] = ["vgpu", "mps", "display", "mig_instances", "recover_imex", "ecc_off_pending"];

/// The conditions of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetNeeds {
    /// The GPUs that are reset together with the GPU.
    pub group: ResetGroup,
    /// The reason why a reset is not sufficient, and a reboot is needed.
    pub reboot: Option<String>,
    /// Steps that come before the reset, in addition to draining the node.
    pub before: Vec<String>,
}

/// Returns what the reset of the GPU with this UUID needs, according to the same rules as the reset itself. `None` if the
/// inventory of the GPU was not read. Values that were not read add no condition: the reset checks them again.
pub fn needs(facts: &Report, gpu: &str) -> Option<ResetNeeds> {
    let inventory = Section::data_of(&facts.sections.inventory)?;
    let entry = inventory.gpus.iter().find(|entry| entry.uuid.as_deref() == Some(gpu))?;
    let blockers = plan(facts, gpu, ResetConditions { cordoned: true, drain_check: false }).blockers;
    let reboot = blockers.iter().find(|blocker| NEEDS_REBOOT.contains(&blocker.code.as_str()));
    let before = blockers.iter().filter(|blocker| NEEDS_STEP.contains(&blocker.code.as_str()));
    Some(ResetNeeds {
        group: group_of(facts, entry),
        reboot: reboot.map(|blocker| blocker.why.clone()),
        before: before.map(|blocker| blocker.next_step.clone()).collect(),
    })
}
