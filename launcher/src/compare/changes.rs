//! `between`: the changes (`Change`, `Kind`) between two readings of a node, worst first: findings, lost GPUs,
//! counters, kernel events, other values.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use diagnosis::{Diagnosis, Finding};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::text::clean;

use super::Reading;
use super::facts::{GpuValues, Identity, NodeValues};
use crate::answer::wire::variant_name::variant_name;

/// Maximum length of a value.
const MAX_VALUE: usize = 200;

/// Words in the names of counters, and the severity of a change to a higher value.
const COUNTERS: [(&str, Severity); 15] = [
    ("uncorrect", Severity::Warning),
    ("double_bit", Severity::Warning),
    ("secded", Severity::Warning),
    ("parity", Severity::Warning),
    ("fail", Severity::Warning),
    ("fatal", Severity::Warning),
    ("bucket_", Severity::Warning),
    ("recover", Severity::Warning),
    ("correct", Severity::Info),
    ("single_bit", Severity::Info),
    ("replay", Severity::Info),
    ("rollover", Severity::Info),
    ("error", Severity::Info),
    ("crc", Severity::Info),
    ("violations", Severity::Info),
];

/// The first parts of the paths whose values differ between machines.
const OF_MACHINE: [&str; 9] = [
    "boot_id",
    "inventory.board_id",
    "inventory.platform",
    "kubelet.registered",
    "host.device_nodes",
    "host.iommu_group",
    "host.numa_node",
    "topology.pcie_path",
    "topology.nvswitches",
];

