//! The faults that the embedded cluster can be told to have: of a node, or of the API server.
//!
//! Everything is deterministic: a fault is armed for good or for a number of times, and is used up in the order of arrival.
//!
//! ```
//! use demo_cluster::{Armed, ExecFault, Faults};
//!
//! let mut faults = Faults::default();
//! faults.on("gpu-1").exec = Some(Armed::once(ExecFault::Cut { after_bytes: 1_000 }));
//! faults.api.too_many_requests(2, 1);
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that can be wrong with the cluster. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// What is wrong with every node that has no fault of the same sort of its own.
    pub everywhere: NodeFaults,
    /// What is wrong with single nodes, by name.
    pub nodes: BTreeMap<String, NodeFaults>,
    /// What is wrong with the API server.
    pub api: ApiFaults,
}

/// What is wrong with a node.
#[derive(Clone, Debug, Default)]
pub struct NodeFaults {
    /// The kubelet no longer reports: `Ready` is `Unknown`, new pods stay Pending, exec cannot reach it.
    pub not_ready: bool,
    /// What keeps a new pod from running.
    pub start: Option<Armed<StartFault>>,
    /// What happens to the container's main process this long after it started.
    pub main_process_killed: Option<Armed<Duration>>,
    /// What happens to an exec.
    pub exec: Option<Armed<ExecFault>>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq)]
pub enum StartFault {
    /// The image cannot be pulled: `ErrImagePull`, then `ImagePullBackOff`, with events.
    ImagePull,
    /// The kubelet rejects the pod: phase `Failed` with `reason`, such as `OutOfpods`.
    Rejected {
        /// The pod's `status.reason`.
        reason: String,
        /// What follows `Pod was rejected: `.
        message: String,
    },
    /// The container takes this much longer to start.
    Slow(Duration),
    /// No sandbox can be created, for this reason: the pod stays as it is, and an event says why.
    NoSandbox(String),
}

impl StartFault {
    /// The rejection by a node that has its maximum of pods already.
    pub fn out_of_pods() -> Self {
        Self::Rejected {
            reason: "OutOfpods".to_owned(),
            message: "Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110".to_owned(),
        }
    }
}

/// What happens to an exec.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecFault {
    /// The connection is closed after this much of stdout: no status, no close frame.
    Cut {
        /// Bytes of stdout that still arrive.
        after_bytes: usize,
    },
    /// stdout ends after this much of it, and the status says success.
    Truncated {
        /// Bytes of stdout that still arrive.
        after_bytes: usize,
    },
    /// One byte of standard input arrives as another.
    InputGarbled,
    /// Standard input ends after this much of it.
    InputCut {
        /// Bytes that still arrive.
        after_bytes: usize,
    },
    /// Accepted, and then nothing, for as long as the client holds on.
    Hang,
    /// 403 before the upgrade.
    Forbidden,
    /// Something on the way does not pass websockets on: this HTTP status, without upgrade and without a `Status`.
    UpgradeRefused(u16),
    /// The process is killed after this much of stdout: exit code 137.
    Killed {
        /// Bytes of stdout that still arrive.
        after_bytes: usize,
    },
}

/// What is wrong with the API server.
#[derive(Clone, Debug, Default)]
pub struct ApiFaults {
    /// Every namespace enforces Pod Security `baseline`, whatever its labels say.
    pub pod_security: bool,
    /// The next `continue` token is answered with 410, as one that outlived the history.
    pub expire_continue_once: bool,
    /// Faults of single requests; the first that matches answers.
    pub requests: Vec<RequestFault>,
}

/// A fault of the requests that match.
#[derive(Clone, Debug)]
pub struct RequestFault {
    /// The verb it is about (`get`, `list`, `delete`, …); `None`: any.
    pub verb: Option<&'static str>,
    /// The resource it is about, as RBAC writes it (`pods`, `pods/exec`); `None`: any.
    pub resource: Option<&'static str>,
    /// What happens.
    pub answer: Armed<AnswerFault>,
}

/// What a request meets.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFault {
    /// 429 with this `Retry-After`, in seconds.
    TooManyRequests(u32),
    /// 500 with a `Status`.
    InternalError,
    /// 403 of an admission step: `pods "NAME" is forbidden: ` and this.
    Forbidden(String),
    /// The request is served, but only after this time.
    Slow(Duration),
    /// The connection is closed without an answer.
    Closed,
    /// The request is served, and answered with 500 all the same.
    Lost,
}

