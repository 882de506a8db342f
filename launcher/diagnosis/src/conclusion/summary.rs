//! `write`: writes the summary of a diagnosis: the worst finding, or the checked facts if there is no finding, and what
//! was not read.

use std::collections::BTreeSet;

use crate::conclusion::merge::Concluded;
use crate::conclusion::ruled_out::{
    FaultsRuledOut, NVLINK_FAULT, OVERHEATING, PENDING_REPAIR, RECOVERY_ACTION, THROTTLING, UNCORRECTED,
};
use crate::conclusion::unknown;
use crate::evidence;
use crate::finding::Verdict;
use crate::input::node::{Node, OF_NVML};
use crate::input::{cuda, log_window, xids};
use crate::rule::About;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

/// Writes the summary of a diagnosis.
pub(crate) fn write(node: &Node<'_>, verdict: Verdict, concluded: &[Concluded], faults: &FaultsRuledOut) -> String {
    let notable: Vec<&Concluded> =
        concluded.iter().filter(|concluded| concluded.finding.severity > Severity::Info).collect();
    let text = match (notable.first(), verdict) {
        (Some(worst), _) => worst_first(node, worst, &notable),
        (None, Verdict::Healthy | Verdict::NoFaultFound) => checked(node, concluded, faults),
        (None, _) => undecided(node, concluded),
    };
    let unread = notable.first().and_then(|_| unread_inputs(node));
    std::iter::once(text)
        .chain(unreached(node))
        .chain(cuda::started(node))
        .chain(coverage(node, verdict))
        .chain(unread)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns a sentence about a node on which no probe can run.
fn unreached(node: &Node<'_>) -> Option<String> {
    let nothing = node.kubernetes.no_probe.is_some() || node.kubernetes.no_node;
    nothing.then(|| "Nothing was read on the node: this diagnosis uses only data from Kubernetes.".to_owned())
}

/// Returns a sentence about Kubernetes data that was not read, because this data may show a more severe fault than the
/// findings.
fn unread_inputs(node: &Node<'_>) -> Option<String> {
    let names: BTreeSet<&str> = node.kubernetes.unread.iter().map(|unread| unread.input.section()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    (!names.is_empty())
        .then(|| format!("Not read in Kubernetes: {}; findings that need this data are missing.", names.join(", ")))
}

/// Returns a sentence about the sections that were checked, if not all were.
fn coverage(node: &Node<'_>, verdict: Verdict) -> Option<String> {
    let in_part = node.partly_checked();
    let named = |section: SectionName| match in_part.contains(&section) {
        true => format!("{section} (in part)"),
        false => section.to_string(),
    };
    let checked: Vec<String> = node.checked().into_iter().map(named).collect();
    let (last, before) = checked.split_last()?;
    // Failed sections are listed elsewhere, but a verdict without findings must name them.
    let all_asked = unknown::not_requested(node).is_empty();
    if unknown::unchecked_sections(node).is_empty() || all_asked && verdict != Verdict::NoFaultFound {
        return None;
    }
    let (names, were) = match before {
        [] => (last.clone(), "was"),
        _ => (format!("{} and {last}", before.join(", ")), "were"),
    };
    Some(format!("Only {names} {were} checked. The rest of the node was not checked."))
}

fn worst_first(node: &Node<'_>, worst: &Concluded, notable: &[&Concluded]) -> String {
    // The GPU next to a network port has no fault.
    let place = if worst.place.is_empty() || worst.about == About::Network {
        String::new()
    } else {
        format!("{}: ", worst.place)
    };
    let age = evidence::ago(node.now, worst.when).map(|age| format!(", {age}")).unwrap_or_default();
    let fact = first_fact(worst).map(|fact| format!(" ({fact})")).unwrap_or_default();
    let first = evidence::capitalized(&format!("{place}{}{fact}{age}.", worst.finding.headline()));
    let mut rest = Vec::new();
    if notable.len() > 1 {
        let mut others: Vec<&str> = notable.iter().skip(1).map(|other| other.finding.id.as_str()).collect();
        others.dedup();
        let named = others.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if others.len() > 3 { ", …" } else { "" };
        rest.push(format!("{}: {named}{more}", evidence::count(notable.len() - 1, "more finding")));
    }
    rest.extend(responding(node));
    if rest.is_empty() { first } else { format!("{first} {}.", evidence::capitalized(&rest.join("; "))) }
}

/// Maximum length of a fact in the summary.
const FACT: usize = 160;

/// Returns the first fact of the evidence, if no reason is known: a title alone does not name what is faulty. The
/// summary has the GPUs and the age already.
fn first_fact(worst: &Concluded) -> Option<String> {
    let fact = worst.finding.evidence.first().filter(|_| worst.finding.reason.is_none())?;
    let (before, fact) = fact.split_at(fact.find(EVENT).unwrap_or(0));
    // The sentence has the GPU and the age already.
    let meaning = if before.starts_with("GPU") { "" } else { before };
    let event = fact.starts_with(EVENT).then(|| fact.split_once(": ")).flatten();
    let fact = event.map_or(fact.strip_prefix(&format!("{}: ", worst.place)).unwrap_or(fact), |(_, event)| event);
    Some(clean(&format!("{meaning}{}", fact.replacen(" (1 time)", "", 1)), FACT))
}

/// Start of a line of evidence about a kernel event: `kernel TIME: `.
const EVENT: &str = "kernel 20";

/// Formats the number of responding GPUs: `all 8 GPUs (NVIDIA H100 80GB HBM3) respond`, `7 of 8 GPUs (…) respond`.
fn responding(node: &Node<'_>) -> Option<String> {
    // If no NVML section was requested, it is not known which GPUs respond.
    if OF_NVML.iter().all(|section| node.report.sections.get(*section).status().is_none()) {
        return None;
    }
    node.listed().next()?;
    let names: BTreeSet<&str> = node.listed().filter_map(|gpu| gpu.name.as_deref()).collect();
    let product = match names.len() {
        1 => names.first().map(|name| format!(" ({name})")).unwrap_or_default(),
        _ => String::new(),
    };
    let (responding, listed) = (node.answering().count(), node.listed().count());
    if responding == 0 && node.is_passed_through() {
        return Some("only the virtual machines can read the state of the GPUs".to_owned());
    }
    Some(match (responding, listed) {
        (1, 1) => format!("the GPU{product} responds"),
        (0, 1) => format!("the GPU{product} does not respond"),
        (responding, listed) if responding == listed => format!("all {listed} GPUs{product} respond"),
        (0, listed) => format!("none of {listed} GPUs{product} responds"),
        (1, listed) => format!("1 of {listed} GPUs{product} responds"),
        (responding, listed) => format!("{responding} of {listed} GPUs{product} respond"),
    })
}

/// Returns the names of the faults that were checked without a finding. Only faults whose facts were read are named.
fn checked(node: &Node<'_>, concluded: &[Concluded], faults: &FaultsRuledOut) -> String {
    let mut parts: Vec<String> = responding(node).into_iter().collect();
    let mut clean = faults.ruled_out.clone();
    let of_host = |problem: &syringe_core::report::Problem| problem.gpu.is_none();
    let all_read = !node.report.sections.get(SectionName::Host).problems().iter().any(of_host);
    if all_read && node.host().is_some_and(|host| host.driver.loaded.is_some()) {
        clean.push(DRIVER_PROBLEM);
    }
    let unread = unread_lines(node) > 0;
    clean.retain(|fault| !(is_contradicted(node, fault) || unread && *fault == DRIVER_PROBLEM));
    parts.extend(log(node));
    if !clean.is_empty() {
        parts.push(format!("no {}", clean.join(", no ")));
    }
    let mut notes: Vec<&str> = concluded.iter().map(|note| note.finding.id.as_str()).collect();
    notes.dedup();
    if !notes.is_empty() {
        parts.push(format!("informational findings: {}", notes.join(", ")));
    }
    if parts.is_empty() {
        "No fault was found in the sections that were read.".to_owned()
    } else {
        evidence::capitalized(&format!("{}.", parts.join("; ")))
    }
}

const DRIVER_PROBLEM: &str = "driver problem";

/// A claim `no …` in the summary, with the kernel events that contradict it.
struct Claim {
    words: &'static str,
    /// Whether a past event also contradicts the claim. False for a claim about a current value, or about the time
    /// since the driver was loaded.
    of_past: bool,
    contradicted_by: fn(&KernelEvent) -> bool,
}

/// The claims that a kernel event can contradict, even if the event no longer leads to a finding.
const CLAIMS: [Claim; 7] = [
    Claim {
        words: DRIVER_PROBLEM,
        of_past: true,
        contradicted_by: |event| match event.kind {
            Kind::GspFailed
            | Kind::GspRateLimit
            | Kind::RmInitFailed
            | Kind::ProbeFailed
            | Kind::Uvm
            | Kind::Assertion
            | Kind::Iommu
            | Kind::PeermemError => true,
            _ => xids::class(event) == Some(Class::Driver),
        },
    },
    Claim {
        words: NVLINK_FAULT,
        of_past: true,
        contradicted_by: |event| {
            matches!(event.kind, Kind::NvlinkInitFailed | Kind::Sxid)
                || event.is_xid(&xids::NVLINK)
                || xids::class(event) == Some(Class::Fabric)
        },
    },
    Claim { words: UNCORRECTED, of_past: false, contradicted_by: |event| event.is_xid(&xids::UNCORRECTED_MEMORY) },
    Claim { words: PENDING_REPAIR, of_past: false, contradicted_by: |event| event.is_xid(&xids::REPAIR) },
    Claim { words: RECOVERY_ACTION, of_past: false, contradicted_by: xids::recommends_recovery },
    Claim {
        words: THROTTLING,
        of_past: false,
        contradicted_by: |event| matches!(xids::class(event), Some(Class::Power | Class::Thermal)),
    },
    Claim { words: OVERHEATING, of_past: false, contradicted_by: |event| xids::class(event) == Some(Class::Thermal) },
];

/// Returns whether an event in the time window of the log contradicts `no {fault}`.
fn is_contradicted(node: &Node<'_>, fault: &str) -> bool {
    let Some(claim) = CLAIMS.iter().find(|claim| claim.words == fault) else { return false };
    let mut events = node.timeline.events.iter().filter(|event| claim.of_past || event.history.is_none());
    events.any(|event| (claim.contradicted_by)(event.fact))
}

/// Returns the number of driver lines that were not recognized.
fn unread_lines(node: &Node<'_>) -> u64 {
    let logs = node.kernel_log().map(|log| log.coverage.as_slice()).unwrap_or_default();
    logs.iter().fold(0, |sum, log| sum.saturating_add(log.unread_lines))
}

/// Summarizes the Xids in the kernel log: `no Xid since 2026-11-19T08:00:12Z`.
fn log(node: &Node<'_>) -> Option<String> {
    node.kernel_log()?;
    let asked = node.kernel_log().and_then(|log| log.since);
    let in_window = |event: &KernelEvent| asked.is_none_or(|asked| event.last.is_none_or(|last| last >= asked));
    let read_from = log_window::covered_since(node).map(|since| format!(" since {}", evidence::time(since)));
    // If the window contains past Xids, the period in the text begins after these Xids.
    let past = node.timeline.events.iter().filter(|event| event.fact.kind == Kind::Xid && in_window(event.fact));
    let past = past.rev().find_map(|event| event.history);
    let mut since = past.map(|past| past.replacen("before", " since", 1)).or(read_from).unwrap_or_default();
    match unread_lines(node) {
        0 => {}
        1 => since.push_str(" (1 line of a driver was not recognized)"),
        lines => since.push_str(&format!(" ({lines} lines of drivers were not recognized)")),
    }
    // The omitted events may be Xids.
    if node.kernel_log().is_some_and(|log| log.events_omitted > 0) {
        return None;
    }
    let counts = |event: &&KernelEvent| matches!(event.kind, Kind::Xid | Kind::Sxid) && in_window(event);
    let found: Vec<&KernelEvent> = node.timeline.current().filter(counts).collect();
    let other: Vec<&&KernelEvent> = found.iter().filter(|event| !xids::is_application_or_info(event)).collect();
    if found.is_empty() {
        return Some(format!("no Xid{since}"));
    }
    if other.is_empty() {
        return Some(format!("no hardware or driver Xid{since}"));
    }
    // The summary also names errors that no longer lead to a finding.
    let mut names: Vec<String> = Vec::new();
    for event in other.iter().rev() {
        let age = evidence::ago(node.now, event.last).map(|age| format!(" ({age})")).unwrap_or_default();
        let name = evidence::event_name(event);
        if !names.iter().any(|known| known.split(" (").next() == Some(name.as_str())) {
            names.push(format!("{name}{age}"));
        }
    }
    let more = if names.len() > NAMED { ", …" } else { "" };
    names.truncate(NAMED);
    Some(format!("logged, no longer active: {}{more}", names.join(", ")))
}

/// Maximum number of Xids in a summary.
const NAMED: usize = 3;

fn undecided(node: &Node<'_>, concluded: &[Concluded]) -> String {
    if node.listed().next().is_none() && node.host().is_some() {
        return format!("No NVIDIA GPU was found on {}.", node.name);
    }
    if node.shows_no_gpu() {
        return format!(
            "Kubernetes shows no NVIDIA GPU on {}: no resource, no label and no pod of NVIDIA's software. The node itself was not read.",
            node.name
        );
    }
    let mut parts: Vec<String> = responding(node).into_iter().collect();
    let failed: Vec<&str> = node
        .report
        .sections
        .statuses()
        .into_iter()
        .filter(|(_, status)| *status != syringe_core::report::Status::Ok)
        .map(|(name, _)| name.as_str())
        .collect();
    let inputs = node.kubernetes.unread.iter().map(|unread| unread.input.section());
    let mut failed: Vec<&str> = failed.into_iter().chain(inputs).collect();
    failed.dedup();
    if !failed.is_empty() {
        parts.push(format!("not read or read in part: {}", failed.join(", ")));
    }
    let short = log_window::why_too_short(node);
    let is_repeated = |note: &Concluded| short.as_ref().is_some_and(|short| note.finding.evidence.contains(short));
    let mut notes: Vec<String> =
        concluded.iter().filter(|note| !is_repeated(note)).map(|note| note.finding.headline()).collect();
    parts.extend(short);
    notes.dedup();
    parts.extend(notes.into_iter().take(3));
    if parts.is_empty() {
        return "No section could be read.".to_owned();
    }
    // Each part becomes a sentence, so it begins with a capital letter.
    let sentences: Vec<_> = parts.iter().map(|part| evidence::capitalized(part)).collect();
    format!("The node cannot be called healthy, because not enough was read. {}.", sentences.join(". "))
}
