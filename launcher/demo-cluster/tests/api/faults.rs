//! Tests of the faults that a test can set (node, image pull, pod start, exec, API requests, clock), of Pod Security,
//! and of denied requests.

use std::time::{Duration, Instant};

use demo_cluster::{AnswerFault, CountedFault, Denial, ExecFault, Fixture, RequestFault, StartFault, Timing};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Error;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::support::{
    IMAGE, NAMESPACE, create, echo, exec, finish, node, pods, probe_on, refused, start, status, streams, until,
    until_phase,
};

#[tokio::test]
async fn a_node_that_is_not_ready_starts_no_pods_and_reports_no_status() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    let nodes: Api<Node> = Api::all(client.clone());
    let ready = async || {
        let conditions = nodes.get("gpu-1").await.unwrap().status.unwrap().conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().status
    };
    assert_eq!(ready().await, "Unknown");
    create(&client, probe_on("gpu-1", "a")).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(pods(&client).get("a").await.unwrap().status.unwrap().start_time.is_none());
    let events: Api<Event> = Api::all(client.clone());
    assert!(events.list(&ListParams::default()).await.unwrap().items.is_empty());
    let refusal = refused(&client, "a", &streams()).await;
    assert!(refusal.message.contains("error dialing backend"), "{refusal:?}");
    cluster.faults(|faults| faults.on("gpu-1").not_ready = false);
    assert_eq!(ready().await, "True");
    until_phase(&client, "a", "Running").await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_backs_off_with_events() {
    // The times are long enough to see each state on a busy machine.
    let timing = Timing { pull_back_off: Duration::from_millis(500), ..Timing::fast() };
    let nodes = [node("gpu-1").with_unpullable_image(IMAGE), node("gpu-2")];
    let (cluster, client) = start(Fixture { timing, ..Fixture::of(nodes) }).await;
    cluster.faults(|faults| faults.on("gpu-2").start = Some(StartFault::ImagePull.into()));
    for name in ["gpu-1", "gpu-2"] {
        create(&client, probe_on(name, name)).await;
        let reason = |pod: &Pod| {
            let slots = pod.status.as_ref()?.container_statuses.as_ref()?;
            slots[0].state.as_ref()?.waiting.as_ref()?.reason.clone()
        };
        for wanted in ["ErrImagePull", "ImagePullBackOff"] {
            until(wanted, async || {
                let pod = pods(&client).get(name).await.unwrap();
                (reason(&pod).as_deref() == Some(wanted)).then_some(())
            })
            .await;
        }
        let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
        let about = ListParams::default().fields(&format!("involvedObject.name={name},type=Warning"));
        let events = events.list(&about).await.unwrap().items;
        assert!(events.iter().any(|event| event.message.as_deref().unwrap().starts_with("Failed to pull image")));
        let refusal = refused(&client, name, &streams()).await;
        assert!(refusal.message.contains("container not found (\"probe\")"), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_pod_that_the_kubelet_rejects_has_failed() {
    let tainted = node("gpu-2").with_taint("broken", "NoExecute");
    let (cluster, client) = start(Fixture::of([node("gpu-1"), tainted])).await;
    cluster.faults(|faults| faults.on("gpu-1").start = Some(CountedFault::once(StartFault::out_of_pods())));
    create(&client, probe_on("gpu-1", "full")).await;
    let status = until_phase(&client, "full", "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("OutOfpods"));
    assert!(status.message.unwrap().starts_with("Pod was rejected: Node didn't have enough resource: pods"));
    create(&client, probe_on("gpu-1", "second")).await;
    until_phase(&client, "second", "Running").await;
    create(&client, probe_on("gpu-2", "tolerant")).await;
    until_phase(&client, "tolerant", "Running").await;
    let mut plain = probe_on("gpu-2", "plain");
    plain.spec.as_mut().unwrap().tolerations = None;
    create(&client, plain).await;
    let status = until_phase(&client, "plain", "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("TaintToleration"));
}

#[tokio::test]
async fn a_namespace_that_enforces_pod_security_refuses_a_privileged_pod() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    cluster.faults(|faults| faults.api.pod_security = true);
    let refusal = pods(&client).create(&PostParams::default(), &probe_on("gpu-1", "a")).await.unwrap_err();
    assert_eq!(status(&refusal).code, 403);
    assert_eq!(
        status(&refusal).message,
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true, \
         hostPID=true), privileged (container \"probe\" must not set securityContext.privileged=true)"
    );
}

#[tokio::test]
async fn denied_requests_are_refused_and_a_review_shows_it() {
    let fixture = Fixture::of([node("gpu-1")]).denying(Denial::of("create", "pods/exec"));
    let (_cluster, client) = start(fixture).await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let allowed = async |verb: &str, subresource: &str| {
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes": {
            "namespace": NAMESPACE, "verb": verb, "resource": "pods", "subresource": subresource,
        }}}));
        reviews.create(&PostParams::default(), &review.unwrap()).await.unwrap().status.unwrap().allowed
    };
    assert!(allowed("create", "").await);
    assert!(!allowed("create", "exec").await);
    create(&client, probe_on("gpu-1", "a")).await;
    let refusal = refused(&client, "a", &streams()).await;
    assert_eq!(
        refusal.message,
        "pods \"a\" is forbidden: User \"gpu-syringe\" cannot create resource \"pods/exec\" in API group \"\" in the \
         namespace \"default\""
    );
}

