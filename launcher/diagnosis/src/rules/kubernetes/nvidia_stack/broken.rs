//! `draft`, `explain`: create the finding about the first component of NVIDIA's stack that does not work, with its log.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::{FailingPod, delete_command};
use crate::input::stack::{Broken, BrokenComponent};
use crate::messages::phrases::{self, Part, Phrase};
use crate::rule::{Draft, Rule};
use crate::rules::kubernetes::nvidia_stack::rules::{
    BROKEN_DRA, BROKEN_DRIVER, BROKEN_PLUGIN, BROKEN_TOOLKIT, BROKEN_VALIDATOR,
};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::{ActionCode, Severity};

fn rule_of(component: BrokenComponent) -> Rule {
    match component {
        BrokenComponent::Driver => BROKEN_DRIVER,
        BrokenComponent::Toolkit => BROKEN_TOOLKIT,
        BrokenComponent::Validator => BROKEN_VALIDATOR,
        BrokenComponent::Plugin => BROKEN_PLUGIN,
        BrokenComponent::DraDriver => BROKEN_DRA,
    }
}

/// Creates the finding. `unavailable`: evidence that pods cannot get the GPUs.
pub(super) fn draft(node: &Node<'_>, broken: &Broken<'_>, unavailable: Vec<String>) -> Draft {
    // Without a device plugin, the DRA driver prepares every claim for a GPU. Its ResourceSlices stay when it fails.
    let dra_alone = broken.component == BrokenComponent::DraDriver && node.kubernetes.gpu_capacity.unwrap_or(0) == 0;
    let only_warns = unavailable.is_empty() && node.stack.advertises_gpus && !dra_alone;
    let severity = if only_warns { Severity::Warning } else { Severity::Critical };
    let draft = Draft::on_node(rule_of(broken.component)).with_severity(severity);
    explain(node, broken, draft).with_all_evidence(unavailable)
}

/// Adds the state, the events and the log of the pod, and the reason with its action.
pub(super) fn explain(node: &Node<'_>, broken: &Broken<'_>, draft: Draft) -> Draft {
    let failing_pod = &broken.failing_pod;
    let draft = draft.with_evidence(broken.description.clone()).with_all_evidence(failing_pod.warning());
    if failing_pod.pod.deleting {
        let reason =
            "its pod stays in Terminating, and its DaemonSet creates no new pod before this pod is gone".to_owned();
        let action = format!(
            "Find out why the kubelet of {{node}} does not end the pod (`journalctl -u kubelet`: a process that no signal ends, a volume). If none of \
             its containers runs any more: {} --force --grace-period=0.",
            delete_command(failing_pod.pod)
        );
        return Draft { reason: Some(reason), ..draft }.with_action(ActionCode::UpdateSoftware, action);
    }
    if broken.component == BrokenComponent::Plugin
        && failing_pod.pod.ready
        && kubelet_restarted_after(node, failing_pod)
    {
        let reason =
            "the kubelet restarted after the plugin started, and the plugin has not registered again".to_owned();
        let action = format!("Start the plugin on {{node}} again: {}.", delete_command(failing_pod.pod));
        return Draft { reason: Some(reason), ..draft }.with_action(ActionCode::RestartPod, action);
    }
    if broken.component == BrokenComponent::Driver && has_own_driver(node) {
        let action = format!("{OWN_DRIVER}{}", log_command(failing_pod));
        let reason = Some("the node has a driver of its own, with which the GPUs work".to_owned());
        return Draft { reason, ..draft }.with_action(ActionCode::UpdateSoftware, action);
    }
    // A pod that the kubelet evicted has no log. The message of the pod contains the reason.
    if let Some((phrase, message)) = eviction(failing_pod) {
        let reason = format!("the kubelet evicted its pod: {}", phrase.meaning(message));
        let action = format!("{} The DaemonSet then creates the pod again.", phrase.action);
        return Draft { reason: Some(reason), ..draft }.with_action(phrase.code, action);
    }
    let mut advice = draft.advice.clone();
    let Some(reason) = stack_log::reason(node, failing_pod) else {
        advice.push_str(&log_command(failing_pod));
        let action = draft.action;
        return draft.with_action(action, advice);
    };
    let cause = reason.cause.map(|cause| match failing_pod.container_name() {
        "" => cause,
        name => format!("{}: {cause}", evidence::data(name)),
    });
    let draft = Draft { reason: cause, ..draft.with_all_evidence(reason.evidence) };
    let Some((action, text)) = reason.action else {
        advice.push_str(&log_command(failing_pod));
        let action = draft.action;
        return draft.with_action(action, advice);
    };
    draft.with_action(action, format!("{text}{} Then: {}.", log_command(failing_pod), delete_command(failing_pod.pod)))
}

/// Returns whether GPUs respond with a driver that is installed on the node, outside of the folder of driver containers.
fn has_own_driver(node: &Node<'_>) -> bool {
    let path = node.host().and_then(|host| host.driver.library_path.as_deref());
    node.answering().next().is_some() && path.is_some_and(|path| path.starts_with("/usr/"))
}

/// Action for a driver pod on a node that has a driver of its own.
const OWN_DRIVER: &str = "Turn the driver of the GPU Operator off for {node} (driver.enabled=false, or the label nvidia.com/gpu.deploy.driver=false): the image of \
     the node or its platform installs the driver, and the GPUs work with it. To use the driver of the operator, remove the other driver \
     first, when {node} is drained.";

/// Returns whether an event shows that the kubelet started after the container. A plugin registers with the kubelet at
/// its start.
fn kubelet_restarted_after(node: &Node<'_>, failing_pod: &FailingPod<'_>) -> bool {
    let Some(since) = failing_pod.container.and_then(|container| container.state.since) else { return false };
    let mut starts = node.kubernetes.warnings.iter().filter(|event| event.reason == KUBELET_STARTS);
    let process = node.host().and_then(|host| host.nvidia_stack.as_ref()?.kubelet_started_at);
    process.is_some_and(|started| started > since) || starts.any(|event| event.last.is_some_and(|last| last > since))
}

/// Reason of the event with which the kubelet reports its start.
const KUBELET_STARTS: &str = "Starting";

/// Returns the message with which the kubelet evicted the pod, and its meaning.
fn eviction<'p>(failing_pod: &FailingPod<'p>) -> Option<(&'static Phrase, &'p str)> {
    let message = failing_pod.pod.message.as_deref().filter(|_| failing_pod.pod.phase == "Failed")?;
    Some((phrases::known(Part::Eviction, message)?, message))
}

fn log_command(failing_pod: &FailingPod<'_>) -> String {
    failing_pod.log_command().map(|command| format!(" Log: {command}.")).unwrap_or_default()
}
