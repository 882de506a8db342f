//! `refused`: explains pods that the device manager or topology manager of the kubelet rejected.
//!
//! Source of the messages: `pkg/kubelet/cm/devicemanager/manager.go` and `pkg/kubelet/cm/topologymanager`. A rejected
//! pod has failed permanently. Its controller creates a new pod. A pod without a controller stays in the phase Failed.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::explanation::causes::{Case, blockers, free_gpus};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Action, Finding};
use crate::messages::phrases::{self, Part};
use crate::messages::shapes::{self, Reading};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::report::Section;

/// A device plugin usually registers within this time after the boot of its node.
const AFTER_BOOT: SignedDuration = SignedDuration::from_mins(20);

/// Ids of findings about lost GPUs. A device plugin fails for every pod of such a node, because it cannot read the
/// topology of the GPUs from NVML.
const LOST: [&str; 4] = ["gpu-off-bus", "gpu-lost", "gpu-unresponsive", "gpu-cannot-be-opened"];

/// The finding about a kubelet that rejects pods because of allocations of deleted pods. Such allocations alone are no
/// proof, because the kubelet releases them when it admits the next pod.
const STALE_ALLOCATIONS: [&str; 1] = ["kubelet-allocations-not-released"];

/// The meaning of an admission error.
struct Refusal {
    cause: Cause,
    what: String,
    evidence: Vec<String>,
    action: Action,
    certainty: Certainty,
    /// The meaning depends on the present state of the node.
    is_of_now: bool,
}

impl Refusal {
    fn of_node(what: impl Into<String>, action: impl Into<String>) -> Self {
        let action = Action { code: ActionCode::RestartPod, text: action.into() };
        Self::new(Cause::Node, what.into(), Vec::new(), action)
    }

    fn new(cause: Cause, what: String, evidence: Vec<String>, action: Action) -> Self {
        Self { cause, what, evidence, action, certainty: Certainty::Certain, is_of_now: false }
    }
}

/// Explains a pod that the kubelet's device manager or topology manager rejected.
pub(crate) fn refused(case: &Case<'_>) -> Option<Explanation> {
    let message = case.pod.message.clone().unwrap_or_default();
    let reason = case.pod.reason.as_deref()?;
    let refusal = match reason {
        "UnexpectedAdmissionError" => devices(case, &message),
        "TopologyAffinityError" => topology(case),
        _ => known(case, &message)?,
    };
    let Refusal { cause, what, mut evidence, action, certainty, .. } = refusal;
    let again = admitted_again(case);
    let what = again.iter().fold(what, |what, again| format!("{what}; {again}"));
    evidence.extend(again);
    let mut explanation = case
        .explain(cause, certainty, what)
        .with_evidence([format!("pod status: {reason}: {message}")])
        .with_evidence(evidence);
    explanation.action = action;
    Some(explanation)
}

/// Period after the start of a kubelet in which it admits the pods that are bound to its node.
const ADMITS: SignedDuration = SignedDuration::from_mins(3);

/// Returns a text if the kubelet was restarted just before it rejected an existing pod. When a kubelet starts, it
/// admits all pods of its node again.
fn admitted_again(case: &Case<'_>) -> Option<String> {
    let host = Section::data_of(&case.report?.sections.host)?;
    let started = host.nvidia_stack.as_ref()?.kubelet_started_at?;
    let existed = case.pod.created.is_some_and(|created| started.duration_since(created) > ADMITS);
    let rejected =
        case.pod.events.iter().rev().find(|event| event.reason == case.pod.reason.clone().unwrap_or_default());
    let rejected = rejected.and_then(|event| event.time).or(case.pod.scheduled)?;
    let after = rejected.duration_since(started);
    (existed && !after.is_negative() && after <= ADMITS).then(|| {
        format!(
            "the kubelet was restarted at {started:.0} and admitted the pods of its node again, including this older \
             pod; this pod may have ended before, and other pods have its devices now"
        )
    })
}

