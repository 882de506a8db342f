//! Rules about data that other systems write to the Node object: maintenance, repair, operator states, and labels of
//! another release.

use crate::evidence;
use crate::input::decisions;
use crate::input::node::Node;
use crate::input::processes;
use crate::input::stack::pods;
use crate::rule::{Draft, rules};
use crate::rules::kubernetes::nvidia_stack::UPGRADE_FAILED;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};
use syringe_core::facts::kubernetes::node::UNSCHEDULABLE;

rules! {
    about Workload;
    STATE: "node-label-reports-a-state" Warning Driver None, "A label or annotation of the node reports a state",
        Watch "Find the program that wrote the state, and check whether this state is intended on {node}.",
        means "An operator or monitor reports in a label or annotation of the node that something failed, is paused or is not done.",
        reads "kubernetes.states";
    REPAIR: "node-in-repair" Warning Driver None, "Another system repairs or maintains the node, or has taken it out of service",
        Watch "Leave {node} to the system in the evidence until that system has finished. A reset or reboot at the same time can disrupt this repair.",
        means "A taint, label or annotation shows that a platform or a repair system drains, repairs or maintains the node now, or took the node out of service.",
        reads "kubernetes.decisions";
    ANNOUNCED: "node-maintenance-announced" Warning Driver None, "Maintenance or a repair of the node is announced",
        Watch "Start long jobs on other nodes, and let the jobs on {node} save their state before the time or event in the evidence.",
        means "A platform has announced maintenance of the node, or repairs nodes with a condition that this node has.",
        reads "kubernetes.decisions";
    CORDONED: "node-cordoned" Info Driver None, "The node is cordoned and gets no new pods",
        Watch "If nobody maintains {node} now, uncordon it (kubectl uncordon {node}). The annotations and events of the node can name who \
            cordoned it.",
        means "A person or program marked the node as unschedulable. Pods that run there continue.",
        reads "kubernetes.taints, kubernetes.labels, kubernetes.cordon_notes";
    STARTING: "node-startup-taint-remains" Warning Driver None, "A taint of a node that starts was not removed",
        Watch "Check the component that removes the taint in the evidence: its pod on {node} or its controller. Until then, no new pods without a \
            toleration for the taint get on {node}.",
        means "A component sets this taint until it is ready on a new node. The node is older than that, and still has the taint.",
        reads "kubernetes.taints, kubernetes.created, kubernetes.ready";
    OTHER_RELEASE: "node-label-of-another-release" Warning Driver None, "A label of feature discovery does not match the node's current system",
        UpdateSoftware "Let node feature discovery write the label of {node} again: check its worker there. Then \
            delete the driver pod. The label is old. It selects the image with which the driver is built (driver \
            toolkit, precompiled driver), so it must match the node.",
        means "The release or kernel in a label of node feature discovery differs from the running release or kernel. \
            The driver's pod is made for the system before an update.",
        reads "kubernetes.labels, kubernetes.os_image";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    // A node image with its own driver is normal: the value matters only if the driver does not work.
    let is_own_driver = |state: &str| state.ends_with("=pre-installed");
    let counts = |state: &&String| !is_own_driver(state) || node.driver.is_broken();
    let states: Vec<&String> = node.kubernetes.states.iter().filter(counts).collect();
    let lines = states.iter().map(|state| evidence::reason(state));
    let severity = if states.iter().any(|state| reports_gpu_fault(state)) { Severity::Warning } else { Severity::Info };
    let reported = (!states.is_empty()).then(|| Draft::on_node(STATE).with_severity(severity).with_all_evidence(lines));
    let has_own_driver = states.iter().any(|state| is_own_driver(state));
    let reported =
        reported.map(|draft| if has_own_driver { draft.with_action(ActionCode::Watch, PRE_INSTALLED) } else { draft });
    let differs: Vec<String> = other_release(node).into_iter().chain(other_kernel(node)).collect();
    // If the GPUs respond, the label has had no effect until now.
    let severity = if node.answering().next().is_some() { Severity::Info } else { Severity::Warning };
    // Feature discovery writes its labels some minutes after a boot.
    let differs = (!differs.is_empty() && pods::is_settled(node))
        .then(|| Draft::on_node(OTHER_RELEASE).with_severity(severity).with_all_evidence(differs));
    reported.into_iter().chain(differs).chain(decided(node)).chain(startup_taint(node)).collect()
}

