//! Rules about the state of a node in Kubernetes: not Ready, off, under pressure, rebooting, being removed, joining,
//! with warnings, or a machine without a node.
//!
//! A probe cannot run on most of these nodes. Therefore the findings quote all data of the API about the reason: the
//! condition with its message, the Lease, the pods that do not start, the machine and the warnings.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::input::processes;
use crate::input::quoted_lines::{is_covered, quoted_line};
use crate::input::stack::pods;
use crate::messages::phrases;
use crate::messages::phrases::Part;
use crate::messages::shapes;
use crate::rule::{Draft, Fault, Rule, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host_levels::FileSystem;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::lifecycle::{MachineFacts, NodeConditionFact};
use syringe_core::facts::kubernetes::node::{PodWarning, StartingPod};
use syringe_core::kernel_log::line::{Line, Parsed};
use syringe_core::kernel_log::line_parser;
use syringe_core::report::Section;
use syringe_core::text::{clean, clean_keeping_end};

rules! {
    NOT_READY: "node-not-ready" Critical Driver None, "The node is not Ready",
        Watch "Find out why {node} is not Ready (kubelet, network, disk): Kubernetes starts no pod there and evicts its pods after \
            five minutes. To read the log of the kubelet, run `journalctl -u kubelet` over SSH.",
        means "The condition Ready of the node is not true.",
        reads "kubernetes.ready, kubernetes.conditions";
    NO_NETWORK: "node-network-not-ready" Critical Driver None, "The network plugin (CNI) of the node is not ready",
        UpdateSoftware "Repair the network plugin on {node}: check the pods of its DaemonSet on the node, and its configuration in \
            /etc/cni/net.d. The kubelet is running; its log (`journalctl -u kubelet`) has details.",
        means "The node is not Ready, because the container runtime has no initialized network plugin. Only pods that \
            use the network of the host start there.",
        reads "kubernetes.ready, kubernetes.conditions, kubernetes.starting_pods";
    RUNTIME_DOWN: "node-runtime-down" Critical Driver None, "The container runtime of the node does not respond",
        UpdateSoftware "Check the container runtime on {node} over SSH (`systemctl status containerd` or `crio`, `crictl ps`, the log of the runtime, \
            the disk of the runtime), and restart the runtime.",
        means "The node is not Ready, because the kubelet gets no response from the container runtime.",
        reads "kubernetes.ready, kubernetes.conditions";
    RUNTIME_BROKEN: "node-runtime-configuration-broken" Critical Driver RUNTIME_DOC,
        "The configuration of the container runtime was not loaded",
        UpdateSoftware "Correct the configuration of the container runtime on {node} and restart the runtime. `journalctl -u containerd` (or `crio`) \
            shows why its CRI plugin was not loaded. `containerd config dump` shows the merged files. Look at the \
            last changes: the drop-in file of the container toolkit, the default handler without a definition, \
            disabled_plugins.",
        means "The container runtime responds, but without the service of the CRI (Unimplemented): its CRI plugin is disabled, or was not loaded because of the configuration. The kubelet can start no pod.",
        reads "kubernetes.ready, kubernetes.conditions";
    SILENT: "kubelet-not-reporting" Critical Driver None, "The kubelet of the node does not report",
        Watch "Find out whether {node} is up: check the console of the machine or of the cloud, then run `systemctl \
            status kubelet` and `journalctl -u kubelet` over SSH. The API shows the same state if the machine is off, \
            hung or cut off from the API server.",
        means "The kubelet stopped posting the status of the node, or never posted it: the kubelet is down, or does not reach the API server.",
        reads "kubernetes.ready, kubernetes.conditions, kubernetes.lease_renewed";
    SHUT_DOWN: "node-shut-down" Critical Driver None, "The machine of the node is off or shutting down",
        Watch "Find out who stopped the machine of {node} (cloud console, maintenance, spot reclaim). Then start the \
            machine, or delete the node.",
        means "The kubelet reports that its machine is shutting down, or the cloud reports that the machine is stopped.",
        reads "kubernetes.ready, kubernetes.conditions, kubernetes.taints";
    LEAVING: "node-leaving" Warning Driver None, "The node is being removed",
        None "No action: an autoscaler or an administrator is removing {node}. Until this has ended, do not repair \
            the node and do not return it to service.",
        means "The Node object is being deleted, or an autoscaler marked the node for removal.",
        reads "kubernetes.deleting, kubernetes.taints", in_plan NodeLeaves;
    JOINING: "node-joining" Info Driver None, "The machine has not joined the cluster yet",
        Watch "Wait: the machine {node} was created a few minutes ago. Run the diagnosis again if the machine has not joined after ten minutes.",
        means "A NodeClaim or Machine was created only minutes ago, and has no node yet.",
        reads "kubernetes.no_node, kubernetes.machines";
    NEVER_JOINED: "node-never-joined" Critical Driver None, "The machine has no node in the cluster",
        Watch "Read the conditions of the machine {node}: the first condition that is not True shows which step failed.",
        means "A NodeClaim or Machine exists, but no node of this name has joined the cluster.",
        reads "kubernetes.no_node, kubernetes.machines";
    GONE: "node-gone" Info Driver None, "The cluster has no node of this name; only events are left",
        None "No action for {node} itself. The events show why the node was removed. To list the nodes of the cluster, run gpu-syringe nodes.",
        means "There is no Node object and no machine of this name, only events or a Lease.",
        reads "kubernetes.no_node, kubernetes.warnings, kubernetes.lease_renewed";
    NOTICED: "node-warnings" Warning Driver None, "Kubernetes reports warnings about the node",
        Watch "Read the messages. It is not known whether they affect the GPUs of {node}.",
        means "In the last hours, the kubelet or a monitor reported warnings about a Ready node.",
        reads "kubernetes.warnings", depth 3;
    KERNEL_LINE: "node-event-about-gpu" Warning Hardware None, "An event of the node quotes a kernel line about a GPU",
        Watch "Look for the line in the journal of {node} at the time of the event: the kernel log that was read does not cover this time. \
            If the line is there, follow the meaning of its Xid (gpu-syringe xid).",
        means "An event of the node quotes a line of the kernel about a GPU or the host, and no kernel log of that time was read. Everyone who \
            may create events can write such a message, so it does not prove the fault.",
        reads "kubernetes.warnings, xid";
    REBOOTS: "node-reboots-repeatedly" Warning Driver None, "The node rebooted several times within a day",
        Watch "Find out why {node} reboots: read the end of the kernel log of each boot (journalctl -k -b -1, -b -2) and the hardware log (BMC). Do \
            not start long jobs there.",
        means "The kubelet reported several reboots of the node within a day.",
        reads "kubernetes.warnings";
    REBOOTED: "node-rebooted" Info Driver None, "The node rebooted",
        Watch "If nobody planned the reboot of {node}, read its hardware log (BMC) and the journal of the boot before (`journalctl -b -1`). \
            Programs that ran then have ended.",
        means "An event within the last six hours reports a new boot of the node. The event does not contain the reason.",
        reads "kubernetes.warnings";
    FLAPS: "node-ready-flaps" Warning Driver None, "The node was not Ready several times within hours",
        Watch "Find out why the kubelet of {node} stops reporting: read `journalctl -u kubelet` at the times of the events (container runtime, load, disk, network \
            to the API server). When an outage has lasted five minutes, Kubernetes evicts the pods.",
        means "The condition Ready of the node was lost several times within six hours, and the node is Ready now.",
        reads "kubernetes.warnings";
    NO_SPACE_FREED: "image-clean-up-fails" Warning Driver None, "The kubelet cannot free disk space for images",
        FixLimits "Free disk space on {node} in the file system of the images (crictl images, files of no container, \
            logs), or enlarge this file system. Its use is above the threshold, and the kubelet finds no image that \
            it may delete. DiskPressure and evictions follow.",
        means "The kubelet's image clean-up failed repeatedly within six hours.",
        reads "kubernetes.warnings";
    PRESSURE: "node-under-pressure" Critical Driver None, "The node is short of disk space, memory or process IDs",
        FixLimits "On {node}, free the resource that the condition names. Until then, the kubelet evicts pods, deletes images and accepts few new pods.",
        means "A pressure condition of the node is true: the kubelet evicts pods. Critical while the taint of the condition keeps new pods off the \
            node.",
        reads "kubernetes.conditions, host.levels.file_systems";
    CONDITION: "node-condition" Warning Driver None, "A condition of the node reports a problem",
        Watch "Check the problem that the condition reports on {node}. The log of the monitor that set the condition \
            (node-problem-detector, or a monitor of the cloud) has details.",
        means "A condition of the node other than Ready reports a problem that is not about GPUs.",
        reads "kubernetes.conditions", depth 3;
}

/// containerd's documentation of the configuration of its CRI plugin.
const RUNTIME_DOC: Option<&str> = Some("https://github.com/containerd/containerd/blob/main/docs/cri/config.md");

/// A cause of a node that is not Ready: phrases of the condition in lower case, and the rule.
const CAUSES: &[(&[&str], Rule)] = &[
    (&["node is shutting down", "nodeshutdown"], SHUT_DOWN),
    (&["unknown service runtime.v1", "code = unimplemented"], RUNTIME_BROKEN),
    (
        &["container runtime is down", "runtimeready=false", "pleg is not healthy", "containerd.sock", "crio.sock"],
        RUNTIME_DOWN,
    ),
    (&["cri-dockerd", "container runtime not ready", "runtime status check may not have completed"], RUNTIME_DOWN),
    (&["networkpluginnotready", "networkready=false", "cni plugin not initialized", "cni config"], NO_NETWORK),
    (&["networkunavailable", "network plugin is not ready", "networkingnotready"], NO_NETWORK),
    (&["kubelet stopped posting", "kubelet never posted", "nodestatusunknown", "nodestatusneverupdated"], SILENT),
];

/// Taints that show why a node is not Ready or is being removed: a part of the key, and the rule.
const TAINTS: [(&str, Rule); 5] = [
    ("node.cloudprovider.kubernetes.io/shutdown", SHUT_DOWN),
    ("ToBeDeletedByClusterAutoscaler", LEAVING),
    ("karpenter.sh/disrupted", LEAVING),
    ("karpenter.sh/disruption", LEAVING),
    ("aws-node-termination-handler/", LEAVING),
];

/// Parts of the taints with which systems remove or maintain a node, each with the action.
const REMOVED_BY: [(&str, &str); 6] = [
    ("ToBeDeletedByClusterAutoscaler", "No action: the cluster autoscaler removes {node}."),
    ("karpenter.sh/disrupt", "No action: Karpenter removes {node} and creates another node if pods need it."),
    (
        "aws-node-termination-handler/spot-itn",
        "No repair: {node} is a spot instance, and AWS takes it back within two \
        minutes.",
    ),
    (
        "aws-node-termination-handler/rebalance",
        "Move the jobs of {node} to other nodes: AWS expects to interrupt this spot instance.",
    ),
    (
        "instance-retirement",
        "Drain {node} and replace it before the announced time: AWS retires its hardware (see the scheduled events of the instance).",
    ),
    (
        "aws-node-termination-handler/scheduled-maintenance",
        "Drain {node} before the announced time: AWS maintains its host (see the scheduled events of the instance).",
    ),
];

/// Returns the finding about a taint with which a system removes the node.
fn leaving(node: &Node<'_>, rule: Rule, taint: &str) -> Draft {
    let draft = with_work(node, Draft::on_node(rule)).with_evidence(format!("taint {}", evidence::name(taint)));
    let draft = match REMOVED_BY.iter().find(|(part, _)| taint.contains(part)) {
        // A node that stays until an announced time is drained before this time.
        Some((_, advice)) if advice.starts_with("No ") => draft.with_action(ActionCode::None, *advice),
        Some((_, advice)) => draft.with_action(ActionCode::Watch, *advice),
        None => draft,
    };
    if draft.severity == Severity::Info {
        return draft;
    }
    if node.kubernetes.warnings.iter().any(|event| event.reason == FAILED_DRAIN) {
        return draft.with_action(ActionCode::Watch, DRAIN_WAITS);
    }
    let other = draft.advice.trim_start_matches("No action: ").trim_start_matches("No repair: ");
    let advice = format!("{SAVE_WORK} {}", evidence::capitalized(other));
    draft.with_action(ActionCode::Watch, advice)
}

/// Reason of the event with which Karpenter reports that a drain cannot end.
const FAILED_DRAIN: &str = "FailedDraining";

/// Action for a node that cannot be removed because of its pods.
const DRAIN_WAITS: &str = "The drain of {node} waits for pods that may not be evicted (annotation karpenter.sh/do-not-disrupt, PodDisruptionBudget). Let the \
     programs in the evidence save their state, and delete their pods when that is acceptable. The removal then continues.";

/// Action for work on a node that goes away.
const SAVE_WORK: &str = "Let the programs in the evidence save their state now: they end with {node}.";

/// Adds the programs that end with the node. Without such programs, the finding is information.
fn with_work(node: &Node<'_>, draft: Draft) -> Draft {
    match processes::in_use_by_work(node) {
        Some(work) => draft.with_evidence(work),
        None => draft.with_severity(Severity::Info),
    }
}

/// The next step for a machine without a node, selected by the first condition that is not true.
const NOT_JOINED: [(&str, &str); 7] = [
    (
        "Launched",
        "The cloud did not start the machine of {node}: see the message of the condition (capacity, quota, \
            permissions, image).",
    ),
    (
        "InfrastructureReady",
        "The cloud did not start the machine of {node}: see the message of the condition (capacity, quota, \
            permissions, image).",
    ),
    (
        "InstanceReady",
        "The cloud did not start the machine of {node}: see the message of the condition (capacity, quota, \
            permissions, image).",
    ),
    ("BootstrapConfigReady", "The bootstrap data of {node} is not ready: see the message of the condition."),
    ("BootstrapReady", "The bootstrap data of {node} is not ready: see the message of the condition."),
    (
        "Registered",
        "The machine of {node} started, but its kubelet did not register: see the console log of the machine (user data, image, network to the API \
         server, permission of its role to join).",
    ),
    (
        "Initialized",
        "The node {node} registered, but lacks resources or has start-up taints: see the message of the condition \
            (device plugin, CNI).",
    ),
];

/// A node that was created more recently than this may be joining.
const JOINING_TIME: SignedDuration = SignedDuration::from_mins(10);
/// A node that booted more recently than this may be joining.
const JOINING_SECONDS: u64 = 600;
/// Maximum length of a message. The messages of the kubelet contain several reasons.
const MESSAGE: usize = 600;
/// Maximum number of pods, machines or warnings in the evidence.
const NAMED: usize = 3;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    if node.kubernetes.no_node {
        return vec![without_node(node)];
    }
    // A node that is joining is not Ready yet.
    let up = node.host().and_then(|host| host.uptime_seconds).is_none_or(|up| up >= JOINING_SECONDS);
    if node.kubernetes.ready == Some(false) && up {
        drafts.push(not_ready(node));
    } else if let Some((taint, rule)) = taint(node).filter(|(_, rule)| rule.id == LEAVING.id) {
        drafts.push(leaving(node, rule, taint));
    } else if node.kubernetes.deleting {
        let draft = with_work(node, Draft::on_node(LEAVING));
        drafts.push(draft.with_evidence("the Node object is being deleted"));
    }
    // The finding about a node that is not Ready quotes all conditions.
    if node.kubernetes.ready != Some(false) {
        drafts.extend(others(node));
        let repeated: Vec<Draft> = repeated(node).collect();
        let is_told = |event: &PodWarning| {
            let of = |kind: &Repeated| {
                kind.reasons.contains(&event.reason.as_str())
                    && repeated.iter().any(|draft| draft.rule.id == kind.rule.id)
            };
            REPEATED.iter().any(of)
        };
        let lines = warnings(node, |event| is_noticed(node, event) && is_unread_line(node, event));
        drafts.extend((!lines.is_empty()).then(|| Draft::on_node(KERNEL_LINE).with_all_evidence(lines)));
        // A line that an event quotes is left out here, because the findings about the kernel log contain it.
        let killed = node.timeline.of_kind(KernelEventKind::OomKill).next().is_some();
        let is_separate = |event: &PodWarning| {
            let is_killed = event.reason == "SystemOOM" && killed;
            is_noticed(node, event) && !is_told(event) && !is_killed && quoted_line(&event.message).is_none()
        };
        // An event about the subject of a finding belongs to that finding.
        for draft in &mut drafts {
            draft.evidence.extend(warnings(node, |event| is_separate(event) && is_about(event, draft.rule)));
        }
        let is_joined = |event: &PodWarning| drafts.iter().any(|draft| is_about(event, draft.rule));
        let noticed = warnings(node, |event| is_separate(event) && !is_joined(event));
        let absent = warnings(node, |event| is_noticed(node, event) && is_not_in_log(node, event));
        let absent =
            absent.into_iter().map(|line| format!("{line} (the kernel log covers this time, and has no such line)"));
        let noticed: Vec<String> = noticed.into_iter().chain(absent).collect();
        let is_grave = node.kubernetes.warnings.iter().any(|event| is_grave(node, event));
        let severity = if is_grave { Severity::Warning } else { Severity::Info };
        let draft = || Draft::on_node(NOTICED).with_severity(severity).with_all_evidence(noticed.clone());
        let draft = || if is_grave { draft().with_action(ActionCode::Watch, GRAVE_ADVICE) } else { draft() };
        drafts.extend((!noticed.is_empty()).then(draft));
        let reboots = warnings(node, |event| event.reason == "Rebooted" && is_younger(node, event, NOTICED_FOR));
        let is_new = !reboots.is_empty() && !repeated.iter().any(|draft| draft.rule.id == REBOOTS.id);
        drafts.extend(is_new.then(|| Draft::on_node(REBOOTED).with_all_evidence(reboots)));
        drafts.extend(repeated);
    }
    drafts
}

