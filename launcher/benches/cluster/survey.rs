//! `measure`: times surveys of many nodes in the embedded cluster, whose pods take one second to start.

use std::time::Duration;

use demo_cluster::{ExecFault, Fixture, Timing};

use crate::embedded::{self, Embedded};
use crate::options::Options;
use crate::program::Program;
use crate::table::{Row, Table};

/// Number of nodes, and number of nodes that are read at the same time.
const NODES: u32 = 1_000;
const AT_ONCE: u32 = 64;
/// Time that a pod takes to start.
const START: Duration = Duration::from_secs(1);
/// Maximum ratio of the measured time to the ideal time, in which a probe takes only as long as the start of its pod.
const TARGET: f64 = 1.25;
/// Maximum resident memory, in MiB.
const MAX_MIB: u64 = 64;

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let timing = Timing { container_start: START, ..Timing::default() };
    let cluster =
        Embedded::start(Fixture { nodes: embedded::nodes(NODES as usize), timing, ..Fixture::default() }).await;
    let program = Program::new(options, cluster.kubeconfig());
    let (nodes, at_once) = (NODES.to_string(), AT_ONCE.to_string());
    let args = |tool: &'static str| [tool, "--limit", nodes.as_str(), "--concurrency", at_once.as_str()];
    let ideal = START * NODES.div_ceil(AT_ONCE);
    for tool in ["inventory", "health"] {
        let ran = program.run(&args(tool)).await;
        let totals = &ran.answer["totals"];
        assert_eq!(totals["read"], NODES, "{totals}");
        assert!(cluster.cluster.pods(&options.namespace).is_empty(), "pods are left");
        table.add(row(tool, ran.time, ideal, ran.peak_mib));
    }
    cluster.cluster.faults(|faults| faults.on("node-0100").exec = Some(ExecFault::Hang.into()));
    let mut hanging = args("inventory").to_vec();
    hanging.extend(["--node-timeout", "5"]);
    let ran = program.run(&hanging).await;
    let totals = &ran.answer["totals"];
    assert_eq!((&totals["read"], &totals["failed"]), (&(NODES - 1).into(), &1.into()), "{totals}");
    assert!(cluster.cluster.pods(&options.namespace).is_empty(), "pods are left");
    table.add(row("inventory, one node hangs", ran.time, ideal, ran.peak_mib));
}

fn row(tool: &str, measured: Duration, ideal: Duration, peak_mib: Option<u64>) -> Row {
    Row {
        what: format!("`{tool}` of {NODES} nodes, {AT_ONCE} at a time, 1 s of pod start"),
        measured,
        against: "ideal".to_owned(),
        other: ideal,
        target: Some(TARGET),
        peak_mib,
        max_mib: Some(MAX_MIB),
    }
}
