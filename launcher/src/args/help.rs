//! Creates the help texts: the commands in groups on one screen, the options of each command, and the settings.

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
        ],
    ),
    ("Pod", &[("explain", "POD"), ("pods", "NODE")]),
    ("Change", &[("kill-gpu-process", "NODE"), ("reset-gpu", "NODE")]),
    ("Program", &[("doctor", ""), ("setup", ""), ("mcp", "")]),
    (
        OTHERS,
        &[
            ("config", ""),
            ("audit", ""),
            ("sweep", ""),
            ("pod-spec", "[NODE]"),
            ("completion", "SHELL"),
            ("help", "COMMAND"),
        ],
    ),
];

/// The group whose commands are on one line.
const OTHERS: &str = "Others";

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
            sub.override_usage(usage).after_help("All settings: gpu-syringe help settings").term_width(width())
        })
        .override_help(short)
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
    let mut text = "Diagnoses the GPU nodes of a Kubernetes cluster, and leaves nothing behind.\n\n".to_owned();
    for (group, commands) in GROUPS {
        if group == OTHERS {
            let names: Vec<_> = commands.iter().map(|(name, arguments)| format!("{name} {arguments}")).collect();
            let names = names.iter().map(|name| name.trim_end()).collect::<Vec<_>>().join(", ");
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
    text + "\n-n NAMESPACE  -l SELECTOR  --context NAME  -o table|wide|json|yaml|name\n\
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
            "gpu-syringe help shows the commands; gpu-syringe help settings shows the settings.",
        )),
    }
}

fn settings_help(width: usize) -> String {
    let about = "A setting is a flag, a variable, or a line of the settings file: --call-timeout 60, GPU_SYRINGE_CALL_TIMEOUT=60, \
                 call_timeout = 60. A flag overrides a variable, and a variable overrides the file. gpu-syringe config shows the values and \
                 where they come from.";
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
