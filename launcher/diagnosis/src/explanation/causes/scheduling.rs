//! `waiting_for_a_node`: explains pods that are not scheduled, by the messages of schedulers and autoscalers.
//! `held_back`: explains pods that a controller delays.

use crate::explanation::causes::{Case, NOT_IDENTIFIED, blockers, event_quote};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::messages::owners;
use crate::messages::phrases::{self, Part, Phrase};
use crate::messages::waiting::{self, Kind, Row};
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{CapacityShortage, Change, CheckBefore, PodEvent, Preemption};
use syringe_core::text::{clean, clean_keeping_end};

/// Event reasons with which the default scheduler, KAI Scheduler and YuniKorn report that no node fits.
const SCHEDULERS: [&str; 3] = ["FailedScheduling", "Unschedulable", "PodUnschedulable"];

/// Event reasons of the cluster autoscaler and Karpenter for a pod without a node.
const AUTOSCALER: [&str; 4] = ["NotTriggerScaleUp", "TriggeredScaleUp", "FailedScaleUp", "Nominated"];

/// The statement of an autoscaler about a new node for the pod.
struct NoNewNode {
    what: String,
    advice: &'static str,
    /// Whether a group of nodes accepts the selector and the tolerations of the pod.
    a_group_fits: bool,
    quote: String,
    time: Option<Timestamp>,
}

/// Returns why no new node is added for the pod: the most specific reason in the events of the autoscaler. The newest
/// event may only say that an earlier attempt failed.
fn no_new_node(case: &Case<'_>, of_scheduler: &str) -> Option<NoNewNode> {
    let speaks =
        |event: &&PodEvent| !event.is_ours() && event.message != of_scheduler && !event.message.starts_with("0/");
    let events: Vec<(&PodEvent, String)> =
        case.pod.events.iter().rev().filter(speaks).map(|event| (event, event.message.to_ascii_lowercase())).collect();
    let (row, event, at) = waiting::of_autoscalers()
        .find_map(|row| events.iter().find_map(|(event, message)| Some((row, *event, row.position_in(message)?))))?;
    let words = clean_keeping_end(clause_at(&event.message, at), MAX_WORDS);
    let is_failure = |message: &String| waiting::of_autoscalers().any(|row| row.position_in(message).is_some());
    let failures = || events.iter().filter(|(_, message)| is_failure(message)).map(|(event, _)| *event);
    // If attempts fail again and again, the newest attempt is no progress.
    let fails_again = failures().map(|event| u64::from(event.count)).sum::<u64>() >= MANY_FAILURES;
    let counted = case.pod.events.iter().filter(|_| fails_again);
    Some(NoNewNode {
        what: format!("{} (\"{words}\")", row.what),
        advice: row.advice,
        a_group_fits: row.kind != Kind::NoGroup,
        quote: event_quote(event),
        time: failures().chain(counted).filter_map(|event| event.time).max().or(event.time),
    })
}

/// Number of failed attempts of an autoscaler after which a further attempt is no progress.
const MANY_FAILURES: u64 = 3;

/// Returns the clause of a message that contains the byte at this position. A delimiter without a space after it, as in
/// JSON or a URL, does not end a clause.
fn clause_at(message: &str, at: usize) -> &str {
    let start = ["; ", ": "].iter().filter_map(|mark| Some(message[..at].rfind(mark)? + mark.len())).max();
    let end = message[at..].find("; ").map_or(message.len(), |end| at + end);
    message[start.unwrap_or(0)..end].trim()
}

/// The advice for a gate of an unknown controller.
const OTHER_GATE: &str = "Check why the controller that set the gate (a queue, an operator) has not removed it: the scheduler ignores the \
     pod until then.";

/// Maximum length of the message of an autoscaler.
const MAX_WORDS: usize = 200;

pub(crate) fn waiting_for_a_node(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase != "Pending" || case.pod.node.is_some() {
        return None;
    }
    let gates = &case.pod.scheduling_gates;
    if !gates.is_empty() {
        let what = format!("the pod has a scheduling gate: {}", gates.join(", "));
        if let Some(admitted) = admitted(case) {
            return Some(admitted);
        }
        let row = gates.iter().find_map(|gate| waiting::known(Kind::Gate, gate));
        let queue = case.pod.queue.as_ref().map(|queue| format!(" (LocalQueue {queue})")).unwrap_or_default();
        let what = row.iter().fold(what, |what, row| format!("{what}: {}{queue}", row.what));
        return Some(held_back(case, what, row.map_or(OTHER_GATE, |row| row.advice)));
    }
    let event = case.events(&SCHEDULERS).next().map(|event| event.message.clone());
    let Some(message) = case.pod.message.clone().or(event) else {
        if let Some(awaits) = pending_resource_claims(case) {
            return Some(awaits);
        }
        let reported = reported_beside(case, NO_MESSAGE);
        if !reported.is_empty() {
            return Some(only_warnings(case, &reported));
        }
        let (what, action) = match &case.pod.scheduler {
            Some(name) => (
                format!("its scheduler, {name}, has reported no reason"),
                format!(
                    "Check that a scheduler with the name {name} is running. If there is none, remove schedulerName from the pod, or install \
                     this scheduler. Otherwise the pod may be in its queue."
                ),
            ),
            None => (
                "no scheduler has reported a reason".to_owned(),
                "Check that the scheduler is running. The pod may be in a queue.".to_owned(),
            ),
        };
        return Some(case.explain(Cause::Cluster, Certainty::Possible, what).with_action(ActionCode::Watch, action));
    };
    if let Some(claim) = missing_claim(&message) {
        let what = format!("the pod waits for PersistentVolumeClaim {claim}, which does not exist");
        return Some(
            case.explain(Cause::Application, Certainty::Certain, what)
                .with_evidence([format!("scheduler: {message}")])
                .with_action(ActionCode::None, "Create the claim, or correct its name in the pod."),
        );
    }
    if let Some(node) = &case.pod.preemption.nominated_node {
        let what = format!("pods of lower priority are being preempted on {node} for this pod");
        return Some(
            case.explain(Cause::Cluster, Certainty::Certain, what)
                .with_evidence([format!("scheduler: {message}")])
                .with_action(
                    ActionCode::Watch,
                    format!("Wait until the preempted pods on {node} have terminated (at most their grace period)."),
                ),
        );
    }
    Some(no_node_fits(case, &message))
}