/// Returns the meaning of a message of the device manager.
fn devices(case: &Case<'_>, message: &str) -> Refusal {
    let node = case.node;
    if message.contains("requested number of devices unavailable") {
        return none_free(case, message);
    }
    if message.contains("cannot allocate unregistered device") || message.contains("no healthy devices present") {
        return none_registered(case, message);
    }
    if message.contains("previously allocated devices are no longer healthy") {
        let what = "a device that was allocated to the pod before is no longer healthy";
        let action = format!("Recreate the pod. Check which GPU of {node} the device plugin reports as unhealthy.");
        return explained_by(case, &LOST, Refusal::of_node(what, action));
    }
    if message.contains("maximum request size for shared resources") {
        let action = Action {
            code: ActionCode::None,
            text: "Request one replica: the device plugin is configured to reject larger requests (failRequestsGreaterThanOne)."
                .to_owned(),
        };
        let what = "the pod requests more than one replica of a shared GPU; extra replicas add no capacity".to_owned();
        return Refusal::new(Cause::Application, what, Vec::new(), action);
    }
    if let Some(refusal) = known(case, message) {
        return refusal;
    }
    if let Some(refusal) = above_a_maximum(case, message) {
        return refusal;
    }
    if let Some(lost) = finding(case, &LOST) {
        let what = format!("the device plugin could not choose GPUs for the pod: {}", lost.headline());
        let evidence = quote(lost);
        return Refusal::new(Cause::Gpu, what, evidence, case.action_for(lost));
    }
    let action = format!("Check the device plugin's log on {node}, then recreate the pod.");
    let reading = shapes::read(message);
    let words = reading.as_ref().map_or_else(|| format!("\"{}\"", shapes::words_of(message)), Reading::quoted);
    let action = reading.map_or(action, |reading| reading.advice(node));
    let mut refusal =
        Refusal::of_node(format!("the device plugin could not allocate the pod's devices: {words}"), action);
    // The message of the plugin contains the reason of its failed call.
    if let Some((container, line)) = case.error_of_plugin() {
        let told = shapes::words_of(line);
        refusal.what = format!("{}; the log of the device plugin says: \"{told}\"", refusal.what);
        refusal.evidence.push(format!("log of container {container} (device plugin): {line}"));
        refusal.action.text = format!(
            "Resolve the error in the log of the device plugin on {node}. If the plugin crashed (panic), look for \
             this crash in the issues of the plugin, and use another version. Then recreate the pod."
        );
    }
    let half = blockers::half_requests(case);
    for one in &half {
        refusal.cause = Cause::Application;
        refusal.what = format!("{}; {}", refusal.what, one.what);
        refusal.action =
            Action { code: ActionCode::ChangeRequest, text: format!("{} Then recreate the pod.", one.advice) };
    }
    if half.is_empty() { explained_by(case, &["cdi-", "stack-", "device-plugin"], refusal) } else { refusal }
}

/// Words, in lower case, with which device plugins refuse requests above the number that they allow.
const MAXIMA: [&[&str]; 4] =
    [&["at most ", "requested"], &["maximum request"], &["cannot request more than"], &["can't request more than"]];

/// Returns the meaning of a message about the maximum number of devices of one request. A new pod with the same request
/// is rejected again.
fn above_a_maximum(case: &Case<'_>, message: &str) -> Option<Refusal> {
    let lower = message.to_ascii_lowercase();
    MAXIMA.iter().find(|words| words.iter().all(|word| lower.contains(word)))?;
    let requested = case.pod.gpus_requested;
    let asks = if requested > 0 { format!("; the pod requests {requested}") } else { String::new() };
    let words = shapes::words_of(message);
    let what =
        format!("the device plugin allows fewer devices in one request than the pod requests: \"{words}\"{asks}");
    let text =
        "Request at most the number in the message, or start the pod on a node whose GPUs are not shared in this way."
            .to_owned();
    let action = Action { code: ActionCode::ChangeRequest, text };
    Some(Refusal::new(Cause::Application, what, Vec::new(), action))
}

