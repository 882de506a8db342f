//! `aggregate`: combines the outcomes of all nodes into a `FleetAnswer` with counts, groups and findings, worst first.
//! `CallSummary`: facts about the call.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use diagnosis::fabric;
use diagnosis::finding::{Finding, Urgency, Verdict};

use crate::answer::fleet::{FailedNodes, FleetAnswer, FleetFinding, NodeCounts, NodeDetail, Outlier, ProbesSummary};
use crate::answer::node_name_ranges::{NodeNames, host_list};
use crate::answer::wire::variant_name::variant_name;
use crate::fleet::node_row::{NodeRow, SENTENCE};
use crate::fleet::outliers;
use crate::fleet::parallel_reads::NodeOutcome;
use kube_read::Failure;
use syringe_core::classification::{ActionCode, Class};

/// ID of the finding about a fault that affects several nodes of an NVLink fabric.
const SPREAD: &str = "fabric-fault-spread";
/// Maximum number of bytes of a list of names.
const NAMES_BYTES: usize = 400;
/// Maximum number of lines about methods that were not used.
const PASSED_OVER: usize = 5;

/// Facts about the call.
pub(crate) struct CallSummary {
    pub(crate) context: String,
    pub(crate) gpu_nodes: usize,
    /// Nodes left out because of `limit`.
    pub(crate) beyond_limit: Vec<String>,
    pub(crate) concurrency: u16,
    pub(crate) total_ms: u64,
}

/// Aggregates the outcomes of all nodes into one answer within its byte budget.
pub(crate) fn aggregate(about: CallSummary, outcomes: Vec<(String, NodeOutcome<NodeRow>)>) -> FleetAnswer {
    let mut rows = Vec::new();
    let mut failed: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut skipped: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut not_reached = about.beyond_limit;
    let mut left_behind = Vec::new();
    let mut unprobed = 0;
    let mut fail = |node: String, failure: Failure| {
        left_behind.extend(failure.left_behind);
        let why = failure.why.replace(&node, "the node");
        failed.entry((why, failure.next_step.replace(&node, "the node"))).or_default().push(node);
    };
    for (node, outcome) in outcomes {
        match outcome {
            NodeOutcome::Read(row) => rows.push(row),
            NodeOutcome::Unprobed(row, failure) => {
                unprobed += 1;
                // A failure also contains the object that is left behind.
                rows.push(NodeRow { left_behind: None, ..row });
                fail(node, failure);
            }
            NodeOutcome::Failed(failure) => fail(node, failure),
            NodeOutcome::Skipped(why) => skipped.entry((why, String::new())).or_default().push(node),
            NodeOutcome::NotReached => not_reached.push(node),
        }
    }
    rows.sort_by(|left, right| right.verdict.cmp(&left.verdict).then_with(|| left.node.cmp(&right.node)));
    left_behind.extend(rows.iter().filter_map(|row| row.left_behind.clone()));
    let count = |all: &BTreeMap<_, Vec<String>>| all.values().map(Vec::len).sum();
    let totals = NodeCounts {
        gpu_nodes: about.gpu_nodes,
        read: rows.len() - unprobed,
        failed: count(&failed),
        skipped: count(&skipped),
        not_reached: not_reached.len(),
        gpus: rows.iter().map(|row| row.gpus).sum(),
    };
    let outliers = outliers::outliers(&rows);
    let of_reasons = failed.values().chain(skipped.values()).flatten();
    let unread = of_reasons.chain(&not_reached).cloned().collect();
    let must_stay_empty = |row: &&NodeRow| row.urgency >= Some(Urgency::WhenJobsEnd);
    let excluded: Vec<String> = rows.iter().filter(must_stay_empty).map(|row| row.node.clone()).collect();
    let mut answer = FleetAnswer {
        undecided: rows.iter().any(|row| row.undecided),
        unread,
        verdict: verdict(&rows, &totals),
        summary: String::new(),
        context: about.context,
        verdicts: verdicts(&rows),
        checked_only: checked_only(&rows),
        findings: findings(&rows),
        nodes: details(&rows, &outliers),
        exclude: host_list(excluded.iter().map(String::as_str)),
        excluded,
        outliers: outliers.into_iter().map(|(outlier, _)| outlier).collect(),
        failed: reasons(failed),
        skipped: reasons(skipped),
        not_reached: (!not_reached.is_empty())
            .then(|| NodeNames::of(not_reached.iter().map(String::as_str), NAMES_BYTES)),
        groups: outliers::groups(&rows),
        probes: probes(&rows, about.concurrency, about.total_ms, left_behind.is_empty()),
        left_behind,
        totals,
    };
    answer.summary = summary(&answer);
    answer
}

