//! Rules about PCIe: lost lanes, low generation, slots that limit the GPU, errors, lost links, replays, IOMMU faults.
//!
//! An idle GPU lowers the generation of its link to save power, so the generation is checked only under load. The
//! number of lanes does not change in normal operation. Errors are often logged for the port above the GPU.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::evidence;
use crate::finding::Scope;
use crate::input::boards;
use crate::input::load::Load;
use crate::input::log_window;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::recovery::Recovered;
use crate::input::timeline::{concerns, is_off_bus};
use crate::rule::{AER_DOC, DEBUG_DOC, Draft, Rule, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::topology::{GpuTopology, PcieHop};
use syringe_core::kernel_log::catalogue::RecoveryEvidence;
use syringe_core::pci::PciAddress;

rules! {
    WIDTH: "pcie-width-degraded" Critical Fabric DEBUG_DOC, "PCIe link runs with fewer lanes",
        CheckCabling "Drain {node}, reseat {gpu} or its riser and cables. If the lanes do not return, move {gpu} to \
            another slot. If it has fewer lanes there, too, replace it.",
        means "The PCIe link of the GPU uses fewer lanes than GPU and slot support. Transfers are slower.",
        reads "topology.pcie_path, telemetry.pcie, inventory.pcie_max_width", in_plan WorkContinues;
    GENERATION: "pcie-generation-low" Warning Fabric DEBUG_DOC, "PCIe link is slow under load",
        CheckCabling "Reboot {node} when it is drained. If the link of {gpu} is slow again, check riser, cables and \
            BIOS settings.",
        means "The PCIe link of the GPU, or a link above it, stays at a lower generation under load than both of its ends support.",
        reads "telemetry.pcie, topology.pcie_path, inventory.pcie_max_generation, telemetry.utilization";
    PATH: "pcie-path-degraded" Warning Fabric DEBUG_DOC, "A PCIe link above the GPU runs with fewer lanes",
        CheckCabling "Check the switch, riser and cables above {gpu} on {node}. All GPUs below share that link.",
        means "A link between the GPU and the processor uses fewer lanes than both ends support.",
        reads "topology.pcie_path";
    SLOT_DIFFERS: "pcie-slot-below-peers" Warning Fabric DEBUG_DOC, "The slot offers less than the slots of the other GPUs",
        CheckCabling "Check riser, retimer and the firmware settings of the slot of {gpu} on {node} at the next maintenance: slots of the \
            other GPUs of this model have more lanes or a higher generation.",
        means "The slot of one GPU offers fewer lanes or a lower generation than the slots of all other GPUs of its board.",
        reads "topology.pcie_path";
    SLOT: "pcie-slot-limits-gpu" Info Fabric DEBUG_DOC, "The slot supports less than the GPU",
        None "No action: the slots of {node} limit {gpu}.",
        means "The slot or the switch above the GPU offers fewer lanes or a lower generation than the GPU could use.",
        reads "topology.pcie_path, inventory.pcie_max_width";
    AER_FATAL: "pcie-errors-fatal" Critical Fabric AER_DOC, "Fatal PCIe errors",
        DrainAndReboot "Drain and reboot {node}.",
        means "PCIe reported fatal errors of the GPU or of a port above it.",
        reads "xid: PCIe errors (AER)";
    AER_NONFATAL: "pcie-errors-uncorrected" Warning Fabric AER_DOC, "Uncorrected PCIe errors",
        CheckCabling "Watch the PCIe errors of {gpu} on {node}. If they increase, check seating, riser and cables.",
        means "PCIe reported uncorrected errors of the GPU or of a port above it.",
        reads "xid: PCIe errors (AER)", fault PcieLink;
    AER_CORRECTED: "pcie-errors-corrected" Warning Fabric AER_DOC, "Many corrected PCIe errors",
        CheckCabling "Check seating, riser and cables of {gpu} on {node} at the next maintenance.",
        means "PCIe corrected very many errors of the GPU or of a port above it: the quality of the link is poor.",
        reads "xid: PCIe errors (AER)", fault PcieLink;
    UNATTRIBUTED: "pcie-errors-unattributed" Warning Fabric AER_DOC, "Uncorrected PCIe errors, possibly above a GPU",
        CheckCabling "Find out what is connected below that port of {node} (lspci -t). These devices were not read. \
            If one of these devices is a GPU, check its seating, riser and cables.",
        means "PCIe reported uncorrected errors of a port whose devices are not known. The port may be above a GPU.",
        reads "xid: PCIe errors (AER), topology.pcie_path";
    ABOVE_GPUS: "pcie-errors-above-gpus" Warning Fabric AER_DOC, "Uncorrected PCIe errors of a port above several GPUs",
        CheckCabling "Watch the GPUs in the evidence on {node}. If the count grows, check what they share: PCIe switch, riser and cables.",
        means "PCIe reported uncorrected errors of a port through which several GPUs are connected, such as the upstream port of a PCIe switch.",
        reads "xid: PCIe errors (AER), topology.pcie_path";
    ELSEWHERE: "pcie-errors-elsewhere" Info Fabric AER_DOC, "PCIe errors on a device that is not a GPU",
        Watch "No action for the GPUs of {node}, unless a GPU is connected below that port.",
        means "PCIe reported errors of a device that is not connected to a GPU.",
        reads "xid: PCIe errors (AER), topology.pcie_path";
    LINK_LOST: "pcie-link-lost" Critical Fabric DEBUG_DOC, "The PCIe link of the GPU went down",
        CheckCabling "Drain {node}, and check seating and power of {gpu}. If the link stays down, power-cycle {node}.",
        means "The kernel reported that the PCIe link of the GPU went down.",
        reads "xid: PCIe slots";
    LINK_UNATTRIBUTED: "pcie-link-lost-unattributed" Warning Fabric DEBUG_DOC,
        "A PCIe link, possibly of a GPU, went down",
        CheckCabling "Find out what is connected below that port of {node} (lspci -t). These devices were not read. \
            If one of these devices is a GPU, check its seating and power.",
        means "The kernel reported that a PCIe link went down. Its device is not known, and may be a GPU.",
        reads "xid: PCIe slots";
    IOMMU: "iommu-fault" Critical Driver None, "The IOMMU blocked DMA transfers by the GPU",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}. If the faults return, check the IOMMU settings \
            of the kernel and the BIOS (for GPUDirect: iommu=pt, ACS off), then the NVIDIA driver and the network driver.",
        means "The IOMMU blocked direct memory access (DMA) by the GPU: transfers fail, jobs hang or lose data.",
        reads "xid: IOMMU faults (DMAR, AMD-Vi, SMMU), host.pci_gpus";
    REPLAYS: "pcie-replays-high" Warning Fabric DEBUG_DOC, "Many PCIe replays",
        CheckCabling "Check seating, riser and cables of {gpu} on {node}: the link resends packets.",
        means "The PCIe link of the GPU had to repeat many transfers: the quality of the link is poor.",
        reads "telemetry.pcie, telemetry.sample", fault PcieLink;
}

