//! `cannot_start`: explains a container that could not be created or started, from its state or the pod's events.
//! `waiting_since`: a text with the time since which a pod has waited for the start of its containers.
//!
//! Only messages of the kubelet and the container runtime are used, not the output of a program. The newest message is
//! used, and messages from before the last start of the container are ignored. If a finding is about the same component
//! of the node, the finding gives the reason and the action. If a message is not in the table of phrases, its cause is
//! not known.

use jiff::Timestamp;

use crate::explanation::causes::program_message::restart_now;
use crate::explanation::causes::{
    Case, NOT_IDENTIFIED, REQUEST_A_GPU, cuda_versions, effects, event_quote, finding_quote, node_storage,
    unresolved_cdi,
};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Action, Finding};
use crate::messages::phrases::{self, Part, Phrase};
use crate::messages::shapes::{self, Reading};
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kubernetes::pod::known as known_time;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent};
use syringe_core::report::Section;
use syringe_core::text::{clean, clean_keeping_end};

/// Reasons of events about a container, sandbox, volume or device that could not be created.
const EVENTS: [&str; 8] = [
    "Failed",
    "FailedCreatePodSandBox",
    "FailedPrepareDynamicResources",
    "NetworkNotReady",
    "FailedMount",
    "FailedAttachVolume",
    "FailedMapVolume",
    "FailedCreatePodContainer",
];

/// Reasons of events about a volume.
const OF_VOLUME: [&str; 3] = ["FailedMount", "FailedAttachVolume", "FailedMapVolume"];

/// Phrases of the kubelet after a timeout.
const TIMEOUTS: [&str; 3] = ["timed out waiting", "timeout expired", "context deadline exceeded"];

/// Waiting reasons of the kubelet about an image.
const OF_IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

const NO_DRIVER_IMAGE: &str = "Choose a version that has an image for the operating system and kernel of {node} (the end of the \
     tag names them), or correct the repository of the image.";

/// The waiting reason after repeated terminations, whatever their cause was.
pub(crate) const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Maximum number of events whose messages are read.
const EVENTS_READ: usize = 4;

/// Maximum length of a quoted message in a summary.
const MAX_WORDS: usize = 240;

/// Number of evidence lines that are quoted from a finding.
const FINDING_LINES: usize = 2;

/// A container that is not running, with the messages of the kubelet and the container runtime.
struct Attempt<'a> {
    container: &'a str,
    reason: &'a str,
    /// Messages, newest first.
    messages: Vec<String>,
    /// The newest event about the container, unless the container has started since.
    event: Option<&'a PodEvent>,
    /// True if the container failed to start, so that its program never ran.
    never_ran: bool,
}

impl Attempt<'_> {
    /// Returns the part of the system that failed, and a description of the failure.
    fn failure(&self) -> (Part, String) {
        let Self { container, reason, .. } = self;
        let creating = is_creating(reason) && !self.never_ran;
        match self.event.map(|event| event.reason.as_str()).filter(|_| creating) {
            Some(reason) if OF_VOLUME.contains(&reason) => {
                let volume = self.event.and_then(|event| volume_in(&event.message));
                let which = volume.map_or("one of its volumes".to_owned(), |name| format!("its volume {name}"));
                (Part::Volume, format!("{which} cannot be mounted"))
            }
            Some("FailedPrepareDynamicResources") => (
                Part::Start,
                "the DRA driver of its node could not prepare the devices of its ResourceClaims".to_owned(),
            ),
            Some("FailedCreatePodSandBox") => (Part::Start, "its node could not create its sandbox".to_owned()),
            _ if OF_IMAGE.contains(reason) => {
                (Part::Image, format!("the image of container {container} cannot be pulled"))
            }
            _ if *reason == "CreateContainerConfigError" => {
                (Part::Config, format!("container {container} cannot be configured"))
            }
            _ => (Part::Start, format!("container {container} could not be started")),
        }
    }

    /// Returns whether a failure was reported. A container that is being created has not failed.
    fn has_failed(&self) -> bool {
        self.never_ran || self.event.is_some() || !is_creating(self.reason)
    }
}

