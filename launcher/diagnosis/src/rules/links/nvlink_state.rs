//! Rules about the current state of NVLink and fabric: links that are down or slow, error counters, registration.
//! `links_are_down`, `links_are_up`: the state of the links of one GPU.
//!
//! NVML lists more links than a board uses, so an inactive link alone is not a fault. The other GPUs of the node show
//! how many links should be up.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, FABRIC_DOC, XID_DOC, rules};
use crate::rules::links::fabric_manager;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::rates::LinkGrowth;
use syringe_core::facts::topology::{Fabric, GpuTopology, NvlinkGroup};
use syringe_core::pci::PciAddress;

rules! {
    DOWN: "nvlink-down" Critical Fabric FABRIC_DOC, "NVLinks are down",
        DrainAndReset "Drain {node} and reset {gpu}. If the same links stay down, check the board and the cables.",
        means "Some NVLinks of this GPU are down, although these links are up on other GPUs of the model, or the board \
            of this model uses them.",
        reads "topology.nvlinks", in_plan WorkContinues, depth 1;
    UNBRIDGED: "nvlink-bridge-not-working" Info Fabric FABRIC_DOC, "No NVLink of a card is up, but other cards have a bridge",
        CheckCabling "No action if {gpu} of {node} has no NVLink bridge. Otherwise check the seating of the bridge: the bridges of other cards work.",
        means "No NVLink of a card is up, but cards of the same model are connected by a bridge. The card has no bridge, or its bridge does not \
            work.",
        reads "topology.nvlinks, inventory.name", in_plan WorkContinues;
    SLOW: "nvlink-slow" Warning Fabric FABRIC_DOC, "Some NVLinks of a GPU are slower than its other NVLinks",
        CheckCabling "Reset {gpu} of {node} at the next drain. If the same links stay slow, check the board and its cables: jobs on several GPUs \
            wait for the slowest link.",
        means "Some active NVLinks of a GPU run at a lower speed than most of its links.",
        reads "topology.nvlinks", in_plan WorkContinues;
    ERRORS: "nvlink-errors" Warning Fabric XID_DOC, "High NVLink error counters",
        Watch "Read the counters of {gpu} again later: only growing counters indicate a fault. If they grow, check \
            seating and cables.",
        means "The error counters of some NVLinks are far above those of the other links of the GPU or of the other GPUs, \
            grow fast, or count severe errors.",
        reads "topology.nvlinks, telemetry.sample";
    COUNTED: "nvlink-errors-counted" Info Fabric XID_DOC, "NVLink errors were counted and recovered",
        None "No action now: these are totals since the driver was loaded. If NCCL is slow, read the counters of {gpu} \
            again and compare.",
        means "NVLink counted errors from which it recovered.",
        reads "topology.nvlinks";
    NOT_REGISTERED: "fabric-not-registered" Critical Fabric FABRIC_DOC,
        "GPU is not registered with the NVSwitch fabric",
        UpdateSoftware "Restart Fabric Manager on {node}, in the version of the driver. CUDA cannot start on {gpu}.",
        means "The GPU is not registered with the NVSwitch fabric. CUDA cannot initialize on it (error 802).",
        reads "topology.fabric, host.rdma_modules_missing", in_plan ComesFirst, depth 2;
    UNHEALTHY: "fabric-unhealthy" Critical Fabric FABRIC_DOC, "The fabric reports problems for the GPU",
        DrainAndReset "Drain {node}. Check its NVSwitch trays, cables and fabric configuration, then reset {gpu}.",
        means "The fabric reports a problem for the GPU: degraded bandwidth, a route, or its configuration.",
        reads "topology.fabric", in_plan WorkContinues, depth 2;
    LIMITED: "fabric-limited" Warning Fabric FABRIC_DOC, "The fabric has limited capacity",
        CheckCabling "Check the NVLinks of {gpu} on {node} at the next maintenance. The bandwidth is reduced.",
        means "The fabric works, but with reduced capacity.",
        reads "topology.fabric", depth 2;
}

/// A count is high if it is at least this many times the count of the other links, and at least the minimum below.
const OUTLIER_TIMES: u64 = 10;
const OUTLIER_LEAST: u64 = 100;

/// If a node booted less than this ago, its fabric may still be starting.
const STARTING_SECONDS: u64 = 600;

/// The registration of all GPUs usually takes less than this time after a boot.
const REGISTERING_SECONDS: u64 = 180;

