//! `NamedOwner`: parses `job/NAME`, `deploy/NAME` or the name of an owner, and recognizes the pods of that owner.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// The names that kubectl accepts for a kind, and the kind.
const KINDS: [(&[&str], &str); 24] = [
    (&["job", "jobs"], "Job"),
    (&["cronjob", "cronjobs", "cj"], "CronJob"),
    (&["deployment", "deployments", "deploy"], "Deployment"),
    (&["statefulset", "statefulsets", "sts"], "StatefulSet"),
    (&["daemonset", "daemonsets", "ds"], "DaemonSet"),
    (&["replicaset", "replicasets", "rs"], "ReplicaSet"),
    (&["jobset", "jobsets"], "JobSet"),
    (&["leaderworkerset", "leaderworkersets", "lws"], "LeaderWorkerSet"),
    (&["trainjob", "trainjobs"], "TrainJob"),
    (&["pytorchjob", "pytorchjobs"], "PyTorchJob"),
    (&["tfjob", "tfjobs"], "TFJob"),
    (&["mpijob", "mpijobs"], "MPIJob"),
    (&["jaxjob", "jaxjobs"], "JAXJob"),
    (&["xgboostjob", "xgboostjobs"], "XGBoostJob"),
    (&["paddlejob", "paddlejobs"], "PaddleJob"),
    (&["raycluster", "rayclusters"], "RayCluster"),
    (&["rayjob", "rayjobs"], "RayJob"),
    (&["rayservice", "rayservices"], "RayService"),
    (&["notebook", "notebooks"], "Notebook"),
    (&["inferenceservice", "inferenceservices", "isvc"], "InferenceService"),
    (&["vcjob", "vcjobs"], "VolcanoJob"),
    (&["workflow", "workflows", "wf"], "Workflow"),
    (&["nimservice", "nimservices"], "NIMService"),
    (&["sparkapplication", "sparkapplications", "sparkapp"], "SparkApplication"),
];

/// Labels with the name of an owner of the pod, and the kinds of this owner.
const LABELS: [(&str, &[&str]); 12] = [
    ("batch.kubernetes.io/job-name", &["Job"]),
    ("job-name", &["Job"]),
    ("jobset.sigs.k8s.io/jobset-name", &["JobSet", "TrainJob"]),
    ("leaderworkerset.sigs.k8s.io/name", &["LeaderWorkerSet"]),
    ("training.kubeflow.org/job-name", &["PyTorchJob", "TFJob", "MPIJob", "JAXJob", "XGBoostJob", "PaddleJob"]),
    ("ray.io/cluster", &["RayCluster"]),
    ("ray.io/originated-from-cr-name", &["RayJob", "RayService", "RayCluster"]),
    ("notebook-name", &["Notebook"]),
    ("serving.kserve.io/inferenceservice", &["InferenceService"]),
    ("volcano.sh/job-name", &["VolcanoJob"]),
    ("workflows.argoproj.io/workflow", &["Workflow"]),
    ("sparkoperator.k8s.io/app-name", &["SparkApplication"]),
];

/// An owner of pods: its name, and its kind if a kind was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOwner {
    pub kind: Option<&'static str>,
    pub name: String,
}

impl NamedOwner {
    /// Parses `KIND/NAME` if the kind is one of [`KINDS`]. The kind may have its API group as a suffix
    /// (`pytorchjobs.kubeflow.org/NAME`).
    pub fn of_kind(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let word = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let (_, kind) = KINDS.iter().find(|(words, _)| words.contains(&word.as_str()))?;
        Some(Self { kind: Some(kind), name: name.to_owned() })
    }

    /// Returns an owner with this name, of any kind.
    pub fn named(name: &str) -> Self {
        Self { kind: None, name: name.to_owned() }
    }

    /// Returns the owner as `KIND/NAME`, as in kubectl, or only the name if the kind is not known.
    pub fn text(&self) -> String {
        self.kind.map_or_else(|| self.name.clone(), |kind| format!("{}/{}", kind.to_ascii_lowercase(), self.name))
    }

    fn is_of(&self, kind: &str) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }

    /// Returns whether the pod belongs to this owner.
    pub fn owns(&self, pod: &Pod) -> bool {
        let labels = pod.labels();
        // The name of a ReplicaSet is the name of its Deployment and the hash of the pod template.
        let hash = labels.get("pod-template-hash");
        let by_reference = pod.owner_references().iter().any(|owner| {
            let is_owner = owner.name == self.name && self.is_of(&owner.kind);
            let is_of_deployment = owner.kind == "ReplicaSet"
                && self.is_of("Deployment")
                && hash.is_some_and(|hash| owner.name == format!("{}-{hash}", self.name));
            // The name of a CronJob's Job is the name of the CronJob and a number.
            let is_of_cron_job = owner.kind == "Job"
                && self.is_of("CronJob")
                && owner.name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_number);
            is_owner || is_of_deployment || is_of_cron_job
        });
        let by_label = |(key, kinds): &(&str, &[&str])| {
            kinds.iter().any(|kind| self.is_of(kind)) && labels.get(*key) == Some(&self.name)
        };
        by_reference || LABELS.iter().any(by_label)
    }
}

fn is_number(text: &str) -> bool {
    text.len() > 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(labels: &Value, owner: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": labels, "ownerReferences": owner}}))
            .expect("a pod")
    }

    #[test]
    fn an_owner_is_named_as_for_kubectl() {
        let kind = |text: &str| NamedOwner::of_kind(text).map(|owner| (owner.kind, owner.name));
        assert_eq!(kind("deploy/serve"), Some((Some("Deployment"), "serve".to_owned())));
        assert_eq!(kind("pytorchjobs.kubeflow.org/x"), Some((Some("PyTorchJob"), "x".to_owned())));
        assert_eq!((kind("ml/trainer"), kind("trainer")), (None, None));
    }

    #[test]
    fn direct_and_indirect_owners_are_recognized() {
        let owner = |kind: &str, name: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u"}]);
        let owns =
            |text: &str, pod: &Pod| NamedOwner::of_kind(text).unwrap_or_else(|| NamedOwner::named(text)).owns(pod);
        let served = pod(&json!({"pod-template-hash": "6d5f"}), &owner("ReplicaSet", "serve-6d5f"));
        assert!(owns("deploy/serve", &served) && owns("serve", &served) && owns("rs/serve-6d5f", &served));
        assert!(!owns("deploy/serve-6d5f", &served) && !owns("deploy/ser", &served) && !owns("sts/serve", &served));
        let trained = pod(&json!({"jobset.sigs.k8s.io/jobset-name": "train"}), &owner("Job", "train-workers-0"));
        assert!(owns("jobset/train", &trained) && owns("train", &trained) && owns("job/train-workers-0", &trained));
        assert!(!owns("job/train", &trained));
        let nightly = pod(&json!({}), &owner("Job", "nightly-29123456"));
        assert!(owns("cronjob/nightly", &nightly) && !owns("cronjob/night", &nightly));
        let alone = pod(&json!({"app": "train"}), &json!([]));
        assert!(!owns("train", &alone));
    }
}
