//! Rules about NVLink and NVSwitch in the kernel log: Xids, SXids, hot switches, frequent bit errors, and links that
//! did not start.
//!
//! A fatal SXid and the Xid 74 of the GPU on that port are one event that both ends report.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::evidence;
use crate::finding::Scope;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::recovery::{Recovery, asks_for_reset};
use crate::input::timeline::{concerns, ends_by_boot_only, follows, is_xid};
use crate::input::xids;
use crate::rule::aging;
use crate::rule::{Draft, FABRIC_DOC, InPlan, Rule, XID_DOC, rules};
use crate::rules::links::nvlink_state::{links_are_down, links_are_up};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue;
use syringe_core::kernel_log::catalogue::{Ageing, RecoveryEvidence, WorkEvidence};

rules! {
    FAULT: "nvlink-fault" Fatal Fabric XID_DOC, "NVLink fault",
        DrainAndReset "Drain {node} and reset {gpu}. If the same link fails again, check the board and the cables.",
        means "An NVLink of the GPU failed. Jobs that use several GPUs fail or hang.",
        reads "xid: 74, 144 to 150";
    SWITCH: "nvswitch-fault" Fatal Fabric FABRIC_DOC, "NVSwitch fault",
        DrainAndReset "Drain {node}, then reset all its GPUs and NVSwitches together. If the error repeats, contact the \
            vendor.",
        means "An NVSwitch reported a fatal error. The GPUs on it cannot reach each other.",
        reads "xid: SXid";
    SWITCH_HOT: "nvswitch-thermal" Critical Thermal FABRIC_DOC, "NVSwitch is too hot",
        CheckCooling "Check cooling and airflow of the NVSwitches of {node}.",
        means "An NVSwitch reported that it is too hot.",
        reads "xid: SXid";
    SHARED_END: "nvlink-shared-end" Warning Fabric FABRIC_DOC, "NVLinks of several GPUs, probably to one NVSwitch, failed at the same time",
        CheckCabling "Check the NVSwitch to which the links in the evidence lead (in a rack: its switch tray, its cables and \
            the messages of NMX or NVOS). Repair it before the GPUs are reset. The same links of several GPUs failed \
            together, so a fault of each GPU is unlikely.",
        means "Links of at least three GPUs that lead to one NVSwitch, or that have the same number, failed within seconds. The cause is probably at \
            their other end.",
        reads "xid: 74, 144 to 150; topology.nvlinks", in_plan ComesFirst;
    WATCHED: "nvlink-warning" Warning Fabric XID_DOC, "NVLink or NVSwitch error that needs no reset",
        Watch "Watch whether the error repeats on the same link of {gpu} on {node}.",
        means "NVLink or an NVSwitch reported an error that requires no reset.",
        reads "xid: 74, 144 to 150, SXid";
    MINOR: "nvlink-event" Info Fabric XID_DOC, "NVLink or NVSwitch event without consequences",
        Watch "This finding alone needs no action. Watch whether events of {gpu} on {node} become frequent.",
        means "NVLink or an NVSwitch reported an event that has no effect.",
        reads "xid: 74, 144 to 150, SXid";
    INIT: "nvlink-init-failed" Warning Fabric FABRIC_DOC, "NVLink did not initialize",
        DrainAndReset "Drain {node} and reset {gpu}. On systems with NVSwitches, Fabric Manager must run.",
        means "An NVLink could not be initialized when the driver was loaded.",
        reads "xid: NVLink lines";
}

/// Maximum time between the reports of both ends of a link.
const SAME_FAULT: SignedDuration = SignedDuration::from_secs(10);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let handled: Vec<usize> = switches(node, &mut drafts);
    for gpu in &node.gpus {
        drafts.extend(faults(node, gpu, &handled));
        drafts.extend(init_failed(node, gpu));
    }
    drafts.extend(init_failed_somewhere(node));
    drafts.extend(shared_ends(node, &drafts));
    drafts
}

/// Returns a finding from lines that contain no address. Most of these lines contain only an internal number of the
/// GPU.
fn init_failed_somewhere(node: &Node<'_>) -> Option<Draft> {
    let nameless = node.timeline.of_kind(Kind::NvlinkInitFailed).filter(|event| event.pci_address.is_none());
    let lines: Vec<&KernelEvent> = nameless.collect();
    let all_up = node.topology().is_some() && node.answering().all(|gpu| links_are_up(node, gpu));
    (!lines.is_empty() && !all_up).then(|| Draft::on_node(INIT).with_events(lines))
}

