//! `NodeRow`, `from_reading`: the verdict, findings and compared values of a node in an answer about many nodes.

use std::collections::{BTreeMap, BTreeSet};

use diagnosis::fabric::FabricNode;
use diagnosis::finding::{Finding, Scope, Urgency, Verdict};
use kube::ResourceExt;
use syringe_core::classification::Severity;
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::telemetry::Telemetry;
use syringe_core::facts::topology::Topology;
use syringe_core::report::Section;
use syringe_core::section_name::SectionName;

use crate::answer::fleet::NodeFinding;
use crate::node_reading::read_node::NodeReading;
use kube_read::objects::node_facts as node_gpus;

/// Maximum number of findings of one node. The others are only counted.
const FINDINGS_OF_NODE: usize = 3;
/// Maximum length of a line about a node.
pub(crate) const SENTENCE: usize = 240;

/// The label that GPU Feature Discovery gives to a node of an NVLink fabric of several nodes: cluster UUID and clique.
const CLIQUE: &str = "nvidia.com/gpu.clique";

/// A node that was read.
#[derive(Clone, Debug)]
pub(crate) struct NodeRow {
    pub(crate) node: String,
    pub(crate) verdict: Verdict,
    pub(crate) summary: String,
    /// Sections that were checked, if not all sections were checked.
    pub(crate) checked_only: Vec<String>,
    /// The worst finding above `info` of each ID, because the answer describes each ID once. A fault of eight GPUs has
    /// eight findings.
    pub(crate) findings: Vec<Finding>,
    /// The first findings above `info`, in short form.
    pub(crate) first_findings: Vec<NodeFinding>,
    /// Number of findings above `info` that are not among the first.
    pub(crate) findings_omitted: usize,
    /// Urgency of the most urgent plan.
    pub(crate) urgency: Option<Urgency>,
    pub(crate) unknown: usize,
    /// Whether too little was read to rule out a worse finding.
    pub(crate) undecided: bool,
    pub(crate) score: Option<u32>,
    pub(crate) gpus: usize,
    /// GPU model. Only nodes of the same model are compared.
    pub(crate) model: String,
    /// Values that should be equal on every node of a model, by name.
    pub(crate) traits: BTreeMap<&'static str, String>,
    /// Temperature of the hottest GPU.
    pub(crate) hottest_celsius: Option<i32>,
    /// The fabric data of the node, if it belongs to an NVLink fabric of several nodes.
    pub(crate) fabric: Option<FabricNode>,
    pub(crate) left_behind: Option<String>,
    pub(crate) passed_over: Vec<String>,
    pub(crate) took_ms: u64,
}