/// Utilization at which the link must run at its full generation.
const LOADED_PERCENT: u32 = 30;

/// At boot, the scan of the bus causes a few "unsupported request" errors, which are normal.
const USUAL_NONFATAL: u64 = 10;

/// Corrected errors have no effect, but this number indicates a bad link.
const MANY_CORRECTED: u64 = 1000;

/// This number of corrected errors is shown. With replays that the other GPUs do not have, it indicates a bad link.
const SEVERAL_CORRECTED: u64 = 100;

/// Minimum number of replays, and minimum ratio to the other GPUs, for a link that is unlike the others.
const UNLIKE_OTHERS: (u64, u64) = (1000, 20);

/// Limit of replays per minute and lane in DCGM, in hundredths, for generation 1 to 6.
const REPLAYS_PER_LANE: [u64; 6] = [15, 30, 48, 96, 192, 384];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in &node.gpus {
        // Link errors of a GPU that fell off the bus are consequences.
        let left = |event: &&KernelEvent| is_off_bus(event) && concerns(event, gpu);
        let gone = node.timeline.current().filter(left).any(|event| node.recovered(gpu, &[event]).is_none());
        if gone {
            continue;
        }
        drafts.extend(link(node, gpu));
        drafts.extend(width_by_sysfs(node, gpu));
        if let Some(topology) = node.topology_of(gpu) {
            drafts.extend(path(node, gpu, topology));
        }
        drafts.extend(replays(node, gpu).or_else(|| unlike_others(node, gpu)));
        drafts.extend(errors(node, gpu));
    }
    if have_equal_widths(node, &drafts) {
        let of_width = drafts.iter_mut().filter(|draft| draft.rule.id == WIDTH.id);
        of_width.for_each(|draft| (draft.action, draft.advice) = (ActionCode::UpdateSoftware, ALL_ALIKE.to_owned()));
    }
    drafts.extend(of_switches(node));
    drafts.extend(elsewhere(node));
    drafts.extend(links_elsewhere(node));
    drafts
}

/// If at least this many GPUs have the same width, they share the cause.
const ALIKE_FROM: usize = 3;

/// Returns whether all GPUs of the node lack the same lanes.
fn have_equal_widths(node: &Node<'_>, drafts: &[Draft]) -> bool {
    let widths: Vec<&Draft> = drafts.iter().filter(|draft| draft.rule.id == WIDTH.id).collect();
    let is_same = |draft: &&&Draft| draft.evidence.first() == widths[0].evidence.first();
    widths.len() >= ALIKE_FROM && widths.len() == node.gpus.len() && widths.iter().all(|draft| is_same(&draft))
}

