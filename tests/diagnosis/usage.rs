//! Tests of the rules about allocated and used GPUs: each single change of a scenario must remove its finding.

use diagnosis::diagnose;
use jiff::SignedDuration;
use syringe_core::facts::Mode;
use syringe_core::facts::ecc::RecoveryAction;
use syringe_core::facts::kubelet::{Allocation, Kubelet};
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::mig::MigDevice;
use syringe_core::facts::processes::{GpuProcess, Processes};
use syringe_core::report::{Report, Section, Status};

use crate::scenarios;

type Change = (&'static str, fn(&mut Report, &mut KubernetesFacts));

fn data<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("the section was read")
}

fn kubelet(report: &mut Report) -> &mut Kubelet {
    data(&mut report.sections.kubelet)
}

fn processes(report: &mut Report) -> &mut Processes {
    data(&mut report.sections.processes)
}

fn pods(cluster: &mut KubernetesFacts) -> &mut Vec<GpuPod> {
    cluster.gpu_pods.as_mut().expect("pods")
}

fn pod<'a>(cluster: &'a mut KubernetesFacts, name: &str) -> &'a mut GpuPod {
    pods(cluster).iter_mut().find(|pod| pod.name == name).expect("the pod")
}

/// Returns the process that the scenario added last.
fn last(report: &mut Report) -> &mut GpuProcess {
    processes(report).processes.last_mut().expect("a process")
}

fn in_part<T>(section: &mut Option<Section<T>>) {
    section.as_mut().expect("a section").status = Status::Partial;
}

/// Asserts that the scenario has the finding, and that each change removes it.
fn silenced(scenario: &str, id: &str, changes: &[Change]) {
    let mut all = scenarios();
    let (report, expected) = all.remove(scenario).expect("the scenario");
    let has = |report: &Report, cluster: &KubernetesFacts| {
        diagnose(report, cluster).findings.iter().any(|finding| finding.id == id)
    };
    assert!(has(&report, &expected.cluster), "{scenario}: no {id}");
    for (what, change) in changes {
        let (mut report, mut cluster) = (report.clone(), expected.cluster.clone());
        change(&mut report, &mut cluster);
        assert!(!has(&report, &cluster), "{scenario}: {id} though {what}");
    }
}

#[test]
fn nobody_is_called_a_stranger_on_doubtful_facts() {
    silenced(
        "stranger-on-a-gpu",
        "gpu-used-without-allocation",
        &[
            ("the allocations were read in part", |report, _| in_part(&mut report.sections.kubelet)),
            ("only allocations by claims are known", |report, _| kubelet(report).source = "claims".into()),
            ("the pods were not read", |_, cluster| cluster.gpu_pods = None),
            ("the process is a monitor", |report, _| last(report).name = Some("dcgm-exporter".into())),
            ("the process has just started", |report, _| {
                let now = report.taken_at.expect("a time");
                last(report).started_at = Some(now - SignedDuration::from_secs(20));
            }),
            ("the process uses very little memory", |report, _| last(report).uses[0].memory_bytes = Some(10 << 20)),
            ("the pod of the process is being deleted", |_, cluster| pod(cluster, "notebook").deleting = true),
            ("the pod of the process is software of the node", |_, cluster| {
                pod(cluster, "notebook").is_node_software = true
            }),
            ("the pod of the process has an unknown claim", |_, cluster| pod(cluster, "notebook").has_claims = true),
            ("a reservation holds the GPU for the pod", |report, _| {
                let held = kubelet(report).allocations.last_mut().expect("an allocation");
                held.pod = Some("gpu-reservation-x7k2p".into());
            }),
            ("the allocated device has an unknown name", |report, cluster| {
                let uid = pod(cluster, "notebook").uid.clone();
                let devices = vec!["vgpu-17".into()];
                kubelet(report).allocations.push(Allocation { pod_uid: uid, devices, ..Allocation::default() });
            }),
            ("the pod has a MIG device of that GPU", |report, cluster| {
                let uid = pod(cluster, "notebook").uid.clone();
                let device = MigDevice { uuid: Some("MIG-a".into()), ..MigDevice::default() };
                data(&mut report.sections.mig).gpus[3].devices.push(device);
                let devices = vec!["MIG-a".into()];
                kubelet(report).allocations.push(Allocation { pod_uid: uid, devices, ..Allocation::default() });
            }),
            ("the process IDs are those of a container", |report, _| processes(report).host_pid_namespace = false),
        ],
    );
}

