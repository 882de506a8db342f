//! The answer about many nodes: findings and outliers first, groups by model, every node counted.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::diagnosis::{ActionCode, Class, Severity, Verdict};

use crate::answer::node_names::Names;

/// An answer about many nodes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FleetAnswer {
    /// The worst node's; `unknown` where none is worse and some were not read.
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// The kubeconfig context.
    pub context: String,
    /// Every node, by what became of it.
    pub totals: Totals,
    /// Nodes that were read, by verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// Sections that were judged, where they are not all: then no verdict is about a whole node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged_only: Vec<String>,
    /// Findings over all nodes, worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FleetFinding>,
    /// Findings left out for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings_omitted: Option<usize>,
    /// Nodes that differ from most of their model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outliers: Vec<Outlier>,
    /// Outliers left out for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers_omitted: Option<usize>,
    /// Nodes that could not be read, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedNodes>,
    /// Reasons left out for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_omitted: Option<usize>,
    /// Nodes that were skipped for a minute because they failed twice in a row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<FailedNodes>,
    /// Reasons left out of `skipped` for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_omitted: Option<usize>,
    /// Nodes whose turn did not come within the call's time or limit. Ask for them with a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_reached: Option<Names>,
    /// Nodes that stand out, worst first. A node that is not here, nor in `failed`, `skipped` or `not_reached`, has no
    /// finding and is like its model.
    pub nodes: Vec<NodeDetail>,
    /// Nodes that stand out and were left out for space; `findings` and `outliers` name them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_omitted: Option<usize>,
    /// All nodes that were read, by model.
    pub groups: Vec<Group>,
    /// Models left out for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_omitted: Option<usize>,
    /// What is left on the cluster, and what to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
    /// More that is left, left out for space: gpu-syringe sweep removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_behind_omitted: Option<usize>,
    /// How the nodes were read.
    pub probes: ProbesNote,
}

/// Every node, by what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// GPU nodes that match.
    pub gpu_nodes: usize,
    /// Read.
    pub read: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Not tried.
    pub not_reached: usize,
    /// GPUs of those that were read.
    pub gpus: usize,
}

/// Nodes that differ from most of their model in one trait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outlier {
    /// What differs: `driver_version`, `gpus`, `pcie_lanes`, `hottest_celsius`, …
    pub what: &'static str,
    /// What they have.
    pub value: String,
    /// What most nodes of the model have.
    pub usual: String,
    /// The model that they are compared within.
    pub model: String,
    /// The nodes.
    pub nodes: Names,
}

/// Nodes of one GPU model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Group {
    /// The model.
    pub model: String,
    /// GPUs of all of them.
    pub gpus: usize,
    /// The nodes.
    pub nodes: Names,
    /// What most of them have, by trait.
    pub usual: BTreeMap<&'static str, String>,
}

/// A finding, and the nodes that have it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FleetFinding {
    /// Stable identifier.
    pub id: String,
    /// How bad, at its worst.
    pub severity: Severity,
    /// Whose fault.
    pub class: Class,
    /// In a few words.
    pub title: String,
    /// The nodes.
    pub nodes: Names,
    /// The one thing to do.
    pub action: ActionCode,
    /// The same in words.
    pub action_text: String,
}

/// Nodes that could not be read for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedNodes {
    /// The nodes.
    pub nodes: Names,
    /// The cause.
    pub why: String,
    /// What to do next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_step: String,
}

/// A node that stands out.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeDetail {
    /// The node.
    pub node: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its score, where health was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
    /// One or two sentences.
    pub summary: String,
    /// Its worst findings in short: `fatal gpu-off-bus GPU 3: evidence`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Findings that are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings_omitted: Option<usize>,
    /// How it differs from most nodes of its model: `driver_version 550.90 (usual: 570.124)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
    /// Values that could not be read.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown: usize,
}

/// How the nodes were read.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ProbesNote {
    /// Nodes read at the same time.
    pub concurrency: u16,
    /// Whether every probe pod of this call is gone for certain.
    pub removed: bool,
    /// Duration of the whole call.
    pub total_ms: u64,
    /// Median of the nodes that were read.
    pub median_node_ms: u64,
    /// The slowest of them.
    pub slowest_node_ms: u64,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
