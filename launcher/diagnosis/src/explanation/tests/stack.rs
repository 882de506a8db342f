//! Tests of findings about NVIDIA's stack on the node, and of the pods that these findings explain.

use crate::explanation::tests::{
    Cause, Certainty, ContainerFacts, ContainerState, PodFacts, explain, failed, node, running,
};
use crate::explanation::types::Explanation;
use crate::finding::{Action, Diagnosis, Finding};
use syringe_core::classification::{ActionCode, Severity};

/// Creates a finding about the node, or about the GPU of the pod.
fn finding(id: &str, severity: Severity) -> Finding {
    Finding {
        id: id.into(),
        severity,
        class: syringe_core::classification::Class::Driver,
        title: format!("title of {id}"),
        evidence: vec!["pod gpu-operator/train-0: CrashLoopBackOff".into()],
        action: Action { code: ActionCode::UpdateSoftware, text: format!("mend {id}") },
        ..Finding::default()
    }
}

fn explained(pod: &PodFacts, finding: Finding) -> Explanation {
    let diagnosis = Diagnosis { findings: vec![finding], ..Diagnosis::default() };
    explain(pod, Some((&node(Vec::new()), &diagnosis)), None)
}

/// Findings about NVIDIA's stack, with their severities.
const STACK: [(&str, Severity); 6] = [
    ("stack-broken-at-plugin", Severity::Critical),
    ("kubelet-allocations-not-released", Severity::Critical),
    ("cdi-stale", Severity::Critical),
    ("runtime-handler-missing", Severity::Critical),
    ("gpus-not-advertised", Severity::Warning),
    ("two-device-plugins", Severity::Warning),
];

#[test]
fn a_program_that_ran_did_not_end_because_of_how_gpus_are_offered() {
    for (id, severity) in STACK {
        let explained = explained(&failed(1, "Error"), finding(id, severity));
        assert_eq!(explained.cause, Cause::Application, "{id}: {}", explained.summary);
    }
    let driver = explained(&failed(1, "Error"), finding("driver-not-loaded", Severity::Fatal));
    assert_eq!((driver.cause, driver.certainty), (Cause::Node, Certainty::Likely), "{}", driver.summary);
}

#[test]
fn a_container_that_waits_may_do_so_because_of_how_gpus_are_offered() {
    let state = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { phase: "Pending".into(), containers: vec![main], ..failed(1, "Error") };
    let explained = explained(&pod, finding("runtime-handler-missing", Severity::Critical));
    assert_eq!((explained.cause, explained.certainty), (Cause::Node, Certainty::Possible), "{}", explained.summary);
}

#[test]
fn a_pod_of_the_stack_is_explained_by_what_is_found_of_the_stack() {
    let of_stack =
        |pod: PodFacts| PodFacts { wants_gpus: false, gpu_containers: Vec::new(), is_gpu_stack: true, ..pod };
    for (id, severity) in STACK {
        let explained = explained(&of_stack(failed(1, "Error")), finding(id, severity));
        assert_eq!(
            (explained.cause, explained.certainty),
            (Cause::Node, Certainty::Likely),
            "{id}: {}",
            explained.summary
        );
        assert_eq!(explained.action.text, format!("mend {id}"));
    }
    // The first pod is a running plugin that the finding is about. The second is another pod of the stack without a
    // problem.
    let (plugin, _) = running("S", Vec::new());
    let found = explained(&of_stack(plugin.clone()), finding("gpus-not-advertised", Severity::Warning));
    assert_eq!((found.cause, found.certainty), (Cause::Node, Certainty::Possible), "{}", found.summary);
    let unnamed = PodFacts { name: "plugin-x".into(), is_device_plugin: true, ..plugin.clone() };
    let found = explained(&of_stack(unnamed), finding("gpus-not-advertised", Severity::Warning));
    assert_eq!(found.cause, Cause::Node, "{}", found.summary);
    let other = PodFacts { name: "dcgm-exporter-x".into(), ..plugin };
    let found = explained(&of_stack(other), finding("gpus-not-advertised", Severity::Warning));
    assert_eq!((found.cause, found.certainty), (Cause::Unknown, Certainty::Possible), "{}", found.summary);
    assert!(found.summary.contains("there is a finding about its node"), "{}", found.summary);
    // Without a finding, the failure of NVIDIA's software is a fault of the node.
    let alone = explained(&of_stack(failed(1, "Error")), finding("process-list-partial", Severity::Info));
    assert_eq!(alone.cause, Cause::Node, "{}", alone.summary);
    assert!(alone.action.text.contains("kubectl logs"), "{}", alone.action.text);
}

#[test]
fn a_program_that_ends_on_a_full_shared_gpu_may_have_run_out_of_its_memory() {
    let on = |gpu: &str| {
        let addresses = vec![crate::explanation::tests::address(gpu)];
        Finding { addresses, ..finding("shared-gpu-memory-full", Severity::Warning) }
    };
    let own = explained(&failed(1, "Error"), on(crate::explanation::tests::OWN_GPU));
    assert_eq!((own.cause, own.certainty), (Cause::Node, Certainty::Possible), "{}", own.summary);
    assert!(own.summary.contains("memory of its shared GPU is full"), "{}", own.summary);
    assert!(own.action.text.contains("kubectl logs"), "{}", own.action.text);
    for explained in [
        explained(&failed(1, "Error"), on(crate::explanation::tests::OTHER_GPU)),
        explained(&failed(139, "Error"), on(crate::explanation::tests::OWN_GPU)),
    ] {
        assert_eq!(explained.cause, Cause::Application, "{}", explained.summary);
    }
}
