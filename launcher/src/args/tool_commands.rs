//! `ToolCommand`: the commands that run a tool, some with `--watch` (`Watched`) or consent (`Confirmed`).
//! `into_call` converts a command to a `ToolCall`.

use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::call::CallContext;
use crate::tools::analyze_xid_errors::{AnalyzeXidErrors, XidArgs};
use crate::tools::describe_gpu_node::DescribeGpuNode;
use crate::tools::diagnose_gpu_node::{DiagnoseArgs, DiagnoseGpuNode};
use crate::tools::explain_gpu_pod::{ExplainArgs, ExplainGpuPod};
use crate::tools::get_gpu_health::GetGpuHealth;
use crate::tools::get_gpu_inventory::GetGpuInventory;
use crate::tools::get_gpu_telemetry::{GetGpuTelemetry, TelemetryArgs};
use crate::tools::get_pod_gpu_allocation::{AllocationArgs, GetPodGpuAllocation};
use crate::tools::gpu_processes::GpuProcesses;
use crate::tools::gpu_section::SectionTool;
use crate::tools::inspect_topology::TopologySection;
use crate::tools::kill_gpu_process::{KillArgs, KillGpuProcess};
use crate::tools::list_gpu_nodes::{ListArgs, ListGpuNodes};
use crate::tools::reset_gpu::{ResetArgs, ResetGpu};
use crate::tools::snapshot_ecc::EccSection;
use crate::tools::{self, FleetArgs, NodeArgs, RenderedAnswer, Tool};
use kube_read::Failure;

/// The commands that run a tool. A command has the arguments of its tool. The name of a tool is also accepted as a
/// command, because the JSON output contains names of tools.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// GPU nodes and free GPUs; creates no pod
    Nodes(Watched<ListArgs>),
    /// Health of a node, or of all GPU nodes
    Health(Watched<FleetArgs>),
    /// GPUs of a node, or of all GPU nodes
    Inventory(FleetArgs),
    /// What is wrong: checks all data with all rules
    Diagnose(DiagnoseArgs),
    /// State of a node in Kubernetes and of its GPUs
    Describe(NodeArgs),
    /// Xid errors of a node, or what a code means
    Xid(XidArgs),
    /// Temperature, power, clocks, utilization
    #[command(visible_alias = "top")]
    Telemetry(Watched<TelemetryArgs>),
    /// Memory errors and row remaps
    Ecc(NodeArgs),
    /// Processes on the GPUs, and how to stop them
    Processes(NodeArgs),
    /// PCIe, NVLink and NUMA topology
    Topology(NodeArgs),
    /// Why a pod failed, hangs or is Pending
    Explain(ExplainArgs),
    /// Pods with GPUs of a node or a namespace
    #[command(visible_alias = "allocation")]
    Pods(AllocationArgs),
    /// Kill a process on a GPU (--mode operator)
    KillGpuProcess(Confirmed<KillArgs>),
    /// Reset a GPU (--mode operator)
    ResetGpu(Confirmed<ResetArgs>),
}

/// Arguments of a tool whose command can be repeated with `--watch`.
#[derive(Args, Debug)]
pub(crate) struct Watched<T: Args> {
    #[command(flatten)]
    args: T,
    /// Read again every SECONDS, 5 by default, until Ctrl-C; a command that probes creates a pod each time
    #[arg(short = 'w', long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "5", value_parser = clap::value_parser!(u64).range(2..=3600))]
    watch: Option<u64>,
}

/// Arguments of an action, which needs the consent of the user.
#[derive(Args, Debug)]
pub(crate) struct Confirmed<T: Args> {
    #[command(flatten)]
    args: T,
    /// Skip the confirmation prompt
    #[arg(long)]
    yes: bool,
    /// Expected address of the API server; the command fails if the context has another address
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

type RunTool = Box<dyn Fn(CallContext) -> BoxFuture<'static, Result<RenderedAnswer, Failure>> + Send + Sync>;

/// The call of a tool.
pub(crate) struct ToolCall {
    pub(crate) tool: &'static str,
    pub(crate) destructive: bool,
    /// The function that runs the tool with the arguments of the command line.
    pub(crate) run: RunTool,
    /// The arguments as an AI host would send them, for the documents.
    pub(crate) arguments: Result<Value, serde_json::Error>,
    /// The value of `--yes`.
    pub(crate) says_yes: bool,
    /// The value of `--server`.
    pub(crate) server: Option<String>,
    /// Time between two readings of `--watch`.
    pub(crate) watch: Option<Duration>,
}

impl ToolCall {
    fn new<T: Tool>(args: T::Args) -> Self {
        Self {
            tool: T::NAME,
            destructive: T::DESTRUCTIVE,
            arguments: serde_json::to_value(&args),
            run: Box::new(move |call| tools::run::<T>(call, args.clone()).boxed()),
            says_yes: false,
            server: None,
            watch: None,
        }
    }

    fn watched<T: Tool>(Watched { args, watch }: Watched<T::Args>) -> Self {
        Self { watch: watch.map(Duration::from_secs), ..Self::new::<T>(args) }
    }

    fn confirmed<T: Tool>(Confirmed { args, yes, server }: Confirmed<T::Args>) -> Self {
        Self { says_yes: yes, server, ..Self::new::<T>(args) }
    }
}

impl ToolCommand {
    /// Converts the command to the call of its tool. `namespace` is the value of `--namespace` before the command.
    pub(crate) fn into_call(self, namespace: Option<String>) -> Result<ToolCall, Failure> {
        Ok(match self {
            Self::Nodes(args) => ToolCall::watched::<ListGpuNodes>(args),
            Self::Health(args) => ToolCall::watched::<GetGpuHealth>(args),
            Self::Inventory(args) => ToolCall::new::<GetGpuInventory>(args),
            Self::Diagnose(args) => ToolCall::new::<DiagnoseGpuNode>(args),
            Self::Describe(args) => ToolCall::new::<DescribeGpuNode>(args),
            Self::Xid(args) => ToolCall::new::<AnalyzeXidErrors>(args.with_code()),
            Self::Telemetry(args) => ToolCall::watched::<GetGpuTelemetry>(args),
            Self::Processes(args) => ToolCall::new::<GpuProcesses>(args),
            Self::Ecc(args) => ToolCall::new::<SectionTool<EccSection>>(args),
            Self::Topology(args) => ToolCall::new::<SectionTool<TopologySection>>(args),
            Self::Explain(mut args) => {
                args.namespace = args.namespace.or(namespace);
                ToolCall::new::<ExplainGpuPod>(args.with_namespace_of_pod()?)
            }
            Self::Pods(mut args) => {
                args.namespace = args.namespace.or(namespace.filter(|_| !args.all_namespaces));
                ToolCall::new::<GetPodGpuAllocation>(args)
            }
            Self::KillGpuProcess(args) => ToolCall::confirmed::<KillGpuProcess>(args),
            Self::ResetGpu(args) => ToolCall::confirmed::<ResetGpu>(args),
        })
    }
}
