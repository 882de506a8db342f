//! `ListGpuNodes`: the tool `list_gpu_nodes`, which lists the nodes with GPUs from the Kubernetes API. No pod is
//! created. `ListArgs`, `GpuNodes`: its arguments and its answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;

use futures_util::future::{Either, select};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::classification::Severity;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;
use tokio::time::{Instant, timeout_at};

use crate::call::CallContext;
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::{cell, counted, new_table};
use crate::tools::tool::Tool;
use kube_read::Failure;
use kube_read::client::connection::Connection;
use kube_read::objects::dra::Dra;
use kube_read::objects::gpu_requests;
use kube_read::objects::gpu_requests::ResourceCounts;
use kube_read::objects::gpu_resource_names::GPU_RESOURCE;
use kube_read::objects::label_selector::LabelSelector;
use kube_read::objects::node_conditions::{is_cordoned, is_ready, why_not_ready};
use kube_read::objects::node_facts as node_gpus;
use kube_read::objects::node_labels::{is_gpu_node, label_number, replicas};
use kube_read::reads::{nodes, pods, resource_claims};
use syringe_macros::omit;

pub struct ListGpuNodes;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListArgs {
    /// Label selector, e.g. nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    #[schemars(with = "Option<String>", length(max = 500))]
    pub selector: Option<LabelSelector>,
    /// Only nodes with at least this many free GPUs
    // Models do not have this argument: they read `free` in the totals.
    #[arg(long, value_name = "GPUS")]
    #[serde(skip)]
    pub(crate) free: Option<u64>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

#[omit(unknown)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct GpuNodes {
    /// Number of nodes with problems, listed or not.
    #[serde(skip)]
    with_problems: usize,
    /// Nodes whose GPUs are shared by time-slicing or MPS.
    #[serde(skip)]
    with_shares: usize,
    /// Summary in one sentence.
    pub summary: String,
    /// The kubeconfig context.
    pub context: String,
    /// Totals of all GPU nodes.
    pub totals: NodeCounts,
    /// GPU nodes. Nodes with problems come first.
    pub nodes: Vec<GpuNode>,
    /// Data that could not be read.
    pub unknown: Vec<Unknown>,
}

/// Totals of all GPU nodes.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct NodeCounts {
    /// Nodes that were checked.
    pub nodes: u32,
    /// Nodes with GPUs.
    pub gpu_nodes: u32,
    /// GPU nodes that are Ready.
    pub gpu_nodes_ready: u32,
    /// Capacity of each GPU resource, by name.
    pub capacity: ResourceCounts,
    /// Allocatable amount of each GPU resource, by name.
    pub allocatable: ResourceCounts,
    /// Allocated amount of each GPU resource, by name. Absent if the pods could not be read.
    pub allocated: Option<ResourceCounts>,
    /// Free amount of each GPU resource for new pods, by name. A node that is cordoned or not Ready has no free GPUs.
    /// Absent if the pods could not be read.
    pub free: Option<ResourceCounts>,
    /// Number of GPU nodes by GPU model.
    pub models: BTreeMap<String, u32>,
}

/// One GPU node.
#[omit(Option, Vec, cordoned)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct GpuNode {
    /// Node name.
    pub node: String,
    /// Whether the node is Ready.
    pub ready: bool,
    /// Problems that Kubernetes reports.
    pub problems: Vec<String>,
    /// GPU model (GPU Feature Discovery).
    pub model: Option<String>,
    /// Number of GPUs, from the labels of GPU Feature Discovery.
    pub gpu_count: Option<u32>,
    /// Driver version (GPU Feature Discovery).
    pub driver_version: Option<String>,
    /// Time-slicing or MPS: the amounts of `nvidia.com/gpu` count shares, and each GPU has this many.
    pub shares_per_gpu: Option<u32>,
    /// Capacity of each GPU resource. Devices of dynamic resource allocation have the name of their driver.
    pub capacity: ResourceCounts,
    /// Allocatable amount of each GPU resource: less than the capacity if the device plugin reports unhealthy devices.
    pub allocatable: ResourceCounts,
    /// Allocated amount of each GPU resource. Absent if the pods could not be read.
    pub allocated: Option<ResourceCounts>,
    /// Amount of each GPU resource that a new pod can get: the allocatable minus the allocated amount; zero on a node
    /// that accepts no pods. Absent if the pods could not be read.
    pub free: Option<ResourceCounts>,
    /// Why the node accepts no pods: it is cordoned or not Ready.
    pub takes_no_pods: Option<String>,
    /// Whether the node is cordoned.
    pub cordoned: bool,
    /// Taints in the form `key=value:effect`.
    pub taints: Vec<String>,
}

