//! NVLink, NVSwitch and the fabric: links that are down or erring, GPUs that the fabric has not accepted, and their
//! Xids.
//!
//! A counter shows more links than a board has wired, so "inactive" alone means nothing: the siblings tell how many
//! there should be. A fatal SXid and the Xid 74 of the GPU on that port are one event seen from both ends.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::draft::Draft;
use super::node::{Gpu, Node, Recovered, STALE_AFTER};
use super::rules::{FABRIC_DOC, Rule, XID_DOC, rules};
use super::timeline::{concerns, follows, is_xid};
use super::{ActionCode, Scope, Severity, driver, event_judgement, quote};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use crate::facts::topology::{Fabric, GpuTopology, NvlinkGroup};
use crate::xid::catalogue::{self, Ageing};

rules! {
    DOWN: "nvlink-down" Critical Fabric FABRIC_DOC, "NVLinks are down that should be up",
        DrainAndReset "Drain {node} and reset {gpu}; if the same links stay down, have board and cables checked.";
    ERRORS: "nvlink-errors" Warning Fabric XID_DOC, "NVLink error counters stand out",
        Watch "Read the counters of {gpu} again later: only growing ones matter. Check seating and cables if they \
            grow.";
    COUNTED: "nvlink-errors-counted" Info Fabric XID_DOC, "NVLink counted errors and recovered",
        None "Nothing now: a total since driver load; compare {gpu} later if NCCL is slow.";
    NOT_REGISTERED: "fabric-not-registered" Critical Fabric FABRIC_DOC, "GPU not registered with the NVSwitch fabric",
        UpdateSoftware "Restart Fabric Manager on {node} (on racks: IMEX and the NVLink manager) in the driver's \
            version; CUDA cannot start on {gpu}.";
    UNHEALTHY: "fabric-unhealthy" Critical Fabric FABRIC_DOC, "The fabric reports problems for the GPU",
        CheckCabling "Drain {node}; check its NVSwitch trays, cables and the fabric's configuration, then reset {gpu}.";
    LIMITED: "fabric-limited" Warning Fabric FABRIC_DOC, "The fabric works with limited capacity",
        CheckCabling "Check the NVLinks of {gpu} on {node} at the next maintenance; bandwidth is reduced.";
    FAULT: "nvlink-fault" Fatal Fabric XID_DOC, "NVLink fault",
        DrainAndReset "Drain {node} and reset {gpu}; if the same link fails again, have board and cables checked.";
    SWITCH: "nvswitch-fault" Fatal Fabric FABRIC_DOC, "NVSwitch fault",
        DrainAndReset "Drain {node}, then reset all its GPUs and NVSwitches together; contact the vendor if it \
            repeats.";
    SWITCH_HOT: "nvswitch-thermal" Critical Thermal FABRIC_DOC, "NVSwitch too hot",
        CheckCabling "Check cooling and airflow of the NVSwitches of {node}.";
    WATCHED: "nvlink-warning" Warning Fabric XID_DOC, "NVLink or NVSwitch error that asks for no reset by itself",
        Watch "Watch whether it repeats on the same link of {gpu} on {node}.";
    MINOR: "nvlink-event" Info Fabric XID_DOC, "NVLink or NVSwitch event without consequence",
        Watch "Nothing by itself; watch whether events of {gpu} on {node} become frequent.";
    INIT: "nvlink-init-failed" Warning Fabric FABRIC_DOC, "NVLink did not initialise",
        DrainAndReset "Drain {node} and reset {gpu}, with Fabric Manager running where there are NVSwitches.";
}

/// Xids of NVLink that this family judges. 121 and 173 (C2C) are left to the catalogue.
pub(super) const CODES: [u32; 13] = [74, 108, 136, 137, 144, 145, 146, 147, 148, 149, 150, 155, 166];

/// Both ends of a link report within moments.
const SAME_FAULT: SignedDuration = SignedDuration::from_secs(10);

/// Links that an SXM board of each architecture has wired. PCIe cards have fewer, and then siblings decide.
const WIRED: [(&str, u32); 4] = [("Volta", 6), ("Ampere", 12), ("Hopper", 18), ("Blackwell", 18)];

