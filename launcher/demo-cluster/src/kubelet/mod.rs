//! The kubelets: what happens to a pod once it is on a node.
//!
//! Each pod that is created on a known node has one task, which lives as long as the pod's containers do. A pod that the
//! fixture brought along has none. Not simulated: init containers, restarts (`restartPolicy` is taken as `Never`),
//! probes, volumes, scheduling.

mod container;
mod images;
mod runtime;
pub(super) mod status;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use self::container::Launch;
pub(super) use self::runtime::{NotRunning, Runtime};
use super::faults::StartFault;
use super::fixture::Timing;
use super::identity;
use super::shared::{Shared, is_ready, pod_key};
use super::store::Key;

/// One pod on one node, as its kubelet knows it.
#[derive(Clone)]
struct Placed {
    key: Key,
    uid: String,
    node: String,
}

impl Placed {
    /// `None` for a pod that is on no node, or on one that does not exist: no kubelet looks at it.
    fn of(shared: &Shared, pod: &Pod) -> Option<Self> {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        shared.host(&node)?;
        Some(Self { key: pod_key(pod), uid: pod.metadata.uid.clone()?, node })
    }

    /// The pod, unless it has gone or been replaced by one of the same name.
    fn pod(&self, shared: &Shared) -> Option<Arc<Pod>> {
        shared.get::<Pod>(&self.key).filter(|pod| pod.metadata.uid.as_ref() == Some(&self.uid))
    }

    /// Writes the pod's status, if the pod is still there.
    fn publish(&self, shared: &Shared, edit: impl FnOnce(&mut Pod)) {
        shared.store(|store| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_ref() == Some(&self.uid);
            if store.pods.get(&self.key).filter(same).is_some() {
                store.edit(&self.key, edit);
            }
        });
    }

    /// Records an event about the pod.
    fn event(&self, shared: &Shared, kind: &str, reason: &str, message: String) {
        let now = Time(identity::now());
        let text = |text: &str| Some(text.to_owned());
        shared.store(|store| {
            let name = format!("{}.{}", self.key.1, identity::suffix(store.next_identity()));
            store.put(Event {
                metadata: ObjectMeta { name: Some(name), namespace: Some(self.key.0.clone()), ..ObjectMeta::default() },
                involved_object: ObjectReference {
                    kind: text("Pod"),
                    api_version: text("v1"),
                    namespace: Some(self.key.0.clone()),
                    name: Some(self.key.1.clone()),
                    uid: Some(self.uid.clone()),
                    ..ObjectReference::default()
                },
                type_: text(kind),
                reason: text(reason),
                message: Some(message),
                count: Some(1),
                first_timestamp: Some(now.clone()),
                last_timestamp: Some(now.clone()),
                source: Some(EventSource { component: text("kubelet"), host: Some(self.node.clone()) }),
                reporting_component: text("kubelet"),
                reporting_instance: Some(self.node.clone()),
                ..Event::default()
            });
        });
    }

    /// Resolves when the node's kubelet reports.
    async fn kubelet(&self, shared: &Shared) {
        let mut changed = shared.faults_changed.subscribe();
        let mut stored = shared.changed.subscribe();
        loop {
            stored.mark_unchanged();
            let away = shared.faults(|faults| faults.is_not_ready(&self.node));
            let node = shared.get::<Node>(&(String::new(), self.node.clone()));
            if !away && node.is_some_and(|node| is_ready(&node)) {
                return;
            }
            // A node may be made ready through the faults or by an edit of its object.
            let closed = tokio::select! {
                changed = changed.changed() => changed.is_err(),
                changed = stored.changed() => changed.is_err(),
            };
            if closed {
                return;
            }
        }
    }
}

/// Whether an exec or a log can reach the kubelet of a node.
pub(super) fn reachable(shared: &Shared, node: &str) -> bool {
    let away = shared.faults(|faults| faults.is_not_ready(node));
    !away && shared.get::<Node>(&(String::new(), node.to_owned())).is_some_and(|node| is_ready(&node))
}

/// A pod was created.
pub(super) fn created(shared: &Arc<Shared>, pod: &Pod) {
    if let Some(placed) = Placed::of(shared, pod) {
        let task = Arc::clone(shared);
        shared.spawn(async move { run(&task, placed).await });
    }
}

/// A pod's object is gone: what still runs of it is killed.
pub(super) fn vanished(shared: &Shared, pod: &Pod) {
    if let Some(uid) = &pod.metadata.uid {
        shared.runtime.kill(uid);
        shared.runtime.forget(uid);
    }
}

/// A pod is to end: its object stays until its containers have stopped. On a node that is away it stays for ever.
pub(super) fn terminate(shared: &Arc<Shared>, pod: &Pod) {
    let Some(placed) = Placed::of(shared, pod) else { return };
    let task = Arc::clone(shared);
    shared.spawn(async move {
        placed.kubelet(&task).await;
        task.runtime.kill(&placed.uid);
        tokio::time::sleep(task.timing.termination).await;
        let removed = task.store(|store| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_ref() == Some(&placed.uid);
            store.pods.get(&placed.key).filter(same)?;
            store.remove::<Pod>(&placed.key)
        });
        if let Some(pod) = removed {
            vanished(&task, &pod);
        }
    });
}

