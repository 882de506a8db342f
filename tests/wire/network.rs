//! Tests of connections that a network change (VPN, sleep) drops silently: both sides stay open, but no data arrives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use demo_cluster::{CountedFault, ExecFault};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bed::Bed;
use crate::cleanup::{READ, on_gpu_1};
use crate::support::client::Client;

/// A proxy whose open connections can be frozen. New connections still work.
struct Network {
    address: String,
    /// Number of connections that were opened.
    opened: Arc<AtomicU64>,
    /// Number of the last frozen connection.
    frozen: watch::Sender<u64>,
}

impl Network {
    /// Starts a proxy that passes bytes on to `server`. `connects`: clients first send a CONNECT request.
    async fn to(server: String, connects: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (frozen, all) = watch::channel(0);
        let opened = Arc::new(AtomicU64::new(0));
        let counter = opened.clone();
        // The cluster rejects requests for another host.
        let hosts = (address.clone(), server.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if connects {
                    answer_connect(&mut client).await.unwrap();
                }
                let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
                let server = TcpStream::connect(&server).await.unwrap();
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                let same = (String::new(), String::new());
                tokio::spawn(pass(client_in, server_out, hosts.clone(), number, all.clone()));
                tokio::spawn(pass(server_in, client_out, same, number, all.clone()));
            }
        });
        Self { address, opened, frozen }
    }

    /// Freezes all open connections: they stay open, but no more data passes.
    fn freeze(&self) {
        self.frozen.send_replace(self.opened.load(Ordering::Relaxed));
    }
}

/// Reads the header of a CONNECT request and responds.
async fn answer_connect(client: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await
}

/// Starts a cluster, and a session behind a proxy whose connections can be frozen. `as_proxy`: the kubeconfig has the
/// proxy as `proxy-url`.
async fn through_a_network(as_proxy: bool) -> (Bed, Network, Client) {
    let bed = Bed::healthy().await;
    let url = bed.cluster.url();
    let server = url.trim_start_matches("http://").trim_end_matches('/');
    let network = Network::to(server.to_owned(), as_proxy).await;
    let config = bed.cluster.kubeconfig_yaml();
    let config = if as_proxy {
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["clusters"][0]["cluster"]["proxy-url"] = json!(format!("http://{}", network.address));
        config.to_string()
    } else {
        config.replace(server, &network.address)
    };
    std::fs::write(bed.kubeconfig(), config).unwrap();
    let client = bed.client().await;
    (bed, network, client)
}

#[tokio::test]
async fn a_call_on_a_dropped_connection_is_sent_again_on_a_new_one() {
    for as_proxy in [false, true] {
        dropped_connections_are_replaced(as_proxy).await;
    }
}

async fn dropped_connections_are_replaced(as_proxy: bool) {
    let (bed, network, mut client) = through_a_network(as_proxy).await;
    // Several connections are open at the same time, and all of them are dropped.
    let calls: Vec<_> = (0..6).map(|_| client.send_call("get_gpu_inventory", on_gpu_1())).collect();
    for call in calls {
        client.result(call).await.deleted();
    }
    network.freeze();
    let began = Instant::now();
    client.call("list_gpu_nodes", json!({})).await.success();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Only the first call waits for the timeout.
    let began = Instant::now();
    client.call("get_gpu_inventory", on_gpu_1()).await.deleted();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    bed.until_bare().await;
}

#[tokio::test]
async fn a_websocket_that_is_dropped_silently_is_found_by_its_pings() {
    let (bed, network, mut client) = through_a_network(false).await;
    bed.cluster.faults(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::Hang)));
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    // The server has responded to a ping.
    tokio::time::sleep(Duration::from_secs(6)).await;
    network.freeze();
    let answer = client.result(call).await;
    let note = answer.deleted()["probe"]["note"].as_str().unwrap();
    assert!(note.contains("the connection was cut") && note.contains("second"), "{note}");
    bed.assert_bare(1);
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    (own_host, server_host): (String, String),
    number: u64,
    mut frozen: watch::Receiver<u64>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => Some(read?),
            () = async { drop(frozen.wait_for(|last| number <= *last).await) } => None,
        };
        // Keep both directions of the connection open.
        let Some(read) = read else { return std::future::pending().await };
        if read == 0 {
            return to.shutdown().await;
        }
        match std::str::from_utf8(&buffer[..read]) {
            Ok(request) if !own_host.is_empty() && request.contains(&own_host) => {
                to.write_all(request.replace(&own_host, &server_host).as_bytes()).await?;
            }
            _ => to.write_all(&buffer[..read]).await?,
        }
    }
}
