//! Tests of the causes of pod failures: Xids of the pod's GPU, of other GPUs or at other times, a broken driver or
//! node, memory that ran out, shared GPUs.

mod cdi;
mod frameworks;
mod guards;
mod harvested;
mod harvested_programs;
mod identity;
mod joins;
mod kubelet;
mod kubelet_admission;
mod linked_pods;
mod messages;
mod one_state;
mod present;
mod process;
mod scheduling;
mod stack;
mod start;
mod time;
mod verbatim;

use jiff::Timestamp;

use process::running;

use crate::diagnose;
use crate::explanation::explain;
use crate::explanation::types::{Cause, Certainty};
use crate::finding::Diagnosis;
use syringe_core::classification::ActionCode;
use syringe_core::facts::LostGpu;
use syringe_core::facts::container::{Access, ContainerAccess, ContainerDevice};
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelEventKind, KernelLog};
use syringe_core::facts::kubelet::{Allocation, Kubelet};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent, PodFacts};
use syringe_core::facts::mig::{GpuMig, Mig, MigDevice};
use syringe_core::facts::processes::{GpuProcess, Processes};
use syringe_core::facts::topology::{Fabric, GpuTopology, Topology};
use syringe_core::nvml_codes::VERSION_MISMATCH;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Problem, Report, Section, Sections};

const POD: &str = "11111111-2222-3333-4444-555555555555";
const OWN_GPU: &str = "0000:5d:00.0";
const OTHER_GPU: &str = "0000:9a:00.0";

fn time(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().expect("a time")
}

fn address(text: &str) -> PciAddress {
    PciAddress::parse(text).expect("an address")
}

/// Creates a pod that started at 02:00 and failed at 02:30 with this exit code.
fn failed(exit_code: i32, reason: &str) -> PodFacts {
    let state = ContainerState::Terminated {
        exit_code,
        reason: reason.into(),
        message: String::new(),
        started: Some(time("02:00:05")),
        finished: Some(time("02:30:00")),
    };
    PodFacts {
        namespace: "research".into(),
        name: "train-0".into(),
        uid: POD.into(),
        node: Some("gpu-2".into()),
        node_ready: Some(true),
        phase: if exit_code == 0 { "Succeeded" } else { "Failed" }.into(),
        created: Some(time("01:59:50")),
        scheduled: Some(time("02:00:00")),
        containers: vec![ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() }],
        wants_gpus: true,
        gpu_containers: vec!["main".into()],
        ..PodFacts::default()
    }
}

fn xid(code: u32, at: &str, gpu: &str, pid: Option<u32>) -> KernelEvent {
    KernelEvent {
        kind: KernelEventKind::Xid,
        code: Some(code),
        name: syringe_core::kernel_log::xid(code).map(|entry| entry.name.into()),
        pci_address: Some(address(gpu)),
        pid,
        count: 1,
        first: Some(time(at)),
        last: Some(time(at)),
        raw: format!("NVRM: Xid {code}"),
        ..KernelEvent::default()
    }
}

/// Creates a node whose kubelet allocated one of two GPUs to the pod. Its kernel has logged these lines since midnight.
fn node(events: Vec<KernelEvent>) -> Report {
    let gpu = |index, uuid: &str, pci| GpuInventory {
        index,
        uuid: Some(uuid.into()),
        pci_address: Some(address(pci)),
        persistence_mode: Some(true),
        ..GpuInventory::default()
    };
    let inventory =
        Inventory { gpus: vec![gpu(0, "GPU-own", OWN_GPU), gpu(1, "GPU-other", OTHER_GPU)], ..Inventory::default() };
    let held = Allocation {
        pod_uid: POD.into(),
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        devices: vec!["GPU-own".into()],
        ..Allocation::default()
    };
    let coverage = Coverage { from: Some(time("00:00:00")), to: Some(time("02:40:00")), ..Coverage::default() };
    let log = KernelLog { coverage: vec![coverage], events, ..KernelLog::default() };
    let sections = Sections {
        inventory: Some(Section::read(inventory, Vec::new())),
        kubelet: Some(Section::read(
            Kubelet { source: "checkpoint".into(), allocations: vec![held], ..Kubelet::default() },
            Vec::new(),
        )),
        xid: Some(Section::read(log, Vec::new())),
        processes: Some(Section::read(Processes { host_pid_namespace: true, ..Processes::default() }, Vec::new())),
        ..Sections::default()
    };
    Report { taken_at: Some(time("02:40:00")), sections, ..Report::default() }
}

