//! `Report`, `Section` and `Problem`: the JSON document that a probe prints, its sections, and what could not be read.
//! `ReportScope`, `Source`: how much of the node the probe could see, and where the facts are from.
//!
//! A saved report is a facts file: `node-probe-dev --facts FILE` replays it. A facts file can be written by hand and can
//! omit values. It can contain kernel log records (`kernel_log`) instead of the parsed section.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};
use syringe_macros::{facts, omit};

use crate::common_values;
use crate::facts::action::Action;
use crate::facts::ecc::Ecc;
use crate::facts::host::Host;
use crate::facts::inventory::Inventory;
use crate::facts::kernel_log::KernelLog;
use crate::facts::kubelet::Kubelet;
use crate::facts::mig::Mig;
use crate::facts::nccl::NcclStatus;
use crate::facts::processes::Processes;
use crate::facts::telemetry::Telemetry;
use crate::facts::topology::Topology;
use crate::raw_file::RawFile;
use crate::section_name::SectionName;
use crate::text::clean;
use crate::{json_reader, sanitize};

/// Version of the schema of this document. It is incremented when a field changes its meaning or is removed, not when a
/// field is added.
pub const SCHEMA_VERSION: u32 = 3;

/// The result of one run of `node-probe`. Each run prints exactly one report.
#[omit(Option, Vec)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the probe that printed the report.
    pub schema_version: u32,
    /// Version of `node-probe`.
    pub probe_version: String,
    /// Source of the facts: this machine or a file.
    pub source: Source,
    /// Host name of the node (`/proc/sys/kernel/hostname`), read in the UTS namespace of the host. A probe with hostNetwork
    /// is in that namespace.
    pub hostname: Option<String>,
    /// Boot id (`/proc/sys/kernel/random/boot_id`). It changes with every boot.
    pub boot_id: Option<String>,
    /// Kernel release (`/proc/sys/kernel/osrelease`).
    pub kernel: Option<String>,
    /// Time at which the probe started to read. All ages in this report are relative to this time.
    pub taken_at: Option<Timestamp>,
    /// Duration of the read.
    pub duration_ms: u64,
    /// The part of the node that the probe could see. Absent if the probe could see the whole node.
    pub scope: Option<ReportScope>,
    pub sections: Sections,
    /// Raw kernel log records, one string each, in any format that `xid --kernel-log` reads: in facts files, and in
    /// reports with `--raw-log`. If a facts file has them, the section `xid` is parsed from them.
    pub kernel_log: Vec<String>,
    /// Files of the driver and configuration spaces, in reports with `--raw-log`: for people, not for rules.
    pub raw_files: Vec<RawFile>,
    /// The status of the job of a pod according to NCCL, in reports with `--nccl-ras`.
    pub nccl: Option<NcclStatus>,
    /// The result or the plan of `kill` or `reset`. Absent in reports of other commands.
    pub action: Option<Action>,
    /// Why the report has no sections (wrong usage, unreadable facts file).
    pub error: Option<Problem>,
}

impl Report {
    /// Returns the boot id of the newest events. This is the boot id of the node, if it is known. For a log of another
    /// machine, it is the boot id of the newest event, if every event has a boot id.
    pub fn running_boot(&self) -> Option<&str> {
        if self.boot_id.is_some() {
            return self.boot_id.as_deref();
        }
        let events = Section::data_of(&self.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
        if events.iter().any(|event| event.boot_id.is_none()) {
            return None;
        }
        // Events of all earlier boots in a text log have the boot id `earlier`.
        events.iter().max_by_key(|event| event.last)?.boot_id.as_deref().filter(|boot| *boot != "earlier")
    }

    /// Returns why a document of another schema version cannot be used: the fields that were renamed would be missing
    /// without an error. A document without a version was written by hand and counts as a document of this version.
    pub fn other_version(&self) -> Option<String> {
        let Self { schema_version: theirs, probe_version, .. } = self;
        let by = if probe_version.is_empty() {
            String::new()
        } else {
            format!(" (node-probe {})", clean(probe_version, 40))
        };
        let is_other = *theirs != 0 && *theirs != SCHEMA_VERSION;
        is_other.then(|| format!("the schema version is {theirs}{by}; this program reads version {SCHEMA_VERSION}"))
    }

    /// Parses a document that a probe printed.
    pub fn from_json(document: &[u8]) -> Result<Self, serde_json::Error> {
        Self::from_value(serde_json::from_slice(document)?)
    }

    /// Parses a document section by section, because the generic reader would first copy the values of each section.
    fn from_value(document: Value) -> Result<Self, serde_json::Error> {
        let mut fields = json_reader::object(document)?;
        let sections = fields.remove("sections").map(Sections::from_value).transpose()?.unwrap_or_default();
        let head: Self = json_reader::read(Value::Object(fields))?;
        Ok(Self { sections, ..head })
    }

    /// Parses a document from a node. The owner of the node can write anything into the document. Therefore all texts
    /// are cleaned, stripped of secrets and truncated, command lines are reduced to their harmless parts, and long
    /// lists are truncated. For each truncated list, the section has a problem.
    ///
    /// # Errors
    /// Fails if the document is invalid, or expands beyond the limit.
    pub fn from_node(document: &[u8]) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::from_slice(document)?;
        sanitize::sanitize(&mut value)?;
        Self::from_value(value)
    }
}

