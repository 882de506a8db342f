//! NVML runs in a process of its own: a library that crashes or hangs costs what was still to be read, and not the report.
//!
//! ```text
//!   NvmlProcess::start(questions) ─▶ child (serve) ─▶ Answers, one line of JSON each, as they are read
//!                      └─ Notes: the call under way, readable whatever becomes of the child
//! ```

use std::io::{BufRead, BufReader, Read, Take};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use syringe_core::facts::ecc::Ecc;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::mig::Mig;
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::telemetry::Telemetry;
use syringe_core::facts::topology::Topology;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Problem, Section};

use super::trace::Notes;
use crate::child;
use crate::task::{Questions, Task};

/// Answers that are read of one process. 16 GPUs with all their links take some 300 KB.
const MAX_BYTES: u64 = 32 << 20;
/// Time for a process that has closed its output to end.
const END_TIME: Duration = Duration::from_secs(1);
/// Pause between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(5);

/// What NVML said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// NVML is open; its GPUs, where it knows where they are.
    Opened(Option<Vec<GpuAddress>>),
    /// It is not, or the process that asks it found a defect of its own.
    Failed(Problem),
    Inventory(Section<Inventory>),
    Telemetry(Section<Telemetry>),
    Topology(Section<Topology>),
    Ecc(Section<Ecc>),
    Mig(Section<Mig>),
    Uses(Uses),
    /// The GPU that was asked for; `None`: NVML has no such GPU.
    Gpu(Option<GpuState>),
    /// That was all.
    Done,
}

/// PCI address, NVML index, UUID.
pub(crate) type GpuAddress = (PciAddress, u32, Option<String>);

/// NVML's process lists; the memory in use on each GPU; N of each `/dev/nvidiaN`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Uses {
    pub(crate) uses: Section<Vec<(u32, GpuUse)>>,
    pub(crate) memory_used: Vec<(u32, u64)>,
    pub(crate) minors: Vec<(u32, u32)>,
}

/// One GPU, as an action needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GpuState {
    pub(crate) index: u32,
    pub(crate) minor: Option<u32>,
    pub(crate) memory_used: Option<u64>,
    pub(crate) uses: Vec<(u32, GpuUse)>,
    pub(crate) problem: Option<Problem>,
}

/// A process that asks NVML.
#[derive(Debug)]
pub(crate) struct NvmlProcess {
    child: Mutex<Child>,
    notes: Notes,
}

/// Its answers, as they come; none after [`Answer::Done`], and fewer from one that crashed.
pub(crate) struct Answers(BufReader<Take<ChildStdout>>);

/// Every process of this run that has not been seen to end: each may still have the GPUs open.
static STARTED: Mutex<Vec<Arc<NvmlProcess>>> = Mutex::new(Vec::new());

impl NvmlProcess {
    /// Starts it. It ends with the thread that calls this.
    pub(crate) fn start(questions: Questions) -> Result<(Arc<Self>, Answers), Problem> {
        let started = || -> std::io::Result<(Child, Notes)> {
            let notes = Notes::new()?;
            let mut command = child::command(&Task::Nvml(questions))?;
            let child = command.stdout(Stdio::piped()).stderr(Stdio::from(notes.file()?)).spawn()?;
            Ok((child, notes))
        };
        let failed =
            |why: String| problem("nvml_not_started", format!("the process that asks NVML: {why}"), "Try again.");
        let (mut child, notes) = started().map_err(|error| failed(format!("it could not be started: {error}")))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output".into()))?;
        let process = Arc::new(Self { child: Mutex::new(child), notes });
        lock(&STARTED).push(Arc::clone(&process));
        Ok((process, Answers(BufReader::new(output.take(MAX_BYTES)))))
    }

    /// The call that NVML is inside of.
    pub(crate) fn call(&self) -> Option<String> {
        self.notes.call()
    }

    /// Ends it. Gives its process id where it cannot be ended in `time`: a call that hangs in the kernel takes no signal.
    pub(crate) fn end(&self, time: Duration) -> Option<u32> {
        let _ = lock(&self.child).kill();
        if self.wait(time).is_some() { None } else { Some(lock(&self.child).id()) }
    }

    /// Why its answers ended before they were complete.
    pub(crate) fn failure(&self) -> Problem {
        let call = self.call().map(|call| format!(" inside {call}")).unwrap_or_default();
        let said = self.notes.said().map(|said| format!("; it said: {said}")).unwrap_or_default();
        let ended = match self.wait(END_TIME) {
            Some(status) => words(status),
            None => "closed its output".to_owned(),
        };
        problem(
            "nvml_crashed",
            format!("the process that asks NVML {ended}{call}{said}"),
            "What was read before is in the report. Look at the kernel log (xid section); if it happens again, the driver's \
             library is damaged or of another version than the driver: reinstall the driver.",
        )
    }

    fn wait(&self, time: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + time;
        loop {
            // The lock is held for the look alone, so that another thread can end it meanwhile.
            match lock(&self.child).try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < end => {}
                Ok(None) | Err(_) => return None,
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Whether every process that asked NVML has ended, and so let go of the GPUs.
pub(crate) fn all_ended() -> bool {
    let mut started = lock(&STARTED);
    started.retain(|process| process.wait(Duration::ZERO).is_none());
    started.is_empty()
}

fn words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = rustix::process::Signal::from_named_raw(signal).map(|signal| format!(" ({signal:?})"));
            format!("was ended by signal {signal}{}", name.unwrap_or_default())
        }
        (None, Some(code)) => format!("ended with exit status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn problem(code: &str, why: String, next_step: &str) -> Problem {
    Problem { what: "NVML".into(), why, next_step: next_step.into(), gpu: None, code: code.into() }
}

/// Nothing that holds one of these locks can leave half a change behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Iterator for Answers {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }
}