/// Returns the meaning of a message that the table of phrases knows. A finding about the same part of the node gives
/// the reason.
fn known(case: &Case<'_>, message: &str) -> Option<Refusal> {
    let phrase = phrases::known(Part::Admission, message)?;
    let action = Action { code: phrase.code, text: phrase.advice(case.node) };
    let what = phrase.meaning(message);
    let refusal = Refusal::new(phrase.cause, what, Vec::new(), action);
    Some(explained_by(case, &phrase.findings, refusal))
}

/// The allocations of the report are those of the rejection only if the rejection is not older.
const SAME_STATE: SignedDuration = SignedDuration::from_mins(10);

/// Explains that the kubelet has too few free devices. If the rejection is older than the report by some time, the
/// report does not prove the reason.
fn none_free(case: &Case<'_>, message: &str) -> Refusal {
    let refusal = none_free_now(case, message);
    let age = case.report.and_then(|report| report.taken_at).zip(refused_at(case));
    match age.map(|(now, at)| now.duration_since(at)).filter(|age| *age > SAME_STATE) {
        Some(age) if refusal.is_of_now => Refusal {
            certainty: Certainty::Possible,
            what: format!(
                "{} (the pod was rejected {} ago; the state of the node then is not known)",
                refusal.what,
                evidence::span(age)
            ),
            ..refusal
        },
        _ => refusal,
    }
}

/// Explains the rejection with the present state of the node.
fn none_free_now(case: &Case<'_>, message: &str) -> Refusal {
    let node = case.node;
    let kubelet = case.report.and_then(|report| Section::data_of(&report.sections.kubelet));
    let counts = kubelet.and_then(|kubelet| counts(kubelet, message));
    let counted = counts.as_ref().map(|counts| {
        let Counts { resource, registered, allocated, .. } = counts;
        format!("the kubelet on {node} has {allocated} of {registered} {resource} allocated now")
    });
    let numbers = between(message, "Requested:").zip(between(message, "Available:"));
    let numbers = numbers.map(|(asked, free)| format!(": {asked} requested, {free} available")).unwrap_or_default();
    let what = format!("the kubelet has fewer free devices than the pod requests{numbers}");
    let restart = format!("Restart the kubelet of {node} (systemctl restart kubelet), then recreate the pod.");
    if let Some(stale) = finding(case, &STALE_ALLOCATIONS) {
        let mut refusal = Refusal::of_node(format!("{what}; the kubelet counts devices of deleted pods"), restart);
        refusal.evidence = quote(stale).into_iter().chain(counted).collect();
        return refusal;
    }
    if counts.as_ref().is_some_and(|counts| counts.registered == 0) {
        let refusal = none_registered(case, message);
        return Refusal { evidence: refusal.evidence.into_iter().chain(counted).collect(), ..refusal };
    }
    let free = counts.as_ref().map(|counts| counts.free.len());
    let lost = counts.as_ref().and_then(|counts| lost_among(case, counts));
    if let Some((lost, devices)) = &lost {
        let whose = if free == Some(0) { "an allocated device" } else { "every free device" };
        let what = format!("{what}; {whose} is a GPU that cannot be used now ({devices})");
        let mut refusal = explained_by(case, &[lost.id.as_str()], Refusal::of_node(what, String::new()));
        refusal.cause = Cause::Gpu;
        refusal.evidence.extend(counted);
        refusal.is_of_now = !was_lost(case, lost);
        return refusal;
    }
    let fewer = finding(case, &["gpus-not-allocatable"]);
    // A lost GPU is the reason why fewer devices are allocatable.
    let lost = finding(case, &LOST).filter(|lost| lost.severity >= Severity::Critical);
    if let Some(lost) = lost.filter(|_| fewer.is_some() || free != Some(0)) {
        let refusal = Refusal::of_node(format!("{what}; a GPU of {node} cannot be used"), String::new());
        let mut refusal = explained_by(case, &LOST, refusal);
        refusal.cause = Cause::Gpu;
        refusal.evidence.extend(counted);
        refusal.is_of_now = !was_lost(case, lost);
        return refusal;
    }
    if let Some(fewer) = fewer.filter(|_| free != Some(0)) {
        let what = format!("{what}; not all GPUs of {node} are allocatable");
        let advice = format!("Diagnose {node}: {} Then recreate the pod.", fewer.action.text);
        let mut refusal = Refusal::of_node(what, advice);
        refusal.evidence = quote(fewer).into_iter().chain(counted).collect();
        refusal.is_of_now = true;
        return refusal;
    }
    let none_was_free = between(message, "Available:") == Some("0");
    if let Some(refusal) = just_booted(case, &what).filter(|_| none_was_free && free.is_some_and(|free| free > 0)) {
        return Refusal { evidence: refusal.evidence.into_iter().chain(counted).collect(), ..refusal };
    }
    let mut refusal = match free {
        Some(0) => Refusal::of_node(
            format!("{what}; all devices are allocated now{}", placed_by(case)),
            format!(
                "Recreate the pod. The scheduler will choose a node with free GPUs, because {node} has no free GPU."
            ),
        ),
        Some(free) => Refusal::of_node(
            what,
            format!(
                "Recreate the pod. According to the kubelet's checkpoint, {free} are free now. If it is rejected again, the state of the \
                 kubelet is stale: restart the kubelet of {node} (systemctl restart kubelet)."
            ),
        ),
        None => Refusal::of_node(
            what,
            format!(
                "Recreate the pod. If Kubernetes shows more free GPUs on {node} than the kubelet's message does, the \
                    allocations of the kubelet are stale: restart the kubelet of {node} (systemctl restart kubelet)."
            ),
        ),
    };
    refusal.evidence.extend(counted);
    refusal
}