/// Creates the Kubernetes facts of this node. It advertises all its GPUs.
fn cluster_of(report: &Report) -> KubernetesFacts {
    let count = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.len());
    let count = count.filter(|count| *count > 0).and_then(|count| u32::try_from(count).ok());
    KubernetesFacts {
        node: Some("gpu-2".into()),
        gpu_capacity: count,
        gpu_allocatable: count,
        ..KubernetesFacts::default()
    }
}

fn cause_of(pod: &PodFacts, report: &Report) -> crate::explanation::types::Explanation {
    let diagnosis = diagnose(report, &cluster_of(report));
    explain(pod, Some((report, &diagnosis)), None)
}

#[test]
fn an_xid_of_the_hardware_on_its_own_gpu_is_the_gpu() {
    let explained = cause_of(&failed(134, "Error"), &node(vec![xid(79, "02:29:58", OWN_GPU, None)]));
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Certain), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains("Xid 79")), "{:?}", explained.evidence);
    assert_eq!(explained.devices, ["GPU-own"]);
}

#[test]
fn a_lost_gpu_is_its_own_by_the_uuid_that_the_probe_kept() {
    for (uuid, cause) in [("GPU-own", Cause::Gpu), ("GPU-third", Cause::Application)] {
        let mut report = node(vec![xid(79, "02:29:58", OWN_GPU, None)]);
        let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut());
        let inventory = inventory.expect("an inventory");
        inventory.gpus.remove(0);
        let lost = LostGpu { uuid: Some(uuid.into()), pci_address: Some(address(OWN_GPU)), ..LostGpu::default() };
        inventory.lost = vec![LostGpu { code: "not_in_nvml".into(), ..lost }];
        let explained = cause_of(&failed(1, "Error"), &report);
        assert_eq!(explained.cause, cause, "{uuid}: {}", explained.summary);
    }
}

#[test]
fn a_gpu_is_its_own_by_whatever_name_the_device_plugin_has_for_it() {
    let mut report = node(vec![xid(79, "02:29:58", OWN_GPU, None)]);
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut());
    inventory.expect("an inventory").gpus[0].minor_number = Some(0);
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
    kubelet.expect("a kubelet").allocations[0].devices = vec!["nvidia0/gi1".into()];
    let explained = cause_of(&failed(134, "Error"), &report);
    assert_eq!(explained.cause, Cause::Gpu, "{}", explained.summary);
}

#[test]
fn the_same_xid_on_a_gpu_that_it_did_not_have_is_not_its_cause() {
    let explained = cause_of(&failed(1, "Error"), &node(vec![xid(79, "02:29:58", OTHER_GPU, None)]));
    assert_eq!(explained.cause, Cause::Application, "{}", explained.summary);
}

#[test]
fn a_pod_that_ended_had_all_gpus_if_it_requested_all() {
    for (requested, cause) in [(2, Cause::Gpu), (1, Cause::Application)] {
        let mut report = node(vec![xid(79, "02:29:58", OTHER_GPU, None)]);
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
        kubelet.expect("a kubelet").allocations.clear();
        let pod = PodFacts { gpus_requested: requested, ..failed(1, "Error") };
        let explained = cause_of(&pod, &report);
        assert_eq!(
            explained.certainty == Certainty::Certain && explained.cause == Cause::Gpu,
            cause == Cause::Gpu,
            "{explained:?}"
        );
    }
}

