//! The steps that differ from one probe method to another.

use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::{CleanUp, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;

/// One probe by one method: create, read, clean up.
pub(in crate::probe) trait ProbeSteps: Send + Sync {
    /// Which method it is.
    fn method(&self) -> ProbeMethod;

    /// Creates the objects that the method needs. Never cancelled, so that every created object is recorded.
    fn create(&mut self, context: &ProbeContext) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Gets the document. Cancelled together with the call.
    fn read(
        &self,
        context: &ProbeContext,
        timings: &mut Timings,
    ) -> impl Future<Output = Result<ReceivedReport, Failure>> + Send;

    /// Deletes whatever `create` created, also when `create` failed. Never cancelled.
    fn clean_up(&mut self, context: &ProbeContext) -> impl Future<Output = CleanUp> + Send;
}
