//! `plan`: decides whether a GPU can be reset now, and lists the steps. It is a pure function of the node's facts.
//!
//! A GPU can be reset if no process uses it, the driver can access it, and no other GPU must be reset with it. A
//! fact that could not be read blocks the reset: the reset could kill a running job, or affect the wrong GPU.
//! Sources of the rules: NVIDIA's manual of nvidia-smi (`--gpu-reset`) and Fabric Manager guide.

pub use super::reset_conditions::ResetConditions;
use super::reset_rules;
pub use crate::facts::action::ResetPlan;
use crate::report::Report;

/// Plans the reset of the GPU with this UUID. `facts` needs the sections inventory, topology, ecc, processes, mig,
/// kubelet, host and xid. A missing or failed section blocks the reset if a rule needs it.
pub fn plan(facts: &Report, gpu: &str, conditions: ResetConditions) -> ResetPlan {
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
    steps.push("check: the GPU responds, no remap is pending, the driver recommends no action, no new Xid".to_owned());
    steps
}
