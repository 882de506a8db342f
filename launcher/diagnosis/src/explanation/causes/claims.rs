//! `judge`: lists the causes that are ruled out for a pod, such as its GPUs. `sections_not_read`: the sections about
//! GPUs that were not read. `concerns`: the findings that concern the pod. `named`, `join`: the finding about the
//! device that a message names.
//!
//! The GPUs are ruled out only if all facts about them were read, and no event or finding contradicts this.

use crate::explanation::causes::{Case, effects, finding_quote, is_fault, line};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Finding, Scope};
use crate::messages::subjects;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kubernetes::pod::ContainerState;
use syringe_core::pci::PciAddress;
use syringe_core::report::Section;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

/// Source of facts in entries about the GPUs and the node of a pod.
pub(super) const GPU: &str = "gpu";
const LOG: &str = "xid";

/// Maximum number of contradictions in one entry.
const SHOWN: usize = 3;

/// A claim, the facts that contradict it, and the reason why it cannot be made.
struct Claim {
    says: String,
    against: Vec<String>,
    unread: Option<String>,
}

impl Claim {
    fn new(says: impl Into<String>) -> Self {
        Self { says: says.into(), against: Vec::new(), unread: None }
    }
}

/// Returns the causes that were ruled out, and the causes that could not be ruled out.
pub(super) fn judge(case: &Case<'_>, unread_reason: Option<&str>) -> (Vec<String>, Vec<Unknown>) {
    let (mut ruled_out, mut unknown) = (Vec::new(), Vec::new());
    if case.unread {
        let can_have_gpus = case.pod.wants_gpus || case.pod.is_gpu_stack || !case.pod.other_resources.is_empty();
        if let Some(why) = unread_reason.filter(|_| case.pod.node.is_some() && can_have_gpus) {
            unknown
                .push(Unknown::new("node", format!("GPU or driver fault not ruled out: the node was not read: {why}")));
        }
        return (ruled_out, unknown);
    }
    let Claim { says, against, unread } = about_gpu(case);
    let reasons: Vec<String> = against.into_iter().take(SHOWN).chain(unread).collect();
    match reasons.is_empty() {
        true => ruled_out.push(says),
        false => unknown.push(Unknown::new(GPU, format!("GPU fault not ruled out: {}", reasons.join("; ")))),
    }
    if !case.on_node.log_covers {
        unknown.push(Unknown::new(LOG, "the kernel log does not cover the start of the pod"));
    }
    (ruled_out, unknown)
}

/// Returns the claim that no GPU of the pod has a fault.
fn about_gpu(case: &Case<'_>) -> Claim {
    let on_node = case.on_node;
    let mut claim;
    if on_node.addresses.is_empty() && !case.pod.wants_gpus {
        claim = Claim::new("GPU: this pod requests no GPU");
        claim.against = events_in_words(&on_node.own_events, "");
    } else if case.node_has_none {
        claim = Claim::new("");
        claim.unread = Some("the node lists no GPU".to_owned());
    } else {
        let count =
            case.report.and_then(|report| Section::data_of(&report.sections.inventory)).map(|read| read.gpus.len());
        claim = if on_node.addresses.is_empty() {
            let count = count.unwrap_or(0);
            let mut claim = Claim::new(format!(
                "GPU: none of the {count} GPUs of the node has a fault; which of them the pod got is not known"
            ));
            claim.unread = (count == 0).then(|| "the kubelet has no record of which GPU this pod got".to_owned());
            claim
        } else {
            // If the log does not cover the run of the pod, nothing is known about Xids.
            let log = if on_node.log_covers { "no Xid of a GPU fault and " } else { "" };
            Claim::new(format!("GPU: {log}no finding on its GPUs{}", others(case)))
        };
        claim.unread = claim.unread.or_else(|| {
            let sections = sections_not_read(case);
            (!sections.is_empty()).then(|| format!("not everything about the GPUs was read: {}", sections.join(", ")))
        });
        claim.against = events_in_words(&on_node.own_events, "");
        claim.against.extend(events_in_words(&on_node.node_events, " (on the node)"));
        claim.against.extend(events_in_words(&on_node.earlier_events, " (before this run)"));
        claim.against.extend(events_in_words(&on_node.later_events, " (after its end)"));
        // Findings about the advertising of GPUs or the access of containers to GPUs are not about the GPUs themselves.
        let of_gpu = |finding: &&&Finding| {
            let of_node = finding.class != Class::Application && !effects::stops_starts(finding);
            let may_be_of_gpu = !finding.addresses.is_empty() || of_node;
            case.is_on_its_gpus(finding) || may_be_of_gpu && !effects::is_elsewhere(finding)
        };
        let found = concerns(case);
        claim.against.extend(found.iter().filter(of_gpu).map(|finding| finding_quote(finding)));
    }
    claim
}

