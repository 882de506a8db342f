//! `RULES`: the conditions of a GPU reset. Each rule adds a blocker to the plan if its condition is not met.
//! `target`: finds the GPU of the reset.

use super::nvlink_group::group;
use super::reset_conditions::ResetConditions;
use crate::facts::Unsupported;
use crate::facts::action::{Obstacle, ResetPlan};
use crate::facts::ecc::{GpuEcc, RecoveryAction};
use crate::facts::inventory::GpuInventory;
use crate::facts::kernel_log::KernelEvent;
use crate::facts::processes::GpuProcess;
use crate::gpu_names::GpuNames;
use crate::nvml_codes::GPU_LOST;
use crate::report::{Report, Section};

/// The next step if a reset would switch ECC off.
const KEEP_ECC: &str = "Switch ECC of the GPU on again (nvidia-smi -e 1), unless it is meant to be off.";

/// The next step if only a reboot helps.
const REBOOT: &str = "Cordon and drain the node, then reboot it.";
/// The next step if the probe does not see the processes of the host.
const HOST_PID: &str = "Run the probe with hostPID on a node that is not itself a container.";
/// Processes that release the GPU when persistence mode is disabled. The kernel truncates their names.
const PERSISTENCE_DAEMONS: [&str; 1] = ["nvidia-persiste"];
/// Maximum number of processes that a blocker lists.
const MAX_NAMED: usize = 8;

pub(super) type Rule = fn(&Report, &GpuInventory, ResetConditions, &mut ResetPlan);

/// All rules, in the order of the blockers.
pub(super) const RULES: &[Rule] = &[
    lost,
    driver,
    virtualization,
    cordon,
    allocations,
    processes,
    mps,
    display,
    mig,
    modes,
    group,
    recovery,
    remaps,
    history,
];

/// Returns the GPU with this UUID, or adds a blocker.
pub(super) fn target<'r>(facts: &'r Report, gpu: &str, blockers: &mut Vec<Obstacle>) -> Option<&'r GpuInventory> {
    if gpu.starts_with("MIG-") {
        blockers.push(Obstacle::new(
            "mig_uuid",
            format!("{gpu} is a MIG device; only the whole GPU can be reset"),
            "Use the UUID of the GPU (GPU-…).",
        ));
        return None;
    }
    let Some(inventory) = Section::data_of(&facts.sections.inventory) else {
        let why = facts.sections.inventory.as_ref().and_then(|section| section.problems.first());
        let why = why.map_or("the inventory was not read".to_owned(), |problem| problem.why.clone());
        blockers.push(Obstacle::new("inventory_unknown", format!("NVML is not available: {why}"), REBOOT));
        return None;
    };
    let found = inventory.gpus.iter().find(|entry| entry.uuid.as_deref() == Some(gpu));
    if found.is_none() {
        let on_bus = Section::data_of(&facts.sections.host).map_or(0, |host| host.pci_gpus.len());
        blockers.push(if on_bus > inventory.gpus.len() {
            Obstacle::new(
                "gpu_lost",
                format!(
                    "NVML does not list GPU {gpu}, and lists only {} of {on_bus} GPUs on the PCI bus: this GPU may be lost",
                    inventory.gpus.len()
                ),
                REBOOT,
            )
        } else {
            Obstacle::new(
                "no_such_gpu",
                format!("this node has no GPU {gpu}"),
                "Use the exact UUID from get_gpu_inventory.",
            )
        });
    }
    found
}

fn lost(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let problems = facts.sections.inventory.iter().flat_map(|section| &section.problems);
    let lost = problems.filter(|problem| problem.gpu == Some(gpu.index)).any(|problem| problem.code == GPU_LOST);
    let host = Section::data_of(&facts.sections.host);
    let on_bus = host.and_then(|host| host.pci_gpus.iter().find(|on_bus| on_bus.pci_address == gpu.pci_address));
    if lost || on_bus.is_some_and(|on_bus| on_bus.answers == Some(false)) {
        plan.block("gpu_lost", "the GPU fell off the PCI bus: a reset by the driver cannot reach this GPU", REBOOT);
    }
}

