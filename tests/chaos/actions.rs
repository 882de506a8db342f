//! `KILL`, `words`: the action of a chaos run, `kill_gpu_process`, and its arguments.
//! `wrong`, `without_end`: check its answers, and its lines in the audit log.
//!
//! The action is simulated on the healthy embedded node, and rejected on other nodes.

use serde_json::Value;

use super::plan::Step;

/// Name of the tool.
pub(crate) const KILL: &str = "kill_gpu_process";
/// Arguments for the process of a job on the healthy node.
const JOB: [&str; 6] =
    ["--pid", "41210", "--start-ticks", "418000", "--gpu", "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd"];

/// Returns the command-line arguments after the name of the node.
pub(crate) fn words<'a>() -> impl Iterator<Item = &'a str> {
    JOB.into_iter().chain(["--yes"])
}

/// Returns the reason why an answer is wrong. `None`: the answer is correct.
pub(crate) fn wrong(step: &Step, answer: &Value) -> Option<String> {
    let simulated = answer["outcome"] == "simulated";
    (simulated != step.healthy).then(|| format!("wrong outcome on a {} node: {answer:.300}", step.healthy))
}

/// Returns the number of started actions in the audit log that have no end line.
pub(crate) fn without_end(log: &str) -> isize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.fold(0, |open, line| match line["event"].as_str() {
        Some("action_started") => open + 1,
        Some("action_ended") => open - 1,
        _ => open,
    })
}
