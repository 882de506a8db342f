//! Rules about past Xids: severe faults that come back after a repair, differ on one GPU, occur on several GPUs or in
//! one slot, repeated warnings, and a list of the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::recovery::asks_for_reset;
use crate::input::recurrence::{Period, Recurrence, Weight, most_in_a_day, most_within, recurrences};
use crate::input::timeline::OF_ABSENT_DEVICE;
use crate::input::xids;
use crate::rule::aging;
use crate::rule::{Draft, XID_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::pci::PciAddress;

rules! {
    RECURRING: "xid-recurring" Critical Hardware XID_DOC, "The same severe fault of a GPU comes back",
        ContactVendor "Run the NVIDIA field diagnostic on {gpu} of {node}: resets and reboots did not fix it.",
        means "The same kind of severe Xid occurred again on the same GPU after a reset, a driver load or a reboot, or \
            several times within a day: the fault is not repaired. The limits for each family of Xids are in \
            `docs/xid.md`. Below these limits, the finding is information.",
        reads "xid";
    REPEATS: "xid-repeats" Warning Hardware XID_DOC, "The same Xid repeats on one GPU",
        Watch "Open a support case about {gpu} of {node}.",
        means "An Xid that is no reason for a reset occurred many times on one GPU. The advice for this Xid is to watch for repetitions.",
        reads "xid";
    MIXED: "xid-different-faults" Critical Hardware XID_DOC, "One GPU repeatedly has different severe faults",
        ContactVendor "Drain {gpu} of {node}, check its seating and power, and run the NVIDIA field diagnostic. Return it (RMA) if the \
            diagnostic fails.",
        means "Severe Xids of different kinds occurred on the same GPU after resets, driver loads or reboots: the GPU needs a repair \
            again and again, which is usual for a board that is failing.",
        reads "xid";
    SPREAD: "xid-on-different-gpus" Warning Hardware XID_DOC, "The same kind of severe fault occurs on different GPUs",
        CheckCabling "Check what the GPUs of {node} share: power supply, baseboard, risers and PCIe switches, and the versions of driver and \
            firmware. Do not return a single GPU for this.",
        means "The same kind of severe Xid occurred on at least three GPUs at different times within a month: a cause that they share is more likely than a fault of each GPU.",
        reads "xid", in_plan SharedCause;
    SLOT: "slot-loses-gpus" Critical Hardware XID_DOC, "Several boards fell off the bus in the same slot",
        CheckCabling "Check what belongs to the slot of {gpu} of {node}: riser, cable, power, PCIe switch and the BIOS. Do not return the \
            board for this alone.",
        means "GPUs with different UUIDs fell off the bus at the same PCI address: the slot is more likely at fault than each of the boards.",
        reads "xid, inventory.uuid", in_plan SharedCause;
    PAST: "xid-history" Info Driver XID_DOC, "Xids from before the last boot, driver load or reset",
        None "No action: these events do not describe the current state of the GPUs of {node}.",
        means "The log has Xids from before the last boot, driver load or reset. These Xids do not describe the current state.",
        reads "xid";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let again = recurring(node);
    let mixed = mixed(node, &again);
    let again: Vec<Draft> = again.into_iter().chain(mixed).collect();
    let is_grave =
        |draft: &&Draft| [RECURRING.id, MIXED.id].contains(&draft.rule.id) && draft.severity > Severity::Info;
    let history = history(node).map(|draft| match again.iter().find(is_grave) {
        None => draft,
        Some(grave) => draft.with_action(
            ActionCode::None,
            format!("This finding alone needs no action. See {} for the Xids that occurred again.", grave.rule.id),
        ),
    });
    again.into_iter().chain(spread(node)).chain(slots(node)).chain(history).collect()
}

/// Finds slots in which GPUs with different UUIDs fell off the bus. If the GPU there now works, the slot may be repaired.
fn slots(node: &Node<'_>) -> Vec<Draft> {
    let mut by_slot: BTreeMap<&PciAddress, Vec<&KernelEvent>> = BTreeMap::new();
    for event in node.timeline.events.iter().map(|event| event.fact).filter(|event| event.is_off_bus()) {
        if let Some(address) = &event.pci_address {
            by_slot.entry(address).or_default().push(event);
        }
    }
    let draft = |(address, events): (&PciAddress, Vec<&KernelEvent>)| {
        let gpu = node.gpus.iter().find(|gpu| gpu.pci.as_ref() == Some(address))?;
        let is_current = |event: &&KernelEvent| event.boot_id.is_none();
        let own = gpu.uuid.as_ref().filter(|_| events.iter().any(is_current));
        let uuids: BTreeSet<&String> = events.iter().filter_map(|event| event.gpu_uuid.as_ref()).chain(own).collect();
        let severity = if own.is_some() { Severity::Critical } else { Severity::Info };
        let line = format!("{} boards at {}: {}", uuids.len(), address.sysfs(), evidence::names(&uuids, 3));
        let draft = Draft::on_gpu(SLOT, gpu).with_severity(severity).with_events(events);
        (uuids.len() > 1).then(|| draft.with_evidence(line))
    };
    by_slot.into_iter().filter_map(draft).collect()
}

/// If a GPU needed this many repairs within a month, for any faults, it is failing.
const REPAIRS_OF_A_FAILING_GPU: usize = 3;

/// Returns findings about GPUs with faults of several families, none of which alone is a pattern. `again`: the findings
/// about a single family.
fn mixed(node: &Node<'_>, again: &[Draft]) -> Vec<Draft> {
    let known = |gpu: &Gpu| again.iter().any(|draft| draft.is_on(gpu) && draft.severity > Severity::Info);
    let needs_repair = |one: &Recurrence<'_>| {
        one.weight == Weight::Grave && asks_for_reset(one.event) && !xids::lets_work_continue(one.event)
    };
    let found: Vec<Recurrence<'_>> = recurrences(node).into_iter().filter(needs_repair).collect();
    let of_gpu = |gpu: &Gpu| -> Option<Draft> {
        let own: Vec<&Recurrence<'_>> = found.iter().filter(|one| one.gpu == *gpu).collect();
        let mut periods: BTreeMap<Period<'_>, (jiff::Timestamp, String)> = BTreeMap::new();
        for one in &own {
            for (period, first) in &one.periods {
                let Some(first) = *first else { continue };
                let names = one.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let earliest = periods.entry(*period).or_insert_with(|| (first, names.clone()));
                if first < earliest.0 {
                    *earliest = (first, names);
                }
            }
        }
        let mut times: Vec<(jiff::Timestamp, String)> = periods.into_values().collect();
        times.sort();
        let incidents: Vec<jiff::Timestamp> = times.iter().map(|(time, _)| *time).collect();
        let newest = incidents.last().copied();
        let month = SignedDuration::from_hours(30 * 24);
        let many = most_within(&incidents, month) >= REPAIRS_OF_A_FAILING_GPU;
        let recent = node.age(newest).is_some_and(|age| age <= month);
        if own.len() < 2 || !recent || !(many || most_within(&incidents, WEEK) > 1) {
            return None;
        }
        let lines =
            times.iter().rev().take(SHOWN).rev().map(|(time, names)| format!("{names}, {}", evidence::time(*time)));
        let draft = Draft::on_gpu(MIXED, gpu)
            .with_evidence(format!(
                "severe faults in {} periods between repairs (boots, driver loads, resets)",
                times.len()
            ))
            .with_all_evidence(lines);
        let draft = Draft { when: newest, noun: noun(own[0].event), ..draft };
        let settled = node.age(newest).is_some_and(|age| age > PROBATION[0]);
        Some(match many && !settled {
            true => Draft { can_wait: node.is_readable(gpu), return_if: Some(IF_DIAGNOSTIC_FAILS), ..draft },
            false => draft.with_severity(Severity::Warning).with_action(
                ActionCode::Watch,
                "Run the NVIDIA field diagnostic on {gpu} of {node} at the next maintenance. Another severe fault, of \
                 any kind, is a reason to return it.",
            ),
        })
    };
    let mut gpus: Vec<&Gpu> = Vec::new();
    for one in &found {
        if !gpus.contains(&&one.gpu) && !known(&one.gpu) {
            gpus.push(&one.gpu);
        }
    }
    gpus.into_iter().filter_map(of_gpu).collect()
}

