//! Tests of exec: the probe as program, both websocket protocols (v4, v5), rejections before the start, standard input,
//! closed connections, many execs at once.

use std::time::Duration;

use demo_cluster::{Cluster, ExecFault, ExecRefusals, Fixture, Timing};
use futures_util::{SinkExt, StreamExt};
use kube::api::{AttachParams, DeleteParams};
use serde_json::json;
use syringe_core::report::SCHEMA_VERSION;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::support::{
    NAMESPACE, authorization, create, echo, exec, finish, node, phase, pods, probe_on, refused, start, streams,
    until_phase,
};

#[tokio::test]
async fn an_exec_runs_the_real_probe_before_the_api_says_running() {
    let timing = Timing { status_lag: Duration::from_secs(30), ..Timing::fast() };
    let (_cluster, client) = start(Fixture { timing, ..Fixture::of([node("gpu-1")]) }).await;
    create(&client, probe_on("gpu-1", "a")).await;
    let ran = finish(exec(&client, "a", &["/usr/bin/node-probe", "inventory"], &streams()).await).await;
    assert_eq!(phase(&pods(&client).get("a").await.unwrap()), "Pending");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["schema_version"], &report["hostname"]), (&json!(SCHEMA_VERSION), &json!("gpu-1")));
    let ran = finish(exec(&client, "a", &["node-probe", "no-such-section"], &streams()).await).await;
    assert_eq!(ran.exit_code.as_deref(), Some("2"));
    assert_eq!(ran.status.unwrap().reason, "NonZeroExitCode");
    assert!(!ran.success);
    let ran = finish(exec(&client, "a", &["bash"], &streams()).await).await;
    assert!(ran.status.unwrap().message.contains("executable file not found in $PATH"));
}

#[tokio::test]
async fn an_exec_before_the_start_is_refused_before_the_upgrade() {
    let timing = Timing {
        kubelet_sees: Duration::from_millis(150),
        container_start: Duration::from_millis(400),
        ..Timing::fast()
    };
    let (_cluster, client) = start(Fixture { timing, ..Fixture::of([node("gpu-1")]) }).await;
    create(&client, probe_on("gpu-1", "a")).await;
    let early = refused(&client, "a", &streams()).await;
    assert_eq!((early.code, early.message.as_str()), (404, "pod does not exist"));
    tokio::time::sleep(Duration::from_millis(220)).await;
    let early = refused(&client, "a", &streams()).await;
    assert_eq!(early.code, 500);
    assert!(early.message.contains("container not found"), "{early:?}");
    let wrong = AttachParams::default().container("nope");
    let refusal = refused(&client, "a", &wrong).await;
    assert_eq!(refusal.message, "container nope is not valid for pod a");
}

#[tokio::test]
async fn an_older_cluster_refuses_on_the_status_channel() {
    let timing = Timing { container_start: Duration::from_secs(30), ..Timing::fast() };
    let exec_refusals = ExecRefusals::OnStatusChannel;
    let (_cluster, client) = start(Fixture { timing, exec_refusals, ..Fixture::of([node("gpu-1")]) }).await;
    create(&client, probe_on("gpu-1", "a")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ran = finish(pods(&client).exec("a", ["node-probe"], &streams()).await.unwrap()).await;
    let status = ran.status.unwrap();
    assert!(status.message.contains("unable to upgrade connection: container not found (\"probe\")"), "{status:?}");
}

#[tokio::test]
async fn stdin_is_half_closed_and_all_input_is_returned() {
    let (_cluster, client) = echo().await;
    let mut process = exec(&client, "a", &["echo"], &streams().stdin(true)).await;
    let mut stdin = process.stdin().unwrap();
    let sent = vec![b'y'; 300_000];
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            stdin.write_all(&sent).await.unwrap();
            stdin.shutdown().await.unwrap();
        }
    });
    let ran = finish(process).await;
    sending.await.unwrap();
    assert_eq!(ran.stdout.len(), sent.len());
    assert_eq!(ran.exit_code.as_deref(), Some("7"));
}

async fn socket(
    cluster: &Cluster,
    protocol: &str,
    query: &str,
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, WsError> {
    let address = cluster.url().replace("http://", "");
    let url = format!("ws://{address}/api/v1/namespaces/{NAMESPACE}/pods/a/exec?container=probe&{query}");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    request.headers_mut().insert("authorization", authorization(cluster).parse().unwrap());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, response)| {
        assert_eq!(response.headers()["sec-websocket-protocol"], *protocol);
        socket
    })
}

#[tokio::test]
async fn the_older_protocol_carries_the_same_channels() {
    let (cluster, client) = echo().await;
    until_phase(&client, "a", "Running").await;
    let query = "command=output&command=70000&stdout=true&stderr=true";
    let mut socket = socket(&cluster, "v4.channel.k8s.io", query).await.unwrap();
    let mut lengths = [0_usize; 4];
    let mut status = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(frame) => {
                lengths[usize::from(frame[0])] += frame.len() - 1;
                if frame[0] == 3 {
                    status = frame[1..].to_vec();
                }
            }
            Message::Close(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((lengths[1], lengths[2]), (70_000, 6));
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn only_the_newer_protocol_half_closes_stdin() {
    let (cluster, client) = echo().await;
    until_phase(&client, "a", "Running").await;
    for (protocol, ends) in [("v5.channel.k8s.io", true), ("v4.channel.k8s.io", false)] {
        let mut socket = socket(&cluster, protocol, "command=echo&stdin=true&stdout=true").await.unwrap();
        socket.send(Message::binary(vec![0, b'a', b'b'])).await.unwrap();
        socket.send(Message::binary(vec![255, 0])).await.unwrap();
        let mut ended = false;
        let wait = Duration::from_millis(if ends { 5_000 } else { 200 });
        while let Ok(Some(Ok(message))) = tokio::time::timeout(wait, socket.next()).await {
            if let Message::Binary(frame) = message
                && frame[0] == 3
            {
                ended = true;
                break;
            }
        }
        assert_eq!(ended, ends, "{protocol}");
    }
    assert!(socket(&cluster, "v3.channel.k8s.io", "command=echo&stdout=true").await.is_err());
}

#[tokio::test]
async fn a_closed_connection_has_no_close_frame() {
    let (cluster, client) = echo().await;
    until_phase(&client, "a", "Running").await;
    cluster.faults(|faults| faults.everywhere.exec = Some(ExecFault::Cut { after_bytes: 5 }.into()));
    let mut socket = socket(&cluster, "v5.channel.k8s.io", "command=output&command=99&stdout=true").await.unwrap();
    let mut last = None;
    while let Some(message) = socket.next().await {
        assert!(!matches!(message, Ok(Message::Close(_))));
        last = Some(message);
    }
    assert!(matches!(last, Some(Err(_))), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_execs_at_once_all_answer() {
    let (cluster, client) = start(Fixture::of((0..300).map(|number| node(&format!("gpu-{number}"))))).await;
    let probes = (0..300).map(|number| {
        let client = client.clone();
        async move {
            let name = format!("probe-{number}");
            create(&client, probe_on(&format!("gpu-{number}"), &name)).await;
            let ran = finish(exec(&client, &name, &["node-probe", "inventory"], &streams()).await).await;
            pods(&client).delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
            assert!(serde_json::from_slice::<serde_json::Value>(&ran.stdout).is_ok());
        }
    });
    futures_util::future::join_all(probes).await;
    assert_eq!((cluster.pods_created(), cluster.pods(NAMESPACE).len()), (300, 0));
}
