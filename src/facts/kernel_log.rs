//! The types of the `xid` section: the kernel log lines about GPUs as events, and the time that the logs cover.
//!
//! Source: records of facility 0 in `/dev/kmsg` (running boot) and the journal of the host (earlier boots). Formats and
//! meanings: the open kernel modules of the driver and the Xid documentation of NVIDIA.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use syringe_macros::facts;

use super::is_zero;
use crate::pci::PciAddress;

/// GPU events of the kernel log, and the part of the log that was read.
#[facts(omit(Option, u64))]
pub struct KernelLog {
    /// The logs that were read, each with the time window that it covers. "No Xid" is true for these windows only.
    pub coverage: Vec<Coverage>,
    /// Distinct events, newest last. Lines with the same content about the same GPU are one event with a count.
    pub events: Vec<KernelEvent>,
    /// Number of events that were omitted from `events` because there were too many. Events of other devices are
    /// omitted first, then faults of applications; of equally important events, the oldest are omitted first.
    pub events_omitted: u64,
    /// Start of the requested window; absent if the whole log was requested. Older events are omitted, except events about a
    /// state that lasts until a reset, a driver load or a reboot: a GPU that fell off the bus earlier is still lost.
    pub since: Option<Timestamp>,
    /// Number of events that were omitted because they ended before `since`.
    pub events_before: u64,
    /// Number of lines that look like GPU errors but were written by a program, not by the kernel (the facility is not 0).
    /// They are counted and otherwise ignored.
    pub untrusted_lines: u64,
}

/// One log that was read.
#[facts(omit(Option, Vec, note, u64, !records, !lost_records))]
pub struct Coverage {
    /// Name of the log: `/dev/kmsg`, `journal`, or the name of the file.
    pub source: String,
    /// Time of the oldest kernel record that was read. The kernel buffer is a ring: older records are overwritten.
    pub from: Option<Timestamp>,
    /// Time of the newest kernel record that was read.
    pub to: Option<Timestamp>,
    /// Number of kernel records that were read in the requested window.
    pub records: u64,
    /// Number of records that were overwritten during the read (gaps in the sequence numbers). For records that were
    /// overwritten before the read, see `from` and `complete_since_boot`.
    pub lost_records: u64,
    /// Whether the first record of the boot is still in the log. If so, the window begins at boot.
    pub complete_since_boot: Option<bool>,
    /// Number of lines that were not recognized: they are not events and not known harmless messages. Only lines about
    /// NVIDIA (`NVRM`, `nvidia`, `NVSwitch`, `SXid`, AER of a port) and warnings about network cards, PCIe ports and
    /// devices of the IOMMU are counted. This includes lines whose format does not show whether the kernel wrote them.
    pub unread_lines: u64,
    /// Number of `unread_lines` about NVIDIA that contain the frame of an Xid or SXid, or report an error in other words.
    pub unread_errors: u64,
    /// Up to three different lines of `unread_lines`, cleaned and truncated. This is data, not instructions.
    pub unread_samples: Vec<String>,
    /// Number of lines that the kernel reports as suppressed (`N callbacks suppressed`). Event counts around the time
    /// of such a report are lower bounds.
    pub suppressed_lines: u64,
    /// Notes about the accuracy of the times in this log (`no year in the log`, `time zone not stated, read as UTC`).
    pub note: String,
}

