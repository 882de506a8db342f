//! `HostLine`: a row of the table of log lines about the host (kernel, network cards, disks, limits). `all`: every row.
//! `find`, `parse`, `row_of`: match a line or event with a row. `ends`: whether an event ends the state of another.
//! `drop_unneeded_ends`: drops events without a finding that are not needed.
//!
//! The patterns are in `data/host_lines.tsv`.
//!
//! A row has the pattern of the line, the severity of a new line and the time for which the line counts. A row can name
//! another row that ends its state, e.g. a link that is up again.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::classification::Severity;
use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use crate::kernel_log::line::{Line, leading_address};
use crate::kernel_log::scan::between;
use crate::text::clean;
use crate::tsv::{rows, word};

/// The time for which a line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasts {
    /// The line is information after a day. It does not count after a reboot.
    AfterADay,
    /// The line counts until the node reboots.
    UntilBoot,
    /// The line is information after a day, and also counts after a reboot.
    AfterADayOverBoots,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLine {
    /// Id of the rule that reports the line. `None` for a line that ends or explains other lines.
    pub finding: Option<&'static str>,
    /// Sub-code of the events.
    pub name: &'static str,
    pub severity: Severity,
    /// Minimum number of lines within a day for this severity. Fewer lines are information.
    pub at_least: u64,
    pub lasts: Lasts,
    /// Name of the rows that end this row.
    pub ended_by: Option<&'static str>,
    pub meaning: &'static str,
    pub source: &'static str,
    /// Whether the line begins with the driver and the PCI address of a network card.
    of_card: bool,
    pattern: Vec<(Gap, &'static str)>,
}

/// The text before a fixed part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    Any,
    Device,
}

/// Drivers of network cards.
const CARD_DRIVERS: [&str; 10] =
    ["mlx5_core", "mlx4_en", "bnxt_en", "ice", "i40e", "ixgbe", "ena", "efa", "gve", "idpf"];

/// Devices without a medium report errors that can be ignored.
const NO_DISKS: [&str; 4] = ["fd", "sr", "loop", "nbd"];

static ROWS: LazyLock<Vec<HostLine>> =
    LazyLock::new(|| rows(include_str!("data/host_lines.tsv")).filter_map(|row| host_line(&row)).collect());

/// The rows, by the first byte of their lines.
static BY_BYTE: LazyLock<Vec<Vec<&'static HostLine>>> = LazyLock::new(|| {
    let begins = |row: &HostLine, byte: u8| match row.of_card {
        true => CARD_DRIVERS.iter().any(|driver| driver.as_bytes()[0] == byte),
        false => row.pattern[0].1.as_bytes()[0] == byte,
    };
    (0..=u8::MAX).map(|byte| ROWS.iter().filter(|row| begins(row, byte)).collect()).collect()
});

/// Returns all rows.
pub fn all() -> &'static [HostLine] {
    &ROWS
}

fn host_line(row: &[&'static str]) -> Option<HostLine> {
    let &[finding, name, line, severity, at_least, lasts, ended_by, meaning, source] = row else { return None };
    let given = |cell: &'static str| (cell != "-").then_some(cell);
    let (of_card, line) = line.strip_prefix("nic:").map_or((false, line), |line| (true, line));
    Some(HostLine {
        finding: given(finding),
        name,
        severity: word(severity)?,
        at_least: at_least.parse().ok()?,
        lasts: word(lasts)?,
        ended_by: given(ended_by),
        meaning,
        source,
        of_card,
        pattern: pattern(line),
    })
}

fn pattern(mut line: &'static str) -> Vec<(Gap, &'static str)> {
    let (mut parts, mut gap) = (Vec::new(), Gap::None);
    loop {
        let next = [("*", Gap::Any), ("{}", Gap::Device)]
            .into_iter()
            .filter_map(|(mark, gap)| line.find(mark).map(|at| (at, mark, gap)))
            .min_by_key(|(at, ..)| *at);
        let end = next.map_or(line.len(), |(at, ..)| at);
        if end > 0 {
            parts.push((gap, &line[..end]));
        }
        let Some((at, mark, following)) = next else { return parts };
        line = &line[at + mark.len()..];
        gap = following;
    }
}

/// Returns the device in a text that matches a pattern; empty if the pattern contains no device. `None` if the text
/// does not match.
fn device<'a>(pattern: &[(Gap, &str)], text: &'a str) -> Option<&'a str> {
    let (mut rest, mut device) = (text, "");
    for (gap, literal) in pattern {
        let at = match gap {
            Gap::None => rest.starts_with(literal).then_some(0)?,
            Gap::Any | Gap::Device => rest.find(literal)?,
        };
        if *gap == Gap::Device {
            device = rest.get(..at)?;
        }
        rest = rest.get(at + literal.len()..)?;
    }
    (!NO_DISKS.iter().any(|name| device.strip_prefix(name).is_some_and(|rest| rest.parse::<u32>().is_ok())))
        .then_some(device)
}

