//! Scenarios in which GPU requests, allocations, processes and capacity do not match.
//!
//! For each fault, there is a very similar scenario without the fault.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use syringe_core::facts::ecc::RecoveryAction;
use syringe_core::facts::host::HugePages;
use syringe_core::facts::inventory::{LicensableFeature, VgpuLicense};
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};
use syringe_core::facts::kubernetes::node::{Component, FailedPod, StartingPod};
use syringe_core::pci::PciAddress;

use crate::kubernetes::{failing, nvidia_pod};
use crate::load::{Load, idle};
use crate::node::data;
use crate::node::pod_uid;
use crate::prelude::*;

const NODE: &str = "gpu-l40s-9";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        warning_for_pods("stranger-on-a-gpu", "A privileged pod without a request uses a different pod's GPU.")
            .must(finding("gpu-used-without-allocation").evidence([
                "the kubelet has allocated no GPU to pod research/notebook",
                "GPU 3, allocated to",
                "is privileged",
            ]))
            .must_not(["process-outside-kubernetes", "class:hardware"])
            .cluster(pods(4, jobs(4).chain([stranger()])))
            .node(notebook),
        healthy("neighbour-on-a-shared-gpu", "A pod uses a different pod's GPU, but has a replica of that GPU.")
            .must_not(alarms_and(["gpu-used-without-allocation"]))
            .cluster(pods(4, jobs(4).chain([GpuPod { containers: vec![request(days(10))], ..stranger() }])))
            .node(|| {
                let node = notebook();
                let shared = Allocation { replicas: Some(1), ..node.allocation("notebook", 3) };
                node.kubelet(|kubelet| kubelet.allocations.push(shared))
            }),
        healthy("gpu-from-another-scheduler", "A pod uses a GPU that a different scheduler assigned to the pod.")
            .must_not(alarms_and(["gpu-used-without-allocation"]))
            .cluster(pods(4, jobs(4).chain([GpuPod { has_annotated_gpus: true, ..stranger() }])))
            .node(notebook),
        warning("running-pod-without-gpu", "After a reboot, a pod started before the device plugin registered GPUs.")
            .must(finding("pod-gpu-not-allocated").evidence([
                "container main of pod research/job-3 requests 1 nvidia.com/gpu",
                "allocated no device",
                "after the boot of the node",
            ]))
            .must_not(["class:hardware", "gpu-used-without-allocation"])
            .cluster(pods(4, jobs(3).chain([gpu_pod("job-3", seconds(7_140))])))
            .node(|| three_allocated().without_job(3)),
        healthy("young-pod-without-gpu", "A pod without a GPU started 30 seconds ago: the pod may still get its GPU.")
            .must_not(alarms_and(["pod-gpu-not-allocated"]))
            .cluster(pods(4, jobs(3).chain([gpu_pod("job-3", seconds(30))])))
            .node(|| three_allocated().without_job(3)),
        healthy("extended-resource-by-claim", "A pod got its GPU through a resource claim.")
            .must_not(alarms_and(["pod-gpu-not-allocated"]))
            .cluster(pods(4, jobs(3).chain([GpuPod { has_claims: true, ..gpu_pod("job-3", seconds(7_140)) }])))
            .node(|| {
                let node = three_allocated();
                let claim = Allocation {
                    container: String::new(),
                    resource: "gpu.nvidia.com".to_owned(),
                    claim: text("job-3-gpu"),
                    devices: vec!["gpu-3".to_owned()],
                    ..node.allocation("job-3", 3)
                };
                node.kubelet(|kubelet| kubelet.allocations.push(claim))
            }),
        critical("kubelet-allocations-not-released", "The kubelet rejects pods. Deleted pods still hold the GPUs.")
            .must(
                finding("kubelet-allocations-not-released")
                    .evidence(["2 devices allocated to pods that do not exist", "Requested: 1, Available: 0"]),
            )
            .must_not(["allocation-stale", "class:hardware", "gpus-not-allocatable"])
            .cluster(pods(4, jobs(2).chain([refused("retry-0", hours(2)), refused("retry-1", minutes(40))])))
            .node(|| l40s(4).without_job(2).without_job(3)),
        healthy("allocations-of-ended-pods", "One rejected pod: the other pods may have ended after the rejection.")
            .must("allocation-stale")
            .must_not(alarms_and(["kubelet-allocations-not-released"]))
            .cluster(pods(4, jobs(2).chain([refused("retry-0", hours(2))])))
            .node(|| l40s(4).without_job(2).without_job(3)),
        healthy("refusals-of-another-day", "Two pods were rejected on an earlier day. The other pods just ended.")
            .must("allocation-stale")
            .must_not(alarms_and(["kubelet-allocations-not-released"]))
            .cluster(pods(4, jobs(2).chain([refused("retry-0", hours(48)), refused("retry-1", hours(47))])))
            .node(|| l40s(4).without_job(2).without_job(3)),
        warning("plugin-withholds-a-working-gpu", "The device plugin has not advertised a working GPU since an Xid.")
            .must(finding("working-gpu-marked-unhealthy").gpu(2).evidence([
                "capacity 4, allocatable 3",
                "Xid 109",
                "nvidia-device-plugin-daemonset-x7k2p",
            ]))
            .must_not(["gpus-not-allocatable", "class:hardware"])
            .cluster(three_allocatable(days(9)))
            .node(one_withheld),
        warning("restarted-plugin-withholds-a-gpu", "The plugin was restarted after the Xid of an unadvertised GPU.")
            .must("gpus-not-allocatable")
            .must_not(["working-gpu-marked-unhealthy", "class:hardware"])
            .cluster(three_allocatable(hours(5)))
            .node(one_withheld),
        warning(
            "plugin-keeps-a-cured-gpu",
            "The kubelet lists all devices. One GPU had an Xid since the plugin started, and works.",
        )
        .must(finding("working-gpu-marked-unhealthy").gpu(2).evidence(["Xid 94", "since the device plugin started"]))
        .must_not(["gpus-not-allocatable", "class:hardware"])
        .cluster(three_allocatable(days(9)))
        .node(|| {
            let contained = "Contained: SM (0x1). RST: No, D-RST: No";
            h100(4).idle().xid(ago(days(3)), 2, 94, "pid=38117, name=python3", contained).recovery_changed(
                ago(days(3)) + hours(1),
                2,
                "0x1 (GPU Reset Required) to 0x0 (None)",
            )
        }),
        healthy(
            "gpus-of-another-vendors-resource",
            "A device plugin of another vendor offers shares of the GPUs under its own name.",
        )
        .must_not(["gpus-not-advertised", "device-plugin-stale"])
        .cluster(KubernetesFacts { gpu_plugin_in_cluster: Some(false), ..cluster("gpu-l40s-9") })
        .node(|| {
            let node = l40s(2).idle();
            let shares = node.gpu_uuids().into_iter().flat_map(|uuid| (0..4).map(move |at| format!("{uuid}-_-{at}")));
            let shares: Vec<String> = shares.collect();
            node.kubelet(|kubelet| {
                kubelet.allocations.clear();
                kubelet.registered.truncate(1);
                kubelet.registered.iter_mut().for_each(|one| {
                    (one.resource, one.devices) = ("aliyun.com/gpu-mem".to_owned(), shares.clone());
                });
            })
        }),
        critical("plugin-label-false", "A label turns the device plugin off on the node, which still counts its GPUs.")
            .must(
                finding("gpus-not-advertised")
                    .evidence(["capacity 4, allocatable 0", "gpu.deploy.device-plugin=false"]),
            )
            .must_not(["gpus-not-allocatable", "class:hardware"])
            .cluster(without_plugin("false", None))
            .node(|| l40s(4).idle()),
        warning("plugin-paused-for-upgrade", "The GPU Operator stopped the device plugin to upgrade the driver.")
            .must(finding("gpus-not-advertised").evidence(["paused-for-driver-upgrade", "pod-restart-required"]))
            .must_not(["gpus-not-allocatable", "class:hardware"])
            .cluster(without_plugin("paused-for-driver-upgrade", Some("pod-restart-required")))
            .node(|| l40s(4).idle()),
        warning(
            "gpu-of-machines-on-a-container-node",
            "GPU 1 is bound to vfio-pci, although the GPUs of the node are for containers.",
        )
        .must(finding("gpu-passthrough").severity(Warning).evidence(["gpu.workload.config=container"]))
        .must_not(["class:hardware"])
        .cluster({
            let mut cluster = cluster_with_gpus("gpu-l40s-7", 3);
            cluster.labels.workload_config = text("container");
            cluster
        })
        .node(|| {
            let mut node = l40s(4).not_bound(1).processes(|all| all.processes.clear());
            data(&mut node.report.sections.topology).matrix.clear();
            node.host(|host| {
                host.pci_gpus[1].driver = text("vfio-pci");
                host.device_nodes.retain(|name| name != "nvidia1");
            })
        }),
        warning_for_pods("job-that-waits-in-a-collective-operation", "All GPUs of a job are busy, draw little power, and use no memory bandwidth.")
            .must(finding("job-may-wait").evidence(["GPUs 0-7", "no memory traffic"]))
            .must_not(["job-waits-for-lost-gpu", "class:hardware"])
            .node(|| {
                let mut node = Node::of_base("healthy-h100-8");
                for gpu in &mut data(&mut node.report.sections.telemetry).gpus {
                    gpu.utilization.gpu_percent = Some(100);
                    gpu.utilization.memory_percent = Some(0);
                    gpu.power.draw_milliwatts = Some(131_000);
                }
                node
            }),
        healthy("job-with-one-gpu-that-waits", "One GPU of a job waits for a moment, and the others compute.")
            .must_not(alarms_and(["job-may-wait"]))
            .cluster(cluster_with_gpus("gpu-h100-9", 4))
            .node(|| h100(4).load(2, |load| (load.gpu, load.memory, load.watts) = (100, 0, 131))),
        warning("unused-huge-pages", "Huge pages that no program uses reserve most of the memory.")
            .must(finding("hugepages-reserve-memory").evidence(["unused huge pages: "]))
            .must_not(["class:hardware"])
            .node(|| {
                l40s(2).host(|host| {
                    let all = host.memory_total_bytes.unwrap_or_default();
                    host.hugepages = vec![HugePages { size_kib: 2048, total: all / 2 / (2 << 20), free: all / 2 / (2 << 20) }];
                    host.memory_available_bytes = Some(all / 20);
                })
            }),
        warning_for_pods("image-that-needs-a-newer-driver", "The hook of NVIDIA's runtime refuses an image.")
            .must(finding("image-needs-newer-driver").evidence(["pod ml/serve-0", "cuda>=12.8"]))
            .must_not(["pods-not-starting", "class:hardware"])
            .cluster({
                let refused = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver";
                let pod = StartingPod {
                    namespace: "ml".to_owned(),
                    name: "serve-0".to_owned(),
                    since: Some(ago(minutes(50))),
                    reason: text("RunContainerError"),
                    message: text(refused),
                    ..StartingPod::default()
                };
                KubernetesFacts { starting_pods: Some(vec![pod]), ..cluster_with_gpus(NODE, 2) }
            })
            .node(|| l40s(2)),
        warning_for_pods("pod-lost-its-gpus", "The kubelet rejected a pod, and a program lost its GPUs.")
            .must(finding("pod-reports-node-error").severity(Warning).evidence([
                "pod ml/eval-0 failed, 20 min ago: no NUMA node has enough free GPUs",
            ]))
            .must(finding("pod-reports-node-error").severity(Info).evidence([
                "pod ml/serve-0 (container main) failed, 5 min ago, restarted 1 time: its container lost access to its GPUs",
            ]))
            .must_not(["pods-not-starting", "class:hardware"])
            .cluster({
                let lost = failed_pod("serve-0", 5, "Traceback (most recent call last):\nFailed to initialize NVML: Unknown Error");
                let rejected = FailedPod {
                    container: None,
                    restarts: 0,
                    reason: "TopologyAffinityError".to_owned(),
                    ..failed_pod("eval-0", 20, "Resources cannot be allocated with Topology locality")
                };
                KubernetesFacts { failed_pods: Some(vec![lost, rejected]), ..cluster_with_gpus(NODE, 2) }
            })
            .node(|| l40s(2)),
        healthy("pods-that-fail-by-themselves", "Programs fail, and no message shows a fault of the node.")
            .must_not(alarms_and(["pod-reports-node-error", "image-needs-newer-driver"]))
            .cluster({
                let failed = [
                    failed_pod("oom-0", 5, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"),
                    failed_pod("own-0", 5, "CUDA error: uncorrectable ECC error encountered\nKeyError: 'model'"),
                    failed_pod("no-gpu-0", 5, "RuntimeError: No CUDA GPUs are available"),
                    failed_pod("no-library-0", 5, "libcuda.so.1: cannot open shared object file"),
                    failed_pod("no-driver-0", 5, "Failed to initialize NVML: Driver/library version mismatch"),
                    failed_pod("old-0", 61, "Failed to initialize NVML: Unknown Error"),
                    failed_pod("other-0", 5, "the quick brown fox"),
                    failed_pod("lost-0", 5, "GPU is lost"),
                    failed_pod("reset-0", 5, "GPU requires reset"),
                    failed_pod("peer-0", 5, "peer access is not supported between these two devices"),
                    failed_pod("ptx-0", 5, "the provided PTX was compiled with an unsupported toolchain"),
                    failed_pod("threads-0", 5, "RuntimeError: can't start new thread"),
                ];
                KubernetesFacts { failed_pods: Some(failed.into()), ..cluster_with_gpus(NODE, 2) }
            })
            .node(|| l40s(2)),
        warning("fault-of-another-gpu", "A crash loop on one GPU does not raise the finding of another GPU.")
            .must(finding("row-remap-pending").gpu(1).severity(Warning))
            .must_not(["pod-reports-node-error"])
            .cluster({
                let looping = FailedPod {
                    backs_off: true,
                    restarts: 6,
                    ..failed_pod("serve-0", 1, "CUDA error: uncorrectable ECC error encountered")
                };
                KubernetesFacts { failed_pods: Some(vec![looping]), ..cluster_with_gpus(NODE, 2) }
            })
            .node(|| l40s(2).remapped_rows(1, |rows| (rows.uncorrectable, rows.pending) = (1, true))),
        warning("contained-error-of-a-restarted-program", "A program that was started after a contained memory error uses the GPU.")
            .must(finding("ecc-contained").gpu(1).severity(Warning))
            .must_not(["severity:critical"])
            .node(|| after_contained_error(1)),
        critical("contained-errors-of-a-crash-loop", "Each start of the program ends with a contained memory error.")
            .must(finding("ecc-contained").gpu(1).severity(Critical))
            .node(|| after_contained_error(3)),
        critical("missing-device-file-with-its-victim", "A pod cannot start because a device file is missing.")
            .must(finding("device-nodes-missing").evidence(["nvidia1", "pod ml/rerank-0 does not start, since 10 min ago"]))
            .must_not(["class:hardware"])
            .cluster({
                let pod = StartingPod {
                    namespace: "ml".to_owned(),
                    name: "rerank-0".to_owned(),
                    since: Some(ago(minutes(10))),
                    reason: text("CreateContainerError"),
                    message: text("error gathering device information while adding custom device \"/dev/nvidia1\": no such file or directory"),
                    ..StartingPod::default()
                };
                KubernetesFacts { starting_pods: Some(vec![pod]), ..cluster_with_gpus(NODE, 2) }
            })
            .node(|| l40s(2).host(|host| host.device_nodes_missing = vec!["nvidia1".to_owned()])),
        critical(
            "label-of-machines-on-a-container-node",
            "A label assigns the GPUs to virtual machines, but the driver of the host uses them.",
        )
        .must(
            finding("gpus-not-advertised")
                .evidence(["gpu.workload.config=vm-passthrough", "the driver of the host uses the GPUs"]),
        )
        .must(finding("daemonset-pod-not-ready").evidence(["nvidia-vfio-manager"]))
        .must_not(["stack-broken-at-driver", "class:hardware"])
        .cluster({
            let mut cluster = without_plugin("true", None);
            (cluster.gpu_capacity, cluster.labels.deploy) = (Some(0), BTreeMap::new());
            cluster.labels.workload_config = text("vm-passthrough");
            let vfio = "gpu-operator/nvidia-vfio-manager-6svz7";
            cluster.nvidia_pods = Some(vec![failing(vfio, Component::VgpuManager, "k8s-driver-manager")]);
            cluster
        })
        .node(|| l40s(4).idle().nothing_registered()),
        critical("leaving-node-needs-reset", "GPU 3 needs a reset, and the node is being removed.")
            .must(("recovery-gpu-reset", 3))
            .must("node-leaving")
            .cluster(KubernetesFacts {
                taints: vec!["karpenter.sh/disrupted:NoSchedule".to_owned()],
                ..cluster_with_gpus("gpu-h100-9", 4)
            })
            .node(|| h100(4).recovery_action(3, RecoveryAction::GpuReset)),
        warning_for_pods("time-sliced-gpu-is-full", "Two services use all memory of one time-sliced GPU.")
            .must(finding("shared-gpu-memory-full").gpu(0).evidence([
                "pod research/chat uses 32.2 GiB",
                "pod research/embed uses",
                "time-slicing",
            ]))
            .must_not(["class:hardware", "memory-unaccounted"])
            .cluster(services())
            .node(|| two_services(11_900)),
        healthy("time-sliced-gpu-with-room", "Two services share one time-sliced GPU, and some memory is free.")
            .must_not(alarms_and(["shared-gpu-memory-full"]))
            .cluster(services())
            .node(|| two_services(7_000)),
        healthy("old-processes-of-one-pod", "Five processes of one pod, started over days, fill its GPU.")
            .must(
                finding("shared-gpu-memory-full")
                    .gpu(0)
                    .severity(Info)
                    .evidence(["research/job-0 has 5 processes on the GPU"]),
            )
            .must_not(ALARMS)
            .cluster(pods(1, jobs(1)))
            .node(|| workers([4_180, 90_100, 180_400, 260_000, 700_000])),
        healthy("workers-of-one-server", "Five workers of one pod, started together, fill its GPU.")
            .must_not(alarms_and(["shared-gpu-memory-full"]))
            .cluster(pods(1, jobs(1)))
            .node(|| workers([4_180, 4_181, 4_183, 4_183, 4_190])),
        critical("vgpu-unlicensed", "A vGPU without a license becomes slow some minutes after the start.")
            .must(finding("vgpu-unlicensed").gpu(0).evidence(["NVIDIA RTX Virtual Workstation: not licensed"]))
            .must_not(["class:hardware"])
            .node(|| vgpu(false).uptime(86_400)),
        healthy("vgpu-licensed", "A vGPU with a license.")
            .must_not(alarms_and(["vgpu-unlicensed", "vgpu-license-unknown"]))
            .node(|| vgpu(true).uptime(86_400)),
        healthy("vgpu-just-booted", "A vGPU without a license, five minutes after the boot.")
            .must_not(alarms_and(["vgpu-unlicensed"]))
            .node(|| vgpu(false).uptime(300)),
    ]
}

