//! What can be typed after `gpu-syringe`.

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::error::Failure;
use crate::settings::Settings;
use crate::settings::file::FileValues;
use crate::settings::shown::{self, SettingValue};
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

/// Asks the GPU nodes of a Kubernetes cluster what is wrong with them, and leaves nothing behind.
///
/// For each question a short-lived privileged pod is put on the node, read and removed. `gpu-syringe mcp` serves the same
/// tools to an AI host.
#[derive(Debug, Parser)]
#[command(name = "gpu-syringe", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// table or json; by default a table on a terminal and JSON into a pipe
    #[arg(long, global = true, value_name = "FORM")]
    pub(crate) output: Option<Output>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: what an AI host would get.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the tools to an AI host over standard input and output (MCP)
    Mcp,
    /// Print the pod that a probe would create, and create nothing
    PodSpec(PodSpec),
    /// Show every setting, its value, and where it came from
    Config,
    /// Remove probe pods that a killed launcher left behind
    Sweep,
    /// Show the audit log: every probe pod and every action of this launcher
    Audit(AuditArgs),
    #[command(flatten)]
    Tool(ToolCommand),
}

#[derive(Args, Debug)]
pub(crate) struct PodSpec {
    /// Node that the pod would go to
    #[arg(long, value_name = "NODE", default_value = "NODE")]
    pub(crate) node_name: String,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// How many of the newest lines
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}

/// A tool that changes something, and whether whoever types it agrees beforehand.
#[derive(Args, Debug)]
pub(crate) struct ActionArgs<A: Args> {
    #[command(flatten)]
    pub(crate) args: A,
    /// Agree to the plan without seeing it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Address of the API server that is meant; refused where the context leads to another one
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// Each tool, with the arguments that an AI host would give.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// GPU nodes as Kubernetes knows them; creates nothing
    ListGpuNodes(ListArgs),
    /// What is wrong with a node: everything read, every rule applied
    DiagnoseGpuNode(DiagnoseArgs),
    /// One node from both sides: Kubernetes and a probe
    DescribeGpuNode(NodeArgs),
    /// Which pods hold the GPUs of a node
    GetPodGpuAllocation(AllocationArgs),
    /// Health of the GPUs of a node, or of all GPU nodes
    GetGpuHealth(FleetArgs),
    /// What the GPUs of a node are, or of all GPU nodes
    GetGpuInventory(FleetArgs),
    /// What the GPUs of a node do now
    GetGpuTelemetry(NodeArgs),
    /// Xid and other GPU lines of a node's kernel log, decoded
    AnalyzeXidErrors(XidArgs),
    /// Why a pod failed, hangs or waits
    ExplainGpuPod(ExplainArgs),
    /// Memory errors and repairs of a node's GPUs
    SnapshotEcc(NodeArgs),
    /// How the GPUs of a node are connected
    InspectTopology(NodeArgs),
    /// End a process on a GPU (needs --mode operator)
    KillGpuProcess(ActionArgs<KillArgs>),
    /// Reset a GPU (needs --mode operator)
    ResetGpu(ActionArgs<ResetArgs>),
}

/// Understands the words, with the settings file below them. Ends the program for `--help` and for words that make no sense.
pub(crate) fn read(words: &[OsString]) -> Result<(Cli, Vec<SettingValue>), Failure> {
    let settings = Settings::augment_args(clap::Command::new("settings"));
    let file = FileValues::find(words, &settings)?;
    let matches = file.as_defaults(Cli::command()).get_matches_from(words);
    let shown = shown::all(&settings, &matches, &file);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, shown))
}

impl ToolCommand {
    /// Whether `--yes` was typed.
    pub(crate) fn says_yes(&self) -> bool {
        match self {
            Self::KillGpuProcess(ActionArgs { yes, .. }) | Self::ResetGpu(ActionArgs { yes, .. }) => *yes,
            _ => false,
        }
    }

    /// The API server that must be meant.
    pub(crate) fn server(&self) -> Option<String> {
        match self {
            Self::KillGpuProcess(ActionArgs { server, .. }) | Self::ResetGpu(ActionArgs { server, .. }) => server.clone(),
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

    /// The command line is one name space: an argument of the same id would take the place of the setting.
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
