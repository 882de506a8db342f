//! `parse`: reads the text with which NCCL 2.24 to 2.28.6 answers. It names only communicators and ranks that differ from the others.

use std::io;

use syringe_core::facts::nccl::NcclRank;

use super::answer::{Answer, Communicator, Counts, Rank, short};

/// Maximum number of communicators, and of named ranks of each.
const MAX_COMMUNICATORS: usize = 1024;
const MAX_RANKS: usize = 4096;
/// Error code of a rank whose error has a name only.
const NAMED_ERROR: i64 = -1;
/// Error code of a rank that reports the failure of another process.
const REMOTE_ERROR: i64 = 6;

/// The list to which the next ranks belong.
#[derive(Clone, Debug, PartialEq)]
enum List {
    None,
    Missing,
    /// Ranks with an error: of the initialization, or asynchronous.
    Errors {
        is_initial: bool,
        code: i64,
    },
    Status,
    /// Ranks with different counts of a kind of operations.
    Counts {
        kind: String,
    },
}

/// Reads the text.
///
/// # Errors
///
/// Fails if the text is not that of NCCL.
pub(super) fn parse(text: &str) -> io::Result<Answer> {
    let mut answer = Answer::default();
    let mut list = List::None;
    // Number of ranks of each communicator, by the group in the first number of its name.
    let mut sizes: Vec<u64> = Vec::new();
    // The group of ranks that is being read: its number of ranks, its count, and whether ranks were named.
    let mut group: Option<(u64, Counts, bool)> = None;
    let mut was_table = false;
    // The processes that did not answer. NCCL 2.24 names the missing ranks without them.
    let mut gone: Vec<NcclRank> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["NCCL", "version", version, ..] = words[..] {
            answer.version = Some(short(version));
        }
        was_table |= words.first() == Some(&"Communicators...") || words.first() == Some(&"Group");
        if let [number, count, _, _, size, _, _, _] = words[..]
            && let (Ok(number), Ok(count), Ok(size)) =
                (number.parse::<usize>(), count.parse::<u64>(), size.parse::<u64>())
            && number == sizes.len()
        {
            sizes.push(size);
            answer.total = answer.total.saturating_add(count);
            continue;
        }
        if let Some((name, hash)) = line.strip_prefix('#').and_then(|rest| rest.split_once(" (")) {
            end_group(&mut answer, group.take());
            let (hash, kind) = hash.split_once(") ").unwrap_or((hash, ""));
            let size = name.split_once('-').and_then(|(number, _)| sizes.get(number.parse::<usize>().ok()?)).copied();
            let hash = short(hash);
            if answer.communicators.len() >= MAX_COMMUNICATORS {
                break;
            }
            if answer.communicators.last().is_none_or(|last| last.hash != hash) {
                let at = answer.communicators.iter().position(|known| known.hash == hash);
                let known = at.map(|at| answer.communicators.remove(at));
                let new = || Communicator { hash, size: size.unwrap_or_default(), ..Communicator::default() };
                answer.communicators.push(known.unwrap_or_else(new));
            }
            list = if kind.trim() == "INCOMPLETE" { List::Missing } else { List::None };
            continue;
        }
        if let ["Process", pid, "on", "node", ..] = words[..] {
            let pid = pid.parse().unwrap_or(-1);
            gone.push(NcclRank { pid, ..process(0, &words) });
        }
        let Some(communicator) = answer.communicators.last_mut() else { continue };
        match words[..] {
            ["Communicator", "ranks", "have", "different", "status", ..] => {
                end_group(&mut answer, group.take());
                list = List::Status;
            }
            ["Communicator", "ranks", "have", "different", kind, "operation", "counts", ..] => {
                end_group(&mut answer, group.take());
                list = List::Counts { kind: short(kind) };
            }
            ["Initialization" | "Asynchronous", ..] => {
                list = List::Errors { is_initial: words[0] == "Initialization", code: NAMED_ERROR };
            }
            [count, "ranks", "reported", ..] if count.parse::<u64>().is_ok() => {
                if let List::Errors { code, .. } = &mut list {
                    *code = code_of(&words);
                }
            }
            [count, "ranks", "have", ..] if matches!(list, List::Counts { .. }) => {
                let (List::Counts { kind }, Ok(count)) = (&list, count.parse()) else { continue };
                let counts = Counts::from([(kind.clone(), launched(&words))]);
                end_group(&mut answer, group.replace((count, counts, false)));
            }
            ["The", "missing", "rank:" | "ranks:", ref ranks @ ..] => {
                let numbers = ranks.iter().flat_map(|word| word.split(',')).filter_map(|word| word.parse().ok());
                communicator.missing.extend(numbers.map(|rank| NcclRank { rank, ..NcclRank::default() }));
            }
            ["Rank", number, ref rest @ ..] => {
                let Ok(number) = number.parse() else { continue };
                if communicator.ranks.len().max(communicator.missing.len()) >= MAX_RANKS {
                    continue;
                }
                named(communicator, &mut group, &list, process(number, rest), rest);
            }
            _ => {}
        }
    }
    end_group(&mut answer, group);
    for communicator in &mut answer.communicators {
        if let ([rank], [process]) = (&mut communicator.missing[..], &gone[..])
            && rank.host.is_empty()
        {
            *rank = NcclRank { rank: rank.rank, ..process.clone() };
        }
    }
    if answer.version.is_none() || !was_table {
        return Err(io::Error::other("the answer is not the text of NCCL"));
    }
    Ok(answer)
}