const ALL_ALIKE: &str = "Drain {node}, and check the BIOS setting of the lanes (bifurcation) and the firmware of its board: all GPUs of {node} have the same \
    number of lanes, so a fault of each GPU or slot is unlikely.";

fn link(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let now = node.telemetry_of(gpu)?;
    let pcie = &now.pcie;
    // NVML's maximum may apply to the GPU alone. Another finding reports that the slot limits the GPU.
    let port = node.topology_of(gpu).and_then(|topology| topology.pcie_path.get(1));
    let at_most = |own: u32, port: Option<u32>| port.filter(|port| *port > 0).map_or(own, |port| port.min(own));
    let slot = (port.and_then(|port| port.max_width), port.and_then(|port| port.max_generation));
    let device = node.topology_of(gpu).and_then(|topology| topology.pcie_path.first());
    // If the slot is not visible, the host of the machine has chosen lanes and generation.
    let of_host = device.is_some() && port.is_none() && boards::is_virtual_machine(node);
    let known = |draft: Draft| match of_host {
        true => draft.with_severity(Severity::Info).with_action(ActionCode::Watch, OF_HOST),
        false => draft,
    };
    // One slow link among several is a fault, also in a virtual machine.
    let of_others = |other: &Gpu| node.telemetry_of(other).and_then(|now| now.pcie.generation);
    let are_alike =
        node.answering().filter(|other| other.name == gpu.name).all(|other| of_others(other) == pcie.generation);
    if let (Some(width), Some(most)) = (pcie.width, pcie.max_width.map(|most| at_most(most, slot.0)))
        && width < most
        && width > 0
    {
        return Some(known(Draft::on_gpu(WIDTH, gpu).with_evidence(format!("x{width} of x{most}"))));
    }
    // A firmware setting lowers NVML's maximum, but not the maximum that both ends of the link support.
    let both_ends = device.and_then(|device| device.max_generation).zip(slot.1).map(|(device, slot)| device.min(slot));
    let both_ends = both_ends.filter(|_| boards::is_bare_metal(node));
    // The two readings are from different moments. A link that reached its generation in one of them is not slow.
    let in_sysfs = device.and_then(|device| device.generation).unwrap_or(0);
    let generation = pcie.generation?.max(in_sysfs);
    let most = at_most(pcie.max_generation?, slot.1).max(both_ends.unwrap_or(0));
    let load = loaded(node, gpu)?;
    let evidence = || format!("generation {generation} of {most} {load}");
    let draft = || Draft::on_gpu(GENERATION, gpu).with_evidence(evidence());
    (generation < most && generation > 0).then(|| if are_alike { known(draft()) } else { draft() })
}

/// Action for a link whose slot belongs to the host of a virtual machine.
const OF_HOST: &str = "No action: {node} is a virtual machine, and its host decides how many lanes and which generation {gpu} gets. Compare with other \
     machines of this instance type if transfers are slow.";

/// Returns the load of a GPU if its link must run at the full generation.
fn loaded(node: &Node<'_>, gpu: &Gpu) -> Option<Load> {
    node.load(gpu).filter(|load| load.reaches(LOADED_PERCENT))
}

/// Checks the width of the GPU's link in sysfs, if NVML does not report it.
fn width_by_sysfs(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    if node.telemetry_of(gpu).is_some_and(|now| now.pcie.width.is_some() && now.pcie.max_width.is_some()) {
        return None;
    }
    let [device, port, ..] = node.topology_of(gpu)?.pcie_path.as_slice() else { return None };
    let (width, most) = (device.width?, device.max_width?.min(port.max_width?));
    (width < most && width > 0).then(|| Draft::on_gpu(WIDTH, gpu).with_evidence(format!("x{width} of x{most} (sysfs)")))
}

/// Minimum number of cards for which slots are expected to be equal. Workstations have slots of several kinds.
const EQUAL_SLOTS: usize = 8;

/// Compares the slot of a GPU with the slots of all other GPUs of its model. The slots of NVLink boards and of servers
/// with many cards are equal.
fn slot_of_others(node: &Node<'_>, gpu: &Gpu, port: &PcieHop) -> Option<Draft> {
    let others = node.answering().filter(|other| other.name == gpu.name && other.index != gpu.index);
    let slots: Vec<&PcieHop> = others.filter_map(|other| node.topology_of(other)?.pcie_path.get(1)).collect();
    let least = if boards::of(gpu).is_some() { 3 } else { EQUAL_SLOTS };
    if slots.len() + 1 < least || !boards::is_bare_metal(node) {
        return None;
    }
    let compare = |of: fn(&PcieHop) -> Option<u32>| {
        let usual =
            slots.first().and_then(|slot| of(slot)).filter(|usual| slots.iter().all(|slot| of(slot) == Some(*usual)));
        of(port).zip(usual).filter(|(own, usual)| own < usual && *own > 0)
    };
    let generation = compare(|slot| slot.max_generation)
        .map(|(own, usual)| format!("slot generation {own}, slots of the other GPUs {usual}"));
    let width =
        compare(|slot| slot.max_width).map(|(own, usual)| format!("slot x{own}, slots of the other GPUs x{usual}"));
    let lines: Vec<String> = generation.into_iter().chain(width).collect();
    (!lines.is_empty()).then(|| Draft::on_gpu(SLOT_DIFFERS, gpu).with_all_evidence(lines))
}