/// Returns the volume that a message names: `MountVolume.SetUp failed for volume "data"`, or
/// `unmounted volumes=[data]`.
fn volume_in(message: &str) -> Option<&str> {
    let quoted = message.split_once("for volume \"").and_then(|(_, rest)| rest.split('"').next());
    let listed = || message.split_once("unmounted volumes=[").and_then(|(_, rest)| rest.split(']').next());
    quoted.or_else(listed).filter(|name| !name.is_empty())
}

/// Explains a container that could not be created or started.
pub(crate) fn cannot_start(case: &Case<'_>) -> Option<Explanation> {
    let attempt = attempt(case).filter(Attempt::has_failed)?;
    let (part, failure) = attempt.failure();
    if let Some(explained) = node_storage::explain(case, &failure, &attempt.messages) {
        return Some(explained);
    }
    let known = attempt.messages.iter().find_map(|message| Some((phrases::known(part, message)?, message)));
    // A sandbox has no command of the pod.
    let of_sandbox = attempt.event.is_some_and(|event| event.reason == "FailedCreatePodSandBox");
    let known = known.filter(|(phrase, _)| !of_sandbox || !phrase.what.starts_with("its command"));
    let Some((phrase, message)) = known else {
        let read = attempt.messages.iter().find_map(|message| shapes::read(message));
        return Some(match read {
            Some(reading) => by_its_shape(case, &failure, reading, attempt.messages),
            None => not_identified(case, &failure, attempt.messages),
        });
    };
    let finding = finding_behind(case, phrase);
    let applied = apply_phrase(case, phrase, message, finding);
    // The table gives the kind of failure, and the message gives the name of the object.
    let read = shapes::read(message).filter(|reading| reading.is_specific());
    let inner = || phrase.inner_error(message).map(|inner| clean_keeping_end(inner, MAX_WORDS));
    let words = read.map(|reading| reading.words).or_else(inner).filter(|words| !applied.what.contains(words.as_str()));
    let words = words.filter(|_| !applied.is_past).map(|words| format!(" (\"{words}\")")).unwrap_or_default();
    let what = format!("{failure}: {}{words}", applied.what);
    let finding_lines = finding.into_iter().flat_map(|finding| {
        std::iter::once(finding_quote(finding)).chain(finding.evidence.iter().take(FINDING_LINES).cloned())
    });
    // A lost GPU may be the reason for a driver error that the hook reports.
    let of_gpu = finding.is_some_and(|finding| finding.class == Class::Hardware);
    let of_request = applied.action.code == ActionCode::ChangeRequest;
    let cause = match phrase.cause {
        _ if of_gpu => Cause::Gpu,
        Cause::Node if of_request => Cause::Application,
        cause => cause,
    };
    // Without a finding, the usual reason is not certain.
    let is_guess = finding.is_none() && phrase.often.is_some();
    let certainty = if applied.is_past || is_guess { Certainty::Likely } else { Certainty::Certain };
    let mut explanation = case
        .explain(cause, certainty, what)
        .with_evidence(attempt.messages.iter().cloned())
        .with_evidence(applied.evidence)
        .with_evidence(runtime_class(case, phrase))
        .with_evidence(default_handler(case, phrase))
        .with_evidence(rebooted_since(case, phrase))
        .with_evidence(waiting_since(case))
        .with_evidence(finding_lines);
    explanation.action = applied.action;
    // The GPU Operator combines the tag of the driver image from the driver version, the distribution and the kernel.
    if case.pod.is_gpu_stack && part == Part::Image && phrase.cause == Cause::Application {
        explanation.action.text = NO_DRIVER_IMAGE.replace("{node}", case.node);
    }
    Some(explanation)
}

