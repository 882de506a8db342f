//! The description of a node as text.

use syringe_core::diagnosis::Finding;

use crate::answer::node_description::{GpuRow, NodeDescription};
use crate::kubernetes::model::node_conditions::Condition;
use crate::kubernetes::read::events::NodeEvent;
use crate::text::node_answer::{foot, stack_line};
use crate::text::pod_allocation::{pods_table, resources_table};
use crate::text::table::{cell, lines, new_table, second};
use crate::variant_name::variant_name;

/// The description as text.
pub(crate) fn text(answer: &NodeDescription) -> String {
    let mut text = format!("{}  {}\n", variant_name(answer.summary.overall_health).to_uppercase(), answer.summary.text);
    for problem in &answer.kubernetes_problems {
        text.push_str(&format!("  {problem}\n"));
    }
    for Finding { severity, title, scope, .. } in &answer.findings {
        let gpu = scope.gpu.map(|gpu| format!(" GPU {gpu}")).unwrap_or_default();
        text.push_str(&format!("  [{}]{gpu} {title}\n", variant_name(severity)));
    }
    if let Some(omitted) = answer.findings_omitted {
        text.push_str(&format!("  … and {omitted} more findings: diagnose-gpu-node\n"));
    }
    for unknown in &answer.unknown {
        text.push_str(&format!("UNKNOWN  {}: {}\n", unknown.section, unknown.why));
    }
    text.push_str(&stack_line(&answer.stack));
    if !answer.gpus.is_empty() {
        text.push_str(&format!("\n{}", gpus_table(&answer.gpus)));
    }
    text.push_str(&format!("\n{}", resources_table(&answer.resources)));
    if !answer.pods.is_empty() {
        text.push_str(&format!("\n{}", pods_table(&answer.pods)));
    }
    if let Some(omitted) = answer.pods_omitted {
        text.push_str(&format!("… and {omitted} more pods\n"));
    }
    text.push_str(&format!("\n{}", conditions_table(&answer.conditions)));
    if !answer.events.is_empty() {
        text.push_str(&format!("\n{}", events_table(&answer.events)));
    }
    if let Some(omitted) = answer.events_omitted {
        text.push_str(&format!("… and {omitted} older events\n"));
    }
    text + &answer.probe.as_ref().map(foot).unwrap_or_default()
}

fn gpus_table(gpus: &[GpuRow]) -> String {
    let mut rows = new_table(["gpu", "pci address", "status", "score", "°C", "gpu %", "used GiB", "uuid"]);
    for gpu in gpus {
        rows.add_row([
            cell(gpu.index),
            cell(gpu.pci_address.clone()),
            variant_name(gpu.status),
            gpu.score.to_string(),
            cell(gpu.temperature_celsius),
            cell(gpu.utilization_percent),
            cell(gpu.memory_used_bytes.map(|bytes| bytes >> 30)),
            cell(gpu.uuid.clone()),
        ]);
    }
    lines(&rows)
}

fn conditions_table(conditions: &[Condition]) -> String {
    let mut rows = new_table(["condition", "status", "reason", "for", "message"]);
    for one in conditions {
        let age = one.for_seconds.map(|seconds| match seconds {
            ..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            7200..172_800 => format!("{} h", seconds / 3600),
            _ => format!("{} d", seconds / 86_400),
        });
        rows.add_row([
            one.name.clone(),
            one.status.clone(),
            cell(one.reason.clone()),
            cell(age),
            one.message.clone().unwrap_or_default(),
        ]);
    }
    lines(&rows)
}

fn events_table(events: &[NodeEvent]) -> String {
    let mut rows = new_table(["last (UTC)", "times", "event", "message"]);
    for event in events {
        let last = cell(event.last.map(second));
        rows.add_row([last, event.count.to_string(), event.reason.clone(), event.message.clone()]);
    }
    lines(&rows)
}
