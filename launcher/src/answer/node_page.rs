//! `head`, `foot`, `push_gpus`, `stack_line`: format the parts of an answer about one node: findings, source, GPU
//! table, GPU stack.

use diagnosis::finding::{Finding, Plan};
use diagnosis::stack_stage::{StackStage, StageState};
use syringe_core::facts::LostGpu;
use syringe_core::nvml_codes;

use crate::answer::node::NodeAnswer;
use crate::answer::wire::variant_name::variant_name;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, headline, named, paint};
use crate::terminal::table::{Rows, cell, counted, pci_cell, second};

/// Formats the stages from the PCI bus to the scheduler in one line, if a stage is broken.
pub(crate) fn stack_line(stages: &[StackStage]) -> String {
    if stages.iter().all(|stage| stage.state != StageState::Broken) {
        return String::new();
    }
    let word = |stage: &StackStage| {
        let evidence = if stage.state == StageState::Broken { format!(" ({})", stage.evidence) } else { String::new() };
        format!("{} {}{evidence}", variant_name(stage.stage), variant_name(stage.state))
    };
    format!("Stack: {}\n", stages.iter().map(word).collect::<Vec<_>>().join(", "))
}

/// Adds the table of the GPUs in the order of NVML, and a line for each GPU that does not respond. The first cell of a
/// row is the index of the GPU, the second its PCI address. For a GPU that does not respond, the last cell is its state.
pub(crate) fn push_gpus(page: &mut Page, mut rows: Rows, responding: Vec<(u32, Vec<String>)>, lost: &[LostGpu]) {
    let mut all: Vec<_> = responding.into_iter().map(|(index, cells)| (Some(index), cells)).collect();
    for gpu in lost {
        let state = paint(state_of(gpu), Paint::Fatal);
        // A part of a GPU's data may be read before the GPU is lost.
        let listed = all.iter_mut().find(|(index, _)| gpu.index.is_some() && *index == gpu.index);
        match listed.and_then(|(_, cells)| cells.last_mut()) {
            Some(last) => *last = state,
            None => {
                let mut cells = vec!["-".to_owned(); rows.width()];
                if let [first, second, .., last] = cells.as_mut_slice() {
                    (*first, *second, *last) = (cell(gpu.index), address_of(gpu), state);
                }
                all.push((gpu.index, cells));
            }
        }
    }
    all.sort_by_key(|(index, _)| (index.is_none(), *index));
    all.into_iter().for_each(|(_, cells)| rows.add_row(cells));
    page.push_table(rows);
    page.push_str(&lost_lines(lost));
}

fn state_of(gpu: &LostGpu) -> &'static str {
    match gpu.code.as_str() {
        nvml_codes::GPU_LOST => "LOST",
        "not_in_nvml" => "NOT IN NVML",
        _ => "NO RESPONSE",
    }
}

fn address_of(gpu: &LostGpu) -> String {
    pci_cell(gpu.pci_address.as_ref())
}

/// Returns one line for each GPU that does not respond, with its identity for an RMA.
fn lost_lines(lost: &[LostGpu]) -> String {
    let line = |gpu: &LostGpu| {
        let LostGpu { uuid, serial, slot, code, .. } = gpu;
        let index = gpu.index.map_or_else(|| "GPU".to_owned(), |index| format!("GPU {index}"));
        let [uuid, serial, slot] = [uuid, serial, slot].map(|known| known.as_deref().unwrap_or("not known"));
        let address = address_of(gpu);
        format!(
            "{}  {index} at {address} ({code}): UUID {uuid}, serial {serial}, slot {slot}\n",
            paint(state_of(gpu), Paint::Fatal)
        )
    };
    lost.iter().map(line).collect()
}

