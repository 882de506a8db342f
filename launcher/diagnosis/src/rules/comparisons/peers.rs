//! Rules that compare each GPU with GPUs of the same model: memory, power limit, versions, modes, fabric partition,
//! missing fields. `fold`: removes differences that another finding explains. `unread`: the fields that a GPU lacks.
//!
//! Fixed thresholds exist for few values. However, identical boards in one node have equal sizes, limits, modes and
//! versions, and the driver reports the same fields for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;

use crate::evidence;
use crate::evidence::Label;
use crate::input::fields;
use crate::input::fields::{Fields, text};
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, FABRIC_DOC, Rule, Unread, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::Availability;
use syringe_core::facts::ecc::GpuEcc;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    DIFFERS: "gpu-differs-from-peers" Warning Driver DEBUG_DOC, "Differs from the other GPUs of the same model",
        Watch "Find out why {gpu} of {node} differs. If a setting differs, use the setting of the other GPUs. If no \
            setting differs, reset the GPU at the next drain. If the difference persists, contact the vendor.",
        means "A size, limit or mode of a GPU differs from those of the other GPUs of its model on this node.",
        reads "inventory, telemetry, ecc, topology, mig";
    FABRIC: "gpu-in-another-fabric-partition" Warning Fabric FABRIC_DOC, "The GPU is in another fabric or partition than the other GPUs",
        UpdateSoftware "Check the partitions of the fabric of {node} (NMX-Controller or Fabric Manager): GPUs of different partitions cannot reach each \
            other over NVLink. A reset of {gpu} does not change its partition. No action if the partitions are intended.",
        means "GPUs of the node have different fabric clusters or cliques. Only GPUs of one clique can access each other's memory over NVLink.",
        reads "topology.fabric", in_plan WorkContinues;
    MEMORY: "gpu-memory-differs-from-peers" Warning Hardware DEBUG_DOC,
        "Memory size differs from the other GPUs of the node",
        Watch "Reset {gpu} of {node} at the next drain. If memory is still missing, run a diagnostic and contact the \
            vendor.",
        means "A GPU has less memory than others of its model.",
        reads "inventory.memory_total_bytes";
    POWER_LIMIT: "gpu-power-limit-differs-from-peers" Info Power DEBUG_DOC,
        "Power limit differs from the other GPUs of the node",
        UpdateSoftware "Set the power limit of {gpu} on {node} to that of the other GPUs (nvidia-smi -pl). Jobs wait \
            for the slowest GPU.",
        means "A GPU has another power limit than others of its model.",
        reads "telemetry.power";
    VERSION: "gpu-version-differs-from-peers" Info Driver DEBUG_DOC,
        "Firmware or board version differs from the other GPUs of the node",
        Watch "No action is necessary because of this difference alone; a board may have been replaced. If only {gpu} of {node} \
            has problems, update its firmware.",
        means "GPUs of one model have different versions of firmware (VBIOS, InfoROM, GSP) or of the board.",
        reads "inventory.vbios_version, inventory.inforom, inventory.gsp_firmware_version, inventory.board_part_number";
    MODE: "gpu-mode-differs-from-peers" Info Driver DEBUG_DOC, "A mode differs from the other GPUs of the node",
        None "No action if the mode of {gpu} on {node} was set on purpose. Otherwise give {gpu} the mode of the other GPUs.",
        means "An administrator can set the mode for each GPU: compute mode, ECC mode, MIG mode, virtualization.",
        reads "inventory.compute_mode, inventory.ecc_mode, inventory.mig_mode";
}