/// Explains a failure whose message is not in the table, from the general shape of its innermost error.
fn by_its_shape(case: &Case<'_>, failure: &str, reading: Reading, messages: Vec<String>) -> Explanation {
    // Messages of the container runtime and the kubelet are about the node, unless the shape of the error indicates
    // another part of the system.
    let cause = if reading.cause == Cause::Application { Cause::Unknown } else { reading.cause };
    let advice = reading.advice(case.node);
    case.explain(cause, Certainty::Likely, format!("{failure}: {}", reading.quoted()))
        .with_evidence(messages)
        .with_evidence(waiting_since(case))
        .with_action(ActionCode::Watch, advice)
}

/// Explains a failure with an unknown message. States the component that failed, and quotes the message. Findings about
/// the node are quoted, but no fact links them to the message.
fn not_identified(case: &Case<'_>, failure: &str, messages: Vec<String>) -> Explanation {
    let beside = case.all_findings().filter(|finding| {
        finding.severity > Severity::Info
            && (effects::stops_starts(finding) || effects::ends_programs(finding).is_some())
    });
    let beside = beside.map(|finding| format!("{}; nothing links it to the message", finding_quote(finding)));
    let words = messages.first().map(|message| format!(" (\"{}\")", shapes::words_of(message))).unwrap_or_default();
    let class = case.pod.runtime_class.iter().map(|class| format!("the pod's RuntimeClass is {class}"));
    case.explain(Cause::Unknown, Certainty::Possible, format!("{failure}; {NOT_IDENTIFIED}{words}"))
        .with_evidence(messages)
        .with_evidence(class)
        .with_evidence(beside.take(FINDING_LINES))
        .with_evidence(waiting_since(case))
        .with_action(
            ActionCode::Watch,
            format!(
                "Resolve the error in the message. A container that did not start has no log (node {}).",
                case.node
            ),
        )
}

/// The meaning of a known message for this pod, with evidence and action.
struct ApplicablePhrase {
    what: String,
    evidence: Option<String>,
    action: Action,
    /// Whether the message was true when it was written, but is no longer true.
    is_past: bool,
}

fn apply_phrase(case: &Case<'_>, phrase: &Phrase, message: &str, finding: Option<&Finding>) -> ApplicablePhrase {
    let action = || {
        // The row names the component that reports the error. The general form of the error determines the action.
        let inner = phrase.inner_error(message).and_then(shapes::read).filter(Reading::is_specific);
        let inner = inner.map(|reading| format!(" {}", reading.advice(case.node))).unwrap_or_default();
        Action { code: phrase.code, text: format!("{}{inner}", phrase.advice_for(message, case.node)) }
    };
    if let Some(applied) = of_additional_network(case, message) {
        return applied;
    }
    if phrase.needs_newer_cuda()
        && let Some(applied) = compare_cuda(case, message)
    {
        return applied;
    }
    if phrase.is_about_unknown_device()
        && let Some(applied) = unknown_device(case, message)
    {
        return applied;
    }
    let meaning = format!("{}{}", phrase.meaning(message), hook_without_handler(case, message));
    if phrase.is_about_missing_driver_files() && case.asks_for_no_gpu() {
        let text = REQUEST_A_GPU.to_owned();
        return ApplicablePhrase {
            what: format!("{meaning}; the pod requests no GPU"),
            evidence: None,
            action: Action { code: ActionCode::ChangeRequest, text },
            is_past: false,
        };
    }
    let contradicted = phrase.is_about_present_driver() && finding.is_none() && case.driver_works();
    if contradicted && !is_before_the_driver(case) {
        let text = format!(
            "Compare the driver root of the container toolkit and of the CDI specification of {} with the driver that is loaded \
             (nvidia-container-cli info on the node), then start the pod again.",
            case.node
        );
        return ApplicablePhrase {
            what: format!(
                "NVIDIA's hook reports that {meaning}; but the driver works: the hook uses another library or driver root"
            ),
            evidence: None,
            action: Action { code: ActionCode::UpdateSoftware, text },
            is_past: true,
        };
    }
    if contradicted {
        let text = restart_now(case);
        return ApplicablePhrase {
            what: format!("at that time, {meaning}; the driver of its node works now"),
            evidence: None,
            action: Action { code: ActionCode::RestartPod, text },
            is_past: true,
        };
    }
    match finding {
        Some(finding) => ApplicablePhrase {
            what: format!("{meaning} ({})", finding.headline()),
            evidence: None,
            action: case.action_for(finding),
            is_past: false,
        },
        None => match why_unresolved(case, phrase, message) {
            Some(found) => ApplicablePhrase {
                what: format!("{meaning}; {}", found.why),
                evidence: None,
                action: Action { code: phrase.code, text: found.advice.replace("{node}", case.node) },
                is_past: false,
            },
            None => ApplicablePhrase { what: meaning, evidence: None, action: action(), is_past: false },
        },
    }
}