/// Ends of the keys of taints that a component sets until it is ready on a new node.
const OF_START: [&str; 5] = ["uninitialized", "unregistered", "agent-not-ready", "startup", "initializing"];

/// A component that is slower than this to remove its taint does not work.
const START: SignedDuration = SignedDuration::from_mins(15);

/// Returns a finding about taints of a node that starts, if the node is Ready and was created and booted long ago.
fn startup_taint(node: &Node<'_>) -> Option<Draft> {
    let cluster = node.kubernetes;
    let created = pods::time_of_api(node)?.duration_since(cluster.created?);
    let booted = node.host().and_then(|host| host.uptime_seconds);
    let is_old = created > START && booted.is_none_or(|uptime| uptime > START.unsigned_abs().as_secs());
    let is_of_start = |taint: &&String| {
        let key = taint.split(['=', ':']).next().unwrap_or_default();
        OF_START.iter().any(|end| key.ends_with(end))
    };
    let taints: Vec<String> = cluster.taints.iter().filter(is_of_start).map(|taint| evidence::name(taint)).collect();
    let draft = || Draft::on_node(STARTING).with_evidence(format!("taint {}", taints.join(", ")));
    (is_old && cluster.ready == Some(true) && !taints.is_empty()).then(draft)
}

/// Returns whether a state reports a fault of a GPU: `gpu.example.com/last-check=FAILED: GPU 3`.
fn reports_gpu_fault(state: &str) -> bool {
    let state = state.to_ascii_lowercase();
    let Some((_, value)) = state.split_once('=') else { return false };
    ["fail", "error", "unhealthy", "degraded"].iter().any(|word| value.starts_with(word))
        && ["gpu", "xid", "nvlink", "dcgm"].iter().any(|word| state.contains(word))
}

/// Action for a node whose operating system image contains the driver.
const PRE_INSTALLED: &str = "Find the program that wrote the state, and check whether this state is intended on \
     {node}. The value pre-installed means that the GPU Operator uses the driver in the image of the node. The driver \
     settings of the operator, such as the version, have no effect there.";

/// Action for a node that the other system does not repair.
const LEFT: &str = "Repair {node} as the other findings advise. Then remove the mark in the evidence, unless the \
    system that set the mark removes it.";

/// Returns the findings about maintenance and repair by other systems.
fn decided(node: &Node<'_>) -> Vec<Draft> {
    let line = |decision: &Decision| {
        let Decision { owner, signal, next, at, .. } = decision;
        let passed = |at: Timestamp| if node.now.is_some_and(|now| at < now) { " (this time has passed)" } else { "" };
        let at = at.map(|at| format!(", at {}{}", evidence::time(at), passed(at))).unwrap_or_default();
        format!("{}: {}{at}: {}", evidence::data(owner), evidence::name(signal), evidence::reason(next))
    };
    let (announced, acting): (Vec<&Decision>, Vec<&Decision>) =
        decisions::valid(node).partition(|decision| decision.kind == DecisionKind::Announced);
    let draft = |rule, decisions: &[&Decision]| {
        (!decisions.is_empty()).then(|| Draft::on_node(rule).with_all_evidence(decisions.iter().copied().map(line)))
    };
    let is_left = acting.iter().all(|decision| decision.kind == DecisionKind::OutOfService);
    let acting = draft(REPAIR, &acting);
    // A monitor removes the mark of a node that is still starting.
    let severity = if pods::is_settled(node) || !is_left { Severity::Warning } else { Severity::Info };
    let acting = acting.map(|draft| draft.with_severity(severity));
    let acting = if is_left { acting.map(|draft| draft.with_action(ActionCode::Watch, LEFT)) } else { acting };
    // Work that runs into the announced time is lost.
    let at = announced.iter().filter_map(|decision| decision.at.or_else(|| time_in(&decision.next))).min();
    let work = processes::in_use_by_work(node);
    let within =
        |most| at.zip(node.now).is_some_and(|(at, now)| (SignedDuration::ZERO..most).contains(&at.duration_since(now)));
    let announced = draft(ANNOUNCED, &announced).map(|draft| match work.filter(|_| within(SOON)) {
        Some(work) => draft.with_evidence(work),
        None if within(IMMEDIATELY) => draft,
        None => draft.with_severity(Severity::Info),
    });
    let cordoned = cordoned(node).filter(|_| acting.is_none());
    acting.into_iter().chain(announced).chain(cordoned).collect()
}

