//! `Faults`, `NodeFaults`, `ApiFaults`: the faults that a test sets for all nodes, one node, or the API server.
//!
//! Faults are deterministic: a fault applies to all requests, or to the next n requests.
//!
//! ```
//! use demo_cluster::{CountedFault, ExecFault, Faults};
//!
//! let mut faults = Faults::default();
//! faults.on("gpu-1").exec = Some(CountedFault::once(ExecFault::Cut { after_bytes: 1_000 }));
//! faults.api.too_many_requests(2, 1);
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::counted_fault::CountedFault;
use super::exec::ExecFault;
use super::pod_start::StartFault;
use super::request::{AnswerFault, ProtobufRefusal, RequestFault};

/// The faults of the cluster. By default there are no faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Faults of all nodes. A fault of the same kind in `nodes` has priority.
    pub everywhere: NodeFaults,
    /// Faults of single nodes, by node name.
    pub nodes: BTreeMap<String, NodeFaults>,
    /// Faults of the API server.
    pub api: ApiFaults,
}

#[derive(Clone, Debug, Default)]
pub struct NodeFaults {
    /// The kubelet no longer reports: `Ready` is `Unknown`, new pods stay Pending, and an exec cannot reach the
    /// kubelet.
    pub not_ready: bool,
    /// The reason why a new pod does not start.
    pub start: Option<CountedFault<StartFault>>,
    /// The main process of a container is killed (`OOMKilled`) after this run time.
    pub main_process_killed: Option<CountedFault<Duration>>,
    /// A fault of an exec.
    pub exec: Option<CountedFault<ExecFault>>,
}

/// Faults of the API server.
#[derive(Clone, Debug, Default)]
pub struct ApiFaults {
    /// Every namespace enforces Pod Security `baseline`, regardless of its labels.
    pub pod_security: bool,
    /// Number of `continue` tokens that get 410, as if they were too old.
    pub expired_continues: u32,
    /// The way in which protobuf is rejected.
    pub protobuf_refusal: Option<ProtobufRefusal>,
    /// The time by which the clock of the API server is behind the clock of this machine. This time affects `Date` and
    /// creation times.
    pub clock_behind: Duration,
    /// Faults of single requests. The first fault that matches is used.
    pub requests: Vec<RequestFault>,
}

impl Faults {
    /// Returns the faults of one node, so that a test can change them.
    pub fn on(&mut self, node: &str) -> &mut NodeFaults {
        self.nodes.entry(node.to_owned()).or_default()
    }

    /// Returns whether the kubelet of a node does not report.
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

    fn take<T: Clone>(
        &mut self,
        node: &str,
        field: impl Fn(&mut NodeFaults) -> &mut Option<CountedFault<T>>,
    ) -> Option<T> {
        let own = self.nodes.get_mut(node).and_then(|faults| field(faults).as_mut()?.take());
        own.or_else(|| field(&mut self.everywhere).as_mut()?.take())
    }
}

impl ApiFaults {
    /// Makes the next `times` requests fail with 429.
    pub fn too_many_requests(&mut self, times: u32, retry_after_seconds: u32) {
        self.add_for_any(CountedFault::times(AnswerFault::TooManyRequests(retry_after_seconds), times));
    }

    /// Makes the next `times` requests fail with 500.
    pub fn internal_errors(&mut self, times: u32) {
        self.add_for_any(CountedFault::times(AnswerFault::InternalError, times));
    }

    /// Delays every response by this time.
    pub fn slow(&mut self, delay: Duration) {
        self.add_for_any(CountedFault::always(AnswerFault::Slow(delay)));
    }

    /// Makes the next `times` deletions of a pod fail with 500.
    pub fn failing_deletes(&mut self, times: u32) {
        let answer = CountedFault::times(AnswerFault::InternalError, times);
        self.requests.push(RequestFault { verb: Some("delete"), resource: Some("pods"), answer });
    }

    fn add_for_any(&mut self, answer: CountedFault<AnswerFault>) {
        self.requests.push(RequestFault { verb: None, resource: None, answer });
    }

    pub(super) fn take(&mut self, verb: &str, resource: &str) -> Option<AnswerFault> {
        let matching = |fault: &&mut RequestFault| {
            fault.verb.is_none_or(|wanted| wanted == verb) && fault.resource.is_none_or(|wanted| wanted == resource)
        };
        self.requests.iter_mut().filter(matching).find_map(|fault| fault.answer.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_and_the_node_s_own_comes_first() {
        let mut faults = Faults::default();
        faults.everywhere.exec = Some(ExecFault::Hang.into());
        faults.on("a").exec = Some(CountedFault::times(ExecFault::Forbidden, 2));
        let taken: Vec<_> = (0..3).filter_map(|_| faults.take_exec("a")).collect();
        assert_eq!(taken, [ExecFault::Forbidden, ExecFault::Forbidden, ExecFault::Hang]);
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
