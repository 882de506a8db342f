//! Rule about pods that the node cannot start: their sandbox or container cannot be created.
//! `refine`: moves pods that wait for the container runtime into the finding about the runtime.
//!
//! A pod that waits for its own image, volume or configuration does not indicate a fault of the node. Therefore only
//! messages about components of the node that create containers are used.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::now;
use crate::messages::phrases::{self, Part, Phrase};
use crate::messages::{owners, shapes};
use crate::rule::{About, Draft, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::StartingPod;
use syringe_core::text::clean_keeping_end;

rules! {
    about ContainerRuntime;
    NOT_STARTING: "pods-not-starting" Warning Driver None, "The node cannot start the containers of a pod",
        UpdateSoftware "Repair the part of {node} that the message in the evidence indicates, and cordon the node \
            until then: new pods wait there, too. `kubectl describe pod` shows all events of the pod.",
        means "The kubelet or the container runtime of the node cannot create the containers of a pod that was \
            scheduled to the node. Other pods that need the same part do not start, either.",
        reads "kubernetes.starting_pods", depth 3;
    NEWER_DRIVER: "image-needs-newer-driver" Warning Driver None, "A pod does not start, because its image needs a newer driver",
        UpdateSoftware "Use an image for the CUDA version of the driver of {node} (nvidia-smi shows it), update the driver, or start the pod on a node \
            with a newer driver. Other pods are not affected.",
        means "The container hook of NVIDIA refused the image of a pod: it requires a newer CUDA version than the driver supports.",
        reads "kubernetes.starting_pods", about Workload;
}

/// Pods that have waited for less time than this may still start.
const STARTING: SignedDuration = SignedDuration::from_mins(2);

/// Maximum length of a message. The reason is at the end of the message.
const MESSAGE: usize = 400;

/// Maximum number of pods in the evidence.
const NAMED: usize = 3;

/// Reasons of warning events that a component of the node causes.
const REASONS_OF_NODE: [&str; 4] =
    ["FailedCreatePodSandBox", "FailedCreatePodContainer", "FailedPrepareDynamicResources", "NetworkNotReady"];

/// Reasons of a waiting container that the node or the pod can cause. The message shows which of the two is the cause.
const REASONS_OF_EITHER: [&str; 4] = ["CreateContainerError", "RunContainerError", "StartError", "Failed"];

/// Words in messages about components that give GPUs to containers.
const WORDS_OF_RUNTIME: [&str; 5] = ["nvidia-container", "nvidia.com/", "cdi device", "libnvidia", "no runtime for"];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let all = node.kubernetes.starting_pods.iter().flatten();
    let waiting: Vec<(&StartingPod, String)> = all.filter_map(|pod| Some((pod, refusal(node, pod)?))).collect();
    let newer = newer_driver(node);
    if waiting.is_empty() {
        return newer.into_iter().collect();
    }
    let quoted = waiting.iter().map(|(pod, why)| {
        let since = evidence::ago(now(node), pod.since).map(|age| format!(", since {age}")).unwrap_or_default();
        format!("pod {}{since}: {why}", evidence::object(&pod.namespace, &pod.name))
    });
    let quoted = evidence::lines(quoted, NAMED);
    let reason = waiting.iter().find_map(|(_, why)| {
        let reading = shapes::read(why);
        let part = if is_of_volume(why) { Part::Volume } else { Part::Start };
        let phrase = phrases::known(part, why).map(|phrase| phrase.meaning(why));
        Some(match (phrase, reading) {
            (Some(meaning), Some(reading)) => format!("{meaning} (\"{}\")", reading.words),
            (Some(meaning), None) => meaning,
            (None, reading) => reading?.quoted(),
        })
    });
    let words: Vec<String> = waiting.iter().take(NAMED).map(|(_, why)| shapes::core(why)).collect();
    let owners = owners::about(words.iter().map(String::as_str));
    let mut draft = Draft { reason, ..Draft::on_node(NOT_STARTING) };
    // The container runtime does not prepare the devices of claims.
    if waiting.iter().all(|(_, why)| why.starts_with("FailedPrepareDynamicResources")) {
        draft.rule.about = About::Workload;
    }
    let known = waiting.iter().find_map(|(_, why)| Some(phrases::known(Part::Start, why)?.advice_for(why, "{node}")));
    // Pods without such volumes start.
    let of_volumes = waiting.iter().all(|(_, why)| is_of_volume(why));
    let own = if of_volumes { VOLUMES.to_owned() } else { draft.advice.clone() };
    if of_volumes {
        draft.rule.about = About::Workload;
    }
    let (action, advice) = (draft.action, [owners, known.into_iter().collect(), vec![own]].concat().join(" "));
    let draft = draft.with_action(action, advice);
    std::iter::once(draft.with_all_evidence(quoted)).chain(newer).collect()
}

