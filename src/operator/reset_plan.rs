//! Whether a GPU can be reset now, and what would be done: a pure function of the node's facts.
//!
//! A reset wants a GPU that nobody uses, that the driver still has, and that is no part of a group which can only be reset
//! together. What could not be read counts as in the way: a reset under a running job costs the job, and a wrong one the GPU.
//! Source of the rules: the manual of nvidia-smi (`--gpu-reset`), NVIDIA's Fabric Manager guide.

use serde::{Deserialize, Serialize};

use super::reset_rules;
use crate::facts::action::Obstacle;
use crate::pci::PciAddress;
use crate::report::Report;

/// What the caller knows and the node does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Whether Kubernetes gives the node no new pods. What is not known is not cordoned.
    pub cordoned: bool,
    /// Whether a node that is not cordoned, and pods that the GPU is allocated to, are in the way.
    pub drain_check: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { cordoned: false, drain_check: true }
    }
}

/// The plan of a reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ResetPlan {
    /// UUID of the GPU.
    pub gpu: String,
    /// NVML index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// PCI address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<PciAddress>,
    /// Product name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is in the way. Empty: the reset can be done.
    pub blockers: Vec<Obstacle>,
    /// What is worth knowing and no reason to refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What speaks for a reset: a remap that waits for it, the driver's own request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Indices of GPUs that can only be reset together with this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub together_with: Vec<u32>,
    /// Whether persistence mode is on: it is switched off before and on again after.
    pub persistence_mode: bool,
    /// What would be done, in order.
    pub steps: Vec<String>,
}

impl ResetPlan {
    /// In a sentence, that nothing was done, and the first of the reasons.
    pub fn refusal(&self) -> String {
        let first = self.blockers.first().map_or("something is in the way", |blocker| blocker.why.as_str());
        let more = self.blockers.len().saturating_sub(1);
        let more = if more > 0 { format!(" ({more} more in plan.blockers)") } else { String::new() };
        format!("GPU {} was not reset: {first}{more}.", self.gpu)
    }

    /// Whether nothing is in the way.
    pub fn is_clear(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// Plans the reset of the GPU with this UUID. `facts` needs the sections inventory, topology, ecc, processes, mig, kubelet,
/// host and xid; one that is missing or failed is a blocker where it matters.
pub fn plan(facts: &Report, gpu: &str, conditions: Conditions) -> ResetPlan {
    let mut plan = ResetPlan { gpu: gpu.to_owned(), ..ResetPlan::default() };
    let Some(target) = reset_rules::target(facts, gpu, &mut plan.blockers) else { return plan };
    plan.index = Some(target.index);
    plan.pci_address = target.pci_address.clone();
    plan.name = target.name.clone();
    plan.persistence_mode = target.persistence_mode == Some(true);
    for rule in reset_rules::RULES {
        rule(facts, target, conditions, &mut plan);
    }
    if plan.is_clear() {
        plan.steps = steps(&plan);
    }
    plan
}

fn steps(plan: &ResetPlan) -> Vec<String> {
    let gpu = &plan.gpu;
    let mut steps = Vec::new();
    if plan.persistence_mode {
        steps.push(format!("nvidia-smi -i {gpu} -pm 0 (persistence mode off)"));
    }
    steps.push(format!("nvidia-smi --gpu-reset -i {gpu}"));
    if plan.persistence_mode {
        steps.push(format!("nvidia-smi -i {gpu} -pm 1 (persistence mode on again)"));
    }
    steps.push("check: the GPU is back, no remap pending, nothing asked for by the driver, no new Xid".to_owned());
    steps
}

#[cfg(test)]
#[path = "reset_plan_tests.rs"]
mod tests;