/// Explains a pod whose gate remains although an event reports that its queue has admitted it or has reserved quota.
fn admitted(case: &Case<'_>) -> Option<Explanation> {
    let of_queue = ["Admitted", "QuotaReserved", "Pending", "Evicted", "Preempted", "Suspended"];
    let event =
        case.events(&of_queue).next().filter(|event| ["Admitted", "QuotaReserved"].contains(&event.reason.as_str()))?;
    let gates = case.pod.scheduling_gates.join(", ");
    let (what, advice) = if event.reason == "Admitted" {
        (
            "the queue has admitted the pod, but the gate remains",
            "Read the log of the controller that set the gate (for Kueue: kueue-controller-manager): its update of the pod may be denied.",
        )
    } else {
        (
            "the queue has reserved quota, and waits for its admission checks",
            "See the admission checks in the Workload of the pod (kubectl describe workload -n {namespace}), such as a ProvisioningRequest.",
        )
    };
    let what = format!("the pod has a scheduling gate ({gates}): {what}");
    let advice = advice.replace("{namespace}", &case.pod.namespace);
    let quote = event_quote(event);
    Some(
        case.explain(Cause::Cluster, Certainty::Likely, what)
            .with_evidence([quote])
            .with_action(ActionCode::Watch, advice),
    )
}

/// Explains a pod without a node by the warnings of schedulers and other components whose reasons are not known.
fn only_warnings(case: &Case<'_>, reported: &[&PodEvent]) -> Explanation {
    let quotes = quotes_of(reported).join("; ");
    let known = reported.iter().find_map(|event| {
        let parts = [Part::Scheduler, Part::Controller, Part::Admission];
        parts.into_iter().find_map(|part| Some((phrases::known(part, &event.message)?, event)))
    });
    match known {
        Some((known, event)) => {
            let what = format!("the pod has no node: {}; {quotes}", known.meaning(&event.message));
            let advice = known.advice_for(&event.message, "its node").replace("{namespace}", &case.pod.namespace);
            case.explain(known.cause, Certainty::Likely, what).with_action(known.code, advice)
        }
        None => {
            let object = reported.iter().find_map(|event| object_of(case, event)).unwrap_or("the message");
            let what = format!("the pod has no node; {NOT_IDENTIFIED}; {quotes}");
            let advice = format!("Resolve what {object} reports; see also the log of the component that reports it.");
            case.explain(Cause::Unknown, Certainty::Possible, what).with_action(ActionCode::Watch, advice)
        }
    }
}

/// Explains a pod or job that a controller does not start. `what`: the controller. `advice`: where to find the reason
/// if no message contains it.
pub(super) fn held_back(case: &Case<'_>, what: String, advice: &str) -> Explanation {
    let mut reported = reported_beside(case, NO_MESSAGE);
    if reported.is_empty() {
        // A queue reports its reason in an event of the type Normal.
        reported
            .extend(case.events(&["Pending", "Inadmissible", "Evicted", "EvictedDueToPreempted", "Preempted"]).next());
    }
    let known = reported.iter().find_map(|event| Some((phrases::known(Part::Scheduler, &event.message)?, event)));
    let quotes = quotes_of(&reported);
    let what = match (known, quotes.is_empty()) {
        (Some((known, event)), _) => format!("{what}: {}; {}", known.meaning(&event.message), quotes.join("; ")),
        (None, false) => format!("{what}; {}", quotes.join("; ")),
        (None, true) => format!("{what}; no message gives the reason"),
    };
    let certainty = if quotes.is_empty() { Certainty::Likely } else { Certainty::Certain };
    let advice = known.map_or(advice, |(known, _)| known.action).replace("{namespace}", &case.pod.namespace);
    case.explain(Cause::Cluster, certainty, what).with_action(ActionCode::Watch, advice)
}

fn listed(changes: &[Change], separator: &str) -> String {
    changes.iter().map(|change| change.text.as_str()).collect::<Vec<_>>().join(separator)
}

