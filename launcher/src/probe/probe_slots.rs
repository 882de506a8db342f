//! `ProbeSlots`: limits the number of probes in flight in this process. Other calls wait in order of arrival.
//! Without this limit, a host that makes 60 calls at the same time would start 60 privileged pods on one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::probe_context::ProbeContext;
use crate::probe::request::Phase;
use kube_read::Failure;

/// If less time than this is left, no pod is created, because the pod would be deleted before the probe could respond.
const MIN_TIME: Duration = Duration::from_secs(3);

/// The slots for probes. The permit of a slot is held until the pod is deleted.
#[derive(Debug)]
pub(super) struct ProbeSlots {
    /// The free slots. The semaphore is fair: it serves requests in their order.
    free: Arc<Semaphore>,
    limit: u16,
    waiting: AtomicU32,
}

impl ProbeSlots {
    pub(super) fn new(limit: u16) -> Self {
        Self { free: Arc::new(Semaphore::new(limit.into())), limit, waiting: AtomicU32::new(0) }
    }

    /// Takes a slot, or waits for a slot within the time of the call. If this fails, nothing was created.
    pub(super) async fn take(&self, context: &ProbeContext) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(slot) = self.free.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let queued = Queued::new(&self.waiting);
        context.report(Phase::Queue { before: queued.before, limit: self.limit });
        let taken = tokio::select! {
            taken = timeout_at(context.end - MIN_TIME, self.free.clone().acquire_owned()) => taken,
            () = context.cancel.cancelled() => return Err(context.stopped()),
            () = context.session.stop.cancelled() => return Err(context.stopped()),
        };
        // The semaphore is never closed.
        taken.ok().and_then(Result::ok).ok_or_else(|| {
            let limit = self.limit;
            let why = format!(
                "{limit} probes of this launcher were in flight until this call had too little time left (--max-probes \
                    {limit}); nothing was created"
            );
            context
                .out_of_time(&why)
                .with_next_step("Call again with fewer calls at the same time, or raise --max-probes.")
        })
    }
}

/// A call that is waiting for a slot. It is dropped when the call stops waiting.
struct Queued<'a> {
    waiting: &'a AtomicU32,
    /// Number of calls that are waiting before this call.
    before: u32,
}

impl<'a> Queued<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        Self { waiting, before: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
