//! Scenarios of nodes of several Kubernetes distributions. Most nodes are healthy; some have no working device plugin.

use syringe_core::facts::container_runtime::{ContainerRuntime, ToolkitConfig};
use syringe_core::facts::driver_load::DriverLoad;
use syringe_core::facts::kubernetes::node::{Component, DraDevice, GpuLabels, NvidiaPod, PodWarning};
use syringe_core::facts::nvidia_stack::NvidiaStack;
use syringe_core::facts::stack_log::StackLog;

use crate::driver_load::passed_through;
use crate::kubernetes::{failing, nvidia_pod, plugin_pod, runtime_class};
use crate::prelude::*;
use crate::stack::{
    CONFIG, HOST, Runtime, TOOLKIT, containerd, file_of_nine_days, handler, nvidia, nvidia_named, plugin_stack, spec,
    spec_at, stack, stack_with_many_watchers, validated,
};
use crate::unusual::published;

const UBUNTU: &str = "Ubuntu 24.04.3 LTS";
const BOTTLEROCKET: &str = "Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)";
const PLUGIN: &str = "kube-system/nvidia-device-plugin-x7p2q";
const OPERATOR_PLUGIN: &str = "gpu-operator/nvidia-device-plugin-daemonset-x7p2q";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy(
            "node-of-k3s",
            "k3s: the containerd of k3s found NVIDIA's runtime on the host. Pods use the RuntimeClass.",
        )
        .must_not(ANY_WARNING)
        .cluster(l40s_with_class(PLUGIN))
        .node(|| {
            let cdi_handler = nvidia_named("nvidia-cdi", "/usr/bin/nvidia-container-runtime.cdi");
            let path = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
            healthy_l40s(UBUNTU, containerd(path, 3, [nvidia(HOST), cdi_handler]))
        }),
        healthy("node-of-rke2", "RKE2 with the GPU Operator: the handler of the toolkit is in its drop-in file.")
            .must_not(ANY_WARNING)
            .cluster(l40s_with_class(OPERATOR_PLUGIN))
            .node(|| {
                let kind = "management.nvidia.com/gpu";
                let path = "/var/lib/rancher/rke2/agent/etc/containerd/config.toml";
                let runtime = containerd(path, 3, [nvidia(TOOLKIT)])
                    .drop_in("/etc/containerd/conf.d/99-nvidia.toml")
                    .mode("cdi")
                    .kind(kind);
                healthy_l40s("SUSE Linux Enterprise Server 15 SP6", runtime)
                    .cdi([spec_at("/var/run/cdi/management.nvidia.com-gpu.yaml", kind)])
                    .nvidia_stack(validated(plugin_stack(["nvidia-gpu.sock"])))
            }),
        healthy("node-with-a-driver-of-its-image", "The GPU Operator leaves the driver to the image of the node.")
            .must_not(["node-label-reports-a-state"])
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts {
                states: vec!["nvidia.com/gpu.deploy.driver=pre-installed".into()],
                ..l40s_with_class(OPERATOR_PLUGIN)
            })
            .node(|| healthy_l40s(UBUNTU, containerd("/etc/containerd/config.toml", 3, [nvidia(TOOLKIT)]))),
        healthy(
            "node-label-of-the-kernel-before",
            "Feature discovery did not write its labels again after an update of the kernel.",
        )
        .must(finding("node-label-of-another-release").severity(Info).evidence(["5.15.0-1"]))
        .cluster(KubernetesFacts {
            labels: GpuLabels {
                kernel: Some("5.15.0-1-generic".into()),
                feature_discovery: true,
                ..GpuLabels::default()
            },
            ..l40s_with_class(OPERATOR_PLUGIN)
        })
        .node(|| healthy_l40s(UBUNTU, containerd("/etc/containerd/config.toml", 3, [nvidia(TOOLKIT)]))),
        healthy(
            "node-with-warnings",
            "The kubelet reported a warning about the node an hour ago, and one before its start.",
        )
        .must(finding("node-warnings").severity(Info).evidence(["ImageGCFailed"]))
        .must_not(ANY_WARNING)
        .cluster(KubernetesFacts {
            warnings: ["ImageGCFailed", "InvalidDiskCapacity"].map(node_warning).to_vec(),
            ..l40s_with_class(OPERATOR_PLUGIN)
        })
        .node(|| healthy_l40s(UBUNTU, containerd("/etc/containerd/config.toml", 3, [nvidia(TOOLKIT)]))),
        healthy("node-of-talos", "Talos: configuration and driver are not in the usual folders.")
            .must_not(ANY_WARNING)
            .cluster(l40s_with_class(PLUGIN))
            .node(|| {
                let runtime =
                    containerd("/etc/cri/containerd.toml", 3, [nvidia("/usr/local/bin/nvidia-container-runtime")])
                        .drop_in("/etc/cri/conf.d/10-nvidia-container-runtime.part");
                let library = "/usr/local/glibc/usr/lib/libnvidia-ml.so.570.124.06";
                healthy_l40s("", runtime)
                    .system("Talos (v1.11.3)", "6.12.48-talos")
                    .host(|host| host.driver.library_path = text(library))
            }),
        healthy("node-of-gke", "GKE: NVIDIA's runtime is not installed. The plugin mounts the driver from the host.")
            .must_not(ANY_WARNING)
            .cluster(t4_cluster())
            .node(|| {
                let runtime =
                    containerd(CONFIG, 2, [handler("gvisor", "io.containerd.runsc.v1", None)]).without_toolkit();
                let sockets = ["nvidiaGPU-1763000000.sock"];
                healthy_t4("Container-Optimized OS from Google", runtime)
                    .nvidia_stack(stack(sockets, "nvidia-gpu-devi", Some("nvidia-gpu-device-plugin")))
                    .host(|host| (host.container_toolkit, host.cdi_spec) = (None, None))
            }),
        healthy("node-of-eks", "EKS with Amazon Linux 2023: NVIDIA's runtime is the default runtime.")
            .must_not(ANY_WARNING)
            .cluster(t4_cluster())
            .node(|| {
                let runtime = containerd(CONFIG, 3, [nvidia(HOST)]).default_handler("nvidia").mode("cdi");
                healthy_t4("Amazon Linux 2023.9", runtime.with(|runtime| runtime.cdi_enabled = Some(true)))
                    .cdi([spec()])
            }),
        healthy("node-of-bottlerocket", "Bottlerocket: the device plugin is a service of the node, not a pod.")
            .must_not(ANY_WARNING)
            .cluster(t4_cluster())
            .node(|| {
                let binary = "/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin/nvidia-oci";
                healthy_t4(
                    BOTTLEROCKET,
                    containerd(CONFIG, 3, [nvidia(binary)]).default_handler("nvidia").without_toolkit(),
                )
                .nvidia_stack(stack(["nvidia-gpu.sock"], "nvidia-device-p", None))
            }),
        healthy("node-of-bottlerocket-with-one-plugin", "Bottlerocket with only the device plugin of a DaemonSet.")
            .must_not(any_warning_and(["two-device-plugins"]))
            .cluster(KubernetesFacts {
                os_image: text(BOTTLEROCKET),
                nvidia_pods: Some(vec![plugin_pod("kube-system/nvidia-device-plugin-8xk2p")]),
                ..t4_cluster()
            })
            .node(|| t4().operating_system(BOTTLEROCKET).cdi([]).nvidia_stack(plugin_stack(["nvidia-gpu.sock"]))),
        warning(
            "bottlerocket-without-its-plugin",
            "The image of Bottlerocket includes the device plugin, and no node of the cluster has GPUs.",
        )
        .must(finding("gpus-not-advertised").severity(Warning).evidence(["has a device plugin built in"]))
        .cluster(KubernetesFacts {
            os_image: text(BOTTLEROCKET),
            gpu_capacity: None,
            gpu_allocatable: None,
            gpu_plugin_in_cluster: Some(false),
            nvidia_pods: Some(Vec::new()),
            ..t4_cluster()
        })
        .node(|| t4().operating_system(BOTTLEROCKET).cdi([]).kubelet(|kubelet| kubelet.registered.clear())),
        warning(
            "shares-of-other-software-withheld",
            "The plugin of Volcano does not run, and pods get none of its shares.",
        )
        .must(finding("gpus-not-allocatable").evidence(["volcano.sh/vgpu-number: 40", "allocatable 0"]))
        .cluster(KubernetesFacts {
            gpu_capacity: None,
            gpu_allocatable: None,
            other_gpu_resources: true,
            other_gpus_withheld: vec!["volcano.sh/vgpu-number: 40".to_owned()],
            nvidia_pods: Some(Vec::new()),
            ..t4_cluster()
        })
        .node(|| t4().kubelet(|kubelet| kubelet.registered.clear())),
        healthy("node-of-aks", "AKS: NVIDIA's runtime is the default runtime, with its full name.")
            .must_not(ANY_WARNING)
            .cluster(t4_cluster())
            .node(|| {
                let name = "nvidia-container-runtime";
                let handlers = [nvidia_named(name, HOST), nvidia_named("untrusted", HOST)];
                healthy_t4("Ubuntu 22.04.5 LTS", containerd(CONFIG, 2, handlers).default_handler(name)).cdi([spec()])
            }),
        healthy("node-of-openshift", "OpenShift: the configuration of CRI-O is newer than the CRI-O process.")
            .must_not(ANY_WARNING)
            .cluster(l40s_with_class("nvidia-gpu-operator/nvidia-device-plugin-daemonset-x7p2q"))
            .node(|| {
                healthy_l40s("Red Hat Enterprise Linux CoreOS 9.6.20251103-0", cri_o())
                    .nvidia_stack(validated(plugin_stack(["nvidia-gpu.sock"])))
            }),
        healthy("node-with-dra-alone", "Dynamic resource allocation (DRA) without a device plugin.")
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts { gpu_dra: Some(true), ..l40s_cluster() })
            .node(with_dra),
        warning("node-with-dra-device-taint", "The DRA driver set a taint on one of the devices.")
            .must(finding("dra-device-tainted").gpu(1).evidence(["gpu.nvidia.com/xid=79:NoSchedule"]))
            .must_not(["severity:critical", "gpu-not-published", "published-device-without-gpu"])
            .cluster(dra_cluster(|devices| devices[1].taints = vec!["gpu.nvidia.com/xid=79:NoSchedule".to_owned()]))
            .node(with_dra),
        warning("node-with-dra-that-lacks-a-gpu", "The DRA driver publishes one of the two GPUs.")
            .must(finding("gpu-not-published").gpu(1))
            .must_not(["severity:critical", "dra-device-tainted", "published-device-without-gpu"])
            .cluster(dra_cluster(|devices| devices.truncate(1)))
            .node(with_dra),
        warning("node-with-dra-of-an-exchanged-gpu", "The DRA driver publishes the UUID of a GPU that was exchanged.")
            .must(finding("published-device-without-gpu").evidence(["gpu-1"]))
            .must(finding("gpu-not-published").gpu(1))
            .must_not(["severity:critical", "dra-device-tainted"])
            .cluster(dra_cluster(|devices| devices[1].uuid = Some(format!("GPU-{}", uuid(&["exchanged"])))))
            .node(with_dra),
        unknown("node-with-dra-of-unread-slices", "DRA without a device plugin. The ResourceSlices could not be read.")
            .must(
                finding("gpus-not-advertised")
                    .severity(Info)
                    .evidence(["it is not known whether a DRA driver manages the GPUs"]),
            )
            .must_not(["severity:warning", "severity:critical", "stack-broken-at-plugin", "class:hardware"])
            .unknown("whether the DRA driver offers the GPUs")
            .cluster(KubernetesFacts {
                nvidia_pods: Some(vec![nvidia_pod(
                    "dra/gpu-kubelet-plugin-4x2k9",
                    Component::DraDriver,
                    "gpus",
                    days(9),
                )]),
                ..l40s_cluster()
            })
            .node(with_dra),
        critical(
            "node-with-dra-that-crashes",
            "DRA without a device plugin. Its pod crashes, and its ResourceSlices remain.",
        )
        .must(finding("stack-broken-at-dra-driver").evidence(["CrashLoopBackOff", "40 restarts"]))
        .must_not(["class:hardware"])
        .cluster(KubernetesFacts {
            gpu_dra: Some(true),
            nvidia_pods: Some(vec![failing("dra/gpu-kubelet-plugin-4x2k9", Component::DraDriver, "gpus")]),
            ..l40s_cluster()
        })
        .node(with_dra),
        warning("dra-that-crashes-beside-a-plugin", "The device plugin works, and the DRA driver crashes.")
            .must(finding("stack-broken-at-dra-driver").severity(Warning).evidence(["CrashLoopBackOff"]))
            .must_not(["severity:critical", "class:hardware"])
            .cluster(KubernetesFacts {
                nvidia_pods: Some(vec![
                    plugin_pod(PLUGIN),
                    failing("dra/gpu-kubelet-plugin-4x2k9", Component::DraDriver, "gpus"),
                ]),
                ..l40s_with_gpus(2)
            })
            .node(|| l40s(2)),
        critical("plugin-pod-that-stays-terminating", "The pod of the plugin was deleted hours ago and still exists.")
            .must(finding("stack-broken-at-plugin").evidence(["is being deleted"]))
            .cluster(KubernetesFacts {
                gpu_allocatable: Some(0),
                nvidia_pods: Some(vec![NvidiaPod {
                    deleting: true,
                    deletion_due: Some(ago(hours(3))),
                    ..plugin_pod(PLUGIN)
                }]),
                ..l40s_with_gpus(2)
            })
            .node(|| l40s(2).without_jobs()),
        healthy("node-without-a-plugin", "The GPUs are used without Kubernetes: no device plugin.")
            .must(finding("gpus-not-advertised").severity(Info))
            .must_not(["severity:warning", "inotify-limit-reached", "class:hardware"])
            .cluster(KubernetesFacts { gpu_plugin_in_cluster: Some(false), ..l40s_cluster() })
            .node(|| l40s(2).without_jobs().operating_system(UBUNTU).nvidia_stack(stack_with_many_watchers())),
        critical("node-whose-plugin-was-deleted", "The only device plugin was deleted: the capacity is 0.")
            .must(finding("gpus-not-advertised").evidence(["a device plugin advertised GPUs on this node before"]))
            .must_not(["class:hardware"])
            .cluster(without_plugin_pods())
            .node(|| l40s(2).without_jobs().without_plugin()),
        healthy("node-whose-plugin-may-still-start", "Minutes after a boot, the capacity is 0. A plugin may start.")
            .must(finding("gpus-not-advertised").severity(Info))
            .must_not(["severity:warning", "class:hardware"])
            .cluster(without_plugin_pods())
            .node(|| l40s(2).uptime(400).without_jobs().without_plugin()),
        critical("plugin-that-fails-beside-many-watchers", "According to the plugin's log, inotify is not the cause.")
            .must(finding("stack-broken-at-plugin").evidence(["could not load NVML library"]))
            .must_not(["inotify-limit-reached", "class:hardware"])
            .cluster(KubernetesFacts { nvidia_pods: Some(vec![failing_plugin()]), ..l40s_cluster() })
            .node(|| {
                let log = StackLog {
                    pod_uid: uuid(&["stack", "nvidia-device-plugin"]),
                    container: "nvidia-device-plugin".to_owned(),
                    file: text("9.log"),
                    lines: vec!["Failed to initialize NVML: could not load NVML library.".to_owned()],
                    ..StackLog::default()
                };
                l40s(2)
                    .without_jobs()
                    .operating_system(UBUNTU)
                    .nvidia_stack(stack_with_many_watchers())
                    .host(|host| host.stack_log = Some(log))
            }),
        unknown("node-for-virtual-machines", "GPUs for virtual machines. No driver is loaded, but one could be.")
            .must_not(["driver-not-loaded", "driver-not-built-for-kernel", "severity:warning", "class:hardware"])
            .more()
            .cluster(KubernetesFacts { other_gpu_resources: true, ..cluster("kubevirt-3") })
            .node(|| {
                let load = DriverLoad {
                    secure_boot: Some(true),
                    lockdown: text("integrity"),
                    modules_listed: true,
                    kernels_with_module: vec!["6.8.0-86-generic".to_owned()],
                    kernels_without_module: vec!["5.15.0-131-generic".to_owned()],
                    ..DriverLoad::default()
                };
                passed_through()
                    .container_runtime(containerd(CONFIG, 3, []).without_toolkit())
                    .cdi([])
                    .nvidia_stack(stack(["kubevirt-AD102GL_L40S.sock"], "nvidia-device-p", Some("sandbox")))
                    .host(|host| (host.driver.module_listed, host.driver_load) = (Some(false), Some(load)))
            }),
        healthy("node-just-booted", "Booted three minutes ago: toolkit and plugin are not ready yet.")
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts {
                ready: Some(true),
                ready_since: Some(ago(seconds(100))),
                read_at: Some(ago(seconds(0))),
                ..l40s_with_class(OPERATOR_PLUGIN)
            })
            .node(|| {
                let runtime = containerd(CONFIG, 3, []).with(|runtime| {
                    runtime.started_at = Some(ago(seconds(170)));
                    runtime.config_changed_at = Some(ago(seconds(20)));
                });
                healthy_l40s(UBUNTU, runtime).uptime(200).nvidia_stack(plugin_stack([]))
            }),
    ]
}

