//! `NvmlProcess`: starts a child process that calls NVML, reads its `Answers`, and stops it.
//! `all_ended`: whether all these processes have exited.
//!
//! ```text
//!   NvmlProcess::start(request) ─▶ child (subprocess_main) ─▶ Answers, one line of JSON each, as they are read
//!                      └─ SharedPage: the current call, readable even after a crash of the child
//! ```

use std::io::{BufRead, BufReader, Read, Take};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use syringe_core::report::Problem;

use crate::child;
use crate::child_task::{ChildTask, NvmlRequest};
use crate::nvml::answer::Answer;
use crate::nvml::current_call::{OpenCall, SharedPage};

/// Maximum number of bytes of all answers. 16 GPUs with all their links need about 300 KB.
const MAX_BYTES: u64 = 32 << 20;
/// Maximum number of bytes of one answer, which is about one GPU.
const MAX_LINE: u64 = 4 << 20;
/// Maximum time for a process to exit after it has closed its output.
const END_TIME: Duration = Duration::from_secs(1);
/// Pause between two checks of whether a process has exited.
const PAUSE: Duration = Duration::from_millis(5);

/// A process that calls NVML.
#[derive(Debug)]
pub(super) struct NvmlProcess {
    child: Mutex<Child>,
    page: SharedPage,
}

/// The answers of a process. The last answer is [`Answer::Done`], unless the process crashed.
pub(super) struct Answers(BufReader<Take<ChildStdout>>);

/// Processes of this run that have not exited. Each of them may still have the GPUs open.
static STARTED: Mutex<Vec<Arc<NvmlProcess>>> = Mutex::new(Vec::new());

impl NvmlProcess {
    /// Starts the process. It is killed when the thread that calls this function exits.
    pub(super) fn start(nvml_request: NvmlRequest) -> Result<(Arc<Self>, Answers), Problem> {
        let started = || -> std::io::Result<(Child, SharedPage)> {
            let page = SharedPage::new()?;
            let mut command = child::command(&ChildTask::Nvml(nvml_request))?;
            let child = command.stdout(Stdio::piped()).stderr(Stdio::from(page.file()?)).spawn()?;
            Ok((child, page))
        };
        let failed =
            |why: String| problem("nvml_not_started", format!("the process that calls NVML: {why}"), "Try again.");
        let (mut child, page) =
            started().map_err(|error| failed(format!("the process could not be started ({error})")))?;
        let output = child.stdout.take().ok_or_else(|| failed("the process has no output".into()))?;
        let process = Arc::new(Self { child: Mutex::new(child), page });
        lock(&STARTED).push(Arc::clone(&process));
        Ok((process, Answers(BufReader::new(output.take(MAX_BYTES)))))
    }

    /// Returns the NVML call that has not returned.
    pub(super) fn call(&self) -> Option<OpenCall> {
        self.page.call()
    }

    /// Kills the process. Returns its ID if the process does not exit in `time`, because it hangs in the kernel.
    pub(super) fn end(&self, time: Duration) -> Option<u32> {
        let _ = lock(&self.child).kill();
        if self.wait(time).is_some() { None } else { Some(lock(&self.child).id()) }
    }

    /// Explains why the process stopped before its answers were complete.
    pub(super) fn failure(&self) -> Problem {
        let call = self.call().map(|call| format!(" in {}", call.text)).unwrap_or_default();
        let stderr = self.page.stderr_text().map(|text| format!("; error output: {text}")).unwrap_or_default();
        let ended = match self.wait(END_TIME) {
            Some(status) => child::exit_text(status),
            None => "closed its output".to_owned(),
        };
        problem(
            "nvml_crashed",
            format!("the process that calls NVML {ended}{call}{stderr}"),
            "The report has the values that were read before the process stopped. Check the kernel log (xid section). \
                If the process stops again, the library is damaged or does not match the driver: reinstall the driver.",
        )
    }

    fn wait(&self, time: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + time;
        loop {
            // The lock is only held for the check, so that another thread can kill the process.
            match lock(&self.child).try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < end => {}
                Ok(None) | Err(_) => return None,
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Returns whether every process that called NVML has exited and closed the GPUs.
pub(crate) fn all_ended() -> bool {
    let mut started = lock(&STARTED);
    started.retain(|process| process.wait(Duration::ZERO).is_none());
    started.is_empty()
}

pub(super) fn problem(code: &str, why: String, next_step: &str) -> Problem {
    Problem { what: "NVML".into(), why, next_step: next_step.into(), gpu: None, code: code.into() }
}

/// Locks a mutex, even if the lock is poisoned: no holder of the lock leaves inconsistent data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Iterator for Answers {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }
}
