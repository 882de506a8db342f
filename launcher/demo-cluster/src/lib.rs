//! `Cluster`: a Kubernetes cluster inside one process, for the demo and the tests of gpu-syringe.
//! It has an API server on loopback, and kubelets that run the real `node-probe` on facts from a file.
//!
//! For gpu-syringe, the cluster behaves like Kubernetes 1.36: verbs, paging, watches, `Status` errors, the phases of a
//! pod. It is not a general test double for Kubernetes. The cluster stops when the [`Cluster`] is dropped.
//!
//! ```text
//!   kube client ──HTTP/1.1, websocket──▶ http_server ─┬─ get_and_list, watch ──▶ store ◀── kubelet (one task per pod)
//!                                                     ├─ pods, ephemeral_containers ──▶│
//!                                                     └─ exec ──▶ programs ──▶ node_probe::run(facts of the node)
//! ```
//!
//! The API server listens on a free port of 127.0.0.1, without TLS. Each cluster has a random bearer token, which is in
//! its kubeconfig. Requests without the token get 401. Requests from web pages are rejected.
//!
//! # Modules
//!
//! Each line imports only from the lines above.
//!
//! ```text
//!   generated_metadata, query, selector, response       names, UIDs, time; parameters; selectors; HTTP responses
//!   container_files, api_error, request_info            files of a container; Status errors; verb and resource
//!   node_object, kinds, pod_status, advertised_gpus     conditions; stored kinds; status of a pod; labels and resources
//!   protobuf, negotiation                               objects in protobuf; the format that a client accepts
//!   authentication, request_body, collection            token and Host; bodies; objects of one kind
//!   stored_document                                     the output of node-probe from a stored document
//!   json_store, store, node_fixture                     all objects; nodes of a fixture
//!   programs, shell_images                              programs of images; images with a shell (tests)
//!   workload, fixture, container_runtime, faults        pods of a fixture; fixture; running containers; faults (tests)
//!   cluster_state, from_archive, to_archive, demo       the state of server and kubelets; archives and fixtures
//!   kubelet, kubelet_connection                         pods on nodes; the node and container of an exec or log
//!   admission, probe_policy, authorization              checks of a request
//!   get_and_list, json_objects                          get and list; objects that are stored as JSON
//!   watch, pods, ephemeral_containers, exec             one part of the API each
//!   pod_logs, node_logs, discovery                      one part of the API each
//!   http_server                                         connections and routing
//! ```
//!
//! # Features
//!
//! `test-support`: faults that a test injects, container images with a shell, and the log of requests. The demo is
//! built without this feature.

mod admission;
mod advertised_gpus;
mod api_error;
mod authentication;
mod authorization;
mod cluster_state;
mod collection;
mod container_files;
mod container_runtime;
mod demo;
mod discovery;
mod ephemeral_containers;
mod exec;
#[cfg(feature = "test-support")]
mod faults;
#[cfg(not(feature = "test-support"))]
#[path = "faults_disabled.rs"]
mod faults;
mod fixture;
mod from_archive;
#[cfg(any(test, fuzzing))]
#[path = "../../../fuzz/checks/saved_cluster.rs"]
pub mod fuzzing;
mod generated_metadata;
mod get_and_list;
mod http_server;
mod json_objects;
mod json_store;
mod kinds;
mod kubelet;
mod kubelet_connection;
mod negotiation;
mod node_fixture;
mod node_logs;
mod node_object;
mod pod_logs;
mod pod_status;
mod pods;
mod probe_policy;
mod programs;
mod protobuf;
mod query;
mod request_body;
mod request_info;
mod response;
mod selector;
#[cfg(feature = "test-support")]
mod shell_images;
mod store;
mod stored_document;
#[cfg(any(test, feature = "test-support"))]
mod to_archive;
mod watch;
mod workload;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::config::{
    AuthInfo, Cluster as NamedClusterInfo, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use secrecy::SecretString;
use tokio::net::TcpListener;

pub use self::container_files::{ContainerFile, ContainerFiles};
pub use self::demo::{DEMO, demo};
#[cfg(feature = "test-support")]
pub use self::faults::{
    AnswerFault, ApiFaults, CountedFault, ExecFault, Faults, NodeFaults, ProtobufRefusal, RequestFault, StartFault,
};
pub use self::fixture::{Denial, ExecRefusals, Fixture, Timing};
pub use self::node_fixture::{NodeFacts, NodeFixture, PROBE_IMAGE, PROBE_IMAGE_PINNED, probe_image_digest};
pub use self::programs::{Invocation, NodeProbe, Process, Programs, Streams};
#[cfg(feature = "test-support")]
pub use self::shell_images::{Image, ShellImages, Tmp};
#[cfg(feature = "test-support")]
pub use self::workload::pods_of_facts;
pub use self::workload::{workload_pod, workloads_of};

use self::authentication::Authenticator;
use self::cluster_state::ClusterState;

/// A running cluster. When this value is dropped, the cluster stops with all connections and pods.
pub struct Cluster {
    state: Arc<ClusterState>,
    address: SocketAddr,
    name: String,
}

impl Cluster {
    /// Starts a cluster on a free port of the loopback interface. Needs a tokio runtime.
    ///
    /// # Errors
    /// Fails if no port can be opened, or if the system has no random numbers.
    pub async fn start(fixture: Fixture) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let name = fixture.cluster_name.clone();
        let state = Arc::new(ClusterState::new(fixture, Authenticator::new(address)?));
        state.spawn(http_server::accept(Arc::clone(&state), listener));
        Ok(Self { state, address, name })
    }

