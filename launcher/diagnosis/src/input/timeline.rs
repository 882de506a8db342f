//! `Timeline`: the kernel events (`Event`) in order of time, each with its cause, and with the reason if it is in the
//! past. `concerns`, `is_xid`, `is_off_bus`, `follows`, `precedes`: compare an event with a GPU, Xid codes or another
//! event.
//!
//! An Xid 79 is followed by dozens of Xid 45, and the failure of a link by errors of all its users. One finding with
//! the cause replaces findings about each error. Events before the last boot or driver load do not describe the
//! current state of the GPU.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use crate::evidence;
use crate::input::boards;
use crate::input::gpu::Gpu;
use crate::input::xids;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue::{self, Ageing};
use syringe_core::kernel_log::event_meaning;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};

/// If a channel is torn down (45) or reset (43) within this time after another Xid of the GPU, that Xid is the cause
/// (Xid catalogue: "follow the other Xid"). 30 s is enough for a driver that tears down hundreds of channels.
const TEARDOWN: SignedDuration = SignedDuration::from_secs(30);

/// After the loss of a GPU, the driver reports timeouts for minutes. If the GPU has recovered, events after this time
/// are new.
pub(crate) const AFTERMATH: SignedDuration = SignedDuration::from_mins(10);

/// NVLink errors within this time after a link-down are consequences (NVLink workflow of NVIDIA).
const LINK_DOWN: SignedDuration = SignedDuration::from_secs(30);

/// The channels of an OOM-killed process are torn down shortly after the kill. A core dump can take a minute.
const KILL: SignedDuration = SignedDuration::from_secs(60);

/// PCIe errors within this time before a GPU fell off the bus are evidence of that fault.
const PRECEDING_WINDOW: SignedDuration = SignedDuration::from_secs(300);

/// Maximum number of errors before a fault that a finding quotes.
const SHOWN_BEFORE: usize = 2;

/// Machine checks of errors that the host could not correct.
const UNCORRECTED_CHECKS: [&str; 3] = ["exception", "firmware_fatal", "memory_uncorrected"];

/// Tolerance for timestamps, because records that were written at the same moment can have timestamps in any order.
const SAME_INSTANT: SignedDuration = SignedDuration::from_secs(2);

/// A kernel event with its cause.
pub(crate) struct Event<'a> {
    pub(crate) fact: &'a KernelEvent,
    /// The reason why the event is in the past: it was before the last boot, driver load or GPU reset.
    pub(crate) history: Option<&'static str>,
    /// Whether a boot, a driver load or a GPU reset followed the event. None of these ends a lasting state of the
    /// board.
    pub(crate) repaired: bool,
    /// Index of the cause in the timeline.
    pub(crate) cause: Option<usize>,
}

/// All events, oldest first. The order does not depend on the order in the report.
#[derive(Default)]
pub(crate) struct Timeline<'a> {
    pub(crate) events: Vec<Event<'a>>,
}

