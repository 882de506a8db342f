//! `read_answer`, `read_command`: check the properties that every answer, command output and error of a chaos run must
//! have. `Violation`: a violated property. `audit_log`: reads the audit log of the launchers.

use std::path::Path;

use serde_json::Value;

use super::plan::Step;

/// Maximum length of an answer, in characters. Some MCP hosts save a longer answer to a file instead of passing it to
/// the model.
const MAX_ANSWER: usize = 45_000;

/// A violated property, with the step and the faults.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) step: Step,
    /// The violated property.
    pub(crate) what: &'static str,
    pub(crate) detail: String,
    /// The faults that the proxy caused.
    pub(crate) faults: Vec<String>,
}

/// A violated property, and a description of the violation.
pub(crate) type Found = (&'static str, String);

/// Returns whether a text contains the name of a pod.
pub(crate) fn is_named(text: &str, pod: &str) -> bool {
    text.contains(pod)
}

/// Returns the audit log of the launchers with this state directory, including rotated files.
pub(crate) fn audit_log(state: &Path) -> String {
    let files = std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let audits = files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("audit")));
    audits.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
}

/// Checks the result of a tool call.
pub(crate) fn read_answer(result: &Value, wrong: impl Fn(&Value) -> Option<String>) -> Vec<Found> {
    let mut found = Vec::new();
    let text = result["content"][0]["text"].as_str().unwrap_or_default();
    if text.chars().count() > MAX_ANSWER {
        found.push(("size", format!("an answer of {} characters", text.chars().count())));
    }
    if result["isError"] == true {
        found.extend(read_error(text));
        return found;
    }
    let answer = &result["structuredContent"];
    if serde_json::from_str::<Value>(text).ok().as_ref() != Some(answer) {
        found.push(("halves", format!("the text differs from the structured answer: {text:.200}")));
    }
    found.extend(check(answer, wrong));
    found
}

/// Checks the exit code and the output of a command.
pub(crate) fn read_command(
    code: Option<i32>,
    stdout: &str,
    said: &str,
    interrupted_twice: bool,
    wrong: impl Fn(&Value) -> Option<String>,
) -> Vec<Found> {
    if said.contains("panicked") {
        return vec![("crash", said.to_owned())];
    }
    match code {
        Some(130) if interrupted_twice => Vec::new(),
        Some(status @ (0 | 1 | 3 | 130)) => match serde_json::from_str::<Value>(stdout) {
            Ok(answer) if answer.get("error").is_none() => check(&answer, wrong),
            Ok(_) if status == 3 || status == 130 => read_error(said),
            Ok(error) => vec![("exit", format!("exit code {status} with an error: {error}"))],
            Err(error) => vec![("half", format!("exit code {status} with {error}: {stdout:.200}"))],
        },
        other => vec![("exit", format!("exit code {other:?}: {said}"))],
    }
}

fn check(answer: &Value, wrong: impl Fn(&Value) -> Option<String>) -> Vec<Found> {
    let mut found: Vec<Found> = wrong(answer).map(|why| ("wrong", why)).into_iter().collect();
    let probe = &answer["probe"];
    if probe["deleted"] == false && probe["left_behind"].is_null() {
        found.push(("undeclared", format!("not deleted, but not reported as left behind: {probe}")));
    }
    found
}

/// Checks that an error contains what failed, the reason and the next step.
fn read_error(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let text = text
        .rsplit_once("gpu-syringe: ")
        .filter(|(log, _)| log.is_empty() || log.ends_with('\n'))
        .map_or(text, |(_, said)| said);
    let (what, rest) = text.split_once(": ").unwrap_or_default();
    let phase = what.rsplit('\n').next().unwrap_or_default();
    if phase.split_whitespace().count() < 2 || !rest.contains("Next step: ") {
        found.push(("error", format!("no phase or no next step: {text}")));
    }
    let step = rest.split("Next step: ").nth(1).unwrap_or_default();
    if step.trim().is_empty() {
        found.push(("error", format!("an empty next step: {text}")));
    }
    if text.chars().any(|character| character.is_control() && character != '\n') {
        found.push(("error", format!("control characters: {text:?}")));
    }
    found
}
