//! Causes outside a pod that end it or make it unusable. `refused_or_evicted`, `preempted_or_deleted`,
//! `after_completion`: it was rejected, evicted, preempted or deleted. `node_not_ready`, `lost_by_a_reboot`,
//! `older_than_the_driver`: its node is not Ready, was rebooted, or loaded the driver later.

use crate::explanation::causes::{Case, NOT_IDENTIFIED, end_quote, event_quote, process, start};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::input::processes::waits_outside_driver;
use crate::messages::phrases::{self, Part};
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent, known as known_time};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::text::clean;

/// One row: the reason in a pod's status, the cause, the action, the meaning and the advice. `OutOf` is a prefix of
/// several reasons.
type Rejection = (&'static str, Cause, ActionCode, &'static str, &'static str);

/// Reasons for which the kubelet or a controller rejects or ends a pod. Source: `pkg/kubelet`,
/// `pkg/scheduler/framework`.
const REJECTIONS: [Rejection; 18] = [
    ("NodeLost", Cause::Node, ActionCode::Watch, LOST, "Check the node; recreate the pod on another node."),
    ("NodeShutdown", Cause::Node, ActionCode::Watch, LOST, "Check the node; recreate the pod on another node."),
    ("Terminated", Cause::Node, ActionCode::Watch, LOST, "Check the node; recreate the pod on another node."),
    (
        "NodeAffinity",
        Cause::Node,
        ActionCode::RestartPod,
        "the labels of its node no longer match its node selector",
        "Compare the node's labels with the pod's node selector. Then recreate the pod.",
    ),
    ("Preempting", Cause::Cluster, ActionCode::RestartPod, PREEMPTED, "Recreate the pod, or raise its priority."),
    ("Preempted", Cause::Cluster, ActionCode::RestartPod, PREEMPTED, "Recreate the pod, or raise its priority."),
    (
        "DeadlineExceeded",
        Cause::Application,
        ActionCode::FixLimits,
        "the pod ran longer than its activeDeadlineSeconds",
        "Raise the deadline, or reduce the run time.",
    ),
    (
        "OutOf",
        Cause::Node,
        ActionCode::RestartPod,
        "its node had too few resources for the pod",
        "Recreate the pod: the scheduler will choose a node again.",
    ),
    (
        "SysctlForbidden",
        Cause::Application,
        ActionCode::FixApplication,
        "the pod sets a sysctl that the kubelet of its node does not permit",
        "Remove the sysctl from the pod, or permit it on the node (allowedUnsafeSysctls of the kubelet).",
    ),
    (
        "AppArmor",
        Cause::Node,
        ActionCode::FixApplication,
        "its node cannot apply its AppArmor profile",
        "Load the profile on the node, or correct the profile in the pod.",
    ),
    (
        "NodePorts",
        Cause::Application,
        ActionCode::FixApplication,
        "a hostPort that the pod needs is in use on its node",
        "Remove hostPort, use another port, or run at most one pod with this port on each node.",
    ),
    (
        "NodeName",
        Cause::Application,
        ActionCode::FixApplication,
        "its nodeName is the name of another node",
        "Correct or remove spec.nodeName.",
    ),
    (
        "TaintToleration",
        Cause::Application,
        ActionCode::FixApplication,
        "the pod does not tolerate a taint of its node",
        "Add a toleration for the taint, or do not set spec.nodeName.",
    ),
    (
        "PodOSNotSupported",
        Cause::Application,
        ActionCode::FixApplication,
        "the pod is for another operating system than that of its node",
        "Correct spec.os and the node selector.",
    ),
    (
        "PodOSSelectorNodeLabelDoesNotMatch",
        Cause::Application,
        ActionCode::FixApplication,
        "the pod is for another operating system than that of its node",
        "Correct spec.os and the node selector.",
    ),
    (
        "PodLevelResourcesNotAdmittedReason",
        Cause::Node,
        ActionCode::FixApplication,
        "the kubelet of its node does not support resources for the whole pod",
        "Set the resources of each container, or update the kubelet.",
    ),
    (
        "PodLevelResourcesNotSupported",
        Cause::Node,
        ActionCode::FixApplication,
        "the kubelet of its node does not support resources for the whole pod",
        "Set the resources of each container, or update the kubelet.",
    ),
    (
        "SupplementalGroupsPolicyNotSupported",
        Cause::Node,
        ActionCode::FixApplication,
        "the container runtime of its node does not support its supplementalGroupsPolicy",
        "Remove supplementalGroupsPolicy, or update the container runtime of the node.",
    ),
];

const LOST: &str = "its node was shut down or lost";
const PREEMPTED: &str = "a pod of higher priority preempted it";

/// Explains a pod that its node rejected or ended, according to its status.
pub(crate) fn refused_or_evicted(case: &Case<'_>) -> Option<Explanation> {
    let reason = case.pod.reason.as_deref()?;
    let message = case.pod.message.clone().unwrap_or_default();
    if reason == "Evicted" {
        return Some(evicted(case, &message));
    }
    if reason == "DeadlineExceeded"
        && let Some(explained) = deadline_before_start(case, &message)
    {
        return Some(explained);
    }
    let is_reason = |name: &str| reason == name || name == "OutOf" && reason.starts_with(name);
    let &(_, cause, code, what, action) = REJECTIONS.iter().find(|(name, ..)| is_reason(name))?;
    let what = match reason.strip_prefix("OutOf") {
        // If the node has the resource now, it did not have the resource when it rejected the pod.
        Some(resource) if message.trim_end_matches('.').ends_with("capacity: 0") => format!(
            "the kubelet tried to admit it before the device plugin of its node had registered {resource} (capacity: \
                0), and {} had not waited for the registration",
            case.pod.scheduler.as_deref().unwrap_or("whoever placed the pod")
        ),
        Some(resource) => format!(
            "{what}: too little {resource} was free on the node when the pod arrived, although {} had placed the pod there",
            case.pod.scheduler.as_deref().unwrap_or("the scheduler")
        ),
        None => what.to_owned(),
    };
    // The finding about the node can say why it was shut down.
    let now = case.report.and_then(|report| report.taken_at);
    let is_near = now
        .zip(case.ended().and_then(|end| end.finished))
        .is_none_or(|(now, end)| now.duration_since(end) < SHUT_DOWN_WITHIN);
    let end = case.all_findings().find(|finding| what == LOST && is_near && finding.id == "node-shut-down");
    let (what, action, certainty) = match end {
        Some(finding) => (format!("{what}: {}", finding.headline()), finding.action.text.clone(), Certainty::Likely),
        None => (what, action.to_owned(), Certainty::Certain),
    };
    Some(
        case.explain(cause, certainty, what)
            .with_evidence([format!("pod status: {reason}: {message}")])
            .with_evidence(end.into_iter().flat_map(|finding| finding.evidence.iter().take(2).cloned()))
            .with_action(code, action),
    )
}

/// A pod that ended longer ago was not ended by the current shutdown of its node.
const SHUT_DOWN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// Explains a pod whose deadline ended before one of its containers had started. The reason of the wait is the cause,
/// and the deadline only ended the wait.
fn deadline_before_start(case: &Case<'_>, message: &str) -> Option<Explanation> {
    const WHAT: &str = "its activeDeadlineSeconds ended before a container had started";
    let waits = |container: &ContainerFacts| matches!(container.state, ContainerState::Waiting { .. });
    if case.pod.containers.is_empty() || !case.pod.containers.iter().all(waits) || case.pod.has_run() {
        return None;
    }
    let status = [format!("pod status: DeadlineExceeded: {message}")];
    if let Some(mut explained) = start::cannot_start(case) {
        explained.summary = format!("{}; {WHAT}.", explained.summary.trim_end_matches('.'));
        return Some(explained.with_evidence(status));
    }
    let newest = case.pod.events.iter().rev().find(|event| event.reason != "DeadlineExceeded");
    let Some(event) = newest.filter(|event| event.reason == "Pulling") else {
        let quote = newest.map(|event| format!("; the event before it: {}", event_quote(event))).unwrap_or_default();
        return Some(
            case.explain(
                Cause::Unknown,
                Certainty::Possible,
                format!("{WHAT}; the reason of the wait is not known{quote}"),
            )
            .with_evidence(status)
            .with_action(
                ActionCode::Watch,
                "Find out why its containers had not started, before you raise the deadline.",
            ),
        );
    };
    Some(
        case.explain(Cause::Cluster, Certainty::Likely, format!("{WHAT}: the pull of its image had not ended"))
            .with_evidence([event_quote(event)])
            .with_evidence(status)
            .with_action(
                ActionCode::FixLimits,
                "Make the pull shorter (a smaller image, a registry near the nodes, an image that is already on the nodes), or set a \
                 deadline that includes the pull.",
            ),
    )
}

/// Explains an eviction by the kubelet: a limit of the pod itself, or pressure on the node.
fn evicted(case: &Case<'_>, message: &str) -> Explanation {
    let status = [format!("pod status: Evicted: {message}")];
    let Some(phrase) = phrases::known(Part::Eviction, message) else {
        return case
            .explain(Cause::Unknown, Certainty::Possible, format!("the pod was evicted; {NOT_IDENTIFIED}"))
            .with_evidence(status)
            .with_evidence(pressure(case))
            .with_action(ActionCode::Watch, "Read the message of the eviction, and the events of the pod.");
    };
    let meaning = phrase.meaning(message);
    let (cause, certainty, what, action) = match Usage::of(message).filter(|_| phrase.cause == Cause::Node) {
        // The kubelet names each container that uses more than it requested. Another container may have filled the
        // disk.
        Some(Usage { container, used, resource, .. }) if resource == "ephemeral-storage" && !is_large(used) => (
            Cause::Node,
            Certainty::Likely,
            format!(
                "{meaning}; its container {container} used only {used} of this resource, and it is not known what \
                    filled the disk"
            ),
            format!(
                "Find out what fills the disk of {} (images, logs, emptyDir and hostPath volumes), and free it.",
                case.node
            ),
        ),
        // The kubelet names only containers that use more than they requested.
        Some(Usage { container, used, request, resource }) => (
            Cause::Application,
            Certainty::Likely,
            format!("{meaning}, and container {container} used {used} of this resource with a request of {request}"),
            format!(
                "Give container {container} a request and a limit of {resource} that fit its use ({used}), or reduce this use{}. Pods \
                 within their requests are evicted last.",
                if resource == "ephemeral-storage" { " (write data to a volume)" } else { "" }
            ),
        ),
        None => (phrase.cause, Certainty::Certain, meaning, phrase.advice(case.node)),
    };
    case.explain(cause, certainty, format!("the pod was evicted: {what}"))
        .with_evidence(status)
        .with_evidence(pressure(case))
        .with_action(phrase.code, action)
}

/// Returns whether an amount such as `57Gi` can fill the disk of a node.
fn is_large(used: &str) -> bool {
    let amount = |unit: &str| used.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
    amount("Gi").is_some_and(|number| number >= 10.0)
        || amount("Ti").is_some()
        || amount("Mi").is_some_and(|number| number >= 10_240.0)
        || amount("Ki").is_some_and(|number| number >= 10_485_760.0)
}

/// Returns the pressure conditions of the pod's node, including those that are False.
fn pressure(case: &Case<'_>) -> Option<String> {
    let conditions: Vec<String> =
        case.pod.node_pressure.iter().map(|(name, status)| format!("{name} is {status}")).collect();
    (!conditions.is_empty()).then(|| format!("node {} now: {}", case.node, conditions.join(", ")))
}

/// The container that the kubelet names in an eviction message: `Container main was using 57Gi, request is 0, has
/// larger consumption of ephemeral-storage`, or in older versions `…, which exceeds its request of 0`.
struct Usage<'m> {
    container: &'m str,
    used: &'m str,
    request: &'m str,
    resource: &'m str,
}

