//! `measure`: compares a tool call with a minimal pod and `kubectl debug node`, and times a call on a distant cluster.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::block_in_place;

use crate::options::Options;
use crate::program::Program;
use crate::table::{Row, Table};
use crate::{delay_proxy, raw};

/// Tool of the measured calls.
const TOOL: &str = "analyze_xid_errors";
const ARGV: [&str; 2] = ["/usr/bin/node-probe", "xid"];
/// Network delay in one direction to a distant cluster.
const ONE_WAY: Duration = Duration::from_millis(50);
/// Round trips that the protocol needs on an open connection: the creation of the pod, the TCP, TLS and websocket
/// handshakes of the exec, the document and the end of the exec, and the deletion of the pod.
const ROUND_TRIPS: u32 = 6;

pub(crate) async fn measure(options: &Options, program: &Program, table: &mut Table) {
    let Some(image) = embedded_or(options) else {
        println!("calls are not measured: --image is missing");
        return;
    };
    let node = match &options.node {
        Some(node) => node.clone(),
        None => raw::ready_node(program.kubeconfig()).await,
    };
    floor(options, program, table, &node, &image).await;
    distant(options, program, table, &node).await;
    if options.kubeconfig.is_some() {
        debug_node(options, program, table, &node, &image).await;
    }
}

fn embedded_or(options: &Options) -> Option<String> {
    let embedded = || options.kubeconfig.is_none().then(|| "registry.example/node-probe:1".to_owned());
    options.image.clone().or_else(embedded)
}

/// Measures a tool call to a running server, and a minimal pod on an open connection.
async fn floor(options: &Options, program: &Program, table: &mut Table, node: &str, image: &str) {
    let mut session = program.session();
    let connection = raw::connect(program.kubeconfig()).await;
    let (mut measured, mut other) = (Duration::MAX, Duration::MAX);
    for _ in 0..options.call_rounds {
        measured = measured.min(session.call(TOOL, json!({"node_name": node})));
        other = other.min(raw::lean_pod(&connection, &options.namespace, node, image, &ARGV).await);
    }
    table.add(Row {
        what: format!("call of `{TOOL}`"),
        measured,
        against: "minimal pod: create, exec, delete".to_owned(),
        other,
        target: Some(1.10),
        peak_mib: None,
        max_mib: None,
    });
}

/// Measures a tool call through a proxy that delays the data, and subtracts the time of the call without the proxy.
async fn distant(options: &Options, program: &Program, table: &mut Table, node: &str) {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = delay_proxy::start(program.kubeconfig(), ONE_WAY, directory.path()).await;
    let far = program.with_kubeconfig(kubeconfig);
    let (mut near_session, mut far_session) = (program.session(), far.session());
    let (mut near_time, mut far_time) = (Duration::MAX, Duration::MAX);
    for _ in 0..options.call_rounds {
        near_time = near_time.min(near_session.call(TOOL, json!({"node_name": node})));
        far_time = far_time.min(far_session.call(TOOL, json!({"node_name": node})));
    }
    table.add(Row {
        what: format!(
            "this call with a round-trip time of {} ms, minus the time on the node",
            (2 * ONE_WAY).as_millis()
        ),
        measured: far_time.saturating_sub(near_time),
        against: format!("{ROUND_TRIPS} round trips"),
        other: 2 * ONE_WAY * ROUND_TRIPS,
        target: Some(2.0),
        peak_mib: None,
        max_mib: None,
    });
}

/// Measures the command `xid`, and `kubectl debug node` with the same image and arguments.
async fn debug_node(options: &Options, program: &Program, table: &mut Table, node: &str, image: &str) {
    let (mut measured, mut other) = (Duration::MAX, Duration::MAX);
    for _ in 0..options.call_rounds {
        measured = measured.min(program.run(&["xid", node]).await.time);
        let Some(time) = block_in_place(|| kubectl_debug(program.kubeconfig(), &options.namespace, node, image)) else {
            println!("kubectl debug node is not measured: kubectl is missing or failed");
            return;
        };
        other = other.min(time);
    }
    table.add(Row {
        what: "command `xid`".to_owned(),
        measured,
        against: "`kubectl debug node`, which leaves its pod behind".to_owned(),
        other,
        target: Some(0.65),
        peak_mib: None,
        max_mib: None,
    });
}

fn kubectl_debug(kubeconfig: &Path, namespace: &str, node: &str, image: &str) -> Option<Duration> {
    let kubectl = || {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(kubeconfig).args(["-n", namespace]);
        command
    };
    let began = Instant::now();
    let debug = ["debug", &format!("node/{node}"), &format!("--image={image}"), "--profile=sysadmin", "--quiet"];
    let out = kubectl().args(debug).args(["--attach", "--"]).args(ARGV).output().ok()?;
    let time = began.elapsed();
    let pods = kubectl().args(["get", "pods", "-o", "name"]).output().ok()?;
    let names = String::from_utf8_lossy(&pods.stdout).into_owned();
    for pod in names.lines().filter(|name| name.starts_with("pod/node-debugger-")) {
        kubectl().args(["delete", pod, "--grace-period=0", "--force", "--wait=false"]).output().ok()?;
    }
    if !out.status.success() {
        println!("{}", String::from_utf8_lossy(&out.stderr));
        return None;
    }
    Some(time)
}