/// Counters for which a single error is a fault, because the link was retrained or the retraining failed.
const SEVERE_COUNTERS: [&str; 4] = ["recovery", "link_recovery_failed", "ecc", "malformed_packets"];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let cut_off = switch_of_all_down(node);
    for gpu in node.answering() {
        let Some(topology) = node.topology_of(gpu) else { continue };
        drafts.extend(down(node, gpu, topology).map(|draft| match cut_off {
            Some((Some(switch), gpus)) => of_switch(draft, switch, gpus),
            Some((None, gpus)) => of_common_end(draft, gpus),
            None => draft,
        }));
        drafts.extend(slow(gpu, topology));
        let switched = on_switch(topology) || node.topology().is_some_and(|all| !all.nvswitches.is_empty());
        drafts.extend(topology.fabric.as_ref().and_then(|fabric| registration(node, gpu, fabric, switched)));
    }
    drafts.extend(all_counters(node));
    drafts
}

pub(super) fn links_are_down(node: &Node<'_>, gpu: &Gpu) -> bool {
    let draft = node.topology_of(gpu).and_then(|topology| down(node, gpu, topology));
    draft.is_some_and(|draft| draft.severity > Severity::Info)
}

pub(super) fn links_are_up(node: &Node<'_>, gpu: &Gpu) -> bool {
    node.topology_of(gpu).is_some_and(|topology| down(node, gpu, topology).is_none() && active(topology) > 0)
}

fn active(topology: &GpuTopology) -> u32 {
    let groups = topology.nvlinks.iter().filter(|group| group.active == Some(true));
    u32::try_from(groups.map(|group| group.links.len()).sum::<usize>()).unwrap_or(0)
}

fn inactive(topology: &GpuTopology) -> Vec<u32> {
    let groups = topology.nvlinks.iter().filter(|group| group.active == Some(false));
    let mut links: Vec<u32> = groups.flat_map(|group| group.links.iter().copied()).collect();
    links.sort_unstable();
    links
}

/// Returns whether the links of this GPU model lead to switches. This is the case if NVSwitches are on the PCI bus, or
/// if a GPU of this model has a link to a switch, is registered with the fabric, or has active NVLink 5 links. NVLink 5
/// requires switches, which in racks are not on the PCI bus of the node. A GPU whose links are all down shows none of
/// these signs itself.
fn is_switched(node: &Node<'_>, gpu: &Gpu) -> bool {
    let siblings =
        || node.answering().filter(|other| other.name == gpu.name).filter_map(|other| node.topology_of(other));
    let registered = |topology: &GpuTopology| {
        topology
            .fabric
            .as_ref()
            .is_some_and(|fabric| fabric.state == "completed" && fabric.status.as_deref() != Some("not_supported"))
    };
    let nvlink_5 = |topology: &GpuTopology| {
        topology
            .nvlinks
            .iter()
            .any(|group| group.active == Some(true) && group.version.is_some_and(|version| version >= 5))
    };
    node.topology().is_some_and(|all| !all.nvswitches.is_empty())
        || siblings().any(|topology| on_switch(topology) || registered(topology) || nvlink_5(topology))
}

/// Returns whether the GPU is one of several on a board that connects its GPUs by NVLink.
fn is_on_board(node: &Node<'_>, gpu: &Gpu) -> bool {
    boards::of(gpu).is_some() && boards::is_bare_metal(node) && node.answering().count() > 1
}

fn on_switch(topology: &GpuTopology) -> bool {
    topology.nvlinks.iter().any(|group| group.remote_type.as_deref() == Some("switch"))
}

/// Returns a finding if fewer links are up than on the other GPUs, or than an NVSwitch board uses.
fn down(node: &Node<'_>, gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let up = active(topology);
    let listed: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let siblings = node.answering().filter(|other| other.name == gpu.name).filter_map(|other| node.topology_of(other));
    let most = siblings.map(active).max().unwrap_or(up);
    let wired = boards::of(gpu).map_or(0, |board| board.links);
    let has_switches = is_switched(node, gpu) || is_on_board(node, gpu);
    let wired = if has_switches { wired.min(u32::try_from(listed).unwrap_or(0)) } else { 0 };
    let expected = most.max(wired);
    let silent = inactive(topology);
    // If no link is up and there are no switches, the card has no bridge, or its bridge does not work.
    let unbridged = up == 0 && !has_switches;
    // MIG mode disables the links of an A100.
    let cut = node.mig_mode(gpu).is_some_and(|mode| mode.current);
    if up >= expected || silent.is_empty() || cut {
        return None;
    }
    let evidence = format!("{up} of {expected} NVLinks up; inactive: {}", evidence::ranges(&silent));
    if unbridged {
        // A card without a bridge reports the same facts as a card with a broken bridge.
        return Some(Draft::on_gpu(UNBRIDGED, gpu).with_evidence(evidence));
    }
    let severity = if has_switches { Severity::Critical } else { Severity::Warning };
    let draft = Draft::on_gpu(DOWN, gpu).with_severity(severity).with_evidence(evidence);
    Some(match waits_for_manager(node, topology) {
        false => draft,
        true => draft
            .with_evidence("no link of any GPU is up, and the fabric is not started")
            .with_action(ActionCode::UpdateSoftware, LATER),
    })
}

