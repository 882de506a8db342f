//! The plain way: a privileged pod of the probe's image that holds, and one exec in it.

use super::node_probe;
use crate::error::Failure;
use crate::probe::Timings;
use crate::probe::document::Document;
use crate::probe::life::{Left, Life, Way};
use crate::probe::own_pod::OwnPod;
use crate::settings::Via;

/// What to do when the image is another one.
pub(super) const NO_PROBE: &str =
    "The image holds no node-probe: name the right one with --image (deploy/Containerfile builds it).";

/// A pod that holds while the probe runs in it.
pub(super) struct HeldPod(OwnPod);

impl HeldPod {
    pub(super) fn new(life: &Life) -> Self {
        Self(OwnPod::new(life.pod()))
    }
}

impl Way for HeldPod {
    fn via(&self) -> Via {
        Via::Pod
    }

    async fn enter(&mut self, life: &Life) -> Result<(), Failure> {
        self.0.enter(life).await
    }

    async fn read(&self, life: &Life, timings: &mut Timings) -> Result<Document, Failure> {
        let document = life.document(&self.0.place(NO_PROBE), &node_probe(&life.order.command), timings).await?;
        let plain = life.settings.runtime_class.as_ref().map(|class| {
            format!("read from a plain container of RuntimeClass {class}: NVML only, no kernel log and no host files")
        });
        Ok(document.noting(plain))
    }

    async fn leave(&mut self, life: &Life) -> Left {
        self.0.leave(life).await
    }
}
