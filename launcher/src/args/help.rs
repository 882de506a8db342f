//! `arrange`, `of_topic`: create the help texts: all commands on one screen, the options of each command, the settings.
//! `examples`, `usage`: the examples and the usage line of a command.

use clap::Command;

use crate::settings::all_settings;
use kube_read::Failure;

/// Name and arguments of a command in a usage line.
type Usage = (&'static str, &'static str);

/// The commands in the order of the short help.
const GROUPS: [(&str, &[Usage]); 6] = [
    ("Cluster", &[("nodes", ""), ("health", "[NODE]"), ("inventory", "[NODE]")]),
    (
        "Node",
        &[
            ("diagnose", "NODE"),
            ("describe", "NODE"),
            ("xid", "NODE|CODE"),
            ("telemetry", "NODE"),
            ("ecc", "NODE"),
            ("processes", "NODE"),
            ("topology", "NODE"),
            ("compare", "A B"),
            ("incident", "[NODE]"),
        ],
    ),
    ("Pod", &[("explain", "POD"), ("pods", "[NODE]")]),
    ("Change", &[("kill-gpu-process", "NODE"), ("reset-gpu", "NODE")]),
    ("Program", &[("doctor", ""), ("setup", ""), ("mcp", ""), ("save", "[NODE]")]),
    (
        OTHERS,
        &[
            ("return-report", "NODE --gpu GPU"),
            ("config", ""),
            ("audit", ""),
            ("sweep", ""),
            ("pod-spec", "[NODE]"),
            ("completion", "SHELL"),
            ("help", "COMMAND"),
        ],
    ),
];

/// The group whose commands the short help lists on one line.
const OTHERS: &str = "Others";

/// Examples of a command: each command line with its purpose.
type Examples = (&'static str, &'static [(&'static str, &'static str)]);

/// The examples in the help and the manual page of each command.
const EXAMPLES: [Examples; 28] = [
    (
        "nodes",
        &[("nodes --free 4", "nodes with at least 4 free GPUs"), ("nodes -o json | jq -r '.nodes[].node'", "names")],
    ),
    ("health", &[("health", "all GPU nodes"), ("health -l pool=h100 --watch 30", "one pool, every 30 s")]),
    ("inventory", &[("inventory gpu-2 -o wide", "all columns"), ("inventory", "GPUs and drivers of all GPU nodes")]),
    (
        "diagnose",
        &[
            ("diagnose gpu-2", "findings, plan, what was not checked"),
            ("diagnose gpu-2 --fail-on warning", "in a script"),
        ],
    ),
    ("describe", &[("describe gpu-2", "conditions, pods, GPUs, stages up to the scheduler")]),
    ("xid", &[("xid gpu-2 --since 24h", "the last day of the kernel log"), ("xid 79", "what Xid 79 means")]),
    ("telemetry", &[("telemetry gpu-2 --watch", "every 5 s, until Ctrl-C")]),
    ("ecc", &[("ecc gpu-3", "memory errors, remapped rows")]),
    ("processes", &[("processes gpu-2", "with their pods, and the command that kills each process")]),
    ("topology", &[("topology gpu-2", "NVLink, PCIe, NICs, NUMA nodes")]),
    (
        "explain",
        &[("explain train-0 -n research", "one pod"), ("explain job/train -n research", "the worst pod of a job")],
    ),
    (
        "pods",
        &[
            ("pods -n research", "pods with GPUs of a namespace"),
            ("pods gpu-2 --resolve-devices", "which GPU each pod has"),
        ],
    ),
    (
        "kill-gpu-process",
        &[(
            "--mode operator kill-gpu-process gpu-2 --gpu GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417 --pid 41213 --start-ticks 918273",
            "to print this command: gpu-syringe processes gpu-2",
        )],
    ),
    (
        "reset-gpu",
        &[(
            "--mode operator reset-gpu gpu-3 --gpu GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417",
            "to print the UUID: gpu-syringe inventory gpu-3",
        )],
    ),
    (
        "doctor",
        &[
            ("doctor", "permissions, policy, image"),
            ("doctor --node gpu-2", "with one real probe"),
            ("--as sre doctor", "for another user"),
        ],
    ),
    (
        "setup",
        &[
            ("setup --profile hardened --image REGISTRY/node-probe@sha256:DIGEST", "print"),
            ("setup --apply --user sre", "apply"),
        ],
    ),
    (
        "compare",
        &[
            ("compare before.tar.gz gpu-2", "a node, earlier and now"),
            ("compare before.tar.gz after.tar.gz --fail-on warning", "all nodes; exit code 1: something got worse"),
        ],
    ),
    (
        "incident",
        &[
            ("incident gpu-2 --since 7d", "one node, the last week"),
            ("incident -l pool=h100 --html incident.html", "a pool, also as one page for a browser"),
        ],
    ),
    (
        "return-report",
        &[
            ("return-report gpu-3 --gpu GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417 > case.md", "Markdown"),
            ("return-report gpu-3 --gpu 0000:5d:00.0 -o json", "by PCI address, as JSON"),
        ],
    ),
    ("mcp", &[("mcp", "an AI host starts this")]),
    (
        "save",
        &[
            ("save gpu-2 -f case.tar.gz", "later: gpu-syringe --from case.tar.gz diagnose gpu-2"),
            ("save --redact", "all GPU nodes, names replaced by pseudonyms"),
        ],
    ),
    ("config", &[("config > config.toml", "the settings as a file")]),
    ("audit", &[("audit --last 10 -o json", "the newest entries")]),
    ("sweep", &[("sweep", "after gpu-syringe was killed")]),
    (
        "pod-spec",
        &[
            ("pod-spec gpu-2", "YAML"),
            ("pod-spec gpu-2 | kubectl apply --dry-run=server -f -", "would the pod be admitted?"),
        ],
    ),
    ("completion", &[("completion bash", "source <(gpu-syringe completion bash)")]),
    ("man", &[("man ~/.local/share/man/man1", "then: man gpu-syringe-diagnose")]),
    ("help", &[("help diagnose", "a command"), ("help settings", "all settings")]),
];

