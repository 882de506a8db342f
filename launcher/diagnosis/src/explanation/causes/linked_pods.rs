//! `add`: adds the states and logs of the pods that the problem of a pod leads to, and the actions for them, to its explanation.

use crate::explanation::causes::{Case, MAX_EVIDENCE, NOT_IDENTIFIED};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::rules::kubernetes::named_logs;
use crate::rules::kubernetes::stack_log::linked::{self, Told};
use syringe_core::text::clean_keeping_end;

/// Maximum length of a summary that includes linked pods.
const MAX_SUMMARY: usize = 1200;
/// Maximum length of the text about one pod.
const MAX_WORDS: usize = 360;

/// Adds the states and logs of linked pods.
pub(super) fn add(case: &Case<'_>, explanation: &mut Explanation) {
    if explanation.cause == Cause::None {
        return;
    }
    let told: Vec<Told> = case.pod.linked_pods.iter().map(linked::told).collect();
    let mut evidence = Vec::new();
    let mut actions = Vec::new();
    for one in &told {
        evidence.push(one.state.clone());
        evidence.extend(one.lines.iter().cloned());
        let words = in_words(one);
        let summary = explanation.summary.trim_end_matches('.');
        explanation.summary = clean_keeping_end(&format!("{summary}; {words}."), MAX_SUMMARY);
        actions.extend(action_of(one));
    }
    // If a pod is named in the message and fails, it is the direct cause.
    let fails = told.iter().any(|one| one.fails);
    if explanation.cause == Cause::Unknown && fails {
        (explanation.cause, explanation.certainty) = (Cause::Cluster, Certainty::Likely);
    }
    if !evidence.is_empty() {
        // The message of the explained pod stays first.
        let own: Vec<String> = std::mem::take(&mut explanation.evidence);
        let (first, rest) = own.split_at(own.len().min(2));
        let all = first.iter().cloned().chain(evidence).chain(rest.iter().cloned());
        explanation.evidence = all.take(MAX_EVIDENCE * 2).collect();
    }
    let mut own = std::mem::take(&mut explanation.action.text);
    for linked in case.pod.linked_pods.iter().filter(|linked| linked.log.is_some()) {
        own = named_logs::after_reading(&own, &linked.pod);
    }
    actions.push(own);
    explanation.action.text = actions.join(" ").trim().to_owned();
}

/// Returns the state of a linked pod with its cause, for the summary.
fn in_words(told: &Told) -> String {
    let Told { name, cause, too_early, fails, lines, .. } = told;
    if let Some((what, _)) = too_early {
        return format!("pod {name}: {what}");
    }
    let words = match (cause, fails, lines.last()) {
        (Some(cause), ..) => format!("pod {name}: {cause}"),
        (None, true, Some(line)) => format!("{}; {line}; {NOT_IDENTIFIED}", told.state),
        (None, true, None) => told.state.clone(),
        (None, false, Some(line)) => format!("pod {name} is ready; {line}"),
        (None, false, None) => format!("pod {name} is ready"),
    };
    clean_keeping_end(&words, MAX_WORDS)
}

/// Returns the action for a linked pod.
fn action_of(told: &Told) -> Option<String> {
    let Told { name, too_early, action, unread_log, fails, .. } = told;
    if let Some((_, advice)) = too_early {
        return Some(format!("Pod {name}: {advice}"));
    }
    if let Some((_, advice)) = action.as_ref().filter(|(_, advice)| !advice.is_empty()) {
        return Some(format!("For pod {name}: {advice}"));
    }
    if let Some(command) = unread_log {
        return Some(format!("The log of pod {name} could not be read (permission pods/log); read it: {command}."));
    }
    fails.then(|| format!("First find out why pod {name} does not become ready."))
}
