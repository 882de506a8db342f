//! The tasks of this program's child processes. See `child` for how a child gets one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::section::SectionName;

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Ask NVML.
    Nvml(Questions),
    /// Become the host's journalctl.
    Journal(Journal),
    /// Say what a container can open.
    DeviceAccess(DeviceAccess),
    /// Become the driver's own tool.
    DriverTool(DriverTool),
}

/// Where the host's journal is, and from when on it is read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The host's root.
    pub(crate) root: PathBuf,
    /// journalctl, as seen below that root.
    pub(crate) tool: PathBuf,
    /// Start of the window, seconds since 1970.
    pub(crate) since: i64,
}

/// Which devices to ask for, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceAccess {
    /// `cgroup.procs` of the container.
    pub(crate) theirs: PathBuf,
    /// `cgroup.procs` of the probe.
    pub(crate) ours: PathBuf,
    /// The container's `/dev`.
    pub(crate) folder: PathBuf,
    /// Device files in it.
    pub(crate) names: Vec<String>,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Questions {
    /// A library in place of the search for it.
    pub(crate) library: Option<PathBuf>,
    /// Where the node is.
    pub(crate) paths: Paths,
    /// Sections to read.
    pub(crate) sections: Vec<SectionName>,
    /// The GPU, by its UUID, to look at for an action.
    pub(crate) gpu: Option<String>,
}

/// Runs one of three fixed nvidia-smi commands below another root. This program starts itself so: changing the root
/// directory is for a whole process, and the one that reads must keep its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DriverTool {
    /// The host's root
    pub(crate) host: PathBuf,
    /// Root directory of the driver, below it
    pub(crate) below: String,
    /// nvidia-smi, as seen below that root
    pub(crate) program: PathBuf,
    /// Folder of the driver's libraries, where the loader does not know it
    pub(crate) library_path: Option<String>,
    /// UUID of the GPU
    pub(crate) gpu: String,
    /// What to do
    pub(crate) job: Job,
}

/// What nvidia-smi is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Job {
    /// `--gpu-reset`
    Reset,
    /// `-pm 1`
    PersistenceOn,
    /// `-pm 0`
    PersistenceOff,
}

impl Task {
    /// What a list of processes shows.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Nvml(_) => "node-probe: NVML",
            Self::Journal(_) => "node-probe: journal",
            Self::DeviceAccess(_) => "node-probe: devices of a container",
            Self::DriverTool(_) => "node-probe: nvidia-smi",
        }
    }
}

impl Job {
    /// nvidia-smi's arguments.
    pub(crate) fn arguments(self, gpu: &str) -> Vec<&str> {
        match self {
            Self::Reset => vec!["--gpu-reset", "-i", gpu],
            Self::PersistenceOn => vec!["-i", gpu, "-pm", "1"],
            Self::PersistenceOff => vec!["-i", gpu, "-pm", "0"],
        }
    }
}