/// Fields that must be equal on all GPUs of one model, each with the rule that applies if the field differs. Fields for
/// which there is a separate rule (persistence mode, GSP firmware, pending modes) are not compared.
const EQUAL: &[(&str, Rule)] = &[
    ("inventory.memory_total_bytes", MEMORY),
    ("telemetry.power.limit_milliwatts", POWER_LIMIT),
    ("inventory.vbios_version", VERSION),
    ("inventory.inforom.image", VERSION),
    ("inventory.inforom.oem", VERSION),
    ("inventory.inforom.ecc", VERSION),
    ("inventory.inforom.power", VERSION),
    ("inventory.gsp_firmware_version", VERSION),
    ("inventory.board_part_number", VERSION),
    ("inventory.pci_subsystem_id", VERSION),
    ("inventory.virtualization_mode", MODE),
    ("inventory.mig_mode.current", MODE),
    ("inventory.name", DIFFERS),
    ("inventory.architecture", DIFFERS),
    ("inventory.brand", DIFFERS),
    ("inventory.compute_capability", DIFFERS),
    ("inventory.pci_device_id", DIFFERS),
    ("inventory.cores", DIFFERS),
    ("inventory.bar1_total_bytes", DIFFERS),
    ("inventory.compute_mode", MODE),
    ("inventory.ecc_mode.current", MODE),
    ("inventory.platform.chassis_serial", DIFFERS),
    ("inventory.platform.slot", DIFFERS),
    ("inventory.platform.tray", DIFFERS),
    ("inventory.platform.host_id", DIFFERS),
    ("telemetry.power.default_limit_milliwatts", DIFFERS),
    ("telemetry.power.min_limit_milliwatts", DIFFERS),
    ("telemetry.power.max_limit_milliwatts", DIFFERS),
    ("telemetry.clocks.max_graphics_mhz", DIFFERS),
    ("telemetry.clocks.max_sm_mhz", DIFFERS),
    ("telemetry.clocks.max_memory_mhz", DIFFERS),
    ("telemetry.clocks.max_video_mhz", DIFFERS),
    ("telemetry.clocks.application_graphics_mhz", MODE),
    ("telemetry.clocks.application_memory_mhz", MODE),
    ("telemetry.temperature.slowdown_celsius", DIFFERS),
    ("telemetry.temperature.shutdown_celsius", DIFFERS),
    ("telemetry.temperature.gpu_max_celsius", DIFFERS),
    ("telemetry.temperature.memory_max_celsius", DIFFERS),
    ("telemetry.temperature.tlimit_thresholds.slowdown_celsius", DIFFERS),
    ("telemetry.temperature.tlimit_thresholds.shutdown_celsius", DIFFERS),
    ("telemetry.temperature.tlimit_thresholds.gpu_max_celsius", DIFFERS),
    ("telemetry.temperature.tlimit_thresholds.memory_max_celsius", DIFFERS),
    ("topology.fabric.state", DIFFERS),
    ("topology.fabric.cluster_uuid", FABRIC),
    ("topology.fabric.clique_id", FABRIC),
    ("topology.nvlinks.count", DIFFERS),
    ("topology.nvlinks.version", DIFFERS),
    ("topology.nvlinks.speed_megabytes_per_second", DIFFERS),
    ("topology.c2c.count", DIFFERS),
    ("topology.c2c.megabytes_per_second", DIFFERS),
    ("topology.pcie_path.0.max_generation", DIFFERS),
    ("topology.pcie_path.0.max_width", DIFFERS),
    ("topology.pcie_path.1.max_generation", VERSION),
    ("topology.pcie_path.1.max_width", VERSION),
    ("topology.pcie_path.1.kind", VERSION),
    ("mig.max_devices", DIFFERS),
    ("ecc.remapped_rows.histogram.sum", DIFFERS),
];

/// Fields that may be absent for a GPU although its peers have them.
const MAY_LACK: &[&str] = &[
    // NVML reports no utilization for a GPU in MIG mode, and no counters of memory errors for a GPU without ECC.
    "telemetry.utilization",
    "inventory.vgpu_license",
    "inventory.display_active",
    // A bridge may connect only two of several cards. The other cards then have no NVLinks.
    "topology.nvlinks",
    "ecc.recovery_action",
    "telemetry.clocks.application",
    "inventory.gsp_firmware_version",
    // Only GPUs with counters that are not zero are read twice.
    "telemetry.sample",
    // Counters that are zero are omitted.
    "telemetry.pcie.errors",
    // This field is present only if the configuration is wrong.
    "topology.fabric.misconfiguration",
];