/// Address of a switch, with the severity, the rule and the action of its event.
type SwitchAndGrade = (Option<String>, Severity, &'static str, ActionCode);

/// Adds a finding for the SXids of each switch, and returns the GPU events that they explain.
fn switches(node: &Node<'_>, drafts: &mut Vec<Draft>) -> Vec<usize> {
    let mut handled = Vec::new();
    let mut by_switch: BTreeMap<SwitchAndGrade, (Rule, Vec<&KernelEvent>)> = BTreeMap::new();
    for (_, event) in node.timeline.unexplained().filter(|(_, event)| event.kind == Kind::Sxid) {
        let pci = event.pci_address.as_ref().map(ToString::to_string);
        let rule = switch_rule(event);
        let aging::EventMeaning { severity, action, .. } = aging::of(event);
        by_switch.entry((pci, severity, rule.id, action)).or_insert((rule, Vec::new())).1.push(event);
    }
    for ((_, severity, _, action), (rule, events)) in by_switch {
        let rule = match events.iter().all(|event| xids::lets_work_continue(event)) {
            true => rule.in_plan(InPlan::WorkContinues),
            false => rule,
        };
        let here = Draft { noun: "NVSwitch", ..Draft::on_node(rule) }.with_severity(severity);
        let mut draft =
            events.iter().fold(here, |draft, event| draft.with_time_of(event).with_evidence(quote_sxid(event)));
        draft.scope = Scope { pci: events.first().and_then(|event| event.pci_address.clone()), ..Scope::default() };
        // The table of SXids determines the action.
        if action != rule.action || rule.id == WATCHED.id {
            draft = draft.with_meaning(&aging::worst(&events));
        }
        let ends = node.timeline.unexplained().filter(|(_, end)| {
            is_xid(end, &xids::NVLINK) && severity == Severity::Fatal && events.iter().any(|event| together(event, end))
        });
        let mut ours = Vec::new();
        for (at, end) in ends {
            ours.push(at);
            draft = draft.with_evidence(format!("other end: {}{}", place(end), evidence::event(end)));
        }
        let own = node.timeline.events.iter().enumerate();
        let own = own.filter(|(_, one)| events.iter().any(|event| std::ptr::eq(*event, one.fact))).map(|(at, _)| at);
        let causes: Vec<usize> = ours.iter().copied().chain(own).collect();
        draft = draft.with_all_evidence(node.timeline.consequences(&causes));
        drafts.push(rested(node, draft, &events));
        handled.append(&mut ours);
    }
    handled
}

fn switch_rule(event: &KernelEvent) -> Rule {
    let hot = event.code.and_then(catalogue::sxid).is_some_and(|entry| entry.nvidia_action == Some("CHECK_COOLING"));
    match aging::severity(event) {
        Severity::Info => MINOR,
        Severity::Warning => WATCHED,
        Severity::Critical if hot => SWITCH_HOT,
        _ => SWITCH,
    }
}

/// Lowers a finding about an NVSwitch, because NVML does not read the state of NVSwitches. If all GPUs and their links
/// work a day after the fault, the fault is less severe. The fault is over if programs that use several GPUs have run
/// on each GPU since then, or if it needed no reset.
fn rested(node: &Node<'_>, draft: Draft, events: &[&KernelEvent]) -> Draft {
    let newest = events.iter().filter_map(|event| event.ordered_at()).max();
    let long_ago = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    let works = |gpu: &Gpu| {
        let held = node.holds(gpu, RecoveryEvidence::Nvlinks, newest);
        held.is_some_and(|held| held.long_ago) && !links_are_down(node, gpu)
    };
    let all_work = !node.gpus.is_empty() && node.gpus.iter().all(works);
    let needs_reset = events.iter().any(|event| asks_for_reset(event));
    let needs_boot = events.iter().any(|event| ends_by_boot_only(event));
    let is_used = |gpu: &Gpu| node.work_since(gpu, WorkEvidence::ProgramOnSeveralGpus, newest).is_some();
    match aging::worst(events).ageing {
        Ageing::AfterADay if long_ago => draft.with_severity(Severity::Info),
        Ageing::WhenWorking | Ageing::WhenWorkingADay if all_work && needs_boot => {
            let why = "only a boot of the node ends this fault, and the log has no boot since then";
            draft.unless_recovered(Recovery::Unproven { recent: false, why: why.to_owned() }, node.booted().is_some())
        }
        Ageing::WhenWorking | Ageing::WhenWorkingADay if all_work && needs_reset && !node.gpus.iter().all(is_used) => {
            let why = "all GPUs of the node and their NVLinks are up, but no driver load or boot is in the log since then, and no \
                       program that started since then uses several GPUs";
            draft.unless_recovered(Recovery::Unproven { recent: false, why: why.to_owned() }, node.booted().is_some())
        }
        Ageing::WhenWorking | Ageing::WhenWorkingADay if all_work => draft
            .with_severity(Severity::Info)
            .with_evidence("all GPUs of the node and their NVLinks work now")
            .with_action(ActionCode::Watch, "No action now: the GPUs of {node} and their NVLinks work again."),
        _ => draft.unless_unread(node, events),
    }
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
    format!("{}{words}", evidence::event(event))
}

/// Returns findings from NVLink Xids of one GPU that no switch event explains, one for each severity.
fn faults(node: &Node<'_>, gpu: &Gpu, handled: &[usize]) -> Vec<Draft> {
    let events: Vec<(usize, &KernelEvent)> = node
        .timeline
        .unexplained()
        .filter(|(at, event)| is_xid(event, &xids::NVLINK) && concerns(event, gpu) && !handled.contains(at))
        .collect();
    let mut drafts = Vec::new();
    for severity in [Severity::Fatal, Severity::Critical, Severity::Warning, Severity::Info] {
        let of_grade: Vec<(usize, &KernelEvent)> =
            events.iter().filter(|(_, event)| aging::severity(event) == severity).copied().collect();
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
        // A separate finding reports the shared end of links that failed.
        let shared = facts.iter().find_map(|event| shared_end(node, gpu, event));
        let is_reported = shared.is_some() && rule.id == FAULT.id;
        let both =
            shared.or_else(|| facts.iter().find_map(|event| other_end(node, gpu, event))).filter(|_| !is_reported);
        let draft = facts
            .iter()
            .fold(Draft::on_gpu(rule, gpu), |draft, event| draft.with_time_of(event).with_evidence(quote_xid(event)));
        drafts.push(
            draft
                .with_meaning(&aging::worst(&facts))
                .unless_repeated(&facts)
                .aged(node, gpu, &facts, !links_are_down(node, gpu))
                .with_all_evidence(both)
                .with_all_evidence(node.timeline.consequences(&positions)),
        );
    }
    drafts.extend(often(node, gpu, &events));
    drafts
}

/// If at least this many bit-error events occur in a day, the signal of a link is poor.
const OFTEN_A_DAY: u64 = 50;

/// Returns a finding if bit errors of links (`NETIR_BER_EVENT`) are frequent. A single event needs no action.
fn often(node: &Node<'_>, gpu: &Gpu, events: &[(usize, &KernelEvent)]) -> Option<Draft> {
    let is_ber = |event: &&KernelEvent| event.sub_code.as_deref().is_some_and(|unit| unit.starts_with("NETIR_BER"));
    let recent = |event: &&KernelEvent| node.age(event.last).is_none_or(|age| age <= STALE_AFTER);
    let ours: Vec<&KernelEvent> = events.iter().map(|(_, event)| *event).filter(is_ber).filter(recent).collect();
    let days = |event: &KernelEvent| {
        let span = event.first.zip(event.last).map(|(first, last)| last.duration_since(first).as_hours());
        u64::try_from(span.unwrap_or_default() / 24).unwrap_or(0) + 1
    };
    let a_day: u64 = ours.iter().map(|event| event.count / days(event)).sum();
    (a_day >= OFTEN_A_DAY).then(|| {
        Draft::on_gpu(WATCHED, gpu)
            .with_events(ours.iter().copied())
            .with_evidence(format!("{a_day} bit-error events per day"))
            .with_action(
                ActionCode::CheckCabling,
                "Check seating and cables of the links of {gpu} in the evidence at the next maintenance of {node}: bit errors are frequent.",
            )
    })
}

fn quote_xid(event: &KernelEvent) -> String {
    let detail = |name: &str| event.details.get(name).map(|value| evidence::data(value));
    let class =
        detail("register_class").map(|class| format!(", error class from registers: {class}")).unwrap_or_default();
    let is_link_down = event.sub_code.as_deref().is_some_and(|unit| unit.starts_with("NETIR_LINK"));
    let reason = detail("link_down_reason").filter(|_| event.code == Some(149) && is_link_down);
    let reason = reason.map(|reason| format!(", link-down reason {reason}")).unwrap_or_default();
    format!("{}{class}{reason}", evidence::event(event))
}

/// Returns a line about the other end of the link. If both ends report an error, the fault is in the cable or board
/// between them. Otherwise, it is in the device.
fn other_end(node: &Node<'_>, gpu: &Gpu, event: &KernelEvent) -> Option<String> {
    let mut ends = node
        .timeline
        .of_kind(Kind::Xid)
        .filter(|other| is_xid(other, &xids::NVLINK) && !concerns(other, gpu) && together(other, event));
    ends.next().map(|end| format!("{}at the same time: {}", place(end), evidence::event(end)))
}

/// If at least this many GPUs report errors of links with the same end, that end is more likely to be faulty than the
/// GPUs.
const GPUS_OF_END: usize = 3;

/// Returns a finding about the ends that links of several GPUs share, if these links failed.
fn shared_ends(node: &Node<'_>, drafts: &[Draft]) -> Option<Draft> {
    let failed = |gpu: &&Gpu| drafts.iter().any(|draft| draft.rule.id == FAULT.id && draft.is_on(gpu));
    let of_gpu = |gpu: &Gpu| -> Vec<(&KernelEvent, String)> {
        let own = node.timeline.unexplained().map(|(_, event)| event);
        let own = own.filter(|event| is_xid(event, &xids::NVLINK) && concerns(event, gpu));
        own.filter_map(|event| Some((event, shared_end(node, gpu, event)?))).collect()
    };
    let mut found: Vec<(&KernelEvent, String)> = node.gpus.iter().filter(failed).flat_map(of_gpu).collect();
    found.sort_by(|(_, left), (_, right)| left.cmp(right));
    found.dedup_by(|(_, left), (_, right)| left == right);
    let draft = found.iter().fold(Draft::on_node(SHARED_END), |draft, (event, line)| {
        draft.with_time_of(event).with_evidence(line.as_str())
    });
    (!found.is_empty()).then_some(draft)
}

/// Returns a line about the device at the other end of the links of several GPUs, if these links report errors at the
/// same time: one NVSwitch, or, if the ends are not known, the plane of the links with one number.
fn shared_end(node: &Node<'_>, gpu: &Gpu, event: &KernelEvent) -> Option<String> {
    let number = |event: &KernelEvent| event.details.get("link").and_then(|link| link.parse::<u32>().ok());
    let link = number(event)?;
    let switch = |gpu: &Gpu, link: u32| {
        let group = node.topology_of(gpu)?.nvlinks.iter().find(|group| group.links.contains(&link))?;
        group.remote_pci_address.as_ref().filter(|_| group.remote_type.as_deref() == Some("switch"))
    };
    let end = switch(gpu, link);
    let is_here = |other: &&Gpu| {
        node.timeline.of_kind(Kind::Xid).any(|one| {
            is_xid(one, &xids::NVLINK)
                && concerns(one, other)
                && together(one, event)
                && number(one).is_some_and(|number| match end {
                    Some(end) => switch(other, number) == Some(end),
                    None => number == link && switch(other, number).is_none(),
                })
        })
    };
    let gpus = node.gpus.iter().filter(is_here).count();
    (gpus >= GPUS_OF_END).then(|| match end {
        Some(end) => format!("links of {gpus} GPUs to the NVSwitch at {} report errors at the same time", end.sysfs()),
        None => format!("link {link} of {gpus} GPUs reports errors at the same time: the links with one number often lead to one switch"),
    })
}

fn init_failed(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let lines: Vec<String> = node
        .timeline
        .of_kind(Kind::NvlinkInitFailed)
        .filter(|event| concerns(event, gpu))
        .map(evidence::event)
        .collect();
    // If the links are up, the fault is over.
    (!lines.is_empty() && !links_are_up(node, gpu)).then(|| Draft::on_gpu(INIT, gpu).with_all_evidence(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose;
    use syringe_core::facts::kernel_log::KernelLog;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::pci::PciAddress;
    use syringe_core::report::{Report, Section};

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
    fn errors_of_one_switch_are_not_evidence_of_another() {
        let events = vec![
            fatal(20034, "0000:05:00.0", 0),
            event(Kind::Xid, 74, "0000:5d:00.0", 1),
            event(Kind::Xid, 45, "0000:5d:00.0", 2),
            fatal(20034, "0000:06:00.0", 900),
        ];
        let mut report = Report::default();
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let findings = diagnose(&report, &KubernetesFacts::default()).findings;
        let explains = |pci: &str| {
            let of_switch = |finding: &&crate::finding::Finding| finding.scope.pci == PciAddress::parse(pci);
            let switch = findings.iter().find(of_switch).expect("a finding of the switch");
            switch.evidence.iter().any(|line| line.contains("follow-on errors"))
        };
        assert!(explains("0000:05:00.0") && !explains("0000:06:00.0"), "{findings:#?}");
    }

    #[test]
    fn the_word_of_the_line_has_priority_over_the_catalogue() {
        let hot = event(Kind::Sxid, 10004, "0000:05:00.0", 0);
        let hot_fatal = fatal(10004, "0000:05:00.0", 0);
        assert_eq!((switch_rule(&hot).id, switch_rule(&hot_fatal).id), (SWITCH_HOT.id, SWITCH.id));
    }
}