/// Explains a pod that fits on no node: the scheduler's reasons, the resources of the nodes, and the required changes.
fn no_node_fits(case: &Case<'_>, message: &str) -> Explanation {
    let reasons = clauses(&without_counts_of_tasks(message));
    let share = of_another_scheduler(case, message);
    let room = case.pod.capacity_shortage.as_ref().filter(|_| share.is_none()).map(without_tolerations);
    let room = room.as_ref();
    let with_room = room.and_then(|room| room.has_room.as_deref());
    // If a node has room, no reason that was checked for each node excludes this node.
    let other: Vec<&str> =
        reasons.iter().map(String::as_str).filter(|reason| with_room.is_none() || !is_checked(reason)).collect();
    // If another reason excludes each GPU node, or each has enough GPUs, a lack of GPUs is about nodes without GPUs.
    let all_excluded = room.is_some_and(|room| room.all_excluded || room.has_enough_gpus);
    let lacks_gpus = |reason: &&str| reason.contains("Insufficient nvidia.com/");
    // A pod is not meant for the nodes of the control plane.
    let is_other_node = |reason: &&str| CONTROL_PLANE.iter().any(|taint| reason.contains(taint));
    let only_control_plane = other.iter().all(is_other_node);
    let other: Vec<&str> = other.into_iter().filter(|reason| only_control_plane || !is_other_node(reason)).collect();
    let only_lack = other.iter().all(lacks_gpus);
    let other: Vec<&str> =
        other.into_iter().filter(|reason| only_lack || !all_excluded || !lacks_gpus(reason)).collect();
    let fit = phrases::known(Part::Scheduler, &if other.is_empty() { reasons.join("\n") } else { other.join("\n") });
    let never = room.is_some_and(|room| room.never_fits);
    let too_large = group_too_large(case, message);
    let never = never || too_large.is_some();
    let group = too_large.clone().or_else(|| missing_of_group(message));
    let is_of_shares = share.is_some();
    let problem = room.and_then(|room| room.problem.as_deref());
    // If the scheduler reports only lacks of resources for the nodes that the pod can use, the numbers are the reason.
    let too_few = room.and_then(|room| room.too_few.clone());
    let too_few = too_few.filter(|_| other.iter().all(|reason| reason.contains("Insufficient ")));
    let of_message = fit.map(|fit| match with_room {
        Some(node) if !other.is_empty() => {
            format!("{node} has enough free resources for the pod, but another reason excludes it: {}", fit.what)
        }
        Some(_) => fit.what.to_owned(),
        None => too_few.clone().unwrap_or_else(|| in_words(fit, &other)),
    });
    let excluded = room.and_then(|room| room.excluded.as_deref()).filter(|_| !never);
    // The node with room was checked for each of these reasons. The scheduler's counts also include nodes without GPUs.
    let is_compared = excluded.is_some() && reasons.iter().all(|reason| is_checked(reason));
    let meaning = share.or_else(|| problem.map(str::to_owned)).or(group);
    let meaning = meaning.or(of_message.filter(|_| !is_compared));
    let meaning = match (meaning, excluded) {
        (Some(meaning), Some(excluded)) => Some(format!("{meaning}; {excluded}")),
        (meaning, excluded) => meaning.or(excluded.filter(|_| is_compared).map(str::to_owned)),
    };
    let blockers = blockers::of(case, message);
    let told = blockers.iter().map(|one| one.what.as_str()).collect::<Vec<_>>().join("; ");
    let meaning = match meaning {
        // GPUs of a pod that does not end are the reason why too few are free.
        Some(meaning) if blockers.iter().any(|one| one.is_reason) => Some(format!("{told}; {meaning}")),
        Some(meaning) if !told.is_empty() => Some(format!("{meaning}; {told}")),
        None if !told.is_empty() => Some(told.clone()),
        meaning => meaning,
    };
    let stage = waiting::known(Kind::Stage, message);
    // Of the statements of the autoscaler, the newer one counts.
    let failed = no_new_node(case, message);
    let failed_at = failed.as_ref().and_then(|machine| machine.time);
    let is_newer = |event: &PodEvent| event.time.zip(failed_at).is_none_or(|(added, failed)| added > failed);
    let scaling = scaling_up(case).filter(|event| is_newer(event));
    let machine = failed.filter(|_| scaling.is_none());
    let is_confirmed = message.starts_with("0/") || problem.is_some() || is_compared;
    let (cause, certainty, what) = match meaning {
        Some(_) if never => {
            let what = too_large.as_deref().or_else(|| room?.problem.as_deref()).unwrap_or("no node is large enough");
            let told = if told.is_empty() { String::new() } else { format!("; {told}") };
            (
                Cause::Cluster,
                Certainty::Certain,
                format!("the pod fits on no node, even if all other pods end: {what}{told} ({})", reasons.join("; ")),
            )
        }
        Some(_) if other.is_empty() && with_room.is_some() => (
            Cause::Cluster,
            Certainty::Likely,
            format!(
                "the scheduler found no node, but {} now has enough free resources for the pod ({})",
                with_room.unwrap_or_default(),
                reasons.join("; ")
            ),
        ),
        // The scheduler's counts show how many nodes have each problem. A reason without a count is a message of
        // another component, which is certain only if the resources of the nodes confirm it.
        Some(what) => (
            Cause::Cluster,
            if reasons.iter().all(|reason| is_checked(reason)) || is_confirmed {
                Certainty::Certain
            } else {
                Certainty::Likely
            },
            format!("the pod waits, because no node fits: {what} ({})", reasons.join("; ")),
        ),
        None => match stage {
            Some(stage) => {
                (Cause::Cluster, Certainty::Likely, format!("the pod waits: {} ({})", stage.what, reasons.join("; ")))
            }
            None => (
                Cause::Unknown,
                Certainty::Possible,
                format!("the scheduler finds no node for the pod; {NOT_IDENTIFIED} ({})", reasons.join("; ")),
            ),
        },
    };
    let action = match room.filter(|room| !room.changes.is_empty()) {
        _ if is_of_shares => {
            "Check the admission webhook of that software and its namespaceSelector, and the schedulerName of the pod. Then recreate the pod."
                .to_owned()
        }
        _ if too_large.is_some() => {
            "Add GPU nodes for the whole group, or reduce the number of its pods (minAvailable, minMember) or their requests.".to_owned()
        }
        Some(CapacityShortage { changes, .. }) if changes.len() == 1 => format!("To start the pod, {}.", changes[0]),
        Some(CapacityShortage { changes, needs_all: true, .. }) => {
            format!("To start the pod, do all of these: {}.", listed(changes, "; "))
        }
        Some(CapacityShortage { changes, .. }) => {
            format!("To start the pod, do one of these: {}.", listed(changes, "; "))
        }
        None if other.is_empty() && with_room.is_some() => {
            let node = with_room.unwrap_or_default();
            format!("{node} has enough free now. If the pod still waits after a minute, read its newest events.")
        }
        None => match (fit, owners::about([message]).first()) {
            (Some(fit), _) => remedies(case, fit, &other),
            (None, Some(owner)) => {
                let node = case.pod.node.as_deref().unwrap_or("the node");
                owner.replace("{node}", node)
            }
            (None, None) => {
                stage.map_or("The scheduler's message gives the reason.", |stage| stage.advice).to_owned()
            }
        },
    };
    let action = blockers.iter().rev().fold(action, |action, one| format!("{} {action}", one.advice));
    let protects =
        reasons.iter().filter_map(|reason| taint_of(reason)).find_map(|taint| Some((taint, state_of(taint)?)));
    let of_taint = fit.is_some_and(|fit| fit.what.contains("taint"));
    let action = match protects {
        // All taints report that their nodes cannot take pods now.
        Some((taint, Row { advice, .. }))
            if of_taint && room.is_none_or(|room| room.changes.is_empty()) && excluded_by_taint(&reasons).is_none() =>
        {
            format!("{advice} Do not add a toleration for {taint}.")
        }
        Some((taint, Row { advice, .. })) => {
            format!("{action} {advice} The taint {taint} keeps pods off such nodes: do not tolerate it.")
        }
        None => action,
    };
    let what =
        protects.map_or(what.clone(), |(taint, row)| format!("{what}; the taint {taint} shows that {}", row.what));
    let has_remedies = room.is_none_or(|room| room.changes.is_empty()) && distinct(&other).len() > 1;
    let tainted =
        excluded_by_taint(&reasons).filter(|_| fit.is_some_and(|fit| !fit.what.contains("taint")) && !has_remedies);
    let action = match tainted {
        Some(_) if is_compared => {
            format!("{action} Ask the person who set the taint before you add a toleration for this taint.")
        }
        Some(taint) if !is_of_shares => format!(
            "{action} If the nodes with the taint {taint} are the nodes with the GPUs, the pod needs a toleration for this taint."
        ),
        _ => action,
    };
    // The messages of the pods that would provide the resource.
    let told = room.map(|room| listed(&room.changes, "\n")).filter(|_| room.is_some_and(|room| !room.never_fits));
    let known = |text: &String| {
        let parts = [Part::Volume, Part::Image, Part::Config, Part::Start];
        parts.into_iter().find_map(|part| phrases::known(part, text)).map(|phrase| phrase.meaning(text))
    };
    let what = told
        .as_ref()
        .and_then(known)
        .iter()
        .fold(what, |what, why| format!("{what}; the pods that provide it do not start: {why}"));
    let reported = if machine.is_none() { reported_beside(case, message) } else { Vec::new() };
    // GPUs that a device plugin reports as unhealthy are neither used nor free.
    let unhealthy = room.and_then(|room| room.unhealthy.as_deref());
    let what = unhealthy.iter().fold(what, |what, unhealthy| format!("{what}; {unhealthy}"));
    let action = match unhealthy {
        // A finding about the node follows a colon.
        Some(unhealthy) if !unhealthy.contains(": ") => {
            format!("{action} Diagnose the node whose GPUs are not allocatable.")
        }
        _ => action,
    };
    let what = quotes_of(&reported).into_iter().fold(what, |what, reported| format!("{what}; {reported}"));
    // The message of a queue or quota is more specific than the scheduler's message about the whole pod.
    let told = reported.iter().find_map(|event| Some((phrases::known(Part::Scheduler, &event.message)?, event)));
    let (what, action) = match told.filter(|(told, _)| fit.is_none_or(|fit| fit.what != told.what)) {
        Some((told, event)) => (
            format!("{what}: {}", told.meaning(&event.message)),
            told.action.replace("{namespace}", &case.pod.namespace),
        ),
        None => match reported.iter().find_map(|event| object_of(case, event)) {
            Some(object) => (what, format!("First resolve what {object} reports. {action}")),
            None => (what, action),
        },
    };
    // An empty group has no node that can match the selector, so the selector need not be wrong.
    let is_of_selector = fit.is_some_and(|fit| fit.action.contains("nodeSelector"));
    let has_changes = room.is_some_and(|room| !room.changes.is_empty());
    let group = machine.as_ref().filter(|machine| machine.a_group_fits && is_of_selector && !has_changes);
    let replaced = group.map(|machine| machine.advice);
    let (what, action) = match &machine {
        Some(machine) => (
            format!("{what}; no new node is added for the pod: {}", machine.what),
            match replaced {
                Some(advice) => advice.to_owned(),
                // The pod needs a new node.
                None if never || room.is_some_and(|room| room.all_excluded) => {
                    format!("For a new node: {} Otherwise: {action}", machine.advice)
                }
                None => format!("{action} For a new node: {}", machine.advice),
            },
        ),
        None => (what, action),
    };
    let (what, action) = match scaling {
        Some(event) => (
            format!("{what}; an autoscaler is adding a node ({})", clean(&event.message, MAX_WORDS)),
            format!(
                "Wait some minutes for the new node. If the pod then still waits: {}",
                phrases::lowercased(&action)
            ),
        ),
        None => (what, action),
    };
    let autoscaler = case.events(&AUTOSCALER).next().map(event_quote);
    let autoscaler = autoscaler.filter(|quote| machine.as_ref().is_none_or(|machine| machine.quote != *quote));
    let code = match fit.filter(|_| replaced.is_none()) {
        _ if never => ActionCode::ChangeRequest,
        Some(fit) => fit.code,
        None => ActionCode::Watch,
    };
    case.explain(cause, certainty, what)
        .with_evidence(room.map(|room| room.shortage.clone()))
        .with_evidence(room.and_then(|room| room.fits_now.clone()))
        .with_evidence([format!("scheduler: {message}")])
        .with_evidence(machine.map(|machine| machine.quote))
        .with_evidence(autoscaler)
        .with_evidence(no_preemption(&case.pod.preemption, message))
        .with_action(code, action)
}

