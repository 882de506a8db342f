//! Rules about MIG: pending changes of the mode, and GPUs with MIG enabled but without instances.

use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, MIG_DOC, rules};
use syringe_core::classification::ActionCode;
use syringe_core::facts::Mode;

rules! {
    PENDING: "mig-mode-pending" Warning Driver MIG_DOC, "MIG mode change pending: takes effect after a reset",
        DrainAndReset "If this change is intended, reset {gpu} of {node} when it is drained. Otherwise set the old mode again (nvidia-smi -mig \
            0 or 1 for this GPU): the next reset or reboot of the node applies the change.",
        means "MIG will be switched on or off at the next reset of the GPU.",
        reads "mig.mode";
    EMPTY: "mig-without-instances" Warning Driver MIG_DOC, "MIG is enabled, but no instance exists",
        UpdateSoftware "Create MIG instances on {gpu} of {node} (MIG manager, nvidia-smi mig -cgi), or disable MIG. In \
            this state no workload can use the GPU.",
        means "MIG is on, but no instance exists: no part of the GPU can be used.",
        reads "mig.mode, mig.devices", about Unavailable;
}

/// Source: NVIDIA's MIG user guide. The hypervisor may not allow the reset of a GPU that is passed through.
const IN_MACHINE: &str = "If this change is intended, reboot {node} when it is drained: it is a virtual machine, and its hypervisor may not allow the \
     reset of {gpu} from inside. Otherwise set the old mode again (nvidia-smi -mig 0 or 1 for this GPU) before the next reboot.";

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    node.gpus.iter().filter_map(|gpu| of_gpu(node, gpu)).collect()
}

fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let section = node.mig_of(gpu);
    let Mode { current, pending } = node.mig_mode(gpu)?;
    let word = |on: bool| if on { "on" } else { "off" };
    if current != pending {
        let evidence = format!("MIG is {} now, and {} after the next reset", word(current), word(pending));
        let draft = Draft::on_gpu(PENDING, gpu).with_evidence(evidence);
        let in_machine = boards::is_virtual_machine(node);
        return Some(if in_machine { draft.with_action(ActionCode::DrainAndReboot, IN_MACHINE) } else { draft });
    }
    // Only the `mig` section shows missing instances. If the maximum number of instances was not read, the list is not
    // reliable.
    let listed = section.is_some_and(|entry| entry.max_devices.is_some() && entry.devices.is_empty());
    let failed = node.report.sections.mig.iter().flat_map(|section| &section.problems);
    let failed = failed.into_iter().any(|problem| problem.gpu.is_none() || problem.gpu == gpu.index);
    let empty = current && listed && !failed;
    empty.then(|| Draft::on_gpu(EMPTY, gpu).with_evidence("MIG mode on, 0 MIG devices"))
}
