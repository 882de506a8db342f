//! The operator's action in a run: the kill of a process of the healthy embedded node. It is simulated there, and refused elsewhere.

use serde_json::Value;

use super::plan::Step;

/// The tool.
pub(crate) const KILL: &str = "kill_gpu_process";
/// A job on the healthy node.
const JOB: [&str; 6] =
    ["--pid", "41210", "--start-ticks", "418000", "--gpu", "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd"];

/// The words of the command after the name of the node.
pub(crate) fn words<'a>() -> impl Iterator<Item = &'a str> {
    JOB.into_iter().chain(["--yes"])
}

/// Why an answer is wrong.
pub(crate) fn wrong(step: &Step, answer: &Value) -> Option<String> {
    let simulated = answer["outcome"] == "simulated";
    (simulated != step.healthy).then(|| format!("the outcome on a {} node: {answer:.300}", step.healthy))
}

/// How many actions the audit log has begun and not ended.
pub(crate) fn without_end(log: &str) -> isize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.fold(0, |open, line| match line["event"].as_str() {
        Some("action_started") => open + 1,
        Some("action_ended") => open - 1,
        _ => open,
    })
}
