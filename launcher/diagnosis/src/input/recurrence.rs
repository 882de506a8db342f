//! `recurrences`: the occurrences of each family of faults (`Recurrence`) on a GPU or NVSwitch, across resets, driver
//! loads and boots. `most_within`, `most_in_a_day`: the highest number of occurrences within a time.
//!
//! A reset, a driver load and a reboot are repairs: each of them ends a fault. If the fault occurs again, the repair
//! did not help. The occurrences of all boots in the log count, even if the events do not describe the current state.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::input::node::{Gpu, Node};
use crate::input::timeline::{OF_ABSENT_DEVICE, same_gpu};
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue::{self, Ageing, FaultFamily, Rate};
use syringe_core::kernel_log::event_meaning;

/// Lines within this time are one incident, because the driver logs the fault of a hanging GPU again whenever a program
/// uses the GPU.
const INCIDENT: SignedDuration = SignedDuration::from_hours(1);

/// Returns the highest number of incidents within a period of length `time`.
pub(crate) fn most_within(incidents: &[Timestamp], time: SignedDuration) -> usize {
    let since = |first: &Timestamp| {
        incidents.iter().filter(|other| *other >= first && other.duration_since(*first) <= time).count()
    };
    incidents.iter().map(since).max().unwrap_or(0)
}

/// Returns the highest number of incidents within a day.
pub(crate) fn most_in_a_day(incidents: &[Timestamp]) -> usize {
    most_within(incidents, SignedDuration::from_hours(24))
}

/// Weight of a fault when its occurrences are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// A critical fault, or a lasting state of the board. The codes of one family are counted together.
    Grave,
    /// A warning. Each code is counted separately.
    Notable,
}

/// A period between two repairs: the boot (`None`: the running boot), and the number of earlier repairs in this boot.
pub(crate) type Period<'a> = (Option<&'a str>, usize);

/// The occurrences of one family of faults on one GPU or NVSwitch.
pub(crate) struct Recurrence<'a> {
    pub(crate) weight: Weight,
    pub(crate) gpu: Gpu,
    /// The newest event.
    pub(crate) event: &'a KernelEvent,
    pub(crate) family: &'static FaultFamily,
    /// Names of the events: `Xid 95`.
    pub(crate) names: BTreeSet<String>,
    /// Number of boots in which the fault occurred.
    pub(crate) boots: usize,
    /// The periods between two repairs in which the fault occurred, each with the first time of the fault. If there are
    /// several periods, the fault came back after a repair.
    pub(crate) periods: BTreeMap<Period<'a>, Option<Timestamp>>,
    /// All known times of the log lines.
    pub(crate) times: Vec<Timestamp>,
    /// Known times of the incidents, oldest first.
    pub(crate) incidents: Vec<Timestamp>,
    /// The incidents since the last repair.
    pub(crate) since_cure: Vec<Timestamp>,
}

impl Recurrence<'_> {
    /// Returns whether the fault came back at one of the rates of its family.
    pub(crate) fn is_pattern(&self) -> bool {
        let returns = self.returns();
        let reaches = |rate: &Rate| most_within(&returns, SignedDuration::from_hours(24 * rate.days)) >= rate.incidents;
        self.family.rates.iter().any(reaches)
    }

    /// Returns the first incident of each period. Later incidents of the same period may be the same lasting fault.
    pub(crate) fn returns(&self) -> Vec<Timestamp> {
        self.periods.values().flatten().copied().collect()
    }

    /// Returns the time of the newest incident.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.incidents.last().copied()
    }
}

/// Returns the weight of an event. Application errors and recommendations of the driver are not counted, because they
/// follow from other faults.
fn weight(event: &KernelEvent) -> Option<Weight> {
    let class = event.code.and_then(catalogue::xid).and_then(|entry| entry.class);
    match event.kind {
        // A failed attempt to load the driver reports an earlier loss of the GPU again.
        Kind::OffBus => return (event.sub_code.as_deref() != Some("probe")).then_some(Weight::Grave),
        Kind::Sxid => {}
        Kind::Xid if event.code != Some(154) && class != Some(Class::Application) => {}
        _ => return None,
    }
    let meaning = event_meaning::of(event)?;
    if meaning.severity >= Severity::Critical || meaning.ageing >= Ageing::Never {
        Some(Weight::Grave)
    } else {
        // If the catalogue rates a code as a warning only when the code repeats, a single event with this code is also
        // counted.
        let repeated = || event_meaning::of(&KernelEvent { count: 2, ..event.clone() }).map(|meaning| meaning.severity);
        let is_notable = meaning.severity == Severity::Warning || repeated() == Some(Severity::Warning);
        is_notable.then_some(Weight::Notable)
    }
}

/// The occurrences of a family that were found until now.
struct Found<'a> {
    weight: Weight,
    gpu: Gpu,
    family: &'static FaultFamily,
    events: Vec<&'a KernelEvent>,
}

impl Found<'_> {
    fn fits(&self, weight: Weight, gpu: &Gpu, family: &FaultFamily, event: &KernelEvent) -> bool {
        let same_fault = match weight {
            Weight::Grave => self.family == family,
            Weight::Notable => self.events.iter().any(|known| known.code == event.code),
        };
        self.weight == weight && self.gpu == *gpu && same_fault
    }
}

