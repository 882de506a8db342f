//! Tests of `--via ephemeral`: an ephemeral container in a pod of another owner.

use std::time::Duration;

use demo_cluster::{AnswerFault, Cluster, CountedFault, Denial, Fixture, RequestFault, StartFault, workload_pod};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{Launcher, fixture, node, slow};

fn ephemeral(pod: &Pod) -> Vec<&k8s_openapi::api::core::v1::EphemeralContainer> {
    pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten()).collect()
}

#[tokio::test]
async fn the_container_ends_and_the_answer_names_what_stays() {
    let pod = workload_pod("ml", "train-0", "gpu-1", 8);
    let cluster = Cluster::start(Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod)).await.unwrap();
    let answer = Launcher::start(&cluster, &["--via", "ephemeral"]).inventory().await.unwrap();
    let probe = &answer["probe"];
    assert_eq!((&probe["via"], &probe["deleted"]), (&json!("ephemeral"), &json!(false)));
    let left = probe["left_behind"].as_str().unwrap();
    assert!(left.contains("has ended. The entry of the container stays in the spec of pod ml/train-0"), "{left}");
    assert!(probe["note"].as_str().unwrap().contains("inside pod ml/train-0, next to its container main"));
    assert_eq!(cluster.pods_created(), 0);
    let pods = cluster.pods("ml");
    let added = ephemeral(&pods[0]);
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].target_container_name.as_deref(), Some("main"));
    assert_eq!(added[0].security_context.as_ref().unwrap().privileged, Some(true));
}

#[tokio::test]
async fn only_a_running_gpu_pod_outside_kube_system_is_chosen() {
    let mut of_a_file = workload_pod("a", "static", "gpu-1", 1);
    of_a_file.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
    let mut ended = workload_pod("a", "ended", "gpu-1", 1);
    ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
    let unfit = [
        of_a_file,
        ended,
        workload_pod("kube-system", "gpu", "gpu-1", 1),
        workload_pod("a", "no-gpu", "gpu-1", 0),
        workload_pod("a", "elsewhere", "gpu-2", 1),
    ];
    let nodes = [node("gpu-1", "healthy-h100-8"), node("gpu-2", "healthy-h100-8")];
    let fixture = unfit.into_iter().fold(Fixture::of(nodes), Fixture::with_pod);
    let cluster = Cluster::start(fixture).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "ephemeral"]).failure().await;
    assert!(said.contains("no pod with a GPU is running on the node outside kube-system"), "{said}");
    assert!(!said.contains("Left behind"), "{said}");
    let named = Launcher::start(&cluster, &["--via", "ephemeral", "--ephemeral-pod", "kube-system/gpu"]);
    assert_eq!(named.inventory().await.unwrap()["probe"]["via"], "ephemeral");
    let said = Launcher::start(&cluster, &["--via", "ephemeral", "--ephemeral-pod", "a/static"]).failure().await;
    assert!(said.contains("it is a static pod"), "{said}");
}

#[tokio::test]
async fn a_pod_of_another_owner_is_entered_only_if_it_is_named() {
    let fixture = Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(workload_pod("ml", "train", "gpu-1", 8));
    let cluster = Cluster::start(fixture).await.unwrap();
    let said = Launcher::exactly(&cluster, &["--via", "ephemeral"]).failure().await;
    assert!(said.contains("--ephemeral-pod ml/train") && said.contains("nothing was created"), "{said}");
    assert_eq!(ephemeral(&cluster.pods("ml")[0]).len(), 0);
}

