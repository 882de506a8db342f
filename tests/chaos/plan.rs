//! What one step of a run does. The seed and the number of the step determine it.

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
/// Tools that only ask the API server.
pub(crate) const ASKING: [&str; 2] = ["list_gpu_nodes", "describe_gpu_node"];

/// How the launcher is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Calls of a session.
    Mcp,
    /// A command.
    Command,
}

/// What else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    Nothing,
    /// This many calls at once.
    Together(usize),
    /// The client cancels the call.
    Cancel(Duration),
    /// A signal, and perhaps the same once more.
    Signal(&'static str, Duration, Option<Duration>),
    /// Standard input ends.
    CloseStdin(Duration),
    /// Somebody deletes the probe pods, perhaps with grace 0.
    DeletePod(Duration, bool),
    /// The kubelet stops for some time.
    KubeletStops(Duration),
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) number: usize,
    pub(crate) way: Way,
    /// Value of `--via`.
    pub(crate) via: &'static str,
    pub(crate) tool: &'static str,
    /// Whether the node is the healthy one.
    pub(crate) healthy: bool,
    pub(crate) event: Event,
    pub(crate) rules: Vec<Rule>,
}

/// How a run is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    /// Whether faults may cost many seconds.
    pub(crate) patient: bool,
    /// Whether the cluster has what every method and action needs: a base image, pods with GPUs, processes.
    pub(crate) whole: bool,
}

impl Step {
    /// A step in which nothing happens.
    pub(crate) fn without_faults(via: &'static str) -> Self {
        let (way, tool) = (Way::Mcp, PROBING[0]);
        Self { number: usize::MAX, way, via, tool, healthy: true, event: Event::Nothing, rules: Vec::new() }
    }

    /// The step of this number.
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
        // An ephemeral container does not see the host: actions are refused there.
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
