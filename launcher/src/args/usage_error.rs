//! `failure`: creates the message for invalid arguments, with a similar name or a command for kubectl users.
//! `wants_json`: whether JSON is requested.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::help;
use crate::tools::analyze_xid_errors::code_in;
use kube_read::Failure;

/// Minimum similarity between a misspelled name and a suggested name.
const SIMILAR: f64 = 0.7;

/// Words that users of kubectl and other programs type, and the command of gpu-syringe for the same purpose.
const HABITS: [(&[&str], &str); 11] = [
    (
        &["get", "ls", "list"],
        "To list the GPU nodes, run: gpu-syringe nodes. To list the pods with GPUs, run: \
        gpu-syringe pods.",
    ),
    (&["version"], "gpu-syringe --version prints the version."),
    (&["status", "check", "top-nodes"], "To read all GPU nodes, run: gpu-syringe health."),
    (
        &["smi", "nvidia-smi", "stats"],
        "To see temperature, power, clocks and utilization, run: gpu-syringe telemetry \
        NODE.",
    ),
    (
        &["logs", "log", "dmesg", "events"],
        "To decode the kernel log of a node, run: gpu-syringe xid NODE. To see the events and the log of a pod, run: \
            gpu-syringe explain POD.",
    ),
    (
        &["install", "init", "apply"],
        "To print the manifests, run: gpu-syringe setup. To apply the manifests, run: \
        gpu-syringe setup --apply.",
    ),
    (
        &["uninstall", "delete", "remove"],
        "To remove a set-up, run: gpu-syringe setup --uninstall. To delete pods that are left, run: gpu-syringe sweep.",
    ),
    (&["why", "debug"], "Run gpu-syringe explain POD or gpu-syringe diagnose NODE."),
    (
        &["--no-headers", "--sort-by"],
        "In a script, use -o name or -o json: gpu-syringe nodes -o json | jq -r '.nodes[].node'.",
    ),
    (&["--timeout", "--request-timeout"], "--call-timeout SECONDS limits a call."),
    (&["--all", "--all-nodes"], "To read all GPU nodes, run: gpu-syringe health."),
];

/// Formats of `kubectl -o` with a template. No Rust library evaluates these templates as kubectl does.
const TEMPLATES: [&str; 4] = ["jsonpath", "custom-columns", "go-template", "template"];

/// Settings that give more rights. They are never suggested.
const NEVER_SUGGESTED: [&str; 6] = ["--allow-context", "--as", "--token-to-model", "--mode", "--yes", "--drain-check"];

/// Returns a hint for a common mistake: a word of [`HABITS`], `describe TYPE NAME`, an `xid` line without quotes, a
/// missing node, or a kubectl template.
fn habit(sub: &str, words: &[OsString], error: &clap::Error) -> Option<String> {
    let words: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
    // Without quotes, a code or a line of the kernel log is parsed as several words.
    if sub == "xid"
        && let Some(at) = words.iter().position(|word| *word == "xid")
        && let Some(code) = code_in(&words[at + 1..].join(" "))
    {
        return Some(format!("To explain the code, run: gpu-syringe xid {code}"));
    }
    let object = words.windows(3).find(|three| three[0] == "describe").map(|three| (three[1], three[2]));
    match object {
        Some(("node" | "nodes" | "no", name)) if sub == "describe" => {
            return Some(format!("gpu-syringe describe {name}"));
        }
        Some(("pod" | "pods" | "po", name)) if sub == "describe" => return Some(format!("gpu-syringe explain {name}")),
        _ => {}
    }
    let wrong =
        [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        });
    let is_missing_node = error.kind() == ErrorKind::MissingRequiredArgument && error.to_string().contains("NODE");
    if is_missing_node {
        return Some("Run gpu-syringe nodes to list the GPU nodes, or gpu-syringe health to read them all.".to_owned());
    }
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(text)) if error.kind() == ErrorKind::InvalidValue => text.as_str(),
        _ => "",
    };
    let is_second_node = error.kind() == ErrorKind::UnknownArgument && wrong.is_some_and(|word| !word.starts_with('-'));
    if is_second_node && ["diagnose", "health", "inventory"].contains(&sub) {
        let hint =
            "For several nodes, use a selector: gpu-syringe health -l 'kubernetes.io/hostname in (NODE1,NODE2)'.";
        return Some(hint.to_owned());
    }
    if TEMPLATES.iter().any(|format| value.starts_with(format)) {
        return Some("Templates of kubectl are not supported. To select fields, use -o json | jq.".to_owned());
    }
    let wrong = wrong?;
    HABITS.iter().find(|(known, _)| known.contains(&wrong)).map(|(_, hint)| (*hint).to_owned())
}