/// Required fields of a GPU, by section. Each field must be in the report, in the list of fields that the driver does
/// not support, or in the list of fields that could not be read.
static REQUIRED: LazyLock<Vec<(SectionName, Vec<Required>)>> = LazyLock::new(|| {
    let required = |section: SectionName, names: Vec<String>| {
        let full = |name: String| Required { path: format!("{}.{name}", section.as_str()), name };
        let is_optional = |one: &Required| OPTIONAL.iter().chain(MAY_LACK).any(|free| one.path.starts_with(free));
        (section, names.into_iter().map(full).filter(|one| !is_optional(one)).collect())
    };
    vec![
        required(SectionName::Inventory, fields::of_schema::<GpuInventory>()),
        required(SectionName::Telemetry, fields::of_schema::<GpuTelemetry>()),
        required(SectionName::Ecc, fields::of_schema::<GpuEcc>()),
    ]
});

struct Required {
    /// Name in the section.
    name: String,
    /// Name with the section.
    path: String,
}

/// Groups of values that the driver can omit. Their fields may be absent without a reason in the report.
const OPTIONAL: &[&str] = &[
    "inventory.vgpu_license",
    "inventory.platform",
    "telemetry.throttling.active",
    "ecc.sram",
    "ecc.remapped_rows.histogram",
    "ecc.remapped_rows.correctable_inactive",
    "ecc.remapped_rows.uncorrectable_inactive",
    "ecc.unrepairable_memory",
];

/// GPUs of one model.
type Model<'n> = Vec<(&'n Gpu, &'n Fields)>;

fn models<'n>(node: &'n Node<'_>) -> Vec<Model<'n>> {
    let mut models: BTreeMap<&str, Model<'n>> = BTreeMap::new();
    for gpu in node.answering() {
        let fields = node.fields_of(gpu);
        // GPUs of one model have the same device id, whatever product names NVML reports.
        let id = node.inventory_of(gpu).and_then(|gpu| gpu.pci_device_id.as_deref()).or(gpu.name.as_deref());
        // Virtual GPUs with different profiles have the same device id.
        let is_virtual = node.inventory_of(gpu).is_some_and(|gpu| gpu.virtualization_mode.as_deref() == Some("vgpu"));
        let id = if is_virtual { gpu.name.as_deref() } else { id };
        models.entry(id.unwrap_or_default()).or_default().push((gpu, fields));
    }
    models.into_values().filter(|model| model.len() > 1).collect()
}

/// Fields that identify the machine or fabric of a GPU, each with the severity if the GPUs of one machine differ. The
/// clique can differ on purpose, because a fabric can be divided between the GPUs of a machine.
const OF_THE_MACHINE: [(&str, Severity); 6] = [
    ("topology.fabric.cluster_uuid", Severity::Warning),
    ("topology.fabric.clique_id", Severity::Info),
    ("inventory.platform.chassis_serial", Severity::Warning),
    ("inventory.platform.slot", Severity::Warning),
    ("inventory.platform.tray", Severity::Warning),
    ("inventory.platform.host_id", Severity::Warning),
];

