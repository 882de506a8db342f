//! `read`: evaluates NCCL's report about the ranks of a job (`Said`, `Progress`): ranks that lag, do not respond, or
//! have an error.
//!
//! The report comes from processes of the job, so it is evidence only against pods of the same job. NCCL's statement
//! that a communicator is OK is not used. Progress is determined only from counts at two times. The suspicion has its
//! own kind, which comes after the kinds that the data of a node confirms. Answers contain numbers and addresses from
//! the report, but no text.

use std::collections::BTreeSet;
use std::net::IpAddr;

use syringe_core::facts::nccl::{NOT_LISTENING, NcclCommunicator, NcclRank, NcclRanks, NcclStatus};

use crate::evidence;
use crate::job::compare::Odd;
use crate::job::{Difference, Member, Suspicion};

/// Results of NCCL that are not errors: success, and in progress.
const NO_ERROR: [i64; 2] = [0, 7];
/// The error of a rank that detects the failure of another rank.
const REMOTE: i64 = 6;
/// One rank in this number may have an error. An error of more ranks makes no rank suspect.
const FEW: u64 = 4;
/// Maximum number of pods that the report can make suspect.
const MAX_ACCUSED: usize = 4;
/// A list with more ranks than this does not belong to a job.
const MAX_SIZE: u64 = 1 << 20;
/// Maximum length of a version.
const MAX_VERSION: usize = 16;

/// Progress of the ranks according to their counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// Some ranks do not progress and have launched fewer operations than the others.
    Lags,
    /// Ranks launch operations.
    Moves,
    #[default]
    Unknown,
}

/// The evaluated report of NCCL.
#[derive(Default)]
pub(super) struct Said {
    pub(super) progress: Progress,
    /// The report as a text. Empty if NCCL was not queried, or if the job does not use NCCL.
    pub(super) words: String,
    /// Facts that make pods suspect.
    pub(super) odd: Vec<Odd>,
}