/// A link whose count is this many times its siblings' is worth a look, from this count on.
const OUTLIER_TIMES: u64 = 10;
const OUTLIER_LEAST: u64 = 100;

/// Counters of which one is too many: the link had to be trained anew, or could not be.
const GRAVE_COUNTERS: [&str; 4] = ["recovery", "link_recovery_failed", "ecc", "malformed_packets"];

/// Findings about links, fabric and switches.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in node.answering() {
        let Some(topology) = node.topology_of(gpu) else { continue };
        drafts.extend(down(node, gpu, topology));
        drafts.extend(counters(gpu, topology));
        let switched = on_switch(topology) || node.topology().is_some_and(|all| !all.nvswitches.is_empty());
        drafts.extend(topology.fabric.as_ref().and_then(|fabric| registration(node, gpu, fabric, switched)));
    }
    let handled: Vec<usize> = switches(node, &mut drafts);
    for gpu in &node.gpus {
        drafts.extend(faults(node, gpu, &handled));
        drafts.extend(init_failed(node, gpu));
    }
    drafts.extend(init_failed_somewhere(node));
    drafts
}

/// Most of these lines name a GPU by the driver's own count only.
fn init_failed_somewhere(node: &Node<'_>) -> Option<Draft> {
    let nameless = node.timeline.of_kind(Kind::NvlinkInitFailed).filter(|event| event.pci_address.is_none());
    let lines: Vec<&KernelEvent> = nameless.collect();
    let fine = |gpu: &Gpu| {
        node.topology_of(gpu).is_some_and(|topology| down(node, gpu, topology).is_none() && active(topology) > 0)
    };
    let all_up = node.topology().is_some() && node.answering().all(fine);
    (!lines.is_empty() && !all_up).then(|| Draft::on_node(INIT).with_events(lines))
}

fn active(topology: &GpuTopology) -> u32 {
    let groups = topology.nvlinks.iter().filter(|group| group.active == Some(true));
    u32::try_from(groups.map(|group| group.links.len()).sum::<usize>()).unwrap_or(0)
}

/// Whether the links of GPUs like this one lead to switches: some are on this node's PCI bus, or a sibling's links name one,
/// or the fabric has accepted a sibling, or the links are of NVLink 5, which exists with switches only (in racks, the
/// switches are on no node's PCI bus). A GPU whose links are all down cannot tell by itself.
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

fn on_switch(topology: &GpuTopology) -> bool {
    topology.nvlinks.iter().any(|group| group.remote_type.as_deref() == Some("switch"))
}

/// Fewer links up than on the siblings, or than an NVSwitch board has wired.
fn down(node: &Node<'_>, gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let up = active(topology);
    let listed: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let siblings = node.answering().filter(|other| other.name == gpu.name).filter_map(|other| node.topology_of(other));
    let most = siblings.map(active).max().unwrap_or(up);
    let architecture = node.inventory_of(gpu).and_then(|inventory| inventory.architecture.as_deref());
    let wired = WIRED.iter().find(|(name, _)| architecture == Some(*name)).map_or(0, |(_, links)| *links);
    let has_switches = is_switched(node, gpu);
    let wired = if has_switches { wired.min(u32::try_from(listed).unwrap_or(0)) } else { 0 };
    let expected = most.max(wired);
    let silent: Vec<u32> = topology
        .nvlinks
        .iter()
        .filter(|group| group.active == Some(false))
        .flat_map(|group| group.links.iter().copied())
        .collect();
    // No link at all without switches: a card without a bridge. And MIG mode takes the links of an A100 down.
    let unbridged = up == 0 && !has_switches;
    let cut = node.inventory_of(gpu).and_then(|inventory| inventory.mig_mode).is_some_and(|mode| mode.current);
    if up >= expected || silent.is_empty() || unbridged || cut {
        return None;
    }
    let mut links = silent;
    links.sort_unstable();
    let evidence = format!("{up} of {expected} NVLinks up; inactive: {}", quote::ranges(&links));
    let severity = if has_switches { Severity::Critical } else { Severity::Warning };
    Some(Draft::on_gpu(DOWN, gpu).with_severity(severity).with_evidence(evidence))
}