/// Settings in the help of one command, in addition to the settings in the help of every command.
const SETTINGS_OF: [(&str, &[&str]); 3] = [
    ("setup", &["probe_namespace", "image", "image_digest", "registry_mirror", "runtime_class"]),
    ("doctor", &["probe_namespace", "image", "via", "as"]),
    ("pod-spec", &["probe_namespace", "image", "via"]),
];

/// Settings that the short help of every command shows. `gpu-syringe help settings` shows all.
const IN_SHORT_HELP: [&str; 5] = ["demo", "context", "mode", "output", "fail_on"];

/// Maximum width of a help text.
const WIDTH: usize = 100;

/// Adds the help texts of this module to the command.
pub(super) fn arrange(command: Command) -> Command {
    let short = short_help(&command);
    command
        .mut_args(|arg| {
            let shown = IN_SHORT_HELP.contains(&arg.get_id().as_str());
            arg.hide_short_help(!shown).hide_env(true)
        })
        .mut_subcommands(|sub| {
            let usage = usage(sub.get_name());
            let after = after_help(sub.get_name());
            sub.override_usage(usage).after_help(after).term_width(width())
        })
        .override_help(short)
}

/// Returns the examples of a command: command lines without the program, and their purposes.
pub(super) fn examples(name: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, examples)| examples)
}

fn after_help(name: &str) -> String {
    let mut text = String::new();
    let settings = SETTINGS_OF.iter().find(|(command, _)| *command == name).map_or(&[][..], |(_, settings)| settings);
    if !settings.is_empty() {
        text.push_str("Settings of this command:\n");
    }
    let all = all_settings();
    for arg in all.get_arguments().filter(|arg| settings.contains(&arg.get_id().as_str())) {
        let flag = format!("--{}", arg.get_long().unwrap_or_default());
        text.push_str(&format!(
            "  {flag:<18} {}\n",
            arg.get_help().map(ToString::to_string).unwrap_or_default().split(';').next().unwrap_or_default()
        ));
    }
    if !settings.is_empty() {
        text.push('\n');
    }
    text.push_str("Examples:\n");
    for (line, purpose) in examples(name) {
        text.push_str(&format!("  gpu-syringe {line}  # {purpose}\n"));
    }
    text + "\nAll settings: gpu-syringe help settings"
}

/// Returns the usage line of a command, without `Usage:`.
pub(super) fn usage(name: &str) -> String {
    let arguments = entries().find(|(known, _)| *known == name).map_or("", |(_, arguments)| arguments);
    format!("gpu-syringe {name} {arguments}").trim_end().to_owned() + " [OPTIONS]"
}

