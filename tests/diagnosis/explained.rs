//! Tests for every scenario that no pod with a GPU is explained as free of problems if there is a finding about this
//! GPU. `pod`, `allocated`: create such a pod.

use diagnosis::diagnose;
use diagnosis::explanation::{Cause, Explanation, explain};
use diagnosis::finding::{Diagnosis, Finding};
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::kubelet::{Allocation, Kubelet};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodFacts};
use syringe_core::kernel_log::catalogue::SxidEntry;
use syringe_core::report::{Report, Section};

use super::scenarios;

const POD: &str = "99999999-2222-3333-4444-555555555555";

/// Returns a pod that started an hour ago. If its phase is not `Running`, it ended a minute ago with the message `words`.
pub(super) fn pod(now: Timestamp, phase: &str, words: &str) -> PodFacts {
    let begun = now - SignedDuration::from_hours(1);
    let ended = |exit_code, reason: &str| ContainerState::Terminated {
        exit_code,
        reason: reason.into(),
        message: words.into(),
        started: Some(begun),
        finished: Some(now - SignedDuration::from_mins(1)),
    };
    let state = match phase {
        "Running" => ContainerState::Running { since: Some(begun) },
        "Succeeded" => ended(0, "Completed"),
        _ => ended(1, "Error"),
    };
    PodFacts {
        namespace: "research".into(),
        name: "train-0".into(),
        uid: POD.into(),
        node: Some("gpu-1".into()),
        node_ready: Some(true),
        phase: phase.into(),
        created: Some(begun),
        scheduled: Some(begun),
        ready: (phase == "Running").then_some(true),
        containers: vec![ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() }],
        wants_gpus: true,
        gpu_containers: vec!["main".into()],
        ..PodFacts::default()
    }
}

/// Returns the report, changed so that the kubelet has allocated this GPU to the pod.
pub(super) fn allocated(report: &Report, uuid: &str) -> Report {
    let mut report = report.clone();
    let held = Allocation {
        pod_uid: POD.into(),
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        devices: vec![uuid.to_owned()],
        ..Allocation::default()
    };
    let kubelet = report.sections.kubelet.get_or_insert_with(|| {
        Section::read(Kubelet { source: "checkpoint".into(), ..Kubelet::default() }, Vec::new())
    });
    kubelet.data.get_or_insert_default().allocations.push(held);
    report
}

/// Returns the findings about a GPU, about a process that uses only this GPU, and about a switch.
fn about<'d>(diagnosis: &'d Diagnosis, report: &Report, index: u32, address: &str) -> Vec<&'d Finding> {
    let switches = Section::data_of(&report.sections.topology).map(|topology| topology.nvswitches.as_slice());
    diagnosis
        .findings
        .iter()
        .filter(|finding| {
            let pci = finding.scope.pci.as_ref();
            let of_switch = pci.is_some_and(|pci| switches.unwrap_or_default().contains(pci));
            let named = finding.addresses.iter().any(|one| one.to_string() == address);
            finding.severity > Severity::Info && (of_switch || named || finding.scope.gpu == Some(index))
        })
        .collect()
}

fn is_free_of_problems(explained: &Explanation) -> bool {
    explained.cause == Cause::None
        || explained.summary.contains("no problem")
        || explained.ruled_out.iter().any(|line| line.contains("no finding on its GPUs"))
}

/// Checks the explanations of pods on each of these GPUs, and returns how many of these GPUs have a finding.
fn check(name: &str, report: &Report, cluster: &KubernetesFacts, most: usize) -> usize {
    let Some(now) = report.taken_at else { return 0 };
    let diagnosis = diagnose(report, cluster);
    let gpus = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.clone()).unwrap_or_default();
    let mut seen = 0;
    for gpu in gpus.iter().take(most) {
        let Some((uuid, address)) = gpu.uuid.as_ref().zip(gpu.pci_address.as_ref()) else { continue };
        let found = about(&diagnosis, report, gpu.index, &address.to_string());
        let report = allocated(report, uuid);
        for (phase, words) in [
            ("Running", ""),
            ("Succeeded", ""),
            ("Failed", ""),
            ("Failed", "KeyError: 'lr'"),
            ("Failed", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."),
            ("Failed", "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)"),
        ] {
            let explained = explain(&pod(now, phase, words), Some((&report, &diagnosis)), None);
            let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
            let free = is_free_of_problems(&explained);
            assert!(found.is_empty() || !free, "{name}, GPU {}, {phase} {words}: {ids:?} {explained:#?}", gpu.index);
            // A line that rules out an Xid must be limited to the pod's GPUs, and must mention the other GPUs if they
            // have faults.
            let elsewhere = diagnosis.findings.iter().any(|one| {
                one.severity >= Severity::Critical && !one.addresses.is_empty() && !one.addresses.contains(address)
            });
            for line in explained.ruled_out.iter().filter(|line| line.contains("no Xid")) {
                let scoped = line.contains("on its GPUs") && (!elsewhere || line.contains("other GPUs of its node"));
                assert!(scoped, "{name}, GPU {}, {phase} {words}: {line}", gpu.index);
            }
            let resets = matches!(explained.action.code, ActionCode::DrainAndReset | ActionCode::DrainAndReboot);
            let asked = diagnosis.findings.iter().any(|finding| {
                let action = diagnosis.action_for(finding, &[]).code;
                finding.severity > Severity::Info && action.includes(ActionCode::ResetGpu)
            });
            assert!(!resets || asked, "{name}, GPU {}, {phase} {words}: {explained:#?}", gpu.index);
            seen += usize::from(!found.is_empty());
        }
    }
    seen
}

#[test]
fn no_explanation_is_free_of_problems_beside_a_finding_on_its_gpu() {
    let all = scenarios();
    let seen: usize = all.iter().map(|(name, (report, expected))| check(name, report, &expected.cluster, 8)).sum();
    assert!(seen > 300, "{seen} explanations of pods with a finding on their GPU");
}

/// Tests every Xid and SXid of the catalogue that is at least a warning, on the first of two GPUs or on a switch.
#[test]
fn the_explanation_knows_each_event_that_the_diagnosis_judges() {
    let (report, expected) = scenarios().remove("healthy-h100-8").expect("the scenario");
    let switch = Section::data_of(&report.sections.topology).and_then(|topology| topology.nvswitches.first().cloned());
    let gpu = Section::data_of(&report.sections.inventory).and_then(|inventory| inventory.gpus[0].pci_address.clone());
    let xids = syringe_core::kernel_log::xids().filter(|entry| entry.severity > Severity::Info);
    let xids = xids.map(|entry| (Kind::Xid, entry.code, gpu.clone()));
    let fatal = |entry: &&SxidEntry| entry.severity >= Severity::Fatal;
    let sxids = syringe_core::kernel_log::sxids().filter(fatal).map(|entry| (Kind::Sxid, entry.code, switch.clone()));
    let mut seen = 0;
    for (kind, code, place) in xids.chain(sxids) {
        for minutes in [30, 26 * 60] {
            let mut report = report.clone();
            let when = report.taken_at.map(|now| now - SignedDuration::from_mins(minutes));
            let index = (kind == Kind::Xid).then_some(0);
            let event = KernelEvent {
                kind,
                code: Some(code),
                pci_address: place.clone(),
                gpu_index: index,
                count: 1,
                first: when,
                last: when,
                ..KernelEvent::default()
            };
            let log = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log");
            log.events.push(event);
            seen += check(&format!("{kind:?} {code}, {minutes} min"), &report, &expected.cluster, 2);
        }
    }
    assert!(seen > 1000, "{seen} explanations of pods with a finding on their GPU");
}