/// Families of faults that the power supply, the board, the host or the driver can cause on any GPU.
const OF_SHARED_PARTS: [&str; 2] = ["bus", "gsp"];

/// If a fault occurs on at least this many GPUs, it is a pattern.
const SPREAD_OVER: usize = 3;

/// Returns a finding about faults of one family on several GPUs at different times.
fn spread(node: &Node<'_>) -> Option<Draft> {
    let found = recurrences(node);
    OF_SHARED_PARTS.iter().find_map(|family| {
        let month = SignedDuration::from_hours(30 * 24);
        let recent = |time: &jiff::Timestamp| node.age(Some(*time)).is_some_and(|age| age <= month);
        let grave = found.iter().filter(|one| one.weight == Weight::Grave && one.family.name == *family);
        let mut times: Vec<(jiff::Timestamp, String, String)> = Vec::new();
        for one in grave {
            let newest = one.incidents.iter().copied().filter(recent).max();
            let names = one.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            times.extend(newest.map(|newest| (newest, one.gpu.label(), names)));
        }
        times.sort();
        let apart = times.windows(2).filter(|pair| pair[1].0.duration_since(pair[0].0) >= APART).count();
        (apart + 1 >= SPREAD_OVER).then(|| {
            let lines = times.iter().map(|(time, gpu, names)| format!("{names} on {gpu}, {}", evidence::time(*time)));
            Draft { when: times.last().map(|(time, ..)| *time), ..Draft::on_node(SPREAD) }.with_all_evidence(lines)
        })
    })
}