/// Returns whether the newest message about the pod may be older than the driver that is loaded now.
fn is_before_the_driver(case: &Case<'_>) -> bool {
    let newest = case.pod.events.iter().filter(|event| event.warning).filter_map(|event| event.time).max();
    case.driver_loaded().zip(newest.or(case.pod.created)).is_none_or(|(loaded, message)| message <= loaded)
}

/// Words, in lower case, of an error of Multus when it calls the API server.
const NO_ACCESS: [&str; 3] = [": unauthorized", "x509: ", "the server has asked for the client to provide credentials"];

/// Words, in lower case, of the plugin of an additional network that got no device for the pod.
const NO_DEVICE: [&str; 3] =
    ["specify either \"device\"", "device id is required", "load netconf: vf pci addr is required"];

/// Explains an error of Multus that is about its access to the API server, or about a network device that the pod did
/// not get.
fn of_additional_network(case: &Case<'_>, message: &str) -> Option<ApplicablePhrase> {
    let lower = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if !lower.contains("multus") {
        return None;
    }
    let node = case.node;
    let (what, code, text) = if has(&NO_ACCESS) {
        (
            "Multus, the plugin for additional networks, has no valid access to the API server".to_owned(),
            ActionCode::UpdateSoftware,
            format!(
                "Restart the pod of Multus on {node} (kubectl get pods -A -o wide --field-selector spec.nodeName={node}), so that it writes a \
                 new token, and check that its version renews the token. This is not a GPU problem."
            ),
        )
    } else if has(&NO_DEVICE) {
        let others = &case.pod.other_resources;
        let asks = match others.as_slice() {
            [] => "the pod requests no device of a plugin".to_owned(),
            others => format!("the pod requests {}", others.join(", ")),
        };
        (
            format!("its additional network needs a device that the pod did not get; {asks}"),
            ActionCode::ChangeRequest,
            "Request the resource that the NetworkAttachmentDefinition names (annotation k8s.v1.cni.cncf.io/resourceName) in the limits of \
             the pod. This is not a problem of the GPU or of the node."
                .to_owned(),
        )
    } else {
        return None;
    };
    Some(ApplicablePhrase { what, evidence: None, action: Action { code, text }, is_past: false })
}

