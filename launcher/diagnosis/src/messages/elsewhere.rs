//! `read`: finds the line of a message that reports the failure of another process, rank, node or service.
//! `read_report`: finds such a line in a report of a launcher at the end of the message.
//!
//! Such a program only reports the failure, so it is not known whether the program or its GPU is the cause. Only the
//! last message of the program counts, because a program can quote an earlier message and then end for another reason.

use crate::messages::shapes;

/// Words for things that run outside of the program or in another process.
const OTHERS: [&str; 21] = [
    "actor",
    "worker",
    "workers",
    "node",
    "rank",
    "ranks",
    "peer",
    "executor",
    "executors",
    "replica",
    "remote",
    "daemon",
    "scheduler",
    "coordinator",
    "leader",
    "broker",
    "raylet",
    "taskmanager",
    "driver pod",
    "child process",
    "task",
];

/// Words for failures of these things.
const FAILURES: [&str; 23] = [
    "died",
    "dead",
    "lost",
    "exited",
    "crashed",
    "disconnected",
    "closed",
    "unreachable",
    "has failed",
    "have failed",
    "killed",
    "aborted",
    "preempted",
    "terminated",
    "unavailable",
    "unhealthy",
    "unresponsive",
    "not responding",
    "did not respond",
    "not reachable",
    "is down",
    "gone",
    "stopped responding",
];

/// Units of work of a batch scheduler. A program can call its own work a job, so only phrases about its end from
/// outside count.
const JOBS: [&str; 4] = ["job", "step", "allocation", "workload"];

const ENDS_OF_JOBS: [&str; 8] =
    ["cancelled", "canceled", "preempted", "revoked", "requeued", "killed", "evicted", "aborted"];

/// Verbs for the receipt of a signal, and signals that ask a process to end. A crash is also a signal, but the process
/// itself causes it.
const RECEIVES: [&str; 4] = ["got", "received", "caught", "by"];

const STOPS: [&str; 8] = ["1", "2", "3", "15", "sigterm", "sigint", "sighup", "terminated"];

/// Phrases that state where an abort began.
const ORIGINS: [&str; 5] = ["on rank", "by rank", "from rank", "on node", "- process"];

/// Beginnings of launcher reports that have more lines after the relevant line.
const REPORTS: [&str; 2] = ["ChildFailedError", "MPI_ABORT was invoked"];

/// Words for services. A program can call itself a server, so fewer phrases indicate a failure of another service.
const SERVICES: [&str; 8] = ["server", "service", "endpoint", "backend", "database", "host", "cluster", "registry"];

const FAILURES_OF_SERVICES: [&str; 10] = [
    "closed",
    "disconnected",
    "unavailable",
    "unreachable",
    "not reachable",
    "is down",
    "gone away",
    "did not respond",
    "not responding",
    "lost",
];

/// Phrases about a connection that was lost or refused, and about an error response of a service.
const CONNECTIONS: [&str; 32] = [
    "lost connection",
    "connection lost",
    "lost communication",
    "connection closed",
    "connection was closed",
    "connection aborted",
    "connection error",
    "connection refused",
    "connection reset",
    "connection timed out",
    "stream is closed",
    "socket closed",
    "remote end closed",
    "failed to connect",
    "could not connect",
    "couldn't connect",
    "cannot connect",
    "unable to connect",
    "can't connect",
    "failed to establish a new connection",
    "max retries exceeded",
    "network error",
    "network is down",
    "no brokers available",
    "heartbeat timeout",
    "missed heartbeat",
    "service unavailable",
    "slow down",
    "slowdown",
    "bad gateway",
    "gateway timeout",
    "internal server error",
];

/// Parts of the names of exceptions about other processes and services.
const EXCEPTIONS: [&str; 16] = [
    "Connection",
    "Connect",
    "Disconnect",
    "Unavailable",
    "Unreachable",
    "ActorDied",
    "NodeDied",
    "WorkerDied",
    "WorkerCrashed",
    "ExecutorLost",
    "CommClosed",
    "CommError",
    "ChildFailed",
    "ServerSelection",
    "Rendezvous",
    "Preempt",
];

/// Words before the number of an HTTP status.
const BEFORE_STATUS: [&str; 8] = ["(", "status ", "status: ", "status_code=", "code ", "code: ", "http ", "error "];

/// HTTP status codes with which a server reports its own error.
const STATUS: [&str; 4] = ["500", "502", "503", "504"];

/// Minimum length of a line of dashes around a report.
const RULE: usize = 20;

