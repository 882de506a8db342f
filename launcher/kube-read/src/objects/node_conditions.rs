//! Functions about the conditions of a node. `is_ready`, `ready_since`, `is_silent`, `is_cordoned`, `why_not_ready`:
//! the state of the node. `conditions`: all conditions. `unhealthy_conditions`, `unhealthy_gpu_conditions`,
//! `gpu_conditions`: the conditions that report a fault, of the node or of its GPUs. `pressure`: the pressure
//! conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::kubernetes::lifecycle::NodeConditionFact;
use syringe_core::text::clean;
use syringe_macros::omit;

use crate::objects::platform_signals;

/// Maximum number of conditions of one node that are about GPUs.
const MAX_GPU_CONDITIONS: usize = 32;
/// Maximum number of conditions of one node. Real nodes have far fewer.
const MAX_CONDITIONS: usize = 64;
/// Maximum length of the message of a condition that is not in its healthy state. A message can contain several
/// reasons.
const MAX_MESSAGE: usize = 600;
/// Parts of the names of conditions for which `True` means a problem: conditions of the kubelet and of
/// node-problem-detector.
const TRUE_IS_BAD: [&str; 6] =
    ["Pressure", "NetworkUnavailable", "Deadlock", "ReadonlyFilesystem", "Unhealthy", "Problem"];
/// Ends of the names of conditions that Kubernetes itself sets.
const OF_KUBERNETES: [&str; 2] = ["Pressure", "NetworkUnavailable"];
/// Ends of the names of conditions for which any status other than `True` means a problem, unless `Not` is before the
/// end.
const GOOD: [&str; 3] = ["Ready", "Healthy", "OK"];
/// Ends of the names of conditions that name faults.
const FAULTS_AT_END: [&str; 6] = ["Errors", "Error", "Issues", "Faults", "Problems", "Failures"];

/// A condition of the node.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Condition {
    /// Name.
    pub name: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Reason in one word.
    pub reason: Option<String>,
    /// Message of a condition that is not in its healthy state. Other conditions have no message.
    pub message: Option<String>,
    /// Time since the last transition.
    pub for_seconds: Option<i64>,
}

/// Returns the conditions of a node, with their ages at the time `now`.
pub fn conditions(node: &Node, now: Timestamp) -> Vec<Condition> {
    let conditions = reported(node);
    let trouble = gpu_conditions(node);
    let one = |condition: &NodeCondition| {
        let as_it_should = match condition.type_.as_str() {
            "Ready" => condition.status == "True",
            name if trouble.iter().any(|text| text.starts_with(&format!("{name} is "))) => false,
            name if platform_signals::of_condition(name).is_some_and(|known| known.is_fault(&condition.status)) => {
                false
            }
            name if ["Pressure", "Unavailable"].iter().any(|end| name.ends_with(end)) => condition.status == "False",
            _ => true,
        };
        let message = condition.message.as_deref().filter(|_| !as_it_should).map(|text| clean(text, 200));
        let since = condition.last_transition_time.as_ref();
        Condition {
            name: clean(&condition.type_, 80),
            status: clean(&condition.status, 20),
            reason: condition.reason.as_deref().map(|reason| clean(reason, 80)),
            message: message.filter(|text| !text.is_empty()),
            for_seconds: since.map(|since| (now.as_second() - since.0.as_second()).max(0)),
        }
    };
    conditions.iter().take(MAX_CONDITIONS).map(one).collect()
}