/// Explains a device that NVIDIA's hook does not find, unless the device is a GPU that the node lost.
fn unknown_device(case: &Case<'_>, message: &str) -> Option<ApplicablePhrase> {
    let device = device_of(message)?;
    let node = case.node;
    if !is_name_of_gpu(device) {
        let resources = case.pod.other_resources.join(", ");
        let whose = if resources.is_empty() { String::new() } else { format!(" (it requests {resources})") };
        let text = format!(
            "Check the software that shares the GPUs of {node}{whose}: its scheduler or scheduler extender must handle \
                this pod (configuration of kube-scheduler, schedulerName). Read the logs of that scheduler and of the \
                device plugin of the software."
        );
        let what = format!(
            "no GPU was chosen for it: the device plugin gave the container \"{}\" in place of the name of a \
                GPU{whose}; the scheduler or extender of the software that shares the GPUs did not assign a GPU",
            clean(device, MAX_HANDLER)
        );
        let action = Action { code: ActionCode::UpdateSoftware, text };
        return Some(ApplicablePhrase { what, evidence: None, action, is_past: false });
    }
    let inventory = Section::data_of(&case.report?.sections.inventory)?;
    let uuids: Vec<&str> = inventory.gpus.iter().filter_map(|gpu| gpu.uuid.as_deref()).collect();
    if uuids.contains(&device) {
        return Some(ApplicablePhrase {
            what: format!(
                "the container runtime was asked for {device}, which NVIDIA's hook did not find at that time; its node has it now"
            ),
            evidence: None,
            action: Action { code: ActionCode::RestartPod, text: restart_now(case) },
            is_past: true,
        });
    }
    // The device plugin advertises the current GPUs of the node. Only the pod still has an earlier GPU.
    let kubelet = Section::data_of(&case.report?.sections.kubelet)?;
    let registered = || kubelet.registered.iter().filter(|one| one.resource.starts_with("nvidia.com/gpu"));
    let mut offered = registered().flat_map(|one| &one.devices).peekable();
    let is_current = offered.peek().is_some() && offered.all(|one| uuids.iter().any(|uuid| one.starts_with(uuid)));
    let is_before = is_current
        && device.starts_with("GPU-")
        && !inventory.lost.iter().any(|lost| lost.uuid.as_deref() == Some(device));
    is_before.then(|| ApplicablePhrase {
        what: format!(
            "the pod has {device} from before: its node no longer has this GPU (another machine or GPU replaced it), and the device plugin advertises only the current GPUs"
        ),
        evidence: Some(format!("GPUs of {node} now: {}", uuids.iter().take(4).map(|uuid| clean(uuid, MAX_HANDLER)).collect::<Vec<_>>().join(", "))),
        action: Action {
            code: ActionCode::RestartPod,
            text: format!(
                "Delete the pod, so that the kubelet of {node} allocates a GPU that exists. If the new pod fails with \
                 the same GPU, restart the device plugin and the kubelet."
            ),
        },
        is_past: true,
    })
}

/// Returns the device that a message of NVIDIA's hook names: `unknown device id: X` or `X: unknown device`.
fn device_of(message: &str) -> Option<&str> {
    let rest = match message.split_once("unknown device id:") {
        Some((_, rest)) => rest,
        None => message.split_once("device error:")?.1,
    };
    let word = rest.split_whitespace().next()?;
    let end = word.find(['\\', ',', '"', ':']).unwrap_or(word.len());
    Some(&word[..end]).filter(|word| !word.is_empty())
}

/// Returns whether a word is a UUID, an index or a PCI address of a GPU or MIG device.
fn is_name_of_gpu(word: &str) -> bool {
    let of_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-:./".contains(&byte));
    let uuid = ["GPU-", "MIG-GPU-", "MIG-"].iter().find_map(|start| word.strip_prefix(start));
    uuid.map_or_else(|| of_digits(word), of_digits)
}

/// Returns a text if NVIDIA's hook ran for a container although no handler of the container runtime calls it. The
/// reason is a file in a folder of hooks, which remains if the toolkit is not removed properly.
fn hook_without_handler(case: &Case<'_>, message: &str) -> String {
    let host = case.report.and_then(|report| Section::data_of(&report.sections.host));
    let runtime = host.and_then(|host| host.container_runtime.as_ref());
    let none =
        runtime.is_some_and(|runtime| runtime.complete && !runtime.handlers.iter().any(|handler| handler.is_nvidia()));
    let of_hook = message.to_ascii_lowercase().contains("hook") && message.contains("nvidia-container-cli");
    if none && of_hook && !case.pod.wants_gpus && case.pod.runtime_class.is_none() {
        "; no handler of the container runtime calls this hook, and the pod requests no GPU: an earlier installation of the toolkit left \
         the hook in a folder of hooks (hooks.d), where it runs for every container; remove that file"
            .to_owned()
    } else {
        String::new()
    }
}

