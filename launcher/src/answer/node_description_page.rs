//! `page`: formats the description of a node as text for a terminal.

use diagnosis::finding::{Finding, Verdict};
use diagnosis::health::HealthStatus;
use syringe_core::classification::Severity;

use crate::answer::node_description::{GpuRow, NodeDescription};
use crate::answer::node_page::{foot, stack_line};
use crate::answer::pod_tables::{pods_table, resources_table};
use crate::terminal::page::Page;
use crate::terminal::style::{headline, named};
use crate::terminal::table::{Rows, age, cell, new_table, second};
use kube_read::objects::node_conditions::Condition;
use kube_read::reads::events::{NodeEvent, PodEventRow};

/// Formats the description as text.
pub(crate) fn page(answer: &NodeDescription) -> Page {
    let mut text = Page::from(format!("{}  {}\n", headline(verdict(answer)), answer.summary));
    for problem in &answer.kubernetes_problems {
        text.push_str(&format!("  {problem}\n"));
    }
    for finding in &answer.findings {
        let Finding { severity, scope, .. } = finding;
        let gpu = scope.gpu.map(|gpu| format!(" GPU {gpu}")).unwrap_or_default();
        text.push_str(&format!("  [{}]{gpu} {}\n", named(*severity), finding.headline()));
    }
    if let Some(omitted) = answer.findings_omitted {
        text.push_str(&format!("  … and {omitted} more findings; to see them, run: gpu-syringe diagnose\n"));
    }
    for unknown in &answer.unknown {
        text.push_unknown(unknown);
    }
    text.push_str(&stack_line(&answer.stack));
    text.push_table(gpus_table(&answer.gpus));
    text.push_table(resources_table(&answer.resources));
    text.push_table(pods_table(&answer.pods));
    text.push_table(conditions_table(&answer.conditions));
    text.push_table(events_table(&answer.events));
    text.push_omitted(answer.events_omitted, "older events");
    text.push_table(pod_events_table(&answer.pod_events));
    text.push_str(&answer.probe.as_ref().map(foot).unwrap_or_default());
    text
}

/// Returns the state of the node as the verdict that all other answers have.
fn verdict(answer: &NodeDescription) -> Verdict {
    let worst = answer.findings.iter().map(|finding| finding.severity).max();
    match (answer.overall_health, worst) {
        (HealthStatus::Unhealthy, Some(Severity::Fatal)) => Verdict::Fatal,
        (HealthStatus::Unhealthy, _) => Verdict::Critical,
        (HealthStatus::Degraded, _) => Verdict::Warning,
        (HealthStatus::Unknown, _) => Verdict::Unknown,
        (HealthStatus::Healthy, _) => Verdict::Healthy,
    }
}

fn gpus_table(gpus: &[GpuRow]) -> Rows {
    let with_mig = gpus.iter().any(|gpu| gpu.mig_devices.is_some());
    let heads = ["gpu", "pci address", "status", "score", "°C", "gpu %", "used GiB"].into_iter();
    let heads = heads.chain(with_mig.then_some("mig devices")).chain(["uuid"]);
    let mut rows = new_table(heads).optional(&["uuid"]);
    for gpu in gpus {
        let mig = with_mig.then(|| cell(gpu.mig_devices.clone()));
        let cells = [
            cell(gpu.index),
            cell(gpu.pci_address.clone()),
            named(gpu.status),
            gpu.score.to_string(),
            cell(gpu.temperature_celsius),
            cell(gpu.utilization_percent),
            cell(gpu.memory_used_bytes.map(|bytes| bytes >> 30)),
        ];
        rows.add_row(cells.into_iter().chain(mig).chain([cell(gpu.uuid.clone())]));
    }
    rows
}

fn conditions_table(conditions: &[Condition]) -> Rows {
    let heads = ["condition", "status", "reason", "for", "message"];
    let mut rows = new_table(heads).optional(&["reason"]).note("message");
    for one in conditions {
        let for_time = one.for_seconds.map(age);
        rows.add_row([
            one.name.clone(),
            one.status.clone(),
            cell(one.reason.clone()),
            cell(for_time),
            one.message.clone().unwrap_or_default(),
        ]);
    }
    rows
}

fn pod_events_table(events: &[PodEventRow]) -> Rows {
    let mut rows = new_table(["last (UTC)", "times", "pod", "warning", "message"]).note("message");
    for event in events {
        let PodEventRow { pod, reason, message, count, last } = event;
        rows.add_row([cell(last.map(second)), count.to_string(), pod.clone(), reason.clone(), message.clone()]);
    }
    rows
}

fn events_table(events: &[NodeEvent]) -> Rows {
    let mut rows = new_table(["last (UTC)", "times", "event", "message"]).note("message");
    for event in events {
        let last = cell(event.last.map(second));
        rows.add_row([last, event.count.to_string(), event.reason.clone(), event.message.clone()]);
    }
    rows
}
