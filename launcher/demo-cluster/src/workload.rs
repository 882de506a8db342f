//! `workload_pod`: creates a running pod with a number of GPUs.
//! `workloads_of`, `pods_of_facts`: create the running GPU pods that the facts of a node describe.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus,
    ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use syringe_core::facts::kubelet::Allocation;
use syringe_core::report::Report;

use crate::generated_metadata;
use crate::node_fixture::NodeFixture;

/// The age of a pod without processes, relative to the time of the facts.
const AGE_WITHOUT_PROCESSES: SignedDuration = SignedDuration::from_hours(3);

/// The namespace of pods for which the facts have no namespace.
const NAMESPACE: &str = "workloads";

/// Returns a running pod on `node` that has `gpus` devices of `nvidia.com/gpu`.
pub fn workload_pod(namespace: &str, name: &str, node: &str, gpus: u64) -> Pod {
    let held = (gpus > 0).then(|| ("nvidia.com/gpu".to_owned(), gpus));
    pod(namespace, name, node, vec![container("main", held)], generated_metadata::now(), |_| None)
}

/// Returns the pods that have kubelet allocations in the facts of a node, with UIDs, containers and resources. A pod
/// whose name is not in the facts is named after its node, container and index.
pub fn workloads_of(node: &NodeFixture) -> Vec<Pod> {
    let facts: &Report = &node.facts.report();
    let allocations = facts.sections.kubelet.iter().filter_map(|section| section.data.as_ref());
    let mut pods: Vec<(&str, Vec<&Allocation>)> = Vec::new();
    let named =
        allocations.flat_map(|kubelet| &kubelet.allocations).filter(|allocation| !allocation.pod_uid.is_empty());
    for allocation in named {
        match pods.iter_mut().find(|(uid, _)| *uid == allocation.pod_uid) {
            Some((_, held)) => held.push(allocation),
            None => pods.push((&allocation.pod_uid, vec![allocation])),
        }
    }
    let one = |(index, (uid, held)): (usize, (&str, Vec<&Allocation>))| {
        let first = held[0];
        let namespace = first.namespace.as_deref().unwrap_or(NAMESPACE);
        let name = first.pod.clone().unwrap_or_else(|| format!("{}-{}-{index}", node.name, main_name(first)));
        let containers = held.iter().map(|held| container(main_name(held), amount(held))).collect();
        let since = started(facts, uid).unwrap_or_else(generated_metadata::now);
        let mut pod = pod(namespace, &name, &node.name, containers, since, |_| container_id(facts, uid));
        pod.metadata.uid = Some(uid.to_owned());
        pod
    };
    pods.into_iter().enumerate().map(one).collect()
}

/// Returns the pods of [`workloads_of`], and a pod for each other UID of a GPU process in the facts of a node.
#[cfg(feature = "test-support")]
pub fn pods_of_facts(node: &NodeFixture) -> Vec<Pod> {
    let mut pods = workloads_of(node);
    let facts = node.facts.report();
    let processes = facts.sections.processes.iter().filter_map(|section| section.data.as_ref());
    for uid in processes.flat_map(|all| &all.processes).filter_map(|process| process.pod_uid.as_ref()) {
        if pods.iter().all(|pod| pod.metadata.uid.as_ref() != Some(uid)) {
            let mut pod = workload_pod(NAMESPACE, &format!("pod-{}", &uid[..8]), &node.name, 0);
            pod.metadata.uid = Some(uid.clone());
            pods.push(pod);
        }
    }
    pods
}

/// Returns the start time of the first process of the pod in the facts. If the pod has no process there, returns an
/// assumed time.
fn started(facts: &Report, pod_uid: &str) -> Option<Timestamp> {
    let processes = facts.sections.processes.as_ref()?.data.as_ref()?;
    let own = processes.processes.iter().filter(|process| process.pod_uid.as_deref() == Some(pod_uid));
    let first = own.filter_map(|process| process.started_at).min();
    first.or_else(|| facts.taken_at?.checked_sub(AGE_WITHOUT_PROCESSES).ok())
}

