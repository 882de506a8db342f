//! `NodeValues`, `GpuValues`: the values of a node and of each GPU by path, without values that always change.
//! `Identity`: the identity of a GPU.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::report::{Report, Section};

/// The first parts of paths whose values always change, or that are compared elsewhere.
const VOLATILE: [&str; 22] = [
    "telemetry.temperature",
    "telemetry.utilization",
    "telemetry.memory",
    "telemetry.clocks.graphics_mhz",
    "telemetry.clocks.sm_mhz",
    "telemetry.clocks.memory_mhz",
    "telemetry.clocks.video_mhz",
    "telemetry.power.draw",
    "telemetry.power.instant",
    "telemetry.power.energy",
    "telemetry.power.margin",
    "telemetry.performance_state",
    "telemetry.throttling.active",
    "telemetry.throttling.reasons",
    "telemetry.pcie.generation",
    "telemetry.sample",
    "host.uptime_seconds",
    "host.memory_available_bytes",
    "host.hugepages",
    "host.stack",
    "kubelet.allocations",
    "topology.matrix",
];

/// Fields with numbers that the driver or the probe chose, and fields that repeat another field of the same GPU.
const NUMBERS: [&str; 4] = ["index", "minor_number", "memory_used_bytes", "duration_ms"];

/// Fields that identify an entry of a list.
const KEYS: [&str; 9] =
    ["uuid", "device", "pci_address", "remote_pci_address", "link", "policy", "location", "resource", "name"];

/// Maximum number of GPUs of a node. No machine has more.
const MAX_GPUS: usize = 256;

/// The identity of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uuid: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) pci: Option<String>,
    /// NVML index, by which the GPUs of two nodes are compared.
    pub(crate) index: Option<u64>,
}

/// The values of a GPU by path, such as `ecc.aggregate.uncorrected`.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuValues {
    pub(crate) identity: Identity,
    pub(crate) values: BTreeMap<String, Value>,
}

/// The values of a node.
#[derive(Debug, Default)]
pub(crate) struct NodeValues {
    pub(crate) node: BTreeMap<String, Value>,
    pub(crate) gpus: Vec<GpuValues>,
    pub(crate) events: Vec<KernelEvent>,
}

impl NodeValues {
    /// Returns the values of a report, or the reason why the report is rejected.
    pub(crate) fn of(report: &Report) -> Result<Self, String> {
        let Report { boot_id, kernel, sections, .. } = report;
        let mut values = Self::default();
        for (name, text) in [("boot_id", boot_id), ("kernel", kernel)] {
            values.node.extend(text.clone().map(|text| (name.to_owned(), Value::String(text))));
        }
        // The sections that show which GPUs exist are added first.
        values.add("host", &sections.host)?;
        values.add("inventory", &sections.inventory)?;
        values.add("telemetry", &sections.telemetry)?;
        values.add("topology", &sections.topology)?;
        values.add("ecc", &sections.ecc)?;
        values.add("mig", &sections.mig)?;
        values.add("kubelet", &sections.kubelet)?;
        values.events = Section::data_of(&sections.xid).map(|log| log.events.clone()).unwrap_or_default();
        Ok(values)
    }

    fn add<T: Serialize>(&mut self, section: &str, read: &Option<Section<T>>) -> Result<(), String> {
        let Some(Ok(Value::Object(data))) = Section::data_of(read).map(serde_json::to_value) else { return Ok(()) };
        for (field, value) in data {
            match (field.as_str(), value) {
                ("gpus" | "pci_gpus", Value::Array(gpus)) if gpus.len() > MAX_GPUS => {
                    return Err(format!("the section {section} has {} GPUs; the limit is {MAX_GPUS}", gpus.len()));
                }
                ("gpus" | "pci_gpus", Value::Array(gpus)) => gpus.iter().for_each(|gpu| self.add_gpu(section, gpu)),
                // Findings report lost GPUs, and missing values show what could not be read.
                ("lost" | "unsupported" | "unread", _) => {}
                (field, value) => flatten(&format!("{section}.{field}"), &value, &mut self.node),
            }
        }
        Ok(())
    }

    fn add_gpu(&mut self, section: &str, gpu: &Value) {
        let text = |field: &str| gpu[field].as_str().map(str::to_owned);
        let identity = Identity {
            uuid: text("uuid"),
            serial: text("serial"),
            pci: text("pci_address"),
            index: gpu["index"].as_u64(),
        };
        let known = self.gpus.iter().position(|known| known.identity.is_of(&identity));
        let shows_gpus = matches!(section, "host" | "inventory");
        let at = match known {
            Some(at) => at,
            // The MIG devices of a lost GPU may still be listed.
            None if !shows_gpus && !self.gpus.is_empty() => return,
            None => {
                self.gpus.push(GpuValues::default());
                self.gpus.len() - 1
            }
        };
        let GpuValues { identity: known, values } = &mut self.gpus[at];
        known.uuid = known.uuid.take().or(identity.uuid);
        known.serial = known.serial.take().or(identity.serial);
        known.pci = known.pci.take().or(identity.pci);
        known.index = known.index.or(identity.index);
        for (field, value) in gpu.as_object().into_iter().flatten() {
            if !matches!(field.as_str(), "uuid" | "serial" | "pci_address") {
                flatten(&format!("{section}.{field}"), value, values);
            }
        }
    }
}

impl GpuValues {
    /// Returns whether NVML lists the GPU.
    pub(crate) fn is_in_nvml(&self) -> bool {
        self.values.keys().any(|path| path.starts_with("inventory."))
    }
}

impl Identity {
    /// Returns whether both are the same GPU: by UUID if both UUIDs are known, or else by PCI address.
    fn is_of(&self, other: &Self) -> bool {
        match (&self.uuid, &other.uuid) {
            (Some(one), Some(two)) => one == two,
            _ => self.pci.is_some() && self.pci == other.pci,
        }
    }
}

/// Adds the leaves of a value by path. The path of a list entry contains the field that identifies the entry.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_counter = path.contains("violations");
    if VOLATILE.iter().any(|start| path.starts_with(start)) || NUMBERS.contains(&last) && !is_counter {
        return;
    }
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(field, value)| flatten(&format!("{path}.{field}"), value, into))
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (at, entry) in entries.iter().enumerate() {
                let key = KEYS.iter().find_map(|key| entry[*key].as_str().map(str::to_owned));
                flatten(&format!("{path}[{}]", key.unwrap_or_else(|| at.to_string())), entry, into);
            }
        }
        // A value that could not be read is not a change.
        Value::Null => {}
        value => drop(into.insert(path.to_owned(), value.clone())),
    }
}
