//! Tests of pods: creation and validation, phases, watches, deadlines, logs, ephemeral containers, deletion.

use std::time::Duration;

use demo_cluster::{Fixture, Timing, workload_pod};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
    WatchParams,
};
use serde_json::json;

use crate::support::{
    IMAGE, NAMESPACE, create, exec, finish, node, phase, pods, probe_on, probe_running, refused, start, status,
    streams, until, until_phase,
};

#[tokio::test]
async fn a_created_pod_is_named_defaulted_and_counted() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let mut pod = probe_on("gpu-1", "x");
    (pod.metadata.name, pod.metadata.generate_name) = (None, Some("probe-".to_owned()));
    let created = create(&client, pod.clone()).await;
    let name = created.metadata.name.clone().unwrap();
    assert!(name.starts_with("probe-") && name.len() == 11, "{name}");
    assert!(created.metadata.uid.is_some() && created.metadata.resource_version.is_some());
    let spec = created.spec.as_ref().unwrap();
    assert_eq!(spec.scheduler_name.as_deref(), Some("default-scheduler"));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(phase(&created), "Pending");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let planned = pods(&client).create(&dry, &pod).await.unwrap();
    assert!(planned.metadata.uid.is_some());
    assert_eq!((cluster.pods_created(), cluster.pods(NAMESPACE).len()), (1, 1));
    let again = probe_on("gpu-1", &name);
    let refusal = pods(&client).create(&PostParams::default(), &again).await.unwrap_err();
    assert_eq!((status(&refusal).code, status(&refusal).reason.as_str()), (409, "AlreadyExists"));
}

#[tokio::test]
async fn a_pod_that_is_not_valid_is_refused() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let post = async |pod: Pod| pods(&client).create(&PostParams::default(), &pod).await.unwrap_err();
    let refusal = post(probe_on("gpu-1", "Not_A_Name")).await;
    assert_eq!((status(&refusal).code, status(&refusal).reason.as_str()), (422, "Invalid"));
    assert!(status(&refusal).message.contains("metadata.name"), "{refusal}");
    let mut empty = probe_on("gpu-1", "a");
    empty.spec.as_mut().unwrap().containers.clear();
    assert_eq!(status(&post(empty).await).code, 422);
    let elsewhere: Api<Pod> = Api::namespaced(client.clone(), "nowhere");
    let refusal = elsewhere.create(&PostParams::default(), &probe_on("gpu-1", "a")).await.unwrap_err();
    assert_eq!(status(&refusal).message, "namespaces \"nowhere\" not found");
    assert_eq!(cluster.pods_created(), 0);
}

#[tokio::test]
async fn a_pod_goes_from_pending_to_running_to_succeeded_and_a_watch_sees_it() {
    let (_cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let version = pods(&client).list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let parameters = WatchParams::default().labels("app=probe").timeout(10);
    let mut watch = pods(&client).watch(&parameters, &version).await.unwrap().boxed();
    create(&client, probe_running("gpu-1", "short", &["sleep", "0"])).await;
    let mut seen = Vec::new();
    let mut reasons = Vec::new();
    while let Some(event) = watch.try_next().await.unwrap() {
        let (kind, pod) = match event {
            WatchEvent::Added(pod) => ("added", pod),
            WatchEvent::Modified(pod) => ("modified", pod),
            other => panic!("{other:?}"),
        };
        let state = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?[0].state.clone());
        reasons.extend(state.and_then(|state| state.waiting?.reason));
        let entry = format!("{kind} {}", phase(&pod));
        if seen.last() != Some(&entry) {
            seen.push(entry);
        }
        if phase(&pod) == "Succeeded" {
            break;
        }
    }
    assert_eq!(seen.first().map(String::as_str), Some("added Pending"));
    assert_eq!(seen.last().map(String::as_str), Some("modified Succeeded"));
    assert!(reasons.contains(&"ContainerCreating".to_owned()));
    until_phase(&client, "short", "Succeeded").await;
    create(&client, probe_on("gpu-1", "long")).await;
    let running = until_phase(&client, "long", "Running").await.status.unwrap();
    assert!(running.container_statuses.unwrap()[0].ready);
    assert!(running.start_time.is_some() && running.host_ip.is_some());
}

