//! `ready_condition`, `is_ready`, `is_unknown`, `set_ready`: the `Ready` condition of a `Node` object.
//! `internal_ip`: the address of the node.

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Returns the `Ready` condition of a node whose kubelet reports, or no longer reports.
pub(crate) fn ready_condition(is_reporting: bool, now: Timestamp) -> NodeCondition {
    let (status, reason, message) = if is_reporting {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
    };
    let now = Some(Time(now));
    NodeCondition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: now.clone(),
        last_transition_time: now,
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Returns whether the `Ready` condition is true.
pub(crate) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.status == "True")
}

/// Returns whether the `Ready` condition is unknown because the kubelet does not report.
#[cfg(feature = "test-support")]
pub(crate) fn is_unknown(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.reason.as_deref() == Some("NodeStatusUnknown"))
}

/// Replaces the `Ready` condition.
#[cfg(feature = "test-support")]
pub(crate) fn set_ready(node: &mut Node, is_reporting: bool) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(ready_condition(is_reporting, Timestamp::now()));
}

/// Returns the internal address; empty if the node has no address.
pub(crate) fn internal_ip(node: &Node) -> String {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.and_then(|all| all.iter().find(|address| address.type_ == "InternalIP"));
    internal.map(|address| address.address.clone()).unwrap_or_default()
}