// ---- facts from Kubernetes

/// Returns a container that requests one GPU and has been running for `age`.
fn request(age: SignedDuration) -> GpuContainer {
    let requests = BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]);
    GpuContainer { name: "main".to_owned(), requests, running_since: Some(ago(age)) }
}

/// Returns a running pod that requests one GPU and was started `age` ago.
fn gpu_pod(name: &str, age: SignedDuration) -> GpuPod {
    GpuPod {
        namespace: "research".to_owned(),
        name: name.to_owned(),
        uid: pod_uid(NODE, name),
        phase: "Running".to_owned(),
        created: Some(ago(age + seconds(5))),
        observed: Some(ago(age + seconds(4))),
        containers: vec![request(age)],
        ..GpuPod::default()
    }
}

/// Returns the pods of the jobs, and the DCGM pod.
fn jobs(count: u32) -> impl Iterator<Item = GpuPod> {
    let dcgm = GpuPod { is_node_software: true, ..privileged("dcgm", days(10)) };
    (0..count).map(|index| gpu_pod(&format!("job-{index}"), days(10))).chain([dcgm])
}

/// Returns a privileged pod that requests no GPU.
fn privileged(name: &str, age: SignedDuration) -> GpuPod {
    let extra_devices_reason = vec!["its container main is privileged".to_owned()];
    GpuPod { extra_devices_reason, containers: Vec::new(), ..gpu_pod(name, age) }
}

