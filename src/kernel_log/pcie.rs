//! `parse`, `old_probe`: parse PCI Express lines of the kernel: AER, port containment (DPC), links, failed probes.
//!
//! Source: `drivers/pci/pcie/aer.c`, `drivers/pci/hotplug/pciehp_*.c` and `drivers/pci/pci.c` of the kernel. The device
//! in a line is often the port above the GPU; `join_gpus` finds the GPU.

use crate::facts::kernel_log::KernelEventKind as Kind;

use crate::kernel_log::line::{Line, Part, address_after, leading_address};
use crate::kernel_log::scan::{after, between};
use crate::pci::PciAddress;

/// Parses `DRIVER dddd:bb:dd.f: …`.
pub(super) fn parse(text: &str) -> Option<Line> {
    let (driver, rest) = text.split_once(' ')?;
    let (reporter, rest) = leading_address(rest)?;
    // Newer kernels print `AER: PCIe Bus Error: …`.
    let bus = rest.strip_prefix("AER: ").unwrap_or(rest).strip_prefix("PCIe Bus Error: ");
    let mut line = if let Some(rest) = bus {
        bus_error(rest)
    } else if let Some(rest) = rest.strip_prefix("AER: ") {
        aer(rest)?
    } else if let Some(rest) = rest.strip_prefix("DPC: ") {
        containment(rest)?
    } else if let Some(line) = probe(rest) {
        line
    } else {
        link(driver, rest)?
    };
    // The source is a bus, device and function in the domain of the port.
    let domain = reporter.domain_and_bus().map(|(domain, _)| domain);
    if let Some((domain, source)) =
        domain.zip(line.details.get("source").and_then(|id| u32::from_str_radix(id, 16).ok()))
    {
        line.pci.get_or_insert(PciAddress::new(domain, source >> 8, source >> 3 & 0x1f, source & 7));
    }
    line.put("reporter", reporter.as_str());
    line.pci.get_or_insert(reporter);
    Some(line)
}

/// Parses `probe with driver nvidia failed with error -1` (kernels from 6.9 on).
fn probe(rest: &str) -> Option<Line> {
    let error = rest.strip_prefix("probe with driver nvidia failed with error ")?;
    let mut line = Line::of(Kind::ProbeFailed);
    line.put("outcome", "failed");
    line.put_some("error", crate::kernel_log::scan::signed(error).map(|(number, _)| number));
    line.sub_code = Some("failed".to_owned());
    Some(line)
}

/// Parses `nvidia: probe of 0000:01:00.0 failed with error -1`.
pub(super) fn old_probe(text: &str) -> Option<Line> {
    let (pci, rest) = leading_address(text.strip_prefix("nvidia: probe of ")?)?;
    let line = probe(&format!("probe with driver nvidia {rest}"))?;
    Some(Line { pci: Some(pci), ..line })
}

/// Parses `severity=Uncorrected (Fatal), type=Transaction Layer, (Requester ID)`.
fn bus_error(rest: &str) -> Line {
    let mut line = Line { part: Part::Detail, ..Line::of(Kind::Aer) };
    let severity = after(rest, "severity=").map(|rest| rest.split(',').next().unwrap_or(rest));
    line.put_some("aer_severity", severity);
    line.put_some("aer_type", after(rest, "type=").map(|rest| rest.split(',').next().unwrap_or(rest)));
    line.put_some("agent", between(rest, ", (", ")"));
    line.sub_code = severity.and_then(severity_word).map(str::to_owned);
    line
}

/// Parses `[Multiple ]Uncorrected (Fatal) error received: ID`, `can't recover (…)`, `device recovery failed`.
fn aer(rest: &str) -> Option<Line> {
    let mut line = Line::of(Kind::Aer);
    if rest.contains("can't recover") {
        line.put("recovery", "impossible");
        line.sub_code = Some("cannot_recover".to_owned());
        return Some(line);
    }
    if let Some(outcome) = after(rest, "device recovery ") {
        let failed = outcome.starts_with("failed");
        line.put("recovery", if failed { "failed" } else { "successful" });
        line.sub_code = Some(if failed { "recovery_failed" } else { "recovered" }.to_owned());
        return Some(line);
    }
    let (severity, _) = rest.split_once(" error ")?;
    let multiple = severity.strip_prefix("Multiple ");
    let severity = multiple.unwrap_or(severity);
    line.part = Part::Header;
    line.sub_code = Some(severity_word(severity)?.to_owned());
    line.put("aer_severity", severity);
    line.put("multiple", multiple.is_some().to_string());
    line.pci = address_after(rest, "received: ").or_else(|| address_after(rest, "received from "));
    Some(line)
}

/// Parses lines about Downstream Port Containment: the port has disabled its link because of an error below it. Source:
/// `drivers/pci/pcie/dpc.c` of the kernel. Devices below the port do not respond until the link is enabled again.
fn containment(rest: &str) -> Option<Line> {
    let mut line = Line::of(Kind::Aer);
    line.part = if rest.starts_with("containment event") {
        Part::Header
    } else if rest.ends_with(" detected") {
        Part::Detail
    } else {
        return None;
    };
    line.sub_code = Some("uncorrected_fatal".to_owned());
    let source =
        after(rest, "source:0x").map(|rest| rest.split(|one: char| !one.is_ascii_hexdigit()).next().unwrap_or(rest));
    line.put_some("source", source.filter(|id| id.len() == 4 && *id != "0000"));
    line.put("containment", rest.trim_end_matches(" detected"));
    Some(line)
}

/// Returns the severity. Up to 6.x the kernel prints `Corrected` and `Uncorrected`, later `Correctable` and `Uncorrectable`.
fn severity_word(severity: &str) -> Option<&'static str> {
    if severity.starts_with("Corrected") || severity.starts_with("Correctable") {
        Some("corrected")
    } else if !severity.starts_with("Uncorrect") {
        None
    } else if severity.contains("(Non-Fatal)") {
        Some("uncorrected_nonfatal")
    } else if severity.contains("(Fatal)") {
        Some("uncorrected_fatal")
    } else {
        Some("uncorrected")
    }
}

fn link(driver: &str, rest: &str) -> Option<Line> {
    let hotplug = driver == "pciehp" || rest.starts_with("pciehp: ");
    let state = if let Some((available, limit)) = rest.split_once(" available PCIe bandwidth, limited by ") {
        let mut line = Line::of(Kind::PcieLink);
        line.put("available", available);
        line.put("limited_by", limit.split(" (capable").next().unwrap_or(limit));
        line.put_some("capable", between(limit, "(capable of ", ")"));
        line.sub_code = Some("bandwidth_limited".to_owned());
        return Some(line);
    } else if rest.contains("Card not present") {
        "card_not_present"
    } else if hotplug && rest.contains("ignored (recovered by DPC)") {
        return None;
    } else if hotplug && rest.contains("Link Down") || driver == "pcieport" && rest.contains("link is down") {
        "link_down"
    } else if hotplug && rest.contains("Link Up") {
        "link_up"
    } else if hotplug && rest.to_ascii_lowercase().contains("power fault") {
        "power_fault"
    } else if hotplug && ["Button press", "Attention button", "button press"].iter().any(|words| rest.contains(words)) {
        "attention_button"
    } else if rest.contains("Unable to change power state") {
        "power_state"
    } else {
        return None;
    };
    let mut line = Line::of(Kind::PcieLink);
    line.put_some("slot", between(rest, "Slot(", ")"));
    line.sub_code = Some(state.to_owned());
    Some(line)
}