/// Totals since driver load: one snapshot cannot tell whether they grow, so only the grave or the odd one stands out.
fn counters(gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let mut by_name: BTreeMap<&str, Vec<(u64, &NvlinkGroup)>> = BTreeMap::new();
    for group in &topology.nvlinks {
        for (name, &count) in group.errors.iter().filter(|(_, count)| **count > 0) {
            by_name.entry(name).or_default().push((count, group));
        }
    }
    let links: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let mut grave = Vec::new();
    let mut counted = Vec::new();
    for (name, groups) in by_name {
        // Corrected before anybody noticed: NVLink 5 counts them all the time.
        if name.contains("fec") || name.contains("symbol") || name.ends_with("successful") || name.contains("ber") {
            continue;
        }
        let total: u64 = groups.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count));
        let worst = groups.iter().max_by_key(|(count, _)| *count);
        let Some((count, group)) = worst else { continue };
        let others = total.saturating_sub(*count) / u64::try_from(links.saturating_sub(1)).unwrap_or(0).max(1);
        let outlier = *count >= OUTLIER_LEAST && *count >= others.saturating_mul(OUTLIER_TIMES);
        let words = format!("{}: {count} on links {}", quote::data(name), quote::ranges(&group.links));
        if GRAVE_COUNTERS.contains(&name) || outlier {
            grave.push(words);
        } else {
            counted.push(words);
        }
    }
    match (grave.is_empty(), counted.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Draft::on_gpu(COUNTED, gpu).with_all_evidence(counted)),
        (false, _) => Some(Draft::on_gpu(ERRORS, gpu).with_all_evidence(grave).with_evidence("since driver load")),
    }
}

/// `switched`: whether there is a switch to register with. A single GPU in a virtual machine never starts.
fn registration(node: &Node<'_>, gpu: &Gpu, fabric: &Fabric, switched: bool) -> Option<Draft> {
    let Fabric { state, status, health, health_issues, .. } = fabric;
    let failed = status.as_deref().filter(|status| !matches!(*status, "success" | "not_supported"));
    let fault = match state.as_str() {
        "not_started" if !switched => None,
        "in_progress" | "not_started" => Some(format!("fabric state: {}", quote::data(state))),
        "completed" => failed.map(|status| format!("fabric registration failed: {}", quote::data(status))),
        _ => None,
    };
    if let Some(fault) = fault {
        // Without Fabric Manager no GPU can register: `driver` says so, with these states as evidence.
        let managed = driver::fabric_manager(node).is_none();
        return managed.then(|| Draft::on_gpu(NOT_REGISTERED, gpu).with_evidence(fault));
    }
    let issues: Vec<String> = health_issues.iter().take(6).map(|issue| quote::data(issue)).collect();
    let evidence = |health: &str| format!("fabric health: {health} {}", issues.join(", ")).trim_end().to_owned();
    match health.as_deref() {
        Some("unhealthy") => Some(Draft::on_gpu(UNHEALTHY, gpu).with_evidence(evidence("unhealthy"))),
        Some("limited_capacity") => Some(Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("limited capacity"))),
        _ if !issues.is_empty() => Some(Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("issues:"))),
        _ => None,
    }
}

