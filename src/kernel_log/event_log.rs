//! `EventLog`: turns log records into events. A log storm of 800,000 lines results in a few events.
//!
//! The caller pushes all records of a log, in any format. The time per line is constant: most lines are skipped after a few
//! bytes, and a known text is counted without parsing it again. Several logs can be pushed one after the other
//! ([`EventLog::source`]). A line that is in two logs (same boot, same text, within two seconds) counts only once.
//! Unrecognized lines about NVIDIA are counted and shown with their log ([`Coverage`]).
//!
//! [`Coverage`]: crate::facts::kernel_log::Coverage
//!
//! Limits: if there are more events than [`Options::max_events`], the least important and oldest events are dropped
//! and counted. A line without a time that is in several logs counts several times.

use jiff::Timestamp;

use crate::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use crate::pci::PciAddress;

use crate::kernel_log::event_table::EventTable;
use crate::kernel_log::harmless_lines;
use crate::kernel_log::harmless_lines::Meaning;
use crate::kernel_log::host_lines;
use crate::kernel_log::known_text::SAME_LINE;
use crate::kernel_log::line::Parsed;
use crate::kernel_log::line_parser;
use crate::kernel_log::line_time::LineTime;
use crate::kernel_log::multiline;
use crate::kernel_log::multiline::{LineUse, PartialMessage};
pub use crate::kernel_log::options::{Clock, Options};
use crate::kernel_log::raw_lines::RawLines;
use crate::kernel_log::record::{Origin, Record};
use crate::kernel_log::record_parser;
use crate::kernel_log::scan;
use crate::kernel_log::sources::Source;
use crate::kernel_log::suppressed_lines;
use crate::kernel_log::suppressed_lines::Suppressed;
use crate::kernel_log::text_boots::{BootOfLine, OpenLines, TextBoots};
use crate::kernel_log::value_by_address::ValueByAddress;
use crate::kernel_log::xid_extra_lines::XidExtraLines;

/// Name of all boots before the running boot in a log without boot ids.
const EARLIER: &str = "earlier";

/// Name of a boot that may be the running boot, in a text log.
const OPEN: &str = "open";

/// Maximum number of bytes of a text. The kernel limits a record to 1 KiB.
const TEXT_CAP: usize = 4096;

/// The previous record. A line without prefixes may be its continuation.
#[derive(Debug, Default)]
struct PreviousRecord {
    moment: LineTime,
    boot: usize,
    /// Writer of the record, if the line of a text log shows that the writer may not be the kernel.
    origin: Option<Origin>,
    /// Whether there was a previous record.
    exists: bool,
}

/// Collects the events of one or several logs. See the documentation of this module.
#[derive(Debug)]
pub struct EventLog {
    /// Wall-clock time at uptime 0, in microseconds since 1970.
    boot_time: Option<i64>,
    now: Option<i64>,
    since: Option<i64>,
    window: Option<i64>,
    table: EventTable,
    /// Boots by index. The first boot is the running boot.
    boots: Vec<String>,
    /// The boot ID of the last line, as it was written, and the index of that boot.
    last_boot: Option<(String, usize)>,
    sources: Vec<Source>,
    /// The boots of the text log that is being read.
    text_boots: TextBoots,
    pending: Option<(PartialMessage, LineTime, usize)>,
    previous: PreviousRecord,
    /// Syslog level of the current record.
    level: Option<u8>,
    uuids: ValueByAddress,
    serials: ValueByAddress,
    last_named_gpu: Option<PciAddress>,
    suppressed: Suppressed,
    /// Lines that belong to the message of an Xid. The Xid may follow later.
    parts: XidExtraLines,
    untrusted: u64,
    raw: RawLines,
}

impl EventLog {
    /// Creates an empty log. Without a clock, a line that has only an uptime gets no wall-clock time.
    pub fn new(clock: Option<Clock>, options: Options) -> Self {
        let Options { running_boot_id, now, since, window, max_events, raw_bytes } = options;
        Self {
            boot_time: clock.map(|clock| clock.boot_wall_time.as_microsecond()),
            now: now.map(Timestamp::as_microsecond),
            since: since.map(Timestamp::as_microsecond),
            window: window.map(Timestamp::as_microsecond),
            table: EventTable::new(max_events.max(1)),
            last_boot: None,
            boots: vec![running_boot_id.map(|id| bare_id(&id)).unwrap_or_default()],
            sources: Vec::new(),
            text_boots: TextBoots::default(),
            pending: None,
            previous: PreviousRecord::default(),
            level: None,
            uuids: ValueByAddress::default(),
            serials: ValueByAddress::default(),
            last_named_gpu: None,
            suppressed: Suppressed::default(),
            parts: XidExtraLines::default(),
            untrusted: 0,
            raw: RawLines::new(raw_bytes),
        }
    }

