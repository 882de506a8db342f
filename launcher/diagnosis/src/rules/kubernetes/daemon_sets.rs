//! Rules about DaemonSets that match the node but have no pod on it, or a pod that is not ready.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::{Draft, Rule, Unread, rules};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::text::clean_keeping_end;
use syringe_core::unknown::Unknown;

rules! {
    about Workload;
    MISSING: "daemonset-pod-missing" Warning Driver None, "A DaemonSet that matches the node has no pod on the node",
        Watch "Find out why the DaemonSet has no pod on {node}: `kubectl describe daemonset` shows its events (quota, admission, \
            scheduling).",
        means "The name, node selector, affinity and tolerations of a DaemonSet fit the node, but the DaemonSet has no pod there. The \
            finding is a warning for GPU software, and informational for other software.",
        reads "kubernetes.daemon_sets";
    NOT_READY: "daemonset-pod-not-ready" Warning Driver None, "The pod of a DaemonSet on the node is not ready",
        Watch "Correct the cause that the evidence shows on {node}. To see all events of the pod, run `kubectl \
            describe pod`.",
        means "A DaemonSet has a pod on the node that does not become ready. The finding is a warning for GPU software and for network \
            and storage plugins, and informational for other software.",
        reads "kubernetes.daemon_sets", depth 3;
}

/// A DaemonSet or node younger than this may still be creating pods.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);
/// Maximum length of a message. Schedulers write the reasons of all nodes into one message.
const MESSAGE: usize = 600;
/// Maximum number of DaemonSets in the evidence.
const NAMED: usize = 4;

/// Components that the rules about NVIDIA's stack check in order. Those rules report the first component that fails.
const JUDGED_IN_ORDER: [Component; 5] = [
    Component::Driver,
    Component::ContainerToolkit,
    Component::Validator,
    Component::DevicePlugin,
    Component::DraDriver,
];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let sets = node.kubernetes.daemon_sets.as_deref().unwrap_or_default();
    if !pods::is_settled(node) || is_young(node, node.kubernetes.created) {
        return Vec::new();
    }
    let fitting = || sets.iter().filter(|set| set.mismatch.is_none() && !is_young(node, set.created));
    let refused = |set: &DaemonSetFacts| {
        let reason = stack_log::of_controller(set.refusal.as_deref()?, &full_name(set))?;
        Some((format!("{}: {}", full_name(set), reason.cause?), reason.action))
    };
    let missing: Vec<_> =
        fitting().filter_map(|set| Some((severity(node, set), missing(node, set)?, refused(set)))).collect();
    // Pods of NVIDIA's software whose DaemonSets are not known, for example because they could not be listed.
    let others = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| {
        let is_of = |set: &&DaemonSetFacts| set.pod.as_ref().is_some_and(|own| own.uid == pod.uid);
        pod.component != Component::Other && !sets.iter().any(|set| is_of(&set)) && !is_young(node, pod.created)
    });
    let others = others.map(|pod| DaemonSetFacts {
        namespace: pod.namespace.clone(),
        name: pod.owner.clone(),
        role: DaemonSetRole::GpuStack,
        pod: Some(pod.clone()),
        ..DaemonSetFacts::default()
    });
    let not_ready: Vec<_> = fitting()
        .cloned()
        .chain(others)
        .filter_map(|set| {
            let (line, why) = not_ready(node, &set)?;
            Some((severity(node, &set), line, why))
        })
        .collect();
    [drafts(MISSING, missing), drafts(NOT_READY, not_ready)].into_iter().flatten().collect()
}

/// Returns an entry if the DaemonSets could not be read. The verdict does not depend on this entry, because the
/// resources and pods of the node show most missing software.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let why = node.kubernetes.daemon_sets_unread.iter();
    why.map(|why| Unread { fact: Unknown::new("daemonsets", why.clone()), decides: false }).collect()
}

/// The reason of a problem, and the action for the reason.
type Why = (String, Option<(ActionCode, String)>);

/// Returns one finding for each severity.
fn drafts(rule: Rule, found: Vec<(Severity, String, Option<Why>)>) -> Vec<Draft> {
    let of = |severity: Severity| {
        let lines: Vec<String> =
            found.iter().filter(|(own, ..)| *own == severity).map(|(_, line, _)| line.clone()).collect();
        let reason = found.iter().filter(|(own, ..)| *own == severity).find_map(|(.., why)| why.clone());
        let (reason, action) = reason.unzip();
        let draft = Draft { reason, ..Draft::on_node(rule) }.with_severity(severity);
        let draft = match action.flatten() {
            Some((code, advice)) => draft.with_action(code, advice),
            None => draft,
        };
        (!lines.is_empty()).then(|| draft.with_all_evidence(evidence::lines(lines, NAMED)))
    };
    [Severity::Warning, Severity::Info].into_iter().filter_map(of).collect()
}