/// Formats the first part of every answer about a node: verdict, summary and findings.
pub(crate) fn head<T>(answer: &NodeAnswer<T>) -> Page {
    let NodeAnswer {
        verdict,
        summary,
        findings,
        findings_omitted,
        plan,
        not_checked,
        unknown,
        coverage,
        kubernetes,
        checked,
        partly_checked,
        not_requested,
        probe,
        ..
    } = answer;
    let mut text = Page::from(format!("{}  {summary}\n", headline(*verdict)));
    for finding in findings {
        text.push_str(&finding_lines(finding));
    }
    if let Some(omitted) = findings_omitted {
        text.push_str(&format!("  … and {omitted} more findings\n"));
    }
    for plan in plan {
        text.push_str(&plan_lines(plan));
    }
    if !plan.is_empty() && !not_requested.is_empty() {
        let node = &probe.node;
        text.push_str(&format!(
            "\nThe plan uses only these sections: {}. diagnose_gpu_node for {node} reads everything and returns the final plan.\n",
            checked.iter().chain(partly_checked).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    for unknown in unknown {
        let gpu = unknown.gpu.map(|gpu| format!(" of GPU {gpu}")).unwrap_or_default();
        text.push_str(&format!("\n{}  {}{gpu}: {}\n", paint("UNKNOWN", Paint::Unknown), unknown.section, unknown.why));
    }
    for line in kubernetes.iter().flat_map(|alone| alone.lines()) {
        text.push_str(&format!("\nKubernetes: {line}\n"));
    }
    for log in &coverage.kernel_log {
        let from = log.from.map_or_else(|| "?".into(), second);
        let to = log.to.map_or_else(|| "?".into(), second);
        let lost = if log.lost_records > 0 { format!(", {} records lost", log.lost_records) } else { String::new() };
        let records = counted(usize::try_from(log.records).unwrap_or(usize::MAX), "line");
        text.push_str(&format!("\nKernel log covered: {from} to {to} ({records} from {}{lost})\n", log.source));
    }
    if !not_checked.is_empty() {
        text.push_str(&format!("\nNot checked: {}\n", not_checked.join("; ")));
    }
    text
}

fn plan_lines(plan: &Plan) -> String {
    let Plan { subject, urgency, before_plan, steps, if_pod_deleted, results, .. } = plan;
    let when = variant_name(*urgency).replace('_', " ");
    let mut lines = format!("\nPlan for {subject} ({when}): {before_plan}\n");
    for (number, step) in steps.iter().enumerate() {
        lines.push_str(&format!("  {}. {step}\n", number + 1));
    }
    for (label, text) in [("If a pod is deleted", if_pod_deleted), ("Results", results)] {
        if !text.is_empty() {
            lines.push_str(&format!("  {label}: {text}\n"));
        }
    }
    lines
}

/// Formats the last part of every answer about a node: how the facts were read, and the objects that are left on the
/// cluster.
pub(crate) fn foot(note: &ProbeSummary) -> String {
    let ProbeSummary {
        via,
        node,
        source,
        deleted,
        left_behind,
        process_left,
        note,
        next_step,
        passed_over,
        timings_ms,
        ..
    } = note;
    let gone = match (*deleted, *via) {
        (_, "none") if note.as_deref().is_some_and(|note| note.contains("were deleted")) => {
            "probe pods deleted".to_owned()
        }
        (_, "none") => "probe not created".to_owned(),
        (true, _) => "probe pod deleted".to_owned(),
        // The container has stopped or will stop, but its entry stays in the spec of the pod. A later line of the
        // answer describes this entry.
        (false, "ephemeral") => "probe container not deletable".to_owned(),
        (false, _) => paint("probe pod NOT DELETED", Paint::Fatal),
    };
    let is_api = *source == syringe_core::report::Source::Api;
    let source = match source {
        syringe_core::report::Source::Hardware => "hardware",
        syringe_core::report::Source::File => "a facts file",
        syringe_core::report::Source::Api => "the Kubernetes API alone",
    };
    let mut text = format!("\n{node} via {via} in {} ms, read from {source}; {gone}\n", timings_ms.total);
    for line in passed_over {
        text.push_str(&format!("passed over {line}\n"));
    }
    // If no probe ran, the note repeats the reason that is given for the unread sections.
    let note = note.as_ref().filter(|_| !is_api);
    if is_api {
        text.push_str("Nothing was read on the node: this answer has only data from the Kubernetes API.\n");
    }
    for more in [note, next_step.as_ref(), left_behind.as_ref(), process_left.as_ref()].into_iter().flatten() {
        text.push_str(more);
        text.push('\n');
    }
    text
}

fn finding_lines(finding: &Finding) -> String {
    let Finding { id, severity, scope, evidence, action, .. } = finding;
    let severity = named(*severity);
    let place = match (scope.gpu, &scope.pci) {
        (Some(gpu), Some(pci)) => format!(" GPU {gpu} ({})", pci.sysfs()),
        (Some(gpu), None) => format!(" GPU {gpu}"),
        (None, Some(pci)) => format!(" {}", pci.sysfs()),
        (None, None) => String::new(),
    };
    let mut lines = format!("\n[{severity}]{place} {}  ({id})\n", finding.headline());
    for line in evidence {
        lines.push_str(&format!("    {line}\n"));
    }
    if !action.text.is_empty() {
        lines.push_str(&format!("  → {}\n", action.text));
    }
    lines
}
