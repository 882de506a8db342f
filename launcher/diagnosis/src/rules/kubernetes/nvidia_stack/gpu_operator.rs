//! `mig_manager_stuck`, `upgrade_stuck`: find changes of the MIG layout and driver upgrades that do not finish.

use jiff::SignedDuration;

use crate::evidence::{self, Label};
use crate::input::boards;
use crate::input::decisions::{UPGRADE, UPGRADE_STATE};
use crate::input::node::{Gpu, Node};
use crate::input::processes::is_service;
use crate::input::stack::pods;
use crate::rule::Draft;
use crate::rules::kubernetes::nvidia_stack::rules::{MIG_MANAGER_STUCK, UPGRADE_STUCK, UPGRADE_WAITS};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{Component, PodWarning};
use syringe_core::facts::processes::GpuProcess;

/// Maximum duration of a MIG change. The MIG manager waits five minutes for pods to terminate, and then resets the
/// GPUs.
const MIG_CHANGE: SignedDuration = SignedDuration::from_mins(15);
/// Maximum time in the queue. The operator upgrades only few nodes at the same time.
const QUEUE: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of processes in one line.
const HOLDERS: usize = 4;

const MIG_STATE: &str = "nvidia.com/mig.config.state";
/// State in which the operator waits on purpose (waitForCompletion of its upgrade policy).
const WAITS_FOR_JOBS: &str = "wait-for-jobs-required";
const MIG_PAUSED: &str = "paused-for-mig-change";

/// Finds a change of the MIG layout that failed, or does not finish.
pub(super) fn mig_manager_stuck(node: &Node<'_>) -> Option<Draft> {
    if !node.stack.is_settled {
        return None;
    }
    let labels = &node.kubernetes.labels;
    let paused: Vec<&str> =
        labels.deploy.iter().filter(|(_, value)| *value == MIG_PAUSED).map(|(name, _)| name.as_str()).collect();
    let state = labels.mig_config_state.as_deref();
    let manager = pods::of(node, Component::MigManager).next();
    let failure = manager.and_then(|pod| stack_log::of_log(node, pod, "the MIG manager"));
    let failure = failure.filter(|reason| reason.action.is_some());
    let wedged = match state {
        Some("failed") => at_least(node, MIG_STATE).is_none_or(|age| age >= SignedDuration::from_mins(5)),
        Some("pending" | "rebooting") => {
            failure.is_some() || at_least(node, MIG_STATE).is_some_and(|age| age >= MIG_CHANGE)
        }
        _ => {
            let name = paused.first().map(|name| format!("nvidia.com/gpu.deploy.{name}"));
            name.and_then(|name| at_least(node, &name)).is_some_and(|age| age >= MIG_CHANGE)
        }
    };
    if !wedged {
        return None;
    }
    let severity = if node.stack.advertises_gpus { Severity::Warning } else { Severity::Critical };
    let mut draft = Draft::on_node(MIG_MANAGER_STUCK).with_severity(severity);
    if let Some(state) = state {
        let age =
            at_least(node, MIG_STATE).map(|age| format!(", unchanged for {}", evidence::span(age))).unwrap_or_default();
        let config = labels.mig_config.as_deref().map(|config| format!(" (mig.config={})", evidence::data(config)));
        draft = draft.with_evidence(format!(
            "label {MIG_STATE}={}{age}{}",
            evidence::data(state),
            config.unwrap_or_default()
        ));
    }
    if !paused.is_empty() {
        let names = paused.iter().map(|name| evidence::data(name)).collect::<Vec<_>>().join(", ");
        draft = draft.with_evidence(format!("labels gpu.deploy.* are still {MIG_PAUSED}: {names}"));
    }
    let layout = labels.mig_config.as_deref().map_or_else(|| "of its label".to_owned(), evidence::data);
    let mut advice = draft.advice.replace("LAYOUT", &layout);
    let awaits_reset = |gpu: &&Gpu| node.mig_mode(gpu).is_some_and(|mode| mode.current != mode.pending);
    let waiting: Vec<Label> = node.gpus.iter().filter(awaits_reset).map(|gpu| (gpu.index, gpu.label())).collect();
    if !waiting.is_empty() {
        let names = evidence::gpus(&waiting);
        draft = draft.with_evidence(format!("the MIG mode of {names} changes only at a reset"));
        advice = format!("First reset {names} of {{node}} when it is drained. {advice}");
    }
    if let Some(pod) = manager {
        advice.push_str(&format!(
            " Log: kubectl -n {} logs {}.",
            evidence::data(&pod.namespace),
            evidence::name(&pod.name)
        ));
        if let Some(reason) = failure {
            // The cause must be repaired before the next attempt.
            if let Some((_, repair)) = reason.action.as_ref().filter(|(_, repair)| !repair.is_empty()) {
                advice = format!("{repair} {advice}");
            }
            draft = Draft { reason: reason.cause, ..draft.with_all_evidence(reason.evidence) };
        }
    }
    if draft.evidence.iter().any(|line| line.contains("not present")) {
        return Some(draft.with_action(ActionCode::UpdateSoftware, UNKNOWN_LAYOUT));
    }
    let has_wrong_profile = |line: &String| {
        let line = line.to_lowercase();
        ["unsupported profile", "invalid profile", "profile not supported"].iter().any(|words| line.contains(words))
    };
    if draft.evidence.iter().any(has_wrong_profile) {
        return Some(draft.with_action(ActionCode::UpdateSoftware, WRONG_PROFILE));
    }
    // A reset that failed, or that the hypervisor does not allow, will fail again.
    if draft.evidence.iter().any(|line| line.to_lowercase().contains("error resetting")) {
        return Some(draft.with_action(ActionCode::DrainAndReboot, advice));
    }
    if draft.reason.is_none() && boards::is_virtual_machine(node) {
        let reboot = "Reboot {node} when it is drained: in a virtual machine, the GPUs often cannot be reset. If the state stays:";
        return Some(draft.with_action(ActionCode::DrainAndReboot, format!("{reboot} {advice}")));
    }
    let action = draft.action;
    Some(draft.with_action(action, advice))
}

