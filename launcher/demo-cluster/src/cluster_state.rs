//! `ClusterState`: the state of the cluster, which the API server and the kubelets share: store, nodes, clock, request
//! log. `Host`: the facts and settings of a node. `InService`: counts the requests that are being served.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archive::ContainerLog;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authentication::Authenticator;
use crate::collection::Key;
use crate::container_runtime::Runtime;
use crate::faults::Injector;
use crate::fixture::{Denial, ExecRefusals, Fixture, Timing};
use crate::json_objects;
use crate::node_fixture::{NodeFacts, NodeFixture};
use crate::programs::Programs;
use crate::store::{Store, Stored};

/// The store, the nodes, the clock and the request log of the cluster.
pub(crate) struct ClusterState {
    store: Mutex<Store>,
    pub(crate) authenticator: Authenticator,
    pub(crate) injector: Injector,
    /// All requests that were received until now, such as `GET /api/v1/nodes`.
    #[cfg(feature = "test-support")]
    pub(crate) requests: Mutex<Vec<String>>,
    /// Requests whose client is waiting for the response.
    #[cfg(feature = "test-support")]
    pub(crate) in_service: InService,
    /// Number of pods that were created through the API until now.
    pub(crate) pods_created: AtomicU64,
    /// Sender of the latest version of the store. Watches wait for a change of this value.
    pub(crate) changed: watch::Sender<u64>,
    /// The running containers. The API shows changes of their state after a delay.
    pub(crate) runtime: Runtime,
    /// This token is cancelled when the `Cluster` is dropped, which stops every task.
    pub(crate) stop: CancellationToken,
    pub(crate) timing: Timing,
    pub(crate) exec_refusals: ExecRefusals,
    pub(crate) half_close: bool,
    pub(crate) denied: Vec<Denial>,
    /// Whether the cluster was created from an archive.
    pub(crate) is_saved: bool,
    pub(crate) serves_dra: bool,
    /// The time by which the clock of the cluster is behind the clock of this machine.
    clock_behind: SignedDuration,
    pub(crate) programs: Arc<dyn Programs>,
    pub(crate) user: String,
    pub(crate) version: String,
    hosts: HashMap<String, Host>,
}

/// The facts and settings of a node that are not in its `Node` object.
pub(crate) struct Host {
    pub(crate) facts: NodeFacts,
    pub(crate) images: Vec<String>,
    pub(crate) unpullable_images: Vec<String>,
    pub(crate) log_files: BTreeMap<String, String>,
}

/// Counts the requests that are being served.
#[cfg(feature = "test-support")]
#[derive(Default)]
pub(crate) struct InService(Arc<()>);

#[cfg(feature = "test-support")]
impl InService {
    /// Counts a request until the value is dropped.
    pub(crate) fn count(&self) -> Arc<()> {
        Arc::clone(&self.0)
    }

    pub(crate) fn number(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the time before the current time by this duration, or the end of the range of times.
fn before_now(duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MAX } else { Timestamp::MIN };
    Timestamp::now().checked_sub(duration).unwrap_or(end)
}

impl ClusterState {
    /// Returns the initial state that a fixture describes.
    pub(crate) fn new(fixture: Fixture, authenticator: Authenticator) -> Self {
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
            serves_dra,
            objects,
            logs,
            is_saved,
            clock_behind,
            denied,
            timing,
            exec_refusals,
            half_close,
            programs,
        } = fixture;
        let mut store = Store::default();
        (store.claims, store.slices) = (resource_claims, resource_slices);
        for (index, node) in nodes.iter().enumerate() {
            store.put(node.object(index, &kubernetes_version, before_now(clock_behind)));
        }
        namespaces.into_iter().for_each(|namespace| drop(store.put(namespace)));
        ["default", "kube-system"].into_iter().for_each(|name| store.ensure_namespace(name));
        pods.into_iter().for_each(|pod| store.put_existing(pod));
        events.into_iter().for_each(|event| store.put_existing(event));
        objects.into_iter().for_each(|object| json_objects::put_existing(&mut store, object));
        let runtime = Runtime::default();
        for ContainerLog { namespace, pod, container, text } in logs {
            let uid = store.pods.get(&(namespace, pod)).and_then(|pod| pod.metadata.uid.clone());
            if let Some(uid) = uid {
                runtime.add(&uid, [container.clone()]);
                runtime.write_log(&uid, &container, text.as_bytes());
            }
        }
        let host = |NodeFixture { name, facts, images, unpullable_images, log_files, .. }| {
            (name, Host { facts, images, unpullable_images, log_files })
        };
        Self {
            changed: watch::Sender::new(store.version()),
            store: Mutex::new(store),
            authenticator,
            injector: Injector::default(),
            #[cfg(feature = "test-support")]
            requests: Mutex::default(),
            #[cfg(feature = "test-support")]
            in_service: InService::default(),
            pods_created: AtomicU64::new(0),
            runtime,
            stop: CancellationToken::new(),
            timing,
            exec_refusals,
            half_close,
            denied,
            is_saved,
            serves_dra,
            clock_behind,
            programs,
            user,
            version: kubernetes_version,
            hosts: nodes.into_iter().map(host).collect(),
        }
    }

    /// Reads or changes the store, and wakes the watches after a change.
    pub(crate) fn store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
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

    /// Returns the object with this key.
    pub(crate) fn get<K: Stored>(&self, key: &Key) -> Option<Arc<K>> {
        self.store(|store| K::collection(store).get(key).cloned())
    }

    /// Returns the time of the cluster.
    pub(crate) fn now(&self) -> Timestamp {
        before_now(self.clock_behind())
    }

    /// Returns the time by which the clock of the cluster is behind the clock of this machine.
    pub(crate) fn clock_behind(&self) -> SignedDuration {
        self.clock_behind.saturating_add(SignedDuration::try_from(self.injector.clock_behind()).unwrap_or_default())
    }

    /// Returns the host of a node.
    pub(crate) fn host(&self, node: &str) -> Option<&Host> {
        self.hosts.get(node)
    }

    /// Adds a line to the request log.
    #[cfg(feature = "test-support")]
    pub(crate) fn log(&self, line: String) {
        lock(&self.requests).push(line);
    }

    /// Starts a task that is stopped together with the cluster.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}