/// Returns why the CDI specifications of the node do not define the device that the message names.
fn why_unresolved(case: &Case<'_>, phrase: &Phrase, message: &str) -> Option<unresolved_cdi::Unresolved> {
    let device = phrase.unresolved_cdi_device(message)?;
    let host = Section::data_of(&case.report?.sections.host)?;
    unresolved_cdi::why_unresolved(host.cdi.as_ref()?, &device)
}

/// Compares the CUDA version that the image needs with the node's driver, and names the first driver that supports this
/// version.
fn compare_cuda(case: &Case<'_>, message: &str) -> Option<ApplicablePhrase> {
    let needed = cuda_versions::required(message)?;
    let (major, minor) = needed;
    let node = case.node;
    let inventory = case.report.and_then(|report| Section::data_of(&report.sections.inventory));
    let driver = inventory.and_then(|inventory| inventory.driver_version.as_ref().zip(inventory.cuda_version.as_ref()));
    let would_do = match cuda_versions::first_driver(needed) {
        Some(first) => format!("update the driver of {node} to {first} or newer"),
        None => format!("update the driver of {node} to a version that supports CUDA {major}.{minor}"),
    };
    let (has, offers) = match driver {
        Some((driver, offers)) => {
            (format!("driver {driver} of {node} supports CUDA {offers} at most"), offers.as_str())
        }
        None => (format!("the driver of {node} supports only older versions"), "of its driver"),
    };
    if driver.and_then(|(_, offers)| cuda_versions::version(offers)).is_some_and(|offers| offers >= needed) {
        let (driver, offers) = driver?;
        let text = format!("Delete the pod, so that it restarts with the current driver of {node}.");
        return Some(ApplicablePhrase {
            what: format!(
                "its image needs CUDA {major}.{minor}, which the driver of its node did not support at the time of the start"
            ),
            evidence: Some(format!("driver {driver} of {node} supports CUDA {offers} now")),
            action: Action { code: ActionCode::RestartPod, text },
            is_past: false,
        });
    }
    let text = format!("Use an image for CUDA {offers} or older, or {would_do}.");
    Some(ApplicablePhrase {
        what: format!("its image needs CUDA {major}.{minor}, and {has}"),
        evidence: driver.map(|_| has),
        action: Action { code: ActionCode::UpdateSoftware, text },
        is_past: false,
    })
}

/// Returns a text with the time since which a pod has waited for its node to start its containers.
pub(super) fn waiting_since(case: &Case<'_>) -> Option<String> {
    let since = known_time(case.pod.scheduled).filter(|_| case.pod.phase == "Pending")?;
    Some(format!("the pod has waited since {since:.0}"))
}

/// Returns the finding about the component of the node that the phrase is about. This finding gives the reason.
fn finding_behind<'c>(case: &'c Case<'_>, phrase: &Phrase) -> Option<&'c Finding> {
    let about = |start: &&str| {
        case.all_findings().find(|finding| finding.severity > Severity::Info && finding.id.starts_with(*start))
    };
    phrase.findings.iter().find_map(about)
}

/// Returns the handler of a pod without a RuntimeClass, if its container did not get the driver.
fn default_handler(case: &Case<'_>, phrase: &Phrase) -> Option<String> {
    let without = phrase.is_about_missing_driver_files() && case.pod.runtime_class.is_none();
    let host = Section::data_of(&case.report.filter(|_| without)?.sections.host)?;
    let handler = host.container_runtime.as_ref()?.default_handler.as_ref()?;
    Some(format!(
        "the pod has no RuntimeClass, and the default handler of {} is {}",
        case.node,
        clean(handler, MAX_HANDLER)
    ))
}

/// Maximum length of the name of a handler.
const MAX_HANDLER: usize = 63;

