//! `NodeTimeline`: kernel events, driver loads, resets and boots from the report of a node, and the gaps in its logs.
//! `lane`, `severity`, `what`: the object, the severity and a short text of a kernel event.

use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelEventKind as Kind, KernelLog};
use syringe_core::kernel_log::{event_meaning, host_lines, record_parser, window};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};
use syringe_core::text::clean;

use super::entry::{Entry, EntryKind, Gap, GapKind, NODE_LANE};

/// Two logs show the same boot if their times differ by less than this. journald gives the first lines the time of its
/// own start.
const SAME_BOOT: SignedDuration = SignedDuration::from_mins(2);
/// Lines within this time are one occurrence, as in the report.
const SAME_OCCURRENCE: SignedDuration = SignedDuration::from_mins(1);
/// Maximum number of logs whose periods are compared. A node has three or four logs.
const MAX_LOGS: usize = 64;
/// Maximum length of a line of the kernel log.
const MAX_LINE: usize = 400;

/// The entries and gaps from the report of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeTimeline {
    pub(crate) entries: Vec<Entry>,
    pub(crate) gaps: Vec<Gap>,
}

impl NodeTimeline {
    /// Returns the entries and gaps since `since`. `now`: the end of the period, if the report has no time of its own.
    pub(crate) fn of_report(node: &str, report: &Report, since: Timestamp, now: Timestamp) -> Self {
        let now = report.taken_at.unwrap_or(now);
        let uptime = Section::data_of(&report.sections.host).and_then(|host| i64::try_from(host.uptime_seconds?).ok());
        let booted = uptime.and_then(|uptime| now.checked_sub(SignedDuration::from_secs(uptime)).ok());
        let none = KernelLog::default();
        let log = Section::data_of(&report.sections.xid);
        let mut all = Self::default();
        all.add_events(node, report, log.unwrap_or(&none), booted);
        let records = Records::of(report, booted, now);
        for boot in records.boots.iter().copied().filter(|boot| (since..=now).contains(boot)) {
            let (kind, severity) = (EntryKind::Boot, Severity::Info);
            all.entries.push(Entry::new(boot, node, NODE_LANE, kind, severity, "the node booted"));
            all.gaps.extend(
                records
                    .before(boot, log.unwrap_or(&none))
                    .map(|(last, why)| Gap::new(node, GapKind::BeforeBoot, last, Some(boot), why)),
            );
        }
        match log {
            Some(log) => all.add_gaps(node, log, since, now, &records),
            None => {
                let problem = report.sections.xid.as_ref().and_then(|section| section.problems.first());
                let why = problem.map_or("the kernel log was not read".to_owned(), |problem| {
                    format!("the kernel log was not read: {}", clean(&problem.why, MAX_LINE))
                });
                all.gaps.push(Gap::new(node, GapKind::LogMissing, Some(since), Some(now), why));
            }
        }
        all.entries.retain(|entry| entry.at >= since);
        all.gaps.retain(|gap| gap.to.is_none_or(|to| to > since));
        all
    }

    fn add_events(&mut self, node: &str, report: &Report, log: &KernelLog, booted: Option<Timestamp>) {
        let mut without_time = 0_u64;
        for event in &log.events {
            let mut times = event.occurred_at();
            let span = event.first.zip(event.last).map(|(first, last)| last.duration_since(first));
            if span.is_some_and(|span| span < SAME_OCCURRENCE) {
                times.truncate(1);
            }
            let of_uptime = || {
                let uptime = SignedDuration::try_from_secs_f64(event.last_uptime_seconds?).ok()?;
                booted.filter(|_| event.boot_id.is_none())?.checked_add(uptime).ok()
            };
            if times.is_empty() {
                times.extend(of_uptime());
            }
            let Some(last) = times.last().copied() else {
                without_time += event.count.max(1);
                continue;
            };
            let shown = times.len() as u64;
            for at in times {
                let counted = at == last && event.count > shown;
                self.entries.push(Entry {
                    text: Some(clean(&event.raw, MAX_LINE)),
                    count: counted.then_some(event.count),
                    count_is_lower_bound: counted && event.count_is_lower_bound,
                    ..Entry::new(at, node, &lane(report, event), kind(event), severity(event), what(event))
                });
            }
        }
        if without_time > 0 {
            let why = format!("{without_time} events of the kernel log have no time");
            self.gaps.push(Gap::new(node, GapKind::WithoutTime, None, None, why));
        }
    }