#[tokio::test]
async fn an_exec_is_cut_truncated_or_killed_in_the_middle() {
    let (cluster, client) = echo().await;
    let run = async |fault: ExecFault| {
        cluster.faults(|faults| faults.on("gpu-1").exec = Some(CountedFault::once(fault)));
        finish(exec(&client, "a", &["output", "100000"], &streams()).await).await
    };
    let disconnected = run(ExecFault::Cut { after_bytes: 1_000 }).await;
    assert_eq!((disconnected.stdout.len(), disconnected.status.is_none()), (1_000, true));
    let truncated = run(ExecFault::Truncated { after_bytes: 2_000 }).await;
    assert_eq!((truncated.stdout.len(), truncated.success), (2_000, true));
    let killed = run(ExecFault::Killed { after_bytes: 10 }).await;
    assert_eq!((killed.stdout.len(), killed.exit_code.as_deref()), (10, Some("137")));
    let healed = finish(exec(&client, "a", &["output", "100000"], &streams()).await).await;
    assert_eq!((healed.stdout.len(), healed.success), (100_000, true));
}

#[tokio::test]
async fn an_exec_hangs_or_is_refused_or_is_not_upgraded() {
    let (cluster, client) = echo().await;
    finish(exec(&client, "a", &["output", "1"], &streams()).await).await;
    let arm = |fault: ExecFault| cluster.faults(|faults| faults.on("gpu-1").exec = Some(CountedFault::once(fault)));
    arm(ExecFault::Hang);
    let mut process = pods(&client).exec("a", ["output", "1"], &streams()).await.unwrap();
    let (mut stdout, mut byte) = (process.stdout().unwrap(), [0]);
    assert!(tokio::time::timeout(Duration::from_millis(200), stdout.read(&mut byte)).await.is_err());
    arm(ExecFault::Forbidden);
    let refusal = refused(&client, "a", &streams()).await;
    assert_eq!(refusal.code, 403);
    for code in [400, 403, 502] {
        arm(ExecFault::UpgradeRefused(code));
        let refusal = refused(&client, "a", &streams()).await;
        assert_eq!(refusal.code, code);
    }
    assert!(finish(pods(&client).exec("a", ["output", "1"], &streams()).await.unwrap()).await.success);
}

#[tokio::test]
async fn all_processes_of_a_pod_end_with_it() {
    let (cluster, client) = echo().await;
    let process = exec(&client, "a", &["echo"], &streams().stdin(true)).await;
    pods(&client).delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(finish(process).await.exit_code.as_deref(), Some("137"));
    let killed = CountedFault::once(Duration::from_millis(30));
    cluster.faults(|faults| faults.on("gpu-1").main_process_killed = Some(killed));
    create(&client, probe_on("gpu-1", "b")).await;
    let status = until_phase(&client, "b", "Failed").await.status.unwrap();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((state.exit_code, state.reason.as_deref()), (137, Some("OOMKilled")));
}

