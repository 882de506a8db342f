//! Shell completions for commands, flags, and the names of nodes and contexts.
//! The names of nodes come from the cluster. If the cluster does not respond in a short time, no names are completed.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCandidates;
use clap_complete::env::Shells;
use kube::ResourceExt;
use tokio::time::timeout;

use crate::settings::Settings;
use kube_read::Failure;
use kube_read::objects::node_labels::is_gpu_node;
use kube_read::reads::nodes;

/// Variable that a shell sets to request completions.
pub(crate) const VARIABLE: &str = "COMPLETE";
/// Time limit, because a user is waiting at the prompt.
const TIME: Duration = Duration::from_millis(1500);
/// The name of this program as a kubectl plugin.
const PLUGIN: &str = "kubectl-gpu_syringe";
/// The program that kubectl runs for the completions of its plugin.
const PLUGIN_COMPLETER: &str = "kubectl_complete-gpu_syringe";
/// Directive for kubectl: do not complete file names.
const NO_FILES: &str = ":4";
/// Arguments that are the name of a node, in tools and in other commands.
const NODE_ARGUMENTS: [&str; 2] = ["node", "node_name"];
/// Arguments that are the name of a context.
const CONTEXT_ARGUMENTS: [&str; 2] = ["context", "allow_context"];

/// Returns the command with completions of names.
pub(crate) fn with_names(command: Command) -> Command {
    let add = |arg: clap::Arg| match arg.get_id().as_str() {
        id if NODE_ARGUMENTS.contains(&id) => arg.add(ArgValueCandidates::new(node_names)),
        id if CONTEXT_ARGUMENTS.contains(&id) => arg.add(ArgValueCandidates::new(context_names)),
        _ => arg,
    };
    command.mut_args(add).mut_subcommands(|sub| sub.mut_args(add))
}

/// Prints completions if a shell or kubectl requested them, and returns `true` in that case.
pub(crate) fn answer(command: fn() -> Command, argv: &[OsString]) -> bool {
    let program = argv.first().and_then(|path| std::path::Path::new(path).file_stem()?.to_str());
    if program == Some(PLUGIN_COMPLETER) {
        print_for_kubectl(command(), argv);
        return true;
    }
    clap_complete::env::CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(argv.iter().cloned(), std::env::current_dir().ok().as_deref())
        .unwrap_or(true)
}

/// Prints completions for kubectl. kubectl passes the words after the name of the plugin; the last word is to be completed.
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

/// Returns the settings of the command line that is being completed, which may set a context or a kubeconfig.
fn settings() -> Option<Settings> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let command = Settings::augment_args(Command::new("settings")).ignore_errors(true);
    Settings::from_arg_matches(&command.try_get_matches_from(words).ok()?).ok()
}

fn context_names() -> Vec<CompletionCandidate> {
    let Some(settings) = settings() else { return Vec::new() };
    let every = Settings { allow_context: vec!["*".to_owned()], ..settings };
    every.contexts().names().into_iter().map(CompletionCandidate::new).collect()
}

fn node_names() -> Vec<CompletionCandidate> {
    let reading = async {
        let settings = settings()?;
        let connection = settings.contexts().connect(None).await.ok()?;
        nodes::collect(&connection, None, is_gpu_node, |node| node.name_any()).await.ok()
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let names = runtime.block_on(async { timeout(TIME, reading).await.ok().flatten() });
    // A credential plugin that hangs must not keep the shell waiting.
    runtime.shutdown_background();
    names.into_iter().flat_map(|(_, names)| names).map(CompletionCandidate::new).collect()
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
