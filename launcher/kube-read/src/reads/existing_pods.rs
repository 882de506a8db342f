//! `ExistingPods`: the pods that exist on a node while it is probed. They give allocations their names and show which
//! pods are deleted.
//!
//! Allocations and processes of other pods are leftovers. A pod may be created or deleted while the probe is running.
//! So the pods are listed before the probe, and again afterwards if the report contains a pod that is not in the first
//! list. A pod in either list does not count as deleted. If a list could not be read, no pod is reported as deleted.
//! The first list comes from the cache of the API server; the second list is exact.

use std::collections::HashMap;
use std::time::Duration;

use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::kubernetes::node::{FailedPod, NvidiaPod, RuntimeClassUse, StartingPod};
use syringe_core::report::{Section, Sections};
use tokio::time::timeout;

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::lists::Freshness;
use crate::objects::gpu_pod::{Pod, PodMetadata};
use crate::objects::{failed_pods, gpu_pod_facts, gpu_requests, nvidia_pod_facts, starting_pods};
use crate::reads::pods;

/// Time limit for one list.
const LIST_TIME: Duration = Duration::from_secs(5);

/// `namespace/name` of each pod with allocated resources, by UID. A static pod is listed under both of its UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingPods {
    names: HashMap<String, String>,
    /// UID of each static pod in the API, by its UID in the kubelet.
    mirrors: HashMap<String, String>,
    /// Pods of NVIDIA's stack, including failed ones, from the first list.
    nvidia_pods: Vec<NvidiaPod>,
    /// Pods of DaemonSets, from the first list.
    daemon_pods: Vec<NvidiaPod>,
    /// RuntimeClasses of the pods.
    runtime_classes: Vec<RuntimeClassUse>,
    /// Pods in which no container has started yet, from the first list.
    starting_pods: Vec<StartingPod>,
    /// Pods that request GPUs and failed, from the first list.
    failed_pods: Vec<FailedPod>,
    /// Pods with allocated resources and pods that the kubelet rejected, with their requests, from the newest list.
    gpu_pods: Vec<GpuPod>,
}

impl ExistingPods {
    /// Returns the existing pods among `pods`.
    pub fn from_pods(pods: &[Pod]) -> Self {
        let nvidia_pods = pods.iter().filter_map(|pod| pod.nvidia.as_deref().cloned()).collect();
        let daemon_pods = pods.iter().filter_map(|pod| pod.daemon.as_deref().cloned()).collect();
        let runtime_classes = nvidia_pod_facts::runtime_classes(pods);
        let (gpu_pods, starting_pods) = (gpu_pod_facts::from_pods(pods), starting_pods::from_pods(pods));
        let failed_pods = failed_pods::from_pods(pods);
        let mut existing_pods =
            Self { gpu_pods, starting_pods, failed_pods, nvidia_pods, daemon_pods, runtime_classes, ..Self::default() };
        let mut static_pods: HashMap<String, (String, String)> = HashMap::new();
        for pod in pods.iter().filter(|pod| gpu_requests::holds_resources(&pod.status.phase)) {
            let PodMetadata { namespace, name, uid, annotations, .. } = &pod.metadata;
            let name = format!("{namespace}/{name}");
            existing_pods.names.insert(uid.clone(), name.clone());
            if let Some(static_uid) = &annotations.static_uid {
                static_pods.entry(static_uid.clone()).or_insert((uid.clone(), name));
            }
        }
        // The UIDs of the API have priority.
        static_pods.retain(|static_uid, _| !existing_pods.names.contains_key(static_uid));
        for (static_uid, (uid, name)) in static_pods {
            existing_pods.names.insert(static_uid.clone(), name);
            existing_pods.mirrors.insert(static_uid, uid);
        }
        existing_pods
    }

    /// Lists the pods of a node. Waits for at most `time`, and never for more than a few seconds.
    pub async fn on_node(connection: &Connection, node: &str, time: Duration) -> Result<Self, Failure> {
        Self::list(connection, node, Freshness::Cached, time).await
    }

    async fn list(connection: &Connection, node: &str, freshness: Freshness, time: Duration) -> Result<Self, Failure> {
        let what = format!("Listing the pods on node {node}");
        match timeout(time.min(LIST_TIME), pods::on_node(connection, node, freshness)).await {
            Ok(pods) => Ok(Self::from_pods(&pods?)),
            Err(_) => Err(Failure::new(what, "the API server did not answer in time", "Try again.")),
        }
    }