/// Faults of several GPUs within this time are one event of the node.
const APART: SignedDuration = SignedDuration::from_hours(1);

/// If at least this many incidents occur within a day, the GPU counts as not repaired, even if it works between the
/// incidents.
const OFTEN: usize = 3;

/// After this time without a new incident, the last repair was probably successful. The second duration applies to a
/// fault that came back after several repairs.
const PROBATION: [SignedDuration; 2] = [SignedDuration::from_hours(14 * 24), SignedDuration::from_hours(30 * 24)];

/// Maximum number of times in the evidence.
const SHOWN: usize = 6;

/// Returns findings about severe faults that came back after a repair, or that occur often.
fn recurring(node: &Node<'_>) -> Vec<Draft> {
    let found = recurrences(node);
    found.iter().filter_map(|recurrence| came_back(node, recurrence)).collect()
}

/// Minimum number of incidents of a warning that repeats. The newest incident must be less than a week old.
const REPEATED: usize = 5;

/// A warning whose newest incident is older than this no longer counts as repeating.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Returns a finding about a warning that repeats. Its action is the one that the advice for the warning gives for
/// repetitions.
fn repeats(node: &Node<'_>, recurrence: &Recurrence<'_>) -> Option<Draft> {
    let Recurrence { gpu, event, names, incidents, .. } = recurrence;
    let recent = node.age(recurrence.newest()).is_none_or(|age| age <= WEEK);
    (incidents.len() >= REPEATED && recent).then(|| {
        let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let draft = Draft::on_gpu(REPEATS, gpu).with_time_of(event);
        let draft = Draft { when: recurrence.newest(), noun: noun(event), ..draft };
        draft
            .with_meaning(&aging::repeated(event))
            .with_evidence(format!(
                "{names}: {} times, at most {} within a day",
                incidents.len(),
                most_in_a_day(incidents)
            ))
            .with_all_evidence(newest_times(incidents))
    })
}

