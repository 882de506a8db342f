//! `EventGroup`: the lines of one event (same `Key`) and their texts (`Variant`), collected while the log is read.
//! `merge`: merges groups that belong together.
//!
//! The result depends only on the lines and their times, not on the order of lines with the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::classification::Class;
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::pci::PciAddress;
use crate::text::clean;

use crate::kernel_log::catalogue;
use crate::kernel_log::line::{Line, Parsed, Part};
use crate::kernel_log::line_parser;
use crate::kernel_log::line_time::{LineTime, timestamp};
use crate::kernel_log::xid_text;

/// The longest raw line in a report.
const RAW_CAP: usize = 320;

/// Maximum number of different texts of one event whose details are combined.
const MAX_VARIANTS: usize = 8;

/// Maximum number of locations (GPC, TPC, SM) of one event.
const MAX_LOCATIONS: usize = 16;

/// Maximum number of separate occurrences of one event whose times are kept.
const MAX_OCCURRENCES: usize = 16;

/// Lines that are more than this time apart (in microseconds) are separate occurrences.
const PAUSE: i64 = 60_000_000;

/// Maximum time between the lines of one fault, in microseconds.
pub(super) const BURST: i64 = 1_000_000;

/// The key of an event: lines with the same key are one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: KernelEventKind,
    pub(super) code: Option<u32>,
    pub(super) pci: Option<PciAddress>,
    gpu_instance: Option<u32>,
    compute_instance: Option<u32>,
    sub_code: Option<String>,
    pid: Option<u32>,
    process: Option<String>,
    /// Index of the boot; 0 is the running boot.
    pub(super) boot: usize,
}

impl Key {
    pub(super) fn of(line: Line, boot: usize) -> Self {
        let Line {
            kind,
            code,
            pci,
            gpu_instance,
            compute_instance,
            sub_code,
            pid,
            process,
            part: _,
            details: _,
            times: _,
        } = line;
        Self { kind, code, pci, gpu_instance, compute_instance, sub_code, pid, process, boot }
    }

    /// Returns whether the kernel prints several lines for one fault; these lines count as one occurrence.
    fn comes_in_bursts(&self) -> bool {
        self.kind == KernelEventKind::OomKill || self.kind == KernelEventKind::Xid && self.code == Some(13)
    }

    /// Returns whether `other` is the key of the same graphics exception, but includes the process.
    pub(super) fn is_anonymous_part_of(&self, other: &Self) -> bool {
        let exception = self.kind == KernelEventKind::Xid && self.code == Some(13);
        let named = Self { pid: other.pid, process: other.process.clone(), ..self.clone() };
        exception && self.pid.is_none() && other.pid.is_some() && named == *other
    }

    /// Returns whether this is the second line, without codes, of the failed initialization that `other` is about.
    pub(super) fn is_second_line_of(&self, other: &Self) -> bool {
        let failed = self.kind == KernelEventKind::RmInitFailed && self.sub_code.is_none() && other.sub_code.is_some();
        failed && Self { sub_code: None, ..other.clone() } == *self
    }

    /// Returns the importance of the event: 0 for other devices, 1 for applications, 2 for all other events.
    pub(super) fn weight(&self) -> u8 {
        use KernelEventKind as Kind;
        match self.kind {
            Kind::OomKill | Kind::Segfault | Kind::HungTask | Kind::Nic | Kind::Host | Kind::PcieLink => 0,
            Kind::Aer if self.sub_code.as_deref() == Some("corrected") => 0,
            Kind::Assertion | Kind::Iommu => 1,
            Kind::Xid => {
                let class = self.code.and_then(catalogue::xid).and_then(|entry| entry.class);
                if class == Some(Class::Application) { 1 } else { 2 }
            }
            _ => 2,
        }
    }
}

/// One text of an event. The details are parsed when the event is finished, because most texts of a storm are not kept.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) text: Rc<str>,
    part: Part,
    /// GPC, TPC and SM of a graphics exception.
    location: Option<String>,
    /// Number of faults that the line reports.
    times: u64,
}

