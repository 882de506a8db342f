//! The types of the `processes` section: GPU processes with threads and memory, from NVML, `/proc` and cgroups.

use jiff::Timestamp;
use syringe_macros::facts;

/// GPU processes.
#[facts(omit(unaccounted_memory))]
pub struct Processes {
    /// Whether process ids are ids of the host (the probe runs in the initial PID namespace). If `false`, NVML omits
    /// processes, and the list is incomplete.
    pub host_pid_namespace: bool,
    /// One entry per process.
    pub processes: Vec<GpuProcess>,
    /// By GPU: GPU memory in use that is not explained by the listed processes and exceeds the overhead of the driver.
    pub unaccounted_memory: Vec<UnaccountedMemory>,
}

/// One process that NVML lists on a GPU, or that has a GPU device file open.
#[facts(omit(user, threads, pod_uid, container_id, qos, parent_pid, open_device_files))]
pub struct GpuProcess {
    /// Process id in the PID namespace of the host.
    pub pid: u32,
    /// Name in the kernel (`comm`).
    pub name: Option<String>,
    /// Program and option names. Values are included only if they are known to contain no secrets: see
    /// [`crate::text::command`].
    pub command: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// User name on the host, if `/etc/passwd` contains the id.
    pub user: Option<String>,
    /// Start time. Start time and process id together identify the process.
    pub started_at: Option<Timestamp>,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`). Actions compare this value.
    pub start_ticks: Option<u64>,
    /// Scheduler state of the first thread: `R`, `S`, `D` (uninterruptible: signals have no effect), `Z` (zombie), …;
    /// `X`: NVML lists the process, but it no longer exists in `/proc`.
    pub state: Option<String>,
    /// Threads of the process; only if a thread is in uninterruptible sleep or not all threads were checked.
    pub threads: Option<Threads>,
    /// How the process uses each GPU.
    pub uses: Vec<GpuUse>,
    /// GPU device files (`/dev/nvidiaN`) that the process has open although NVML does not list the process on these
    /// GPUs.
    pub open_device_files: Vec<String>,
    /// UID of the pod, from the cgroup.
    pub pod_uid: Option<String>,
    /// Container id, from the cgroup.
    pub container_id: Option<String>,
    /// Quality of service class: `guaranteed`, `burstable`, `besteffort`.
    pub qos: Option<String>,
    /// Parent process, if the process is a zombie.
    pub parent_pid: Option<u32>,
}

impl GpuProcess {
    /// Returns whether no signal can terminate the process now: the first thread or another thread is in state `D`.
    pub fn is_uninterruptible(&self) -> bool {
        self.state.as_deref() == Some("D") || self.threads.as_ref().is_some_and(|threads| threads.uninterruptible > 0)
    }

    /// Returns whether this is the id of the process or of one of its threads in uninterruptible sleep. Kernel lines
    /// about blocked tasks contain thread ids.
    pub fn has_task(&self, id: u32) -> bool {
        self.pid == id || self.waiting_threads().any(|thread| thread.tid == id)
    }

    /// Returns the listed threads in uninterruptible sleep.
    pub fn waiting_threads(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().flat_map(|threads| &threads.examples)
    }
}

/// Threads of a process (`/proc/PID/task`).
#[facts(omit(Vec))]
pub struct Threads {
    /// Number of threads that were checked.
    pub checked: u32,
    /// Number of threads that were not checked, because of the limit or the deadline.
    pub not_checked: u32,
    /// Number of threads that were in state `D` at two readings a tenth of a second apart and did not run in between.
    pub uninterruptible: u32,
    /// The first of these threads.
    pub examples: Vec<Thread>,
}

/// One thread in uninterruptible sleep.
#[facts]
pub struct Thread {
    /// Thread id in the PID namespace of the host.
    pub tid: u32,
    /// Name in the kernel (`comm`).
    pub name: Option<String>,
    /// Kernel function in which the thread waits (`wchan`); `None` if the kernel does not provide it.
    pub waits_in: Option<String>,
}

/// Use of one GPU by a process.
#[facts(omit(Option, !memory_bytes))]
pub struct GpuUse {
    /// NVML index.
    pub gpu: u32,
    /// `compute`, `graphics` or `mps`.
    pub kind: String,
    /// GPU memory in use; `None` if the driver does not report it.
    pub memory_bytes: Option<u64>,
    /// MIG GPU instance.
    pub mig_gpu_instance: Option<u32>,
    /// MIG compute instance.
    pub mig_compute_instance: Option<u32>,
}

/// GPU memory in use that is not explained by the listed processes.
#[facts]
pub struct UnaccountedMemory {
    /// NVML index.
    pub gpu: u32,
    /// Memory in use minus the memory of the listed processes.
    pub bytes: u64,
}
