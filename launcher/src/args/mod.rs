//! The command line arguments of `gpu-syringe`.

mod help;
pub(crate) mod man;
mod targets;
mod tool_commands;
mod usage_error;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;

use crate::completion;
use crate::doctor::DoctorArgs;
use crate::settings::config_command::{self, SettingValue};
use crate::settings::file::FileValues;
use crate::settings::{OutputSettings, Settings, all_settings};
use crate::setup::SetupArgs;
use kube_read::Failure;

pub(crate) use tool_commands::{ToolCall, ToolCommand};
pub(crate) use usage_error::wants_json;

/// Diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.
///
/// A command about a node creates a short-lived privileged pod on it, reads its report and deletes it. `gpu-syringe mcp` serves the same
/// tools to an AI host.
#[derive(Debug, Parser)]
#[command(name = "gpu-syringe", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) output: OutputSettings,
    /// Namespace of the pod; by default that of the kubeconfig context, or else `default`
    // Only for the commands about pods, which show it: see `check_namespace`.
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE", hide = true)]
    pub(crate) namespace: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Tool(ToolCommand),
    /// Serve the tools to an AI host (MCP on stdio)
    Mcp,
    /// Show every setting, its value, and where it came from
    Config,
    /// Check what probes need, and how to mend it
    Doctor(DoctorArgs),
    /// Namespace, permissions, policy: print or apply
    Setup(SetupArgs),
    /// Print the manifest of a probe pod, without creating the pod
    PodSpec(PodSpec),
    /// Delete probe pods that a killed gpu-syringe left behind
    Sweep,
    /// Show the audit log: every probe pod and every action of this launcher
    Audit(AuditArgs),
    /// Print the completions for a shell: bash, zsh, fish, elvish, powershell
    Completion(CompletionArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
    /// Show the help of a command, or the settings: `help settings`
    Help(HelpArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PodSpec {
    /// Node of the pod
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// The node, for scripts
    #[arg(long, value_name = "NODE", conflicts_with = "node", hide = true)]
    node_name: Option<String>,
}

impl PodSpec {
    /// The node, or a word in its place.
    pub(crate) fn node(self) -> String {
        self.node.or(self.node_name).unwrap_or_else(|| "NODE".to_owned())
    }
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Number of lines to show, newest last
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// Name of the shell; for bash: source <(gpu-syringe completion bash)
    #[arg(value_name = "SHELL")]
    pub(crate) shell: String,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Folder
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct HelpArgs {
    /// Command, or `settings`
    #[arg(value_name = "COMMAND")]
    pub(crate) topic: Option<String>,
}

/// The parsed arguments, and every setting with its source.
pub(crate) struct Arguments {
    pub(crate) cli: Cli,
    pub(crate) settings: Vec<SettingValue>,
}

/// The result of reading the arguments.
pub(crate) enum Read {
    /// A command.
    Command(Box<Arguments>),
    /// A text that was asked for: help or the version.
    Text(String),
}

/// Parses the arguments, with the settings file as defaults.
pub(crate) fn read(argv: &[OsString]) -> Result<Read, Failure> {
    check_old_variable()?;
    let settings = all_settings();
    let file = FileValues::find(argv, &settings)?;
    let command = without_empty_variables(file.as_defaults(command()));
    let matches = match command.clone().try_get_matches_from(argv) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return help::of_topic(command, None).map(Read::Text);
        }
        Err(error) if !error.use_stderr() => return Ok(Read::Text(error.render().to_string())),
        Err(error) => return Err(usage_error::failure(&command, &error)),
    };
    let shown = config_command::all(&settings, &matches, &file);
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage_error::failure(&command, &error))?;
    if let Command::Help(HelpArgs { topic }) = &cli.command {
        return help::of_topic(command, topic.as_deref()).map(Read::Text);
    }
    cli.check_namespace()?;
    Ok(Read::Command(Box::new(Arguments { cli, settings: shown })))
}

/// The command with its help texts.
pub fn command() -> clap::Command {
    completion::with_names(help::arrange(Cli::command()))
}

/// Parses a command line of the documents: the call of the tool that it makes, if it runs one.
///
/// # Errors
/// When the program would reject it.
pub fn documented_call(argv: &[&str]) -> Result<Option<(&'static str, Value)>, clap::Error> {
    let rejected = |failure: Failure| clap::Error::raw(ErrorKind::ValueValidation, failure);
    let cli = Cli::from_arg_matches(&command().try_get_matches_from(argv)?)?;
    cli.check_namespace().map_err(rejected)?;
    match cli.command {
        Command::Tool(command) if command.xid_code().is_none() => {
            let ToolCall { entry, arguments, .. } = command.into_call().map_err(rejected)?;
            Ok(Some((entry.name, arguments)))
        }
        _ => Ok(None),
    }
}

impl Cli {
    /// Rejects `--namespace` for a command that is not about a pod: it was the namespace of the probes in earlier versions.
    fn check_namespace(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Tool(ToolCommand::Explain(_) | ToolCommand::Pods(_)) => Ok(()),
            _ if self.namespace.is_none() => Ok(()),
            _ => Err(Failure::usage(
                "The arguments",
                "--namespace is the namespace of a pod, for explain and pods",
                "Leave it out. The namespace of the probe pods is --probe-namespace.",
            )),
        }
    }
}

/// Rejects the variable that named the namespace of the probes in earlier versions, so that they do not run in another namespace.
fn check_old_variable() -> Result<(), Failure> {
    match std::env::var_os("GPU_SYRINGE_NAMESPACE").filter(|value| !value.is_empty()) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(
            "Reading the environment",
            "GPU_SYRINGE_NAMESPACE has another name now",
            "Set GPU_SYRINGE_PROBE_NAMESPACE, the namespace of the probe pods, and unset GPU_SYRINGE_NAMESPACE.",
        )),
    }
}

/// An empty variable counts as not set: desktop hosts pass an empty string for a setting that the user left empty.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All arguments share one namespace: an argument with the id of a setting would replace it.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_setting() {
        let settings = all_settings();
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

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        command().debug_assert();
    }
}