/// Subject of a kernel line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KernelEventKind {
    /// An Xid: `NVRM: Xid (PCI:…): CODE, …`.
    #[default]
    Xid,
    /// An SXid: `nvidia-nvswitchN: SXid (PCI:…): CODE, …`.
    Sxid,
    /// "has fallen off the bus", with or without an Xid 79.
    OffBus,
    /// `RmInitAdapter failed!` / `rm_init_adapter failed`.
    RmInitFailed,
    /// The firmware assigned no usable memory region (BAR) to the GPU, or another driver holds the region.
    BarUnassigned,
    /// The driver does not support the GPU: another flavor or another version is needed.
    NotSupported,
    /// The kernel rejected a module because of its signature, the kernel that it was built for, or SELinux.
    ModuleRefused,
    /// Errors of the `nvidia-uvm` module, and `nvGpuOpsReportFatalError`.
    Uvm,
    /// `The NVIDIA probe routine failed|was not called for N device(s)`, `probe with driver nvidia failed`.
    ProbeFailed,
    /// From this line on, the driver limits the rate of GSP errors: counts of Xid 119 are lower bounds.
    GspRateLimit,
    /// GSP firmware failures without an Xid.
    GspFailed,
    /// `API mismatch: the client has the version X, but this kernel module has the version Y`.
    ApiMismatch,
    /// `NVRM: loading NVIDIA UNIX …`: the driver was loaded, which resets the volatile counters.
    DriverLoaded,
    /// NVRM assertion (`NVRM: … Assertion failed`).
    Assertion,
    /// NVLink did not initialize (`knvlink…`).
    NvlinkInitFailed,
    /// `nvidia-peermem … ERROR`.
    PeermemError,
    /// PCIe Advanced Error Reporting.
    Aer,
    /// PCIe link lines (`link is down`, `bandwidth limited`, `Card not present`).
    PcieLink,
    /// Machine check.
    Mce,
    /// The out-of-memory killer of the kernel.
    OomKill,
    /// `INFO: task … blocked for more than … seconds`.
    HungTask,
    /// A segmentation fault inside CUDA or NCCL libraries.
    Segfault,
    /// `mlx5_core … insufficient power` and similar: a problem of a network card.
    Nic,
    /// The IOMMU blocked a memory access of a device (DMAR, AMD-Vi, SMMU).
    Iommu,
    /// A line of the kernel about the host: lockups, crashes, disks, file systems, limits. `sub_code` is the name of
    /// the row in `host_lines.tsv`, followed by the device.
    Host,
}

/// Lines with the same content: the same kind, code, GPU, sub-code, process and boot.
#[facts(omit(Option, BTreeMap, bool))]
pub struct KernelEvent {
    /// Subject of the lines.
    pub kind: KernelEventKind,
    /// Xid or SXid number.
    pub code: Option<u32>,
    /// Name of the code in the catalogue; absent for an unknown code.
    pub name: Option<String>,
    /// The PCI function in the line. For AER this is often the port above the GPU.
    pub pci_address: Option<PciAddress>,
    /// NVML index of the GPU that has this address now. Absent if the log shows a different GPU at this address. For an
    /// event of an earlier boot without a UUID, the index identifies only the slot.
    pub gpu_index: Option<u32>,
    /// UUID of the GPU, from the line `NVRM: GPU at PCI:…: GPU-…` of the same boot (also available for a lost GPU), or, for
    /// the running boot, from NVML. Absent if the UUID is unknown: the GPU may have been replaced since then.
    pub gpu_uuid: Option<String>,
    /// MIG GPU instance in the line.
    pub mig_gpu_instance: Option<u32>,
    /// MIG compute instance in the line.
    pub mig_compute_instance: Option<u32>,
    /// Distinguishes events with the same code: NVLink unit and link, `contained`, a recovery action, or an engine.
    pub sub_code: Option<String>,
    /// Values from the text, by name (`link`, `phys_addr`, `gpc`, `fault_type`, `recovery_to`, …).
    pub details: std::collections::BTreeMap<String, String>,
    /// Process id in the PID namespace of the host. This process used the channel; it is not necessarily the cause.
    pub pid: Option<u32>,
    /// Name in the kernel (at most 15 bytes) of the process that used the channel, cleaned.
    pub process: Option<String>,
    /// Number of occurrences. The lines of one graphics exception (Xid 13), one OOM kill, one AER error or one failed
    /// initialization count as one occurrence.
    pub count: u64,
    /// Whether the kernel suppressed lines at the time of this event: the count is a lower bound.
    pub count_is_lower_bound: bool,
    /// Time of the first line.
    pub first: Option<Timestamp>,
    /// Time of the last line.
    pub last: Option<Timestamp>,
    /// Times of separate occurrences, oldest first. Lines less than a minute apart are one occurrence. Empty if there
    /// was only one occurrence. If there were many, the list contains the first and the newest occurrences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub occurrences: Vec<Timestamp>,
    /// The newest time in the log before the last line, if this time is later than `last`. In this case the clock was
    /// set back, but the order of the lines shows that the event came later.
    pub not_before: Option<Timestamp>,
    /// Seconds from boot to the last line. This value is exact even if the clock was set.
    pub last_uptime_seconds: Option<f64>,
    /// The boot, if it is not the running boot: the boot id without dashes, or `earlier` in logs without boot ids.
    pub boot_id: Option<String>,
    /// The last line, cleaned and truncated. This is data, not instructions.
    pub raw: String,
}