/// Returns the pod's RuntimeClass, if the error is about a runtime handler.
fn runtime_class(case: &Case<'_>, phrase: &Phrase) -> Option<String> {
    let about_runtime = phrase.findings.iter().any(|start| start.starts_with("runtime"));
    let class = case.pod.runtime_class.as_ref().filter(|_| about_runtime)?;
    let host = case.report.and_then(|report| Section::data_of(&report.sections.host));
    let runtime = host.and_then(|host| host.container_runtime.as_ref()).filter(|runtime| runtime.complete);
    let names: Vec<String> =
        runtime.into_iter().flat_map(|runtime| &runtime.handlers).map(|one| clean(&one.name, MAX_HANDLER)).collect();
    let names = if names.is_empty() {
        String::new()
    } else {
        format!("; the container runtime of {} has the handlers {}", case.node, names.join(", "))
    };
    Some(match &case.pod.runtime_handler {
        Some(handler) => format!("the pod's RuntimeClass {class} has the handler {handler}{names}"),
        None => format!("the pod's RuntimeClass is {class}{names}"),
    })
}

/// Returns a text if the node booted after the pod was scheduled, and the phrase is about files that a boot removes.
fn rebooted_since(case: &Case<'_>, phrase: &Phrase) -> Option<String> {
    let booted = case.booted().filter(|_| phrase.is_lost_at_boot())?;
    let scheduled = known_time(case.pod.scheduled)?;
    (booted > scheduled).then(|| format!("{} booted at {booted:.0}, after the pod was scheduled to it", case.node))
}

fn is_creating(reason: &str) -> bool {
    matches!(reason, "ContainerCreating" | "PodInitializing" | CRASH_LOOP | "")
}

/// Returns the first container that is waiting, or that terminated before it ran.
fn attempt<'a>(case: &'a Case<'_>) -> Option<Attempt<'a>> {
    let runs = |name: &str| case.pod.running().any(|(running, _)| running == name);
    let end = case.ended().filter(|end| end.never_ran() && !runs(end.container));
    let waiting: Vec<_> = case.pod.containers.iter().filter_map(waits).collect();
    // A crash loop is also a waiting state, but its message contains no reason.
    let refused = waiting.iter().find(|(_, reason, _)| *reason != CRASH_LOOP).copied();
    let event = case.events(&EVENTS).next().filter(|event| !is_history(case, event));
    let event = event.map(|event| behind_timeout(case, event).unwrap_or(event));
    // The container crashed before, and cannot be created now.
    let looping = || {
        let container = event?.container()?;
        waiting.iter().find(|(name, ..)| *name == container).copied()
    };
    let (container, reason) = match (&end, refused) {
        (Some(end), _) => (end.container, end.reason),
        (None, Some((container, reason, _))) => (container, reason),
        (None, None) => looping().map(|(container, reason, _)| (container, reason))?,
    };
    let mut dated = Vec::new();
    if let Some(end) = end.as_ref().filter(|end| !end.message.is_empty()) {
        let words =
            format!("container {}: {}, exit code {}: {}", end.container, end.reason, end.exit_code, end.message);
        dated.push((end.finished, words));
    }
    // The kubelet reports the reason of a failed pull once. After that, it only reports that the container waits.
    let alike = case.events(&EVENTS).filter(|other| {
        event.is_some_and(|event| {
            event.reason == other.reason && event.field == other.field && !is_outdated(other, event)
        }) && !is_history(case, other)
    });
    dated.extend(alike.take(EVENTS_READ).map(|event| (known_time(event.time), event_quote(event))));
    dated.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    // The message of a waiting state is current.
    let now = refused.filter(|(.., message)| !message.is_empty());
    let now = now.map(|(container, reason, message)| format!("container {container}: {reason}: {message}"));
    let messages = now.into_iter().chain(dated.into_iter().map(|(_, words)| words)).collect();
    Some(Attempt { container, reason, messages, event, never_ran: end.is_some() })
}

/// Returns whether an event about a volume last occurred long before the newest event. An event about an image is never
/// outdated, because the kubelet reports the reason of a failed pull only once.
fn is_outdated(event: &PodEvent, newest: &PodEvent) -> bool {
    let age = known_time(newest.time).zip(known_time(event.time)).map(|(newest, time)| newest.duration_since(time));
    OF_VOLUME.contains(&event.reason.as_str()) && age.is_some_and(|age| age > LONG_BEFORE)
}