impl<'m> Usage<'m> {
    fn of(message: &'m str) -> Option<Self> {
        let (_, rest) = message.split_once("Container ")?;
        let (container, rest) = rest.split_once(" was using ")?;
        let (used, rest) = rest.split_once(", ")?;
        let rest = rest.strip_prefix("request is ").or_else(|| rest.strip_prefix("which exceeds its request of "))?;
        let request = rest.split([',', ' ']).next()?.trim_end_matches('.');
        let resource = message.split_once("low on resource: ")?.1.split([',', ' ']).next()?.trim_end_matches('.');
        Some(Self { container, used, request, resource })
    }
}

/// Explains a pod whose node is not Ready, unless a container ended by itself (exit code other than 137 or 143).
pub(crate) fn node_not_ready(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed();
    let by_itself = end.is_some_and(|end| !matches!(end.exit_code, 137 | 143));
    (case.pod.node_ready == Some(false) && case.pod.phase != "Succeeded" && !by_itself).then(|| {
        let what = format!("its node {} is not Ready", case.node);
        let certainty = if end.is_some() { Certainty::Likely } else { Certainty::Certain };
        case.explain(Cause::Node, certainty, what)
            .with_evidence([match &case.pod.node_not_ready {
                Some(why) => format!("node {}: {why}", case.node),
                None => format!("node {}: Ready is not True", case.node),
            }])
            .with_evidence(pressure(case))
            .with_evidence(case.unread.then(|| "no probe read the node: only Kubernetes data is known".to_owned()))
            .with_action(
                ActionCode::Watch,
                // While the kubelet does not run, the end of the containers is not confirmed, so the pod is not
                // removed.
                format!(
                    "Repair {} (kubelet, network, power). The pod stays until then. When the pod is evicted, a \
                     Deployment or Job creates another pod. A StatefulSet does not create another pod, and a pod \
                     without a controller is not recreated. If the machine is off permanently, add the taint \
                     node.kubernetes.io/out-of-service to the node. `kubectl delete pod --force` is safe only if the \
                     containers certainly do not run.",
                    case.node
                ),
            )
    })
}