/// Moves the number of repetitions into the finding about the Xid that repeats.
pub(super) fn join_repeats(drafts: &mut Vec<Draft>) {
    let (repeats, mut others): (Vec<Draft>, Vec<Draft>) =
        std::mem::take(drafts).into_iter().partition(|draft| draft.rule.id == REPEATS.id);
    for repeat in repeats {
        let is_of_it = |draft: &&mut Draft| {
            let same_place = (draft.scope.gpu, &draft.scope.pci) == (repeat.scope.gpu, &repeat.scope.pci);
            same_place
                && draft.severity >= repeat.severity
                && repeat.events.iter().any(|event| draft.events.contains(event))
        };
        match others.iter_mut().find(is_of_it) {
            Some(draft) => draft.evidence.extend(repeat.evidence),
            None => others.push(repeat),
        }
    }
    *drafts = others;
}

/// Returns the type of the device at the address of an event.
fn noun(event: &KernelEvent) -> &'static str {
    if event.kind == Kind::Sxid { "NVSwitch" } else { "GPU" }
}

fn newest_times(incidents: &[jiff::Timestamp]) -> Option<String> {
    let newest: Vec<String> = incidents.iter().rev().take(SHOWN).rev().map(|time| evidence::time(*time)).collect();
    (newest.len() > 1).then(|| format!("newest occurrences: {}", newest.join(", ")))
}

fn came_back(node: &Node<'_>, recurrence: &Recurrence<'_>) -> Option<Draft> {
    let Recurrence { gpu, event, family, names, boots, incidents, .. } = recurrence;
    let periods = &recurrence.periods.len();
    if recurrence.weight == Weight::Notable {
        return repeats(node, recurrence);
    }
    let in_a_day = most_in_a_day(&recurrence.since_cure);
    let uncured = recurrence.since_cure.len();
    let recent = node.age(recurrence.newest()).is_none_or(|age| age <= WEEK);
    // If a GPU does not respond, the driver logs the same fault repeatedly.
    let often = (in_a_day >= OFTEN || (uncured >= OFTEN && recent)) && node.is_readable(gpu);
    if *periods < 2 && !often {
        return None;
    }
    let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let in_boots = (*boots > 1).then(|| format!("{names} in {boots} boots"));
    let repaired = (periods > boots).then(|| {
        format!(
            "{names} came back after a reset or a driver load (in {periods} periods between resets or \
            driver loads)"
        )
    });
    let in_a_day = most_in_a_day(incidents);
    let lines = most_in_a_day(&recurrence.times);
    let of_lines =
        if lines > in_a_day { format!(" ({lines} lines; those within an hour count once)") } else { String::new() };
    let rate = (in_a_day > 1).then(|| format!("{names}: {in_a_day} times within a day{of_lines}"));
    let rate =
        rate.or_else(|| (uncured > 1).then(|| format!("{names}: {uncured} times since the last reset or driver load")));
    let times = newest_times(incidents);
    let draft = Draft { when: recurrence.newest(), noun: noun(event), ..Draft::on_gpu(RECURRING, gpu) };
    let draft = draft.with_all_evidence(in_boots.into_iter().chain(repaired).chain(rate).chain(times));
    // If a time is missing, the rate is not known.
    let is_timed = recurrence.returns().len() == *periods;
    if !often && is_timed && !recurrence.is_pattern() {
        let rates: Vec<String> =
            family.rates.iter().map(|rate| format!("{} within {} days", rate.incidents, rate.days)).collect();
        return Some(
            draft
                .with_severity(Severity::Info)
                .with_evidence(format!("too rare to be a pattern ({})", rates.join(", or ")))
                .with_action(
                    ActionCode::Watch,
                    "No action now: each reset, driver load or reboot fixed {gpu} of {node} for a long time.",
                ),
        );
    }
    let settled = node.age(recurrence.newest()).is_some_and(|age| age > PROBATION[usize::from(*periods > 2)]);
    let can_wait = in_a_day < OFTEN && node.is_readable(gpu);
    let return_if = family.advice_if_back.contains("(RMA)").then_some(IF_DIAGNOSTIC_FAILS);
    let draft = Draft { can_wait, return_if, ..draft }.with_severity(if settled {
        Severity::Warning
    } else {
        Severity::Critical
    });
    let advice = format!("{}.", family.advice_if_back);
    let draft = draft.with_action(family.action_if_back, advice);
    // If the fault has not been repaired yet, a reset is also needed. The vendor's field diagnostic includes a reset.
    let is_open = uncured > 0 && asks_for_reset(event) && family.action_if_back == ActionCode::UpdateSoftware;
    Some(match is_open {
        true => draft.joined_with(
            ActionCode::DrainAndReset,
            "Move the workloads off {gpu} of {node}, then reset \
            {gpu}.",
        ),
        false => draft,
    })
}