fn stranger() -> GpuPod {
    privileged("notebook", hours(40))
}

/// Returns a pod that the kubelet rejected `age` ago.
fn refused(name: &str, age: SignedDuration) -> GpuPod {
    let message = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, \
                   Available: 0, which is unexpected";
    let (reason, message) = (text("UnexpectedAdmissionError"), text(message));
    GpuPod { phase: "Failed".to_owned(), reason, message, containers: Vec::new(), ..gpu_pod(name, age) }
}

/// Returns the facts of a node with this capacity and these pods.
fn pods(capacity: u32, pods: impl Iterator<Item = GpuPod>) -> KubernetesFacts {
    let pods = Vec::from_iter(pods);
    let live = pods.iter().filter(|pod| pod.phase == "Running").map(|pod| pod.uid.clone()).collect();
    KubernetesFacts {
        gpu_label_count: Some(capacity),
        live_pod_uids: Some(live),
        gpu_pods: Some(pods),
        ..cluster_with_gpus(NODE, capacity)
    }
}

fn services() -> KubernetesFacts {
    let dcgm = GpuPod { is_node_software: true, containers: Vec::new(), ..gpu_pod("dcgm", days(10)) };
    pods(1, [gpu_pod("chat", days(10)), gpu_pod("embed", days(10)), dcgm].into_iter())
}