/// Returns the facts of a cluster with a device plugin, for a node without GPU capacity.
fn l40s_cluster() -> KubernetesFacts {
    let (gpu_plugin_in_cluster, runtime_classes) = (Some(true), Some(Vec::new()));
    KubernetesFacts { gpu_plugin_in_cluster, runtime_classes, ..cluster("gpu-l40s-9") }
}

/// Returns the facts of a node with two GPUs, and a pod of the device plugin that uses the RuntimeClass.
fn l40s_with_class(plugin: &str) -> KubernetesFacts {
    KubernetesFacts { runtime_classes: runtime_class("nvidia", plugin), ..l40s_with_gpus(2) }
}

fn l40s_with_gpus(count: u32) -> KubernetesFacts {
    KubernetesFacts { gpu_capacity: Some(count), gpu_allocatable: Some(count), ..l40s_cluster() }
}

fn t4_cluster() -> KubernetesFacts {
    let (gpu_plugin_in_cluster, runtime_classes) = (Some(true), Some(Vec::new()));
    KubernetesFacts { gpu_plugin_in_cluster, runtime_classes, ..cluster_with_gpus("gpu-t4-9", 1) }
}

/// Returns the facts of a node without device plugin pods. An earlier device plugin left a capacity of 0.
fn without_plugin_pods() -> KubernetesFacts {
    let (gpu_plugin_in_cluster, nvidia_pods) = (Some(false), Some(Vec::new()));
    KubernetesFacts { gpu_plugin_in_cluster, nvidia_pods, ..l40s_with_gpus(0) }
}