/// The kubelet tries to mount a volume again every few minutes.
const LONG_BEFORE: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// Returns the event with the reason why the volumes of a pod are not mounted in time, if the newest event only reports
/// that the kubelet waited for them.
fn behind_timeout<'a>(case: &'a Case<'_>, newest: &PodEvent) -> Option<&'a PodEvent> {
    if !is_timeout_of_volumes(newest) {
        return None;
    }
    case.events(&OF_VOLUME).find(|event| !is_history(case, event) && !is_timeout_of_volumes(event))
}

/// Returns whether an event reports that the kubelet waited for volumes, without the reason.
fn is_timeout_of_volumes(event: &PodEvent) -> bool {
    let message = event.message.to_ascii_lowercase();
    event.reason == "FailedMount"
        && (message.contains("unable to attach or mount volumes")
            || message.contains("timeout expired waiting for volumes"))
        && TIMEOUTS.iter().any(|words| message.contains(words))
}

/// Returns the name, the reason and the message of a waiting container.
fn waits(container: &ContainerFacts) -> Option<(&str, &str, &str)> {
    match &container.state {
        ContainerState::Waiting { reason, message } => Some((&container.name, reason, message)),
        _ => None,
    }
}

/// Failures, each with the events that the kubelet writes only after that step has succeeded. It attaches and mounts the
/// volumes first, then it creates the sandbox, and then it pulls the images.
const PROGRESS: [(&[&str], &[&str]); 2] = [
    (&["FailedAttachVolume"], &["SuccessfulAttachVolume", "Pulling", "Pulled"]),
    (
        &[
            "FailedMount",
            "FailedMapVolume",
            "FailedPrepareDynamicResources",
            "FailedCreatePodSandBox",
            "NetworkNotReady",
        ],
        &["Pulling", "Pulled"],
    ),
];

/// Returns whether a later step has succeeded since an event, or the container of the event has started. An event about the whole pod is outdated as
/// soon as any container has run.
fn is_history(case: &Case<'_>, event: &PodEvent) -> bool {
    let about = |container: &&ContainerFacts| event.container().is_none_or(|name| name == container.name);
    let Some(time) = known_time(event.time) else {
        return case.pod.containers.iter().filter(about).any(|container| started(&container.state).is_some());
    };
    let progress = PROGRESS.iter().filter(|(failed, _)| failed.contains(&event.reason.as_str()));
    if progress.flat_map(|(_, steps)| case.events(steps)).any(|step| known_time(step.time) > Some(time)) {
        return true;
    }
    case.pod.containers.iter().filter(about).any(|container| {
        let runs_since = started(&container.state).is_some_and(|start| start >= time);
        runs_since || container.last.as_ref().and_then(started).is_some_and(|start| start > time)
    })
}

/// Returns the start time of a container, if its state contains one.
fn started(state: &ContainerState) -> Option<Timestamp> {
    match state {
        ContainerState::Running { since } => known_time(*since),
        ContainerState::Terminated { started, .. } => known_time(*started),
        ContainerState::Waiting { .. } | ContainerState::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{device_of, is_name_of_gpu};

    #[test]
    fn the_device_that_the_hook_does_not_know_is_a_gpu_or_none() {
        for (message, device, is_gpu) in [
            ("device error: unknown device id: no-gpu-has-2MiB-to-run\\\\n", "no-gpu-has-2MiB-to-run", false),
            ("nvidia-container-cli: device error: GPU-5f1c0001-aa: unknown device: unknown", "GPU-5f1c0001-aa", true),
            ("device error: unknown device id: MIG-0a1b2c3d-0001\n", "MIG-0a1b2c3d-0001", true),
            ("device error: 3: unknown device", "3", true),
        ] {
            assert_eq!(device_of(message), Some(device), "{message}");
            assert_eq!(is_name_of_gpu(device), is_gpu, "{device}");
        }
    }
}
