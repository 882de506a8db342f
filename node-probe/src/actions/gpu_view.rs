//! One GPU as an action needs it: which it is, who is on it, how much memory is in use. From NVML, which may hang: it is
//! asked by a process of its own, and what does not come in time is not known.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use syringe_core::facts::processes::GpuUse;
use syringe_core::report::Problem;

use crate::host;
use crate::nvml::{Answer, GpuState, NvmlProcess};
use crate::paths::Paths;
use crate::task::Questions;

/// Time for the process that asks NVML to end once it is told to.
const END_TIME: Duration = Duration::from_millis(200);

/// A GPU at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct GpuView {
    /// NVML index.
    pub(super) index: Option<u32>,
    /// N of `/dev/nvidiaN`.
    pub(super) minor: Option<u32>,
    /// Frame buffer in use.
    pub(super) memory_used: Option<u64>,
    /// NVML's lists for this GPU.
    pub(super) uses: Vec<(u32, GpuUse)>,
    /// Why NVML says nothing.
    pub(super) problem: Option<Problem>,
}

/// Looks at GPUs by their UUID.
#[derive(Clone, Debug)]
pub(super) struct GpuReader {
    pub(super) paths: Paths,
    pub(super) library: Option<PathBuf>,
    pub(super) time: Duration,
}

impl GpuReader {
    /// The GPU of this UUID; `None`: neither NVML nor the kernel module has such a GPU. Where NVML does not answer, or has
    /// lost the GPU, the kernel module's own files still tell the device file.
    pub(super) fn read(&self, uuid: &str) -> Option<GpuView> {
        let problem = match self.ask(uuid) {
            Ok(Some(GpuState { index, minor, memory_used, uses, problem })) => {
                let minor = minor.or_else(|| host::gpu_minor(&self.paths, uuid));
                return Some(GpuView { index: Some(index), minor, memory_used, uses, problem });
            }
            Ok(None) => None,
            Err(problem) => Some(problem),
        };
        // A GPU that NVML lost, or all of them where it does not answer.
        let minor = host::gpu_minor(&self.paths, uuid);
        let known = minor.is_some() || problem.is_some();
        known.then(|| GpuView { minor, problem: Some(problem.unwrap_or_else(unlisted)), ..GpuView::default() })
    }

    fn ask(&self, uuid: &str) -> Result<Option<GpuState>, Problem> {
        let questions = Questions {
            library: self.library.clone(),
            paths: self.paths.clone(),
            sections: Vec::new(),
            gpu: Some(uuid.to_owned()),
        };
        let (process, answers) = NvmlProcess::start(questions)?;
        let (sender, receiver) = channel();
        let asked = Arc::clone(&process);
        thread::spawn(move || {
            let answer = answers.into_iter().find_map(|answer| match answer {
                Answer::Gpu(state) => Some(Ok(state)),
                Answer::Failed(problem) => Some(Err(problem)),
                _ => None,
            });
            let _ = sender.send(answer.unwrap_or_else(|| Err(asked.failure())));
        });
        let answer = receiver.recv_timeout(self.time).unwrap_or_else(|_| Err(self.timed_out(process.call())));
        process.end(END_TIME);
        answer
    }

    fn timed_out(&self, call: Option<String>) -> Problem {
        let inside = call.map(|call| format!("; it is still inside {call}")).unwrap_or_default();
        Problem {
            what: "NVML".into(),
            why: format!("NVML did not answer within {:.1} s{inside}", self.time.as_secs_f32()),
            next_step: "A GPU or driver that hangs blocks its readers; a reboot of the node is the usual way out."
                .into(),
            gpu: None,
            code: "timeout".into(),
        }
    }
}

fn unlisted() -> Problem {
    Problem {
        what: "NVML".into(),
        why: "NVML does not list this GPU, the kernel module does: it is lost".into(),
        next_step: "Drain the node and reboot it.".into(),
        gpu: None,
        code: syringe_core::nvml_codes::GPU_LOST.into(),
    }
}
