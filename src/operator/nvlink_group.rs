//! One rule of [`super::reset_plan`]: which GPUs NVLink ties together so that they can only be reset at once.

use super::conditions::Conditions;
use crate::facts::action::ResetPlan;
use crate::facts::inventory::GpuInventory;
use crate::facts::topology::GpuTopology;
use crate::report::{Report, Section};

/// GPUs that NVLink ties together: before Ampere all of them go at once, on Ampere behind NVSwitches only with the Fabric
/// Manager alone; from Hopper on each by itself.
pub(super) fn group(facts: &Report, gpu: &GpuInventory, _: Conditions, plan: &mut ResetPlan) {
    let generation = Generation::of(gpu.architecture.as_deref());
    if generation == Generation::HopperOn {
        return;
    }
    let topology = Section::data_of(&facts.sections.topology);
    let Some(own) = topology.and_then(|topology| topology.gpus.iter().find(|entry| entry.index == gpu.index)) else {
        let why = "whether NVLink ties the GPU to others could not be read";
        return plan.block("nvlink_unknown", why, "Try again, or reboot the node.");
    };
    let wired = |entry: &GpuTopology, to: &str| {
        entry.nvlinks.iter().any(|group| group.active != Some(false) && group.remote_type.as_deref() == Some(to))
    };
    // A link that does not say what is at its end might lead anywhere.
    let unclear = own
        .nvlinks
        .iter()
        .any(|group| group.active != Some(false) && !matches!(group.remote_type.as_deref(), Some("gpu" | "switch")));
    let (to_switch, to_gpu) = (wired(own, "switch"), wired(own, "gpu"));
    if !to_switch && !to_gpu && !unclear {
        return;
    }
    let others = topology.into_iter().flat_map(|topology| &topology.gpus).filter(|entry| entry.index != gpu.index);
    let peers: Vec<u32> = others
        .filter(|entry| entry.nvlinks.iter().any(|group| group.active != Some(false)))
        .map(|entry| entry.index)
        .collect();
    let fabric_manager = Section::data_of(&facts.sections.host).and_then(|host| host.daemons.fabric_manager);
    match generation {
        Generation::Ampere if to_switch && fabric_manager == Some(true) => {}
        Generation::Ampere if to_switch => {
            plan.together_with = peers;
            let state = if fabric_manager == Some(false) { "does not run" } else { "could not be seen" };
            let why =
                format!("an Ampere GPU behind NVSwitches is reset alone only with the Fabric Manager, which {state}");
            plan.block("nvlink_group", why, "Start nvidia-fabricmanager on the node, or reboot the node.");
        }
        Generation::Ampere if to_gpu && !unclear => {}
        _ => {
            let why = format!(
                "NVLink ties the GPU to GPUs {peers:?}, and this generation is reset all together or not at all"
            );
            plan.together_with = peers;
            plan.block(
                "nvlink_group",
                why,
                "Empty the node and reset all of its GPUs there (nvidia-smi --gpu-reset), or reboot it.",
            );
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// Up to Turing; and what could not be read: in doubt the strictest rule.
    BeforeAmpere,
    Ampere,
    HopperOn,
}

impl Generation {
    fn of(architecture: Option<&str>) -> Self {
        match architecture {
            // Ada has no NVLink at all: the rule for bridges never applies.
            Some("Ampere" | "Ada") => Self::Ampere,
            Some("Hopper" | "Blackwell" | "Rubin") => Self::HopperOn,
            _ => Self::BeforeAmpere,
        }
    }
}