impl<'a> Timeline<'a> {
    /// Builds the timeline of a report. `working`: the GPUs that NVML can read. `absent`: addresses at which the node
    /// has no device.
    pub(crate) fn new(report: &'a Report, working: &[Gpu], absent: &BTreeSet<PciAddress>) -> Self {
        let log = Section::data_of(&report.sections.xid);
        let mut facts: Vec<&KernelEvent> = log.map(|log| log.events.iter().collect()).unwrap_or_default();
        facts.sort_by(|left, right| order(left).cmp(&order(right)));
        let running = report.running_boot();
        let inventory = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.as_slice());
        let shares_memory =
            inventory.unwrap_or_default().iter().any(|gpu| gpu.name.as_deref().is_some_and(boards::shares_memory));
        let uuids: Vec<&String> = inventory.unwrap_or_default().iter().filter_map(|gpu| gpu.uuid.as_ref()).collect();
        let history: Vec<Option<&'static str>> = facts.iter().map(|fact| past(fact, &facts, running, &uuids)).collect();
        // A driver load does not bring a GPU back to the bus.
        let gone = |fact: &KernelEvent, why: &str| {
            let by_load = why == BEFORE_LOAD && is_off_bus(fact) && !is_of_probe(fact);
            by_load && !working.iter().any(|gpu| concerns(fact, gpu))
        };
        let is_absent = |fact: &KernelEvent| fact.pci_address.as_ref().is_some_and(|address| absent.contains(address));
        let why = |fact: &KernelEvent, why: Option<&'static str>| match is_absent(fact) && is_of(fact, running) {
            true => Some(OF_ABSENT_DEVICE),
            false => why.filter(|why| !gone(fact, why)),
        };
        let history: Vec<Option<&'static str>> =
            facts.iter().zip(history).map(|(fact, past)| why(fact, past)).collect();
        // If a GPU was lost in an earlier boot, it was lost until the end of that boot.
        let recovered = |fall: &KernelEvent| {
            is_off_bus(fall) && is_of(fall, running) && working.iter().any(|gpu| concerns(fall, gpu))
        };
        let recovered: Vec<bool> = facts.iter().map(|fact| recovered(fact)).collect();
        let events = facts.iter().enumerate().map(|(at, fact)| {
            let causes = facts.iter().enumerate().filter(|(other, cause)| {
                let same_time = history[*other].is_some() == history[at].is_some();
                let is_cause = explains(cause, fact, recovered[*other]) || shares_memory && takes_page(cause, fact);
                *other != at && same_time && is_cause
            });
            let cause = causes.map(|(other, _)| other).min_by_key(|&other| {
                let is_elsewhere = facts[other].pci_address.is_some() && !same_gpu(facts[other], fact);
                (is_elsewhere, rank(facts[other]))
            });
            let repaired = repair(fact, &facts, running).is_some();
            Event { fact, history: history[at], repaired, cause }
        });
        Self { events: events.collect() }
    }

    /// Returns the current events without a cause, with their indices.
    pub(crate) fn unexplained(&self) -> impl Iterator<Item = (usize, &'a KernelEvent)> {
        let open = self.events.iter().enumerate().filter(|(_, event)| event.history.is_none() && event.cause.is_none());
        open.map(|(at, event)| (at, event.fact))
    }

    /// Returns all current events.
    pub(crate) fn current(&self) -> impl Iterator<Item = &'a KernelEvent> {
        self.events.iter().filter(|event| event.history.is_none()).map(|event| event.fact)
    }

    /// Returns the current events of one kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &'a KernelEvent> {
        self.current().filter(move |event| event.kind == kind)
    }

    /// Returns whether a PCIe error or a lost link belongs to a GPU that fell off the bus shortly after.
    pub(crate) fn precedes_bus_loss(&self, event: &KernelEvent) -> bool {
        self.current().any(|fall| is_off_bus(fall) && precedes(event, fall))
    }

    /// Returns the errors shortly before a fault of a GPU that may have caused it:
    /// `shortly before: IOMMU fault DMA Write`.
    pub(crate) fn shortly_before<'b>(
        &'b self,
        faults: &'b [(usize, &'b KernelEvent)],
    ) -> impl Iterator<Item = String> + 'b {
        let is_near = |event: &&KernelEvent| faults.iter().any(|(_, fault)| may_cause(event, fault));
        self.current().filter(is_near).take(SHOWN_BEFORE).map(|event| {
            let place = event.pci_address.as_ref().map(|pci| format!(" on {}", pci.sysfs())).unwrap_or_default();
            format!("shortly before: {}{place}", evidence::event(event))
        })
    }

    /// Returns the current Xids of one GPU with one of these codes.
    pub(crate) fn xids<'b>(&'b self, gpu: &'b Gpu, codes: &'b [u32]) -> impl Iterator<Item = &'a KernelEvent> + 'b {
        self.of_kind(Kind::Xid)
            .filter(|event| event.code.is_some_and(|code| codes.contains(&code)) && concerns(event, gpu))
    }

    /// Formats consequences: `follow-on errors: Xid 119 (2), Xid 45 (9)`.
    pub(crate) fn consequences(&self, causes: &[usize]) -> Option<String> {
        let mut counts: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for event in &self.events {
            // The line without a code about a GPU that fell off the bus repeats the Xid 79 of that GPU.
            if event.cause.is_some_and(|cause| causes.contains(&cause)) && event.fact.kind != Kind::OffBus {
                let name = match &event.fact.sub_code {
                    Some(line) if event.fact.kind == Kind::Host => evidence::data(line),
                    _ => evidence::event_name(event.fact),
                };
                *counts.entry(name).or_default() += event.fact.count.max(1);
            }
        }
        let words: Vec<String> = counts.into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
        (!words.is_empty()).then(|| format!("follow-on errors: {}", words.join(", ")))
    }
}

