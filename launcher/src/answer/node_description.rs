//! `NodeDescription`: the description of one node, with data from Kubernetes and from a probe.
//! `NodeTotals`, `GpuRow`: its numbers of GPUs, and a GPU as a row.

use std::collections::BTreeMap;

use diagnosis::finding::{Finding, Verdict};
use diagnosis::health::HealthStatus;
use diagnosis::stack_stage::StackStage;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::KubernetesInput;
use syringe_core::facts::mig::GpuMig;
use syringe_core::report::{Section, Sections};
use syringe_core::unknown::Unknown;

use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node::NodeReading;
use crate::terminal::table::counted;
use kube_read::Connection;
use kube_read::objects::gpu_requests::ResourceUse;
use kube_read::objects::gpu_resource_names::Unit;
use kube_read::objects::node_conditions::{Condition, conditions, is_cordoned, is_ready};
use kube_read::objects::node_facts as node_gpus;
use kube_read::objects::node_labels::gpu_labels;
use kube_read::objects::pod_rows::PodRow;
use kube_read::objects::resolve_devices;
use kube_read::reads::events::{NodeEvent, PodEventRow};
use kube_read::reads::node_with_pods::NodeWithPods;
use syringe_macros::omit;

/// Maximum number of findings in one answer. The worst findings are kept; `diagnose_gpu_node` returns all of them.
const MAX_FINDINGS: usize = 10;

#[omit(Option, Vec, BTreeMap, !resources, !pods, !conditions)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeDescription {
    /// Whether unread data may hide a worse finding.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) undecided: bool,
    /// One or two sentences.
    pub summary: String,
    /// Numbers of GPUs.
    pub totals: NodeTotals,
    /// The worse of the state in Kubernetes and the findings of the probe; `unknown` is not healthy.
    pub overall_health: HealthStatus,
    /// The node.
    pub node: String,
    /// The kubeconfig context.
    pub context: String,
    /// Findings from the probe, worst first. `diagnose_gpu_node` checks more.
    pub findings: Vec<Finding>,
    /// Number of findings left out.
    pub findings_omitted: Option<usize>,
    /// Data that could not be read, including the data of a probe that was not possible.
    pub unknown: Vec<Unknown>,
    /// Problems that Kubernetes reports.
    pub kubernetes_problems: Vec<String>,
    /// Whether the kubelet reports Ready.
    pub ready: bool,
    /// Whether the node is cordoned.
    pub cordoned: bool,
    /// GPU model.
    pub model: Option<String>,
    /// Driver version; read by the probe, or else from the labels of the node.
    pub driver_version: Option<String>,
    /// Newest CUDA version that the driver supports.
    pub cuda_version: Option<String>,
    /// The GPUs, from the probe.
    pub gpus: Vec<GpuRow>,
    /// Use of each GPU resource.
    pub resources: Vec<ResourceUse>,
    /// Pods that request or use GPUs.
    pub pods: Vec<PodRow>,
    /// Conditions of the node.
    pub conditions: Vec<Condition>,
    /// Taints, `key=value:effect`.
    pub taints: Vec<String>,
    /// Labels about GPUs, with their full names. Labels can be used as selectors.
    pub labels: BTreeMap<String, String>,
    /// Newest events of the node. The messages are data from the node.
    pub events: Vec<NodeEvent>,
    /// Number of older events left out.
    pub events_omitted: Option<usize>,
    /// Newest warnings about pods of the node; only pods that are not ready or were restarted.
    pub pod_events: Vec<PodEventRow>,
    /// Stages of the GPUs from the PCI bus to the scheduler, in order.
    pub stack: Vec<StackStage>,
    /// How the node was read, or how the probe failed; absent if no probe was created.
    pub probe: Option<ProbeSummary>,
}

/// Numbers of GPUs of a node.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeTotals {
    /// GPUs that the node should have.
    pub total_gpus: u64,
    /// GPUs that are allocated, completely or in part. Absent if the pods could not be read.
    pub allocated_gpus: Option<u64>,
    /// GPUs that are free and allocatable. Absent if the pods could not be read.
    pub available_gpus: Option<u64>,
}

