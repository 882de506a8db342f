//! Tests with an unreachable cluster: errors with the address come within 10 s, and the tools are still listed.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cleanup::on_gpu_1;
use crate::support::client::Client;
use crate::support::launcher::Launcher;

/// Maximum time until an error.
const ERROR_COMES: Duration = Duration::from_secs(10);
/// Maximum time until the tools are listed: far longer than needed, but far shorter than any wait for a cluster.
const LIST_COMES: Duration = Duration::from_secs(3);

fn launcher(home: &Path, server: &str) -> Launcher {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dead",
        "clusters": [{"name": "dead", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "me"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    });
    std::fs::write(home.join("config"), kubeconfig.to_string()).unwrap();
    Launcher::alone(home).env("KUBECONFIG", home.join("config"))
}

/// Asserts that each tool fails in time with an error that contains the address of the server.
async fn names_the_server(server: &str) {
    let home = tempfile::tempdir().unwrap();
    let mut client = Client::start(launcher(home.path(), server)).await;
    let began = Instant::now();
    client.tools().await;
    assert!(began.elapsed() < LIST_COMES, "{:?}", began.elapsed());
    let calls = [
        client.send_call("list_gpu_nodes", json!({})),
        client.send_call("get_gpu_inventory", on_gpu_1()),
        client.send_call("analyze_xid_errors", on_gpu_1()),
    ];
    for call in calls {
        let answer = client.result(call).await;
        assert!(began.elapsed() < ERROR_COMES, "{:?}", began.elapsed());
        answer.error_with(&[server, "can be reached"]);
    }
    // A cluster that does not respond must not delay the exit of the program.
    let began = Instant::now();
    client.close().await;
    assert!(began.elapsed() < ERROR_COMES, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    names_the_server(&format!("http://{closed}")).await;
    names_the_server(&format!("https://{closed}")).await;
}

#[tokio::test]
async fn a_proxy_is_named_if_it_is_used_and_skipped_if_the_server_is_exempt() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let said = async |exempt: &str| {
        let launcher = launcher(home.path(), "https://api.invalid:6443").env("NO_PROXY", exempt);
        let launcher = launcher.env("HTTPS_PROXY", format!("http://me:secret@{closed}"));
        launcher.args(["nodes"]).run().await.stderr
    };
    let by_proxy = said("other.invalid").await;
    assert!(by_proxy.contains(&format!("through the proxy http://{closed}")), "{by_proxy}");
    assert!(!by_proxy.contains("secret"), "{by_proxy}");
    let exempt = said(".invalid").await;
    assert!(exempt.contains("https://api.invalid:6443") && !exempt.contains("proxy http"), "{exempt}");
}

#[cfg(feature = "demo")]
#[tokio::test]
async fn the_demo_cluster_is_reached_without_the_proxy() {
    let home = tempfile::tempdir().unwrap();
    for (proxy, exempt) in [("http://127.0.0.1:1", ""), ("nonsense://%", "a,")] {
        let launcher = Launcher::alone(home.path()).env("HTTPS_PROXY", proxy).env("NO_PROXY", exempt);
        let answer = launcher.args(["--demo", "nodes"]).run().await.json();
        assert_eq!(answer["context"], "demo");
    }
}

#[tokio::test]
async fn a_server_without_a_scheme_is_an_error_and_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let ended = launcher(home.path(), "127.0.0.1:6443").args(["nodes"]).run().await;
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.stderr.contains("does not start with https://") && !ended.stderr.contains("panicked"),
        "{}",
        ended.stderr
    );
}

/// A server that accepts connections but reads nothing, for connections without TLS, with TLS, and for a command.
#[tokio::test]
async fn a_server_that_never_answers_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (clear, tls) = (format!("http://{address}"), format!("https://{address}"));
    tokio::join!(names_the_server(&clear), names_the_server(&tls), a_command_names_the_server(&clear));
}

#[tokio::test]
async fn a_server_whose_name_does_not_resolve_is_named() {
    names_the_server("https://api.gpu-syringe.invalid:6443").await;
}

async fn a_command_names_the_server(server: &str) {
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let ended = launcher(home.path(), server).args(["inventory", "gpu-1"]).run().await;
    assert!(began.elapsed() < ERROR_COMES, "{:?}", began.elapsed());
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains(server), "{}", ended.stderr);
}
