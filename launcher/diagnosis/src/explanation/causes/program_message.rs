//! Causes from known messages of CUDA, NVML, NCCL and loaders in the termination message or the log of a program.
//!
//! The words of a program are its own statement, so the cause is likely and not certain. A finding about its GPU or node gives
//! the reason.

use crate::explanation::causes::phrases::{self, Part, Phrase};
use crate::explanation::causes::{Case, claims, end_quote, finding_quote};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::Finding;
use syringe_core::classification::{ActionCode, Class, Severity};

/// Number of evidence lines that are quoted from a finding.
const FINDING_LINES: usize = 2;

/// Words of GPU software. A message with one of them that is not in the table may be about the GPU or the node.
const GPU_SOFTWARE: [&str; 9] = ["cuda", "nvml", "nvidia", "nccl", "cudnn", "cublas", "nvlink", "nvswitch", "xid"];

/// Returns whether a message is about GPU software.
pub(crate) fn speaks_of_gpus(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    GPU_SOFTWARE.iter().any(|word| message.contains(word))
}

/// Explains a program that ended with a known message.
pub(crate) fn said_by_the_program(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed().filter(|end| !end.never_ran() && end.reason != "OOMKilled")?;
    // A program that was asked to end often logs errors of its end.
    let asked = matches!(end.exit_code, 137 | 143);
    let in_log = case.pod.log_lines.iter().rev().filter(|_| !asked);
    let in_log = in_log.map(|line| (line.as_str(), Certainty::Possible));
    let mut texts = std::iter::once((end.message, Certainty::Likely)).chain(in_log);
    let (phrase, text, certainty) =
        texts.find_map(|(text, certainty)| Some((phrases::known(Part::Program, text)?, text, certainty)))?;
    let finding = finding_behind(case, phrase);
    let cause = cause_of(case, phrase, finding);
    let container = end.container;
    let why = finding.map(|finding| format!(" ({})", finding.title)).unwrap_or_default();
    let without = requests_none(case, phrase);
    let note = if without { "; the pod requests no GPU" } else { "" };
    let what = format!("container {container}: {}{why}{note}", phrase.meaning(text));
    let quoted = (text != end.message).then(|| format!("log of container {container}: {text}"));
    let finding_lines = finding.into_iter().flat_map(|finding| {
        std::iter::once(finding_quote(finding)).chain(finding.evidence.iter().take(FINDING_LINES).cloned())
    });
    let mut explanation = case
        .explain(cause, certainty, what)
        .with_evidence(end_quote(case))
        .with_evidence(quoted)
        .with_evidence(finding_lines)
        .with_action(phrase.code, phrase.advice(case.node));
    if without {
        explanation = explanation.with_action(
            ActionCode::ChangeRequest,
            "Request a GPU in the limits of the container (nvidia.com/gpu: 1).",
        );
    } else if let Some(finding) = finding {
        explanation.action = case.action_for(finding);
    }
    Some(explanation)
}

/// Returns whether the message is about a GPU or driver that the pod never requested.
fn requests_none(case: &Case<'_>, phrase: &Phrase) -> bool {
    let pod = case.pod;
    let none = !pod.wants_gpus && !pod.is_gpu_stack && case.on_node.addresses.is_empty();
    none && matches!(phrase.cause, Cause::Node | Cause::Gpu)
}

fn cause_of(case: &Case<'_>, phrase: &Phrase, finding: Option<&Finding>) -> Cause {
    let of_gpu = |finding: &Finding| {
        // A network port next to the GPU is a part of the node.
        let is_port = finding.id.starts_with("rdma-port-");
        let hardware = matches!(finding.class, Class::Hardware | Class::Fabric) && !is_port;
        hardware && finding.addresses.iter().any(|address| case.on_node.addresses.contains(address))
    };
    match (phrase.cause, finding) {
        _ if requests_none(case, phrase) => Cause::Application,
        // NVIDIA's software is no application: its failure is a fault of the node.
        (Cause::Application, None) if case.pod.is_gpu_stack => Cause::Node,
        (Cause::Application, Some(finding)) if finding.scope.pod_uid.as_ref() != Some(&case.pod.uid) => Cause::Node,
        (Cause::Node | Cause::Unknown, Some(finding)) if of_gpu(finding) => Cause::Gpu,
        (Cause::Unknown, Some(finding)) if finding.class == Class::Driver || finding.id.starts_with("rdma-port-") => {
            Cause::Node
        }
        (cause, _) => cause,
    }
}

/// The finding that gives the reason for the message: about the pod, its GPUs or its node.
fn finding_behind<'c>(case: &'c Case<'_>, phrase: &Phrase) -> Option<&'c Finding> {
    let found = claims::concerns(case);
    let about = |start: &&str| found.iter().find(|finding| finding.id.starts_with(*start)).copied();
    phrase.findings.iter().find_map(about).filter(|finding| finding.severity > Severity::Info)
}