/// Returns the severe findings about other GPUs of the node. The claim about the pod's GPUs does not exclude them.
fn others(case: &Case<'_>) -> String {
    let elsewhere = |finding: &&Finding| !finding.addresses.is_empty() && !case.is_on_its_gpus(finding);
    let mut ids: Vec<&str> = case.severe_findings().filter(elsewhere).map(|finding| finding.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    match ids.is_empty() {
        true => String::new(),
        false => format!("; other GPUs of its node have findings: {}", ids.join(", ")),
    }
}

/// Sections with facts about the GPUs.
const OF_GPUS: [SectionName; 6] = [
    SectionName::Inventory,
    SectionName::Telemetry,
    SectionName::Topology,
    SectionName::Ecc,
    SectionName::Mig,
    SectionName::Xid,
];

/// Returns the sections about GPUs that could not be read, or were read only in part.
pub(super) fn sections_not_read(case: &Case<'_>) -> Vec<&'static str> {
    let unknown = case.diagnosis.map(|diagnosis| diagnosis.unknown.as_slice()).unwrap_or_default();
    let of_gpus = OF_GPUS.into_iter().filter(|section| unknown.iter().any(|unknown| unknown.is_of(*section)));
    of_gpus.map(SectionName::as_str).collect()
}

fn events_in_words(events: &[syringe_core::facts::kernel_log::KernelEvent], note: &str) -> Vec<String> {
    events.iter().filter(|event| is_fault(event)).map(|event| format!("{}{note}", line(event))).collect()
}

/// Returns the findings of severity warning or higher that concern the pod, its GPUs, its switches or its node.
pub(super) fn concerns<'c>(case: &'c Case<'_>) -> Vec<&'c Finding> {
    let own = |finding: &&Finding| {
        let Scope { node: _, gpu, uuid, pci, pid, pod_uid, pod: _ } = &finding.scope;
        let of_pod = pod_uid.as_ref() == Some(&case.pod.uid);
        let of_process = pid.is_some_and(|pid| case.on_node.pids.contains(&pid));
        let of_gpu = case.is_on_own_gpu(finding);
        let names_gpu = gpu.is_some() || uuid.is_some() || !finding.addresses.is_empty();
        let gpu_unknown = case.on_node.addresses.is_empty() && names_gpu;
        let of_switch = case.is_of_switch(finding);
        let of_node = !names_gpu && pci.is_none();
        let of_another = (pid.is_some() || pod_uid.is_some()) && !of_gpu;
        of_pod || of_process || ((of_gpu || of_switch || of_node || gpu_unknown) && !of_another)
    };
    let needs_gpus = case.pod.wants_gpus || case.pod.is_gpu_stack || !case.on_node.addresses.is_empty();
    case.all_findings().filter(|finding| needs_gpus && finding.severity > Severity::Info).filter(own).collect()
}

/// Minimum length of a name that is compared between a message and a finding.
const MIN_NAME: usize = 5;

/// Returns the finding above `info` about a device that a message names: a network device, an interface, a PCI address
/// or a UUID.
pub(super) fn named<'c>(case: &'c Case<'_>, message: &str) -> Option<&'c Finding> {
    let names: Vec<&str> = words(message).filter(|word| is_identity(word)).collect();
    let has = |finding: &&Finding| {
        finding.evidence.iter().any(|line| words(line).any(|word| is_identity(word) && names.contains(&word)))
    };
    case.all_findings().filter(|finding| finding.severity > Severity::Info).find(has)
}

/// Adds the finding of the node that is about the same device as a message of the pod, unless the explanation already
/// names it.
pub(super) fn join(case: &Case<'_>, explanation: &mut Explanation) {
    if explanation.cause == Cause::None {
        return;
    }
    let pod = case.pod;
    let waits = pod.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting { message, .. } => Some(message.as_str()),
        _ => None,
    });
    let warnings = pod.events.iter().filter(|event| event.warning).map(|event| event.message.as_str());
    let ends = case.failed().map(|end| end.message);
    let messages: Vec<&str> =
        waits.chain(warnings).chain(ends).chain(pod.log_lines.iter().map(String::as_str)).collect();
    let is_same = |finding: &&Finding| {
        let is_subject = |message: &&str| subjects::is_about(message, &finding.id) || is_of_server(message, finding);
        finding.severity > Severity::Info && messages.iter().any(is_subject)
    };
    let Some(finding) = case.all_findings().find(is_same) else { return };
    if explanation.summary.contains(&finding.title) {
        return;
    }
    let action = case.action_for(finding);
    let summary = explanation.summary.trim_end_matches('.');
    explanation.summary =
        format!("{summary}; a finding of its node is about the same subject: {}.", finding.headline());
    if !explanation.action.text.contains(&action.text) {
        explanation.action.text = format!("{} {}", action.text, explanation.action.text).trim_end().to_owned();
    }
    if matches!(explanation.cause, Cause::Unknown) {
        (explanation.cause, explanation.certainty) = (Cause::Node, Certainty::Likely);
    }
}

