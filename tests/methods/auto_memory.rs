//! Tests of `--via auto` with several calls and many nodes: what the launcher remembers, and the number of requests.

use std::sync::Arc;

use demo_cluster::{AnswerFault, Cluster, CountedFault, Denial, Fixture, RequestFault, StartFault};
use gpu_syringe::probe::Phase;
use serde_json::{Value, json};

use crate::auto::{NAMED, with_images};
use crate::support::{DEBIAN, DEBIAN_PINNED, Launcher, OURS, fixture, node, ours, privileged_pod};

/// Returns the number of requests that would create a pod.
pub(crate) fn creations(cluster: &Cluster) -> usize {
    cluster.requests().iter().filter(|line| line.starts_with("POST") && line.contains("/pods")).count()
}

#[tokio::test]
async fn what_was_passed_over_is_said_once_and_not_tried_again() {
    let named: &[&str] = &["--image", NAMED];
    // `first` and `second`: the number of pods that the first and the second call try to create.
    for (situation, fixture, flags, first, second) in [
        ("the image cannot be pulled", with_images(&[DEBIAN_PINNED]), named, 2, 1),
        ("exec does not work", with_images(&OURS).denying(Denial::of("get", "pods/exec")), &[][..], 2, 1),
        ("no namespace", Fixture { namespaces: Vec::new(), ..with_images(&OURS) }, &[], 1, 0),
        ("no permission", with_images(&OURS).denying(Denial::of("create", "pods")), &[], 1, 0),
    ] {
        let cluster = Cluster::start(fixture).await.unwrap();
        cluster.faults(|faults| {
            faults.everywhere.start = (flags == named).then(|| CountedFault::once(StartFault::ImagePull))
        });
        let launcher = Launcher::start(&cluster, flags);
        let one = launcher.inventory().await.unwrap();
        assert_eq!(creations(&cluster), first, "{situation}");
        let two = launcher.inventory().await.unwrap();
        assert_eq!(creations(&cluster) - first, second, "{situation}");
        assert_eq!(one["probe"]["via"], two["probe"]["via"], "{situation}");
        assert_eq!(two["probe"].get("passed_over"), None, "{situation}");
        if one["probe"]["via"] == "none" {
            // An answer without facts always contains the reason.
            assert_eq!(one["probe"]["note"], two["probe"]["note"], "{situation}");
        } else {
            assert_eq!(one["probe"]["passed_over"].as_array().map(Vec::len), Some(1), "{situation}: {}", one["probe"]);
        }
        assert_eq!(launcher.audit().len(), first + second.max(1), "{situation}");
    }
}

#[tokio::test]
async fn a_cancelled_call_tries_nothing_else() {
    let cluster = Cluster::start(with_images(&[OURS[0], OURS[1], DEBIAN_PINNED])).await.unwrap();
    cluster.faults(|faults| faults.everywhere.start = Some(StartFault::ImagePull.into()));
    let mut launcher = Launcher::start(&cluster, &["--image", NAMED]);
    let cancel = launcher.cancel.clone();
    launcher.on_phase = Arc::new(move |phase| {
        if phase == Phase::Start {
            cancel.cancel();
        }
    });
    let said = launcher.failure().await;
    launcher.prober.settle().await;
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!((cluster.pods_created(), ours(&cluster)), (1, 0));
}

/// Returns a cluster of 30 nodes with these images.
fn many(images: &[&str]) -> Fixture {
    let one = fixture();
    let nodes = (0..30).map(|number| {
        let mut node = node(&format!("gpu-{number}"), "healthy-h100-8");
        node.images = images.iter().map(|image| (*image).to_owned()).collect();
        node
    });
    let agent = |number| privileged_pod(&format!("agent-{number}"), &format!("gpu-{number}"), DEBIAN_PINNED);
    let pods = if images.contains(&DEBIAN_PINNED) { (0..30).map(agent).collect() } else { Vec::new() };
    Fixture { nodes: nodes.collect(), pods, ..one }
}