    /// Begins another log: `/dev/kmsg`, `journal`, or the name of a file. The following records belong to it.
    pub fn source(&mut self, name: &str) {
        self.end_message();
        self.end_text_boots();
        self.previous = PreviousRecord::default();
        self.raw.source(name);
        self.sources.push(Source::named(name));
    }

    /// Adds one or several lines in any format.
    pub fn push_line(&mut self, line: &str) {
        // A serial console may end a line with only a carriage return.
        let line = line.trim_end_matches(['\n', '\r']);
        if memchr::memchr2(b'\n', b'\r', line.as_bytes()).is_some() && record_parser::parse_kmsg(line).is_none() {
            line.split(['\n', '\r']).for_each(|line| self.push_line(line));
        } else if let Some(record) = record_parser::parse_line(line) {
            self.push_record(&record);
        } else if line_parser::mentions_nvidia(line) {
            self.last_source().count_unread(cap(line));
        }
    }

    /// Adds a parsed record.
    pub fn push_record(&mut self, record: &Record<'_>) {
        let continues = self.previous.exists && !record.has_prefix && record.text.starts_with([' ', '\t']);
        let (moment, boot) =
            if continues { (self.previous.moment, self.previous.boot) } else { self.time_and_boot(record) };
        // In a text log, a line without prefixes continues the previous line and has the origin of that line.
        let of_before = self.previous.origin.filter(|_| !record.has_prefix && record.origin == Origin::Kernel);
        let origin = of_before.unwrap_or(record.origin);
        if origin != Origin::Program {
            self.raw.push(record, moment.wall);
        }
        let text_log = record.seq.is_none() && record.boot_id.is_none();
        let not_kernel = Some(origin).filter(|origin| *origin != Origin::Kernel && text_log);
        self.previous = PreviousRecord { moment, boot, origin: not_kernel, exists: true };
        if !continues {
            let window = self.window;
            let open = self.boots.get(boot).is_some_and(|name| name == OPEN);
            self.current_source(record).count(record, moment.wall, window, open);
        }
        self.level = record.level;
        let text = record.text.trim_start();
        if origin == Origin::Program {
            let text = scan::unescape(cap(text));
            self.untrusted +=
                u64::from(line_parser::looks_like_gpu_error(&text) || line_parser::has_error_frame(&text));
            return;
        }
        let is_open = self.boots.get(boot).is_some_and(|name| name == OPEN);
        if !is_open && moment.wall.is_some_and(|wall| self.since.is_some_and(|since| wall < since)) {
            return;
        }
        if origin == Origin::Unclear {
            return self.read_unclear(&scan::unescape(cap(text)), moment, boot);
        }
        let Some(family) = line_parser::family(text) else {
            return self.read_other(text, record, moment, boot);
        };
        let text = scan::unescape(cap(text));
        // Records are never joined, and lines that name a program are not searched: a program can choose any name.
        let is_name = !text_log && family.names_a_program();
        if let Some(second) = line_parser::second_frame(&text).filter(|_| !is_name) {
            self.last_source().count_unread(second);
        }
        if text_log {
            self.assemble(scan::unescape_octal(&text).trim_end(), moment, boot);
        } else {
            self.assemble(text.trim_end(), moment, boot);
        }
    }

    /// Handles a line that belongs to no family. Such a line is ignored, unless it reports that lines are missing.
    fn read_other(&mut self, text: &str, record: &Record<'_>, moment: LineTime, boot: usize) {
        if let Some(lines) = suppressed_lines::count(text) {
            self.suppressed.note(boot, moment);
            self.current_source(record).suppress(lines);
        } else if line_parser::mentions_nvidia(text) && !line_parser::is_audit(text) {
            self.not_an_event(cap(text), moment, boot);
        }
    }

    /// Handles a line whose format does not show the writer. The line is not an event, but it must not be ignored.
    fn read_unclear(&mut self, text: &str, moment: LineTime, boot: usize) {
        match line_parser::parse(text) {
            Some(Parsed::Event(line)) if line.kind != KernelEventKind::DriverLoaded => {
                self.last_source().count_unread(text);
            }
            None if line_parser::mentions_nvidia(text) || line_parser::has_error_frame(text) => {
                self.not_an_event(text, moment, boot);
            }
            _ => {}
        }
    }

    /// Handles a line about a GPU that is not an event: harmless, part of the message of an Xid, or not recognized.
    fn not_an_event(&mut self, text: &str, moment: LineTime, boot: usize) {
        match harmless_lines::meaning(text) {
            Meaning::Nothing => return,
            Meaning::Unknown => {}
            Meaning::PartOfXid => {
                let source = self.sources.len().saturating_sub(1);
                if self.parts.add(text, source, boot, moment) {
                    return;
                }
            }
        }
        self.last_source().count_unread(text);
    }

