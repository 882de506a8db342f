//! `told`: describes a linked pod (`Told`): its state, the most informative lines of its log, the cause and the action.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::{self, FailingPod};
use crate::messages::phrases::{self, Part};
use crate::messages::shapes;
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, KubernetesFacts};
use syringe_core::report::Report;
use syringe_core::text::{clean, clean_keeping_end};

/// Maximum length of the text that states why a pod was read.
const ROLE: usize = 300;
/// Maximum length of a line of a log.
const LINE: usize = 240;
/// Maximum number of lines of a log.
const LINES: usize = 3;
/// Number of last lines from the log of a ready pod, if no line is about an error.
const LAST: usize = 2;

/// The state, log and cause of a linked pod.
pub(crate) struct Told {
    /// `namespace/name` of the pod.
    pub(crate) name: String,
    /// The state of the pod in one line, with its name and the reason why it was read.
    pub(crate) state: String,
    /// Whether the pod should be ready but is not.
    pub(crate) fails: bool,
    /// The most informative lines of the log, as evidence.
    pub(crate) lines: Vec<String>,
    /// The cause from a table, or the text of the log.
    pub(crate) cause: Option<String>,
    /// The action for the cause.
    pub(crate) action: Option<(ActionCode, String)>,
    /// A text that the pod started before a component that it needs, with the action.
    pub(crate) too_early: Option<(String, String)>,
    /// The command that shows the log, if the log could not be read.
    pub(crate) unread_log: Option<String>,
}

/// Returns the state, log and cause of a linked pod.
pub(crate) fn told(linked: &LinkedPod) -> Told {
    let LinkedPod { role, pod, .. } = linked;
    let name = pods::name(pod);
    let role = clean(role, ROLE);
    let fails = !pod.ready && pod.phase != "Succeeded";
    let waits = pod.containers.iter().find(|one| !(one.ready || one.init && one.state.exit_code == Some(0)));
    let failing_pod = FailingPod { pod, container: waits };
    let state = match fails {
        true => format!("{} ({role})", failing_pod.description()),
        false if pod.phase == "Succeeded" => format!("pod {name} has completed ({role})"),
        false => format!("pod {name} is ready ({role})"),
    };
    let telling = telling(linked, fails);
    let quote = |line: &String| {
        let container = evidence::data(&linked.container);
        format!("log of {name}, container {container}: \"{}\"", clean_keeping_end(line, LINE))
    };
    // A line of a ready pod is only quoted. Without a match in a table, it is not known whether the line is the reason.
    let (cause, action) = match of_tables(linked, &failing_pod, &telling) {
        Some((cause, action)) => (cause, action),
        None => (None, None),
    };
    let node = linked.node.as_deref().unwrap_or("its node");
    let action = action.map(|(code, text)| (code, text.replace("{node}", &clean(node, 253))));
    let ran = pod.containers.iter().any(|one| one.restarts > 0 || one.state.kind != ContainerStateKind::Waiting);
    let shows = FailingPod { pod, container: pod.containers.iter().find(|one| one.name == linked.container) };
    let too_early = linked.older_than.first().map(|later| {
        let later = clean(later, ROLE);
        let what = format!("it started before pod {later}, which provides the driver of its devices, was ready");
        let advice = format!("Restart the pod, so that it looks for the devices again: {}.", pods::delete_command(pod));
        (what, advice)
    });
    Told {
        state,
        fails,
        lines: telling.iter().take(LINES).map(quote).collect(),
        cause,
        action,
        too_early,
        unread_log: if linked.log.is_none() && ran { shows.log_command() } else { None },
        name,
    }
}

/// Returns the most informative lines of the log: lines about errors, or else about warnings, or else its last lines.
fn telling(linked: &LinkedPod, fails: bool) -> Vec<String> {
    let lines: Vec<&str> =
        linked.log.iter().flatten().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let is_telling = |line: &&&str| shapes::is_error(line) || is_warning(line);
    let mut found: Vec<String> = Vec::new();
    for line in lines.iter().rev().filter(is_telling) {
        let words = shapes::undecorated(line).into_owned();
        if !found.iter().any(|other| *shapes::undecorated(other) == *words) && found.len() < LINES {
            found.insert(0, (*line).to_owned());
        }
    }
    if found.is_empty() {
        let last = if fails { LINES } else { LAST };
        found = lines[lines.len().saturating_sub(last)..].iter().map(|line| (*line).to_owned()).collect();
    }
    found
}