/// Returns whether an event quotes a kernel line, and the log does not cover the time of the event and does not have
/// the line.
fn is_unread_line(node: &Node<'_>, event: &PodWarning) -> bool {
    let Some(Parsed::Event(line)) = quoted_line(&event.message).and_then(line_parser::parse) else { return false };
    !is_covered(node.report, event) && !is_in_log(node, &line)
}

/// Returns whether an event quotes a kernel line that the log does not have, although it covers the time of the event.
fn is_not_in_log(node: &Node<'_>, event: &PodWarning) -> bool {
    let Some(Parsed::Event(line)) = quoted_line(&event.message).and_then(line_parser::parse) else { return false };
    is_covered(node.report, event) && !is_in_log(node, &line)
}

/// Returns whether the kernel log has an event of the same kind about the same device.
fn is_in_log(node: &Node<'_>, line: &Line) -> bool {
    let is_same =
        |known: &KernelEvent| (known.kind, known.code, &known.pci_address) == (line.kind, line.code, &line.pci);
    Section::data_of(&node.report.sections.xid).is_some_and(|log| log.events.iter().any(is_same))
}

/// Events of a node that are a fault if they repeat. One reboot and one outage belong to maintenance, and a clean-up of
/// images can find nothing to delete once.
struct Repeated {
    reasons: &'static [&'static str],
    rule: Rule,
    /// The number of events within `period` at which the rule applies.
    least: u32,
    period: SignedDuration,
}

