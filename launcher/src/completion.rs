//! `answer`: prints shell completions of commands, flags, and the names of nodes, pods, namespaces and contexts
//! (`with_names`). `script`: returns the script that registers the completions with a shell.
//!
//! The names come from the cluster. If the cluster does not respond in a short time, no names are completed.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCandidates;
use clap_complete::env::Shells;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::timeout;

use crate::archives;
use crate::settings::Settings;
use kube_read::objects::node_labels::is_gpu_node;
use kube_read::reads::nodes;
use kube_read::{Connection, Failure};

/// Variable that a shell sets to request completions.
pub(crate) const VARIABLE: &str = "COMPLETE";
/// Time limit, because a user is waiting at the prompt.
const TIME: Duration = Duration::from_millis(1500);
/// Maximum number of names.
const MAX_NAMES: u32 = 500;
/// The name of this program as a kubectl plugin.
const PLUGIN: &str = "kubectl-gpu_syringe";
/// The program that kubectl runs for the completions of its plugin.
const PLUGIN_COMPLETER: &str = "kubectl_complete-gpu_syringe";
/// Directive for kubectl: do not complete file names.
const NO_FILES: &str = ":4";
/// Arguments that contain a node name, in tools and in other commands.
const NODE_ARGUMENTS: [&str; 2] = ["node", "node_name"];
/// Arguments that contain the name of a context.
const CONTEXT_ARGUMENTS: [&str; 2] = ["context", "allow_context"];

/// Returns the command with completions of names.
pub(crate) fn with_names(command: Command) -> Command {
    let add = |arg: clap::Arg| match arg.get_id().as_str() {
        id if NODE_ARGUMENTS.contains(&id) => arg.add(ArgValueCandidates::new(node_names)),
        id if CONTEXT_ARGUMENTS.contains(&id) => arg.add(ArgValueCandidates::new(context_names)),
        "pod" => arg.add(ArgValueCandidates::new(pod_names)),
        "namespace" => arg.add(ArgValueCandidates::new(namespace_names)),
        "shell" => arg.add(ArgValueCandidates::new(shell_names)),
        "topic" => arg.add(ArgValueCandidates::new(command_names)),
        _ => arg,
    };
    command.mut_args(add).mut_subcommands(|sub| sub.mut_args(add))
}

/// Returns the command as the completions use it: each command has one name, and flags are hidden until a `-` is typed.
fn as_completed(command: Command) -> Command {
    let typed = words().last().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let hide = move |arg: clap::Arg| {
        let is_flag = !arg.is_positional();
        if is_flag { arg.hide(true) } else { arg }
    };
    let command = command.mut_subcommands(|sub| sub.visible_alias(Resettable::Reset));
    if typed.starts_with('-') {
        return command;
    }
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .mut_args(hide)
        .mut_subcommands(|sub| sub.disable_help_flag(true).mut_args(hide))
}

/// Returns the words of the command line that is being completed, up to the word at the cursor.
fn words() -> Vec<OsString> {
    let all = std::env::args_os().collect::<Vec<_>>();
    let start = all.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    // kubectl passes the words without `--`. bash and zsh pass the position of the cursor.
    let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse::<usize>().ok());
    let end = index.map_or(all.len(), |index| (start + index + 1).min(all.len()));
    all[start..end].to_vec()
}

/// Prints completions if a shell or kubectl requested them, and returns `true` in that case.
pub(crate) fn answer(command: fn() -> Command, argv: &[OsString]) -> bool {
    let program = argv.first().and_then(|path| std::path::Path::new(path).file_stem()?.to_str());
    if program == Some(PLUGIN_COMPLETER) {
        print_for_kubectl(as_completed(command()), argv);
        return true;
    }
    clap_complete::env::CompleteEnv::with_factory(move || as_completed(command()))
        .var(VARIABLE)
        .try_complete(argv.iter().cloned(), std::env::current_dir().ok().as_deref())
        .unwrap_or(true)
}