fn checked_only(rows: &[NodeRow]) -> Vec<String> {
    rows.iter().map(|row| &row.checked_only).find(|sections| !sections.is_empty()).cloned().unwrap_or_default()
}

fn verdict(rows: &[NodeRow], totals: &NodeCounts) -> Verdict {
    let worst = rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Unknown);
    let all_read = totals.read == totals.gpu_nodes;
    if all_read { worst } else { worst.max(Verdict::Unknown) }
}

fn verdicts(rows: &[NodeRow]) -> BTreeMap<String, usize> {
    let mut verdicts = BTreeMap::new();
    for row in rows {
        *verdicts.entry(variant_name(row.verdict)).or_default() += 1;
    }
    verdicts
}

/// Returns the findings of all nodes by ID.
fn findings(rows: &[NodeRow]) -> Vec<FleetFinding> {
    let mut by_id: BTreeMap<&str, (&Finding, &str, BTreeSet<&str>)> = BTreeMap::new();
    for row in rows {
        for finding in &row.findings {
            let entry = by_id.entry(&finding.id).or_insert_with(|| (finding, &row.node, BTreeSet::new()));
            entry.2.insert(&row.node);
            if finding.severity > entry.0.severity {
                (entry.0, entry.1) = (finding, &row.node);
            }
        }
    }
    // Plans are only in answers about one node.
    let plan = |finding: &Finding, node: &str| match finding.action.refers_to_plan() {
        true => format!(" (diagnose_gpu_node for {node} returns the plan.)"),
        false => String::new(),
    };
    let one = |(finding, node, nodes): (&Finding, &str, BTreeSet<&str>)| FleetFinding {
        id: finding.id.clone(),
        severity: finding.severity,
        class: finding.class,
        title: finding.title.clone(),
        action: finding.action.code,
        action_text: {
            let of_node = if nodes.len() > 1 { "the node" } else { node };
            finding.action.text.replace(node, of_node) + &plan(finding, of_node)
        },
        nodes: NodeNames::of(nodes, NAMES_BYTES),
    };
    let mut findings: Vec<_> = spread_faults(rows).chain(by_id.into_values().map(one)).collect();
    findings.sort_by_key(|finding| (Reverse(finding.severity), finding.id != SPREAD, Reverse(finding.nodes.count)));
    findings
}

/// Returns the faults that reached other nodes of their NVLink fabric. Each of these findings is listed before the
/// findings that it caused.
fn spread_faults(rows: &[NodeRow]) -> impl Iterator<Item = FleetFinding> {
    let nodes = rows.iter().filter_map(|row| Some((row.node.as_str(), row.fabric.as_ref()?)));
    fabric::spread_faults(nodes).into_iter().map(|fault| {
        let names = |nodes: &[&str]| NodeNames::of(nodes.iter().copied(), NAMES_BYTES).names;
        let first = fault.node;
        let mut text = format!(
            "Repair {first} first ({}): diagnose_gpu_node returns its plan. These faults occurred within 10 min after it: {}. On {}, these faults are \
             consequences. They need no separate repair if they end.",
            fault.fault,
            fault.echoes.join(", "),
            names(&fault.victims)
        );
        if !fault.own_faults.is_empty() {
            let order = if fault.is_order_unsure { "; the clocks do not show which fault was first" } else { "" };
            text.push_str(&format!(" Another fault is on {}{order}.", names(&fault.own_faults)));
        }
        if !fault.log_begins_later.is_empty() {
            let late = names(&fault.log_begins_later);
            text.push_str(&format!(" The log of {late} begins later, so an earlier fault on these nodes is possible."));
        }
        FleetFinding {
            id: SPREAD.to_owned(),
            severity: fault.severity,
            class: Class::Fabric,
            title: "A fault of one node reached other nodes of its NVLink fabric".to_owned(),
            nodes: NodeNames::of([first], NAMES_BYTES),
            action: ActionCode::DrainAndReset,
            action_text: text,
        }
    })
}

fn details(rows: &[NodeRow], outliers: &[(Outlier, Vec<String>)]) -> Vec<NodeDetail> {
    let detail = |row: &NodeRow| {
        let differs: Vec<_> = outliers
            .iter()
            .filter(|(_, nodes)| nodes.contains(&row.node))
            .flat_map(|(outlier, _)| std::iter::once(outlier.in_words()).chain(outlier.also.clone()))
            .collect();
        if row.verdict <= Verdict::NoFaultFound && differs.is_empty() {
            return None;
        }
        Some(NodeDetail {
            node: row.node.clone(),
            verdict: row.verdict,
            urgency: row.urgency,
            score: row.score,
            summary: syringe_core::text::clean(&row.summary, SENTENCE),
            findings: row.first_findings.clone(),
            findings_omitted: Some(row.findings_omitted).filter(|more| *more > 0),
            differs,
            unknown: row.unknown,
        })
    };
    rows.iter().filter_map(detail).collect()
}