const REPEATED: [Repeated; 3] = [
    // A node that reboots after each failed job does so every few hours.
    Repeated { reasons: &["Rebooted"], rule: REBOOTS, least: 3, period: SignedDuration::from_hours(24) },
    Repeated { reasons: &["NodeNotReady"], rule: FLAPS, least: 3, period: NOTICED_FOR },
    Repeated {
        reasons: &["ImageGCFailed", "FreeDiskSpaceFailed"],
        rule: NO_SPACE_FREED,
        least: 10,
        period: NOTICED_FOR,
    },
];

/// Returns the findings about events that repeat.
fn repeated(node: &Node<'_>) -> impl Iterator<Item = Draft> {
    REPEATED.into_iter().filter_map(|Repeated { reasons, rule, least, period }| {
        let events = || {
            let warnings = node.kubernetes.warnings.iter();
            warnings.filter(|event| reasons.contains(&event.reason.as_str()) && is_younger(node, event, period))
        };
        // Several components can report the same outage in the same words. Each boot has its own message.
        let distinct: BTreeMap<&str, u32> =
            events().map(|event| (event.message.as_str(), event.count.max(1))).collect();
        let count: u32 = distinct.values().sum();
        let newest = events().max_by_key(|event| event.last)?;
        let ago = evidence::ago(pods::time_of_api(node), newest.last)?;
        let times = evidence::times(u64::from(count));
        let line = format!("event {}: {times}, the last one {ago}: {}", newest.reason, clean(&newest.message, MESSAGE));
        (count >= least).then(|| Draft::on_node(rule).with_evidence(line))
    })
}