async fn survey(launcher: &Launcher) -> Result<Value, String> {
    launcher.call("get_gpu_inventory", json!({})).await.map_err(|failure| failure.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_asks_once_for_what_the_cluster_refuses() {
    let no_namespace = Fixture { namespaces: Vec::new(), ..many(&OURS) };
    for (situation, fixture) in [
        ("no namespace", no_namespace),
        ("no permission", many(&OURS).denying(Denial::of("create", "pods"))),
        ("no permission, no image", many(&[DEBIAN_PINNED]).denying(Denial::of("create", "pods"))),
    ] {
        let cluster = Cluster::start(fixture).await.unwrap();
        let launcher = Launcher::start(&cluster, &[]);
        let said = survey(&launcher).await.expect_err(situation);
        assert!(
            said.contains("gpu-syringe setup --apply") && said.contains("gpu-syringe doctor"),
            "{situation}: {said}"
        );
        assert_eq!(creations(&cluster), 1, "{situation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_reads_each_node_with_the_method_that_works_on_it() {
    let mut fixture = many(&[DEBIAN_PINNED]);
    for (number, node) in fixture.nodes.iter_mut().enumerate() {
        if number % 3 != 1 {
            fixture.pods.retain(|pod| pod.metadata.name.as_deref() != Some(&format!("agent-{number}")));
            node.images = if number % 3 == 0 { OURS.map(str::to_owned).into() } else { vec![DEBIAN.to_owned()] };
        }
    }
    // This node has the image, but does not report it yet.
    fixture.nodes[2].images = OURS.map(str::to_owned).into();
    let cluster = Cluster::start(fixture).await.unwrap();
    let mut images = None;
    cluster.edit_node("gpu-2", |node| images = node.status.as_mut().unwrap().images.take());
    let launcher = Launcher::start(&cluster, &[]);
    let answer = survey(&launcher).await.unwrap();
    assert_eq!((&answer["totals"]["read"], &answer["totals"]["failed"]), (&json!(20), &json!(10)), "{answer}");
    assert_eq!(answer["failed"].as_array().map(Vec::len), Some(1), "{}", answer["failed"]);
    assert!(answer["failed"][0]["next_step"].as_str().unwrap().contains("--base-image"), "{}", answer["failed"]);
    let passed = answer["probes"]["passed_over"].to_string();
    assert_eq!(
        passed.matches("pod: no --image is set").count(),
        1,
        "the reason must appear once for all nodes: {passed}"
    );
    assert_eq!((creations(&cluster), ours(&cluster)), (20, 0));
    // A node that was repaired is read again immediately.
    cluster.edit_node("gpu-2", |node| node.status.as_mut().unwrap().images = images.take());
    let answer = survey(&launcher).await.unwrap();
    assert_eq!((&answer["totals"]["read"], &answer["totals"]["failed"]), (&json!(21), &json!(9)), "{answer}");
    assert_eq!((creations(&cluster), ours(&cluster)), (41, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_cannot_pull_an_image_do_not_change_the_method_of_the_others() {
    let mut fixture = many(&[DEBIAN_PINNED]);
    fixture.nodes.iter_mut().take(4).for_each(|node| node.unpullable_images = vec![NAMED.to_owned()]);
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--image", NAMED]);
    for (call, pods) in [(1, 34), (2, 64)] {
        let answer = survey(&launcher).await.unwrap();
        assert_eq!(answer["totals"]["read"], 30, "{answer}");
        assert_eq!((creations(&cluster), ours(&cluster)), (pods, 0), "call {call}");
    }
}

/// A policy that rejects the pod of an action, because the user has no permission for actions, does not prevent reads.
#[tokio::test]
async fn a_refused_pod_of_an_action_is_not_remembered_for_reads() {
    let cluster = Cluster::start(with_images(&OURS)).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--mode", "operator"]);
    let why = "ValidatingAdmissionPolicy 'gpu-syringe-probe-only' with binding 'b' denied request: needs the right to create \
        actions.gpu-syringe.dev";
    let answer = CountedFault::once(AnswerFault::Forbidden(why.to_owned()));
    cluster.faults(|faults| {
        faults.api.requests.push(RequestFault { verb: Some("create"), resource: Some("pods"), answer });
    });
    let kill = json!({ "node_name": "gpu-1", "pid": 41_210, "gpu": "GPU-0", "start_ticks": 1 });
    let said = launcher.call("kill_gpu_process", kill).await.expect_err("a refusal").to_string();
    assert!(said.contains("gpu-syringe-operator"), "{said}");
    assert_eq!(launcher.inventory().await.unwrap()["probe"]["via"], "pod");
}
