//! What calls about whole clusters cost: the fan-out over 200 nodes, and the three tools on 5,000 nodes with 50,000 pods.
//!
//! The launcher is the real program in a process of its own, so that its peak memory is its own (Linux only). Prints
//! figures, and fails where a promise is broken. `cargo bench -p gpu-syringe --bench fleet`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use demo_cluster::{Cluster, ExecFault, Fixture, NodeFixture, Timing, workload_pod};
use serde_json::Value;
use syringe_core::report::Report;
use syringe_core::scenarios;

/// Nodes of the fan-out.
const NODES: usize = 200;
/// Nodes read at the same time.
const CONCURRENCY: usize = 32;
/// Time that a pod takes to start there.
const START: Duration = Duration::from_secs(1);
/// How much longer than the ideal the fan-out may take.
const MAX_TIMES_IDEAL: f64 = 1.25;
/// The large cluster.
const LARGE_NODES: usize = 5_000;
/// Its pods.
const LARGE_PODS: usize = 50_000;
/// Resident memory of the launcher there.
const MAX_MIB: u64 = 64;

struct Ran {
    answer: Value,
    bytes: usize,
    time: Duration,
    peak_mib: Option<u64>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut broken = Vec::new();
    runtime.block_on(async {
        fan_out(directory.path(), &mut broken).await;
        large(directory.path(), &mut broken).await;
    });
    for promise in &broken {
        println!("BROKEN  {promise}");
    }
    assert!(broken.is_empty(), "{} promises are broken", broken.len());
}

/// Runs one command of the launcher against `cluster`.
async fn run(directory: &Path, cluster: &Cluster, args: &[&str]) -> Ran {
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig_yaml()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
    command.args(["--output", "json", "--kubeconfig"]).arg(kubeconfig).args(args);
    let arguments = args.join(" ");
    tokio::task::spawn_blocking(move || {
        let out = tempfile::tempfile().unwrap();
        let began = Instant::now();
        let mut child = command.stdout(Stdio::from(out.try_clone().unwrap())).spawn().unwrap();
        let mut peak_mib = None;
        let status = loop {
            peak_mib = peak(child.id()).or(peak_mib);
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let time = began.elapsed();
        assert!(status.success(), "{arguments}: {status}");
        let text = read_back(out);
        Ran { answer: serde_json::from_str(&text).unwrap(), bytes: text.trim_end().len(), time, peak_mib }
    })
    .await
    .unwrap()
}

fn read_back(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// The most memory that a process had resident so far (`VmHWM`).
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib.div_ceil(1024))
}

fn show(what: &str, ran: &Ran) {
    let peak = ran.peak_mib.map_or_else(|| "?".to_owned(), |mib| mib.to_string());
    println!("{what:<58} {:>7.2} s  {peak:>4} MiB peak  {:>6} tokens", ran.time.as_secs_f64(), ran.bytes / 4);
}

fn facts() -> Report {
    scenarios::named("healthy-h100-8").unwrap().report()
}

async fn fan_out(directory: &Path, broken: &mut Vec<String>) {
    let nodes = (1..=NODES).map(|number| NodeFixture::from_facts(&format!("gpu-{number:03}"), facts()));
    let timing = Timing { container_start: START, ..Timing::default() };
    let cluster = Cluster::start(Fixture { nodes: nodes.collect(), timing, ..Fixture::default() }).await.unwrap();
    let ideal = START.as_secs_f64() * NODES as f64 / CONCURRENCY as f64;
    let concurrency = CONCURRENCY.to_string();
    for tool in ["get-gpu-inventory", "get-gpu-health"] {
        let ran = run(directory, &cluster, &[tool, "--concurrency", &concurrency]).await;
        show(&format!("{tool}: {NODES} nodes, {CONCURRENCY} at a time, ideal {ideal:.2} s"), &ran);
        let times = ran.time.as_secs_f64() / ideal;
        println!("    {times:.2} x ideal; totals {}", ran.answer["totals"]);
        if times > MAX_TIMES_IDEAL {
            broken.push(format!("{tool} took {times:.2} x the ideal, more than {MAX_TIMES_IDEAL}"));
        }
        let read = ran.answer["totals"]["read"].as_u64();
        if read != Some(NODES as u64) || !cluster.pods("gpu-syringe").is_empty() {
            broken.push(format!("{tool} read {read:?} nodes, {} pods are left", cluster.pods("gpu-syringe").len()));
        }
    }
    cluster.faults(|faults| faults.on("gpu-100").exec = Some(ExecFault::Hang.into()));
    let hanging = ["get-gpu-inventory", "--concurrency", &concurrency, "--node-timeout", "5"];
    let ran = run(directory, &cluster, &hanging).await;
    show("the same with a node that hangs, 5 s a node at most", &ran);
    let totals = &ran.answer["totals"];
    let left = cluster.pods("gpu-syringe").len();
    println!("    totals {totals}; failed {}", ran.answer["failed"][0]["nodes"]["names"]);
    if (totals["read"].as_u64(), totals["failed"].as_u64(), left) != (Some(NODES as u64 - 1), Some(1), 0) {
        broken.push(format!("a node that hangs cost more than its row: {totals}, {left} pods left"));
    }
}

async fn large(directory: &Path, broken: &mut Vec<String>) {
    let facts = std::sync::Arc::new(facts());
    let node = |number: usize| {
        let node = NodeFixture::from_facts(&format!("node-{number:04}"), Report::clone(&facts));
        NodeFixture { facts: facts.clone(), ..node }
    };
    let pod = |number: usize| {
        let node = format!("node-{:04}", number % LARGE_NODES);
        // One in ten holds GPUs, as on a cluster that also serves.
        workload_pod(
            &format!("team-{}", number % 50),
            &format!("job-{number}"),
            &node,
            if number.is_multiple_of(10) { 4 } else { 0 },
        )
    };
    let nodes: Vec<_> = (0..LARGE_NODES).map(node).collect();
    let pods = (0..LARGE_PODS).map(pod).collect();
    let fixture = Fixture { nodes, pods, timing: Timing::fast(), ..Fixture::default() };
    let cluster = Cluster::start(fixture).await.unwrap();
    let calls: [&[&str]; 5] = [
        &["list-gpu-nodes"],
        &["get-pod-gpu-allocation", "--node-name", "node-0010"],
        &["describe-gpu-node", "--node-name", "node-0010"],
        &["get-gpu-inventory", "--limit", "1000", "--concurrency", "32"],
        &["get-gpu-health", "--limit", "1000", "--concurrency", "32"],
    ];
    println!("{LARGE_NODES} nodes, {LARGE_PODS} pods:");
    for args in calls {
        let ran = run(directory, &cluster, args).await;
        show(&args.join(" "), &ran);
        if let Some(peak) = ran.peak_mib.filter(|peak| *peak > MAX_MIB) {
            broken.push(format!("{} had {peak} MiB resident, more than {MAX_MIB}", args[0]));
        }
        if ran.bytes > 80_000 {
            broken.push(format!("{} answered with {} bytes", args[0], ran.bytes));
        }
        if args.contains(&"1000") {
            println!("    totals {}", ran.answer["totals"]);
        }
    }
}