impl Faults {
    /// The faults of one node, to change.
    pub fn on(&mut self, node: &str) -> &mut NodeFaults {
        self.nodes.entry(node.to_owned()).or_default()
    }

    /// Whether a node's kubelet is away.
    pub(super) fn is_not_ready(&self, node: &str) -> bool {
        self.everywhere.not_ready || self.nodes.get(node).is_some_and(|faults| faults.not_ready)
    }

    pub(super) fn take_start(&mut self, node: &str) -> Option<StartFault> {
        self.take(node, |faults| &mut faults.start)
    }

    pub(super) fn take_main_process_killed(&mut self, node: &str) -> Option<Duration> {
        self.take(node, |faults| &mut faults.main_process_killed)
    }

    pub(super) fn take_exec(&mut self, node: &str) -> Option<ExecFault> {
        self.take(node, |faults| &mut faults.exec)
    }

    fn take<T: Clone>(&mut self, node: &str, field: impl Fn(&mut NodeFaults) -> &mut Option<Armed<T>>) -> Option<T> {
        let own = self.nodes.get_mut(node).and_then(|faults| field(faults).as_mut()?.take());
        own.or_else(|| field(&mut self.everywhere).as_mut()?.take())
    }
}

impl ApiFaults {
    /// The next `times` requests are answered with 429.
    pub fn too_many_requests(&mut self, times: u32, retry_after_seconds: u32) {
        self.any(Armed::times(AnswerFault::TooManyRequests(retry_after_seconds), times));
    }

    /// The next `times` requests are answered with 500.
    pub fn internal_errors(&mut self, times: u32) {
        self.any(Armed::times(AnswerFault::InternalError, times));
    }

    /// Every answer takes this much longer.
    pub fn slow(&mut self, delay: Duration) {
        self.any(Armed::always(AnswerFault::Slow(delay)));
    }

    /// The next `times` deletions of a pod are answered with 500.
    pub fn failing_deletes(&mut self, times: u32) {
        let answer = Armed::times(AnswerFault::InternalError, times);
        self.requests.push(RequestFault { verb: Some("delete"), resource: Some("pods"), answer });
    }

    fn any(&mut self, answer: Armed<AnswerFault>) {
        self.requests.push(RequestFault { verb: None, resource: None, answer });
    }

    pub(super) fn take(&mut self, verb: &str, resource: &str) -> Option<AnswerFault> {
        let matching = |fault: &&mut RequestFault| {
            fault.verb.is_none_or(|wanted| wanted == verb) && fault.resource.is_none_or(|wanted| wanted == resource)
        };
        self.requests.iter_mut().filter(matching).find_map(|fault| fault.answer.take())
    }
}

/// A fault with the number of times that it still happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Armed<T> {
    fault: T,
    left: Option<u32>,
}

impl<T: Clone> Armed<T> {
    /// Until the faults are edited.
    pub fn always(fault: T) -> Self {
        Self { fault, left: None }
    }

    /// Once.
    pub fn once(fault: T) -> Self {
        Self::times(fault, 1)
    }

    /// This many times.
    pub fn times(fault: T, times: u32) -> Self {
        Self { fault, left: Some(times) }
    }

    fn take(&mut self) -> Option<T> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(self.fault.clone())
    }
}

impl<T: Clone> From<T> for Armed<T> {
    fn from(fault: T) -> Self {
        Self::always(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_and_the_node_s_own_comes_first() {
        let mut faults = Faults::default();
        faults.everywhere.exec = Some(ExecFault::Hang.into());
        faults.on("a").exec = Some(Armed::times(ExecFault::Forbidden, 2));
        let met: Vec<_> = (0..3).filter_map(|_| faults.take_exec("a")).collect();
        assert_eq!(met, [ExecFault::Forbidden, ExecFault::Forbidden, ExecFault::Hang]);
        assert_eq!(faults.take_exec("b"), Some(ExecFault::Hang));
    }

    #[test]
    fn a_request_fault_leaves_other_requests_alone() {
        let mut faults = ApiFaults::default();
        faults.failing_deletes(1);
        assert_eq!(faults.take("get", "pods"), None);
        assert_eq!(faults.take("delete", "pods"), Some(AnswerFault::InternalError));
        assert_eq!(faults.take("delete", "pods"), None);
    }
}