/// Returns the conditions about GPUs that are not in their healthy state.
///
/// A table contains the healthy status of known conditions. For most other conditions, `True` means a problem. For a
/// few, `True` is the healthy status.
pub fn unhealthy_gpu_conditions(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    let is_about_gpus = |name: &str| {
        if let Some(known) = platform_signals::of_condition(name) {
            return known.is_about_gpus();
        }
        let name = name.to_ascii_lowercase();
        ["gpu", "xid", "nvlink", "nvidia", "nvswitch", "dcgm", "acceleratedhardware"]
            .iter()
            .any(|word| name.contains(word))
    };
    reported(node)
        .iter()
        .filter(move |condition| is_about_gpus(&condition.type_) || reports_gpu_fault(condition))
        .filter(|condition| {
            if let Some(known) = platform_signals::of_condition(&condition.type_) {
                return condition.status == "Unknown" || known.is_fault(&condition.status);
            }
            match healthy_status(&condition.type_) {
                Some(healthy) => condition.status != healthy,
                // A check whose name does not show its healthy status. Its reason may show it.
                None => condition.status != "False" && !names_health(condition),
            }
        })
        .take(MAX_GPU_CONDITIONS)
}

/// Returns whether a condition of an unknown monitor, which is `True`, reports a fault of a GPU in its message.
fn reports_gpu_fault(condition: &NodeCondition) -> bool {
    let message = condition.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let is_unknown =
        platform_signals::of_condition(&condition.type_).is_none() && healthy_status(&condition.type_).is_none();
    is_unknown
        && condition.status == "True"
        && !names_health(condition)
        && has(&["gpu", "xid", "nvlink", "dcgm"])
        && has(&["fail", "error", "lost", "unhealthy", "fallen off"])
        && !has(&["no error", "no fail", "not fail", "without error"])
}

/// Returns the conditions about GPUs that are not in their healthy state, as `type is status: reason, message`.
pub fn gpu_conditions(node: &Node) -> Vec<String> {
    let text = |condition: &NodeCondition| {
        let reason = condition.reason.as_deref().unwrap_or("no reason");
        let message = clean(condition.message.as_deref().unwrap_or_default(), 160);
        let (name, status, reason) = (clean(&condition.type_, 80), clean(&condition.status, 20), clean(reason, 80));
        format!("{name} is {status}: {reason}, {message}")
    };
    unhealthy_gpu_conditions(node).map(text).collect()
}

/// Returns the times at which the conditions of [`gpu_conditions`] last changed, by their type.
pub fn gpu_conditions_since(node: &Node) -> BTreeMap<String, Timestamp> {
    let since = |one: &NodeCondition| Some((clean(&one.type_, 80), one.last_transition_time.as_ref()?.0));
    unhealthy_gpu_conditions(node).filter_map(since).collect()
}

/// Returns the healthy status of a condition, if its name shows it: `GpuReady` and `GpuNoXidErrors` should be `True`,
/// `GpuNotReady` and `GpuUnhealthy` should be `False`.
fn healthy_status(name: &str) -> Option<&'static str> {
    let starts = |at: &usize| name.get(*at..).is_some_and(|rest| rest.starts_with(char::is_uppercase));
    let good = GOOD.iter().find_map(|end| name.strip_suffix(end));
    if let Some(before) = good {
        return Some(if before.ends_with("Not") { "False" } else { "True" });
    }
    let of_faults = FAULTS_AT_END.iter().any(|end| name.ends_with(end));
    let negated = ["No", "Without"].iter().flat_map(|word| name.match_indices(word)).any(|(at, word)| {
        let after = at + word.len();
        after == name.len() || starts(&after)
    });
    if of_faults && negated {
        return Some("True");
    }
    (of_faults || TRUE_IS_BAD.iter().any(|word| name.contains(word))).then_some("False")
}

/// Returns whether the reason of a condition denies a fault: `NoXid`, `GpuCheckIsHealthy`, `DriverReady`.
fn names_health(condition: &NodeCondition) -> bool {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let good = GOOD.iter().find_map(|end| reason.strip_suffix(end));
    let negated = |before: &str| ["Not", "IsNot"].iter().any(|word| before.ends_with(word));
    denies(reason) || good.is_some_and(|before| !negated(before))
}

/// Returns whether the kubelet reports Ready. A node without the condition is not Ready.
pub fn is_ready(node: &Node) -> bool {
    why_not_ready(node).is_none()
}