    /// Returns the URL of the API server: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a kubeconfig with one context and the token of this cluster.
    pub fn kubeconfig(&self) -> Kubeconfig {
        let name = self.name.clone();
        let user = self.state.user.clone();
        let token = SecretString::from(self.state.authenticator.token());
        let cluster = NamedClusterInfo { server: Some(self.url()), ..NamedClusterInfo::default() };
        let context = Context { cluster: name.clone(), user: Some(user.clone()), ..Context::default() };
        Kubeconfig {
            kind: Some("Config".to_owned()),
            api_version: Some("v1".to_owned()),
            clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo {
                name: user,
                auth_info: Some(AuthInfo { token: Some(token), ..AuthInfo::default() }),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(name),
            ..Kubeconfig::default()
        }
    }

    /// Returns the kubeconfig as the text of a file. The text is JSON, and therefore also YAML.
    pub fn kubeconfig_yaml(&self) -> String {
        serde_json::to_string_pretty(&self.kubeconfig()).unwrap_or_default()
    }

    /// Changes the faults of the cluster.
    #[cfg(feature = "test-support")]
    pub fn faults(&self, edit: impl FnOnce(&mut Faults)) {
        self.state.store(|store| self.state.injector.edit(store, edit));
    }

    /// Returns the pods of a namespace.
    pub fn pods(&self, namespace: &str) -> Vec<Pod> {
        let is_in_namespace = |pod: &&Arc<Pod>| pod.metadata.namespace.as_deref() == Some(namespace);
        self.state.store(|store| store.pods.all().filter(is_in_namespace).map(|pod| Pod::clone(pod)).collect())
    }

    /// Returns the names of the nodes.
    #[cfg(feature = "test-support")]
    pub fn node_names(&self) -> Vec<String> {
        self.state.store(|store| store.nodes.all().filter_map(|node| node.metadata.name.clone()).collect())
    }

    /// Returns the number of pods that were created through the API, without dry runs.
    pub fn pods_created(&self) -> u64 {
        self.state.pods_created.load(Ordering::Relaxed)
    }

    /// Returns all requests with a valid token that were received until now, in order, such as `GET
    /// /api/v1/nodes?limit=500`.
    #[cfg(feature = "test-support")]
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Returns the number of requests that are being served: their clients are waiting for a response.
    #[cfg(feature = "test-support")]
    pub fn requests_in_service(&self) -> usize {
        self.state.in_service.number()
    }

    /// Changes a `Node` object, if it exists.
    pub fn edit_node(&self, name: &str, edit: impl FnOnce(&mut Node)) {
        self.state.store(|store| drop(store.edit(&(String::new(), name.to_owned()), edit)));
    }

    /// Adds a pod, or replaces the pod with the same name. No kubelet runs this pod.
    pub fn add_pod(&self, pod: Pod) {
        self.state.store(|store| store.put_existing(pod));
    }

    /// Adds an object that is stored as JSON (Role, ConfigMap, ResourceQuota, …), or replaces the object with the same
    /// name. The fields of the object belong to a field manager other than gpu-syringe.
    pub fn add_object(&self, object: serde_json::Value) {
        self.state.store(|store| json_objects::put_existing(store, object));
    }

    /// Removes an object that is stored as JSON (Role, ConfigMap, ResourceQuota, …).
    #[cfg(feature = "test-support")]
    pub fn remove_object(&self, kind: &str, name: &str) {
        self.state.store(|store| store.json.retain(|key, object| object.value["kind"] != kind || key.2 != name));
    }

    /// Adds a namespace, or replaces the namespace with the same name.
    #[cfg(feature = "test-support")]
    pub fn add_namespace(&self, mut namespace: k8s_openapi::api::core::v1::Namespace) {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let labels = namespace.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        self.state.store(|store| drop(store.put(namespace)));
    }

    /// Changes a `Namespace` object, if it exists.
    #[cfg(feature = "test-support")]
    pub fn edit_namespace(&self, name: &str, edit: impl FnOnce(&mut k8s_openapi::api::core::v1::Namespace)) {
        self.state.store(|store| drop(store.edit(&(String::new(), name.to_owned()), edit)));
    }

    /// Returns the kind and the name of each object that is stored as JSON (Role, ConfigMap, ResourceQuota, …).
    #[cfg(feature = "test-support")]
    pub fn objects(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let name =
            |object: &json_store::JsonObject| (text(&object.value["kind"]), text(&object.value["metadata"]["name"]));
        self.state.store(|store| store.json.values().map(name).collect())
    }

    pub fn add_event(&self, event: Event) {
        self.state.store(|store| store.put_existing(event));
    }

    /// Removes the history of changes: a watch from an older version gets 410.
    #[cfg(feature = "test-support")]
    pub fn compact(&self) {
        self.state.store(store::Store::compact);
    }
}

/// Returns the object in the protobuf format of Kubernetes; `None` for a kind that the cluster serves only in JSON.
#[cfg(feature = "test-support")]
pub fn in_protobuf(object: &serde_json::Value) -> Option<Vec<u8>> {
    protobuf::encode(object)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}