/// Returns whether the kernel log has an event of the lost GPU from before the rejection.
fn was_lost(case: &Case<'_>, lost: &Finding) -> bool {
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid));
    let is_of_it = |event: &&KernelEvent| event.pci_address.as_ref().is_some_and(|at| lost.addresses.contains(at));
    let mut times =
        log.into_iter().flat_map(|log| &log.events).filter(is_of_it).filter_map(|event| event.first.or(event.last));
    refused_at(case).is_some_and(|refused| times.any(|time| time <= refused))
}

/// Returns a text about the scheduler that counted a device as free, if it was not the default scheduler.
fn placed_by(case: &Case<'_>) -> String {
    case.pod
        .scheduler
        .as_deref()
        .map(|name| format!(", and its scheduler, {name}, placed the pod there nevertheless"))
        .unwrap_or_default()
}

/// Returns the finding about an unusable GPU whose devices the kubelet counts, if all free devices belong to such GPUs
/// or no device is free. Also returns the names of these devices.
fn lost_among<'c>(case: &'c Case<'_>, counts: &Counts<'_>) -> Option<(&'c Finding, String)> {
    let sections = &case.report?.sections;
    let inventory = Section::data_of(&sections.inventory);
    let lost = case
        .all_findings()
        .find(|finding| finding.severity > Severity::Info && LOST.iter().any(|start| finding.id.starts_with(start)))?;
    // A device cannot be used if NVML does not list it or the driver lost it.
    let works = |device: &str| {
        inventory.is_none_or(|inventory| {
            let is_it = |uuid: &Option<String>| uuid.as_deref().is_some_and(|uuid| device.starts_with(uuid));
            let is_lost = inventory.lost.iter().any(|one| is_it(&one.uuid));
            let of_finding =
                |gpu: &GpuInventory| gpu.pci_address.as_ref().is_some_and(|at| lost.addresses.contains(at));
            let listed = inventory.gpus.iter().find(|gpu| is_it(&gpu.uuid));
            !is_lost && listed.is_some_and(|gpu| !of_finding(gpu))
        })
    };
    let considered = if counts.free.is_empty() { &counts.held } else { &counts.free };
    let broken: Vec<&str> =
        considered.iter().copied().filter(|device| device.starts_with("GPU-") && !works(device)).collect();
    let is_reason = if counts.free.is_empty() { !broken.is_empty() } else { broken.len() == counts.free.len() };
    is_reason.then(|| (lost, broken.join(", ")))
}