/// Returns a finding if the GPUs of one machine report different machines or fabrics and no value has a majority.
fn divided(model: &Model<'_>) -> Option<Draft> {
    let lines = OF_THE_MACHINE.into_iter().filter_map(|(field, severity)| {
        let mut groups: BTreeMap<String, Vec<Label>> = BTreeMap::new();
        for (gpu, value) in model.iter().filter_map(|(gpu, fields)| Some((gpu, fields.get(field)?))) {
            groups.entry(text(value)).or_default().push((gpu.index, gpu.label()));
        }
        let values = model.iter().filter_map(|(_, fields)| fields.get(field));
        let is_divided = groups.len() > 1 && majority(values).is_none();
        let groups = groups.iter().map(|(value, gpus)| format!("{value} on {}", evidence::gpus(gpus)));
        is_divided.then(|| (severity, format!("{field} is {}", groups.collect::<Vec<_>>().join(", "))))
    });
    let lines: Vec<(Severity, String)> = lines.collect();
    let worst = lines.iter().map(|(severity, _)| *severity).max()?;
    let advice = "Find out why the GPUs of {node} belong to different fabrics or places: GPUs of different fabrics \
        cannot use NVLink with each other. If this was not configured on purpose, reset all GPUs of {node} together.";
    let draft = Draft::on_node(DIFFERS).with_severity(worst).with_action(ActionCode::Watch, advice);
    Some(draft.with_all_evidence(lines.into_iter().map(|(_, line)| line)))
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for model in models(node) {
        if model.len() > 2 {
            drafts.extend(divided(&model));
        }
        if model.len() == 2 {
            drafts.extend(pair(&model));
            continue;
        }
        for (field, rule) in EQUAL {
            // The MIG manager gives each GPU the mode of its layout.
            let has_layout = node.kubernetes.labels.mig_config.is_some();
            if has_layout && *field == "inventory.mig_mode.current" {
                continue;
            }
            let odd = odd(&model, field);
            // If several GPUs have another version, they are from another batch. A single such GPU is a replacement.
            if rule.id == VERSION.id && odd.len() > 1 {
                continue;
            }
            for (gpu, line) in odd {
                let by_kind = rule.id == DIFFERS.id || rule.id == MEMORY.id;
                if by_kind && is_other_kind(&model, gpu) {
                    continue;
                }
                match drafts.iter_mut().find(|draft| draft.rule.id == rule.id && draft.is_on(gpu)) {
                    Some(draft) => draft.evidence.push(line),
                    None => drafts.push(Draft::on_gpu(*rule, gpu).with_evidence(line)),
                }
            }
        }
    }
    drafts
}

/// Fields, each with a prefix of finding ids. Findings with this prefix explain why the field of one GPU differs from
/// its peers.
const EXPLAINED: [(&str, &str); 4] = [
    ("topology.fabric.", "fabric-"),
    ("topology.nvlinks.", "nvlink-"),
    ("topology.pcie_path.", "pcie-"),
    ("mig.max_devices", "mig-"),
];

/// Moves the difference of a setting into another finding about the same GPU that reads this setting: a setting and its
/// effect are one finding. Removes the differences that another finding about the same GPU or about the node explains.
pub(super) fn fold(_node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let settings = [POWER_LIMIT.id, MODE.id];
    let (differences, mut others): (Vec<Draft>, Vec<Draft>) =
        std::mem::take(drafts).into_iter().partition(|draft| settings.contains(&draft.rule.id));
    for difference in differences {
        let has_read = |rule: &Rule| difference.evidence.iter().all(|line| rule.reads_field_of(line));
        let is_effect = |other: &&mut Draft| {
            other.names_gpu()
                && other.scope.gpu == difference.scope.gpu
                && other.severity >= difference.severity
                && has_read(&other.rule)
        };
        match others.iter_mut().find(is_effect) {
            Some(effect) => effect.evidence.extend(difference.evidence),
            None => drafts.push(difference),
        }
    }
    drafts.splice(0..0, others);
    let others: Vec<(&str, Option<u32>, Severity)> =
        drafts.iter().map(|draft| (draft.rule.id, draft.scope.gpu, draft.severity)).collect();
    let is_explained = |draft: &Draft, line: &String| {
        EXPLAINED.iter().filter(|(field, _)| line.starts_with(field)).any(|(_, start)| {
            others.iter().any(|(id, gpu, severity)| {
                id.starts_with(start) && *severity >= draft.severity && (gpu.is_none() || *gpu == draft.scope.gpu)
            })
        })
    };
    drafts.retain_mut(|draft| {
        if draft.rule.id != DIFFERS.id || draft.evidence.is_empty() {
            return true;
        }
        let kept: Vec<String> = draft.evidence.iter().filter(|line| !is_explained(draft, line)).cloned().collect();
        draft.evidence = kept;
        !draft.evidence.is_empty()
    });
}