/// Ephemeral containers were added to a pod.
pub(super) fn extended(shared: &Arc<Shared>, pod: &Pod, added: Vec<String>) {
    let Some(placed) = Placed::of(shared, pod) else { return };
    shared.runtime.adopt(&placed.uid, status::running_containers(pod));
    for name in added {
        let Some(launch) = pod.spec.as_ref().and_then(|spec| Launch::ephemeral(spec, &name)) else { continue };
        let (task, placed) = (Arc::clone(shared), placed.clone());
        shared.spawn(async move {
            placed.kubelet(&task).await;
            let killed = task.runtime.admit(&placed.uid, [launch.name.clone()]);
            let life = async {
                let missing = images::missing(&task, &placed, std::slice::from_ref(&launch));
                if !missing.is_empty() {
                    images::back_off(&task, &placed, missing).await;
                }
                tokio::time::sleep(task.timing.container_start).await;
                container::run(&task, &placed, &launch).await;
            };
            tokio::select! {
                () = killed.cancelled() => {}
                () = life => {}
            }
        });
    }
}

/// The life of a pod on its node.
async fn run(shared: &Shared, placed: Placed) {
    placed.kubelet(shared).await;
    tokio::time::sleep(shared.timing.kubelet_sees).await;
    let Some(pod) = placed.pod(shared) else { return };
    let Some(spec) = pod.spec.as_ref() else { return };
    let fault = shared.faults(|faults| faults.take_start(&placed.node));
    let killed = shared.runtime.admit(&placed.uid, spec.containers.iter().map(|container| container.name.clone()));
    // The pod may have been deleted between the look and the admission; then nothing else would ever kill it.
    if placed.pod(shared).is_none() {
        shared.runtime.forget(&placed.uid);
        return;
    }
    if let Some((reason, message)) = rejection(shared, &placed, spec, fault.as_ref()) {
        placed.event(shared, "Warning", &reason, message.clone());
        placed.publish(shared, |pod| status::rejected(pod, &reason, &message));
        return;
    }
    let host_ip = host_ip(shared, &placed.node);
    placed.publish(shared, |pod| status::creating(pod, &host_ip));
    let launches: Vec<_> = spec.containers.iter().map(Launch::of).collect();
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = deadline(spec.active_deadline_seconds) => {
            shared.runtime.kill(&placed.uid);
            tokio::time::sleep(shared.timing.status_lag).await;
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            placed.event(shared, "Normal", "DeadlineExceeded", message);
            placed.publish(shared, status::deadline_exceeded);
        }
        () = live(shared, &placed, &launches, fault) => {}
    }
}

/// Starts the containers and waits for their end. Does not come back while an image cannot be pulled.
async fn live(shared: &Shared, placed: &Placed, launches: &[Launch], fault: Option<StartFault>) {
    if fault == Some(StartFault::ImagePull) {
        images::back_off(shared, placed, launches.iter().collect()).await;
    }
    if let Some(StartFault::NoSandbox(why)) = fault {
        let message = format!("Failed to create pod sandbox: rpc error: code = Unknown desc = {why}");
        placed.event(shared, "Warning", "FailedCreatePodSandBox", message);
        return std::future::pending().await;
    }
    let missing = images::missing(shared, placed, launches);
    if !missing.is_empty() {
        images::back_off(shared, placed, missing).await;
    }
    let Timing { container_start, kubelet_sees, .. } = shared.timing;
    let slow = if let Some(StartFault::Slow(delay)) = fault { delay } else { Duration::ZERO };
    tokio::time::sleep(container_start.saturating_sub(kubelet_sees) + slow).await;
    join_all(launches.iter().map(|launch| container::run(shared, placed, launch))).await;
}

async fn deadline(seconds: Option<i64>) {
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Why the kubelet would not have the pod: reason and message.
fn rejection(shared: &Shared, placed: &Placed, spec: &PodSpec, fault: Option<&StartFault>) -> Option<(String, String)> {
    if let Some(StartFault::Rejected { reason, message }) = fault {
        return Some((reason.clone(), message.clone()));
    }
    let node = shared.get::<Node>(&(String::new(), placed.node.clone()))?;
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerated = |key: &str| {
        spec.tolerations.iter().flatten().any(|toleration| {
            toleration.key.as_deref().is_none_or(|own| own.is_empty() || own == key)
                && toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoExecute")
        })
    };
    if taints.iter().any(|taint| taint.effect == "NoExecute" && !tolerated(&taint.key)) {
        return Some(("TaintToleration".to_owned(), "Predicate TaintToleration failed".to_owned()));
    }
    let allocatable = node.status.as_ref()?.allocatable.as_ref()?.get("pods")?.0.parse::<usize>().ok()?;
    let used = shared.store(|store| store.pods.count_indexed(&placed.node)).saturating_sub(1);
    let message =
        format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {allocatable}");
    (used >= allocatable).then(|| ("OutOfpods".to_owned(), message))
}

/// The node's internal address.
pub(super) fn host_ip(shared: &Shared, node: &str) -> String {
    let node = shared.get::<Node>(&(String::new(), node.to_owned()));
    let addresses = node.as_ref().and_then(|node| node.status.as_ref()?.addresses.as_ref());
    let internal = addresses.and_then(|all| all.iter().find(|address| address.type_ == "InternalIP"));
    internal.map(|address| address.address.clone()).unwrap_or_default()
}
