//! `Event`, `time`: the boot of a node, or the start or change of a component, and its time.
//! `older`, `containers_before_driver`, `written_after_toolkit`: find components, containers and files in the wrong
//! order. `EDGES`: the table of the required order.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::kubernetes::node::{Component as Part, ContainerStateKind};

/// The boot of a node, or the start or change of one of its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Boot,
    DriverLoad,
    KubeletStart,
    RuntimeStart,
    /// The last change of the container runtime's configuration.
    RuntimeConfiguration,
    PluginSocket,
    PluginProcess,
    /// The start of the oldest running container of a component.
    Pod(Part),
    ValidatorFile,
    /// The start of a service outside of pods, or of Fabric Manager in the driver pod, by the process name in the
    /// kernel.
    Service(&'static str),
}

pub(crate) const FABRIC_MANAGER: Event = Event::Service("nv-fabricmanage");
pub(crate) const IMEX: Event = Event::Service("nvidia-imex");
pub(crate) const PERSISTENCED: Event = Event::Service("nvidia-persiste");
pub(crate) const DCGM: Event = Event::Service("nv-hostengine");
const MPS: Event = Event::Service("nvidia-cuda-mps");
const TOOLKIT: Event = Event::Service("nvidia-toolkit");

/// A component that must start after another component.
struct Edge {
    component: Event,
    base: Event,
    severity: Severity,
    /// Description of the wrong order, and the component to restart.
    reason: &'static str,
}

const fn edge(component: Event, base: Event, severity: Severity, reason: &'static str) -> Edge {
    Edge { component, base, severity, reason }
}

/// The order of the components. The persistence daemon is not in the list: its start can load the driver.
const EDGES: &[Edge] = &[
    edge(
        Event::PluginProcess,
        Event::DriverLoad,
        Severity::Warning,
        "the device plugin started before the driver was loaded; restart its pod",
    ),
    edge(
        Event::Pod(Part::DevicePlugin),
        Event::DriverLoad,
        Severity::Warning,
        "the device plugin started before the driver was loaded; restart its pod",
    ),
    edge(
        Event::PluginSocket,
        Event::KubeletStart,
        Severity::Warning,
        "the device plugin registered before the kubelet started; restart its pod",
    ),
    edge(
        Event::Pod(Part::FeatureDiscovery),
        Event::DriverLoad,
        Severity::Warning,
        "feature discovery started before the driver was loaded; restart its pod, which writes the labels",
    ),
    edge(
        FABRIC_MANAGER,
        Event::DriverLoad,
        Severity::Warning,
        "Fabric Manager started before the driver was loaded, and not all GPUs are registered with the fabric; restart nvidia-fabricmanager",
    ),
    edge(IMEX, Event::DriverLoad, Severity::Warning, "IMEX started before the driver was loaded; restart nvidia-imex"),
    edge(
        DCGM,
        Event::DriverLoad,
        Severity::Info,
        "DCGM started before the driver was loaded; restart nvidia-dcgm if it shows no GPU",
    ),
    edge(
        Event::Pod(Part::Monitoring),
        Event::DriverLoad,
        Severity::Info,
        "a monitoring pod started before the driver was loaded; restart it if it shows no GPU",
    ),
    edge(
        MPS,
        Event::DriverLoad,
        Severity::Info,
        "the MPS control daemon started before the driver was loaded; restart it if its clients fail",
    ),
    edge(
        Event::ValidatorFile,
        Event::DriverLoad,
        Severity::Info,
        "the files of the operator's validator are from before the driver was loaded; delete the validator's pod, so that it checks again",
    ),
];

