//! `quote`: adds the messages of the failed component to an explanation. `logs`, `log_of`, `where_is_log`: find the
//! logs of containers. `doubts`, `doubts_of_logs`: messages that exclude the statement that a pod has no problem
//! (`Doubt`).
//!
//! For every cause, an explanation quotes the message of the component that failed: of the kubelet, of the scheduler,
//! of the program and its log, and of objects that name the pod.

use crate::explanation::causes::{Case, MAX_EVIDENCE, end_quote, event_quote, eviction};
use crate::explanation::types::{Cause, Explanation};
use crate::messages::phrases::{self, Part};
use crate::messages::shapes;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent};
use syringe_core::text::{clean, clean_keeping_end};

/// Number of characters at the end of a message by which the message is recognized.
const RECOGNIZED: usize = 60;
/// Maximum number of events that are quoted in addition to the evidence of a cause.
const MAX_WARNINGS: usize = 2;
/// Maximum length of a quoted message in a summary.
const MAX_WORDS: usize = 300;
/// Maximum length of a summary with a quoted message.
const MAX_SUMMARY: usize = 900;
/// Maximum length of a quoted line of a log.
const MAX_LINE: usize = 400;

/// Reasons of events that report no problem. They are used if the type of the event is not known.
const NORMAL_EVENTS: [&str; 12] = [
    "Scheduled",
    "Pulling",
    "Pulled",
    "Created",
    "Started",
    "Killing",
    "SuccessfulAttachVolume",
    "AddedInterface",
    "SuccessfulCreate",
    "SuccessfulDelete",
    "TriggeredScaleUp",
    "SandboxChanged",
];

/// A message with its source.
struct Message {
    text: String,
    quote: String,
}

/// Returns the lines of the logs that were read, with the container of each log. The log of the failed container comes
/// first.
pub(super) fn logs<'c>(case: &'c Case<'_>) -> Vec<(String, Vec<&'c str>)> {
    let pod = case.pod;
    let failed = case.failed().map(|end| end.container);
    let mut logs: Vec<(String, Vec<&str>)> = Vec::new();
    if let Some(container) = failed.filter(|_| !pod.log_lines.is_empty()) {
        logs.push((container.to_owned(), pod.log_lines.iter().map(String::as_str).collect()));
    }
    if let Some((container, lines)) =
        case.any_log_on_node().filter(|(container, _)| !logs.iter().any(|(name, _)| name == container))
    {
        logs.push((container.to_owned(), lines));
    }
    let others = pod.other_logs.iter().filter(|log| failed != Some(log.container.as_str()));
    logs.extend(others.map(|log| (log.container.clone(), log.lines.iter().map(String::as_str).collect())));
    logs
}

/// Returns the lines of the log of a container. `None` if the log was not read.
pub(super) fn log_of<'c>(case: &'c Case<'_>, container: &str) -> Option<Vec<&'c str>> {
    logs(case).into_iter().find(|(name, _)| name == container).map(|(_, lines)| lines)
}

/// Returns where to find the log of a container: in the answer if its last lines were read, otherwise through the
/// command that shows the log.
pub(super) fn where_is_log(case: &Case<'_>, container: &str, command: &str) -> String {
    match log_of(case, container) {
        Some(lines) if lines.is_empty() => "its log is empty".to_owned(),
        Some(_) => format!("its last lines are in this answer; all of it: {command}"),
        None => command.to_owned(),
    }
}

/// Returns the most informative lines from the logs of failed containers.
fn of_logs(case: &Case<'_>) -> Vec<Message> {
    let fails = |container: &str| {
        case.pod.containers.iter().filter(|one| one.name == container).any(|one| {
            let ends = [Some(&one.state), one.last.as_ref()].into_iter().flatten();
            ends.into_iter()
                .any(|state| matches!(state, ContainerState::Terminated { exit_code, .. } if *exit_code != 0))
        })
    };
    let told = logs(case).into_iter().filter(|(container, _)| fails(container));
    told.flat_map(|(container, lines)| {
        let lines = shapes::telling_lines(lines.into_iter());
        lines.into_iter().map(move |line| {
            let text = clean_keeping_end(line, MAX_LINE);
            Message { quote: format!("log of container {container}: {text}"), text }
        })
    })
    .collect()
}

