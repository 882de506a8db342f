//! `page`: formats the answer about many nodes as text for a terminal.

use diagnosis::finding::Verdict;

use crate::answer::fleet::{FleetAnswer, NodeFinding};
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, headline, named, paint};
use crate::terminal::table::{Rows, cell, counted, new_table};

pub(crate) fn page(answer: &FleetAnswer) -> Page {
    let mut text = Page::from(format!("{}  {}\n", headline(answer.verdict), answer.summary));
    for finding in &answer.findings {
        let severity = named(finding.severity);
        let nodes = &finding.nodes;
        text.push_str(&format!(
            "\n[{severity}] {} ({}), {}: {}\n",
            finding.title,
            finding.id,
            counted(nodes.count, "node"),
            nodes.names
        ));
        text.push_str(&format!("  → {}\n", finding.action_text));
    }
    if !answer.exclude.is_empty() {
        text.push_str(&format!("\nNew work must not start on {}:\n", counted(answer.excluded.len(), "node")));
        text.push_command(&format!("--exclude={}", answer.exclude.join(",")));
        text.push_command(&format!("kubectl cordon {}", answer.excluded.join(" ")));
        let names = answer.excluded.join(", ");
        text.push_command(&format!(
            "nodeAffinity: {{key: kubernetes.io/hostname, operator: NotIn, values: [{names}]}}"
        ));
    }
    if !answer.outliers.is_empty() {
        let mut rows = new_table(["differs in", "has", "common", "model", "nodes"]).optional(&["model"]).note("nodes");
        for one in &answer.outliers {
            let nodes = format!("{}: {}", one.nodes.count, one.nodes.names);
            let also = one.also.iter().map(|also| format!("and {also}"));
            let value = std::iter::once(one.value.clone()).chain(also).collect::<Vec<_>>().join("\n");
            rows.add_row([one.what.to_owned(), value, one.common.clone(), one.model.clone(), nodes]);
        }
        text.push_table(rows);
    }
    if !answer.nodes.is_empty() {
        let mut rows = new_table(["node", "verdict", "score", "findings", "differs"]);
        for one in &answer.nodes {
            rows.add_row([
                one.node.clone(),
                named(one.verdict),
                cell(one.score.filter(|_| one.verdict != Verdict::Unknown)),
                match (one.findings.is_empty(), one.verdict) {
                    (true, Verdict::Unknown) => {
                        format!("{} (diagnose_gpu_node for {} returns the reason.)", one.summary, one.node)
                    }
                    (true, _) => String::new(),
                    (false, _) => {
                        let more = one.findings_omitted.map(|more| format!("… and {more} more"));
                        one.findings.iter().map(NodeFinding::line).chain(more).collect::<Vec<_>>().join("\n")
                    }
                },
                one.differs.join("\n"),
            ]);
        }
        text.push_table(rows);
    }
    for (heading, list) in [("FAILED", &answer.failed), ("SKIPPED", &answer.skipped)] {
        for one in list {
            let next_step = if one.next_step.is_empty() { String::new() } else { format!("  {}\n", one.next_step) };
            let heading = paint(heading, Paint::Unknown);
            text.push_str(&format!("\n{heading}  {}: {}\n{next_step}", one.nodes.names, one.why));
        }
    }
    if let Some(names) = &answer.not_reached {
        text.push_str(&format!(
            "\n{}  {}: {}\n",
            paint("NOT REACHED", Paint::Unknown),
            counted(names.count, "node"),
            names.names
        ));
    }
    text.push_table(groups(answer));
    text.push_str(&foot(answer));
    text
}

/// Creates the table of all nodes that were read, by model.
fn groups(answer: &FleetAnswer) -> Rows {
    let mut rows = new_table(["model", "nodes", "gpus", "driver", "names"]).optional(&["driver"]).note("names");
    for group in &answer.groups {
        let driver = group.common.get("driver_version").cloned();
        rows.add_row([
            group.model.clone(),
            group.nodes.count.to_string(),
            group.gpus.to_string(),
            cell(driver),
            group.nodes.names.clone(),
        ]);
    }
    rows
}

/// Formats the last lines: how the nodes were read, and which objects are left behind.
fn foot(answer: &FleetAnswer) -> String {
    let probes = &answer.probes;
    let gone = match probes.deleted {
        true if answer.totals.read == 0 => "no probe pod is left",
        true => "all probe pods deleted",
        false => &paint("NOT ALL PROBE PODS DELETED", Paint::Fatal),
    };
    let mut text = format!(
        "\n{} ms, {} at a time, median {} ms a node; {gone}\n",
        probes.total_ms,
        counted(probes.concurrency.into(), "node"),
        probes.median_node_ms
    );
    for line in &probes.passed_over {
        text.push_str(&format!("passed over {line}\n"));
    }
    for left in &answer.left_behind {
        text.push_str(&format!("{left}\n"));
    }
    text
}