/// A warning about a Ready node is ignored if it is older than this.
const NOTICED_FOR: SignedDuration = SignedDuration::from_hours(6);

/// Reasons of warnings that are no evidence: the condition Ready shows that the node is not Ready, and the others come
/// with each start of a kubelet.
const SAY_NOTHING: [&str; 3] = ["NodeNotReady", "Starting", "CgroupV1"];

/// Reasons of further warnings of a start. They can be evidence about a node that is not Ready.
const OF_STARTS: [&str; 4] =
    ["InvalidDiskCapacity", "Rebooted", "CheckLimitsForResolvConf", "PossibleMemoryBackedVolumesOnDisk"];

/// Reasons of warnings about a fault of the node that ends or stops programs.
const GRAVE: [&str; 5] =
    ["SystemOOM", "OOMKilling", "KernelOops", "FilesystemIsReadOnly", "FailedNodeAllocatableEnforcement"];

/// Period in which a severe warning is used.
const GRAVE_FOR: SignedDuration = SignedDuration::from_hours(1);

const GRAVE_ADVICE: &str = "Repair what the warning in the evidence reports on {node}, and look for programs that ended at its time. If memory ran out, set memory \
    limits for the pods of {node}.";

fn is_grave(node: &Node<'_>, event: &PodWarning) -> bool {
    GRAVE.contains(&event.reason.as_str()) && event.last.is_some() && is_younger(node, event, GRAVE_FOR)
}