/// Adds the messages of the failed component that are not in the evidence yet, and adds the most informative message to
/// the summary.
pub(super) fn quote(case: &Case<'_>, explanation: &mut Explanation) {
    let pod = case.pod;
    let failing = explanation.cause != Cause::None;
    let status = pod.reason.as_ref().map(|reason| match &pod.message {
        Some(message) => Message { text: message.clone(), quote: format!("pod status: {reason}: {message}") },
        None => Message { text: reason.clone(), quote: format!("pod status: {reason}") },
    });
    let waiting = pod.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } if !message.is_empty() => {
            Some(Message { text: message.clone(), quote: format!("container {}: {reason}: {message}", container.name) })
        }
        _ => None,
    });
    let end = case.failed().filter(|end| !end.message.is_empty());
    let end = end.and_then(|end| Some(Message { text: end.message.to_owned(), quote: end_quote(case)? }));
    let of_event = |event: &PodEvent| Message { text: event.message.clone(), quote: event_quote(event) };
    let warnings = pod.events.iter().rev().filter(|event| {
        let known = event.warning || !NORMAL_EVENTS.contains(&event.reason.as_str());
        failing && known && !event.message.is_empty() && !event.is_ours()
    });
    let related = pod.related_warnings.iter().rev().filter(|_| failing).take(MAX_WARNINGS).map(of_event);
    let logs = if failing { of_logs(case) } else { Vec::new() };
    let all: Vec<Message> = status
        .into_iter()
        .chain(end)
        .chain(logs)
        .chain(waiting)
        .chain(warnings.take(MAX_WARNINGS).map(of_event))
        .chain(related)
        .collect();
    let mut missing: Vec<String> = Vec::new();
    for message in &all {
        let known = short(&message.text);
        if !explanation.evidence.iter().chain(&missing).any(|line| line.contains(&known)) {
            missing.push(message.quote.clone());
        }
    }
    explanation.evidence.truncate(MAX_EVIDENCE.saturating_sub(missing.len()).max(MAX_EVIDENCE / 2));
    *explanation = std::mem::take(explanation).with_evidence(missing);
    explanation.evidence.truncate(MAX_EVIDENCE * 2);
    if failing {
        add_words(case, explanation);
    }
}

/// Returns the cleaned end of a message. A text that contains this end already quotes the message.
fn short(message: &str) -> String {
    let cleaned = clean(message, usize::MAX);
    cleaned.chars().skip(cleaned.chars().count().saturating_sub(RECOGNIZED)).collect()
}

/// Adds the message of the program to a summary that does not quote it.
fn add_words(case: &Case<'_>, explanation: &mut Explanation) {
    // The kubelet itself writes the message about a container that it did not find.
    let Some(end) = case.failed().filter(|end| end.reason != "ContainerStatusUnknown") else { return };
    let logs = logs(case);
    let of_container =
        || logs.iter().filter(|(container, _)| container == end.container).flat_map(|(_, lines)| lines.iter().copied());
    let mut lines = shapes::telling_lines(end.message.lines());
    if lines.is_empty() {
        lines = shapes::telling_lines(of_container());
    }
    let errors = (0..lines.len()).filter(|at| shapes::is_error_at(&lines, *at)).map(|at| lines[at]);
    let errors: Vec<&str> = errors.collect();
    let mut chosen = if errors.is_empty() { lines.last().copied().into_iter().collect() } else { errors };
    // The line with the message that the summary explains comes first.
    let is_explained = |line: &&str| {
        let phrase = phrases::known(Part::Program, line).filter(|phrase| !phrase.is_consequence);
        phrase.is_some_and(|phrase| explanation.summary.contains(&phrase.meaning(line)))
    };
    let of_end: Vec<&str> =
        if end.message.is_empty() { of_container().collect() } else { end.message.lines().collect() };
    let explained: Vec<&str> = of_end.into_iter().rev().filter(is_explained).collect();
    let raised = explained.iter().find(|line| shapes::exception(line).is_some());
    if let Some(line) = raised.or(explained.first()).copied() {
        chosen.retain(|other| *other != line);
        chosen.insert(0, line);
    }
    // An exception begins with the reason; other errors of several layers end with it.
    let words = chosen.into_iter().map(|line| match shapes::exception(line) {
        Some(_) => clean(&shapes::undecorated(line), MAX_WORDS),
        None => clean_keeping_end(&shapes::undecorated(line), MAX_WORDS),
    });
    let said: Vec<String> =
        words.filter(|words| !words.is_empty() && !explanation.summary.contains(&short(words))).take(2).collect();
    if said.is_empty() || end.never_ran() {
        return;
    }
    let said = said.iter().map(|words| format!("\"{words}\"")).collect::<Vec<_>>().join(", ");
    let summary = explanation.summary.trim_end_matches('.');
    explanation.summary = clean_keeping_end(&format!("{summary}; its last message: {said}."), MAX_SUMMARY);
}

