//! Statements that something is not the cause, each with the query that can contradict it.
//!
//! A statement is made only if the query over raw events and findings has no result, and if the query could be made.

use crate::explanation::causes::{Case, finding_quote, is_fault, line};
use crate::finding::{Finding, Scope};
use syringe_core::classification::{Class, Severity};
use syringe_core::report::Section;
use syringe_core::unknown::Unknown;

/// Source of facts in entries about the GPUs and the node of a pod.
pub(super) const GPU: &str = "gpu";
const LOG: &str = "xid";

/// Maximum number of contradictions in one entry.
const SHOWN: usize = 3;

/// A statement, what contradicts it, and what would be needed to make it.
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

/// What was ruled out, and what could not be ruled out.
pub(super) fn judge(case: &Case<'_>, unread_reason: Option<&str>) -> (Vec<String>, Vec<Unknown>) {
    let (mut ruled_out, mut unknown) = (Vec::new(), Vec::new());
    if case.unread {
        if let Some(why) = unread_reason.filter(|_| case.pod.node.is_some()) {
            unknown
                .push(Unknown::new("node", format!("GPU or driver fault not ruled out: the node was not read: {why}")));
        }
        return (ruled_out, unknown);
    }
    let Claim { says, against, unread } = about_gpu(case);
    if let Some(why) = unread {
        unknown.push(Unknown::new(GPU, format!("GPU fault not ruled out: {why}")));
    } else if against.is_empty() {
        ruled_out.push(says);
    } else {
        let listed = against.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        unknown.push(Unknown::new(GPU, format!("GPU fault not ruled out: {listed}")));
    }
    if !case.on_node.log_covers {
        unknown.push(Unknown::new(LOG, "the kernel log does not cover the start of the pod"));
    }
    (ruled_out, unknown)
}

/// The statement that no GPU of the pod has a fault.
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
            Claim::new("GPU: no Xid of a GPU fault in the kernel log, and no finding on its GPUs")
        };
        claim.against = events_in_words(&on_node.own_events, "");
        claim.against.extend(events_in_words(&on_node.node_events, " (on the node)"));
        claim.against.extend(events_in_words(&on_node.earlier_events, " (before this run)"));
        claim.against.extend(events_in_words(&on_node.later_events, " (after its end)"));
        let of_gpu = |finding: &&&Finding| !finding.addresses.is_empty() || finding.class != Class::Application;
        let found = concerns(case);
        claim.against.extend(found.iter().filter(of_gpu).map(|finding| finding_quote(finding)));
    }
    claim
}

fn events_in_words(events: &[syringe_core::facts::kernel_log::KernelEvent], note: &str) -> Vec<String> {
    events.iter().filter(|event| is_fault(event)).map(|event| format!("{}{note}", line(event))).collect()
}

/// Returns the findings from warning up that concern the pod, its GPUs, its switches or its node.
pub(super) fn concerns<'c>(case: &'c Case<'_>) -> Vec<&'c Finding> {
    let own = |finding: &&Finding| {
        let Scope { node: _, gpu, uuid, pci, pid, pod_uid, pod: _ } = &finding.scope;
        let of_pod = pod_uid.as_ref() == Some(&case.pod.uid);
        let of_process = pid.is_some_and(|pid| case.on_node.pids.contains(&pid));
        let of_gpu = finding.addresses.iter().any(|address| case.on_node.addresses.contains(address));
        let names_gpu = gpu.is_some() || uuid.is_some() || !finding.addresses.is_empty();
        let gpu_unknown = case.on_node.addresses.is_empty() && names_gpu;
        let of_switch = pci.is_some() && !names_gpu && finding.class == Class::Fabric;
        let of_node = !names_gpu && pci.is_none();
        let of_another = (pid.is_some() || pod_uid.is_some()) && !of_gpu;
        of_pod || of_process || ((of_gpu || of_switch || of_node || gpu_unknown) && !of_another)
    };
    let needs_gpus = case.pod.wants_gpus || case.pod.is_gpu_stack || !case.on_node.addresses.is_empty();
    case.all_findings().filter(|finding| needs_gpus && finding.severity > Severity::Info).filter(own).collect()
}
