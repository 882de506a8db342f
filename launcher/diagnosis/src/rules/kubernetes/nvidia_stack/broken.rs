//! `draft`, `explain`: make the finding about the first component of NVIDIA's stack that does not work, with its log.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::{FailingPod, delete_command};
use crate::input::stack::{Broken, BrokenComponent};
use crate::rule::{Draft, Rule};
use crate::rules::kubernetes::nvidia_stack::rules::{BROKEN_DRIVER, BROKEN_PLUGIN, BROKEN_TOOLKIT, BROKEN_VALIDATOR};
use crate::rules::kubernetes::stack_log;
use crate::rules::kubernetes::stack_log::Phrase;
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

/// Adds the state of the pod, its events and log, and the action.
pub(super) fn explain(node: &Node<'_>, broken: &Broken<'_>, draft: Draft) -> Draft {
    let failing_pod = &broken.failing_pod;
    let draft = draft.with_evidence(broken.description.clone()).with_all_evidence(failing_pod.warning());
    let quote = |line: &str| format!("log of {}: \"{line}\"", evidence::data(failing_pod.container_name()));
    let known = stack_log::known_line(node, failing_pod.pod);
    let draft = match &known {
        Some((line, phrase)) => draft.with_evidence(format!("{}: {}", quote(line), phrase.cause)),
        None => draft.with_all_evidence(stack_log::last_line(node, failing_pod.pod).map(|line| quote(&line))),
    };
    let phrase = known.map(|(_, phrase)| phrase);
    let advice = advice(failing_pod, phrase, &draft.advice);
    let action = phrase.map_or(draft.action, |phrase| phrase.action);
    draft.with_action(action, advice)
}

/// Returns the action of the phrase or else of the rule, followed by the commands.
fn advice(failing_pod: &FailingPod<'_>, phrase: Option<&Phrase>, default: &str) -> String {
    let mut advice = phrase.map_or(default, |phrase| phrase.advice).to_owned();
    if let Some(command) = failing_pod.log_command() {
        advice.push_str(&format!(" Log: {command}."));
    }
    if phrase.is_some() {
        advice.push_str(&format!(" Then: {}.", delete_command(failing_pod.pod)));
    }
    advice
}
