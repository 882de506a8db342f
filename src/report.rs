//! The one JSON document that a probe prints: the envelope around the sections.
//!
//! A report that was saved is a facts file: `node-probe-dev --facts FILE` replays it. A facts file may be written by hand and
//! leave out whatever it does not need; it may carry kernel log records (`kernel_log`) in place of a parsed section.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::facts::action::Action;
use crate::facts::ecc::Ecc;
use crate::facts::health::Health;
use crate::facts::host::Host;
use crate::facts::inventory::Inventory;
use crate::facts::kernel_log::KernelLog;
use crate::facts::kubelet::Kubelet;
use crate::facts::mig::Mig;
use crate::facts::processes::Processes;
use crate::facts::telemetry::Telemetry;
use crate::facts::topology::Topology;
use crate::fold::{fold, unfold};
use crate::{untrusted, wire};

/// Version of this document's shape. Grows when a field changes its meaning or goes away, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything one run of `node-probe` has to say. Exactly one is printed, whatever happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the probe that printed it.
    pub schema_version: u32,
    /// Version of `node-probe`.
    pub probe_version: String,
    /// Whether the facts were read from this machine or replayed from a file.
    pub source: Source,
    /// The node's host name (`/proc/sys/kernel/hostname` of the host's UTS namespace, i.e. the probe's with hostNetwork).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: changes with every boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `/proc/sys/kernel/osrelease`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// When the probe started to read. The "now" of every age that is computed from this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// How long reading took.
    pub duration_ms: u64,
    /// How much of the node the probe could see. Absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The sections that were asked for.
    pub sections: Sections,
    /// Facts files only: raw kernel log records, one string each, in any spelling that `xid --kernel-log` reads.
    /// Where it is present, the `xid` section is made from it by the real parser.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<String>,
    /// What `kill` or `reset` did, or would do. Reports of reading commands have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why there is no section at all (wrong usage, unreadable facts file).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

impl Report {
    /// The boot that the log's newest events are of: the node's own boot id, or, in a log of another machine all of whose
    /// events name a boot, the newest one.
    pub fn running_boot(&self) -> Option<&str> {
        if self.boot_id.is_some() {
            return self.boot_id.as_deref();
        }
        let events = Section::data_of(&self.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
        if events.iter().any(|event| event.boot_id.is_none()) {
            return None;
        }
        // What a text log has of all earlier boots has this id.
        events.iter().max_by_key(|event| event.last)?.boot_id.as_deref().filter(|boot| *boot != "earlier")
    }

    /// Reads a document. Everything that a probe prints can be read back.
    pub fn from_json(document: &[u8]) -> Result<Self, serde_json::Error> {
        wire::read(serde_json::from_slice(document)?)
    }

    /// Reads a document that came from a node, whose owner may write into it what he likes: every text is cleaned, stripped
    /// of secrets and capped, command lines are shortened to what is known to be harmless, long lists are cut. A cut list is
    /// a problem of its section.
    ///
    /// # Errors
    /// When it is no report to its end, or is made to grow beyond measure when it is read.
    pub fn from_node(document: &[u8]) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::from_slice(document)?;
        untrusted::sanitize(&mut value)?;
        wire::read(value)
    }
}

/// How much of the node a probe could see from where it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Scope {
    /// Whose GPUs it could open: the node's, or those that a container was given.
    pub gpus: Extent,
    /// Whose processes.
    pub processes: Extent,
    /// Whose files: driver library, kubelet checkpoint, saved logs.
    pub files: Extent,
}

/// The node or less of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// All of the node.
    #[default]
    Node,
    /// Those of one container.
    Container,
    /// It could not be told.
    Unknown,
}

/// Where the facts of a report come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Read from the machine that the probe ran on.
    #[default]
    Hardware,
    /// Replayed from a facts file.
    File,
    /// No probe ran: what the Kubernetes API alone knows.
    Api,
}

/// One optional entry per section; a section that was not asked for is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sections {
    /// What the GPUs are. NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Section<Inventory>>,
    /// What the GPUs do right now. NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Section<Telemetry>>,
    /// How the GPUs are connected. NVML and sysfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Section<Topology>>,
    /// Memory errors and repairs. NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc: Option<Section<Ecc>>,
    /// Who uses the GPUs. NVML and procfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<Section<Processes>>,
    /// MIG instances. NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<Section<Mig>>,
    /// Which device the kubelet gave to which container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<Section<Kubelet>>,
    /// Driver, modules, device nodes, PCI. procfs and sysfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Section<Host>>,
    /// Xid and other kernel lines that speak of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<Section<KernelLog>>,
    /// Score and status, computed from the sections above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Section<Health>>,
}