/// Reads the most complete report of a pod of the job. If several are equally complete, the first is used.
pub(super) fn read(members: &[Member]) -> Said {
    let asked = members.iter().rev().filter_map(|member| Some((member, member.observed.as_ref().ok()?.nccl.as_ref()?)));
    let best = asked.max_by_key(|(_, status)| {
        (status.problem.is_none(), status.between_ms.is_some(), !status.communicators.is_empty())
    });
    let Some((asked, status)) = best else { return Said::default() };
    let by = format!("NCCL{} in pod {}", version(status), asked.pod.name);
    if let Some(problem) = &status.problem
        && status.communicators.is_empty()
    {
        let words = format!("{by} did not answer: {}.", evidence::reason(problem.why.trim_end_matches('.')));
        let words = if problem.code == NOT_LISTENING { String::new() } else { words };
        return Said { words, ..Said::default() };
    }
    let mut said = Said::default();
    let mut words = Vec::new();
    let (mut moves, mut compared, mut strange) = (false, false, Vec::new());
    let (mut lagging, mut ahead, mut missing, mut unused) = (0_u64, 0_u64, 0_u64, 0);
    let seconds = status.between_ms.map(|time| (time as f64 / 1000.0).round());
    for one in &status.communicators {
        let answered = answered(one);
        let gone = (one.missing.len() as u64).saturating_add(one.missing_omitted);
        let listed = answered.saturating_add(gone);
        if one.impossible.is_some() || listed > one.size.min(MAX_SIZE) {
            unused += 1;
            continue;
        }
        moves |=
            one.ranks.iter().any(|group| !group.launched_before.is_empty() && group.launched_before != group.launched);
        compared |= one.ranks.iter().any(|group| !group.launched_before.is_empty());
        // The size is also only a claim, so a list that lacks some ranks makes no rank suspect.
        if listed < one.size {
            continue;
        }
        match lagging_groups(one) {
            Lag::None => {}
            Lag::Most(count) => ahead = ahead.saturating_add(count),
            Lag::Few(groups) => {
                lagging = lagging.saturating_add(sum(&groups));
                for group in groups {
                    let value = |rank: &NcclRank| stands_still(one, group, rank, seconds);
                    said.accuse(members, group, "NCCL operations", &mut strange, value);
                }
            }
        }
        // Ranks are not suspect if all of them are missing, or if they left the communicator.
        let gone: Vec<&NcclRank> = one.missing.iter().filter(|rank| !rank.not_joined).collect();
        let count = (gone.len() as u64).saturating_add(one.missing_omitted);
        if count > 0 && is_at_most_half(count, listed) {
            missing = missing.saturating_add(count);
            let group = NcclRanks { examples: gone.into_iter().cloned().collect(), ..NcclRanks::default() };
            let value = |rank: &NcclRank| (format!("rank {} does not answer", rank.rank), "answer".to_owned());
            said.accuse(members, &group, "NCCL process", &mut strange, value);
        }
        let most = (answered / FEW).max(1);
        for group in one.ranks.iter().filter(|group| error_of(group).is_some() && group.count <= most) {
            let value = |rank: &NcclRank| {
                (format!("rank {}: {}", rank.rank, error_of(group).unwrap_or_default()), "none".to_owned())
            };
            said.accuse(members, group, "NCCL error", &mut strange, value);
        }
    }
    let ranks = |count: u64| evidence::count(usize::try_from(count).unwrap_or(usize::MAX), "rank");
    let within = seconds.map(|seconds| format!(" within {seconds} s")).unwrap_or_default();
    if lagging > 0 {
        said.progress = Progress::Lags;
        words.insert(0, format!("{by} reports: {} launched nothing{within} and is behind the others.", ranks(lagging)));
    } else if ahead > 0 {
        words.insert(
            0,
            format!(
                "{by} reports: most ranks are behind {}, which launched an operation that the other ranks did not launch.",
                ranks(ahead)
            ),
        );
    } else if moves {
        said.progress = Progress::Moves;
        words.insert(0, format!("{by} reports: the ranks launch operations."));
    } else if seconds.is_none() {
        words.insert(0, format!("{by} answered once only, so nothing is known about progress."));
    } else if compared {
        let why = "the whole job waits, or computes a long step";
        words.insert(0, format!("{by} reports: all ranks launched the same operations, and none{within}: {why}."));
    } else if words.is_empty() {
        words.push(format!("{by} lists no ranks that can be compared."));
    }
    if missing > 0 {
        words.push(format!("{} did not answer it.", ranks(missing)));
    }
    if unused > 0 {
        let lists = evidence::count(unused, "list");
        words.push(format!("{lists} of ranks cannot be an answer of NCCL and is not used."));
    }
    let accused: BTreeSet<usize> = said.odd.iter().map(|odd| odd.member).collect();
    if accused.len() > (members.len() / 2).clamp(1, MAX_ACCUSED) {
        said.odd.clear();
        words.push(format!(
            "It names {}, which is too many to suspect a single pod.",
            evidence::count(accused.len(), "pod")
        ));
    }
    if let Some(rank) = strange.first() {
        words.push(format!("{rank}: the address does not belong to exactly one pod of this job, so no pod is named."));
    }
    said.words = words.join(" ");
    said
}

fn version(status: &NcclStatus) -> String {
    let is_number =
        |text: &&String| text.len() <= MAX_VERSION && text.bytes().all(|one| one.is_ascii_digit() || one == b'.');
    status.version.as_ref().filter(is_number).map(|version| format!(" {version}")).unwrap_or_default()
}

/// Returns the number of ranks of these groups.
fn sum<'a>(groups: impl IntoIterator<Item = &'a &'a NcclRanks>) -> u64 {
    groups.into_iter().fold(0, |sum, group| sum.saturating_add(group.count))
}

/// Returns the number of ranks that responded.
fn answered(one: &NcclCommunicator) -> u64 {
    one.ranks.iter().fold(one.ranks_omitted, |sum, group| sum.saturating_add(group.count))
}

fn is_at_most_half(count: u64, all: u64) -> bool {
    count <= all / 2
}

/// The ranks of a communicator that do not progress and are behind others.
enum Lag<'a> {
    None,
    /// At most half of the ranks.
    Few(Vec<&'a NcclRanks>),
    /// More than half of the ranks. The value is the number of ranks that are ahead.
    Most(u64),
}

