//! `Event`: a kernel event of one of several pods or nodes. `first_faults`: the first fault of each chain of events.
//! `echoes`, `in_words`: the later events on other pods or nodes that can follow from a fault, and a text about them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::{catalogue, event_meaning};

use crate::evidence;

/// Events and failures within this time after a first fault can follow from it.
pub(crate) const FOLLOWS: SignedDuration = SignedDuration::from_mins(10);
/// Maximum difference between the clocks of two nodes.
pub(crate) const CLOCKS: SignedDuration = SignedDuration::from_secs(5);
/// Xids that a fault of another GPU, link or process causes: application errors, removed channels, and errors that the
/// peers of a link report.
const ECHOES: [u32; 8] = [13, 31, 43, 45, 109, 137, 144, 145];
/// An Xid that both ends of a link report.
const OF_BOTH_ENDS: u32 = 74;

/// A kernel event about a GPU, a switch or the driver.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    /// Number of the Xid.
    pub(crate) code: Option<u32>,
    pub(crate) severity: Severity,
    pub(crate) place: String,
    /// The name of the event: `Xid 79`.
    pub(crate) name: String,
    pub(crate) line: String,
}

/// How certain it is that an event is not a consequence of another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Echo,
    EitherEnd,
    Own,
}

impl Event {
    /// Returns the event at one of its times, without its log line. `None` if the event is not about a GPU, an NVSwitch
    /// or the driver.
    pub(crate) fn of(event: &KernelEvent, at: Timestamp) -> Option<Self> {
        let is_of_gpu =
            matches!(event.kind, Kind::Xid | Kind::Sxid | Kind::OffBus | Kind::RmInitFailed | Kind::GspFailed);
        let severity = event_meaning::of(event).map_or(Severity::Critical, |meaning| meaning.severity);
        let place = event.gpu_index.map_or_else(String::new, |index| format!("GPU {index}"));
        let code = event.code.filter(|_| event.kind == Kind::Xid);
        let name = evidence::event_name(event);
        is_of_gpu.then(|| Self { at, code, severity, place, name, line: String::new() })
    }

    pub(crate) fn origin(&self) -> Origin {
        match self.code {
            Some(code) if ECHOES.contains(&code) => Origin::Echo,
            Some(OF_BOTH_ENDS) => Origin::EitherEnd,
            _ => Origin::Own,
        }
    }

    /// Returns whether the event is a fault of a link, a switch or the fabric.
    pub(crate) fn is_of_fabric(&self) -> bool {
        let is_fabric = self.code.map(|code| catalogue::xid(code).and_then(|entry| entry.class) == Some(Class::Fabric));
        self.severity > Severity::Info && is_fabric.unwrap_or_else(|| self.name.starts_with("SXid"))
    }
}

/// Returns the first fault of each chain of events. Each entry of `events` contains the index of its pod or node. An
/// event whose code other faults cause is a first fault only if there is no other fault.
pub(crate) fn first_faults<'a>(events: &[(usize, &'a Event)]) -> Vec<(usize, &'a Event)> {
    let mut grave: Vec<_> = events.iter().filter(|(_, event)| event.severity >= Severity::Critical).copied().collect();
    grave.sort_by_key(|(index, event)| (event.at, *index));
    let mut first: Vec<(usize, &Event)> = Vec::new();
    for (index, event) in grave {
        match first.last_mut() {
            Some(known) if event.at <= known.1.at + FOLLOWS => {
                // The clocks of nodes differ, and the peers of a GPU can report a broken link before the GPU itself
                // does.
                let can_be_first = known.1.origin() == Origin::Echo || event.at <= known.1.at + CLOCKS;
                if can_be_first && event.origin() > known.1.origin() {
                    *known = (index, event);
                }
            }
            _ => first.push((index, event)),
        }
    }
    first
}

/// Returns the pods or nodes with events of `others` that can follow from a fault, grouped by the name of the event.
/// `until`: the time of the next fault.
pub(crate) fn echoes<'a>(
    others: impl IntoIterator<Item = (usize, &'a Event)>,
    fault: &Event,
    until: Option<Timestamp>,
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, event) in others {
        if event.at >= fault.at - FOLLOWS && until.is_none_or(|until| event.at < until) {
            let known = found.entry(event.name.as_str()).or_default();
            if known.last() != Some(&index) {
                known.push(index);
            }
        }
    }
    found
}

/// Formats the echoes, the most frequent first: `Xid 145 on 21 other pods`.
pub(crate) fn in_words(echoes: &BTreeMap<&str, Vec<usize>>, noun: &str) -> Vec<String> {
    let mut by_count: Vec<_> = echoes.iter().collect();
    by_count.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    by_count.iter().map(|(name, of)| format!("{name} on {}", evidence::count(of.len(), noun))).take(6).collect()
}