/// A GPU as a table row.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct GpuRow {
    /// NVML index; absent for a GPU that NVML does not list.
    pub index: Option<u32>,
    /// UUID.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<String>,
    /// Status.
    pub status: HealthStatus,
    /// Score; 100 means no fault.
    pub score: u32,
    /// GPU temperature.
    pub temperature_celsius: Option<i32>,
    /// Utilization.
    pub utilization_percent: Option<u32>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// MIG devices of the GPU, counted by profile: `2 x 3g.40gb`. Absent while MIG is off.
    pub mig_devices: Option<String>,
}

impl NodeDescription {
    /// Creates the part of the description that comes from Kubernetes.
    pub(crate) fn of(view: &NodeWithPods, connection: &Connection) -> Self {
        let node = &view.node;
        let resources = view.uses();
        let (capacity, allocatable) = node_gpus::capacity_and_allocatable(node, view.dra.as_ref());
        let total_gpus = view.physical_gpus(&resources);
        let (allocated_gpus, available_gpus) = gpus_in_use(&resources, total_gpus).unzip();
        Self {
            undecided: true,
            summary: String::new(),
            totals: NodeTotals { total_gpus, allocated_gpus, available_gpus },
            overall_health: HealthStatus::Unknown,
            node: node.name_any(),
            context: connection.context.clone(),
            findings: Vec::new(),
            findings_omitted: None,
            unknown: view.unknown.clone(),
            kubernetes_problems: node_gpus::problems(node, &capacity, &allocatable),
            ready: is_ready(node),
            cordoned: is_cordoned(node),
            model: node_gpus::model(node, view.dra.as_ref()),
            driver_version: node_gpus::driver_version(node, view.dra.as_ref()),
            cuda_version: None,
            gpus: Vec::new(),
            resources,
            pods: view.rows(),
            conditions: conditions(node, connection.now()),
            taints: node_gpus::taints(node),
            labels: gpu_labels(node),
            events: Vec::new(),
            events_omitted: None,
            pod_events: Vec::new(),
            stack: Vec::new(),
            probe: None,
        }
    }

    /// Adds the part that comes from the probe.
    pub(crate) fn add(&mut self, read: NodeReading) {
        let NodeReading { report, diagnosis, note, existing_pods: _, cluster: _ } = read;
        let totals = &mut self.totals;
        // Without a running device plugin, the node advertises no GPUs, even if it has GPUs.
        let found = found_gpus(&report.sections);
        if found > totals.total_gpus {
            totals.total_gpus = found;
            (totals.allocated_gpus, totals.available_gpus) = gpus_in_use(&self.resources, found).unzip();
        }
        if let (Some(allocated), Some(available)) = (&mut totals.allocated_gpus, &mut totals.available_gpus) {
            *allocated = (*allocated).max(resolve_devices::allocated_gpus(&report.sections)).min(totals.total_gpus);
            *available = (*available).min(totals.total_gpus - *allocated);
        }
        let Sections { inventory, telemetry, mig, .. } = report.sections;
        let mig = Section::into_data(mig).map(|mig| mig.gpus).unwrap_or_default();
        if let Some(inventory) = Section::into_data(inventory) {
            self.driver_version = inventory.driver_version.or(self.driver_version.take());
            self.cuda_version = inventory.cuda_version;
            let model = inventory.gpus.into_iter().find_map(|gpu| gpu.name);
            self.model = model.or(self.model.take());
        }
        let telemetry = Section::into_data(telemetry).unwrap_or_default();
        let health = diagnosis.health;
        let of_verdict =
            if diagnosis.verdict == Verdict::Unknown { HealthStatus::Unknown } else { HealthStatus::Healthy };
        self.overall_health = health.status.max(of_verdict);
        let row = |gpu: diagnosis::health::GpuHealth| {
            let now = telemetry.gpus.iter().find(|now| Some(now.index) == gpu.index);
            GpuRow {
                index: gpu.index,
                uuid: gpu.uuid,
                pci_address: gpu.pci_address.map(|address| address.sysfs().to_owned()),
                status: gpu.status,
                score: gpu.score,
                temperature_celsius: now.and_then(|now| now.temperature.gpu_celsius),
                utilization_percent: now.and_then(|now| now.utilization.gpu_percent),
                memory_used_bytes: now.and_then(|now| now.memory.used_bytes),
                mig_devices: mig.iter().find(|mig| Some(mig.index) == gpu.index).and_then(GpuMig::layout),
            }
        };
        self.gpus = health.gpus.into_iter().map(row).collect();
        self.findings = diagnosis.findings;
        let omitted = self.findings.len().saturating_sub(MAX_FINDINGS);
        self.findings_omitted = (omitted > 0).then_some(omitted);
        self.findings.truncate(MAX_FINDINGS);
        // The Kubernetes part of the description already reports pods and ResourceSlices that could not be read.
        let shared = [KubernetesInput::Pods, KubernetesInput::ResourceSlices].map(KubernetesInput::section);
        for unknown in diagnosis.unknown {
            let is_known = self.unknown.iter().any(|known| known.section == unknown.section);
            if !(is_known && shared.contains(&unknown.section.as_str())) {
                self.unknown.push(unknown);
            }
        }
        self.undecided = diagnosis.undecided;
        self.stack = diagnosis.stack;
        self.summary = diagnosis.summary;
        self.probe = Some(note);
    }