fn entries() -> impl Iterator<Item = Usage> {
    GROUPS.iter().flat_map(|(_, commands)| commands.iter().copied())
}

fn short_help(command: &Command) -> String {
    let mut text = "Diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.\n".to_owned();
    for (group, commands) in GROUPS {
        if group == OTHERS {
            let names = commands.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            text.push_str(&format!("{group:<8} {names}\n"));
            continue;
        }
        let mut heading = group;
        for (name, arguments) in commands {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            let usage = format!("{name} {arguments}");
            text.push_str(&format!("{heading:<8} {usage:<21}  {}\n", about.unwrap_or_default()));
            heading = "";
        }
    }
    text + "-n NAMESPACE  -l SELECTOR  --context NAME  -o table|wide|json|yaml|name\n\
            Settings: gpu-syringe help settings      Try: gpu-syringe --demo diagnose gpu-2\n"
}

/// Returns the help of a command, or of the settings.
pub(super) fn of_topic(mut command: Command, topic: Option<&str>) -> Result<String, Failure> {
    let Some(topic) = topic else { return Ok(short_help(&command)) };
    if topic == "settings" {
        return Ok(settings_help(width()));
    }
    command.build();
    match command.find_subcommand_mut(topic) {
        Some(sub) => Ok(sub.render_help().to_string()),
        None => Err(Failure::usage(
            format!("Showing the help of {topic}"),
            "there is no such command",
            "To see the commands, run: gpu-syringe help. To see the settings, run: gpu-syringe help settings.",
        )),
    }
}

fn settings_help(width: usize) -> String {
    let about = "A setting is a flag, a variable, or a line of the settings file: --call-timeout 60, \
        GPU_SYRINGE_CALL_TIMEOUT=60, call_timeout = 60. A flag overrides a variable, and a variable overrides the \
        file. To see the values and their sources, run: gpu-syringe config.";
    let mut settings = all_settings()
        .about(about)
        .disable_help_flag(true)
        .override_usage("gpu-syringe COMMAND [SETTINGS]")
        .term_width(width)
        .mut_args(|arg| arg.hide_env_values(true));
    settings.render_help().to_string()
}

fn width() -> usize {
    terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0).clamp(60, WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(check: impl FnOnce()) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../../snapshots/help");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(check);
    }

    #[test]
    fn the_short_help_has_every_command_and_fits_a_screen() {
        let command = super::super::command();
        let names: Vec<_> = entries().map(|(name, _)| name).collect();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            assert!(names.contains(&sub.get_name()), "{} is in no group", sub.get_name());
        }
        for name in names {
            assert!(command.find_subcommand(name).is_some(), "there is no command {name}");
        }
        let text = short_help(&command);
        assert!(text.lines().count() <= 24, "{} lines\n{text}", text.lines().count());
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        bind(|| insta::assert_snapshot!("short", text));
    }

    #[test]
    fn every_command_has_examples_that_it_accepts() {
        let command = super::super::command();
        for sub in command.get_subcommands() {
            assert!(!examples(sub.get_name()).is_empty(), "{}", sub.get_name());
            for (line, _) in examples(sub.get_name()) {
                let line = line.split(['|', '>']).next().unwrap_or_default();
                let words = ["gpu-syringe"].into_iter().chain(line.split_whitespace()).map(std::ffi::OsString::from);
                let words = super::super::with_joined_watch(&words.collect::<Vec<_>>());
                let parsed =
                    command.clone().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(parsed.subcommand_name(), Some(sub.get_name()), "{line}");
            }
        }
        for id in SETTINGS_OF.iter().flat_map(|(_, ids)| *ids) {
            assert!(all_settings().get_arguments().any(|arg| arg.get_id() == id), "{id}");
        }
    }

    #[test]
    fn the_help_of_the_settings_has_every_setting_with_its_variable() {
        let text = settings_help(WIDTH);
        for arg in all_settings().get_arguments() {
            let flag = arg.get_long().expect("a flag");
            assert!(text.contains(&format!("--{flag}")), "{flag}");
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert!(variable.is_none_or(|name| text.contains(&name)), "{flag}");
        }
        // The snapshot was made with the default features of the program.
        if cfg!(feature = "demo") {
            bind(|| insta::assert_snapshot!("settings", text));
        }
    }
}