#[tokio::test]
async fn a_pod_is_deleted_only_with_the_right_uid() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let pod = create(&client, probe_on("gpu-1", "a")).await;
    let with_uid = |uid: &str| DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() }),
        ..DeleteParams::default()
    };
    let refusal = pods(&client).delete("a", &with_uid("other")).await.unwrap_err();
    assert_eq!((status(&refusal).code, status(&refusal).reason.as_str()), (409, "Conflict"));
    assert!(status(&refusal).message.contains("Precondition failed: UID in precondition: other"), "{refusal}");
    pods(&client).delete("a", &with_uid(pod.metadata.uid.as_deref().unwrap())).await.unwrap();
    assert!(cluster.pods(NAMESPACE).is_empty());
    assert_eq!(status(&pods(&client).delete("a", &with_uid("any")).await.unwrap_err()).code, 404);
}

#[tokio::test]
async fn a_graceful_deletion_keeps_the_object_until_the_kubelet_is_done() {
    let timing = Timing { termination: Duration::from_millis(300), ..Timing::fast() };
    let (cluster, client) = start(Fixture { timing, ..Fixture::of([node("gpu-1")]) }).await;
    create(&client, probe_on("gpu-1", "a")).await;
    until_phase(&client, "a", "Running").await;
    pods(&client).delete("a", &DeleteParams::default().grace_period(5)).await.unwrap();
    let kept = pods(&client).get("a").await.unwrap();
    assert_eq!(kept.metadata.deletion_grace_period_seconds, Some(5));
    assert!(kept.metadata.deletion_timestamp.is_some());
    until("gone", async || cluster.pods(NAMESPACE).is_empty().then_some(())).await;
    // A pod that has terminated is deleted at once, regardless of the grace period.
    create(&client, probe_running("gpu-1", "b", &["sleep", "0"])).await;
    until_phase(&client, "b", "Succeeded").await;
    pods(&client).delete("b", &DeleteParams::default()).await.unwrap();
    assert!(cluster.pods(NAMESPACE).is_empty());
}

#[tokio::test]
async fn a_collection_is_deleted_by_label() {
    let (cluster, client) =
        start(Fixture::of([node("gpu-1")]).with_pod(workload_pod(NAMESPACE, "keep", "gpu-1", 1))).await;
    create(&client, probe_on("gpu-1", "a")).await;
    create(&client, probe_on("gpu-1", "b")).await;
    let labelled = ListParams::default().labels("app=probe");
    pods(&client).delete_collection(&DeleteParams::default().grace_period(0), &labelled).await.unwrap();
    let left: Vec<_> = cluster.pods(NAMESPACE).into_iter().filter_map(|pod| pod.metadata.name).collect();
    assert_eq!(left, ["keep"]);
}

#[tokio::test]
async fn a_pod_s_deadline_can_be_lowered_and_ends_it_while_the_object_stays() {
    let (_cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let mut pod = probe_on("gpu-1", "a");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    create(&client, pod).await;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"new": "yes"}}}));
    let patched = pods(&client).patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["new"], "yes");
    let mut process = exec(&client, "a", &["node-probe", "inventory"], &streams()).await;
    assert!(process.take_status().unwrap().await.is_some());
    let status = until_phase(&client, "a", "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert!(pods(&client).exec("a", ["node-probe", "inventory"], &streams()).await.is_err());
}

#[tokio::test]
async fn a_pod_on_an_unknown_node_stays_pending() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    create(&client, probe_on("gpu-9", "a")).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(phase(&cluster.pods(NAMESPACE)[0]), "Pending");
    let mut unplaced = probe_on("gpu-1", "b");
    unplaced.spec.as_mut().unwrap().node_name = None;
    create(&client, unplaced).await;
    let refusal = refused(&client, "b", &streams()).await;
    assert_eq!(refusal.message, "pod b does not have a host assigned");
    assert_eq!(refusal.code, 400);
}

