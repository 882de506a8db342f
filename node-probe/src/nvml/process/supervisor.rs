//! Reads the steps in a thread, one call at a time, and sends each answer as it comes.
//!
//! A call that does not return stops its thread, which cannot be ended. Another thread then goes on with the other GPUs. Whether
//! this works depends on what hangs: the driver usually waits for one GPU only, but a call can also hold a lock that all calls need.
//! So the steps are in the order of what they say (see `step`), and the calls are not made at the same time: of two calls that wait,
//! it would not be known which one waits for the other.
//!
//! If the call returns after all, its GPU is read last. At the deadline, each step that was not completed is repeated from the
//! record of its calls: every value that arrived is sent, and the call that did not return is named.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::call_log::{CallLog, OpenCall};
use crate::nvml::answer::Output;
use crate::nvml::answer::{Answer, GpuState, Part};
use crate::nvml::errors::NvmlError;
use crate::nvml::read::session::Session;
use crate::nvml::read::step::Step;

/// No thread reads.
const NOBODY: u64 = 0;
/// A call that takes longer than this part of the time is left to its thread. Being wrong costs nothing: its GPU is read later.
const STALL_PART: u32 = 8;
/// The stall time is not shorter: a busy machine delays threads.
const MIN_STALL: Duration = Duration::from_millis(200);
/// The driver takes one to three seconds to initialize a GPU.
const INITIALIZATION_TIME: Duration = Duration::from_secs(4);
/// A call that has taken this part of the time at the deadline hangs. A shorter one may only be slow.
pub(in crate::nvml) const HUNG_PART: u32 = 4;

/// Reads all steps until the deadline.
pub(in crate::nvml) struct Supervisor<'a, W> {
    session: &'static Session,
    output: &'a mut Output<W>,
    /// UUID of the GPU that an action needs.
    wanted: Option<&'a str>,
    deadline: Instant,
    stall: Duration,
    /// Whether the opening of a GPU takes seconds.
    slow_start: bool,
    hung: Duration,
    work: Arc<Mutex<Work>>,
    sender: Sender<Ended>,
    inbox: Receiver<Ended>,
    threads: u64,
    stuck: Vec<Stuck>,
    /// Steps of the GPUs of stuck calls.
    parked: Vec<Step>,
    /// Pairs that were read without the GPU of a stuck call.
    without_stuck: Vec<Step>,
    announced: bool,
    /// Whether the parent knows that NVML answers no call.
    told_blocked: bool,
}

/// What remains, and the step that a thread reads now.
struct Work {
    queue: VecDeque<Step>,
    thread: u64,
    current: Option<(Step, Arc<CallLog>)>,
    /// Number of steps that ended and whose answer was not taken yet.
    answers: usize,
}

/// A thread whose call does not return.
struct Stuck {
    thread: u64,
    step: Step,
    log: Arc<CallLog>,
    /// Whether the parent knows that its call does not return.
    is_told: bool,
}

/// A step that was read.
struct Ended {
    thread: u64,
    step: Step,
    answer: Option<Answer>,
}

impl<'a, W: Write> Supervisor<'a, W> {
    /// Prepares to read `steps` within `time`.
    pub(in crate::nvml) fn new(
        session: &'static Session,
        steps: VecDeque<Step>,
        wanted: Option<&'a str>,
        time: Duration,
        slow_start: bool,
        output: &'a mut Output<W>,
    ) -> Self {
        let (sender, inbox) = channel();
        let work = Work { queue: steps, thread: NOBODY, current: None, answers: 0 };
        Self {
            session,
            output,
            wanted,
            deadline: Instant::now() + time,
            stall: (time / STALL_PART).max(MIN_STALL),
            slow_start,
            hung: (time / HUNG_PART).max(MIN_STALL),
            work: Arc::new(Mutex::new(work)),
            sender,
            inbox,
            threads: NOBODY,
            stuck: Vec::new(),
            parked: Vec::new(),
            without_stuck: Vec::new(),
            announced: false,
            told_blocked: false,
        }
    }

    /// Reads all steps and sends the answers.
    pub(in crate::nvml) fn run(mut self) {
        loop {
            self.start_thread();
            self.announce();
            if self.is_idle() && self.stuck.is_empty() {
                return;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.give_up();
            }
            if let Ok(ended) = self.inbox.recv_timeout(left.min(self.stall)) {
                self.take(ended);
            }
            self.leave_stuck();
            self.tell_stuck();
        }
    }