/// Maximum distance between the name of a thing and its failure, in bytes.
const NEAR: usize = 60;

/// Returns the line of a message that reports the failure of something else, if this line is the end of the message.
pub(crate) fn read(message: &str) -> Option<&str> {
    let lines = || message.lines().map(str::trim).filter(|line| line.contains(|letter: char| letter.is_alphabetic()));
    let last = lines().next_back()?;
    // torchrun ends with a table of its ranks, and Open MPI with a note.
    let of_ranks = || lines().find(|line| REPORTS.iter().any(|start| line.contains(start)));
    let of_error = || shapes::last_error(lines());
    Some(last)
        .filter(|line| is_elsewhere(line))
        .or_else(of_ranks)
        .or_else(|| read_report(message))
        .or_else(|| of_error().filter(|line| is_elsewhere(line)))
}

/// Returns the line of a report at the end of a message that is about something else.
pub(crate) fn read_report(message: &str) -> Option<&str> {
    last_box(message).find(|line| is_elsewhere(line))
}

/// Returns the lines of a report between two lines of dashes, as Open MPI and PRRTE print it, if the message ends with
/// this report.
fn last_box(message: &str) -> impl Iterator<Item = &str> {
    let is_rule = |line: &&str| line.len() >= RULE && line.bytes().all(|byte| byte == b'-');
    let mut from_end = message.lines().rev().map(str::trim).filter(|line| !line.is_empty()).peekable();
    let is_box = from_end.next_if(is_rule).is_some();
    let mut inside: Vec<&str> = from_end.by_ref().take_while(move |line| is_box && !is_rule(line)).collect();
    inside.reverse();
    inside.into_iter()
}

fn is_elsewhere(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    // The worker processes of a data loader belong to the program itself.
    if lower.contains("dataloader worker") {
        return false;
    }
    fails(&lower, &OTHERS, &FAILURES)
        || fails(&lower, &SERVICES, &FAILURES_OF_SERVICES)
        || fails(&lower, &["node"], &["failure"])
        || fails(&lower, &JOBS, &ENDS_OF_JOBS)
        || fails(&lower, &["abort", "mpi_abort"], &ORIGINS)
        || is_told_to_stop(&lower)
        || CONNECTIONS.iter().any(|words| lower.contains(words))
        || has_status(&lower)
        || names_exception(line)
}

/// Returns whether the line reports the failure of one of these things.
fn fails(line: &str, things: &[&str], failures: &[&str]) -> bool {
    let near = |start: usize| {
        let end = (start + NEAR).min(line.len());
        let end = (end..=line.len()).find(|at| line.is_char_boundary(*at)).unwrap_or(line.len());
        failures.iter().any(|failure| words(&line[start..end], failure).next().is_some())
    };
    things.iter().any(|thing| words(line, thing).any(|at| near(at + thing.len())))
}

/// Returns the positions at which a text contains these words as whole words.
fn words<'t>(text: &'t str, words: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.match_indices(words).map(|(at, _)| at).filter(move |at| {
        !is_letter(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_letter(bytes.get(at + words.len()))
    })
}

/// Returns whether the line reports that a process received a signal to end: `got signal: 15`, `received SIGTERM`.
fn is_told_to_stop(line: &str) -> bool {
    let signal = |at: usize| {
        let of_text = line[at..].split(|character: char| !character.is_ascii_alphanumeric());
        let mut tokens = of_text.filter(|token| !matches!(*token, "" | "a" | "the"));
        let first = tokens.next()?;
        if first == "signal" { tokens.next() } else { Some(first).filter(|name| name.starts_with("sig")) }
    };
    let is_stop = |at: usize| signal(at).is_some_and(|token| STOPS.contains(&token));
    RECEIVES.iter().any(|verb| words(line, verb).any(|at| is_stop(at + verb.len())))
}

fn has_status(line: &str) -> bool {
    let is_status = |at: usize| BEFORE_STATUS.iter().any(|before| line[..at].ends_with(before));
    STATUS.iter().any(|status| words(line, status).any(is_status))
}