impl Variant {
    pub(super) fn new(text: &str, line: &Line) -> Self {
        let location = (line.code == Some(13)).then(|| xid_text::exception_location(text)).flatten();
        Self { text: text.into(), part: line.part, location, times: line.times.unwrap_or(1).max(1) }
    }
}

/// Lines of one event without a long pause between them.
#[derive(Clone, Copy, Debug)]
struct Occurrence {
    from: i64,
    to: i64,
    /// Uptime of the first line, in microseconds.
    uptime: Option<i64>,
}

#[derive(Debug)]
pub(super) struct EventGroup {
    pub(super) key: Rc<Key>,
    bursts: bool,
    whole: u64,
    headers: u64,
    details: u64,
    /// First and last time, as returned by [`LineTime::order`].
    span: Option<(i64, i64)>,
    wall: Option<(i64, i64)>,
    uptime: Option<u64>,
    /// Uptimes of the first and the last line, if every line has an uptime.
    uptimes: Option<(i64, i64)>,
    without_uptime: bool,
    not_before: Option<i64>,
    occurrences: Vec<Occurrence>,
    /// Sequence number of the newest line.
    newest_line: u64,
    burst: Option<i64>,
    /// Texts with the time of their last line, newest last.
    variants: Vec<(i64, Rc<Variant>)>,
    locations: BTreeSet<String>,
}

impl EventGroup {
    pub(super) fn new(key: Rc<Key>) -> Self {
        let bursts = key.comes_in_bursts();
        Self {
            key,
            bursts,
            whole: 0,
            headers: 0,
            details: 0,
            span: None,
            wall: None,
            uptime: None,
            uptimes: None,
            without_uptime: false,
            not_before: None,
            occurrences: Vec::new(),
            newest_line: 0,
            burst: None,
            variants: Vec::new(),
            locations: BTreeSet::new(),
        }
    }

    /// Returns whether the lines of the event are close to this time.
    pub(super) fn is_near(&self, order: Option<i64>) -> bool {
        /// Maximum distance in time between a line and the event that it belongs to: one minute, in microseconds.
        const NEAR: i64 = 60_000_000;
        self.span
            .zip(order)
            .is_none_or(|((from, to), at)| (from.saturating_sub(NEAR)..=to.saturating_add(NEAR)).contains(&at))
    }

    /// Returns the sequence number of the newest line.
    pub(super) fn newest_line(&self) -> u64 {
        self.newest_line
    }

    pub(super) fn count(&mut self, variant: &Rc<Variant>, moment: LineTime, line_number: u64) {
        let order = moment.order();
        if !self.bursts || self.starts_a_burst(order) {
            match variant.part {
                Part::Whole => self.whole = self.whole.saturating_add(variant.times),
                Part::Header => self.headers += 1,
                Part::Detail => self.details += 1,
            }
        }
        self.span = widen(self.span, order);
        self.wall = widen(self.wall, moment.wall);
        self.uptime = self.uptime.max(moment.uptime);
        let uptime = moment.uptime.and_then(|uptime| i64::try_from(uptime).ok());
        self.without_uptime |= uptime.is_none();
        self.uptimes = widen(self.uptimes, uptime);
        self.not_before = self.not_before.max(moment.not_before);
        if let Some(at) = moment.in_sequence().filter(|_| moment.wall.is_some()) {
            self.note_occurrence(Occurrence { from: at, to: at, uptime });
        }
        self.newest_line = self.newest_line.max(line_number);
        self.keep(variant, order.unwrap_or(0));
    }

    fn note_occurrence(&mut self, new: Occurrence) {
        let near =
            |old: &Occurrence| new.from <= old.to.saturating_add(PAUSE) && old.from <= new.to.saturating_add(PAUSE);
        // In a storm, the line usually belongs to the newest occurrence.
        if let Some(old) = self.occurrences.iter_mut().rev().find(|old| near(old)) {
            if new.from < old.from {
                (old.from, old.uptime) = (new.from, new.uptime);
            }
            old.to = old.to.max(new.to);
            return;
        }
        let at = self.occurrences.partition_point(|old| old.from < new.from);
        self.occurrences.insert(at, new);
        if self.occurrences.len() > MAX_OCCURRENCES {
            self.occurrences.remove(1);
        }
    }