fn healthy_l40s(operating_system: &str, runtime: Runtime) -> Node {
    with_plugin(l40s(2).operating_system(operating_system), runtime)
}

fn healthy_t4(operating_system: &str, runtime: Runtime) -> Node {
    with_plugin(t4().operating_system(operating_system), runtime)
}

fn with_plugin(node: Node, runtime: Runtime) -> Node {
    node.container_runtime(runtime).cdi([]).nvidia_stack(plugin_stack(["nvidia-gpu.sock"]))
}

fn cri_o() -> Runtime {
    let drop_ins = ["/etc/crio/crio.conf.d/00-default", "/etc/crio/crio.conf.d/99-nvidia.conf"].map(str::to_owned);
    Runtime(ContainerRuntime {
        name: "cri-o".to_owned(),
        complete: true,
        default_handler: text("crun"),
        handlers: vec![
            handler("crun", "oci", None),
            handler("nvidia", "oci", Some(TOOLKIT)),
            handler("runc", "oci", None),
        ],
        started_at: Some(ago(days(9))),
        config_changed_at: Some(ago(days(2))),
        config_changed_path: Some(drop_ins[1].clone()),
        drop_ins: drop_ins.to_vec(),
        toolkit: Some(ToolkitConfig {
            path: "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml".to_owned(),
            mode: text("auto"),
            default_kind: None,
        }),
        ..ContainerRuntime::default()
    })
}

