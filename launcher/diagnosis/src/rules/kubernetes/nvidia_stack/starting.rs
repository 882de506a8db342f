//! `downgrade_findings`: lowers findings while the NVIDIA stack of a node is starting or its driver is being upgraded.
//! Missing components may become available.

use crate::evidence;
use crate::input::decisions;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::{About, Draft};
use crate::rules::kubernetes::gpus::{NOT_ADVERTISED, UNALLOCATABLE};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};

/// Lowers findings to `info` if they are about components that may still be starting. Returns whether it lowered a
/// finding.
pub(super) fn downgrade_findings(node: &Node<'_>, drafts: &mut [Draft]) -> bool {
    let upgrade = decisions::running_upgrade(node).filter(|_| pods::failing_pod(node, Component::Driver).is_none());
    if let Some(upgrade) = upgrade {
        let is_replaced = |draft: &&mut Draft| {
            draft.rule.about.is_driver() || [NOT_ADVERTISED.id, UNALLOCATABLE.id].contains(&draft.rule.id)
        };
        let sign = format!("the driver is being upgraded: {}", evidence::name(&upgrade.signal));
        for draft in drafts.iter_mut().filter(is_replaced) {
            *draft = draft
                .clone()
                .with_severity(Severity::Info)
                .with_evidence(&sign)
                .with_action(ActionCode::Watch, "Diagnose {node} again when the upgrade of the driver has finished.");
        }
        return true;
    }
    if node.stack.advertises_gpus {
        return false;
    }
    let Some((starting, explains_driver)) = on_its_way(node) else { return false };
    let explained = |draft: &&mut Draft| {
        [NOT_ADVERTISED.id, UNALLOCATABLE.id].contains(&draft.rule.id)
            || explains_driver && draft.rule.about == About::DriverAbsent
    };
    let Some(draft) = drafts.iter_mut().find(explained) else { return false };
    *draft = draft.clone().with_severity(Severity::Info).with_evidence(starting).with_action(
        ActionCode::Watch,
        "Diagnose {node} again in some minutes: NVIDIA's stack is still starting there.",
    );
    true
}

/// Returns the components that are starting, and whether this explains a missing driver.
fn on_its_way(node: &Node<'_>) -> Option<(String, bool)> {
    if let Some(pod) = starting(node, Component::Driver) {
        return Some((words(node, pod), true));
    }
    if !node.stack.is_settled {
        // Only a driver that a pod installs becomes available without user action.
        let up = node.host().and_then(|host| host.uptime_seconds).map(|up| format!(" ({up} s since boot)"));
        let words = format!("the node booted recently{}: its pods may still be starting", up.unwrap_or_default());
        return Some((words, false));
    }
    let later = [Component::ContainerToolkit, Component::DevicePlugin, Component::DraDriver];
    let pod = later.into_iter().find_map(|component| starting(node, component))?;
    Some((words(node, pod), false))
}

/// Returns a pod that is new, or not ready without a failure, if no other pod of the component is ready or fails.
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