/// The part of the node that a probe could see.
#[facts]
#[derive(Copy, Eq)]
pub struct ReportScope {
    /// The GPUs that the probe could open: the GPUs of the node, or of a container.
    pub gpus: Extent,
    /// The processes that the probe could see.
    pub processes: Extent,
    /// The files that the probe could see: driver library, kubelet checkpoint, saved logs.
    pub files: Extent,
}

/// Whether the probe could see the GPUs, processes or files of the whole node, or only of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// The whole node.
    #[default]
    Node,
    /// One container.
    Container,
    /// The extent is unknown.
    Unknown,
}

/// The source of the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Read from the machine that the probe ran on.
    #[default]
    Hardware,
    /// Replayed from a facts file.
    File,
    /// No probe ran: facts from the Kubernetes API only.
    Api,
}

/// One optional entry per section. A section that was not requested is absent.
#[omit(Option)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sections {
    /// Properties of the GPUs (NVML).
    pub inventory: Option<Section<Inventory>>,
    /// Current values of the GPUs (NVML).
    pub telemetry: Option<Section<Telemetry>>,
    /// Connections of the GPUs (NVML and sysfs).
    pub topology: Option<Section<Topology>>,
    /// Memory errors and repairs (NVML).
    pub ecc: Option<Section<Ecc>>,
    /// GPU processes (NVML and procfs).
    pub processes: Option<Section<Processes>>,
    /// MIG instances (NVML).
    pub mig: Option<Section<Mig>>,
    /// Device allocations of the kubelet.
    pub kubelet: Option<Section<Kubelet>>,
    /// Driver, kernel modules, device files and PCI devices (procfs and sysfs).
    pub host: Option<Section<Host>>,
    /// Xids and other kernel log lines about GPUs.
    pub xid: Option<Section<KernelLog>>,
}

/// A section: its data, its status, and the list of what could not be read.
///
/// In JSON, [common values](crate::common_values) are written once: `all_gpus` contains the values that are the same in
/// all entries of `gpus`. Inner lists are written in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Section<T> {
    /// `ok`: everything was read; `partial`: see `problems`; `error`: nothing was read.
    pub status: Status,
    /// Duration of the read of this section.
    pub duration_ms: u64,
    /// The data. Absent only if `status` is `error`.
    pub data: Option<T>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// A section in JSON.
#[omit(Option, Vec)]
#[derive(Serialize, Deserialize)]
struct Document {
    status: Status,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    problems: Vec<Problem>,
}

impl<T: Serialize> Serialize for Section<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { status, duration_ms, data, problems } = self;
        let mut data = data.as_ref().map(serde_json::to_value).transpose().map_err(ser::Error::custom)?;
        if let Some(data) = &mut data {
            common_values::extract(data);
        }
        Document { status: *status, duration_ms: *duration_ms, data, problems: problems.clone() }.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<T: DeserializeOwned> Section<T> {
    fn from_value(section: Value) -> Result<Self, serde_json::Error> {
        let mut fields = json_reader::object(section)?;
        let mut data = fields.remove("data").filter(|data| !data.is_null());
        if let Some(data) = &mut data {
            common_values::restore(data);
        }
        let data = data.map(json_reader::read).transpose()?;
        let Document { status, duration_ms, data: _taken, problems } = json_reader::read(Value::Object(fields))?;
        Ok(Self { status, duration_ms, data, problems })
    }
}

/// Status of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything that this hardware supports was read.
    Ok,
    /// Some of the data could not be read: see `problems`.
    Partial,
    /// Nothing could be read: see `problems`.
    Error,
}

/// Something that could not be read, with the reason and the next step.
#[facts(omit(Option, next_step, code))]
pub struct Problem {
    /// The section, field or file that could not be read.
    pub what: String,
    /// The cause, with the error message (`NVML: GPU is lost`).
    pub why: String,
    /// The recommended next step. Empty if nothing helps.
    pub next_step: String,
    /// NVML index of the GPU, if the problem is about one GPU.
    pub gpu: Option<u32>,
    /// A stable code for rules: `gpu_lost`, `timeout`, `driver_not_loaded`, `version_mismatch`, …
    pub code: String,
}

impl<T> Section<T> {
    /// Creates a section with data, and with the problems of the read.
    pub fn read(data: T, problems: Vec<Problem>) -> Self {
        let status = if problems.is_empty() { Status::Ok } else { Status::Partial };
        Self { status, duration_ms: 0, data: Some(data), problems }
    }