#[tokio::test]
async fn a_slow_start_delays_the_exec() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let slow = CountedFault::once(StartFault::Slow(Duration::from_millis(300)));
    cluster.faults(|faults| faults.on("gpu-1").start = Some(slow));
    let before = Instant::now();
    create(&client, probe_on("gpu-1", "a")).await;
    finish(exec(&client, "a", &["node-probe", "inventory"], &streams()).await).await;
    assert!(before.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn request_faults_happen_the_given_number_of_times() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let nodes: Api<Node> = Api::all(client.clone());
    cluster.faults(|faults| faults.api.too_many_requests(2, 3));
    for _ in 0..2 {
        let refusal = nodes.get("gpu-1").await.unwrap_err();
        assert_eq!(status(&refusal).code, 429);
        assert_eq!(status(&refusal).details.as_ref().unwrap().retry_after_seconds, 3);
    }
    nodes.get("gpu-1").await.unwrap();
    cluster.faults(|faults| faults.api.internal_errors(1));
    assert_eq!(status(&nodes.get("gpu-1").await.unwrap_err()).code, 500);
    create(&client, probe_on("gpu-1", "a")).await;
    cluster.faults(|faults| faults.api.failing_deletes(2));
    for _ in 0..2 {
        let refusal = pods(&client).delete("a", &DeleteParams::default()).await.unwrap_err();
        assert_eq!(status(&refusal).code, 500);
    }
    pods(&client).delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    let fault = |answer| RequestFault { verb: Some("get"), resource: Some("nodes"), answer };
    let closed = fault(CountedFault::once(AnswerFault::Closed));
    cluster.faults(|faults| faults.api.requests.push(closed));
    assert!(!matches!(nodes.get("gpu-1").await, Err(Error::Api(_)) | Ok(_)));
    cluster.faults(|faults| faults.api.slow(Duration::from_millis(200)));
    let before = Instant::now();
    nodes.get("gpu-1").await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_late_request_is_served_although_its_client_has_left() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let late = CountedFault::once(AnswerFault::Late(Duration::from_millis(300)));
    let fault = RequestFault { verb: Some("create"), resource: Some("pods"), answer: late };
    cluster.faults(|faults| faults.api.requests.push(fault));
    let creating = async { pods(&client).create(&PostParams::default(), &probe_on("gpu-1", "a")).await };
    assert!(tokio::time::timeout(Duration::from_millis(100), creating).await.is_err());
    assert_eq!((cluster.pods(NAMESPACE).len(), cluster.pods_created()), (0, 0));
    until("the pod", async || (cluster.pods(NAMESPACE).len() == 1).then_some(())).await;
    until("the client left", async || (cluster.requests_in_service() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_clock_of_the_server_is_in_dates_and_creation_times() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    cluster.faults(|faults| faults.api.clock_behind = Duration::from_secs(1_200));
    create(&client, probe_on("gpu-1", "a")).await;
    let created = pods(&client).get("a").await.unwrap().metadata.creation_timestamp.unwrap().0;
    let request = http::Request::get("/version").body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let date = response.headers()["date"].to_str().unwrap().to_owned();
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&date).unwrap();
    for time in [created, date] {
        let behind = jiff::Timestamp::now().duration_since(time).as_secs();
        assert!((1_200..1_230).contains(&behind), "{behind}");
    }
}

#[tokio::test]
async fn a_conflict_of_a_quota_stores_nothing() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let answer = CountedFault::once(AnswerFault::Conflict);
    cluster.faults(|faults| {
        faults.api.requests.push(RequestFault { verb: Some("create"), resource: Some("pods"), answer });
    });
    let refusal = pods(&client).create(&PostParams::default(), &probe_on("gpu-1", "a")).await.unwrap_err();
    assert_eq!((status(&refusal).code, status(&refusal).reason.as_str()), (409, "Conflict"));
    assert!(status(&refusal).message.starts_with("Operation cannot be fulfilled on resourcequotas \"quota\""));
    assert_eq!(cluster.pods_created(), 0);
}