/// Returns the NVSwitch at the other end of all links that are down, and the number of affected GPUs, if enough GPUs
/// are affected for a fault of the switch. Without an address if the switch is not known, and each affected GPU lacks the
/// same links: in a rack, a link has the same number at each GPU of a tray if it leads to the same switch.
fn switch_of_all_down<'n>(node: &'n Node<'_>) -> Option<(Option<&'n PciAddress>, usize)> {
    let with_down = || node.answering().filter(|gpu| links_are_down(node, gpu));
    let most = node.answering().filter_map(|gpu| node.topology_of(gpu)).map(active).max()?;
    let remote = |gpu: &Gpu| {
        let topology = node.topology_of(gpu)?;
        let known = |group: &&NvlinkGroup| {
            group.active == Some(false)
                && group.remote_type.as_deref() == Some("switch")
                && group.remote_pci_address.is_some()
        };
        let groups: Vec<&NvlinkGroup> = topology.nvlinks.iter().filter(known).collect();
        let links: usize = groups.iter().map(|group| group.links.len()).sum();
        let wired = boards::of(gpu).map_or(most, |board| board.links.max(most));
        let is_whole = usize::try_from(wired.saturating_sub(active(topology))).is_ok_and(|missing| missing == links);
        let switch = groups.first().filter(|_| is_whole && active(topology) > 0)?.remote_pci_address.as_ref();
        switch.filter(|switch| groups.iter().all(|group| group.remote_pci_address.as_ref() == Some(switch)))
    };
    let gpus = with_down().count();
    if gpus < GPUS_OF_SWITCH {
        return None;
    }
    let mut switches = with_down().map(remote);
    if let Some(switch) = switches.next().flatten() {
        return switches.all(|other| other == Some(switch)).then_some((Some(switch), gpus));
    }
    let mut topologies = with_down().filter_map(|gpu| node.topology_of(gpu));
    let first = topologies.next()?;
    let is_same = |other: &GpuTopology| active(other) > 0 && inactive(other) == inactive(first);
    (active(first) > 0 && with_down().all(|gpu| is_switched(node, gpu)) && topologies.all(is_same))
        .then_some((None, gpus))
}

/// Adds the NVSwitch to which the links of several GPUs lead. Links to an NVSwitch on the PCI bus of the node do not
/// use cables.
fn of_switch(draft: Draft, switch: &PciAddress, gpus: usize) -> Draft {
    let switch = switch.sysfs();
    draft.with_evidence(format!("all links that are down ({gpus} GPUs) lead to the NVSwitch at {switch}")).with_action(
        ActionCode::DrainAndReset,
        format!(
            "Drain {{node}}, then reset all its GPUs and NVSwitches together. If the same links stay down, the NVSwitch at {switch} or its \
             board is more likely to be faulty than {{gpu}}: look for its SXid errors in the kernel log, and ask the vendor about the board."
        ),
    )
}

/// Adds that several GPUs lack the same links, whose other end is not known.
fn of_common_end(draft: Draft, gpus: usize) -> Draft {
    draft.with_evidence(format!("{gpus} GPUs lack the same links")).with_action(
        ActionCode::DrainAndReset,
        "Drain {node}. The NVSwitch at the other end of these links, its cable or its configuration is more likely to be the cause \
         than {gpu}: check it (in a rack, the switch tray and the state of the fabric in NMX), then reset all GPUs of {node} together.",
    )
}

/// Action for links that are down because the fabric has not been started.
const LATER: &str = "No reset now: the fabric starts the NVLinks of {gpu} on {node}. Start the fabric first (see the \
                     finding about Fabric Manager or the registration), then run this diagnosis again. Reset {gpu} \
                     only if links are still down.";

/// Returns whether no link of any GPU is up and the GPU is not registered with the fabric. The links are then down
/// because no service manages the fabric.
fn waits_for_manager(node: &Node<'_>, topology: &GpuTopology) -> bool {
    let all_down = node.answering().all(|gpu| node.topology_of(gpu).is_some_and(|topology| active(topology) == 0));
    let is_registered = topology.fabric.as_ref().is_some_and(|fabric| fabric.state == "completed");
    let waits =
        topology.fabric.as_ref().is_some_and(|fabric| fabric.state == "in_progress" || fabric.state == "not_started");
    all_down && !is_registered && (waits || fabric_manager::fabric_manager(node).is_some())
}

/// Returns a finding if some active links are slower than most.
fn slow(gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let usual = boards::usual_link_speed(topology)?;
    let is_slow = |group: &&NvlinkGroup| {
        group.active == Some(true) && group.speed_megabytes_per_second.is_some_and(|speed| speed < usual)
    };
    let line = |group: &NvlinkGroup| {
        let speed = group.speed_megabytes_per_second.unwrap_or_default();
        format!("links {}: {speed} MB/s, the others {usual} MB/s", evidence::ranges(&group.links))
    };
    let lines: Vec<String> = topology.nvlinks.iter().filter(is_slow).map(line).collect();
    (!lines.is_empty()).then(|| Draft::on_gpu(SLOW, gpu).with_all_evidence(lines))
}

