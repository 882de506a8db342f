//! Tests of messages from the source code of GPU cluster software (`cluster.tsv`): the explanation names the subject of
//! each message.

use syringe_core::facts::host::Host;
use syringe_core::facts::kubernetes::node::{KubernetesFacts, NvidiaPod};
use syringe_core::facts::stack_log::StackLog;
use syringe_core::tsv::{rows, word};

use crate::explanation::tests::{
    Certainty, ContainerFacts, ContainerState, PodEvent, PodFacts, Report, Section, cause_of, explain, failed, node,
    time,
};
use crate::input::node::Node;
use crate::input::stack::pods::FailingPod;
use crate::rules::kubernetes::stack_log;

const TABLE: &str = include_str!("../../../../../tests/messages/cluster.tsv");

/// The answer to a message: all of its text, and whether its cause is certain.
struct Answer {
    text: String,
    is_certain: bool,
}

fn event(reason: &str, message: &str) -> PodEvent {
    PodEvent {
        time: Some(time("02:10:00")),
        reason: reason.into(),
        message: message.into(),
        count: 4,
        warning: true,
        ..PodEvent::default()
    }
}

fn waits(reason: &str, message: &str) -> PodFacts {
    let state = ContainerState::Waiting { reason: reason.into(), message: message.into() };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    PodFacts { phase: "Pending".into(), containers: vec![main], ..failed(1, "Error") }
}

fn creating(reason: &str, message: &str) -> PodFacts {
    PodFacts { events: vec![event(reason, message)], ..waits("ContainerCreating", "") }
}

fn unscheduled(message: &str) -> PodFacts {
    let pod = PodFacts { node: None, phase: "Pending".into(), containers: Vec::new(), ..failed(1, "Error") };
    PodFacts { message: Some(message.into()), ..pod }
}

/// Creates a pod with this message. `way`: where Kubernetes reports the message (state, event, condition, termination).
fn pod(way: &str, message: &str) -> PodFacts {
    match way {
        "create" => waits("CreateContainerError", message),
        "sandbox" => creating("FailedCreatePodSandBox", message),
        "claim" => creating("FailedPrepareDynamicResources", message),
        "scheduler" => unscheduled(message),
        "autoscaler" => {
            let pod = unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.");
            PodFacts { events: vec![event("NotTriggerScaleUp", message)], ..pod }
        }
        "controller" => {
            let pod = creating("FailedCreate", message);
            PodFacts { not_created_by: Some("DaemonSet driver".into()), ..pod }
        }
        "program" => {
            let mut pod = failed(1, "Error");
            if let ContainerState::Terminated { message: end, .. } = &mut pod.containers[0].state {
                *end = message.into();
            }
            pod
        }
        other => {
            let reason = other.strip_prefix("admission:").unwrap_or_else(|| panic!("way {other}"));
            let events = vec![event(reason, message)];
            let pod = PodFacts { containers: Vec::new(), gpus_requested: 1, events, ..failed(1, "Error") };
            PodFacts { reason: Some(reason.into()), message: Some(message.into()), ..pod }
        }
    }
}

fn answer(way: &'static str, message: &str) -> Answer {
    if let Some(component) = way.strip_prefix("log:") {
        let component = word(component).unwrap_or_else(|| panic!("component {component}"));
        let pod = NvidiaPod { uid: "u".into(), component, ..NvidiaPod::default() };
        let log = StackLog { pod_uid: "u".into(), lines: vec![message.to_owned()], ..StackLog::default() };
        let host = Host { stack_log: Some(log), ..Host::default() };
        let mut report = Report::default();
        report.sections.host = Some(Section::read(host, Vec::new()));
        let facts = KubernetesFacts::default();
        let reason = stack_log::reason(&Node::new(&report, &facts), &FailingPod { pod: &pod, container: None })
            .expect("a reason");
        let action = reason.action.map(|(_, text)| text).unwrap_or_default();
        let cause = reason.cause.unwrap_or_default();
        return Answer { is_certain: !cause.starts_with("its log says"), text: format!("{cause} >> {action}") };
    }
    let pod = pod(way, message);
    let explained = match way {
        "scheduler" | "autoscaler" => explain(&pod, None, None),
        _ => cause_of(&pod, &node(Vec::new())),
    };
    let text = format!("{} >> {}", explained.summary, explained.action.text);
    Answer { text, is_certain: explained.certainty == Certainty::Certain }
}

/// Returns the answer without the text that it quotes from the message.
fn unquoted(text: &str, message: &str) -> String {
    let mut rest = text.to_owned();
    for (start, _) in text.match_indices('"').collect::<Vec<_>>().into_iter().rev() {
        for (end, _) in text[start + 1..].match_indices('"').collect::<Vec<_>>().into_iter().rev() {
            let inner = &text[start + 1..start + 1 + end];
            let tail = inner.trim_start_matches('…');
            if inner.len() > 12 && (message.contains(tail) || message.replace('\\', "").contains(tail)) {
                rest = rest.replace(inner, "");
                break;
            }
        }
    }
    // The scheduler's reasons are in brackets.
    for part in message.split([';', '.']).filter(|part| part.len() > 12) {
        rest = rest.replace(&format!("({})", part.trim()), "").replace(part.trim(), "");
    }
    rest.to_lowercase()
}

#[test]
fn harvested_messages_have_their_answer() {
    let mut wrong = Vec::new();
    for row in rows(TABLE) {
        let [source, way, message, expected] = row[..] else { panic!("{row:?}") };
        let answer = answer(way, message);
        // If the answer only quotes the message, the action must contain the expected words.
        let told = match answer.text.split_once(" >> ") {
            Some((cause, action)) if cause.contains("cause not identified") || cause.contains("its log says") => action,
            _ => &answer.text,
        };
        let text = unquoted(told, message);
        let is_right = match expected {
            "?" => !answer.is_certain || answer.text.contains("in time"),
            // Forbidden words are searched in the whole answer.
            words if words.starts_with('!') => {
                let whole = unquoted(&answer.text, message);
                !words[1..].split(" | ").any(|word| whole.contains(word))
            }
            words => words.split(" | ").any(|word| text.contains(word)),
        };
        if !is_right {
            wrong.push(format!("{source} {way}: {message}\n    expected {expected}: {}", answer.text));
        }
    }
    assert!(wrong.is_empty(), "{} messages:\n{}", wrong.len(), wrong.join("\n"));
}