    /// Returns the records as text, without the records that a program wrote.
    pub fn raw_lines(&mut self) -> Vec<String> {
        self.raw.take()
    }

    /// Returns the facts from all pushed lines.
    pub fn finish(mut self) -> KernelLog {
        self.end_message();
        self.end_text_boots();
        let Self { table, boots, uuids, serials, mut sources, suppressed, untrusted, parts, .. } = self;
        parts.finish(table.groups(), &mut sources);
        let (groups, omitted) = table.finish();
        let mut events: Vec<(u64, KernelEvent)> = Vec::with_capacity(groups.len());
        for group in groups {
            let (boot, newest_line) = (group.key.boot, group.newest_line());
            let mut event = group.into_event();
            event.boot_id = if boot == 0 { None } else { boots.get(boot).cloned() };
            if let Some(pci) = &event.pci_address {
                event.gpu_uuid = uuids.get(boot, pci).cloned();
                if let Some(serial) = serials.get(boot, pci) {
                    event.details.insert("board_serial".to_owned(), serial.clone());
                }
            }
            event.count_is_lower_bound = suppressed.touches(boot, &event);
            events.push((newest_line, event));
        }
        let mut events = host_lines::drop_unneeded_ends(events);
        events.sort_by(order);
        let events = events.into_iter().map(|(_, event)| event).collect();
        let coverage = sources.into_iter().map(Source::coverage).collect();
        KernelLog { coverage, events, events_omitted: omitted, untrusted_lines: untrusted, ..KernelLog::default() }
    }

    fn current_source(&mut self, record: &Record<'_>) -> &mut Source {
        if self.sources.is_empty() {
            let name = if record.seq.is_some() { "/dev/kmsg" } else { "log" };
            self.sources.push(Source::named(name));
        }
        self.last_source()
    }

    fn last_source(&mut self) -> &mut Source {
        if self.sources.is_empty() {
            self.sources.push(Source::named("log"));
        }
        let last = self.sources.len() - 1;
        &mut self.sources[last]
    }

    /// Returns the time and boot of a record.
    fn time_and_boot(&mut self, record: &Record<'_>) -> (LineTime, usize) {
        let boot = record.boot_id.as_deref().map_or(0, |id| self.boot(id));
        let uptime = record.uptime_us.and_then(|uptime| i64::try_from(uptime).ok());
        let by_uptime = uptime.and_then(|uptime| self.boot_time?.checked_add(uptime)).filter(|_| boot == 0);
        let stamped = record.wall.and_then(|wall| wall.microseconds(self.now));
        let by_delta = record.delta_us.and_then(|delta| self.previous.moment.wall?.checked_add(delta.try_into().ok()?));
        // The wall-clock time in the journal is the time at which journald received the line. Within the running boot,
        // the uptime is exact.
        let exact = by_uptime.filter(|_| stamped.is_none() || record.boot_id.is_some());
        let wall = exact.or(stamped).or(by_delta);
        let moment = LineTime { wall, uptime: record.uptime_us, not_before: None };
        let text_log = record.boot_id.is_none() && record.seq.is_none();
        let (Some(boot_time), true) = (self.boot_time, text_log && record.origin != Origin::Program) else {
            return (moment, boot);
        };
        if stamped.is_none() {
            let before_boot = wall.is_some_and(|wall| wall.saturating_add(SAME_LINE) < boot_time);
            return if before_boot { (moment, self.boot(EARLIER)) } else { (moment, boot) };
        }
        let is_banner = record.text.starts_with("Linux version ");
        let (of_line, before, time) = self.text_boots.next(stamped, uptime, is_banner, boot_time);
        self.settle(before);
        let moment = LineTime { uptime: record.uptime_us, ..time };
        if of_line == BootOfLine::Running { (moment, 0) } else { (moment, self.boot(OPEN)) }
    }

    /// Ends the text log that is being read.
    fn end_text_boots(&mut self) {
        let boots = std::mem::take(&mut self.text_boots);
        if let Some(boot_time) = self.boot_time {
            self.settle(boots.end(boot_time, self.now));
        }
    }

    /// Moves the lines whose boot was not known yet to the running boot or to the earlier boots.
    fn settle(&mut self, meaning: OpenLines) {
        if meaning == OpenLines::Stay || !self.boots.iter().any(|name| name == OPEN) {
            return;
        }
        self.end_message();
        let open = self.boot(OPEN);
        let running = meaning == OpenLines::OfRunningBoot;
        let to = if running { 0 } else { self.boot(EARLIER) };
        let boot_time = self.boot_time.unwrap_or(0);
        self.table.move_boot(open, to, |group| {
            if running {
                group.correct_times(boot_time);
            }
        });
        self.uuids.move_boot(open, to);
        self.serials.move_boot(open, to);
        self.suppressed.move_boot(open, to);
        self.parts.move_boot(open, to);
        if let Some(source) = self.sources.last_mut() {
            source.close_open(!running);
        }
    }