/// Returns the Kubernetes data of a node whose GPUs a DRA driver publishes, after a change of the devices.
fn dra_cluster(change: impl FnOnce(&mut Vec<DraDevice>)) -> KubernetesFacts {
    let mut dra_devices = published(&with_dra());
    change(&mut dra_devices);
    KubernetesFacts { gpu_dra: Some(true), dra_devices, ..l40s_cluster() }
}

/// Returns a node that provides GPUs through dynamic resource allocation, without a device plugin.
fn with_dra() -> Node {
    let registry_sockets = Some(vec![file_of_nine_days("gpu.nvidia.com-reg.sock")]);
    let runtime = containerd(CONFIG, 3, []).without_toolkit().with(|runtime| runtime.cdi_enabled = Some(true));
    healthy_l40s(UBUNTU, runtime)
        .without_jobs()
        .nothing_registered()
        .nvidia_stack(NvidiaStack { registry_sockets, ..stack([], "gpu-kubelet-plu", Some("dra")) })
        .host(|host| host.cdi.get_or_insert_default().claim_specs = 3)
}

/// Returns a pod of the device plugin whose container fails repeatedly.
fn failing_plugin() -> NvidiaPod {
    let uid = uuid(&["stack", "nvidia-device-plugin"]);
    let pod = failing("kube-system/nvidia-device-plugin-8xk2p", Component::DevicePlugin, "nvidia-device-plugin");
    NvidiaPod { uid, created: Some(ago(days(2))), owner: "nvidia-device-plugin".to_owned(), ..pod }
}

impl Node {
    /// Removes the device plugin: it is neither registered nor running.
    fn without_plugin(self) -> Self {
        self.operating_system(UBUNTU).nothing_registered().nvidia_stack(stack(
            [],
            "nvidia-device-p",
            Some("containerd"),
        ))
    }
}

fn node_warning(reason: &str) -> PodWarning {
    let message = "failed to garbage collect required amount of images".to_owned();
    PodWarning { reason: reason.to_owned(), message, count: 3, last: None }
}