/// Taints of the nodes of the control plane.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Replaces tolerations of taints that keep pods off nodes which cannot take pods now, and adds a condition to tolerations
/// of taints that reserve nodes: taints without the word GPU.
fn without_tolerations(room: &CapacityShortage) -> CapacityShortage {
    let mut room = room.clone();
    for change in &mut room.changes {
        if let Some(CheckBefore::Tolerate { node, taint }) = &change.check {
            let toleration = format!("tolerate the taint {taint} of {node}");
            let instead = match state_of(taint) {
                Some(_) => format!("wait for {node} (until its taint {taint} is removed)"),
                None if taint.to_ascii_lowercase().contains("gpu") => continue,
                None => format!("{toleration}, if its owner permits the pod on these nodes"),
            };
            change.text = change.text.replace(&toleration, &instead);
        }
    }
    room
}

/// A new node with GPUs joins within this time.
const NEW_NODE: SignedDuration = SignedDuration::from_mins(20);

/// Returns the newest event of the autoscaler, if it reports that a node is being added for the pod.
fn scaling_up<'c>(case: &'c Case<'_>) -> Option<&'c PodEvent> {
    let event = case.events(&AUTOSCALER).next()?;
    let newest = case.pod.events.iter().filter_map(|event| event.time).max();
    let is_recent = newest.zip(event.time).is_none_or(|(newest, time)| newest.duration_since(time) < NEW_NODE);
    (["TriggeredScaleUp", "Nominated"].contains(&event.reason.as_str()) && is_recent).then_some(event)
}

