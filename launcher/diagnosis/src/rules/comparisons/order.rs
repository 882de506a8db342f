//! Rules about times that contradict each other, and about components older than a component on which they depend.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, PLUGIN_DOC, rules};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::{Component as Part, ContainerStateKind};

rules! {
    OLDER: "component-older-than-its-base" Warning Driver PLUGIN_DOC, "A component started before something on which it depends",
        UpdateSoftware "Restart the older component on {node}: the evidence shows which component this is.",
        means "A component of the node started before something on which it depends (for example, the driver or the \
            kubelet) was started or changed. The component may use an old state.",
        reads "host.nvidia_stack, host.services, host.container_runtime, host.cdi, host.uptime_seconds, topology.fabric, xid: driver loads, \
            kubernetes.nvidia_pods", about ContainerRuntime;
    IMPOSSIBLE: "times-contradict" Info Driver None, "Times of the node contradict each other",
        Watch "Check the clock of {node}: ages in this diagnosis may be wrong.",
        means "The time of a component or event on the node is before the boot or after the report: a clock was wrong.",
        reads "host.nvidia_stack, host.services, host.container_runtime, host.cdi, host.uptime_seconds";
}

/// The boot of a node, or the start or change of one of its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Boot,
    DriverLoad,
    KubeletStart,
    RuntimeStart,
    PluginSocket,
    PluginProcess,
    PluginPod,
    FeatureDiscoveryPod,
    ValidatorFile,
    /// The start of a service outside of pods, or of Fabric Manager in the driver's pod, by the kernel's name of the process.
    Service(&'static str),
}

const FABRIC_MANAGER: Event = Event::Service("nv-fabricmanage");
const IMEX: Event = Event::Service("nvidia-imex");

/// Pairs of events of which the first must be the later one. The text describes the wrong order, and names the
/// component to restart.
const DEPENDS: &[(Event, Event, &str)] = &[
    (
        Event::PluginProcess,
        Event::DriverLoad,
        "the device plugin started before the driver was loaded; restart its pod",
    ),
    (Event::PluginPod, Event::DriverLoad, "the device plugin started before the driver was loaded; restart its pod"),
    (
        Event::PluginSocket,
        Event::KubeletStart,
        "the device plugin registered before the kubelet started; restart its pod",
    ),
    (
        Event::FeatureDiscoveryPod,
        Event::DriverLoad,
        "feature discovery started before the driver was loaded; restart its pod, which writes the labels",
    ),
    (
        FABRIC_MANAGER,
        Event::DriverLoad,
        "Fabric Manager started before the driver was loaded, and not all GPUs are registered with the fabric; restart nvidia-fabricmanager",
    ),
    (IMEX, Event::DriverLoad, "IMEX started before the driver was loaded; restart nvidia-imex"),
];

/// Tolerance: the times of one start of a node differ by some seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// A process of the node cannot be older than the boot. Clocks are often set some hours after boot.
const CLOCK_SET: SignedDuration = SignedDuration::from_hours(26);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    if node.answering().next().is_none() {
        return Vec::new();
    }
    let older = DEPENDS.iter().filter_map(|(component, base, reason)| {
        let (own, base) = (time(node, *component)?, time(node, *base)?);
        // If a component seems to be older than the boot, its time was taken from a wrong clock.
        let of_this_boot = node.booted().is_some_and(|boot| own.duration_since(boot) > -TOLERANCE);
        // Fabric Manager has seen the GPUs that it registered.
        if *component == FABRIC_MANAGER && all_registered(node) {
            return None;
        }
        // A plugin that registered after the driver was loaded waited for the driver.
        let waited = !matches!(component, Event::PluginSocket | Event::Service(_))
            && time(node, Event::PluginSocket).is_some_and(|registered| registered.duration_since(base) > -TOLERANCE);
        let is_older = of_this_boot && !waited && base.duration_since(own) > TOLERANCE;
        is_older.then(|| format!("{reason} ({} and {})", evidence::time(own), evidence::time(base)))
    });
    let older: Vec<String> = older.collect();
    let mut drafts = Vec::new();
    if !older.is_empty() {
        drafts.push(Draft::on_node(OLDER).with_all_evidence(older));
    }
    let odd = impossible(node);
    if !odd.is_empty() {
        drafts.push(Draft::on_node(IMPOSSIBLE).with_all_evidence(odd));
    }
    drafts
}

/// Events that must be later than the boot, because a process, or a file in a file system in memory, does not survive a
/// reboot.
const AFTER_BOOT: &[(Event, &str)] = &[
    (Event::KubeletStart, "the kubelet"),
    (Event::RuntimeStart, "the container runtime"),
    (Event::PluginProcess, "the process of the device plugin"),
    (Event::ValidatorFile, "the files of the validator"),
    (FABRIC_MANAGER, "Fabric Manager"),
    (IMEX, "IMEX"),
    (Event::Service("nvidia-persiste"), "the persistence daemon"),
    (Event::Service("nv-hostengine"), "DCGM"),
];

/// Returns whether the GPUs that have a fabric are registered with it.
fn all_registered(node: &Node<'_>) -> bool {
    let gpus = node.topology().map(|topology| topology.gpus.as_slice()).unwrap_or_default();
    gpus.iter().filter_map(|gpu| gpu.fabric.as_ref()).all(|fabric| fabric.state == "completed")
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

/// Returns when something started or changed last.
fn time(node: &Node<'_>, event: Event) -> Option<Timestamp> {
    let host = node.host();
    let stack = || host?.nvidia_stack.as_ref();
    let runtime = || host?.container_runtime.as_ref();
    match event {
        Event::Boot => node.booted(),
        Event::DriverLoad => node.driver_loaded(),
        Event::KubeletStart => stack()?.kubelet_started_at,
        Event::RuntimeStart => runtime()?.started_at,
        Event::PluginSocket => {
            let own = stack()?.plugin_sockets.iter().flatten().filter(|socket| socket.name.contains("nvidia"));
            own.filter_map(|socket| socket.at).max()
        }
        Event::PluginProcess => {
            let own = stack()?.processes.iter().filter(|process| process.name == "nvidia-device-p");
            own.filter_map(|process| process.started_at).max()
        }
        Event::PluginPod => pod_start(node, Part::DevicePlugin),
        Event::FeatureDiscoveryPod => pod_start(node, Part::FeatureDiscovery),
        Event::ValidatorFile => stack()?.validations.iter().filter_map(|file| file.at).min(),
        // A process in a pod can choose any name, but cannot be older than the service.
        Event::Service(name) => {
            let own = host?.services.iter().filter(|process| process.name == name);
            let of_node = own.filter(|process| event == FABRIC_MANAGER || process.pod_uid.is_none());
            of_node.filter_map(|process| process.started_at).min()
        }
    }
}

/// Returns the start time of the oldest running container of a component.
fn pod_start(node: &Node<'_>, part: Part) -> Option<Timestamp> {
    let pods = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| pod.component == part && !pod.deleting);
    let containers = pods.flat_map(|pod| &pod.containers).filter(|container| !container.init);
    let running = containers.filter(|container| container.state.kind == ContainerStateKind::Running);
    running.filter_map(|container| container.state.since).min()
}

/// Removes the finding about the order of times if a finding about the runtime, the plugin or the driver gives the cause.
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