/// Prefix of the ids of findings about the pod of a DaemonSet on the node.
const OF_DAEMON: &str = "daemonset-pod-";

/// Words in socket paths that do not identify the server.
const OF_SOCKETS: [&str; 9] =
    ["kubelet", "plugin", "plugins", "device", "socket", "sock", "registry", "containerd", "nvidia"];

/// Returns whether a message names a socket, and a finding is about the pod of a DaemonSet that has the name of its
/// server: `…/multus.sock: connect: connection refused`, and the pod of `kube-multus-ds`.
fn is_of_server(message: &str, finding: &Finding) -> bool {
    if !finding.id.starts_with(OF_DAEMON) {
        return false;
    }
    let sockets = message.split([' ', '"', '\'', '`', ':', ',']).filter_map(|token| token.strip_suffix(".sock"));
    let parts = sockets.flat_map(|path| path.rsplit('/').next()).flat_map(|name| name.split(['-', '.', '_']));
    let mut names = parts.filter(|name| name.len() > 2 && !OF_SOCKETS.contains(name));
    let told = |name: &str| {
        let of_name = |text: &str| words(text).any(|word| word.split(['-', '.']).any(|part| part == name));
        of_name(&finding.title) || finding.evidence.iter().any(|line| of_name(line))
    };
    names.any(told)
}

/// Returns the words of a text. The number of a port follows the name of its device: `mlx5_5:1`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|one: char| one.is_whitespace() || "()[]{},;/\"'=<>".contains(one));
    parts.map(|word| word.trim_matches(['.', ':'])).map(|word| match word.split_once(':') {
        Some((device, port)) if device.contains('_') && port.bytes().all(|byte| byte.is_ascii_digit()) => device,
        _ => word,
    })
}

/// Returns whether a word identifies one device: `mlx5_5`, `0000:5d:00.0`, `GPU-5f1c…`.
fn is_identity(word: &str) -> bool {
    let numbered = word.len() >= MIN_NAME
        && word.ends_with(|last: char| last.is_ascii_digit())
        && word.split_once('_').is_some_and(|(kind, number)| {
            kind.starts_with(|first: char| first.is_ascii_lowercase())
                && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
    numbered || PciAddress::parse(word).is_some() && word.contains('.') || (word.starts_with("GPU-") && word.len() > 12)
}
