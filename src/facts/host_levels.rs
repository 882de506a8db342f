//! The levels of a host: full file systems, limits, clock, CPUs, memory of sockets, pressure and kernel taint.
//!
//! Source: `statvfs`, procfs and sysfs. Values that say nothing on a healthy node (degraded arrays, CPUs offline) are left out.

use std::collections::BTreeMap;

use syringe_macros::facts;

/// How full the host is, and whether its CPUs and its memory are complete.
#[facts(omit(Option, Vec))]
pub struct HostLevels {
    /// Local file systems of `/`, the kubelet, the container runtime, `/var/log` and `/tmp`, each once.
    pub file_systems: Vec<FileSystem>,
    /// Linux software RAID arrays with missing devices (`/proc/mdstat`).
    pub degraded_arrays: Vec<DegradedArray>,
    /// Whether a time service keeps the clock.
    pub clock: Option<Clock>,
    /// Threads, open files and tracked connections, each with its limit.
    pub limits: Option<Limits>,
    /// CPUs and their frequency governor.
    pub cpus: Option<Cpus>,
    /// CPUs and memory of each socket, if there are several.
    pub sockets: Vec<Socket>,
    /// Shares of the last five minutes in which all work waited.
    pub pressure: Option<Pressure>,
    /// The kernel's bits about events that make it less trustworthy (`/proc/sys/kernel/tainted`).
    pub kernel_taint: Option<u64>,
}

/// Space of one local file system.
#[facts(omit(Option, bool))]
pub struct FileSystem {
    /// The paths that are on this file system, of those that are checked.
    pub paths: Vec<String>,
    /// Type, for example `ext4`.
    pub kind: String,
    /// Whether it is mounted read-only, or the kernel made it read-only.
    pub read_only: bool,
    /// Size without the part that is reserved for root.
    pub total_bytes: u64,
    /// Free space for programs.
    pub available_bytes: u64,
    /// Number of inodes. Absent if the file system creates them as needed.
    pub inodes: Option<u64>,
    /// Number of free inodes.
    pub inodes_free: Option<u64>,
}

/// A software RAID array with fewer devices than it should have.
#[facts(omit(Option, bool))]
pub struct DegradedArray {
    /// Name, for example `md0`.
    pub name: String,
    /// Level, for example `raid1`.
    pub level: Option<String>,
    /// Number of devices that the array should have.
    pub devices: u32,
    /// Number of devices that work.
    pub working: u32,
    /// Whether a replaced device is being filled.
    pub is_rebuilding: bool,
}

/// The state of the system clock.
#[facts(omit(Option))]
pub struct Clock {
    /// Whether the kernel considers its clock to be synchronized (`adjtimex`). The kernel withdraws this about nine hours after the last
    /// correction by a time service.
    pub is_synchronized: Option<bool>,
    /// Name of the process of a time service (`chronyd`, `systemd-timesyn`, `ntpd`, `ptp4l`, `phc2sys`), if one runs.
    pub service: Option<String>,
}

/// Use of tables and limits of the kernel.
#[facts(omit(Option))]
pub struct Limits {
    /// Threads, against the lower one of `threads-max` and `pid_max`.
    pub threads: Option<Level>,
    /// Open files (`/proc/sys/fs/file-nr`). Absent if there is practically no limit.
    pub open_files: Option<Level>,
    /// Connections that netfilter tracks in the network namespace of the probe.
    pub connections: Option<Level>,
}

/// A number and its limit.
#[facts]
pub struct Level {
    /// Number in use.
    pub used: u64,
    /// Maximum.
    pub limit: u64,
}

/// The CPUs of the host.
#[facts(omit(Option, BTreeMap))]
pub struct Cpus {
    /// Number of CPUs (hardware threads) that are present.
    pub present: u32,
    /// Number of CPUs that the kernel uses.
    pub online: u32,
    /// Whether the kernel uses several threads of a core (`smt/control`): `on`, `off`, `forceoff`, `notsupported`, …; only if CPUs are
    /// offline.
    pub smt: Option<String>,
    /// Frequency driver (`scaling_driver`). Absent in most virtual machines.
    pub frequency_driver: Option<String>,
    /// Number of checked CPUs with each governor (`scaling_governor`); at most 32 are checked.
    pub governors: BTreeMap<String, u32>,
    /// Lowest frequency that the governor may choose, of the first CPU.
    pub minimum_megahertz: Option<u64>,
    /// Highest frequency of the first CPU.
    pub maximum_megahertz: Option<u64>,
}

/// The CPUs and the memory of one socket.
#[facts]
pub struct Socket {
    /// Number of the socket (`physical_package_id`).
    pub socket: u32,
    /// Number of CPUs that are online.
    pub cpus: u32,
    /// Memory of the NUMA nodes whose CPUs are in this socket.
    pub memory_bytes: u64,
}

/// Pressure stall information: percent of the last five minutes in which all tasks waited at the same time.
#[facts(omit(Option))]
pub struct Pressure {
    /// For memory.
    pub memory_percent: Option<u32>,
    /// For disks.
    pub io_percent: Option<u32>,
}
