//! The calls of one step of the reading: what each returned, and the call that has not returned.
//!
//! A call into a driver that hangs cannot be interrupted. The thread that made it keeps its local values. So the answers are also
//! recorded here, and another thread reads the step again from the record: it gets every value that arrived, and an error for
//! the rest. The code that reads a step makes the same calls in the same order for the same answers.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Number of calls that returned, in the whole process.
static RETURNED: AtomicU64 = AtomicU64::new(0);

/// The answer of a call: a `Result<T, NvmlError>` of its type. Without the type, the code exists once and not for each call.
pub(in crate::nvml) type Answer = Arc<dyn Any + Send + Sync>;

/// The calls of one step.
#[derive(Default)]
pub(in crate::nvml) struct CallLog(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    answers: Vec<Answer>,
    open: Option<OpenCall>,
}

/// A call that has not returned.
#[derive(Clone, Copy, Debug)]
pub(in crate::nvml) struct OpenCall {
    pub(in crate::nvml) function: &'static str,
    since: Instant,
    /// Number of calls that had returned before it began.
    returned_before: u64,
}

impl OpenCall {
    /// How long it has been running.
    pub(in crate::nvml) fn duration(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether a call of another thread has returned since this one began: NVML does not wait for it.
    pub(in crate::nvml) fn others_returned(&self) -> bool {
        RETURNED.load(Ordering::SeqCst) > self.returned_before
    }
}

impl CallLog {
    /// Notes that a call begins.
    pub(in crate::nvml) fn begin(&self, function: &'static str) {
        let returned_before = RETURNED.load(Ordering::SeqCst);
        self.calls().open = Some(OpenCall { function, since: Instant::now(), returned_before });
    }

    /// Notes the answer of the call that began.
    pub(in crate::nvml) fn end(&self, answer: Answer) {
        RETURNED.fetch_add(1, Ordering::SeqCst);
        let mut calls = self.calls();
        calls.open = None;
        calls.answers.push(answer);
    }

    /// Notes an answer that was known without a call.
    pub(in crate::nvml) fn note(&self, answer: Answer) {
        self.calls().answers.push(answer);
    }

    /// The answer at this place; `None` if there is none yet.
    pub(in crate::nvml) fn answer(&self, place: usize) -> Option<Answer> {
        self.calls().answers.get(place).cloned()
    }

    /// The call that has not returned.
    pub(in crate::nvml) fn open_call(&self) -> Option<OpenCall> {
        self.calls().open
    }

    /// Poisoned locks are used, because no holder leaves inconsistent data.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::CallLog;

    #[test]
    fn answers_are_kept_in_order_and_the_open_call_is_known() {
        let log = CallLog::default();
        log.begin("a");
        let open = log.open_call().expect("under way");
        assert_eq!((open.function, open.others_returned()), ("a", false));
        let other = CallLog::default();
        other.begin("b");
        other.end(Arc::new(()));
        assert!(open.others_returned());
        log.end(Arc::new(1_u32));
        log.note(Arc::new(2_u8));
        assert!(log.open_call().is_none());
        assert_eq!(log.answer(0).and_then(|answer| answer.downcast_ref::<u32>().copied()), Some(1));
        assert_eq!(log.answer(1).and_then(|answer| answer.downcast_ref::<u8>().copied()), Some(2));
        assert!(log.answer(2).is_none());
    }
}
