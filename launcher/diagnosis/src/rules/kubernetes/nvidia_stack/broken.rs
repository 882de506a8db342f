//! Finds the first component of NVIDIA's stack that does not work, with the reason.

use crate::input::node::Node;
use crate::rule::declaration::Rule;
use crate::rule::draft::Draft;
use crate::rule::evidence;
use crate::rules::kubernetes::nvidia_stack::advertised::advertises_gpus;
use crate::rules::kubernetes::nvidia_stack::pods;
use crate::rules::kubernetes::nvidia_stack::pods::FailingPod;
use crate::rules::kubernetes::nvidia_stack::rules::{BROKEN_DRIVER, BROKEN_PLUGIN, BROKEN_TOOLKIT, BROKEN_VALIDATOR};
use crate::rules::kubernetes::stack_log;
use crate::rules::kubernetes::stack_log::Phrase;
use crate::stack_stage::Stage;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, NvidiaPod};
use syringe_core::facts::stack_log::StackLog;
use syringe_core::text::clean_keeping_end;

/// Maximum length of a log line in the evidence.
const LINE: usize = 240;

/// The first component that does not work.
#[derive(Clone, Debug)]
pub(super) struct Broken<'a> {
    pub(super) stage: Stage,
    pub(super) rule: Rule,
    pub(super) failing_pod: FailingPod<'a>,
    /// Description in one line.
    pub(super) words: String,
}

/// Returns the first component, in the order of their dependencies, that does not work.
pub(super) fn first<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    if !pods::is_settled(node) {
        return None;
    }
    driver(node).or_else(|| toolkit(node)).or_else(|| validator(node)).or_else(|| plugin(node))
}

fn broken<'a>(stage: Stage, rule: Rule, failing_pod: FailingPod<'a>) -> Broken<'a> {
    Broken { stage, rule, failing_pod, words: failing_pod.words() }
}

fn driver<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    let failing_pod = pods::failing_pod(node, Component::Driver)?;
    Some(broken(Stage::Driver, BROKEN_DRIVER, failing_pod))
}

fn toolkit<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    let failing_pod = pods::failing_pod(node, Component::ContainerToolkit)?;
    Some(match validated(&failing_pod) {
        Some(stage) => broken(stage, BROKEN_VALIDATOR, failing_pod),
        None => broken(Stage::Runtime, BROKEN_TOOLKIT, failing_pod),
    })
}

/// Checks the validator's pod. Its checks of CUDA and of the plugin run after the plugin has started.
fn validator<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    let failing_pod = pods::failing_pod(node, Component::Validator)?;
    let stage = validated(&failing_pod).unwrap_or(Stage::Plugin);
    let cause = if stage == Stage::Plugin { plugin(node) } else { None };
    Some(cause.unwrap_or_else(|| broken(stage, BROKEN_VALIDATOR, failing_pod)))
}

/// The stage that a validation container of the GPU Operator checks.
fn validated(failing_pod: &FailingPod<'_>) -> Option<Stage> {
    match failing_pod.container_name() {
        "driver-validation" => Some(Stage::Driver),
        "toolkit-validation" => Some(Stage::Runtime),
        "cuda-validation" | "plugin-validation" => Some(Stage::Plugin),
        _ => None,
    }
}

fn plugin<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    let of = |component| pods::failing_pod(node, component);
    let failing_pod =
        of(Component::DevicePlugin).or_else(|| of(Component::DraDriver).filter(|_| !advertises_gpus(node)));
    if let Some(failing_pod) = failing_pod {
        return Some(match validated(&failing_pod) {
            Some(stage) => broken(stage, BROKEN_VALIDATOR, failing_pod),
            None => broken(Stage::Plugin, BROKEN_PLUGIN, failing_pod),
        });
    }
    if advertises_gpus(node) || node.answering().next().is_none() {
        return None;
    }
    // It is running, but has registered no GPU with the kubelet. For a DRA driver that is known only if its ResourceSlices were
    // read.
    let dra = Some(Component::DraDriver).filter(|_| node.kubernetes.gpu_dra == Some(false));
    let idle = [Some(Component::DevicePlugin), dra].into_iter().flatten();
    let idle = idle.flat_map(|component| pods::of(node, component));
    let pod = idle.into_iter().find(|pod| pod.ready && has_run(node, pod))?;
    let container = pod.containers.iter().find(|container| !container.init);
    let words = format!("pod {} is running, but has registered no GPU with the kubelet", pods::name(pod));
    Some(Broken { stage: Stage::Plugin, rule: BROKEN_PLUGIN, failing_pod: FailingPod { pod, container }, words })
}