/// Returns the kind and name of the other object that an event is about: `VirtualMachineInstance vm`.
fn object_of(event: &PodEvent) -> String {
    let object = event.message.split_once(": ").map_or("another object", |(object, _)| object);
    clean(object, RECOGNIZED * 2)
}

/// A message that excludes the statement that a pod has no problem.
pub(super) struct Doubt {
    /// The source of the message: `its log (container main) says`.
    pub(super) source: String,
    pub(super) message: String,
    pub(super) quote: String,
    /// Whether the message is a line of a log.
    pub(super) of_log: bool,
}

/// Returns the messages about a running or completed pod, the most informative first: from objects that name the pod,
/// from its events, from its conditions, and from its log. Messages from before the start of its containers are
/// ignored.
pub(super) fn doubts(case: &Case<'_>) -> Vec<Doubt> {
    let pod = case.pod;
    let started = pod.running().filter_map(|(_, since)| since).min();
    // A pod can fail its readiness probe several times before it becomes Ready.
    let settled = [started, pod.ready_since.filter(|_| pod.ready == Some(true))].into_iter().flatten().max();
    let since = |event: &&PodEvent| settled.zip(event.time).is_none_or(|(settled, time)| time >= settled);
    let from_start = |event: &&PodEvent| started.zip(event.time).is_none_or(|(started, time)| time >= started);
    let of_event = |event: &PodEvent, source: String| Doubt {
        source,
        message: event.message.clone(),
        quote: event_quote(event),
        of_log: false,
    };
    let related = pod.related_warnings.iter().rev().filter(from_start);
    let mut doubts: Vec<Doubt> =
        related.map(|event| of_event(event, format!("{} reports {}", object_of(event), event.reason))).collect();
    // Once the pod has a node, the warnings of the scheduler are over.
    let is_over = |event: &&PodEvent| pod.node.is_some() && event.reason == "FailedScheduling";
    let own =
        pod.events.iter().rev().filter(|event| event.warning && !event.is_ours() && !is_over(event)).filter(since);
    doubts.extend(own.map(|event| of_event(event, format!("its newest warning is {}", event.reason))));
    if pod.phase == "Running" {
        let condition = |text: &String| Doubt {
            source: "one of its conditions reports a problem".to_owned(),
            message: text.clone(),
            quote: format!("condition {text}"),
            of_log: false,
        };
        doubts.extend(pod.other_conditions.iter().map(condition));
        // A boot of the node restarts all containers and leaves no record of their end.
        let by_boot = |one: &ContainerFacts| one.restarts == 1 && eviction::restarted_by_boot(case, one).is_some();
        let restarted = pod.containers.iter().filter(|one| one.restarts > 0 && one.last.is_none() && !by_boot(one));
        doubts.extend(restarted.map(|one| Doubt {
            source: format!("its container {} was restarted {} times", one.name, one.restarts),
            message: String::new(),
            quote: format!("container {}: {} restarts, and no record of the last end", one.name, one.restarts),
            of_log: false,
        }));
        doubts.extend(doubts_of_logs(case));
    }
    doubts
}

/// Returns the errors in the logs of a running pod: for each container the last line with a known message, or else the
/// last line that its logger marks as an error.
pub(super) fn doubts_of_logs(case: &Case<'_>) -> Vec<Doubt> {
    let warnings = case.pod.is_gpu_stack;
    let of_log = |(container, lines): (String, Vec<&str>)| {
        let known = lines.iter().rev().find(|line| phrases::known(Part::Program, line).is_some()).copied();
        let line = known.or_else(|| shapes::marked_error(lines.into_iter(), warnings))?;
        let line = clean_keeping_end(line, MAX_LINE);
        Some(Doubt {
            source: format!("the log of its container {container} has an error or warning"),
            quote: format!("log of container {container}: {line}"),
            message: line,
            of_log: true,
        })
    };
    logs(case).into_iter().filter_map(of_log).collect()
}
