//! The command line arguments of `gpu-syringe`.

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::error::Failure;
use crate::settings::Settings;
use crate::settings::config_command::{self, SettingValue};
use crate::settings::file::FileValues;
use crate::setup::SetupArgs;
use crate::tools::analyze_xid_errors::XidArgs;
use crate::tools::diagnose_gpu_node::DiagnoseArgs;
use crate::tools::explain_gpu_pod::ExplainArgs;
use crate::tools::get_pod_gpu_allocation::AllocationArgs;
use crate::tools::kill_gpu_process::KillArgs;
use crate::tools::list_gpu_nodes::ListArgs;
use crate::tools::reset_gpu::ResetArgs;
use crate::tools::{FleetArgs, NodeArgs, Tool};
use crate::tools::{
    analyze_xid_errors, describe_gpu_node, diagnose_gpu_node, explain_gpu_pod, get_gpu_health, get_gpu_inventory,
    get_gpu_telemetry, get_pod_gpu_allocation, inspect_topology, kill_gpu_process, list_gpu_nodes, reset_gpu,
    snapshot_ecc,
};

/// Diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.
///
/// A command about a node creates a short-lived privileged pod on it, reads its report and deletes it. `gpu-syringe mcp` serves the same
/// tools to an AI host.
#[derive(Debug, Parser)]
#[command(name = "gpu-syringe", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Output format, table or json; by default a table on a terminal and JSON in a pipe
    #[arg(long, global = true, value_name = "FORM")]
    pub(crate) output: Option<OutputFormat>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Table,
    /// For programs: the JSON that an AI host gets.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the tools to an AI host over standard input and output (MCP)
    Mcp,
    /// Print the manifest of a probe pod, without creating the pod
    PodSpec(PodSpec),
    /// Show every setting, its value, and where it came from
    Config,
    /// Print, apply or remove what a cluster needs: namespace, permissions, quota, admission policy
    Setup(SetupArgs),
    /// Delete probe pods that a killed gpu-syringe left behind
    Sweep,
    /// Show the audit log: every probe pod and every action of this launcher
    Audit(AuditArgs),
    #[command(flatten)]
    Tool(ToolCommand),
}

#[derive(Args, Debug)]
pub(crate) struct PodSpec {
    /// Node of the pod
    #[arg(long, value_name = "NODE", default_value = "NODE")]
    pub(crate) node_name: String,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Number of lines to show, newest last
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}

/// The arguments of a tool that changes a node, with the consent of the user.
#[derive(Args, Debug)]
pub(crate) struct ActionArgs<A: Args> {
    #[command(flatten)]
    pub(crate) args: A,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub(crate) yes: bool,
    /// Expected address of the API server; the command fails if the context has another one
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// The tools, with the same arguments as for an AI host.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// GPU nodes, from the Kubernetes API; creates no pod
    ListGpuNodes(ListArgs),
    /// Diagnosis of a node: reads everything, applies every rule
    DiagnoseGpuNode(DiagnoseArgs),
    /// Status of a node in Kubernetes and of its GPUs
    DescribeGpuNode(NodeArgs),
    /// Pods that use the GPUs of a node
    GetPodGpuAllocation(AllocationArgs),
    /// Health of the GPUs of a node, or of all GPU nodes
    GetGpuHealth(FleetArgs),
    /// Inventory of the GPUs of a node, or of all GPU nodes
    GetGpuInventory(FleetArgs),
    /// Current temperature, power, clocks and utilization of a node's GPUs
    GetGpuTelemetry(NodeArgs),
    /// Xid and other GPU lines of a node's kernel log, decoded
    AnalyzeXidErrors(XidArgs),
    /// Why a pod failed, hangs or is Pending
    ExplainGpuPod(ExplainArgs),
    /// Memory errors and row remaps of a node's GPUs
    SnapshotEcc(NodeArgs),
    /// PCIe, NVLink and NUMA topology of a node's GPUs
    InspectTopology(NodeArgs),
    /// End a process on a GPU (needs --mode operator)
    KillGpuProcess(ActionArgs<KillArgs>),
    /// Reset a GPU (needs --mode operator)
    ResetGpu(ActionArgs<ResetArgs>),
}

