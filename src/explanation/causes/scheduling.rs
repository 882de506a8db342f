//! Why a pod has no node yet: the scheduler's own reasons, told apart.

use super::Case;
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, Explanation};

/// What the scheduler says, what it means, and what helps. The first that fits is the one: what stands against every node
/// comes before what stands against some.
const REASONS: [(&str, &str, &str); 14] = [
    (
        "unbound immediate PersistentVolumeClaims",
        "a PersistentVolumeClaim of it is not bound",
        "See what the claim waits for (kubectl describe pvc).",
    ),
    (
        "resourceclaim",
        "a ResourceClaim of it is missing or cannot be allocated",
        "See what the claim asks for, and which devices are free (kubectl describe resourceclaim).",
    ),
    (
        "cannot allocate all claims",
        "its ResourceClaims cannot be allocated",
        "See what the claims ask for, and which devices are free.",
    ),
    ("Insufficient nvidia.com/", "too few GPUs are free", "Free GPUs (see who holds them below), or ask for fewer."),
    (
        "Insufficient memory",
        "too little memory is free",
        "Ask for less memory, or free some: see below what each node has.",
    ),
    ("Insufficient cpu", "too little CPU is free", "Ask for less CPU, or free some: see below what each node has."),
    (
        "Insufficient ",
        "too little of a resource is free",
        "See below which nodes offer that resource, or ask for less of it.",
    ),
    (
        "volume node affinity conflict",
        "its volume belongs to other nodes",
        "Use a volume of the zone or node that has GPUs.",
    ),
    (
        "untolerated taint",
        "it does not tolerate the taints of the nodes",
        "Add a toleration for the nodes that it may use, or remove the taint.",
    ),
    (
        "had taint",
        "it does not tolerate the taints of the nodes",
        "Add a toleration for the nodes that it may use, or remove the taint.",
    ),
    (
        "node affinity/selector",
        "no node has the labels that it selects",
        "Correct its nodeSelector or affinity, or label a node.",
    ),
    ("anti-affinity", "other pods keep it away", "Look at the affinity rules of the pod and of those that run."),
    ("topology spread", "its topology spread constraints allow no node", "Look at its topologySpreadConstraints."),
    ("unschedulable", "the nodes are cordoned", "Uncordon a node, once it is known why it was cordoned."),
];

pub(super) fn waiting_for_a_node(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase != "Pending" || case.pod.node.is_some() {
        return None;
    }
    let gates = &case.pod.scheduling_gates;
    if !gates.is_empty() {
        let what = format!("a scheduling gate holds it back: {}", gates.join(", "));
        return Some(case.explain(Cause::Cluster, Certainty::Certain, what).with_action(
            ActionCode::Watch,
            "Ask whoever set the gate (a queue such as Kueue, an operator): the scheduler does not look at the pod before \
             the gate is removed.",
        ));
    }
    let event = case.events(&["FailedScheduling"]).next().map(|event| event.message.clone());
    let Some(message) = case.pod.message.clone().or(event) else {
        return Some(
            case.explain(Cause::Cluster, Certainty::Possible, "no scheduler has said why it waits").with_action(
                ActionCode::Watch,
                "Check that the scheduler that the pod names (schedulerName) runs; a queue may hold the pod back.",
            ),
        );
    };
    let said = message.clone();
    if let Some(claim) = missing_claim(&message) {
        let what = format!("it waits for PersistentVolumeClaim {claim}, which does not exist");
        return Some(
            case.explain(Cause::Application, Certainty::Certain, what)
                .with_evidence([format!("scheduler: {said}")])
                .with_action(ActionCode::None, "Create the claim, or correct its name in the pod."),
        );
    }
    let reasons = clauses(&message);
    let fit: Vec<_> =
        REASONS.iter().filter(|(words, ..)| reasons.iter().any(|reason| reason.contains(words))).collect();
    let what = match fit.first() {
        // The scheduler's own counts say how many nodes lack what.
        Some((_, what, _)) => format!("no node can take it: {what} ({})", reasons.join("; ")),
        None => "no node can take it yet".to_owned(),
    };
    let action = fit
        .first()
        .map_or("The scheduler's message says why; see below what was found of each GPU node.", |(.., action)| action);
    Some(
        case.explain(Cause::Cluster, Certainty::Certain, what)
            .with_evidence([format!("scheduler: {said}")])
            .with_action(ActionCode::Watch, action),
    )
}

/// `persistentvolumeclaim "models" not found`
fn missing_claim(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("persistentvolumeclaim \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.trim_start().starts_with("not found").then(|| name.to_owned())
}

/// `0/4 nodes are available: 1 Insufficient memory, 3 node(s) had untolerated taint {a: b}. preemption: …` → its two reasons.
fn clauses(message: &str) -> Vec<String> {
    let reasons = message.split_once("nodes are available: ").map_or(message, |(_, rest)| rest);
    let end = [". preemption:", ". no new claims", ". Preemption"].iter().filter_map(|mark| reasons.find(mark)).min();
    let reasons = reasons[..end.unwrap_or(reasons.len())].trim_end_matches('.');
    let mut clauses: Vec<String> = Vec::new();
    for part in reasons.split(", ") {
        match clauses.last_mut() {
            // A taint's value may have a comma.
            Some(last) if !part.starts_with(|first: char| first.is_ascii_digit()) => *last = format!("{last}, {part}"),
            _ => clauses.push(part.to_owned()),
        }
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::{clauses, missing_claim};

    #[test]
    fn a_message_is_taken_apart_into_its_reasons() {
        let message = "0/4 nodes are available: 1 Insufficient memory, 3 node(s) had untolerated taint {a: b, c}. \
            preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.";
        assert_eq!(clauses(message), ["1 Insufficient memory", "3 node(s) had untolerated taint {a: b, c}"]);
        assert_eq!(clauses("0/1 nodes are available: 1 Insufficient cpu."), ["1 Insufficient cpu"]);
        assert_eq!(clauses("x"), ["x"]);
    }

    #[test]
    fn a_missing_claim_is_named() {
        let message = "0/4 nodes are available: persistentvolumeclaim \"models\" not found. preemption: …";
        assert_eq!(missing_claim(message).as_deref(), Some("models"));
        assert_eq!(missing_claim("persistentvolumeclaim \"models\" is being deleted"), None);
    }
}