/// Prints completions for kubectl. kubectl passes the words after the name of the plugin. The last word is completed.
fn print_for_kubectl(mut command: Command, argv: &[OsString]) {
    let index = argv.len().saturating_sub(1);
    let found = clap_complete::engine::complete(&mut command, argv.to_vec(), index, None).unwrap_or_default();
    let line = |candidate: &CompletionCandidate| {
        let help = candidate.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        format!("{}{help}\n", candidate.get_value().to_string_lossy())
    };
    let lines: String = found.iter().map(line).collect();
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{lines}{NO_FILES}\n").as_bytes());
}

/// Returns the script that registers the completions with a shell, for the program and the kubectl plugin.
pub(crate) fn script(shell: &str) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let failed = |why: String| {
        let names: Vec<_> = Shells::builtins().names().collect();
        Failure::usage(format!("Completions for {shell}"), why, format!("Use one of: {}.", names.join(", ")))
    };
    let completer = shells.completer(shell).ok_or_else(|| failed("there is no such shell".to_owned()))?;
    let mut script = Vec::new();
    for name in ["gpu-syringe", PLUGIN] {
        completer
            .write_registration(VARIABLE, name, name, name, &mut script)
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Returns the settings of the command line that is being completed, and the namespace in it.
fn settings() -> Option<(Settings, Option<String>)> {
    let namespace = clap::Arg::new("namespace").short('n').long("namespace").global(true);
    // This argument takes all other words. Without it, the parser would stop at the command.
    let others = clap::Arg::new("words").num_args(0..);
    let command = Settings::augment_args(Command::new("settings")).args([namespace, others]).ignore_errors(true);
    let matches = command.try_get_matches_from(words()).ok()?;
    let namespace = matches.get_one::<String>("namespace").cloned();
    Some((Settings::from_arg_matches(&matches).ok()?, namespace))
}

fn candidates(names: impl IntoIterator<Item = impl Into<OsString>>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn shell_names() -> Vec<CompletionCandidate> {
    candidates(Shells::builtins().names())
}

fn command_names() -> Vec<CompletionCandidate> {
    let command = crate::args::command();
    let names = command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(|sub| sub.get_name().to_owned());
    candidates(names.chain(["settings".to_owned()]))
}

fn context_names() -> Vec<CompletionCandidate> {
    let Some((settings, _)) = settings() else { return Vec::new() };
    let every = Settings { allow_context: vec!["*".to_owned()], ..settings };
    candidates(every.contexts().names())
}

fn node_names() -> Vec<CompletionCandidate> {
    of_cluster(async |connection, _| {
        let found = nodes::collect(&connection, None, is_gpu_node, |node| node.name_any()).await;
        found.map_or_else(|_| Vec::new(), |(_, names)| names)
    })
}

fn pod_names() -> Vec<CompletionCandidate> {
    of_cluster(async |connection, namespace| {
        let namespace = namespace.unwrap_or_else(|| connection.client.default_namespace().to_owned());
        names::<Pod>(&Api::namespaced(connection.client, &namespace)).await
    })
}

fn namespace_names() -> Vec<CompletionCandidate> {
    of_cluster(async |connection, _| names::<Namespace>(&Api::all(connection.client)).await)
}

/// Returns the names of the first objects of a list.
async fn names<K>(api: &Api<K>) -> Vec<String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let listed = api.list_metadata(&ListParams::default().limit(MAX_NAMES)).await;
    listed
        .map_or_else(|_| Vec::new(), |list| list.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

/// Returns the names that `read` reads from the cluster of the command line, or of its archive.
fn of_cluster<F>(read: impl FnOnce(Connection, Option<String>) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = Vec<String>>,
{
    let Some((settings, namespace)) = settings() else { return Vec::new() };
    let reading = async {
        let opened = archives::open(settings).await.ok()?;
        let connection = opened.contexts.connect(None).await.ok()?;
        Some(read(connection, namespace).await)
    };
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() else {
        return Vec::new();
    };
    let names = runtime.block_on(async { timeout(TIME, reading).await.ok().flatten() });
    // A credential plugin that hangs must not keep the shell waiting.
    runtime.shutdown_background();
    candidates(names.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_for_both_names() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(shell).expect("a script");
            assert!(script.contains(VARIABLE) && script.contains("gpu-syringe") && script.contains(PLUGIN), "{script}");
        }
        assert!(script("tcsh").expect_err("no such shell").next_step.contains("fish"));
    }
}