/// Tolerance: the times of one start of a node differ by seconds.
pub(crate) const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// The toolkit writes the configuration of the runtime within this time after its start.
const WRITES_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Returns the components that started before their base, with the severity and a description that contains both times.
pub(crate) fn older(node: &Node<'_>) -> Vec<(Severity, String)> {
    let older = EDGES.iter().filter_map(|edge| {
        let (own, base) = (time(node, edge.component)?, time(node, edge.base)?);
        // If all GPUs are registered, the start order of Fabric Manager had no effect.
        if edge.component == FABRIC_MANAGER && all_registered(node) {
            return None;
        }
        // If the plugin registered after the driver was loaded, it waited for the driver.
        let waits =
            matches!(edge.component, Event::PluginProcess | Event::Pod(Part::DevicePlugin | Part::FeatureDiscovery));
        let waited = waits
            && time(node, Event::PluginSocket).is_some_and(|registered| registered.duration_since(base) > -TOLERANCE);
        let is_older = is_of_this_boot(node, own) && !waited && base.duration_since(own) > TOLERANCE;
        let times = format!("({} and {})", evidence::time(own), evidence::time(base));
        is_older.then(|| (edge.severity, format!("{} {times}", edge.reason)))
    });
    older.collect()
}

/// Returns the containers with GPUs that started before the driver was loaded and do not use a GPU now: pod, container
/// and start time.
pub(crate) fn containers_before_driver<'a>(node: &Node<'a>) -> Vec<(&'a GpuPod, &'a str, Timestamp)> {
    let (Some(loaded), Some(processes)) = (node.driver_loaded(), node.processes()) else { return Vec::new() };
    let uses = |pod: &GpuPod| {
        let mut all = processes.processes.iter();
        all.any(|process| process.pod_uid.as_deref() == Some(pod.uid.as_str()) && !process.uses.is_empty())
    };
    let pods = node.kubernetes.gpu_pods.iter().flatten();
    let pods = pods.filter(|pod| !pod.is_node_software && !pod.deleting && pod.phase == "Running" && !uses(pod));
    let older = pods.flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    older
        .filter_map(|(pod, container)| Some((pod, container.name.as_str(), container.running_since?)))
        .filter(|(.., since)| is_of_this_boot(node, *since) && loaded.duration_since(*since) > TOLERANCE)
        .collect()
}

/// Returns a line if the configuration of the container runtime changed after the container toolkit had written it.
pub(crate) fn written_after_toolkit(node: &Node<'_>) -> Option<String> {
    let changed = time(node, Event::RuntimeConfiguration)?;
    let toolkit =
        [Event::Pod(Part::ContainerToolkit), TOOLKIT].into_iter().filter_map(|event| time(node, event)).max()?;
    let later = changed.duration_since(toolkit);
    let file = node.host()?.container_runtime.as_ref()?.config_changed_path.as_deref();
    let file = file.map_or_else(|| "the configuration of the container runtime".to_owned(), evidence::path);
    (later > WRITES_WITHIN).then(|| {
        format!(
            "{file} was written {}, {} after the start of the container toolkit, which writes this file only at its start: another program wrote it",
            evidence::time(changed),
            evidence::span(later)
        )
    })
}

/// Returns whether a start belongs to the running boot. If a component seems older than the boot, its time comes from a
/// wrong clock.
fn is_of_this_boot(node: &Node<'_>, start: Timestamp) -> bool {
    node.booted().is_some_and(|boot| start.duration_since(boot) > -TOLERANCE)
}

/// Returns whether all GPUs with a fabric are registered with it.
fn all_registered(node: &Node<'_>) -> bool {
    let gpus = node.topology().map(|topology| topology.gpus.as_slice()).unwrap_or_default();
    gpus.iter().filter_map(|gpu| gpu.fabric.as_ref()).all(|fabric| fabric.state == "completed")
}