/// Returns the taint in a reason of the scheduler: `{dedicated: llm}`.
fn taint_of(reason: &str) -> Option<&str> {
    let starts = ["untolerated taint ", "untolerated taint(s) ", "had taint "];
    let taint =
        starts.iter().find_map(|start| Some(reason.split_once(start)?.1)).filter(|taint| taint.starts_with('{'))?;
    Some(&taint[..taint.find('}').map_or(taint.len(), |end| end + 1)])
}

/// Returns the taint that excludes nodes, unless it is a taint of Kubernetes itself or reports that a node cannot take
/// pods now.
fn excluded_by_taint(reasons: &[String]) -> Option<&str> {
    let mut taints = reasons.iter().filter_map(|reason| taint_of(reason));
    taints.find(|taint| !taint.contains("kubernetes.io/") && state_of(taint).is_none())
}

/// Returns the row about the state that the key of a taint names.
fn state_of(taint: &str) -> Option<&'static Row> {
    waiting::known(Kind::Taint, taint.trim_start_matches('{').split([':', '=', '}']).next()?)
}

/// Phrases, in lower case, of the reasons that are checked for each node (`scheduler_filters`).
const CHECKED: [&str; 5] = ["insufficient ", "taint", "node affinity/selector", "unschedulable", "were not ready"];