/// Returns whether the counter is about packets that were damaged on a link and sent again. Healthy links count few of
/// them.
fn is_resend(name: &str) -> bool {
    name.contains("crc") || name.contains("replay")
}

/// DCGM reports a link with this many CRC errors per second.
const RESENDS_PER_SECOND: u64 = 100;

/// Counters of NVLink 5 that also count errors on healthy links: a part of the name, and the number of seconds in which
/// a link may count this number of errors. Effective errors remain after error correction. DCGM's limit is a bit error
/// rate of 1e-12, which is 2 errors in 5 s at the 50 GB/s of a link. Symbol errors are counted before error correction,
/// and healthy links have a rate far below 1e-6.
const RATES_OF_NVLINK_5: [(&str, u64, u64); 2] = [("effective", 5, 2), ("symbol", 1, 400_000)];

/// Returns whether a counter of NVLink 5 of one GPU shows a fault, if the other GPUs count far less. A fault is a link
/// that was retrained, or a high error rate since the driver was loaded. `links`: the number of links that share the
/// counter.
fn is_much_for_nvlink_5(name: &str, count: u64, links: usize, seconds: Option<u64>) -> bool {
    if name.starts_with("link_recovery") {
        return true;
    }
    let rate = RATES_OF_NVLINK_5.iter().find(|(part, ..)| name.contains(part));
    rate.zip(seconds).is_some_and(|((_, window, errors), seconds)| {
        let allowed = u128::from(seconds) * u128::from(*errors) * u128::try_from(links).unwrap_or(u128::MAX);
        u128::from(count) * u128::from(*window) >= allowed
    })
}

/// Returns the mean count of the links of the other GPUs of the model. `None` if there is no other such GPU.
fn of_other_gpus(node: &Node<'_>, gpu: &Gpu, name: &str) -> Option<u64> {
    let others = node.answering().filter(|other| other.index != gpu.index && other.name == gpu.name);
    let groups: Vec<&NvlinkGroup> =
        others.filter_map(|other| node.topology_of(other)).flat_map(|one| &one.nvlinks).collect();
    let links = groups.iter().map(|group| group.links.len()).sum::<usize>();
    // All links of a group have the same count.
    let count = |group: &&NvlinkGroup| {
        let links = u64::try_from(group.links.len()).unwrap_or(u64::MAX);
        Some(group.errors.get(name)?.saturating_mul(links))
    };
    let total = groups.iter().filter_map(count).fold(0_u64, u64::saturating_add);
    Some(total / u64::try_from(links).ok().filter(|links| *links > 0)?)
}

/// Returns the links of these groups, in their order.
fn links_of(groups: &[(u64, &NvlinkGroup)]) -> Vec<u32> {
    let mut links: Vec<u32> = groups.iter().flat_map(|(_, group)| group.links.iter().copied()).collect();
    links.sort_unstable();
    links
}

/// The links of one GPU whose counters are high.
struct High {
    /// One line for each counter.
    lines: Vec<String>,
    /// Whether errors were added between two readings.
    grows: bool,
    /// Whether the counters of all links are high.
    on_all_links: bool,
    /// Whether all of these links lead to switches. A bridge connects two GPUs.
    to_switches: bool,
    /// The switch to which all these links lead, if it is known and other links of the GPU lead elsewhere.
    switch: Option<PciAddress>,
}

/// Returns a line for each counter that grew between two readings by at least DCGM's limit: 100 damaged packets per
/// second, one packet that was sent again, or one retrained link.
fn growing(node: &Node<'_>, gpu: &Gpu) -> Vec<String> {
    let Some(sample) = node.telemetry_of(gpu).and_then(|now| now.sample.as_ref()) else { return Vec::new() };
    let is_high = |one: &&LinkGrowth| {
        let one_is_enough = ["replay", "recovery", "integrity"].iter().any(|word| one.counter.contains(word));
        let one_is_enough = one_is_enough || SEVERE_COUNTERS.contains(&one.counter.as_str());
        (one_is_enough && one.added > 0) || sample.per_second(one.added) >= RESENDS_PER_SECOND
    };
    let line = |one: &LinkGrowth| {
        let (counter, links) = (evidence::data(&one.counter), evidence::ranges(&one.links));
        format!("{counter}: {} more on links {links} in the last {}", one.added, evidence::window(sample))
    };
    sample.nvlink_errors.iter().filter(is_high).map(line).collect()
}

const RECOVERY: &str = "recovery";

/// A lower number of recoveries is no fault of the link.
const FEW_RECOVERIES: u64 = 3;