fn reasons(by_reason: BTreeMap<(String, String), Vec<String>>) -> Vec<FailedNodes> {
    let mut reasons = FailedNodes::by_reason(by_reason, NAMES_BYTES);
    reasons.sort_by_key(|reason| Reverse(reason.nodes.count));
    reasons
}

fn probes(rows: &[NodeRow], concurrency: u16, total_ms: u64, deleted: bool) -> ProbesSummary {
    let summary = ProbesSummary {
        concurrency,
        deleted,
        total_ms,
        passed_over: rows.iter().flat_map(|row| &row.passed_over).take(PASSED_OVER).cloned().collect(),
        ..ProbesSummary::default()
    };
    summary.with_times(rows.iter().map(|row| row.took_ms).collect())
}

fn summary(answer: &FleetAnswer) -> String {
    let NodeCounts { gpu_nodes, read, failed, skipped, not_reached, gpus } = answer.totals;
    let worst_first = [
        Verdict::Fatal,
        Verdict::Critical,
        Verdict::Warning,
        Verdict::Unknown,
        Verdict::NoFaultFound,
        Verdict::Healthy,
    ];
    let bad: Vec<_> = worst_first
        .into_iter()
        .filter_map(|verdict| {
            let count = answer.verdicts.get(&variant_name(verdict))?;
            Some(format!("{count} {}", variant_name(verdict).replace('_', " ")))
        })
        .collect();
    let verdicts = if bad.is_empty() { String::new() } else { format!(": {}", bad.join(", ")) };
    let mut text = format!("{read} of {gpu_nodes} GPU nodes read ({gpus} GPUs){verdicts}.");
    for (count, label) in [(failed, "failed"), (skipped, "skipped"), (not_reached, "not reached")] {
        if count > 0 {
            text.push_str(&format!(" {count} {label}."));
        }
    }
    if !answer.checked_only.is_empty() {
        text.push_str(&format!(" Only these sections were checked: {}.", answer.checked_only.join(", ")));
    }
    if let Some(outlier) = answer.outliers.first() {
        let also = if outlier.also.is_empty() { String::new() } else { format!(" and {} more", outlier.also.len()) };
        let (count, first, nodes) = (answer.outliers.len(), outlier.in_words(), &outlier.nodes.names);
        text.push_str(&format!(" {count} outliers, the first: {first}{also} on {nodes}."));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::answer::wire::byte_budget::{self, MAX_SIZE};
    use crate::answer::wire::fit_answer::fit;
    use crate::answer::wire::shape::{AnswerShape, schema_of};
    use diagnosis::finding::Action;
    use syringe_core::classification::Severity;

    use super::*;
    use crate::fleet::node_row::short;
    use crate::outcome::{CommandAnswer, Outcome};
    use crate::terminal::layout::Layout;

    /// Creates a node with a value in every field.
    fn troubled(number: usize) -> NodeRow {
        let finding = |id: usize| Finding {
            id: format!("finding-{id}"),
            severity: Severity::Critical,
            title: "Something is wrong in a way that takes a line to tell".into(),
            action: Action {
                code: ActionCode::DrainAndReset,
                text: format!("Drain node-{number}. {}", "y".repeat(150)),
            },
            ..Finding::default()
        };
        NodeRow {
            node: format!("ip-10-{}-{}-17.eu-central-1.compute.internal", number / 250, number % 250),
            verdict: Verdict::Critical,
            summary: "z".repeat(300),
            checked_only: Vec::new(),
            findings: (0..12).map(|id| finding(id * 7 + number % 40)).collect(),
            first_findings: (0..4).map(|id| short(&finding(id))).collect(),
            findings_omitted: 8,
            urgency: Some(diagnosis::finding::Urgency::NextMaintenance),
            undecided: false,
            unknown: 3,
            score: Some(0),
            gpus: 8,
            model: format!("Model {}", number % 5),
            traits: [("driver_version", format!("570.{}", number % 9)), ("gpus", "8".into())].into(),
            hottest_celsius: Some(60 + i32::try_from(number % 40).unwrap_or(0)),
            fabric: None,
            left_behind: (number.is_multiple_of(10))
                .then(|| "pod gpu-syringe/gpu-syringe-abcdefghij could not be removed".into()),
            passed_over: Vec::new(),
            took_ms: 900,
        }
    }

    fn answer(nodes: usize) -> FleetAnswer {
        let outcome = |number: usize| match number % 10 {
            8 => NodeOutcome::Failed(Failure::new("Probing", format!("reason {number} {}", "w".repeat(150)), "Look.")),
            9 => NodeOutcome::Skipped(format!("failed 2 times in a row: reason {number}")),
            _ => NodeOutcome::Read(troubled(number)),
        };
        let outcomes = (0..nodes).map(|number| (format!("ip-10-0-{number}-17.internal"), outcome(number))).collect();
        let about = CallSummary {
            context: "c".into(),
            gpu_nodes: nodes,
            beyond_limit: Vec::new(),
            concurrency: 8,
            total_ms: 1,
        };
        aggregate(about, outcomes)
    }

    #[test]
    fn a_node_without_a_probe_has_its_findings_and_the_reason() {
        let about =
            CallSummary { context: "c".into(), gpu_nodes: 2, beyond_limit: Vec::new(), concurrency: 8, total_ms: 1 };
        let row = NodeRow { verdict: Verdict::Warning, undecided: true, ..troubled(1) };
        let name = row.node.clone();
        let failure = Failure::new("Probing", "no image is set", "Set one.");
        let healthy = NodeRow { verdict: Verdict::Healthy, findings: Vec::new(), ..troubled(2) };
        let outcomes = vec![
            (name.clone(), NodeOutcome::Unprobed(row, failure)),
            (healthy.node.clone(), NodeOutcome::Read(healthy)),
        ];
        let answer = aggregate(about, outcomes);
        assert_eq!(
            (answer.totals.read, answer.totals.failed, answer.failed[0].why.as_str()),
            (1, 1, "no image is set")
        );
        assert!(!answer.findings.is_empty() && answer.nodes.iter().any(|one| one.node == name), "{:?}", answer.nodes);
        assert_eq!(answer.names().iter().filter(|named| named.ends_with(&name)).count(), 1);
        assert_eq!(answer.outcome(), Outcome::Unknown, "a worse finding is not ruled out");
    }

    #[test]
    fn any_number_of_nodes_fits_in_an_answer() {
        for nodes in [50, 1000, 5000] {
            let answer = answer(nodes);
            let NodeCounts { gpu_nodes, read, failed, skipped, not_reached, .. } = answer.totals;
            assert_eq!(read + failed + skipped + not_reached, gpu_nodes);
            let left = (0..nodes).filter(|number| number.is_multiple_of(10)).count();
            assert_eq!((answer.nodes.len(), answer.left_behind.len()), (read, left));
            let mut json = serde_json::to_value(&answer).expect("JSON");
            fit(&mut json, &AnswerShape::from_schema(&schema_of::<FleetAnswer>()));
            let size = byte_budget::size(&json);
            assert!(size <= MAX_SIZE, "{nodes} nodes: {size}");
            assert!(size > MAX_SIZE / 2, "{nodes} nodes: {size}: most of the space is unused");
            for (list, all) in [("nodes", read), ("left_behind", left)] {
                let listed = json[list].as_array().map_or(0, Vec::len) as u64;
                let omitted = json[format!("{list}_omitted")].as_u64().unwrap_or(0);
                assert_eq!(listed + omitted, all as u64, "{nodes} nodes: {list}");
            }
        }
    }

    #[test]
    fn only_nodes_on_which_new_work_must_not_start_are_excluded() {
        let urgencies = [None, Some(Urgency::NextMaintenance), Some(Urgency::WhenJobsEnd), Some(Urgency::Now)];
        let rows = urgencies.into_iter().cycle().take(8).zip(1..);
        let row = |(urgency, number): (_, usize)| {
            let node = format!("gpu-{number}");
            (node.clone(), NodeOutcome::Read(NodeRow { node, urgency, ..troubled(number) }))
        };
        let outcomes = rows.map(row).collect();
        let about =
            CallSummary { context: "c".into(), gpu_nodes: 8, beyond_limit: Vec::new(), concurrency: 8, total_ms: 1 };
        let answer = aggregate(about, outcomes);
        assert_eq!(answer.exclude, ["gpu-[3-4,7-8]"]);
        let narrow = Layout { width: Some(20), ..Layout::default() };
        let page = crate::answer::fleet_page::page(&answer).print(&narrow);
        assert!(
            page.contains("\n  --exclude=gpu-[3-4,7-8]\n  kubectl cordon gpu-3 gpu-4 gpu-7 gpu-8\n  nodeAffinity: "),
            "{page}"
        );
    }

    #[test]
    fn the_summary_is_complete_if_no_node_was_read() {
        let outcomes = vec![("a".to_owned(), NodeOutcome::NotReached)];
        let about =
            CallSummary { context: "c".into(), gpu_nodes: 1, beyond_limit: Vec::new(), concurrency: 8, total_ms: 1 };
        assert_eq!(aggregate(about, outcomes).summary, "0 of 1 GPU nodes read (0 GPUs). 1 not reached.");
    }
}