/// Returns whether a reason of the scheduler is checked for each node.
fn is_checked(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    CHECKED.iter().any(|words| reason.contains(words))
}

/// Returns the meaning of the scheduler's reasons. If there are several reasons, each excludes some of the nodes.
fn in_words(first: &'static Phrase, reasons: &[&str]) -> String {
    let mut meanings = vec![first.what];
    for phrase in reasons.iter().filter_map(|reason| phrases::known(Part::Scheduler, reason)) {
        if !meanings.contains(&phrase.what) {
            meanings.push(phrase.what);
        }
    }
    // A message about a pod group is about its pods, not about some of the nodes. A node can lack several resources.
    let only_lacks = reasons.iter().all(|reason| reason.contains("Insufficient "));
    meanings.join(match first.what.contains("pod group") {
        true => ": ",
        false if only_lacks => "; or: ",
        false => "; for other nodes: ",
    })
}

/// Returns the phrases that match the reasons, each phrase once, with the first reason that matches it.
fn distinct<'r>(reasons: &[&'r str]) -> Vec<(&'static Phrase, &'r str)> {
    let mut found: Vec<(&'static Phrase, &str)> = Vec::new();
    for reason in reasons {
        if let Some(phrase) = phrases::known(Part::Scheduler, reason)
            && !found.iter().any(|(known, _)| known.what == phrase.what)
        {
            found.push((phrase, reason));
        }
    }
    found
}

/// Returns the remedy for each reason. If several reasons exclude different nodes, each remedy is given with its nodes.
fn remedies(case: &Case<'_>, first: &Phrase, reasons: &[&str]) -> String {
    let of_gpus = reasons.iter().any(|reason| reason.contains("Insufficient nvidia.com/")) || case.pod.wants_gpus;
    let advice = |phrase: &Phrase, reason: &str| match taint_of(reason) {
        Some(taint) if state_of(taint).is_some() => "these nodes cannot take pods now".to_owned(),
        Some(taint) if taint.contains("kubernetes.io/") => phrases::lowercased(phrase.action),
        Some(taint) if of_gpus => {
            format!("if the nodes with the taint {taint} are the nodes with the GPUs, add a toleration for this taint")
        }
        Some(taint) if taint.to_ascii_lowercase().contains("gpu") => {
            format!(
                "if the pod needs a GPU, request it (nvidia.com/gpu: 1): the taint {taint} keeps pods that request no GPU off these nodes; do not \
                 tolerate it without a request"
            )
        }
        Some(taint) => {
            format!("if the pod is meant for the nodes with the taint {taint}, add a toleration for this taint")
        }
        None => phrases::lowercased(&phrase.action.replace("{namespace}", &case.pod.namespace)),
    };
    let all = distinct(reasons);
    // A message about a group or a queue is about the pod as a whole.
    if all.len() < 2 || reasons.iter().any(|reason| !reason.starts_with(|first: char| first.is_ascii_digit())) {
        return first.action.replace("{namespace}", &case.pod.namespace);
    }
    let each = all.iter().map(|(phrase, reason)| {
        let advice = advice(phrase, reason);
        format!("For \"{}\": {}.", clean(reason, MAX_WORDS), advice.trim_end_matches('.'))
    });
    format!("One of these is enough. {}", each.collect::<Vec<_>>().join(" "))
}

/// Parts of the names of resources that only the scheduler of GPU-sharing software counts, and a part of that
/// scheduler's name.
const SHARES: [(&str, &str, &str); 4] = [
    ("nvidia.com/gpumem", "hami", "HAMi"),
    ("nvidia.com/gpucores", "hami", "HAMi"),
    ("aliyun.com/gpu-", "gpushare", "gpushare"),
    ("volcano.sh/vgpu", "volcano", "Volcano"),
];

/// Returns a text if a scheduler checks a resource that only another scheduler counts.
fn of_another_scheduler(case: &Case<'_>, message: &str) -> Option<String> {
    let scheduler = case.pod.scheduler.as_deref().unwrap_or("default-scheduler");
    let insufficient = |resource: &str| message.contains(&format!("Insufficient {resource}"));
    let (resource, _, software) =
        SHARES.iter().find(|(resource, part, _)| insufficient(resource) && !scheduler.contains(part))?;
    Some(format!(
        "no node offers {resource}*: only the scheduler or extender of {software} counts this resource, but the \
         scheduler of the pod is {scheduler}. Either the admission webhook of {software}, which sets schedulerName, \
         did not change the pod, or the scheduler is not configured to call the extender"
    ))
}

/// Maximum number of warnings of other components in a summary.
const MAX_REPORTED: usize = 2;

/// Returns the warnings about the pod from components other than its scheduler (an autoscaler, a machine, a queue, its
/// group), newest first, each reason once. A warning that only repeats the scheduler's message is used only if there is
/// no other warning.
fn reported_beside<'c>(case: &'c Case<'_>, of_scheduler: &str) -> Vec<&'c PodEvent> {
    let pod = case.pod;
    let speaks = |event: &&PodEvent| {
        event.warning
            && !event.is_ours()
            && !SCHEDULERS.contains(&event.reason.as_str())
            && event.message != of_scheduler
            && !event.message.starts_with("0/")
    };
    let of_queue = |event: &&PodEvent| event.warning && !event.is_ours() && event.message != of_scheduler;
    let related: Vec<&PodEvent> = pod.related_warnings.iter().rev().filter(of_queue).collect();
    let all = if related.is_empty() { pod.events.iter().rev().filter(speaks).collect() } else { related };
    let first = of_scheduler.split(',').next().unwrap_or(of_scheduler);
    let mut told: Vec<&PodEvent> = Vec::new();
    for event in all.iter().filter(|event| !event.message.contains(first)) {
        if !told.iter().any(|known| known.reason == event.reason) {
            told.push(event);
        }
    }
    if told.is_empty() {
        told.extend(all.first());
    }
    told.truncate(MAX_REPORTED);
    told
}

/// The text for a scheduler that has not reported a message.
const NO_MESSAGE: &str = "no message";

/// Quotes warnings of other components for a summary.
fn quotes_of(reported: &[&PodEvent]) -> Vec<String> {
    let quote = |event: &&PodEvent| {
        format!("{} is reported: \"{}\"", event.reason, clean_keeping_end(&event.message, MAX_WORDS))
    };
    reported.iter().map(quote).collect()
}

/// Returns the kind and name of the other object that an event is about.
fn object_of<'c>(case: &Case<'_>, event: &'c PodEvent) -> Option<&'c str> {
    let object = event.message.split_once(": ")?.0;
    (case.pod.related_warnings.contains(event) && object.split(' ').count() == 2).then_some(object)
}

/// Explains a pod whose claims do not exist. The scheduler ignores such a pod and reports no reason.
fn pending_resource_claims(case: &Case<'_>) -> Option<Explanation> {
    let names = &case.pod.pending_resource_claims;
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        let what =
            format!("the scheduler has not processed the pod; one possible reason is a missing ResourceClaim: {names}");
        case.explain(Cause::Cluster, Certainty::Possible, what).with_action(
            ActionCode::Watch,
            format!(
                "Check that these objects exist (kubectl get resourceclaims,resourceclaimtemplates -n {}).",
                case.pod.namespace
            ),
        )
    })
}