/// Counts that differ by at most this factor are treated as equal.
const ALIKE: u64 = 10;

/// Checks totals since the driver was loaded. One reading does not show whether they grow. Therefore only severe
/// counters and outliers are treated as high: counters far above the other links of the GPU or the links of other GPUs,
/// and counters with a high mean rate. Also returns the other counters.
fn counters(node: &Node<'_>, gpu: &Gpu, topology: &GpuTopology) -> (High, Vec<String>) {
    let mut by_name: BTreeMap<&str, Vec<(u64, &NvlinkGroup)>> = BTreeMap::new();
    for group in &topology.nvlinks {
        for (name, &count) in group.errors.iter().filter(|(_, count)| **count > 0) {
            by_name.entry(name).or_default().push((count, group));
        }
    }
    let links: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let seconds = node.counted_seconds().filter(|seconds| *seconds > 0);
    let mut high: Vec<(u64, &NvlinkGroup)> = Vec::new();
    let mut lines = growing(node, gpu);
    let grows = !lines.is_empty();
    let mut counted = Vec::new();
    for (name, mut groups) in by_name {
        // Corrected errors are normal on NVLink 5.
        let is_fec = name.split('_').any(|word| word.starts_with("fec"));
        if is_fec || name.contains("ber") {
            continue;
        }
        let is_usual = name.contains("symbol") || name.ends_with("successful");
        groups.sort_by_key(|(count, group)| (std::cmp::Reverse(*count), group.links.first().copied()));
        let total: u64 = groups.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count));
        let Some(&(count, group)) = groups.first() else { continue };
        let others = total.saturating_sub(count) / u64::try_from(links.saturating_sub(1)).unwrap_or(0).max(1);
        // The effective errors of all links share one counter.
        let of_all = name.starts_with("effective") && group.links.len() == links;
        let is_far_above =
            |count: u64, usual: u64| count >= OUTLIER_LEAST && count >= usual.saturating_mul(OUTLIER_TIMES);
        let shared_by = if group.links.len() == links { links } else { 1 };
        let others_gpus = of_other_gpus(node, gpu, name);
        let is_high = |count: u64| {
            let is_fast = seconds.is_some_and(|seconds| count / seconds >= RESENDS_PER_SECOND);
            let counts_much = is_resend(name) || is_much_for_nvlink_5(name, count, shared_by, seconds);
            (counts_much && others_gpus.is_some_and(|usual| is_far_above(count, usual))) || (is_resend(name) && is_fast)
        };
        let mut of_it: Vec<(u64, &NvlinkGroup)> = groups.iter().copied().filter(|(count, _)| is_high(*count)).collect();
        if of_it.is_empty() && is_usual {
            continue;
        }
        // The link works again after a recovery. A few of them in the time since the driver load are usual.
        if of_it.is_empty() && name == RECOVERY && count < FEW_RECOVERIES {
            counted.push(format!("{name}: {count} on links {}", evidence::ranges(&links_of(&groups[..1]))));
            continue;
        }
        if of_it.is_empty() && SEVERE_COUNTERS.contains(&name) {
            // All links with similar counts show the place of the fault. The highest count alone does not show it.
            of_it = groups.iter().copied().filter(|(other, _)| other.saturating_mul(ALIKE) >= count).collect();
        } else if of_it.is_empty() && !of_all && is_far_above(count, others) {
            of_it = vec![(count, group)];
        }
        let is_severe = !of_it.is_empty();
        let shown = if is_severe { &of_it } else { &groups[..1] };
        let counts = match (shown.first(), shown.last()) {
            (Some((most, _)), Some((least, _))) if least < most => format!("{least} to {most}"),
            _ => count.to_string(),
        };
        let words = format!("{}: {counts} on links {}", evidence::data(name), evidence::ranges(&links_of(shown)));
        if is_severe { &mut lines } else { &mut counted }.push(words);
        high.extend(of_it);
    }
    let mut of_high = links_of(&high);
    of_high.dedup();
    let on_all_links = links > 1 && of_high.len() == links;
    let mut remotes: Vec<Option<&PciAddress>> =
        high.iter().map(|(_, group)| group.remote_pci_address.as_ref()).collect();
    remotes.dedup();
    let is_switch = high.iter().all(|(_, group)| group.remote_type.as_deref() == Some("switch"));
    let switch = match remotes[..] {
        [Some(switch)] if is_switch && !on_all_links => Some(switch.clone()),
        _ => None,
    };
    (High { lines, grows, on_all_links, to_switches: is_switch, switch }, counted)
}

/// If at least this many GPUs have errors on links to the same switch, the switch is more likely to be faulty than the
/// GPUs.
const GPUS_OF_SWITCH: usize = 3;

