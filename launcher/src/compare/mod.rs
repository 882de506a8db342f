//! `compare`: compares two readings of a node, or the nodes of two states (`Side`: an archive or the cluster).
//! The result is a `Comparison` with the changes of each node. `CompareArgs`: the arguments of the command.
//!
//! Modules: `facts`: the values of a node and of each GPU, with the identity of the GPU. `changes`: the differences, worst first.

mod changes;
mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use diagnosis::Diagnosis;
use jiff::Timestamp;
use kube_read::Failure;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use syringe_core::classification::Severity;
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Report, Source};

use self::changes::Change;
pub(crate) use self::facts::NodeValues;
use crate::answer::wire::untrusted_text;
use crate::answer::wire::variant_name::variant_name;
use crate::call::{CallContext, EarlierState};
use crate::node_reading::read_node;
use crate::outcome::Outcome;
use crate::settings::ArchiveNote;
use crate::terminal::page::Page;
use crate::terminal::style::named;
use crate::terminal::table::{cell, new_table};

/// Maximum number of changes of one node in an answer.
const MAX_CHANGES: usize = 60;

#[derive(clap::Args, Debug)]
pub(crate) struct CompareArgs {
    /// The earlier state: an archive, a report of node-probe, or a node
    #[arg(value_name = "A")]
    pub(crate) earlier: String,
    /// The later state: an archive, a report of node-probe, or a node
    #[arg(value_name = "B")]
    pub(crate) later: String,
}

impl CompareArgs {
    /// Returns the tool call that compares the same two nodes. `None` if one of the states is an archive.
    pub(crate) fn tool_call(self) -> Option<(&'static str, Value)> {
        let Self { earlier, later } = self;
        let are_nodes = archive_path(&earlier).is_none() && archive_path(&later).is_none();
        are_nodes.then(|| ("compare_gpu_nodes", json!({"node_name": later, "other_node": earlier})))
    }
}

/// Returns the path if the argument is the path of an archive. `None` if the argument is the name of a node.
pub(crate) fn archive_path(name: &str) -> Option<PathBuf> {
    let ends = [".gz", ".tgz", ".json"].iter().any(|end| name.ends_with(end));
    let is_path = ends || name.contains(std::path::MAIN_SEPARATOR) && !name.starts_with("node/");
    // A name without these marks is the name of a node, even if the working directory has a file of this name, which
    // another user may have written.
    is_path.then(|| PathBuf::from(name))
}

/// One of the two compared states: where the state is read, and the names of its nodes.
pub(crate) struct Side {
    /// The argument of the user.
    pub(crate) name: String,
    pub(crate) call: CallContext,
    /// The context of the cluster, if it is not the current context.
    pub(crate) context: Option<String>,
    pub(crate) nodes: Vec<String>,
    /// The nodes of the archive that were not read, with the reason.
    pub(crate) unread: BTreeMap<String, String>,
    /// The file of the archive. `None`: the cluster of the settings.
    pub(crate) file: Option<PathBuf>,
}

/// Origin of a state.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Origin {
    /// The argument of the user.
    name: String,
    /// The archive of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<ArchiveNote>,
    /// The context of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

/// The differences between two states.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Comparison {
    summary: String,
    earlier: Origin,
    later: Origin,
    /// Differences by node, worst first.
    nodes: Vec<NodeComparison>,
    /// Nodes that only the later archive has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    only_later: Vec<String>,
    /// Nodes that could not be compared, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_compared: Vec<String>,
    /// Objects that are left on the cluster. `gpu-syringe sweep` deletes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_behind: Vec<String>,
}

/// The differences of one node.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct NodeComparison {
    node: String,
    /// The name of the node in the later state, if it is another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    later_node: Option<String>,
    earlier_at: Option<Timestamp>,
    later_at: Option<Timestamp>,
    /// The changes, worst first.
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_omitted: Option<usize>,
}

/// One reading of a node.
pub(crate) struct Reading {
    pub(crate) report: Report,
    pub(crate) diagnosis: Diagnosis,
    values: NodeValues,
    /// Objects or processes that the probe left on the cluster or on the node.
    left_behind: Option<String>,
}

impl EarlierState {
    /// Returns the state of the archive, for this call.
    pub(crate) fn side(&self, call: &CallContext) -> Side {
        let Self { settings, contexts, prober, nodes, unread, file } = self;
        let (settings, contexts, prober) = (Arc::clone(settings), Arc::clone(contexts), prober.clone());
        let call = CallContext { settings, contexts, prober, ..call.clone() };
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Side { name, call, context: None, nodes: nodes.clone(), unread: unread.clone(), file: Some(file.clone()) }
    }
}