fn driver(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let Some(host) = Section::data_of(&facts.sections.host) else {
        return plan.block("host_unknown", "the driver of the GPU could not be read", "Try again.");
    };
    let on_bus = host.pci_gpus.iter().find(|on_bus| on_bus.pci_address == gpu.pci_address);
    let bound = on_bus.and_then(|on_bus| on_bus.driver.as_deref());
    if let Some(other) = bound.filter(|bound| *bound != "nvidia") {
        plan.block(
            "not_nvidia_driver",
            format!("the GPU is bound to {other}, not to the nvidia driver"),
            "Reset the GPU from the virtual machine or program that uses it.",
        );
    }
}

fn virtualization(_: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    match gpu.virtualization_mode.as_deref() {
        Some(mode @ ("vgpu" | "host_vgpu" | "host_vsga")) => plan.block(
            "vgpu",
            format!("virtualization mode {mode}: a GPU that virtual machines share cannot be reset by the probe"),
            "Stop the virtual machines that share the GPU, and reset the GPU on their host.",
        ),
        Some("passthrough") => {
            plan.notes.push("This node is a virtual machine: its hypervisor may reject the reset.".to_owned());
        }
        _ => {}
    }
}

fn cordon(_: &Report, _: &GpuInventory, conditions: ResetConditions, plan: &mut ResetPlan) {
    let why = "the node is not cordoned: a new pod could get this GPU during the reset";
    match conditions {
        ResetConditions { cordoned: true, .. } => {}
        ResetConditions { drain_check: true, .. } => {
            plan.block(
                "not_cordoned",
                why,
                "Run kubectl cordon for the node, move the pods off this GPU, and try again.",
            );
        }
        ResetConditions { .. } => plan.notes.push(format!("The drain check is off, and {why}.")),
    }
}

fn allocations(facts: &Report, gpu: &GpuInventory, conditions: ResetConditions, plan: &mut ResetPlan) {
    let section = facts.sections.kubelet.as_ref();
    let complete = section.is_some_and(|section| section.problems.is_empty() && section.data.is_some());
    if !complete {
        let why = "the pods that use this GPU could not be read completely";
        if conditions.drain_check {
            plan.block("allocations_unknown", why, "Read the kubelet section (node-probe kubelet) to see why.");
        } else {
            plan.notes.push(format!("The drain check is off, and {why}."));
        }
    }
    let Some(kubelet) = section.and_then(|section| section.data.as_ref()) else { return };
    let names = GpuNames::from_report(facts, Some(gpu.index), gpu.uuid.as_deref());
    let held = kubelet.allocations.iter().filter(|allocation| names.match_allocation(allocation));
    let mut pods: Vec<String> = held.map(|held| format!("pod {}", held.holder())).collect();
    pods.sort_unstable();
    pods.dedup();
    if pods.is_empty() {
        return;
    }
    let why = format!("the GPU is allocated to {}", pods.join(", "));
    if conditions.drain_check {
        plan.block("allocated", why, "Delete or move these pods first.");
    } else {
        plan.notes.push(format!("The drain check is off, and {why}."));
    }
}

