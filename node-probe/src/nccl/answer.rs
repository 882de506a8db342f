//! `Answer`: one status answer of NCCL. `from_json`: parses its JSON (NCCL 2.29.2 and later).
//!
//! No text of the answer is kept: addresses, hashes, versions and kinds of operations are parsed, and everything else
//! is a number. Unknown kinds are left out. Therefore, the memory for an answer is a small multiple of its size.

use std::fmt;
use std::io;
use std::net::IpAddr;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use syringe_core::facts::nccl::NcclRank;

/// The kinds of operations that NCCL counts.
pub(super) const KINDS: [&str; 5] = ["Broadcast", "Reduce", "AllGather", "ReduceScatter", "AllReduce"];
/// Maximum number of communicators of an answer, and of ranks of each.
const MAX_COMMUNICATORS: usize = 8_192;
const MAX_RANKS: usize = 16_384;
/// Maximum length of a version.
const MAX_VERSION: usize = 16;

/// Counts of operations, by kind. `None`: the answer has no count of this kind.
pub(super) type Counts = [Option<u64>; KINDS.len()];

#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) version: Option<String>,
    pub(super) communicators: Vec<Communicator>,
}

/// The two hashes of a communicator. Only both together are unique.
pub(super) type Hash = (u64, u64, u64);

#[derive(Debug, Default, PartialEq)]
pub(super) struct Communicator {
    pub(super) hash: Hash,
    pub(super) size: u64,
    pub(super) ranks: Vec<Rank>,
    pub(super) missing: Vec<Missing>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rank {
    pub(super) of: Place,
    pub(super) launched: Counts,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Missing {
    pub(super) of: Place,
    pub(super) not_joined: bool,
}

/// A rank and its process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) rank: u64,
    pub(super) host: Option<IpAddr>,
    pub(super) pid: i64,
    pub(super) device: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) init: i64,
    pub(super) async_error: i64,
    pub(super) ending: bool,
}

impl Place {
    /// Returns the rank for the report.
    pub(super) fn named(&self, not_joined: bool) -> NcclRank {
        let Self { rank, host, pid, device } = *self;
        NcclRank { rank, host: host.map(|host| host.to_string()).unwrap_or_default(), pid, device, not_joined }
    }
}

/// Parses the JSON document of an answer.
///
/// # Errors
///
/// Fails if the document is not an answer of NCCL, or if a list is too long.
pub(super) fn from_json(bytes: &[u8]) -> io::Result<Answer> {
    let document: JsonDocument = serde_json::from_slice(bytes).map_err(|error| {
        // The message of the error may contain words of the answer.
        let at = format!("line {}, column {}", error.line(), error.column());
        io::Error::other(format!("the answer is not the JSON of NCCL ({at})"))
    })?;
    Ok(Answer {
        version: document.nccl_version.and_then(|text| version(&text)),
        communicators: document.communicators.0,
    })
}

/// Returns the numbers at the start of a version: `2.29.2` for `2.29.2+cuda13.0`.
pub(super) fn version(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let version = text[..end].trim_matches('.');
    (!version.is_empty() && version.len() <= MAX_VERSION).then(|| version.to_owned())
}

// The fields of a list entry are mandatory, so that a short document cannot become a long list.

#[derive(Deserialize)]
struct JsonDocument {
    nccl_version: Option<String>,
    communicators: List<Communicator, JsonCommunicator, MAX_COMMUNICATORS>,
}

#[derive(Deserialize)]
struct JsonCommunicator {
    hash: String,
    secondary_hash: String,
    size: u64,
    ranks: List<Rank, JsonRank, MAX_RANKS>,
    missing_ranks: List<Missing, JsonMissing, MAX_RANKS>,
}

#[derive(Deserialize)]
struct JsonRank {
    rank: u64,
    host: Host,
    pid: i64,
    nvml_dev: i64,
    status: JsonStatus,
    collective_counts: JsonCounts,
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
    host: Host,
    pid: i64,
    nvml_dev: i64,
    status: JsonMissingStatus,
}

#[derive(Deserialize)]
struct JsonMissingStatus {
    unresponsive: bool,
    considered_dead: bool,
}

impl TryFrom<JsonCommunicator> for Communicator {
    type Error = &'static str;

    fn try_from(json: JsonCommunicator) -> Result<Self, Self::Error> {
        let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let hash = hex(&json.hash).zip(json.secondary_hash.split_once(':'));
        let hash = hash.and_then(|(hash, (host, pid))| Some((hash, hex(host)?, hex(pid)?)));
        let hash = hash.ok_or("a hash is not a number")?;
        Ok(Self { hash, size: json.size, ranks: json.ranks.0, missing: json.missing_ranks.0 })
    }
}

impl From<JsonRank> for Rank {
    fn from(JsonRank { rank, host, pid, nvml_dev, status, collective_counts }: JsonRank) -> Self {
        let JsonStatus { init_state, async_error, finalize_called, destroy_flag, abort_flag } = status;
        let ending = finalize_called || destroy_flag || abort_flag;
        Self {
            of: Place { rank, host: host.0, pid, device: nvml_dev },
            launched: collective_counts.0,
            state: State { init: init_state, async_error, ending },
        }
    }
}

impl From<JsonMissing> for Missing {
    fn from(JsonMissing { rank, host, pid, nvml_dev, status }: JsonMissing) -> Self {
        let not_joined = !status.unresponsive && !status.considered_dead;
        Self { of: Place { rank, host: host.0, pid, device: nvml_dev }, not_joined }
    }
}

/// The address of a process. If NCCL does not know an address, the answer contains a text instead.
struct Host(Option<IpAddr>);

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A link-local address has a zone.
        let address = text.split('%').next().unwrap_or_default();
        Ok(Self(address.parse().ok()))
    }
}

/// A list of at most `MAX` entries, each converted from its JSON before the next entry is read.
struct List<T, J, const MAX: usize>(Vec<T>, std::marker::PhantomData<J>);

impl<'de, T, J, const MAX: usize> Deserialize<'de> for List<T, J, MAX>
where
    J: Deserialize<'de>,
    T: TryFrom<J, Error: fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, J, const MAX: usize>(std::marker::PhantomData<(T, J)>);
        impl<'de, T, J, const MAX: usize> Visitor<'de> for Entries<T, J, MAX>
        where
            J: Deserialize<'de>,
            T: TryFrom<J, Error: fmt::Display>,
        {
            type Value = Vec<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of at most {MAX} entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = entries.next_element::<J>()? {
                    if list.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    list.push(T::try_from(entry).map_err(A::Error::custom)?);
                }
                list.shrink_to_fit();
                Ok(list)
            }
        }
        let list = deserializer.deserialize_seq(Entries::<T, J, MAX>(std::marker::PhantomData))?;
        Ok(Self(list, std::marker::PhantomData))
    }
}

struct JsonCounts(Counts);

impl<'de> Deserialize<'de> for JsonCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = Counts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("counts of operations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut kinds: A) -> Result<Counts, A::Error> {
                let mut counts = Counts::default();
                while let Some((kind, count)) = kinds.next_entry::<String, u64>()? {
                    if let Some(at) = KINDS.iter().position(|known| *known == kind) {
                        counts[at] = Some(count);
                    }
                }
                Ok(counts)
            }
        }
        deserializer.deserialize_map(Kinds).map(Self)
    }
}