/// Returns the finding about pods whose images need a newer driver.
fn newer_driver(node: &Node<'_>) -> Option<Draft> {
    let refused = |pod: &StartingPod| {
        let told = pod.message.iter().chain(pod.warning.as_ref().map(|event| &event.message));
        let message =
            told.into_iter().find(|text| phrases::known(Part::Start, text).is_some_and(Phrase::needs_newer_cuda))?;
        let name = evidence::object(&pod.namespace, &pod.name);
        Some(format!("pod {name}: {}", clean_keeping_end(message, MESSAGE)))
    };
    let lines: Vec<String> = node.kubernetes.starting_pods.iter().flatten().filter_map(refused).take(NAMED).collect();
    (!lines.is_empty()).then(|| Draft::on_node(NEWER_DRIVER).with_all_evidence(lines))
}

/// Action for pods that wait only for volumes.
const VOLUMES: &str = "Check the pod of the CSI driver in the evidence on {node}: the kubelet mounts its volumes only when the driver is registered. Pods without \
     such volumes start.";

pub(super) fn is_of_volume(why: &str) -> bool {
    why.starts_with("FailedMount")
}

/// Moves pods that wait for the container runtime into the finding about the runtime that explains them.
pub(super) fn refine(drafts: &mut Vec<Draft>) {
    let of_runtime = |line: &String| {
        let line = line.to_lowercase();
        !line.starts_with("pod ") || WORDS_OF_RUNTIME.iter().any(|word| line.contains(word))
    };
    let is_waiting = |draft: &Draft| draft.rule.id == NOT_STARTING.id;
    let Some(at) = drafts.iter().position(|draft| is_waiting(draft) && draft.evidence.iter().all(of_runtime)) else {
        return;
    };
    let explains = |draft: &&mut Draft| {
        !is_waiting(draft) && draft.rule.about == About::ContainerRuntime && draft.severity >= Severity::Warning
    };
    let evidence = drafts[at].evidence.clone();
    if let Some(cause) = drafts.iter_mut().find(explains) {
        cause.evidence.extend(evidence);
        drafts.remove(at);
    }
}

/// Returns whether a message is about an image that the pod itself names.
fn lacks_own_image(message: &str) -> bool {
    let lower = message.to_lowercase();
    lower.contains("failed to pull image") && !lower.contains("sandbox image")
}

/// Returns whether the pod has waited for so long that it may not start.
pub(super) fn has_waited(node: &Node<'_>, pod: &StartingPod) -> bool {
    now(node).zip(pod.since).is_some_and(|(now, since)| now.duration_since(since) >= STARTING)
}

/// Returns why the node cannot start a pod, if the pod has waited for a long time and a component of the node is the
/// cause.
fn refusal(node: &Node<'_>, pod: &StartingPod) -> Option<String> {
    if !has_waited(node, pod) {
        return None;
    }
    let of_event = pod.warning.as_ref().map(|event| (event.reason.as_str(), event.message.as_str(), event.count));
    let of_container = pod.reason.as_deref().map(|reason| (reason, pod.message.as_deref().unwrap_or_default(), 0));
    let (reason, message, count) = of_event.into_iter().chain(of_container).find(|(reason, message, _)| {
        let lower = message.to_lowercase();
        REASONS_OF_NODE.contains(reason)
            || *reason == "FailedMount" && lower.contains("list of registered csi drivers")
            || REASONS_OF_EITHER.contains(reason) && WORDS_OF_RUNTIME.iter().any(|word| lower.contains(word))
    })?;
    // A requirement of the image, or another fault of the pod, is not a fault of the node.
    let of_pod = |phrase: &Phrase| phrase.needs_newer_cuda() || phrase.is_of_application();
    if phrases::known(Part::Start, message).is_some_and(of_pod) || lacks_own_image(message) {
        return None;
    }
    let times = if count > 1 { format!(" ({})", evidence::times(u64::from(count))) } else { String::new() };
    Some(format!("{}{times}: {}", evidence::data(reason), clean_keeping_end(message, MESSAGE)))
}
