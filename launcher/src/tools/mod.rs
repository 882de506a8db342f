//! The tools: one file each, the same for an AI host and for a person at a terminal.
//!
//! A tool has typed arguments, an answer with a schema, and a table for people. It never learns which of the two asked.

mod acting;
pub mod analyze_xid_errors;
pub mod describe_gpu_node;
pub mod diagnose_gpu_node;
pub mod explain_gpu_pod;
pub mod get_gpu_health;
pub mod get_gpu_inventory;
pub mod get_gpu_telemetry;
pub mod get_pod_gpu_allocation;
pub mod inspect_topology;
pub mod kill_gpu_process;
pub mod list_gpu_nodes;
pub mod reset_gpu;
pub mod snapshot_ecc;

pub(crate) use acting::LONGEST as LONGEST_ACTION;

use clap::Args;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syringe_core::text::tidy;
use tokio::time::Instant;

use crate::call::Call;
use crate::error::Failure;
use crate::quoted;
use crate::settings::Mode;

/// One tool.
pub trait Tool: Send + Sync + 'static {
    /// Name in MCP; with dashes it is the command.
    const NAME: &'static str;
    /// For people.
    const TITLE: &'static str;
    /// For models: what it answers, and when to use it.
    const DESCRIPTION: &'static str;
    /// Whether a pod is created for it. Such a tool does not claim to be read-only.
    const PROBES: bool;
    /// Whether it changes something. Such a tool exists in operator mode alone.
    const DESTRUCTIVE: bool = false;
    /// Arguments, all validated before anything is created.
    type Args: DeserializeOwned + Serialize + JsonSchema + Send;
    /// The answer.
    type Answer: Serialize + JsonSchema + Send;

    /// Answers.
    fn call(call: Call, args: Self::Args) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The answer for a person at a terminal.
    fn table(answer: &Self::Answer) -> String;

    /// Whether what was asked for was done. An action can be answered and not done.
    fn is_done(_: &Self::Answer) -> bool {
        true
    }
}

/// An answer in both of its forms.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// As it goes to a model or into a pipe.
    pub json: Value,
    /// As it goes to a terminal.
    pub table: String,
    /// Whether what was asked for was done: the exit code of a command.
    pub is_done: bool,
}

/// A tool with its types erased.
pub struct Entry {
    /// Name in MCP.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// For models.
    pub description: &'static str,
    /// Whether a pod is created.
    pub probes: bool,
    /// Whether it changes something.
    pub destructive: bool,
    /// JSON Schema of the arguments.
    pub input_schema: fn() -> Value,
    /// JSON Schema of the answer.
    pub output_schema: fn() -> Value,
    call: fn(Call, Value) -> BoxFuture<'static, Result<Rendered, Failure>>,
}

impl Entry {
    fn of<T: Tool>() -> Self {
        Self {
            name: T::NAME,
            title: T::TITLE,
            description: T::DESCRIPTION,
            probes: T::PROBES,
            destructive: T::DESTRUCTIVE,
            input_schema: crate::schema::input::<T::Args>,
            output_schema: crate::schema::output::<T::Answer>,
            call: |call, args| run::<T>(call, args).boxed(),
        }
    }

    /// Runs the tool.
    pub fn call(&self, call: Call, args: Value) -> BoxFuture<'static, Result<Rendered, Failure>> {
        (self.call)(call, args)
    }
}

async fn run<T: Tool>(call: Call, args: Value) -> Result<Rendered, Failure> {
    let args = serde_json::from_value(args).map_err(|error| {
        Failure::new(format!("The arguments of {}", T::NAME), error, "Correct them after the tool's input schema.")
    })?;
    let call = Call { end: Instant::now() + call.settings.call_time(), ..call };
    let answer = T::call(call, args).await?;
    let mut json = serde_json::to_value(&answer).map_err(|error| {
        Failure::new("Writing the answer", error, "This is a defect of gpu-syringe: please report it.")
    })?;
    quoted::finish(&mut json);
    Ok(Rendered { json, table: tidy(&T::table(&answer)), is_done: T::is_done(&answer) })
}

/// Every tool that this launcher offers, in the order in which they are listed. What changes something is there in
/// operator mode alone.
pub fn all(mode: Mode) -> Vec<Entry> {
    let mut tools = vec![
        Entry::of::<list_gpu_nodes::ListGpuNodes>(),
        Entry::of::<diagnose_gpu_node::DiagnoseGpuNode>(),
        Entry::of::<describe_gpu_node::DescribeGpuNode>(),
        Entry::of::<get_pod_gpu_allocation::GetPodGpuAllocation>(),
        Entry::of::<get_gpu_health::GetGpuHealth>(),
        Entry::of::<get_gpu_inventory::GetGpuInventory>(),
        Entry::of::<get_gpu_telemetry::GetGpuTelemetry>(),
        Entry::of::<analyze_xid_errors::AnalyzeXidErrors>(),
        Entry::of::<explain_gpu_pod::ExplainGpuPod>(),
        Entry::of::<snapshot_ecc::SnapshotEcc>(),
        Entry::of::<inspect_topology::InspectTopology>(),
    ];
    if mode == Mode::Operator {
        tools.push(Entry::of::<kill_gpu_process::KillGpuProcess>());
        tools.push(Entry::of::<reset_gpu::ResetGpu>());
    }
    tools
}

/// Arguments of a tool that reads one node.
#[derive(Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeArgs {
    /// Kubernetes node
    #[arg(long, value_name = "NODE")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Kubeconfig context; the current one by default
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// Arguments of a tool that reads one node, or all GPU nodes.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetArgs {
    /// Kubernetes node; all GPU nodes by default
    #[arg(long, value_name = "NODE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// Without node_name: only nodes with these labels
    #[arg(long, value_name = "SELECTOR", conflicts_with = "node_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub selector: Option<String>,
    /// Without node_name: at most this many nodes
    #[arg(long, value_name = "NODES", conflicts_with = "node_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// Kubeconfig context; the current one by default
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl FleetArgs {
    /// Refuses what contradicts itself. On the command line clap does.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self { node_name, selector, limit, .. } = self;
        let refuse = |why: &str| Err(Failure::new("The arguments", why, "Correct them after the tool's input schema."));
        match (node_name, selector.is_some() || limit.is_some(), limit) {
            (Some(_), true, _) => refuse("selector and limit are for many nodes; leave out node_name, or both of them"),
            (_, _, Some(0)) => refuse("limit must be at least 1"),
            _ => Ok(()),
        }
    }
}
