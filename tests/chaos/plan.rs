//! The type `Step`: the calls (`Way`) and the disturbance (`Event`) of one step, determined by the seed and the step's
//! number. `Options`: the options of a run. `PROBING`, `ASKING`: the tools.

use std::time::Duration;

use super::actions::KILL;
use super::fault::Rule;
use super::random::Random;

/// Tools that read one node, with a probe.
pub(crate) const PROBING: [&str; 8] = [
    "get_gpu_inventory",
    "diagnose_gpu_node",
    "get_gpu_health",
    "analyze_xid_errors",
    "snapshot_ecc",
    "get_gpu_telemetry",
    "inspect_topology",
    "get_pod_gpu_allocation",
];
/// Tools that only read the API.
pub(crate) const ASKING: [&str; 2] = ["list_gpu_nodes", "describe_gpu_node"];

/// The interface through which the launcher is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Tool calls in an MCP session.
    Mcp,
    /// A command line.
    Command,
}

/// The disturbance during a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    Nothing,
    /// This number of calls runs at the same time.
    Together(usize),
    /// The client cancels the call.
    Cancel(Duration),
    /// The program gets a signal, and possibly the same signal again.
    Signal(&'static str, Duration, Option<Duration>),
    /// Standard input is closed.
    CloseStdin(Duration),
    /// Another user deletes the probe pods, possibly with a grace period of 0.
    DeletePod(Duration, bool),
    /// The kubelet is stopped for some time.
    KubeletStops(Duration),
}

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) number: usize,
    pub(crate) way: Way,
    /// Value of `--via`.
    pub(crate) via: &'static str,
    pub(crate) tool: &'static str,
    /// Whether the step uses the healthy node.
    pub(crate) healthy: bool,
    pub(crate) event: Event,
    pub(crate) rules: Vec<Rule>,
}

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    /// Whether faults may take many seconds.
    pub(crate) patient: bool,
    /// Whether the cluster has everything that the methods and actions need: a base image, pods with GPUs, processes.
    pub(crate) whole: bool,
}

impl Step {
    /// Returns a step without faults or disturbances.
    pub(crate) fn without_faults(via: &'static str) -> Self {
        let (way, tool) = (Way::Mcp, PROBING[0]);
        Self { number: usize::MAX, way, via, tool, healthy: true, event: Event::Nothing, rules: Vec::new() }
    }

    /// Returns the step with this number.
    pub(crate) fn of(options: &Options, number: usize) -> Self {
        let random = &mut Random::of_step(options.seed, number);
        let patient = options.patient;
        let way = if random.percent(75) { Way::Mcp } else { Way::Command };
        let via = match random.below(20) {
            0..=10 => "pod",
            11..=14 => "logs",
            15..=17 if options.whole => "inject",
            18.. if options.whole => "ephemeral",
            _ => "pod",
        };
        let tool = if random.percent(88) { random.of(&PROBING) } else { random.of(&ASKING) };
        // An ephemeral container cannot see the processes of the host, so the probe rejects actions in it.
        let acts = options.whole && way == Way::Command && via != "ephemeral" && random.percent(15);
        let tool = if acts { KILL } else { tool };
        let longest = Duration::from_millis(if patient { 3_000 } else { 500 });
        let event = match random.below(100) {
            0..=44 => Event::Nothing,
            45..=54 if way == Way::Mcp => Event::Together(2 + random.below(6)),
            55..=63 if way == Way::Mcp => Event::Cancel(random.time(longest)),
            64..=71 => Event::Signal("KILL", random.time(longest), None),
            72..=81 => {
                let again = random.percent(40).then(|| random.time(longest));
                Event::Signal(random.of(&["TERM", "INT"]), random.time(longest), again)
            }
            82..=86 if way == Way::Mcp => Event::CloseStdin(random.time(longest)),
            87..=94 => Event::DeletePod(random.time(longest / 2), random.percent(50)),
            95..=97 if patient => Event::KubeletStops(random.time(longest * 3)),
            _ => Event::Nothing,
        };
        let rules = match random.below(10) {
            0..=2 => 0,
            3..=7 => 1,
            _ => 2 + random.below(2),
        };
        let rules = (0..rules).map(|_| Rule::random(random, patient)).collect();
        Self { number, way, via, tool, healthy: random.percent(50), event, rules }
    }
}