/// Returns facts with three of four GPUs allocatable. The device plugin has been running for `age`.
fn three_allocatable(age: SignedDuration) -> KubernetesFacts {
    let name = "gpu-operator/nvidia-device-plugin-daemonset-x7k2p";
    KubernetesFacts {
        node: text("gpu-h100-9"),
        gpu_allocatable: Some(3),
        nvidia_pods: Some(vec![nvidia_pod(name, Component::DevicePlugin, "nvidia-device-plugin", age)]),
        ..pods(4, std::iter::empty())
    }
}

/// Returns a cluster whose node has lost its device plugin. `label`: the value of `nvidia.com/gpu.deploy.device-plugin`.
fn without_plugin(label: &str, upgrade: Option<&str>) -> KubernetesFacts {
    let mut cluster = KubernetesFacts {
        gpu_allocatable: Some(0),
        gpu_plugin_in_cluster: Some(true),
        nvidia_pods: Some(Vec::new()),
        ..cluster_with_gpus("gpu-l40s-7", 4)
    };
    cluster.labels.pci_present = true;
    cluster.labels.deploy.insert("device-plugin".to_owned(), label.to_owned());
    cluster.labels.driver_upgrade_state = upgrade.map(str::to_owned);
    cluster
}

// ---- nodes

/// Returns a node on which a notebook uses the GPU of a job.
fn notebook() -> Node {
    let process = process(77_120, "python3", "/usr/bin/python3 -m ipykernel", 902_000, on_gpu(3, 4_812 * MIB));
    l40s(4).running(Some("notebook"), process)
}