#[test]
fn the_same_xid_before_or_after_its_life_is_not_its_cause() {
    for at in ["01:00:00", "02:35:00"] {
        let mut report = node(vec![xid(94, at, OWN_GPU, None)]);
        report.sections.inventory = None;
        report.sections.kubelet = None;
        let explained = cause_of(&failed(1, "Error"), &report);
        assert_eq!(explained.cause, Cause::Application, "{at}: {}", explained.summary);
    }
}

#[test]
fn an_application_xid_is_the_application_and_clears_the_gpu() {
    for code in [13, 31] {
        let explained = cause_of(&failed(1, "Error"), &node(vec![xid(code, "02:29:59", OWN_GPU, Some(7))]));
        assert_eq!(explained.cause, Cause::Application, "Xid {code}: {}", explained.summary);
        assert!(
            explained.ruled_out.iter().any(|line| line.starts_with("GPU: no Xid of a GPU fault")),
            "{:?}",
            explained.ruled_out
        );
        assert!(explained.summary.contains("its own GPU code"), "{}", explained.summary);
    }
}

#[test]
fn the_end_of_a_programs_channels_blames_nobody() {
    for code in [43, 45] {
        for (exit_code, cause) in [(1, Cause::Application), (137, Cause::Unknown), (143, Cause::Unknown)] {
            let explained = cause_of(&failed(exit_code, "Error"), &node(vec![xid(code, "02:29:59", OWN_GPU, Some(7))]));
            assert_eq!(explained.cause, cause, "Xid {code}, exit code {exit_code}: {}", explained.summary);
            assert!(!explained.summary.contains("GPU code"), "{}", explained.summary);
        }
        let (pod, report) = running("S", vec![xid(code, "02:10:00", OWN_GPU, Some(8))]);
        assert_eq!(cause_of(&pod, &report).cause, Cause::None, "Xid {code}");
    }
}

#[test]
fn a_gsp_timeout_is_the_node() {
    let explained = cause_of(&failed(1, "Error"), &node(vec![xid(119, "02:29:00", OWN_GPU, Some(7))]));
    assert_eq!(explained.cause, Cause::Node, "{}", explained.summary);
}

/// Creates a node with eight GPUs. The first GPU belongs to the pod. No GPU is registered with the fabric.
fn node_without_fabric() -> Report {
    let mut report = node(Vec::new());
    let fabric = Fabric { state: "not_started".into(), ..Fabric::default() };
    let gpus: Vec<GpuTopology> = (0..8)
        .map(|index| GpuTopology {
            index,
            uuid: Some(if index == 0 { "GPU-own".into() } else { format!("GPU-{index}") }),
            pci_address: Some(if index == 0 { address(OWN_GPU) } else { address(&format!("0000:a{index}:00.0")) }),
            fabric: Some(fabric.clone()),
            ..GpuTopology::default()
        })
        .collect();
    let inventory = gpus.iter().map(|gpu| GpuInventory {
        index: gpu.index,
        uuid: gpu.uuid.clone(),
        pci_address: gpu.pci_address.clone(),
        persistence_mode: Some(true),
        ..GpuInventory::default()
    });
    let inventory = Inventory { gpus: inventory.collect(), ..Inventory::default() };
    let switches = vec![PciAddress::parse("0000:01:00.0").expect("an address")];
    let topology = Topology { gpus, nvswitches: switches, ..Topology::default() };
    report.sections.inventory = Some(Section::read(inventory, Vec::new()));
    report.sections.topology = Some(Section::read(topology, Vec::new()));
    report
}

