//! `parse`, `parse_key`: parse an Xid line: PCI address, MIG ids, code, process, and its details or only its sub-code.
//!
//! Format: `NVRM: Xid (PCI:dddd:bb:dd[ GPU-I:nn[ GPU-CI:nn]]): CODE, [pid=P, [name=N, ]]TEXT`.
//!
//! Source: the print functions of the open GPU kernel modules 595.45.04; lines of older drivers from public reports
//! (no `PCI:`, no pid, pid without name, a quoted `<unknown>`, truncated lines). The parser is strict: a line without a
//! valid address and a complete number is not an Xid.

use crate::facts::kernel_log::KernelEventKind;
use crate::pci::PciAddress;

use crate::kernel_log::line::Line;
use crate::kernel_log::{scan, xid_text};

/// Parses one Xid line with its details.
pub(super) fn parse(text: &str) -> Option<Line> {
    frame(text, true)
}

/// Parses one Xid line, but only the sub-code of its text.
pub(super) fn parse_key(text: &str) -> Option<Line> {
    frame(text, false)
}

fn frame(text: &str, with_details: bool) -> Option<Line> {
    let rest = text.strip_prefix("NVRM: Xid (")?;
    let (place, rest) = rest.split_once(')')?;
    let rest = rest.strip_prefix(": ")?;
    let mut place = place.split(' ');
    let mut line = Line { pci: Some(PciAddress::parse(place.next()?)?), ..Line::of(KernelEventKind::Xid) };
    for id in place {
        let (name, number) = id.split_once(':')?;
        match name {
            "GPU-I" => line.gpu_instance = Some(number.parse().ok()?),
            "GPU-CI" => line.compute_instance = Some(number.parse().ok()?),
            _ => {}
        }
    }
    let (code, rest) = scan::decimal(rest)?;
    let code = u32::try_from(code).ok()?;
    line.code = Some(code);
    // A number at the end of a truncated line can lack digits: `7` of `79`.
    let rest = rest.strip_prefix(',')?.trim_start();
    let message = process(rest, &mut line);
    if with_details {
        xid_text::read(code, message, &mut line);
    } else {
        line.sub_code = xid_text::sub_code(code, message);
    }
    Some(line)
}

/// Parses `pid=P, name=N, `. Both can be missing, unknown or truncated. Returns the rest.
fn process<'a>(text: &'a str, line: &mut Line) -> &'a str {
    let Some(rest) = text.strip_prefix("pid=") else { return text };
    let (pid, rest) = rest.split_once(',').unwrap_or((rest, ""));
    // Old drivers print pid=0 if the pid is not known.
    line.pid = pid.trim().parse().ok().filter(|&pid| pid > 0);
    let rest = rest.trim_start();
    let Some(rest) = rest.strip_prefix("name=") else { return rest };
    // A name may contain colons, brackets, spaces, and commas without a space. The name ends at ", ".
    let (name, rest) = scan::split_list(rest).unwrap_or((rest.trim_end_matches(','), ""));
    line.set_process(name);
    rest
}