    /// Adds a gap for each time that no log covers, from `now` back to `since`, and for lost lines.
    fn add_gaps(&mut self, node: &str, log: &KernelLog, since: Timestamp, now: Timestamp, records: &Records) {
        let mut logs: Vec<Coverage> = log.coverage.iter().take(MAX_LOGS).cloned().collect();
        let mut end = now;
        while end > since {
            logs.retain(|log| log.from.is_some_and(|from| from < end));
            let begin = window::reach(&logs, end).unwrap_or(end);
            if begin <= since {
                break;
            }
            let before = window::last_before(&logs, begin).filter(|before| *before > since);
            let is_boot = |boot: &&Timestamp| boot.duration_since(begin).abs() < SAME_BOOT;
            match (before, records.boots.iter().find(is_boot)) {
                // The gap before the boot is added with the boot.
                (Some(_), Some(_)) => {}
                (Some(before), None) => {
                    let why = "no log that could be read covers this time";
                    self.gaps.push(Gap::new(node, GapKind::LogMissing, Some(before), Some(begin), why));
                }
                (None, of_boot) => {
                    let is_ring = logs.iter().any(|log| log.complete_since_boot == Some(false));
                    let why = match (of_boot, is_ring) {
                        (Some(_), _) => "the kernel log begins at a boot, and no log of an earlier boot could be read",
                        (None, true) => {
                            "the kernel overwrote older lines in its ring buffer, and no other log has them"
                        }
                        (None, false) => "none of the logs that could be read has older lines",
                    };
                    self.gaps.push(Gap::new(node, GapKind::LogBeginsLater, Some(since), Some(begin), why));
                    break;
                }
            }
            end = before.unwrap_or(since);
        }
        for Coverage { source, from, to, lost_records, suppressed_lines, .. } in &log.coverage {
            let lost = [
                (lost_records, "overwritten before they could be read"),
                (suppressed_lines, "suppressed by a rate limit"),
            ];
            for (count, how) in lost.into_iter().filter(|(count, _)| **count > 0) {
                let why = format!("{}: {count} lines were {how}; counts are lower bounds", clean(source, 80));
                self.gaps.push(Gap::new(node, GapKind::LinesLost, *from, *to, why));
            }
        }
        if log.events_omitted > 0 {
            let why = format!("{} events do not fit in the report of the node", log.events_omitted);
            self.gaps.push(Gap::new(node, GapKind::LinesLost, None, None, why));
        }
        if records.times.is_empty() && log.events.iter().any(|event| event.boot_id.is_some()) {
            let why = "the records of the kernel log were not read, so only the last boot is shown";
            self.gaps.push(Gap::new(node, GapKind::LinesLost, None, None, why));
        }
    }
}

/// The raw records of the kernel log.
struct Records {
    /// The times of the boots, oldest first.
    boots: Vec<Timestamp>,
    /// The times of the records, oldest first. Empty if the records were not read.
    times: Vec<Timestamp>,
}

impl Records {
    /// Returns the records of a report. `booted`: the last boot.
    fn of(report: &Report, booted: Option<Timestamp>, now: Timestamp) -> Self {
        let (mut boots, mut times): (Vec<Timestamp>, _) = (booted.into_iter().collect(), Vec::new());
        for line in report.kernel_log.iter().filter(|line| !line.starts_with("# ")) {
            let Some(record) = record_parser::parse_line(line) else { continue };
            let wall = record.wall.and_then(|wall| wall.microseconds(Some(now.as_microsecond())));
            let of_uptime = || Some(booted?.as_microsecond().saturating_add_unsigned(record.uptime_us?));
            let Some(time) = wall.or_else(of_uptime).and_then(|time| Timestamp::from_microsecond(time).ok()) else {
                continue;
            };
            // The kernel prints this line first at each boot.
            if record.text.starts_with("Linux version ") {
                boots.push(time);
            }
            times.push(time);
        }
        times.sort_unstable();
        boots.sort();
        boots.dedup_by(|later, earlier| later.duration_since(*earlier) < SAME_BOOT);
        Self { boots, times }
    }

