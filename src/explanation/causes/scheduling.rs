//! Why a pod has no node yet: the scheduler's own reasons, told apart.

use super::Case;
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, Explanation, Preemption, Room};

/// What the scheduler says, what it means, and what helps. The first that fits is the one: what stands against every node
/// comes before what stands against some.
const REASONS: [(&str, &str, &str); 26] = [
    (
        "unbound immediate PersistentVolumeClaims",
        "a PersistentVolumeClaim of it is not bound",
        "See what the claim waits for (kubectl describe pvc).",
    ),
    (
        "to create the resourceclaim",
        "a ResourceClaim of it is not created yet",
        "See whether its ResourceClaimTemplate exists (kubectl get resourceclaimtemplates).",
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
    (
        "pod group",
        "its pod group cannot be scheduled as a whole",
        "The group needs room for all of its pods at once: see the PodGroup's status, and below what each node has.",
    ),
    ("Insufficient nvidia.com/", "too few GPUs are free", "Free GPUs (see who holds them below), or ask for fewer."),
    (
        "Insufficient memory",
        "too little memory is free",
        "Request less memory than a node below has in total, or add a larger node. If a node is large enough, free memory there.",
    ),
    (
        "Insufficient cpu",
        "too little CPU is free",
        "Request less CPU than a node below has in total, or add a larger node. If a node is large enough, free CPU there.",
    ),
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
        "available persistent volumes to bind",
        "no PersistentVolume fits its claim on these nodes",
        "Provide a volume of the StorageClass where the GPUs are, or use a StorageClass that provisions one there.",
    ),
    (
        "exceed max volume count",
        "the nodes have attached as many volumes as they can",
        "Use fewer volumes, or other nodes.",
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
    (
        "existing pods anti-affinity",
        "the anti-affinity of pods that run keeps it away",
        "Look at the podAntiAffinity of the pods on the nodes below, or use other nodes.",
    ),
    ("anti-affinity", "its podAntiAffinity allows no node", "Relax its podAntiAffinity, or add a node."),
    (
        "pod affinity",
        "its podAffinity allows no node",
        "See whether the pods that it wants to be near run, and have room beside them.",
    ),
    (
        "topology spread constraints (missing required label)",
        "no node has the label that its topology spread constraints count by",
        "Give the nodes the label of topologyKey, or correct topologyKey in its topologySpreadConstraints.",
    ),
    (
        "topology spread constraints",
        "its topology spread constraints allow no node",
        "Raise maxSkew of its topologySpreadConstraints, use ScheduleAnyway, or make room in the domain with the fewest \
         pods.",
    ),
    ("topology spread", "its topology spread constraints allow no node", "Look at its topologySpreadConstraints."),
    ("free ports", "the host ports that it asks for are taken", "Use other host ports, or none."),
    ("Too many pods", "the nodes run as many pods as they may", "Use other nodes, or raise the kubelet's maxPods."),
    ("unschedulable", "the nodes are cordoned", "Uncordon a node, once it is known why it was cordoned."),
    (
        "no nodes available to schedule pods",
        "the cluster has no node that takes pods",
        "Add a node, or see why none is registered.",
    ),
    (
        "ExceedsGPUQuota",
        "the GPU quota of its namespace is used up",
        "Free GPUs in the namespace, or let its quota be raised.",
    ),
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
        if let Some(awaits) = claims_awaited(case) {
            return Some(awaits);
        }
        let (what, action) = match &case.pod.scheduler {
            Some(name) => (
                format!("its scheduler, {name}, has not said why it waits"),
                format!(
                    "Check that a scheduler of the name {name} runs (schedulerName); its queue may hold the pod back."
                ),
            ),
            None => (
                "no scheduler has said why it waits".to_owned(),
                "Check that the scheduler runs; a queue may hold the pod back.".to_owned(),
            ),
        };
        return Some(case.explain(Cause::Cluster, Certainty::Possible, what).with_action(ActionCode::Watch, action));
    };
    if let Some(claim) = missing_claim(&message) {
        let what = format!("it waits for PersistentVolumeClaim {claim}, which does not exist");
        return Some(
            case.explain(Cause::Application, Certainty::Certain, what)
                .with_evidence([format!("scheduler: {message}")])
                .with_action(ActionCode::None, "Create the claim, or correct its name in the pod."),
        );
    }
    if let Some(node) = &case.pod.preemption.nominated_node {
        let what = format!("pods of lower priority are being ended on {node} to make room for it");
        return Some(
            case.explain(Cause::Cluster, Certainty::Certain, what)
                .with_evidence([format!("scheduler: {message}")])
                .with_action(ActionCode::Watch, format!("Wait until they have ended on {node} (their grace period).")),
        );
    }
    Some(no_node_fits(case, &message))
}

