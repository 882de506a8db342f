//! Rules about lines of `host_lines.tsv`: the kernel, network cards, NVSwitches, host memory, disks, remote storage,
//! limits and clock of the host.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Node, STALE_AFTER};
use crate::input::processes::tasks_of_host;
use crate::input::timeline::follows;
use crate::rule::{Draft, Rule, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::host_lines;
use syringe_core::kernel_log::host_lines::{HostLine, Lasts};

rules! {
    NIC: "nic-problem" Critical Fabric None, "A network card reports a problem",
        CheckCabling "Check power, cooling and cable of the network card of {node} in the evidence. This is not a \
            GPU fault, but it affects jobs.",
        means "A network card reported errors in the kernel log, or the IOMMU blocked its transfers. Jobs on several nodes can be slow \
            or hang.",
        reads "xid: network cards, topology.nics", about Network;
    SWITCH: "nvswitch-not-started" Critical Fabric None, "The driver could not start an NVSwitch",
        DrainAndReboot "Drain {node} and power-cycle it. If the driver still cannot start the NVSwitch in the evidence, its board must be \
            inspected.",
        means "The driver nvidia-nvswitch failed for an NVSwitch: no NVLink leads to it, and GPUs reach each other over fewer links or not \
            at all.",
        reads "xid: kernel log lines";
    STUCK: "kernel-stuck" Warning Driver None, "A CPU of the node was stuck in the kernel",
        Watch "Read the stack below the lines in the kernel log of {node}. If the stack is in an NVIDIA module, \
            update the driver. Otherwise, look for an overloaded or faulty host. If the lines return, reboot \
            {node}.",
        means "The kernel reported a soft lockup, a hard lockup or an RCU stall. Programs stood still in that time.",
        reads "xid: kernel log lines", in_plan WorkContinues;
    CRASHED: "kernel-crashed" Warning Driver None, "The kernel of the node reported an internal error (BUG or Oops), but still runs",
        DrainAndReboot "Reboot {node} when its jobs have ended: after such a crash, the kernel can hang at any time.",
        means "The kernel reported a BUG or an Oops. The process that it hit was ended, and locks that it held remain locked.",
        reads "xid: kernel log lines";
    PANIC: "kernel-panic" Critical Driver None, "The kernel of the node panicked",
        Watch "Find the cause in the lines before the panic, and in the crash dump of {node}. If it is in an NVIDIA module, update the \
            driver.",
        means "The kernel stopped the node within the last day. All work on the node was lost.",
        reads "xid: kernel log lines", in_plan WorkContinues;
    MEMORY: "host-memory-error" Critical Hardware None, "Host memory has an error that it cannot correct",
        Watch "Find the memory module (DIMM) in the evidence or in the hardware log (BMC) of {node}. Drain {node} when its jobs have ended, and \
            replace the module: the kernel uses the damaged page again after the next boot. This is not a GPU fault.",
        means "The kernel found an uncorrectable error of host memory. It ends the process that uses the damaged page with SIGBUS.",
        reads "xid: kernel log lines", in_plan WorkContinues, fault HostMemory;
    STORAGE: "storage-error" Critical Hardware None, "A disk or a local file system reports errors",
        Watch "Check the disk of {node} in the evidence (SMART, nvme), and replace it if the check shows a fault or the errors return. This is \
            not a GPU fault.",
        means "The kernel reported errors of a disk, an array or a local file system. Programs that use it fail or wait.",
        reads "xid: kernel log lines", in_plan WorkContinues, fault Disk;
    REMOTE: "remote-storage-not-responding" Warning Application None, "A file server does not respond to the node",
        Watch "Check the file server in the evidence and its network. Jobs on {node} that read from it wait.",
        means "A remote file system (NFS, Lustre, Ceph, SMB) did not respond. Jobs that use it wait, with idle GPUs.",
        reads "xid: kernel log lines", in_plan WorkContinues;
    RESET: "passthrough-reset-failed" Warning Driver None, "A device for virtual machines did not come back after a reset",
        DrainAndReboot "Reboot {node} when its virtual machines have ended. Power-cycle {node} if the device in the \
            evidence still does not respond after the reboot. Until then, no virtual machine can start with the device.",
        means "A device that is bound to vfio-pci did not answer after a reset (FLR or bus reset) or a change of its power state. A further reset \
            does not help.",
        reads "xid: kernel log lines";
    LIMIT: "host-limit-reached" Warning Application None, "A limit of the host was reached",
        Watch "Raise the limit of {node} in the evidence, or find the program that uses it up.",
        means "A table or a limit of the kernel was full: connections, neighbours, open files, processes.",
        reads "xid: kernel log lines", in_plan WorkContinues, fault HostLimit;
    SLOW: "host-slow" Warning Thermal None, "The host is slower than usual",
        Watch "Check the cooling of the CPUs of {node}. This is not a GPU fault.",
        means "The kernel reported hot CPUs. Programs that depend on the CPU are slow.",
        reads "xid: kernel log lines", in_plan WorkContinues;
    CLOCK: "host-clock-slow" Warning Application None, "The host reads the time from a slow source",
        Watch "Compare /sys/devices/system/clocksource/clocksource0/current_clocksource of {node} with other nodes of its kind. If only {node} \
            differs, update its BIOS and reboot it when its jobs have ended. This is not a GPU fault.",
        means "The kernel stopped using the clock of the processor (TSC), because it was unstable. Programs that read the time often are slow.",
        reads "xid: kernel log lines", in_plan WorkContinues;
}

/// Actions for the kinds of lines of a network card (sub-codes in `host_lines.tsv`). Lines of the IOMMU have no
/// sub-code there.
const OF_CARD: [(&[&str], ActionCode, &str); 5] = [
    (
        &["not_started", "firmware_slow"],
        ActionCode::DrainAndReboot,
        "Drain {node} and power-cycle it: the firmware of the network card in the evidence does not start, and only a loss of power restarts it. \
         If the card fails again, update its firmware or replace the card. This is not a GPU fault, but it affects jobs.",
    ),
    (
        &["cable_unplugged", "cable_error", "link_down", "bond_down"],
        ActionCode::CheckCabling,
        "Check cable, transceiver and switch port of the network card of {node} in the evidence. This is not a GPU fault, but it affects jobs.",
    ),
    (
        &["high_temperature"],
        ActionCode::CheckCooling,
        "Check the airflow and the fans of {node} at the network card in the evidence. This is not a GPU fault, but it affects jobs.",
    ),
    (
        &[
            "health_compromised",
            "health_issue",
            "hardware_error",
            "fatal_error",
            "command_timeout",
            "access_reg_failed",
            "admin_timeout",
            "tx_timeout",
        ],
        ActionCode::UpdateSoftware,
        "Update firmware and driver of the network card of {node} in the evidence at the next maintenance, and replace the card if the errors \
         return. This is not a GPU fault, but it affects jobs.",
    ),
    (
        &[IOMMU],
        ActionCode::UpdateSoftware,
        "Update driver and firmware of the network card of {node} in the evidence, and check GPUDirect RDMA and the IOMMU setting of the kernel \
         (iommu=pt): the card used an address that is not mapped for it. This is not a GPU fault, but it affects jobs.",
    ),
];

/// Stands for the lines of the IOMMU in [`OF_CARD`].
const IOMMU: &str = "iommu";

/// Minimum number of lines within a day at which a device that works again still counts, because it fails often.
const OFTEN: u64 = 4;

/// Maximum number of events in a finding.
const SHOWN: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut by_rule: BTreeMap<&str, Vec<Line<'_>>> = BTreeMap::new();
    for event in &node.timeline.events {
        let row = host_lines::row_of(event.fact);
        let over_boots = row.is_some_and(|row| row.lasts == Lasts::AfterADayOverBoots);
        if event.cause.is_some() || event.history.is_some() && !over_boots {
            continue;
        }
        match row {
            Some(HostLine { finding: Some(rule), meaning, .. }) => {
                let mut line = Line { severity: Severity::Info, no_action: None, event: event.fact, meaning };
                match no_action(node, event.fact) {
                    Some(why) => line.no_action = Some(why),
                    None if is_panic_of_hardware(event.fact) => line.severity = Severity::Critical,
                    None => line.severity = row.map_or(Severity::Info, |row| row.severity),
                }
                by_rule.entry(rule).or_default().push(line);
            }
            None if event.fact.kind == Kind::Nic || is_of_card(node, event.fact) => {
                let no_action = is_old(node, event.fact).then_some(OLD);
                let severity = if no_action.is_some() { Severity::Info } else { Severity::Warning };
                by_rule.entry(NIC.id).or_default().push(Line { severity, no_action, event: event.fact, meaning: "" });
            }
            _ => {}
        }
    }
    let rule_of = |id: &str| RULES.iter().copied().find(|rule| rule.id == id);
    by_rule.into_iter().filter_map(|(id, events)| Some(draft(rule_of(id)?, events))).collect()
}