fn lagging_groups(one: &NcclCommunicator) -> Lag<'_> {
    let is_running = |group: &&NcclRanks| !group.ending && NO_ERROR[0] == group.init_state;
    let running: Vec<&NcclRanks> = one.ranks.iter().filter(is_running).collect();
    let all = sum(&running).saturating_add(one.ranks_omitted);
    let stands_still = |group: &NcclRanks| group.launched_before == group.launched && !group.launched.is_empty();
    let is_behind = |group: &NcclRanks| group.launched.iter().any(|(kind, count)| most(one, kind) > *count);
    let behind: Vec<&NcclRanks> =
        running.iter().copied().filter(|group| stands_still(group) && is_behind(group)).collect();
    let count = sum(&behind);
    // The ranks that are furthest behind also delay the ranks that are slightly ahead of them.
    let first = behind.first().filter(|first| is_at_most_half(first.count, all));
    match first {
        _ if behind.is_empty() || running.len() < one.ranks.len() => Lag::None,
        _ if is_at_most_half(count, all) => Lag::Few(behind),
        Some(first) => Lag::Few(vec![first]),
        None => Lag::Most(all - count),
    }
}

/// Returns the highest count for a kind of operation.
fn most(one: &NcclCommunicator, kind: &str) -> u64 {
    one.ranks.iter().filter_map(|group| group.launched.get(kind).copied()).max().unwrap_or_default()
}

/// Returns a text with both counts of a rank and the count of the others.
fn stands_still(one: &NcclCommunicator, group: &NcclRanks, rank: &NcclRank, seconds: Option<f64>) -> (String, String) {
    let behind = group.launched.iter().find(|(kind, count)| most(one, kind) > **count);
    let (kind, count) = behind.map(|(kind, count)| (kind.as_str(), *count)).unwrap_or_default();
    let later = seconds.map(|seconds| format!(", and {count} also {seconds} s later")).unwrap_or_default();
    let kind_word = if kind.bytes().all(|one| one.is_ascii_alphabetic()) { kind } else { "operations" };
    (format!("rank {} launched {count} {kind_word}{later}", rank.rank), most(one, kind).to_string())
}

/// Returns the error of a group, unless the error only follows from the error of another rank.
fn error_of(group: &NcclRanks) -> Option<String> {
    let is_error = |code: &i64| !NO_ERROR.contains(code) && *code != REMOTE;
    let text = |when: &str, code: i64| {
        let name = match code {
            1 => "a CUDA call failed",
            2 => "a system call failed",
            3 => "internal",
            4 => "an invalid argument",
            5 => "an invalid use",
            8 => "a timeout",
            _ => "an error",
        };
        format!("{when}: {name}")
    };
    let initial = Some(group.init_state).filter(is_error).map(|code| text("initialization", code));
    initial.or_else(|| Some(group.async_error).filter(is_error).map(|code| text("asynchronous", code)))
}

impl Said {
    /// Adds a fact against the pod of each listed rank of a group. Ranks that belong to no pod are added to `strange`.
    fn accuse(
        &mut self,
        members: &[Member],
        group: &NcclRanks,
        fact: &str,
        strange: &mut Vec<String>,
        value: impl Fn(&NcclRank) -> (String, String),
    ) {
        for rank in &group.examples {
            let mut at = members.iter().enumerate().filter(|(_, member)| member.addresses.contains(&rank.host));
            let (Some((index, member)), None) = (at.next(), at.next()) else {
                let host = rank.host.parse().map_or("an unknown address".to_owned(), |host: IpAddr| host.to_string());
                strange.push(format!("Rank {} on {host}", rank.rank));
                continue;
            };
            let gpus = member.observed.as_ref().map(|one| one.gpus.as_slice()).unwrap_or_default();
            let gpu = usize::try_from(rank.device).ok().and_then(|device| gpus.get(device));
            let (value, common) = value(rank);
            let difference = Difference {
                fact: fact.to_owned(),
                place: gpu.map(|gpu| format!("GPU {gpu}")).unwrap_or_default(),
                value,
                common,
            };
            if !self.odd.iter().any(|known| known.member == index && known.difference == difference) {
                let odd = Odd {
                    member: index,
                    suspicion: Some(Suspicion::NcclClaim),
                    difference,
                    is_of_node: false,
                    is_number: false,
                };
                self.odd.push(odd);
            }
        }
    }
}