    /// Starts a thread if there is something to read and nobody reads.
    fn start_thread(&mut self) {
        let mut work = lock(&self.work);
        if work.thread != NOBODY || work.queue.is_empty() {
            return;
        }
        self.threads += 1;
        work.thread = self.threads;
        let (session, thread, sender) = (self.session, self.threads, self.sender.clone());
        let work = Arc::clone(&self.work);
        thread::spawn(move || {
            let mut next = advance(&work, thread, 0);
            while let Some((step, log)) = next {
                let answer = step.read(session, &log);
                // Before the answer is sent, so that its receiver knows whether this was the last one.
                next = advance(&work, thread, 1);
                if sender.send(Ended { thread, step, answer }).is_err() {
                    return;
                }
            }
        });
    }

    fn take(&mut self, ended: Ended) {
        let Ended { thread, step, answer } = ended;
        lock(&self.work).answers -= 1;
        if let Some(place) = self.stuck.iter().position(|stuck| stuck.thread == thread) {
            let stuck = self.stuck.swap_remove(place);
            self.mark_stuck(step, false);
            if let Some(gpu) = index(step).filter(|_| stuck.is_told) {
                self.output.send(&Answer::Returned(gpu));
            }
            let back = self.parked.extract_if(.., |parked| parked.gpu() == step.gpu());
            let mut work = lock(&self.work);
            // The pairs with this GPU were left out.
            let now = work.current.as_ref().map(|(step, _)| *step).filter(|step| matches!(step, Step::Pairs(_)));
            work.queue.extend(back.chain(std::mem::take(&mut self.without_stuck)).chain(now));
        } else if !self.stuck.is_empty() && matches!(step, Step::Pairs(_)) {
            self.without_stuck.push(step);
        }
        if let Some(answer) = answer {
            self.send(answer);
        }
    }

    fn send(&mut self, answer: Answer) {
        if self.wanted.is_none() {
            self.output.send(&answer);
        } else if let Answer::Uses(part) = answer {
            self.output.send(&Answer::Gpu(Some(state(part))));
        }
    }

    /// Sends the list of GPUs as soon as all are opened that can be.
    fn announce(&mut self) {
        let is_open = |step: &Step| matches!(step, Step::Open(_));
        let work = lock(&self.work);
        let waits = work.queue.iter().any(is_open) || work.current.as_ref().is_some_and(|(step, _)| is_open(step));
        drop(work);
        if self.announced || waits {
            return;
        }
        self.announced = true;
        let count = u32::try_from(self.session.gpus.len()).unwrap_or(u32::MAX);
        self.output.send(&Answer::Opened { count, addresses: self.session.pci_addresses() });
        if let Some(uuid) = self.wanted {
            match self.session.gpus.iter().position(|gpu| gpu.uuid() == Some(uuid)) {
                Some(place) => lock(&self.work).queue.push_back(Step::Uses(place)),
                // It may be the GPU that is not open.
                None if self.stuck.is_empty() => self.output.send(&Answer::Gpu(None)),
                None => {}
            }
            self.start_thread();
        }
    }

    fn is_idle(&self) -> bool {
        let work = lock(&self.work);
        work.queue.is_empty() && work.current.is_none() && work.answers == 0
    }

    /// Leaves a call that does not return to its thread, and puts the other steps of its GPU aside.
    fn leave_stuck(&mut self) {
        let mut work = lock(&self.work);
        let is_stuck = |(step, log): &(Step, Arc<CallLog>)| {
            let initializes = self.slow_start && matches!(step, Step::Open(_));
            let stall = if initializes { self.stall.max(INITIALIZATION_TIME) } else { self.stall };
            log.open_call().is_some_and(|call| call.duration() >= stall)
        };
        if !work.current.as_ref().is_some_and(is_stuck) {
            return;
        }
        if let Some((step, _)) = self.blocking() {
            drop(work);
            return self.tell_blocked(step);
        }
        let Some((step, log)) = work.current.take() else { return };
        let thread = std::mem::replace(&mut work.thread, NOBODY);
        if step.gpu().is_some() {
            let (of_gpu, others) = work.queue.drain(..).partition(|other| other.gpu() == step.gpu());
            work.queue = others;
            self.parked.extend::<VecDeque<Step>>(of_gpu);
        }
        drop(work);
        self.mark_stuck(step, true);
        // The opening cannot be repeated, and an action needs a complete answer.
        if self.wanted.is_none() && !matches!(step, Step::Open(_)) {
            let so_far = self.error(step, &log, Duration::MAX);
            self.repeat(step, &log, &so_far);
        }
        self.stuck.push(Stuck { thread, step, log, is_told: false });
    }

