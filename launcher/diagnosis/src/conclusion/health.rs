//! `score`: computes the health of a node and its GPUs: a score (100 minus the points for each finding) and a status.
//!
//! Values that could not be read make the status unknown. They do not change the score.

use std::collections::BTreeSet;

use crate::conclusion::unknown;
use crate::health::{Deduction, GpuHealth, Health, HealthStatus};
use crate::input::node::{Gpu, Node};
use crate::rule::{About, Draft};
use syringe_core::classification::Severity;
use syringe_core::report::Status;
use syringe_core::section_name::SectionName;

/// Maximum number of pods of one GPU.
const MOST_PODS: usize = 4;

/// Returns the points for a finding. One fatal or two critical findings reduce the score to 0. The points of several
/// warnings are added.
fn points(severity: Severity) -> u32 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 15,
        Severity::Critical => 50,
        Severity::Fatal => 100,
    }
}

/// Computes the scores from drafts before they are merged. `complete`: whether all facts that decide about health were
/// read.
pub(crate) fn score(node: &Node<'_>, drafts: &[Draft], complete: bool) -> Health {
    let gpus: Vec<GpuHealth> = node
        .gpus
        .iter()
        // A GPU that only the log mentions may not be a separate GPU. It has an entry only if there is a finding about
        // it.
        .filter(|gpu| !gpu.from_log || drafts.iter().any(|draft| draft.is_on(gpu)))
        .map(|gpu| of_gpu(node, gpu, drafts))
        .collect();
    let on_node = drafts.iter().filter(|draft| !node.gpus.iter().any(|gpu| is_of(draft, gpu)));
    let (deductions, worst) = deductions(on_node);
    let lost: u32 = deductions.iter().map(|deduction| deduction.points).sum();
    let base = gpus.iter().map(|gpu| gpu.score).min().unwrap_or(100);
    let certain = complete && !gpus.is_empty();
    // Work on the node does not use a GPU that is bound to vfio-pci (virtual machines) or nouveau (display), or
    // excluded.
    let in_use = gpus.iter().filter(|entry| {
        let device = node.host().and_then(|host| host.pci_gpus.iter().find(|gpu| gpu.pci_address == entry.pci_address));
        let driver = device.filter(|device| device.pci_address.is_some()).and_then(|device| device.driver.as_deref());
        let is_unused = matches!(driver, Some("vfio-pci" | "nouveau")) || node.is_excluded(entry.pci_address.as_ref());
        entry.status > HealthStatus::Unknown || !is_unused
    });
    let gpu_status = in_use.map(|gpu| gpu.status).max().unwrap_or(HealthStatus::Unknown);
    // A node without GPUs and without faults has no score.
    let score = (!gpus.is_empty() || lost > 0).then(|| base.saturating_sub(lost));
    // The status follows the verdict. Findings about pods and the container runtime do not lower the score of the GPUs.
    let worst = drafts.iter().map(|draft| draft.severity).max().unwrap_or(worst);
    Health { score, status: status(worst, certain).max(gpu_status), deductions, gpus }
}

/// Returns whether a finding is about this GPU. A network port next to a GPU is no fault of the GPU.
fn is_of(draft: &Draft, gpu: &Gpu) -> bool {
    draft.rule.about != About::Network && draft.is_on(gpu)
}

fn of_gpu(node: &Node<'_>, gpu: &Gpu, drafts: &[Draft]) -> GpuHealth {
    let (deductions, worst) = deductions(drafts.iter().filter(|draft| is_of(draft, gpu)));
    let lost: u32 = deductions.iter().map(|deduction| deduction.points).sum();
    let pods: BTreeSet<String> =
        node.allocations_of(gpu).map(|allocation| node.name_of_pod(&allocation.pod_uid)).collect();
    GpuHealth {
        index: gpu.index,
        uuid: gpu.uuid.clone(),
        pci_address: gpu.pci.clone(),
        score: 100_u32.saturating_sub(lost),
        status: status(worst, is_certain(node, gpu)),
        pods_omitted: u32::try_from(pods.len().saturating_sub(MOST_PODS)).unwrap_or(u32::MAX),
        pods: pods.into_iter().take(MOST_PODS).collect(),
        deductions,
    }
}

/// Sections without which the health of a GPU is not known.
const DECISIVE_FOR_GPU: [SectionName; 4] =
    [SectionName::Inventory, SectionName::Ecc, SectionName::Telemetry, SectionName::Xid];

/// Returns whether enough is known about one GPU: it responds, all its values could be read, and no section failed
/// completely.
fn is_certain(node: &Node<'_>, gpu: &Gpu) -> bool {
    let passed_on = node.pci_of(gpu).is_some_and(|device| device.driver.as_deref() == Some("vfio-pci"));
    let failed = node.problems().any(|problem| problem.gpu.is_some() && problem.gpu == gpu.index);
    let sections = node.report.sections.statuses();
    let missing = sections.iter().any(|(name, status)| DECISIVE_FOR_GPU.contains(name) && *status == Status::Error);
    gpu.answers && !failed && !missing && !passed_on && unknown::not_requested(node).is_empty()
}

fn status(worst: Severity, certain: bool) -> HealthStatus {
    match worst {
        Severity::Fatal | Severity::Critical => HealthStatus::Unhealthy,
        Severity::Warning => HealthStatus::Degraded,
        Severity::Info if certain => HealthStatus::Healthy,
        Severity::Info => HealthStatus::Unknown,
    }
}

fn deductions<'a>(drafts: impl Iterator<Item = &'a Draft>) -> (Vec<Deduction>, Severity) {
    let mut deductions: Vec<Deduction> = Vec::new();
    let mut worst = Severity::Info;
    for draft in drafts.filter(|draft| draft.rule.about.lowers_score()) {
        worst = worst.max(draft.severity);
        let points = points(draft.severity);
        let known = deductions.iter().any(|deduction| deduction.finding == draft.rule.id);
        if points > 0 && !known {
            let why = draft.evidence.first().cloned().unwrap_or_else(|| draft.rule.title.to_owned());
            deductions.push(Deduction { points, finding: draft.rule.id.to_owned(), why });
        }
    }
    deductions.sort_by(|left, right| right.points.cmp(&left.points).then_with(|| left.finding.cmp(&right.finding)));
    (deductions, worst)
}
