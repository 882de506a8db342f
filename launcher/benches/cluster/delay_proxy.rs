//! `start`: starts a TCP proxy on loopback that delays all bytes by a fixed time, and writes its kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Starts a proxy in front of the server of `kubeconfig`, and writes a kubeconfig for the proxy into `directory`.
pub(crate) async fn start(kubeconfig: &Path, one_way: Duration, directory: &Path) -> PathBuf {
    let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
    let current = config.current_context.clone().unwrap();
    let context = config.contexts.iter().find(|named| named.name == current).unwrap().context.clone().unwrap();
    let named = config.clusters.iter_mut().find(|named| named.name == context.cluster).unwrap();
    let cluster = named.cluster.as_mut().unwrap();
    let server: http::Uri = cluster.server.as_ref().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scheme = server.scheme_str().unwrap();
    let target = format!("{}:{}", server.host().unwrap(), server.port_u16().unwrap_or(443));
    cluster.server = Some(format!("{scheme}://127.0.0.1:{port}"));
    if scheme == "https" {
        cluster.tls_server_name.get_or_insert_with(|| server.host().unwrap().to_owned());
    }
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connect(client, target.clone(), one_way));
        }
    });
    let path = directory.join("distant.kubeconfig");
    std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
    path
}

async fn connect(client: TcpStream, target: String, one_way: Duration) {
    // The TCP handshake with a distant cluster takes a round trip. Over loopback, the handshake takes almost no time.
    tokio::time::sleep(2 * one_way).await;
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(pass(from_client, to_server, one_way), pass(from_server, to_client, one_way));
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let _ = sender.send((Instant::now() + one_way, buffer[..count].to_vec()));
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