/// Returns the occurrences of faults for each GPU or NVSwitch and family.
pub(crate) fn recurrences<'a>(node: &Node<'a>) -> Vec<Recurrence<'a>> {
    let mut found: Vec<Found<'a>> = Vec::new();
    for event in node
        .timeline
        .events
        .iter()
        .filter(|event| event.cause.is_none() && event.history != Some(OF_ABSENT_DEVICE))
        .map(|event| event.fact)
    {
        let Some((weight, family)) = weight(event).zip(catalogue::family_of(event)) else { continue };
        let Some(gpu) = owner(node, event) else { continue };
        match found.iter_mut().find(|known| known.fits(weight, &gpu, family, event)) {
            Some(known) => known.events.push(event),
            None => found.push(Found { weight, gpu, family, events: vec![event] }),
        }
    }
    found.into_iter().filter_map(|found| of_family(node, found)).collect()
}

fn of_family<'a>(node: &Node<'a>, found: Found<'a>) -> Option<Recurrence<'a>> {
    let event = *found.events.iter().max_by_key(|event| (event.boot_id.is_none(), event.ordered_at()))?;
    let mut repairs: BTreeMap<Option<&'a str>, Vec<Timestamp>> = BTreeMap::new();
    let mut periods: BTreeMap<Period<'a>, Option<Timestamp>> = BTreeMap::new();
    let mut times: Vec<Timestamp> = Vec::new();
    let mut current: Vec<Timestamp> = Vec::new();
    for event in &found.events {
        let boot = boot_of(node, event);
        let repairs = repairs.entry(boot).or_insert_with(|| repairs_of(node, boot, event));
        let occurred = event.occurred_at();
        if occurred.is_empty() {
            periods.entry((boot, 0)).or_default();
        }
        let period = |time: &Timestamp| repairs.iter().filter(|repair| *repair <= time).count();
        for time in &occurred {
            let first = periods.entry((boot, period(time))).or_default();
            *first = Some(first.map_or(*time, |first| first.min(*time)));
        }
        if boot.is_none() {
            current.extend(occurred.iter().filter(|time| period(time) == repairs.len()));
        }
        times.extend(occurred);
    }
    let boots: BTreeSet<Option<&str>> = periods.keys().map(|(boot, _)| *boot).collect();
    Some(Recurrence {
        weight: found.weight,
        gpu: found.gpu,
        event,
        family: found.family,
        names: found.events.iter().map(|event| crate::evidence::event_name(event)).collect(),
        boots: boots.len(),
        periods,
        incidents: incidents(times.clone()),
        times,
        since_cure: incidents(current),
    })
}

/// Returns the first time of each incident, oldest first.
fn incidents(mut times: Vec<Timestamp>) -> Vec<Timestamp> {
    times.sort_unstable();
    let mut before: Option<Timestamp> = None;
    times.retain(|time| {
        let is_new = before.is_none_or(|before| time.duration_since(before) >= INCIDENT);
        if is_new {
            before = Some(*time);
        }
        is_new
    });
    times
}

/// Returns the boot of an event; `None` for the running boot.
fn boot_of<'a>(node: &Node<'_>, event: &'a KernelEvent) -> Option<&'a str> {
    event.boot_id.as_deref().filter(|boot| Some(*boot) != node.report.running_boot())
}

/// Returns the times of the driver loads of a boot, and of the resets of the GPU of an event.
fn repairs_of(node: &Node<'_>, boot: Option<&str>, event: &KernelEvent) -> Vec<Timestamp> {
    let of_boot = node.timeline.events.iter().map(|other| other.fact).filter(|other| boot_of(node, other) == boot);
    let repairs =
        of_boot.filter(|other| other.kind == Kind::DriverLoaded || other.is_reset() && same_gpu(other, event));
    repairs.flat_map(KernelEvent::occurred_at).collect()
}

/// Returns the GPU or NVSwitch of an event. GPUs that were removed from the node are ignored. If the log names several
/// GPUs at an address, an event without a UUID belongs to no GPU.
fn owner(node: &Node<'_>, event: &KernelEvent) -> Option<Gpu> {
    let pci = event.pci_address.as_ref()?;
    if event.kind == Kind::Sxid {
        return Some(Gpu { pci: Some(pci.clone()), ..Gpu::default() });
    }
    let of_place = || node.gpus.iter().find(|gpu| gpu.pci.as_ref() == Some(pci));
    // The GPU at the address gets the UUID from the log: events with and without the UUID are about the same GPU.
    let named = |uuid: Option<&String>| {
        let place = of_place().cloned().unwrap_or_else(|| Gpu { pci: Some(pci.clone()), ..Gpu::default() });
        Gpu { uuid: uuid.cloned(), ..place }
    };
    if let Some(uuid) = &event.gpu_uuid {
        let there = node.gpus.iter().find(|gpu| gpu.uuid.as_ref() == Some(uuid));
        let nobody_knows_another = of_place().is_none_or(|gpu| gpu.uuid.is_none());
        return there.cloned().or_else(|| nobody_knows_another.then(|| named(Some(uuid))));
    }
    let at_place = node.timeline.events.iter().filter(|other| other.fact.pci_address.as_ref() == Some(pci));
    let mut uuids: BTreeSet<&String> = at_place.filter_map(|other| other.fact.gpu_uuid.as_ref()).collect();
    uuids.extend(of_place().and_then(|gpu| gpu.uuid.as_ref()));
    (uuids.len() <= 1).then(|| named(uuids.first().copied()))
}
