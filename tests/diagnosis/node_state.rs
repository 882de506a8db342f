//! Tests of properties of the findings about the node in Kubernetes: not Ready, conditions, machines, DaemonSets.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Verdict};
use proptest::prelude::*;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::lifecycle::{MachineFacts, NodeConditionFact};
use syringe_core::facts::kubernetes::node::{
    ContainerStateKind, KubernetesFacts, NvidiaContainer, NvidiaContainerState, NvidiaPod, PodWarning,
};
use syringe_core::report::Report;

use super::scenarios;

/// Ids of findings about a node that is not Ready.
const NOT_READY: [&str; 6] = [
    "node-not-ready",
    "node-network-not-ready",
    "node-runtime-down",
    "kubelet-not-reporting",
    "node-shut-down",
    "node-leaving",
];

fn condition(name: &str, status: &str, message: &str) -> NodeConditionFact {
    let (name, status, message) = (name.to_owned(), status.to_owned(), message.to_owned());
    NodeConditionFact { name, status, message, reason: "KubeletNotReady".into(), since: None }
}

/// Returns the facts of a node that is not Ready and that no probe reads.
fn unreached(conditions: Vec<NodeConditionFact>) -> KubernetesFacts {
    KubernetesFacts {
        node: Some("gpu-1".into()),
        ready: Some(false),
        no_probe: Some("not Ready".into()),
        conditions,
        ..KubernetesFacts::default()
    }
}

/// Returns the diagnosis of a healthy node with these DaemonSets, which were created two days ago.
fn with_sets(sets: Vec<DaemonSetFacts>) -> Diagnosis {
    let (report, expected) = scenarios().remove("whole-h100-8").expect("a scenario");
    let created = report.taken_at.map(|now| now - jiff::SignedDuration::from_hours(48));
    let sets = sets.into_iter().map(|set| DaemonSetFacts { created, ..set }).collect();
    diagnose(&report, &KubernetesFacts { daemon_sets: Some(sets), created, ..expected.cluster })
}

fn set(role: DaemonSetRole) -> DaemonSetFacts {
    DaemonSetFacts { namespace: "gpu".into(), name: "thing".into(), role, ..DaemonSetFacts::default() }
}

const ROLES: [DaemonSetRole; 5] = [
    DaemonSetRole::GpuPlugin,
    DaemonSetRole::GpuDriver,
    DaemonSetRole::GpuStack,
    DaemonSetRole::UsesGpus,
    DaemonSetRole::Other,
];

