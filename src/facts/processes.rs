//! The `processes` section: who uses the GPUs. Source: NVML process lists, `/proc`, cgroups.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Processes on the GPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Processes {
    /// Whether process ids are the host's (the probe runs in the initial PID namespace). Without it NVML leaves out what it
    /// cannot name, and a short list proves nothing.
    pub host_pid_namespace: bool,
    /// One entry per process.
    pub processes: Vec<GpuProcess>,
    /// Memory in use that no listed process accounts for, per GPU, where it is more than driver overhead explains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unaccounted_memory: Vec<UnaccountedMemory>,
}

/// One process that NVML lists on a GPU, or that holds a GPU device file open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuProcess {
    /// Process id in the host's namespace.
    pub pid: u32,
    /// The kernel's name of it (`comm`).
    pub name: Option<String>,
    /// Program and names of options; values only where they are known to be harmless. See [`crate::text::command`].
    pub command: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// User name on the host, where `/etc/passwd` knows the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it started. Together with the pid its identity.
    pub started_at: Option<Timestamp>,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot: what an action compares.
    pub start_ticks: Option<u64>,
    /// Scheduler state of its first thread: `R`, `S`, `D` (uninterruptible: no signal helps), `Z` (zombie), …; `X`: NVML lists it
    /// though `/proc` does not have it any more.
    pub state: Option<String>,
    /// Its threads, where one of them waits uninterruptibly or not all could be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
    /// What it does on which GPU.
    pub uses: Vec<GpuUse>,
    /// Device files of GPUs that it holds open though NVML does not list it there (`/dev/nvidiaN`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// The pod that its cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The container that its cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Quality of service class: `guaranteed`, `burstable`, `besteffort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// The process that waits for it, where it is a zombie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
}

impl GpuProcess {
    /// Whether no signal helps it at this moment: its first thread or another one is in state `D`.
    pub fn is_uninterruptible(&self) -> bool {
        self.state.as_deref() == Some("D") || self.threads.as_ref().is_some_and(|threads| threads.uninterruptible > 0)
    }

    /// Whether the process or one of its threads that wait uninterruptibly has this id. The kernel's lines about blocked
    /// tasks name threads.
    pub fn has_task(&self, id: u32) -> bool {
        self.pid == id || self.waiting_threads().any(|thread| thread.tid == id)
    }

    /// The threads that wait uninterruptibly, as far as they are named.
    pub fn waiting_threads(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().flat_map(|threads| &threads.examples)
    }
}

/// What `/proc/PID/task` says of a process's threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Threads {
    /// Threads that were looked at.
    pub looked_at: u32,
    /// Threads beyond the most that are looked at, or for which time ran out.
    pub not_looked_at: u32,
    /// Threads in state `D` at two looks a tenth of a second apart that did not run in between.
    pub uninterruptible: u32,
    /// The first of those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Thread>,
}

/// One thread that waits uninterruptibly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Thread {
    /// Thread id in the host's namespace.
    pub tid: u32,
    /// The kernel's name of it (`comm`).
    pub name: Option<String>,
    /// The kernel function in which it waits (`wchan`); `None` where the kernel does not tell.
    pub waits_in: Option<String>,
}

/// A process on one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuUse {
    /// NVML index.
    pub gpu: u32,
    /// `compute`, `graphics` or `mps`.
    pub kind: String,
    /// Frame buffer; `None` where the driver does not say.
    pub memory_bytes: Option<u64>,
    /// MIG GPU instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_gpu_instance: Option<u32>,
    /// MIG compute instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_compute_instance: Option<u32>,
}

/// Memory that nobody claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UnaccountedMemory {
    /// NVML index.
    pub gpu: u32,
    /// Bytes in use minus the listed processes' bytes.
    pub bytes: u64,
}