/// For a line of a network card, returns its address and the text after `DRIVER ADDRESS `.
fn of_card(text: &str) -> Option<(crate::pci::PciAddress, &str)> {
    let (driver, rest) = text.split_once(' ')?;
    CARD_DRIVERS.contains(&driver).then(|| leading_address(rest)).flatten()
}

/// Returns the row of a line.
#[inline]
pub fn find(text: &str) -> Option<&'static HostLine> {
    let candidates = BY_BYTE.get(usize::from(*text.as_bytes().first()?))?;
    if candidates.is_empty() {
        return None;
    }
    let card = of_card(text).map(|(_, rest)| rest);
    let subject = |row: &HostLine| if row.of_card { card } else { Some(text) };
    candidates.iter().copied().find(|row| subject(row).is_some_and(|text| device(&row.pattern, text).is_some()))
}

/// Parses a line of the table.
pub(super) fn parse(text: &str) -> Option<Line> {
    let row = find(text)?;
    let is_card = row.finding.is_some_and(|id| id.starts_with("nic-"));
    let mut line = Line::of(if is_card { Kind::Nic } else { Kind::Host });
    let card = of_card(text);
    let named = device(&row.pattern, card.as_ref().filter(|_| row.of_card).map_or(text, |(_, rest)| *rest))?;
    line.put_some("watts", between(text, "slot (", "W)"));
    line.put("device", named);
    if let Some((process, pid)) = damaged_process(text) {
        line.process = Some(clean(process, 64));
        line.pid = Some(pid);
    }
    // The device is a part of the sub-code, so each device has its own event.
    line.set_sub_code(format!("{} {named}", row.name).trim_end());
    line.pci = card.map(|(pci, _)| pci);
    Some(line)
}

/// Returns the name and the pid of the process whose memory is damaged: `Sending SIGBUS to python3:81000 due to …`.
fn damaged_process(text: &str) -> Option<(&str, u32)> {
    let (before, _) = text.split_once(" due to hardware memory corruption")?;
    let named = before.split_once("Sending SIGBUS to ").or_else(|| before.split_once("illing "))?.1;
    let (process, pid) = named.rsplit_once(':')?;
    Some((process, pid.parse().ok()?))
}

/// Returns the row of an event.
pub fn row_of(event: &KernelEvent) -> Option<&'static HostLine> {
    if !matches!(event.kind, Kind::Nic | Kind::Host) {
        return None;
    }
    let name = event.sub_code.as_deref()?.split(' ').next()?;
    ROWS.iter().find(|row| row.name == name)
}

/// Returns whether an event ends the state of another event: the same device works again.
pub fn ends(end: &KernelEvent, event: &KernelEvent) -> bool {
    let device = |event: &KernelEvent| (event.details.get("device").cloned(), event.pci_address.clone());
    let ended_by = row_of(event).and_then(|row| row.ended_by);
    ended_by.is_some()
        && row_of(end).map(|row| row.name) == ended_by
        && end.boot_id == event.boot_id
        && device(end) == device(event)
}

/// Kinds of events about a GPU that the driver could not initialize.
const NOT_INITIALIZED: [Kind; 4] = [Kind::RmInitFailed, Kind::ProbeFailed, Kind::NotSupported, Kind::BarUnassigned];

/// Drops events without a finding, unless they end another event or explain why a GPU was not initialized.
pub(super) fn drop_unneeded_ends(events: Vec<(u64, KernelEvent)>) -> Vec<(u64, KernelEvent)> {
    let is_initialized = !events.iter().any(|(_, event)| NOT_INITIALIZED.contains(&event.kind));
    let needed = |event: &KernelEvent| match row_of(event) {
        Some(HostLine { finding: None, lasts: Lasts::UntilBoot, .. }) => !is_initialized,
        Some(HostLine { finding: None, .. }) => events.iter().any(|(_, other)| ends(event, other)),
        _ => true,
    };
    let keep: Vec<bool> = events.iter().map(|(_, event)| needed(event)).collect();
    events.into_iter().zip(keep).filter_map(|(event, keep)| keep.then_some(event)).collect()
}
