//! `of`: finds the pods of a job that may delay the others (`Found`), the most suspicious first.
//! The order: never started, failed first, stopped processes, first fault, other values.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use syringe_core::facts::kubernetes::pod::{ContainerState, Termination};

use crate::chain::{self, CLOCKS, Event, FOLLOWS};
use crate::evidence;
use crate::job::compare::{Comparison, Odd};
use crate::job::facts::STOPPED;
use crate::job::{Difference, Member, Suspect, Suspicion};
use crate::messages::phrases::{self, Part};
use crate::messages::{cuda_errors, elsewhere, shapes};

/// Names of the facts about the end of a pod.
pub(super) const NODE: &str = "node";
pub(super) const DELETION: &str = "deletion";
/// Beginning of the fact about a program that ended without an error.
pub(super) const WITHOUT_ERROR: &str = "0 (";

/// Maximum number of suspects in an answer.
const MAX_SUSPECTS: usize = 5;
const MAX_MEMBERS: usize = 6;
const MAX_FACTS: usize = 8;

/// The suspects, and the facts about all pods together.
#[derive(Default)]
pub(super) struct Found {
    pub(super) suspects: Vec<Suspect>,
    pub(super) omitted: usize,
    /// Number of pods that never started, and number of pods that failed.
    pub(super) not_started: usize,
    pub(super) failed: usize,
    /// Number of pods whose node is not Ready, or that are being deleted while the others are not.
    pub(super) lost: usize,
    /// Whether several pods failed at about the same time, and each of them only reports the failure of another pod.
    pub(super) all_blame: bool,
    /// The message with which all failed pods ended, if it is the same for all.
    pub(super) failed_alike: Option<String>,
}

/// One pod, and the facts that make it suspect.
struct Candidate {
    member: usize,
    because: Suspicion,
    since: Option<Timestamp>,
    facts: Vec<Fact>,
    is_of_node: bool,
    echoes: String,
}