/// Returns whether a line of a log is a warning, or reports that something is unhealthy.
fn is_warning(line: &str) -> bool {
    let klog =
        line.starts_with('W') && line.get(1..5).is_some_and(|date| date.bytes().all(|byte| byte.is_ascii_digit()));
    let lower = line.to_ascii_lowercase();
    klog || ["warning", "level=warn", "\"warn\"", "unhealthy"].iter().any(|word| lower.contains(word))
}

/// A cause, and the action for the cause.
type Meaning = (Option<String>, Option<(ActionCode, String)>);

/// Returns the cause and the action from the tables of messages. If no table matches the log of a failing pod, the text
/// of the log is the cause, and there is no action.
fn of_tables(linked: &LinkedPod, failing_pod: &FailingPod<'_>, telling: &[String]) -> Option<Meaning> {
    let pod = &linked.pod;
    let fails = failing_pod.container.is_some() && !pod.ready;
    let report = Report::default();
    if pod.component == Component::Other {
        let end = failing_pod.last_words().map(str::to_owned);
        let texts = end.iter().chain(telling.iter().rev());
        let known = |text: &String| Some((phrases::known(Part::Program, text)?, text.clone()));
        if let Some((phrase, text)) = texts.clone().find_map(known).filter(|_| fails) {
            let words = clean_keeping_end(&shapes::core(&text), LINE);
            let node = linked.node.as_deref().unwrap_or("its node");
            let cause = format!("{} (\"{words}\")", phrase.meaning(&text));
            return Some((Some(cause), Some((phrase.code, phrase.advice_for(&text, node)))));
        }
    }
    // The node of the pod was not read, or is another node, so its facts are not used.
    let log = if fails { linked.log.clone() } else { Some(telling.to_vec()) };
    let kubernetes =
        KubernetesFacts { linked_pods: vec![LinkedPod { log, ..linked.clone() }], ..KubernetesFacts::default() };
    let node = Node::new(&report, &kubernetes);
    if fails {
        let reason = stack_log::reason(&node, failing_pod)?;
        return Some((reason.cause, reason.action));
    }
    stack_log::known_line(&node, pod)?;
    let reason = stack_log::of_log(&node, pod, &linked.container)?;
    Some((reason.cause, reason.action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::facts::kubernetes::node::{NvidiaContainer, NvidiaContainerState, NvidiaPod};

    fn linked(ready: bool, component: Component, log: Option<&[&str]>) -> LinkedPod {
        let kind = if ready { ContainerStateKind::Running } else { ContainerStateKind::Waiting };
        let reason = (!ready).then(|| "CrashLoopBackOff".to_owned());
        let state = NvidiaContainerState { kind, reason, ..NvidiaContainerState::default() };
        let restarts = if ready { 0 } else { 7 };
        let main = NvidiaContainer { name: "main".into(), ready, restarts, state, ..NvidiaContainer::default() };
        let pod = NvidiaPod {
            namespace: "infra".into(),
            name: "helper-x".into(),
            uid: "u".into(),
            phase: "Running".into(),
            ready,
            component,
            containers: vec![main],
            ..NvidiaPod::default()
        };
        let log = log.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        LinkedPod { role: "it offers example.com/x".into(), pod, container: "main".into(), log, ..LinkedPod::default() }
    }

    #[test]
    fn a_pod_that_fails_is_described_with_its_state_and_its_words() {
        let log = ["starting", "unable to initialize NVML: ERROR_LIBRARY_NOT_FOUND"];
        let told = told(&linked(false, Component::Other, Some(&log)));
        assert!(
            told.fails && told.state.contains("CrashLoopBackOff") && told.state.contains("7 restarts"),
            "{}",
            told.state
        );
        assert!(told.lines.iter().any(|line| line.contains("ERROR_LIBRARY_NOT_FOUND")), "{:?}", told.lines);
        assert!(told.cause.is_some_and(|cause| cause.contains("ERROR_LIBRARY_NOT_FOUND")));
        assert!(told.action.is_some());
    }

    #[test]
    fn unknown_words_of_a_pod_that_is_ready_are_quoted_and_are_no_cause() {
        let log = ["loaded config", "2026/11/21 Warning: the frobnicator is sad", "serving"];
        let told = told(&linked(true, Component::Other, Some(&log)));
        assert!(!told.fails && told.cause.is_none() && told.action.is_none());
        assert_eq!(told.lines.len(), 1);
        assert!(told.lines[0].contains("frobnicator"));
    }

    #[test]
    fn a_log_that_could_not_be_read_has_its_command() {
        let unread = told(&linked(false, Component::DevicePlugin, None));
        assert!(
            unread
                .unread_log
                .is_some_and(|command| command.contains("kubectl -n infra logs helper-x -c main --previous"))
        );
        assert!(told(&linked(false, Component::DevicePlugin, Some(&[]))).unread_log.is_none());
    }
}