/// Words in the reasons of events, in lower case, with the rule about the same subject.
const SUBJECTS: [(&[&str], Rule); 4] = [
    (&["route", "network", "cni"], NO_NETWORK),
    (&["spot", "interrupt", "terminat", "disrupt", "shutdown", "faileddraining"], LEAVING),
    (&["evictionthreshold", "imagegc", "freediskspace", "systemoom"], PRESSURE),
    (&["filesystem", "readonly"], CONDITION),
];

/// Returns whether an event is about the subject of a rule.
fn is_about(event: &PodWarning, rule: Rule) -> bool {
    let reason = event.reason.to_ascii_lowercase();
    let words = SUBJECTS.iter().find(|(_, own)| own.id == rule.id).map(|(words, _)| *words);
    words.is_some_and(|words| words.iter().any(|word| reason.contains(word)))
}

fn says_nothing(event: &PodWarning) -> bool {
    SAY_NOTHING.contains(&event.reason.as_str())
}

/// Returns whether a warning about a Ready node is shown.
fn is_noticed(node: &Node<'_>, event: &PodWarning) -> bool {
    is_younger(node, event, NOTICED_FOR) && !OF_STARTS.contains(&event.reason.as_str()) && !says_nothing(event)
}

/// Returns whether an event is younger than `period`, or has no known age.
fn is_younger(node: &Node<'_>, event: &PodWarning, period: SignedDuration) -> bool {
    let age = pods::time_of_api(node).zip(event.last).map(|(now, last)| now.duration_since(last));
    age.is_none_or(|age| age < period)
}

/// Returns the findings about the conditions of a Ready node.
fn others(node: &Node<'_>) -> Vec<Draft> {
    let (pressure, other): (Vec<_>, Vec<_>) =
        node.kubernetes.conditions.iter().partition(|condition| condition.name.ends_with("Pressure"));
    let of = |rule: Rule, conditions: &[&NodeConditionFact]| {
        let lines = conditions.iter().map(|condition| line(node, condition));
        let names: Vec<String> = conditions.iter().map(|condition| evidence::name(&condition.name)).collect();
        let told = conditions.iter().map(|condition| condition.message.as_str()).find(|message| !message.is_empty());
        let told = told.filter(|_| rule.id == CONDITION.id).map(|words| format!(" (\"{}\")", shapes::words_of(words)));
        let reason = Some(format!("{}{}", evidence::some(&names, NAMED), told.unwrap_or_default()));
        let draft = || Draft { reason, ..Draft::on_node(rule) };
        (!conditions.is_empty()).then(|| draft().with_all_evidence(lines))
    };
    let network = other.iter().any(|condition| condition.name == "NetworkUnavailable");
    let rule = if network { NO_NETWORK } else { CONDITION };
    // A condition with the status Unknown does not show a fault of the node. The name of a check does not show which
    // status is healthy, and the check may not apply to the machine. If there are only such conditions, the finding has
    // the severity `info`.
    let is_check = |name: &str| name.ends_with("Check") || name.ends_with("Test");
    let is_told = other.iter().any(|condition| condition.status != "Unknown" && !is_check(&condition.name));
    let severity = if is_told { Severity::Warning } else { Severity::Info };
    let draft = of(rule, &other).map(|draft| draft.with_severity(severity));
    let is_of_disk = pressure.iter().any(|condition| condition.name == "DiskPressure");
    let short = if is_of_disk { short_of_space(node) } else { Vec::new() };
    let is_of_memory = pressure.iter().all(|condition| condition.name == "MemoryPressure");
    let is_closed = pressure.iter().any(|condition| {
        let taint =
            format!("node.kubernetes.io/{}-pressure", condition.name.trim_end_matches("Pressure").to_lowercase());
        node.kubernetes.taints.iter().any(|own| own.starts_with(&taint))
    });
    let severity = if is_closed { Severity::Critical } else { Severity::Warning };
    let pressure = of(PRESSURE, &pressure).map(|draft| {
        let what = short.first().map(|line| format!(" ({line})")).unwrap_or_default();
        let reason = draft.reason.as_ref().map(|reason| format!("{reason}{what}"));
        Draft { reason, ..draft }.with_severity(severity).with_all_evidence(short.iter().cloned())
    });
    let pressure = pressure.map(|draft| match is_of_memory {
        true => Draft { rule: draft.rule.fault(Fault::OutOfMemory).depth(2), ..draft },
        false => draft,
    });
    pressure.into_iter().chain(draft).collect()
}

