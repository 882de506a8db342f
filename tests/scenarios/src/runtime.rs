//! Scenarios of the container runtime and CDI: working drivers, but containers without GPUs, and similar nodes.

use syringe_core::facts::cdi::{CdiSpec, StaleDevice};
use syringe_core::facts::container_runtime::RuntimeHandler;
use syringe_core::facts::kubernetes::node::NvidiaPod;

use crate::kubernetes::{plugin_pod, runtime_class};
use crate::prelude::*;
use crate::stack::{
    CONFIG, HOST, Runtime, TOOLKIT, containerd, nvidia, of_earlier_driver, plugin_stack, spec, spec_at, stack,
};

const PLUGIN: &str = "gpu-operator/nvidia-device-plugin-daemonset-x7p2q";
const NOT_HARDWARE: [&str; 2] = ["class:hardware", "gpu-missing-from-nvml"];
const MANAGEMENT: (&str, &str) = ("/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu");
const OF_PLUGIN: (&str, &str) =
    ("/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "k8s.device-plugin.nvidia.com/gpu");

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        critical_for_pods(
            "runtime-without-the-handler",
            "The handler that pods of the operator use is missing in the configuration.",
        )
        .must(finding("runtime-handler-missing").evidence(["has no handler nvidia; it has runc", PLUGIN]))
        .must_not(NOT_HARDWARE)
        .must_not(["runtime-config-not-loaded"])
        .more()
        .cluster(with_class("nvidia", none_offered()))
        .node(|| unregistered(containerd(CONFIG, 2, []))),
        unknown("runtime-of-which-a-part-is-unread", "A missing handler may be in a file that could not be read.")
            .must_not(ANY_WARNING)
            .unknown("not all of the configuration of containerd could be read: handler nvidia")
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(containerd(CONFIG, 2, []).partly_read())),
        healthy("runtime-that-nobody-asks-for-nvidia", "No pod uses the RuntimeClass, so no handler is missing.")
            .must_not(ANY_WARNING)
            .cluster(offered())
            .node(|| registered(containerd(CONFIG, 2, []).without_toolkit())),
        healthy("runtime-class-of-another-name", "The RuntimeClass and the handler have different names.")
            .must_not(ANY_WARNING)
            .cluster(with_class("nvidia-gpu", offered()))
            .node(|| registered(containerd(CONFIG, 2, [nvidia(HOST)]))),
        critical_for_pods("runtime-program-is-gone", "The configuration refers to a program that was removed.")
            .must(finding("runtime-binary-missing").evidence([TOOLKIT]))
            .must_not(NOT_HARDWARE)
            .more()
            .cluster(with_class("nvidia", none_offered()))
            .node(|| unregistered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary())),
        warning_for_pods("runtime-program-of-a-part-of-the-files", "The program is missing, and a file was not read.")
            .must(
                finding("runtime-binary-missing").severity(Warning).evidence(["not all of the configuration was read"]),
            )
            .must_not(NOT_HARDWARE)
            .must_not(["severity:critical"])
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary().partly_read())),
        healthy("runtime-program-that-nobody-runs", "The program of an unused handler does not exist.")
            .must_not(ANY_WARNING)
            .cluster(offered())
            .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary())),
        warning_for_pods(
            "runtime-program-removed",
            "The container toolkit was removed, but its handler is still configured.",
        )
        .must(finding("runtime-binary-missing").severity(Warning))
        .must_not(NOT_HARDWARE)
        .more()
        .cluster(offered())
        .node(|| {
            let runtime = containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary().without_toolkit();
            registered(runtime.with(|runtime| runtime.cdi_enabled = Some(false)))
                .host(|host| (host.container_toolkit, host.cdi_spec) = (None, None))
        }),
        critical_for_pods("runtime-handler-without-a-type", "A drop-in of an older toolkit does not set runtime_type.")
            .must(finding("runtime-handler-incomplete").evidence(["no runtime_type", "99-nvidia.toml"]))
            .must_not(NOT_HARDWARE)
            .more()
            .cluster(with_class("nvidia", none_offered()))
            .node(|| {
                let handler = RuntimeHandler { runtime_type: None, ..nvidia(TOOLKIT) };
                unregistered(containerd(CONFIG, 3, [handler]).drop_in("/etc/containerd/conf.d/99-nvidia.toml"))
            }),
        critical_for_pods("runtime-with-its-old-configuration", "containerd started before the handler was written.")
            .must(finding("runtime-config-not-loaded").evidence([CONFIG, "containerd has been running since"]))
            .must_not(NOT_HARDWARE)
            .more()
            .cluster(with_class("nvidia", none_offered()))
            .node(|| unregistered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).changed_since_start())),
        healthy("runtime-whose-file-was-touched", "The file is newer than containerd. The node advertises its GPUs.")
            .must(finding("runtime-config-not-loaded").severity(Info))
            .must_not(ANY_WARNING)
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).changed_since_start())),
        critical_for_pods("plugin-in-the-wrong-runtime", "The device plugin uses the handler runc and finds no GPU.")
            .must(
                finding("runtime-class-missing-on-plugin")
                    .evidence(["sets no RuntimeClass; the default handler is runc"]),
            )
            .must_not(NOT_HARDWARE)
            .more()
            .cluster(with_plugin("nvidia-device-plugin-x7p2q", none_offered()))
            .node(|| {
                unregistered(containerd(CONFIG, 2, [nvidia(HOST)])).nvidia_stack(stack(
                    [],
                    "nvidia-device-p",
                    Some("plugin"),
                ))
            }),
        healthy("plugin-in-the-default-runtime", "A plugin without a RuntimeClass. NVIDIA's runtime is the default.")
            .must_not(any_warning_and(["runtime-class-missing-on-plugin"]))
            .cluster(with_plugin("nvidia-device-plugin-x7p2q", offered()))
            .node(|| registered(containerd(CONFIG, 2, [nvidia(HOST)]).default_handler("nvidia"))),
        critical_for_pods("cdi-never-written", "There is no CDI specification, but NVIDIA's runtime needs one.")
            .must(finding("cdi-missing").evidence(["/etc/cdi", "mode = \"cdi\""]))
            .must_not(NOT_HARDWARE)
            .more()
            .cluster(none_offered())
            .node(|| unregistered(default_runtime("cdi"))),
        healthy("cdi-that-nobody-needs", "There is no CDI specification, and NVIDIA's runtime needs none.")
            .must_not(ANY_WARNING)
            .cluster(offered())
            .node(|| registered(default_runtime("auto"))),
        critical_for_pods("cdi-with-old-numbers", "The CDI specification contains an old device number of nvidia-uvm.")
            .must(finding("cdi-stale").evidence(["/dev/nvidia-uvm is 511:0 in the specification, 507:0 on the node"]))
            .must_not(NOT_HARDWARE)
            .cluster(offered())
            .node(|| registered(default_runtime("cdi")).cdi([with_old_number(spec())])),
        healthy("cdi-left-behind", "NVIDIA's runtime does not use an old CDI specification.")
            .must(finding("cdi-stale").severity(Info))
            .must_not(ANY_WARNING)
            .cluster(offered())
            .node(|| {
                let old = of_earlier_driver(with_old_number(spec_at("/etc/cdi/nvidia.yaml", "nvidia.com/gpu")));
                registered(default_runtime("legacy")).cdi([old])
            }),
        healthy("cdi-replaced-by-a-later-one", "A CDI specification in /var/run/cdi replaces an old one.")
            .must_not(any_warning_and(["cdi-stale"]))
            .cluster(offered())
            .node(|| {
                let old = of_earlier_driver(spec_at("/etc/cdi/nvidia.yaml", "nvidia.com/gpu"));
                registered(default_runtime("cdi")).cdi([old, spec()])
            }),
        critical_for_pods("cdi-of-the-driver-before", "The CDI specification mounts libraries of the earlier driver.")
            .must(finding("cdi-stale").evidence(["libcuda.so.550.90.07", "for driver 550.90.07"]))
            .must_not(NOT_HARDWARE)
            .cluster(offered())
            .node(|| {
                let missing_libraries = vec!["/usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07".to_owned()];
                registered(default_runtime("cdi")).cdi([CdiSpec { missing_libraries, ..of_earlier_driver(spec()) }])
            }),
        critical_for_pods("cdi-with-other-names", "The CDI specification has only `all`. The plugin allocates UUIDs.")
            .must(
                finding("cdi-names-differ")
                    .evidence(["management.nvidia.com-gpu.yaml has all only", "management.nvidia.com/gpu=GPU-"]),
            )
            .must_not(NOT_HARDWARE)
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(operator_runtime("management.nvidia.com/gpu")).cdi([management()])),
        healthy("cdi-of-the-operators-own", "A CDI specification with only `all`, for the containers of the operator.")
            .must_not(any_warning_and(["cdi-names-differ"]))
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(operator_runtime("nvidia.com/gpu")).cdi([management(), spec()])),
        healthy("cdi-of-the-plugin-itself", "A CDI specification with only `all`. The device plugin has a second one.")
            .must_not(any_warning_and(["cdi-names-differ"]))
            .cluster(with_class("nvidia", offered()))
            .node(|| {
                let node = registered(operator_runtime("management.nvidia.com/gpu"));
                let devices = node.gpu_uuids();
                node.cdi([management(), CdiSpec { devices, ..spec_at(OF_PLUGIN.0, OF_PLUGIN.1) }])
            }),
        critical_for_pods("cdi-written-twice", "Two CDI specifications in one folder contain the same devices.")
            .must(
                finding("cdi-conflict")
                    .evidence(["/etc/cdi/nvidia.yaml and /etc/cdi/other.yaml both have nvidia.com/gpu=0"]),
            )
            .must_not(NOT_HARDWARE)
            .cluster(offered())
            .node(|| {
                let specs = ["/etc/cdi/nvidia.yaml", "/etc/cdi/other.yaml"].map(|path| spec_at(path, "nvidia.com/gpu"));
                registered(default_runtime("cdi")).cdi(specs)
            }),
        warning_for_pods("cdi-that-is-broken", "The CDI specification that NVIDIA's runtime needs is not valid YAML.")
            .must(finding("cdi-unreadable").evidence(["/etc/cdi/nvidia.yaml"]))
            .must_not(NOT_HARDWARE)
            .must_not(["cdi-missing"])
            .cluster(offered())
            .node(|| registered(default_runtime("cdi")).cdi_unread("/etc/cdi/nvidia.yaml")),
        healthy("cdi-beside-a-broken-one", "A CDI specification of a different vendor could not be read.")
            .must_not(any_warning_and(["cdi-unreadable"]))
            .unknown("/etc/cdi/mine.yaml could not be read")
            .cluster(offered())
            .node(|| registered(default_runtime("cdi")).cdi([spec()]).cdi_unread("/etc/cdi/mine.yaml")),
        warning_for_pods("runtime-that-will-lose-its-handler", "The handler was removed after containerd started.")
            .must(finding("runtime-handler-missing").severity(Warning).evidence(["written after the runtime started"]))
            .must_not(NOT_HARDWARE)
            .cluster(with_class("nvidia", offered()))
            .node(|| registered(containerd(CONFIG, 2, []).changed_since_start())),
        critical_for_pods(
            "cdi-of-a-plugin-that-was-not-restarted",
            "The CDI specification of the device plugin is older than the driver.",
        )
        .must(finding("cdi-stale").evidence(["k8s.device-plugin.nvidia.com-gpu.json", "for driver 550.90.07"]))
        .must_not(NOT_HARDWARE)
        .cluster(offered())
        .node(|| registered(containerd(CONFIG, 2, [])).cdi([of_earlier_driver(spec_at(OF_PLUGIN.0, OF_PLUGIN.1))])),
        healthy("cdi-of-a-plugin-that-is-gone", "The CDI specification of a removed plugin is older than the driver.")
            .must(finding("cdi-stale").severity(Info))
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts { gpu_dra: Some(true), ..none_offered() })
            .node(|| {
                unregistered(containerd(CONFIG, 2, [])).cdi([of_earlier_driver(spec_at(OF_PLUGIN.0, OF_PLUGIN.1))])
            }),
        critical("plugin-without-any-nvidia-runtime", "GKE's plugin is not registered. It needs no NVIDIA runtime.")
            .must_not(["runtime-class-missing-on-plugin", "class:hardware"])
            .more()
            .cluster(with_plugin("nvidia-gpu-device-plugin-small-cos-x7p2q", none_offered()))
            .node(|| {
                unregistered(containerd(CONFIG, 2, []).without_toolkit()).nvidia_stack(stack(
                    [],
                    "nvidia-device-p",
                    Some("plugin"),
                ))
            }),
    ]
}

