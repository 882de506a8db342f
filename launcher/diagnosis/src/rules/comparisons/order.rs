//! Rules about times that contradict each other, and about components that started before a component that they need.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::input::order::{self, DCGM, Event, FABRIC_MANAGER, IMEX, PERSISTENCED, TOLERANCE, time};
use crate::rule::{Draft, PLUGIN_DOC, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;

rules! {
    OLDER: "component-older-than-its-base" Warning Driver PLUGIN_DOC, "A component started before a component that it needs",
        UpdateSoftware "Restart the older component on {node}: the evidence shows which component this is.",
        means "A component of the node started before something on which it depends (for example, the driver or the \
            kubelet) was started or changed. The component may use an old state.",
        reads "host.nvidia_stack, host.services, host.container_runtime, host.cdi, host.uptime_seconds, topology.fabric, xid: driver loads, \
            kubernetes.nvidia_pods", about ContainerRuntime;
    CONTAINER_OLDER: "container-older-than-driver" Warning Driver PLUGIN_DOC, "A container with GPUs started before the driver was loaded",
        RestartPod "Delete the pod in the evidence, so that a new pod starts. The container of the old pod has no \
            device files and libraries of the driver that is loaded now. After a reboot of {node}, containers can start before the driver's pod has loaded the driver.",
        means "A container with allocated GPUs started before the driver was loaded, and uses no GPU: its driver files are missing or stale.",
        reads "kubernetes.gpu_pods, xid: driver loads, processes.processes";
    IMPOSSIBLE: "times-contradict" Info Driver None, "Times of the node contradict each other",
        Watch "Check the clock of {node}: ages in this diagnosis may be wrong.",
        means "The time of a component or event on the node is before the boot or after the report: a clock was wrong.",
        reads "host.nvidia_stack, host.services, host.container_runtime, host.cdi, host.uptime_seconds";
}

/// Tolerance for processes that seem older than the boot. The clock may be wrong by hours until it is set after the
/// boot.
const CLOCK_SET: SignedDuration = SignedDuration::from_hours(26);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    if node.answering().next().is_none() {
        return Vec::new();
    }
    let older = order::older(node);
    let mut drafts = Vec::new();
    if !older.is_empty() {
        let severity = older.iter().map(|(severity, _)| *severity).max().unwrap_or(OLDER.severity);
        let lines = older.into_iter().map(|(_, line)| line);
        drafts.push(Draft::on_node(OLDER).with_severity(severity).with_all_evidence(lines));
    }
    drafts.extend(containers_before_driver(node));
    let odd = impossible(node);
    if !odd.is_empty() {
        drafts.push(Draft::on_node(IMPOSSIBLE).with_all_evidence(odd));
    }
    drafts
}

/// Events that must be later than the boot, because processes, and files in a file system in memory, do not survive a
/// reboot.
const AFTER_BOOT: &[(Event, &str)] = &[
    (Event::KubeletStart, "the kubelet"),
    (Event::RuntimeStart, "the container runtime"),
    (Event::PluginProcess, "the process of the device plugin"),
    (Event::ValidatorFile, "the files of the validator"),
    (FABRIC_MANAGER, "Fabric Manager"),
    (IMEX, "IMEX"),
    (PERSISTENCED, "the persistence daemon"),
    (DCGM, "DCGM"),
];

/// Maximum number of containers in the evidence.
const NAMED: usize = 4;

fn containers_before_driver(node: &Node<'_>) -> Option<Draft> {
    let loaded = node.driver_loaded()?;
    let older = order::containers_before_driver(node);
    let line = |(pod, container, since): &(&GpuPod, &str, Timestamp)| {
        format!(
            "pod {}, container {}: running since {}; the driver was loaded {}",
            evidence::name(&pod.full_name()),
            evidence::data(container),
            evidence::time(*since),
            evidence::time(loaded)
        )
    };
    let lines = evidence::lines(older.iter().map(line), NAMED);
    (!older.is_empty()).then(|| Draft::on_node(CONTAINER_OLDER).with_all_evidence(lines))
}

fn impossible(node: &Node<'_>) -> Vec<String> {
    let boot = time(node, Event::Boot);
    let mut lines = Vec::new();
    for (event, name) in AFTER_BOOT {
        let Some(at) = time(node, *event) else { continue };
        if boot.is_some_and(|boot| boot.duration_since(at) > CLOCK_SET) {
            lines.push(format!("{name} started at {}, before the boot of the node", evidence::time(at)));
        }
        if node.now.is_some_and(|now| at.duration_since(now) > TOLERANCE) {
            lines.push(format!("{name} started at {}, after the report was taken", evidence::time(at)));
        }
    }
    lines
}

/// Removes the finding about the order of times if a finding about the runtime, the plugin or the driver gives the
/// cause.
pub(super) fn refine(_: &Node<'_>, drafts: &mut Vec<Draft>) {
    let Some(at) = drafts.iter().position(|draft| draft.rule.id == OLDER.id) else { return };
    let explained = |draft: &Draft| {
        draft.severity >= Severity::Warning
            && draft.rule.id != OLDER.id
            && draft.rule.about == OLDER.about
            && !draft.names_gpu()
    };
    if let Some(cause) = drafts.iter().position(explained) {
        let evidence = drafts[at].evidence.clone();
        drafts[cause].evidence.extend(evidence);
        drafts.remove(at);
    }
}
