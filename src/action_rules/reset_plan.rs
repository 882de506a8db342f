//! Decides whether a GPU can be reset now, and lists the steps. A pure function of the facts of the node.
//!
//! A GPU can be reset if no process uses it, the driver can access it, and it need not be reset together with others. A
//! fact that could not be read blocks the reset: a reset would end a running job, and a reset of the wrong GPU another
//! one. Sources of the rules: the manual of nvidia-smi (`--gpu-reset`), the Fabric Manager guide of NVIDIA.

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