/// Returns the findings about the error counters of all GPUs.
fn all_counters(node: &Node<'_>) -> Vec<Draft> {
    let read = node.answering().filter_map(|gpu| Some((gpu, counters(node, gpu, node.topology_of(gpu)?))));
    let read: Vec<(&Gpu, (High, Vec<String>))> = read.collect();
    let with_high = read.iter().filter(|(_, (high, _))| !high.lines.is_empty()).count();
    let mut drafts = Vec::new();
    for (gpu, (high, counted)) in &read {
        if high.lines.is_empty() {
            let draft = Draft::on_gpu(COUNTED, gpu).with_all_evidence(counted.iter().cloned());
            drafts.extend((!counted.is_empty()).then_some(draft));
            continue;
        }
        let draft = Draft::on_gpu(ERRORS, gpu).with_all_evidence(high.lines.iter().cloned());
        let draft = if high.grows { draft } else { draft.with_evidence("since driver load") };
        let same = read.iter().filter(|(_, (other, _))| high.switch.is_some() && other.switch == high.switch).count();
        drafts.push(match &high.switch {
            Some(switch) if same >= GPUS_OF_SWITCH && same == with_high => {
                let switch = switch.sysfs();
                draft.with_evidence(format!("all of these links lead to the NVSwitch at {switch}, those of {same} GPUs")).with_action(
                    ActionCode::Watch,
                    format!(
                        "Read the counters of {{gpu}} again later. If they grow, the NVSwitch at {switch} of {{node}}, to which all of these links \
                         lead, is more likely to be faulty than the GPUs: look for its SXid errors in the kernel log, and reset all GPUs and NVSwitches \
                         at the next drain. If the errors come back, ask the vendor about the board of the switch."
                    ),
                )
            }
            _ if high.grows => draft.with_action(
                ActionCode::CheckCabling,
                "The errors of {gpu} grow now. Drain {node} and reset {gpu}. If the errors grow again, check seating \
                and cables.",
            ),
            _ if high.on_all_links && (with_high == 1 || high.to_switches && with_high * 2 < read.len()) => draft.with_action(
                ActionCode::Watch,
                "Read the counters of {gpu} again later: only growing counters indicate a fault. All of its links \
                 have errors, but the links of most other GPUs do not. If the counters grow, {gpu} or its seating on \
                 the board is more likely to be faulty than cables. Reset {gpu} at the next drain. If the errors come \
                 back, run the NVIDIA field diagnostic.",
            ),
            _ => draft,
        });
    }
    drafts
}

/// Action for a fabric whose only problem is its configuration.
const MISCONFIGURED: &str = "Drain {node}. Compare its fabric configuration with that of the other nodes (Fabric Manager or the NVLink manager of \
                             the rack: partitions, topology, versions), correct it, then reset {gpu}.";

/// Kinds of incorrect fabric configuration: the name in NVML, the meaning, and the action.
const MISCONFIGURATIONS: [(&str, &str, ActionCode, &str); 7] = [
    (
        "incorrect_sysguid",
        "the fabric expects another system GUID of the GPU",
        ActionCode::UpdateSoftware,
        MISCONFIGURED,
    ),
    (
        "incorrect_chassis_sn",
        "the fabric expects another serial number of the chassis",
        ActionCode::UpdateSoftware,
        MISCONFIGURED,
    ),
    (
        "no_partition",
        "the GPU is in no partition of the fabric",
        ActionCode::UpdateSoftware,
        "Put {gpu} of {node} into a partition (Fabric Manager or the NVLink manager of the rack). Until then, the \
        fabric gives it no NVLinks.",
    ),
    (
        "insufficient_nvlinks",
        "too few NVLinks of the GPU are up",
        ActionCode::CheckCabling,
        "Drain {node}. Check the cables and the switch trays of the NVLinks of {gpu}. Then reset {gpu}.",
    ),
    (
        "incompatible_gpu_fw",
        "the firmware of the GPU does not match the fabric",
        ActionCode::UpdateSoftware,
        "Drain {node}. Update the firmware of {gpu} to the version that the software of the switches requires, then reset {gpu}.",
    ),
    (
        "invalid_location",
        "the GPU is at a position that the fabric does not have",
        ActionCode::CheckCabling,
        "Drain {node}. Compare the slot and tray of {gpu} with the topology file of the rack, then reset {gpu}.",
    ),
    (
        "gpu_state_invalid",
        "the GPU is in a state in which it cannot join the fabric",
        ActionCode::DrainAndReset,
        "Drain {node} and reset {gpu}.",
    ),
];

