//! The commands that run a tool, and the call of the tool that each one makes.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use syringe_core::since::Since;

use super::targets::{FleetTarget, NodeTarget, PodTarget};
use crate::tools::analyze_xid_errors::XidArgs;
use crate::tools::diagnose_gpu_node::DiagnoseArgs;
use crate::tools::explain_gpu_pod::ExplainArgs;
use crate::tools::get_pod_gpu_allocation::AllocationArgs;
use crate::tools::kill_gpu_process::KillArgs;
use crate::tools::list_gpu_nodes::ListArgs;
use crate::tools::reset_gpu::ResetArgs;
use crate::tools::{FleetArgs, NodeArgs, Tool, ToolEntry};
use crate::tools::{
    analyze_xid_errors, describe_gpu_node, diagnose_gpu_node, explain_gpu_pod, get_gpu_health, get_gpu_inventory,
    get_gpu_telemetry, get_pod_gpu_allocation, gpu_processes, inspect_topology, kill_gpu_process, list_gpu_nodes,
    reset_gpu, snapshot_ecc,
};
use kube_read::Failure;

/// The tools. Each command also has the name of its tool, with dashes or underscores.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// GPU nodes and free GPUs; creates no pod
    #[command(aliases = ["list-gpu-nodes", "list_gpu_nodes"])]
    Nodes(NodesArgs),
    /// Health of a node, or of all GPU nodes
    #[command(aliases = ["get-gpu-health", "get_gpu_health"])]
    Health(HealthCommand),
    /// GPUs of a node, or of all GPU nodes
    #[command(aliases = ["get-gpu-inventory", "get_gpu_inventory"])]
    Inventory(FleetTarget),
    /// What is wrong: reads all, applies every rule
    #[command(aliases = ["diagnose-gpu-node", "diagnose_gpu_node"])]
    Diagnose(DiagnoseCommand),
    /// State of a node in Kubernetes and of its GPUs
    #[command(aliases = ["describe-gpu-node", "describe_gpu_node"])]
    Describe(NodeTarget),
    /// Xid errors of a node, or what a code means
    #[command(aliases = ["analyze-xid-errors", "analyze_xid_errors"])]
    Xid(XidCommand),
    /// Temperature, power, clocks, utilization
    #[command(visible_alias = "top", aliases = ["get-gpu-telemetry", "get_gpu_telemetry"])]
    Telemetry(TelemetryCommand),
    /// Memory errors and row remaps
    #[command(aliases = ["snapshot-ecc", "snapshot_ecc"])]
    Ecc(NodeTarget),
    /// Processes on the GPUs, and how to end them
    #[command(alias = "ps")]
    Processes(NodeTarget),
    /// PCIe, NVLink and NUMA topology
    #[command(aliases = ["inspect-topology", "inspect_topology"])]
    Topology(NodeTarget),
    /// Why a pod failed, hangs or is Pending
    #[command(aliases = ["explain-gpu-pod", "explain_gpu_pod"])]
    Explain(ExplainCommand),
    /// Pods that use the GPUs of a node
    #[command(visible_alias = "allocation", aliases = ["get-pod-gpu-allocation", "get_pod_gpu_allocation"])]
    Pods(PodsCommand),
    /// End a process on a GPU (--mode operator)
    #[command(alias = "kill_gpu_process")]
    KillGpuProcess(KillCommand),
    /// Reset a GPU (--mode operator)
    #[command(alias = "reset_gpu")]
    ResetGpu(ResetCommand),
}

#[derive(Args, Debug)]
pub(crate) struct NodesArgs {
    /// Only nodes with these labels, e.g. nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only nodes with at least this many free GPUs
    #[arg(long, value_name = "GPUS")]
    free: Option<u64>,
}

/// Repeated readings.
#[derive(Args, Debug)]
struct WatchArgs {
    /// Read again every SECONDS, 5 by default, until Ctrl-C; each reading is one probe
    #[arg(short = 'w', long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "5", value_parser = clap::value_parser!(u64).range(2..=3600))]
    watch: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct HealthCommand {
    #[command(flatten)]
    target: FleetTarget,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TelemetryCommand {
    #[command(flatten)]
    target: NodeTarget,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DiagnoseCommand {
    #[command(flatten)]
    target: NodeTarget,
    /// Also return every fact that was read, in JSON and YAML
    #[arg(long)]
    detail: bool,
}

#[derive(Args, Debug)]
pub(crate) struct XidCommand {
    /// Name of the node, or the number of an Xid to explain it without a cluster
    #[arg(value_name = "NODE|CODE", required_unless_present = "node_name")]
    node: Option<String>,
    /// The node, for scripts that name it as an argument of the tool
    #[arg(long, alias = "node", value_name = "NODE", conflicts_with = "node", hide = true)]
    node_name: Option<String>,
    /// Duration back from now (24h, 7d) or RFC 3339 time; by default the whole log
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainCommand {
    #[command(flatten)]
    target: PodTarget,
    #[command(flatten)]
    namespace: PodNamespace,
}

#[derive(Args, Debug)]
pub(crate) struct PodsCommand {
    #[command(flatten)]
    target: NodeTarget,
    #[command(flatten)]
    namespace: PodNamespace,
    /// Pods of all namespaces, which is the default
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "pod_namespace"])]
    all_namespaces: bool,
    /// Also read, with a probe, which GPU each container has and which processes run on it
    #[arg(long)]
    resolve_devices: bool,
}

/// The namespace of pods, in the help of the commands that are about pods.
#[derive(Args, Debug)]
struct PodNamespace {
    /// Namespace of the pod; by default that of the kubeconfig context
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The namespace, for scripts of earlier versions
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "namespace", hide = true)]
    pod_namespace: Option<String>,
}

