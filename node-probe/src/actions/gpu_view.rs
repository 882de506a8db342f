//! One GPU as an action needs it: which it is, who is on it, how much memory is in use. From NVML, which may hang: it is
//! asked in a thread of its own, and what does not come in time is not known.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use syringe_core::facts::processes::GpuUse;
use syringe_core::report::Problem;

use crate::host;
use crate::nvml::{Session, Trace};
use crate::paths::Paths;

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
pub(super) struct Looker {
    pub(super) paths: Paths,
    pub(super) library: Option<PathBuf>,
    pub(super) time: Duration,
}

impl Looker {
    /// The GPU of this UUID; `None`: neither NVML nor the kernel module has such a GPU. Where NVML does not answer, or has
    /// lost the GPU, the kernel module's own files still tell the device file.
    pub(super) fn look(&self, uuid: &str) -> Option<GpuView> {
        let (sender, receiver) = channel();
        let trace = Trace::default();
        let (looker, wanted, under_way) = (self.clone(), uuid.to_owned(), trace.clone());
        thread::spawn(move || {
            let _ = sender.send(read(looker.library.as_deref(), &looker.paths, &under_way, &wanted));
        });
        let answer = receiver.recv_timeout(self.time).unwrap_or_else(|_| Err(self.timed_out(&trace)));
        let problem = match answer {
            Ok(Some(view)) => return Some(view),
            Ok(None) => None,
            Err(problem) => Some(problem),
        };
        // A GPU that NVML lost, or all of them where it does not answer.
        let minor = host::gpu_minor(&self.paths, uuid);
        let known = minor.is_some() || problem.is_some();
        known.then(|| GpuView { minor, problem: Some(problem.unwrap_or_else(unlisted)), ..GpuView::default() })
    }

    fn timed_out(&self, trace: &Trace) -> Problem {
        let inside = trace.current().map(|call| format!("; it is still inside {call}")).unwrap_or_default();
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

fn read(library: Option<&Path>, paths: &Paths, trace: &Trace, uuid: &str) -> Result<Option<GpuView>, Problem> {
    let session = Session::open(library, paths, trace)?;
    let known = session.pci_addresses().into_iter().find(|(_, _, of)| of.as_deref() == Some(uuid));
    let Some((_, index, _)) = known else { return Ok(None) };
    let of = |pairs: &[(u32, u32)]| pairs.iter().find(|(gpu, _)| *gpu == index).map(|(_, number)| *number);
    let uses = session.gpu_uses();
    let problem = uses.problems.into_iter().find(|problem| problem.gpu == Some(index));
    let uses = uses.data.unwrap_or_default().into_iter().filter(|(_, gpu_use)| gpu_use.gpu == index).collect();
    Ok(Some(GpuView {
        index: Some(index),
        minor: of(&session.minor_numbers()).or_else(|| host::gpu_minor(paths, uuid)),
        memory_used: session.memory_used().into_iter().find(|(gpu, _)| *gpu == index).map(|(_, bytes)| bytes),
        uses,
        problem,
    }))
}
