//! The `xid` section: what the kernel said about GPUs, as events rather than lines.
//!
//! Source: records of facility 0 in `/dev/kmsg` (running boot) and the host's journal (earlier boots). Formats and
//! meanings: the driver's open kernel modules and NVIDIA's Xid documentation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

/// What the kernel log holds that concerns GPUs, and how much of the log was there to be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct KernelLog {
    /// The logs that were read, each with the window it really covers. "No Xid" is true for these windows only.
    pub coverage: Vec<Coverage>,
    /// Distinct events, newest last. Lines that say the same of the same GPU are one event with a count.
    pub events: Vec<KernelEvent>,
    /// Events left out of `events` because there were too many: the least telling go first (neighbours of the GPU, then
    /// the doings of programs), of those the oldest.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_omitted: u64,
    /// Start of the window that was asked for; absent where all that the logs hold was. Older events are left out of
    /// `events`, but for those that tell of a state which only a reset, a driver load or a reboot ends: a GPU that fell
    /// off the bus before the window is still gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Events left out because they ended before `since`.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_before: u64,
    /// Lines that look like GPU errors but were written by a program, not by the kernel (facility other than 0).
    /// They are counted and never believed.
    #[serde(skip_serializing_if = "is_zero")]
    pub untrusted_lines: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One log that was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Coverage {
    /// `/dev/kmsg`, `journal`, or the file's name.
    pub source: String,
    /// Time of the kernel's oldest record that was read. The kernel's buffer is a ring: earlier ones are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Time of the kernel's newest record that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Records of the kernel that were read, within the window that was asked for.
    pub records: u64,
    /// Records that were overwritten while they were read (gaps in the sequence numbers). Those that were gone before
    /// show in `from` and `complete_since_boot`.
    pub lost_records: u64,
    /// Whether the log's first record is still there, so that the window begins at boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_since_boot: Option<bool>,
    /// Lines that speak of NVIDIA (`NVRM`, `nvidia`, `NVSwitch`, `SXid`, AER of a port) and were not understood: no event,
    /// and none of the messages that are known to mean nothing. Also lines of which the spelling does not tell whether the
    /// kernel wrote them.
    #[serde(skip_serializing_if = "is_zero")]
    pub unread_lines: u64,
    /// Those of `unread_lines` that hold the frame of an Xid or SXid, or speak of an error in other words.
    #[serde(skip_serializing_if = "is_zero")]
    pub unread_errors: u64,
    /// Up to three different ones of `unread_lines`, cleaned and capped. Data, not advice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread_samples: Vec<String>,
    /// Lines that the kernel itself says it left out (`N callbacks suppressed`): counts near them are lower bounds.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed_lines: u64,
    /// What limits the use of these times (`no year in the log`, `time zone not stated, read as UTC`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a kernel line is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KernelEventKind {
    /// `NVRM: Xid (PCI:…): CODE, …`.
    #[default]
    Xid,
    /// `nvidia-nvswitchN: SXid (PCI:…): CODE, …`.
    Sxid,
    /// "has fallen off the bus", with or without an Xid 79.
    OffBus,
    /// `RmInitAdapter failed!` / `rm_init_adapter failed`.
    RmInitFailed,
    /// The firmware assigned the GPU no usable memory region (BAR), or another driver holds it.
    BarUnassigned,
    /// The driver says that it does not support the GPU: another flavour or another version is needed.
    NotSupported,
    /// Errors of the `nvidia-uvm` module, and `nvGpuOpsReportFatalError`.
    Uvm,
    /// `The NVIDIA probe routine failed|was not called for N device(s)`, `probe with driver nvidia failed`.
    ProbeFailed,
    /// The driver prints only some of the GSP errors from here on: counts of Xid 119 are lower bounds.
    GspRateLimit,
    /// GSP firmware failures without an Xid.
    GspFailed,
    /// `API mismatch: the client has the version X, but this kernel module has the version Y`.
    ApiMismatch,
    /// `NVRM: loading NVIDIA UNIX …`: volatile counters start anew here.
    DriverLoaded,
    /// NVRM assertion (`NVRM: … Assertion failed`).
    Assertion,
    /// NVLink did not come up at initialisation (`knvlink…`).
    NvlinkInitFailed,
    /// `nvidia-peermem … ERROR`.
    PeermemError,
    /// PCIe Advanced Error Reporting.
    Aer,
    /// PCIe link lines (`link is down`, `bandwidth limited`, `Card not present`).
    PcieLink,
    /// Machine check.
    Mce,
    /// The kernel's out-of-memory killer.
    OomKill,
    /// `INFO: task … blocked for more than … seconds`.
    HungTask,
    /// A segmentation fault inside CUDA or NCCL libraries.
    Segfault,
    /// `mlx5_core … insufficient power` and the like: a neighbour in trouble.
    Nic,
}

/// Lines that say the same thing: same kind, code, GPU, sub-code, process and boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct KernelEvent {
    /// What the lines are about.
    pub kind: KernelEventKind,
    /// Xid or SXid number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// The catalogue's name for the code; absent for a code that the catalogue does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The PCI function that the line names. For AER this is often the port above the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<PciAddress>,
    /// NVML index of the GPU that has this address now. Absent where the log says that it was another GPU; for earlier
    /// boots without a UUID it names the place only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_index: Option<u32>,
    /// UUID, from the `NVRM: GPU at PCI:…: GPU-…` line of the event's own boot (it survives the loss of the GPU), or,
    /// for the running boot, from NVML. Absent where neither says which GPU it was: it may have been swapped since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_uuid: Option<String>,
    /// MIG GPU instance that the line names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_gpu_instance: Option<u32>,
    /// MIG compute instance that the line names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_compute_instance: Option<u32>,
    /// What tells events of one code apart: NVLink unit and link, `contained`, a recovery action, an engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_code: Option<String>,
    /// Facts taken out of the text, by name (`link`, `phys_addr`, `gpc`, `fault_type`, `recovery_to`, …).
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub details: std::collections::BTreeMap<String, String>,
    /// Process id in the host's namespace. The process that used the channel: not proof of blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The kernel's name of that process (15 bytes at most), cleaned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// How many times. The several lines of one graphics exception (Xid 13), one OOM kill, one AER error or one failed
    /// initialisation count once.
    pub count: u64,
    /// Whether the kernel left out lines while this event's came: the count is a lower bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub count_is_lower_bound: bool,
    /// Time of the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// Time of the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// Seconds since boot of the last line: exact where clocks were stepped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_uptime_seconds: Option<f64>,
    /// The boot, when it is not the running one: its id without dashes, or `earlier` in logs that have no ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The last line, cleaned and capped. Data, not advice.
    pub raw: String,
}