/// Compares the slot with the GPU, and checks the links above the GPU.
fn path(node: &Node<'_>, gpu: &Gpu, topology: &GpuTopology) -> Vec<Draft> {
    let hops = &topology.pcie_path;
    let mut drafts: Vec<Draft> = hops.get(1).and_then(|port| slot_of_others(node, gpu, port)).into_iter().collect();
    if let ([device, port, ..], []) = (hops.as_slice(), drafts.as_slice()) {
        let below = |port: Option<u32>, device: Option<u32>| {
            port.zip(device).filter(|(port, device)| port < device && *port > 0)
        };
        if let Some((slot, own)) = below(port.max_generation, device.max_generation) {
            drafts
                .push(Draft::on_gpu(SLOT, gpu).with_evidence(format!("slot generation {slot}, GPU generation {own}")));
        } else if let Some((slot, own)) = below(port.max_width, device.max_width) {
            drafts.push(Draft::on_gpu(SLOT, gpu).with_evidence(format!("slot x{slot}, GPU x{own}")));
        }
    }
    // A link between two bridges has an upstream port at its lower end.
    for pair in hops.windows(2).skip(1) {
        let [lower, upper] = pair else { continue };
        let possible = lower.max_width.zip(upper.max_width).map(|(lower, upper)| lower.min(upper));
        let is_link = lower.kind == "switch_upstream";
        if let (Some(width), Some(most), true) = (lower.width, possible, is_link)
            && width < most
            && width > 0
        {
            drafts.push(Draft::on_gpu(PATH, gpu).with_evidence(format!("x{width} of x{most}{}", at(lower))));
        }
        // In a virtual machine, the ports are virtual.
        let load = loaded(node, gpu).filter(|_| is_link && boards::is_bare_metal(node));
        let runs = lower.generation.zip(upper.generation).map(|(lower, upper)| lower.min(upper));
        let possible = lower.max_generation.zip(upper.max_generation).map(|(lower, upper)| lower.min(upper));
        if let (Some(generation), Some(most), Some(load)) = (runs, possible, load)
            && generation < most
            && generation > 0
        {
            let evidence = format!("generation {generation} of {most} {load}{}", at(lower));
            drafts.push(Draft::on_gpu(GENERATION, gpu).with_evidence(evidence));
        }
    }
    drafts
}

fn at(hop: &PcieHop) -> String {
    hop.pci_address.as_ref().map(|pci| format!(" at {}", pci.sysfs())).unwrap_or_default()
}

/// Minimum number of replays in a short window. Fewer replays can be a coincidence.
const LEAST_IN_WINDOW: u64 = 3;

/// Number of replays that are expected in the window at the average rate. If at least this many are expected but none
/// occur, the replays have ended.
const EXPECTED_IN_WINDOW: u64 = 10;

/// Checks the replays in the window between two readings, and their average rate since the driver was loaded (at most
/// since boot), which is a lower bound of the rate.
fn replays(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let now = node.telemetry_of(gpu)?;
    let pcie = &now.pcie;
    let (replays, lanes) = (pcie.replays?, u64::from(pcie.width?));
    let generation = usize::try_from(pcie.max_generation.or(pcie.generation)?).ok()?;
    let allowed = REPLAYS_PER_LANE.get(generation.checked_sub(1)?)?.saturating_mul(lanes);
    let window = now.sample.as_ref().and_then(|sample| Some((sample, sample.pcie_replays?)));
    if let Some((sample, added)) = window
        && added >= LEAST_IN_WINDOW
        && sample.per_minute(added).saturating_mul(100) > allowed
    {
        let line = format!("{added} replays in the last {}, {replays} before", evidence::window(sample));
        return Some(Draft::on_gpu(REPLAYS, gpu).with_evidence(line));
    }
    let minutes = (node.counted_seconds()? / 60).max(1);
    let high = replays.saturating_mul(100) > allowed.saturating_mul(minutes);
    let from = if node.driver_loaded().is_some() { "since the driver was loaded" } else { "at most since boot" };
    let rollovers = pcie.replay_rollovers.filter(|count| *count > 0);
    let line = format!("{replays} replays in {minutes} min, {from}");
    let ended = window.filter(|(sample, added)| {
        *added == 0 && (replays / minutes).saturating_mul(sample.window_ms) / 60_000 >= EXPECTED_IN_WINDOW
    });
    let none = ended.map(|(sample, _)| format!("none in the last {}", evidence::window(sample)));
    // The time of a counter rollover is not known.
    match (high, rollovers) {
        (true, _) => {
            let severity = if none.is_some() { Severity::Info } else { Severity::Warning };
            Some(Draft::on_gpu(REPLAYS, gpu).with_severity(severity).with_evidence(line).with_all_evidence(none))
        }
        (false, Some(count)) => {
            let rolled = format!("the counter of replays rolled over {}", evidence::times(count));
            Some(Draft::on_gpu(REPLAYS, gpu).with_severity(Severity::Info).with_evidence(line).with_evidence(rolled))
        }
        (false, None) => None,
    }
}