/// Returns the container of an allocation. Claims of dynamic resource allocation have no container.
fn main_name(allocation: &Allocation) -> &str {
    if allocation.container.is_empty() { "main" } else { &allocation.container }
}

/// Returns the resource request of an allocation; `None` for a claim, which is not a resource of a container.
fn amount(allocation: &Allocation) -> Option<(String, u64)> {
    let count = allocation.replicas.map_or(allocation.devices.len() as u64, u64::from);
    allocation.claim.is_none().then(|| (allocation.resource.clone(), count))
}

fn container_id(facts: &Report, pod_uid: &str) -> Option<String> {
    let processes = facts.sections.processes.as_ref()?.data.as_ref()?;
    let of_pod = processes.processes.iter().find(|process| process.pod_uid.as_deref() == Some(pod_uid))?;
    of_pod.container_id.as_ref().map(|id| format!("containerd://{id}"))
}

fn container(name: &str, held: Option<(String, u64)>) -> Container {
    let amounts = held.map(|(resource, count)| BTreeMap::from([(resource, Quantity(count.to_string()))]));
    let resources = amounts.map(|amounts| ResourceRequirements {
        limits: Some(amounts.clone()),
        requests: Some(amounts),
        ..ResourceRequirements::default()
    });
    let image = Some("registry.example/workload:3".to_owned());
    Container { name: name.to_owned(), image, resources, ..Container::default() }
}

fn pod(
    namespace: &str,
    name: &str,
    node: &str,
    containers: Vec<Container>,
    since: Timestamp,
    id: impl Fn(&Container) -> Option<String>,
) -> Pod {
    let since = Time(since);
    let running = |container: &Container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        container_id: id(container),
        ready: true,
        started: Some(true),
        state: Some(ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(since.clone()) }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    };
    let condition =
        |kind: &str| PodCondition { type_: kind.to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    let status = PodStatus {
        phase: Some("Running".to_owned()),
        start_time: Some(since.clone()),
        conditions: Some(["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition).to_vec()),
        container_statuses: Some(containers.iter().map(running).collect()),
        ..PodStatus::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            creation_timestamp: Some(since),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node.to_owned()),
            restart_policy: Some("Always".to_owned()),
            containers,
            ..PodSpec::default()
        }),
        status: Some(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_the_uid_and_the_gpus_of_the_facts() {
        let facts = serde_json::from_value(serde_json::json!({"sections": {
            "kubelet": {"status": "ok", "data": {"allocations": [
                {"pod_uid": "u1", "container": "trainer", "resource": "nvidia.com/gpu", "devices": ["a", "b"]},
                {"pod_uid": "u1", "container": "side", "resource": "nvidia.com/mig-1g.10gb", "devices": ["c"]},
                {"pod_uid": "u2", "namespace": "n", "pod": "p", "resource": "gpu.nvidia.com", "claim": "x"},
            ]}},
            "processes": {"status": "ok", "data": {"processes": [{"pid": 1, "pod_uid": "u1", "container_id": "abc"}]}},
        }}));
        let pods = workloads_of(&NodeFixture::from_facts("gpu-1", facts.expect("facts")));
        assert_eq!(pods.len(), 2);
        assert_eq!(pods[0].metadata.uid.as_deref(), Some("u1"));
        assert_eq!(pods[0].metadata.name.as_deref(), Some("gpu-1-trainer-0"));
        let spec = pods[0].spec.as_ref().expect("a spec");
        let limits = |at: usize| spec.containers[at].resources.as_ref().and_then(|all| all.limits.clone());
        assert_eq!(limits(0).expect("limits")["nvidia.com/gpu"].0, "2");
        assert_eq!(limits(1).expect("limits")["nvidia.com/mig-1g.10gb"].0, "1");
        let second = pods[1].metadata.clone();
        assert_eq!((second.namespace.as_deref(), second.name.as_deref()), (Some("n"), Some("p")));
    }
}