/// Maintenance within this time ends work that runs now.
const SOON: SignedDuration = SignedDuration::from_hours(24);

/// Maintenance within this time also ends pods whose processes were not read.
const IMMEDIATELY: SignedDuration = SignedDuration::from_hours(1);

/// Returns the time in a message, as `2026-11-21T02:58:00Z` or with a date of RFC 2822: `Redeploy Scheduled: Sat, 21 Nov 2026 02:58:00 GMT`.
fn time_in(message: &str) -> Option<Timestamp> {
    const LENGTH: usize = "Sat, 21 Nov 2026 02:58:00 GMT".len();
    let mut words = message.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ';']));
    if let Some(time) = words.find_map(|word| word.parse().ok()) {
        return Some(time);
    }
    let days = ["Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, "];
    let start = days.iter().find_map(|day| message.find(day))?;
    let date = message.get(start..start + LENGTH)?;
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(date).ok()
}

/// Returns a finding about a cordoned node. Another finding reports a node that a system repairs or removes.
fn cordoned(node: &Node<'_>) -> Option<Draft> {
    let cluster = node.kubernetes;
    if !cluster.is_cordoned() {
        return None;
    }
    let notes = cluster.cordon_notes.iter().map(|note| format!("annotation {}", evidence::reason(note)));
    let draft = Draft::on_node(CORDONED).with_evidence(format!("taint {UNSCHEDULABLE}")).with_all_evidence(notes);
    Some(match cluster.labels.driver_upgrade_state.as_deref() {
        None | Some("") if !cluster.cordon_notes.is_empty() => {
            draft.with_action(ActionCode::Watch, CORDONED_FOR_A_REASON)
        }
        None | Some("") => draft,
        Some("upgrade-done") => {
            draft.with_evidence("the label of the GPU Operator says that its upgrade of the driver is done")
        }
        Some(UPGRADE_FAILED) => draft.with_action(ActionCode::Watch, CORDONED_BY_FAILURE),
        Some(state) => draft
            .with_evidence(format!("label {}={}", decisions::UPGRADE_STATE, evidence::data(state)))
            .with_action(ActionCode::Watch, CORDONED_BY_UPGRADE),
    })
}

/// Keeps a node with a severe fault cordoned.
pub(super) fn refine(drafts: &mut [Draft]) {
    let is_faulty = drafts.iter().any(|draft| draft.severity >= Severity::Critical);
    if let Some(draft) = drafts.iter_mut().find(|draft| draft.rule.id == CORDONED.id).filter(|_| is_faulty) {
        draft.advice = "Leave {node} cordoned until the other findings are repaired.".to_owned();
    }
}

const CORDONED_FOR_A_REASON: &str =
    "Do not uncordon {node} before the reason in the annotation is settled: ask the person who wrote it.";

const CORDONED_BY_FAILURE: &str = "Leave {node} cordoned until the failed upgrade of the driver is repaired: the operator uncordons {node} only after an upgrade \
     that succeeds.";

const CORDONED_BY_UPGRADE: &str = "Do not uncordon {node} by hand: the GPU Operator cordons a node whose driver it upgrades, and uncordons it when the upgrade \
     is done.";

/// Compares the release in the label with the release in the name of the operating system.
fn other_release(node: &Node<'_>) -> Option<String> {
    let label = node.kubernetes.labels.os_release.as_deref()?;
    let image = node.kubernetes.os_image.as_deref()?;
    let is_release = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_digit())
            && word.matches('.').count() == label.matches('.').count()
    };
    let release = image.split_whitespace().find(is_release)?;
    (release != label && label.contains('.')).then(|| {
        format!("label OSTREE_VERSION is {}, and the node runs {}", evidence::data(label), evidence::data(release))
    })
}

/// Compares the kernel version in the label with the running kernel.
fn other_kernel(node: &Node<'_>) -> Option<String> {
    let label = node.kubernetes.labels.kernel.as_deref()?;
    let kernel = node.report.kernel.as_deref()?;
    // The value of a label cannot contain all characters of a version.
    let plain = |text: &str| text.replace(|one: char| !one.is_ascii_alphanumeric(), "");
    (plain(label) != plain(kernel)).then(|| {
        format!("label kernel-version.full is {}, and the node runs {}", evidence::data(label), evidence::data(kernel))
    })
}