impl Side {
    /// Keeps only this node of an archive with several nodes. If an archive has only one node, that node is compared
    /// with any node.
    pub(crate) fn keep_node(&mut self, wanted: &str) {
        if self.nodes.len() + self.unread.len() > 1 {
            self.nodes.retain(|node| node == wanted);
            self.unread.retain(|node, _| node == wanted);
        }
    }

    fn archive(&self) -> Option<&ArchiveNote> {
        self.call.settings.archive.as_deref()
    }

    /// Returns the names of all nodes, read or not.
    fn all_nodes(&self) -> BTreeSet<&String> {
        self.nodes.iter().chain(self.unread.keys()).collect()
    }

    async fn origin(&self) -> Result<Origin, Failure> {
        let context = match self.archive() {
            Some(_) => None,
            None => {
                let connecting = self.call.contexts.connect(self.context.as_deref());
                Some(self.call.with_deadline("Comparing nodes", connecting).await?.context.clone())
            }
        };
        Ok(Origin { name: self.name.clone(), archive: self.archive().cloned(), context })
    }
}

impl Origin {
    fn line(&self) -> String {
        let Self { name, archive, context } = self;
        match (archive, context) {
            (Some(archive), _) => format!("{name}: {}", archive.line()),
            (None, context) => format!("{name}: context {}", context.as_deref().unwrap_or_default()),
        }
    }
}

/// Rejects an archive with pseudonyms, unless both states are from the same archive. Other archives and clusters have
/// other names.
fn check_names(earlier: &Side, later: &Side) -> Result<(), Failure> {
    let is_redacted = |side: &&Side| side.archive().is_some_and(|archive| archive.redacted);
    let Some(side) = [earlier, later].into_iter().find(is_redacted).filter(|_| earlier.file != later.file) else {
        return Ok(());
    };
    let why = format!("the names of {} are pseudonyms, which do not exist in any other archive or cluster", side.name);
    Err(Failure::usage("Comparing nodes", why, "Compare archives that were saved without --redact."))
}

/// Returns the reasons why nodes of the earlier state cannot be compared. `compared`: the nodes that both states have.
fn not_comparable(earlier: &Side, later: &Side, compared: &BTreeSet<&String>) -> Vec<String> {
    let reason = |node: &&String| {
        let unread = [earlier, later].into_iter().find_map(|side| Some((side, side.unread.get(*node)?)));
        match unread {
            Some((side, why)) => format!("{node} of {}: not read: {why}", side.name),
            None => format!("{node} of {}: {} does not have the node", earlier.name, later.name),
        }
    };
    earlier.all_nodes().difference(compared).map(reason).collect()
}

/// Compares the nodes of two states.
pub(crate) async fn compare(earlier: Side, later: Side) -> Result<Comparison, Failure> {
    check_names(&earlier, &later)?;
    let names = |side: &Side| -> BTreeSet<String> { side.nodes.iter().cloned().collect() };
    let (before, after) = (names(&earlier), names(&later));
    let mut pairs: Vec<(String, String)> =
        before.intersection(&after).map(|name| (name.clone(), name.clone())).collect();
    let known = earlier.all_nodes();
    let mut only_later: Vec<_> = after.iter().filter(|name| !known.contains(name)).cloned().collect();
    let mut not_compared = not_comparable(&earlier, &later, &before.intersection(&after).collect());
    let (all_before, all_after) = (known.len(), later.all_nodes().len());
    // If each state has a single node, the two nodes are compared, even if their names differ.
    if pairs.is_empty() && [before.len(), after.len(), all_before, all_after] == [1; 4] {
        not_compared.clear();
        only_later.clear();
        pairs.extend(before.into_iter().zip(after));
    }
    if pairs.is_empty() && later.all_nodes().is_disjoint(&known) {
        let why = format!("{} and {} have no node with the same name", earlier.name, later.name);
        return Err(Failure::usage("Comparing nodes", why, "Give two states of a node, or two nodes."));
    }
    let (from, to) = tokio::join!(earlier.origin(), later.origin());
    let (from, to) = (from?, to?);
    let (mut nodes, mut left_behind) = (Vec::new(), Vec::new());
    for (one, two) in pairs {
        // The state of two readings is too large for the stack of a thread.
        let (first, second) = tokio::join!(Box::pin(read(&earlier, &one)), Box::pin(read(&later, &two)));
        for read in [&first, &second] {
            left_behind.extend(
                read.as_ref().map_or_else(|failure| failure.left_behind.clone(), |read| read.left_behind.clone()),
            );
        }
        match (first, second) {
            (Ok(first), Ok(second)) => nodes.push(NodeComparison::of(&one, &two, &first, &second)),
            (first, second) => {
                let why = first
                    .err()
                    .into_iter()
                    .chain(second.err())
                    .map(|failure| format!("{}: {}", failure.what, failure.why));
                not_compared.push(why.collect::<Vec<_>>().join("; "));
            }
        }
    }
    let changed = nodes.iter().filter(|node| !node.changes.is_empty()).count();
    let worst = nodes.iter().flat_map(|node| &node.changes).map(|change| change.severity).max();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.changes.first().map(|change| change.severity)));
    let summary = match worst {
        None if nodes.is_empty() => "No node could be compared.".to_owned(),
        None => format!("Nodes compared: {}; no change.", nodes.len()),
        Some(worst) => {
            let worst = variant_name(worst);
            format!("Nodes compared: {}; changed: {changed}; the worst change is {worst}.", nodes.len())
        }
    };
    Ok(Comparison { summary, earlier: from, later: to, nodes, only_later, not_compared, left_behind })
}

