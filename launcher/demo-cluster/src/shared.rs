//! What the API server and the kubelets share: the store, the faults, the runtime, and how the cluster behaves.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node, NodeStatus, Pod};
use syringe_core::report::Report;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::faults::Faults;
use super::fixture::{Denial, ExecRefusals, Fixture, Timing};
use super::kinds::Kind;
use super::kubelet::Runtime;
use super::node::{NodeFixture, ready};
use super::programs::Programs;
use super::store::{Key, Store};

/// The state of the cluster.
pub(super) struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// Every request so far: `GET /api/v1/nodes`.
    pub(super) requests: Mutex<Vec<String>>,
    /// Pods created through the API so far.
    pub(super) pods_created: AtomicU64,
    /// The store's latest version: what watches wait on.
    pub(super) changed: watch::Sender<u64>,
    /// Ticks when the faults were edited: what a kubelet that is away waits on.
    pub(super) faults_changed: watch::Sender<()>,
    /// What really runs, as opposed to what the API says.
    pub(super) runtime: Runtime,
    /// Cancelled when the handle is dropped; ends every task.
    pub(super) stop: CancellationToken,
    pub(super) timing: Timing,
    pub(super) exec_refusals: ExecRefusals,
    pub(super) half_close: bool,
    pub(super) denied: Vec<Denial>,
    pub(super) programs: Arc<dyn Programs>,
    pub(super) user: String,
    pub(super) version: String,
    hosts: HashMap<String, Host>,
}

/// What the cluster knows of a node beside its API object.
pub(super) struct Host {
    pub(super) facts: Arc<Report>,
    pub(super) images: Vec<String>,
    pub(super) unpullable_images: Vec<String>,
    pub(super) log_files: BTreeMap<String, String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Builds the state that a fixture describes.
    pub(super) fn new(fixture: Fixture) -> Self {
        let Fixture {
            cluster_name: _,
            kubernetes_version,
            user,
            nodes,
            pods,
            events,
            namespaces,
            resource_claims,
            resource_slices,
            denied,
            timing,
            exec_refusals,
            half_close,
            faults,
            programs,
        } = fixture;
        let mut store = Store::default();
        (store.claims, store.slices) = (resource_claims, resource_slices);
        for (place, node) in nodes.iter().enumerate() {
            store.put(node.object(place, &kubernetes_version));
        }
        namespaces.into_iter().for_each(|namespace| drop(store.put(namespace)));
        ["default", "kube-system"].into_iter().for_each(|name| ensure_namespace(&mut store, name));
        pods.into_iter().for_each(|pod| put_existing(&mut store, pod));
        events.into_iter().for_each(|event| put_existing(&mut store, event));
        let host = |NodeFixture { name, facts, images, unpullable_images, log_files, .. }| {
            (name, Host { facts, images, unpullable_images, log_files })
        };
        let shared = Self {
            changed: watch::Sender::new(store.version()),
            store: Mutex::new(store),
            faults: Mutex::new(faults),
            requests: Mutex::default(),
            pods_created: AtomicU64::new(0),
            faults_changed: watch::Sender::new(()),
            runtime: Runtime::default(),
            stop: CancellationToken::new(),
            timing,
            exec_refusals,
            half_close,
            denied,
            programs,
            user,
            version: kubernetes_version,
            hosts: nodes.into_iter().map(host).collect(),
        };
        shared.report_readiness();
        shared
    }

    /// Works on the store, and wakes the watches if something changed.
    pub(super) fn store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = lock(&self.store);
        let before = store.version();
        let result = work(&mut store);
        let after = store.version();
        drop(store);
        if after != before {
            self.changed.send_replace(after);
        }
        result
    }

    /// The object under `key`.
    pub(super) fn get<K: Kind>(&self, key: &Key) -> Option<Arc<K>> {
        self.store(|store| K::collection(store).get(key).cloned())
    }

    /// Reads the faults, or uses one up.
    pub(super) fn faults<T>(&self, work: impl FnOnce(&mut Faults) -> T) -> T {
        work(&mut lock(&self.faults))
    }

    /// Lets a test edit the faults; whatever waits for a node wakes.
    pub(super) fn edit_faults(&self, edit: impl FnOnce(&mut Faults)) {
        self.faults(edit);
        self.report_readiness();
        self.faults_changed.send_replace(());
    }

    /// The host behind a node's name.
    pub(super) fn host(&self, node: &str) -> Option<&Host> {
        self.hosts.get(node)
    }

    /// Writes a line of the request log.
    pub(super) fn log(&self, line: String) {
        lock(&self.requests).push(line);
    }

    /// Runs a task that ends with the cluster.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Brings the `Ready` conditions in line with the faults.
    fn report_readiness(&self) {
        let away = self.faults(|faults| faults.clone());
        self.store(|store| {
            let stale: Vec<_> = store
                .nodes
                .all()
                .filter_map(|node| {
                    let name = node.metadata.name.as_deref()?;
                    let reports = !away.is_not_ready(name);
                    // Faults speak only of the difference that they make: a test may have edited the node itself.
                    let said = reason(node)? == "NodeStatusUnknown";
                    (said == reports).then(|| (name.to_owned(), reports))
                })
                .collect();
            for (name, reports) in stale {
                store.edit(&(String::new(), name), |node: &mut Node| set_ready(node, reports));
            }
        });
    }
}

/// The reason of a node's `Ready` condition.
fn reason(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")?.reason.as_deref()
}

fn set_ready(node: &mut Node, reports: bool) {
    let status = node.status.get_or_insert_with(NodeStatus::default);
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(ready(reports));
}

/// Whether a node's `Ready` condition is true.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// Puts an object of a fixture, with its namespace.
pub(super) fn put_existing<K: Kind>(store: &mut Store, mut object: K) {
    let namespace = object.metadata_mut().namespace.get_or_insert_with(|| "default".to_owned()).clone();
    ensure_namespace(store, &namespace);
    store.put(object);
}

fn ensure_namespace(store: &mut Store, name: &str) {
    if store.namespaces.get(&(String::new(), name.to_owned())).is_some() {
        return;
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace.metadata.labels = Some(BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]));
    namespace.status =
        Some(k8s_openapi::api::core::v1::NamespaceStatus { phase: Some("Active".to_owned()), ..Default::default() });
    store.put(namespace);
}

/// The key of a pod.
pub(super) fn pod_key(pod: &Pod) -> Key {
    let metadata = &pod.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
