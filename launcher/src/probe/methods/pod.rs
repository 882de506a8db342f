//! The plain way: a privileged pod of the probe's image that holds, and one exec in it.

use super::node_probe;
use crate::error::Failure;
use crate::probe::Timings;
use crate::probe::document::Document;
use crate::probe::life::{CleanUp, ProbeContext, ProbeSteps};
use crate::probe::own_pod::PodLifecycle;
use crate::settings::ProbeMethod;

/// What to do when the image is another one.
pub(super) const NO_PROBE: &str =
    "The image holds no node-probe: name the right one with --image (deploy/Containerfile builds it).";

/// A pod that holds while the probe runs in it.
pub(super) struct HeldPod(PodLifecycle);

impl HeldPod {
    pub(super) fn new(context: &ProbeContext) -> Self {
        Self(PodLifecycle::new(context.pod()))
    }
}

impl ProbeSteps for HeldPod {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Pod
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        self.0.create(context).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<Document, Failure> {
        let document = context.document(&self.0.probe_container(NO_PROBE), &node_probe(&context.request.command), timings).await?;
        let plain = context.settings.runtime_class.as_ref().map(|class| {
            format!("read from a plain container of RuntimeClass {class}: NVML only, no kernel log and no host files")
        });
        Ok(document.noting(plain))
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        self.0.clean_up(context).await
    }
}
