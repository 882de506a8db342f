//! `of`: returns the role and index (`JobRank`) of each pod of a job, from labels, annotations and variables of common
//! controllers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use syringe_core::text::clean;

/// Labels and annotations with the index of a pod.
const INDEX: [&str; 6] = [
    "batch.kubernetes.io/job-completion-index",
    "training.kubeflow.org/replica-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "ray.io/replica-host-index",
    "volcano.sh/task-index",
    "apps.kubernetes.io/pod-index",
];

/// Labels and annotations with the index of the group of a pod.
const GROUP: [&str; 4] = [
    "jobset.sigs.k8s.io/job-global-index",
    "jobset.sigs.k8s.io/job-index",
    "leaderworkerset.sigs.k8s.io/group-index",
    "ray.io/worker-group-replica-index",
];

/// Labels and annotations with the role of a pod.
const ROLE: [&str; 6] = [
    "training.kubeflow.org/replica-type",
    "training.kubeflow.org/job-role",
    "jobset.sigs.k8s.io/replicatedjob-name",
    "volcano.sh/task-spec",
    "ray.io/group",
    "ray.io/node-type",
];

/// Variables with the index of a pod. They are used if no label has the index.
const VARIABLES: [&str; 4] = ["NODE_RANK", "PET_NODE_RANK", "GROUP_RANK", "RANK"];

/// Kinds of owners whose pod names end with the index.
const ORDINALS: [&str; 3] = ["StatefulSet", "MPIJob", "RayCluster"];

/// The role, group and index of a pod in its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRank {
    /// `17`; `worker 17` if the job has several roles; `1/3` for pod 3 of group 1. `None` if the pod has no index.
    pub rank: Option<String>,
    /// `worker`, `master`; empty if the controller has no roles.
    pub role: String,
    group: Option<u64>,
    index: Option<u64>,
}

/// The pods of a job with their ranks.
#[derive(Debug, Default)]
pub struct RankedPods {
    /// One pod for each rank, sorted by rank. If several pods have the same rank, the newest pod.
    pub pods: Vec<(JobRank, Pod)>,
    /// Indices without a pod, between the lowest and the highest index.
    pub missing: Vec<u64>,
}

/// Returns the rank of each pod. If two pods have the same rank, the newer pod replaced the older one.
pub fn of(mut pods: Vec<Pod>) -> RankedPods {
    pods.sort_by_cached_key(|pod| (std::cmp::Reverse(pod.metadata.creation_timestamp.clone()), pod.name_any()));
    let mut seen = BTreeSet::new();
    let mut found: Vec<(JobRank, Pod)> = Vec::new();
    for pod in pods {
        let place = place(&pod);
        let key = (place.role.clone(), place.group, place.index);
        if place.index.is_none() || seen.insert(key) {
            found.push((place, pod));
        }
    }
    let distinct = |value: fn(&JobRank) -> Option<u64>| {
        found.iter().map(|(place, _)| value(place)).collect::<BTreeSet<_>>().len() > 1
    };
    let (groups, indices) = (distinct(|place| place.group), distinct(|place| place.index));
    let roles = found.iter().map(|(place, _)| place.role.as_str()).collect::<BTreeSet<_>>().len() > 1;
    for (place, _) in &mut found {
        let number = match (place.group.filter(|_| groups), place.index.filter(|_| indices || !groups)) {
            (Some(group), Some(index)) => Some(format!("{group}/{index}")),
            (one, other) => one.or(other).map(|number| number.to_string()),
        };
        let role = Some(&place.role).filter(|role| roles && !role.is_empty());
        place.rank = number.map(|number| role.map_or_else(|| number.clone(), |role| format!("{role} {number}")));
    }
    found.sort_by_cached_key(|(place, pod)| (place.role.clone(), place.group, place.index, pod.name_any()));
    let known: Vec<u64> = found.iter().filter_map(|(place, _)| place.index).collect();
    let is_one_list = !groups && !roles && known.len() == found.len();
    let range = known.iter().min().zip(known.iter().max()).filter(|_| is_one_list);
    let missing = range.into_iter().flat_map(|(first, last)| *first..=*last).filter(|index| !known.contains(index));
    RankedPods { missing: missing.take(1000).collect(), pods: found }
}

