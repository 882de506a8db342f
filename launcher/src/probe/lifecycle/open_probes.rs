//! `OpenProbes`: the probe pods and ephemeral containers (`OpenProbe`) that this process has, or may have, on clusters
//! now.
//!
//! An entry is added before the request that creates the object, and stays until the object is deleted or has exited. A
//! clean-up skips these pods. When the program exits, the remaining entries are reported.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// A probe pod, or an ephemeral container in a pod of another owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OpenProbe {
    /// Address of the API server.
    pub(crate) server: String,
    /// Kubeconfig context, for a command that the user can run.
    pub(crate) context: String,
    pub(crate) node: String,
    /// Name of the tool.
    pub(crate) tool: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// The ephemeral container; `None` for a probe pod.
    pub(crate) container: Option<String>,
    /// Maximum run time of the probe, in seconds.
    pub(crate) lifetime_seconds: u64,
    /// Whether the probe changes the node.
    pub(crate) is_action: bool,
}

impl OpenProbe {
    /// Returns the command that deletes the pod or stops the container.
    pub(crate) fn command(&self) -> String {
        let Self { context, namespace, pod, container, .. } = self;
        match container {
            None => format!("kubectl --context {context} -n {namespace} delete pod {pod} --ignore-not-found"),
            Some(container) => {
                format!("kubectl --context {context} -n {namespace} exec {pod} -c {container} -- node-probe release")
            }
        }
    }

    pub(crate) fn description(&self) -> String {
        let Self { namespace, pod, container, lifetime_seconds, is_action, node, .. } = self;
        let what = container.as_ref().map(|name| format!("ephemeral container {name} in ")).unwrap_or_default();
        let acts =
            if *is_action { format!(" (it changes node {node}: an action may be interrupted)") } else { String::new() };
        format!(
            "{what}pod {namespace}/{pod}{acts} exits on its own within {lifetime_seconds} s of its start. To stop it now, run: {}",
            self.command()
        )
    }
}

/// The open probes of this process.
#[derive(Debug, Default)]
pub(crate) struct OpenProbes(Mutex<BTreeSet<OpenProbe>>);

impl OpenProbes {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<OpenProbe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, probe: OpenProbe) {
        self.lock().insert(probe);
    }

    pub(crate) fn remove(&self, probe: &OpenProbe) {
        self.lock().remove(probe);
    }

    /// Returns whether this process may still be using the pod.
    pub(crate) fn has_pod(&self, server: &str, namespace: &str, pod: &str) -> bool {
        self.lock().iter().any(|open| {
            open.container.is_none() && open.pod == pod && open.namespace == namespace && open.server == server
        })
    }

    /// Returns a description of each open probe, with the command that deletes or stops it.
    pub(crate) fn descriptions(&self) -> Vec<String> {
        self.lock().iter().map(OpenProbe::description).collect()
    }

    pub(crate) fn all(&self) -> Vec<OpenProbe> {
        self.lock().iter().cloned().collect()
    }

    /// Returns the nodes that a running action changes.
    pub(crate) fn nodes_of_actions(&self) -> BTreeSet<String> {
        self.lock().iter().filter(|open| open.is_action).map(|open| open.node.clone()).collect()
    }
}