/// NVIDIA asks for a field diagnostic before a return.
const IF_DIAGNOSTIC_FAILS: &str = "if the diagnostic fails";

/// Past events of one code.
#[derive(Default)]
struct PastXids {
    count: u64,
    last: Option<jiff::Timestamp>,
    places: BTreeSet<String>,
}

/// Returns all past events as one finding.
fn history(node: &Node<'_>) -> Option<Draft> {
    let mut past: BTreeMap<(String, &'static str), PastXids> = BTreeMap::new();
    for event in
        node.timeline.events.iter().filter(|event| matches!(event.fact.kind, Kind::Xid | Kind::Sxid | Kind::OffBus))
    {
        let Some(why) = event.history.filter(|why| *why != OF_ABSENT_DEVICE) else { continue };
        let entry = past.entry((evidence::event_name(event.fact), why)).or_default();
        entry.count += event.fact.count.max(1);
        entry.last = entry.last.max(event.fact.last);
        let pci = event.fact.pci_address.as_ref().map(|pci| pci.sysfs().to_owned());
        entry.places.extend(event.fact.gpu_index.map(|index| format!("GPU {index}")).or(pci));
    }
    let lines: Vec<String> = past
        .into_iter()
        .map(|((name, why), PastXids { count, last, places })| {
            let when = last.map(|last| format!(", last {}", evidence::time(last))).unwrap_or_default();
            let places: Vec<String> = places.into_iter().take(4).collect();
            format!("{name} ({}) {why}{when}, on {}", evidence::times(count), places.join(", "))
        })
        .collect();
    (!lines.is_empty()).then(|| Draft::on_node(PAST).with_all_evidence(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::facts::host::{Host, PciGpu};
    use syringe_core::facts::inventory::{GpuInventory, Inventory};
    use syringe_core::facts::kernel_log::KernelEvent;
    use syringe_core::facts::kernel_log::KernelLog;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::{Report, Section};

    /// Creates an Xid 79 at 5d:00.0.
    fn xid(boot: Option<&str>, uuid: Option<&str>) -> KernelEvent {
        let (boot_id, gpu_uuid) = (boot.map(str::to_owned), uuid.map(str::to_owned));
        let pci_address = PciAddress::parse("5d:00.0");
        KernelEvent { code: Some(79), pci_address, boot_id, gpu_uuid, count: 1, ..KernelEvent::default() }
    }

    /// Returns the UUIDs in the findings about recurring Xids, for a node on which NVML lists no GPU and PCI lists a
    /// GPU at `5d:00.0`.
    fn accused_on_pci(events: Vec<KernelEvent>) -> Vec<Option<String>> {
        let pci_gpus = vec![PciGpu { pci_address: PciAddress::parse("5d:00.0"), ..PciGpu::default() }];
        let mut report = Report::default();
        report.sections.host = Some(Section::read(Host { pci_gpus, ..Host::default() }, Vec::new()));
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let cluster = KubernetesFacts::default();
        recurring(&Node::new(&report, &cluster)).into_iter().map(|draft| draft.scope.uuid).collect()
    }

    #[test]
    fn a_gpu_on_the_bus_and_in_the_log_is_one_gpu() {
        let (a, b) = (Some("a"), Some("b"));
        let known = Some("GPU-1");
        let one = [Some("GPU-1".to_owned())];
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(None, None)]), one, "the earlier boot names the GPU");
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(None, known)]), one, "this boot names the GPU");
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(b, known)]), one);
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(None, None)]), [None]);
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(b, Some("GPU-2"))]), [], "two GPUs with one event each");
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(b, Some("GPU-2")), xid(None, None)]), []);
    }

    /// Returns the number of findings about recurring Xids, for a node with the GPU `GPU-new` at `5d:00.0`. Each
    /// finding must be about this GPU.
    fn accused(events: Vec<KernelEvent>) -> usize {
        let pci_address = PciAddress::parse("5d:00.0");
        let gpu = GpuInventory { uuid: Some("GPU-new".into()), pci_address, ..GpuInventory::default() };
        let mut report = Report::default();
        let inventory = Inventory { gpus: vec![gpu], ..Inventory::default() };
        report.sections.inventory = Some(Section::read(inventory, Vec::new()));
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let cluster = KubernetesFacts::default();
        let drafts = recurring(&Node::new(&report, &cluster));
        assert!(drafts.iter().all(|draft| draft.scope.uuid.as_deref() == Some("GPU-new")));
        drafts.len()
    }

    #[test]
    fn a_slot_that_loses_different_boards_is_told() {
        let told = |events: Vec<KernelEvent>| {
            let pci_address = PciAddress::parse("5d:00.0");
            let gpu = GpuInventory { uuid: Some("GPU-new".into()), pci_address, ..GpuInventory::default() };
            let mut report = Report::default();
            report.sections.inventory =
                Some(Section::read(Inventory { gpus: vec![gpu], ..Inventory::default() }, Vec::new()));
            report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
            slots(&Node::new(&report, &KubernetesFacts::default())).into_iter().map(|draft| draft.severity).next()
        };
        let old = || xid(Some("a"), Some("GPU-old"));
        assert_eq!(told(vec![old(), xid(None, None)]), Some(Severity::Critical));
        assert_eq!(told(vec![old(), xid(Some("b"), Some("GPU-older"))]), Some(Severity::Info), "the third board works");
        assert_eq!(told(vec![old()]), None, "the board was replaced");
        assert_eq!(told(vec![xid(Some("a"), Some("GPU-new")), xid(None, None)]), None, "one board");
    }

    #[test]
    fn a_replacement_gpu_is_not_blamed_for_errors_of_its_predecessor() {
        let now = || xid(None, Some("GPU-new"));
        assert_eq!(accused(vec![now(), xid(Some("a"), Some("GPU-new"))]), 1);
        assert_eq!(accused(vec![now(), xid(Some("a"), None)]), 1, "the log names no other GPU");
        assert_eq!(accused(vec![now(), xid(Some("a"), Some("GPU-old"))]), 0);
        assert_eq!(
            accused(vec![xid(Some("b"), Some("GPU-old")), xid(Some("a"), Some("GPU-old"))]),
            0,
            "the GPU is gone"
        );
        let between = vec![now(), xid(Some("b"), Some("GPU-old")), xid(Some("a"), Some("GPU-new"))];
        assert_eq!(accused(between), 1, "the GPU was removed in between, and had the error before");
        let unclear = vec![now(), xid(Some("b"), None), xid(Some("a"), Some("GPU-old"))];
        assert_eq!(accused(unclear), 0, "the log does not show which GPU had the error");
    }
}
