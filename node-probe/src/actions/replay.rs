//! `replay`: checks an action against a facts file, with the same rules as on a node and without any effect.

use syringe_core::action_rules::protected::{self, Candidate};
use syringe_core::action_rules::reset_plan::{self, ResetConditions};
use syringe_core::facts::action::{Action, KillAction, KillOutcome, Obstacle, ResetAction, ResetOutcome};
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::probe_command::{KillCommand, NodeAction, ResetCommand};
use syringe_core::report::{Report, Section, Sections, Source};
use syringe_core::section_name::SectionName;

use super::ActionRequest;

/// Checks the action against `facts`.
pub(super) fn replay(facts: &Report, act: &ActionRequest) -> Report {
    let facts = crate::replay::replay(facts, &act.request.of(SectionName::ALL.to_vec()));
    let action = match &act.command.action {
        NodeAction::Kill(order) => Action::Kill(Box::new(kill(order, &facts))),
        NodeAction::Reset(order) => Action::Reset(Box::new(reset(order, &facts))),
    };
    Report { source: Source::File, sections: Sections::default(), action: Some(action), ..facts }
}

fn reset(order: &ResetCommand, facts: &Report) -> ResetAction {
    let ResetCommand { gpu, plan: only_plan, cordoned, drain_check, .. } = order;
    let plan = reset_plan::plan(facts, gpu, ResetConditions { cordoned: *cordoned, drain_check: *drain_check });
    let (outcome, summary) = match plan.is_clear() {
        false => (ResetOutcome::Refused, plan.refusal()),
        true if *only_plan => (ResetOutcome::Planned, format!("GPU {gpu} can be reset now.")),
        true => {
            (ResetOutcome::Simulated, format!("GPU {gpu} would be reset. The facts are from a file: nothing was done."))
        }
    };
    ResetAction { outcome, plan, summary, ..ResetAction::default() }
}

fn kill(order: &KillCommand, facts: &Report) -> KillAction {
    let KillCommand { gpu, pid, start_ticks, plan, .. } = order;
    let blank = KillAction { gpu: gpu.clone(), pid: *pid, start_ticks: *start_ticks, ..KillAction::default() };
    let processes = Section::data_of(&facts.sections.processes);
    let inventory = Section::data_of(&facts.sections.inventory);
    let known = inventory.and_then(|inventory| inventory.gpus.iter().find(|entry| entry.uuid.as_ref() == Some(gpu)));
    let process = processes.and_then(|processes| processes.processes.iter().find(|process| process.pid == *pid));
    let Some(process) = process else {
        // The GPU is checked first: if the GPU is on another node, the process is on that node too.
        let all_seen = processes.is_some_and(|processes| processes.host_pid_namespace);
        let refusal = no_such_gpu(order, known).or_else(|| {
            let why = format!("cannot determine whether PID {pid} exists: not all processes of the host were visible");
            let next_step = "Run the probe in the PID namespace of the host (--via pod).";
            (!all_seen).then(|| Obstacle::new("pid_namespace", why, next_step))
        });
        let outcome = if refusal.is_some() { KillOutcome::Refused } else { KillOutcome::AlreadyGone };
        return KillAction { outcome, refusal, ..blank };
    };
    let refusal = no_such_gpu(order, known).or_else(|| refusal(order, process, known?));
    let outcome = match (&refusal, plan) {
        (Some(_), _) => KillOutcome::Refused,
        (None, true) => KillOutcome::Planned,
        (None, false) => KillOutcome::Simulated,
    };
    let simulated = "The facts are from a file: nothing was done.".to_owned();
    let telemetry = Section::data_of(&facts.sections.telemetry);
    let index = known.map(|gpu| gpu.index);
    let memory = telemetry.and_then(|telemetry| telemetry.gpus.iter().find(|gpu| Some(gpu.index) == index));
    KillAction {
        outcome,
        gpu_index: index,
        process: Some(process.clone()),
        evidence: known.filter(|_| refusal.is_none()).map(|gpu| evidence(process, gpu)).unwrap_or_default(),
        refusal,
        memory_before_bytes: memory.and_then(|gpu| gpu.memory.used_bytes),
        notes: if outcome == KillOutcome::Simulated { vec![simulated] } else { Vec::new() },
        ..blank
    }
}

