//! `compare`: joins the ranks of two answers, and puts those with the same counts and the same state into groups.

use std::collections::{BTreeMap, HashMap, HashSet};

use syringe_core::facts::nccl::{NcclCommunicator, NcclRank, NcclRanks, NcclStatus};

use super::answer::{Answer, Communicator, Counts, Rank, State};

/// Maximum number of communicators, groups of a communicator, named ranks of a group, and missing ranks.
const MAX_COMMUNICATORS: usize = 64;
const MAX_GROUPS: usize = 12;
const MAX_EXAMPLES: usize = 4;
const MAX_MISSING: usize = 8;
/// Number of ranks above which a size is not that of a job.
const MAX_SIZE: u64 = 1 << 20;

/// Compares the answers. The second one says what is true now.
pub(super) fn compare(pod_uid: &str, before: Answer, after: Option<Answer>) -> NcclStatus {
    let (earlier, now) = match after {
        Some(after) => (before.communicators, Answer { version: after.version.or(before.version), ..after }),
        None => (Vec::new(), before),
    };
    let earlier: HashMap<(String, String), Communicator> =
        earlier.into_iter().map(|one| ((one.hash.clone(), one.secondary_hash.clone()), one)).collect();
    let joined = |one: &Communicator| joined(earlier.get(&(one.hash.clone(), one.secondary_hash.clone())), one);
    let mut communicators: Vec<NcclCommunicator> = now.communicators.iter().map(joined).collect();
    let has_error = |group: &NcclRanks| group.init_state != 0 || group.async_error != 0;
    let is_alike = |one: &NcclCommunicator| {
        one.ranks.len() <= 1 && one.missing.is_empty() && one.impossible.is_none() && !one.ranks.iter().any(has_error)
    };
    communicators.sort_by_key(|one| (is_alike(one), std::cmp::Reverse(one.size)));
    communicators.truncate(MAX_COMMUNICATORS);
    let omitted = now.total.saturating_sub(communicators.len() as u64);
    NcclStatus {
        pod_uid: pod_uid.to_owned(),
        version: now.version,
        communicators,
        communicators_omitted: omitted,
        ..NcclStatus::default()
    }
}

/// What the ranks of a group have in common: counts, earlier counts, and state.
type Key<'a> = (&'a Counts, Option<&'a Counts>, State);

fn joined(before: Option<&Communicator>, now: &Communicator) -> NcclCommunicator {
    let ranks = before.map(|one| one.ranks.as_slice()).unwrap_or_default();
    let earlier: HashMap<u64, &Counts> = ranks.iter().map(|rank| (rank.of.rank, &rank.launched)).collect();
    let mut groups: BTreeMap<Key<'_>, (u64, Vec<NcclRank>)> = BTreeMap::new();
    for Rank { of, launched, state } in &now.ranks {
        let (count, examples) = groups.entry((launched, earlier.get(&of.rank).copied(), *state)).or_default();
        *count += 1;
        if examples.len() < MAX_EXAMPLES {
            examples.push(of.clone());
        }
    }
    for (count, counts) in &now.unnamed {
        groups.entry((counts, None, State::default())).or_default().0 += count;
    }
    let group = |((launched, before, state), (count, examples)): (Key<'_>, _)| NcclRanks {
        count,
        launched: launched.clone(),
        launched_before: before.cloned().unwrap_or_default(),
        init_state: state.init,
        async_error: state.async_error,
        ending: state.ending,
        examples,
    };
    let mut groups: Vec<NcclRanks> = groups.into_iter().map(group).collect();
    groups.sort_by_key(|group| total(&group.launched));
    // The first groups lag, and the last one is ahead of the others.
    let mut omitted = 0;
    if groups.len() > MAX_GROUPS {
        let ahead = groups.pop();
        omitted = groups.split_off(MAX_GROUPS - 1).iter().map(|group| group.count).fold(0, u64::saturating_add);
        groups.extend(ahead);
    }
    NcclCommunicator {
        hash: now.hash.clone(),
        size: now.size,
        ranks: groups,
        ranks_omitted: omitted,
        missing_omitted: now.missing.len().saturating_sub(MAX_MISSING) as u64,
        missing: now.missing.iter().take(MAX_MISSING).cloned().collect(),
        impossible: impossible(&earlier, now),
    }
}

fn total(counts: &Counts) -> u64 {
    counts.values().fold(0, |sum, count| sum.saturating_add(*count))
}

/// Returns why no NCCL answers this. The processes of the pod can send anything.
fn impossible(earlier: &HashMap<u64, &Counts>, now: &Communicator) -> Option<String> {
    let all = || now.ranks.iter().map(|rank| rank.of.rank).chain(now.missing.iter().map(|rank| rank.rank));
    let mut seen = HashSet::new();
    if let Some(twice) = all().find(|rank| !seen.insert(*rank)) {
        return Some(format!("rank {twice} is listed twice"));
    }
    if now.size > MAX_SIZE {
        return Some(format!("it has {} ranks", now.size));
    }
    // The text format does not say the size of each communicator.
    if let Some(beyond) = all().find(|rank| now.size > 0 && *rank >= now.size) {
        return Some(format!("rank {beyond} of {} ranks", now.size));
    }
    let fell = now.ranks.iter().find(|rank| {
        let before = earlier.get(&rank.of.rank);
        before.is_some_and(|before| {
            before.iter().any(|(kind, count)| rank.launched.get(kind).is_some_and(|now| now < count))
        })
    });
    fell.map(|rank| format!("a count of rank {} fell", rank.of.rank))
}
