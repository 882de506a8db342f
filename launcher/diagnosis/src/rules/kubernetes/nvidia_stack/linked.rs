//! `with_linked_pods`: adds the states and logs of linked pods to the finding about GPUs that are not advertised.

use crate::input::node::Node;
use crate::rule::Draft;
use crate::rules::kubernetes::stack_log::linked;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;

/// Returns the finding with the states and the logs of the linked pods. `explained`: the pod whose log the finding
/// already uses.
pub(super) fn with_linked_pods(node: &Node<'_>, mut draft: Draft, explained: Option<&str>) -> Draft {
    if draft.severity == Severity::Info {
        return draft;
    }
    let linked = node.kubernetes.linked_pods.iter();
    for one in linked.filter(|one| one.role != LinkedPod::NAMED_BY_FINDING) {
        let told = linked::told(one);
        let is_explained = explained == Some(one.pod.uid.as_str());
        if let Some((what, advice)) = &told.too_early {
            let reason = format!("pod {}: {what}", told.name);
            let action = draft.action;
            draft = draft.with_evidence(reason.clone()).with_action(action, advice.clone());
            draft.reason = Some(reason);
        }
        if is_explained {
            continue;
        }
        let has_words = told.fails || told.cause.is_some() || !told.lines.is_empty();
        draft = draft.with_evidence(told.state).with_all_evidence(told.lines);
        // A requirement of the plugin is repaired before the plugin.
        if let Some(cause) = told.cause {
            let cause = format!("pod {}: {cause}", told.name);
            draft.reason = Some(draft.reason.map_or(cause.clone(), |reason| format!("{reason}; {cause}")));
        }
        let advice = match (told.action, told.unread_log) {
            (Some((_, advice)), _) if !advice.is_empty() => format!("For pod {}: {advice} {}", told.name, draft.advice),
            (_, Some(command)) => {
                format!("{} The log of pod {} could not be read. Read it with: {command}.", draft.advice, told.name)
            }
            _ if has_words => {
                format!(
                    "{} Fix the problem that the log of pod {} reports (see the evidence).",
                    draft.advice, told.name
                )
            }
            _ => draft.advice.clone(),
        };
        let action = draft.action;
        draft = draft.with_action(action, advice);
    }
    draft
}
