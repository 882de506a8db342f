//! Whether the node's GPUs are offered to pods, and which link of the way there broke first: NVIDIA's stack on the node, from
//! the API's view of its pods and labels, and from what the probe found.
//!
//! Other families judge driver, runtime and counts by themselves. [`apply`] joins them afterwards: of a way that is broken, the
//! first link is told with its reason, and nothing of a later link.

mod broken;
mod chain;
mod operator;
mod pods;
mod set_up;

use super::draft::Draft;
use super::node::Node;
use super::rules::{OPERATOR_DOC, PLUGIN_DOC, TOOLKIT_ISSUE, rules};
use super::stack_link::StackLink;
use super::{Component, Severity};
use broken::Broken;

rules! {
    BROKEN_DRIVER: "stack-broken-at-driver" Critical Driver OPERATOR_DOC, "The driver pod does not start",
        UpdateSoftware "Read the log of the driver pod on {node}: nothing of NVIDIA's stack starts before it.";
    BROKEN_TOOLKIT: "stack-broken-at-toolkit" Critical Driver OPERATOR_DOC, "The container toolkit's pod does not start",
        UpdateSoftware "Read the log of the container toolkit's pod on {node}: the device plugin waits for it.";
    BROKEN_VALIDATOR: "stack-broken-at-validator" Critical Driver OPERATOR_DOC,
        "The GPU Operator's validation does not succeed",
        UpdateSoftware "Read the log of the validation on {node}: what comes after it waits for its success.";
    BROKEN_PLUGIN: "stack-broken-at-plugin" Critical Driver PLUGIN_DOC, "The device plugin does not offer the GPUs",
        UpdateSoftware "Read the log of the device plugin's pod on {node}.";
    NOT_DEPLOYED: "stack-not-deployed" Fatal Driver OPERATOR_DOC, "NVIDIA's stack is not deployed on the node",
        UpdateSoftware "Let node feature discovery label {node} again: is its worker running there (kubectl get pods -A \
            --field-selector spec.nodeName={node}), and does it report PCI devices by vendor (sources.pci, \
            deviceLabelFields)? The GPU Operator deploys nothing without the label.";
    TWO_PLUGINS: "two-device-plugins" Warning Driver PLUGIN_DOC, "Two device plugins serve the same GPUs",
        UpdateSoftware "Keep one device plugin on {node}: the kubelet uses the one that registered last, and both give out the \
            same GPUs. Remove the DaemonSet from this node (its nodeSelector or affinity), or turn the built-in one off.";
    MIG_WEDGED: "mig-manager-wedged" Critical Driver OPERATOR_DOC, "The MIG manager did not finish",
        UpdateSoftware "Drain the GPU pods from {node}, then let the MIG manager try again: kubectl label node {node} \
            nvidia.com/mig.config=LAYOUT --overwrite. If gpu.deploy labels stay paused, set them to true.";
    UPGRADE_STUCK: "driver-upgrade-stuck" Warning Driver OPERATOR_DOC, "An upgrade of the driver does not go on",
        UpdateSoftware "End what holds the GPUs of {node} (or let the operator do it: driver.upgradePolicy.gpuPodDeletion and \
            drain), then delete the driver pod there.";
    INOTIFY: "inotify-limit-reached" Critical Driver PLUGIN_DOC, "No inotify instance is left",
        UpdateSoftware "Raise the limit on {node}: sysctl -w fs.inotify.max_user_instances=8192 (and in /etc/sysctl.d), then \
            delete the device plugin's pod.";
    RUNTIME_RESTARTED: "runtime-restarted" Warning Driver TOOLKIT_ISSUE,
        "The container toolkit restarts the container runtime again and again",
        UpdateSoftware "Find out why the toolkit's pod on {node} restarts: each start of it writes the runtime's configuration \
            and restarts the runtime under the running pods.";
}

/// Findings of the driver family that say why there is no driver. The more specific ones take the place of the first two.
const DRIVER_RULES: [&str; 13] = [
    "driver-not-loaded",
    "driver-not-found",
    "driver-version-mismatch",
    "nvml-library-missing",
    "nvml-access-blocked",
    "nvml-not-answering",
    "nvml-failed",
    "driver-nouveau",
    "driver-wrong-flavour",
    "driver-refused-by-secure-boot",
    "driver-refused-by-selinux",
    "driver-not-built-for-kernel",
    "gpu-init-failed",
];

/// Those of them that do not say why.
const DRIVER_ABSENT: [&str; 2] = ["driver-not-loaded", "driver-not-found"];

/// GPUs that work, and that the node does not offer.
const NOT_ADVERTISED: &str = "gpus-not-advertised";

/// Findings that say no more than that the GPUs are not offered.
const CONSEQUENCES: [&str; 3] = [NOT_ADVERTISED, "gpus-not-allocatable", "mig-without-instances"];

/// Whether the finding says why containers get no GPU from the container runtime.
fn is_runtime_rule(id: &str) -> bool {
    id != RUNTIME_RESTARTED.id && (id.starts_with("runtime-") || id.starts_with("cdi-"))
}