/// Finds replays below the limit of a link that the other GPUs of the node do not have.
fn unlike_others(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    replays_unlike_others(node, gpu).map(|line| Draft::on_gpu(REPLAYS, gpu).with_evidence(line))
}

/// Returns a line about replays of this GPU if its count is much higher than on each other GPU of the node.
fn replays_unlike_others(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    let replays = |gpu: &Gpu| node.telemetry_of(gpu)?.pcie.replays;
    let own = replays(gpu)?;
    let most = node.answering().filter(|other| other.index != gpu.index).filter_map(replays).max()?;
    let (least, ratio) = UNLIKE_OTHERS;
    (own >= least && own / ratio >= most)
        .then(|| format!("{own} PCIe replays since the driver was loaded, at most {most} on the other GPUs"))
}

/// Returns findings about AER errors in the counters of the path and in the kernel log.
fn errors(node: &Node<'_>, gpu: &Gpu) -> Vec<Draft> {
    let hops = node.topology_of(gpu).map(|topology| topology.pcie_path.as_slice()).unwrap_or_default();
    // Only the GPU and its port are used. Devices above the port are shared with other devices.
    let near = hops.iter().take(2);
    let total = |kind: &str| near.clone().filter_map(|hop| hop.aer.get(kind)).max().copied().unwrap_or(0);
    let events: Vec<&KernelEvent> =
        node.timeline.current().filter(|event| below(node, event).is_some_and(|below| below == gpu)).collect();
    let lines = |kinds: &[&str]| -> Vec<&KernelEvent> {
        let wanted = |event: &&&KernelEvent| event.sub_code.as_deref().is_some_and(|sub| kinds.contains(&sub));
        events.iter().filter(|event| event.kind == Kind::Aer).filter(wanted).copied().collect()
    };
    let (fatal, nonfatal) = (
        lines(&["uncorrected_fatal", "cannot_recover", "recovery_failed"]),
        lines(&["uncorrected_nonfatal", "uncorrected"]),
    );
    let corrected = lines(&["corrected"]);
    let corrected_lines: u64 = corrected.iter().map(|event| event.count).sum();
    let count = |kind: &str| {
        Some(total(kind)).filter(|&count| count > 0).map(|count| format!("AER counters since boot: {count} {kind}"))
    };
    let mut drafts = Vec::new();
    if !fatal.is_empty() || total("fatal") > 0 {
        // An error without a log line occurred before the log starts.
        let newest = fatal.iter().filter_map(|event| event.ordered_at()).max();
        let newest = newest.or_else(|| log_window::covered_since(node).filter(|_| fatal.is_empty()));
        // The kernel logs the end of the recovery.
        let ended = |event: &&&KernelEvent| event.kind == Kind::Aer && event.ordered_at() >= newest;
        let recovery = lines(&["recovered"]).iter().find(ended).and_then(|_| of_link(node, gpu, newest));
        let logged = fatal.len();
        let failed = !lines(&["cannot_recover", "recovery_failed"]).is_empty();
        let draft = Draft::on_gpu(AER_FATAL, gpu).with_events(fatal).with_all_evidence(count("fatal"));
        let recovery = recovery.filter(|_| !failed).or_else(|| rests(node, gpu, newest));
        let inspect = "Then check seating, riser and cables of {gpu}, and the slot.".to_owned();
        let further = vec![(ActionCode::CheckCabling, inspect)];
        // No log line shows when a counted error occurred. It is at least as severe as the uncorrected errors that the
        // port also counts.
        if logged == 0 && recovery.as_ref().is_some_and(|recovered| recovered.long_ago) {
            drafts.push(draft.with_severity(Severity::Warning).with_action(
                ActionCode::CheckCabling,
                "Check seating, riser and cables of {gpu} on {node}, and the slot, at the next maintenance: the link had a fatal error since \
                 the boot. {gpu} works now.",
            ));
        } else {
            // If the GPU responds, its work may finish.
            let draft = Draft { can_wait: node.is_readable(gpu), further, ..draft };
            drafts.push(draft.unless_recovered(recovery.into(), node.booted().is_some()));
        }
    }
    let up_for = days(node.host().and_then(|host| host.uptime_seconds));
    if !nonfatal.is_empty() || total("nonfatal") > USUAL_NONFATAL {
        let per_day = total("nonfatal").saturating_sub(USUAL_NONFATAL) / up_for;
        let draft = Draft::on_gpu(AER_NONFATAL, gpu).with_events(nonfatal.iter().copied());
        drafts.push(rated(node, draft.with_all_evidence(count("nonfatal")), &nonfatal, per_day > 0));
    }
    if corrected_lines.max(total("correctable")) >= MANY_CORRECTED {
        let per_day = total("correctable") / up_for;
        let logged_per_day: u64 = corrected.iter().map(|event| event.count / days(span_of(event))).sum();
        let draft = Draft::on_gpu(AER_CORRECTED, gpu).with_events(corrected.iter().copied());
        let draft = draft.with_all_evidence(count("correctable"));
        let many = per_day.max(logged_per_day) >= MANY_CORRECTED;
        let logged: &[&KernelEvent] = if logged_per_day >= MANY_CORRECTED { &corrected } else { &[] };
        drafts.push(rated(node, draft, logged, per_day >= MANY_CORRECTED || many && logged.is_empty()));
    }
    if corrected_lines.max(total("correctable")) < MANY_CORRECTED && corrected_lines >= SEVERAL_CORRECTED {
        let replays = replays_unlike_others(node, gpu);
        let severity = if replays.is_some() { Severity::Warning } else { Severity::Info };
        let draft = Draft::on_gpu(AER_CORRECTED, gpu).with_events(corrected.iter().copied()).with_severity(severity);
        drafts.push(draft.with_all_evidence(replays).aged_on_node(node, &corrected));
    }
    let lost: Vec<&KernelEvent> = events.iter().filter(|event| is_link_lost(event)).copied().collect();
    if !lost.is_empty() {
        let newest = lost.iter().filter_map(|event| event.ordered_at()).max();
        // The kernel logs the end of a lost link.
        let is_up = |event: &&&KernelEvent| {
            event.kind == Kind::PcieLink && event.sub_code.as_deref() == Some("link_up") && event.ordered_at() >= newest
        };
        let back = events.iter().find(is_up).and_then(|_| of_link(node, gpu, newest));
        let draft = Draft::on_gpu(LINK_LOST, gpu).with_events(lost);
        drafts.push(draft.unless_recovered(back.or_else(|| rests(node, gpu, newest)).into(), node.booted().is_some()));
    }
    drafts.extend(iommu(node, gpu));
    drafts
}