/// Creates the row of a node.
pub(crate) fn from_reading(node: &k8s_openapi::api::core::v1::Node, read: NodeReading) -> NodeRow {
    let NodeReading { report, diagnosis, note, existing_pods: _, cluster: _ } = read;
    let fabric = FabricNode::of(&report, node.labels().get(CLIQUE).map(String::as_str));
    let sections = report.sections;
    let (inventory, telemetry, topology) = (
        Section::into_data(sections.inventory),
        Section::into_data(sections.telemetry),
        Section::into_data(sections.topology),
    );
    let mut traits = BTreeMap::new();
    let mut gpus = 0;
    let mut model = None;
    if let Some(inventory) = &inventory {
        gpus = inventory.gpus.len();
        model = inventory.gpus.iter().find_map(|gpu| gpu.name.clone());
        of_inventory(inventory, &mut traits);
    }
    if let Some(telemetry) = &telemetry {
        gpus = gpus.max(telemetry.gpus.len());
        of_telemetry(telemetry, &mut traits);
    }
    if let Some(topology) = &topology {
        of_topology(topology, &mut traits);
    }
    traits.extend(report.kernel.map(|kernel| ("kernel", kernel)));
    if let Some(host) = Section::into_data(sections.host) {
        of_host(&host, &mut traits);
    }
    let hottest = telemetry.iter().flat_map(|all| &all.gpus).filter_map(|gpu| gpu.temperature.gpu_celsius).max();
    let all_checked = diagnosis.checked.len() + diagnosis.partly_checked.len() == SectionName::ALL.len();
    let in_part = diagnosis.partly_checked.into_iter().map(|section| format!("{section} (in part)"));
    let checked = diagnosis.checked.into_iter().map(|section| section.to_string()).chain(in_part).collect();
    let serious = || diagnosis.findings.iter().filter(|finding| finding.severity > Severity::Info);
    NodeRow {
        node: node.name_any(),
        verdict: diagnosis.verdict,
        summary: diagnosis.summary,
        checked_only: if all_checked { Vec::new() } else { checked },
        findings: worst_of_each_id(serious()),
        first_findings: serious().take(FINDINGS_OF_NODE).map(short).collect(),
        findings_omitted: serious().count().saturating_sub(FINDINGS_OF_NODE),
        urgency: diagnosis.plan.iter().map(|plan| plan.urgency).max(),
        unknown: diagnosis.unknown.len(),
        undecided: diagnosis.undecided,
        score: diagnosis.health.score,
        gpus,
        model: model.or_else(|| node_gpus::model(node, None)).unwrap_or_else(|| "unknown".into()),
        traits,
        hottest_celsius: hottest,
        fabric,
        left_behind: note.left_behind.or(note.process_left),
        passed_over: note.passed_over,
        took_ms: note.timings_ms.total,
    }
}

/// Returns the parts of the findings that an answer about many nodes contains.
fn worst_of_each_id<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<Finding> {
    let mut worst: Vec<&Finding> = Vec::new();
    for finding in findings {
        match worst.iter_mut().find(|other| other.id == finding.id) {
            Some(other) if finding.severity > other.severity => *other = finding,
            Some(_) => {}
            None => worst.push(finding),
        }
    }
    let part = |Finding { id, severity, class, title, action, .. }: &Finding| Finding {
        id: id.clone(),
        severity: *severity,
        class: *class,
        title: title.clone(),
        action: action.clone(),
        ..Finding::default()
    };
    worst.into_iter().map(part).collect()
}

pub(super) fn short(finding: &Finding) -> NodeFinding {
    let gpu = finding.scope.gpu;
    let pci = finding.scope.pci.clone().filter(|_| gpu.is_none());
    NodeFinding {
        id: finding.id.clone(),
        severity: finding.severity,
        scope: Scope { gpu, pci, ..Scope::default() },
        evidence: finding.evidence.first().map(|text| syringe_core::text::clean(text, SENTENCE)).into_iter().collect(),
    }
}

/// Returns the different values of all GPUs of a node: `96.00.74.00.01` or `96.00.74.00.01, 96.00.89.00.01`.
fn all<T: ToString>(values: impl Iterator<Item = Option<T>>) -> Option<String> {
    let distinct: BTreeSet<String> = values.flatten().map(|value| value.to_string()).collect();
    (!distinct.is_empty()).then(|| distinct.into_iter().collect::<Vec<_>>().join(", "))
}

fn on(mode: bool) -> &'static str {
    if mode { "on" } else { "off" }
}

