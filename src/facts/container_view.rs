//! `ContainerView`: shared memory, limits, driver libraries and network interfaces as one container sees them.
//!
//! Part of `ContainerAccess`. Source: the root of the container, `/proc/PID` of its processes, and the events of its
//! cgroup. The container controls the first two sources.

use std::collections::BTreeMap;

use syringe_macros::facts;

/// What the programs of one container see.
#[facts(omit(Option, Vec, BTreeMap, bool))]
pub struct ContainerView {
    /// `/dev/shm`, if it is a file system in memory.
    pub shared_memory: Option<SharedMemory>,
    /// Limits of the first process (`/proc/PID/limits`).
    pub limits: Option<ProcessLimits>,
    /// Whether the first process may lock any amount of memory (`CAP_IPC_LOCK`).
    pub may_lock_memory: Option<bool>,
    /// Whether the container has devices for RDMA (`/dev/infiniband/uverbs*`).
    pub has_rdma_devices: bool,
    /// Number of processes that the kernel has killed at the memory limit of the container since its start.
    pub memory_kills: Option<u64>,
    /// Number of failed starts of processes or threads at the limit of the container, since its start.
    pub refused_threads: Option<u64>,
    /// Driver libraries (`libcuda`, `libnvidia-ml`) that processes have mapped, each path once.
    pub mapped_libraries: Vec<MappedLibrary>,
    /// `libcuda.so.1` and `libnvidia-ml.so.1` in the usual folders.
    pub library_files: Vec<LibraryFile>,
    /// Whether all usual folders were searched for the libraries.
    pub libraries_searched: bool,
    /// Environment variables of the first process that select network interfaces. Only known names with plain values
    /// are listed.
    pub network_settings: BTreeMap<String, String>,
    /// Network interfaces of the container. Read only if a variable selects interfaces.
    pub interfaces: Option<Vec<String>>,
    /// RDMA devices of the container (`/sys/class/infiniband`). Read only if a variable selects interfaces.
    pub rdma_devices: Option<Vec<String>>,
}

/// Space of `/dev/shm`.
#[facts]
pub struct SharedMemory {
    /// Size.
    pub size_bytes: u64,
    /// Space in use.
    pub used_bytes: u64,
}

/// Soft limits of a process. `None` means that there is no limit.
#[facts(omit(Option))]
pub struct ProcessLimits {
    /// Memory that the process may lock.
    pub locked_memory_bytes: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes and threads of the user.
    pub processes: Option<u64>,
}

/// A driver library that a process has mapped.
#[facts(omit(Option))]
pub struct MappedLibrary {
    /// `libcuda` or `libnvidia-ml`.
    pub library: String,
    /// Path in the container.
    pub path: String,
    /// Version in the file name (`libcuda.so.570.124.06`).
    pub version: Option<String>,
}

/// A driver library in the file system of the container.
#[facts(omit(bool))]
pub struct LibraryFile {
    /// Path in the container.
    pub path: String,
    /// Whether the file has no content.
    pub empty: bool,
}