/// A line of the kernel with its current severity.
struct Line<'a> {
    severity: Severity,
    /// Why the line needs no action now.
    no_action: Option<&'static str>,
    event: &'a KernelEvent,
    meaning: &'static str,
}

const OLD: &str = "the last line is older than a day";
const FEW: &str = "such lines were too few to be a fault";
const OVER: &str = "the device works again";
const GUEST_CLOCK: &str = "a virtual machine uses a clock of its hypervisor";

/// Returns whether the kernel panicked because of a machine check.
fn is_panic_of_hardware(event: &KernelEvent) -> bool {
    event.sub_code.as_deref() == Some("panic") && event.raw.to_ascii_lowercase().contains("machine check")
}

const MACHINE_CHECK: &str = "Cordon {node}, and move its work to other nodes: the hardware stopped it, and will do so again. Read the hardware log (BMC) for \
     the processor, memory module or board of the machine checks, and have this part replaced. This is not a GPU fault.";

fn draft(rule: Rule, mut lines: Vec<Line<'_>>) -> Draft {
    lines.sort_by_key(|line| std::cmp::Reverse((line.severity, line.event.ordered_at())));
    let severity = lines.first().map_or(Severity::Info, |line| line.severity);
    let more = lines.len().saturating_sub(SHOWN);
    let draft = lines.iter().take(SHOWN).fold(Draft::on_node(rule).with_severity(severity), |draft, line| {
        let Line { event, meaning, .. } = line;
        let meaning = if meaning.is_empty() { String::new() } else { format!("{meaning}: ") };
        let place = event.pci_address.as_ref().map(|pci| format!(", {}", pci.sysfs())).unwrap_or_default();
        draft
            .with_time_of(event)
            .with_evidence(format!("{meaning}{}{place}", evidence::event(event)))
            .with_evidence(evidence::kernel_line(event))
    });
    let draft = if more > 0 { draft.with_evidence(format!("{more} more")) } else { draft };
    let of_hardware = lines.first().is_some_and(|line| is_panic_of_hardware(line.event));
    let draft = if of_hardware { draft.with_action(ActionCode::Watch, MACHINE_CHECK) } else { draft };
    let reasons: BTreeSet<&str> = lines.iter().filter_map(|line| line.no_action).collect();
    match severity {
        Severity::Info if !reasons.is_empty() => {
            let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
            let advice = format!("No action now: {reasons}. Watch whether the kernel of {{node}} logs them again.");
            draft.with_action(ActionCode::Watch, advice)
        }
        Severity::Info => {
            draft.with_action(ActionCode::Watch, "Watch whether the kernel of {node} logs the line again.")
        }
        _ => match lines.first().filter(|_| rule.id == NIC.id).and_then(|line| of_card(line.event)) {
            Some((action, advice)) => draft.with_action(action, advice),
            None => draft,
        },
    }
}

