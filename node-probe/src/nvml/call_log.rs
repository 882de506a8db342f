//! The calls of one step of the reading: what each returned, and the call that has not returned.
//!
//! A call into a driver that hangs cannot be interrupted. The thread that made it keeps its local values. So the answers are also
//! recorded here, and another thread reads the step again from the record: it gets every value that arrived, and an error for
//! the rest. The code that reads a step makes the same calls in the same order for the same answers.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::errors::NvmlError;

/// Number of calls that returned, in the whole process.
static RETURNED: AtomicU64 = AtomicU64::new(0);

/// The calls of one step.
#[derive(Default)]
pub(super) struct CallLog(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    answers: Vec<Box<dyn Any + Send>>,
    open: Option<OpenCall>,
}

/// A call that has not returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenCall {
    pub(super) function: &'static str,
    since: Instant,
    /// Number of calls that had returned before it began.
    returned_before: u64,
}

impl OpenCall {
    /// How long it has been running.
    pub(super) fn duration(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether a call of another thread has returned since this one began: NVML does not wait for it.
    pub(super) fn others_returned(&self) -> bool {
        RETURNED.load(Ordering::SeqCst) > self.returned_before
    }
}

impl CallLog {
    /// Makes a call and records its answer.
    pub(super) fn record<T: Clone + Send + 'static>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<T, NvmlError> {
        let returned_before = RETURNED.load(Ordering::SeqCst);
        self.calls().open = Some(OpenCall { function, since: Instant::now(), returned_before });
        let answer = call();
        RETURNED.fetch_add(1, Ordering::SeqCst);
        let mut calls = self.calls();
        calls.open = None;
        calls.answers.push(Box::new(answer.clone()));
        answer
    }

    /// Records an answer that was known without a call.
    pub(super) fn note<T: Clone + Send + 'static>(&self, answer: Result<T, NvmlError>) -> Result<T, NvmlError> {
        self.calls().answers.push(Box::new(answer.clone()));
        answer
    }

    /// The answer at this place; `None` if there is none yet.
    pub(super) fn answer<T: Clone + Send + 'static>(&self, place: usize) -> Option<Result<T, NvmlError>> {
        self.calls().answers.get(place)?.downcast_ref::<Result<T, NvmlError>>().cloned()
    }

    /// The call that has not returned.
    pub(super) fn open_call(&self) -> Option<OpenCall> {
        self.calls().open
    }

    /// Poisoned locks are used, because no holder leaves inconsistent data.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{CallLog, NvmlError};

    #[test]
    fn answers_are_kept_in_order_and_the_open_call_is_known() {
        let log = CallLog::default();
        assert_eq!(log.record("a", || Ok(1_u32)), Ok(1));
        assert_eq!(log.record("b", || Err::<String, _>(NvmlError::NOT_SUPPORTED)), Err(NvmlError::NOT_SUPPORTED));
        let _ = log.record("c", || {
            let open = log.open_call().expect("under way");
            assert_eq!((open.function, open.others_returned()), ("c", false));
            CallLog::default().record("d", || Ok(())).expect("another thread's");
            assert!(open.others_returned());
            Ok(3_u8)
        });
        assert!(log.open_call().is_none());
        assert_eq!(log.answer::<u32>(0), Some(Ok(1)));
        assert_eq!(log.answer::<String>(1), Some(Err(NvmlError::NOT_SUPPORTED)));
        assert_eq!((log.answer::<u32>(2), log.answer::<u8>(3)), (None, None), "another type, and no answer");
    }
}
