//! `check`: applies the rules about NVIDIA's stack. `refine`: keeps only the finding about its first broken stage.
//! `unread_slices`: reports ResourceSlices that were needed but not read.
//!
//! Other groups check the driver, the runtime and the counts. [`refine`] joins their findings: it keeps the finding
//! about the first broken stage with its reason, and removes the findings about later stages.

mod broken;
mod configuration;
mod gpu_operator;
mod linked;
mod rules;
mod starting;

use crate::input::node::{Gpu, Node};
use crate::input::stack::{Broken, BrokenComponent};
use crate::rule::{About, Draft, Unread};
use crate::rules::kubernetes::gpus::NOT_ADVERTISED;
use crate::stack_stage::Stage;
pub(super) use gpu_operator::UPGRADE_FAILED;
pub(super) use rules::RULES;
use rules::{MIG_MANAGER_STUCK, UPGRADE_STUCK};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::node::Component;
use syringe_core::unknown::Unknown;

/// Returns findings from labels and configuration alone.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    if node.is_passed_through() {
        return Vec::new();
    }
    let own = [
        gpu_operator::mig_manager_stuck(node),
        gpu_operator::upgrade_stuck(node),
        configuration::two_plugins(node),
        configuration::runtime_restarted(node),
        configuration::dra_unregistered(node),
    ];
    own.into_iter().flatten().collect()
}

/// Returns an entry if only the ResourceSlices of a DRA driver show whether GPUs are advertised, but these were not
/// read.
pub(super) fn unread_slices(node: &Node<'_>) -> Vec<Unread> {
    let undecided = node.advertises_no_gpus() && node.stack.may_advertise_by_dra;
    if !undecided || node.answering().next().is_none() {
        return Vec::new();
    }
    let why =
        "the ResourceSlices could not be read: it is not known whether the DRA driver offers the GPUs of the node";
    vec![Unread { fact: Unknown::new("kubernetes", why.to_owned()), decides: true }]
}

/// Keeps only the finding about the first broken stage.
pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let stack = &node.stack;
    if node.is_passed_through() || starting::downgrade_findings(node, drafts) || !stack.is_settled {
        return;
    }
    // The driver pod does not start because of the stuck upgrade.
    let upgrading = drafts.iter().any(|draft| draft.rule.id == UPGRADE_STUCK.id);
    let broken = stack.broken.as_ref();
    let broken = broken.filter(|broken| !(upgrading && broken.component == BrokenComponent::Driver));
    let none_answers = node.answering().next().is_none();
    // The validator waits for a plugin that a label turns off.
    let off = configuration::is_turned_off(node) && !stack.advertises_gpus;
    let broken = broken.filter(|broken| !(off && broken.component == BrokenComponent::Validator));
    let broken = broken.filter(|broken| !withholds_faulty_gpus(node, drafts, broken));
    // GPUs that respond show that the driver works: its pod waits for something else.
    let broken = broken.filter(|broken| none_answers || broken.stage != Stage::Driver || !waits_for_sandbox(broken));
    let is_absent =
        |draft: &&mut Draft| none_answers && draft.rule.about.is_driver() && draft.severity >= Severity::Critical;
    if let Some(draft) = drafts.iter_mut().find(is_absent) {
        *draft = driver_absent(node, draft.clone(), stack.broken.as_ref());
        demote_runtime(drafts);
        return;
    }
    let unavailable = if stack.advertises_gpus { Vec::new() } else { evidence_of_consequences(drafts) };
    if !stack.advertises_gpus && broken.is_some_and(|broken| broken.stage == Stage::Driver) {
        demote_runtime(drafts);
    }
    if let Some(draft) = drafts.iter_mut().find(|draft| is_reason(node, draft)) {
        *draft = with_toolkit(node, draft.clone(), broken).with_all_evidence(unavailable);
        drafts.retain(|draft| !is_consequence(draft));
        return;
    }
    let may_be_inotify = may_be_inotify(node, drafts, broken);
    let found = configuration::not_deployed(node, &unavailable)
        .or_else(|| configuration::no_mig_devices(node).map(|draft| draft.with_all_evidence(unavailable.clone())))
        .or_else(|| configuration::inotify(node, &unavailable).filter(|_| may_be_inotify))
        .or_else(|| Some(broken::draft(node, broken?, unavailable)));
    match found {
        Some(draft) => {
            drafts.retain(|draft| !is_consequence(draft) || stack.advertises_gpus);
            let explained = broken.map(|broken| broken.failing_pod.pod.uid.as_str());
            drafts.push(linked::with_linked_pods(node, draft, explained));
        }
        None => {
            let not_advertised = drafts.iter_mut().find(|draft| draft.rule.id == NOT_ADVERTISED.id);
            if let Some(draft) = not_advertised {
                *draft = linked::with_linked_pods(node, configuration::why_no_plugin(node, draft.clone()), None);
            }
            configuration::join_labellers(drafts);
        }
    }
}

/// Returns whether the device plugin runs and offers no GPU, because each GPU has a severe fault. A restart of the plugin
/// would offer these GPUs again.
fn withholds_faulty_gpus(node: &Node<'_>, drafts: &[Draft], broken: &Broken<'_>) -> bool {
    let has_fault = |gpu: &Gpu| drafts.iter().any(|draft| draft.is_fault_of(gpu, Severity::Critical));
    broken.component == BrokenComponent::Plugin
        && broken.failing_pod.pod.ready
        && node.kubernetes.gpu_capacity.is_some_and(|capacity| capacity > 0)
        && node.answering().all(has_fault)
}

