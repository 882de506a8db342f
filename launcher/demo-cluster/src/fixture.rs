//! The start of a cluster: its nodes, the existing objects, the denied requests, and its timing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use serde_json::Value;

use crate::node_fixture::NodeFixture;
use crate::programs::{NodeProbe, Programs};

/// The start of a cluster.
#[derive(Clone)]
pub struct Fixture {
    /// The name of the cluster and of the only context of its kubeconfig.
    pub cluster_name: String,
    /// The version of `/version`, such as `v1.36.2`.
    pub kubernetes_version: String,
    /// The user of the kubeconfig.
    pub user: String,
    pub nodes: Vec<NodeFixture>,
    /// Existing pods. No kubelet starts their containers; one reports only ephemeral containers that are added later.
    pub pods: Vec<Pod>,
    pub events: Vec<Event>,
    /// Namespaces in addition to `default`, `kube-system`, and those of the pods and events.
    pub namespaces: Vec<Namespace>,
    /// `resource.k8s.io/v1` ResourceClaims.
    pub resource_claims: Vec<Value>,
    /// `resource.k8s.io/v1` ResourceSlices.
    pub resource_slices: Vec<Value>,
    /// The requests that the user is not allowed to make.
    pub denied: Vec<Denial>,
    /// The time of each step.
    pub timing: Timing,
    /// The refusal of an exec into a container that does not run.
    pub exec_refusals: ExecRefusals,
    /// Exec supports `v5.channel.k8s.io`, in which a client can close standard input.
    pub half_close: bool,
    /// The programs of the container images.
    pub programs: Arc<dyn Programs>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            cluster_name: "embedded".to_owned(),
            kubernetes_version: "v1.36.2".to_owned(),
            user: "gpu-syringe".to_owned(),
            nodes: Vec::new(),
            pods: Vec::new(),
            events: Vec::new(),
            namespaces: vec![probe_namespace()],
            resource_claims: Vec::new(),
            resource_slices: Vec::new(),
            denied: Vec::new(),
            timing: Timing::default(),
            exec_refusals: ExecRefusals::default(),
            half_close: true,
            programs: Arc::new(NodeProbe),
        }
    }
}

/// The namespace of `deploy/namespace.yaml`, which admits privileged pods.
fn probe_namespace() -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("gpu-syringe".to_owned());
    let label = ("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
    let ours = ("app.kubernetes.io/managed-by".to_owned(), "gpu-syringe".to_owned());
    let name = ("kubernetes.io/metadata.name".to_owned(), "gpu-syringe".to_owned());
    namespace.metadata.labels = Some([label, ours, name].into());
    namespace
}

impl Fixture {
    /// A cluster of these nodes that starts pods within milliseconds.
    pub fn of(nodes: impl IntoIterator<Item = NodeFixture>) -> Self {
        Self { nodes: nodes.into_iter().collect(), timing: Timing::fast(), ..Self::default() }
    }

    /// Adds a pod.
    #[must_use]
    pub fn with_pod(mut self, pod: Pod) -> Self {
        self.pods.push(pod);
        self
    }

    /// Adds a denial.
    #[must_use]
    pub fn denying(mut self, denial: Denial) -> Self {
        self.denied.push(denial);
        self
    }
}

/// The time of each step.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the creation of a pod until its kubelet has it. Before, an exec gets `pod does not exist`.
    pub kubelet_sees: Duration,
    /// From the creation of a pod until its container runs.
    pub container_start: Duration,
    /// From a change in the runtime until the API shows it: the kubelet's relist.
    pub status_lag: Duration,
    /// From a failed pull until `ImagePullBackOff`.
    pub pull_back_off: Duration,
    /// From a graceful deletion until the object is removed.
    pub termination: Duration,
}

impl Default for Timing {
    /// As measured with a Kubernetes 1.36 kubelet and containerd 2.1, for a pod without volumes on the host network.
    fn default() -> Self {
        Self {
            kubelet_sees: Duration::from_millis(15),
            container_start: Duration::from_millis(180),
            status_lag: Duration::from_secs(1),
            pull_back_off: Duration::from_secs(2),
            termination: Duration::from_secs(1),
        }
    }
}

impl Timing {
    /// A few milliseconds per step, in the same order.
    pub fn fast() -> Self {
        Self {
            kubelet_sees: Duration::from_millis(2),
            container_start: Duration::from_millis(10),
            status_lag: Duration::from_millis(30),
            pull_back_off: Duration::from_millis(20),
            termination: Duration::from_millis(20),
        }
    }
}

/// The refusal of an exec into a container that does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecRefusals {
    /// With an HTTP error before the upgrade: Kubernetes 1.36, where the kubelet gets the request itself.
    #[default]
    BeforeUpgrade,
    /// With a failure on the status channel after the upgrade: up to 1.35, where the API server translates to SPDY.
    OnStatusChannel,
}

/// Something that the user is not allowed to do. An empty string or `*` matches everything.
#[derive(Clone, Debug, Default)]
pub struct Denial {
    /// The verb, such as `create`.
    pub verb: String,
    /// The API group; `None` is any.
    pub group: Option<String>,
    /// The resource with its subresource, such as `pods/exec`.
    pub resource: String,
    /// The namespace; `None` is any.
    pub namespace: Option<String>,
}

impl Denial {
    /// A denial of `verb` on `resource` (`pods/exec`) in any namespace.
    pub fn of(verb: &str, resource: &str) -> Self {
        Self { verb: verb.to_owned(), resource: resource.to_owned(), ..Self::default() }
    }
}