/// Parses the arguments, with the settings file as defaults. Ends the program for `--help` and for invalid arguments.
pub(crate) fn read(argv: &[OsString]) -> Result<(Cli, Vec<SettingValue>), Failure> {
    let settings = Settings::augment_args(clap::Command::new("settings"));
    let file = FileValues::find(argv, &settings)?;
    let matches = without_empty_variables(file.as_defaults(Cli::command())).get_matches_from(argv);
    let shown = config_command::all(&settings, &matches, &file);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, shown))
}

/// An empty variable counts as not set: desktop hosts pass an empty string for a setting that the user left empty.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
    })
}

impl ToolCommand {
    /// Whether the arguments contain `--yes`.
    pub(crate) fn says_yes(&self) -> bool {
        match self {
            Self::KillGpuProcess(ActionArgs { yes, .. }) | Self::ResetGpu(ActionArgs { yes, .. }) => *yes,
            _ => false,
        }
    }

    /// The value of `--server`.
    pub(crate) fn server(&self) -> Option<String> {
        match self {
            Self::KillGpuProcess(ActionArgs { server, .. }) | Self::ResetGpu(ActionArgs { server, .. }) => {
                server.clone()
            }
            _ => None,
        }
    }

    /// The tool's name and its arguments as an AI host would send them.
    pub(crate) fn into_call(self) -> (&'static str, serde_json::Result<Value>) {
        match self {
            Self::ListGpuNodes(args) => (list_gpu_nodes::ListGpuNodes::NAME, serde_json::to_value(args)),
            Self::GetGpuInventory(args) => (get_gpu_inventory::GetGpuInventory::NAME, serde_json::to_value(args)),
            Self::GetGpuTelemetry(args) => (get_gpu_telemetry::GetGpuTelemetry::NAME, serde_json::to_value(args)),
            Self::DiagnoseGpuNode(args) => (diagnose_gpu_node::DiagnoseGpuNode::NAME, serde_json::to_value(args)),
            Self::DescribeGpuNode(args) => (describe_gpu_node::DescribeGpuNode::NAME, serde_json::to_value(args)),
            Self::GetPodGpuAllocation(args) => {
                (get_pod_gpu_allocation::GetPodGpuAllocation::NAME, serde_json::to_value(args))
            }
            Self::GetGpuHealth(args) => (get_gpu_health::GetGpuHealth::NAME, serde_json::to_value(args)),
            Self::ExplainGpuPod(args) => (explain_gpu_pod::ExplainGpuPod::NAME, serde_json::to_value(args)),
            Self::SnapshotEcc(args) => (snapshot_ecc::SnapshotEcc::NAME, serde_json::to_value(args)),
            Self::InspectTopology(args) => (inspect_topology::InspectTopology::NAME, serde_json::to_value(args)),
            Self::KillGpuProcess(ActionArgs { args, .. }) => {
                (kill_gpu_process::KillGpuProcess::NAME, serde_json::to_value(args))
            }
            Self::ResetGpu(ActionArgs { args, .. }) => (reset_gpu::ResetGpu::NAME, serde_json::to_value(args)),
            Self::AnalyzeXidErrors(args) => (analyze_xid_errors::AnalyzeXidErrors::NAME, serde_json::to_value(args)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All arguments share one namespace: an argument with the id of a setting would replace it.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_setting() {
        let settings = Settings::augment_args(clap::Command::new("settings"));
        let ids: Vec<_> = settings.get_arguments().map(|arg| arg.get_id().clone()).collect();
        let mut arguments = 0;
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                arguments += 1;
                assert!(!ids.contains(argument.get_id()), "{} --{}", command.get_name(), argument.get_id());
            }
        }
        assert!(arguments > 20, "{arguments}");
    }
}
