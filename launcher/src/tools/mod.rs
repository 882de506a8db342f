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
pub(crate) mod probing;
pub mod reset_gpu;
mod scope;
pub mod snapshot_ecc;
pub mod table;

pub(crate) use acting::LONGEST as LONGEST_ACTION;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syringe_core::text::tidy;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::answer::ProbeNote;
use crate::consent::Consent;
use crate::error::Failure;
use crate::fleet::Setbacks;
use crate::kubernetes::Contexts;
use crate::probe::{OnPhase, Prober};
use crate::quoted;
use crate::settings::{Mode, Settings};

/// What every call works with.
#[derive(Clone)]
pub struct Call {
    /// Settings of this launcher.
    pub settings: Arc<Settings>,
    /// The way to the clusters.
    pub contexts: Arc<Contexts>,
    /// Makes the probes.
    pub prober: Prober,
    /// Told of each phase.
    pub on_phase: OnPhase,
    /// Fires when the caller no longer wants the answer.
    pub cancel: CancellationToken,
    /// How a tool that changes something gets the user's word for it.
    pub consent: Consent,
    /// Nodes that failed of late, kept from call to call by whoever makes many.
    pub setbacks: Arc<Setbacks>,
    /// The API server that an action must be meant for, where somebody said so.
    pub server: Option<String>,
    /// When reading must have ended; what was put on the cluster is removed all the same. Set when the tool is entered.
    pub end: Instant,
}

impl Call {
    /// A call that nobody watches or takes back.
    pub fn new(settings: Arc<Settings>, contexts: Arc<Contexts>, prober: Prober, consent: Consent) -> Self {
        Self {
            end: Instant::now() + settings.call_time(),
            settings,
            contexts,
            prober,
            on_phase: Arc::new(|_| ()),
            cancel: CancellationToken::new(),
            consent,
            setbacks: Arc::default(),
            server: None,
        }
    }

    /// Time that is left for reading.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// What became of a probe that brought no facts; `None` where none was made.
    pub(crate) fn note_of_failed(&self, node: &str, context: &str, failure: &Failure) -> Option<ProbeNote> {
        let Failure { why, removed, left_behind, .. } = failure;
        if !removed && left_behind.is_none() {
            return None;
        }
        let note = ProbeNote::of_nothing(node, context, format!("the probe brought no facts: {why}"));
        let via = self.settings.via.word();
        Some(ProbeNote { via, removed: left_behind.is_none(), left_behind: left_behind.clone(), ..note })
    }

    /// What `asking` of the API brings, within the call's time.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout_at(self.end, asking).await.unwrap_or_else(|_| {
            let why = format!("it took longer than the {} s that a call may take", self.settings.call_timeout);
            Err(Failure::new(what, why, "Ask for less (one node, a selector), or allow more time with --call-timeout."))
        })
    }
}

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