/// Returns whether an event is about this GPU, not about another GPU that was at the same address.
pub(crate) fn concerns(event: &KernelEvent, gpu: &Gpu) -> bool {
    if is_of_another(event, gpu) {
        return false;
    }
    match (&event.pci_address, &gpu.pci) {
        (Some(address), Some(pci)) => address == pci,
        _ => event.gpu_index.is_some() && event.gpu_index == gpu.index,
    }
}

/// Returns whether the UUID in the event is that of another GPU.
pub(crate) fn is_of_another(event: &KernelEvent, gpu: &Gpu) -> bool {
    event.gpu_uuid.as_ref().zip(gpu.uuid.as_ref()).is_some_and(|(logged, known)| logged != known)
}

/// Returns whether an event is an Xid with one of these codes.
pub(crate) fn is_xid(event: &KernelEvent, codes: &[u32]) -> bool {
    event.is_xid(codes)
}

/// Returns whether the GPU fell off the bus: Xid 79, or the line without a code (old drivers, and driver
/// initialization).
pub(crate) fn is_off_bus(event: &KernelEvent) -> bool {
    event.is_off_bus()
}

/// Returns whether a link went down: NETIR link events of NVLink 5, or training failures.
fn is_link_down(event: &KernelEvent) -> bool {
    let sub = event.sub_code.as_deref().unwrap_or_default();
    is_xid(event, &[149]) && sub.starts_with("NETIR_LINK_EVT")
}

/// Returns the sort key for the order of time. Recovery actions of one GPU (Xid 154) with the same time keep the order
/// of the log, because the last action counts.
fn order(event: &KernelEvent) -> impl Ord + '_ {
    let KernelEvent { kind, code, pci_address, sub_code, pid, process, boot_id, first, count, raw, .. } = event;
    let last = event.ordered_at();
    let uptime = event.last_uptime_seconds.filter(|_| last.is_none()).map_or(0, f64::to_bits);
    let rest = (!is_xid(event, &[154])).then_some((pid, sub_code, process, boot_id, count, raw));
    (last, uptime, rest.and(first.as_ref()), kind, code, pci_address, rest)
}

/// Returns the sort key for choosing between several causes: the loss of the GPU first, then the earliest event.
fn rank(cause: &KernelEvent) -> impl Ord + '_ {
    let order = match cause {
        cause if is_xid(cause, &[79]) => 0,
        cause if is_off_bus(cause) => 1,
        cause if cause.kind == Kind::OomKill => 2,
        cause if is_link_down(cause) => 3,
        _ => 4,
    };
    (order, cause.first, cause.code, cause.sub_code.as_deref(), cause.pid)
}

/// Reason for an event of a device that is not on the node. The event does not describe the state of the node.
pub(crate) const OF_ABSENT_DEVICE: &str = "of a device that is not on the node";

const BEFORE_LOAD: &str = "before the driver was last loaded";

/// Pairs of Xids. The first Xid ends the state that the second Xid reported.
const ENDS: [(u32, u32); 1] = [(162, 163)];

/// Returns whether an SXid reports the end of what another SXid of the same switch reported. The names of the codes
/// show this.
fn ends_sxid(end: &KernelEvent, event: &KernelEvent) -> bool {
    let name = |event: &KernelEvent| {
        let code = event.code.filter(|_| event.kind == Kind::Sxid)?;
        Some(catalogue::sxid(code)?.mnemonic)
    };
    let begun = name(event).and_then(|name| name.strip_suffix("_START"));
    begun.is_some()
        && name(end).and_then(|name| name.strip_suffix("_END")) == begun
        && end.pci_address == event.pci_address
}

fn past(event: &KernelEvent, all: &[&KernelEvent], running: Option<&str>, uuids: &[&String]) -> Option<&'static str> {
    // A reboot does not end a lasting state of the board.
    if event_meaning::of(event).is_some_and(|meaning| meaning.ageing == Ageing::Permanent) && is_here(event, all, uuids)
    {
        return None;
    }
    repair(event, all, running)
}