/// Returns a node that was booted two hours ago. Three of its four GPUs are allocated.
fn three_allocated() -> Node {
    let node = l40s(4).uptime(7_200);
    node.kubelet(|kubelet| kubelet.allocations.truncate(3))
}

/// Returns a node whose GPU 2 had an Xid three days ago. GPU 2 works, but the device plugin does not register it.
fn one_withheld() -> Node {
    let message = "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x1c009";
    h100(4)
        .idle()
        .xid(ago(days(3)), 2, 109, "pid=38117, name=python3", message)
        .recovery_changed(ago(days(3)) + hours(1), 2, "0x1 (GPU Reset Required) to 0x0 (None)")
        .kubelet(|kubelet| drop(kubelet.registered[0].devices.remove(2)))
}

/// Returns a node with one GPU that has no load, but `mib` MiB of memory in use.
fn with_used_memory(mib: u64) -> Node {
    l40s(1).without_processes().loads(|index, load| *load = Load { used: mib as f64 / 46_068.0, ..idle(index) })
}

/// Returns a node with two services that share GPU 0.
fn two_services(second_mib: u64) -> Node {
    let node = with_used_memory(33_000 + second_mib + 523);
    let shares = ["chat", "embed"].map(|pod| Allocation { replicas: Some(1), ..node.allocation(pod, 0) });
    let server = "python3 -m vllm.entrypoints.api_server";
    node.running(Some("chat"), process(41_210, "python3", server, 4_180, on_gpu(0, 33_000 * MIB)))
        .running(Some("embed"), process(41_377, "python3", "python3 serve.py", 88_000, on_gpu(0, second_mib * MIB)))
        .allocations(shares)
}

