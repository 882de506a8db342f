//! `compare`: joins the ranks of two answers of NCCL, and groups ranks with the same counts and the same state.

use std::collections::{BTreeMap, HashMap, HashSet};

use syringe_core::facts::nccl::{NcclCommunicator, NcclRanks, NcclStatus};

use super::answer::{Answer, Communicator, Counts, Hash, KINDS, Place, Rank, State};

/// Maximum number of communicators, groups of a communicator, named ranks of a group, and missing ranks.
const MAX_COMMUNICATORS: usize = 64;
const MAX_GROUPS: usize = 12;
const MAX_EXAMPLES: usize = 4;
const MAX_MISSING: usize = 8;
/// A communicator with more ranks than this number does not belong to a real job.
const MAX_SIZE: u64 = 1 << 20;

/// Compares the answers. The second answer contains the current state.
pub(super) fn compare(pod_uid: &str, before: Answer, after: Option<Answer>) -> NcclStatus {
    let (earlier, now) = match after {
        Some(after) => (before.communicators, Answer { version: after.version.or(before.version), ..after }),
        None => (Vec::new(), before),
    };
    let earlier: HashMap<Hash, Communicator> = earlier.into_iter().map(|one| (one.hash, one)).collect();
    let mut pairs: Vec<(Before<'_>, &Communicator)> =
        now.communicators.iter().map(|one| (counts_of(earlier.get(&one.hash)), one)).collect();
    pairs.sort_by_cached_key(|(before, one)| (is_alike(before, one), std::cmp::Reverse(one.size)));
    let omitted = pairs.len().saturating_sub(MAX_COMMUNICATORS) as u64;
    let communicators = pairs.iter().take(MAX_COMMUNICATORS).map(|(before, one)| joined(before, one)).collect();
    NcclStatus {
        pod_uid: pod_uid.to_owned(),
        version: now.version,
        communicators,
        communicators_omitted: omitted,
        ..NcclStatus::default()
    }
}

/// The counts of the ranks in the first answer.
type Before<'a> = HashMap<u64, &'a Counts>;

fn counts_of(before: Option<&Communicator>) -> Before<'_> {
    let ranks = before.map(|one| one.ranks.as_slice()).unwrap_or_default();
    ranks.iter().map(|rank| (rank.of.rank, &rank.launched)).collect()
}

/// The values that the ranks of a group have in common: counts, earlier counts, and state.
type Key<'a> = (&'a Counts, Option<&'a Counts>, State);

fn key<'a>(before: &Before<'a>, rank: &'a Rank) -> Key<'a> {
    (&rank.launched, before.get(&rank.of.rank).copied(), rank.state)
}

/// Returns whether all ranks of a communicator responded without an error and have the same counts.
fn is_alike(before: &Before<'_>, one: &Communicator) -> bool {
    let mut keys = one.ranks.iter().map(|rank| key(before, rank));
    let first = keys.next();
    let has_error = first.is_some_and(|(.., state)| state.init != 0 || state.async_error != 0);
    !has_error && keys.all(|key| Some(key) == first) && one.missing.is_empty() && impossible(before, one).is_none()
}

fn joined(before: &Before<'_>, now: &Communicator) -> NcclCommunicator {
    let mut groups: BTreeMap<Key<'_>, (u64, Vec<&Place>)> = BTreeMap::new();
    for rank in &now.ranks {
        let (count, examples) = groups.entry(key(before, rank)).or_default();
        *count += 1;
        if examples.len() < MAX_EXAMPLES {
            examples.push(&rank.of);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups
        .sort_by_key(|((launched, ..), _)| launched.iter().flatten().fold(0, |sum: u64, one| sum.saturating_add(*one)));
    // The first groups have launched the fewest operations. The last group has launched the most operations.
    let mut omitted = 0;
    if groups.len() > MAX_GROUPS {
        let ahead = groups.pop();
        omitted = groups.split_off(MAX_GROUPS - 1).iter().map(|(_, (count, _))| *count).sum();
        groups.extend(ahead);
    }
    let group = |((launched, before, state), (count, examples)): (Key<'_>, (u64, Vec<&Place>))| NcclRanks {
        count,
        launched: by_kind(launched),
        launched_before: before.map(by_kind).unwrap_or_default(),
        init_state: state.init,
        async_error: state.async_error,
        ending: state.ending,
        examples: examples.into_iter().map(|one| one.named(false)).collect(),
    };
    NcclCommunicator {
        hash: format!("{:#x}", now.hash.0),
        size: now.size,
        ranks: groups.into_iter().map(group).collect(),
        ranks_omitted: omitted,
        missing_omitted: now.missing.len().saturating_sub(MAX_MISSING) as u64,
        missing: now.missing.iter().take(MAX_MISSING).map(|one| one.of.named(one.not_joined)).collect(),
        impossible: impossible(before, now),
    }
}

fn by_kind(counts: &Counts) -> BTreeMap<String, u64> {
    KINDS.iter().zip(counts).filter_map(|(kind, count)| Some(((*kind).to_owned(), (*count)?))).collect()
}

/// Returns why NCCL cannot have sent this answer. The processes of the pod can send anything.
fn impossible(earlier: &Before<'_>, now: &Communicator) -> Option<String> {
    let all = || now.ranks.iter().map(|rank| rank.of.rank).chain(now.missing.iter().map(|one| one.of.rank));
    let mut seen = HashSet::new();
    if let Some(twice) = all().find(|rank| !seen.insert(*rank)) {
        return Some(format!("rank {twice} is listed twice"));
    }
    if now.size > MAX_SIZE {
        return Some(format!("the communicator has {} ranks, more than any job has", now.size));
    }
    // A rank must not occur twice, so if there are more ranks than the size, one of them is outside the size.
    if let Some(beyond) = all().find(|rank| *rank >= now.size) {
        return Some(format!("rank {beyond} is outside the {} ranks", now.size));
    }
    let fell = now.ranks.iter().find(|rank| {
        let before = earlier.get(&rank.of.rank);
        before.is_some_and(|before| before.iter().zip(rank.launched).any(|(before, now)| now < *before))
    });
    fell.map(|rank| format!("a count of rank {} decreased", rank.of.rank))
}