/// Returns whether no container of the failing pod ever started, because the runtime could not create its sandbox.
fn waits_for_sandbox(broken: &Broken<'_>) -> bool {
    broken.failing_pod.pod.warning.as_ref().is_some_and(|event| event.reason == "FailedCreatePodSandBox")
}

/// Adds the state of the toolkit pod, which may show why the runtime is not configured.
fn with_toolkit(node: &Node<'_>, draft: Draft, broken: Option<&Broken<'_>>) -> Draft {
    let of_runtime = draft.rule.about == About::ContainerRuntime;
    let toolkit = broken.filter(|broken| broken.stage == Stage::Runtime && of_runtime);
    let is_toolkit =
        |set: &DaemonSetFacts| set.role == DaemonSetRole::GpuStack && set.name.contains("container-toolkit");
    let Some(toolkit) = toolkit else {
        return Some(&draft)
            .filter(|_| of_runtime)
            .and_then(|draft| configuration::refused(node, draft, is_toolkit))
            .unwrap_or(draft);
    };
    // The toolkit writes the configuration. Therefore the reason of its failure is the reason why there is no handler.
    broken::explain(node, toolkit, draft)
}

/// Returns whether a plugin is missing and no log gives another reason. A node may advertise no GPU on purpose. The
/// number of inotify instances may be too high, because descriptors that processes share are counted for each process.
fn may_be_inotify(node: &Node<'_>, drafts: &[Draft], broken: Option<&Broken<'_>>) -> bool {
    let missing = drafts.iter().any(|draft| is_consequence(draft) && draft.severity > Severity::Info);
    let known = broken.and_then(|broken| super::stack_log::known_line(node, broken.failing_pod.pod));
    missing && known.is_none_or(|(_, phrase)| phrase.id == "inotify-exhausted")
}

/// Lowers findings about the runtime if the driver is missing. They are consequences, because the toolkit waits for the
/// driver.
fn demote_runtime(drafts: &mut [Draft]) {
    let of_runtime =
        |draft: &&mut Draft| draft.severity >= Severity::Warning && draft.rule.about == About::ContainerRuntime;
    for draft in drafts.iter_mut().filter(of_runtime) {
        *draft = draft
            .clone()
            .with_severity(Severity::Info)
            .with_evidence("the driver must be repaired first: see the finding about the driver");
    }
}

/// Returns whether the finding gives the reason why no GPU is advertised.
fn is_reason(node: &Node<'_>, draft: &Draft) -> bool {
    let of_labels = [MIG_MANAGER_STUCK.id, UPGRADE_STUCK.id].contains(&draft.rule.id);
    let reason = of_labels || draft.rule.about == About::ContainerRuntime;
    draft.severity >= Severity::Warning && !node.stack.advertises_gpus && reason
}

fn is_consequence(draft: &Draft) -> bool {
    draft.rule.about == About::Unavailable
}

fn evidence_of_consequences(drafts: &[Draft]) -> Vec<String> {
    let consequences = drafts.iter().filter(|draft| is_consequence(draft));
    consequences.flat_map(|draft| draft.evidence.iter().cloned()).collect()
}

/// Returns whether the failing container installs a driver: the driver of the GPU Operator, of vGPU, or of the cloud.
fn installs_driver(broken: &Broken<'_>) -> bool {
    let of_driver = matches!(broken.failing_pod.pod.component, Component::Driver | Component::VgpuManager);
    of_driver || broken.failing_pod.container_name().contains("driver-installer")
}

/// Returns the finding about a missing driver with the state of NVIDIA's stack.
fn driver_absent(node: &Node<'_>, draft: Draft, broken: Option<&Broken<'_>>) -> Draft {
    let unexplained = draft.rule.about == About::DriverAbsent;
    if let Some(bound) = configuration::bound_to_vfio(node, &draft).filter(|_| unexplained) {
        return bound;
    }
    if let Some(of_stack) = configuration::not_deployed(node, &draft.evidence).filter(|_| unexplained) {
        return of_stack.with_severity(draft.severity);
    }
    if let Some(off) = configuration::driver_is_off(node, &draft).filter(|_| unexplained) {
        return off;
    }
    let broken = broken.filter(|broken| installs_driver(broken));
    if unexplained
        && broken.is_none()
        && !node.kubernetes.nvidia_pods.iter().flatten().any(|pod| pod.component == Component::Driver)
    {
        let draft = draft.with_all_evidence(configuration::unfit(node, |set| set.role == DaemonSetRole::GpuDriver));
        let refused = configuration::refused(node, &draft, |set| set.role == DaemonSetRole::GpuDriver);
        return refused.unwrap_or_else(|| configuration::without_installer(node, draft));
    }
    let Some(broken) = broken else {
        return draft;
    };
    let (action, advice) = (draft.action, draft.advice.clone());
    let explained = broken::explain(node, broken, draft);
    // The pod that installs the driver also provides its library. Any other finding with a reason keeps its own action.
    let without_library = node.host().is_some_and(|host| host.driver.loaded.is_some() && host.driver.library.is_none());
    if unexplained || without_library { explained } else { explained.with_action(action, advice) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Rule;

    #[test]
    fn a_runtime_that_waits_for_the_driver_is_no_fault_of_its_own() {
        let of = |about| Draft::on_node(Rule { about, ..rules::BROKEN_TOOLKIT });
        let mut drafts = [About::DriverAbsent, About::ContainerRuntime, About::Gpus].map(of).to_vec();
        demote_runtime(&mut drafts);
        let faults: Vec<_> =
            drafts.iter().filter(|draft| draft.severity > Severity::Info).map(|draft| draft.rule.about).collect();
        assert_eq!(faults, [About::DriverAbsent, About::Gpus]);
    }
}