/// The kubelet evicts pods if less than this share of a file system is free (`imagefs.available`, by default).
const LITTLE_PERCENT: u128 = 15;

/// The kubelet evicts pods below this percentage of free inodes.
const LITTLE_INODES_PERCENT: u128 = 5;

/// Returns the file systems of the node with little free space or few free inodes.
fn short_of_space(node: &Node<'_>) -> Vec<String> {
    let levels = node.host().filter(|_| node.shows_files_of_node()).and_then(|host| host.levels.as_ref());
    let all = levels.map(|levels| levels.file_systems.as_slice()).unwrap_or_default();
    let is_short = |of: &&FileSystem| {
        !of.read_only && u128::from(of.available_bytes) * 100 < u128::from(of.total_bytes) * LITTLE_PERCENT
    };
    let paths =
        |of: &FileSystem| of.paths.iter().take(NAMED).map(|path| evidence::path(path)).collect::<Vec<_>>().join(", ");
    let line = |of: &FileSystem| {
        let (left, all) = (evidence::bytes(of.available_bytes), evidence::bytes(of.total_bytes));
        format!("{}: {left} of {all} are free", paths(of))
    };
    let without_inodes = all.iter().filter_map(|of| {
        let (left, all) = of.inodes_free.zip(of.inodes)?;
        let is_short = u128::from(left) * 100 < u128::from(all) * LITTLE_INODES_PERCENT;
        (is_short && !of.read_only).then(|| format!("{}: {left} of {all} inodes are free", paths(of)))
    });
    all.iter().filter(is_short).map(line).chain(without_inodes).take(NAMED).collect()
}

/// A container runtime that is restarted responds again within this time.
const RESTARTING: SignedDuration = SignedDuration::from_mins(10);

/// Returns whether the container runtime has not responded for some time: no pod starts or ends on the node.
fn is_without_runtime(node: &Node<'_>, rule: Rule) -> bool {
    let ready = node.kubernetes.conditions.iter().find(|condition| condition.name == "Ready");
    let age = pods::time_of_api(node).zip(ready.and_then(|ready| ready.since)).map(|(now, at)| now.duration_since(at));
    rule.id == RUNTIME_DOWN.id && age.is_some_and(|age| age > RESTARTING)
}

fn not_ready(node: &Node<'_>) -> Draft {
    let cluster = node.kubernetes;
    let (rule, taint) = cause(node);
    let joins = is_young(node, cluster.created) && rule.id != SHUT_DOWN.id;
    let mut reboots = cluster.warnings.iter().filter(|warning| warning.reason == "Rebooted");
    let reboot = reboots
        .rfind(|warning| is_young(node, warning.last))
        .and_then(|warning| evidence::ago(pods::time_of_api(node), warning.last));
    let severity = match () {
        () if joins || rule.id == LEAVING.id && processes::work(node).is_empty() => Severity::Info,
        () if reboot.is_some() => Severity::Warning,
        () if is_without_runtime(node, rule) => Severity::Critical,
        // If a probe ran, the kubelet works again or never stopped.
        () if node.host().is_some() => Severity::Warning,
        () => Severity::Critical,
    };
    let age = evidence::ago(pods::time_of_api(node), cluster.created).filter(|_| joins);
    let conditions = cluster.conditions.iter().map(|condition| line(node, condition));
    let lease = cluster.lease_renewed.and_then(|time| evidence::ago(pods::time_of_api(node), Some(time)));
    let draft = Draft::on_node(rule)
        .with_severity(severity)
        .with_all_evidence(conditions)
        .with_all_evidence(taint.map(|taint| format!("taint {}", evidence::name(taint))))
        .with_all_evidence(age.map(|age| format!("the node was created {age}, and may still be joining")))
        .with_all_evidence(lease.map(|age| format!("the kubelet last renewed its Lease {age}")));
    let draft = if draft.evidence.is_empty() {
        draft.with_evidence("the condition Ready of the node is not true")
    } else {
        draft
    };
    let draft = if rule.id == NO_NETWORK.id { draft.with_all_evidence(network_sets(node)) } else { draft };
    let draft = Draft { reason: why_none_starts(node, rule), ..draft };
    let draft = match taken_back(node).filter(|_| rule.id == SHUT_DOWN.id) {
        Some(event) => Draft {
            reason: Some(format!("its cloud takes the machine back (event {})", evidence::name(&event.reason))),
            ..draft.with_action(ActionCode::Watch, TAKEN_BACK_ADVICE)
        },
        None => draft,
    };
    let draft = match reboot.filter(|_| !joins) {
        Some(age) => {
            let advice = format!(
                "Wait some minutes and read {{node}} again: it was rebooted {age}. If it is still not Ready then: {}",
                draft.advice
            );
            draft.with_action(ActionCode::Watch, advice)
        }
        None => draft,
    };
    let starting = cluster.starting_pods.iter().flatten().filter(|pod| message(pod).is_some()).take(NAMED);
    // If a node does not report, the API shows the last reported state of its pods.
    let starting = starting.filter(|_| rule.id != SILENT.id).map(starting_line);
    draft
        .with_all_evidence(starting)
        .with_all_evidence(cluster.machines.iter().filter(|one| is_told(one)).map(machine_line))
        .with_all_evidence(warnings(node, |_| true))
}