#[tokio::test]
async fn a_probe_that_is_the_main_process_leaves_its_document_in_the_log() {
    let (_cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    create(&client, probe_running("gpu-1", "a", &["node-probe", "inventory"])).await;
    let early = pods(&client).logs("a", &LogParams::default()).await.unwrap_err();
    assert!(status(&early).message.contains("is waiting to start"), "{early}");
    until("an end", async || pods(&client).get("a").await.ok().filter(|pod| phase(pod) != "Pending")).await;
    let followed = LogParams { follow: true, ..LogParams::default() };
    let log = pods(&client).logs("a", &followed).await.unwrap();
    let report: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(report["schema_version"], syringe_core::report::SCHEMA_VERSION);
    create(&client, probe_running("gpu-1", "b", &["node-probe", "no-such-section"])).await;
    until_phase(&client, "b", "Failed").await;
}

fn ephemeral(name: &str) -> serde_json::Value {
    json!({"name": name, "image": IMAGE, "command": ["node-probe", "hold"], "targetContainerName": "main"})
}

#[tokio::test]
async fn an_ephemeral_container_runs_and_takes_execs() {
    let (_cluster, client) =
        start(Fixture::of([node("gpu-1")]).with_pod(workload_pod(NAMESPACE, "work", "gpu-1", 8))).await;
    let add = |container| Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
    let parameters = PatchParams::default();
    pods(&client).patch_ephemeral_containers("work", &parameters, &add(ephemeral("one"))).await.unwrap();
    let pod = pods(&client).patch_ephemeral_containers("work", &parameters, &add(ephemeral("two"))).await.unwrap();
    assert_eq!(pod.spec.unwrap().ephemeral_containers.unwrap().len(), 2);
    let streams = AttachParams::default().container("one").max_stdout_buf_size(256 * 1024);
    let ran = finish(exec(&client, "work", &["node-probe", "inventory"], &streams).await).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&ran.stdout).is_ok());
    until("its status", async || {
        let status = pods(&client).get_ephemeral_containers("work").await.unwrap().status.unwrap();
        status.ephemeral_container_statuses.filter(|slots| slots.iter().all(|slot| slot.ready) && slots.len() == 2)
    })
    .await;
    let main = AttachParams::default().container("main");
    let ran = finish(pods(&client).exec("work", ["node-probe"], &main).await.unwrap()).await;
    assert!(ran.status.unwrap().message.contains("executable file not found"));
}

#[tokio::test]
async fn an_ephemeral_container_is_neither_changed_nor_removed_nor_given_to_a_static_pod() {
    let mut mirror = workload_pod(NAMESPACE, "static", "gpu-1", 0);
    mirror.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
    let fixture = Fixture::of([node("gpu-1")]).with_pod(mirror).with_pod(workload_pod(NAMESPACE, "work", "gpu-1", 8));
    let (_cluster, client) = start(fixture).await;
    let parameters = PatchParams::default();
    let add = |container| Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
    pods(&client).patch_ephemeral_containers("work", &parameters, &add(ephemeral("one"))).await.unwrap();
    let changed = add(json!({"name": "one", "image": "other:1"}));
    let refusal = pods(&client).patch_ephemeral_containers("work", &parameters, &changed).await.unwrap_err();
    assert_eq!(status(&refusal).code, 422);
    assert!(status(&refusal).message.contains("\"one\" may not be changed"), "{refusal}");
    let mut pod = pods(&client).get_ephemeral_containers("work").await.unwrap();
    pod.spec.as_mut().unwrap().ephemeral_containers = None;
    let refusal = pods(&client).replace_ephemeral_containers("work", &PostParams::default(), &pod).await.unwrap_err();
    assert!(status(&refusal).message.contains("may not be removed"), "{refusal}");
    let refusal =
        pods(&client).patch_ephemeral_containers("static", &parameters, &add(ephemeral("one"))).await.unwrap_err();
    assert!(status(&refusal).message.contains("static pods do not support ephemeral containers"), "{refusal}");
}