/// Adds a named rank to its communicator.
fn named(
    communicator: &mut Communicator,
    group: &mut Option<(u64, Counts, bool)>,
    list: &List,
    of: NcclRank,
    words: &[&str],
) {
    if *list == List::Missing {
        communicator.missing.push(of);
        return;
    }
    let ranks = &mut communicator.ranks;
    let at = ranks.iter().position(|known| known.of.rank == of.rank).unwrap_or(ranks.len());
    if at == ranks.len() {
        ranks.push(Rank { of, ..Rank::default() });
    }
    let rank = &mut ranks[at];
    match list {
        List::Counts { kind } if words.contains(&"launched") => {
            rank.launched.insert(kind.clone(), launched(words));
        }
        List::Counts { .. } => {
            if let Some((_, counts, is_named)) = group {
                rank.launched.extend(counts.clone());
                *is_named = true;
            }
        }
        List::Errors { is_initial, code } => {
            let code = if words.contains(&"reported") { code_of(words) } else { *code };
            *(if *is_initial { &mut rank.state.init } else { &mut rank.state.async_error }) = code;
        }
        // The communicator is being created or is ending.
        List::Status => rank.state.ending = true,
        List::None | List::Missing => {}
    }
}

/// Keeps a group whose ranks were not named.
fn end_group(answer: &mut Answer, group: Option<(u64, Counts, bool)>) {
    if let (Some((count, counts, false)), Some(communicator)) = (group, answer.communicators.last_mut()) {
        communicator.unnamed.push((count, counts));
    }
}

/// Reads the number of operations: the last word before the process.
fn launched(words: &[&str]) -> u64 {
    words.iter().take_while(|word| **word != "--").last().and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn code_of(words: &[&str]) -> i64 {
    if words.contains(&"Remote") { REMOTE_ERROR } else { NAMED_ERROR }
}

/// Reads GPU, process and address after a rank.
fn process(rank: u64, words: &[&str]) -> NcclRank {
    let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
    let number = |name: &str| after(name).and_then(|word| word.parse().ok()).unwrap_or(-1);
    let host = after("node").map(|host| short(host)).unwrap_or_default();
    // `GPU 0 (NVML 3)` if both indices differ.
    let nvml = after("(NVML").and_then(|word| word.trim_end_matches(')').parse().ok());
    let device = nvml.unwrap_or_else(|| number("GPU"));
    NcclRank { rank, host, pid: number("process"), device, not_joined: false }
}
