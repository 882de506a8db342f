//! `group_of`, `ResetGroup`: the GPUs that must be reset together because of NVLink.
//! `group`: the rule that checks this for a reset.

use super::reset_conditions::ResetConditions;
use crate::facts::action::ResetPlan;
use crate::facts::inventory::GpuInventory;
use crate::facts::topology::GpuTopology;
use crate::report::{Report, Section};

/// The GPUs that are reset together with a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetGroup {
    /// The GPU can be reset alone.
    Alone,
    /// The GPU can be reset alone if Fabric Manager is running; otherwise, it is reset together with `peers`. `running`:
    /// whether Fabric Manager is running, if that is known.
    WithFabricManager { peers: Vec<u32>, running: Option<bool> },
    /// The GPU can only be reset together with these GPUs.
    Together(Vec<u32>),
    /// The NVLink connections of the GPU could not be read.
    Unknown,
}

/// Returns the reset group of a GPU. Before Ampere, all connected GPUs must be reset together. On Ampere with NVSwitches, a
/// GPU can be reset alone only if Fabric Manager is running. From Hopper on, each GPU can be reset alone.
pub(super) fn group_of(facts: &Report, gpu: &GpuInventory) -> ResetGroup {
    let generation = Generation::of(gpu.architecture.as_deref());
    if generation == Generation::HopperOn {
        return ResetGroup::Alone;
    }
    let topology = Section::data_of(&facts.sections.topology);
    let Some(own) = topology.and_then(|topology| topology.gpus.iter().find(|entry| entry.index == gpu.index)) else {
        return ResetGroup::Unknown;
    };
    let wired = |entry: &GpuTopology, to: &str| {
        entry.nvlinks.iter().any(|group| group.active != Some(false) && group.remote_type.as_deref() == Some(to))
    };
    // A link without a remote type may be connected to a GPU or a switch.
    let unclear = own
        .nvlinks
        .iter()
        .any(|group| group.active != Some(false) && !matches!(group.remote_type.as_deref(), Some("gpu" | "switch")));
    let (to_switch, to_gpu) = (wired(own, "switch"), wired(own, "gpu"));
    if !to_switch && !to_gpu && !unclear {
        return ResetGroup::Alone;
    }
    let others = topology.into_iter().flat_map(|topology| &topology.gpus).filter(|entry| entry.index != gpu.index);
    let peers: Vec<u32> = others
        .filter(|entry| entry.nvlinks.iter().any(|group| group.active != Some(false)))
        .map(|entry| entry.index)
        .collect();
    let running = Section::data_of(&facts.sections.host).and_then(|host| host.daemons.fabric_manager);
    match generation {
        Generation::Ampere if to_switch && running == Some(true) => ResetGroup::Alone,
        Generation::Ampere if to_switch => ResetGroup::WithFabricManager { peers, running },
        Generation::Ampere if to_gpu && !unclear => ResetGroup::Alone,
        _ => ResetGroup::Together(peers),
    }
}

/// Blocks the reset of a GPU that cannot be reset alone.
pub(super) fn group(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    match group_of(facts, gpu) {
        ResetGroup::Alone => {}
        ResetGroup::Unknown => {
            let why = "the NVLink connections of the GPU could not be read";
            plan.block("nvlink_unknown", why, "Try again, or reboot the node.");
        }
        ResetGroup::WithFabricManager { peers, running } => {
            plan.together_with = peers;
            let state = if running == Some(false) { "is not running" } else { "could not be checked" };
            let why = format!(
                "an Ampere GPU with NVSwitches can only be reset alone if Fabric Manager is running; Fabric Manager \
                    {state}"
            );
            plan.block("nvlink_group", why, "Start nvidia-fabricmanager on the node, or reboot the node.");
        }
        ResetGroup::Together(peers) => {
            let why = format!(
                "NVLink connects the GPU to GPUs {peers:?}, and on this architecture these GPUs must be reset together"
            );
            plan.together_with = peers;
            plan.block(
                "nvlink_group",
                why,
                "Drain the node and reset all of its GPUs (run nvidia-smi --gpu-reset on the node), or reboot the \
                    node.",
            );
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// Architectures up to Turing, and unknown architectures: the strictest rule applies.
    BeforeAmpere,
    Ampere,
    HopperOn,
}

impl Generation {
    fn of(architecture: Option<&str>) -> Self {
        match architecture {
            // Ada has no NVLink, so the rule for NVLink bridges never applies.
            Some("Ampere" | "Ada") => Self::Ampere,
            Some("Hopper" | "Blackwell" | "Rubin") => Self::HopperOn,
            _ => Self::BeforeAmpere,
        }
    }
}
