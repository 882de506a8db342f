//! `Cli`, `Command`: the definition of the command line of `gpu-syringe`. `command`: this definition with its help
//! texts. `read`: parses the command line into `Arguments`, with defaults from the settings file. `documented_call`:
//! parses a documented command.

mod help;
pub(crate) mod man;
mod tool_commands;
mod usage_error;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;

use crate::archives::SaveArgs;
use crate::compare::CompareArgs;
use crate::completion;
use crate::doctor::DoctorArgs;
use crate::incident::IncidentArgs;
use crate::return_report::ReturnReportArgs;
use crate::settings::config_command::{self, SettingValue};
use crate::settings::file::FileValues;
use crate::settings::{OutputSettings, Settings, all_settings};
use crate::setup::SetupArgs;
use crate::terminal::command_names::COMMANDS;
use kube_read::Failure;

pub(crate) use tool_commands::{ToolCall, ToolCommand};
pub(crate) use usage_error::wants_json;

/// Diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.
///
/// A command about a node creates a short-lived privileged pod on the node, reads the pod's report and deletes the pod.
/// `gpu-syringe mcp` serves the same tools to an AI host.
#[derive(Debug, Parser)]
#[command(name = "gpu-syringe", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) output: OutputSettings,
    /// Namespace of the pod; the commands that use this option show it in their help
    #[arg(short = 'n', long, value_name = "NAMESPACE", hide = true)]
    pub(crate) namespace: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Tool(ToolCommand),
    /// Serve the tools to an AI host (MCP on stdio)
    Mcp(McpArgs),
    /// Show every setting, its value, and where it came from
    Config,
    /// Save nodes into an archive, for --from
    Save(SaveArgs),
    /// Changes of nodes between two states
    Compare(CompareArgs),
    /// What happened on nodes, in the order of time
    Incident(IncidentArgs),
    /// The case for returning a GPU to its vendor
    ReturnReport(ReturnReportArgs),
    /// Check what probes need, and show the fixes
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
pub(crate) struct McpArgs {
    /// Archive of an earlier state, with which the AI host may compare a node
    #[arg(long, value_name = "FILE")]
    pub(crate) earlier: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct PodSpec {
    /// Node of the pod
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
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
    /// Folder of the pages
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
    Command(Box<Arguments>),
    /// The text of the help or the version.
    Text(String),
}

/// Parses the arguments. The settings file provides the defaults.
pub(crate) fn read(argv: &[OsString]) -> Result<Read, Failure> {
    let settings = all_settings();
    let file = FileValues::find(argv, &settings)?;
    let command = without_empty_variables(file.as_defaults(command()));
    let argv = &with_joined_watch(argv);
    let matches = match command.clone().try_get_matches_from(argv) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return help::of_topic(command, None).map(Read::Text);
        }
        Err(error) if !error.use_stderr() => return Ok(Read::Text(error.render().to_string())),
        Err(error) => return Err(usage_error::failure(&command, argv, &error)),
    };
    let shown = config_command::all(&settings, &matches, &file);
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage_error::failure(&command, argv, &error))?;
    if let Command::Help(HelpArgs { topic }) = &cli.command {
        return help::of_topic(command, topic.as_deref()).map(Read::Text);
    }
    refuse_two_clusters(&cli, &matches)?;
    Ok(Read::Command(Box::new(Arguments { cli, settings: shown })))
}

/// Returns the variables with the prefix of a setting that are not settings. Without this check, a misspelled variable
/// would be ignored silently.
pub(crate) fn unknown_variables() -> Vec<String> {
    // The variables of the tests begin with GPU_SYRINGE_E2E.
    let is_other =
        |name: &str| matches!(name, "GPU_SYRINGE_LOG" | "GPU_SYRINGE_CONFIG") || name.starts_with("GPU_SYRINGE_E2E");
    let is_ours = |name: &String| name.starts_with("GPU_SYRINGE_") && !is_other(name);
    let mut ours: Vec<String> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(is_ours).collect();
    // The list of settings is built only if there is a variable to check.
    if !ours.is_empty() {
        let program = command();
        let all = std::iter::once(&program).chain(program.get_subcommands()).flat_map(clap::Command::get_arguments);
        let known: Vec<_> = all.filter_map(clap::Arg::get_env).collect();
        ours.retain(|name| !known.contains(&OsStr::new(name)));
    }
    ours
}

/// Options that select a cluster.
const OF_CLUSTER: [&str; 5] = ["kubeconfig", "context", "as", "as_group", "allow_context"];

/// Rejects an archive together with an option that selects a cluster. With an archive, variables and the settings file
/// that select a cluster are ignored.
fn refuse_two_clusters(cli: &Cli, matches: &clap::ArgMatches) -> Result<(), Failure> {
    let is_typed = |id: &&&str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    let typed = OF_CLUSTER.iter().find(is_typed).filter(|_| cli.settings.refuses_actions());
    match typed {
        // The other state can be a node of a cluster.
        Some(id) if !matches!(cli.command, Command::Compare(_)) => {
            let option = format!("--{}", id.replace('_', "-"));
            let why = format!("{option} is about a cluster, but --from names an archive");
            Err(Failure::usage("Reading the options", why, "Leave out this option or --from."))
        }
        _ => Ok(()),
    }
}

/// Returns the command with its help texts.
pub fn command() -> clap::Command {
    // A text for models can contain the name of a tool, which is accepted as the name of the command.
    let add_tool = |program: clap::Command, (tool, command)| program.mut_subcommand(command, |sub| sub.alias(tool));
    completion::with_names(help::arrange(COMMANDS.into_iter().fold(Cli::command(), add_tool)))
}

/// Parses a command line from the documentation. Returns the tool call that the command line makes, if it runs a tool.
///
/// # Errors
/// If the program would reject the command line.
pub fn documented_call(argv: &[&str]) -> Result<Option<(&'static str, Value)>, clap::Error> {
    let cli = Cli::from_arg_matches(&command().try_get_matches_from(argv)?)?;
    let command = match cli.command {
        Command::Tool(command) => command,
        Command::Compare(args) => return Ok(args.tool_call()),
        _ => return Ok(None),
    };
    let rejected = |error: &dyn std::fmt::Display| clap::Error::raw(ErrorKind::ValueValidation, error);
    let call = command.into_call(cli.namespace).map_err(|failure| rejected(&failure))?;
    let mut arguments = call.arguments.map_err(|error| rejected(&error))?;
    if let Some(arguments) = arguments.as_object_mut() {
        arguments.retain(|_, value| !value.is_null());
    }
    Ok(Some((call.tool, arguments)))
}

/// Joins `--watch 30` to `--watch=30`: without the equals sign, the number would be read as the name of a node.
fn with_joined_watch(argv: &[OsString]) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(argv.len());
    for word in argv {
        let is_number =
            word.to_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        match joined.last_mut() {
            Some(last) if is_number && (last == "--watch" || last == "-w") => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
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

    #[test]
    fn the_seconds_of_watch_may_be_a_word_of_their_own() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(with_joined_watch(&words("x health --watch 30 gpu-1")), words("x health --watch=30 gpu-1"));
        assert_eq!(with_joined_watch(&words("x health -w gpu-1 30")), words("x health -w gpu-1 30"));
    }

    /// All arguments share one namespace: an argument with the id of a setting would replace the setting.
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