/// Returns the severity. Missing GPU software on a node is worse than another missing DaemonSet. If a program gets no
/// GPU because all GPUs are in use, the node has no fault.
fn severity(node: &Node<'_>, set: &DaemonSetFacts) -> Severity {
    let has_gpus = !node.gpus.is_empty() || node.stack.advertises_gpus || node.kubernetes.labels.pci_present;
    // The components after a broken component wait for that component.
    let waits = set.pod.is_some() && node.stack.broken.is_some();
    match set.role {
        _ if is_vital(set) && set.pod.is_some() => Severity::Warning,
        role if role.is_of_stack() && has_gpus && !waits => Severity::Warning,
        DaemonSetRole::UsesGpus if has_gpus && set.pod.is_none() && set.refusal.is_none() => Severity::Warning,
        _ => Severity::Info,
    }
}

/// Parts of the names of DaemonSets without which pods of the node have no network or volumes.
const VITAL: [&str; 10] =
    ["kube-proxy", "csi", "calico", "cilium", "flannel", "aws-node", "azure-cni", "kube-router", "weave", "antrea"];

/// Returns whether pods of the node need the pod of a DaemonSet.
fn is_vital(set: &DaemonSetFacts) -> bool {
    VITAL.iter().any(|part| set.name.contains(part)) && !set.name.contains("hubble")
}

fn missing(node: &Node<'_>, set: &DaemonSetFacts) -> Option<String> {
    // If the plugin is a service of the node, its DaemonSet is not needed.
    let replaced = set.role == DaemonSetRole::GpuPlugin && crate::input::stack::plugin_service(node).is_some();
    if set.pod.is_some() || replaced || set.rolling_out && set.refusal.is_none() {
        return None;
    }
    let why = set.refusal.as_deref().map(|text| format!(": {}", clean_keeping_end(text, MESSAGE))).unwrap_or_default();
    Some(format!("DaemonSet {} has no pod on the node{why}", full_name(set)))
}

/// For a DaemonSet whose pod is not ready, returns the name of the DaemonSet, the state of the pod, and the reason.
fn not_ready(node: &Node<'_>, set: &DaemonSetFacts) -> Option<(String, Option<Why>)> {
    let pod = set.pod.as_ref().filter(|pod| !pod.ready && !pod.deleting)?;
    let own = node.stack.broken.as_ref().is_some_and(|broken| broken.failing_pod.pod.uid == pod.uid);
    if own || JUDGED_IN_ORDER.contains(&pod.component) {
        return None;
    }
    let failing = pods::failing(node, pod)?;
    let warning = warning(node, pod).or_else(|| failing.warning());
    let reason = stack_log::reason(node, &failing).or_else(|| stack_log::of_image(warning.as_deref()?));
    let why = reason.and_then(|reason| Some((reason.cause?, reason.action)));
    let warning = warning.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
    let reason = why.as_ref().map(|(cause, _)| format!("; {cause}")).unwrap_or_default();
    let line = format!("DaemonSet {}: {}{warning}{reason}", full_name(set), failing.description());
    Some((line, why.map(|(cause, action)| (format!("{}: {cause}", full_name(set)), action))))
}

/// Returns the warning about a pod that has not started, from the facts about starting pods.
fn warning(node: &Node<'_>, pod: &NvidiaPod) -> Option<String> {
    let starting = node.kubernetes.starting_pods.iter().flatten();
    let same = starting.into_iter().find(|one| one.name == pod.name && one.namespace == pod.namespace)?;
    let event = same.warning.as_ref()?;
    Some(format!("event {}: {}", evidence::data(&event.reason), clean_keeping_end(&event.message, MESSAGE)))
}

fn full_name(set: &DaemonSetFacts) -> String {
    evidence::object(&set.namespace, &set.name)
}

fn is_young(node: &Node<'_>, created: Option<Timestamp>) -> bool {
    let age = pods::time_of_api(node).zip(created).map(|(now, created)| now.duration_since(created));
    age.is_some_and(|age| age < YOUNG)
}
