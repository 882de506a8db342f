//! Tests that the API server rejects requests without the token of this run, to another host name, and from web pages.

use demo_cluster::{Cluster, Fixture};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{authorization, node, start};

/// Sends a request with exactly these headers. Returns the status code and the body.
async fn send(cluster: &Cluster, method: &Method, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let address = cluster.url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all((request + "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_default())
}

fn host(cluster: &Cluster) -> String {
    cluster.url().replace("http://", "")
}

/// One path of each kind: a resource, a subresource with an upgrade, discovery, health, and a path that does not exist.
const PATHS: [&str; 6] = [
    "/api/v1/nodes",
    "/api/v1/namespaces/default/pods/a/exec?command=sh&stdout=true",
    "/version",
    "/readyz",
    "/api",
    "/nothing",
];

#[tokio::test]
async fn a_request_without_the_token_of_this_run_is_unauthorized() {
    let (cluster, _client) = start(Fixture::of([node("gpu-1")])).await;
    let (other, _client) = start(Fixture::of([node("gpu-1")])).await;
    let host = host(&cluster);
    let own = authorization(&cluster);
    let foreign = authorization(&other);
    assert_ne!(own, foreign);
    assert!(own.len() >= "Bearer ".len() + 32, "{own}");
    let shortened = &own[..own.len() - 1];
    let longer = format!("{own}0");
    let wrong = ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", foreign.as_str(), shortened, &longer, &own[7..]];
    for path in PATHS {
        let (code, status) = send(&cluster, &Method::GET, path, &[("host", &host)]).await;
        assert_eq!(
            (code, &status["kind"], &status["reason"]),
            (StatusCode::UNAUTHORIZED, &json!("Status"), &json!("Unauthorized")),
            "{path}"
        );
        assert_eq!((&status["code"], &status["status"]), (&json!(401), &json!("Failure")));
        for value in wrong {
            let (code, _) = send(&cluster, &Method::GET, path, &[("host", &host), ("authorization", value)]).await;
            assert_eq!(code, StatusCode::UNAUTHORIZED, "{path} {value}");
        }
    }
    let delete = "/api/v1/namespaces/default/pods/a";
    assert_eq!(send(&cluster, &Method::DELETE, delete, &[("host", &host)]).await.0, StatusCode::UNAUTHORIZED);
    let nodes = send(&cluster, &Method::GET, PATHS[0], &[("host", &host), ("authorization", &own)]).await;
    assert_eq!((nodes.0, &nodes.1["kind"]), (StatusCode::OK, &json!("NodeList")));
}

#[tokio::test]
async fn a_request_to_another_host_name_is_refused_even_with_the_token() {
    let (cluster, _client) = start(Fixture::of([node("gpu-1")])).await;
    let (host, token) = (host(&cluster), authorization(&cluster));
    let port = host.split_once(':').unwrap().1;
    let with =
        async |name: &str| send(&cluster, &Method::GET, PATHS[0], &[("host", name), ("authorization", &token)]).await;
    for good in [host.clone(), format!("localhost:{port}"), format!("LOCALHOST:{port}")] {
        assert_eq!(with(&good).await.0, StatusCode::OK, "{good}");
    }
    let rebound = format!("rebound.example:{port}");
    for bad in [
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost",
        &rebound,
        "",
        &format!("{host}.example"),
        &format!("127.0.0.1.example:{port}"),
    ] {
        let (code, status) = with(bad).await;
        assert_eq!((code, &status["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")), "{bad}");
    }
    let (code, _) = send(&cluster, &Method::GET, PATHS[0], &[("authorization", &token)]).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "no Host header");
    let twice = [("host", host.as_str()), ("host", &rebound), ("authorization", &token)];
    assert_ne!(send(&cluster, &Method::GET, PATHS[0], &twice).await.0, StatusCode::OK, "two Host headers");
}

#[tokio::test]
async fn a_request_of_a_web_page_is_refused_even_with_the_token() {
    let (cluster, _client) = start(Fixture::of([node("gpu-1")])).await;
    let (host, token) = (host(&cluster), authorization(&cluster));
    let own = cluster.url();
    for path in PATHS {
        for origin in ["https://page.example", "null", own.as_str(), ""] {
            let headers = [("host", host.as_str()), ("authorization", &token), ("origin", origin)];
            let (code, status) = send(&cluster, &Method::GET, path, &headers).await;
            assert_eq!((code, &status["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")), "{path} {origin}");
        }
    }
}
