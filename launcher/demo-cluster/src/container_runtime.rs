//! `Runtime`: the simulated container runtime of all nodes, with the state, log and files of each container.
//! The API shows changes in this state after a delay. `ExecTargetError`: why an exec cannot start.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::container_files::ContainerFiles;
use crate::pod_status;

/// Maximum size of the log of a container.
const MAX_LOG_BYTES: usize = 10 * 1024 * 1024;

/// The pods of the kubelets, by UID.
#[derive(Default)]
pub(crate) struct Runtime(Mutex<HashMap<String, PodRuntime>>);

#[derive(Default)]
struct PodRuntime {
    killed: CancellationToken,
    containers: BTreeMap<String, ContainerRuntime>,
}

struct ContainerRuntime {
    running: bool,
    /// This token is cancelled when the container exits, which kills every process in the container.
    ended: CancellationToken,
    log: Vec<u8>,
    files: ContainerFiles,
}

/// The reason why a process cannot be started in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecTargetError {
    /// The kubelet does not have the pod.
    PodUnknown,
    /// The container is not running yet, or has exited.
    ContainerNotFound,
}

impl Runtime {
    fn pods(&self) -> MutexGuard<'_, HashMap<String, PodRuntime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds these containers, which are not running yet. The returned token is cancelled when the pod is killed.
    pub(crate) fn add(&self, uid: &str, containers: impl IntoIterator<Item = String>) -> CancellationToken {
        let mut pods = self.pods();
        let pod = pods.entry(uid.to_owned()).or_default();
        for name in containers {
            let ended = pod.killed.child_token();
            pod.containers.entry(name).or_insert(ContainerRuntime {
                running: false,
                ended,
                log: Vec::new(),
                files: ContainerFiles::default(),
            });
        }
        pod.killed.clone()
    }

    /// Adds the running containers of a pod of the fixture, which no kubelet started.
    pub(crate) fn add_running(&self, uid: &str, running: Vec<String>) {
        if !self.pods().contains_key(uid) {
            self.add(uid, running.clone());
            running.iter().for_each(|name| self.set_running(uid, name));
        }
    }

    /// Marks a container as running.
    pub(crate) fn set_running(&self, uid: &str, container: &str) {
        self.with_container(uid, container, |container| container.running = true);
    }

    /// Marks a container as exited, and kills every process in the container.
    pub(crate) fn set_ended(&self, uid: &str, container: &str) {
        self.with_container(uid, container, |container| {
            container.running = false;
            container.ended.cancel();
        });
    }

    /// Appends to a container's log.
    pub(crate) fn write_log(&self, uid: &str, container: &str, output: &[u8]) {
        self.with_container(uid, container, |container| {
            let room = MAX_LOG_BYTES.saturating_sub(container.log.len());
            container.log.extend_from_slice(&output[..output.len().min(room)]);
        });
    }

    /// Returns the log of a container.
    pub(crate) fn log(&self, uid: &str, container: &str) -> Option<Vec<u8>> {
        let mut log = None;
        self.with_container(uid, container, |container| log = Some(container.log.clone()));
        log
    }

    /// Returns the files of a container.
    pub(crate) fn files(&self, pod: &Pod, container: &str) -> ContainerFiles {
        self.files_of(pod.metadata.uid.as_deref().unwrap_or_default(), container)
    }

    /// Returns the files of a container, by the UID of the pod.
    pub(crate) fn files_of(&self, uid: &str, container: &str) -> ContainerFiles {
        let mut files = ContainerFiles::default();
        self.with_container(uid, container, |container| files = container.files.clone());
        files
    }

    /// Kills the containers of a pod.
    pub(crate) fn kill(&self, uid: &str) {
        if let Some(pod) = self.pods().get_mut(uid) {
            pod.killed.cancel();
            pod.containers.values_mut().for_each(|container| container.running = false);
        }
    }

    /// Removes a pod that was killed.
    pub(crate) fn remove(&self, uid: &str) {
        self.pods().remove(uid);
    }

    /// Checks that a process can be started in a container. The returned token is cancelled when the container exits.
    pub(crate) fn running(&self, pod: &Pod, container: &str) -> Result<CancellationToken, ExecTargetError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let known = self.pods().contains_key(uid);
        if !known {
            let running = pod_status::running_containers(pod);
            if running.is_empty() && pod_status::is_pending(pod) {
                return Err(ExecTargetError::PodUnknown);
            }
            self.add_running(uid, running);
        }
        let pods = self.pods();
        let found = pods.get(uid).and_then(|pod| pod.containers.get(container)).filter(|container| container.running);
        found.map(|container| container.ended.clone()).ok_or(ExecTargetError::ContainerNotFound)
    }

    fn with_container(&self, uid: &str, container: &str, edit: impl FnOnce(&mut ContainerRuntime)) {
        if let Some(container) = self.pods().get_mut(uid).and_then(|pod| pod.containers.get_mut(container)) {
            edit(container);
        }
    }
}