fn of_inventory(inventory: &Inventory, traits: &mut BTreeMap<&'static str, String>) {
    let gpus = &inventory.gpus;
    let values = [
        ("gpus", Some(gpus.len().to_string())),
        ("driver_version", inventory.driver_version.clone()),
        ("cuda_version", inventory.cuda_version.clone()),
        ("vbios_version", all(gpus.iter().map(|gpu| gpu.vbios_version.clone()))),
        ("memory_gib", all(gpus.iter().map(|gpu| gpu.memory_total_bytes.map(|bytes| bytes >> 30)))),
        ("ecc", all(gpus.iter().map(|gpu| gpu.ecc_mode.map(|mode| on(mode.current))))),
        ("mig", all(gpus.iter().map(|gpu| gpu.mig_mode.map(|mode| on(mode.current))))),
        ("persistence", all(gpus.iter().map(|gpu| gpu.persistence_mode.map(on)))),
        ("gsp_firmware", all(gpus.iter().map(|gpu| gpu.gsp_firmware_version.clone()))),
        ("pcie_max_generation", all(gpus.iter().map(|gpu| gpu.pcie_max_generation))),
        ("pcie_max_lanes", all(gpus.iter().map(|gpu| gpu.pcie_max_width))),
    ];
    traits.extend(values.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

/// Adds only values that do not depend on the load. An idle GPU has a lower PCIe generation, but the same number of
/// lanes.
fn of_telemetry(telemetry: &Telemetry, traits: &mut BTreeMap<&'static str, String>) {
    let lanes = all(telemetry.gpus.iter().map(|gpu| gpu.pcie.width));
    let limit = all(telemetry.gpus.iter().map(|gpu| gpu.power.enforced_limit_milliwatts.map(|limit| limit / 1000)));
    let clock = all(telemetry.gpus.iter().map(|gpu| gpu.clocks.max_sm_mhz));
    let application = all(telemetry.gpus.iter().map(|gpu| gpu.clocks.application_graphics_mhz));
    let values = [
        ("pcie_lanes", lanes),
        ("power_limit_watts", limit),
        ("max_sm_mhz", clock),
        ("application_clock_mhz", application),
    ];
    traits.extend(values.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

/// The memory of nodes with equal hardware differs by some hundred megabytes, which the kernel and the firmware
/// reserve.
const MEMORY_STEP: u64 = 16 << 30;

fn of_host(host: &Host, traits: &mut BTreeMap<&'static str, String>) {
    let memory = host.memory_total_bytes.map(|bytes| (bytes + MEMORY_STEP / 2) / MEMORY_STEP * (MEMORY_STEP >> 30));
    let cpus = host.levels.as_ref().and_then(|levels| levels.cpus.as_ref());
    let is_loaded = |name: &str| host.modules.iter().any(|module| module == name);
    let governors = cpus.map(|cpus| cpus.governors.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    let values = [
        ("host_memory_gib", memory.filter(|memory| *memory > 0).map(|memory| memory.to_string())),
        ("cpus", cpus.map(|cpus| cpus.online.to_string())),
        ("cpu_governor", governors.filter(|governors| !governors.is_empty())),
        ("numa_nodes", host.numa_nodes.map(|nodes| nodes.to_string())),
        ("operating_system", host.operating_system.clone()),
        ("iommu", host.iommu.map(|iommu| on(iommu).to_owned())),
        ("nvidia_peermem", (!host.modules.is_empty()).then(|| on(is_loaded("nvidia_peermem")).to_owned())),
    ];
    traits.extend(values.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

fn of_topology(topology: &Topology, traits: &mut BTreeMap<&'static str, String>) {
    let up = topology.gpus.iter().map(|gpu| {
        let links = gpu.nvlinks.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len());
        (!gpu.nvlinks.is_empty()).then(|| links.sum::<usize>())
    });
    let groups = topology.gpus.iter().flat_map(|gpu| &gpu.nvlinks).filter(|group| group.active == Some(true));
    let active = || topology.nics.iter().filter(|port| port.state.as_deref() == Some("ACTIVE"));
    let gpudirect = topology.gpudirect.as_ref().filter(|gpudirect| gpudirect.acs_ports_read.is_some());
    let acs = gpudirect.map(|gpudirect| on(!gpudirect.acs_switch_ports.is_empty()).to_owned());
    let values = [
        ("nic_firmware", all(topology.nics.iter().map(|port| port.firmware.clone()))),
        ("nic_gigabits_per_second", all(active().map(|port| port.rate_gigabits_per_second))),
        ("acs_of_switches", acs),
        ("nvlinks_up", all(up)),
        ("nvlink_megabytes_per_second", all(groups.map(|group| group.speed_megabytes_per_second))),
    ];
    traits.extend(values.into_iter().filter_map(|(name, value)| Some((name, value?))));
}