/// Maximum time between the boot and the end of a container that the kubelet reports because of a reboot.
const AROUND_BOOT: SignedDuration = SignedDuration::from_mins(10);

/// Explains a container that ended because its node was rebooted. It had started before the boot. Then the kubelet did
/// not find the container after the boot, or a signal ended it at the time of the boot.
pub(crate) fn lost_by_a_reboot(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed().filter(|end| !end.never_ran() && end.reason != "OOMKilled")?;
    let booted = case.booted()?;
    let started = end.started.or(case.pod.scheduled)?;
    let is_unknown = matches!(end.reason, "Unknown" | "ContainerStatusUnknown");
    let near = end.finished.is_some_and(|finished| finished.duration_since(booted).abs() <= AROUND_BOOT);
    let by_signal = near && matches!(end.exit_code, 137 | 143 | 255) && end.message.is_empty();
    if started >= booted || !(is_unknown || by_signal) {
        return None;
    }
    // The container may have been lost before the reboot, while the node was running.
    if is_unknown && end.finished.is_some_and(|finished| booted.duration_since(finished) > AROUND_BOOT * 6) {
        return None;
    }
    let container = end.container;
    let runs = case.pod.running().any(|(name, _)| name == container);
    let now = if runs { "; the container is running again" } else { "" };
    let what = format!("{} was rebooted (booted at {booted:.0}), and this ended container {container}{now}", case.node);
    let code = if runs { ActionCode::Watch } else { ActionCode::RestartPod };
    let recreate = if runs { "" } else { "Recreate the pod, if no controller does. " };
    Some(
        case.explain(Cause::Node, Certainty::Likely, what)
            .with_evidence(end_quote(case))
            .with_evidence([format!("container {container} had started at {started:.0}")])
            .with_action(
                code,
                format!(
                    "{recreate}Find out why {} was rebooted: maintenance, a crash (kernel log of the boot \
                     before, BMC), or its power.",
                    case.node
                ),
            ),
    )
}