    /// Sets the summary and the verdict from both parts.
    pub(crate) fn set_summary(&mut self) {
        let Self { summary: text, totals, overall_health, findings, kubernetes_problems, ready, resources, .. } = self;
        let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or_default();
        let found = match worst {
            Severity::Fatal | Severity::Critical => HealthStatus::Unhealthy,
            Severity::Warning => HealthStatus::Degraded,
            Severity::Info => *overall_health,
        };
        let told = match (*ready, kubernetes_problems.is_empty()) {
            (false, _) => HealthStatus::Unhealthy,
            (true, false) => HealthStatus::Degraded,
            (true, true) => HealthStatus::Healthy,
        };
        *overall_health = (*overall_health).max(found).max(told);
        let NodeTotals { total_gpus, allocated_gpus, available_gpus, .. } = totals;
        let seen =
            if text.is_empty() { "Not probed: hardware was not checked.".to_owned() } else { std::mem::take(text) };
        *text = match allocated_gpus.zip(*available_gpus) {
            Some((allocated, available)) => {
                let parts = mig_devices_in_use(resources);
                let whole = if parts.is_empty() { "" } else { " as a whole" };
                format!("{allocated} of {total_gpus} GPUs allocated, {available} available{whole}{parts}. {seen}")
            }
            None => format!(
                "{}; it is unknown how many are allocated. {seen}",
                counted(usize::try_from(*total_gpus).unwrap_or(usize::MAX), "GPU")
            ),
        };
    }
}

/// Returns how many MIG devices of each kind are allocated and free: `; nvidia.com/mig-3g.40gb: 1 of 8 allocated, 7 available`.
fn mig_devices_in_use(resources: &[ResourceUse]) -> String {
    let offered = resources.iter().filter(|one| one.unit == Unit::MigDevice && one.capacity > 0);
    let in_words = |one: &ResourceUse| {
        let (allocated, available) = one.allocated.zip(one.available)?;
        Some(format!("; {}: {allocated} of {} allocated, {available} available", one.resource, one.allocatable))
    };
    offered.filter_map(in_words).collect()
}

/// Returns the number of GPUs that NVML lists or that are on the PCI bus.
fn found_gpus(sections: &Sections) -> u64 {
    let listed = Section::data_of(&sections.inventory).map_or(0, |inventory| inventory.gpus.len());
    let on_bus = Section::data_of(&sections.host).map_or(0, |host| host.pci_gpus.len());
    listed.max(on_bus) as u64
}

/// Returns the number of whole GPUs that are allocated, and the number of free whole GPUs. Shares and MIG devices count
/// as the minimum number of GPUs that they need. `resources` has the exact totals. `None` if the pods could not be
/// read.
fn gpus_in_use(resources: &[ResourceUse], total: u64) -> Option<(u64, u64)> {
    let mut held = 0;
    let mut free = 0;
    let mut in_parts = false;
    for one in resources {
        let (allocated, available) = one.allocated.zip(one.available)?;
        match one.unit {
            Unit::Gpu | Unit::DraDevice => {
                held += allocated;
                free += available;
            }
            Unit::Share => {
                let per_gpu = u64::from(one.replicas.unwrap_or(1));
                held += allocated.div_ceil(per_gpu);
                free += available / per_gpu;
            }
            Unit::MigDevice => in_parts |= allocated > 0,
        }
    }
    let held = if in_parts { held.max(1) } else { held };
    Some((held.min(total), free.min(total.saturating_sub(held))))
}