fn ids(diagnosis: &Diagnosis) -> Vec<(&str, Severity)> {
    let of_sets = diagnosis.findings.iter().filter(|finding| finding.id.starts_with("daemonset-"));
    of_sets.map(|finding| (finding.id.as_str(), finding.severity)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_message_of_a_node_that_is_not_ready_stands_in_exactly_one_finding(
        words in "[a-z]{3,12}( [a-z]{3,12}){0,12}",
        phrase in prop::sample::select(vec![
            "", "container runtime is down", "cni plugin not initialized", "node is shutting down", "PLEG is not healthy",
        ]),
        status in prop::sample::select(vec!["False", "Unknown"]),
        pressure in any::<bool>(),
    ) {
        let message = format!("{words} {phrase}").trim().to_owned();
        let mut conditions = vec![condition("Ready", status, &message)];
        conditions.extend(pressure.then(|| condition("DiskPressure", "True", "kubelet has disk pressure")));
        let diagnosis = diagnose(&Report::default(), &unreached(conditions));
        let named: Vec<_> =
            diagnosis.findings.iter().filter(|finding| NOT_READY.contains(&finding.id.as_str())).collect();
        prop_assert_eq!(named.len(), 1, "{:?}", diagnosis.findings);
        prop_assert!(named[0].evidence.iter().any(|line| line.contains(&message)), "{:?}", named[0].evidence);
        prop_assert_eq!(named[0].evidence.iter().any(|line| line.contains("disk pressure")), pressure);
        prop_assert_eq!(diagnosis.verdict, Verdict::Critical);
        prop_assert!(diagnosis.summary.contains("Nothing was read on the node"), "{}", diagnosis.summary);
        // A cause is found only if the message contains a phrase of the table, or the status is unknown.
        let known = !phrase.is_empty() || status == "Unknown";
        prop_assert_eq!(named[0].id != "node-not-ready", known, "{}", named[0].id);
    }

    #[test]
    fn the_conditions_of_a_machine_without_a_node_stand_in_the_finding(message in "[a-z]{3,12}( [a-z]{3,12}){0,12}") {
        let conditions = vec![condition("Registered", "Unknown", &message)];
        let machine = MachineFacts { kind: "NodeClaim".into(), name: "claim".into(), conditions, ..MachineFacts::default() };
        let facts = KubernetesFacts { ready: None, no_node: true, machines: vec![machine], ..unreached(Vec::new()) };
        let diagnosis = diagnose(&Report::default(), &facts);
        let named = diagnosis.findings.iter().find(|finding| finding.id == "node-never-joined").expect("a finding");
        prop_assert!(named.evidence.iter().any(|line| line.contains(&message)), "{:?}", named.evidence);
    }
}

#[test]
fn a_node_that_is_removed_or_joining_is_not_critical() {
    let ready = || vec![condition("Ready", "Unknown", "Kubelet stopped posting node status.")];
    let now = "2026-11-21T02:00:00Z".parse().ok();
    let report = Report { taken_at: now, ..Report::default() };
    let leaving = KubernetesFacts { taints: vec!["karpenter.sh/disrupted:NoSchedule".into()], ..unreached(ready()) };
    let deleted = KubernetesFacts { deleting: true, ..unreached(ready()) };
    let joining = KubernetesFacts { created: "2026-11-21T01:58:00Z".parse().ok(), ..unreached(ready()) };
    for facts in [leaving, deleted, joining] {
        let diagnosis = diagnose(&report, &facts);
        assert_eq!(diagnosis.verdict, Verdict::Unknown, "{facts:?}: {}", diagnosis.summary);
        assert!(!diagnosis.findings.is_empty(), "{facts:?}");
    }
}

#[test]
fn a_machine_that_its_cloud_takes_back_is_no_silent_kubelet() {
    let ready = || vec![condition("Ready", "Unknown", "Kubelet stopped posting node status.")];
    let report = Report { taken_at: "2026-11-21T02:00:00Z".parse().ok(), ..Report::default() };
    let event = |reason: &str, last: &str| PodWarning {
        reason: reason.into(),
        message: "Node will be evicted".into(),
        last: last.parse().ok(),
        ..PodWarning::default()
    };
    for (event, id) in [
        (event("PreemptScheduled", "2026-11-21T01:50:00Z"), "node-shut-down"),
        (event("PreemptScheduled", "2026-11-20T01:50:00Z"), "kubelet-not-reporting"),
        (event("Rebooted", "2026-11-21T01:50:00Z"), "kubelet-not-reporting"),
    ] {
        let facts = KubernetesFacts { warnings: vec![event], read_at: report.taken_at, ..unreached(ready()) };
        let diagnosis = diagnose(&report, &facts);
        let found =
            diagnosis.findings.iter().find(|finding| NOT_READY.contains(&finding.id.as_str())).expect("a finding");
        assert_eq!(found.id, id, "{}", diagnosis.summary);
        assert_eq!(found.headline().contains("takes the machine back"), id == "node-shut-down");
    }
}

#[test]
fn a_daemon_set_is_a_finding_only_if_it_fits_and_has_no_ready_pod() {
    let state = |kind, reason: Option<&str>| NvidiaContainerState {
        kind,
        reason: reason.map(str::to_owned),
        message: Some("back-off restarting".into()),
        ..NvidiaContainerState::default()
    };
    let pod = |ready: bool| {
        let kind = if ready { ContainerStateKind::Running } else { ContainerStateKind::Waiting };
        let state = state(kind, (!ready).then_some("CrashLoopBackOff"));
        let container = NvidiaContainer { name: "main".into(), ready, state, ..NvidiaContainer::default() };
        NvidiaPod { name: "thing-x".into(), ready, containers: vec![container], ..NvidiaPod::default() }
    };
    for role in ROLES {
        let severity = if role == DaemonSetRole::Other { Severity::Info } else { Severity::Warning };
        assert_eq!(ids(&with_sets(vec![set(role)])), [("daemonset-pod-missing", severity)], "{role:?}");
        let elsewhere = DaemonSetFacts { mismatch: Some("its nodeSelector".into()), ..set(role) };
        let ready = DaemonSetFacts { pod: Some(pod(true)), ..set(role) };
        let rolling = DaemonSetFacts { rolling_out: true, ..set(role) };
        for quiet in [elsewhere, ready, rolling] {
            assert_eq!(ids(&with_sets(vec![quiet.clone()])), [], "{quiet:?}");
        }
        let stuck = DaemonSetFacts { rolling_out: true, refusal: Some("exceeded quota".into()), ..set(role) };
        assert_eq!(ids(&with_sets(vec![stuck])).len(), 1, "{role:?}");
        let failing = with_sets(vec![DaemonSetFacts { pod: Some(pod(false)), ..set(role) }]);
        let severity = if role.is_of_stack() { Severity::Warning } else { Severity::Info };
        assert_eq!(ids(&failing), [("daemonset-pod-not-ready", severity)], "{role:?}");
    }
    // A program that waits for a free GPU is not a fault of the node.
    let full = DaemonSetFacts { refusal: Some("Insufficient nvidia.com/gpu".into()), ..set(DaemonSetRole::UsesGpus) };
    assert_eq!(ids(&with_sets(vec![full])), [("daemonset-pod-missing", Severity::Info)]);
}