/// Adds NVML's report about an incorrect configuration.
fn with_configuration(draft: Draft, fabric: &Fabric) -> Draft {
    let only = fabric.health_issues.as_slice() == ["incorrect_configuration"];
    let Some(name) = fabric.misconfiguration.as_deref() else {
        return if only { draft.with_action(ActionCode::UpdateSoftware, MISCONFIGURED) } else { draft };
    };
    let kind = MISCONFIGURATIONS.iter().find(|(kind, ..)| *kind == name);
    let (reason, action, advice) = match kind {
        Some((_, reason, action, advice)) => (Some((*reason).to_owned()), *action, *advice),
        None => (None, ActionCode::UpdateSoftware, MISCONFIGURED),
    };
    let draft = draft.with_evidence(format!("configuration: {}", evidence::data(name)));
    if only { Draft { reason, ..draft }.with_action(action, advice) } else { draft }
}

/// Action for a compute tray of a rack. Fabric Manager runs on the switch trays, and IMEX is not part of the
/// registration.
const OF_RACK: &str = "Check the control plane of the rack's fabric (NMX-Controller, or Fabric Manager on the switch trays): whether it runs, and \
     whether {gpu} of {node} is in a partition. The node has no Fabric Manager of its own. CUDA cannot start on {gpu}.";