    /// Corrects the times of lines that the running boot wrote with a wrong clock. Without uptimes, the times are unknown.
    pub(super) fn correct_times(&mut self, boot_time: i64) {
        let at = |uptime: i64| boot_time.saturating_add(uptime);
        self.wall = self.uptimes.filter(|_| !self.without_uptime).map(|(first, last)| (at(first), at(last)));
        self.span = self.wall;
        self.not_before = None;
        let known = std::mem::take(&mut self.occurrences);
        let corrected = known.into_iter().filter(|_| self.wall.is_some()).filter_map(|old| {
            let from = at(old.uptime?);
            Some(Occurrence { from, to: from.saturating_add(old.to.saturating_sub(old.from)), ..old })
        });
        self.occurrences = corrected.collect();
    }

    /// Moves the event to another boot.
    pub(super) fn set_boot(&mut self, boot: usize) {
        self.key = Rc::new(Key { boot, ..(*self.key).clone() });
    }

    /// Adds the lines of the same event that were counted separately.
    pub(super) fn join(&mut self, part: Self) {
        if self.covers(&part) {
            // All lines of `part` are within the times of this event: they are the same lines, read from another log.
            return self.absorb(part);
        }
        self.whole = self.whole.saturating_add(part.whole);
        self.headers = self.headers.saturating_add(part.headers);
        self.details = self.details.saturating_add(part.details);
        self.newest_line = self.newest_line.max(part.newest_line);
        self.take_texts(part);
    }

    /// Returns the number of occurrences. A header and its details count as one occurrence.
    pub(super) fn times(&self) -> u64 {
        self.whole.saturating_add(self.headers.max(self.details))
    }

    fn starts_a_burst(&mut self, order: Option<i64>) -> bool {
        let Some(order) = order else { return true };
        let inside = self.burst.is_some_and(|burst| order.abs_diff(burst) <= BURST.unsigned_abs());
        if !inside {
            self.burst = Some(order);
        }
        !inside
    }

    fn keep(&mut self, variant: &Rc<Variant>, order: i64) {
        if let Some((last, newest)) = self.variants.last_mut()
            && Rc::ptr_eq(newest, variant)
        {
            // This is the usual case in a storm: the text is the same as before.
            *last = order.max(*last);
            return;
        }
        if let Some((last, _)) = self.variants.iter_mut().find(|(_, known)| known.text == variant.text) {
            *last = order.max(*last);
        } else {
            if let Some(location) = &variant.location {
                self.locations.insert(location.clone());
                while self.locations.len() > MAX_LOCATIONS {
                    self.locations.pop_last();
                }
            }
            let in_order = self.variants.last().is_none_or(|(last, _)| *last < order);
            self.variants.push((order, Rc::clone(variant)));
            if in_order {
                // This is the usual case in a storm of different texts: nothing has to be sorted.
                if self.variants.len() > MAX_VARIANTS {
                    self.variants.remove(0);
                }
                return;
            }
        }
        self.variants.sort_by(|(a, x), (b, y)| (a, &x.text).cmp(&(b, &y.text)));
        if self.variants.len() > MAX_VARIANTS {
            self.variants.remove(0);
        }
    }

    /// Returns whether the times of another group of lines are within the times of this event.
    pub(super) fn covers(&self, part: &Self) -> bool {
        match (self.span, part.span) {
            (Some((first, last)), Some((from, to))) => first - BURST <= from && to <= last.saturating_add(BURST),
            _ => false,
        }
    }

    /// Merges another group with the same lines into this event, and keeps the larger of the two counts.
    pub(super) fn absorb(&mut self, part: Self) {
        self.whole = self.whole.max(part.times());
        self.take_texts(part);
    }

    /// Merges the texts of another group into this event, but does not add its count.
    pub(super) fn take_texts(&mut self, part: Self) {
        if let Some((first, last)) = part.span {
            self.span = widen(widen(self.span, Some(first)), Some(last));
        }
        if let Some((first, last)) = part.wall {
            self.wall = widen(widen(self.wall, Some(first)), Some(last));
        }
        self.uptime = self.uptime.max(part.uptime);
        self.not_before = self.not_before.max(part.not_before);
        part.occurrences.iter().for_each(|one| self.note_occurrence(*one));
        self.locations.extend(part.locations);
        while self.locations.len() > MAX_LOCATIONS {
            self.locations.pop_last();
        }
        for (order, variant) in part.variants {
            self.keep(&variant, order);
        }
    }