    /// Adds problems. A section with problems is no longer complete.
    pub fn add_problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        let before = self.problems.len();
        self.problems.extend(problems);
        if self.status == Status::Ok && self.problems.len() > before {
            self.status = Status::Partial;
        }
    }

    /// Returns the data of a section, if the section is present and has data.
    pub fn data_of(section: &Option<Self>) -> Option<&T> {
        section.as_ref()?.data.as_ref()
    }

    /// Takes the data out of a section.
    pub fn into_data(section: Option<Self>) -> Option<T> {
        section?.data
    }

    /// Creates a section that could not be read.
    pub fn failed(problem: Problem) -> Self {
        Self { status: Status::Error, duration_ms: 0, data: None, problems: vec![problem] }
    }
}

/// A section of any type.
pub trait AnySection {
    /// Returns the status; `None` if the section is absent.
    fn status(&self) -> Option<Status>;

    fn has_data(&self) -> bool;

    /// Returns the problems of the section. There is a problem for each value that could not be read.
    fn problems(&self) -> &[Problem];
    /// Returns the problems as a mutable slice.
    fn problems_mut(&mut self) -> &mut [Problem];

    /// Adds problems. Returns `false` if the section is absent.
    fn add_problems(&mut self, problems: &[Problem]) -> bool;

    /// Replaces the data with the reason why there are no data.
    fn fail(&mut self, problem: Problem);

    fn remove(&mut self);
}

impl<T> AnySection for Option<Section<T>> {
    fn status(&self) -> Option<Status> {
        self.as_ref().map(|section| section.status)
    }

    fn has_data(&self) -> bool {
        Section::data_of(self).is_some()
    }

    fn problems_mut(&mut self) -> &mut [Problem] {
        self.as_mut().map(|section| section.problems.as_mut_slice()).unwrap_or_default()
    }

    fn problems(&self) -> &[Problem] {
        self.as_ref().map(|section| section.problems.as_slice()).unwrap_or_default()
    }

    fn add_problems(&mut self, problems: &[Problem]) -> bool {
        self.as_mut().map(|section| section.add_problems(problems.iter().cloned())).is_some()
    }

    fn fail(&mut self, problem: Problem) {
        let duration_ms = self.as_ref().map_or(0, |section| section.duration_ms);
        *self = Some(Section { duration_ms, ..Section::failed(problem) });
    }

    fn remove(&mut self) {
        *self = None;
    }
}

impl Sections {
    fn from_value(sections: Value) -> Result<Self, serde_json::Error> {
        fn take<T: DeserializeOwned>(
            sections: &mut Map<String, Value>,
            name: SectionName,
        ) -> Result<Option<Section<T>>, serde_json::Error> {
            let section = sections.remove(name.as_str()).filter(|section| !section.is_null());
            section.map(Section::from_value).transpose()
        }
        let all = &mut json_reader::object(sections)?;
        Ok(Self {
            inventory: take(all, SectionName::Inventory)?,
            telemetry: take(all, SectionName::Telemetry)?,
            topology: take(all, SectionName::Topology)?,
            ecc: take(all, SectionName::Ecc)?,
            processes: take(all, SectionName::Processes)?,
            mig: take(all, SectionName::Mig)?,
            kubelet: take(all, SectionName::Kubelet)?,
            host: take(all, SectionName::Host)?,
            xid: take(all, SectionName::Xid)?,
        })
    }

    /// Returns the section with this name.
    pub fn get(&self, name: SectionName) -> &dyn AnySection {
        match name {
            SectionName::Inventory => &self.inventory,
            SectionName::Telemetry => &self.telemetry,
            SectionName::Topology => &self.topology,
            SectionName::Ecc => &self.ecc,
            SectionName::Processes => &self.processes,
            SectionName::Mig => &self.mig,
            SectionName::Kubelet => &self.kubelet,
            SectionName::Host => &self.host,
            SectionName::Xid => &self.xid,
        }
    }

    /// Returns a mutable reference to the section with this name.
    pub fn get_mut(&mut self, name: SectionName) -> &mut dyn AnySection {
        match name {
            SectionName::Inventory => &mut self.inventory,
            SectionName::Telemetry => &mut self.telemetry,
            SectionName::Topology => &mut self.topology,
            SectionName::Ecc => &mut self.ecc,
            SectionName::Processes => &mut self.processes,
            SectionName::Mig => &mut self.mig,
            SectionName::Kubelet => &mut self.kubelet,
            SectionName::Host => &mut self.host,
            SectionName::Xid => &mut self.xid,
        }
    }

    /// Returns the name and status of every section that is present.
    pub fn statuses(&self) -> Vec<(SectionName, Status)> {
        SectionName::ALL.into_iter().filter_map(|name| Some((name, self.get(name).status()?))).collect()
    }

    /// Returns all problems, each with the name of its section.
    pub fn problems(&self) -> Vec<(SectionName, &Problem)> {
        let of = |name| self.get(name).problems().iter().map(move |problem| (name, problem));
        SectionName::ALL.into_iter().flat_map(of).collect()
    }
}