#[test]
fn no_pod_lacks_its_gpu_on_doubtful_facts() {
    silenced(
        "running-pod-without-gpu",
        "pod-gpu-not-allocated",
        &[
            ("the allocations were read in part", |report, _| in_part(&mut report.sections.kubelet)),
            ("only allocations by claims are known", |report, _| kubelet(report).source = "claims".into()),
            ("no plugin has registered that resource", |report, _| {
                kubelet(report).registered.clear();
                kubelet(report).allocations.clear();
            }),
            ("the container is not running yet", |_, cluster| pod(cluster, "job-3").containers[0].running_since = None),
            ("the pod is being deleted", |_, cluster| pod(cluster, "job-3").deleting = true),
            ("another container of the pod requests the GPU", |_, cluster| pod(cluster, "job-3").containers.clear()),
        ],
    );
}

#[test]
fn allocations_are_not_stale_without_a_second_attempt_and_pods_that_are_gone() {
    silenced(
        "kubelet-allocations-not-released",
        "kubelet-allocations-not-released",
        &[
            ("it is not known which pods exist", |_, cluster| cluster.live_pod_uids = None),
            ("all pods with allocations exist", |report, cluster| {
                let held = kubelet(report).allocations.iter().map(|one| one.pod_uid.clone());
                cluster.live_pod_uids = Some(held.collect());
            }),
            ("the second pod was rejected at the same time", |_, cluster| {
                pod(cluster, "retry-1").observed = pod(cluster, "retry-0").observed;
                pods(cluster).retain(|pod| pod.containers.is_empty());
            }),
            ("the kubelet had no healthy device", |_, cluster| {
                for pod in pods(cluster).iter_mut() {
                    pod.message = Some("no healthy devices present; cannot allocate unhealthy devices".into());
                }
            }),
        ],
    );
}

#[test]
fn a_gpu_that_may_be_ill_is_rightly_withheld() {
    silenced(
        "plugin-withholds-a-working-gpu",
        "working-gpu-marked-unhealthy",
        &[
            ("all GPUs are allocatable", |_, cluster| cluster.gpu_allocatable = cluster.gpu_capacity),
            ("the driver recommends a reset", |report, _| {
                data(&mut report.sections.ecc).gpus[2].recovery_action = Some(RecoveryAction::GpuReset);
            }),
            ("the GPU has an uncorrected error", |report, _| {
                let ecc = &mut data(&mut report.sections.ecc).gpus[2];
                ecc.volatile.uncorrected = Some(1);
            }),
            ("two devices are withheld and one GPU is missing", |report, _| {
                kubelet(report).registered[0].devices.pop();
            }),
            ("the allocations were read in part", |report, _| in_part(&mut report.sections.kubelet)),
            ("there is another finding about the GPU", |report, _| {
                data(&mut report.sections.ecc).gpus[2].inforom_valid = Some(false);
            }),
        ],
    );
}

#[test]
fn memory_that_is_divided_is_not_shared_out() {
    silenced(
        "time-sliced-gpu-is-full",
        "shared-gpu-memory-full",
        &[
            ("MPS limits each client", |report, _| data(&mut report.sections.host).daemons.mps = Some(true)),
            ("MIG divides the GPU", |report, _| {
                data(&mut report.sections.inventory).gpus[0].mig_mode = Some(Mode { current: true, pending: true });
            }),
            ("the other user is a monitor", |report, _| last(report).name = Some("nv-hostengine".into())),
            ("both processes are of one pod", |report, _| {
                let first = processes(report).processes[2].pod_uid.clone();
                last(report).pod_uid = first;
            }),
        ],
    );
}

#[test]
fn a_license_is_missed_only_where_one_is_needed() {
    silenced(
        "vgpu-unlicensed",
        "vgpu-unlicensed",
        &[
            ("the guest has the whole GPU", |report, _| {
                data(&mut report.sections.inventory).gpus[0].virtualization_mode = Some("passthrough".into());
            }),
            ("no feature is in use", |report, _| {
                let license = data(&mut report.sections.inventory).gpus[0].vgpu_license.as_mut().expect("a license");
                license.features[0].enabled = false;
            }),
            ("the driver does not report the license", |report, _| {
                data(&mut report.sections.inventory).gpus[0].vgpu_license = None;
            }),
        ],
    );
}