/// Returns the time of the last start or change.
pub(crate) fn time(node: &Node<'_>, event: Event) -> Option<Timestamp> {
    let host = node.host();
    let stack = || host?.nvidia_stack.as_ref();
    let runtime = || host?.container_runtime.as_ref();
    match event {
        Event::Boot => node.booted(),
        Event::DriverLoad => node.driver_loaded(),
        Event::KubeletStart => stack()?.kubelet_started_at,
        Event::RuntimeStart => runtime()?.started_at,
        Event::RuntimeConfiguration => runtime()?.config_changed_at,
        Event::PluginSocket => {
            let own = stack()?.plugin_sockets.iter().flatten().filter(|socket| socket.name.contains("nvidia"));
            own.filter_map(|socket| socket.at).max()
        }
        Event::PluginProcess => {
            let own = stack()?.processes.iter().filter(|process| process.name == "nvidia-device-p");
            own.filter_map(|process| process.started_at).max()
        }
        Event::Pod(part) => pod_start(node, part),
        Event::ValidatorFile => stack()?.validations.iter().filter_map(|file| file.at).min(),
        // A process in a pod can choose any name, but it cannot be older than the service.
        Event::Service(name) => {
            let own = host?.services.iter().filter(|process| process.name == name);
            let of_pods = [FABRIC_MANAGER, TOOLKIT].contains(&event);
            let of_node = own.filter(|process| of_pods || process.pod_uid.is_none());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Facts that contain a time (`file: field`), and what uses the time: an event of the graph, or another comparison.
    const USES: &[(&str, &str)] = &[
        ("cdi: changed_at", "evidence: a specification is compared with the driver by its content"),
        ("container_runtime: started_at", "RuntimeStart; runtime-config-not-loaded"),
        ("container_runtime: config_changed_at", "RuntimeConfiguration; runtime-config-not-loaded"),
        ("driver_load: at", "evidence: a denial of this boot"),
        ("host: written_at", "old logs of services are not judged"),
        ("kernel_log: first", "Timeline"),
        ("kernel_log: from", "coverage of the log"),
        ("kernel_log: last", "Timeline; DriverLoad"),
        ("kernel_log: not_before", "coverage of the log"),
        ("kernel_log: since", "coverage of the log"),
        ("kernel_log: to", "coverage of the log"),
        ("nvidia_stack: kubelet_started_at", "KubeletStart"),
        (
            "nvidia_stack: at",
            "PluginSocket; ValidatorFile; a DRA driver registers again with each start of the kubelet",
        ),
        ("nvidia_stack: started_at", "PluginProcess; Service"),
        ("processes: started_at", "fabric-manager-restarted-under-jobs; lines of the kernel log"),
        ("stack_log: changed_at", "evidence"),
        ("kubernetes/compute_domain: created", "age"),
        ("kubernetes/daemon_set: created", "age"),
        ("kubernetes/gpu_pod: created", "age"),
        ("kubernetes/gpu_pod: deletion_due", "pod-stays-terminating"),
        ("kubernetes/gpu_pod: observed", "age"),
        ("kubernetes/gpu_pod: running_since", "container-older-than-driver"),
        ("kubernetes/lifecycle: at", "age"),
        ("kubernetes/lifecycle: created", "age"),
        ("kubernetes/lifecycle: since", "age"),
        ("kubernetes/node: at", "age of the failure of a pod"),
        ("kubernetes/node: created", "age"),
        ("kubernetes/node: deletion_due", "a pod of the stack that stays in Terminating"),
        ("kubernetes/node: last", "age of a warning"),
        ("kubernetes/node: lease_renewed", "age"),
        ("kubernetes/node: read_at", "the present"),
        ("kubernetes/node: ready_since", "age"),
        ("kubernetes/node: since", "Pod; runtime-restarted; age"),
    ];

    /// Returns the fields of type `Option<Timestamp>` in the files of a folder.
    fn time_facts(folder: &Path, prefix: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).expect("the folder of the facts").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().into_string().expect("UTF-8");
            if entry.path().is_dir() {
                found.extend(time_facts(&entry.path(), &format!("{prefix}{name}/")));
            } else if name != "pod.rs" {
                let text = std::fs::read_to_string(entry.path()).expect("a file");
                let fields = text.lines().filter_map(|line| line.trim().strip_suffix(": Option<Timestamp>,"));
                let fields = fields.filter_map(|field| field.strip_prefix("pub "));
                found.extend(fields.map(|field| format!("{prefix}{}: {field}", name.trim_end_matches(".rs"))));
            }
        }
        found
    }

    /// The facts of a pod that is explained (`pod.rs`) are used by the explanation only, and are not in the graph of a
    /// node.
    #[test]
    fn each_fact_with_a_time_has_a_use() {
        let facts = time_facts(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/facts")), "");
        let listed: BTreeSet<String> = USES.iter().map(|(fact, _)| (*fact).to_owned()).collect();
        assert_eq!(facts, listed);
    }
}
