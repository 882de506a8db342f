//! `add`: adds to the explanation of a pod the states, logs and actions of linked pods: of its job, or named in its
//! messages.

use crate::explanation::causes::{Case, MAX_EVIDENCE, NOT_IDENTIFIED};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::input::stack::pods::FailingPod;
use crate::rules::kubernetes::named_logs;
use crate::rules::kubernetes::stack_log::linked::{self, Told};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::text::{clean, clean_keeping_end};

/// Maximum length of a summary that includes linked pods.
const MAX_SUMMARY: usize = 1200;
/// Maximum length of the text about one pod.
const MAX_WORDS: usize = 360;

/// Adds the states and logs of linked pods.
pub(super) fn add(case: &Case<'_>, explanation: &mut Explanation) {
    let own_is_known = explanation.is_identified();
    // If the pod explains its own end, the state of another pod of its job adds nothing.
    let adds = |one: &&LinkedPod| !(own_is_known && one.role.starts_with(LinkedPod::BESIDE));
    let linked: Vec<&LinkedPod> = case.pod.linked_pods.iter().filter(adds).collect();
    if explanation.cause == Cause::None {
        name_those_not_running(&linked, explanation);
        return;
    }
    if let Some(absent) = &case.pod.absent_provider {
        let summary = explanation.summary.trim_end_matches('.');
        explanation.summary = clean_keeping_end(&format!("{summary}; {absent}."), MAX_SUMMARY);
        let node = case.node;
        let own = without_search(&explanation.action.text);
        let advice =
            format!("Change the tolerations or the selector of this DaemonSet, so that it has a pod on {node}.");
        explanation.action.text = format!("{advice} {own}").trim().to_owned();
    }
    let told: Vec<Told> = linked.iter().map(|linked| told_of(linked)).collect();
    if told.iter().any(|one| one.fails && one.cause.is_some() && !only_waits(one)) {
        explanation.summary = explanation.summary.replacen(&format!("; {NOT_IDENTIFIED}"), "", 1);
    }
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
    // A failed pod that the message names is the direct cause.
    let fails = told.iter().any(|one| one.fails && !only_waits(one));
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
    for linked in linked.iter().filter(|linked| linked.log.is_some()) {
        own = named_logs::after_reading(&own, &linked.pod);
    }
    if fails {
        own = without_search(&own);
    }
    actions.push(own);
    explanation.action.text = actions.join(" ").trim().to_owned();
}

/// Adds the reason why the other pods of the job of a running pod do not run.
fn name_those_not_running(linked: &[&LinkedPod], explanation: &mut Explanation) {
    let told: Vec<Told> = linked.iter().map(|linked| told_of(linked)).filter(|one| one.fails).collect();
    let (Some(first), summary) = (told.first(), explanation.summary.trim_end_matches('.')) else { return };
    let words: Vec<String> = told.iter().map(in_words).collect();
    explanation.summary = clean_keeping_end(&format!("{summary}; {}.", words.join("; ")), MAX_SUMMARY);
    explanation.evidence.extend(told.iter().map(|one| one.state.clone()));
    let name = &first.name;
    explanation.action.text = format!(
        "No action for this pod. If its program makes no progress, it waits for the other pods of its job: first find out why pod {name} \
         does not run."
    );
}

/// Returns the state of a linked pod, with its newest warning if its containers have not started.
fn told_of(linked: &LinkedPod) -> Told {
    let mut told = linked::told(linked);
    let failing_pod = FailingPod { pod: &linked.pod, container: None };
    if let Some(warning) = failing_pod.warning().filter(|_| told.fails && failing_pod.scheduling().is_none()) {
        told.state = format!("{}; {warning}", told.state);
    }
    if let Some(node) = linked.node.as_deref().filter(|_| linked.role.contains(LinkedPod::NODE_NOT_READY)) {
        let node = clean(node, MAX_WORDS);
        told.cause = Some(format!("its node {node} is not Ready"));
        told.action = Some((ActionCode::Watch, format!("Find out why {node} is not Ready (diagnose_gpu_node).")));
    }
    told
}

/// Start of the advice for a pod that only waited for another pod.
const ONLY_WAITED: &str = "This pod only waited";

/// Returns whether a linked pod waited for another pod, too.
fn only_waits(told: &Told) -> bool {
    told.action.as_ref().is_some_and(|(_, advice)| advice.contains(ONLY_WAITED))
}

/// Beginnings of sentences that advise a search for the pod or service that failed. Each has the sentence that
/// replaces it when the pod was found.
const SEARCHES: [(&str, &str); 11] = [
    ("Look for the rank", ""),
    (ONLY_WAITED, ""),
    ("Look at the process, rank, node or service", ""),
    ("After a cancellation or a signal", ""),
    ("This program only reports it", ""),
    ("The scheduler's message gives the reason", ""),
    ("Check that a scheduler with the name", ""),
    ("Check the CSI driver's pod", ""),
    ("Check the cilium pod", ""),
    ("Check that the kubelet plugin of the DRA driver", ""),
    ("Check the pod of the device plugin", "Then recreate the pod. "),
];

/// Returns an action without the advice to look for the pod that failed, because it was found.
fn without_search(action: &str) -> String {
    let left =
        |sentence| SEARCHES.iter().find(|(start, _)| str::starts_with(sentence, start)).map_or(sentence, |row| row.1);
    action.split_inclusive(". ").map(left).collect::<String>().trim().to_owned()
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
    if only_waits(told) {
        return None;
    }
    if let Some((_, advice)) = action.as_ref().filter(|(_, advice)| !advice.is_empty()) {
        return Some(format!("For pod {name}: {advice}"));
    }
    if let Some(command) = unread_log {
        return Some(format!(
            "The log of pod {name} could not be read (permission pods/log). Read it with: {command}."
        ));
    }
    fails.then(|| format!("First find out why pod {name} does not become ready, or why it failed."))
}