/// Returns the suspects and the facts about all pods together.
pub(super) fn of(members: &[Member], compared: &Comparison) -> Found {
    let waits: Vec<usize> = (0..members.len()).filter(|member| never_started(&members[*member])).collect();
    let failures = failures(members, &waits);
    let lost = failures.iter().filter(|(member, at)| is_lost_at(&members[*member], *at)).count();
    let failed = failures.len() - lost;
    let mut found = Found { not_started: waits.len(), failed, lost, ..Found::default() };
    let mut candidates: BTreeMap<usize, Candidate> = BTreeMap::new();
    let mut add = |member: usize, because: Suspicion, since, echoes: String, fact: Difference| {
        let new =
            Candidate { member, because, since: None, facts: Vec::new(), is_of_node: false, echoes: String::new() };
        let candidate = candidates.entry(member).or_insert(new);
        candidate.because = candidate.because.min(because);
        candidate.since = candidate.since.or(since);
        if candidate.echoes.is_empty() {
            candidate.echoes = echoes;
        }
        candidate.facts.push((Some(because), fact, false));
    };
    if waits.len() < members.len() {
        for member in waits {
            add(member, Suspicion::NeverStarted, None, String::new(), why_not_started(&members[member]));
        }
    }
    let faults = faults(members);
    let fault_at = faults.first().map(|(_, event)| event.at);
    found.failed_alike = failed_alike(members, &failures);
    let first = first_failure(members, &failures).filter(|_| found.failed_alike.is_none());
    found.all_blame = first.is_none() && found.failed_alike.is_none() && !failures.is_empty();
    // A failure after the fault of a GPU is a consequence of the fault.
    let follows =
        |at: Option<Timestamp>| at.zip(fault_at).is_some_and(|(at, fault)| at + SignedDuration::from_mins(1) >= fault);
    let failures_follow = first.or(found.all_blame.then_some(0)).is_some_and(|first| follows(failures[first].1));
    if let Some(first) = first.filter(|_| !failures_follow) {
        let (failed, at) = failures[first];
        // If a pod ended without an error while the others still needed it, the others lost the connection to this pod.
        let earlier =
            Some(failed).filter(|_| !is_own(&members[failed], at)).and_then(|_| completed(members, failed, at));
        let others = failures.len() - usize::from(earlier.is_none());
        let (member, at) = earlier.unwrap_or((failed, at));
        let echoes = if others > 0 {
            format!("{} failed later or with a message about others", evidence::count(others, "other pod"))
        } else {
            String::new()
        };
        for fact in ends_of(&members[member], at) {
            add(member, Suspicion::FailedFirst, at, echoes.clone(), fact);
        }
    }
    let mut echoing = Vec::new();
    for (number, (member, event)) in faults.iter().enumerate() {
        let until = faults.get(number + 1).map(|(_, next)| next.at);
        let others = events(members).filter(|(other, _)| other != member);
        let echoes = chain::echoes(others, event, until);
        let words = chain::in_words(&echoes, "other pod");
        echoing.extend(echoes.into_values().flatten());
        let failed = failures.iter().filter(|(_, at)| at.is_some_and(|at| at >= event.at - CLOCKS)).count();
        let ended = (failed > 0).then(|| format!("{} ended", evidence::count(failed, "pod")));
        let echoes = words.into_iter().chain(ended).collect::<Vec<_>>().join(", ");
        let (value, place) =
            (format!("{} at {}, {}", event.name, evidence::time(event.at), event.line), event.place.clone());
        let fact = Difference { fact: "first kernel event".to_owned(), place, value, common: String::new() };
        add(*member, Suspicion::Fault, Some(event.at), echoes, fact);
    }
    let ended: Vec<usize> = failures.iter().map(|(member, _)| *member).collect();
    for odd in &compared.odd {
        let is_of_first = faults.iter().any(|(member, _)| *member == odd.member);
        // A pod that ended has no processes any more, and a pod with an echo of a fault has findings about the echo.
        let is_consequence = match odd.suspicion {
            Some(Suspicion::ProcessStopped | Suspicion::NcclClaim | Suspicion::WorksDifferently) => {
                !runs(&members[odd.member]) || ended.contains(&odd.member)
            }
            Some(Suspicion::Fault | Suspicion::Slower) => {
                !is_of_first && echoing.contains(&odd.member) && odd.difference.common.is_empty()
            }
            _ => false,
        };
        // A process hangs or ends because of the fault of its GPU. A signal that stops the process has another source.
        let by_fault = is_of_first && !odd.difference.value.starts_with(STOPPED);
        let suspicion = odd.suspicion.filter(|suspicion| *suspicion != Suspicion::ProcessStopped || !by_fault);
        if !is_consequence {
            add_odd(&mut candidates, odd, suspicion);
        }
    }
    let mut candidates: Vec<Candidate> =
        candidates.into_values().filter(|one| one.facts.iter().any(|fact| fact.0.is_some())).collect();
    candidates.sort_by_key(|one| {
        let is_first = failures_follow && one.because == Suspicion::Fault && one.since == fault_at;
        (one.because != Suspicion::NeverStarted && !is_first, one.because, one.since.is_none(), one.since, one.member)
    });
    let mut suspects = grouped(members, candidates);
    found.omitted = suspects.len().saturating_sub(MAX_SUSPECTS);
    suspects.truncate(MAX_SUSPECTS);
    found.suspects = suspects;
    found
}

fn add_odd(candidates: &mut BTreeMap<usize, Candidate>, odd: &Odd, suspicion: Option<Suspicion>) {
    let fact = (suspicion, odd.difference.clone(), odd.is_number);
    let candidate = candidates.entry(odd.member).or_insert(Candidate {
        member: odd.member,
        because: Suspicion::WorksDifferently,
        since: None,
        facts: Vec::new(),
        is_of_node: false,
        echoes: String::new(),
    });
    if let Some(suspicion) = suspicion.filter(|suspicion| *suspicion <= candidate.because) {
        candidate.is_of_node =
            odd.is_of_node && (suspicion < candidate.because || candidate.facts.is_empty() || candidate.is_of_node);
        candidate.because = suspicion;
    }
    candidate.facts.push(fact);
}

/// A difference with its meaning, and whether it is a number.
type Fact = (Option<Suspicion>, Difference, bool);