#[test]
fn the_gpu_of_a_pod_that_ended_is_inferred_from_a_fault_at_its_end() {
    let explained = |at: &str, gpu: &str, has_another: bool| {
        let code = if gpu == OWN_GPU { 48 } else { 119 };
        let mut report = node(vec![xid(code, at, gpu, None)]);
        let kubelet = report.sections.kubelet.as_mut().and_then(|kubelet| kubelet.data.as_mut()).expect("a kubelet");
        kubelet.allocations.retain(|_| has_another);
        kubelet.allocations.iter_mut().for_each(|held| held.pod_uid = "another".into());
        let diagnosis = diagnose(&report, &cluster_of(&report));
        let pod = PodFacts { gpus_requested: 1, ..failed(1, "Error") };
        let explained = explain(&pod, Some((&report, &diagnosis)), None);
        (explained.cause, explained.certainty)
    };
    assert_eq!(explained("02:29:40", OWN_GPU, false), (Cause::Gpu, Certainty::Possible));
    assert_eq!(explained("02:29:40", OTHER_GPU, true), (Cause::Node, Certainty::Possible));
    assert_ne!(explained("02:29:40", OWN_GPU, true).0, Cause::Gpu, "another pod has this GPU");
    assert_ne!(explained("02:20:00", OWN_GPU, false).0, Cause::Gpu, "long before the end");
    assert_ne!(explained("02:35:00", OWN_GPU, false).0, Cause::Gpu, "after the end");
}

#[test]
fn a_finding_about_all_gpus_is_one_about_its_own() {
    let explained = cause_of(&failed(1, "Error"), &node_without_fabric());
    assert_eq!((explained.cause, explained.certainty), (Cause::Gpu, Certainty::Likely), "{}", explained.summary);
    assert!(explained.evidence.iter().any(|line| line.contains("fabric-not-registered")), "{:?}", explained.evidence);
}

#[test]
fn a_node_whose_driver_cannot_be_used_is_the_cause_and_not_the_program() {
    let mut report = node(Vec::new());
    let why = Problem { why: "NVML: no".into(), code: VERSION_MISMATCH.into(), ..Problem::default() };
    report.sections.inventory = Some(Section::failed(why));
    let explained = cause_of(&failed(1, "Error"), &report);
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Likely), "{}", explained.summary);
    assert_eq!(explained.action.code, ActionCode::DrainAndReboot);
    let without_gpus = PodFacts { wants_gpus: false, ..failed(1, "Error") };
    assert_eq!(cause_of(&without_gpus, &report).cause, Cause::Application, "the pod needs no driver");
    let ended = cause_of(&failed(0, "Completed"), &report);
    assert_eq!(ended.cause, Cause::Unknown, "{}", ended.summary);
    assert!(
        ended.summary.contains("the pod completed successfully; there is a finding about its node"),
        "{}",
        ended.summary
    );
}

#[test]
fn out_of_memory_is_distinguished_from_a_gpu_fault() {
    let explained = cause_of(&failed(137, "OOMKilled"), &node(vec![xid(45, "02:30:01", OWN_GPU, Some(7))]));
    assert_eq!(
        (explained.cause, explained.certainty),
        (Cause::Application, Certainty::Likely),
        "reported by the kubelet"
    );
    assert!(explained.summary.contains("host memory"), "{}", explained.summary);
}

/// Creates an OOM kill of a process in this cgroup with this constraint.
fn oom_kill(constraint: &str, cgroup: &str) -> KernelEvent {
    let details = [("constraint", constraint), ("task_memcg", cgroup)];
    KernelEvent {
        kind: KernelEventKind::OomKill,
        code: None,
        pci_address: None,
        details: details.map(|(name, value)| (name.into(), value.into())).into(),
        ..xid(0, "02:29:59", OWN_GPU, Some(7))
    }
}

