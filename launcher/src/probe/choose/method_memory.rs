//! `MethodMemory`: remembers for some minutes which probe methods do not work on a cluster or a node, and why
//! (`Obstructed`, `Reason`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

/// Time for which a rejection by the API server is remembered. It is short because an administrator may be fixing the cause.
const REFUSAL_TIME: Duration = Duration::from_secs(60);
/// Time for which any other obstacle is remembered. It is long because another attempt costs a pod and several seconds.
const LONG_TIME: Duration = Duration::from_secs(600);
/// Time for which other probes wait for the first probe of a cluster, which may be rejected.
const FIRST_TIME: Duration = Duration::from_secs(2);
/// The part of a probe method that does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Obstructed {
    /// Any pod in the whole cluster, because of the namespace, a permission or a policy.
    Pods,
    /// The pod of --via inject in the whole cluster, because of a policy.
    UploadPods,
    /// Exec in the whole cluster, because a permission is missing or a proxy lets only the request for the log pass.
    Exec,
    /// Exec on one node, because websockets were rejected, perhaps by its kubelet.
    ExecOnNode,
    /// Reading the log of a pod in the whole cluster.
    Logs,
    /// The image of the probe on one node.
    Image,
    /// Uploading node-probe on one node.
    Upload,
}

impl Obstructed {
    fn time(self) -> Duration {
        match self {
            Self::Pods | Self::UploadPods | Self::Exec | Self::Logs => REFUSAL_TIME,
            Self::ExecOnNode | Self::Image | Self::Upload => LONG_TIME,
        }
    }

    fn is_of_node(self) -> bool {
        matches!(self, Self::ExecOnNode | Self::Image | Self::Upload)
    }
}

/// The reason why a method was not used, and the step that makes it possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) why: String,
    pub(crate) next_step: String,
}

/// A node of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Context, API server and user. The user is included because another user may have other permissions.
    pub(crate) cluster: &'a str,
    pub(crate) node: &'a str,
}

#[derive(Debug, Hash, PartialEq, Eq)]
struct Key {
    cluster: String,
    node: Option<String>,
    what: Obstructed,
}

impl Key {
    fn of(place: Place<'_>, what: Obstructed) -> Self {
        let node = what.is_of_node().then(|| place.node.to_owned());
        Self { cluster: place.cluster.to_owned(), node, what }
    }
}

#[derive(Debug, Default)]
struct Known {
    reasons: HashMap<Key, (Reason, Instant)>,
    /// The time when each cluster last admitted a pod.
    admitted: HashMap<String, Instant>,
    /// The lines that an answer of this process already contained.
    shown: HashSet<String>,
}

