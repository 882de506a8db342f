//! `not_created`: explains pods that their controller could not create (quota, admission, missing priority class).
//!
//! Such a pod does not exist in the API. The API server denied its creation, and its controller (a Job, a ReplicaSet,
//! …) reports the error in an event. Sources: the API server's admission plugins (ResourceQuota, Priority, LimitRanger,
//! RuntimeClass, PodSecurity).

use crate::explanation::causes::{Case, NOT_IDENTIFIED, event_quote, scheduling};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::messages::phrases::{self, Part};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::PodEvent;

/// Explains a pod that does not exist because its controller could not create it.
pub(crate) fn not_created(case: &Case<'_>) -> Option<Explanation> {
    let controller = case.pod.not_created_by.as_ref()?;
    if let Some(of_job) = without_pods(case, controller) {
        return Some(of_job);
    }
    let event = case.events(&["FailedCreate"]).next()?;
    let message = &event.message;
    let name = &case.pod.name;
    // The message names the rejected pod. A controller uses a new name for each attempt.
    let named = |event: &PodEvent| event.message.contains(&format!("\"{name}\""));
    let itself = case.events(&["FailedCreate"]).any(named) || controller.split(' ').nth(1) == Some(name);
    let certainty = if itself { Certainty::Certain } else { Certainty::Likely };
    let what = |what: &str| format!("there is no such pod: {controller} could not create it: {what}");
    if let Some(quota) = Quota::of(message) {
        let (short, changes) = (quota.in_words(), quota.changes());
        return Some(
            case.explain(Cause::Cluster, certainty, what(&short))
                .with_evidence([event_quote(event)])
                .with_action(ActionCode::ChangeRequest, changes),
        );
    }
    let explanation = match phrases::known(Part::Controller, message) {
        Some(known) => case
            .explain(known.cause, certainty, what(&known.meaning(message)))
            .with_action(known.code, known.advice(case.node)),
        None => case
            .explain(Cause::Unknown, Certainty::Possible, what(&format!("the API server denied it; {NOT_IDENTIFIED}")))
            .with_action(ActionCode::Watch, "Resolve the error in the message."),
    };
    Some(explanation.with_evidence([event_quote(event)]))
}

/// Reasons why a job has no pods: a part of the reason of its event, the cause, the meaning, the action, and the
/// advice.
const OF_JOBS: [(&str, Cause, &str, ActionCode, &str); 8] = [
    (
        "Suspended",
        Cause::Cluster,
        "it is suspended (spec.suspend), so it has no pods",
        ActionCode::Watch,
        "A queue such as Kueue suspends a job until the queue admits the job. See the Workload of the job (kubectl \
         get workloads,localqueues -n {namespace}). If there is no queue, set spec.suspend to false to resume the \
         job.",
    ),
    (
        "BackoffLimitExceeded",
        Cause::Application,
        "its pods failed more often than its backoffLimit allows, and its pods are gone",
        ActionCode::FixApplication,
        "Find out why the pods failed (the log of a log collector; a pod that still exists: kubectl get pods -n {namespace}). Raise \
         backoffLimit only if the failures come from the nodes.",
    ),
    (
        "DeadlineExceeded",
        Cause::Application,
        "it ran longer than its activeDeadlineSeconds, so Kubernetes ended it and deleted its pods",
        ActionCode::ChangeRequest,
        "Raise activeDeadlineSeconds (the time counts from the start of the job, also while its pods are Pending), or \
         find out why the job took longer.",
    ),
    (
        "PodFailurePolicy",
        Cause::Application,
        "a rule of its podFailurePolicy ended it after the failure of a pod",
        ActionCode::FixApplication,
        "The message names the pod and the rule: find out why that pod failed.",
    ),
    (
        "MaxFailedIndexesExceeded",
        Cause::Application,
        "more of its indexes failed than maxFailedIndexes allows",
        ActionCode::FixApplication,
        "See the failed indexes in the status of the Job (kubectl get job -n {namespace} -o yaml), and the logs of the pods of these indexes.",
    ),
    (
        "FailedIndexes",
        Cause::Application,
        "some of its indexes failed",
        ActionCode::FixApplication,
        "See the failed indexes in the status of the Job (kubectl get job -n {namespace} -o yaml), and the logs of the pods of these indexes.",
    ),
    ("JobCompleted", Cause::None, "it completed, and its pods were deleted", ActionCode::None, "No action needed."),
    ("Completed", Cause::None, "it completed, and its pods were deleted", ActionCode::None, "No action needed."),
];

/// Where to find the reason if a queue does not admit a job.
const QUEUE: &str = "See the Workload of the job (kubectl describe workload -n {namespace}). The reason can be the \
     quota of the ClusterQueue, earlier workloads in the queue, or a stopped queue.";

