//! `of`: the pods that may delay the others, in this order: never started, failed first, stopped processes, first fault of a fabric, other values.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use syringe_core::facts::kubernetes::pod::{ContainerState, Termination};

use crate::chain::{self, CLOCKS, Event, FOLLOWS};
use crate::evidence;
use crate::job::compare::{Comparison, Odd};
use crate::job::facts::STOPPED;
use crate::job::{Difference, Member, Suspect, Suspicion};
use crate::messages::phrases::{self, Part};
use crate::messages::{elsewhere, shapes};

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
    let mut found = Found { not_started: waits.len(), failed: failures.len(), ..Found::default() };
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
    // A failure after the fault of a GPU is a consequence of the fault.
    let follows =
        |at: Option<Timestamp>| at.zip(fault_at).is_some_and(|(at, fault)| at + SignedDuration::from_mins(1) >= fault);
    let failures_follow = first.is_some_and(|first| follows(failures[first].1));
    if let Some(first) = first.filter(|_| !failures_follow) {
        let (member, at) = failures[first];
        let others = failures.len() - 1;
        let echoes = if others > 0 {
            format!("{} failed later or with a message about others", evidence::count(others, "other pod"))
        } else {
            String::new()
        };
        for fact in ends_of(&members[member]) {
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

/// Joins equal differences of several GPUs of a pod. If they are numbers, the first one is shown.
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

/// Returns the failed pods, the first failure first. A pod that runs again counts only if most of the others were not
/// restarted.
fn failures(members: &[Member], waits: &[usize]) -> Vec<(usize, Option<Timestamp>)> {
    let restarted = members.iter().filter(|member| failure(member).is_some() && runs(member)).count();
    let failed = members.iter().enumerate().filter(|(index, _)| !waits.contains(index));
    let failed = failed.filter(|(_, member)| !runs(member) || restarted * 2 <= members.len());
    let mut failed: Vec<_> = failed.filter_map(|(index, member)| Some((index, failure(member)?.finished))).collect();
    failed.sort_by_key(|(index, at)| (at.is_none(), *at, *index));
    failed
}

/// Returns the line of its log or message that reports why a program ended.
fn last_words(member: &Member) -> Option<String> {
    let lines = || member.pod.log_lines.iter().map(String::as_str);
    let message = failure(member).map(|end| end.message).filter(|message| !message.is_empty());
    let line = shapes::last_error(lines()).or_else(|| lines().next_back()).or(message)?;
    Some(evidence::reason(line))
}

/// Returns whether the program reports that another rank, node or service failed.
fn blames_others(member: &Member) -> bool {
    let text = member.pod.log_lines.join("\n");
    let text =
        if text.is_empty() { failure(member).map(|end| end.message.to_owned()).unwrap_or_default() } else { text };
    let by_phrase = || {
        last_words(member).is_some_and(|words| {
            phrases::known(Part::Program, &words).is_some_and(|known| known.is_about_other_ranks())
        })
    };
    elsewhere::read(&text).is_some() || by_phrase()
}

/// Returns the position of the first failure. If it only reports that others failed, returns a failure soon after it.
fn first_failure(members: &[Member], failures: &[(usize, Option<Timestamp>)]) -> Option<usize> {
    let (_, start) = failures.first()?;
    let soon = failures.iter().take_while(|(_, at)| at.zip(*start).is_none_or(|(at, start)| at <= start + FOLLOWS));
    let own = soon
        .into_iter()
        .position(|(member, _)| last_words(&members[*member]).is_some() && !blames_others(&members[*member]));
    Some(own.unwrap_or(0))
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
    (words.len() >= 3 && failures.len() * 2 > members.len() && near && alike && own).then(|| first.clone())
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Returns the facts about the termination of a pod.
fn ends_of(member: &Member) -> Vec<Difference> {
    let fact = |fact: &str, value: String| Difference {
        fact: fact.to_owned(),
        place: String::new(),
        value,
        common: String::new(),
    };
    let Some(end) = failure(member) else { return Vec::new() };
    let at = end.finished.map(|at| format!(" at {}", evidence::time(at))).unwrap_or_default();
    let reason = if end.reason.is_empty() { String::new() } else { format!(" ({})", evidence::data(end.reason)) };
    let code = fact("exit code", format!("{}{reason}{at}, container {}", end.exit_code, end.container));
    std::iter::once(code).chain(last_words(member).map(|words| fact("last words", words))).collect()
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