impl Tool for ListGpuNodes {
    const NAME: &'static str = "list_gpu_nodes";
    const TITLE: &'static str = "List GPU nodes";
    const DESCRIPTION: &'static str = "GPU nodes from the Kubernetes API: model, count, driver, capacity, allocatable, allocated, cordon, \
        taints, GPU conditions, totals. Creates no pod. Shows the names of nodes and where GPUs are free.";
    const PROBES: bool = false;
    type Args = ListArgs;
    type Answer = GpuNodes;

    async fn call(call: CallContext, args: ListArgs) -> Result<GpuNodes, Failure> {
        let ListArgs { selector, free, context } = args;
        let what = "Listing the GPU nodes";
        let connection = call.with_deadline(what, call.contexts.connect(context.as_deref())).await?;
        let mut unknown = Vec::new();
        let listing = list(&connection, selector.as_deref(), call.end - RESERVED_FOR_ANSWER, &mut unknown);
        let Listed { dra, checked, rows, held } = call.with_deadline(what, listing).await?;
        let held_by_claims = dra.as_ref().map(Dra::held).unwrap_or_default();
        let held = match held {
            Ok(held) => Some(held),
            Err(Failure { what, why, .. }) => {
                unknown.push(Unknown::new("pods", format!("{what}: {why}")));
                None
            }
        };
        let mut answer = GpuNodes { context: connection.context, unknown, ..GpuNodes::default() };
        for mut row in rows {
            row.allocated = held.as_ref().map(|held| {
                let mut held = held.get(&row.node).cloned().unwrap_or_default();
                held.extend(held_by_claims.get(row.node.as_str()).cloned().unwrap_or_default());
                held
            });
            row.free = row.free();
            answer.add(row);
        }
        answer.totals.nodes = checked;
        let most = answer.nodes.iter().max_by_key(|node| node.free_gpus());
        let most = most.map(|node| (node.free_gpus(), node.node.clone()));
        if let Some(least) = free {
            answer.keep_free(least)?;
        }
        answer.set_summary();
        if let (Some(least), Some((most, node)), true) = (free, most, answer.nodes.is_empty()) {
            answer.summary += &format!(" No node has {least} free GPUs: the most are {most}, on {node}.");
        }
        if let (0, Some(selector)) = (checked, &selector) {
            answer.summary += &format!(" No node matches {}.", clean(selector, 200));
        }
        Ok(answer)
    }

    fn page(answer: &GpuNodes) -> Page {
        let heads =
            ["node", "ready", "model", "gpus", "driver", "free", "allocated", "allocatable", "capacity", "problems"];
        let mut rows =
            new_table(heads).optional(&["driver", "gpus", "capacity", "allocatable", "model"]).note("problems");
        for node in &answer.nodes {
            let ready = match (node.ready, node.cordoned) {
                (true, false) => "yes",
                (true, true) => "yes, cordoned",
                (false, _) => "NO",
            };
            let ready = paint(ready, (!node.ready).then_some(Paint::Critical));
            rows.add_row([
                node.node.clone(),
                ready,
                cell(node.model.clone()),
                cell(node.gpu_count),
                cell(node.driver_version.clone()),
                cell(node.free.as_ref().map(|free| gpu_requests::text(free) + &node.shares())),
                cell(node.allocated.as_ref().map(gpu_requests::text)),
                gpu_requests::text(&node.allocatable),
                gpu_requests::text(&node.capacity),
                node.problems.join("; "),
            ]);
        }
        let mut page = Page::from(format!("{}\n", answer.summary));
        page.push_table(rows);
        answer.unknown.iter().for_each(|unknown| page.push_unknown(unknown));
        page
    }
}

impl CommandAnswer for GpuNodes {
    fn outcome(&self) -> Outcome {
        // Kubernetes reports problems, but not how severe they are.
        if self.with_problems > 0 { Outcome::Found(Severity::Warning) } else { Outcome::NothingFound }
    }

    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("node/{}", node.node)).collect()
    }
}

/// Time of a call that is reserved for building the answer.
const RESERVED_FOR_ANSWER: std::time::Duration = std::time::Duration::from_secs(2);

/// The data from the API server.
struct Listed {
    dra: Option<Dra>,
    /// Nodes that were checked.
    checked: u32,
    /// The GPU nodes, without the resources that pods use.
    rows: Vec<GpuNode>,
    /// The resources that pods use on each node.
    held: Result<HashMap<String, ResourceCounts>, Failure>,
}