/// Maximum time between the boot of a node and the restart of its containers.
const AFTER_BOOT: SignedDuration = SignedDuration::from_mins(15);

/// Returns when the node booted, if the boot restarted a container: Kubernetes has no record of its end, and it started
/// just after the boot.
pub(super) fn restarted_by_boot(case: &Case<'_>, container: &ContainerFacts) -> Option<Timestamp> {
    let ContainerState::Running { since } = container.state else { return None };
    let booted = case.booted()?;
    let age = since?.duration_since(booted);
    let is_near = !age.is_negative() && age <= AFTER_BOOT;
    (is_near && container.restarts > 0 && container.last.is_none()).then_some(booted)
}

/// Explains a running pod that started before the current driver was loaded. A container keeps the device files and
/// libraries that it had at its start.
pub(crate) fn older_than_the_driver(case: &Case<'_>) -> Option<Explanation> {
    let (pod, node) = (case.pod, case.node);
    if pod.phase != "Running" || pod.deleted.is_some() || !pod.wants_gpus {
        return None;
    }
    // A program with an open GPU works with the loaded driver.
    if case.on_node.processes.iter().any(|process| !process.uses.is_empty()) {
        return None;
    }
    let loaded = case.driver_loaded()?;
    let of_gpus = pod.containers.iter().filter(|one| pod.gpu_containers.contains(&one.name));
    let (container, started) = of_gpus
        .filter_map(|one| match one.state {
            ContainerState::Running { since } => Some((one, known_time(since)?)),
            _ => None,
        })
        .find(|(_, started)| *started < loaded)?;
    let name = &container.name;
    let boot = restarted_by_boot(case, container);
    let boot = boot
        .map(|booted| format!("{node} was rebooted (booted at {booted:.0}), and that restarted container {name}; "));
    let what = format!(
        "{}container {name} has run since {started:.0}, and the nvidia driver was loaded later, at {loaded:.0}: the \
         container has no device files or libraries of this driver, or it has old files",
        boot.unwrap_or_default()
    );
    let advice = format!(
        "Delete the pod, so that it starts with the driver that is loaded. To prevent this at the next boot of \
         {node}, keep pods off the node until its driver, toolkit and device plugin are ready (a startup taint). Or \
         recreate such pods after a boot."
    );
    Some(case.explain(Cause::Node, Certainty::Likely, what).with_action(ActionCode::RestartPod, advice))
}