/// The number of registered devices of one resource, and the number that is allocated to containers.
struct Counts<'a> {
    resource: &'a str,
    registered: usize,
    allocated: usize,
    free: Vec<&'a str>,
    held: Vec<&'a str>,
}

/// Returns the kubelet's numbers for the resource that a message names. `None` for shared resources, because the
/// checkpoint counts their replicas as one device.
fn counts<'a>(kubelet: &'a Kubelet, message: &str) -> Option<Counts<'a>> {
    let named = message.split_once("unavailable for ")?.1.split_whitespace().next()?.trim_end_matches('.');
    let offers = kubelet.registered.iter().find(|registered| registered.resource == named)?;
    let held = kubelet.allocations.iter().filter(|allocation| allocation.resource == named);
    if held.clone().any(|allocation| allocation.replicas.is_some()) {
        return None;
    }
    let allocated: std::collections::BTreeSet<&String> = held.flat_map(|allocation| &allocation.devices).collect();
    let free = offers.devices.iter().filter(|device| !allocated.contains(device)).map(String::as_str).collect();
    let held = offers.devices.iter().filter(|device| allocated.contains(device)).map(String::as_str).collect();
    Some(Counts {
        resource: &offers.resource,
        registered: offers.devices.len(),
        allocated: allocated.len(),
        free,
        held,
    })
}

/// Explains a pod that the kubelet rejected shortly after the boot of its node.
fn just_booted(case: &Case<'_>, what: &str) -> Option<Refusal> {
    let node = case.node;
    let (boot, refused) = case.booted().zip(refused_at(case))?;
    let after = refused.duration_since(boot);
    if !(SignedDuration::ZERO..AFTER_BOOT).contains(&after) {
        return None;
    }
    let text = format!(
        "Delete the pod, so that it is recreated: after a boot the kubelet admits pods before the device plugin of {node} \
         has registered."
    );
    let mut refusal = Refusal::of_node(format!("its node had just booted, and {what}"), text);
    refusal.evidence.push(format!("{node} booted at {boot:.0}, {} s before the pod was rejected", after.as_secs()));
    Some(refusal)
}

/// Explains a node on which no device plugin had registered, or on which no device of the plugin was healthy.
fn none_registered(case: &Case<'_>, message: &str) -> Refusal {
    let node = case.node;
    let what = if message.contains("unregistered") {
        "no device plugin was registered when the kubelet tried to admit the pod"
    } else {
        "no healthy device was registered when the kubelet tried to admit the pod"
    };
    if let Some(refusal) = just_booted(case, what) {
        return refusal;
    }
    if let Some(lost) = finding(case, &LOST).filter(|_| !message.contains("unregistered")) {
        let what = format!("{what}: {}", lost.headline());
        let code_and_text = case.action_for(lost);
        let text = format!("{} Then recreate the pod.", code_and_text.text);
        let action = Action { text, ..code_and_text };
        return Refusal::new(Cause::Gpu, what, quote(lost), action);
    }
    let action = format!(
        "Recreate the pod when the device plugin of {node} has registered. If it was registered, check the devices that it \
         reports as unhealthy."
    );
    explained_by(
        case,
        &["stack-", "device-plugin", "gpus-not-advertised", "gpus-not-allocatable"],
        Refusal::of_node(what, action),
    )
}