/// The scheduler's reasons, what the nodes have, and what would have to change.
fn no_node_fits(case: &Case<'_>, message: &str) -> Explanation {
    let reasons = clauses(message);
    let fit = REASONS.iter().find(|(words, ..)| reasons.iter().any(|reason| reason.contains(words)));
    let room = case.pod.room.as_ref();
    let meaning = room.and_then(|room| room.problem.as_deref()).or(fit.map(|(_, what, _)| *what));
    let what = match meaning {
        // The scheduler's own counts say how many nodes lack what.
        Some(what) => format!("no node can take it: {what} ({})", reasons.join("; ")),
        None => "no node can take it yet".to_owned(),
    };
    let action = match room.filter(|room| !room.changes.is_empty()) {
        Some(Room { changes, needs_all: true, .. }) => format!("It cannot start before this: {}.", changes.join("; ")),
        Some(Room { changes, .. }) => format!("One of these would let it start: {}.", changes.join("; ")),
        None => fit
            .map_or("The scheduler's message says why; see below what was found of each GPU node.", |(.., action)| {
                action
            })
            .to_owned(),
    };
    case.explain(Cause::Cluster, Certainty::Certain, what)
        .with_evidence(room.map(|room| room.shortage.clone()))
        .with_evidence([format!("scheduler: {message}")])
        .with_evidence(no_preemption(&case.pod.preemption, message))
        .with_action(ActionCode::Watch, action)
}

/// A pod that the scheduler does not look at before its claims exist: of that it says nothing.
fn claims_awaited(case: &Case<'_>) -> Option<Explanation> {
    let names = &case.pod.claims_awaited;
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        let what = format!("the scheduler has not looked at it, as where a ResourceClaim does not exist: {names}");
        case.explain(Cause::Cluster, Certainty::Possible, what).with_action(
            ActionCode::Watch,
            format!(
                "See whether these exist (kubectl get resourceclaims,resourceclaimtemplates -n {}).",
                case.pod.namespace
            ),
        )
    })
}

/// Why the pod's priority makes no room for it, where the scheduler speaks of that.
fn no_preemption(preemption: &Preemption, message: &str) -> Option<String> {
    let priority = match (&preemption.class, preemption.priority) {
        (Some(class), Some(priority)) => format!("priority class {class}, {priority}"),
        (None, Some(priority)) => format!("priority {priority}"),
        (Some(class), None) => format!("priority class {class}"),
        (None, None) => return None,
    };
    if preemption.never {
        return Some(format!("its preemptionPolicy is Never: no pod is ended for it ({priority})"));
    }
    let tried = message.contains("No preemption victims found");
    tried.then(|| format!("ending pods of a lower priority would not make enough room for it ({priority})"))
}

/// `persistentvolumeclaim "models" not found`
fn missing_claim(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("persistentvolumeclaim \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.trim_start().starts_with("not found").then(|| name.to_owned())
}

/// What follows the reasons of the nodes in the scheduler's message.
const ENDS: [&str; 5] =
    [". preemption:", ". Preemption", ". no new claims to deallocate", ". still not schedulable", ". not found"];

/// `0/4 nodes are available: 1 Insufficient memory, 3 node(s) had untolerated taint {a: b}. preemption: …` → its two reasons.
fn clauses(message: &str) -> Vec<String> {
    let reasons = message.split_once("nodes are available: ").map_or(message, |(_, rest)| rest);
    let end = ENDS.iter().filter_map(|mark| reasons.find(mark)).min();
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
        let newer = "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 nodes are \
            available: 1 Preemption is not helpful for scheduling.";
        assert_eq!(clauses(newer), ["1 cannot allocate all claims"]);
        assert_eq!(clauses("x"), ["x"]);
    }

    #[test]
    fn a_missing_claim_is_named() {
        let message = "0/4 nodes are available: persistentvolumeclaim \"models\" not found. preemption: …";
        assert_eq!(missing_claim(message).as_deref(), Some("models"));
        assert_eq!(missing_claim("persistentvolumeclaim \"models\" is being deleted"), None);
    }
}