/// Returns the newest message of the container runtime about pods of the node that did not start. It can show why the
/// network plugin is not ready, or why the node stopped reporting.
fn why_none_starts(node: &Node<'_>, rule: Rule) -> Option<String> {
    if ![NO_NETWORK.id, SILENT.id, NOT_READY.id, RUNTIME_DOWN.id, RUNTIME_BROKEN.id].contains(&rule.id) {
        return None;
    }
    let starting = node.kubernetes.starting_pods.iter().flatten();
    let starting = starting.filter_map(|pod| Some((format!("{}/{}", pod.namespace, pod.name), message(pod)?.1)));
    let of_stack = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| !pod.ready);
    let of_stack = of_stack
        .filter_map(|pod| Some((format!("{}/{}", pod.namespace, pod.name), pod.warning.as_ref()?.message.as_str())));
    // A sandbox without a network is a consequence, not the reason.
    let told = starting.chain(of_stack).filter(|(_, text)| !text.to_lowercase().contains("network"));
    told.into_iter().find_map(|(pod, text)| {
        let phrase = phrases::known(Part::Start, text)?;
        let words = shapes::read(text).map_or_else(|| shapes::words_of(text), |reading| reading.words);
        let meaning = phrase.meaning(text);
        let last = if rule.id == SILENT.id { "before that, " } else { "" };
        Some(format!("{last}pod {} could not start, because {meaning} (\"{words}\")", evidence::name(&pod)))
    })
}

/// Returns the rule for a node that is not Ready, and the taint that shows the cause.
fn cause<'a>(node: &Node<'a>) -> (Rule, Option<&'a str>) {
    if let Some((taint, rule)) = taint(node) {
        return (rule, Some(taint));
    }
    if node.kubernetes.deleting {
        return (LEAVING, None);
    }
    // The message of the condition Ready is checked first, because other conditions can have another reason.
    let conditions = &node.kubernetes.conditions;
    let (ready, others): (Vec<_>, Vec<_>) = conditions.iter().partition(|condition| condition.name == "Ready");
    let known = |condition: &&NodeConditionFact| {
        let text = format!("{} {} {}", condition.name, condition.reason, condition.message).to_lowercase();
        CAUSES.iter().find(|(words, _)| words.iter().any(|word| text.contains(word))).map(|(_, rule)| *rule)
    };
    let silent = ready.iter().any(|condition| condition.status == "Unknown").then_some(SILENT);
    let rule = ready.iter().find_map(known).or(silent).or_else(|| others.iter().find_map(known));
    let rule = rule.map(|rule| if rule.id == SILENT.id && taken_back(node).is_some() { SHUT_DOWN } else { rule });
    (rule.unwrap_or(NOT_READY), None)
}

const TAKEN_BACK_ADVICE: &str = "Nothing is to be repaired: the cloud takes spot and preemptible machines back. Wait for a new machine of the pool, and let the jobs \
     start from their last checkpoint.";

/// Reasons of events about a machine that its cloud takes back (GKE, AKS, Karpenter, node termination handlers).
const TAKEN_BACK: [&str; 6] =
    ["PreemptScheduled", "Preempted", "InstancePreempted", "SpotInterruption", "SpotInterrupted", "PreemptionNotice"];

/// Maximum time between such an event and the last report of the kubelet.
const TAKEN_BACK_WITHIN: SignedDuration = SignedDuration::from_mins(15);

/// Returns the event about the end of a spot machine whose kubelet stopped reporting at that time.
fn taken_back<'a>(node: &Node<'a>) -> Option<&'a PodWarning> {
    let cluster = node.kubernetes;
    let ready = cluster.conditions.iter().find(|condition| condition.name == "Ready");
    let stopped = ready.and_then(|ready| ready.since).or_else(|| pods::time_of_api(node));
    cluster.warnings.iter().find(|event| {
        let apart = stopped.zip(event.last).map(|(stopped, at)| stopped.duration_since(at).abs());
        TAKEN_BACK.contains(&event.reason.as_str()) && apart.is_some_and(|apart| apart < TAKEN_BACK_WITHIN)
    })
}

/// Returns the first taint that shows why the node is not Ready or is being removed.
fn taint<'a>(node: &Node<'a>) -> Option<(&'a str, Rule)> {
    let known = |taint: &'a String| {
        TAINTS.iter().find(|(key, _)| taint.starts_with(key)).map(|(_, rule)| (taint.as_str(), *rule))
    };
    node.kubernetes.taints.iter().find_map(known)
}

/// Returns whether an object was created so recently that its node may be joining.
fn is_young(node: &Node<'_>, created: Option<Timestamp>) -> bool {
    let age = pods::time_of_api(node).zip(created).map(|(now, created)| now.duration_since(created));
    // The API server reports its time in whole seconds, so an object created in the same second can seem to be in the
    // future.
    age.is_some_and(|age| age.abs() < JOINING_TIME)
}

