//! `ProbeSteps`: the trait with the steps in which probe methods differ: create the objects, read the report, clean up.

use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::{CleanUp, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;

/// A probe with one method: create the objects, read the report, clean up.
pub(in crate::probe) trait ProbeSteps: Send + Sync {
    /// Returns the probe method.
    fn method(&self) -> ProbeMethod;

    /// Creates the objects that the method needs. This step is never cancelled, so that every created object is recorded.
    fn create(&mut self, context: &ProbeContext) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads the document. This step is cancelled together with the call.
    fn read(
        &self,
        context: &ProbeContext,
        timings: &mut Timings,
    ) -> impl Future<Output = Result<ReceivedReport, Failure>> + Send;

    /// Deletes the objects that `create` created, even if `create` failed. This step is never cancelled.
    fn clean_up(&mut self, context: &ProbeContext) -> impl Future<Output = CleanUp> + Send;
}