/// Returns why an event is in the past, for events that do not report a lasting state of the board.
fn repair(event: &KernelEvent, all: &[&KernelEvent], running: Option<&str>) -> Option<&'static str> {
    if !is_of(event, running) {
        return Some("before the last boot");
    }
    // The driver does not repair host memory, processors or PCIe ports.
    let of_host = matches!(event.kind, Kind::Nic | Kind::Host | Kind::Mce);
    if of_host || ends_by_boot_only(event) {
        return None;
    }
    let last = event.ordered_at()?;
    let same_boot = || all.iter().filter(|other| is_of(other, running));
    // Driver loads of the same version are one event with the times of the first and the last load.
    let loads = same_boot().filter(|other| other.kind == Kind::DriverLoaded).flat_map(|load| load.occurred_at());
    // The driver logs its load after it has probed its devices, so the event belongs to the next load.
    let own = usize::from(is_of_probe(event));
    if loads.filter(|load| *load > last).count() > own {
        return Some(BEFORE_LOAD);
    }
    let resets = same_boot().filter(|other| other.is_reset() && same_gpu(other, event));
    let reset = resets.filter_map(|other| other.ordered_at()).max();
    if reset.is_some_and(|reset| last < reset) {
        return Some("before the GPU was last reset");
    }
    let end = |other: &&&KernelEvent| {
        ENDS.iter().any(|(end, begin)| is_xid(other, &[*end]) && is_xid(event, &[*begin])) || ends_sxid(other, event)
    };
    let ended = same_boot().filter(end).filter(|other| same_gpu(other, event)).filter_map(|other| other.ordered_at());
    ended.max().is_some_and(|end| last <= end).then_some("before its end was logged")
}

/// Returns whether only a boot of the node ends a fault. This applies to SXids that are always fatal: no driver load
/// and no GPU reset repairs the switch.
pub(crate) fn ends_by_boot_only(event: &KernelEvent) -> bool {
    event.kind == Kind::Sxid
        && event_meaning::of(event).is_some_and(|meaning| {
            meaning.severity >= Severity::Critical && meaning.action == ActionCode::DrainAndReboot
        })
}

/// Returns whether an event belongs to the running boot.
fn is_of(event: &KernelEvent, running: Option<&str>) -> bool {
    event.boot_id.is_none() || event.boot_id.as_deref() == running
}

/// Returns whether the board of an event is still in the node. An event without a UUID belongs to the same board as the
/// other lines with its address.
fn is_here(event: &KernelEvent, all: &[&KernelEvent], uuids: &[&String]) -> bool {
    let of_place = all.iter().filter(|other| other.pci_address == event.pci_address);
    let mut named = event.gpu_uuid.iter().chain(of_place.filter_map(|other| other.gpu_uuid.as_ref()));
    match &event.gpu_uuid {
        _ if uuids.is_empty() => true,
        Some(uuid) => uuids.contains(&uuid),
        None => named.all(|uuid| uuids.contains(&uuid)),
    }
}

/// Returns whether the driver logs this event during its load, before the line about the load.
fn is_of_probe(event: &KernelEvent) -> bool {
    let of_probe = event.kind == Kind::OffBus && event.sub_code.as_deref() == Some("probe");
    of_probe || matches!(event.kind, Kind::ProbeFailed | Kind::BarUnassigned | Kind::NotSupported)
}

