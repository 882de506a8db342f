//! A Kubernetes cluster inside this process, for `--demo` and the tests: an API server on loopback, and kubelets that run
//! the real `node-probe` against facts from a file.
//!
//! ```text
//!   kube client ──HTTP/1.1, websocket──▶ server ─┬─ read, watch ──▶ store ◀── kubelet (one task per pod)
//!                                                ├─ pods, ephemeral ─┘            │
//!                                                └─ exec ──▶ programs ──▶ node_probe::run(facts of the node)
//! ```
//!
//! It listens on 127.0.0.1, on a port that the system picks, without TLS and without authentication, and stops when its
//! handle is dropped. It imitates a Kubernetes 1.36 as far as a launcher can see: verbs, paging, watches, `Status`
//! errors, the order in which a pod comes to life. It is no general test double for Kubernetes.

mod admission;
mod answer;
mod demo;
mod discovery;
mod ephemeral;
mod exec;
mod faults;
mod files;
mod fixture;
mod identity;
mod kinds;
mod kubelet;
mod logs;
mod node;
mod node_logs;
mod operator;
mod pods;
mod programs;
mod query;
mod read;
mod reviews;
mod route;
mod selector;
mod server;
mod shared;
mod store;
mod userland;
mod watch;
mod workload;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::config::{
    AuthInfo, Cluster as NamedClusterInfo, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use tokio::net::TcpListener;

pub use self::demo::demo;
pub use self::faults::{AnswerFault, ApiFaults, Armed, ExecFault, Faults, NodeFaults, RequestFault, StartFault};
pub use self::files::{File, Files};
pub use self::fixture::{Denial, ExecRefusals, Fixture, Timing};
pub use self::node::NodeFixture;
pub use self::programs::{Invocation, NodeProbe, Process, Programs, Streams};
pub use self::userland::{Image, Tmp, Userland};
pub use self::workload::{workload_pod, workloads_of};

use self::shared::Shared;

/// A running cluster. It stops, with all of its connections and pods, when this is dropped.
pub struct Cluster {
    shared: Arc<Shared>,
    address: SocketAddr,
    name: String,
}

impl Cluster {
    /// Starts a cluster on a free port of the loopback interface. Needs a tokio runtime.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start(fixture: Fixture) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let name = fixture.cluster_name.clone();
        let shared = Arc::new(Shared::new(fixture));
        shared.spawn(server::accept(Arc::clone(&shared), listener));
        Ok(Self { shared, address, name })
    }

    /// Where the API server is: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig with one context, named as the fixture says.
    pub fn kubeconfig(&self) -> Kubeconfig {
        let name = self.name.clone();
        let user = self.shared.user.clone();
        let cluster = NamedClusterInfo { server: Some(self.url()), ..NamedClusterInfo::default() };
        let context = Context { cluster: name.clone(), user: Some(user.clone()), ..Context::default() };
        Kubeconfig {
            kind: Some("Config".to_owned()),
            api_version: Some("v1".to_owned()),
            clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo {
                name: user,
                auth_info: Some(AuthInfo::default()),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(name),
            ..Kubeconfig::default()
        }
    }

    /// The same kubeconfig as the text of a file. It is JSON, which is YAML, too.
    pub fn kubeconfig_yaml(&self) -> String {
        serde_json::to_string_pretty(&self.kubeconfig()).unwrap_or_default()
    }

    /// Changes what is wrong with the cluster, from now on.
    pub fn faults(&self, edit: impl FnOnce(&mut Faults)) {
        self.shared.edit_faults(edit);
    }

    /// The pods of a namespace that exist now.
    pub fn pods(&self, namespace: &str) -> Vec<Pod> {
        let inside = |pod: &&Arc<Pod>| pod.metadata.namespace.as_deref() == Some(namespace);
        self.shared.store(|store| store.pods.all().filter(inside).map(|pod| Pod::clone(pod)).collect())
    }

    /// How many pods were created through the API, dry runs not counted.
    pub fn pods_created(&self) -> u64 {
        self.shared.pods_created.load(Ordering::Relaxed)
    }

    /// Every request so far, in order: `GET /api/v1/nodes?limit=500`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes a node's object, as some controller would. Does nothing if there is no such node.
    pub fn edit_node(&self, name: &str, edit: impl FnOnce(&mut Node)) {
        self.shared.store(|store| drop(store.edit(&(String::new(), name.to_owned()), edit)));
    }

    /// Adds a pod (or replaces the one of the same name) as it is: no kubelet looks after it.
    pub fn add_pod(&self, pod: Pod) {
        self.shared.store(|store| shared::put_existing(store, pod));
    }

    /// Adds an event.
    pub fn add_event(&self, event: Event) {
        self.shared.store(|store| shared::put_existing(store, event));
    }

    /// Forgets the history of changes: watches from before are answered with 410, as after a compaction.
    pub fn compact(&self) {
        self.shared.store(|store| {
            let version = store.version();
            store.pods.compact(version);
            store.nodes.compact(version);
            store.events.compact(version);
            store.namespaces.compact(version);
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