/// Returns the facts of a node whose GPUs are all allocatable in Kubernetes.
fn offered() -> KubernetesFacts {
    KubernetesFacts { gpu_capacity: Some(2), gpu_allocatable: Some(2), ..none_offered() }
}

/// Returns the facts of a node that has no GPU capacity in Kubernetes.
fn none_offered() -> KubernetesFacts {
    let (gpu_plugin_in_cluster, runtime_classes) = (Some(true), Some(Vec::new()));
    KubernetesFacts { gpu_plugin_in_cluster, runtime_classes, ..cluster("gpu-l40s-9") }
}

/// Returns a node with two GPUs that the device plugin registered.
fn registered(runtime: Runtime) -> Node {
    l40s(2).container_runtime(runtime).cdi([]).nvidia_stack(plugin_stack(["nvidia-gpu.sock"]))
}

/// Returns a node with two working GPUs and without a registered device plugin.
fn unregistered(runtime: Runtime) -> Node {
    registered(runtime).without_jobs().nothing_registered().nvidia_stack(plugin_stack([]))
}

/// Returns containerd with NVIDIA's runtime as the default handler, in this mode.
fn default_runtime(mode: &str) -> Runtime {
    containerd(CONFIG, 2, [nvidia(HOST)]).default_handler("nvidia").mode(mode)
}