    /// Adds a second list if the report contains a pod that is not in this list. Fails if the second list could not be
    /// read. In this case, no pod is reported as deleted.
    pub async fn with_second_list(
        mut self,
        connection: &Connection,
        node: &str,
        sections: &Sections,
        time: Duration,
    ) -> Result<Self, Failure> {
        if self.contain_all_pods_of(sections) {
            return Ok(self);
        }
        let Self { names, mirrors, gpu_pods, .. } = Self::list(connection, node, Freshness::Exact, time).await?;
        self.gpu_pods = gpu_pods;
        self.names.extend(names);
        self.mirrors.extend(mirrors);
        Ok(self)
    }

    fn contain_all_pods_of(&self, sections: &Sections) -> bool {
        let booked = Section::data_of(&sections.kubelet).into_iter().flat_map(|kubelet| &kubelet.allocations);
        let booked = booked.map(|allocation| allocation.pod_uid.as_str()).filter(|uid| !uid.is_empty());
        let running = Section::data_of(&sections.processes).into_iter().flat_map(|all| &all.processes);
        booked.chain(running.filter_map(|process| process.pod_uid.as_deref())).all(|uid| self.names.contains_key(uid))
    }

    pub fn uids(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Returns the pods of NVIDIA's stack.
    pub fn nvidia_pods(&self) -> &[NvidiaPod] {
        &self.nvidia_pods
    }

    /// Returns the pods of DaemonSets.
    pub fn daemon_pods(&self) -> &[NvidiaPod] {
        &self.daemon_pods
    }

    /// Returns the RuntimeClasses of the pods.
    pub fn runtime_classes(&self) -> &[RuntimeClassUse] {
        &self.runtime_classes
    }

    /// Returns the pods in which no container has started yet.
    pub fn starting_pods(&self) -> &[StartingPod] {
        &self.starting_pods
    }

    /// Returns the pods that request GPUs and failed.
    pub fn failed_pods(&self) -> &[FailedPod] {
        &self.failed_pods
    }

    /// Returns the pods with their requests.
    pub fn gpu_pods(&self) -> &[GpuPod] {
        &self.gpu_pods
    }

    /// Returns the `namespace/name` of each pod by its UID.
    pub fn names(&self) -> &HashMap<String, String> {
        &self.names
    }

    /// Adds the pod's name to each allocation that has only a UID.
    pub fn add_pod_names(&self, sections: &mut Sections) {
        let kubelet = sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
        for booking in kubelet.into_iter().flat_map(|kubelet| &mut kubelet.allocations) {
            let known = self.names.get(&booking.pod_uid).and_then(|name| name.split_once('/'));
            if let Some((namespace, name)) = known {
                booking.namespace.get_or_insert_with(|| namespace.to_owned());
                booking.pod.get_or_insert_with(|| name.to_owned());
            }
        }
    }

    /// Replaces the UIDs of static pods from the kubelet and from cgroups with the UIDs from the API.
    pub fn replace_static_pod_uids(&self, sections: &mut Sections) {
        let kubelet = sections.kubelet.as_mut().and_then(|section| section.data.as_mut());
        let processes = sections.processes.as_mut().and_then(|section| section.data.as_mut());
        let booked = kubelet.into_iter().flat_map(|kubelet| &mut kubelet.allocations).map(|one| &mut one.pod_uid);
        let running =
            processes.into_iter().flat_map(|all| &mut all.processes).filter_map(|process| process.pod_uid.as_mut());
        for known in booked.chain(running) {
            if let Some(uid) = self.mirrors.get(known) {
                known.clone_from(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use syringe_core::report::Report;

    use super::*;

    /// The UID of a static pod.
    const HASH: &str = "5d1f5d1f5d1f5d1f5d1f5d1f5d1f5d1f";

    fn report(uid: &str) -> Report {
        serde_json::from_value(json!({"sections": {
            "kubelet": {"status": "ok", "data": {"allocations": [{"pod_uid": uid, "container": "main"}]}},
            "processes": {"status": "ok", "data": {"processes": [{"pid": 7, "pod_uid": uid}]}},
        }}))
        .expect("a report")
    }

    fn pod(uid: &str, phase: &str, static_uid: Option<&str>) -> Pod {
        let both = |uid| json!({"kubernetes.io/config.hash": uid, "kubernetes.io/config.mirror": uid});
        let annotations = static_uid.map_or_else(|| json!({}), both);
        serde_json::from_value(json!({
            "metadata": {"name": "train-0", "namespace": "ml", "uid": uid, "annotations": annotations},
            "status": {"phase": phase},
        }))
        .expect("a pod")
    }

    #[test]
    fn who_ended_holds_nothing_and_a_static_pod_has_two_uids() {
        let existing_pods = ExistingPods::from_pods(&[
            pod("a", "Running", None),
            pod("b", "Failed", None),
            pod("c", "Running", Some(HASH)),
        ]);
        let mut uids = existing_pods.uids();
        uids.sort();
        assert_eq!(uids, [HASH, "a", "c"]);
        assert!(
            existing_pods.contain_all_pods_of(&report(HASH).sections)
                && !existing_pods.contain_all_pods_of(&report("b").sections)
        );
    }

    /// The annotation of one tenant's pod contains the UID of another tenant's pod.
    #[test]
    fn no_annotation_takes_over_the_uid_of_another_pod() {
        let theirs = "a51fd701-db52-4ca5-a016-9ae03bf0f44d";
        let of = |uid: &str, name: &str, claims: Option<&str>| {
            let mut pod = pod(uid, "Running", claims);
            pod.metadata.name = name.to_owned();
            pod
        };
        for claimed in [theirs, HASH] {
            let victim = of(if claimed == HASH { HASH } else { theirs }, "victim", None);
            for pods in
                [[victim.clone(), of("x", "evil", Some(claimed))], [of("x", "evil", Some(claimed)), victim.clone()]]
            {
                let existing = ExistingPods::from_pods(&pods);
                assert_eq!(existing.names()[&victim.metadata.uid], "ml/victim");
                assert!(existing.mirrors.is_empty(), "{existing:?}");
            }
        }
    }

    async fn cluster(fixture: demo_cluster::Fixture) -> (demo_cluster::Cluster, Connection) {
        let cluster = demo_cluster::Cluster::start(fixture).await.expect("a free port");
        let contexts = crate::Contexts::in_memory(cluster.kubeconfig(), None);
        let connection = contexts.connect(None).await.expect("a connection");
        (cluster, connection)
    }

    #[tokio::test]
    async fn a_pod_that_was_created_after_the_first_list_is_not_gone() {
        use demo_cluster::{Denial, Fixture, NodeFixture, workload_pod};
        let node = NodeFixture::new("gpu-1", Report::default());
        let mut young = workload_pod("ml", "train-0", "gpu-1", 1);
        young.metadata.uid = Some("young".to_owned());
        let fixture = Fixture::of([node]).with_pod(young);
        let time = Duration::from_secs(5);
        // The pod was created after the first list.
        let before = ExistingPods::default();
        let (_cluster, connection) = cluster(fixture.clone()).await;
        let existing_pods =
            before.clone().with_second_list(&connection, "gpu-1", &report("young").sections, time).await;
        assert!(existing_pods.expect("a second list").names().contains_key("young"));
        let existing_pods = before.clone().with_second_list(&connection, "gpu-1", &report("gone").sections, time).await;
        assert!(!existing_pods.expect("a second list").names().contains_key("gone"));
        let (_cluster, forbidden) = cluster(fixture.denying(Denial::of("list", "pods"))).await;
        let existing_pods = before.with_second_list(&forbidden, "gpu-1", &report("young").sections, time).await;
        assert!(existing_pods.is_err(), "no pod counts as deleted");
    }

    #[test]
    fn bookings_get_the_names_of_their_pods() {
        let existing_pods = ExistingPods::from_pods(&[pod("a", "Running", None)]);
        let mut report = report("a");
        existing_pods.add_pod_names(&mut report.sections);
        assert_eq!(Section::data_of(&report.sections.kubelet).expect("bookings").allocations[0].holder(), "ml/train-0");
        let mut other = self::report("x");
        existing_pods.add_pod_names(&mut other.sections);
        assert_eq!(Section::data_of(&other.sections.kubelet).expect("bookings").allocations[0].holder(), "x");
    }
}