    /// Returns the time of the last line before a boot, if that line was read, and a text about the missing data.
    /// `None` if no log has a line before the boot.
    fn before(&self, boot: Timestamp, log: &KernelLog) -> Option<(Option<Timestamp>, &'static str)> {
        let silent = "the kernel log has no line between the last line before the boot and the boot";
        let earlier = self.times.partition_point(|time| *time < boot);
        if let Some(last) = earlier.checked_sub(1) {
            return Some((Some(self.times[last]), silent));
        }
        let spans = |log: &&Coverage| log.from.is_some_and(|from| from < boot) && log.to.is_some_and(|to| to > boot);
        if log.coverage.iter().any(|log| spans(&log)) {
            return Some((
                None,
                "the time of the last line before the boot is not known, because its records were not read",
            ));
        }
        let ends = log.coverage.iter().filter_map(|log| log.to);
        let times = ends.chain(log.events.iter().flat_map(KernelEvent::occurred_at));
        times.filter(|time| *time < boot).max().map(|last| (Some(last), silent))
    }
}

/// Returns the lane of a kernel event: the GPU that is or was at the address, an NVSwitch, or the node.
pub(crate) fn lane(report: &Report, event: &KernelEvent) -> String {
    let host = Section::data_of(&report.sections.host);
    let is_gpu = |pci: &&PciAddress| {
        let on_bus = host.is_some_and(|host| host.pci_gpus.iter().any(|gpu| gpu.pci_address.as_ref() == Some(*pci)));
        on_bus || matches!(event.kind, Kind::Xid | Kind::OffBus)
    };
    match (event.gpu_index, &event.pci_address) {
        (Some(index), _) => format!("GPU {index}"),
        (None, Some(pci)) if event.kind == Kind::Sxid => format!("NVSwitch {}", pci.sysfs()),
        (None, Some(pci)) if is_gpu(&pci) => format!("GPU {}", pci.sysfs()),
        _ => NODE_LANE.to_owned(),
    }
}

fn kind(event: &KernelEvent) -> EntryKind {
    match event.kind {
        Kind::DriverLoaded => EntryKind::DriverLoad,
        _ if event.is_reset() => EntryKind::GpuReset,
        _ => EntryKind::Kernel,
    }
}

/// Returns the severity that an event has when it is new.
pub(crate) fn severity(event: &KernelEvent) -> Severity {
    match event.kind {
        Kind::Xid | Kind::Sxid => event_meaning::of(event).map_or(Severity::Warning, |meaning| meaning.severity),
        Kind::Nic | Kind::Host => host_lines::row_of(event).map_or(Severity::Warning, |row| row.severity),
        Kind::OffBus => Severity::Fatal,
        Kind::RmInitFailed | Kind::GspFailed | Kind::ProbeFailed | Kind::BarUnassigned => Severity::Critical,
        // The kernel names the module in the line if the module is not the main driver module.
        Kind::ModuleRefused if event.details.contains_key("module") => Severity::Warning,
        Kind::ModuleRefused | Kind::ApiMismatch | Kind::NvlinkInitFailed => Severity::Critical,
        Kind::DriverLoaded | Kind::GspRateLimit => Severity::Info,
        _ => Severity::Warning,
    }
}

/// Returns a short text for an event: `Xid 79: GPU has fallen off the bus`.
pub(crate) fn what(event: &KernelEvent) -> String {
    let name = diagnosis::event_name(event);
    if event.is_reset() {
        return format!("the GPU was reset, so the driver withdrew its recommendation ({name})");
    }
    let meaning = event.name.clone().or_else(|| host_lines::row_of(event).map(|row| row.meaning.to_owned()));
    let sub = event.sub_code.as_deref().filter(|_| matches!(event.kind, Kind::Xid | Kind::Sxid));
    let sub = sub.map(|sub| format!(" ({})", clean(sub, 60))).unwrap_or_default();
    meaning.map_or_else(|| format!("{name}{sub}"), |meaning| format!("{name}: {}{sub}", clean(&meaning, 120)))
}