/// The kind of a change, in the order in which an answer lists the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A rule has a new finding, or a finding is more severe.
    Finding,
    /// A GPU is missing, is new, or has another address.
    Gpu,
    /// A counter is higher.
    Counter,
    /// The kernel logged events after the earlier reading.
    KernelEvents,
    /// A value is different.
    Value,
    /// A finding no longer exists.
    Solved,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(super) struct Change {
    pub(super) severity: Severity,
    pub(super) kind: Kind,
    /// PCI address of the GPU. Absent for a change of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uuid: Option<String>,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

impl Change {
    fn of(severity: Severity, kind: Kind, gpu: Option<&Identity>, what: &str, values: [Option<String>; 2]) -> Self {
        let [before, after] = values.map(|value| value.map(|value| clean(&value, MAX_VALUE)));
        let (pci, uuid) = gpu.map(|gpu| (gpu.pci.clone(), gpu.uuid.clone())).unwrap_or_default();
        Self { severity, kind, gpu: pci, uuid, what: what.to_owned(), before, after }
    }
}

/// Returns the changes. `same_node`: whether both readings are from one node. Otherwise, two nodes are compared.
pub(super) fn between(before: &Reading, after: &Reading, same_node: bool) -> Vec<Change> {
    let (old, new): (&NodeValues, &NodeValues) = (&before.values, &after.values);
    let mut changes = findings(&before.diagnosis, &after.diagnosis);
    values(None, &old.node, &new.node, same_node, &mut changes);
    let pairs = matched(&old.gpus, &new.gpus, same_node);
    for (one, two) in pairs.iter().map(|(one, two)| (&old.gpus[*one], &new.gpus[*two])) {
        let gpu = Some(&two.identity);
        if same_node {
            for (what, values) in [
                ("UUID", [&one.identity.uuid, &two.identity.uuid]),
                ("serial number", [&one.identity.serial, &two.identity.serial]),
                ("PCI address", [&one.identity.pci, &two.identity.pci]),
            ] {
                if let [Some(before), Some(after)] = values
                    && before != after
                {
                    let values = [Some(before.clone()), Some(after.clone())];
                    changes.push(Change::of(Severity::Warning, Kind::Gpu, gpu, what, values));
                }
            }
        }
        if one.is_in_nvml() && !two.is_in_nvml() {
            let name = gpu.and_then(|gpu| gpu.uuid.clone().or(gpu.pci.clone()));
            changes.push(Change::of(
                Severity::Critical,
                Kind::Gpu,
                Some(&one.identity),
                "NVML does not list the GPU",
                [name, None],
            ));
            continue;
        }
        values(gpu, &one.values, &two.values, same_node, &mut changes);
    }
    let (with_new, with_old): (BTreeSet<usize>, BTreeSet<usize>) = pairs.into_iter().unzip();
    for (_, gpu) in old.gpus.iter().enumerate().filter(|(at, _)| !with_new.contains(at)) {
        let name = gpu.identity.uuid.clone().or(gpu.identity.pci.clone());
        changes.push(Change::of(
            Severity::Critical,
            Kind::Gpu,
            Some(&gpu.identity),
            "the GPU is missing",
            [name, None],
        ));
    }
    for (_, gpu) in new.gpus.iter().enumerate().filter(|(at, _)| !with_old.contains(at)) {
        let name = gpu.identity.uuid.clone().or(gpu.identity.pci.clone());
        changes.push(Change::of(Severity::Info, Kind::Gpu, Some(&gpu.identity), "the GPU is new", [None, name]));
    }
    if same_node {
        changes.extend(events(&old.events, &new.events));
    }
    changes.sort_by(|one, two| {
        let key = |change: &Change| (std::cmp::Reverse(change.severity), change.kind);
        key(one).cmp(&key(two)).then_with(|| (&one.gpu, &one.what).cmp(&(&two.gpu, &two.what)))
    });
    changes
}

/// Returns the pairs of positions of the GPUs that are the same in both readings: by UUID, then by serial number, then
/// by PCI address. The GPUs of two different nodes are compared by index.
fn matched(old: &[GpuValues], new: &[GpuValues], same_node: bool) -> Vec<(usize, usize)> {
    let by: &[fn(&Identity) -> Option<String>] = match same_node {
        true => &[|one| one.uuid.clone(), |one| one.serial.clone(), |one| one.pci.clone()],
        false => &[|one| one.index.map(|index| index.to_string())],
    };
    let mut pairs = Vec::new();
    let (mut taken_old, mut taken_new) = (vec![false; old.len()], vec![false; new.len()]);
    for key in by {
        let mut free: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
        for (to, two) in new.iter().enumerate().filter(|(to, _)| !taken_new[*to]) {
            key(&two.identity).into_iter().for_each(|key| free.entry(key).or_default().push_back(to));
        }
        for (at, one) in old.iter().enumerate() {
            let wanted = key(&one.identity).filter(|_| !taken_old[at]);
            if let Some(to) = wanted.and_then(|key| free.get_mut(&key)?.pop_front()) {
                (taken_old[at], taken_new[to]) = (true, true);
                pairs.push((at, to));
            }
        }
    }
    pairs.sort_unstable();
    pairs
}

fn findings(before: &Diagnosis, after: &Diagnosis) -> Vec<Change> {
    let key = |finding: &Finding| {
        let scope = &finding.scope;
        let gpu = scope.uuid.clone().or(scope.pci.as_ref().map(ToString::to_string));
        (finding.id.clone(), gpu, scope.pid)
    };
    let known = |diagnosis: &Diagnosis| -> BTreeMap<_, Severity> {
        diagnosis.findings.iter().map(|finding| (key(finding), finding.severity)).collect()
    };
    let identity = |finding: &Finding| {
        let pci = finding.scope.pci.as_ref().map(ToString::to_string);
        Identity { uuid: finding.scope.uuid.clone(), pci, ..Identity::default() }
    };
    let change = |kind, severity, finding: &Finding, values| {
        let gpu = Some(identity(finding)).filter(|gpu| *gpu != Identity::default());
        Change::of(severity, kind, gpu.as_ref(), &format!("{}: {}", finding.id, finding.title), values)
    };
    let (old, new) = (known(before), known(after));
    let is_news = |finding: &&Finding| old.get(&key(finding)).is_none_or(|severity| *severity < finding.severity);
    let evidence = |finding: &Finding| finding.evidence.first().map(ToString::to_string);
    let appeared = after.findings.iter().filter(is_news).map(|finding| {
        let before = old.get(&key(finding)).map(|severity| variant_name(*severity));
        change(Kind::Finding, finding.severity, finding, [before, evidence(finding)])
    });
    let gone = before.findings.iter().filter(|finding| !new.contains_key(&key(finding)));
    let gone = gone.map(|finding| change(Kind::Solved, Severity::Info, finding, [evidence(finding), None]));
    appeared.chain(gone).collect()
}

/// Adds the values that differ. A lower counter is not a change, because counters start again after a reboot.
fn values(
    gpu: Option<&Identity>,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    same_node: bool,
    changes: &mut Vec<Change>,
) {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        let is_of_machine = || OF_MACHINE.iter().any(|start| path.starts_with(start)) || path.ends_with("pci_address");
        if before == after || !same_node && is_of_machine() {
            continue;
        }
        let numbers = before.and_then(Value::as_f64).zip(after.and_then(Value::as_f64));
        let counter = COUNTERS.iter().find(|(word, _)| path.contains(word)).map(|(_, severity)| *severity);
        let (severity, kind) = match (numbers, counter) {
            (Some((before, after)), Some(severity)) if same_node && after > before => (severity, Kind::Counter),
            (Some((before, after)), Some(_)) if same_node && after < before => continue,
            _ => (Severity::Info, Kind::Value),
        };
        let text =
            |value: Option<&Value>| value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        changes.push(Change::of(severity, kind, gpu, path, [text(before), text(after)]));
    }
}