/// Returns whether the line names an exception about another process or a connection: `ray.exceptions.ActorDiedError`.
fn names_exception(line: &str) -> bool {
    let mut names = line.split(|character: char| !character.is_ascii_alphanumeric());
    names.any(|name| {
        let is_exception = ["Error", "Exception", "Failure"].iter().any(|end| name.ends_with(end));
        is_exception && EXCEPTIONS.iter().any(|part| name.contains(part))
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_failure_of_something_else_is_recognized_at_the_end_of_a_message() {
        for message in [
            "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task: NODE_DIED",
            "ray.exceptions.RayActorError: The actor died because its node has died. Node Id: 9f3",
            "ray._private.worker: Failed to connect to the head node at 10.0.0.1:6379",
            "ExecutorLostFailure (executor 3 exited unrelated to the running tasks) Reason: Container marked as failed",
            "distributed.comm.core.CommClosedError: in <TCP>: Stream is closed: remote worker tcp://10.0.0.3:4711",
            "mpirun noticed that process rank 3 with PID 0 on node worker-3 exited on signal 9 (Killed).\n------",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n====\ntrain.py FAILED\nrank : 1\n====",
            "botocore.exceptions.ClientError: An error occurred (503) when calling the PutObject operation: Slow Down",
            "wandb.errors.CommError: Network error (ConnectionError), entering retry loop",
            "psycopg2.OperationalError: server closed the connection unexpectedly",
            "kafka.errors.NoBrokersAvailable: NoBrokersAvailable: no brokers available",
            "pymongo.errors.ServerSelectionTimeoutError: mongo:27017: timed out",
            "redis.exceptions.ConnectionError: Error while reading from socket",
            "grpc: UNAVAILABLE: failed to connect to all addresses",
            "requests.exceptions.HTTPError: 502 Server Error: Bad Gateway for url: https://hub.example/x",
            "http.client.RemoteDisconnected: Remote end closed connection without response",
            "srun: error: node5: task 3: Killed",
            "ORTE has lost communication with a remote daemon.",
            "--------------------\nORTE has lost communication with a remote daemon.\n\n  HNP daemon   : [[1,0],0] on node l\n  \
             Remote daemon: [[1,0],1] on node w-1\n\nThis is usually due to a failure of the TCP network. We cannot\n\
             recover from this, and will end the job.\n--------------------",
            "jaxlib.XlaRuntimeError: coordination service: task 3 is unhealthy",
            "horovod: one or more ranks are dead",
            "MySQL server has gone away",
            "slurmstepd: error: *** STEP 991.0 ON gpu-7 CANCELLED AT 2026-11-21T02:15:10 DUE TO NODE gpu-9 FAILURE ***",
            "slurmstepd: error: *** JOB 17 ON gpu-2 CANCELLED AT 2026-11-21T02:15:10 DUE TO PREEMPTION ***",
            "slurmstepd: error: *** JOB 18 ON gpu-2 CANCELLED AT 2026-11-21T02:15:10 DUE TO TIME LIMIT ***",
            "salloc: Job allocation 17 has been revoked.",
            "TERM_RUNLIMIT: job killed after reaching LSF run time limit.",
            "=>> PBS: job killed: walltime 3600 exceeded limit 3600",
            "srun: error: Node failure on gpu-9",
            "MPI_ABORT was invoked on rank 12 in communicator MPI_COMM_WORLD\nwith errorcode 1.\n\nNOTE: invoking MPI_ABORT \
             causes Open MPI to kill all MPI processes.",
            "Abort(1) on node 3 (rank 3 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 1) - process 3",
            "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15",
            "Received SIGTERM, shutting down",
            "ERROR: the worker was ended by signal 15 (Terminated)",
            "torch.distributed.elastic.rendezvous.api.RendezvousClosedError: rendezvous closed",
        ] {
            assert!(read(message).is_some(), "{message}");
        }
    }

    #[test]
    fn a_quotation_and_an_error_of_the_program_are_not_elsewhere() {
        for message in [
            "",
            "--------------------\nlost connection to the worker\n--------------------\nValueError: x",
            "docs: the actor died because its node has died\nKeyError: 'x'",
            "retry: connection refused\nValueError: invalid literal for int() with base 10: '500'",
            "TypeError: unsupported operand type(s)",
            "AssertionError: expected 500 classes",
            "RuntimeError: shape mismatch: 503 != 512",
            "FileNotFoundError: config of worker.yaml",
            "ImportError: cannot import name 'Server' from 'app'",
            "RuntimeError: CUDA error: device-side assert triggered",
            "IndexError: list index out of range",
            "Caught signal 11 (Segmentation fault: address not mapped to object at address (nil))",
            "*** Process received signal ***",
            "TypeError: expected 3 arguments, got 15",
            "ValueError: invalid step: 3",
            "RuntimeError: the number of steps is zero",
            "Fatal Python error: Aborted",
            "RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly",
        ] {
            assert_eq!(read(message), None, "{message}");
        }
    }
}
