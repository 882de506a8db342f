//! Container runtime and CDI: nodes whose driver works and whose containers do not get their GPUs, and nodes that look like them.

use serde_json::{Value, json};
use syringe_core::facts::cdi::{CdiSpec, StaleDevice};
use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};

use crate::kubernetes::Cluster;
use crate::prelude::*;
use crate::stack::{
    CONFIG, HOST, RuntimeChanges as _, TOOLKIT, containerd, nvidia, of_earlier_driver, plugin_stack, spec, spec_at,
    stack,
};

const PLUGIN: &str = "gpu-operator/nvidia-device-plugin-daemonset-x7p2q";
const NOT_HARDWARE: [&str; 2] = ["class:hardware", "gpu-not-in-nvml"];
const MANAGEMENT: (&str, &str) = ("/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu");
const OF_PLUGIN: (&str, &str) =
    ("/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "k8s.device-plugin.nvidia.com/gpu");

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        critical(
            "runtime-without-the-handler",
            "The operator's pods use the handler nvidia. The configuration of containerd was rewritten without it.",
        )
        .must(finding("runtime-handler-missing").evidence(["has no handler nvidia; it has runc", PLUGIN]))
        .must_not(NOT_HARDWARE)
        .must_not(["runtime-config-not-loaded"])
        .more()
        .healthy_gpus()
        .cluster(none_offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| unregistered(containerd(CONFIG, 2, []))),
        healthy(
            "runtime-of-which-a-part-is-unread",
            "The same, and a file of the configuration could not be read: it can contain the handler.",
        )
        .must_not(QUIET)
        .unknown("not all of the configuration of containerd could be read: handler nvidia")
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(containerd(CONFIG, 2, []).partly_read())),
        healthy(
            "runtime-that-nobody-asks-for-nvidia",
            "No pod of the node uses the RuntimeClass, and nothing is missing.",
        )
        .must_not(QUIET)
        .cluster(offered())
        .node(|| registered(containerd(CONFIG, 2, []).without_toolkit())),
        healthy(
            "runtime-class-of-another-name",
            "The RuntimeClass has another name than the handler, and could not be read: no alarm.",
        )
        .must_not(QUIET)
        .cluster(offered().runtime_class("nvidia-gpu", [PLUGIN]))
        .node(|| registered(containerd(CONFIG, 2, [nvidia(HOST)]))),
        critical(
            "runtime-program-is-gone",
            "The toolkit was removed from the node. The configuration still has its program.",
        )
        .must(finding("runtime-binary-missing").evidence([TOOLKIT]))
        .must_not(NOT_HARDWARE)
        .more()
        .healthy_gpus()
        .cluster(none_offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| unregistered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary())),
        warning(
            "runtime-program-of-a-part-of-the-files",
            "The same, and a file that can have another program could not be read.",
        )
        .must(finding("runtime-binary-missing").severity("warning").evidence(["not all of the configuration was read"]))
        .must_not(NOT_HARDWARE)
        .must_not(["severity:critical"])
        .healthy_gpus()
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary().partly_read())),
        healthy("runtime-program-that-nobody-runs", "The program of a handler that no pod uses does not exist.")
            .must_not(QUIET)
            .cluster(offered())
            .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).without_binary())),
        critical(
            "runtime-handler-without-a-type",
            "containerd 2 with a drop-in of an older toolkit: the handler has no runtime_type, so no pod can start.",
        )
        .must(finding("runtime-handler-incomplete").evidence(["no runtime_type", "99-nvidia.toml"]))
        .must_not(NOT_HARDWARE)
        .more()
        .healthy_gpus()
        .cluster(none_offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| {
            let handler = RuntimeHandler { runtime_type: None, ..nvidia(TOOLKIT) };
            unregistered(containerd(CONFIG, 3, [handler]).with_drop_in("/etc/containerd/conf.d/99-nvidia.toml"))
        }),
        warning(
            "runtime-with-its-old-configuration",
            "The file has the handler, and containerd started before it was written.",
        )
        .must(finding("runtime-config-not-loaded").evidence([CONFIG, "containerd has been running since"]))
        .must_not(NOT_HARDWARE)
        .more()
        .healthy_gpus()
        .cluster(none_offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| unregistered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).changed_since_start())),
        healthy(
            "runtime-whose-file-was-touched",
            "The configuration file is newer than the process of containerd, and the node offers its GPUs.",
        )
        .must(finding("runtime-config-not-loaded").severity("info"))
        .must_not(QUIET)
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(containerd(CONFIG, 2, [nvidia(TOOLKIT)]).changed_since_start())),
        critical(
            "plugin-in-the-wrong-runtime",
            "The device plugin uses no RuntimeClass, and the default handler is runc: it finds no GPU.",
        )
        .must(
            finding("runtime-class-missing-on-plugin").evidence(["names no RuntimeClass; the default handler is runc"]),
        )
        .must_not(NOT_HARDWARE)
        .more()
        .healthy_gpus()
        .cluster(none_offered().with("nvidia_pods", json!([plugin_pod("nvidia-device-plugin-x7p2q")])))
        .node(|| {
            unregistered(containerd(CONFIG, 2, [nvidia(HOST)])).nvidia_stack(stack(
                [],
                "nvidia-device-p",
                Some("plugin"),
            ))
        }),
        healthy("plugin-in-the-default-runtime", "The same device plugin, and NVIDIA's runtime is the default one.")
            .must_not(QUIET)
            .must_not(["runtime-class-missing-on-plugin"])
            .cluster(offered().with("nvidia_pods", json!([plugin_pod("nvidia-device-plugin-x7p2q")])))
            .node(|| registered(containerd(CONFIG, 2, [nvidia(HOST)]).with_default("nvidia"))),
        critical("cdi-never-written", "The specification was not written at boot, and NVIDIA's runtime needs it.")
            .must(finding("cdi-missing").evidence(["/etc/cdi", "mode = \"cdi\""]))
            .must_not(NOT_HARDWARE)
            .more()
            .healthy_gpus()
            .cluster(none_offered())
            .node(|| unregistered(default_runtime("cdi"))),
        healthy("cdi-that-nobody-needs", "There is no specification, and NVIDIA's runtime needs none.")
            .must_not(QUIET)
            .cluster(offered())
            .node(|| registered(default_runtime("auto"))),
        critical(
            "cdi-with-old-numbers",
            "The driver was reloaded and nvidia-uvm has another number. The specification has the old one.",
        )
        .must(finding("cdi-stale").evidence(["/dev/nvidia-uvm is 511:0 there, 507:0 on the node"]))
        .must_not(NOT_HARDWARE)
        .healthy_gpus()
        .cluster(offered())
        .node(|| registered(default_runtime("cdi")).cdi([with_old_number(spec())])),
        healthy(
            "cdi-left-behind",
            "An old specification is in /etc/cdi and not used: NVIDIA's runtime has the mode legacy.",
        )
        .must(finding("cdi-stale").severity("info"))
        .must_not(QUIET)
        .cluster(offered())
        .node(|| {
            let old = of_earlier_driver(with_old_number(spec_at("/etc/cdi/nvidia.yaml", "nvidia.com/gpu")));
            registered(default_runtime("legacy")).cdi([old])
        }),
        healthy(
            "cdi-replaced-by-a-later-one",
            "The current specification in /var/run/cdi replaces the old one in /etc/cdi.",
        )
        .must_not(QUIET)
        .must_not(["cdi-stale"])
        .cluster(offered())
        .node(|| {
            let old = of_earlier_driver(spec_at("/etc/cdi/nvidia.yaml", "nvidia.com/gpu"));
            registered(default_runtime("cdi")).cdi([old, spec()])
        }),
        critical(
            "cdi-of-the-driver-before",
            "The driver was updated, and the specification mounts the libraries of the earlier one.",
        )
        .must(finding("cdi-stale").evidence(["libcuda.so.550.90.07", "of driver 550.90.07"]))
        .must_not(NOT_HARDWARE)
        .healthy_gpus()
        .cluster(offered())
        .node(|| {
            let missing_libraries = vec!["/usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07".to_owned()];
            registered(default_runtime("cdi")).cdi([CdiSpec { missing_libraries, ..of_earlier_driver(spec()) }])
        }),
        critical(
            "cdi-with-other-names",
            "The operator's specification has only the device `all`, and the device plugin allocates GPUs by UUID.",
        )
        .must(
            finding("cdi-names-differ")
                .evidence(["management.nvidia.com-gpu.yaml has all only", "management.nvidia.com/gpu=GPU-"]),
        )
        .must_not(NOT_HARDWARE)
        .healthy_gpus()
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(operator_runtime("management.nvidia.com/gpu")).cdi([management()])),
        healthy(
            "cdi-of-the-operators-own",
            "The same specification is for the operator's own containers. Others get their GPUs by UUID.",
        )
        .must_not(QUIET)
        .must_not(["cdi-names-differ"])
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(operator_runtime("nvidia.com/gpu")).cdi([management(), spec()])),
        healthy(
            "cdi-of-the-plugin-itself",
            "The device plugin has its own specification. It does not use that of the operator.",
        )
        .must_not(QUIET)
        .must_not(["cdi-names-differ"])
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| {
            let node = registered(operator_runtime("management.nvidia.com/gpu"));
            let devices = node.gpu_uuids();
            node.cdi([management(), CdiSpec { devices, ..spec_at(OF_PLUGIN.0, OF_PLUGIN.1) }])
        }),
        critical("cdi-written-twice", "Two tools wrote a specification of the same devices to one folder.")
            .must(
                finding("cdi-conflict")
                    .evidence(["/etc/cdi/nvidia.yaml and /etc/cdi/other.yaml both have nvidia.com/gpu=0"]),
            )
            .must_not(NOT_HARDWARE)
            .healthy_gpus()
            .cluster(offered())
            .node(|| {
                let specs = ["/etc/cdi/nvidia.yaml", "/etc/cdi/other.yaml"].map(|path| spec_at(path, "nvidia.com/gpu"));
                registered(default_runtime("cdi")).cdi(specs)
            }),
        warning("cdi-that-is-broken", "The specification that NVIDIA's runtime needs is not valid YAML.")
            .must(finding("cdi-unreadable").evidence(["/etc/cdi/nvidia.yaml"]))
            .must_not(NOT_HARDWARE)
            .must_not(["cdi-missing"])
            .healthy_gpus()
            .cluster(offered())
            .node(|| registered(default_runtime("cdi")).cdi_unread("/etc/cdi/nvidia.yaml")),
        healthy(
            "cdi-beside-a-broken-one",
            "A specification of another vendor could not be read. That of NVIDIA is there.",
        )
        .must_not(QUIET)
        .must_not(["cdi-unreadable"])
        .unknown("/etc/cdi/mine.yaml could not be read")
        .cluster(offered())
        .node(|| registered(default_runtime("cdi")).cdi([spec()]).cdi_unread("/etc/cdi/mine.yaml")),
        warning(
            "runtime-that-will-lose-its-handler",
            "The handler was removed from the file. Pods start until containerd restarts.",
        )
        .must(finding("runtime-handler-missing").severity("warning").evidence(["written after the runtime started"]))
        .must_not(NOT_HARDWARE)
        .healthy_gpus()
        .cluster(offered().runtime_class("nvidia", [PLUGIN]))
        .node(|| registered(containerd(CONFIG, 2, []).changed_since_start())),
        critical(
            "cdi-of-a-plugin-that-was-not-restarted",
            "The device plugin's own specification is older than the loaded driver: its libraries do not exist.",
        )
        .must(finding("cdi-stale").evidence(["k8s.device-plugin.nvidia.com-gpu.json", "of driver 550.90.07"]))
        .must_not(NOT_HARDWARE)
        .healthy_gpus()
        .cluster(offered())
        .node(|| registered(containerd(CONFIG, 2, [])).cdi([of_earlier_driver(spec_at(OF_PLUGIN.0, OF_PLUGIN.1))])),
        healthy("cdi-of-a-plugin-that-is-gone", "The same file of a device plugin that was removed.")
            .must(finding("cdi-stale").severity("info"))
            .must_not(QUIET)
            .cluster(none_offered().with("gpu_dra", true))
            .node(|| {
                unregistered(containerd(CONFIG, 2, [])).cdi([of_earlier_driver(spec_at(OF_PLUGIN.0, OF_PLUGIN.1))])
            }),
        critical(
            "plugin-without-any-nvidia-runtime",
            "GKE's device plugin is not registered. It does not need NVIDIA's runtime, which is not installed.",
        )
        .must_not(["runtime-class-missing-on-plugin", "class:hardware"])
        .more()
        .healthy_gpus()
        .cluster(none_offered().with("nvidia_pods", json!([plugin_pod("nvidia-gpu-device-plugin-small-cos-x7p2q")])))
        .node(|| {
            unregistered(containerd(CONFIG, 2, []).without_toolkit()).nvidia_stack(stack(
                [],
                "nvidia-device-p",
                Some("plugin"),
            ))
        }),
    ]
}

