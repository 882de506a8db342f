//! Turns facts into findings with pure rules.
//!
//! Each rule avoids two errors: an alarm about healthy hardware, and a healthy verdict without having read the facts.
//! Therefore a finding quotes its evidence, and values that could not be read are listed as unknown, never as healthy.
//!
//! ```text
//!   Report ──▶ node (every GPU once) ──▶ all_rules ──▶ drafts ──▶ recovery ──▶ plan ──▶ merged, named ──▶ Diagnosis
//!              timeline (cause, history)  lost, xid, memory, …              └──▶ health (points per GPU)
//!              faults_ruled_out (facts read of every GPU) ──▶ verdict and summary where nothing was found
//! ```
//!
//! `healthy` requires every section, and every fact that the summary needs to rule out faults. A report with fewer sections
//! gets `no_fault_found` at best, and its summary names the sections that were checked.

mod all_rules;
mod cdi;
mod collective;
mod container;
mod contradictions;
mod draft;
mod driver;
mod driver_log;
mod driver_not_loaded;
mod driver_setup;
mod event_severity;
mod evidence;
mod fabric_manager;
mod faults_ruled_out;
pub mod finding;
mod gpu;
pub mod gpu_pods;
mod gsp;
mod health;
mod implausible;
mod kernel_log_coverage;
mod kubernetes_facts;
mod kubernetes_gpus;
mod lost;
mod memory;
mod mig;
mod node;
mod not_checked;
#[cfg(test)]
mod not_checked_tests;
mod nvidia_stack;
mod nvlink_events;
mod nvlink_state;
mod other_devices;
#[cfg(test)]
mod past_events_tests;
mod pcie;
mod persistence;
mod plan;
#[cfg(test)]
mod plan_tests;
mod power;
mod processes;
mod recovery;
mod refused_gpus;
mod rules;
mod runtime;
mod siblings;
pub mod stack_log;
mod stack_stage;
mod summary;
mod thermal;
mod timeline;
mod unknown;
mod usage;
mod xid;
mod xid_history;

pub use all_rules::catalogue_of_rules;
pub use finding::{Action, ActionCode, Class, Diagnosis, Finding, Plan, Scope, Severity, Unknown, Verdict};
pub use gpu_pods::{GpuContainer, GpuPod};
pub use kubernetes_facts::{
    Component, ContainerStateKind, GpuLabels, KubernetesFacts, KubernetesInput, NvidiaContainer, NvidiaContainerState,
    NvidiaPod, PodWarning, RuntimeClassUse, UnreadInput,
};
pub(crate) use lost::precedes as precedes_bus_loss;
pub use processes::{Stuck, stuck};
pub use rules::Rule;
pub use stack_stage::{StackStage, Stage, StageState};

use crate::facts::health::Health;
use crate::pci::PciAddress;
use crate::report::{Report, Section};
use node::Node;

/// Diagnoses a node from its report and the facts of the Kubernetes API.
pub fn diagnose(report: &Report, kubernetes: &KubernetesFacts) -> Diagnosis {
    let node = Node::new(report, kubernetes);
    let (mut unknown, undecided) = unknown::list(&node);
    let contradictions = contradictions::list(&node);
    let undecided = undecided || !contradictions.is_empty();
    unknown.extend(contradictions);
    let mut drafts = all_rules::drafts(&node);
    let stack = nvidia_stack::stages(&node, &drafts);
    let plan = plan::make_plans(&node, &mut drafts);
    let concluded = draft::into_findings(drafts, &node.name);
    let worst = concluded.iter().map(|concluded| concluded.finding.severity).max().unwrap_or_default();
    // A node without GPUs is not healthy.
    let no_gpu = node.listed().next().is_none() && (node.inventory().is_some() || node.host().is_some());
    let nothing_read = node.gpus.is_empty() && report.sections.xid.is_none();
    let not_judged = unknown::not_judged(&node);
    let mut in_part = node.judged_in_part();
    if unknown.iter().any(|one| one.section == "host") && !in_part.contains(&"host") {
        in_part.push("host");
    }
    let mut judged = node.judged();
    judged.retain(|section| !in_part.contains(section));
    let verdict = match worst {
        Severity::Fatal => Verdict::Fatal,
        Severity::Critical => Verdict::Critical,
        Severity::Warning => Verdict::Warning,
        Severity::Info if undecided || nothing_read || no_gpu => Verdict::Unknown,
        Severity::Info if !not_judged.is_empty() => Verdict::NoFaultFound,
        Severity::Info => Verdict::Healthy,
    };
    let words = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let kernel_log = node.kernel_log().map(|log| log.coverage.clone()).unwrap_or_default();
    Diagnosis {
        verdict,
        undecided: undecided || nothing_read || no_gpu,
        summary: summary::write(&node, verdict, &concluded),
        judged: words(judged),
        judged_in_part: words(in_part),
        not_judged: words(not_judged),
        plan,
        not_checked: not_checked::list(&node),
        unknown,
        kernel_log,
        stack,
        findings: concluded.into_iter().map(|concluded| concluded.finding).collect(),
    }
}

/// The first pod of NVIDIA's stack on the node that does not do its work, with the container whose log may say why: as far as
/// Kubernetes alone tells.
pub fn first_failing_pod(kubernetes: &KubernetesFacts) -> Option<(&NvidiaPod, &str)> {
    let report = Report::default();
    let node = Node::new(&report, kubernetes);
    let (uid, container) = nvidia_stack::log_to_read(&node)?;
    let pod = kubernetes.nvidia_pods.as_ref()?.iter().find(|pod| pod.uid == uid)?;
    let container = pod.containers.iter().find(|one| one.name == container)?;
    Some((pod, container.name.as_str()))
}

/// Computes score and status of the node and of each GPU.
pub fn health(report: &Report) -> Health {
    let kubernetes = KubernetesFacts::default();
    let node = Node::new(report, &kubernetes);
    health::score(&node, &all_rules::drafts(&node))
}

/// Returns PCI address, index and UUID of every GPU in the inventory. Kernel events are joined to GPUs with them.
pub fn gpu_addresses(report: &Report) -> Vec<(PciAddress, u32, Option<String>)> {
    let inventory = Section::data_of(&report.sections.inventory);
    let gpus = inventory.map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
    gpus.iter().filter_map(|gpu| Some((gpu.pci_address.clone()?, gpu.index, gpu.uuid.clone()))).collect()
}