#[tokio::test]
async fn a_pod_that_a_tool_names_is_not_entered_in_kube_system_unless_the_settings_name_it() {
    let pod = || workload_pod("kube-system", "gpu", "gpu-1", 8);
    let explain = json!({ "pod": "gpu", "namespace": "kube-system" });
    for (words, containers) in [(&[][..], 0), (&["--ephemeral-pod", "kube-system/gpu"], 1)] {
        let fixture = Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod());
        let cluster = Cluster::start(fixture).await.unwrap();
        let launcher = Launcher::start(&cluster, &[&["--via", "ephemeral"], words].concat());
        let answer = launcher.call("explain_gpu_pod", explain.clone()).await;
        let said = answer.map_or_else(|failure| failure.to_string(), |answer| answer.to_string());
        assert_eq!(said.contains("is in kube-system; nothing was created"), containers == 0, "{said}");
        assert_eq!(ephemeral(&cluster.pods("kube-system")[0]).len(), containers, "{said}");
    }
}

#[tokio::test]
async fn no_ephemeral_forbids_the_method_and_its_suggestion() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "ephemeral", "--no-ephemeral"]).failure().await;
    assert!(said.contains("--no-ephemeral forbids ephemeral containers"), "{said}");
    cluster.faults(|faults| faults.on("gpu-1").start = Some(StartFault::out_of_pods().into()));
    let said = Launcher::start(&cluster, &[]).failure().await;
    assert!(said.contains("OutOfpods") && said.contains("--via ephemeral"), "{said}");
    let said = Launcher::start(&cluster, &["--no-ephemeral"]).failure().await;
    assert!(said.contains("OutOfpods") && !said.contains("--via ephemeral"), "{said}");
    // The method that the error proposes works on the same node.
    let answer = Launcher::start(&cluster, &["--via", "ephemeral"]).inventory().await.unwrap();
    assert_eq!(answer["probe"]["via"], "ephemeral");
}

fn patch_fault(answer: impl Into<CountedFault<AnswerFault>>) -> RequestFault {
    RequestFault { verb: Some("patch"), resource: Some("pods/ephemeralcontainers"), answer: answer.into() }
}

#[tokio::test]
async fn a_failed_request_to_add_the_container_is_repeated_and_adds_one() {
    let faults = [
        AnswerFault::Lost,
        AnswerFault::ServedAndClosed,
        AnswerFault::Closed,
        AnswerFault::InternalError,
        AnswerFault::TooManyRequests(1),
        AnswerFault::Conflict,
        AnswerFault::PlainText { code: 503, retry_after: None },
    ];
    for answer in faults {
        let cluster = {
            let pod = workload_pod("ml", "train-0", "gpu-1", 8);
            Cluster::start(Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod)).await.unwrap()
        };
        cluster.faults(|faults| faults.api.requests.push(patch_fault(CountedFault::once(answer.clone()))));
        let probed = Launcher::start(&cluster, &["--via", "ephemeral"]).inventory().await;
        let left = probed.unwrap_or_else(|failure| panic!("{answer:?}: {failure}"))["probe"]["left_behind"].clone();
        assert!(left.as_str().unwrap().contains("has ended"), "{answer:?}: {left}");
        let added: usize = cluster.pods("ml").iter().map(|pod| ephemeral(pod).len()).sum();
        assert_eq!(added, 1, "{answer:?}");
    }
}

/// Returns the state of the first ephemeral container that was added.
fn state(cluster: &Cluster, namespace: &str) -> Option<k8s_openapi::api::core::v1::ContainerState> {
    let pods = cluster.pods(namespace);
    let status = pods.first()?.status.clone()?;
    status.ephemeral_container_statuses?.into_iter().next()?.state
}

