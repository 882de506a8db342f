//! What this process has, or may have, on clusters now: probe pods and ephemeral containers.
//!
//! An entry is added before the request that creates the object, and stays until the object is deleted or has ended. A sweep
//! spares these pods; the end of the program names what is left.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// A probe pod, or an ephemeral container in a pod of another owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct OpenProbe {
    /// Address of the API server.
    pub(super) server: String,
    /// Kubeconfig context, for a command that the user runs.
    pub(super) context: String,
    pub(super) node: String,
    /// Tool of the call.
    pub(super) tool: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The ephemeral container; `None` for a probe pod.
    pub(super) container: Option<String>,
    /// How long it runs if nobody ends it.
    pub(super) lifetime_seconds: u64,
    /// Whether it changes its node.
    pub(super) is_action: bool,
}

impl OpenProbe {
    /// The command that deletes or ends it.
    pub(super) fn command(&self) -> String {
        let Self { context, namespace, pod, container, .. } = self;
        match container {
            None => format!("kubectl --context {context} -n {namespace} delete pod {pod} --ignore-not-found"),
            Some(container) => {
                format!("kubectl --context {context} -n {namespace} exec {pod} -c {container} -- node-probe release")
            }
        }
    }

    pub(super) fn description(&self) -> String {
        let Self { namespace, pod, container, lifetime_seconds, is_action, node, .. } = self;
        let what = container.as_ref().map(|name| format!("ephemeral container {name} in ")).unwrap_or_default();
        let acts =
            if *is_action { format!(" (it changes node {node}: an action may be interrupted)") } else { String::new() };
        format!(
            "{what}pod {namespace}/{pod}{acts} exits on its own within {lifetime_seconds} s of its start. To end it now: {}",
            self.command()
        )
    }
}

/// The open probes of this process.
#[derive(Debug, Default)]
pub(super) struct OpenProbes(Mutex<BTreeSet<OpenProbe>>);

impl OpenProbes {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<OpenProbe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, probe: OpenProbe) {
        self.lock().insert(probe);
    }

    pub(super) fn remove(&self, probe: &OpenProbe) {
        self.lock().remove(probe);
    }

    /// Whether this process may still use the pod.
    pub(super) fn has_pod(&self, server: &str, namespace: &str, pod: &str) -> bool {
        self.lock().iter().any(|open| {
            open.container.is_none() && open.pod == pod && open.namespace == namespace && open.server == server
        })
    }

    /// A description of each, with the command that ends it.
    pub(super) fn descriptions(&self) -> Vec<String> {
        self.lock().iter().map(OpenProbe::description).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<OpenProbe> {
        self.lock().iter().cloned().collect()
    }

    /// Nodes that a running action changes.
    pub(super) fn nodes_of_actions(&self) -> BTreeSet<String> {
        self.lock().iter().filter(|open| open.is_action).map(|open| open.node.clone()).collect()
    }
}