/// Returns the finding about a name without a Node object.
fn without_node(node: &Node<'_>) -> Draft {
    let cluster = node.kubernetes;
    let Some(machine) = cluster.machines.first() else {
        let lease = cluster.lease_renewed.and_then(|time| evidence::ago(pods::time_of_api(node), Some(time)));
        return Draft::on_node(GONE)
            .with_all_evidence(lease.map(|age| format!("the kubelet last renewed its Lease {age}")))
            .with_all_evidence(warnings(node, |_| true));
    };
    let rule = match () {
        () if machine.deleting => LEAVING,
        () if is_young(node, machine.created) && machine.failure.is_none() => JOINING,
        () => NEVER_JOINED,
    };
    let lines = cluster.machines.iter().map(machine_line);
    let draft = Draft::on_node(rule).with_all_evidence(lines).with_all_evidence(warnings(node, |_| true));
    let first = NOT_JOINED.iter().find(|(name, _)| machine.conditions.iter().any(|condition| condition.name == *name));
    match first.filter(|_| rule.id == NEVER_JOINED.id) {
        Some((_, advice)) => draft.with_action(ActionCode::Watch, *advice),
        None => draft,
    }
}

/// Parts of the names of DaemonSets of network plugins.
const NETWORK: [&str; 14] = [
    "cni",
    "calico",
    "canal",
    "cilium",
    "flannel",
    "weave",
    "aws-node",
    "kube-router",
    "ovn",
    "antrea",
    "multus",
    "kindnet",
    "tigera",
    "netd",
];

/// Returns the states of the DaemonSets of network plugins that have no ready pod on the node.
fn network_sets(node: &Node<'_>) -> Vec<String> {
    let sets = node.kubernetes.daemon_sets.iter().flatten().filter(|set| set.mismatch.is_none());
    let sets = sets.filter(|set| NETWORK.iter().any(|word| set.name.contains(word)));
    let lines = sets.filter_map(|set| {
        let name = evidence::object(&set.namespace, &set.name);
        match &set.pod {
            None => Some(format!("DaemonSet {name} fits the node, but has no pod on it")),
            Some(pod) if pod.ready => None,
            Some(pod) => Some(format!("DaemonSet {name}: {}", pods::failing(node, pod)?.description())),
        }
    });
    lines.take(NAMED).collect()
}

/// Formats a condition: `Ready is False since … (KubeletNotReady: message)`.
fn line(node: &Node<'_>, condition: &NodeConditionFact) -> String {
    let NodeConditionFact { name, status, reason, message, since } = condition;
    let since =
        evidence::ago(pods::time_of_api(node), *since).map(|age| format!(", changed {age}")).unwrap_or_default();
    let why = [reason, message].into_iter().filter(|text| !text.is_empty()).map(|text| clean(text, MESSAGE));
    let why = why.collect::<Vec<_>>().join(": ");
    format!("{} is {}{since} ({why})", evidence::data(name), evidence::data(status))
}

/// Returns the message about a pod that does not start.
fn message(pod: &StartingPod) -> Option<(&str, &str)> {
    let of_event = pod.warning.as_ref().map(|event| (event.reason.as_str(), event.message.as_str()));
    let of_container = || Some((pod.reason.as_deref()?, pod.message.as_deref()?));
    of_event.or_else(of_container)
}

fn starting_line(pod: &StartingPod) -> String {
    let (reason, text) = message(pod).unwrap_or_default();
    let name = evidence::object(&pod.namespace, &pod.name);
    format!("pod {name} does not start: {}: {}", evidence::data(reason), clean_keeping_end(text, MESSAGE))
}

/// Returns whether the state of a machine is informative for its node.
fn is_told(machine: &MachineFacts) -> bool {
    machine.deleting || machine.failure.is_some() || !machine.conditions.is_empty()
}

fn machine_line(machine: &MachineFacts) -> String {
    let MachineFacts { kind, name, phase, failure, deleting, conditions, .. } = machine;
    let phase = phase.as_deref().map(|phase| format!(", phase {}", evidence::data(phase))).unwrap_or_default();
    let deleting = if *deleting { ", being deleted" } else { "" };
    let conditions = conditions.iter().map(|condition| {
        let NodeConditionFact { name, status, reason, message, .. } = condition;
        let why = [reason, message].into_iter().filter(|text| !text.is_empty()).map(|text| clean(text, MESSAGE));
        format!("{} is {} ({})", evidence::data(name), evidence::data(status), why.collect::<Vec<_>>().join(": "))
    });
    let state: Vec<_> = failure.iter().map(|text| clean(text, MESSAGE)).chain(conditions).collect();
    format!("{} {}{phase}{deleting}: {}", evidence::data(kind), evidence::name(name), state.join("; "))
}

/// Returns the newest warnings with the messages of the events.
fn warnings(node: &Node<'_>, is_shown: impl Fn(&PodWarning) -> bool) -> Vec<String> {
    let mut told: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    let shown = node.kubernetes.warnings.iter().filter(|event| !says_nothing(event) && is_shown(event));
    for event in shown {
        if told.contains(&event.reason.as_str()) || lines.len() == NAMED {
            continue;
        }
        told.push(&event.reason);
        let age = evidence::ago(pods::time_of_api(node), event.last).map(|age| format!(", {age}")).unwrap_or_default();
        let times =
            if event.count > 1 { format!(" ({})", evidence::times(u64::from(event.count))) } else { String::new() };
        lines.push(format!(
            "event {}{times}{age}: {}",
            evidence::data(&event.reason),
            clean_keeping_end(&event.message, MESSAGE)
        ));
    }
    lines
}