/// Explains a pod that Kubernetes has ended or is ending: preempted, evicted because of a taint, drained, or deleted.
pub(crate) fn preempted_or_deleted(case: &Case<'_>) -> Option<Explanation> {
    ends_in_grace(case)
        .or_else(|| stays_terminating(case))
        .or_else(|| process::waits_for_storage(case).filter(|_| case.pod.deleted.is_some()))
        .or_else(|| by_event(case))
        .or_else(|| by_condition(case))
        .or_else(|| by_deletion(case))
}

const NOT_OF_GPU: &str = "This is not a GPU problem.";

fn by_event(case: &Case<'_>) -> Option<Explanation> {
    let ended = case.ended().is_some_and(|end| matches!(end.exit_code, 137 | 143));
    let all = || case.pod.events.iter().rev().filter(|event| !event.is_ours());
    // The kubelet reports Killing for every pod that it ends, whoever requested it.
    let reasons = ["Preempted", "TaintManagerEviction", "NodeNotReady", "Evicted"];
    let event = all()
        .find(|event| reasons.contains(&event.reason.as_str()))
        .or_else(|| all().find(|event| requests_end(case, event)))
        .or_else(|| all().find(|event| event.reason == "Killing"))?;
    let is_eviction = ["Preempted", "TaintManagerEviction", "Evicted"].contains(&event.reason.as_str());
    // A pod can be preempted before any of its containers runs.
    let never_ran = is_eviction && case.ended().is_none() && case.pod.running().next().is_none();
    let asked = event.reason != "Killing" || case.pod.deleted.is_some();
    (asked && (ended || never_ran || case.pod.deleted.is_some())).then(|| {
        let (certainty, what, action) = match preempted_by(event) {
            Some(by) => (
                Certainty::Certain,
                format!("the pod was preempted by pod {by}, which has a higher priority"),
                format!("{NOT_OF_GPU} Its controller creates a new pod; recreate a pod without a controller. To prevent this, raise the priority of the pod."),
            ),
            None if event.reason == "TaintManagerEviction" => {
                (Certainty::Certain, DELETED_BY_TAINT.1.to_owned(), format!("{NOT_OF_GPU} {}", DELETED_BY_TAINT.2))
            }
            None => (
                Certainty::Likely,
                format!("Kubernetes terminated the pod on request ({}: \"{}\")", event.reason, clean(&event.message, MAX_REQUEST)),
                format!("{NOT_OF_GPU} The event names who ended the pod, and why. Recreate the pod if its controller does not."),
            ),
        };
        case.explain(Cause::Cluster, certainty, what)
            .with_evidence([event_quote(event)])
            .with_action(ActionCode::None, action)
    })
}