/// Joins equal differences of several GPUs of a pod. If they are numbers, the first number is shown.
fn joined(facts: Vec<Fact>) -> Vec<Fact> {
    let mut joined: Vec<(Fact, Vec<u32>)> = Vec::new();
    for fact in facts {
        let gpu = fact.1.place.strip_prefix("GPU ").and_then(|index| index.parse::<u32>().ok());
        let alike = |((_, known, _), gpus): &&mut (Fact, Vec<u32>)| {
            let same = (&known.fact, &known.common) == (&fact.1.fact, &fact.1.common);
            same && !gpus.is_empty() && (fact.2 || known.value == fact.1.value)
        };
        match gpu.and_then(|gpu| Some((gpu, joined.iter_mut().find(alike)?))) {
            Some((gpu, (_, gpus))) => gpus.push(gpu),
            None => joined.push((fact, gpu.into_iter().collect())),
        }
    }
    let named = |((suspicion, mut fact, is_number), gpus): (Fact, Vec<u32>)| {
        if gpus.len() > 1 {
            fact.place = format!("GPUs {}", evidence::ranges(&gpus));
            fact.value = if is_number { format!("about {}", fact.value) } else { fact.value };
        }
        (suspicion, fact, is_number)
    };
    joined.into_iter().map(named).collect()
}

/// Joins pods with the same differences into one suspect.
fn grouped(members: &[Member], candidates: Vec<Candidate>) -> Vec<Suspect> {
    let mut suspects: Vec<(String, Suspect)> = Vec::new();
    for Candidate { member, because, since, mut facts, is_of_node, echoes } in candidates {
        facts.sort_by_key(|(suspicion, ..)| (suspicion.is_none(), *suspicion));
        let facts = joined(facts);
        let key: Vec<_> = facts.iter().filter(|fact| fact.0 == Some(because)).collect();
        let key: Vec<_> =
            key.iter().map(|(_, one, number)| (&one.fact, &one.place, if *number { "" } else { &one.value })).collect();
        let key = format!("{because:?} {since:?} {key:?}");
        let node = members[member].pod.node.as_deref();
        let of_node = |other: &(usize, &Member)| {
            other.0 == member || (is_of_node && node.is_some() && other.1.pod.node.as_deref() == node)
        };
        let own = members.iter().enumerate().filter(of_node).map(|(_, one)| one.name());
        match suspects.iter_mut().find(|(known, _)| *known == key) {
            Some((_, suspect)) => suspect.members.extend(own),
            None => {
                let facts_omitted = facts.len().saturating_sub(MAX_FACTS);
                let facts = facts.into_iter().map(|(_, difference, _)| difference).take(MAX_FACTS).collect();
                let suspect = Suspect {
                    because,
                    members: own.collect(),
                    members_omitted: 0,
                    since,
                    facts,
                    facts_omitted,
                    echoes,
                };
                suspects.push((key, suspect));
            }
        }
    }
    let limited = |(_, mut suspect): (String, Suspect)| {
        suspect.members_omitted = suspect.members.len().saturating_sub(MAX_MEMBERS);
        suspect.members.truncate(MAX_MEMBERS);
        suspect
    };
    suspects.into_iter().map(limited).collect()
}

fn never_started(member: &Member) -> bool {
    let pod = &member.pod;
    let can_have_run = matches!(pod.phase.as_str(), "Running" | "Succeeded");
    !can_have_run && !pod.has_run() && pod.end().is_none_or(|end| end.never_ran())
}

fn runs(member: &Member) -> bool {
    member.pod.running().next().is_some()
}

fn why_not_started(member: &Member) -> Difference {
    let pod = &member.pod;
    let waiting = pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } => Some(format!("{reason} {message}")),
        _ => None,
    });
    let ended = pod.end().map(|end| format!("{} {}", end.reason, end.message));
    let of_pod = [&pod.reason, &pod.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
    let why = Some(of_pod).filter(|why| !why.is_empty()).or(waiting).or(ended).unwrap_or_default();
    let why = evidence::reason(why.trim());
    let value = if why.is_empty() { pod.phase.clone() } else { format!("{}: {why}", pod.phase) };
    Difference { fact: "phase".to_owned(), place: String::new(), value, common: String::new() }
}

/// Returns the failure of a pod: a termination with an exit code that is not zero.
fn failure(member: &Member) -> Option<Termination<'_>> {
    member.pod.end().filter(|end| end.exit_code != 0)
}

/// Returns the time at which the pod was lost: its node became not Ready, or its deletion was requested.
fn lost(member: &Member) -> Option<Timestamp> {
    let has_ended = matches!(member.pod.phase.as_str(), "Succeeded" | "Failed");
    let since = [member.node_lost.filter(|_| member.pod.node_ready == Some(false)), member.pod.deleted];
    since.into_iter().flatten().min().filter(|_| !has_ended)
}