/// Returns when the kubelet rejected the pod: the time of the event, or else the time at which the kubelet first saw
/// the pod.
fn refused_at(case: &Case<'_>) -> Option<Timestamp> {
    let event = case.events(&["UnexpectedAdmissionError"]).find_map(|event| event.time);
    event.or(case.pod.scheduled)
}

/// Explains that the topology manager found no set of NUMA nodes with all requested resources.
fn topology(case: &Case<'_>) -> Refusal {
    let node = case.node;
    let wanted = case.pod.gpus_requested;
    let free = case.report.and_then(|report| free_gpus::free_gpus(report, case.pod.live_pod_uids.as_deref()));
    let what = "the kubelet's topology manager found no NUMA node with all the resources that the pod requests";
    let policy = format!("the topologyManagerPolicy of the kubelet of {node} (single-numa-node, restricted)");
    let Some(free) = free.filter(|_| wanted > 0) else {
        let action = format!(
            "Recreate the pod on another node, or when GPUs of one NUMA node of {node} are free; {policy} rejects GPUs of several NUMA nodes."
        );
        return Refusal::of_node(what, action);
    };
    let (most, total) = (free.values().copied().max().unwrap_or(0), free.values().sum::<u64>());
    let listed: Vec<String> = free.iter().map(|(numa, count)| format!("{count} on NUMA node {numa}")).collect();
    let listed = listed.join(", ");
    let mut refusal = if most >= wanted {
        let action = format!(
            "Recreate the pod: {node} has {wanted} free GPUs on one NUMA node now. If it is rejected again, its CPUs, memory or \
             other devices do not fit there; {policy} requires all resources on one NUMA node."
        );
        Refusal::of_node(what, action)
    } else if total >= wanted {
        let action = format!(
            "Recreate the pod on a node with {wanted} free GPUs on one NUMA node, free {} more GPUs on one NUMA node \
                of {node}, or request at most {most}; {policy} rejects GPUs of several NUMA nodes.",
            wanted - most
        );
        Refusal::of_node(format!("{what}: {total} GPUs are free, at most {most} of them on one NUMA node"), action)
    } else {
        let action = format!("Recreate the pod on a node with {wanted} free GPUs: {node} has {total}.");
        Refusal::of_node(what, action)
    };
    refusal.evidence.push(format!("the pod requests {wanted} GPUs; free on {node} now: {listed}"));
    refusal
}

/// Returns the most severe finding whose id starts with one of these prefixes.
fn finding<'c>(case: &'c Case<'_>, starts: &[&str]) -> Option<&'c Finding> {
    case.all_findings().find(|finding| starts.iter().any(|start| finding.id.starts_with(start)))
}

/// Adds a finding that gives the reason for a rejection. The action of the finding replaces the action of the
/// rejection.
fn explained_by(case: &Case<'_>, starts: &[&str], refusal: Refusal) -> Refusal {
    let Some(finding) = finding(case, starts).filter(|finding| finding.severity > Severity::Info) else {
        return refusal;
    };
    let what = format!("{} ({})", refusal.what, finding.headline());
    let Action { code, text } = case.action_for(finding);
    let action = Action { code, text: format!("{text} Then recreate the pod.") };
    Refusal { what, evidence: quote(finding), action, ..refusal }
}

/// Returns the title and the first evidence of a finding.
fn quote(finding: &Finding) -> Vec<String> {
    let title = format!("finding {}: {}", finding.id, finding.headline());
    std::iter::once(title).chain(finding.evidence.first().cloned()).collect()
}

/// Returns the number after a word: `Requested: 1, Available: 0`.
fn between<'m>(message: &'m str, word: &str) -> Option<&'m str> {
    let rest = message.split_once(word)?.1.trim_start();
    let number = &rest[..rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len())];
    (!number.is_empty()).then_some(number)
}