/// Maximum length of the message of a request to end a pod.
const MAX_REQUEST: usize = 200;

/// Maximum time between a request to end a pod and the end of its container.
const ON_REQUEST: SignedDuration = SignedDuration::from_mins(5);

/// Parts of words in the messages of controllers that end a pod or its node.
const ENDINGS: [&str; 13] = [
    "evict",
    "preempt",
    "reclaim",
    "deschedul",
    "consolidat",
    "scale down",
    "disrupt",
    "interrupt",
    "suspend",
    "deletingpod",
    "stopped",
    "hook",
    "shutdown",
];

/// Reasons of events about the start of a pod. Their messages contain words such as "preemption".
const OF_START: [&str; 8] = [
    "FailedScheduling",
    "Scheduled",
    "BackOff",
    "Unhealthy",
    "Failed",
    "NotTriggerScaleUp",
    "TriggeredScaleUp",
    "Nominated",
];

/// Returns whether an event reports that a controller ends the pod, at the time of the end of its container.
fn requests_end(case: &Case<'_>, event: &PodEvent) -> bool {
    let words = format!("{} {}", event.reason, event.message).to_ascii_lowercase();
    let at_end = case.ended().and_then(|end| end.finished).zip(event.time).is_some_and(|(end, time)| {
        let before = end.duration_since(time);
        before <= ON_REQUEST && before >= -ON_REQUEST
    });
    at_end && !OF_START.contains(&event.reason.as_str()) && ENDINGS.iter().any(|part| words.contains(part))
}

/// The row of [`DISRUPTIONS`] about a taint with the effect NoExecute.
const DELETED_BY_TAINT: (&str, &str, &str) = (
    "DeletionByTaintManager",
    "a taint of its node, which the pod does not tolerate, evicted it",
    "Look at the taints of the node. If the taint is node.kubernetes.io/unreachable or not-ready, the node itself \
     failed: diagnose the node. Otherwise find out who set the taint. A toleration helps only if the pod may stay on \
     such a node.",
);

/// Reasons of the condition `DisruptionTarget`, their meaning and the advice. Source: Kubernetes, "Pod disruption
/// conditions".
const DISRUPTIONS: [(&str, &str, &str); 4] = [
    ("PreemptionByScheduler", PREEMPTED, "Recreate the pod, or raise its priority."),
    DELETED_BY_TAINT,
    (
        "EvictionByEvictionAPI",
        "it was evicted on request, for example by a drain or an autoscaler",
        "Find out who drained the node. A PodDisruptionBudget limits such evictions.",
    ),
    (
        "DeletionByPodGC",
        "the cluster removed it, because its node no longer exists",
        "Recreate the pod on another node.",
    ),
];