/// Creates the failure for an error of the parser.
pub(super) fn failure(command: &Command, argv: &[OsString], error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let message: Vec<_> = text.lines().take_while(|line| !line.is_empty() && !line.starts_with("Usage:")).collect();
    let why = message.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").replace(['<', '>'], "");
    let why = with_variable(command, argv, error, plain(why));
    let sub = subcommand(command, &text).or_else(|| subcommand_in(command, argv));
    let name = sub.map_or("", Command::get_name);
    let suggestion = match habit(name, argv, error) {
        Some(hint) => format!("{} ", hint.trim_end_matches('.').to_owned() + "."),
        None => suggestion(command, sub, error).map(|word| format!("Did you mean {word}? ")).unwrap_or_default(),
    };
    let next = match name {
        "" => format!("{suggestion}gpu-syringe help shows the commands."),
        name => format!("{suggestion}Usage: {}. Help: gpu-syringe {name} -h.", help::usage(name)),
    };
    let what = if name.is_empty() { "The arguments".to_owned() } else { format!("The arguments of {name}") };
    Failure::usage(what, why.trim_start_matches("error: "), next)
}

/// Names the environment variable in place of the option in the message about an invalid value, if the value is from
/// the variable.
fn with_variable(command: &Command, argv: &[OsString], error: &clap::Error, why: String) -> String {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return why };
    let option = given.split_whitespace().next().unwrap_or_default();
    let is_typed = argv.iter().filter_map(|word| word.to_str()).any(|word| word.split('=').next() == Some(option));
    let arg = command.get_arguments().find(|arg| arg.get_long().is_some_and(|long| option == format!("--{long}")));
    let variable =
        arg.and_then(|arg| arg.get_env()?.to_str()).filter(|name| !is_typed && std::env::var_os(name).is_some());
    match variable {
        Some(variable) => {
            why.replace(&format!("'{}'", given.replace(['<', '>'], "")), &format!("the variable {variable}"))
        }
        None => why,
    }
}

/// Replaces the words of the Rust library in messages about numbers.
fn plain(why: String) -> String {
    let number = "a whole number is needed";
    let why =
        why.replace("invalid digit found in string", number).replace("cannot parse integer from empty string", number);
    if why.contains("..=") { why.replace(" is not in ", " is not from ").replace("..=", " to ") } else { why }
}

/// Returns the command whose arguments are wrong. The usage line of the parser contains the name of the command.
fn subcommand<'a>(command: &'a Command, text: &str) -> Option<&'a Command> {
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "))?;
    usage.split_whitespace().find_map(|word| command.get_subcommands().find(|sub| sub.get_name() == word))
}

/// Returns the first command among the arguments, because the message about an invalid value has no usage line.
fn subcommand_in<'a>(command: &'a Command, argv: &[OsString]) -> Option<&'a Command> {
    argv.iter().skip(1).find_map(|word| command.find_subcommand(word))
}

/// Returns the suggested name: a name that begins with the wrong name, or else the most similar name.
fn suggestion(command: &Command, sub: Option<&Command>, error: &clap::Error) -> Option<String> {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (wrong, names): (&str, Vec<String>) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let names = command.get_subcommands().flat_map(|sub| sub.get_name_and_visible_aliases());
            (given(ContextKind::InvalidSubcommand)?, names.map(str::to_owned).collect())
        }
        ErrorKind::UnknownArgument => {
            let arguments = command.get_arguments().chain(sub.into_iter().flat_map(Command::get_arguments));
            let names = arguments.filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
            let names = names.filter(|name| !NEVER_SUGGESTED.contains(&name.as_str())).collect();
            (given(ContextKind::InvalidArg)?, names)
        }
        ErrorKind::InvalidValue => {
            let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) else { return None };
            (given(ContextKind::InvalidValue)?, valid.clone())
        }
        _ => return None,
    };
    if wrong.trim_start_matches('-').len() < 2 {
        return None;
    }
    let longer = names.iter().find(|name| name.starts_with(wrong) || wrong.starts_with(name.as_str()));
    let similar = || {
        let rated = names.iter().map(|name| (strsim::normalized_damerau_levenshtein(wrong, name), name));
        let best = rated.max_by(|one, other| one.0.total_cmp(&other.0));
        best.filter(|(similarity, _)| *similarity >= SIMILAR).map(|(_, name)| name)
    };
    longer.or_else(similar).cloned()
}