/// Returns why the pod does not preempt other pods, if the scheduler reports the reason.
fn no_preemption(preemption: &Preemption, message: &str) -> Option<String> {
    let priority = match (&preemption.class, preemption.priority) {
        (Some(class), Some(priority)) => format!("priority class {class}, {priority}"),
        (None, Some(priority)) => format!("priority {priority}"),
        (Some(class), None) => format!("priority class {class}"),
        (None, None) => return None,
    };
    if preemption.never {
        return Some(format!("its preemptionPolicy is Never: the pod preempts no other pod ({priority})"));
    }
    let tried = message.contains("No preemption victims found");
    tried.then(|| {
        format!("preemption of pods with a lower priority would not free enough resources for this pod ({priority})")
    })
}

/// The number of pods that exist of a group, and the number that it needs at the same time.
struct Group {
    known: u64,
    needed: u64,
}

/// Returns the numbers in a message of Volcano (`pod group is not ready, 1 Pending, 2 minAvailable`) or of the
/// coscheduling plugin (`current pods number: 1, minMember of group: 4`).
fn group_in(message: &str) -> Option<Group> {
    let number = |words: &str| {
        let rest = message.split_once(words)?.1.trim_start();
        rest[..rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len())].parse::<u64>().ok()
    };
    if let Some((known, needed)) = number("current pods number: ").zip(number("minMember of group: ")) {
        return Some(Group { known, needed });
    }
    let (_, counts) = message.split_once("pod group is not ready")?;
    let mut known = 0;
    let mut needed = None;
    for part in counts.split([',', ';', '.']) {
        let mut words = part.split_whitespace();
        let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
        match words.next()? {
            "minAvailable" => needed = Some(count),
            _ => known += count,
        }
    }
    Some(Group { known, needed: needed? })
}

/// Returns the reason if the group of the pod needs more GPUs at the same time than the cluster has.
fn group_too_large(case: &Case<'_>, message: &str) -> Option<String> {
    let each = case.pod.gpus_requested;
    let (group, all) = group_in(message).zip(case.pod.capacity_shortage.as_ref()?.gpus_of_cluster)?;
    let wanted = group.needed * each;
    (wanted > all).then(|| {
        format!(
            "its pod group needs {} pods with {each} GPUs each at the same time ({wanted} GPUs), and all GPU nodes together have {all}",
            group.needed
        )
    })
}

/// Returns the reason if fewer pods of a group exist than it needs.
fn missing_of_group(message: &str) -> Option<String> {
    let Group { known, needed } = group_in(message).filter(|group| group.known > 0 && group.known < group.needed)?;
    Some(format!(
        "its pod group needs {needed} pods at the same time, and only {known} of {needed} exist: the controller of the \
            job has not created the other pods (some controllers wait until the first pod is running), or their creation \
            failed"
    ))
}

