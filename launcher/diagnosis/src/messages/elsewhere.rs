//! `read`: finds out whether a program ended because another process, rank, node or service failed or did not respond.
//!
//! Such a program only reports the failure: neither the program nor its GPU is known to be the cause. The last words of the
//! program decide, because a program can quote an earlier message, and then end for another reason.

use crate::messages::shapes;

/// Things that run outside of the program, or in another process.
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

/// What happens to them.
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

/// Services. A program can call itself a server, so fewer words indicate a failure of another one.
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

/// Words about a connection that broke or could not be made, and about the answer of a service that fails.
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
const EXCEPTIONS: [&str; 14] = [
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
];

/// Words before the number of an HTTP status.
const BEFORE_STATUS: [&str; 8] = ["(", "status ", "status: ", "status_code=", "code ", "code: ", "http ", "error "];

/// Numbers with which a server reports an error of its own.
const STATUS: [&str; 4] = ["500", "502", "503", "504"];

/// Maximum distance between a thing and its failure.
const NEAR: usize = 60;

/// Returns the line of a message that says that something else failed, if that line is the end of the message.
pub(crate) fn read(message: &str) -> Option<&str> {
    let lines = || message.lines().map(str::trim).filter(|line| line.contains(|letter: char| letter.is_alphabetic()));
    let last = lines().next_back()?;
    // torchrun ends with a table of its ranks.
    let of_ranks = || lines().find(|line| line.contains("ChildFailedError"));
    let of_error = || shapes::last_error(lines());
    Some(last)
        .filter(|line| is_elsewhere(line))
        .or_else(of_ranks)
        .or_else(|| of_error().filter(|line| is_elsewhere(line)))
}

fn is_elsewhere(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    // The workers of a data loader are processes of the program itself.
    if lower.contains("dataloader worker") {
        return false;
    }
    fails(&lower, &OTHERS, &FAILURES)
        || fails(&lower, &SERVICES, &FAILURES_OF_SERVICES)
        || CONNECTIONS.iter().any(|words| lower.contains(words))
        || has_status(&lower)
        || names_exception(line)
}

/// Returns whether the line says that one of these things failed.
fn fails(line: &str, things: &[&str], failures: &[&str]) -> bool {
    let near = |start: usize| {
        let end = (start + NEAR).min(line.len());
        let end = (end..=line.len()).find(|at| line.is_char_boundary(*at)).unwrap_or(line.len());
        failures.iter().any(|failure| words(&line[start..end], failure).next().is_some())
    };
    things.iter().any(|thing| words(line, thing).any(|at| near(at + thing.len())))
}

/// Returns where a text has these words as whole words.
fn words<'t>(text: &'t str, words: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.match_indices(words).map(|(at, _)| at).filter(move |at| {
        !is_letter(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_letter(bytes.get(at + words.len()))
    })
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
            "jaxlib.XlaRuntimeError: coordination service: task 3 is unhealthy",
            "horovod: one or more ranks are dead",
            "MySQL server has gone away",
        ] {
            assert!(read(message).is_some(), "{message}");
        }
    }

    #[test]
    fn a_quotation_and_an_error_of_the_program_are_not_elsewhere() {
        for message in [
            "",
            "docs: the actor died because its node has died\nKeyError: 'x'",
            "retry: connection refused\nValueError: invalid literal for int() with base 10: '500'",
            "TypeError: unsupported operand type(s)",
            "AssertionError: expected 500 classes",
            "RuntimeError: shape mismatch: 503 != 512",
            "FileNotFoundError: config of worker.yaml",
            "ImportError: cannot import name 'Server' from 'app'",
            "RuntimeError: CUDA error: device-side assert triggered",
            "IndexError: list index out of range",
            "RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly",
        ] {
            assert_eq!(read(message), None, "{message}");
        }
    }
}