/// Address of a switch, and severity and rule of what it reported.
type SwitchAndGrade = (Option<String>, Severity, &'static str);

/// SXids by switch; gives back the GPU events that they explain.
fn switches(node: &Node<'_>, drafts: &mut Vec<Draft>) -> Vec<usize> {
    let mut handled = Vec::new();
    let mut by_switch: BTreeMap<SwitchAndGrade, (Rule, Vec<&KernelEvent>)> = BTreeMap::new();
    for (_, event) in node.timeline.unexplained().filter(|(_, event)| event.kind == Kind::Sxid) {
        let pci = event.pci_address.as_ref().map(ToString::to_string);
        let rule = switch_rule(event);
        by_switch.entry((pci, event_judgement::severity(event), rule.id)).or_insert((rule, Vec::new())).1.push(event);
    }
    for ((_, severity, _), (rule, events)) in by_switch {
        let here = Draft { noun: "NVSwitch", ..Draft::on_node(rule) }.with_severity(severity);
        let mut draft =
            events.iter().fold(here, |draft, event| draft.with_time_of(event).with_evidence(quote_sxid(event)));
        draft.scope = Scope { pci: events.first().and_then(|event| event.pci_address.clone()), ..Scope::default() };
        if rule.id == WATCHED.id {
            draft = draft.with_judgement(&event_judgement::worst(&events));
        }
        let ends = node.timeline.unexplained().filter(|(_, end)| {
            is_xid(end, &CODES) && severity == Severity::Fatal && events.iter().any(|event| together(event, end))
        });
        let mut ours = Vec::new();
        for (at, end) in ends {
            ours.push(at);
            draft = draft.with_evidence(format!("the other end: {}{}", place(end), quote::event(end)));
        }
        draft = draft.with_all_evidence(node.timeline.consequences(&ours));
        drafts.push(rested(node, draft, &events));
        handled.append(&mut ours);
    }
    handled
}

fn switch_rule(event: &KernelEvent) -> Rule {
    let hot = event.code.and_then(catalogue::sxid).is_some_and(|entry| entry.action == Some("CHECK_COOLING"));
    match event_judgement::severity(event) {
        Severity::Info => MINOR,
        Severity::Warning => WATCHED,
        Severity::Critical if hot => SWITCH_HOT,
        _ => SWITCH,
    }
}

/// A switch has no state that NVML reads: a fault of days ago rests where all GPUs and their links work.
fn rested(node: &Node<'_>, draft: Draft, events: &[&KernelEvent]) -> Draft {
    let newest = events.iter().filter_map(|event| event.last).max();
    let long_ago = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    let works = |gpu: &Gpu| node.recovered_since(gpu, newest) == Some(Recovered::LongAgo) && !links_are_down(node, gpu);
    match event_judgement::worst(events).ages {
        Ageing::Day if long_ago => draft.with_severity(Severity::Info),
        Ageing::Works | Ageing::WorksDay if !node.gpus.is_empty() && node.gpus.iter().all(works) => draft
            .with_severity(Severity::Info)
            .with_evidence("all GPUs of the node and their NVLinks work now")
            .with_action(ActionCode::Watch, "Nothing now: the GPUs of {node} and their NVLinks work again."),
        _ => draft,
    }
}

fn links_are_down(node: &Node<'_>, gpu: &Gpu) -> bool {
    node.topology_of(gpu).is_some_and(|topology| down(node, gpu, topology).is_some())
}

fn place(event: &KernelEvent) -> String {
    match (event.gpu_index, &event.pci_address) {
        (Some(index), _) => format!("GPU {index}, "),
        (None, Some(pci)) => format!("{}, ", pci.sysfs()),
        (None, None) => String::new(),
    }
}

fn together(left: &KernelEvent, right: &KernelEvent) -> bool {
    let timed = left.last.is_some() && right.last.is_some();
    timed && (follows(left, right, Some(SAME_FAULT)) || follows(right, left, Some(SAME_FAULT)))
}

fn quote_sxid(event: &KernelEvent) -> String {
    let words = event.code.and_then(catalogue::sxid).map(|entry| format!(" {}", entry.words)).unwrap_or_default();
    format!("{}{words}", quote::event(event))
}

/// NVLink Xids of one GPU that no switch explains: the fatal ones are one finding, the others one.
fn faults(node: &Node<'_>, gpu: &Gpu, handled: &[usize]) -> Vec<Draft> {
    let events: Vec<(usize, &KernelEvent)> = node
        .timeline
        .unexplained()
        .filter(|(at, event)| is_xid(event, &CODES) && concerns(event, gpu) && !handled.contains(at))
        .collect();
    let mut drafts = Vec::new();
    for severity in [Severity::Fatal, Severity::Critical, Severity::Warning, Severity::Info] {
        let of_grade: Vec<(usize, &KernelEvent)> =
            events.iter().filter(|(_, event)| event_judgement::severity(event) == severity).copied().collect();
        if of_grade.is_empty() {
            continue;
        }
        let positions: Vec<usize> = of_grade.iter().map(|(at, _)| *at).collect();
        let facts: Vec<&KernelEvent> = of_grade.iter().map(|(_, event)| *event).collect();
        let rule = match severity {
            Severity::Info => MINOR,
            Severity::Warning => WATCHED,
            Severity::Critical | Severity::Fatal => FAULT,
        };
        let both = facts.iter().find_map(|event| other_end(node, gpu, event));
        let draft = facts
            .iter()
            .fold(Draft::on_gpu(rule, gpu), |draft, event| draft.with_time_of(event).with_evidence(quote_xid(event)));
        drafts.push(
            draft
                .with_judgement(&event_judgement::worst(&facts))
                .aged(node, gpu, &facts, !links_are_down(node, gpu))
                .with_all_evidence(both)
                .with_all_evidence(node.timeline.consequences(&positions)),
        );
    }
    drafts
}

fn quote_xid(event: &KernelEvent) -> String {
    let detail = |name: &str| event.details.get(name).map(|value| quote::data(value));
    let class = detail("register_class").map(|class| format!(", registers say {class}")).unwrap_or_default();
    let reason = detail("link_down_reason").filter(|_| event.code == Some(149));
    let reason = reason.map(|reason| format!(", link-down reason {reason}")).unwrap_or_default();
    format!("{}{class}{reason}", quote::event(event))
}

/// Both ends report: cable or board between them. One end: that device.
fn other_end(node: &Node<'_>, gpu: &Gpu, event: &KernelEvent) -> Option<String> {
    let mut ends = node
        .timeline
        .of_kind(Kind::Xid)
        .filter(|other| is_xid(other, &CODES) && !concerns(other, gpu) && together(other, event));
    ends.next().map(|end| format!("{}the same moment: {}", place(end), quote::event(end)))
}

fn init_failed(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let lines: Vec<String> =
        node.timeline.of_kind(Kind::NvlinkInitFailed).filter(|event| concerns(event, gpu)).map(quote::event).collect();
    // Links that are up have got over it.
    let up = node.topology_of(gpu).is_some_and(|topology| down(node, gpu, topology).is_none() && active(topology) > 0);
    (!lines.is_empty() && !up).then(|| Draft::on_gpu(INIT, gpu).with_all_evidence(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{ClusterFacts, diagnose};
    use crate::facts::kernel_log::KernelLog;
    use crate::pci::PciAddress;
    use crate::report::{Report, Section};

    fn event(kind: Kind, code: u32, pci: &str, second: i64) -> KernelEvent {
        let time = jiff::Timestamp::from_second(1_795_229_000 + second).ok();
        let pci_address = PciAddress::parse(pci);
        KernelEvent { kind, code: Some(code), pci_address, count: 1, first: time, last: time, ..KernelEvent::default() }
    }

    fn fatal(code: u32, pci: &str, second: i64) -> KernelEvent {
        let mut event = event(Kind::Sxid, code, pci, second);
        event.details.insert("nv_severity".into(), "Fatal".into());
        event
    }

    #[test]
    fn a_switch_is_not_told_what_another_one_caused() {
        let events = vec![
            fatal(20034, "0000:05:00.0", 0),
            event(Kind::Xid, 74, "0000:5d:00.0", 1),
            event(Kind::Xid, 45, "0000:5d:00.0", 2),
            fatal(20034, "0000:06:00.0", 900),
        ];
        let mut report = Report::default();
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let findings = diagnose(&report, &ClusterFacts::default()).findings;
        let explains = |pci: &str| {
            let of_switch = |finding: &&crate::diagnosis::Finding| finding.scope.pci == PciAddress::parse(pci);
            let switch = findings.iter().find(of_switch).expect("a finding of the switch");
            switch.evidence.iter().any(|line| line.contains("explained by it"))
        };
        assert!(explains("0000:05:00.0") && !explains("0000:06:00.0"), "{findings:#?}");
    }

    #[test]
    fn the_word_of_the_line_outranks_the_catalogue() {
        let hot = event(Kind::Sxid, 10004, "0000:05:00.0", 0);
        let hot_fatal = fatal(10004, "0000:05:00.0", 0);
        assert_eq!((switch_rule(&hot).id, switch_rule(&hot_fatal).id), (SWITCH_HOT.id, SWITCH.id));
    }
}