/// Returns whether the kubelet does not report at all. In this case, no probe can start on the node.
pub fn is_silent(node: &Node) -> bool {
    reported(node).iter().find(|condition| condition.type_ == "Ready").is_none_or(|ready| ready.status == "Unknown")
}

/// Returns the time since which the node has been Ready, or not Ready.
pub fn ready_since(node: &Node) -> Option<Timestamp> {
    let condition = reported(node).iter().find(|condition| condition.type_ == "Ready")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// Returns why the node is not Ready: `Ready is False since <time> (<reason>: <message>)`. `None` for a Ready node.
pub fn why_not_ready(node: &Node) -> Option<String> {
    let Some(condition) = reported(node).iter().find(|condition| condition.type_ == "Ready") else {
        return Some("the node has no Ready condition".to_owned());
    };
    if condition.status == "True" {
        return None;
    }
    let reason = condition.reason.as_deref().unwrap_or("no reason given");
    let message = clean(condition.message.as_deref().unwrap_or_default(), MAX_MESSAGE);
    let since = condition.last_transition_time.as_ref().map(|time| format!(" since {}", time.0)).unwrap_or_default();
    Some(format!("Ready is {}{since} ({reason}: {message})", condition.status))
}

/// Returns the conditions that show a fault, with their messages, except those about GPUs.
///
/// If the table of known conditions and the name do not show the healthy status, the condition counts only if its
/// reason describes a fault. While the kubelet does not report, its pressure conditions are `Unknown`. They have no
/// more information than the condition `Ready`.
pub fn unhealthy_conditions(node: &Node) -> Vec<NodeConditionFact> {
    let of_gpus = gpu_conditions(node);
    let is_bad = |condition: &&NodeCondition| {
        let NodeCondition { type_: name, status, .. } = condition;
        if let Some(known) = platform_signals::of_condition(name) {
            return !known.is_about_gpus() && known.is_fault(status);
        }
        let is_bad = match healthy_status(name) {
            Some("True") => status != "True",
            // The reason of a condition of Kubernetes need not name a fault: `NoRouteCreated`.
            Some(_) => {
                status == "True" && (OF_KUBERNETES.iter().any(|end| name.ends_with(end)) || !names_health(condition))
            }
            None => names_fault(condition),
        };
        is_bad && !of_gpus.iter().any(|text| text.starts_with(&format!("{name} is ")))
    };
    reported(node).iter().filter(is_bad).take(MAX_CONDITIONS).map(condition_fact).collect()
}

/// Returns whether the reason of a condition describes a fault. Used if the name of the condition does not show which
/// status is healthy: `InfiniBandCharDeviceCheck` is True with the reason `InfiniBandCharDeviceCheckIsNotHealthy`.
fn names_fault(condition: &NodeCondition) -> bool {
    const FAULTS: [&str; 8] = ["NotHealthy", "Unhealthy", "Fail", "Error", "Down", "Missing", "Degraded", "NotFound"];
    // The name of the condition is removed from the reason, for example from `SysLogsXIDErrorIsHealthy`.
    let reason = condition.reason.as_deref().unwrap_or_default().replace(&condition.type_, "");
    !denies(&reason) && FAULTS.iter().any(|word| reason.contains(word))
}

/// Returns whether a reason denies a fault: `NoErrors`, `HasNoFailedLinks`.
fn denies(reason: &str) -> bool {
    reason.starts_with("No") && !reason.starts_with("Not") || reason.contains("HasNo") || reason.contains("Without")
}

/// Returns the name, status, reason, message and time of a condition.
pub fn condition_fact(condition: &NodeCondition) -> NodeConditionFact {
    let text = |text: &Option<String>, most| clean(text.as_deref().unwrap_or_default(), most);
    NodeConditionFact {
        name: clean(&condition.type_, 80),
        status: clean(&condition.status, 20),
        reason: text(&condition.reason, 80),
        message: text(&condition.message, MAX_MESSAGE),
        since: condition.last_transition_time.as_ref().map(|time| time.0),
    }
}

/// Returns the pressure conditions of a node (`DiskPressure` and others) with their status.
pub fn pressure(node: &Node) -> Vec<(String, String)> {
    let of_pressure = reported(node).iter().filter(|condition| condition.type_.ends_with("Pressure"));
    let named = of_pressure.map(|condition| (clean(&condition.type_, 80), clean(&condition.status, 20)));
    named.take(MAX_CONDITIONS).collect()
}

/// Returns whether the node is cordoned (`spec.unschedulable`).
pub fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn reported(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reason_says_whether_a_condition_of_an_unknown_monitor_is_a_fault() {
        for (reason, is_fault) in [
            ("InfiniBandCharDeviceCheckIsNotHealthy", true),
            ("EfaPortDown", true),
            ("NetworkErrorCheckIsHealthy", false),
            ("InfiniBandCharDeviceCheckIsHealthy", false),
            ("NoErrors", false),
            ("KernelHasNoDeadlock", false),
            ("", false),
        ] {
            let node: Node = serde_json::from_value(json!({"status": {"conditions": [
                {"type": "NetworkErrorCheck", "status": "True", "reason": reason}]}}))
            .expect("a node");
            assert_eq!(!unhealthy_conditions(&node).is_empty(), is_fault, "{reason}");
        }
    }

    #[test]
    fn the_status_of_a_condition_of_kubernetes_needs_no_reason() {
        for (status, reason, is_fault) in [("True", "NoRouteCreated", true), ("False", "RouteCreated", false)] {
            let node: Node = serde_json::from_value(json!({"status": {"conditions": [
                {"type": "NetworkUnavailable", "status": status, "reason": reason}]}}))
            .expect("a node");
            assert_eq!(!unhealthy_conditions(&node).is_empty(), is_fault, "{reason}");
        }
    }

    #[test]
    fn a_negation_in_the_name_of_a_condition_changes_its_healthy_status() {
        for (name, status, reason, is_fault) in [
            ("GpuReady", "False", "DriverMissing", true),
            ("GpuDriverNotReady", "False", "DriverReady", false),
            ("GpuDriverNotReady", "True", "DriverMissing", true),
            ("GPUNoXidErrors", "True", "NoXid", false),
            ("GPUNoXidErrors", "False", "Xid79", true),
            ("NvidiaUnhealthy", "False", "ok", false),
            ("GpuIssues", "True", "GpuLost", true),
            ("GpuNotFound", "True", "GpuNotFound", true),
            ("GpuHardwareCheck", "True", "GpuHardwareCheckIsHealthy", false),
            ("NodeRemoved", "True", "Triage", true),
            ("NodeRemoved", "False", "Triage", false),
            ("GpuHardwareCheck", "True", "GpuHardwareCheckIsNotHealthy", true),
        ] {
            let node: Node = serde_json::from_value(json!({"status": {"conditions": [
                {"type": name, "status": status, "reason": reason, "message": "DCGM diag failed"}]}}))
            .expect("a node");
            assert_eq!(!gpu_conditions(&node).is_empty(), is_fault, "{name} {status} {reason}");
        }
    }

    #[test]
    fn only_a_condition_that_is_true_makes_a_node_ready() {
        let of = |conditions: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "gpu-1"}, "status": {"conditions": conditions}}))
                .expect("a node")
        };
        assert!(is_ready(&of(json!([{"type": "Ready", "status": "True"}]))));
        for status in ["False", "Unknown"] {
            let node = of(json!([{"type": "Ready", "status": status, "reason": "KubeletDown", "message": "stopped"}]));
            let why = why_not_ready(&node).expect("a reason");
            assert!(!is_ready(&node) && why == format!("Ready is {status} (KubeletDown: stopped)"), "{why}");
        }
        let other = of(json!([{"type": "DiskPressure", "status": "True"}]));
        assert_eq!(pressure(&other), [("DiskPressure".to_owned(), "True".to_owned())]);
        assert!(!is_ready(&other) && !is_ready(&Node::default()));
    }
}
