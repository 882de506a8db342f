//! `ExecPod`: the method `--via pod`, which creates a pod from the probe's image, and runs the probe in it by exec.

use super::probe_steps::ProbeSteps;
use crate::probe::exec::read_report;
use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::lifecycle::pod_lifecycle::PodLifecycle;
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::next_steps::NO_PROBE;
use crate::probe::result::{CleanUp, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;

/// A pod that waits while the probe runs in it.
pub(in crate::probe) struct ExecPod(PodLifecycle);

impl ExecPod {
    pub(in crate::probe) fn new(context: &ProbeContext) -> Result<Self, Failure> {
        context.pod().map(|pod| Self(PodLifecycle::new(pod)))
    }
}

impl ProbeSteps for ExecPod {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Pod
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        self.0.create(context).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let document = read_report::read(
            context,
            &self.0.probe_container(self.method(), NO_PROBE),
            &context.command().argv(),
            timings,
        )
        .await?;
        let plain = context.settings.runtime_class.as_ref().map(|class| {
            format!("read in an unprivileged container with RuntimeClass {class}: NVML only, no kernel log and no host files")
        });
        Ok(document.with_note(plain))
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        self.0.clean_up(context).await
    }
}
