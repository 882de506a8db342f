//! Generates `docs/configuration.md` from the command line, and tests that the page is current and complete, and that
//! each settings file in the documents is valid.

use std::fmt::Write;

use clap::{Arg, ArgAction};
use gpu_syringe::command_line::{all_settings, is_setting_of_files};
use serde_json::Value;

use crate::assert_current;
use crate::commands::with_digests;
use crate::markdown::pages;

/// The settings by subject. Every setting is in one group.
const GROUPS: [(&str, &str, &[&str]); 7] = [
    (
        "Cluster",
        "The cluster that is used, and limits within the cluster.",
        &["kubeconfig", "context", "as", "as_group", "allow_context", "allow_nodes"],
    ),
    ("Permission to change", "Actions that the tools may perform.", &["mode", "drain_check", "token_to_model"]),
    (
        "Probe method",
        "The method by which a probe runs on a node. [deploy/METHODS.md](../deploy/METHODS.md) compares the methods.",
        &["via", "ask_nccl", "no_ephemeral", "ephemeral_pod", "base_image", "probe_binary", "runtime_class"],
    ),
    (
        "Image",
        "The image of the probe.",
        &["image", "image_digest", "registry_mirror", "image_pull_policy", "image_pull_secret"],
    ),
    ("Pod", "The probe pod.", &["probe_namespace", "label", "annotation", "toleration"]),
    (
        "Limits",
        "Time limits and parallel work.",
        &["start_timeout", "call_timeout", "node_timeout", "concurrency", "max_probes"],
    ),
    (
        "Program",
        "The command line itself.",
        &["config", "demo", "from", "output", "color", "fail_on", "quiet", "verbose", "log_format"],
    ),
];

/// Settings that limit what a model can do through the tools, each with its limit. No argument of a tool changes a setting.
const LIMITS_A_MODEL: [(&str, &str); 10] = [
    ("context", "the only context that the tools use, unless `allow_context` permits others"),
    ("allow_context", "other contexts that a tool argument may specify"),
    ("allow_nodes", "the nodes on which probes may run"),
    ("mode", "without `operator`, no tool changes anything"),
    ("drain_check", "a GPU is reset only on a cordoned node, and only if it is not allocated to a pod"),
    ("token_to_model", "without it, a model cannot consent to an action instead of the user"),
    ("via", "the probe method"),
    ("ask_nccl", "without it, no tool queries NCCL; a query runs code in the processes of a job"),
    ("no_ephemeral", "no container is added to a pod of a workload"),
    ("max_probes", "the number of probes at the same time"),
];

/// Environment variables that are used in addition to the settings.
const OTHER_VARIABLES: [(&str, &str); 8] = [
    ("KUBECONFIG", "the kubeconfig files, separated by `:` (on Windows `;`), if `--kubeconfig` is not set"),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "the proxy to the API server; `proxy-url` in the kubeconfig has priority"),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME",
        "the folders of the settings file and of the audit log (`gpu-syringe/audit.jsonl`)",
    ),
    ("NO_COLOR", "no colors on a terminal, unless `--color always`"),
    ("COLUMNS", "width of a table in a pipe"),
    ("LC_ALL, LC_CTYPE, LANG", "`C` or `POSIX`: texts in ASCII"),
    ("GPU_SYRINGE_LOG", "log level on standard error: `info`, `debug`, `gpu_syringe=debug` (default: warnings)"),
    (
        "PATH",
        "folders that are searched for credential plugins of the kubeconfig, before the usual installation folders",
    ),
];

fn row(arg: &Arg) -> String {
    let id = arg.get_id().as_str();
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(|names| names.first()).filter(|_| takes_value);
    let long = arg.get_long().unwrap_or_default();
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let flag = format!("{short}`--{long}{}`", value.map(|value| format!(" {value}")).unwrap_or_default());
    let variable = arg.get_env().map_or("—".to_owned(), |name| format!("`{}`", name.to_string_lossy()));
    let key = if is_setting_of_files(id) { format!("`{id}`") } else { "—".into() };
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default =
        if default.is_empty() || !takes_value { "—".to_owned() } else { format!("`{}`", default.join(",")) };
    let about = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let values: Vec<_> = if takes_value {
        arg.get_possible_values().iter().filter(|value| !value.is_hide_set()).map(described).collect()
    } else {
        Vec::new()
    };
    let values = if values.is_empty() { String::new() } else { format!(". {}", values.join("; ")) };
    format!("| {flag} | {variable} | {key} | {default} | {about}{values} |\n")
}