#[tokio::test]
async fn a_container_whose_request_is_not_answered_is_declared_audited_and_ended_when_it_comes() {
    let pod = workload_pod("ml", "train-0", "gpu-1", 8);
    let cluster = Cluster::start(Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod)).await.unwrap();
    cluster.faults(|faults| faults.api.requests.push(patch_fault(AnswerFault::Late(Duration::from_secs(14)))));
    let launcher = Launcher::start(&cluster, &["--via", "ephemeral"]);
    let said = launcher.failure().await;
    for words in ["did not answer within 10s", "may still be added to pod ml/train-0", "looks for the container"] {
        assert!(said.contains(words), "no '{words}' in: {said}");
    }
    assert_eq!(state(&cluster, "ml"), None);
    let lines = launcher.audit();
    let container = lines[0].container.clone();
    assert_eq!((lines.len(), lines[0].pod.as_deref(), lines[0].deleted), (1, Some("train-0"), Some(false)));
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while state(&cluster, "ml").is_none_or(|state| state.terminated.is_none()) {
        assert!(tokio::time::Instant::now() < end, "{:?}", state(&cluster, "ml"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    launcher.prober.settle().await;
    let lines = launcher.audit();
    assert_eq!((lines.len(), &lines[1].container), (2, &container), "{lines:?}");
    assert!(container.is_some() && lines[1].outcome.as_deref().unwrap().contains("has exited"), "{lines:?}");
}

#[tokio::test]
async fn a_failed_list_is_repeated_and_is_not_a_missing_permission() {
    let failing = |times| {
        let answer = CountedFault::times(AnswerFault::InternalError, times);
        RequestFault { verb: Some("list"), resource: Some("pods"), answer }
    };
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.api.requests.push(failing(2)));
    let launcher = Launcher::start(&cluster, &["--via", "ephemeral"]);
    launcher.inventory().await.unwrap();
    cluster.faults(|faults| faults.api.requests.push(failing(u32::MAX)));
    let said = launcher.failure().await;
    assert!(said.contains("HTTP 500") && !said.contains("Your user needs"), "{said}");
    let cluster = Cluster::start(fixture().denying(Denial::of("list", "pods"))).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "ephemeral"]).failure().await;
    assert!(said.contains("HTTP 403") && said.contains("Your user needs list on pods"), "{said}");
}

#[tokio::test]
async fn without_permission_to_add_a_container_the_error_names_the_permission() {
    let fixture = fixture().denying(Denial::of("patch", "pods/ephemeralcontainers"));
    let cluster = Cluster::start(fixture).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "ephemeral"]).failure().await;
    assert!(said.contains("patch on pods/ephemeralcontainers"), "{said}");
    assert!(!said.contains("Left behind"), "{said}");
}

#[tokio::test]
async fn a_container_that_never_ran_differs_from_one_that_may_still_start() {
    let gpu_pod = workload_pod("ml", "train-0", "gpu-1", 8);
    let mut node = node("gpu-1", "healthy-h100-8");
    node.unpullable_images = vec!["example.com/node-probe:none".to_owned()];
    let cluster = Cluster::start(Fixture::of([node]).with_pod(gpu_pod)).await.unwrap();
    // The image does not contain node-probe.
    let said =
        Launcher::start(&cluster, &["--via", "ephemeral", "--image", "docker.io/library/debian:12"]).failure().await;
    assert!(said.contains("executable file not found") && said.contains("--image"), "{said}");
    assert!(said.contains("has ended. The entry of the container stays"), "{said}");
    // No registry has the image.
    let said =
        Launcher::start(&cluster, &["--via", "ephemeral", "--image", "example.com/node-probe:none"]).failure().await;
    assert!(
        said.contains("ImagePull") && said.contains("has not started; if it starts, it exits on its own"),
        "{said}"
    );
}

#[tokio::test]
async fn a_container_ends_with_its_pod() {
    let pod = workload_pod("ml", "train-0", "gpu-1", 8);
    let fixture = Fixture { timing: slow(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]).with_pod(pod) };
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "ephemeral"]);
    let deleted = async {
        while cluster.pods("ml").iter().all(|pod| ephemeral(pod).is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let client = launcher.contexts.connect(None).await.unwrap().client;
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        Api::<Pod>::namespaced(client, "ml").delete("train-0", &params).await.unwrap();
    };
    let (said, ()) = tokio::join!(launcher.failure(), deleted);
    assert!(!said.contains("Left behind") && said.contains("The probe pod was deleted"), "{said}");
}
