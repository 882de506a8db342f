//! What NVML is being asked at this instant, so that whoever waits can name the call that does not return.

use std::sync::{Arc, Mutex, PoisonError};

/// Shared between the thread that asks NVML and the thread that watches the deadline. Clones see the same call.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Option<Call>>>);

#[derive(Clone, Copy, Debug)]
struct Call {
    function: &'static str,
    gpu: Option<u32>,
}

/// A call that is under way; it has returned when this is dropped.
pub(super) struct UnderWay<'a>(&'a Trace);

impl Trace {
    /// The call that NVML has not returned from, e.g. `nvmlDeviceGetMemoryInfo_v2 on GPU 3`.
    pub fn current(&self) -> Option<String> {
        let call = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(match call.gpu {
            Some(gpu) => format!("{} on GPU {gpu}", call.function),
            None => call.function.to_owned(),
        })
    }

    /// Notes that `function` is being called. The lock is held for the note alone, never during the call.
    pub(super) fn enter(&self, function: &'static str, gpu: Option<u32>) -> UnderWay<'_> {
        self.set(Some(Call { function, gpu }));
        UnderWay(self)
    }

    fn set(&self, call: Option<Call>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn the_call_under_way_is_named_and_forgotten_when_it_returns() {
        let trace = Trace::default();
        let watcher = trace.clone();
        let call = trace.enter("nvmlDeviceGetUUID", Some(3));
        assert_eq!(watcher.current().as_deref(), Some("nvmlDeviceGetUUID on GPU 3"));
        drop(call);
        assert_eq!(watcher.current(), None);
        let _call = trace.enter("nvmlInit_v2", None);
        assert_eq!(watcher.current().as_deref(), Some("nvmlInit_v2"));
    }
}