fn described(value: &clap::builder::PossibleValue) -> String {
    match value.get_help() {
        Some(help) => format!("`{}`: {}", value.get_name(), help.to_string().trim_end_matches('.')),
        None => format!("`{}`", value.get_name()),
    }
}

fn written() -> String {
    let settings = all_settings();
    let find = |id: &str| {
        settings.get_arguments().find(|arg| arg.get_id() == id).unwrap_or_else(|| panic!("there is no setting {id}"))
    };
    let mut text = String::from(
        "# Configuration\n\n\
         This page is generated from the definition of the command line by `tests/docs/configuration_page.rs`.\n\n\
         A setting is a flag, a variable, or a line of the settings file. A flag overrides a variable, and a variable overrides the \
         file. A switch in a variable or in the file is `true` or `false`; a list is separated by commas in a variable and is an \
         array in the file. An empty variable counts as not set. The file is TOML: `--config FILE`, or `gpu-syringe/config.toml` in \
         `$XDG_CONFIG_HOME`, `~/.config` or `%APPDATA%`. `gpu-syringe config` shows the value and the source of every setting \
         in the form of this file (`gpu-syringe config > config.toml`; JSON with `-o json`), and `gpu-syringe help settings` \
         shows this list.\n\n\
         ```toml\n# ~/.config/gpu-syringe/config.toml\ncontext = \"prod\"\nallow_nodes = \"pool=gpu\"\ncall_timeout = 50\n\
         label = [\"team=ml-platform\"]\n```\n\n",
    );
    for (heading, about, ids) in GROUPS {
        let _ = write!(
            text,
            "## {heading}\n\n{about}\n\n| flag | variable | key of the file | default | meaning |\n|---|---|---|---|---|\n"
        );
        ids.iter().for_each(|id| text.push_str(&row(find(id))));
        text.push('\n');
    }
    text.push_str(
        "## What limits a model\n\nThe person who starts gpu-syringe chooses the settings. No argument of a tool changes one, so a model \
         cannot. These limit what a model can do with the tools:\n\n| setting | limit |\n|---|---|\n",
    );
    for (id, limit) in LIMITS_A_MODEL {
        let _ = writeln!(
            text,
            "| `{}` | {limit} |",
            find(id).get_long().map(|long| format!("--{long}")).unwrap_or_default()
        );
    }
    text.push_str("\n## Other variables\n\n| variable | meaning |\n|---|---|\n");
    for (names, meaning) in OTHER_VARIABLES {
        let names: Vec<_> = names.split(", ").map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| {} | {meaning} |", names.join(", "));
    }
    text
}

#[test]
fn the_page_of_settings_is_current() {
    assert_current("docs/configuration.md", &written());
}

#[test]
fn every_setting_is_in_one_group() {
    let settings = all_settings();
    for arg in settings.get_arguments() {
        let id = arg.get_id().as_str();
        let groups = GROUPS.iter().filter(|(_, _, ids)| ids.contains(&id)).count();
        assert_eq!(groups, 1, "{id} is in {groups} groups of this test");
        assert!(arg.get_action().takes_values() || matches!(arg.get_action(), ArgAction::SetTrue), "{id}");
    }
}

#[test]
fn every_settings_file_in_the_documents_is_valid() {
    let mut checked = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            let settings: serde_json::Map<String, Value> = toml::from_str(&with_digests(&block.text)).unwrap();
            let mut argv = Vec::new();
            for (key, value) in &settings {
                assert!(is_setting_of_files(key), "{}:{}: {key}", page.path, block.line);
                let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                argv.extend(values.iter().map(|value| format!("--{}={}", key.replace('_', "-"), text(value))));
            }
            checked += 1;
            let parsed = all_settings().no_binary_name(true).try_get_matches_from(argv);
            assert!(parsed.is_ok(), "{}:{}: {}", page.path, block.line, parsed.unwrap_err());
        }
    }
    assert!(checked > 1, "{checked} files");
}

/// Tests that the variables exist in the source: a renamed variable must not stay on the page.
#[test]
fn the_other_variables_are_read_by_the_program() {
    let source = crate::troubleshooting::source();
    for name in OTHER_VARIABLES.iter().flat_map(|(names, _)| names.split(", ")) {
        let is_read = source.iter().any(|(_, text)| text.contains(name) || text.contains(&name.to_lowercase()));
        // The crates kube and etcetera read the variables of kubeconfig files and XDG folders.
        assert!(is_read || ["XDG_CONFIG_HOME"].contains(&name), "{name}");
    }
}