async fn read(side: &Side, node: &str) -> Result<Reading, Failure> {
    let read = read_node::read(&side.call, side.context.as_deref(), node, "compare", ReadCommand::everything()).await?;
    if read.report.source == Source::Api {
        let why = read.note.why_unread();
        return Err(Failure::new(format!("Reading node {node} of {}", side.name), why, "Compare other nodes."));
    }
    let values = NodeValues::of(&read.report)
        .map_err(|why| Failure::new(format!("Reading node {node} of {}", side.name), why, "Compare other nodes."))?;
    let left_behind = read.note.left_behind.or(read.note.process_left);
    Ok(Reading { report: read.report, diagnosis: read.diagnosis, values, left_behind })
}

impl NodeComparison {
    fn of(node: &str, later_node: &str, before: &Reading, after: &Reading) -> Self {
        let mut changes = changes::between(before, after, node == later_node);
        let omitted = changes.len().saturating_sub(MAX_CHANGES);
        changes.truncate(MAX_CHANGES);
        Self {
            node: node.to_owned(),
            later_node: (node != later_node).then(|| later_node.to_owned()),
            earlier_at: before.report.taken_at,
            later_at: after.report.taken_at,
            changes,
            changes_omitted: (omitted > 0).then_some(omitted),
        }
    }
}

impl Comparison {
    pub(crate) fn json(&self) -> Value {
        untrusted_text::json_of(self)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| !node.changes.is_empty()).map(|node| format!("node/{}", node.node)).collect()
    }

    /// The severity of the worst change. A comparison that lacks some of the nodes is incomplete.
    pub(crate) fn outcome(&self) -> Outcome {
        let changes = self.nodes.iter().flat_map(|node| &node.changes);
        let worst = changes.map(|change| change.severity).max().filter(|severity| *severity > Severity::Info);
        let outcome = worst.map_or(Outcome::NothingFound, Outcome::Found);
        if self.not_compared.is_empty() { outcome } else { outcome.of_incomplete() }
    }

    pub(crate) fn page(&self) -> Page {
        let Self { summary, earlier, later, nodes, only_later, not_compared, left_behind } = self;
        let mut page = Page::from(format!("{summary}\n"));
        for node in nodes.iter().filter(|node| !node.changes.is_empty()) {
            let NodeComparison { node, later_node, earlier_at, later_at, changes, changes_omitted } = node;
            let time = |time: &Option<Timestamp>| time.map(|time| format!(" at {time:.0}")).unwrap_or_default();
            let later_node = later_node.as_ref().unwrap_or(node);
            page.push_str(&format!("\n{node}{} → {later_node}{}\n", time(earlier_at), time(later_at)));
            let mut rows = new_table(["severity", "gpu", "what", "before", "after"]).note("after");
            for Change { severity, gpu, what, before, after, .. } in changes {
                // The domain of a PCI address has four digits, as in other tables.
                let short =
                    gpu.as_deref().map(|gpu| gpu.strip_prefix("0000").filter(|_| gpu.len() > 12).unwrap_or(gpu));
                rows.add_row([named(*severity), cell(short), what.clone(), cell(before.clone()), cell(after.clone())]);
            }
            page.push_table(rows);
            page.push_omitted(*changes_omitted, "more changes");
        }
        if !only_later.is_empty() {
            page.push_str(&format!("only in the later archive: {}\n", only_later.join(", ")));
        }
        not_compared.iter().for_each(|why| page.push_str(&format!("not compared: {why}\n")));
        left_behind.iter().for_each(|left| page.push_str(&format!("left behind: {left}\n")));
        page.push_str(&format!("\nearlier: {}\nlater: {}\n", earlier.line(), later.line()));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_or_the_end_of_a_file_names_an_archive() {
        for name in ["./gpu-1", "/tmp/x", "a.tar.gz", "a.tgz", "node.json"] {
            assert_eq!(archive_path(name), Some(PathBuf::from(name)));
        }
        // This file is in the working directory of the test.
        assert!(PathBuf::from("Cargo.toml").is_file());
        for name in ["Cargo.toml", "gpu-1", "node/gpu-1"] {
            assert_eq!(archive_path(name), None, "{name}");
        }
    }
}