#[derive(Debug, Default)]
pub(crate) struct MethodMemory {
    known: Mutex<Known>,
    /// One lock per cluster, held by the first probe.
    first: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl MethodMemory {
    /// Returns the reason why `what` is known not to work at `place` at the time `now`; `None` if `what` can be tried.
    pub(crate) fn reason(&self, place: Place<'_>, what: Obstructed, now: Instant) -> Option<Reason> {
        let known = self.known();
        let (reason, since) = known.reasons.get(&Key::of(place, what))?;
        is_live(what, *since, now).then(|| reason.clone())
    }

    pub(crate) fn remember(&self, place: Place<'_>, what: Obstructed, reason: Reason, now: Instant) {
        let mut known = self.known();
        known.reasons.retain(|key, (_, since)| is_live(key.what, *since, now));
        known.reasons.insert(Key::of(place, what), (reason, now));
    }

    /// Forgets the obstacles that a success disproved.
    pub(crate) fn forget(&self, place: Place<'_>, disproved: &[Obstructed]) {
        let mut known = self.known();
        for what in disproved {
            known.reasons.remove(&Key::of(place, *what));
        }
    }

    /// Records that the cluster admitted a pod.
    pub(crate) fn remember_admitted(&self, place: Place<'_>, now: Instant) {
        self.known().admitted.insert(place.cluster.to_owned(), now);
    }

    /// Waits for the first probe of a cluster, because all probes may be rejected for one reason. The caller holds
    /// the guard during its probe. `None` if a pod was already admitted, or if the first probe takes too long.
    pub(crate) async fn wait_for_first(&self, place: Place<'_>) -> Option<OwnedMutexGuard<()>> {
        let is_admitted = || {
            let since = self.known().admitted.get(place.cluster).copied();
            since.is_some_and(|since| since.elapsed() < LONG_TIME)
        };
        if is_admitted() {
            return None;
        }
        let first = {
            let mut all = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(place.cluster.to_owned()).or_default().clone()
        };
        let guard = timeout(FIRST_TIME, first.lock_owned()).await.ok()?;
        (!is_admitted()).then_some(guard)
    }

    /// Returns whether no earlier answer of this process contained this line.
    pub(crate) fn is_new(&self, cluster: &str, line: &str) -> bool {
        self.known().shown.insert(format!("{cluster} {line}"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(what: Obstructed, since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < what.time()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(why: &str) -> Reason {
        Reason { why: why.to_owned(), next_step: String::new() }
    }

    #[test]
    fn an_obstacle_of_the_cluster_holds_for_each_node_and_expires() {
        let (memory, now) = (MethodMemory::default(), Instant::now());
        let place = |cluster, node| Place { cluster, node };
        let table = [
            (Obstructed::Pods, true, REFUSAL_TIME),
            (Obstructed::UploadPods, true, REFUSAL_TIME),
            (Obstructed::Exec, true, REFUSAL_TIME),
            (Obstructed::Logs, true, REFUSAL_TIME),
            (Obstructed::ExecOnNode, false, LONG_TIME),
            (Obstructed::Image, false, LONG_TIME),
            (Obstructed::Upload, false, LONG_TIME),
        ];
        for (what, everywhere, time) in table {
            memory.remember(place("s", "a"), what, reason("no"), now);
            let known = |server, node, at| memory.reason(place(server, node), what, at).is_some();
            assert!(known("s", "a", now) && !known("t", "a", now), "{what:?}");
            assert_eq!(known("s", "b", now), everywhere, "{what:?}");
            let nearly = time - Duration::from_secs(1);
            assert!(known("s", "a", now + nearly) && !known("s", "a", now + time), "{what:?}");
        }
    }

    #[test]
    fn a_success_clears_the_memory_of_this_user_only() {
        let (memory, now) = (MethodMemory::default(), Instant::now());
        let (reader, admin) = (Place { cluster: "s reader", node: "a" }, Place { cluster: "s admin", node: "a" });
        memory.remember(reader, Obstructed::Pods, reason("no"), now);
        memory.remember(reader, Obstructed::Image, reason("no"), now);
        assert_eq!(memory.reason(admin, Obstructed::Pods, now), None);
        memory.forget(Place { node: "b", ..reader }, &[Obstructed::Image]);
        assert!(memory.reason(reader, Obstructed::Image, now).is_some(), "of another node");
        memory.forget(reader, &[Obstructed::Pods, Obstructed::Image]);
        assert_eq!(
            (memory.reason(reader, Obstructed::Pods, now), memory.reason(reader, Obstructed::Image, now)),
            (None, None)
        );
    }

    #[tokio::test]
    async fn others_wait_for_the_first_probe_but_not_long() {
        let (memory, place) = (MethodMemory::default(), Place { cluster: "s", node: "a" });
        let first = memory.wait_for_first(place).await;
        assert!(first.is_some());
        let began = Instant::now();
        assert!(memory.wait_for_first(place).await.is_none());
        assert!((FIRST_TIME..FIRST_TIME * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        memory.remember_admitted(place, Instant::now());
        drop(first);
        let began = Instant::now();
        assert!(memory.wait_for_first(place).await.is_none(), "a cluster that admits pods makes nobody wait");
        assert!(began.elapsed() < FIRST_TIME, "{:?}", began.elapsed());
    }

    #[test]
    fn a_line_is_new_once_for_each_cluster() {
        let memory = MethodMemory::default();
        assert!(memory.is_new("s", "x") && !memory.is_new("s", "x"));
        assert!(memory.is_new("t", "x"));
    }
}
