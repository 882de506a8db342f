//! `draft`, `explain`: create the finding about the first component of NVIDIA's stack that does not work, with its log.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::{FailingPod, delete_command};
use crate::input::stack::{Broken, BrokenComponent};
use crate::messages::phrases::{self, Part, Phrase};
use crate::rule::{Draft, Rule};
use crate::rules::kubernetes::nvidia_stack::rules::{BROKEN_DRIVER, BROKEN_PLUGIN, BROKEN_TOOLKIT, BROKEN_VALIDATOR};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::Severity;

fn rule_of(component: BrokenComponent) -> Rule {
    match component {
        BrokenComponent::Driver => BROKEN_DRIVER,
        BrokenComponent::Toolkit => BROKEN_TOOLKIT,
        BrokenComponent::Validator => BROKEN_VALIDATOR,
        BrokenComponent::Plugin => BROKEN_PLUGIN,
    }
}

/// Creates the finding. `unavailable`: evidence that pods cannot get the GPUs.
pub(super) fn draft(node: &Node<'_>, broken: &Broken<'_>, unavailable: Vec<String>) -> Draft {
    let only_warns = unavailable.is_empty() && node.stack.advertises_gpus;
    let severity = if only_warns { Severity::Warning } else { Severity::Critical };
    let draft = Draft::on_node(rule_of(broken.component)).with_severity(severity);
    explain(node, broken, draft).with_all_evidence(unavailable)
}

/// Adds the state, the events and the log of the pod, and the reason with its action.
pub(super) fn explain(node: &Node<'_>, broken: &Broken<'_>, draft: Draft) -> Draft {
    let failing_pod = &broken.failing_pod;
    let draft = draft.with_evidence(broken.description.clone()).with_all_evidence(failing_pod.warning());
    // A pod that the kubelet evicted has no log; the message of the pod has the reason.
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

/// Returns the message with which the kubelet evicted the pod, and its meaning.
fn eviction<'p>(failing_pod: &FailingPod<'p>) -> Option<(&'static Phrase, &'p str)> {
    let message = failing_pod.pod.message.as_deref().filter(|_| failing_pod.pod.phase == "Failed")?;
    Some((phrases::known(Part::Eviction, message)?, message))
}

fn log_command(failing_pod: &FailingPod<'_>) -> String {
    failing_pod.log_command().map(|command| format!(" Log: {command}.")).unwrap_or_default()
}
