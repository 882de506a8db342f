//! `parse`: parses an SXid line of the NVSwitch driver: switch, code, link and severity (fatal or non-fatal).
//!
//! Format: `nvidia-nvswitchN: SXid (PCI:dddd:bb:dd.f): CODE, Fatal|Non-fatal, Link NN TEXT`.
//!
//! Source: the NVSwitch part of the open GPU kernel modules 595.45.04. For one error, the driver also prints lines with
//! severity, engine numbers and raw data; only lines of the format above are counted. The lines of some codes
//! do not contain the word Fatal or Non-fatal.

use crate::facts::kernel_log::KernelEventKind;
use crate::pci::PciAddress;

use crate::kernel_log::line::{Line, Parsed};
use crate::kernel_log::scan::{after, between, decimal, decimal_after};

/// Parses one SXid line.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let (switch, rest) = decimal(text.strip_prefix("nvidia-nvswitch")?)?;
    let rest = rest.strip_prefix(": SXid (")?;
    let (place, rest) = rest.split_once("): ")?;
    let (code, rest) = decimal(rest)?;
    let mut line = Line { pci: Some(PciAddress::parse(place)?), ..Line::of(KernelEventKind::Sxid) };
    line.code = Some(u32::try_from(code).ok()?);
    line.put("nvswitch", switch.to_string());
    // A number at the end of a truncated line can lack digits.
    let rest = rest.strip_prefix(',')?.trim_start();
    if rest.starts_with("Severity ") || rest.starts_with("Data ") {
        return Some(Parsed::Companion(companion(rest, line)));
    }
    Some(Parsed::Event(error(rest, line)))
}

fn error(text: &str, mut line: Line) -> Line {
    let (word, rest) = text.split_once(", ").unwrap_or((text, ""));
    let known = matches!(word, "Fatal" | "Non-fatal");
    line.put_some("nv_severity", known.then_some(word));
    let rest = if known { rest } else { text };
    let link = rest.strip_prefix("Link ").and_then(decimal);
    line.put_some("link", link.map(|(number, _)| number));
    let words = link.map_or(rest, |(_, rest)| rest.trim_start());
    line.put("first", words.ends_with("(First)").to_string());
    line.put("words", words.trim_end_matches("(First)"));
    let place = link.map(|(number, _)| format!("link {number}"));
    line.sub_code = match (place, word) {
        (Some(place), "Fatal") => Some(format!("{place} fatal")),
        (None, "Fatal") => Some("fatal".to_owned()),
        (place, _) => place,
    };
    line
}

fn companion(text: &str, mut line: Line) -> Line {
    line.put_some("sev_number", decimal_after(text, "Severity "));
    line.put_some("engine", decimal_after(text, "Engine instance "));
    line.put_some("subengine", decimal_after(text, "Sub-engine instance "));
    line.put_some("data", between(text, "{", "}").or_else(|| after(text, "Data ")));
    line
}