/// Returns a node on which a program uses GPU 1 that was started after this number of contained errors.
fn after_contained_error(count: i64) -> Node {
    let message = "Contained: SM (0x1). RST: No, D-RST: Yes";
    let errors = |node: Node, at: i64| node.xid(ago(minutes(60 + at)), 1, 94, "pid=29011, name=python3", message);
    (0..count).fold(h100(2), errors).job_started(1, ago(minutes(30))).ecc(1, |ecc| {
        ecc.volatile.uncorrected = u64::try_from(count).ok();
    })
}

/// Returns a pod whose container failed with a message.
fn failed_pod(name: &str, minutes_ago: i64, message: &str) -> FailedPod {
    FailedPod {
        namespace: "ml".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        container: text("main"),
        reason: "Error".to_owned(),
        message: text(message),
        at: Some(ago(minutes(minutes_ago))),
        restarts: 1,
        backs_off: false,
    }
}

/// Returns a node on which five processes of one pod fill GPU 0. `started` is in seconds after the boot.
fn workers(started: [u64; 5]) -> Node {
    started.into_iter().zip(50_000..).fold(with_used_memory(5 * 8_900 + 523), |node, (started, pid)| {
        node.running(Some("job-0"), process(pid, "python3", "python3 serve.py", started, on_gpu(0, 8_900 * MIB)))
    })
}

