//! `NcclStatus`: two answers of NCCL's status service (RAS) in a pod, compared. All of it is a claim of processes of that pod.

use std::collections::BTreeMap;

use syringe_macros::facts;

use crate::facts::is_zero;
use crate::report::Problem;

/// Code of the problem that no process of the pod listens on the port of the service.
pub const NOT_LISTENING: &str = "nccl_not_listening";

/// The communicators of the job of a pod. Every process of a job answers for all of them.
#[facts(omit(Option, Vec, communicators_omitted))]
pub struct NcclStatus {
    /// UID of the pod.
    pub pod_uid: String,
    /// Version of NCCL.
    pub version: Option<String>,
    /// Time between the two answers. `None` if there is only one.
    pub between_ms: Option<u64>,
    /// The communicators; those with differences come first.
    pub communicators: Vec<NcclCommunicator>,
    /// Number of communicators that are not listed.
    pub communicators_omitted: u64,
    /// Why there is no answer, or no second one.
    pub problem: Option<Problem>,
}

/// One communicator.
#[facts(omit(Option, Vec, missing_omitted, ranks_omitted))]
pub struct NcclCommunicator {
    /// Its hash: hex digits.
    pub hash: String,
    /// Number of its ranks.
    pub size: u64,
    /// Ranks with the same counts and state, those with the fewest operations first.
    pub ranks: Vec<NcclRanks>,
    /// Number of ranks that are in no listed group.
    pub ranks_omitted: u64,
    /// Ranks that did not answer.
    pub missing: Vec<NcclRank>,
    /// Number of ranks that did not answer and are not listed.
    pub missing_omitted: u64,
    /// Why no NCCL can have answered this: a rank twice, a rank beyond the size.
    pub impossible: Option<String>,
}

/// Ranks with the same counts and the same state in both answers.
#[facts(omit(Vec, BTreeMap, init_state, async_error, ending))]
pub struct NcclRanks {
    /// Number of ranks.
    pub count: u64,
    /// Number of operations that they have launched, by kind (`AllReduce`).
    pub launched: BTreeMap<String, u64>,
    /// The same in the first answer, if they were in it.
    pub launched_before: BTreeMap<String, u64>,
    /// Result of the initialization: 0 success, 7 in progress, others are errors.
    pub init_state: i64,
    /// Asynchronous error: 0 none, 7 in progress, 6 of another process.
    pub async_error: i64,
    /// Whether the communicator is being finalized, destroyed or aborted.
    pub ending: bool,
    /// Some of the ranks.
    pub examples: Vec<NcclRank>,
}

/// One rank of a communicator.
#[facts]
#[derive(Eq, PartialOrd, Ord)]
pub struct NcclRank {
    /// Its number in the communicator.
    pub rank: u64,
    /// Address of its process. Empty if it is not known.
    pub host: String,
    /// ID of its process in the PID namespace of its pod.
    pub pid: i64,
    /// NVML index of its GPU among those that its process can see. Negative if it is not known.
    pub device: i64,
    /// Whether NCCL reached its process, but the process is not in the communicator: it has left it, or has not joined it yet.
    pub not_joined: bool,
}