fn processes(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let section = facts.sections.processes.as_ref();
    let Some(processes) = section.and_then(|section| section.data.as_ref()) else {
        return plan.block("processes_unknown", "the processes on the GPU could not be read", REBOOT);
    };
    if !processes.host_pid_namespace {
        let why = "the probe does not see the processes of the host: the GPU may be in use";
        return plan.block("processes_unknown", why, HOST_PID);
    }
    let problems = section.map(|section| section.problems.as_slice()).unwrap_or_default();
    if let Some(problem) = problems.iter().find(|problem| problem.gpu.is_none_or(|at| at == gpu.index)) {
        let why = format!("the processes on the GPU could only be read in part: {}", problem.why);
        return plan.block("processes_unknown", why, "Try again.");
    }
    let held_as = gpu.minor_number.map(|minor| format!("/dev/nvidia{minor}"));
    let on_gpu = |process: &&GpuProcess| {
        let listed = process.uses.iter().any(|gpu_use| gpu_use.gpu == gpu.index);
        // Without a minor number, any open device file may belong to this GPU.
        listed || process.open_device_files.iter().any(|held| held_as.as_ref().is_none_or(|ours| held == ours))
    };
    let in_the_way: Vec<&GpuProcess> = processes
        .processes
        .iter()
        .filter(on_gpu)
        .filter(|process| !process.name.as_deref().is_some_and(|name| PERSISTENCE_DAEMONS.contains(&name)))
        .collect();
    if in_the_way.is_empty() {
        return;
    }
    let stuck = in_the_way.iter().any(|process| process.is_uninterruptible());
    let named: Vec<_> = in_the_way.iter().take(MAX_NAMED).map(|process| describe(process)).collect();
    let more = if in_the_way.len() > MAX_NAMED {
        format!(" and {} more", in_the_way.len() - MAX_NAMED)
    } else {
        String::new()
    };
    let counted = match in_the_way.len() {
        1 => "1 process is".to_owned(),
        count => format!("{count} processes are"),
    };
    let why = format!("{counted} on the GPU: {}{more}", named.join(", "));
    if stuck {
        plan.block("processes_stuck", format!("{why}; only a reboot stops a process in state D"), REBOOT);
    } else {
        let next = "Stop these processes first: delete their pods. This includes monitors (DCGM, exporters).";
        plan.block("processes", why, next);
    }
}

fn describe(process: &GpuProcess) -> String {
    let name = process.name.as_deref().unwrap_or("?");
    let state = process.state.as_deref().map(|state| format!(", state {state}")).unwrap_or_default();
    let pod = process.pod_uid.as_deref().map(|uid| format!(", pod UID {uid}")).unwrap_or_default();
    format!("{} ({name}{state}{pod})", process.pid)
}

fn mps(facts: &Report, _: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    match Section::data_of(&facts.sections.host).map(|host| host.daemons.mps) {
        Some(Some(true)) => {
            let next = "Stop the daemon with: echo quit | nvidia-cuda-mps-control.";
            plan.block("mps", "the MPS daemon is running on this node and may use the GPU at any time", next);
        }
        Some(None) => plan.block("mps_unknown", "the state of the MPS daemon could not be read", HOST_PID),
        // If the section is missing, the rule `driver` adds a blocker.
        Some(Some(false)) | None => {}
    }
}

fn display(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let known =
        Section::data_of(&facts.sections.inventory).is_some_and(|all| lacks(&all.unsupported, gpu, "display_active"));
    match gpu.display_active {
        Some(true) => plan.block("display", "a display is active on the GPU", "Stop the display manager on the node."),
        None if !known => plan.block("display_unknown", "the display state of the GPU could not be read", "Try again."),
        Some(false) | None => {}
    }
}

/// Returns whether the hardware or the driver does not support a field of this GPU. Such a field does not block the reset.
fn lacks(unsupported: &[Unsupported], gpu: &GpuInventory, field: &str) -> bool {
    unsupported.iter().any(|entry| entry.gpus.contains(&gpu.index) && entry.fields.iter().any(|name| name == field))
}

fn mig(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let section = Section::data_of(&facts.sections.mig);
    let entry = section.and_then(|mig| mig.gpus.iter().find(|entry| entry.index == gpu.index));
    let mode = gpu.mig_mode.or(entry.and_then(|entry| entry.mode));
    let Some(mode) = mode else {
        let absent = Section::data_of(&facts.sections.inventory)
            .is_some_and(|all| lacks(&all.unsupported, gpu, "mig_mode"))
            || section.is_some_and(|mig| lacks(&mig.unsupported, gpu, "mode"));
        if !absent {
            plan.block("mig_unknown", "the MIG mode could not be read", "Try again.");
        }
        return;
    };
    if mode.current && entry.is_none() {
        return plan.block("mig_unknown", "MIG is enabled, but its instances could not be read", "Try again.");
    }
    let instances = entry.map_or(0, |entry| entry.devices.len());
    if instances > 0 {
        plan.block(
            "mig_instances",
            format!("MIG is enabled, and the GPU has {instances} MIG devices"),
            "Delete the compute and GPU instances when no process uses them (nvidia-smi mig -dci, -dgi, or the MIG manager), and \
             create them again after the reset.",
        );
    }
    if mode.current != mode.pending {
        plan.reasons.push(format!("MIG mode will be {} after the reset.", if mode.pending { "on" } else { "off" }));
    }
}

