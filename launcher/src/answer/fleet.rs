//! `FleetAnswer` and its parts (`NodeCounts`, `FleetFinding`, `Outlier`, `ModelGroup`, `FailedNodes`, `NodeDetail`):
//! the answer about many nodes, with findings and outliers first, then groups by model.

use std::collections::{BTreeMap, HashSet};

use diagnosis::finding::{Scope, Urgency, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::is_zero;
use syringe_macros::omit;

use crate::answer::node_name_ranges::NodeNames;
use crate::answer::wire::variant_name::variant_name;
use crate::outcome::{CommandAnswer, Outcome};

/// An answer about many nodes.
#[omit(Option, Vec, !nodes, !groups)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FleetAnswer {
    /// Whether unread data may hide a worse finding.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) undecided: bool,
    /// Names of the nodes that were not read, for `-o name`.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) unread: Vec<String>,
    /// The verdict of the worst node; `unknown` if a node was not read and no other node has a worse verdict.
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// The kubeconfig context.
    pub context: String,
    /// Number of nodes by result of the read.
    pub totals: NodeCounts,
    /// Number of nodes that were read, by verdict. A node with `warning` is not healthy.
    #[schemars(extend("x-text" = "own"))]
    pub verdicts: BTreeMap<String, usize>,
    /// Sections that were checked, if not all. In this case, no verdict applies to a whole node.
    #[schemars(extend("x-text" = "own"))]
    pub checked_only: Vec<String>,
    /// Findings of all nodes, worst first.
    pub findings: Vec<FleetFinding>,
    /// Nodes on which new work must not start: see their plans. Joined by commas, the list is the value of Slurm's
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// The names of these nodes.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) excluded: Vec<String>,
    /// Nodes that differ from most nodes of their model.
    pub outliers: Vec<Outlier>,
    /// Nodes that could not be read, by reason.
    pub failed: Vec<FailedNodes>,
    /// Nodes that are skipped for a minute after two failures in a row.
    pub skipped: Vec<FailedNodes>,
    /// Nodes that were not read because of the time or the `limit` of the call. Use a selector to read them.
    pub not_reached: Option<NodeNames>,
    /// Nodes with findings or differences, worst first. All other nodes that were read have no finding and do not
    /// differ from their model.
    pub nodes: Vec<NodeDetail>,
    /// All nodes that were read, by model.
    pub groups: Vec<ModelGroup>,
    /// Objects left on the cluster, and what to do about them.
    pub left_behind: Vec<String>,
    /// How the nodes were read.
    pub probes: ProbesSummary,
}

impl CommandAnswer for FleetAnswer {
    /// Returns the outcome. If nodes were not read, or were not read sufficiently, the outcome is incomplete, because
    /// these nodes may have worse findings.
    fn outcome(&self) -> Outcome {
        let found = Outcome::of_verdict(self.verdict);
        let all_read = self.failed.is_empty() && self.skipped.is_empty() && self.not_reached.is_none();
        if all_read && !self.undecided { found } else { found.of_incomplete() }
    }

    /// Returns the names of the nodes with findings or differences, and of the nodes that were not read. Every other
    /// node is healthy.
    fn names(&self) -> Vec<String> {
        let mut known = HashSet::new();
        let all = self.nodes.iter().map(|one| &one.node).chain(&self.unread);
        all.filter(|node| known.insert(*node)).map(|node| format!("node/{node}")).collect()
    }
}

/// Number of nodes by result of the read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeCounts {
    /// GPU nodes that match the selector.
    pub gpu_nodes: usize,
    /// Nodes that were read.
    pub read: usize,
    /// Nodes that could not be read.
    pub failed: usize,
    /// Nodes that were skipped.
    pub skipped: usize,
    /// Nodes that were not tried.
    pub not_reached: usize,
    /// GPUs of the nodes that were read.
    pub gpus: usize,
}

/// Nodes that differ from most of their model in one trait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outlier {
    /// What differs: `driver_version`, `gpus`, `pcie_lanes`, `hottest_celsius`, …
    #[schemars(extend("x-text" = "own"))]
    pub what: &'static str,
    /// The value on these nodes.
    pub value: String,
    /// The value on most nodes of the model.
    pub common: String,
    /// Other differences on exactly these nodes: `kernel 5.15.0 (common: 6.8.0)`.
    pub also: Vec<String>,
    /// The GPU model of these nodes.
    pub model: String,
    /// The nodes.
    pub nodes: NodeNames,
}

