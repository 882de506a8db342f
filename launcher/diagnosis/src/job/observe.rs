//! `observe`: reads the values (`Observation`), the load and the findings of one pod of a job (`Observed`) from the
//! report of its node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::facts::kubernetes::PodFacts;
use syringe_core::facts::nccl::NcclStatus;
use syringe_core::report::{Report, Section};

use crate::chain::Event;
use crate::evidence;
use crate::explanation::pod_on_node::PodOnNode;
use crate::finding::{Diagnosis, Finding};
use crate::job::facts::{FACTS, GpuOnNode, Read, Value};

/// Maximum number of events of one pod that are kept, the oldest first.
const MAX_EVENTS: usize = 16;

/// The values of one pod and its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub(super) values: Vec<Observation>,
    /// Kernel events about the GPUs or processes of the pod since its start.
    pub(super) events: Vec<Event>,
    pub(super) findings: Vec<OwnFinding>,
    /// Utilization of each GPU of the pod.
    pub(super) loads: Vec<Load>,
    /// NVML indices of the GPUs of the pod on its node.
    pub(super) gpus: Vec<u32>,
    /// The report of NCCL in the pod.
    pub(super) nccl: Option<NcclStatus>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observation {
    /// Index of the fact in [`FACTS`].
    pub(super) fact: usize,
    /// The GPU, port or process.
    pub(super) place: String,
    pub(super) value: Value,
}

/// A finding above `info` about the GPUs of the pod, the pod or its node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnFinding {
    pub(super) id: String,
    pub(super) severity: Severity,
    pub(super) class: Class,
    pub(super) place: String,
    pub(super) text: String,
}

/// Utilization of one GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) percent: u32,
    pub(super) watts: Option<(f64, f64)>,
}

/// Reads the values of a pod from the report of its node.
pub fn observe(pod: &PodFacts, report: &Report, diagnosis: &Diagnosis) -> Observed {
    let on_node = PodOnNode::of(pod, report);
    let sections = &report.sections;
    let gpus = on_node.indices.iter().map(|index| {
        let index = *index;
        let telemetry =
            Section::data_of(&sections.telemetry).and_then(|all| all.gpus.iter().find(|gpu| gpu.index == index));
        let inventory =
            Section::data_of(&sections.inventory).and_then(|all| all.gpus.iter().find(|gpu| gpu.index == index));
        let topology =
            Section::data_of(&sections.topology).and_then(|all| all.gpus.iter().find(|gpu| gpu.index == index));
        (format!("GPU {index}"), GpuOnNode { telemetry, inventory, topology })
    });
    let gpus: Vec<(String, GpuOnNode<'_>)> = gpus.collect();
    let processes: Vec<_> = on_node.processes.iter().filter(|process| !process.uses.is_empty()).collect();
    let ports = Section::data_of(&sections.topology).map(|topology| topology.nics.as_slice()).unwrap_or_default();
    let mut values = Vec::new();
    for (fact, row) in FACTS.iter().enumerate() {
        let mut add = |place: String, value: Option<Value>| {
            values.extend(value.map(|value| Observation { fact, place, value }));
        };
        match row.read {
            Read::Gpu(read) => gpus.iter().for_each(|(place, gpu)| add(place.clone(), read(gpu))),
            Read::Process(read) => processes.iter().for_each(|one| add(evidence::process(one), read(one))),
            Read::Port(read) => {
                ports
                    .iter()
                    .for_each(|port| add(format!("{} port {}", evidence::data(&port.device), port.port), read(port)));
            }
            Read::Node(read) => add(String::new(), read(report)),
            Read::Pod(read) => add(String::new(), read(pod)),
            Read::ProcessCount => {
                let was_read = Section::data_of(&sections.processes).is_some_and(|all| all.host_pid_namespace);
                add(String::new(), was_read.then_some(Value::Number(processes.len() as f64)));
            }
        }
    }
    let (from, _) = pod.run();
    let mut events: Vec<Event> = on_node.own_events.iter().filter_map(|event| event_of(event, from)).collect();
    events.sort_by_key(|event| event.at);
    events.truncate(MAX_EVENTS);
    let loads = gpus.iter().filter_map(|(_, gpu)| {
        let telemetry = gpu.telemetry?;
        let power = &telemetry.power;
        let limit = power.enforced_limit_milliwatts.filter(|limit| *limit > 0);
        let watts =
            power.draw_milliwatts.zip(limit).map(|(draw, limit)| (f64::from(draw) / 1000.0, f64::from(limit) / 1000.0));
        Some(Load { percent: telemetry.utilization.gpu_percent?, watts })
    });
    let loads = loads.collect();
    let findings = diagnosis.findings.iter().filter(|finding| is_own(finding, pod, &on_node.indices));
    let nccl = report.nccl.clone().filter(|nccl| nccl.pod_uid == pod.uid);
    let gpus = on_node.indices.iter().copied().collect();
    Observed { values, events, findings: findings.map(own_finding).collect(), loads, gpus, nccl }
}

/// Returns an event with its first time since the start of the pod.
fn event_of(event: &KernelEvent, from: Option<Timestamp>) -> Option<Event> {
    let at = event.occurred_at().into_iter().find(|at| from.is_none_or(|from| *at >= from)).or(event.last)?;
    Some(Event { line: evidence::kernel_line(event), ..Event::of(event, at)? })
}

/// Returns whether a finding is about the GPUs of the pod, about the pod, or about the node as a whole.
fn is_own(finding: &Finding, pod: &PodFacts, gpus: &BTreeSet<u32>) -> bool {
    let scope = &finding.scope;
    finding.severity > Severity::Info
        && scope.gpu.is_none_or(|gpu| gpus.contains(&gpu))
        && scope.pod_uid.as_ref().is_none_or(|uid| *uid == pod.uid)
}

fn own_finding(finding: &Finding) -> OwnFinding {
    let place = finding.scope.gpu.map(|gpu| format!("GPU {gpu}")).unwrap_or_default();
    let first = finding.evidence.first().map(|line| format!(": {line}")).unwrap_or_default();
    OwnFinding {
        id: finding.id.clone(),
        severity: finding.severity,
        class: finding.class,
        place,
        text: evidence::reason(&format!("{}{first}", finding.headline())),
    }
}
