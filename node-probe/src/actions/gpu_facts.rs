//! `GpuReader`: reads the facts about one GPU that an action needs: identity, processes, memory in use.
//!
//! The facts come from NVML, which may hang. Therefore, NVML is called in a separate process, and values that do not
//! arrive in time are unknown.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use syringe_core::facts::processes::GpuUse;
use syringe_core::report::Problem;

use crate::child_task::NvmlRequest;
use crate::host;
use crate::nvml::{GpuState, NvmlProcesses};
use crate::paths::Paths;

/// Maximum time for the NVML process to exit after it is killed.
const END_TIME: Duration = Duration::from_millis(200);

/// Pause between two checks of whether NVML hangs.
const CHECK: Duration = Duration::from_millis(20);

/// The state of a GPU at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct GpuFacts {
    /// NVML index.
    pub(super) index: Option<u32>,
    /// N of `/dev/nvidiaN`.
    pub(super) minor: Option<u32>,
    /// Frame buffer memory in use.
    pub(super) memory_used: Option<u64>,
    /// The processes that NVML lists for this GPU.
    pub(super) uses: Vec<(u32, GpuUse)>,
    /// The reason why NVML provides no facts.
    pub(super) problem: Option<Problem>,
}

/// Reads GPUs by their UUID.
#[derive(Clone, Debug)]
pub(super) struct GpuReader {
    pub(super) paths: Paths,
    pub(super) library: Option<PathBuf>,
    pub(super) time: Duration,
}

impl GpuReader {
    /// Returns the GPU with this UUID; `None` if NVML and the kernel module do not list this GPU. If NVML does not
    /// respond, or has lost the GPU, the number of its device file comes from the files of the kernel module.
    pub(super) fn read(&self, uuid: &str) -> Option<GpuFacts> {
        let problem = match self.ask(uuid) {
            Ok(Some(GpuState { index, minor, memory_used, uses, problem })) => {
                let minor = minor.or_else(|| host::gpu_minor(&self.paths, uuid));
                return Some(GpuFacts { index: Some(index), minor, memory_used, uses, problem });
            }
            Ok(None) => None,
            Err(problem) => Some(problem),
        };
        // NVML lost this GPU, or NVML does not respond at all.
        let minor = host::gpu_minor(&self.paths, uuid);
        let known = minor.is_some() || problem.is_some();
        known.then(|| GpuFacts { minor, problem: Some(problem.unwrap_or_else(unlisted)), ..GpuFacts::default() })
    }

    fn ask(&self, uuid: &str) -> Result<Option<GpuState>, Problem> {
        let nvml_request = NvmlRequest {
            library: self.library.clone(),
            gpu: Some(uuid.to_owned()),
            ..NvmlRequest::new(self.paths.clone(), self.time * 9 / 10)
        };
        let end = Instant::now() + self.time;
        let (sender, messages) = channel();
        let mut nvml = NvmlProcesses::new(nvml_request, move |message| {
            let _ = sender.send(message);
        });
        nvml.start();
        let answer = loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(state) = nvml.take_state() {
                break Ok(state);
            }
            if left.is_zero() || nvml.have_ended() {
                break Err(nvml.failure().cloned().unwrap_or_else(|| self.timed_out(nvml.call())));
            }
            nvml.watch();
            if let Ok(message) = messages.recv_timeout(left.min(CHECK)) {
                nvml.take(message);
            }
        };
        nvml.end(END_TIME);
        answer
    }

    fn timed_out(&self, call: Option<String>) -> Problem {
        let inside = call.map(|call| format!("; it is still in {call}")).unwrap_or_default();
        Problem {
            what: "NVML".into(),
            why: format!("NVML did not answer within {:.1} s{inside}", self.time.as_secs_f32()),
            next_step: "A GPU or driver that hangs blocks every reader. Reboot the node.".into(),
            gpu: None,
            code: "timeout".into(),
        }
    }
}

fn unlisted() -> Problem {
    Problem {
        what: "NVML".into(),
        why: "NVML does not list this GPU, but the kernel module does: the GPU is lost".into(),
        next_step: "Drain the node and reboot it.".into(),
        gpu: None,
        code: syringe_core::nvml_codes::GPU_LOST.into(),
    }
}