pub(crate) fn same_gpu(left: &KernelEvent, right: &KernelEvent) -> bool {
    fn place(event: &KernelEvent) -> Option<&PciAddress> {
        event.pci_address.as_ref()
    }
    match (place(left), place(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left.gpu_index.is_some() && left.gpu_index == right.gpu_index,
    }
}

/// Returns whether `effect` is within `window` after `cause`. Events without times are assumed to belong together.
pub(crate) fn follows(cause: &KernelEvent, effect: &KernelEvent, window: Option<SignedDuration>) -> bool {
    let (Some(begun), Some(ended)) = (cause.first.or(cause.last), cause.last) else { return true };
    let (Some(first), Some(last)) = (effect.first.or(effect.last), effect.last) else { return true };
    let begins_after = first.duration_since(begun) >= -SAME_INSTANT;
    begins_after && window.is_none_or(|window| last.duration_since(ended) <= window)
}

/// Returns whether a PCIe error or a lost link occurred shortly before a GPU fell off the bus (`fall`).
pub(crate) fn precedes(event: &KernelEvent, fall: &KernelEvent) -> bool {
    let kind = matches!(event.kind, Kind::Aer | Kind::PcieLink)
        && event.sub_code.as_deref().is_none_or(|sub| sub != "bandwidth_limited");
    kind && event.last.is_some() && follows(event, fall, Some(PRECEDING_WINDOW))
}

/// Returns whether an error may have caused a fault of a GPU that follows: a PCIe error before the loss of the GPU, a
/// machine check, or a blocked transfer or another severe Xid of the same GPU.
fn may_cause(event: &KernelEvent, fault: &KernelEvent) -> bool {
    let is_of_gpu = || is_other_fault(event, fault) || event.kind == Kind::Iommu;
    let is_check = || {
        let sub_code = event.sub_code.as_deref().unwrap_or_default();
        event.kind == Kind::Mce && UNCORRECTED_CHECKS.iter().any(|name| sub_code.starts_with(name))
    };
    is_off_bus(fault) && precedes(event, fault)
        || (is_check() || same_gpu(event, fault) && is_of_gpu())
            && begins_before(event, fault)
            && follows(event, fault, Some(PRECEDING_WINDOW))
}

/// Returns whether an event is an Xid about a severe fault that no application causes, with another code than the
/// fault.
fn is_other_fault(event: &KernelEvent, fault: &KernelEvent) -> bool {
    let code = event.code.filter(|code| event.kind == Kind::Xid && !xids::TEARDOWN.contains(code) && *code != 154);
    let entry = code.and_then(catalogue::xid);
    let is_severe = entry.is_some_and(|entry| {
        entry.severity >= Severity::Critical && entry.class.is_some_and(|class| class != Class::Application)
    });
    is_severe && !is_off_bus(event) && event.code != fault.code
}

/// Returns whether an event certainly began before another event.
fn begins_before(event: &KernelEvent, other: &KernelEvent) -> bool {
    let begun = |event: &KernelEvent| event.first.or(event.last);
    begun(event).zip(begun(other)).is_some_and(|(event, other)| event < other)
}

/// The kernel takes a page out of use within this time after the error of the memory.
const ONE_ERROR: SignedDuration = SignedDuration::from_secs(5);

/// Returns whether `effect` is a page of GPU memory that the kernel took out of use because of an error of a GPU.
fn takes_page(cause: &KernelEvent, effect: &KernelEvent) -> bool {
    let is_page =
        effect.kind == Kind::Host && effect.sub_code.as_deref().is_some_and(|name| name.starts_with("memory_"));
    is_page && is_xid(cause, &xids::UNCORRECTED_MEMORY) && follows(cause, effect, Some(ONE_ERROR))
}

/// Returns whether `cause` explains `effect`. `recovered`: whether the GPU that fell off the bus works again.
fn explains(cause: &KernelEvent, effect: &KernelEvent, recovered: bool) -> bool {
    if cause.boot_id != effect.boot_id {
        return false;
    }
    let code = effect.code.filter(|_| effect.kind == Kind::Xid);
    let teardown = code.is_some_and(|code| xids::TEARDOWN.contains(&code));
    let same_process = cause.pid.is_some() && cause.pid == effect.pid;
    match cause.kind {
        // Until the GPU has recovered, all later driver lines about it are consequences.
        _ if is_off_bus(cause) && same_gpu(cause, effect) => {
            // PCIe errors occur before the loss of the GPU. The evidence quotes them as errors before the loss.
            let of_bus = matches!(effect.kind, Kind::Aer | Kind::PcieLink);
            let weaker = !is_off_bus(effect) || (is_xid(cause, &[79]) && !is_xid(effect, &[79]));
            let is_earlier = is_other_fault(effect, cause) && begins_before(effect, cause);
            !of_bus && weaker && !is_earlier && follows(cause, effect, recovered.then_some(AFTERMATH))
        }
        // The channels of a killed or crashed process are torn down.
        Kind::OomKill | Kind::Segfault | Kind::Host => teardown && same_process && follows(cause, effect, Some(KILL)),
        // A program whose transfers the IOMMU blocks gets the same errors as from an invalid address of its own.
        Kind::Iommu if same_gpu(cause, effect) => {
            xids::class(effect) == Some(Class::Application) && follows(cause, effect, Some(TEARDOWN))
        }
        Kind::Xid if is_link_down(cause) && same_gpu(cause, effect) => {
            let follow_up =
                !is_link_down(effect) && matches!(code, Some(74 | 108 | 136 | 137 | 144..=150 | 155 | 43 | 45));
            follow_up && follows(cause, effect, Some(LINK_DOWN))
        }
        Kind::Xid if teardown && same_gpu(cause, effect) => {
            let named = effect.details.get("caused_by").and_then(|text| text.parse::<u32>().ok());
            let primary = cause.code.is_some_and(|code| !xids::TEARDOWN.contains(&code) && code != 154);
            primary && (named == cause.code || follows(cause, effect, Some(TEARDOWN)))
        }
        // A fault ends a program on all its GPUs.
        Kind::Xid | Kind::Sxid | Kind::OffBus if teardown => {
            let is_severe = event_meaning::of(cause).is_some_and(|meaning| meaning.severity >= Severity::Critical);
            (is_severe || is_off_bus(cause)) && follows(cause, effect, Some(TEARDOWN))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use syringe_core::facts::kernel_log::KernelLog;

    const START: i64 = 1_795_229_000;

    fn xid(code: u32, second: i64) -> KernelEvent {
        let time = Timestamp::from_second(START + second).ok();
        KernelEvent {
            code: Some(code),
            pci_address: PciAddress::parse("5d:00.0"),
            count: 1,
            first: time,
            last: time,
            ..KernelEvent::default()
        }
    }

    fn report(events: Vec<KernelEvent>) -> Report {
        let mut report = Report { boot_id: Some("now".into()), ..Report::default() };
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        report
    }

    fn open(report: &Report) -> Vec<u32> {
        open_with(report, &[])
    }

    /// Returns the codes of the events without a cause, if these GPUs work now.
    fn open_with(report: &Report, working: &[Gpu]) -> Vec<u32> {
        Timeline::new(report, working, &BTreeSet::new()).unexplained().filter_map(|(_, event)| event.code).collect()
    }

    #[test]
    fn all_events_after_the_loss_of_a_gpu_are_consequences() {
        assert_eq!(open(&report(vec![xid(45, 9000), xid(79, 0), xid(119, 3), xid(31, 600)])), [79]);
        let before = report(vec![xid(31, -600), xid(79, 0)]);
        assert_eq!(open(&before), [31, 79], "an earlier event is no consequence");
        let elsewhere = |code| KernelEvent { pci_address: PciAddress::parse("9a:00.0"), ..xid(code, 3) };
        assert_eq!(
            open(&report(vec![xid(79, 0), elsewhere(31)])),
            [79, 31],
            "a fault of another GPU is no consequence"
        );
        assert_eq!(open(&report(vec![xid(79, 0), elsewhere(45)])), [79], "the end of its program on other GPUs is one");
        assert_eq!(
            open(&report(vec![xid(13, 0), elsewhere(45)])),
            [13, 45],
            "a fault of a program is no cause for others"
        );
    }

    #[test]
    fn events_long_after_a_gpu_recovered_are_new() {
        let at = |address| Gpu { pci: PciAddress::parse(address), ..Gpu::default() };
        let report = report(vec![xid(79, 0), xid(119, 300), xid(95, 500_000)]);
        assert_eq!(open_with(&report, &[at("5d:00.0")]), [79, 95]);
        assert_eq!(open_with(&report, &[at("9a:00.0")]), [79], "another GPU works");
    }

    #[test]
    fn a_teardown_belongs_to_the_error_of_the_half_minute_before() {
        assert_eq!(open(&report(vec![xid(94, 0), xid(45, 29)])), [94]);
        assert_eq!(open(&report(vec![xid(94, 0), xid(45, 31)])), [94, 45]);
        let mut named = xid(45, 3600);
        named.details.insert("caused_by".into(), "94".into());
        assert_eq!(open(&report(vec![xid(94, 0), named])), [94], "the line itself names its cause");
        assert_eq!(open(&report(vec![xid(43, 0), xid(45, 1)])), [43, 45], "a teardown causes no teardown");
    }

    #[test]
    fn a_killed_process_explains_its_own_channels_only() {
        let kill = KernelEvent { kind: Kind::OomKill, code: None, pci_address: None, pid: Some(7), ..xid(0, 0) };
        let of = |pid| KernelEvent { pid: Some(pid), ..xid(43, 2) };
        assert_eq!(open(&report(vec![kill.clone(), of(7)])), [0; 0]);
        assert_eq!(open(&report(vec![kill, of(8)])), [43]);
    }

    #[test]
    fn blocked_transfers_explain_errors_of_programs_on_their_gpu() {
        let blocked = KernelEvent { kind: Kind::Iommu, code: None, ..xid(0, 0) };
        let elsewhere = KernelEvent { pci_address: PciAddress::parse("9b:00.0"), ..xid(31, 2) };
        let errors = vec![blocked.clone(), xid(31, 2), xid(43, 3), elsewhere, xid(119, 4), xid(31, 300)];
        assert_eq!(open(&report(errors)), [31, 119, 31]);
    }

    #[test]
    fn the_end_of_a_thermal_event_of_a_switch_makes_it_history() {
        let of = |code, second, switch: &str| KernelEvent {
            kind: Kind::Sxid,
            pci_address: PciAddress::parse(switch),
            ..xid(code, second)
        };
        assert_eq!(open(&report(vec![of(10004, 0, "07:00.0"), of(10005, 300, "07:00.0")])), [10005]);
        assert_eq!(open(&report(vec![of(10004, 0, "07:00.0"), of(10005, 300, "08:00.0")])), [10004, 10005]);
        assert_eq!(open(&report(vec![of(10005, 0, "07:00.0"), of(10004, 300, "07:00.0")])), [10005, 10004]);
    }

    #[test]
    fn driver_lines_during_the_probe_belong_to_the_next_load() {
        let of = |kind, sub: Option<&str>, second| KernelEvent {
            kind,
            code: None,
            sub_code: sub.map(str::to_owned),
            ..xid(0, second)
        };
        let present = |events: Vec<KernelEvent>| {
            Timeline::new(&report(events), &[], &BTreeSet::new())
                .events
                .iter()
                .map(|event| event.history.is_none())
                .collect::<Vec<_>>()
        };
        let loaded = |second| of(Kind::DriverLoaded, None, second);
        let failed = || of(Kind::ProbeFailed, Some("failed"), 9);
        assert_eq!(present(vec![failed(), of(Kind::OffBus, Some("probe"), 9), loaded(10)]), [true; 3]);
        assert_eq!(present(vec![failed(), loaded(10), loaded(60)]), [false, false, true]);
        let twice = KernelEvent { count: 2, first: loaded(10).first, ..loaded(60) };
        assert_eq!(present(vec![failed(), twice]), [false, true], "loads of one version are one event");
        let lost = report(vec![of(Kind::OffBus, None, 9), loaded(10)]);
        let history = |working: &[Gpu]| Timeline::new(&lost, working, &BTreeSet::new()).events[0].history.is_some();
        assert!(!history(&[]), "a driver load does not bring a GPU back");
        assert!(history(&[Gpu { pci: PciAddress::parse("5d:00.0"), ..Gpu::default() }]), "it works again");
    }

    #[test]
    fn history_ends_with_the_boot_the_driver_load_and_the_reset() {
        let earlier = KernelEvent { boot_id: Some("before".into()), ..xid(79, -90_000) };
        let same = KernelEvent { boot_id: Some("now".into()), ..xid(31, 5) };
        assert_eq!(open(&report(vec![earlier, same])), [31]);
        let loaded = KernelEvent { kind: Kind::DriverLoaded, code: None, pci_address: None, ..xid(0, 10) };
        assert_eq!(open(&report(vec![xid(95, 9), loaded, xid(48, 11)])), [48]);
        let mut reset = xid(154, 10);
        reset.details.insert("recovery_to".into(), "0".into());
        for (from, open_codes) in [("1", vec![154]), ("4", vec![154]), ("3", vec![95, 154]), ("5", vec![95, 154])] {
            reset.details.insert("recovery_from".into(), from.into());
            assert_eq!(open(&report(vec![xid(95, 9), reset.clone()])), open_codes, "from {from}");
        }
        reset.details.insert("recovery_from".into(), "1".into());
        let elsewhere = KernelEvent { pci_address: PciAddress::parse("9a:00.0"), ..xid(95, 9) };
        assert_eq!(open(&report(vec![elsewhere, reset])), [95, 154], "a reset of another GPU does not count");
    }
}