fn modes(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let mode = gpu.ecc_mode.or_else(|| ecc(facts, gpu).and_then(|ecc| ecc.mode));
    if let Some(mode) = mode.filter(|mode| mode.current != mode.pending) {
        if mode.pending {
            plan.block("mode_change_pending", "ECC will be on after the next reboot", REBOOT);
        } else {
            plan.block("ecc_off_pending", "ECC will be off after the reset", KEEP_ECC);
        }
    }
}

fn ecc<'r>(facts: &'r Report, gpu: &GpuInventory) -> Option<&'r GpuEcc> {
    Section::data_of(&facts.sections.ecc)?.gpus.iter().find(|entry| entry.index == gpu.index)
}

fn recovery(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let section = facts.sections.ecc.as_ref();
    let mut problems = section.into_iter().flat_map(|section| &section.problems);
    if ecc(facts, gpu).is_none() || problems.any(|problem| problem.gpu.is_none_or(|at| at == gpu.index)) {
        let why = "the recovery action and pending repairs could not be read";
        plan.block("ecc_unknown", why, "Try again.");
    }
    match ecc(facts, gpu).and_then(|ecc| ecc.recovery_action) {
        Some(action @ (RecoveryAction::NodeReboot | RecoveryAction::SystemReboot)) => {
            let word = if action == RecoveryAction::NodeReboot { "node" } else { "whole system" };
            plan.block(
                "reboot_required",
                format!("the driver recommends a reboot of the {word}: a reset is not sufficient"),
                REBOOT,
            );
        }
        Some(RecoveryAction::DrainP2p) => plan.block(
            "drain_p2p",
            "the driver recommends draining peer-to-peer traffic first",
            "Move the jobs off all GPUs of the node, then check again.",
        ),
        Some(RecoveryAction::RecoverImex) => plan.block(
            "recover_imex",
            "the driver recommends recovering the IMEX domain: a reset of this GPU is not sufficient",
            "Recover the IMEX domain (nvidia-imex-ctl), then check again.",
        ),
        Some(RecoveryAction::BusReset) => {
            plan.block("bus_reset", "the driver recommends a bus reset, which affects all devices on the bus", REBOOT)
        }
        Some(RecoveryAction::GpuReset | RecoveryAction::DrainAndReset) => {
            plan.reasons.push("The driver recommends a reset of this GPU.".to_owned());
        }
        Some(RecoveryAction::None | RecoveryAction::Unknown) | None => {}
    }
}

fn remaps(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let Some(ecc) = ecc(facts, gpu) else { return };
    if ecc.remapped_rows.as_ref().is_some_and(|rows| rows.pending) {
        plan.reasons.push("A row remap is pending until a reset.".to_owned());
    }
    if ecc.remapped_rows.as_ref().is_some_and(|rows| rows.failure_occurred) {
        plan.notes.push("A row remap failed: a reset does not repair this board.".to_owned());
    }
    if ecc.unrepairable_memory == Some(true) {
        plan.notes
            .push("The memory has a fault that cannot be repaired: a reset does not repair this board.".to_owned());
    }
    if ecc.channel_repair_pending == Some(true) || ecc.tpc_repair_pending == Some(true) {
        plan.reasons.push("A repair of memory channels or TPCs is pending until a reset.".to_owned());
    }
}

/// Blocks the reset of a GPU that has fallen off the bus since the last boot, even if the GPU responds again.
fn history(facts: &Report, gpu: &GpuInventory, _: ResetConditions, plan: &mut ResetPlan) {
    let Some(log) = Section::data_of(&facts.sections.xid) else {
        plan.notes.push("The kernel log could not be read: earlier errors of the GPU are not known.".to_owned());
        return;
    };
    let ours = log.events.iter().filter(|event| event.boot_id.is_none() && event.gpu_index == Some(gpu.index));
    let off_bus = ours.into_iter().any(KernelEvent::is_off_bus);
    if off_bus && !plan.blockers.iter().any(|blocker| blocker.code == "gpu_lost") {
        plan.block("fell_off_bus", "the GPU has fallen off the PCI bus since the last boot (Xid 79)", REBOOT);
    }
}