impl PodNamespace {
    fn name(self) -> Option<String> {
        self.namespace.or(self.pod_namespace)
    }
}

/// The consent of the user to an action, and the cluster that it is for.
#[derive(Args, Debug)]
pub(crate) struct ConsentArgs {
    /// Skip the confirmation prompt
    #[arg(long)]
    yes: bool,
    /// Expected address of the API server; the command fails if the context has another one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct KillCommand {
    #[command(flatten)]
    target: NodeTarget,
    /// UUID (GPU-…) of the GPU that the process uses
    #[arg(long, value_name = "UUID")]
    gpu: String,
    /// Process ID on the node
    #[arg(long, value_name = "N")]
    pid: u32,
    /// start_ticks of the process from a report; a later process with the same ID is refused
    #[arg(long, value_name = "TICKS")]
    start_ticks: u64,
    /// Seconds between SIGTERM and SIGKILL, 10 by default
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ResetCommand {
    #[command(flatten)]
    target: NodeTarget,
    /// UUID of the GPU (GPU-…)
    #[arg(long, value_name = "UUID")]
    gpu: String,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// The call of a tool.
pub(crate) struct ToolCall {
    /// The tool.
    pub(crate) entry: ToolEntry,
    /// Its arguments as an AI host would send them.
    pub(crate) arguments: Value,
    /// Whether `--yes` was given.
    pub(crate) says_yes: bool,
    /// The value of `--server`.
    pub(crate) server: Option<String>,
    /// Time between two readings, if it is to be called again and again.
    pub(crate) watch: Option<Duration>,
}

impl ToolCall {
    fn of<T: Tool>(arguments: T::Args) -> Result<Self, Failure>
    where
        T::Args: Serialize,
    {
        let arguments = serde_json::to_value(arguments)
            .map_err(|error| Failure::new("Reading the arguments", error, "Please report this."))?;
        Ok(Self { entry: ToolEntry::of::<T>(), arguments, says_yes: false, server: None, watch: None })
    }

    fn with(self, consent: ConsentArgs) -> Self {
        let ConsentArgs { yes, server } = consent;
        Self { says_yes: yes, server, ..self }
    }

    fn watched(self, watch: WatchArgs) -> Self {
        Self { watch: watch.watch.map(Duration::from_secs), ..self }
    }
}

impl ToolCommand {
    /// The number of an Xid that is to be explained without a cluster.
    pub(crate) fn xid_code(&self) -> Option<u32> {
        match self {
            Self::Xid(XidCommand { node: Some(text), node_name: None, .. }) => text.parse().ok(),
            _ => None,
        }
    }

    /// The call of the tool.
    pub(crate) fn into_call(self) -> Result<ToolCall, Failure> {
        match self {
            Self::Nodes(NodesArgs { selector, free }) => {
                ToolCall::of::<list_gpu_nodes::ListGpuNodes>(ListArgs { selector, free, context: None })
            }
            Self::Health(HealthCommand { target, watch }) => {
                Ok(ToolCall::of::<get_gpu_health::GetGpuHealth>(FleetArgs::from(target))?.watched(watch))
            }
            Self::Inventory(target) => ToolCall::of::<get_gpu_inventory::GetGpuInventory>(FleetArgs::from(target)),
            Self::Diagnose(DiagnoseCommand { target, detail }) => {
                let arguments = DiagnoseArgs { node_name: target.name(), detail, context: None };
                ToolCall::of::<diagnose_gpu_node::DiagnoseGpuNode>(arguments)
            }
            Self::Describe(target) => ToolCall::of::<describe_gpu_node::DescribeGpuNode>(NodeArgs::from(target)),
            Self::Xid(XidCommand { node, node_name, since }) => {
                let node_name = NodeTarget::of(node, node_name).name();
                ToolCall::of::<analyze_xid_errors::AnalyzeXidErrors>(XidArgs { node_name, since, context: None })
            }
            Self::Telemetry(TelemetryCommand { target, watch }) => {
                Ok(ToolCall::of::<get_gpu_telemetry::GetGpuTelemetry>(NodeArgs::from(target))?.watched(watch))
            }
            Self::Processes(target) => ToolCall::of::<gpu_processes::GpuProcesses>(NodeArgs::from(target)),
            Self::Ecc(target) => ToolCall::of::<snapshot_ecc::SnapshotEcc>(NodeArgs::from(target)),
            Self::Topology(target) => ToolCall::of::<inspect_topology::InspectTopology>(NodeArgs::from(target)),
            Self::Explain(ExplainCommand { target, namespace }) => {
                let (pod, namespace) = target.name_and_namespace(namespace.name())?;
                ToolCall::of::<explain_gpu_pod::ExplainGpuPod>(ExplainArgs { pod, namespace, context: None })
            }
            Self::Pods(PodsCommand { target, namespace, all_namespaces: _, resolve_devices }) => {
                let (node_name, namespace) = (target.name(), namespace.name());
                let arguments = AllocationArgs { node_name, namespace, resolve_devices, context: None };
                ToolCall::of::<get_pod_gpu_allocation::GetPodGpuAllocation>(arguments)
            }
            Self::KillGpuProcess(KillCommand { target, gpu, pid, start_ticks, grace_seconds, consent }) => {
                let node_name = target.name();
                let arguments =
                    KillArgs { node_name, gpu, pid, start_ticks, grace_seconds, token: None, context: None };
                Ok(ToolCall::of::<kill_gpu_process::KillGpuProcess>(arguments)?.with(consent))
            }
            Self::ResetGpu(ResetCommand { target, gpu, consent }) => {
                let arguments = ResetArgs { node_name: target.name(), gpu, token: None, context: None };
                Ok(ToolCall::of::<reset_gpu::ResetGpu>(arguments)?.with(consent))
            }
        }
    }
}