/// Returns the GPUs whose field differs from the value of the majority, with both values. Empty if no value has a
/// majority. In that case, the GPUs are from batches with different versions.
fn odd<'n>(model: &Model<'n>, field: &str) -> Vec<(&'n Gpu, String)> {
    let values: Vec<(&Gpu, &Value)> =
        model.iter().filter_map(|(gpu, fields)| Some((*gpu, fields.get(field)?))).collect();
    let Some(usual) = majority(values.iter().map(|(_, value)| *value)) else { return Vec::new() };
    let odd = values.iter().filter(|(_, value)| *value != usual);
    odd.map(|(gpu, value)| (*gpu, format!("{field} is {}, but {} on other GPUs", text(value), text(usual)))).collect()
}

/// Returns the value that more than half of the GPUs have.
fn majority<'v>(values: impl Iterator<Item = &'v Value> + Clone) -> Option<&'v Value> {
    let count = |value: &Value| values.clone().filter(|other| *other == value).count();
    values.clone().find(|value| count(value) * 2 > values.clone().count())
}

/// Returns a finding about the differences if there are exactly two GPUs of a model, so that no value has a majority.
fn pair(model: &Model<'_>) -> Option<Draft> {
    let [(first, one), (second, other)] = model.as_slice() else { return None };
    let lines = EQUAL.iter().filter_map(|(field, rule)| {
        let (left, right) = (one.get(*field)?, other.get(*field)?);
        let by_kind = rule.id == DIFFERS.id || rule.id == MEMORY.id;
        let severity = if by_kind && is_other_kind(model, first) { Severity::Info } else { rule.severity };
        let line = format!("{field} is {} on {}, {} on {}", text(left), first.label(), text(right), second.label());
        (left != right).then_some((severity, line))
    });
    let lines: Vec<(Severity, String)> = lines.collect();
    let worst = lines.iter().map(|(severity, _)| *severity).max()?;
    let advice = "Find out why the two GPUs of {node} differ: a setting, another board, or missing memory.";
    let draft = Draft::on_node(DIFFERS).with_severity(worst).with_action(ActionCode::Watch, advice);
    Some(draft.with_all_evidence(lines.into_iter().map(|(_, line)| line)))
}

/// Returns whether the modes or the board of a GPU differ from the rest of its model. Its limits and sizes then differ,
/// too.
fn is_other_kind(model: &Model<'_>, gpu: &Gpu) -> bool {
    const KIND: [&str; 5] = [
        "inventory.mig_mode.current",
        "inventory.ecc_mode.current",
        "inventory.virtualization_mode",
        "inventory.vbios_version",
        "inventory.pci_subsystem_id",
    ];
    if let [(_, one), (_, other)] = model.as_slice() {
        return KIND.iter().any(|field| one.get(*field) != other.get(*field));
    }
    KIND.iter().any(|field| odd(model, field).iter().any(|(other, _)| other.index == gpu.index))
}