#[test]
fn the_kernel_line_tells_whose_memory_ran_out() {
    let own = format!("/kubepods.slice/kubepods-pod{}.slice/cri-containerd-1.scope", POD.replace('-', "_"));
    let of = |constraint: &str, cgroup: &str, reason: &str| {
        let explained = cause_of(&failed(137, reason), &node(vec![oom_kill(constraint, cgroup)]));
        (explained.cause, explained.certainty)
    };
    assert_eq!(of("CONSTRAINT_NONE", &own, "OOMKilled"), (Cause::Node, Certainty::Certain));
    assert_eq!(of("CONSTRAINT_MEMCG", &own, "OOMKilled"), (Cause::Application, Certainty::Certain));
    let other = own.replace("1111", "9999");
    assert_eq!(of("CONSTRAINT_NONE", &other, "OOMKilled"), (Cause::Application, Certainty::Likely));
    let nobody = (Cause::Unknown, Certainty::Possible);
    assert_eq!(of("CONSTRAINT_NONE", &other, "Error"), nobody, "another pod's kill explains nothing");
}

/// Creates a node on which the pod shares its GPU with another pod, whose process has pid 9.
fn shared(events: Vec<KernelEvent>) -> Report {
    let mut report = node(events);
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
    kubelet.expect("a kubelet").allocations[0].replicas = Some(1);
    let other = GpuProcess { pid: 9, pod_uid: Some("9999".into()), ..GpuProcess::default() };
    let processes = Processes { host_pid_namespace: true, processes: vec![other], ..Processes::default() };
    report.sections.processes = Some(Section::read(processes, Vec::new()));
    report
}

#[test]
fn who_shares_a_gpu_does_not_answer_for_the_others() {
    let of = |event| cause_of(&failed(1, "Error"), &shared(vec![event]));
    let fault = of(xid(31, "02:29:58", OWN_GPU, Some(9)));
    assert!(fault.summary.contains("exit code 1"), "a fault of the other pod: {}", fault.summary);
    let nobody = of(xid(31, "02:29:58", OWN_GPU, Some(8)));
    assert_eq!((nobody.cause, nobody.certainty), (Cause::Application, Certainty::Possible), "{}", nobody.summary);
    let gone = of(xid(79, "02:29:58", OWN_GPU, Some(9)));
    assert_eq!(gone.cause, Cause::Gpu, "a lost GPU is lost for all pods: {}", gone.summary);
}

#[test]
fn an_error_of_another_mig_instance_is_not_its_own() {
    let device = |uuid: &str, instance| MigDevice {
        uuid: Some(uuid.into()),
        gpu_instance: Some(instance),
        ..MigDevice::default()
    };
    let cause = |instance| {
        let event = KernelEvent { mig_gpu_instance: Some(instance), ..xid(94, "02:29:58", OWN_GPU, None) };
        let mut report = node(vec![event]);
        let devices = vec![device("MIG-own", 1), device("MIG-other", 2)];
        let gpu = GpuMig { index: 0, devices, ..GpuMig::default() };
        report.sections.mig = Some(Section::read(Mig { gpus: vec![gpu], ..Mig::default() }, Vec::new()));
        let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
        kubelet.expect("a kubelet").allocations[0].devices = vec!["MIG-own".into()];
        // The findings of the rules are about the whole GPU, so this test uses an empty diagnosis.
        explain(&failed(1, "Error"), Some((&report, &Diagnosis::default())), None).cause
    };
    assert_eq!((cause(1), cause(2)), (Cause::Gpu, Cause::Application));
}

#[test]
fn an_init_containers_first_try_does_not_hide_how_the_pod_ended() {
    let mut pod = failed(3, "Error");
    let ended = |exit_code| ContainerState::Terminated {
        exit_code,
        reason: "Error".into(),
        message: String::new(),
        started: None,
        finished: Some(time("02:00:03")),
    };
    let init = ContainerFacts { name: "init".into(), state: ended(0), last: Some(ended(1)), restarts: 1 };
    pod.containers.insert(0, init);
    let explained = cause_of(&pod, &node(Vec::new()));
    assert!(explained.summary.contains("container main"), "{}", explained.summary);
}

#[test]
fn sxids_and_xids_are_separate_numbers() {
    let event = KernelEvent { kind: KernelEventKind::Sxid, ..xid(20034, "02:29:58", OWN_GPU, None) };
    assert!(crate::explanation::timeline::line(&event).starts_with("SXid 20034"));
}
