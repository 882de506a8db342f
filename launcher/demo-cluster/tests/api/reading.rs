//! Tests of discovery, get, list, paging, watch and response formats, of the shutdown of a cluster, and of the nodes of
//! the demo.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use demo_cluster::{Fixture, demo, workload_pod};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::support::{create, node, phase, pods, probe_on, start, status, until};

#[tokio::test]
async fn discovery_says_version_groups_and_health() {
    let (_cluster, client) = start(Fixture::of([])).await;
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    let groups: Vec<_> = client.list_api_groups().await.unwrap().groups.into_iter().map(|group| group.name).collect();
    assert!(groups.contains(&"resource.k8s.io".to_owned()));
    let core = client.list_core_api_resources("v1").await.unwrap();
    assert!(core.resources.iter().any(|resource| resource.name == "pods/exec"));
    let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(ready).await.unwrap(), "ok");
}

#[tokio::test]
async fn nodes_are_read_by_name_label_field_and_page() {
    let nodes = (0..25).map(|number| {
        let node = node(&format!("gpu-{number:02}"));
        if number % 2 == 0 { node.with_label("even", "yes") } else { node }
    });
    let (cluster, client) = start(Fixture::of(nodes)).await;
    let api: Api<Node> = Api::all(client);
    let one = api.get("gpu-07").await.unwrap();
    assert_eq!(one.status.unwrap().allocatable.unwrap()["nvidia.com/gpu"].0, "8");
    assert_eq!(api.list(&ListParams::default().labels("even=yes")).await.unwrap().items.len(), 13);
    assert_eq!(api.list(&ListParams::default().labels("!even")).await.unwrap().items.len(), 12);
    assert_eq!(api.list(&ListParams::default().fields("metadata.name=gpu-03")).await.unwrap().items.len(), 1);
    let mut names = Vec::new();
    let mut parameters = ListParams::default().limit(10);
    loop {
        let page = api.list(&parameters).await.unwrap();
        let remaining = page.metadata.remaining_item_count;
        names.extend(page.items.into_iter().filter_map(|node| node.metadata.name));
        assert_eq!(remaining.unwrap_or(0), 25 - names.len() as i64);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names.len(), 25);
    assert!(names.is_sorted());
    cluster.edit_node("gpu-00", |node| node.spec.as_mut().unwrap().unschedulable = Some(true));
    assert_eq!(api.list(&ListParams::default().fields("spec.unschedulable=true")).await.unwrap().items.len(), 1);
    assert_eq!(status(&api.get("gpu-99").await.unwrap_err()).reason, "NotFound");
    assert_eq!(status(&api.list(&ListParams::default().fields("a=b")).await.unwrap_err()).code, 400);
    assert!(cluster.requests().contains(&"GET /api/v1/nodes/gpu-07".to_owned()));
}