fn by_condition(case: &Case<'_>) -> Option<Explanation> {
    let condition = case.pod.disruption.as_ref()?;
    // A container that exited on its own with a message has another cause.
    let by_itself = case.failed().is_some_and(|end| !matches!(end.exit_code, 137 | 143) && !end.message.is_empty());
    let excluded = by_itself || (case.pod.running().next().is_some() && case.pod.deleted.is_none());
    let (_, what, advice) =
        DISRUPTIONS.iter().find(|(reason, ..)| condition.starts_with(reason)).filter(|_| !excluded)?;
    let explained = case.explain(Cause::Cluster, Certainty::Certain, *what);
    let explained = explained.with_evidence([format!("condition DisruptionTarget: {condition}")]);
    Some(explained.with_action(ActionCode::None, format!("{NOT_OF_GPU} {advice}")))
}

/// Default grace period in seconds.
const DEFAULT_GRACE: i64 = 30;

/// Tolerance for the difference between the clocks of the API server and the kubelet.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Explains a container that ended between the request to delete its pod and the end of the grace period.
fn by_deletion(case: &Case<'_>) -> Option<Explanation> {
    let deleted = case.pod.deleted?;
    let end = case.failed().filter(|end| !end.never_ran())?;
    let after = end.finished?.duration_since(deleted);
    let grace = SignedDuration::from_secs(case.pod.grace_seconds.unwrap_or(DEFAULT_GRACE));
    let in_time = after >= -SLACK && after <= grace.saturating_add(SLACK * 2);
    // A program that handles SIGTERM can end with any code.
    let by_signal = matches!(end.exit_code, 137 | 143);
    (in_time && (by_signal || end.message.is_empty())).then(|| {
        let what = format!("its deletion was requested at {deleted:.0}, and container {} ended then", end.container);
        case.explain(Cause::Cluster, Certainty::Likely, what)
            .with_evidence(end_quote(case))
            .with_action(
                ActionCode::None,
                format!("{NOT_OF_GPU} Find out what deleted the pod: a user, its controller, a drain, an upgrade, an autoscaler."),
            )
    })
}

/// Explains a failed pod whose containers all completed before: the kubelet rejected or ended it afterwards, such as
/// after a restart of the kubelet.
pub(crate) fn after_completion(case: &Case<'_>) -> Option<Explanation> {
    let pod = case.pod;
    let reason = pod.reason.as_deref().filter(|_| pod.phase == "Failed")?;
    let completed = |one: &ContainerFacts| matches!(one.state, ContainerState::Terminated { exit_code: 0, .. });
    if pod.containers.is_empty() || !pod.containers.iter().all(completed) {
        return None;
    }
    let what = format!("all its containers completed (exit code 0); the kubelet then set the pod to Failed ({reason})");
    let message = pod.message.as_ref().map(|message| format!("pod status: {reason}: {message}"));
    let advice = "No action if its work is complete: the status of the pod does not change its result. A Job may run it once more.";
    Some(
        case.explain(Cause::None, Certainty::Likely, what).with_evidence(message).with_action(ActionCode::None, advice),
    )
}

/// Explains a pod that is being deleted and whose grace period is not over.
fn ends_in_grace(case: &Case<'_>) -> Option<Explanation> {
    let deleted = case.pod.deleted.filter(|_| case.failed().is_none())?;
    let now = case.report?.taken_at?;
    let grace = SignedDuration::from_secs(case.pod.grace_seconds.unwrap_or(DEFAULT_GRACE));
    let left = grace.saturating_sub(now.duration_since(deleted));
    let is_told = case.pod.disruption.is_some()
        || case.events(&["Preempted", "Evicted", "TaintManagerEviction", "FailedKillPod"]).next().is_some();
    (left.is_positive() && !is_told).then(|| {
        let what = format!(
            "its deletion was requested at {deleted:.0}, and {} s of its grace period are left",
            left.as_secs()
        );
        let advice = "Wait until the grace period is over. Its GPUs are free when its processes have ended.";
        case.explain(Cause::None, Certainty::Likely, what).with_action(ActionCode::None, advice)
    })
}