/// Checks the registration with the fabric. `switched`: whether there is a switch. On a single GPU in a virtual
/// machine, the registration never starts.
fn registration(node: &Node<'_>, gpu: &Gpu, fabric: &Fabric, switched: bool) -> Option<Draft> {
    let Fabric { state, status, health, health_issues, .. } = fabric;
    let failed = status.as_deref().filter(|status| !matches!(*status, "success" | "not_supported"));
    let fault = match state.as_str() {
        "not_started" if !switched => None,
        "in_progress" | "not_started" => Some(format!("fabric state: {}", evidence::data(state))),
        "completed" => failed.map(|status| format!("fabric registration failed: {}", evidence::data(status))),
        _ => None,
    };
    if let Some(fault) = fault {
        // Without Fabric Manager, no GPU can register. The rule `fabric_manager` reports this.
        let managed = fabric_manager::fabric_manager(node).is_none();
        let draft = Draft::on_gpu(NOT_REGISTERED, gpu).with_evidence(fault);
        let up = node.host().and_then(|host| host.uptime_seconds).filter(|up| *up < STARTING_SECONDS);
        let draft = match up.filter(|_| state == "in_progress") {
            Some(up) => {
                let severity = if up < REGISTERING_SECONDS { Severity::Info } else { Severity::Warning };
                draft.with_severity(severity).with_evidence(format!("the node booted {up} s ago")).with_action(
                    ActionCode::Watch,
                    "Wait some minutes and run this diagnosis of {node} again: {gpu} may still be registering.",
                )
            }
            None if boards::of(gpu).is_some_and(boards::Board::is_of_rack) => {
                with_configuration(draft.with_action(ActionCode::UpdateSoftware, OF_RACK), fabric)
            }
            None => fabric_manager::with_modules(draft, node),
        };
        return managed.then(|| draft.with_all_evidence(fabric_manager::last_error(node)));
    }
    let issues = evidence::names(health_issues, 6);
    let evidence = |health: &str| format!("fabric health: {health} {issues}").trim_end().to_owned();
    match health.as_deref() {
        Some("unhealthy") => {
            let step = "Check the NVSwitches, the NVLink cables and the configuration of the fabric (NMX-Controller or Fabric Manager) of {node}.";
            let draft = Draft::on_gpu(UNHEALTHY, gpu).with_evidence(evidence("unhealthy")).with_step_before(step);
            Some(with_configuration(draft, fabric))
        }
        Some("limited_capacity") => {
            let draft = Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("limited capacity"));
            Some(with_configuration(draft, fabric))
        }
        _ if !issues.is_empty() => {
            Some(with_configuration(Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("issues:")), fabric))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnose;
    use crate::finding::Diagnosis;
    use syringe_core::classification::Severity;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    /// Returns the diagnosis of a node that booted 200 000 s ago. Its eight GPUs count these CRC errors on their six
    /// pairs of links. Each pair leads to its own switch.
    fn judged(count: impl Fn(usize, usize) -> u64) -> Diagnosis {
        judged_as("crc_flit", count)
    }

    /// Returns this diagnosis for another counter.
    fn judged_as(counter: &str, count: impl Fn(usize, usize) -> u64) -> Diagnosis {
        judged_with(counter, count, |_, _| true)
    }

    /// Returns this diagnosis for a node with links that are down.
    fn judged_with(
        counter: &str,
        count: impl Fn(usize, usize) -> u64,
        is_up: impl Fn(usize, usize) -> bool,
    ) -> Diagnosis {
        let group = |gpu: usize, pair: usize| {
            let errors = match count(gpu, pair) {
                0 => json!({}),
                count => json!({counter: count}),
            };
            json!({"links": [2 * pair, 2 * pair + 1], "active": is_up(gpu, pair), "version": 3, "remote_type": "switch",
                "remote_pci_address": format!("00000000:c{pair}:00.0"), "errors": errors})
        };
        let named =
            |index: usize| json!({"index": index, "uuid": format!("GPU-{index}"), "name": "NVIDIA A100-SXM4-80GB"});
        let of = |index: usize| {
            let mut gpu = named(index);
            gpu["nvlinks"] = (0..6).map(|pair| group(index, pair)).collect();
            gpu
        };
        let list = |gpus: Vec<Value>| json!({"status": "ok", "data": {"gpus": gpus}});
        let report: Report =
            serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "hostname": "n1", "sections": {
            "inventory": list((0..8).map(named).collect()), "topology": list((0..8).map(of).collect()),
            "host": {"status": "ok", "data": {"uptime_seconds": 200_000}}}}))
            .expect("a report");
        diagnose(&report, &KubernetesFacts::default())
    }

    fn errors(diagnosis: &Diagnosis) -> Vec<&crate::finding::Finding> {
        diagnosis.findings.iter().filter(|one| one.id == "nvlink-errors" && one.severity == Severity::Warning).collect()
    }

    #[test]
    fn errors_on_all_links_of_one_gpu_count_as_those_on_one_link() {
        for wrong in 1..=6 {
            let diagnosis = judged(|gpu, pair| if gpu == 5 && pair < wrong { 400_000 } else { 0 });
            let [finding] = errors(&diagnosis)[..] else { panic!("{wrong}: {diagnosis:#?}") };
            assert_eq!(finding.scope.gpu, Some(5));
            let links = format!("400000 on links 0-{}", 2 * wrong - 1);
            let all = finding.evidence.iter().any(|line| line.contains(&links) || line.contains("links 0, 1"));
            assert!(all, "{links}: {:?}", finding.evidence);
            assert_eq!(finding.action.text.contains("than cables"), wrong == 6, "{}", finding.action.text);
        }
    }

    #[test]
    fn counters_of_nvlink_5_are_compared_with_other_gpus_and_with_the_time() {
        for (counter, much, little) in [
            ("effective_errors", 60_000_000, 20_000),
            ("symbol_errors", 90_000_000_000_000, 90_000_000),
            ("link_recovery_successful", 90_000, 40),
            ("link_recovery_events", 900, 40),
        ] {
            let of_one = judged_as(counter, |gpu, _| if gpu == 7 { much } else { 0 });
            let [finding] = errors(&of_one)[..] else { panic!("{counter}: {of_one:#?}") };
            assert_eq!(finding.scope.gpu, Some(7), "{counter}");
            for healthy in [
                judged_as(counter, |gpu, _| if gpu == 7 { little } else { 0 }),
                judged_as(counter, |_, _| much),
                judged_as(counter, |gpu, _| much / (1 + gpu as u64 % 3)),
            ] {
                assert!(errors(&healthy).is_empty(), "{counter}: {healthy:#?}");
            }
        }
    }

    #[test]
    fn a_high_rate_on_all_links_of_all_gpus_is_no_normal_count() {
        assert!(errors(&judged(|_, _| 4_000)).is_empty());
        assert!(errors(&judged(|gpu, _| 2 * gpu as u64)).is_empty());
        assert!(!errors(&judged(|_, _| 4_000_000_000)).is_empty());
    }

    #[test]
    fn the_switch_to_which_all_links_that_are_down_lead_is_named() {
        let told = |is_down: fn(usize, usize) -> bool| {
            let diagnosis = judged_with("crc_flit", |_, _| 0, |gpu, pair| !is_down(gpu, pair));
            let text = serde_json::to_string(&diagnosis.findings).expect("text");
            (text.contains("nvlink-down"), text.contains("NVSwitch at 0000:c5:00.0"))
        };
        assert_eq!(told(|_, pair| pair == 5), (true, true));
        assert_eq!(told(|gpu, pair| pair == 5 && gpu > 3), (true, true));
        assert_eq!(told(|gpu, pair| pair == 5 && gpu == 3), (true, false), "one GPU");
        assert_eq!(told(|gpu, pair| pair == gpu % 6), (true, false), "different switches");
        assert_eq!(told(|_, _| false), (false, false));
    }

    #[test]
    fn the_switch_to_which_all_links_with_errors_lead_is_named() {
        let of_switch = judged(|_, pair| if pair == 5 { 250_000 } else { 3 });
        let found = errors(&of_switch);
        assert!(
            !found.is_empty() && found.iter().all(|one| one.action.text.contains("NVSwitch at 0000:c5:00.0")),
            "{of_switch:#?}"
        );
        for several in [
            judged(|gpu, pair| if pair == gpu % 6 { 250_000 } else { 3 }),
            judged(|gpu, pair| u64::from(gpu == 1 && pair == 5) * 9000),
        ] {
            assert!(!errors(&several).is_empty());
            assert!(errors(&several).iter().all(|one| !one.action.text.contains("NVSwitch at")), "{several:#?}");
        }
    }
}