#[tokio::test]
async fn a_page_whose_token_is_too_old_is_gone() {
    let (cluster, client) = start(Fixture::of((0..4).map(|number| node(&format!("gpu-{number}"))))).await;
    let api: Api<Node> = Api::all(client);
    let token = api.list(&ListParams::default().limit(2)).await.unwrap().metadata.continue_.unwrap();
    cluster.faults(|faults| faults.api.expired_continues = 1);
    let next = ListParams::default().limit(2).continue_token(&token);
    assert_eq!(status(&api.list(&next).await.unwrap_err()).code, 410);
    assert_eq!(api.list(&next).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn pods_are_listed_by_node_phase_and_namespace() {
    let mut fixture = Fixture::of([node("gpu-1"), node("gpu-2")]);
    for number in 0..6 {
        let (namespace, node) = (["train", "serve"][number % 2], ["gpu-1", "gpu-2"][number / 3]);
        fixture = fixture.with_pod(workload_pod(namespace, &format!("work-{number}"), node, 1));
    }
    let (cluster, client) = start(fixture).await;
    let all: Api<Pod> = Api::all(client.clone());
    let count = async |selector: &str| all.list(&ListParams::default().fields(selector)).await.unwrap().items.len();
    assert_eq!(count("spec.nodeName=gpu-1").await, 3);
    assert_eq!(count("spec.nodeName!=gpu-1").await, 3);
    assert_eq!(count("spec.nodeName=gpu-1,metadata.namespace=train").await, 2);
    assert_eq!(count("status.phase!=Running").await, 0);
    let train: Api<Pod> = Api::namespaced(client.clone(), "train");
    assert_eq!(train.list(&ListParams::default().labels("app in (a,b)")).await.unwrap().items.len(), 0);
    assert_eq!(train.list(&ListParams::default()).await.unwrap().items.len(), 3);
    assert_eq!(cluster.pods("train").len(), 3);
    let namespaces: Api<Namespace> = Api::all(client);
    assert_eq!(namespaces.get("serve").await.unwrap().metadata.name.unwrap(), "serve");
    assert!(namespaces.list(&ListParams::default()).await.unwrap().items.len() >= 4);
}

#[tokio::test]
async fn claims_and_slices_are_listed_as_they_were_given() {
    let resource_slices = vec![json!({"metadata": {"name": "slice"}, "spec": {"driver": "gpu.nvidia.com"}})];
    let (_cluster, client) = start(Fixture { resource_slices, ..Fixture::of([]) }).await;
    let list = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<serde_json::Value>(request).await.unwrap()
    };
    let slices = list("/apis/resource.k8s.io/v1/resourceslices").await;
    assert_eq!(slices["items"][0]["spec"]["driver"], "gpu.nvidia.com");
    let claims = list("/apis/resource.k8s.io/v1/namespaces/a/resourceclaims").await;
    assert_eq!(claims["items"], json!([]));
}

#[tokio::test]
async fn a_cluster_of_five_thousand_nodes_is_read_by_pages() {
    let mut fixture = Fixture::of((0..5_000).map(|number| node(&format!("gpu-{number:04}"))));
    fixture.pods = (0..50_000)
        .map(|number| workload_pod("work", &format!("p{number}"), &format!("gpu-{:04}", number / 10), 1))
        .collect();
    let (_cluster, client) = start(fixture).await;
    let all: Api<Pod> = Api::all(client);
    let before = Instant::now();
    let on_one = all.list(&ListParams::default().fields("spec.nodeName=gpu-4321")).await.unwrap();
    assert_eq!(on_one.items.len(), 10);
    let page = all.list(&ListParams::default().limit(500)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (500, Some(49_500)));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_cluster_that_is_dropped_stops_listening_and_the_kubeconfig_is_a_file() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let read: kube::config::Kubeconfig = kube::config::Kubeconfig::from_yaml(&cluster.kubeconfig_yaml()).unwrap();
    assert_eq!(read.current_context.as_deref(), Some("embedded"));
    let nodes: Api<Node> = Api::all(client);
    nodes.get("gpu-1").await.unwrap();
    let url = cluster.url();
    drop(cluster);
    until("closed", async || tokio::net::TcpStream::connect(url.replace("http://", "")).await.err()).await;
    assert!(nodes.get("gpu-1").await.is_err());
}

#[tokio::test]
async fn a_watch_reports_deletions_ends_in_time_and_needs_the_history() {
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    create(&client, probe_on("nowhere", "a")).await;
    let mut watch = pods(&client).watch(&WatchParams::default().timeout(1), "0").await.unwrap().boxed();
    assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    pods(&client).delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    assert!(watch.try_next().await.unwrap().is_none());
    cluster.compact();
    let mut watch = pods(&client).watch(&WatchParams::default().timeout(5), "1").await.unwrap().boxed();
    match watch.try_next().await.unwrap() {
        Some(WatchEvent::Error(status)) => assert_eq!(status.code, 410),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_with_a_selector_reports_an_object_that_left_the_selection_as_deleted() {
    let (_cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    let parameters = WatchParams::default().fields("status.phase=Pending").timeout(10);
    let mut watch = pods(&client).watch(&parameters, "0").await.unwrap().boxed();
    create(&client, probe_on("gpu-1", "a")).await;
    let mut last = None;
    while !matches!(last, Some(WatchEvent::Deleted(_))) {
        last = watch.try_next().await.unwrap();
        assert!(last.is_some());
    }
    let Some(WatchEvent::Deleted(pod)) = last else { unreachable!() };
    assert_eq!(phase(&pod), "Running");
}

#[tokio::test]
async fn the_demo_has_gpu_nodes_with_problems_and_pods_with_gpus() {
    let (_cluster, client) = start(demo()).await;
    let nodes: Api<Node> = Api::all(client.clone());
    let gpu_nodes = nodes.list(&ListParams::default().labels("nvidia.com/gpu.present=true")).await.unwrap();
    let names: Vec<_> = gpu_nodes.items.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    assert_eq!(names, ["gpu-1", "gpu-2", "gpu-3"]);
    let lost = gpu_nodes.items[1].status.as_ref().unwrap();
    let amount = |amounts: &Option<BTreeMap<String, Quantity>>| amounts.as_ref().unwrap()["nvidia.com/gpu"].0.clone();
    assert_eq!((amount(&lost.capacity), amount(&lost.allocatable)), ("8".to_owned(), "7".to_owned()));
    let held: Api<Pod> = Api::all(client.clone());
    let on_one = held.list(&ListParams::default().fields("spec.nodeName=gpu-1")).await.unwrap();
    assert!(!on_one.items.is_empty());
    let events: Api<Event> = Api::namespaced(client, "research");
    let about = events.list(&ListParams::default().fields("involvedObject.name=finetune-0")).await.unwrap();
    assert_eq!(about.items[0].reason.as_deref(), Some("FailedScheduling"));
}

/// Returns the content type, code and body of the response to a request with this `Accept` header.
async fn accepting(client: &kube::Client, path: &str, accept: &str) -> (String, u16, Vec<u8>) {
    let request =
        http::Request::get(path).header(http::header::ACCEPT, accept).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (headers[http::header::CONTENT_TYPE].to_str().unwrap().to_owned(), code, bytes.to_vec())
}

#[tokio::test]
async fn objects_and_errors_are_served_in_the_format_that_the_client_prefers() {
    let protobuf = "application/vnd.kubernetes.protobuf";
    let (cluster, client) = start(Fixture::of([node("gpu-1")])).await;
    for accept in [protobuf, "application/vnd.kubernetes.protobuf, application/json;q=0.9"] {
        let (content, code, bytes) = accepting(&client, "/api/v1/nodes", accept).await;
        assert_eq!((content.as_str(), code, &bytes[..4]), (protobuf, 200, &b"k8s\0"[..]));
        assert!(bytes.windows(5).any(|part| part == b"gpu-1"));
        let (content, code, bytes) = accepting(&client, "/api/v1/nodes/gpu-9", accept).await;
        assert_eq!((content.as_str(), code, &bytes[..4]), (protobuf, 404, &b"k8s\0"[..]));
    }
    let json = "application/json";
    let (content, code, _) = accepting(&client, "/api/v1/nodes", "application/json, */*").await;
    assert_eq!((content.as_str(), code), (json, 200));
    // Events have no protobuf table. The response is in JSON if the client accepts JSON. Otherwise, the code is 406.
    let (content, code, _) =
        accepting(&client, "/api/v1/events", "application/vnd.kubernetes.protobuf, application/json;q=0.5").await;
    assert_eq!((content.as_str(), code), (json, 200));
    assert_eq!(accepting(&client, "/api/v1/nodes", "text/html").await.1, 406);
    cluster.faults(|faults| faults.api.protobuf_refusal = Some(demo_cluster::ProtobufRefusal::NotAcceptable));
    assert_eq!(accepting(&client, "/api/v1/nodes", protobuf).await.1, 406);
    assert_eq!(accepting(&client, "/api/v1/nodes", json).await.1, 200);
}