/// Returns whether the GPU has worked for a day since the last error.
fn rests(node: &Node<'_>, gpu: &Gpu, newest: Option<Timestamp>) -> Option<Recovered> {
    of_link(node, gpu, newest).filter(|recovered| recovered.long_ago)
}

fn of_link(node: &Node<'_>, gpu: &Gpu, newest: Option<Timestamp>) -> Option<Recovered> {
    node.holds(gpu, RecoveryEvidence::PcieLink, newest)
}

/// Returns the number of days, rounded up, at least one. A counter without a time is assumed to cover one day.
fn days(seconds: Option<u64>) -> u64 {
    seconds.map_or(1, |seconds| seconds.div_ceil(24 * 3600)).max(1)
}

/// Returns the seconds between the first and the last line of an event.
fn span_of(event: &KernelEvent) -> Option<u64> {
    u64::try_from(event.last?.duration_since(event.first?).as_secs()).ok()
}

/// Lowers a finding about errors that are rare, or that were logged long ago. Totals since boot alone are not
/// conclusive.
fn rated(node: &Node<'_>, draft: Draft, logged: &[&KernelEvent], is_frequent: bool) -> Draft {
    match logged.is_empty() {
        _ if is_frequent => draft,
        false => draft.aged_on_node(node, logged),
        true => draft.with_severity(Severity::Info),
    }
}

/// Minimum number of blocked transfers. Fewer can be a single error of a program.
const REPEATED_IOMMU: u64 = 3;

/// Action for a machine without virtualization whose IOMMU translates the addresses of the GPU.
const PASS_THROUGH: &str = "Drain {node}, add iommu=pt to its boot parameters (or switch the IOMMU off in the BIOS), and reboot it: the IOMMU \
     translates the addresses of {gpu}, and a reset of the GPU does not change this.";

const BOOT_PARAMETER: &str = "Add iommu=pt to the boot parameters of {node}, or switch the IOMMU off in its BIOS.";