/// Lists the nodes and all pods at the same time. If there are few GPU nodes, the pods of each node are also listed as
/// soon as the nodes are known, and the list that is complete first is used.
async fn list(
    connection: &Connection,
    selector: Option<&str>,
    end: Instant,
    unknown: &mut Vec<Unknown>,
) -> Result<Listed, Failure> {
    // Reading all pods of a large cluster can take longer than the call. The answer does not wait for this list.
    let mut all_pods = pin!(before(end, pods::allocated(connection)));
    let nodes = pin!(gpu_nodes(connection, selector, unknown));
    let (nodes, held) = match select(nodes, all_pods.as_mut()).await {
        Either::Left((nodes, _)) => (nodes?, None),
        Either::Right((held, nodes)) => (nodes.await?, Some(held)),
    };
    let (dra, checked, rows) = nodes;
    let names: BTreeSet<String> = rows.iter().map(|row| row.node.clone()).collect();
    let held = match held {
        Some(held) => held,
        None if names.len() <= pods::FEW_NODES => {
            let of_each = pin!(before(end, pods::allocated_on(connection, &names)));
            select(all_pods, of_each).await.factor_first().0
        }
        None => all_pods.await,
    };
    Ok(Listed { dra, checked, rows, held })
}

/// Returns the devices of dynamic resource allocation, the number of nodes, and the GPU nodes.
async fn gpu_nodes(
    connection: &Connection,
    selector: Option<&str>,
    unknown: &mut Vec<Unknown>,
) -> Result<(Option<Dra>, u32, Vec<GpuNode>), Failure> {
    let dra = resource_claims::read(connection, None, unknown).await?;
    let dra_nodes: BTreeSet<&str> = dra.iter().flat_map(Dra::nodes).collect();
    let is_wanted = |node: &Node| is_gpu_node(node) || dra_nodes.contains(node.name_any().as_str());
    let row = |node: Node| GpuNode::of(&node, dra.as_ref());
    let (checked, rows) = nodes::collect(connection, selector, is_wanted, row).await?;
    drop(dra_nodes);
    Ok((dra, checked, rows))
}

async fn before<T>(end: Instant, pods: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout_at(end, pods).await.unwrap_or_else(|_| Err(out_of_time()))
}

fn out_of_time() -> Failure {
    Failure::new("Listing the pods", "the time of the call ended", "Select fewer nodes with a selector.")
}

impl GpuNodes {
    fn add(&mut self, row: GpuNode) {
        let totals = &mut self.totals;
        totals.gpu_nodes += 1;
        totals.gpu_nodes_ready += u32::from(row.ready);
        gpu_requests::add(&mut totals.capacity, &row.capacity);
        gpu_requests::add(&mut totals.allocatable, &row.allocatable);
        if let Some(allocated) = &row.allocated {
            gpu_requests::add(totals.allocated.get_or_insert_default(), allocated);
        }
        if let Some(free) = row.free() {
            gpu_requests::add(totals.free.get_or_insert_default(), &free);
        }
        *totals.models.entry(row.model.clone().unwrap_or_else(|| "unknown".into())).or_default() += 1;
        self.with_problems += usize::from(!row.problems.is_empty());
        self.with_shares += usize::from(row.shares_per_gpu.is_some());
        self.nodes.push(row);
    }

    /// Keeps the nodes with at least `least` whole GPUs free. The totals are still those of all nodes.
    fn keep_free(&mut self, least: u64) -> Result<(), Failure> {
        if self.totals.allocated.is_none() && !self.nodes.is_empty() {
            let next = "To see the reason, run gpu-syringe nodes.";
            return Err(Failure::new("Counting the free GPUs", "the pods could not be read", next));
        }
        self.nodes.retain(|node| node.free_gpus() >= least);
        Ok(())
    }

    fn set_summary(&mut self) {
        self.nodes.sort_by_cached_key(|node| (node.problems.is_empty(), node.ready, node.node.clone()));
        let with_problems = self.with_problems;
        let NodeCounts { nodes, gpu_nodes, gpu_nodes_ready, free, allocatable, .. } = &self.totals;
        let free = free
            .as_ref()
            .map(|free| format!(" Free GPUs: {} of {}.", gpu_requests::text(free), gpu_requests::text(allocatable)));
        let shares = match self.with_shares {
            0 => String::new(),
            count => format!(" These amounts count shares of GPUs on {}.", counted(count, "node")),
        };
        let gpu_nodes = counted(*gpu_nodes as usize, "GPU node");
        self.summary = format!(
            "{gpu_nodes} of {nodes} (context {}): {gpu_nodes_ready} Ready, {with_problems} with problems reported by Kubernetes.{}{shares}",
            self.context,
            free.unwrap_or_default()
        );
    }
}