    /// Tells the parent which calls do not return, and which did after all.
    fn tell_stuck(&mut self) {
        let Self { stuck, output, stall, .. } = self;
        for Stuck { step, log, is_told, .. } in stuck {
            let Some(gpu) = index(*step) else { continue };
            let call = log.open_call().filter(|call| call.duration() >= *stall);
            match (call, *is_told) {
                (Some(call), false) => {
                    let duration_ms = crate::document::millis(call.duration());
                    output.send(&Answer::Stuck { gpu, function: call.function.to_owned(), duration_ms });
                }
                (None, true) => output.send(&Answer::Returned(gpu)),
                (Some(_), true) | (None, false) => continue,
            }
            *is_told = !*is_told;
        }
    }

    fn tell_blocked(&mut self, step: Step) {
        let gpu = index(step).filter(|_| !self.told_blocked);
        if let Some(gpu) = gpu {
            self.told_blocked = true;
            self.output.send(&Answer::Blocked(gpu));
        }
    }

    /// The stuck call for which all other calls wait: none has returned since it began.
    fn blocking(&self) -> Option<(Step, OpenCall)> {
        let calls = self.stuck.iter().filter_map(|stuck| Some((stuck.step, stuck.log.open_call()?)));
        calls.into_iter().find(|(_, call)| !call.others_returned())
    }

    fn mark_stuck(&self, step: Step, is_stuck: bool) {
        if let Some(gpu) = step.gpu().and_then(|place| self.session.gpus.get(place)) {
            gpu.stuck.store(is_stuck, Ordering::SeqCst);
        }
    }

    /// Sends what was read of the steps that were not completed.
    fn give_up(mut self) {
        let mut work = lock(&self.work);
        work.thread = NOBODY;
        let (current, queue) = (work.current.take(), std::mem::take(&mut work.queue));
        drop(work);
        let rest = self.reason();
        for Stuck { step, log, .. } in std::mem::take(&mut self.stuck) {
            let error = self.error(step, &log, self.hung);
            self.repeat(step, &log, &error);
            let of_gpu: Vec<Step> = self.parked.extract_if(.., |parked| parked.gpu() == step.gpu()).collect();
            of_gpu.into_iter().for_each(|step| self.repeat(step, &CallLog::default(), &error));
        }
        if let Some((step, log)) = current {
            self.repeat(step, &log, &rest);
        }
        queue.into_iter().for_each(|step| self.repeat(step, &CallLog::default(), &rest));
        self.announce();
        if self.wanted.is_some() {
            self.output.send(&Answer::Failed(rest.problem("NVML", None)));
        }
    }

    fn repeat(&mut self, step: Step, log: &CallLog, error: &NvmlError) {
        if let Some(answer) = step.repeat(self.session, log, error) {
            self.send(answer);
        }
    }

    /// Why a step whose call did not return is not complete.
    fn error(&self, step: Step, log: &CallLog, hung: Duration) -> NvmlError {
        let Some(call) = log.open_call() else { return NvmlError::NotReached("the time was over".into()) };
        let duration_ms = crate::document::millis(call.duration());
        // A call about two GPUs does not tell which of them hangs.
        if call.duration() >= hung && !matches!(step, Step::Pairs(_)) {
            return NvmlError::Hung { function: call.function.to_owned(), duration_ms };
        }
        NvmlError::NotReached(format!("{} had not returned after {duration_ms} ms", place(step, &call)))
    }

    /// Why the steps of other GPUs are not complete.
    fn reason(&self) -> NvmlError {
        NvmlError::NotReached(match self.blocking() {
            Some((step, call)) => format!("NVML answers no call while {} does not return", place(step, &call)),
            None => "not read in time: NVML answers slowly".to_owned(),
        })
    }
}

/// NVML index of the GPU of a step.
fn index(step: Step) -> Option<u32> {
    u32::try_from(step.gpu()?).ok()
}

/// `nvmlDeviceGetUUID on GPU 3`.
fn place(step: Step, call: &OpenCall) -> String {
    match step.gpu() {
        Some(gpu) => format!("{} on GPU {gpu}", call.function),
        None => call.function.to_owned(),
    }
}

/// Takes the next step of a thread that has `answers` to send. `None` if there is none, or another thread reads now.
fn advance(work: &Mutex<Work>, thread: u64, answers: usize) -> Option<(Step, Arc<CallLog>)> {
    let mut work = lock(work);
    work.answers += answers;
    if work.thread != thread {
        return None;
    }
    work.current = work.queue.pop_front().map(|step| (step, Arc::default()));
    if work.current.is_none() {
        work.thread = NOBODY;
    }
    work.current.clone()
}

fn state(part: Part<crate::nvml::answer::GpuUses>) -> GpuState {
    let Part { gpu, entry, missing, .. } = part;
    let uses = entry.unwrap_or_default();
    let problem = missing.problems.into_iter().next();
    GpuState { index: gpu, minor: uses.minor, memory_used: uses.memory_used, uses: uses.uses, problem }
}

/// Poisoned locks are used, because no holder leaves inconsistent data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
