//! Why a container could not be started: what its waiting state, its end before it ran, or the kubelet's events say.
//!
//! Only words of the kubelet and the container runtime count, never a program's. The newest counts, and none of a container
//! that runs since.

use jiff::Timestamp;

use super::start_phrases::{self, NEEDS_NEWER_CUDA, Phrase};
use super::{Case, event_quote};
use crate::diagnosis::ActionCode;
use crate::explanation::{Cause, Certainty, ContainerState, Explanation};
use crate::report::Section;

/// Events of a container or its sandbox that could not be made.
const EVENTS: [&str; 6] = [
    "Failed",
    "FailedCreatePodSandBox",
    "FailedPrepareDynamicResources",
    "FailedMount",
    "FailedAttachVolume",
    "FailedCreatePodContainer",
];

/// Reasons with one meaning, and what to do.
const REASONS: [(&str, Cause, &str, &str); 6] = [
    ("ErrImagePull", Cause::Application, "the image of container {container} cannot be pulled", IMAGE),
    ("ImagePullBackOff", Cause::Application, "the image of container {container} cannot be pulled", IMAGE),
    (
        "ErrImageNeverPull",
        Cause::Application,
        "the image of container {container} is not on the node, and may not be pulled",
        IMAGE,
    ),
    ("InvalidImageName", Cause::Application, "the image name of container {container} is not valid", IMAGE),
    (
        "CreateContainerConfigError",
        Cause::Application,
        "container {container} refers to a secret or config map that is not there",
        "Create what the message names, or correct the pod.",
    ),
    (
        "PostStartHookError",
        Cause::Application,
        "the postStart hook of container {container} failed",
        "Correct the hook; nothing is wrong with the GPU.",
    ),
];

const IMAGE: &str = "Correct the image's name, or give the pod its pull secret; nothing is wrong with the GPU.";

/// Whether a waiting reason means that the runtime refused the container.
const REFUSED: [&str; 4] = ["CreateContainerError", "RunContainerError", "CreatePodSandboxError", "StartError"];

/// A container that does not run, in the words of whoever tried.
struct Attempt<'a> {
    container: &'a str,
    reason: &'a str,
    /// What was said, each with where it stands.
    said: Vec<String>,
    /// Whether nothing but the start itself failed.
    never_ran: bool,
}

/// A reason that has one meaning.
pub(super) fn cannot_start(case: &Case<'_>) -> Option<Explanation> {
    let attempt = attempt(case)?;
    let known = REASONS.iter().find(|(reason, ..)| *reason == attempt.reason);
    if let Some((_, cause, what, action)) = known {
        let what = what.replace("{container}", attempt.container);
        return Some(
            case.explain(*cause, Certainty::Certain, what)
                .with_evidence(attempt.said)
                .with_action(ActionCode::None, *action),
        );
    }
    let phrase = attempt.said.iter().find_map(|said| start_phrases::known(said))?;
    let Phrase { words, cause, what, code, action } = phrase;
    let what = format!("container {} could not be started: {what}", attempt.container);
    let driver = words.contains(&NEEDS_NEWER_CUDA).then(|| cuda_of(case)).flatten();
    Some(
        case.explain(*cause, Certainty::Certain, what)
            .with_evidence(attempt.said)
            .with_evidence(driver)
            .with_action(*code, action.replace("{node}", case.node)),
    )
}

/// It could not be started, for a reason that this program does not know.
pub(super) fn cannot_start_for_another_reason(case: &Case<'_>) -> Option<Explanation> {
    let attempt = attempt(case)?;
    let refused = attempt.never_ran || REFUSED.contains(&attempt.reason);
    let by_event = case.events(&EVENTS).next().map(|event| event.reason.as_str());
    let (cause, what) = match by_event {
        _ if refused => (Cause::Node, format!("the container runtime could not start container {}", attempt.container)),
        Some("FailedMount" | "FailedAttachVolume") => (Cause::Cluster, "a volume of it cannot be mounted".to_owned()),
        Some("FailedPrepareDynamicResources") => {
            (Cause::Node, "its node could not prepare the devices of its claims".to_owned())
        }
        Some(_) if is_creating(attempt.reason) => {
            (Cause::Node, "its node could not create its sandbox or a container".to_owned())
        }
        // It is only being created: nobody has said that anything failed.
        _ => return None,
    };
    Some(case.explain(cause, Certainty::Certain, what).with_evidence(attempt.said).with_action(
        ActionCode::Watch,
        format!("Act on what the message names; there is no log of a container that did not start ({}).", case.node),
    ))
}

fn is_creating(reason: &str) -> bool {
    matches!(reason, "ContainerCreating" | "PodInitializing" | "CrashLoopBackOff" | "")
}

/// The first container that waits, or ended before it ran.
fn attempt<'a>(case: &'a Case<'_>) -> Option<Attempt<'a>> {
    let end = case.ended().filter(|end| end.never_ran());
    let runs = |name: &str| case.pod.running().any(|(running, _)| running == name);
    let end = end.filter(|end| !runs(end.container));
    let waiting = case.pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } => {
            Some((container.name.as_str(), reason.as_str(), message.as_str()))
        }
        _ => None,
    });
    // A crash loop waits, too: what it says is only that.
    let waiting = waiting.filter(|(_, reason, _)| *reason != "CrashLoopBackOff");
    let (container, reason) = match (&end, waiting) {
        (Some(end), _) => (end.container, end.reason),
        (None, Some((container, reason, _))) => (container, reason),
        (None, None) => return None,
    };
    let mut said = Vec::new();
    if let Some((container, reason, message)) = waiting.filter(|(.., message)| !message.is_empty()) {
        said.push(format!("container {container}: {reason}: {message}"));
    }
    if let Some(end) = end.as_ref().filter(|end| !end.message.is_empty()) {
        said.push(format!("container {}: {}, exit code {}: {}", end.container, end.reason, end.exit_code, end.message));
    }
    // Older than what has started since is history.
    let newest_start: Option<Timestamp> = case.pod.running().filter_map(|(_, since)| since).max();
    let event =
        case.events(&EVENTS).find(|event| newest_start.is_none_or(|start| event.time.is_none_or(|time| time >= start)));
    said.extend(event.map(event_quote));
    Some(Attempt { container, reason, said, never_ran: end.is_some() })
}

/// The CUDA version that the node's driver supports.
fn cuda_of(case: &Case<'_>) -> Option<String> {
    let inventory = Section::data_of(&case.report?.sections.inventory)?;
    let (driver, cuda) = inventory.driver_version.as_ref().zip(inventory.cuda_version.as_ref())?;
    Some(format!("driver {driver} of {} supports CUDA {cuda} at most", case.node))
}