/// Returns a finding about transfers by the GPU that the IOMMU blocked.
fn iommu(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let of_gpu = |event: &KernelEvent| {
        concerns(event, gpu) || event.pci_address.as_ref().zip(gpu.pci.as_ref()).is_some_and(|(a, b)| a == b)
    };
    let current = node.timeline.events.iter().enumerate().filter(|(_, event)| event.history.is_none());
    let (positions, faults): (Vec<usize>, Vec<&KernelEvent>) = current
        .map(|(at, event)| (at, event.fact))
        .filter(|(_, event)| event.kind == Kind::Iommu && of_gpu(event))
        .unzip();
    if faults.is_empty() {
        return None;
    }
    let count: u64 = faults.iter().map(|event| event.count.max(1)).sum();
    let severity = if count >= REPEATED_IOMMU { Severity::Critical } else { Severity::Warning };
    let draft = Draft::on_gpu(IOMMU, gpu).with_events(faults.iter().copied().take(4)).with_severity(severity);
    let domain = node.pci_of(gpu).and_then(|pci| pci.iommu_domain.as_deref());
    let translated = domain.filter(|domain| boards::is_bare_metal(node) && domain.starts_with("DMA"));
    let draft = match translated {
        Some(domain) => {
            let line = format!("IOMMU domain of the GPU: {}", evidence::data(domain));
            draft
                .with_evidence(line)
                .with_action(ActionCode::DrainAndReboot, PASS_THROUGH)
                .with_step_before(BOOT_PARAMETER)
        }
        None => draft,
    };
    let draft = draft.with_evidence(format!("{} in total", evidence::times(count))).aged(node, gpu, &faults, true);
    Some(draft.with_all_evidence(node.timeline.consequences(&positions)))
}

/// Returns whether an event is about an NVSwitch of the node.
fn is_of_switch(node: &Node<'_>, event: &KernelEvent) -> bool {
    let switches = node.topology().map(|topology| topology.nvswitches.as_slice()).unwrap_or_default();
    event.pci_address.as_ref().is_some_and(|address| switches.contains(address))
}

/// An NVSwitch is reset together with all GPUs of its board.
const IOMMU_OF_SWITCH: &str = "Drain {node}, then reset all its GPUs and NVSwitches together, or reboot {node}. If \
    the faults return, check \
     the IOMMU settings of the kernel and the BIOS.";

/// Returns findings about NVSwitches: PCIe errors, lost links, and transfers that the IOMMU blocked.
fn of_switches(node: &Node<'_>) -> Vec<Draft> {
    let mut by_switch: BTreeMap<(&PciAddress, &str), (Rule, Vec<&KernelEvent>)> = BTreeMap::new();
    for event in node.timeline.current().filter(|event| is_of_switch(node, event)) {
        let rule = match (event.kind, event.sub_code.as_deref()) {
            (Kind::Iommu, _) => IOMMU,
            (Kind::Aer, Some("uncorrected_fatal" | "cannot_recover" | "recovery_failed")) => AER_FATAL,
            (Kind::Aer, Some("uncorrected_nonfatal" | "uncorrected")) => AER_NONFATAL,
            (Kind::Aer, Some("corrected")) if event.count >= MANY_CORRECTED => AER_CORRECTED,
            (Kind::PcieLink, _) if is_link_lost(event) => LINK_LOST,
            _ => continue,
        };
        if let Some(switch) = &event.pci_address {
            by_switch.entry((switch, rule.id)).or_insert((rule, Vec::new())).1.push(event);
        }
    }
    let draft = |((switch, _), (rule, events)): ((&PciAddress, &str), (Rule, Vec<&KernelEvent>))| {
        let scope = Scope { pci: Some(switch.clone()), ..Scope::default() };
        let draft =
            Draft { scope, noun: "NVSwitch", ..Draft::on_node(rule) }.with_events(events.iter().copied().take(4));
        // No values show whether an NVSwitch works.
        let draft = match rule.id == IOMMU.id {
            true => draft.with_severity(Severity::Warning).with_action(ActionCode::DrainAndReset, IOMMU_OF_SWITCH),
            false => draft,
        };
        draft.aged_on_node(node, &events)
    };
    by_switch.into_iter().map(draft).collect()
}

fn is_link_lost(event: &KernelEvent) -> bool {
    event.kind == Kind::PcieLink
        && matches!(event.sub_code.as_deref(), Some("link_down" | "card_not_present" | "power_fault" | "power_state"))
}

/// Returns findings about links that went down at addresses that do not belong to a known GPU. If the kernel cannot
/// wake a device, its log line begins with the name of the device's driver.
fn links_elsewhere(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let lines =
        node.timeline.of_kind(Kind::PcieLink).filter(|event| is_link_lost(event) && below(node, event).is_none());
    let lines = lines.filter(|event| !is_of_switch(node, event));
    for event in lines.filter(|event| !node.timeline.precedes_bus_loss(event)) {
        match event.raw.starts_with("nvidia ") {
            true => add(&mut drafts, LINK_LOST, "GPU", event),
            // If the paths of the GPUs were read, the port belongs to another device.
            false if node.topology().is_some() => {}
            false => add(&mut drafts, LINK_UNATTRIBUTED, "device", event),
        }
    }
    drafts.into_iter().map(|draft| if draft.rule.id == LINK_LOST.id { draft } else { faded(node, draft) }).collect()
}