/// A section: its data, how well it could be read, and what could not.
///
/// On the wire its data are [folded](crate::fold): `all_gpus` holds what all entries of `gpus` agree in, and so for the lists
/// within them.
#[derive(Clone, Debug, PartialEq)]
pub struct Section<T> {
    /// `ok`: all of it; `partial`: see `problems`; `error`: nothing.
    pub status: Status,
    /// How long reading this section took.
    pub duration_ms: u64,
    /// What was read. Absent only when `status` is `error`.
    pub data: Option<T>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// A section as it stands in a document.
#[derive(Serialize, Deserialize)]
struct Document {
    status: Status,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl<T: Serialize> Serialize for Section<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { status, duration_ms, data, problems } = self;
        let mut data = data.as_ref().map(serde_json::to_value).transpose().map_err(ser::Error::custom)?;
        if let Some(data) = &mut data {
            fold(data);
        }
        Document { status: *status, duration_ms: *duration_ms, data, problems: problems.clone() }.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Document { status, duration_ms, mut data, problems } = Document::deserialize(deserializer)?;
        if let Some(data) = &mut data {
            unfold(data);
        }
        let data = data.map(wire::read).transpose().map_err(de::Error::custom)?;
        Ok(Self { status, duration_ms, data, problems })
    }
}

/// How well a section could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything that this hardware offers was read.
    Ok,
    /// Some of it could not be read; `problems` says what.
    Partial,
    /// Nothing could be read; `problems` says why.
    Error,
}

/// Something that could not be read, why, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Problem {
    /// What failed: a section, a field, a file.
    pub what: String,
    /// The cause, with the error's own words (`NVML: GPU is lost`).
    pub why: String,
    /// What a person can do. Empty where nothing helps.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_step: String,
    /// The GPU concerned (NVML index), where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// A stable word for rules to match: `gpu_lost`, `timeout`, `driver_not_loaded`, `version_mismatch`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
}

impl<T> Section<T> {
    /// A section that read `data`, with whatever it had to leave out.
    pub fn read(data: T, problems: Vec<Problem>) -> Self {
        let status = if problems.is_empty() { Status::Ok } else { Status::Partial };
        Self { status, duration_ms: 0, data: Some(data), problems }
    }

    /// What a section read, where there is the section and it read something.
    pub fn data_of(section: &Option<Self>) -> Option<&T> {
        section.as_ref()?.data.as_ref()
    }

    /// The same, taken out of the section.
    pub fn into_data(section: Option<Self>) -> Option<T> {
        section?.data
    }

    /// A section that could not be read at all.
    pub fn failed(problem: Problem) -> Self {
        Self { status: Status::Error, duration_ms: 0, data: None, problems: vec![problem] }
    }
}

impl Sections {
    /// The status of every section that is present, by the section's name.
    pub fn statuses(&self) -> Vec<(&'static str, Status)> {
        let Self { inventory, telemetry, topology, ecc, processes, mig, kubelet, host, xid, health } = self;
        [
            ("inventory", inventory.as_ref().map(|section| section.status)),
            ("telemetry", telemetry.as_ref().map(|section| section.status)),
            ("topology", topology.as_ref().map(|section| section.status)),
            ("ecc", ecc.as_ref().map(|section| section.status)),
            ("processes", processes.as_ref().map(|section| section.status)),
            ("mig", mig.as_ref().map(|section| section.status)),
            ("kubelet", kubelet.as_ref().map(|section| section.status)),
            ("host", host.as_ref().map(|section| section.status)),
            ("xid", xid.as_ref().map(|section| section.status)),
            ("health", health.as_ref().map(|section| section.status)),
        ]
        .into_iter()
        .filter_map(|(name, status)| Some((name, status?)))
        .collect()
    }

    /// Every problem of every section, with the section's name.
    pub fn problems(&self) -> Vec<(&'static str, &Problem)> {
        fn of<'a, T>(name: &'static str, section: &'a Option<Section<T>>) -> Vec<(&'static str, &'a Problem)> {
            section.iter().flat_map(|section| &section.problems).map(|problem| (name, problem)).collect()
        }
        let Self { inventory, telemetry, topology, ecc, processes, mig, kubelet, host, xid, health } = self;
        [
            of("inventory", inventory),
            of("telemetry", telemetry),
            of("topology", topology),
            of("ecc", ecc),
            of("processes", processes),
            of("mig", mig),
            of("kubelet", kubelet),
            of("host", host),
            of("xid", xid),
            of("health", health),
        ]
        .concat()
    }
}
