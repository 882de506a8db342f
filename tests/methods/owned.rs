//! Test that the answer about a job names the pod with a problem, even if all its pods have the phase Running.

use demo_cluster::{Cluster, Fixture, workloads_of};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::support::{Launcher, node};

fn of_job(mut pod: Pod) -> Pod {
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "u", "controller": true}]);
    pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
    pod.metadata.namespace = Some("workloads".to_owned());
    pod
}

#[tokio::test]
async fn of_a_job_whose_pods_all_run_the_pod_with_a_problem_is_named() {
    for (sound, broken) in [("gpu-1", "gpu-2"), ("gpu-2", "gpu-1")] {
        let nodes = vec![node(sound, "healthy-h100-8"), node(broken, "xid79-off-bus")];
        let pods = nodes.iter().flat_map(workloads_of).map(of_job).collect();
        let cluster = Cluster::start(Fixture { nodes, pods, ..Fixture::default() }).await.unwrap();
        let args = json!({"pod": "job/train", "namespace": "workloads"});
        let answer = Launcher::start(&cluster, &[]).call("explain_gpu_pod", args).await.unwrap();
        let first = &answer["suspects"][0];
        assert_eq!((&first["because"], &first["members"][0]["node"]), (&json!("fault"), &json!(broken)), "{answer:#}");
        assert_eq!(answer["phases"]["Running"], 2, "{answer}");
    }
}