/// What the labels and the set-up say by themselves.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    if is_passed_through(node) {
        return Vec::new();
    }
    let own = [operator::mig_wedged(node), operator::upgrade_stuck(node), set_up::two_plugins(node)];
    own.into_iter().chain([set_up::runtime_restarted(node)]).flatten().collect()
}

/// The chain of links, as far as what was read tells.
pub(super) fn links(node: &Node<'_>, drafts: &[Draft]) -> Vec<StackLink> {
    let broken = broken::first(node).filter(|_| !is_offered(node));
    chain::links(node, drafts, broken.as_ref())
}

/// UID and container of the log that may say more, as far as the API tells.
pub(super) fn log_wanted(node: &Node<'_>) -> Option<(String, String)> {
    broken::log_wanted(node).map(|(pod, container)| (pod.uid.clone(), container.to_owned()))
}

/// Leaves one finding of a way that is broken: that of its first link.
pub(super) fn apply(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    if is_passed_through(node) || !pods::is_settled(node) {
        return;
    }
    let broken = broken::first(node);
    if let Some(absent) = drafts.iter().position(|draft| DRIVER_RULES.contains(&draft.rule.id) && !is_mild(draft)) {
        if node.answering().next().is_none() {
            if let Some(draft) = drafts.get_mut(absent) {
                *draft = driver_absent(node, draft.clone(), broken.as_ref());
            }
            return;
        }
    }
    let unoffered = if is_offered(node) { Vec::new() } else { evidence_of_consequences(drafts) };
    let reason = drafts.iter().position(|draft| is_reason(node, draft));
    if let Some(at) = reason {
        if let Some(draft) = drafts.get_mut(at) {
            *draft = draft.clone().with_all_evidence(unoffered);
        }
        drafts.retain(|draft| !is_consequence(draft));
        return;
    }
    let found = set_up::not_deployed(node, &unoffered)
        .or_else(|| set_up::inotify(node, &unoffered))
        .or_else(|| Some(broken?.draft(node, unoffered)));
    match found {
        Some(draft) => {
            drafts.retain(|draft| !is_consequence(draft) || is_offered(node));
            drafts.push(draft);
        }
        None => {
            let not_advertised = drafts.iter_mut().find(|draft| draft.rule.id == NOT_ADVERTISED);
            if let Some(draft) = not_advertised {
                *draft = set_up::why_no_plugin(node, draft.clone());
            }
        }
    }
}

fn is_mild(draft: &Draft) -> bool {
    draft.severity < Severity::Critical
}

/// Whether another family's finding, or one of the labels, says why nothing is offered.
fn is_reason(node: &Node<'_>, draft: &Draft) -> bool {
    let of_labels = [MIG_WEDGED.id, UPGRADE_STUCK.id].contains(&draft.rule.id);
    draft.severity >= Severity::Warning && !is_offered(node) && (of_labels || is_runtime_rule(draft.rule.id))
}

fn is_consequence(draft: &Draft) -> bool {
    CONSEQUENCES.contains(&draft.rule.id)
}

fn evidence_of_consequences(drafts: &[Draft]) -> Vec<String> {
    let of = drafts.iter().filter(|draft| is_consequence(draft));
    of.flat_map(|draft| draft.evidence.iter().cloned()).collect()
}

/// A driver that is absent, with what NVIDIA's stack says about it.
fn driver_absent(node: &Node<'_>, draft: Draft, broken: Option<&Broken<'_>>) -> Draft {
    let unexplained = DRIVER_ABSENT.contains(&draft.rule.id);
    if let Some(of_stack) = set_up::not_deployed(node, &draft.evidence).filter(|_| unexplained) {
        return of_stack.with_severity(draft.severity);
    }
    if let Some(words) = set_up::driver_is_off(node).filter(|_| unexplained) {
        return draft.with_evidence(words);
    }
    let Some(broken) = broken.filter(|broken| broken.trouble.pod.component == Component::Driver) else { return draft };
    let explained = broken.explain(node, draft.clone().with_evidence(broken.words.clone()));
    // A finding that knows why keeps its own advice.
    if unexplained { explained } else { explained.with_action(draft.action, draft.advice) }
}

/// Whether every GPU is bound to vfio-pci: it belongs to virtual machines, and no driver of the host.
fn is_passed_through(node: &Node<'_>) -> bool {
    node.host().is_some_and(|host| {
        !host.pci_gpus.is_empty() && host.pci_gpus.iter().all(|gpu| gpu.driver.as_deref() == Some("vfio-pci"))
    })
}

/// Whether pods can get GPUs of this node in any way.
fn is_offered(node: &Node<'_>) -> bool {
    let cluster = node.cluster;
    let plain = cluster.gpu_capacity.is_some_and(|count| count > 0) && cluster.gpu_allocatable != Some(0);
    plain || cluster.other_gpu_resources || cluster.gpu_dra == Some(true)
}