/// Explains a job without pods from its newest event, or from the objects of its queue.
fn without_pods(case: &Case<'_>, controller: &str) -> Option<Explanation> {
    let event = case.pod.events.last().filter(|event| event.reason != "FailedCreate");
    let is_queued = !case.pod.related_warnings.is_empty();
    if is_queued && event.is_none_or(|event| event.reason.contains("Suspended")) {
        let what = format!("{controller} has no pods, because its queue has not admitted it");
        return Some(scheduling::held_back(case, what, QUEUE));
    }
    let event = event?;
    let (_, cause, meaning, code, advice) = OF_JOBS.iter().find(|(reason, ..)| event.reason.contains(reason))?;
    Some(
        case.explain(*cause, Certainty::Certain, format!("{controller}: {meaning}"))
            .with_evidence([event_quote(event)])
            .with_action(*code, advice.replace("{namespace}", &case.pod.namespace)),
    )
}

/// An exhausted ResourceQuota, as the API server reports it:
/// `exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=6, limited: …`.
struct Quota<'m> {
    name: &'m str,
    /// Resources that are exhausted: name, requested, used, limited.
    short: Vec<[&'m str; 4]>,
}

impl<'m> Quota<'m> {
    fn of(message: &'m str) -> Option<Self> {
        let (_, rest) = message.split_once("exceeded quota: ")?;
        let (name, rest) = rest.split_once(", requested: ")?;
        let (requested, rest) = rest.split_once(", used: ")?;
        let (used, limited) = rest.split_once(", limited: ")?;
        let amount = |list: &'m str, resource: &str| {
            list.split(',').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == resource)
        };
        let asked = requested.split(',').filter_map(|pair| pair.trim().split_once('='));
        let short = asked.filter_map(|(resource, requested)| {
            Some([resource, requested, amount(used, resource)?.1, amount(limited, resource)?.1])
        });
        let short: Vec<_> = short.collect();
        (!short.is_empty()).then_some(Self { name, short })
    }

    fn in_words(&self) -> String {
        let each = self.short.iter().map(|[resource, requested, used, limited]| {
            format!("the pod requests {requested} {resource}, and {used} of {limited} are in use")
        });
        format!("ResourceQuota {} is used up: {}", self.name, each.collect::<Vec<_>>().join("; "))
    }

    /// Returns the required changes, with numbers if the amounts are integers.
    fn changes(&self) -> String {
        let each = self.short.iter().map(|[resource, requested, used, limited]| {
            let numbers = [requested, used, limited].map(|text| text.parse::<u64>().ok());
            let [Some(requested), Some(used), Some(limited)] = numbers else {
                return format!("free {resource} in the namespace, request less, or raise the quota.");
            };
            let (left, lacking) = (limited.saturating_sub(used), (used + requested).saturating_sub(limited));
            let less = if left > 0 { format!("request at most {left}, ") } else { String::new() };
            format!("free {lacking} {resource} in the namespace, {less}or raise the quota to {}.", used + requested)
        });
        let text = each.collect::<Vec<_>>().join(" ");
        let first = text.chars().next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(text.chars().skip(1)).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_reason_that_a_job_has_no_pods_is_explained() {
        for reason in syringe_core::facts::kubernetes::pod::JOB_REASONS {
            assert!(super::OF_JOBS.iter().any(|(known, ..)| *known == reason), "{reason}");
        }
    }

    use super::Quota;

    #[test]
    fn an_exhausted_quota_is_explained_with_numbers() {
        let message = "Error creating: pods \"train-x7k2p\" is forbidden: exceeded quota: gpus, requested: \
            requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8";
        let quota = Quota::of(message).expect("a quota");
        let words = "ResourceQuota gpus is used up: the pod requests 4 requests.nvidia.com/gpu, and 6 of 8 are in use";
        assert_eq!(quota.in_words(), words);
        let changes = "Free 2 requests.nvidia.com/gpu in the namespace, request at most 2, or raise the quota to 10.";
        assert_eq!(quota.changes(), changes);
        let full = message.replace("used: requests.nvidia.com/gpu=6", "used: requests.nvidia.com/gpu=8");
        let changes = Quota::of(&full).expect("a quota").changes();
        assert_eq!(changes, "Free 4 requests.nvidia.com/gpu in the namespace, or raise the quota to 12.");
        assert!(Quota::of("exceeded quota: gpus").is_none());
    }

    #[test]
    fn amounts_with_units_are_quoted_as_they_are() {
        let message = "exceeded quota: mem, requested: limits.cpu=1,limits.memory=64Gi, used: limits.cpu=1500m,\
            limits.memory=500Gi, limited: limits.cpu=2,limits.memory=512Gi";
        let quota = Quota::of(message).expect("a quota");
        assert!(quota.in_words().contains("64Gi limits.memory, and 500Gi of 512Gi are in use"), "{}", quota.in_words());
        assert!(quota.changes().starts_with("Free limits.cpu in the namespace"), "{}", quota.changes());
    }
}