impl GpuNode {
    /// Returns the free GPUs for a new pod: none on a node that is cordoned or not Ready. `None` if the pods are unknown.
    fn free(&self) -> Option<ResourceCounts> {
        let allocated = self.allocated.as_ref()?;
        let takes_pods = self.ready && !self.cordoned;
        let free = |(name, count): (&String, &u64)| {
            let left = count.saturating_sub(allocated.get(name).copied().unwrap_or(0));
            (name.clone(), if takes_pods { left } else { 0 })
        };
        Some(self.allocatable.iter().map(free).collect())
    }

    /// Returns the number of whole GPUs that a new pod can get. Slices of MIG are not counted.
    fn free_gpus(&self) -> u64 {
        let shares = u64::from(self.shares_per_gpu.unwrap_or(1));
        let whole = |(name, count): (String, u64)| match name.contains("/mig-") {
            true => 0,
            false => count / shares,
        };
        self.free().into_iter().flatten().map(whole).max().unwrap_or(0)
    }

    fn shares(&self) -> String {
        self.shares_per_gpu.map(|shares| format!(" ({shares} shares per GPU)")).unwrap_or_default()
    }

    fn of(node: &Node, dra: Option<&Dra>) -> Self {
        let (capacity, allocatable) = node_gpus::capacity_and_allocatable(node, dra);
        Self {
            node: node.name_any(),
            ready: is_ready(node),
            problems: node_gpus::problems(node, &capacity, &allocatable),
            model: node_gpus::model(node, dra),
            gpu_count: label_number(node, "nvidia.com/gpu.count"),
            driver_version: node_gpus::driver_version(node, dra),
            shares_per_gpu: Some(replicas(node, GPU_RESOURCE)).filter(|shares| *shares > 1),
            capacity,
            allocatable,
            allocated: None,
            free: None,
            takes_no_pods: why_not_ready(node).or_else(|| is_cordoned(node).then(|| "cordoned".to_owned())),
            cordoned: is_cordoned(node),
            taints: node_gpus::taints(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_or_not_ready_node_has_no_free_gpus() {
        let amounts = |count: u64| ResourceCounts::from([(GPU_RESOURCE.to_owned(), count)]);
        let node = |ready, cordoned, allocated| GpuNode {
            ready,
            cordoned,
            allocatable: amounts(8),
            allocated,
            ..GpuNode::default()
        };
        assert_eq!(node(true, false, Some(amounts(3))).free(), Some(amounts(5)));
        assert_eq!(node(true, false, Some(ResourceCounts::new())).free(), Some(amounts(8)));
        assert_eq!(node(true, true, Some(amounts(3))).free(), Some(amounts(0)));
        assert_eq!(node(false, false, Some(amounts(3))).free(), Some(amounts(0)));
        assert_eq!(node(true, false, None).free(), None);
        let mut answer = GpuNodes::default();
        answer.add(node(true, false, Some(amounts(3))));
        answer.add(node(true, true, Some(amounts(3))));
        answer.set_summary();
        assert!(answer.summary.ends_with(" Free GPUs: 5 of 16."), "{}", answer.summary);
        answer.keep_free(5).expect("the pods are known");
        assert_eq!((answer.nodes.len(), answer.totals.gpu_nodes), (1, 2));
        answer.keep_free(6).expect("the pods are known");
        assert!(answer.nodes.is_empty());
    }

    #[test]
    fn shares_and_slices_are_no_whole_gpus() {
        let node = |name: &str, shares| GpuNode {
            ready: true,
            allocatable: ResourceCounts::from([(name.to_owned(), 32)]),
            allocated: Some(ResourceCounts::new()),
            shares_per_gpu: shares,
            ..GpuNode::default()
        };
        assert_eq!(node(GPU_RESOURCE, Some(4)).free_gpus(), 8);
        assert_eq!(node(GPU_RESOURCE, None).free_gpus(), 32);
        assert_eq!(node("nvidia.com/mig-1g.10gb", None).free_gpus(), 0);
        let mut answer = GpuNodes::default();
        answer.add(node(GPU_RESOURCE, Some(4)));
        answer.set_summary();
        assert!(answer.summary.ends_with("These amounts count shares of GPUs on 1 node."), "{}", answer.summary);
    }
}