/// Returns a virtual machine with an A10 as a vGPU. Except for the identity of the GPU, all values are from a T4.
fn vgpu(is_licensed: bool) -> Node {
    let address = PciAddress::parse("2:00:00.0");
    let feature = LicensableFeature {
        name: "rtx".to_owned(),
        product: text("NVIDIA RTX Virtual Workstation"),
        enabled: true,
        licensed: is_licensed,
        info: text(if is_licensed { "Licensed" } else { "Unlicensed (Unrestricted)" }),
    };
    Node::like("healthy-t4-1", "gpu-a10-9", 1, &["0-35"])
        .driver("550.144.06", "12.4")
        .working(|_| Load { gpu: 3, memory: 1, used: 0.1, watts: 12, degrees: 41, ..Load::default() })
        .inventory(0, |gpu| {
            (gpu.name, gpu.brand) = (text("NVIDIA A10-24Q"), text("NVIDIA RTX Virtual Workstation"));
            (gpu.architecture, gpu.compute_capability) = (text("Ampere"), text("8.6"));
            (gpu.virtualization_mode, gpu.pci_address) = (text("vgpu"), address.clone());
            gpu.vgpu_license = Some(VgpuLicense { features: vec![feature] });
        })
        .telemetry(0, |gpu| gpu.pci_address.clone_from(&address))
        .ecc(0, |gpu| gpu.pci_address.clone_from(&address))
        .topology(0, |gpu| {
            gpu.pci_address.clone_from(&address);
            gpu.pcie_path[0].pci_address.clone_from(&address);
        })
        .host(|host| host.pci_gpus[0].pci_address.clone_from(&address))
}