/// Kubernetes offers all GPUs of the node.
fn offered() -> Cluster {
    none_offered().gpus(2)
}

/// Kubernetes has no capacity for GPUs of the node.
fn none_offered() -> Cluster {
    cluster("gpu-l40s-9").with("gpu_plugin_in_cluster", true).with("runtime_classes", json!([]))
}

/// A node with two GPUs that the device plugin registered.
fn registered(runtime: ContainerRuntime) -> Node {
    l40s(2).container_runtime(runtime).cdi([]).nvidia_stack(plugin_stack(["nvidia-gpu.sock"]))
}

/// A node with two GPUs that work, and without a registered device plugin.
fn unregistered(runtime: ContainerRuntime) -> Node {
    registered(runtime).without_jobs().nothing_registered().nvidia_stack(plugin_stack([]))
}

/// containerd whose default handler is NVIDIA's runtime, with this mode.
fn default_runtime(mode: &str) -> ContainerRuntime {
    containerd(CONFIG, 2, [nvidia(HOST)]).with_default("nvidia").with_mode(mode)
}

/// containerd with the toolkit of the GPU Operator, which uses CDI devices of this kind.
fn operator_runtime(kind: &str) -> ContainerRuntime {
    containerd(CONFIG, 2, [nvidia(TOOLKIT)]).with_mode("cdi").with_default_kind(kind)
}

/// The operator's specification for its own containers.
fn management() -> CdiSpec {
    CdiSpec { devices: vec!["all".to_owned()], ..spec_at(MANAGEMENT.0, MANAGEMENT.1) }
}

fn with_old_number(spec: CdiSpec) -> CdiSpec {
    let uvm = StaleDevice { path: "/dev/nvidia-uvm".to_owned(), in_spec: text("511:0"), on_node: text("507:0") };
    CdiSpec { stale_devices: vec![uvm], ..spec }
}

/// A running pod of a device plugin without a RuntimeClass.
fn plugin_pod(name: &str) -> Value {
    json!({
        "namespace": "kube-system",
        "name": name,
        "uid": "0f8a7c2e-11aa-4bbb-8ccc-123456789abc",
        "component": "device_plugin",
        "owner": "nvidia-device-plugin",
        "phase": "Running",
        "created": ago(hours(3)).to_string(),
        "ready": true,
        "containers": [],
    })
}

impl Node {
    /// A CDI specification could not be read.
    fn cdi_unread(self, path: &str) -> Self {
        self.host(|host| host.cdi.get_or_insert_default().unread = vec![path.to_owned()])
    }
}