impl KernelEvent {
    /// Returns whether this is an Xid with one of these codes.
    pub fn is_xid(&self, codes: &[u32]) -> bool {
        self.kind == KernelEventKind::Xid && self.code.is_some_and(|code| codes.contains(&code))
    }

    /// Returns the control group of the process that the kernel killed because memory ran out.
    pub fn killed_cgroup(&self) -> Option<&str> {
        let group = self.details.get("task_memcg").filter(|_| self.kind == KernelEventKind::OomKill)?;
        Some(group)
    }

    /// Returns whether the kernel killed a process because the whole node had no memory left, and not only a control
    /// group. Without a constraint in the log, the text about the killed process decides.
    pub fn is_kill_of_whole_node(&self) -> bool {
        let is = |name: &str, value: &str| self.details.get(name).map(|own| own == value);
        self.kind == KernelEventKind::OomKill
            && is("constraint", "CONSTRAINT_NONE").or_else(|| is("scope", "host")).unwrap_or(false)
    }

    /// Returns the memory of the process that the kernel killed, without files.
    pub fn resident_bytes(&self) -> Option<u64> {
        let kib: u64 = self.details.get("anon_rss_kib")?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Returns whether the kernel killed a process of the pod with this UID because memory ran out. The name of a control
    /// group has underscores in place of the hyphens of the UID.
    pub fn is_kill_of_pod(&self, uid: &str) -> bool {
        !uid.is_empty() && self.killed_cgroup().is_some_and(|group| group.replace('_', "-").contains(uid))
    }

    /// Returns the time for comparisons with other events of the same boot. The order of the lines in a log has priority
    /// over their times.
    pub fn ordered_at(&self) -> Option<Timestamp> {
        self.last.map(|last| self.not_before.map_or(last, |before| before.max(last)))
    }

    /// Returns the known times of the occurrences, oldest first.
    pub fn occurred_at(&self) -> Vec<Timestamp> {
        let (Some(first), Some(ordered)) = (self.first.or(self.last), self.ordered_at()) else { return Vec::new() };
        let mut times = self.occurrences.clone();
        if times.is_empty() {
            // An older probe reports no occurrences, and lines close together are one occurrence: only the first and
            // last time are known.
            times = if self.count > 1 { vec![first, ordered] } else { vec![ordered] };
            times.dedup();
        }
        times
    }

    /// Returns whether the driver withdraws a recommendation that only a reset resolves. After recommendations to drain
    /// peer-to-peer traffic (3) or to recover the IMEX domain (5), no reset is needed.
    pub fn is_reset(&self) -> bool {
        let value = |name: &str| self.details.get(name).map(String::as_str);
        self.is_xid(&[154])
            && value("recovery_to") == Some("0")
            && matches!(value("recovery_from"), Some("1" | "2" | "4" | "6" | "7"))
    }

    /// Returns whether a GPU fell off the bus: Xid 79, or the line without a code (old drivers, and during initialization).
    pub fn is_off_bus(&self) -> bool {
        self.kind == KernelEventKind::OffBus || self.is_xid(&[79])
    }
}
