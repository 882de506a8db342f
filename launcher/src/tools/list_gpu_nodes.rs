//! `list_gpu_nodes`: which nodes have GPUs, as Kubernetes knows it. No pod is created.

use std::collections::BTreeMap;

use clap::Args;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::text::clean;

use super::table::{cell, lines, table};
use super::{Call, Tool};
use crate::cluster::gpu_nodes::{self, gpu_conditions, gpu_resources, label_number};
use crate::error::Failure;

/// Nodes in one answer. The totals always count all.
const MOST_NODES: usize = 200;

/// The tool.
pub struct ListGpuNodes;

/// Arguments.
#[derive(Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListArgs {
    /// Label selector, e.g. nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3
    #[arg(long, value_name = "SELECTOR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub selector: Option<String>,
    /// Kubeconfig context; the current one by default
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct GpuNodes {
    /// One sentence.
    pub summary: String,
    /// Context that was asked.
    pub context: String,
    /// GPU nodes, those with a problem first.
    pub nodes: Vec<GpuNode>,
    /// Nodes left out of `nodes` for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_omitted: Option<usize>,
    /// All GPU nodes together.
    pub totals: Totals,
}

/// All GPU nodes together.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Totals {
    /// Nodes of the cluster that were looked at.
    pub nodes: u32,
    /// Those with GPUs.
    pub gpu_nodes: u32,
    /// Those among them that are Ready.
    pub gpu_nodes_ready: u32,
    /// GPU resources by name, as the nodes offer them (capacity).
    pub capacity: BTreeMap<String, u32>,
    /// GPU resources by name, as the scheduler may give them out (allocatable).
    pub allocatable: BTreeMap<String, u32>,
    /// GPU nodes by model.
    pub models: BTreeMap<String, u32>,
}

/// One GPU node.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct GpuNode {
    /// Node name.
    pub name: String,
    /// Whether its kubelet is Ready.
    pub ready: bool,
    /// GPU model (GPU Feature Discovery).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Number of GPUs (GPU Feature Discovery).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_count: Option<u32>,
    /// Driver version (GPU Feature Discovery).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// GPU resources (capacity).
    pub capacity: BTreeMap<String, u32>,
    /// GPU resources (allocatable).
    pub allocatable: BTreeMap<String, u32>,
    /// Whether it is cordoned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// Taints, `key=value:effect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// What is wrong by Kubernetes' own account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Tool for ListGpuNodes {
    const NAME: &'static str = "list_gpu_nodes";
    const TITLE: &'static str = "List GPU nodes";
    const DESCRIPTION: &'static str = "GPU nodes as Kubernetes knows them: model, count, driver, capacity, allocatable, cordon, \
        taints, GPU conditions, totals. Creates nothing. Start here to find node names.";
    const PROBES: bool = false;
    type Args = ListArgs;
    type Answer = GpuNodes;

    async fn call(call: Call, args: ListArgs) -> Result<GpuNodes, Failure> {
        let ListArgs { selector, context } = args;
        let connection = call.contexts.connect(context.as_deref()).await?;
        let mut answer = GpuNodes { context: connection.context.clone(), ..GpuNodes::default() };
        let looked_at = gpu_nodes::each(&connection, selector.as_deref(), |node| answer.add(&node)).await?;
        answer.totals.nodes = looked_at;
        answer.conclude();
        Ok(answer)
    }

    fn table(answer: &GpuNodes) -> String {
        let mut rows = table(["node", "ready", "model", "gpus", "driver", "capacity", "allocatable", "problems"]);
        for node in &answer.nodes {
            let resources = |of: &BTreeMap<String, u32>| {
                of.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
            };
            let ready = match (node.ready, node.cordoned) {
                (true, false) => "yes",
                (true, true) => "yes, cordoned",
                (false, _) => "NO",
            };
            rows.add_row([
                node.name.clone(),
                ready.into(),
                cell(node.model.clone()),
                cell(node.gpu_count),
                cell(node.driver_version.clone()),
                resources(&node.capacity),
                resources(&node.allocatable),
                node.problems.join("; "),
            ]);
        }
        let omitted = answer.nodes_omitted.map(|count| format!("… and {count} more nodes\n")).unwrap_or_default();
        format!("{}\n\n{}{omitted}", answer.summary, lines(&rows))
    }
}

impl GpuNodes {
    fn add(&mut self, node: &Node) {
        let row = GpuNode::of(node);
        let totals = &mut self.totals;
        totals.gpu_nodes += 1;
        totals.gpu_nodes_ready += u32::from(row.ready);
        for (into, from) in [(&mut totals.capacity, &row.capacity), (&mut totals.allocatable, &row.allocatable)] {
            for (name, count) in from {
                *into.entry(name.clone()).or_default() += count;
            }
        }
        *totals.models.entry(row.model.clone().unwrap_or_else(|| "unknown".into())).or_default() += 1;
        self.nodes.push(row);
    }

    fn conclude(&mut self) {
        self.nodes.sort_by_key(|node| (node.problems.is_empty(), node.name.clone()));
        let omitted = self.nodes.len().saturating_sub(MOST_NODES);
        let troubled = self.nodes.iter().filter(|node| !node.problems.is_empty()).count();
        self.nodes.truncate(MOST_NODES);
        self.nodes_omitted = (omitted > 0).then_some(omitted);
        let Totals { nodes, gpu_nodes, gpu_nodes_ready, .. } = &self.totals;
        self.summary = format!(
            "{gpu_nodes} of {nodes} nodes in context {} have GPUs; {gpu_nodes_ready} Ready, {troubled} with a problem that \
             Kubernetes sees.",
            self.context
        );
    }
}

impl GpuNode {
    fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let spec = node.spec.as_ref();
        let label = |name: &str| node.labels().get(name).map(|value| clean(value, 80));
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let resources = |of: Option<&BTreeMap<_, _>>| of.map(gpu_resources).unwrap_or_default();
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let mut row = Self {
            name: node.name_any(),
            ready,
            model: label("nvidia.com/gpu.product"),
            gpu_count: label_number(node, "nvidia.com/gpu.count"),
            driver_version: driver_version(node),
            capacity: resources(status.and_then(|status| status.capacity.as_ref())),
            allocatable: resources(status.and_then(|status| status.allocatable.as_ref())),
            cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            taints: taints
                .iter()
                .map(|taint| format!("{}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect))
                .collect(),
            problems: Vec::new(),
        };
        row.problems = row.problems_of(node);
        row
    }

    fn problems_of(&self, node: &Node) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.ready {
            problems.push("not Ready".into());
        }
        let capacity: u32 = self.capacity.values().sum();
        let allocatable: u32 = self.allocatable.values().sum();
        if capacity == 0 {
            problems.push("offers no GPU resource: its device plugin is not running or finds no healthy GPU".into());
        } else if allocatable < capacity {
            problems.push(format!("the device plugin reports {} of {capacity} as unhealthy", capacity - allocatable));
        }
        problems.extend(gpu_conditions(node));
        problems
    }
}

/// The driver's version from the labels of GPU Feature Discovery: one label since 0.16, three before.
fn driver_version(node: &Node) -> Option<String> {
    let label = |name: &str| node.labels().get(name).map(|value| clean(value, 40));
    label("nvidia.com/cuda.driver-version.full").or_else(|| {
        let parts = ["major", "minor", "rev"].map(|part| label(&format!("nvidia.com/cuda.driver.{part}")));
        let parts: Vec<_> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        (!parts.is_empty()).then(|| parts.join("."))
    })
}
