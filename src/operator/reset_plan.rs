//! Whether a GPU can be reset now, and what would be done: a pure function of the node's facts.
//!
//! A reset wants a GPU that nobody uses, that the driver still has, and that is no part of a group which can only be reset
//! together. What could not be read counts as in the way: a reset under a running job costs the job, and a wrong one the GPU.
//! Source of the rules: the manual of nvidia-smi (`--gpu-reset`), NVIDIA's Fabric Manager guide.

pub use super::conditions::Conditions;
use super::reset_rules;
pub use crate::facts::action::ResetPlan;
use crate::report::Report;

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