/// Kind, code and PCI address of kernel events.
type EventKey = (String, Option<u32>, Option<String>);

/// Returns the kernel events that are new or have a higher count than in the earlier reading.
fn events(old: &[KernelEvent], new: &[KernelEvent]) -> Vec<Change> {
    let count = |events: &[KernelEvent]| {
        let mut counts: BTreeMap<EventKey, (u64, String)> = BTreeMap::new();
        for event in events {
            let gpu = event.pci_address.as_ref().map(ToString::to_string);
            let entry = counts.entry((variant_name(event.kind), event.code, gpu)).or_default();
            entry.0 += event.count;
            entry.1.clone_from(&event.raw);
        }
        counts
    };
    let before = count(old);
    let newer = count(new).into_iter().filter_map(|(key, (times, raw))| {
        let known = before.get(&key).map_or(0, |(times, _)| *times);
        let (kind, code, gpu) = key;
        let what = format!("{} {}", kind.replace('_', " "), code.map(|code| code.to_string()).unwrap_or_default());
        let gpu = gpu.map(|pci| Identity { pci: Some(pci), ..Identity::default() });
        let values = [Some(format!("{known} times")), Some(format!("{times} times: {raw}"))];
        (times > known).then(|| Change::of(Severity::Info, Kind::KernelEvents, gpu.as_ref(), what.trim_end(), values))
    });
    newer.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(uuid: &str, serial: Option<&str>, pci: &str) -> GpuValues {
        let identity = Identity {
            uuid: Some(uuid.to_owned()),
            serial: serial.map(str::to_owned),
            pci: Some(pci.to_owned()),
            index: None,
        };
        GpuValues { identity, ..GpuValues::default() }
    }

    #[test]
    fn what_two_readings_of_one_gpu_show_is_not_compared() {
        let of = |window_ms| {
            let gpu = serde_json::json!({"uuid": "a", "pcie": {"replays": 4}, "sample": {"window_ms": window_ms}});
            let data = serde_json::json!({"data": {"gpus": [gpu]}, "status": "ok", "duration_ms": 1});
            let report = serde_json::json!({"sections": {"telemetry": data}});
            NodeValues::of(&serde_json::from_value(report).expect("a report")).expect("values").gpus.remove(0).values
        };
        assert_eq!(of(950), of(1003));
        assert!(of(950).contains_key("telemetry.pcie.replays"));
    }

    #[test]
    fn a_gpu_is_matched_once_and_by_the_best_key() {
        let old = [gpu("a", None, "1"), gpu("b", Some("s"), "2"), gpu("c", None, "3"), gpu("c", None, "4")];
        let new = [gpu("x", Some("s"), "1"), gpu("c", None, "9"), gpu("a", None, "2"), gpu("y", None, "3")];
        // By UUID: a and the first c. By serial number: b. No GPU is left that matches the second c by PCI address.
        assert_eq!(matched(&old, &new, true), [(0, 2), (1, 0), (2, 1)]);
        assert_eq!(matched(&old, &new, false), []);
    }
}
