//! `StartFault`: a fault of the start of a pod. `StartInjection`: the fault of one pod, for the kubelet that starts it.

use std::time::Duration;

/// A fault of the start of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum StartFault {
    /// The image cannot be pulled: `ErrImagePull`, then `ImagePullBackOff`, with events.
    ImagePull,
    /// The kubelet rejects the pod: phase `Failed` with `reason`, such as `OutOfpods`.
    Rejected {
        /// `status.reason` of the pod.
        reason: String,
        /// The message after `Pod was rejected: `.
        message: String,
    },
    /// The registry does not respond, so the pull of the image never ends.
    HungPull,
    /// The image is pulled, but the runtime does not start the container.
    HungRuntime,
    /// The start of the container takes this additional time.
    Slow(Duration),
    /// No sandbox can be created. The pod stays Pending, and an event contains this reason.
    NoSandbox(String),
}

impl StartFault {
    /// Returns the rejection by a node that runs its maximum number of pods.
    pub fn out_of_pods() -> Self {
        Self::Rejected {
            reason: "OutOfpods".to_owned(),
            message: "Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110".to_owned(),
        }
    }
}

/// The fault of one pod, for the kubelet that starts the pod.
#[derive(Debug)]
pub(crate) struct StartInjection(pub(super) Option<StartFault>);

impl StartInjection {
    /// Returns the reason and the message of a rejection.
    pub(crate) fn rejection(&self) -> Option<(String, String)> {
        match &self.0 {
            Some(StartFault::Rejected { reason, message }) => Some((reason.clone(), message.clone())),
            _ => None,
        }
    }

    /// Returns whether every image of the pod fails to pull.
    pub(crate) fn is_image_pull_failing(&self) -> bool {
        self.0 == Some(StartFault::ImagePull)
    }

    /// Returns whether the container never starts after the pull of its image.
    pub(crate) fn is_runtime_hanging(&self) -> bool {
        self.0 == Some(StartFault::HungRuntime)
    }

    /// Returns whether the pull of the image never ends.
    pub(crate) fn is_pull_hanging(&self) -> bool {
        self.0 == Some(StartFault::HungPull)
    }

    /// Returns the reason why no sandbox can be created.
    pub(crate) fn sandbox_error(&self) -> Option<&str> {
        match &self.0 {
            Some(StartFault::NoSandbox(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Returns the additional time that the containers take to start.
    pub(crate) fn delay(&self) -> Duration {
        match self.0 {
            Some(StartFault::Slow(delay)) => delay,
            _ => Duration::ZERO,
        }
    }
}