/// Nodes of one GPU model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ModelGroup {
    /// The model.
    pub model: String,
    /// GPUs of all these nodes.
    pub gpus: usize,
    /// The nodes.
    pub nodes: NodeNames,
    /// The value on most of these nodes, by trait.
    pub common: BTreeMap<&'static str, String>,
}

/// A finding, and the nodes on which it was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FleetFinding {
    /// Stable identifier.
    #[schemars(extend("x-text" = "own"))]
    pub id: String,
    /// Highest severity on any node.
    pub severity: Severity,
    /// Kind of cause.
    pub class: Class,
    /// Short text.
    #[schemars(extend("x-text" = "own"))]
    pub title: String,
    /// The nodes.
    pub nodes: NodeNames,
    /// The action.
    pub action: ActionCode,
    /// The action as text.
    pub action_text: String,
}

/// Nodes that could not be read, all for the same reason.
#[omit(next_step)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedNodes {
    /// The nodes.
    pub nodes: NodeNames,
    /// The cause.
    pub why: String,
    /// What to do next.
    pub next_step: String,
}

/// A node with findings or differences.
#[omit(Option, Vec, usize)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeDetail {
    /// The node.
    pub node: String,
    /// Verdict of the node.
    pub verdict: Verdict,
    /// When the plan of the node must be carried out; `diagnose_gpu_node` returns the plan.
    pub urgency: Option<Urgency>,
    /// Score of the node, if health was requested.
    pub score: Option<u32>,
    /// One or two sentences.
    pub summary: String,
    /// Worst findings of the node.
    pub findings: Vec<NodeFinding>,
    /// Number of findings that are not listed.
    pub findings_omitted: Option<usize>,
    /// Differences from most nodes of the model: `driver_version 550.90 (common: 570.124)`.
    pub differs: Vec<String>,
    /// Number of values that could not be read.
    pub unknown: usize,
}

impl Outlier {
    /// Returns the first difference as text: `driver_version 550.90 (common: 570.124)`.
    pub(crate) fn in_words(&self) -> String {
        format!("{} {} (common: {})", self.what, self.value, self.common)
    }
}

impl FailedNodes {
    /// Returns the nodes, grouped and sorted by reason and next step. `bytes`: the maximum length of a list of names.
    pub(crate) fn by_reason(nodes: BTreeMap<(String, String), Vec<String>>, bytes: usize) -> Vec<Self> {
        let one = |((why, next_step), nodes): (_, Vec<String>)| Self {
            nodes: NodeNames::of(nodes.iter().map(String::as_str), bytes),
            why,
            next_step,
        };
        nodes.into_iter().map(one).collect()
    }
}

impl ProbesSummary {
    /// Adds the median duration and the longest duration for one node.
    pub(crate) fn with_times(mut self, mut node_ms: Vec<u64>) -> Self {
        node_ms.sort_unstable();
        self.median_node_ms = node_ms.get(node_ms.len() / 2).copied().unwrap_or(0);
        self.slowest_node_ms = node_ms.last().copied().unwrap_or(0);
        self
    }
}

/// A finding of a node, with the field names of `diagnose_gpu_node`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeFinding {
    /// ID of the finding.
    #[schemars(extend("x-text" = "own"))]
    pub id: String,
    /// Severity of the finding.
    pub severity: Severity,
    /// The GPU, or the PCI address of a GPU without an index.
    #[serde(skip_serializing_if = "Scope::is_empty")]
    #[schemars(with = "Option<Scope>")]
    pub scope: Scope,
    /// The first line of the evidence.
    pub evidence: Vec<String>,
}

impl NodeFinding {
    /// Returns the line of a table: `fatal gpu-off-bus GPU 3: evidence`.
    pub(crate) fn line(&self) -> String {
        let gpu = self.scope.gpu.map(|gpu| format!(" GPU {gpu}")).unwrap_or_default();
        let evidence = self.evidence.first().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{} {}{gpu}{evidence}", variant_name(self.severity), self.id)
    }
}

/// How the nodes were read.
#[omit(Vec)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ProbesSummary {
    /// Number of nodes that are read at the same time.
    pub concurrency: u16,
    /// Whether the object of every probe pod of this call is certainly deleted.
    pub deleted: bool,
    /// Duration of the whole call.
    pub total_ms: u64,
    /// Median duration for one node.
    pub median_node_ms: u64,
    /// Duration for the slowest node.
    pub slowest_node_ms: u64,
    /// Methods that `--via auto` did not use, and why. Each method is listed only in the first answer to which it applies.
    pub passed_over: Vec<String>,
}