const WRONG_PROFILE: &str = "Set the label nvidia.com/mig.config of {node} to a layout whose profiles its GPUs support (nvidia-smi mig -lgip lists them): the layout of \
    the label has other profiles. To apply it again does not help.";

const UNKNOWN_LAYOUT: &str = "Correct the name in the label nvidia.com/mig.config of {node}, or add a layout with this name to the ConfigMap of the MIG \
    manager: the ConfigMap does not have it. No drain is needed for this.";

/// Finds an upgrade of the driver that failed, does not finish, or waits on purpose.
pub(super) fn upgrade_stuck(node: &Node<'_>) -> Option<Draft> {
    let state = node.kubernetes.labels.driver_upgrade_state.as_deref().filter(|state| !state.is_empty())?;
    let age = at_least(node, UPGRADE_STATE);
    let pod = pods::failing_pod(node, Component::Driver).filter(|_| node.stack.is_settled);
    let long = |limit| age.is_some_and(|age| age >= limit);
    let since = age.map(|age| format!(", unchanged for {}", evidence::span(age))).unwrap_or_default();
    let label = format!("label {UPGRADE_STATE}={}{since}", evidence::data(state));
    if state == WAITS_FOR_JOBS && pod.is_none() {
        // The operator waits for jobs, not for services of the node.
        let jobs = holders(node, |process| !is_service(process));
        return Some(Draft::on_node(UPGRADE_WAITS).with_evidence(label).with_all_evidence(jobs));
    }
    let stuck = match state {
        "upgrade-done" => false,
        UPGRADE_FAILED => true,
        // The node may be in the queue, unless its driver pod already fails.
        "upgrade-required" => (pod.is_some() && age.is_none_or(|age| age >= UPGRADE)) || long(QUEUE),
        _ => long(UPGRADE),
    };
    let least = if state == UPGRADE_FAILED { 1 } else { DRAINS };
    let refused = refused_drain(node, least).filter(|_| state != "upgrade-done");
    if !stuck && refused.is_none() {
        return None;
    }
    let mut draft = Draft::on_node(UPGRADE_STUCK).with_evidence(label);
    let mut advice = draft.advice.clone();
    if let Some(event) = refused {
        draft = draft.with_evidence(format!(
            "event {} ({}): {}",
            evidence::data(&event.reason),
            evidence::times(u64::from(event.count)),
            evidence::reason(&event.message)
        ));
        let lower = event.message.to_lowercase();
        let of_volume = ["emptydir", "local storage"].iter().any(|words| lower.contains(words));
        let refused = if of_volume { DRAIN_OF_VOLUMES } else { DRAIN_REFUSED };
        advice = format!("{refused} {advice}");
    }
    if let Some(failing_pod) = &pod {
        draft = draft.with_evidence(failing_pod.description());
        if let Some((line, phrase)) = stack_log::known_line(node, failing_pod.pod) {
            draft = draft.with_evidence(format!("its log: \"{line}\": {}", phrase.cause));
        }
        advice.push_str(&format!(
            " Log: {}. Then: {}.",
            failing_pod.log_command().unwrap_or_default(),
            pods::delete_command(failing_pod.pod)
        ));
    }
    if state == UPGRADE_FAILED {
        advice.push_str(RETRY);
        let event = refused.map(|event| format!(": {}", evidence::reason(&event.message))).unwrap_or_default();
        draft.reason = Some(format!("it failed, and the operator does not try again{event}"));
    }
    let action = draft.action;
    let count = node.host().and_then(|host| host.driver.module_use_count).filter(|count| *count > 0);
    let count = count.map(|count| format!("the loaded nvidia module has a use count of {count}"));
    Some(
        draft
            .with_all_evidence(holders(node, |process| !is_service(process)))
            .with_all_evidence(count)
            .with_action(action, advice),
    )
}