/// A pod that still exists this long after its grace period does not end without help.
const LONG_TERMINATING: SignedDuration = SignedDuration::from_mins(30);

/// Explains a pod that has been terminating for much longer than its grace period. If a process of the pod waits in the
/// kernel, another cause explains the pod.
fn stays_terminating(case: &Case<'_>) -> Option<Explanation> {
    let deleted = case.pod.deleted?;
    let now = case.report?.taken_at?;
    let grace = SignedDuration::from_secs(case.pod.grace_seconds.unwrap_or(DEFAULT_GRACE));
    let late = now.duration_since(deleted).saturating_sub(grace);
    // A process that waits for storage is the reason why the runtime cannot stop the container.
    let waits = case.on_node.processes.iter().any(waits_outside_driver);
    let refusal = case.events(&["FailedKillPod"]).next().filter(|_| late > SignedDuration::ZERO && !waits);
    if let Some(refusal) = refusal {
        let what = format!(
            "its deletion was requested at {deleted:.0}, and the container runtime of its node cannot stop its containers ({} times)",
            refusal.count.max(1)
        );
        let advice = format!(
            "Resolve the error that the container runtime reports on {} (log of the runtime, crictl ps, crictl \
             stopp). If the runtime has lost the containers, restart the runtime.",
            case.node
        );
        let explained = case.explain(Cause::Node, Certainty::Likely, what).with_evidence([event_quote(refusal)]);
        return Some(explained.with_action(ActionCode::Watch, advice));
    }
    if late < LONG_TERMINATING || case.on_node.processes.iter().any(GpuProcess::is_uninterruptible) {
        return None;
    }
    let runs = case.pod.running().next().is_some();
    let finalizers = case.pod.finalizers.join(", ");
    let keeps = format!("its containers have ended: the finalizer {finalizers} keeps the pod");
    let (cause, what, advice) = match (runs, case.on_node.processes.is_empty()) {
        (false, true) if !finalizers.is_empty() => (
            Cause::Cluster,
            keeps.as_str(),
            format!(
                "The controller that set {finalizers} has to remove it. Read the log of this controller. If the \
                 controller no longer exists, remove the finalizer from the pod (kubectl edit)."
            ),
        ),
        (false, true) => (
            Cause::Cluster,
            "its containers have ended: a finalizer, or the kubelet, keeps the pod",
            format!(
                "Read the finalizers of the pod (kubectl get pod -o jsonpath='{{.metadata.finalizers}}'), and repair \
                 the controller that must remove them. If the pod has no finalizers, check the kubelet of {}.",
                case.node
            ),
        ),
        (true, true) => (
            Cause::Node,
            "Kubernetes shows its containers as running: the kubelet or the container runtime does not end them, or a volume cannot be \
             unmounted",
            format!(
                "Check the logs of kubelet and container runtime on {} (crictl ps, crictl stop, mounts of the pod), then the finalizers of \
                 the pod. Restart the part that hangs.",
                case.node
            ),
        ),
        (_, false) => (
            Cause::Node,
            "its processes still run: the kubelet or the container runtime does not end them",
            format!(
                "Check the logs of kubelet and container runtime on {}. The GPUs of the pod are not free before its processes end.",
                case.node
            ),
        ),
    };
    let what = format!("its deletion was requested at {deleted:.0}, and it still exists; {what}");
    let explained = case.explain(cause, Certainty::Likely, what);
    Some(explained.with_action(ActionCode::Watch, advice))
}

/// Returns the pod that the scheduler preferred: `Preempted by research/big on node gpu-1`, or
/// `by pod UID on node gpu-1`.
fn preempted_by(event: &PodEvent) -> Option<&str> {
    let (_, rest) = event.message.split_once("by ").filter(|_| event.reason == "Preempted")?;
    rest.strip_prefix("pod ").unwrap_or(rest).split([' ', ',']).next().filter(|name| !name.is_empty())
}