/// Returns the fields that a GPU lacks although its peers have them, and the required fields that a GPU lacks.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let (mut lacking, mut unexplained): (Lacking, Lacking) = Default::default();
    for model in models(node) {
        // Most GPUs of a model have the same fields.
        let [(_, first), others @ ..] = model.as_slice() else { continue };
        if others.iter().all(|(_, fields)| fields.keys().eq(first.keys())) {
            continue;
        }
        let all: BTreeSet<&String> = model.iter().flat_map(|(_, fields)| fields.keys()).collect();
        for field in all.into_iter().filter(|field| !MAY_LACK.iter().any(|free| field.starts_with(free))) {
            let without: Vec<&Gpu> =
                model.iter().filter(|(_, fields)| !fields.contains_key(field)).map(|(gpu, _)| *gpu).collect();
            // If more than half of the GPUs lack a field, it is not reported, because the GPUs with the field are of
            // another kind.
            if without.len() * 2 <= model.len() {
                let indices = without.into_iter().filter(|gpu| !is_other_kind(&model, gpu)).filter_map(|gpu| gpu.index);
                for index in indices {
                    lacking.entry(index).or_default().insert(field.clone());
                }
            }
        }
    }
    for gpu in node.answering() {
        let (Some(index), own) = (gpu.index, node.fields_of(gpu)) else { continue };
        for (section, required) in REQUIRED.iter() {
            let read = node.report.sections.get(*section);
            if !read.has_data() || !read.problems().is_empty() {
                continue;
            }
            let absent: Vec<&Required> = required.iter().filter(|field| !own.contains_key(&field.path)).collect();
            // A facts file that was written by hand may omit values.
            if (required.len() - absent.len()) * 3 < required.len() {
                continue;
            }
            for Required { name, path } in absent {
                if node.availability(*section, index, name) == Availability::Read {
                    unexplained.entry(index).or_default().insert(path.clone());
                }
            }
        }
    }
    for (gpu, fields) in &lacking {
        unexplained.entry(*gpu).or_default().retain(|field| !fields.contains(field));
    }
    let of_peers = lacking.iter().filter_map(|(gpu, fields)| lack(node, *gpu, fields, true));
    let of_probe = unexplained.iter().filter_map(|(gpu, fields)| lack(node, *gpu, fields, false));
    of_peers.chain(of_probe).collect()
}

/// Fields by GPU index.
type Lacking = BTreeMap<u32, BTreeSet<String>>;

/// Maximum number of fields in one line.
const NAMED: usize = 4;

/// Returns the entry for the fields that a GPU lacks. If its peers have the fields, the verdict about the GPU cannot be healthy.
fn lack(node: &Node<'_>, gpu: u32, fields: &BTreeSet<String>, peers_have: bool) -> Option<Unread> {
    // A problem with this GPU in a section is already listed as unknown.
    let has_problem = |field: &str| {
        let mut problems = node.report.sections.problems().into_iter();
        problems.any(|(section, problem)| field.starts_with(section.as_str()) && problem.gpu == Some(gpu))
    };
    let names: Vec<String> = fields.iter().filter(|field| !has_problem(field)).cloned().collect();
    let first = names.first()?.split('.').next().unwrap_or_default();
    let section = SectionName::ALL.into_iter().find(|section| section.as_str() == first)?;
    let cause =
        if peers_have { "not read, but present on other GPUs" } else { "not in the report, and no reason is given" };
    let why = format!("{cause}: {}", crate::evidence::some(&names, NAMED));
    Some(Unread { fact: Unknown { gpu: Some(gpu), ..Unknown::new(section, why) }, decides: peers_have })
}

#[cfg(test)]
mod tests {
    use super::EQUAL;

    /// Fields that a rule of their own judges.
    const JUDGED: [&str; 4] = [
        "inventory.persistence_mode",
        "inventory.gsp_enabled",
        "inventory.ecc_mode.pending",
        "inventory.mig_mode.pending",
    ];

    #[test]
    fn a_field_with_a_rule_of_its_own_is_not_compared_with_peers() {
        let twice: Vec<&str> = EQUAL.iter().map(|(field, _)| *field).filter(|field| JUDGED.contains(field)).collect();
        assert!(twice.is_empty(), "{twice:?} would give two findings about one value");
    }
}