/// Lowers an old finding about a device that may not be a GPU. Separate findings report GPUs that do not work.
fn faded(node: &Node<'_>, draft: Draft) -> Draft {
    let old = node.age(draft.when).is_some_and(|age| age > STALE_AFTER);
    if old { draft.with_severity(Severity::Info) } else { draft }
}

/// Adds an event to the draft of this rule for the device at the address of the event.
fn add(drafts: &mut Vec<Draft>, rule: Rule, noun: &'static str, event: &KernelEvent) {
    let scope = Scope { pci: event.pci_address.clone(), ..Scope::default() };
    match drafts.iter_mut().find(|draft| draft.scope == scope && draft.rule == rule) {
        Some(draft) => *draft = draft.clone().with_event(event),
        None => drafts.push(Draft { scope, noun, ..Draft::on_node(rule).with_event(event) }),
    }
}

/// Returns the GPU that a kernel line about a PCIe device concerns.
fn below<'n>(node: &'n Node<'_>, event: &KernelEvent) -> Option<&'n Gpu> {
    if !matches!(event.kind, Kind::Aer | Kind::PcieLink) {
        return None;
    }
    event.gpu_index.and_then(|index| node.gpu(index)).or_else(|| node.gpu_below(event.pci_address.as_ref()?))
}

/// Returns findings about errors of ports and devices that are not above a known GPU.
fn elsewhere(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let lines = node.timeline.of_kind(Kind::Aer).filter(|event| below(node, event).is_none());
    let lines = lines.filter(|event| !is_of_switch(node, event));
    let uncorrected =
        lines.filter(|event| event.sub_code.as_deref() != Some("corrected") && !node.timeline.precedes_bus_loss(event));
    // If the paths of the GPUs were not read, a GPU may be below the port.
    let rule = if node.topology().is_some() { ELSEWHERE } else { UNATTRIBUTED };
    let (shared, others): (Vec<&KernelEvent>, Vec<&KernelEvent>) =
        uncorrected.partition(|event| gpus_below(node, event).len() > 1);
    others.into_iter().for_each(|event| add(&mut drafts, rule, "device", event));
    let drafts: Vec<Draft> = drafts.into_iter().map(|draft| faded(node, draft)).collect();
    let mut above: Vec<Draft> = Vec::new();
    for event in &shared {
        add(&mut above, ABOVE_GPUS, "device", event);
    }
    for draft in &mut above {
        let event = shared.iter().find(|event| event.pci_address == draft.scope.pci);
        let gpus = event.map(|event| gpus_below(node, event)).unwrap_or_default();
        draft.evidence.insert(0, format!("the port is above {}", evidence::some(&gpus, MANY_GPUS)));
    }
    let above = above.into_iter().map(|draft| faded(node, draft));
    if drafts.len() > 1 {
        let all = drafts.iter().flat_map(|draft| {
            let place = draft.scope.pci.as_ref().map(|pci| format!("{}: ", pci.sysfs())).unwrap_or_default();
            draft.evidence.iter().map(move |line| format!("{place}{line}"))
        });
        let worst = drafts.iter().map(|draft| draft.severity).max().unwrap_or_default();
        let all = Draft::on_node(rule).with_evidence(evidence::count(drafts.len(), "device")).with_all_evidence(all);
        return above.chain([all.with_severity(worst)]).collect();
    }
    above.chain(drafts).collect()
}

/// Maximum number of GPUs in the evidence about a port.
const MANY_GPUS: usize = 8;

/// Returns the names of the GPUs whose PCIe path contains the device of an event.
fn gpus_below(node: &Node<'_>, event: &KernelEvent) -> Vec<String> {
    let gpus = node.topology().into_iter().flat_map(|topology| &topology.gpus);
    let is_above = |gpu: &&GpuTopology| {
        gpu.pcie_path.iter().any(|hop| event.pci_address.is_some() && hop.pci_address == event.pci_address)
    };
    gpus.filter(is_above).map(|gpu| format!("GPU {}", gpu.index)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::diagnose;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    #[test]
    fn the_link_of_a_gpu_that_the_driver_calls_idle_may_be_slow() {
        for (mask, expected) in [(0x1, false), (0x0, true), (0x4, true)] {
            let gpu = json!({"index": 0, "uuid": "GPU-0", "name": "NVIDIA H200"});
            let mut now = gpu.clone();
            now["pcie"] = json!({"generation": 1, "max_generation": 5, "width": 16, "max_width": 16});
            now["utilization"] = json!({"gpu_percent": 100});
            now["throttling"] = json!({"reasons_mask": mask});
            let of = |gpu| json!({"status": "ok", "data": {"gpus": [gpu]}});
            let report: Report = serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "hostname": "n1",
                "sections": {"inventory": of(gpu), "telemetry": of(now)}}))
            .expect("a report");
            let found = diagnose(&report, &KubernetesFacts::default());
            assert_eq!(
                found.findings.iter().any(|one| one.id == "pcie-generation-low"),
                expected,
                "{mask}: {found:#?}"
            );
        }
    }
}
