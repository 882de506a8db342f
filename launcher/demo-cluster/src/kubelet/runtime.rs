//! What really runs on the nodes, as a container runtime would list it. The API learns of it later.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::status;
use crate::files::Files;

/// Longest log that is kept for a container.
const MAX_LOG_BYTES: usize = 10 * 1024 * 1024;

/// The pods that kubelets have seen, by UID.
#[derive(Default)]
pub(in super::super) struct Runtime(Mutex<HashMap<String, PodRuntime>>);

#[derive(Default)]
struct PodRuntime {
    killed: CancellationToken,
    containers: BTreeMap<String, ContainerRuntime>,
}

struct ContainerRuntime {
    running: bool,
    /// Cancelled when the container's processes die, whoever started them.
    ended: CancellationToken,
    log: Vec<u8>,
    files: Files,
}

/// Why a process cannot be started in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NotRunning {
    /// The kubelet has not seen the pod.
    PodUnknown,
    /// The container is not there, not yet or no longer.
    ContainerNotFound,
}

impl Runtime {
    fn pods(&self) -> MutexGuard<'_, HashMap<String, PodRuntime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kubelet takes on these containers; none of them runs yet. The token is cancelled when the pod is killed.
    pub(super) fn admit(&self, uid: &str, containers: impl IntoIterator<Item = String>) -> CancellationToken {
        let mut pods = self.pods();
        let pod = pods.entry(uid.to_owned()).or_default();
        for name in containers {
            let ended = pod.killed.child_token();
            pod.containers.entry(name).or_insert(ContainerRuntime {
                running: false,
                ended,
                log: Vec::new(),
                files: Files::default(),
            });
        }
        pod.killed.clone()
    }

    /// Takes over the running containers of a pod that the fixture brought along.
    pub(super) fn adopt(&self, uid: &str, running: Vec<String>) {
        if !self.pods().contains_key(uid) {
            self.admit(uid, running.clone());
            running.iter().for_each(|name| self.started(uid, name));
        }
    }

    /// A container runs.
    pub(super) fn started(&self, uid: &str, container: &str) {
        self.with(uid, container, |container| container.running = true);
    }

    /// A container's main process ended, and with it everything else in the container.
    pub(super) fn exited(&self, uid: &str, container: &str) {
        self.with(uid, container, |container| {
            container.running = false;
            container.ended.cancel();
        });
    }

    /// Appends to a container's log.
    pub(super) fn write_log(&self, uid: &str, container: &str, output: &[u8]) {
        self.with(uid, container, |container| {
            let room = MAX_LOG_BYTES.saturating_sub(container.log.len());
            container.log.extend_from_slice(&output[..output.len().min(room)]);
        });
    }

    /// A container's log so far.
    pub(in super::super) fn log(&self, uid: &str, container: &str) -> Option<Vec<u8>> {
        let mut log = None;
        self.with(uid, container, |container| log = Some(container.log.clone()));
        log
    }

    /// A container's files.
    pub(in super::super) fn files(&self, pod: &Pod, container: &str) -> Files {
        self.files_of(pod.metadata.uid.as_deref().unwrap_or_default(), container)
    }

    /// A container's files, by the pod's UID.
    pub(super) fn files_of(&self, uid: &str, container: &str) -> Files {
        let mut files = Files::default();
        self.with(uid, container, |container| files = container.files.clone());
        files
    }

    /// Kills all that runs of a pod.
    pub(super) fn kill(&self, uid: &str) {
        if let Some(pod) = self.pods().get_mut(uid) {
            pod.killed.cancel();
            pod.containers.values_mut().for_each(|container| container.running = false);
        }
    }

    /// Forgets a pod that was killed.
    pub(super) fn forget(&self, uid: &str) {
        self.pods().remove(uid);
    }

    /// Where a process can be started: the token is cancelled when the container ends.
    pub(in super::super) fn find(&self, pod: &Pod, container: &str) -> Result<CancellationToken, NotRunning> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let known = self.pods().contains_key(uid);
        if !known {
            let brought_along = status::running_containers(pod);
            if brought_along.is_empty() && status::is_pending(pod) {
                return Err(NotRunning::PodUnknown);
            }
            self.adopt(uid, brought_along);
        }
        let pods = self.pods();
        let found = pods.get(uid).and_then(|pod| pod.containers.get(container)).filter(|container| container.running);
        found.map(|container| container.ended.clone()).ok_or(NotRunning::ContainerNotFound)
    }

    fn with(&self, uid: &str, container: &str, work: impl FnOnce(&mut ContainerRuntime)) {
        if let Some(container) = self.pods().get_mut(uid).and_then(|pod| pod.containers.get_mut(container)) {
            work(container);
        }
    }
}
