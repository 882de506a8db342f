//! The type `Truth`: all pods that were ever created in a namespace, from a watch of the API server, and
//! checks of these pods against their deadlines and the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

/// Maximum run time after the deadline, in seconds: the kubelet checks every ten seconds, and then stops the pod gracefully.
const GRACE: i64 = 30;
/// Maximum deadline of a probe that is not an action, in seconds.
const LONGEST_DEADLINE: i64 = 600;

/// A pod that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    created: Timestamp,
    deadline_seconds: Option<i64>,
    ended: Option<Timestamp>,
    /// Whether the test has already reported that the audit log has no entry for this pod.
    reported: bool,
}

/// All pods that were seen, by UID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth(Arc<Mutex<BTreeMap<String, Seen>>>);

impl Truth {
    /// Starts to watch the pods.
    pub(crate) async fn of(pods: Api<Pod>) -> Self {
        let truth = Self::default();
        let first = pods.list(&ListParams::default()).await.expect("a list of pods");
        let version = first.metadata.resource_version.unwrap_or_default();
        tokio::spawn(truth.clone().watch(pods, version));
        truth
    }

    async fn watch(self, pods: Api<Pod>, mut version: String) {
        loop {
            let Ok(stream) = pods.watch(&WatchParams::default().timeout(200), &version).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut stream = stream.boxed();
            while let Some(Ok(event)) = stream.next().await {
                match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                        version = pod.resource_version().unwrap_or(version);
                        self.note(&pod, false);
                    }
                    WatchEvent::Deleted(pod) => {
                        version = pod.resource_version().unwrap_or(version);
                        self.note(&pod, true);
                    }
                    WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                    WatchEvent::Error(_) => {
                        // The resource version is too old: list the existing pods again.
                        let Ok(list) = pods.list(&ListParams::default()).await else { break };
                        list.items.iter().for_each(|pod| self.note(pod, false));
                        version = list.metadata.resource_version.unwrap_or_default();
                        break;
                    }
                }
            }
        }
    }

    /// Adds a pod that was seen.
    pub(crate) fn note(&self, pod: &Pod, deleted: bool) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let over = deleted || matches!(phase, Some("Succeeded" | "Failed"));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(pod.uid().unwrap_or_default()).or_insert_with(|| Seen {
            name: pod.name_any(),
            created: pod.metadata.creation_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0),
            deadline_seconds: pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds),
            ended: None,
            reported: false,
        });
        if over {
            seen.ended.get_or_insert_with(Timestamp::now);
        }
    }

    /// Returns all pods that were seen so far.
    pub(crate) fn pods(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns the names of the pods that must be in the audit log: all pods that have not been reported yet, except
    /// the pods with these UIDs.
    pub(crate) fn unaudited(&self, but: &BTreeSet<String>) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = all.iter().filter(|(uid, seen)| !but.contains(*uid) && !seen.reported);
        wanted.map(|(_, seen)| seen.name.clone()).collect()
    }

    /// Marks these pods as reported, so that they are not reported again.
    pub(crate) fn forgive(&self, names: &[String]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values_mut().filter(|seen| names.contains(&seen.name)).for_each(|seen| seen.reported = true);
    }

    /// Returns the pods that ran longer than their deadline allows, or that have no deadline.
    pub(crate) fn beyond_deadline(&self) -> Vec<String> {
        let mut found = Vec::new();
        for Seen { name, created, deadline_seconds, ended, .. } in self.pods() {
            let ran = ended.unwrap_or_else(Timestamp::now).duration_since(created).as_secs();
            match deadline_seconds {
                None => found.push(format!("{name} has no deadline")),
                Some(limit) if limit > LONGEST_DEADLINE => found.push(format!("{name} has a deadline of {limit} s")),
                Some(limit) if ran > limit + GRACE => {
                    found.push(format!("{name} ran for {ran} s, but its deadline is {limit} s"))
                }
                Some(_) => {}
            }
        }
        found
    }
}