/// Returns whether the failure of this time is the loss of the pod.
fn is_lost_at(member: &Member, at: Option<Timestamp>) -> bool {
    at.is_some() && lost(member) == at
}

/// Returns the failed and lost pods, the earliest first. A pod that runs again counts only if most of the others were
/// not restarted, and a lost pod only if most of the others are not lost.
fn failures(members: &[Member], waits: &[usize]) -> Vec<(usize, Option<Timestamp>)> {
    let restarted = members.iter().filter(|member| failure(member).is_some() && runs(member)).count();
    let are_lost = members.iter().filter(|member| lost(member).is_some()).count() * 2 <= members.len();
    let end = |member: &Member| {
        let lost = lost(member).filter(|_| are_lost);
        let ended = failure(member).filter(|_| !runs(member) || restarted * 2 <= members.len()).map(|end| end.finished);
        match (lost, ended) {
            (Some(lost), Some(Some(ended))) => Some(Some(lost.min(ended))),
            (Some(lost), _) => Some(Some(lost)),
            (None, ended) => ended,
        }
    };
    let failed = members.iter().enumerate().filter(|(index, _)| !waits.contains(index));
    let mut failed: Vec<_> = failed.filter_map(|(index, member)| Some((index, end(member)?))).collect();
    failed.sort_by_key(|(index, at)| (at.is_none(), *at, *index));
    failed
}

/// Reasons of containers and pods whose program ended without a message.
const WITHOUT_WORDS: [&str; 7] =
    ["OOMKilled", "Evicted", "DeadlineExceeded", "StartError", "ContainerCannotRun", "NodeShutdown", "Preempting"];
/// Exit code of a program that SIGSEGV ended.
const SEGMENTATION_FAULT: i32 = 139;
/// Lines that follow the line with the reason and only report the end of the program.
const CLOSING: [&str; 3] = ["terminate called", "Aborted", "Fatal Python error: Aborted"];

/// Returns whether the pod has its own reason for its end at this time: it was lost, Kubernetes or the kernel ended it,
/// or its program reports an error that is not about another pod.
fn is_own(member: &Member, at: Option<Timestamp>) -> bool {
    let of_pod = member.pod.reason.as_deref();
    let reasons = || failure(member).map(|end| end.reason).into_iter().chain(of_pod);
    let crashed =
        || member.pod.log_lines.is_empty() && failure(member).is_some_and(|end| end.exit_code == SEGMENTATION_FAULT);
    is_lost_at(member, at)
        || reasons().any(|reason| WITHOUT_WORDS.contains(&reason))
        || crashed()
        || (last_words(member).is_some() && !blames_others(member))
}

/// Returns the pod that ended without an error in the time before a failure of a pod with the same role.
fn completed(members: &[Member], failed: usize, at: Option<Timestamp>) -> Option<(usize, Option<Timestamp>)> {
    let ended =
        members.iter().enumerate().filter(|(_, one)| one.role == members[failed].role).filter_map(|(index, one)| {
            let end = one.pod.end().filter(|end| one.pod.phase == "Succeeded" && end.exit_code == 0)?;
            Some((index, Some(end.finished.filter(|end| at.is_some_and(|at| *end <= at))?)))
        });
    ended.max_by_key(|(_, at)| *at)
}

/// Returns the line of the pod's log or termination message that reports why the program ended.
fn last_line(member: &Member) -> Option<&str> {
    let is_closing = |line: &&str| CLOSING.iter().any(|start| line.starts_with(start));
    let of_log = || member.pod.log_lines.iter().map(String::as_str);
    let has_others = of_log().any(|line| !is_closing(&line));
    let lines = || of_log().filter(|line| !has_others || !is_closing(line));
    let message = failure(member).map(|end| end.message).filter(|message| !message.is_empty());
    shapes::last_error(lines()).or_else(|| lines().next_back()).or(message)
}

fn last_words(member: &Member) -> Option<String> {
    last_line(member).map(evidence::reason)
}

/// Returns whether the program only reports the failure of another rank, node or service, and no CUDA error.
fn blames_others(member: &Member) -> bool {
    if member.pod.log_lines.iter().any(|line| cuda_errors::is_about_one(line)) {
        return false;
    }
    let text = member.pod.log_lines.join("\n");
    let text =
        if text.is_empty() { failure(member).map(|end| end.message.to_owned()).unwrap_or_default() } else { text };
    let by_phrase = || {
        last_line(member)
            .is_some_and(|line| phrases::known(Part::Program, line).is_some_and(|known| known.is_about_other_ranks()))
    };
    elsewhere::read(&text).is_some() || by_phrase()
}

