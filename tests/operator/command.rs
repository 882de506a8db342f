//! Tests of the conditions under which `kill-gpu-process` acts (`--mode operator`, `--yes`, the matching `--server`).

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{BUSY_GPU, PID, START_TICKS};

fn run(state: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpu-syringe"))
        .arg("--demo")
        .args(words)
        .env("XDG_STATE_HOME", state)
        .env_remove("GPU_SYRINGE_MODE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn kill(words: &[&'static str]) -> Vec<String> {
    let (pid, ticks) = (PID.to_string(), START_TICKS.to_string());
    let call = ["kill-gpu-process", "gpu-1", "--gpu", BUSY_GPU, "--pid", &pid, "--start-ticks", &ticks];
    words.iter().chain(&call).map(|word| (*word).to_owned()).collect()
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_operator_mode_the_command_says_what_it_needs() {
    let state = tempfile::tempdir().unwrap();
    let output = run(state.path(), &texts(&kill(&[])));
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("--mode operator"), "{}", error(&output));
}

#[test]
fn yes_skips_the_prompt_and_the_audit_log_shows_it() {
    let state = tempfile::tempdir().unwrap();
    let mut words = kill(&["--mode", "operator"]);
    words.push("--yes".into());
    let output = run(state.path(), &texts(&words));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", error(&output)));
    assert_eq!((&answer["outcome"], &answer["consent"]), (&json!("simulated"), &json!("--yes")), "{answer}");
    assert_eq!(output.status.code(), Some(0));
    let log = run(state.path(), &["audit"]);
    let lines: Vec<Value> =
        String::from_utf8_lossy(&log.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["probe", "action_started", "action_ended"]);
    let table = run(state.path(), &["audit", "--output", "table", "--last", "1"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("kill-gpu-process"));
}

#[test]
fn another_api_server_than_the_one_that_was_named_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let mut words = kill(&["--mode", "operator"]);
    words.extend(["--yes", "--server", "https://elsewhere:6443"].map(str::to_owned));
    let output = run(state.path(), &texts(&words));
    assert_eq!(output.status.code(), Some(3));
    assert!(error(&output).contains("not https://elsewhere:6443"), "{}", error(&output));
    assert!(!state.path().join("gpu-syringe/audit.jsonl").exists(), "no pod was created");
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_done() {
    let state = tempfile::tempdir().unwrap();
    let output = run(state.path(), &texts(&kill(&["--mode", "operator"])));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", error(&output)));
    assert_eq!(answer["outcome"], json!("declined"), "{answer}");
    assert!(answer["summary"].as_str().unwrap().contains("--yes"), "{answer}");
    assert_eq!(output.status.code(), Some(1), "a script must see that the action was not done");
}
