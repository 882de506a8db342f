//! `ChildTask`: the input of each task of a child process (NVML, journalctl, device access, nvidia-smi, NCCL, CUDA).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syringe_core::section_name::SectionName;

use crate::document::millis;
use crate::paths::Paths;

/// The task of a child process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ChildTask {
    Nvml(NvmlRequest),
    /// Run journalctl of the host.
    Journal(Journal),
    /// Check which devices a container can open.
    DeviceAccess(DeviceAccessRequest),
    /// Run nvidia-smi of the host.
    NvidiaSmi(NvidiaSmi),
    /// Query the NCCL status service of a pod.
    Nccl(NcclRequest),
    /// Start CUDA of the node.
    Cuda(Paths),
}

/// The pod whose NCCL status service is queried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NcclRequest {
    pub(crate) proc: PathBuf,
    /// UID of the pod.
    pub(crate) pod_uid: String,
    pub(crate) is_saved_tree: bool,
}

/// The journal of the host, and the start of the window.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) root: PathBuf,
    /// Path of journalctl below `root`.
    pub(crate) tool: PathBuf,
    /// Start of the window, seconds since 1970.
    pub(crate) since: i64,
}

/// The devices to check, and the cgroup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceAccessRequest {
    /// `cgroup.procs` of the container.
    pub(crate) container_procs: PathBuf,
    /// `cgroup.procs` of the probe.
    pub(crate) probe_procs: PathBuf,
    /// The root directory of the container.
    pub(crate) root: PathBuf,
    /// Whether plain files represent device files, as in a saved tree.
    pub(crate) is_saved_tree: bool,
    /// Names of device files in the `/dev` of the container.
    pub(crate) names: Vec<String>,
}

/// The sections to read from NVML, or the GPU that an action needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NvmlRequest {
    /// A library to load, instead of searching for it.
    pub(crate) library: Option<PathBuf>,
    /// The paths of the node.
    pub(crate) paths: Paths,
    pub(crate) sections: Vec<SectionName>,
    /// UUID of the GPU that an action needs.
    pub(crate) gpu: Option<String>,
    /// Time limit for reading.
    pub(crate) time_ms: u64,
    /// Whether the driver has to initialize GPUs first, which takes seconds.
    pub(crate) slow_start: bool,
    /// NVML indices of the GPUs that are left out, because a call for the GPU hangs in another process or crashed it.
    pub(crate) without: Vec<u32>,
    /// Time between two readings of counters, 0 for one reading. By default, counters that are not zero are read twice.
    pub(crate) sample_ms: Option<u64>,
    /// Parts of sections that another process has already read.
    pub(crate) have: Vec<(SectionName, u32)>,
}

/// Runs one of three fixed nvidia-smi commands below another root. This needs a child process, because the root
/// directory is changed for a whole process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NvidiaSmi {
    pub(crate) host: PathBuf,
    /// Root directory of the driver, relative to the host's root
    pub(crate) below: String,
    /// Path of nvidia-smi below the driver's root directory
    pub(crate) program: PathBuf,
    /// Folder of the driver's libraries, if the loader does not search it
    pub(crate) library_path: Option<String>,
    pub(crate) gpu: String,
    pub(crate) job: SmiCommand,
}

/// The command for nvidia-smi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SmiCommand {
    /// `--gpu-reset`
    Reset,
    /// `-pm 1`
    PersistenceOn,
    /// `-pm 0`
    PersistenceOff,
}

impl NvmlRequest {
    /// Returns a request that reads nothing yet.
    pub(crate) fn new(paths: Paths, time: Duration) -> Self {
        Self {
            library: None,
            paths,
            sections: Vec::new(),
            gpu: None,
            time_ms: millis(time),
            slow_start: false,
            sample_ms: None,
            without: Vec::new(),
            have: Vec::new(),
        }
    }
}

impl ChildTask {
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Nvml(_) => "node-probe: NVML",
            Self::Journal(_) => "node-probe: journal",
            Self::DeviceAccess(_) => "node-probe: devices of a container",
            Self::NvidiaSmi(_) => "node-probe: nvidia-smi",
            Self::Nccl(_) => "node-probe: NCCL",
            Self::Cuda(_) => "node-probe: CUDA",
        }
    }
}

impl SmiCommand {
    pub(crate) fn arguments(self, gpu: &str) -> Vec<&str> {
        match self {
            Self::Reset => vec!["--gpu-reset", "-i", gpu],
            Self::PersistenceOn => vec!["-i", gpu, "-pm", "1"],
            Self::PersistenceOff => vec!["-i", gpu, "-pm", "0"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ChildTask;

    #[test]
    fn the_tasks_that_no_caller_may_give_are_valid_tasks() {
        let tasks: Vec<ChildTask> =
            serde_json::from_str(include_str!("../../tests/isolation/tasks.json")).expect("a child could read them");
        let titles: std::collections::BTreeSet<_> = tasks.iter().map(ChildTask::title).collect();
        assert_eq!(titles.len(), 6, "{titles:?}");
    }
}
