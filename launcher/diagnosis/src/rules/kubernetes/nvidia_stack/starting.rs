//! A node whose NVIDIA stack is still starting: missing parts may become available without an action.

use crate::input::node::Node;
use crate::rule::draft::Draft;
use crate::rule::evidence;
use crate::rules::kubernetes::nvidia_stack::advertised::advertises_gpus;
use crate::rules::kubernetes::nvidia_stack::pods;
use crate::rules::kubernetes::nvidia_stack::rules::{DRIVER_ABSENT, NOT_ADVERTISED};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};

/// Reduces findings about components that may still be starting to information, and returns whether there was any.
pub(super) fn downgrade_findings(node: &Node<'_>, drafts: &mut [Draft]) -> bool {
    if advertises_gpus(node) {
        return false;
    }
    let Some((who, missing)) = on_its_way(node) else { return false };
    let Some(draft) = drafts.iter_mut().find(|draft| missing.contains(&draft.rule.id)) else { return false };
    *draft = draft.clone().with_severity(Severity::Info).with_evidence(who).with_action(
        ActionCode::Watch,
        "Diagnose {node} again in some minutes: NVIDIA's stack is still starting there.",
    );
    true
}

/// The components that are starting, and the findings that this explains.
fn on_its_way(node: &Node<'_>) -> Option<(String, Vec<&'static str>)> {
    let mut everything = DRIVER_ABSENT.to_vec();
    everything.push(NOT_ADVERTISED);
    if let Some(pod) = starting(node, Component::Driver) {
        return Some((words(node, pod), everything));
    }
    if !pods::is_settled(node) {
        // Only a driver that a pod installs becomes available without an action.
        let up = node.host().and_then(|host| host.uptime_seconds).map(|up| format!(" ({up} s since boot)"));
        let words = format!("the node booted recently{}: its pods may still be starting", up.unwrap_or_default());
        return Some((words, vec![NOT_ADVERTISED]));
    }
    let later = [Component::ContainerToolkit, Component::DevicePlugin, Component::DraDriver];
    let pod = later.into_iter().find_map(|component| starting(node, component))?;
    Some((words(node, pod), vec![NOT_ADVERTISED]))
}

/// A new pod of the component, or one that is not ready without a failure, if no other pod of it is ready or fails.
fn starting<'a>(node: &Node<'a>, component: Component) -> Option<&'a NvidiaPod> {
    if pods::failing_pod(node, component).is_some() {
        return None;
    }
    let mut all = pods::of(node, component);
    let young =
        |pod: &&NvidiaPod| pods::now(node).is_some() && pod.created.is_some() && !pods::is_older(node, pod.created);
    all.find(|pod| young(pod) || (component == Component::Driver && !pod.ready))
}

fn words(node: &Node<'_>, pod: &NvidiaPod) -> String {
    let age = evidence::ago(pods::now(node), pod.created).map(|age| format!(", created {age},")).unwrap_or_default();
    format!("pod {}{age} may still be starting", pods::name(pod))
}
