//! `terminal_command_line`: creates the command that a person can run in a terminal to carry out a plan.
//! `shell_quoted`: quotes a word for a shell.

use std::path::Path;

use serde_json::Value;

use crate::settings::{Settings, as_command_line};
use crate::terminal::command_names::command_of;

/// Name of the program.
const PROGRAM: &str = "gpu-syringe";

/// Returns the complete command, with the settings and kubeconfig of this launcher, and the context, node and API server
/// of the plan. The command shows the plan again and asks for consent.
pub(crate) fn terminal_command_line(
    settings: &Settings,
    kubeconfig: Option<&str>,
    tool: &str,
    node: &str,
    arguments: &Value,
    server: Option<&str>,
) -> String {
    let mut argv = vec![program()];
    argv.extend(as_command_line(settings));
    argv.extend([command_of(tool).to_owned(), node.to_owned()]);
    for (name, value) in arguments.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        argv.extend([format!("--{}", name.replace('_', "-")), value]);
    }
    argv.extend(server.into_iter().flat_map(|server| ["--server".to_owned(), server.to_owned()]));
    let command = argv.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ");
    match kubeconfig.filter(|_| settings.kubeconfig.is_none() && !settings.names_archive()) {
        Some(files) => format!("KUBECONFIG={} {command}", shell_quoted(files)),
        None => command,
    }
}

/// Returns the name of this program if it is in PATH, or else its path.
fn program() -> String {
    let own = std::env::current_exe().ok().filter(|path| path.file_stem().is_some_and(|stem| stem == PROGRAM));
    let in_path = which::which(PROGRAM).ok().and_then(|path| path.canonicalize().ok());
    if own.is_some() && in_path == own {
        return PROGRAM.to_owned();
    }
    own.as_deref().and_then(Path::to_str).unwrap_or(PROGRAM).to_owned()
}

/// Quotes a word for a shell.
pub(crate) fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_is_complete_and_whole_words_stay_whole() {
        let argv = ["--mode", "operator", "--context", "o'clock; rm -rf /"];
        let settings = Settings::from_args(argv).expect("settings");
        let arguments = json!({"gpu": "GPU-1", "start_ticks": 7});
        let command = terminal_command_line(
            &settings,
            Some("/a b:/c"),
            "kill_gpu_process",
            "gpu-1",
            &arguments,
            Some("https://k:6443"),
        );
        assert_eq!(
            command,
            "KUBECONFIG='/a b:/c' gpu-syringe --context 'o'\\''clock; rm -rf /' --mode operator kill-gpu-process \
             gpu-1 --gpu GPU-1 --start-ticks 7 --server https://k:6443"
        );
    }
}