fn no_such_gpu(order: &KillCommand, gpu: Option<&GpuInventory>) -> Option<Obstacle> {
    let why = || format!("this node has no GPU {}", order.gpu);
    gpu.is_none().then(|| Obstacle::new("no_such_gpu", why(), "Use the UUID from get_gpu_inventory."))
}

fn refusal(order: &KillCommand, process: &GpuProcess, gpu: &GpuInventory) -> Option<Obstacle> {
    let again = "List the processes of the node again.";
    let suspect =
        Candidate { pid: order.pid, comm: process.name.as_deref().unwrap_or_default(), ..Candidate::default() };
    if process.start_ticks != Some(order.start_ticks) {
        let why = format!("PID {} now belongs to another process", order.pid);
        return Some(Obstacle::new("recycled_pid", why, again));
    }
    if let Some(refusal) = protected::refusal(&suspect) {
        return Some(refusal);
    }
    let why = || format!("PID {} does not use this GPU", order.pid);
    evidence(process, gpu).is_empty().then(|| Obstacle::new("no_gpu", why(), again))
}

/// Returns the evidence that the process uses the GPU, in the same words as for a real node.
fn evidence(process: &GpuProcess, gpu: &GpuInventory) -> Vec<String> {
    let file = format!("/dev/nvidia{}", gpu.minor_number.unwrap_or(gpu.index));
    let listed = process.uses.iter().any(|gpu_use| gpu_use.gpu == gpu.index);
    let ways = [(listed, "nvml"), (process.open_device_files.contains(&file), "device_file")];
    ways.into_iter().filter(|(there, _)| *there).map(|(_, way)| way.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::processes::GpuUse;

    use super::*;

    #[test]
    fn a_process_that_is_not_listed_has_ended_only_if_all_were_visible() {
        use std::time::Duration;
        use syringe_core::facts::inventory::Inventory;
        use syringe_core::facts::processes::Processes;
        let outcome = |host_pid_namespace, uuid: &str| {
            let gpu = GpuInventory { uuid: Some("GPU-a".into()), ..GpuInventory::default() };
            let sections = Sections {
                inventory: Some(Section::read(Inventory { gpus: vec![gpu], ..Inventory::default() }, Vec::new())),
                processes: Some(Section::read(Processes { host_pid_namespace, ..Processes::default() }, Vec::new())),
                ..Sections::default()
            };
            let facts = Report { sections, ..Report::default() };
            let order =
                KillCommand { gpu: uuid.into(), pid: 7, start_ticks: 1, grace: Duration::from_secs(1), plan: true };
            let KillAction { outcome, refusal, .. } = kill(&order, &facts);
            (outcome, refusal.map(|refusal| refusal.code).unwrap_or_default())
        };
        assert_eq!(outcome(true, "GPU-a"), (KillOutcome::AlreadyGone, String::new()));
        assert_eq!(outcome(false, "GPU-a"), (KillOutcome::Refused, "pid_namespace".into()));
        assert_eq!(outcome(true, "GPU-b"), (KillOutcome::Refused, "no_such_gpu".into()));
    }

    #[test]
    fn a_process_uses_a_gpu_by_the_nvml_list_by_an_open_file_or_by_both() {
        let gpu = GpuInventory { index: 1, minor_number: Some(3), ..GpuInventory::default() };
        let listed = || vec![GpuUse { gpu: 1, ..GpuUse::default() }];
        let held = |name: &str| vec![name.to_owned()];
        let of =
            |uses, open_device_files| evidence(&GpuProcess { uses, open_device_files, ..GpuProcess::default() }, &gpu);
        assert_eq!(of(listed(), Vec::new()), ["nvml"]);
        assert_eq!(of(Vec::new(), held("/dev/nvidia3")), ["device_file"]);
        assert_eq!(of(listed(), held("/dev/nvidia3")), ["nvml", "device_file"]);
        assert_eq!(of(Vec::new(), held("/dev/nvidia1")), [""; 0], "the file name contains the minor number");
    }
}