    /// Returns the sort key for the removal of events: the least important and oldest events come first.
    pub(super) fn rank(&self) -> (u8, Option<i64>, Rc<Key>) {
        (self.key.weight(), self.span.map(|(_, last)| last), Rc::clone(&self.key))
    }

    /// Returns the event without the identity of its GPU and its boot.
    pub(super) fn into_event(self) -> KernelEvent {
        let Key { kind, code, pci, gpu_instance, compute_instance, sub_code, pid, process, boot: _ } = &*self.key;
        let count = self.times();
        let mut details = BTreeMap::new();
        let mut reasons = BTreeSet::new();
        for (_, variant) in &self.variants {
            if let Some(Parsed::Event(line)) = line_parser::parse(&variant.text) {
                reasons.extend(line.details.get("reason").cloned());
                details.extend(line.details.into_iter().map(|(name, value)| (name.to_owned(), value)));
            }
        }
        if reasons.len() > 1 {
            details.insert("reason".to_owned(), reasons.into_iter().collect::<Vec<_>>().join("; "));
        }
        if !self.locations.is_empty() {
            let locations: Vec<String> = self.locations.into_iter().collect();
            details.insert("places".to_owned(), locations.join("; "));
        }
        let newest = self.variants.last().map_or("", |(_, variant)| &variant.text);
        let separate = Some(&self.occurrences).filter(|occurrences| occurrences.len() > 1);
        let later = self.not_before.filter(|before| self.wall.is_some_and(|(_, last)| *before > last));
        KernelEvent {
            kind: *kind,
            code: *code,
            name: code.and_then(|code| name(*kind, code)),
            pci_address: pci.clone(),
            mig_gpu_instance: *gpu_instance,
            mig_compute_instance: *compute_instance,
            sub_code: sub_code.clone(),
            details,
            pid: *pid,
            process: process.clone(),
            count,
            first: self.wall.and_then(|(first, _)| timestamp(first)),
            last: self.wall.and_then(|(_, last)| timestamp(last)),
            occurrences: separate.into_iter().flatten().filter_map(|one| timestamp(one.from)).collect(),
            not_before: later.and_then(timestamp),
            last_uptime_seconds: self.uptime.map(|uptime| uptime as f64 / 1e6),
            raw: clean(newest, RAW_CAP),
            ..KernelEvent::default()
        }
    }
}

/// Merges events that belong together: the first lines of a graphics exception contain no process, and the second line
/// of a failed initialization contains no codes.
pub(super) fn merge(
    groups: &mut Vec<EventGroup>,
    is_part: fn(&Key, &Key) -> bool,
    fits: fn(&EventGroup, &EventGroup) -> bool,
    merge: fn(&mut EventGroup, EventGroup),
) {
    let mut at = 0;
    while let Some(part) = groups.get(at) {
        let of_part = |group: &EventGroup| is_part(&part.key, &group.key) && fits(part, group);
        let wholes = groups.iter().enumerate().filter(|(_, group)| of_part(group));
        match wholes.max_by_key(|(_, group)| group.rank()).map(|(whole, _)| whole) {
            Some(whole) => {
                let part = groups.remove(at);
                let whole = if whole > at { whole - 1 } else { whole };
                merge(&mut groups[whole], part);
            }
            None => at += 1,
        }
    }
}

fn name(kind: KernelEventKind, code: u32) -> Option<String> {
    match kind {
        KernelEventKind::Xid => catalogue::xid(code).map(|entry| entry.name.to_owned()),
        KernelEventKind::Sxid => catalogue::sxid(code).map(|entry| entry.words.clone()),
        _ => None,
    }
}

fn widen(span: Option<(i64, i64)>, time: Option<i64>) -> Option<(i64, i64)> {
    let Some(time) = time else { return span };
    Some(span.map_or((time, time), |(first, last)| (first.min(time), last.max(time))))
}