/// Whether its containers have been running long enough to register.
fn has_run(node: &Node<'_>, pod: &NvidiaPod) -> bool {
    let mut own = pod.containers.iter().filter(|container| !container.init);
    own.all(|container| {
        container.state.kind == ContainerStateKind::Running && pods::is_older(node, container.state.since)
    })
}

impl Broken<'_> {
    /// The phrase of the pod's log, if it is a known one.
    pub(super) fn phrase(&self, node: &Node<'_>) -> Option<&'static Phrase> {
        let (_, phrase) = stack_log::most_telling(lines(log_of(node, self.failing_pod.pod)?))?;
        Some(phrase)
    }

    /// Creates the finding. `unoffered`: evidence that the node advertises no GPU, if that is so.
    pub(super) fn draft(&self, node: &Node<'_>, unoffered: Vec<String>) -> Draft {
        let severity =
            if unoffered.is_empty() && advertises_gpus(node) { Severity::Warning } else { Severity::Critical };
        let draft = Draft::on_node(self.rule).with_severity(severity).with_evidence(self.words.clone());
        self.explain(node, draft).with_all_evidence(unoffered)
    }

    /// Adds the pod's events and log, and the action.
    pub(super) fn explain(&self, node: &Node<'_>, draft: Draft) -> Draft {
        let failing_pod = &self.failing_pod;
        let draft = draft.with_all_evidence(failing_pod.warning());
        let log = log_of(node, failing_pod.pod);
        let told = log.and_then(|log| stack_log::most_telling(lines(log)));
        let draft = match (told, log) {
            (Some((line, phrase)), _) => {
                draft.with_evidence(format!("{}: {}", quoted(line, failing_pod), phrase.cause))
            }
            (None, Some(log)) => draft.with_all_evidence(log.lines.last().map(|line| quoted(line, failing_pod))),
            (None, None) => draft,
        };
        let advice = advice(failing_pod, told.map(|(_, phrase)| phrase), &draft.advice);
        let action = told.map_or(draft.action, |(_, phrase)| phrase.action);
        draft.with_action(action, advice)
    }
}

/// The action of the phrase, else of the rule; then the commands.
fn advice(failing_pod: &FailingPod<'_>, phrase: Option<&Phrase>, usual: &str) -> String {
    let mut advice = phrase.map_or(usual, |phrase| phrase.advice).to_owned();
    if let Some(command) = failing_pod.log_command() {
        advice.push_str(&format!(" Log: {command}."));
    }
    if phrase.is_some() {
        advice.push_str(&format!(" Then: {}.", pods::delete_command(failing_pod.pod)));
    }
    advice
}

fn log_of<'a>(node: &Node<'a>, pod: &NvidiaPod) -> Option<&'a StackLog> {
    node.host()?.stack_log.as_ref().filter(|log| log.pod_uid == pod.uid)
}

fn lines(log: &StackLog) -> impl Iterator<Item = &str> {
    log.detail_lines.iter().chain(&log.lines).map(String::as_str)
}

fn quoted(line: &str, failing_pod: &FailingPod<'_>) -> String {
    format!("log of {}: \"{}\"", evidence::data(failing_pod.container_name()), clean_keeping_end(line, LINE))
}

/// The container of NVIDIA's stack whose log may contain the reason why no GPU is advertised: of the first failing pod, of a
/// device plugin that registered no GPU, or of the MIG manager.
pub(super) fn log_to_read<'a>(node: &Node<'a>) -> Option<(&'a NvidiaPod, &'a str)> {
    let named = |failing_pod: FailingPod<'a>| Some((failing_pod.pod, failing_pod.container?.name.as_str()));
    if let Some(broken) = first(node) {
        return named(broken.failing_pod);
    }
    let labels = &node.kubernetes.labels;
    let unfinished = labels.mig_config_state.as_deref().is_some_and(|state| state != "success");
    let component = match () {
        () if unfinished => Component::MigManager,
        () if !advertises_gpus(node) => Component::DevicePlugin,
        () => return None,
    };
    let pod = pods::of(node, component).next()?;
    named(FailingPod { pod, container: pod.containers.iter().find(|container| !container.init) })
}
