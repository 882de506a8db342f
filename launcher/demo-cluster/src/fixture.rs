//! What an embedded cluster starts with: its nodes, the objects that exist, what is forbidden, and how fast it is.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use serde_json::Value;

use super::faults::Faults;
use super::node::NodeFixture;
use super::programs::Programs;
use super::userland::Userland;

/// Everything that an embedded cluster starts with.
#[derive(Clone)]
pub struct Fixture {
    /// Name of the cluster and of the kubeconfig's one context.
    pub cluster_name: String,
    /// What `/version` says, such as `v1.36.2`.
    pub kubernetes_version: String,
    /// The user that the kubeconfig stands for.
    pub user: String,
    /// The nodes.
    pub nodes: Vec<NodeFixture>,
    /// Pods that exist already. They are kept as they are: no kubelet changes their status.
    pub pods: Vec<Pod>,
    /// Events that exist already.
    pub events: Vec<Event>,
    /// Namespaces beside `default`, `kube-system` and those that pods and events name.
    pub namespaces: Vec<Namespace>,
    /// `resource.k8s.io/v1` ResourceClaims.
    pub resource_claims: Vec<Value>,
    /// `resource.k8s.io/v1` ResourceSlices.
    pub resource_slices: Vec<Value>,
    /// What the user may not do.
    pub denied: Vec<Denial>,
    /// How fast things happen.
    pub timing: Timing,
    /// How exec refuses a container that does not run.
    pub exec_refusals: ExecRefusals,
    /// Whether exec speaks a protocol (v5) in which the end of standard input can be told.
    pub half_close: bool,
    /// What is wrong from the start.
    pub faults: Faults,
    /// What containers can run.
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
            faults: Faults::default(),
            programs: Arc::new(Userland::default()),
        }
    }
}

/// The namespace of `deploy/namespace.yaml`: privileged pods are admitted there.
fn probe_namespace() -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("gpu-syringe".to_owned());
    let label = ("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
    namespace.metadata.labels = Some([label].into());
    namespace
}

impl Fixture {
    /// A cluster of these nodes that starts pods at once: what most tests want.
    pub fn of(nodes: impl IntoIterator<Item = NodeFixture>) -> Self {
        Self { nodes: nodes.into_iter().collect(), timing: Timing::fast(), ..Self::default() }
    }

    /// With one more pod.
    #[must_use]
    pub fn with_pod(mut self, pod: Pod) -> Self {
        self.pods.push(pod);
        self
    }

    /// With one more thing that the user may not do.
    #[must_use]
    pub fn denying(mut self, denial: Denial) -> Self {
        self.denied.push(denial);
        self
    }
}

/// How fast the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From a pod's creation to the kubelet having seen it; until then an exec is told that it does not exist.
    pub kubelet_sees: Duration,
    /// From a pod's creation to its container running.
    pub container_start: Duration,
    /// From something happening in the runtime to its showing in the API: the kubelet's relist.
    pub status_lag: Duration,
    /// From a failed pull to `ImagePullBackOff`.
    pub pull_back_off: Duration,
    /// From a graceful deletion to the object being gone.
    pub termination: Duration,
}

impl Default for Timing {
    /// As measured on a Kubernetes 1.36 kubelet with containerd 2.1, for a pod without volumes on the host's network.
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
    /// A few milliseconds each, in the same order.
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

/// How an exec into a container that does not run is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecRefusals {
    /// With an HTTP error before the upgrade: 1.36, where the request goes through to the kubelet.
    #[default]
    BeforeUpgrade,
    /// With a failure on the status channel after the upgrade: up to 1.35, where the API server translates to SPDY.
    OnStatusChannel,
}

/// Something that the user may not do. An empty string or `*` stands for anything.
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
