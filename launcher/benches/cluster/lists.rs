//! `measure`: times the commands that only read the API, compared with requests to the same paths without decoding.

use std::time::Duration;

use crate::options::Options;
use crate::program::Program;
use crate::raw;
use crate::table::{Row, Table};

/// Maximum ratio of the time of a command to the time of its requests alone.
const TARGET: f64 = 1.25;
/// Maximum resident memory, in MiB.
const MAX_MIB: u64 = 64;
/// Field selector of the pods that hold resources of a node.
const RUNNING: &str = "spec.nodeName!%3D%2Cstatus.phase!%3DSucceeded%2Cstatus.phase!%3DFailed";

pub(crate) async fn measure(options: &Options, program: &Program, table: &mut Table) {
    let lists = vec![
        "/api/v1/nodes?resourceVersion=0".to_owned(),
        format!("/api/v1/pods?fieldSelector={RUNNING}&resourceVersion=0"),
    ];
    compare(options, program, table, &["nodes"], "both lists in protobuf", &[lists]).await;
    let node = match &options.node {
        Some(node) => node.clone(),
        None => raw::ready_node(program.kubeconfig()).await,
    };
    let of_node = vec![
        format!("/api/v1/nodes/{node}"),
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=0"),
        format!("/api/v1/events?fieldSelector=involvedObject.kind%3DNode%2CinvolvedObject.name%3D{node}&limit=100"),
        "/apis/resource.k8s.io".to_owned(),
    ];
    // The request for ResourceSlices needs the API version from the first step. The kernel log is requested if there
    // are no faults.
    let then = vec![
        format!("/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3D{node}&limit=100"),
        format!("/api/v1/nodes/{node}{}", raw::LOG),
    ];
    let describe = ["describe", node.as_str(), "--via", "none"];
    let steps = [of_node.clone(), then.clone()];
    compare(options, program, table, &describe, "the requests about that node", &steps).await;
    let Some([namespace, pod, uid]) = raw::gpu_pod(program.kubeconfig(), &node).await else {
        println!("explain is not measured: {node} has no pod with GPUs");
        return;
    };
    let mut after = of_node;
    after.push(format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}&limit=100"));
    let steps = [vec![format!("/api/v1/namespaces/{namespace}/pods/{pod}")], after, then];
    let explain = ["explain", &pod, "--namespace", &namespace, "--via", "none"];
    compare(options, program, table, &explain, "the pod, then the requests about the pod and its node", &steps).await;
}

async fn compare(
    options: &Options,
    program: &Program,
    table: &mut Table,
    command: &[&str],
    against: &str,
    steps: &[Vec<String>],
) {
    let (mut measured, mut other, mut peak, mut bytes) = (Duration::MAX, Duration::MAX, None, 0);
    for _ in 0..options.list_rounds {
        let ran = program.run(command).await;
        (measured, peak) = (measured.min(ran.time), peak.max(ran.peak_mib));
        let (time, read) = raw::read_in_process(program.kubeconfig(), steps).await;
        (other, bytes) = (other.min(time), read);
    }
    table.add(Row {
        what: format!("`{}`", command[0]),
        measured,
        against: format!("{against} ({} MB)", bytes / 1_000_000),
        other,
        target: Some(TARGET),
        peak_mib: peak,
        max_mib: Some(MAX_MIB),
    });
}