/// Returns whether the arguments request JSON or YAML, although they could not be parsed. `None` if they set no output
/// format.
pub(crate) fn wants_json(argv: &[OsString]) -> Option<bool> {
    let words: Vec<_> = argv.iter().filter_map(|word| word.to_str()).collect();
    let joined = |word: &str| {
        let value = ["--output=", "-o=", "-o"].iter().find_map(|name| word.strip_prefix(name))?;
        Some(value.to_owned()).filter(|value| !value.is_empty())
    };
    let pairs = words.windows(2).find(|pair| ["-o", "--output"].contains(&pair[0])).map(|pair| pair[1].to_owned());
    let given = pairs.or_else(|| words.iter().find_map(|word| joined(word)));
    let chosen = given.or_else(|| std::env::var("GPU_SYRINGE_OUTPUT").ok().filter(|value| !value.is_empty()))?;
    Some(chosen == "json" || chosen == "yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(words: &[&str]) -> String {
        let command = super::super::command();
        let argv = [&["gpu-syringe"], words].concat();
        let error = command.clone().try_get_matches_from(&argv).expect_err("invalid arguments");
        failure(&command, &argv.iter().map(OsString::from).collect::<Vec<_>>(), &error).to_string()
    }

    #[test]
    fn the_message_names_the_command_and_the_most_similar_name() {
        assert!(message(&["diagnos", "gpu-1"]).contains("Did you mean diagnose?"));
        assert!(message(&["xid", "gpu-1", "--sinc", "1h"]).contains("Did you mean --since?"));
        assert!(message(&["health", "--selecto", "a=b"]).contains("Did you mean --selector?"));
        assert!(message(&["nodes", "-o", "jsno"]).contains("Did you mean json?"));
        let missing = message(&["diagnose"]);
        assert!(
            message(&["xid", "gpu-1", "--since", "yesterday"]).contains("gpu-syringe xid -h")
                && missing.contains("provided: NODE.")
                && missing.contains("diagnose NODE [OPTIONS]")
                && !missing.contains("--image"),
            "{missing}"
        );
    }

    #[test]
    fn habits_of_other_programs_lead_to_the_command() {
        let cases: [(&[&str], &str); 11] = [
            (&["xid", "Xid", "119"], "gpu-syringe xid 119"),
            (&["xid", "NVRM:", "Xid", "(PCI:0000:3b:00):", "63,", "Row"], "gpu-syringe xid 63"),
            (&["get", "nodes"], "gpu-syringe nodes"),
            (&["version"], "gpu-syringe --version"),
            (&["describe", "node", "gpu-2"], "gpu-syringe describe gpu-2"),
            (&["describe", "pod", "train-0"], "gpu-syringe explain train-0"),
            (&["diagnose", "--all"], "gpu-syringe health"),
            (&["diagnose"], "gpu-syringe nodes"),
            (&["nvidia-smi"], "gpu-syringe telemetry"),
            (&["nodes", "-o", "jsonpath={.items}"], "-o json | jq"),
            (&["nodes", "--no-headers"], "-o name"),
        ];
        for (words, hint) in cases {
            assert!(message(words).contains(hint), "{words:?}: {}", message(words));
        }
        for words in [&["nodes", "--token", "x"][..], &["nodes", "--mod", "x"]] {
            assert!(!message(words).contains("Did you mean"), "a setting that gives rights: {}", message(words));
        }
    }

    #[test]
    fn a_wrong_number_is_told_in_words() {
        for (words, expected) in [
            (&["health", "--watch=1"][..], "1 is not from 2 to 3600"),
            (&["nodes", "--free", "x"], "a whole number is needed"),
            (&["nodes", "--free", ""], "is needed"),
        ] {
            let message = message(words);
            assert!(message.contains(expected) && !message.contains("..="), "{message}");
        }
    }

    #[test]
    fn nothing_is_suggested_that_is_not_alike() {
        for words in [&["--frobnicate", "nodes"][..], &["list-pods"], &["nodes", "-x"]] {
            assert!(!message(words).contains("Did you mean"), "{}", message(words));
        }
    }

    #[test]
    fn the_output_format_is_found_in_arguments_that_are_not_valid() {
        let wants = |words: &[&str]| wants_json(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(wants(&["x", "-o", "json", "--bad"]), Some(true));
        assert_eq!(wants(&["x", "-ojson"]), Some(true));
        assert_eq!(wants(&["x", "--output=yaml"]), Some(true));
        assert_eq!(wants(&["x", "--output", "table"]), Some(false));
    }
}