/// Returns containerd with the toolkit of the GPU Operator, which uses CDI devices of this kind.
fn operator_runtime(kind: &str) -> Runtime {
    containerd(CONFIG, 2, [nvidia(TOOLKIT)]).mode("cdi").kind(kind)
}

/// Returns the specification that the GPU Operator uses for its own containers.
fn management() -> CdiSpec {
    CdiSpec { devices: vec!["all".to_owned()], ..spec_at(MANAGEMENT.0, MANAGEMENT.1) }
}

fn with_old_number(spec: CdiSpec) -> CdiSpec {
    let uvm = StaleDevice { path: "/dev/nvidia-uvm".to_owned(), in_spec: text("511:0"), on_node: text("507:0") };
    CdiSpec { stale_devices: vec![uvm], ..spec }
}

/// Adds a device plugin pod without a RuntimeClass to the node.
fn with_plugin(name: &str, facts: KubernetesFacts) -> KubernetesFacts {
    let plugin = NvidiaPod {
        uid: "0f8a7c2e-11aa-4bbb-8ccc-123456789abc".to_owned(),
        created: Some(ago(hours(3))),
        containers: Vec::new(),
        ..plugin_pod(&format!("kube-system/{name}"))
    };
    KubernetesFacts { nvidia_pods: Some(vec![plugin]), ..facts }
}

/// Sets the RuntimeClass that the device plugin pod uses.
fn with_class(name: &str, facts: KubernetesFacts) -> KubernetesFacts {
    KubernetesFacts { runtime_classes: runtime_class(name, PLUGIN), ..facts }
}

impl Node {
    /// Adds a CDI specification that could not be read.
    fn cdi_unread(self, path: &str) -> Self {
        self.host(|host| host.cdi.get_or_insert_default().unread = vec![path.to_owned()])
    }
}