/// State in which the operator has given up the upgrade.
pub(in crate::rules::kubernetes) const UPGRADE_FAILED: &str = "upgrade-failed";

const RETRY: &str = " Then set the label nvidia.com/gpu-driver-upgrade-state of {node} to upgrade-required, so that the operator tries again.";

/// Action for an upgrade whose drain fails.
const DRAIN_REFUSED: &str = "The drain of {node} fails: end the pod in the event, or change its PodDisruptionBudget so that it may be \
     evicted.";

/// Action for an upgrade whose drain does not evict pods with an emptyDir.
const DRAIN_OF_VOLUMES: &str = "The drain of {node} fails because a pod has an emptyDir volume, whose data a drain deletes: wait until the pod in the event has ended, or \
     allow it (driver.upgradePolicy.drain.deleteEmptyDir). The old driver and running pods keep working.";

/// Minimum number of failed drains at which an upgrade does not go on by itself.
const DRAINS: u32 = 3;

/// Returns the event of the operator about a drain that failed repeatedly.
fn refused_drain<'n>(node: &Node<'n>, least: u32) -> Option<&'n PodWarning> {
    let of_drain = |event: &&PodWarning| {
        let message = event.message.to_lowercase();
        event.reason.contains("DriverUpgrade") && ["evict", "drain"].iter().any(|word| message.contains(word))
    };
    node.kubernetes.warnings.iter().filter(of_drain).find(|event| event.count >= least)
}

/// Returns a line with the processes that use GPUs or keep the modules in use, from those that `counts` selects.
fn holders(node: &Node<'_>, counts: impl Fn(&GpuProcess) -> bool) -> Option<String> {
    let processes = node.processes().map(|section| section.processes.as_slice()).unwrap_or_default();
    let holding = processes.iter().filter(|process| !process.uses.is_empty() || !process.open_device_files.is_empty());
    let holding = holding.filter(|process| counts(process));
    let names: Vec<String> = holding
        .map(|process| {
            let owner = match process.pod_uid.as_deref() {
                Some(uid) => format!("pod {}", node.name_of_pod(uid)),
                None => "no pod".to_owned(),
            };
            format!("{} ({owner})", evidence::process(process))
        })
        .collect();
    (!names.is_empty()).then(|| format!("GPUs are in use by {}", evidence::some(&names, HOLDERS)))
}

/// Returns the minimum time since the last change of the label.
fn at_least(node: &Node<'_>, label: &str) -> Option<SignedDuration> {
    let since = *node.kubernetes.labels.unchanged_since.get(label)?;
    Some(pods::now(node)?.duration_since(since)).filter(|age| !age.is_negative())
}
