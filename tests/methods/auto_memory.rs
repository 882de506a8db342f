//! `--via auto` over several calls and many nodes: what is remembered, and what a cluster is asked.

use std::sync::Arc;

use demo_cluster::{Cluster, CountedFault, Denial, Fixture, PROBE_IMAGE, StartFault};
use gpu_syringe::probe::Phase;
use serde_json::{Value, json};

use crate::auto::{NAMED, with_images};
use crate::support::{DEBIAN, DEBIAN_PINNED, Launcher, fixture, node, ours};

/// Requests that would create a pod.
fn creations(cluster: &Cluster) -> usize {
    cluster.requests().iter().filter(|line| line.starts_with("POST") && line.contains("/pods")).count()
}

#[tokio::test]
async fn what_was_passed_over_is_said_once_and_not_tried_again() {
    let named: &[&str] = &["--image", NAMED];
    // How many pods the first and the second call ask for.
    for (situation, fixture, flags, first, second) in [
        ("the image cannot be pulled", with_images(&[DEBIAN_PINNED]), named, 2, 1),
        ("no exec", with_images(&[PROBE_IMAGE]).denying(Denial::of("get", "pods/exec")), &[][..], 2, 1),
        ("no namespace", Fixture { namespaces: Vec::new(), ..with_images(&[PROBE_IMAGE]) }, &[], 1, 0),
        ("no permission", with_images(&[PROBE_IMAGE]).denying(Denial::of("create", "pods")), &[], 1, 0),
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
            // An answer that has no facts always has the reason.
            assert_eq!(one["probe"]["note"], two["probe"]["note"], "{situation}");
        } else {
            assert_eq!(one["probe"]["passed_over"].as_array().map(Vec::len), Some(1), "{situation}: {}", one["probe"]);
        }
        assert_eq!(launcher.audit().len(), first + second.max(1), "{situation}");
    }
}

#[tokio::test]
async fn a_cancelled_call_tries_nothing_else() {
    let cluster = Cluster::start(with_images(&[PROBE_IMAGE, DEBIAN_PINNED])).await.unwrap();
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

/// 30 nodes with these images.
fn many(images: &[&str]) -> Fixture {
    let one = fixture();
    let nodes = (0..30).map(|number| {
        let mut node = node(&format!("gpu-{number}"), "healthy-h100-8");
        node.images = images.iter().map(|image| (*image).to_owned()).collect();
        node
    });
    Fixture { nodes: nodes.collect(), pods: Vec::new(), ..one }
}

async fn survey(launcher: &Launcher) -> Result<Value, String> {
    launcher.call("get_gpu_inventory", json!({})).await.map_err(|failure| failure.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_asks_once_for_what_the_cluster_refuses() {
    let no_namespace = Fixture { namespaces: Vec::new(), ..many(&[PROBE_IMAGE]) };
    for (situation, fixture) in [
        ("no namespace", no_namespace),
        ("no permission", many(&[PROBE_IMAGE]).denying(Denial::of("create", "pods"))),
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
        match number % 3 {
            0 => node.images = vec![PROBE_IMAGE.to_owned()],
            1 => {}
            _ => node.images = vec![DEBIAN.to_owned()],
        }
    }
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &[]);
    let answer = survey(&launcher).await.unwrap();
    assert_eq!((&answer["totals"]["read"], &answer["totals"]["failed"]), (&json!(20), &json!(10)), "{answer}");
    assert_eq!(answer["failed"].as_array().map(Vec::len), Some(1), "{}", answer["failed"]);
    assert!(answer["failed"][0]["next_step"].as_str().unwrap().contains("--base-image"), "{}", answer["failed"]);
    let passed = answer["probes"]["passed_over"].to_string();
    assert_eq!(passed.matches("pod: no --image is set").count(), 1, "said once for all nodes: {passed}");
    assert_eq!((cluster.pods_created(), ours(&cluster)), (20, 0));
    // The nodes without a method are asked again in the next call, since a mended node must be read at once.
    cluster.edit_node("gpu-2", |node| {
        let image =
            k8s_openapi::api::core::v1::ContainerImage { names: Some(vec![PROBE_IMAGE.to_owned()]), size_bytes: None };
        node.status.as_mut().unwrap().images.get_or_insert_default().push(image);
    });
    let answer = survey(&launcher).await.unwrap();
    assert_eq!(answer["totals"]["failed"], 10, "gpu-2 reports an image that its kubelet does not have: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_learns_from_a_few_nodes_that_an_image_cannot_be_pulled() {
    let mut fixture = many(&[DEBIAN_PINNED]);
    fixture.nodes.iter_mut().for_each(|node| node.unpullable_images = vec![NAMED.to_owned()]);
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--image", NAMED]);
    let answer = survey(&launcher).await.unwrap();
    assert_eq!(answer["totals"]["read"], 30, "{answer}");
    let wasted = cluster.pods_created() - 30;
    assert!((3..=11).contains(&wasted), "{wasted} pods of the image");
    assert_eq!(ours(&cluster), 0);
}

#[tokio::test]
async fn an_action_is_never_moved_to_another_pod() {
    let cluster = Cluster::start(with_images(&[DEBIAN_PINNED])).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--image", NAMED, "--mode", "operator"]);
    let kill = json!({ "node_name": "gpu-1", "pid": 41_210, "gpu": "GPU-0", "start_ticks": 1 });
    // The plan reads, and may use another method.
    cluster.faults(|faults| faults.everywhere.start = Some(CountedFault::once(StartFault::ImagePull)));
    let said = launcher
        .call("kill_gpu_process", kill)
        .await
        .map_or_else(|failure| failure.to_string(), |answer| answer.to_string());
    assert!(said.contains("41210"), "{said}");
    assert!(cluster.pods_created() >= 2, "{said}");
    assert_eq!(ours(&cluster), 0);
}
