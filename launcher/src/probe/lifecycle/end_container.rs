//! `AddedContainer`: stops an ephemeral container with `node-probe release`, which makes the main process exit.
//! `FinalState`: the state of the container after the probe.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::probe::exec::container_state;
use crate::probe::exec::failure::Refusal;
use crate::probe::exec::websocket as exec_websocket;
use crate::probe::exec::websocket::{Command, ExecEnd, ExecError};
use crate::probe::result::ProbeContainer;
use crate::settings::Settings;
use kube_read::client::api_status::is_not_found;
use syringe_core::probe_command::ProbeCommand;

/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Time limit for the container to exit.
const END_TIME: Duration = Duration::from_secs(5);
/// Pause between two checks whether the container has exited.
const PAUSE: Duration = Duration::from_millis(60);
/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;

/// State of the ephemeral container after the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinalState {
    /// The pod was deleted.
    Gone,
    /// The pod does not have the container.
    NotAdded,
    Ended,
    Stuck,
    /// The container has not started, and may start at any time.
    Waits,
    /// The container is running, or its state could not be read.
    Unknown,
}

/// An ephemeral container of a probe.
#[derive(Clone)]
pub(crate) struct AddedContainer {
    pub(crate) client: Client,
    pub(crate) settings: Arc<Settings>,
    pub(crate) probe_container: ProbeContainer,
    /// UID of the pod; `None` until the container is added.
    pub(crate) uid: Option<String>,
}

impl AddedContainer {
    /// Reads the state of the container. `accepted`: the container has accepted an exec.
    pub(crate) async fn final_state(&self, accepted: bool) -> FinalState {
        let ProbeContainer { namespace, pod, container, .. } = &self.probe_container;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = match timeout(REQUEST_TIME, pods.get_opt(pod)).await {
            Ok(Ok(Some(pod))) => pod,
            Ok(Ok(None)) => return FinalState::Gone,
            Ok(Err(_)) | Err(_) => return FinalState::Unknown,
        };
        if self.uid.is_some() && pod.metadata.uid != self.uid {
            return FinalState::Gone;
        }
        let mut added = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        if !added.any(|one| one.name == *container) {
            return FinalState::NotAdded;
        }
        let state = container_state::state_of(&pod, container);
        // The status is updated late, so it proves nothing after an exec was accepted.
        if accepted || state.is_some_and(|state| state.running.is_some()) {
            return FinalState::Unknown;
        }
        match state.is_some_and(|state| state.terminated.is_some()) {
            true => FinalState::Ended,
            false if container_state::fatal_state(&pod, &self.probe_container, &self.settings).is_some() => {
                FinalState::Stuck
            }
            false => FinalState::Waits,
        }
    }

    /// Stops the container and returns its state.
    pub(crate) async fn end(&self, accepted: bool) -> FinalState {
        // If an exec was accepted, the container has started.
        if !accepted {
            let state = self.final_state(false).await;
            if !matches!(state, FinalState::Unknown | FinalState::Waits) {
                return state;
            }
        }
        if self.release().await { FinalState::Ended } else { self.final_state(accepted).await }
    }

    /// Makes the container exit. Returns whether it has certainly exited.
    async fn release(&self) -> bool {
        let ProbeContainer { namespace, pod, container, .. } = &self.probe_container;
        let argv = ProbeCommand::Release.argv();
        let sent = AtomicUsize::new(0);
        let command = Command { namespace, pod, container, argv: &argv, input: &[], sent: &sent };
        let end = Instant::now() + END_TIME;
        let mut released = false;
        while Instant::now() < end {
            let run = exec_websocket::run(&self.client, &command, REQUEST_TIME, || ());
            let gone = match timeout(END_TIME, run).await {
                Ok(Ok(output)) => match output.ended {
                    // The command may be killed together with the container.
                    ExecEnd::Exit(0 | KILLED) | ExecEnd::Disconnected => {
                        released = true;
                        false
                    }
                    ExecEnd::Exit(_) | ExecEnd::DocumentOnly => false,
                },
                // The whole pod is gone.
                Ok(Err(ExecError::Kube(kube::Error::Api(status)))) if is_not_found(&status) => return false,
                Ok(Err(error)) => Refusal::of(&error.to_string()) == Refusal::NotYet,
                Err(_) => false,
            };
            // A missing container has exited only if the release command was sent. Otherwise, it may not have started
            // yet.
            if gone && released {
                return true;
            }
            sleep(PAUSE).await;
        }
        false
    }
}
