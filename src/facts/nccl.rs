//! `NcclStatus`: communicators and ranks of a job, from two answers of NCCL's status service (RAS).
//!
//! Processes of the pod send the answers, so they can be false.

use std::collections::BTreeMap;

use syringe_macros::facts;

use crate::facts::is_zero;
use crate::report::Problem;

/// Code of a problem: no process of the pod listens on the port of the service.
pub const NOT_LISTENING: &str = "nccl_not_listening";

/// The communicators of the job of a pod. Each process of a job reports all of them.
#[facts(omit(Option, Vec, communicators_omitted))]
pub struct NcclStatus {
    /// UID of the pod.
    pub pod_uid: String,
    /// Version of NCCL.
    pub version: Option<String>,
    /// Time between the two answers. `None` if there is only one answer.
    pub between_ms: Option<u64>,
    /// The communicators. Communicators with differences come first.
    pub communicators: Vec<NcclCommunicator>,
    /// Number of communicators that are not listed.
    pub communicators_omitted: u64,
    /// Why there is no answer, or no second answer.
    pub problem: Option<Problem>,
}

/// One communicator.
#[facts(omit(Option, Vec, missing_omitted, ranks_omitted))]
pub struct NcclCommunicator {
    /// Hash of the communicator, in hexadecimal digits.
    pub hash: String,
    /// Number of ranks in the communicator.
    pub size: u64,
    /// Groups of ranks with the same counts and state. The group with the fewest operations comes first.
    pub ranks: Vec<NcclRanks>,
    /// Number of ranks that are not in `ranks`.
    pub ranks_omitted: u64,
    /// Ranks that did not answer.
    pub missing: Vec<NcclRank>,
    /// Number of ranks that did not answer and are not in `missing`.
    pub missing_omitted: u64,
    /// Why NCCL cannot have sent this answer: a rank occurs twice, or a rank is outside the communicator.
    pub impossible: Option<String>,
}

/// Ranks with the same counts and the same state in both answers.
#[facts(omit(Vec, BTreeMap, init_state, async_error, ending))]
pub struct NcclRanks {
    /// Number of ranks.
    pub count: u64,
    /// Number of operations that each of the ranks launched, by kind (`AllReduce`).
    pub launched: BTreeMap<String, u64>,
    /// The same numbers in the first answer, if it contains these ranks.
    pub launched_before: BTreeMap<String, u64>,
    /// Result of the initialization: 0 success, 7 in progress, other values are errors.
    pub init_state: i64,
    /// Asynchronous error: 0 none, 7 in progress, 6 error of another process.
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
    /// Number of the rank in the communicator.
    pub rank: u64,
    /// Address of the process of the rank. Empty if it is not known.
    pub host: String,
    /// ID of the process in the PID namespace of the pod.
    pub pid: i64,
    /// NVML index of the GPU of the rank, among the GPUs that its process can see. Negative if it is not known.
    pub device: i64,
    /// Whether NCCL reached the process, but the process is not in the communicator: it has left, or has not joined
    /// yet.
    pub not_joined: bool,
}
