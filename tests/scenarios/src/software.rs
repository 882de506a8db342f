//! Scenarios of faults in driver, firmware, processes, containers and configuration, and of reports with few facts.

use jiff::SignedDuration;
use syringe_core::facts::Mode;
use syringe_core::facts::container::{Access, ContainerAccess, ContainerDevice};
use syringe_core::facts::container_view::{ContainerView, LibraryFile, MappedLibrary, ProcessLimits, SharedMemory};
use syringe_core::facts::host::{Host, ServiceLog};
use syringe_core::facts::host_levels::{DegradedArray, FileSystem, HostLevels, Level, Limits, Pressure};
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};
use syringe_core::facts::kubernetes::node::PodWarning;
use syringe_core::facts::nvidia_stack::StackProcess;
use syringe_core::facts::processes::UnaccountedMemory;

use crate::driver_load::without_driver;
use crate::node::pod_uid;
use crate::prelude::*;
use crate::whole::levels;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        fatal("gsp-timeout", "The GSP firmware of GPU 1 does not respond, and a process hangs in the driver.")
            .must(("gsp-failed", 1))
            .must("process-stuck")
            .must_not(["gsp-failed-on-several", "class:hardware"])
            .node(|| {
                let limited = "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:2a:00 (printing 1 of every \
                               30).  The GPU likely needs to be reset.";
                [0, 6, 12]
                    .into_iter()
                    .fold(h100(2), |node, second| node.gsp_timeout(ago(minutes(8)) + seconds(second), 1, 41_211))
                    .kernel_line(ago(minutes(7)), limited)
                    .job(1, |process| process.state = text("D"))
            }),
        fatal("gsp-timeout-everywhere", "GSP fails on all GPUs at once. The cause is driver, firmware or host.")
            .must("gsp-failed-on-several")
            .must_not(["class:hardware"])
            .node(|| (0..2).fold(h100(2), |node, gpu| node.gsp_timeout(ago(minutes(8)), gpu, 41_210 + gpu))),
        critical("old-driver-recovered", "A driver before R565 does not log resets. A new job shows a reset of GPU 0.")
            .must(
                finding("gsp-failed")
                    .gpu(0)
                    .severity(Warning)
                    .evidence(["which started since then, is running on the GPU"]),
            )
            .must(finding("ecc-uncontained").gpu(1).severity(Warning).evidence(["Xid 95", "contradicts the log"]))
            .must(finding("ecc-double-bit").gpu(2).severity(Critical).evidence(["uncorrected since driver load: 1"]))
            .must_not(["gsp-failed-on-several", "severity:fatal"])
            .node(|| {
                let double_bit = "An uncorrectable double bit error (DBE) has been detected on GPU.";
                h100(3)
                    .driver("550.163.01", "12.4")
                    .gsp_timeout(ago(hours(3)), 0, 40_981)
                    .job_started(0, ago(hours(2)))
                    .xid(ago(days(2)), 1, 95, UNKNOWN, "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
                    .xid(ago(hours(3)), 2, 48, UNKNOWN, double_bit)
                    .ecc(2, |gpu| (gpu.volatile.uncorrected, gpu.aggregate.uncorrected) = (Some(1), Some(1)))
            }),
        healthy("persistence-off", "Persistence mode is disabled on all four GPUs: one finding.")
            .must(finding("persistence-off").evidence(["GPUs 0-3"]))
            .must_not(["class:hardware"])
            .node(|| {
                (0..4)
                    .fold(l40s(4), |node, gpu| node.inventory(gpu, |gpu| gpu.persistence_mode = Some(false)))
                    .host(|host| host.daemons.persistenced = Some(false))
            }),
        critical("compute-mode-prohibited", "The compute mode of GPU 1 is Prohibited.")
            .must(finding("compute-mode-prohibited").gpu(1))
            .must_not(["class:hardware"])
            .node(|| l40s(2).inventory(1, |gpu| gpu.compute_mode = Some("prohibited".into()))),
        healthy("compute-mode-exclusive", "The compute mode of GPU 1 allows only one process, as is usual with MPS.")
            .must_not(["compute-mode-prohibited"])
            .node(|| l40s(2).inventory(1, |gpu| gpu.compute_mode = Some("exclusive_process".into()))),
        healthy("numa-balancing-on-grace", "The kernel moves pages between the memory of Grace and of the GPUs.")
            .must(finding("numa-balancing-on-grace").severity(Info))
            .node(|| gb200(4).host(|host| host.numa_balancing = Some(true))),
        healthy("numa-balancing-on-x86", "NUMA balancing is on. The GPUs of the node have separate memory.")
            .must_not(["numa-balancing-on-grace"])
            .node(|| l40s(2).host(|host| host.numa_balancing = Some(true))),
        critical("nouveau", "The driver nouveau is bound to the GPUs.")
            .must("driver-nouveau")
            .must_not(["class:hardware", "driver-not-loaded"])
            .node(|| {
                without_driver("gpu-l40s-8", 2, 9_412).daemons_of_a_gpu_node().host(|host| {
                    host.modules = vec!["nouveau".to_owned()];
                    host.pci_gpus.iter_mut().for_each(|gpu| gpu.driver = text("nouveau"));
                })
            }),
        healthy("driver-update-pending", "A different version of the driver is on disk and will be loaded next.")
            .must("driver-update-pending")
            .must_not(["driver-version-mismatch", "driver-update-incomplete"])
            .node(|| l40s(2).host(|host| {
                host.driver.module_on_disk = text("570.133.20");
                host.driver.library = None;
            })),
        warning("driver-update-incomplete", "The next module is on disk, and the library is still that of the loaded module.")
            .must("driver-update-incomplete")
            .must_not(["driver-version-mismatch", "driver-update-pending"])
            .node(|| l40s(2).host(|host| host.driver.module_on_disk = text("570.133.20"))),
        warning("process-without-pod", "A process outside of all pods uses GPU memory.")
            .must(finding("process-outside-kubernetes").evidence(["allocated the same GPU to"]))
            .must_not(["class:hardware"])
            .node(|| {
                let command = "/usr/bin/jupyter-notebook";
                let mut stray = process(77_120, "jupyter-noteboo", command, 902_000, on_gpu(1, 9_812 * MIB));
                (stray.uid, stray.user) = (Some(1007), text("kim"));
                l40s(2).running(None, stray)
            }),
        healthy("processes-of-a-user-without-kubernetes", "One user runs jobs on a node whose cluster offers no GPUs.")
            .must(finding("process-outside-kubernetes").severity(Info).evidence(["pid 77120", "pid 77121"]))
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts { gpu_plugin_in_cluster: Some(false), ..cluster("gpu-l40s-9") })
            .node(|| {
                [0, 1].into_iter().fold(l40s(2).without_jobs(), |node, gpu| {
                    let mut job = process(77_120 + gpu, "python3", "python3 train.py", 902_000, on_gpu(gpu, 9_812 * MIB));
                    (job.uid, job.user) = (Some(1007), text("alice"));
                    node.running(None, job)
                })
            }),
        healthy("modes-with-rules-of-their-own", "Persistence mode and GSP differ on one GPU: one finding for each.")
            .must(finding("persistence-off").gpu(3))
            .must(finding("gsp-firmware-differs").gpu(2))
            .must_not(any_warning_and(["gpu-mode-differs-from-peers", "gpu-differs-from-peers"]))
            .node(|| {
                l40s(4)
                    .inventory(3, |gpu| gpu.persistence_mode = Some(false))
                    .inventory(2, |gpu| gpu.gsp_enabled = Some(false))
                    .host(|host| host.daemons.persistenced = Some(true))
            }),
        warning("leftovers-of-one-pod", "Two processes of one deleted pod use GPU memory: one finding.")
            .must(finding("process-of-deleted-pod").evidence(["77120", "77121"]))
            .cluster(KubernetesFacts {
                gpu_capacity: Some(2),
                live_pod_uids: Some(["job-1", "dcgm"].map(|pod| pod_uid("gpu-l40s-9", pod)).to_vec()),
                ..cluster("gpu-l40s-9")
            })
            .node(|| {
                let stray = |pid: u32, gpu: u32| process(pid, "python3", "python3 train.py", 902_000, on_gpu(gpu, 9_812 * MIB));
                l40s(2).without_job(0).running(Some("gone"), stray(77_120, 0)).running(Some("gone"), stray(77_121, 0))
            }),
        warning("leftovers", "A process of a deleted pod, a zombie, and memory that belongs to no process.")
            .must("process-of-deleted-pod")
            .must("process-zombie")
            .must(("memory-unaccounted", 1))
            .cluster(KubernetesFacts {
                gpu_capacity: Some(2),
                live_pod_uids: Some(["job-1", "dcgm"].map(|pod| pod_uid("gpu-l40s-9", pod)).to_vec()),
                ..cluster("gpu-l40s-9")
            })
            .node(|| {
                let mut zombie = process(77_431, "python3", "", 900_100, Vec::new());
                (zombie.command, zombie.state, zombie.parent_pid) = (None, text("Z"), Some(77_400));
                zombie.open_device_files = vec!["/dev/nvidia1".to_owned()];
                l40s(2).running(Some("job-1"), zombie).processes(|section| {
                    section.unaccounted_memory = vec![UnaccountedMemory { gpu: 1, bytes: 20_480 * MIB }];
                })
            }),
        critical("allocated-mig-device-missing", "A pod has a MIG device that was deleted.")
            .must("allocated-mig-device-missing")
            .must_not(["class:hardware", "allocated-gpu-missing"])
            .node(|| {
                let missing = format!("MIG-{}", uuid(&["gpu-a100-1", "ghost"]));
                a100(2).kubelet(|kubelet| kubelet.allocations[0].devices = vec![missing])
            }),
        warning("mig-unfinished", "MIG is enabled without instances on GPU 0, and pending on GPU 1.")
            .must(("mig-without-instances", 0))
            .must(("mig-mode-pending", 1))
            .must_not(["class:hardware"])
            .node(|| {
                [(0, true), (1, false)].into_iter().fold(a100(2).idle(), |node, (gpu, current)| {
                    let mode = Some(Mode { current, pending: true });
                    node.mig(gpu, |gpu| gpu.mode = mode).inventory(gpu, |gpu| gpu.mig_mode = mode)
                })
            }),
        warning("kubernetes-condition", "A monitor set a condition, and the plugin withholds one GPU.")
            .must("kubernetes-gpu-condition")
            .must("gpus-not-allocatable")
            .must_not(["class:hardware"])
            .cluster(KubernetesFacts {
                gpu_allocatable: Some(1),
                gpu_conditions: vec!["GpuMemWatch: GpuMemError, DCGM_FR_VOLATILE_DBE_DETECTED".to_owned()],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("node-in-repair", "NVSentinel drains the node, and the host will be maintained.")
            .must(finding("node-in-repair").evidence(["nvsentinel-state=draining"]))
            .must("node-maintenance-announced")
            .cluster(KubernetesFacts {
                decisions: vec![
                    Decision {
                        kind: DecisionKind::Repair,
                        owner: "NVSentinel".to_owned(),
                        signal: "label dgxc.nvidia.com/nvsentinel-state=draining".to_owned(),
                        next: "NVSentinel drains the node".to_owned(),
                        at: None,
                    },
                    Decision {
                        owner: "GKE".to_owned(),
                        signal: "label cloud.google.com/scheduled-maintenance-time=1797000000".to_owned(),
                        next: "the host of the node is maintained then".to_owned(),
                        at: Some(ago(hours(-30))),
                        ..Decision::default()
                    },
                ],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("driver-upgrade-under-way", "The GPU Operator replaces the driver: the new library meets the old module.")
            .must(finding("driver-version-mismatch").severity(Info).evidence(["the driver is being upgraded"]))
            .must("node-in-repair")
            .cluster(KubernetesFacts {
                decisions: vec![Decision {
                    kind: DecisionKind::Maintenance,
                    owner: "NVIDIA GPU Operator".to_owned(),
                    signal: "label nvidia.com/gpu-driver-upgrade-state=pod-deletion-required".to_owned(),
                    next: "the operator drains the node, replaces the driver and uncordons the node".to_owned(),
                    at: None,
                }],
                ..cluster_with_gpus("gpu-l40s-4", 4)
            })
            .base("driver-mismatch"),
        warning("gpu-check-failed-in-annotation", "An annotation of a monitor says that a test of a GPU failed.")
            .must(finding("node-label-reports-a-state").severity(Warning).evidence(["Memory - Fail GPU 1"]))
            .cluster(KubernetesFacts {
                states: vec!["gpu.health/last-check=FAILED: dcgmi diag r2: Memory - Fail GPU 1".to_owned()],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        healthy(
            "condition-of-replaced-gpu",
            "A monitor still reports a GPU that was replaced, and one check did not measure.",
        )
        .must(finding("kubernetes-gpu-condition").evidence(["was replaced"]))
        .cluster(KubernetesFacts {
            gpu_conditions: vec![
                "GpuEcc is Unknown: GpuEccHasNoIssues, ECC check failed".to_owned(),
                format!("GpuMemWatch is True: GpuMemWatchIsNotHealthy, GPU_UUID:GPU-{}", uuid(&["replaced"])),
            ],
            ..cluster_with_gpus("gpu-l40s-9", 2)
        })
        .node(|| l40s(2)),
        critical("allocated-gpu-missing", "A pod has a GPU that NVML does not list.")
            .must("allocated-gpu-missing")
            .must("device-plugin-stale")
            .node(|| {
                let missing = format!("GPU-{}", uuid(&["gpu-l40s-9", "ghost"]));
                l40s(2).kubelet(|kubelet| {
                    kubelet.allocations[1].devices = vec![missing.clone()];
                    kubelet.registered[0].devices.push(missing);
                })
            }),
        warning("suspicious-faults", "Different programs fail on GPU 1 only, always at the same TPC.")
            .must(finding("application-faults-on-one-gpu").gpu(1).severity(Warning).evidence(["GPC 3, TPC 2"]))
            .node(|| {
                let message = "Graphics SM Warp Exception on (GPC 3, TPC 2, SM 1): Illegal Address";
                ["python3", "trtllm", "namd3"].into_iter().zip(0..).fold(h100(2), |node, (name, place)| {
                    let process = format!("pid={}, name={name}", 81_000 + place);
                    node.xid(ago(hours(7 - 2 * place)), 1, 13, &process, message)
                })
            }),
        unknown("log-too-short", "The kernel log covers only the last eleven minutes.")
            .must("kernel-log-short")
            .must_not(ALARMS)
            .summary(["covers only the last"])
            .node(|| l40s(2).kernel_log_only_since(ago(minutes(11)))),
        warning("xid-in-an-event-only", "An event of the node quotes an Xid that the kernel log no longer has.")
            .must(finding("node-event-about-gpu").evidence(["Xid"]))
            // Everyone who may create events can write this line.
            .must_not(["node-warnings", "gpu-off-bus"])
            .cluster(KubernetesFacts {
                warnings: vec![event("NvidiaXidError", 1, minutes(40), XID_79)],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2).kernel_log_only_since(ago(minutes(11)))),
        healthy("xid-in-an-event-not-in-the-log", "An event quotes an Xid, and the kernel log of that time has none.")
            .must(finding("node-warnings").evidence(["has no such line"]))
            .must_not(ANY_WARNING)
            .cluster(KubernetesFacts {
                warnings: vec![event("NvidiaXidError", 1, minutes(40), XID_79)],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("three-reboots", "The node rebooted three times within an hour, and its kubelet lost the API server.")
            .must(finding("node-reboots-repeatedly").evidence(["3 times"]))
            .must(finding("node-ready-flaps").evidence(["40 times"]))
            .must(finding("image-clean-up-fails").evidence(["120 times", "found 0 bytes"]))
            .must_not(["node-warnings"])
            .cluster(KubernetesFacts {
                warnings: vec![
                    event("Rebooted", 1, minutes(13), "boot id: 59100e1b"),
                    event("Rebooted", 1, minutes(31), "boot id: fe2544c4"),
                    event("Rebooted", 1, minutes(48), "boot id: c6407e62"),
                    event("NodeNotReady", 40, minutes(5), "Node status is now: NodeNotReady"),
                    event("NodeNotReady", 40, minutes(5), "Node status is now: NodeNotReady"),
                    event("ImageGCFailed", 120, minutes(3), "Attempted to free 98 GB, but only found 0 bytes"),
                ],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("three-reboots-in-a-day", "The node rebooted three times within a day.")
            .must(finding("node-reboots-repeatedly").evidence(["3 times"]))
            .must_not(["node-warnings"])
            .cluster(KubernetesFacts {
                warnings: vec![
                    event("Rebooted", 1, hours(1), "boot id: 59100e1b"),
                    event("Rebooted", 1, hours(9), "boot id: fe2544c4"),
                    event("Rebooted", 1, hours(20), "boot id: c6407e62"),
                ],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("cloud-did-not-initialize-the-node", "The cloud controller did not remove its taint.")
            .must(finding("node-startup-taint-remains").evidence(["uninitialized"]))
            .must_not(["severity:critical"])
            .cluster(started_with_taint(days(2)))
            .node(|| l40s(2)),
        healthy("cloud-initializes-the-node", "The node was created some minutes ago, and has the taint of its start.")
            .must_not(["node-startup-taint-remains"])
            .cluster(started_with_taint(minutes(4)))
            .node(|| l40s(2)),
        warning("rdma-modules-do-not-fit", "The RDMA modules were built for another kernel.")
            .must(finding("rdma-module-refused").evidence(["mlx5_ib"]))
            .must_not(["driver-module-refused", "severity:critical"])
            .cluster(cluster_with_gpus("gpu-l40s-9", 2))
            .node(|| {
                l40s(2)
                    .host(|host| host.modules.retain(|module| module != "mlx5_ib"))
                    .driver_start_line("mlx5_ib: disagrees about version of symbol ib_register_device")
            }),
        warning("clock-of-the-processor-unstable", "The kernel stopped using the clock of the processor.")
            .must(finding("host-clock-slow").evidence(["Marking TSC unstable"]))
            .must_not(["host-slow"])
            .cluster(cluster_with_gpus("gpu-l40s-9", 2))
            .node(|| l40s(2).driver_start_line("tsc: Marking TSC unstable due to clocksource watchdog")),
        healthy("clock-of-a-virtual-machine", "A virtual machine uses the clock of its hypervisor.")
            .must_not(["severity:warning"])
            .cluster(cluster_with_gpus("gpu-l40s-9", 2))
            .node(|| {
                l40s(2)
                    .each_inventory(|gpu| gpu.virtualization_mode = text("passthrough"))
                    .driver_start_line("Hypervisor detected: KVM")
                    .driver_start_line("tsc: Marking TSC unstable due to check_tsc_sync_source failed")
            }),
        healthy("cordoned-after-an-upgrade", "The upgrade of the driver is done, and the node is still cordoned.")
            .must(finding("node-cordoned").severity(Info).evidence(["unschedulable", "upgrade of the driver is done"]))
            .must_not(ANY_WARNING)
            .cluster({
                let mut cluster = cluster_with_gpus("gpu-l40s-9", 2);
                cluster.taints = vec!["node.kubernetes.io/unschedulable:NoSchedule".to_owned()];
                cluster.labels.driver_upgrade_state = text("upgrade-done");
                cluster
            })
            .node(|| l40s(2)),
        healthy("events-of-one-reboot", "One reboot and its usual events are no fault.")
            .must(finding("node-rebooted").severity(Info).evidence(["boot id: 59100e1b"]))
            .must_not(["node-reboots-repeatedly", "node-ready-flaps", "node-warnings"])
            .cluster(KubernetesFacts {
                warnings: vec![
                    event("Rebooted", 1, minutes(13), "boot id: 59100e1b"),
                    event("NodeNotReady", 2, minutes(20), "Node status is now: NodeNotReady"),
                    event("CgroupV1", 1, minutes(13), "Cgroup v1 support is in maintenance mode"),
                ],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        warning("condition-of-this-boot", "A monitor reports a pending remap that NVML does not report, and another fault.")
            .must(finding("kubernetes-gpu-condition").evidence(["GpuMemWatch"]))
            .must(finding("kubernetes-gpu-condition-refuted").severity(Info).evidence(["NVML reports no pending remap"]))
            .cluster(KubernetesFacts {
                gpu_conditions: vec![
                    "GpuMemWatch is True: GpuMemError, DCGM_FR_VOLATILE_DBE_DETECTED".to_owned(),
                    "GpuRowRemapPending is True: RowRemapPending, GPU 1 row remap pending".to_owned(),
                ],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        healthy("condition-older-than-the-boot", "A condition about a lost GPU was set before the boot. The GPU responds.")
            .must(finding("kubernetes-gpu-condition-refuted").evidence(["before the last boot"]))
            .must_not(["kubernetes-gpu-condition", "node-maintenance-announced"])
            .cluster(KubernetesFacts {
                gpu_conditions: vec![format!("AcceleratedHardwareReady is False: NvidiaXID79Error, {XID_79}")],
                gpu_conditions_since: [("AcceleratedHardwareReady".to_owned(), ago(hours(24 * 400)))].into(),
                decisions: vec![Decision {
                    owner: "EKS".to_owned(),
                    signal: "condition AcceleratedHardwareReady is False".to_owned(),
                    next: "EKS replaces or reboots the node".to_owned(),
                    ..Decision::default()
                }],
                ..cluster_with_gpus("gpu-l40s-9", 2)
            })
            .node(|| l40s(2)),
        unknown("not-readable", "ECC could not be read. No fault was found, but there may be one.")
            .must_not(["severity:warning"])
            .node(|| {
                l40s(2).unreadable([Part::Ecc], without_permission())
            }),
        unknown("probe-without-permission", "NVML refuses the probe, and the device files of the node are all there.")
            .must_not(["nvml-access-blocked", "severity:warning"])
            .node(|| l40s(2).unreadable(Part::ALL, without_permission()).nvml_not_available()),
        critical("device-files-not-created", "NVML has no access, because device files are missing.")
            .must(finding("nvml-access-blocked"))
            .must_not(["class:hardware"])
            .node(|| {
                let missing = ["nvidiactl", "nvidia0", "nvidia1"];
                l40s(2).unreadable(Part::ALL, without_permission()).nvml_not_available().host(|host| {
                    host.device_nodes.retain(|name| !missing.contains(&name.as_str()));
                    host.device_nodes_missing = missing.map(str::to_owned).to_vec();
                })
            }),
        warning("xid-unknown-code", "An Xid that is not in the catalogue.")
            .must(finding("xid-unknown").gpu(0).severity(Warning))
            .must_not(["class:hardware"])
            .node(|| l40s(2).xid(ago(minutes(50)), 0, 233, UNKNOWN, "Something new")),
        critical("pmu-halt", "The power management unit halted an hour ago, and nothing shows that the GPU works.")
            .must(finding("xid-driver").gpu(1).evidence(["Xid 62"]))
            .must_not(["class:hardware"])
            .node(|| l40s(2).xid(ago(minutes(50)), 1, 62, UNKNOWN, "209c(2c64) 00000000 00000000")),
        critical(
            "context-switch-timeout",
            "A single context switch timeout requires a reset, and proves no hardware fault.",
        )
        .must(("context-switch-timeout", 0))
        .must_not(["class:hardware"])
        .node(|| {
            let message = "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x1c004";
            l40s(2).xid(ago(minutes(50)), 0, 109, "pid=41210, name=python3", message)
        }),
        warning("device-nodes-missing", "Device files are missing on the host. NVML works nevertheless.")
            .must(finding("device-nodes-missing").evidence(["nvidia1"]))
            .must_not(["class:hardware"])
            .node(|| {
                let missing = ["nvidia1", "nvidia-uvm"].map(str::to_owned);
                l40s(2).host(|host| host.device_nodes_missing = missing.to_vec())
            }),
        critical_for_pods("container-denied", "A reload of systemd denied a container its GPUs.")
            .must(finding("container-device-denied").evidence(["/dev/nvidia1, /dev/nvidiactl", "Unknown Error"]))
            .must_not(["class:hardware", "container-device-stale"])
            .node(|| {
                let denied = ["nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];
                container("GPU-1", &denied.map(|name| (name, Access::Denied, false)))
            }),
        critical_for_pods("container-without-devices", "A container requests GPUs but runs without NVIDIA's runtime.")
            .must(finding("container-without-devices").evidence(["NVIDIA_VISIBLE_DEVICES=all"]))
            .must_not(["class:hardware"])
            .node(|| container("all", &[])),
        critical_for_pods("container-stale", "The driver was reloaded: nvidia-uvm now has a different device number.")
            .must(finding("container-device-stale").evidence(["/dev/nvidia-uvm"]))
            .must_not(["class:hardware", "container-device-denied"])
            .node(|| {
                container(
                    "GPU-0",
                    &[
                        ("nvidia0", Access::Allowed, false),
                        ("nvidiactl", Access::Allowed, false),
                        ("nvidia-uvm", Access::Denied, true),
                    ],
                )
            }),
        healthy("container-fine", "The probe checked a container that can open all of its devices, and whose programs see what they need.")
            .must_not(ANY_WARNING)
            .node(|| viewed(2, |_| ())),
        critical_for_pods("container-old-libcuda", "A program in a container loads libcuda of the image's cuda-compat.")
            .must(
                finding("container-driver-library-does-not-fit")
                    .severity(Critical)
                    .evidence(["/usr/local/cuda/compat/libcuda.so.535.54.03: older than the driver", "error 803"]),
            )
            .must_not(["class:hardware", "container-driver-library-empty"])
            .node(|| viewed(2, |view| view.mapped_libraries[0] = compat("535.54.03"))),
        critical_for_pods("container-empty-libraries", "The driver libraries of a container are empty files.")
            .must(finding("container-driver-library-empty").evidence(["/usr/lib64/libcuda.so.1"]))
            .must_not(["class:hardware", "container-driver-library-does-not-fit"])
            .node(|| {
                viewed(2, |view| {
                    view.mapped_libraries.clear();
                    view.library_files.iter_mut().for_each(|file| file.empty = true);
                })
            }),
        warning_for_pods(
            "container-at-its-limits",
            "A container has used up its shared memory and its limits, and names an interface that it does not have.",
        )
        .must(finding("container-shared-memory-full").evidence(["62 MiB of 64 MiB are used"]))
        .must(finding("container-locked-memory-low").evidence(["64 KiB"]))
        .must(finding("container-limit-low").evidence(["limit of open files: 256"]))
        .must(finding("container-out-of-memory").evidence(["3 times"]))
        .must(finding("container-process-limit-reached").evidence(["1 time"]))
        .must(finding("container-network-setting-without-match").severity(Warning).evidence(["ens3", "eth0"]))
        .must_not(["class:hardware"])
        .node(|| viewed(2, at_its_limits)),
        healthy(
            "container-of-an-unusual-image",
            "One GPU with the default shared memory, a newer cuda-compat, an empty library beside the real one, and settings of another node.",
        )
        .must_not(ANY_WARNING)
        .node(|| viewed(1, of_unusual_image)),
        healthy("container-without-libraries", "A container keeps the driver libraries in a folder of its own.")
            .must(finding("container-driver-library-missing").severity(Info))
            .must_not(ANY_WARNING)
            .node(|| {
                viewed(2, |view| {
                    view.mapped_libraries.clear();
                    view.library_files.clear();
                })
            }),
        critical(
            "host-short-of-parts",
            "The host lacks a disk, a memory module and its clock service; its disk is read-only.",
        )
        .must(finding("host-file-system-read-only").severity(Critical).evidence(["/var/lib/kubelet"]))
        .must(finding("host-file-system-full").evidence(["/tmp"]))
        .must(finding("raid-array-degraded").evidence(["1 of 2 devices work"]))
        .must(finding("host-limit-near").evidence(["tracked connections"]))
        .must(finding("cpu-frequency-held-low").evidence(["1500 of 3700 MHz"]))
        .must(finding("cpus-offline").evidence(["126 of 128"]))
        .must(finding("cpu-sockets-differ").evidence(["socket 1 has 943.0 GiB"]))
        .must(finding("clock-not-synchronized").severity(Warning))
        .must(finding("host-under-pressure").evidence(["memory in 40 %"]))
        .must(finding("kernel-tainted").evidence(["kernel.tainted = 12433"]))
        .node(|| with_levels(short_of_parts)),
        warning_for_pods(
            "imex-twice",
            "The IMEX service of the node owns it, so the IMEX of a ComputeDomain cannot start.",
        )
        .must(finding("imex-service-beside-compute-domain").evidence(["is in no pod", "compute-domain-daemon"]))
        .must_not(["class:hardware"])
        .node(|| {
            let services = ["nvidia-imex", "compute-domain-daemon"].map(|name| StackProcess {
                name: name.to_owned(),
                pid: 6_200,
                pod_uid: (name != "nvidia-imex").then(|| uuid(&["pod", "imex"])),
                started_at: Some(ago(hours(2))),
            });
            gb200(4).host(|host| host.services = services.to_vec())
        }),
        warning(
            "fabric-manager-starts-often",
            "Fabric Manager has an older version than the driver, and was restarted an hour ago.",
        )
        .must(finding("fabric-manager-restarts-often").evidence(["5 starts", "link training"]))
        .must(finding("service-version-differs").evidence(["570.86.15"]))
        .must_not(["class:hardware"])
        .node(|| {
            h100(8).host(|host| {
                let started_at = Some(ago(hours(1)));
                let name = "nv-fabricmanage".to_owned();
                host.services = vec![StackProcess { name, pid: 1_901, pod_uid: None, started_at }];
                host.service_logs = vec![ServiceLog {
                    service: "fabricmanager".to_owned(),
                    version: text("570.86.15"),
                    starts: 5,
                    written_at: started_at,
                    last_error: text("[Nov 21 2026 01:45:12] [ERROR] [tid 1901] failed link training"),
                }];
            })
        }),
        healthy(
            "host-of-an-immutable-system",
            "The image of the system is read-only and full, and second threads of cores are off.",
        )
        .must_not(ANY_WARNING)
        .node(|| with_levels(immutable)),
        warning("nvml-stops", "NVML stopped responding during the read: NVML is slow, or the driver is about to hang.")
            .must(finding("nvml-not-answering").severity(Warning).evidence(["ecc: not read within 20 s"]))
            .must_not(["class:hardware"])
            .node(|| l40s(2).unreadable([Part::Ecc], problem("not read within 20 s", "timeout", "Ask again."))),
    ]
}

/// Returns a node with a container whose devices the probe has read. `devices`: name, access, and whether the node now
/// has another device with this name.
fn container(visible_devices: &str, devices: &[(&str, Access, bool)]) -> Node {
    let device =
        |&(name, access, stale): &(&str, Access, bool)| ContainerDevice { name: name.to_owned(), access, stale };
    let access = ContainerAccess {
        container_id: "c5e1".repeat(16),
        pod_uid: text(uuid(&["pod", "beside"])),
        visible_devices: text(visible_devices),
        devices: devices.iter().map(device).collect(),
        view: None,
    };
    l40s(2).host(|host| host.container = Some(access))
}

/// Returns a node with a container whose programs see these values, after a change.
fn viewed(gpus: u32, change: fn(&mut ContainerView)) -> Node {
    let names = (0..gpus).map(|index| format!("nvidia{index}")).chain(["nvidiactl".to_owned()]);
    let names: Vec<String> = names.collect();
    let devices: Vec<(&str, Access, bool)> = names.iter().map(|name| (name.as_str(), Access::Allowed, false)).collect();
    let mut view = view();
    change(&mut view);
    let set = |host: &mut Host| host.container.as_mut().expect("a container").view = Some(view);
    container("all", &devices).host(set)
}

fn view() -> ContainerView {
    let library = |library: &str| LibraryFile { path: format!("/usr/lib64/{library}.so.1"), empty: false };
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    ContainerView {
        shared_memory: Some(SharedMemory { size_bytes: 64 << 30, used_bytes: 1 << 20 }),
        limits: Some(ProcessLimits {
            locked_memory_bytes: Some(64 << 10),
            open_files: Some(1_048_576),
            processes: None,
        }),
        may_lock_memory: Some(true),
        has_rdma_devices: true,
        memory_kills: Some(0),
        refused_threads: Some(0),
        mapped_libraries: vec![MappedLibrary {
            library: "libcuda".to_owned(),
            path: "/usr/lib64/libcuda.so.570.124.06".to_owned(),
            version: text("570.124.06"),
        }],
        library_files: ["libcuda", "libnvidia-ml"].map(library).to_vec(),
        libraries_searched: true,
        network_settings: [("NCCL_SOCKET_IFNAME", "eth"), ("NCCL_IB_HCA", "mlx5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        interfaces: Some(strings(&["lo", "eth0"])),
        rdma_devices: Some(strings(&["mlx5_0"])),
    }
}

fn compat(version: &str) -> MappedLibrary {
    let path = format!("/usr/local/cuda/compat/libcuda.so.{version}");
    MappedLibrary { library: "libcuda".to_owned(), path, version: text(version) }
}

fn at_its_limits(view: &mut ContainerView) {
    view.shared_memory = Some(SharedMemory { size_bytes: 64 << 20, used_bytes: 62 << 20 });
    view.may_lock_memory = Some(false);
    view.limits.as_mut().expect("limits").open_files = Some(256);
    (view.memory_kills, view.refused_threads) = (Some(3), Some(1));
    view.network_settings.insert("NCCL_SOCKET_IFNAME".to_owned(), "=ens3".to_owned());
}

fn of_unusual_image(view: &mut ContainerView) {
    view.shared_memory = Some(SharedMemory { size_bytes: 64 << 20, used_bytes: 0 });
    view.mapped_libraries = vec![compat("590.48.01")];
    view.library_files.push(LibraryFile { path: "/usr/lib/libcuda.so.1".to_owned(), empty: true });
    view.network_settings.insert("GLOO_SOCKET_IFNAME".to_owned(), "ens3".to_owned());
    view.has_rdma_devices = false;
    view.may_lock_memory = Some(false);
}

fn with_levels(change: fn(&mut HostLevels)) -> Node {
    let mut levels = levels();
    change(&mut levels);
    h100(8).host(|host| host.levels = Some(levels))
}

fn short_of_parts(levels: &mut HostLevels) {
    levels.file_systems[0].read_only = true;
    levels.file_systems[0].paths.pop();
    levels.file_systems.push(FileSystem {
        paths: vec!["/tmp".to_owned()],
        kind: "tmpfs".to_owned(),
        total_bytes: 64 << 30,
        ..FileSystem::default()
    });
    let array =
        DegradedArray { name: "md0".into(), level: text("raid1"), devices: 2, working: 1, is_rebuilding: false };
    levels.degraded_arrays.push(array);
    let connections = Some(Level { used: 1_040_000, limit: 1_048_576 });
    levels.limits = Some(Limits { connections, ..Limits::default() });
    let cpus = levels.cpus.as_mut().expect("CPUs");
    (cpus.online, cpus.smt) = (126, text("on"));
    cpus.governors = [("powersave".to_owned(), 32)].into();
    levels.sockets[1].memory_bytes -= 64 << 30;
    levels.clock.as_mut().expect("a clock").is_synchronized = Some(false);
    levels.kernel_taint = Some(12_289 | 1 << 7 | 1 << 4);
    levels.pressure = Some(Pressure { memory_percent: Some(40), io_percent: Some(85) });
}

fn immutable(levels: &mut HostLevels) {
    levels.file_systems[0].paths.remove(0);
    let image = FileSystem {
        paths: vec!["/".to_owned()],
        kind: "squashfs".to_owned(),
        read_only: true,
        total_bytes: 80 << 20,
        inodes: Some(3000),
        inodes_free: Some(0),
        ..FileSystem::default()
    };
    levels.file_systems.insert(0, image);
    let cpus = levels.cpus.as_mut().expect("CPUs");
    (cpus.online, cpus.smt) = (64, text("forceoff"));
    (cpus.frequency_driver, cpus.governors) = (text("intel_pstate"), [("powersave".to_owned(), 32)].into());
    levels.sockets.iter_mut().for_each(|socket| socket.cpus = 32);
    levels.clock.as_mut().expect("a clock").service = None;
}

/// Creates the problem of a section that NVML refused.
fn without_permission() -> Problem {
    problem("NVML: Insufficient Permissions", "no_permission", "Run the probe privileged, as root.")
}

/// The line about GPU 1 of a node with two L40S.
const XID_79: &str = "NVRM: Xid (PCI:0000:38:00): 79, GPU has fallen off the bus.";

fn started_with_taint(age: SignedDuration) -> KubernetesFacts {
    KubernetesFacts {
        created: Some(ago(age)),
        ready: Some(true),
        taints: vec!["node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule".to_owned()],
        ..cluster_with_gpus("gpu-l40s-9", 2)
    }
}

fn event(reason: &str, count: u32, age: SignedDuration, message: &str) -> PodWarning {
    PodWarning { reason: reason.to_owned(), message: message.to_owned(), count, last: Some(ago(age)) }
}