/// Returns the position of the first failure, among the failures within a short time, that has its own reason. If none
/// of them has a reason, returns the first failure only if it is the only one, or if a pod without a log or a completed
/// pod may be the cause.
fn first_failure(members: &[Member], failures: &[(usize, Option<Timestamp>)]) -> Option<usize> {
    let (_, start) = failures.first()?;
    let soon = failures.iter().take_while(|(_, at)| at.zip(*start).is_none_or(|(at, start)| at <= start + FOLLOWS));
    let soon: Vec<_> = soon.collect();
    let own = soon.iter().position(|(member, at)| is_own(&members[*member], *at));
    // A pod without a log may have its own error.
    let unknown = || soon.iter().any(|(member, _)| last_words(&members[*member]).is_none());
    let (first, at) = failures[0];
    own.or_else(|| (soon.len() == 1 || unknown() || completed(members, first, at).is_some()).then_some(0))
}

/// Returns the message with which at least three pods ended within seconds, if it is the same for all pods whose log
/// was read.
fn failed_alike(members: &[Member], failures: &[(usize, Option<Timestamp>)]) -> Option<String> {
    let read: Vec<_> = failures.iter().filter(|(member, _)| !members[*member].pod.log_lines.is_empty()).collect();
    let words: Vec<_> = read.iter().filter_map(|(member, _)| last_words(&members[*member])).collect();
    let first = words.first()?;
    let near = read.first()?.1.zip(read.last()?.1).is_none_or(|(first, last)| last.duration_since(first) <= CLOCKS);
    let alike = words.iter().all(|other| without_digits(other) == without_digits(first));
    let own = read.iter().all(|(member, _)| !blames_others(&members[*member]));
    // A pod without a log that ended for a reason of its own did not end with this message.
    let unread = |(member, at): &(usize, Option<Timestamp>)| {
        members[*member].pod.log_lines.is_empty() && is_own(&members[*member], *at)
    };
    let own = own && !failures.iter().any(unread);
    (words.len() >= 3 && failures.len() * 2 > members.len() && near && alike && own).then(|| first.clone())
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Returns the facts about the end of a pod at this time.
fn ends_of(member: &Member, at: Option<Timestamp>) -> Vec<Difference> {
    let fact = |fact: &str, value: String| Difference {
        fact: fact.to_owned(),
        place: String::new(),
        value,
        common: String::new(),
    };
    if let Some(at) = at.filter(|at| is_lost_at(member, Some(*at))) {
        let of_node = member.node_lost == Some(at);
        let why = member.pod.node_not_ready.as_deref().filter(|_| of_node).map(evidence::reason);
        let why = why.unwrap_or_else(|| format!("requested at {}", evidence::time(at)));
        return vec![fact(if of_node { NODE } else { DELETION }, why)];
    }
    let Some(end) = failure(member).or_else(|| member.pod.end()) else { return Vec::new() };
    let at = end.finished.map(|at| format!(" at {}", evidence::time(at))).unwrap_or_default();
    let reason = if end.reason.is_empty() { String::new() } else { format!(" ({})", evidence::data(end.reason)) };
    let code = fact("exit code", format!("{}{reason}{at}, container {}", end.exit_code, end.container));
    let of_pod = [&member.pod.reason, &member.pod.message].map(|text| text.as_deref().unwrap_or_default().trim());
    let of_pod = Some(of_pod.join(": ")).filter(|_| member.pod.reason.is_some());
    let of_pod = of_pod.map(|why| fact("pod", evidence::reason(why.trim_end_matches([':', ' ', '.']))));
    of_pod.into_iter().chain([code]).chain(last_words(member).map(|words| fact("last words", words))).collect()
}

/// Returns the first fault of each chain of events, with its pod.
fn faults(members: &[Member]) -> Vec<(usize, &Event)> {
    chain::first_faults(&events(members).collect::<Vec<_>>())
}

fn events(members: &[Member]) -> impl Iterator<Item = (usize, &Event)> {
    members.iter().enumerate().flat_map(|(index, member)| {
        member.observed.iter().flat_map(move |one| one.events.iter().map(move |event| (index, event)))
    })
}