fn place(pod: &Pod) -> JobRank {
    let first = |keys: &[&str]| keys.iter().find_map(|key| value(pod, key)).map(str::to_owned);
    let number = |keys: &[&str]| first(keys)?.parse().ok();
    let index = number(&INDEX).or_else(|| of_variables(pod)).or_else(|| ordinal(pod));
    let role = clean(&first(&ROLE).unwrap_or_default().to_ascii_lowercase(), 63);
    JobRank { rank: None, role, group: number(&GROUP), index }
}

fn value<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let of = |map: &'a BTreeMap<String, String>| map.get(key).map(String::as_str);
    of(pod.labels()).or_else(|| of(pod.annotations()))
}

fn of_variables(pod: &Pod) -> Option<u64> {
    let variables = || pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.env.iter().flatten());
    let value = |name: &&str| variables().find(|one| one.name == **name)?.value.as_ref()?.parse().ok();
    VARIABLES.iter().find_map(value)
}

/// Returns the number at the end of the pod's name, if the controller sets this number.
fn ordinal(pod: &Pod) -> Option<u64> {
    let by_controller = pod.owner_references().iter().any(|owner| ORDINALS.contains(&owner.kind.as_str()));
    let name = pod.name_any();
    name.rsplit_once('-').filter(|_| by_controller)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, created: u32, labels: &Value, kind: &str) -> Pod {
        let owner = json!([{"apiVersion": "x/v1", "kind": kind, "name": "train", "uid": "u"}]);
        let created = format!("2026-11-22T00:00:{created:02}Z");
        let meta = json!({"name": name, "labels": labels, "ownerReferences": owner, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": meta})).expect("a pod")
    }

    fn ranks(pods: Vec<Pod>) -> (Vec<String>, Vec<u64>) {
        let RankedPods { pods, missing } = of(pods);
        let text = |(place, pod): (JobRank, Pod)| format!("{} {}", pod.name_any(), place.rank.unwrap_or_default());
        (pods.into_iter().map(text).collect(), missing)
    }

    #[test]
    fn the_index_comes_from_the_label_of_the_controller() {
        let indexed = |index: &str| json!({"batch.kubernetes.io/job-completion-index": index});
        let of_job = ["0", "2"].map(|index| pod(&format!("t-{index}-x"), 1, &indexed(index), "Job"));
        assert_eq!(ranks(of_job.to_vec()), (vec!["t-0-x 0".to_owned(), "t-2-x 2".to_owned()], vec![1]));
        let of_set = (9..12).map(|index| pod(&format!("t-{index}"), 1, &json!({}), "StatefulSet"));
        assert_eq!(ranks(of_set.collect()).0, ["t-9 9", "t-10 10", "t-11 11"]);
        let operator = |role: &str| json!({"training.kubeflow.org/replica-type": role, "training.kubeflow.org/replica-index": "0"});
        let roles = [pod("m", 1, &operator("Master"), "PyTorchJob"), pod("w", 1, &operator("Worker"), "PyTorchJob")];
        assert_eq!(ranks(roles.to_vec()), (vec!["m master 0".to_owned(), "w worker 0".to_owned()], Vec::new()));
        let plain = [pod("a", 1, &json!({}), "ReplicaSet"), pod("b-7", 1, &json!({}), "ReplicaSet")];
        assert_eq!(ranks(plain.to_vec()).0, ["a ", "b-7 "]);
    }

    #[test]
    fn the_group_counts_if_there_are_several_and_an_older_pod_was_replaced() {
        let of_group = |group: u32, index: u32| json!({"jobset.sigs.k8s.io/job-global-index": group.to_string(), "batch.kubernetes.io/job-completion-index": index.to_string()});
        let both = |pairs: &[(u32, u32)]| {
            let pods = pairs
                .iter()
                .map(|(group, index)| pod(&format!("p{group}{index}"), 1, &of_group(*group, *index), "Job"));
            ranks(pods.collect()).0
        };
        assert_eq!(both(&[(0, 0), (0, 1)]), ["p00 0", "p01 1"]);
        assert_eq!(both(&[(0, 0), (1, 0)]), ["p00 0", "p10 1"]);
        assert_eq!(both(&[(0, 0), (1, 0), (1, 1)]), ["p00 0/0", "p10 1/0", "p11 1/1"]);
        let index = json!({"batch.kubernetes.io/job-completion-index": "0"});
        assert_eq!(ranks(vec![pod("old", 1, &index, "Job"), pod("new", 2, &index, "Job")]).0, ["new 0"]);
    }
}