/// Returns the action for a line of a network card. `None`: the action of the rule.
fn of_card(event: &KernelEvent) -> Option<(ActionCode, &'static str)> {
    let kind = if event.kind == Kind::Iommu { IOMMU } else { host_lines::row_of(event)?.name };
    let row = OF_CARD.iter().find(|(kinds, ..)| kinds.contains(&kind));
    row.map(|(_, action, advice)| (*action, *advice))
}

fn is_old(node: &Node<'_>, event: &KernelEvent) -> bool {
    node.age(event.ordered_at()).is_some_and(|age| age > STALE_AFTER)
}

/// Returns why an event needs no action now: it is old, rare or over. `None` if it counts.
fn no_action(node: &Node<'_>, event: &KernelEvent) -> Option<&'static str> {
    let row = host_lines::row_of(event)?;
    let of_day = within_a_day(node, event);
    let over = of_day < OFTEN && is_over(node, event) || has_nvlinks(node, event);
    let old = row.lasts != Lasts::UntilBoot && is_old(node, event);
    let few = of_day < row.at_least && !(row.finding == Some(STORAGE.id) && blocks_tasks(node, event));
    let guest_clock = row.finding == Some(CLOCK.id) && boards::is_virtual_machine(node);
    [(over, OVER), (old, OLD), (few, FEW), (guest_clock, GUEST_CLOCK)]
        .into_iter()
        .find_map(|(is_so, why)| is_so.then_some(why))
}

/// Returns whether tasks of the host wait for a disk or a file system since an error of storage.
fn blocks_tasks(node: &Node<'_>, event: &KernelEvent) -> bool {
    tasks_of_host(node).any(|task| follows(event, task, Some(UNTIL_BLOCKED)))
}

/// The kernel reports a task as blocked this long after it began to wait, at the latest.
const UNTIL_BLOCKED: SignedDuration = SignedDuration::from_mins(10);

/// Returns the number of lines of an event within the day before its last line.
fn within_a_day(node: &Node<'_>, event: &KernelEvent) -> u64 {
    let day = |from: jiff::Timestamp| {
        event.ordered_at().or(node.now).is_none_or(|last| last.duration_since(from) <= SignedDuration::from_hours(24))
    };
    if event.first.is_none_or(day) {
        return event.count.max(1);
    }
    event.occurred_at().into_iter().filter(|time| day(*time)).count().try_into().unwrap_or(u64::MAX)
}

/// Returns whether a later line reports that the same device works again.
fn is_over(node: &Node<'_>, event: &KernelEvent) -> bool {
    let at = |event: &KernelEvent| event.ordered_at();
    node.timeline.events.iter().any(|end| host_lines::ends(end.fact, event) && at(end.fact) >= at(event))
}

/// Returns whether active NVLinks lead to the device of an event: the driver was loaded again and started it.
fn has_nvlinks(node: &Node<'_>, event: &KernelEvent) -> bool {
    let Some(device) = event.details.get("device") else { return false };
    let groups = node.topology().into_iter().flat_map(|topology| &topology.gpus).flat_map(|gpu| &gpu.nvlinks);
    let mut active =
        groups.filter(|group| group.active == Some(true)).filter_map(|group| group.remote_pci_address.as_ref());
    active.any(|remote| remote.sysfs() == *device)
}

/// Returns whether the IOMMU blocked a transfer of a network card.
fn is_of_card(node: &Node<'_>, event: &KernelEvent) -> bool {
    let cards = node.topology().map(|topology| topology.nics.as_slice()).unwrap_or_default();
    let is_here = |pci| cards.iter().any(|card| card.pci_address.as_ref() == Some(pci));
    event.kind == Kind::Iommu && event.pci_address.as_ref().is_some_and(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_of_a_network_card_has_one_action() {
        // These kinds keep the action of the rule.
        let of_rule = ["recovery_aborted"];
        for row in host_lines::all().iter().filter(|row| row.finding == Some(NIC.id)) {
            let rows = OF_CARD.iter().filter(|(kinds, ..)| kinds.contains(&row.name)).count();
            assert_eq!(rows, usize::from(!of_rule.contains(&row.name)), "{}", row.name);
        }
    }
}