/// Returns the name of a missing claim: `persistentvolumeclaim "models" not found`.
fn missing_claim(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("persistentvolumeclaim \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.trim_start().starts_with("not found").then(|| name.to_owned())
}

/// Texts that follow the reasons in a message of the scheduler.
const ENDS: [&str; 5] =
    [". preemption:", ". Preemption", ". no new claims to deallocate", ". still not schedulable", ". not found"];

/// Returns a message of Volcano without its counts of tasks. For example, `Pending: 1 Schedulable, 3 Unschedulable`
/// counts the pods of the group that fit on a node, and contains no reason.
fn without_counts_of_tasks(message: &str) -> String {
    const STATES: [&str; 3] = ["Schedulable", "Unschedulable", "Undetermined"];
    let is_count = |part: &str| {
        let mut words = part.trim_end_matches('.').rsplit(' ');
        words.next().is_some_and(|state| STATES.contains(&state))
            && words.next().is_some_and(|count| count.parse::<u32>().is_ok())
            && words.all(|word| word.is_empty() || word.ends_with(':'))
    };
    let message = match message.split_once(" tasks in gang unschedulable: ") {
        Some((counts, rest)) if counts.split('/').all(|count| count.parse::<u32>().is_ok()) => rest,
        _ => message,
    };
    // The sentence after the counts contains the reason.
    let sentences = message.split("; ").map(|part| match part.split_once(". ") {
        Some((counts, rest)) if counts.split(", ").all(is_count) => rest,
        None if part.split(", ").all(is_count) => "",
        _ => part,
    });
    sentences.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Splits a scheduler message into its reasons: `0/4 nodes are available: 1 Insufficient memory, 3 node(s) had …`.
fn clauses(message: &str) -> Vec<String> {
    let reasons = message.split_once("nodes are available: ").map_or(message, |(_, rest)| rest);
    let end = ENDS.iter().filter_map(|mark| reasons.find(mark)).min();
    let reasons = reasons[..end.unwrap_or(reasons.len())].trim_end_matches('.');
    let mut clauses: Vec<String> = Vec::new();
    for part in reasons.split(", ") {
        match clauses.last_mut() {
            // The value of a taint may contain a comma.
            Some(last) if !part.starts_with(|first: char| first.is_ascii_digit()) => *last = format!("{last}, {part}"),
            _ => clauses.push(part.to_owned()),
        }
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::{clauses, excluded_by_taint, missing_claim, missing_of_group, state_of, without_counts_of_tasks};

    #[test]
    fn counts_of_tasks_are_no_reasons_of_nodes() {
        for (message, reasons) in [
            (
                "1/1 tasks in gang unschedulable: pod group is not ready, 1 Pending, 1 minAvailable; Pending: 1 Unschedulable",
                "pod group is not ready, 1 Pending, 1 minAvailable",
            ),
            (
                "3/4 tasks in gang unschedulable: pod group is not ready, 4 Pending, 4 minAvailable; Pending: 1 Schedulable, 3 \
                 Unschedulable. Origin reason is ml-p0: 0/2 nodes are unavailable: 2 Insufficient nvidia.com/gpu.",
                "pod group is not ready, 4 Pending, 4 minAvailable; Origin reason is ml-p0: 0/2 nodes are unavailable: 2 Insufficient \
                 nvidia.com/gpu.",
            ),
            (
                "0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.",
                "0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.",
            ),
        ] {
            assert_eq!(without_counts_of_tasks(message), reasons);
        }
    }

    #[test]
    fn a_message_is_split_into_its_reasons() {
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
    fn a_taint_about_the_state_of_a_node_is_not_to_be_tolerated() {
        for taint in ["{example.com/xid: 79}", "{example.com/drain: true}", "{node.cilium.io/agent-not-ready: true}"] {
            assert!(state_of(taint).is_some(), "{taint}");
            assert_eq!(excluded_by_taint(&[format!("3 node(s) had untolerated taint {taint}")]), None);
        }
        for taint in
            ["{nvidia.com/gpu: present}", "{dedicated: llm}", "{team: unhealthy}", "{sku: gpu}", "{spot: true}"]
        {
            assert_eq!(state_of(taint), None, "{taint}");
            assert_eq!(excluded_by_taint(&[format!("1 node(s) had untolerated taint {taint}")]), Some(taint));
        }
    }

    #[test]
    fn a_group_with_too_few_pods_is_not_one_without_room() {
        let missing = |text: &str| missing_of_group(text).is_some();
        assert!(missing("pod group is not ready, 1 Pending, 2 minAvailable."));
        assert!(!missing("pod group is not ready, 1 Pending, 1 Running, 2 minAvailable."));
        assert!(!missing("pod group is not ready, 4 Pending, 4 minAvailable; Pending: 4 Unschedulable"));
        assert!(!missing("0/4 nodes are available: 4 Insufficient nvidia.com/gpu."));
    }

    #[test]
    fn a_missing_claim_is_named() {
        let message = "0/4 nodes are available: persistentvolumeclaim \"models\" not found. preemption: …";
        assert_eq!(missing_claim(message).as_deref(), Some("models"));
        assert_eq!(missing_claim("persistentvolumeclaim \"models\" is being deleted"), None);
    }
}