    fn boot(&mut self, id: &str) -> usize {
        // Each line of a journal has a boot ID, which is almost always the same as in the previous line.
        if let Some((last, at)) = &self.last_boot
            && last == id
        {
            return *at;
        }
        let bare = bare_id(&crate::text::clean(id, 64));
        let known = self.boots.iter().position(|known| *known == bare);
        let at = known.unwrap_or_else(|| {
            // If there are too many boots, all further boots share the last index.
            if self.boots.len() < 256 {
                self.boots.push(bare);
            }
            self.boots.len() - 1
        });
        self.last_boot = (id.len() <= 64).then(|| (id.to_owned(), at));
        at
    }

    /// Joins messages that consist of several lines, then counts them.
    fn assemble(&mut self, text: &str, moment: LineTime, boot: usize) {
        if let Some((pending, began, of_boot)) = &mut self.pending {
            let (began, of_boot) = (*began, *of_boot);
            match pending.add_line(text) {
                LineUse::NotPart => {}
                LineUse::Kept => return,
                LineUse::Completes(whole) => {
                    self.pending = None;
                    return self.observe(&whole, began, of_boot);
                }
                LineUse::GivenUp(part) => {
                    self.pending = None;
                    self.observe(&part, began, of_boot);
                }
            }
        }
        match multiline::start(text) {
            Some(opened) => {
                self.end_message();
                self.pending = Some((opened, moment, boot));
            }
            None => self.observe(text, moment, boot),
        }
    }

    /// Returns whether the current record has the level of a warning or worse. If its format has no levels, the words
    /// of the text are checked.
    fn is_warning(&self, text: &str) -> bool {
        const WARNING: u8 = 4;
        self.level.map_or_else(|| line_parser::speaks_of_error(text), |level| level <= WARNING)
    }

    fn end_message(&mut self) {
        if let Some((pending, moment, boot)) = self.pending.take() {
            self.observe(&pending.into_text(), moment, boot);
        }
    }

    /// Counts one complete text.
    fn observe(&mut self, text: &str, moment: LineTime, boot: usize) {
        let source = self.sources.len();
        if self.table.count_known(text, source, moment, boot) {
            return;
        }
        match line_parser::parse_key(text) {
            Some(Parsed::Event(line)) => self.table.add(text, line, source, moment, boot),
            Some(Parsed::GpuUuid { pci, uuid }) => {
                self.last_named_gpu = Some(pci.clone());
                self.uuids.insert(boot, pci, uuid);
            }
            Some(Parsed::GpuSerial { pci, serial }) => {
                if let Some(pci) = pci.or_else(|| self.last_named_gpu.clone()) {
                    self.serials.insert(boot, pci, serial);
                }
            }
            Some(Parsed::Companion(_)) => {}
            None => {
                let of_port = text.starts_with("pcieport ") && (text.contains("AER") || text.contains("DPC"));
                if of_port || line_parser::mentions_nvidia(text) {
                    self.not_an_event(text, moment, boot);
                } else if self.is_warning(text) && harmless_lines::is_unread_device(text) {
                    self.last_source().count_unread_device(text);
                }
            }
        }
    }
}

fn bare_id(id: &str) -> String {
    id.chars().filter(|character| *character != '-').collect::<String>().to_ascii_lowercase()
}

/// Returns at most [`TEXT_CAP`] bytes of a text.
fn cap(text: &str) -> &str {
    if text.len() <= TEXT_CAP { text } else { &text[..text.floor_char_boundary(TEXT_CAP)] }
}

/// Sorts events by time, newest last. Events with the same time have a fixed order. Recovery actions of one GPU (Xid 154)
/// with the same time keep the order of the log, because the last recommendation counts.
fn order(a: &(u64, KernelEvent), b: &(u64, KernelEvent)) -> std::cmp::Ordering {
    fn key((newest_line, event): &(u64, KernelEvent)) -> impl Ord + '_ {
        let of_recovery = event.kind == KernelEventKind::Xid && event.code == Some(154);
        let newest_line = if of_recovery { *newest_line } else { 0 };
        let uptime = event.last_uptime_seconds.map_or(0, f64::to_bits);
        let process = (event.pid, &event.process, &event.boot_id);
        let mig = (event.mig_gpu_instance, event.mig_compute_instance);
        let kind = (event.kind, event.code, &event.pci_address);
        ((event.ordered_at(), uptime), kind, newest_line, (mig, &event.sub_code), process, &event.raw)
    }
    key(a).cmp(&key(b))
}

#[cfg(test)]
#[path = "event_log_tests.rs"]
mod tests;
