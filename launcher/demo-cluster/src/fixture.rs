//! `Fixture`: the initial state of a cluster: nodes, existing objects, and denied requests (`Denial`).
//! `Timing`: the duration of each step of a pod. `ExecRefusals`: how an exec is rejected.

use std::sync::Arc;
use std::time::Duration;

use archive::ContainerLog;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use k8s_openapi::jiff::SignedDuration;
use serde_json::Value;

use crate::node_fixture::NodeFixture;
use crate::programs::{NodeProbe, Programs};

/// The initial state of a cluster.
#[derive(Clone)]
pub struct Fixture {
    /// The name of the cluster and of the only context of its kubeconfig.
    pub cluster_name: String,
    /// The version that `/version` returns, such as `v1.36.2`.
    pub kubernetes_version: String,
    /// The user of the kubeconfig.
    pub user: String,
    pub nodes: Vec<NodeFixture>,
    /// Existing pods. No kubelet starts their containers, but a kubelet starts ephemeral containers that are added
    /// later.
    pub pods: Vec<Pod>,
    pub events: Vec<Event>,
    /// Namespaces in addition to `default`, `kube-system`, and the namespaces of the pods and events.
    pub namespaces: Vec<Namespace>,
    /// `resource.k8s.io/v1` ResourceClaims.
    pub resource_claims: Vec<Value>,
    /// `resource.k8s.io/v1` ResourceSlices.
    pub resource_slices: Vec<Value>,
    /// Whether the API server has the group `resource.k8s.io`.
    pub serves_dra: bool,
    /// Objects of other kinds: DaemonSets, Leases, NodeClaims, Machines.
    pub objects: Vec<Value>,
    /// Logs of containers.
    pub logs: Vec<ContainerLog>,
    /// Whether the fixture is an archive: kubelets need not respond, and a container without a log in `logs` has a log that
    /// is not known.
    pub is_saved: bool,
    /// The time by which the clock of the cluster is behind the clock of this machine.
    pub clock_behind: SignedDuration,
    /// The requests that the user is not allowed to make.
    pub denied: Vec<Denial>,
    /// The duration of each step.
    pub timing: Timing,
    /// How an exec is rejected if the container is not running.
    pub exec_refusals: ExecRefusals,
    /// Whether exec supports `v5.channel.k8s.io`, with which a client can close standard input.
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
            serves_dra: true,
            objects: Vec::new(),
            logs: Vec::new(),
            is_saved: false,
            clock_behind: SignedDuration::ZERO,
            denied: Vec::new(),
            timing: Timing::default(),
            exec_refusals: ExecRefusals::default(),
            half_close: true,
            programs: Arc::new(NodeProbe),
        }
    }
}

/// Returns the namespace of `deploy/namespace.yaml`, which admits privileged pods.
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
    /// Returns a cluster with these nodes that starts pods within milliseconds.
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

/// The duration of each step.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time from the creation of a pod until its kubelet has the pod. Until then, an exec gets `pod does not exist`.
    pub kubelet_sees: Duration,
    /// Time from the creation of a pod until its container is running.
    pub container_start: Duration,
    /// Time from a change in the runtime until the API shows the change, because of the relist interval of the kubelet.
    pub status_lag: Duration,
    /// Time from a failed pull until `ImagePullBackOff`.
    pub pull_back_off: Duration,
    /// Time from a graceful deletion until the object is removed.
    pub termination: Duration,
}

impl Default for Timing {
    /// Returns the values measured with a Kubernetes 1.36 kubelet and containerd 2.1, for a pod without volumes on the
    /// host network.
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
    /// Waits for the duration of a step. A duration of zero returns at once, because a timer would take up to 2 ms.
    pub(crate) async fn pass(step: Duration) {
        if !step.is_zero() {
            tokio::time::sleep(step).await;
        }
    }

    /// Returns no time for any step.
    pub fn none() -> Self {
        let none = Duration::ZERO;
        Self { kubelet_sees: none, container_start: none, status_lag: none, pull_back_off: none, termination: none }
    }

    /// Returns a few milliseconds for each step, so that the steps happen in the same order.
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

/// How an exec is rejected if the container is not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecRefusals {
    /// An HTTP error before the upgrade, as in Kubernetes 1.36, where the kubelet gets the request itself.
    #[default]
    BeforeUpgrade,
    /// A failure on the status channel after the upgrade, as in Kubernetes up to 1.35, where the API server uses SPDY.
    OnStatusChannel,
}

/// A request that the user is not allowed to make. An empty string or `*` matches everything.
#[derive(Clone, Debug, Default)]
pub struct Denial {
    /// The verb, such as `create`.
    pub verb: String,
    /// The API group; `None` for any group.
    pub group: Option<String>,
    /// The resource with its subresource, such as `pods/exec`.
    pub resource: String,
    /// The namespace; `None` for any namespace.
    pub namespace: Option<String>,
    /// The reason, which is added to the message.
    pub why: Option<String>,
}

impl Denial {
    /// Returns a denial of `verb` on `resource` (such as `pods/exec`) in any namespace.
    pub fn of(verb: &str, resource: &str) -> Self {
        Self { verb: verb.to_owned(), resource: resource.to_owned(), ..Self::default() }
    }
}
