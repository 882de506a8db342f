//! `Answer`: one answer of NCCL. `from_json`: reads the JSON of NCCL 2.28.7 and later.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use syringe_core::facts::nccl::NcclRank;
use syringe_core::text::clean;

/// Maximum number of kinds of operations. NCCL has five.
const MAX_KINDS: usize = 16;

/// Counts of operations, by kind.
pub(super) type Counts = BTreeMap<String, u64>;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) version: Option<String>,
    pub(super) communicators: Vec<Communicator>,
    /// Number of communicators of the job; the text format does not list all of them.
    pub(super) total: u64,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Communicator {
    /// The hash, and the secondary hash if the format has one: both together are unique.
    pub(super) hash: String,
    pub(super) secondary_hash: String,
    pub(super) size: u64,
    pub(super) ranks: Vec<Rank>,
    /// Groups of the text format whose ranks are not named: number of ranks, and counts.
    pub(super) unnamed: Vec<(u64, Counts)>,
    pub(super) missing: Vec<NcclRank>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rank {
    pub(super) of: NcclRank,
    pub(super) launched: Counts,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) init: i64,
    pub(super) async_error: i64,
    pub(super) ending: bool,
}

/// The document. The fields of a list entry are mandatory, so that a short document cannot become a long list.
#[derive(Deserialize)]
struct Document {
    nccl_version: Option<String>,
    communicators: Vec<JsonCommunicator>,
}

#[derive(Deserialize)]
struct JsonCommunicator {
    hash: String,
    secondary_hash: String,
    size: u64,
    ranks: Vec<JsonRank>,
    missing_ranks: Vec<JsonMissing>,
}

#[derive(Deserialize)]
struct JsonRank {
    rank: u64,
    host: String,
    pid: i64,
    nvml_dev: i64,
    status: JsonStatus,
    collective_counts: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct JsonStatus {
    init_state: i64,
    async_error: i64,
    finalize_called: bool,
    destroy_flag: bool,
    abort_flag: bool,
}

#[derive(Deserialize)]
struct JsonMissing {
    rank: u64,
    host: String,
    pid: i64,
    nvml_dev: i64,
    status: JsonMissingStatus,
}

#[derive(Deserialize)]
struct JsonMissingStatus {
    unresponsive: bool,
    considered_dead: bool,
}

/// Reads a JSON document.
///
/// # Errors
///
/// Fails if the document is not that of NCCL.
pub(super) fn from_json(bytes: &[u8]) -> io::Result<Answer> {
    let document: Document = serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(&with_commas(bytes)))
        .map_err(|error| io::Error::other(format!("the answer is not the JSON of NCCL: {error}")))?;
    let rank = |JsonRank { rank, host, pid, nvml_dev, status, collective_counts }| {
        let JsonStatus { init_state, async_error, finalize_called, destroy_flag, abort_flag } = status;
        let ending = finalize_called || destroy_flag || abort_flag;
        Rank {
            of: NcclRank { rank, host: short(&host), pid, device: nvml_dev, not_joined: false },
            launched: collective_counts
                .into_iter()
                .take(MAX_KINDS)
                .map(|(kind, count)| (short(&kind), count))
                .collect(),
            state: State { init: init_state, async_error, ending },
        }
    };
    let missing = |JsonMissing { rank, host, pid, nvml_dev, status }| {
        let not_joined = !status.unresponsive && !status.considered_dead;
        NcclRank { rank, host: short(&host), pid, device: nvml_dev, not_joined }
    };
    let communicators: Vec<_> = document
        .communicators
        .into_iter()
        .map(|JsonCommunicator { hash, secondary_hash, size, ranks, missing_ranks }| Communicator {
            hash: short(&hash),
            secondary_hash: short(&secondary_hash),
            size,
            ranks: ranks.into_iter().map(rank).collect(),
            unnamed: Vec::new(),
            missing: missing_ranks.into_iter().map(missing).collect(),
        })
        .collect();
    let total = communicators.len() as u64;
    Ok(Answer { version: document.nccl_version.map(|version| short(&version)), communicators, total })
}

/// Adds the comma that NCCL 2.28.7 leaves out after the device of a missing rank.
fn with_commas(bytes: &[u8]) -> Vec<u8> {
    let mut repaired = Vec::with_capacity(bytes.len() + 1024);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end();
        repaired.extend_from_slice(text);
        if text.trim_ascii_start().starts_with(b"\"nvml_dev\":") && !text.ends_with(b",") {
            repaired.push(b',');
        }
        repaired.extend_from_slice(&line[text.len()..]);
    }
    repaired
}

/// Returns a name or an address, cleaned.
pub(super) fn short(text: &str) -> String {
    clean(text, 48)
}
