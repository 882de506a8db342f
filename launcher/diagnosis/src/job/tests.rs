//! Tests of the order of suspects, of causes and echoes, and of comparisons without a majority.

use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kubernetes::PodFacts;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState};

use super::facts::{FACTS, Value};
use super::observe::{Event, Observation, OwnFinding};
use super::{JobExplanation, JobState, Member, Observed, Suspicion, explain_job};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_795_000_000 + seconds)
}

/// Returns pods that run, each on its own node.
fn job(count: usize) -> Vec<Member> {
    let member = |rank: usize| {
        let state = ContainerState::Running { since: Some(at(0)) };
        let container = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
        let node = Some(format!("gpu-{rank}"));
        let pod = PodFacts {
            name: format!("train-{rank}"),
            node,
            phase: "Running".into(),
            wants_gpus: true,
            ..PodFacts::default()
        };
        let pod = PodFacts { containers: vec![container], ..pod };
        Member { rank: Some(rank.to_string()), role: String::new(), pod, observed: Ok(Observed::default()) }
    };
    (0..count).map(member).collect()
}

fn fail(member: &mut Member, second: i64, exit_code: i32, log: &str) {
    let (reason, message) = ("Error".to_owned(), String::new());
    let state =
        ContainerState::Terminated { exit_code, reason, message, started: Some(at(0)), finished: Some(at(second)) };
    member.pod.phase = "Failed".into();
    member.pod.containers[0].state = state;
    member.pod.log_lines = vec![log.to_owned()];
}

fn set(member: &mut Member, fact: &str, place: &str, value: Value) {
    let fact = FACTS.iter().position(|row| row.name == fact).expect("a fact");
    if let Ok(observed) = &mut member.observed {
        observed.values.push(Observation { fact, place: place.to_owned(), value });
    }
}

fn xid(member: &mut Member, second: i64, code: u32, severity: Severity) {
    if let Ok(observed) = &mut member.observed {
        let name = format!("Xid {code}");
        observed.events.push(Event {
            at: at(second),
            code: Some(code),
            severity,
            place: String::new(),
            name,
            line: String::new(),
        });
    }
}

fn named(answer: &JobExplanation) -> Vec<(Suspicion, Vec<&str>)> {
    let ranks = |members: &'_ [super::MemberName]| {
        members.iter().map(|one| one.rank.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    let all = answer.suspects.iter().map(|one| (one.because, ranks(&one.members)));
    all.map(|(because, ranks)| (because, ranks.into_iter().map(|rank| &*rank.leak()).collect())).collect()
}

#[test]
fn a_fault_before_the_first_failure_is_the_cause_and_one_after_it_is_not() {
    for (fault, because) in [(90, Suspicion::Fault), (400, Suspicion::FailedFirst)] {
        let mut pods = job(8);
        (0..8).for_each(|rank| {
            fail(&mut pods[rank], 130, 134, "NCCL error: remote process exited or there was a network error")
        });
        fail(&mut pods[6], 125, 1, "ValueError: loss is NaN");
        xid(&mut pods[3], fault, 79, Severity::Fatal);
        let answer = explain_job(&pods, &[]);
        assert_eq!((answer.state, answer.suspects[0].because), (JobState::Failed, because), "{answer:#?}");
        let rank = if because == Suspicion::Fault { "3" } else { "6" };
        assert_eq!(named(&answer)[0].1, [rank], "{answer:#?}");
    }
}

#[test]
fn an_xid_that_others_cause_is_the_cause_only_if_there_is_no_other() {
    let mut pods = job(8);
    (1..8).for_each(|rank| xid(&mut pods[rank], 100, 145, Severity::Critical));
    xid(&mut pods[5], 103, 149, Severity::Fatal);
    assert_eq!(named(&explain_job(&pods, &[])), [(Suspicion::Fault, vec!["5"])]);
    let mut pods = job(8);
    xid(&mut pods[2], 100, 145, Severity::Critical);
    xid(&mut pods[4], 101, 145, Severity::Critical);
    let answer = explain_job(&pods, &[]);
    assert_eq!(named(&answer), [(Suspicion::Fault, vec!["2"])]);
    assert_eq!(answer.suspects[0].echoes, "Xid 145 on 1 other pod");
    // Removed channels of programs that were killed are no fault.
    let mut pods = job(8);
    xid(&mut pods[2], 100, 45, Severity::Info);
    assert!(explain_job(&pods, &[]).suspects.is_empty());
}

#[test]
fn a_value_that_half_of_the_pods_have_is_worse_only_if_the_table_says_so() {
    let answer = |fact: &str, values: &[Value]| {
        let mut pods = job(values.len());
        for (pod, value) in pods.iter_mut().zip(values) {
            set(pod, fact, "x", value.clone());
        }
        let answer = explain_job(&pods, &[]);
        named(&answer).into_iter().flat_map(|(_, ranks)| ranks).map(str::to_owned).collect::<Vec<_>>()
    };
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(answer("port rate", &[Value::Number(400.0), Value::Number(40.0)]), ["1"]);
    assert_eq!(answer("port state", &[text("DOWN"), text("ACTIVE")]), ["0"]);
    assert!(answer("driver", &[text("570"), text("550")]).is_empty());
    assert_eq!(answer("driver", &[text("570"), text("550"), text("570")]), ["1"]);
    // All values are usual where none has a majority, and a faster device is no reason.
    let spread = [100.0, 100.0, 100.0, 700.0, 700.0, 700.0].map(Value::Number);
    assert!(answer("power", &spread).is_empty());
    assert!(answer("port rate", &[100.0, 100.0, 400.0].map(Value::Number)).is_empty());
    assert!(answer("PCIe width", &[8.0; 4].map(Value::Number)).is_empty());
}

#[test]
fn a_finding_of_most_nodes_names_none_of_them() {
    let with = |ranks: &[usize]| {
        let mut pods = job(6);
        for rank in ranks {
            let (id, text) = ("nic-problem".to_owned(), "A network card has a problem".to_owned());
            let finding =
                OwnFinding { id, severity: Severity::Critical, class: Class::Hardware, place: String::new(), text };
            if let Ok(observed) = &mut pods[*rank].observed {
                observed.findings.push(finding);
            }
        }
        explain_job(&pods, &[])
    };
    assert_eq!(named(&with(&[4])), [(Suspicion::Fault, vec!["4"])]);
    let answer = with(&[0, 1, 2, 3, 4]);
    assert!(answer.suspects.is_empty() && answer.shared.len() == 1, "{answer:#?}");
}

#[test]
fn a_pod_without_gpus_needs_no_node_and_a_pod_that_was_not_read_is_counted() {
    let mut pods = job(4);
    pods[0].observed = Err(String::new());
    pods[0].pod.wants_gpus = false;
    assert!(!explain_job(&pods, &[]).summary.contains("The nodes of"));
    pods[1].observed = Err(String::new());
    assert!(explain_job(&pods, &[7, 8, 9, 12]).summary.contains("There is no pod with index 7-9, 12."));
    assert!(explain_job(&pods, &[]).summary.contains("The nodes of 1 pod were not read."));
}
