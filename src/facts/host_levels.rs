//! The types for the state of a host: full file systems, degraded arrays, clock, limits, CPUs, memory, pressure and
//! kernel taint.
//!
//! Source: `statvfs`, procfs and sysfs. Values without meaning on a healthy node (degraded arrays, CPUs offline) are
//! omitted.

use std::collections::BTreeMap;

use syringe_macros::facts;

/// File systems, limits, clock, CPUs and memory of the host.
#[facts(omit(Option, Vec))]
pub struct HostLevels {
    /// The local file systems of `/`, the kubelet, the container runtime, `/var/log` and `/tmp`. Each file system is
    /// listed once.
    pub file_systems: Vec<FileSystem>,
    /// Linux software RAID arrays with missing devices (`/proc/mdstat`).
    pub degraded_arrays: Vec<DegradedArray>,
    /// The clock, and the time service that keeps it synchronized.
    pub clock: Option<Clock>,
    /// Threads, open files and tracked connections, each with its limit.
    pub limits: Option<Limits>,
    /// CPUs and their frequency governor.
    pub cpus: Option<Cpus>,
    /// CPUs and memory of each socket, if there are several.
    pub sockets: Vec<Socket>,
    /// Shares of the last five minutes in which all tasks waited.
    pub pressure: Option<Pressure>,
    /// The taint bits of the kernel (`/proc/sys/kernel/tainted`).
    pub kernel_taint: Option<u64>,
}

/// Space of one local file system.
#[facts(omit(Option, bool))]
pub struct FileSystem {
    /// The checked paths that are on this file system.
    pub paths: Vec<String>,
    /// Type, for example `ext4`.
    pub kind: String,
    /// Whether the file system is read-only, by its mount options or because the kernel made it read-only.
    pub read_only: bool,
    /// Size without the space that is reserved for root.
    pub total_bytes: u64,
    /// Free space for programs without root privileges.
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
    /// Whether data is being copied to a replaced device.
    pub is_rebuilding: bool,
}

/// The state of the system clock.
#[facts(omit(Option))]
pub struct Clock {
    /// Whether the kernel considers its clock to be synchronized (`adjtimex`). The kernel clears this state about nine
    /// hours after the last correction by a time service.
    pub is_synchronized: Option<bool>,
    /// Name of the process of a time service (`chronyd`, `systemd-timesyn`, `ntpd`, `ptp4l`, `phc2sys`), if such a
    /// process runs.
    pub service: Option<String>,
}

/// Use of tables and limits of the kernel.
#[facts(omit(Option))]
pub struct Limits {
    /// Threads. The limit is the lower value of `threads-max` and `pid_max`.
    pub threads: Option<Level>,
    /// Open files (`/proc/sys/fs/file-nr`). Absent if there is no practical limit.
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
    /// Whether the kernel uses several threads of a core (`smt/control`): `on`, `off`, `forceoff`, `notsupported`, …;
    /// only if CPUs are offline.
    pub smt: Option<String>,
    /// Frequency driver (`scaling_driver`). Absent in most virtual machines.
    pub frequency_driver: Option<String>,
    /// Number of checked CPUs with each governor (`scaling_governor`); at most 32 are checked.
    pub governors: BTreeMap<String, u32>,
    /// Lowest frequency that the governor may set for the first CPU.
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
