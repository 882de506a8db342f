//! `list`: reads the DaemonSets of the cluster. `add_to`: adds them to the facts of a node.
//! `add_refusals`: adds the reasons for missing pods.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use syringe_core::facts::kubernetes::daemon_set::DaemonSetFacts;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::text::clean_keeping_end;
use syringe_core::unknown::NOT_IN_ARCHIVE;
use tokio::time::timeout;

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::pagination;
use crate::client::pagination::Query;
use crate::objects::daemon_sets::{self, DaemonSet};
use crate::reads::events;
use crate::reads::existing_pods::ExistingPods;

/// Time limit for the list, and for the requests about DaemonSets without a pod.
const TIME: Duration = Duration::from_secs(5);
/// Maximum number of namespaces in which the reason for a missing pod is read.
const NAMESPACES: usize = 3;
/// Maximum length of a message. The scheduler writes the reasons of all nodes into one message.
const MESSAGE: usize = 600;

/// Lists the DaemonSets of the cluster, within `time`.
pub async fn list(connection: &Connection, time: Duration) -> Result<Vec<DaemonSet>, Failure> {
    let query = Query { what: "Listing the DaemonSets", path: "/apis/apps/v1/daemonsets", labels: None, fields: None };
    let take = |sets: &mut Vec<DaemonSet>, object: apps::DaemonSet| sets.extend(DaemonSet::from_object(object));
    let list = pagination::fold(connection, &query, Vec::new, take);
    timeout(time.min(TIME), list).await.unwrap_or_else(|_| {
        Err(Failure::new("Listing the DaemonSets", "the API server did not answer in time", "Try again."))
    })
}

/// Adds the DaemonSets to the facts of a node. Without the list of pods, adds no DaemonSet.
pub fn add_to(
    facts: &mut KubernetesFacts,
    kubernetes: &Node,
    sets: &Result<Vec<DaemonSet>, Failure>,
    existing_pods: Option<&ExistingPods>,
) {
    match (sets, existing_pods) {
        (Ok(sets), Some(pods)) => {
            facts.daemon_sets = Some(daemon_sets::on_node(sets, kubernetes, pods.daemon_pods()));
        }
        (Err(Failure { why, .. }), _) if why.starts_with(NOT_IN_ARCHIVE) => {
            facts.daemon_sets_unread = Some(why.clone())
        }
        (Err(Failure { what, why, .. }), _) => facts.daemon_sets_unread = Some(format!("{what}: {why}")),
        (Ok(_), None) => {}
    }
}

/// Reads why DaemonSets that fit the node have no pod on it: from the events of their controller, and from pods that
/// the scheduler did not place. Reasons that the user has no permission to read stay unknown.
pub async fn add_refusals(connection: &Connection, node: &str, sets: &mut [DaemonSetFacts], time: Duration) {
    let missing = |set: &&mut DaemonSetFacts| set.mismatch.is_none() && set.pod.is_none();
    let mut sets: Vec<&mut DaemonSetFacts> = sets.iter_mut().filter(missing).collect();
    sets.sort_by_key(|set| !set.role.is_of_stack());
    let namespaces: BTreeSet<String> = sets.iter().take(NAMESPACES).map(|set| set.namespace.clone()).collect();
    let time = time.min(TIME);
    for namespace in namespaces {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let what = format!("Listing the pods of namespace {namespace} that wait for a node");
        let fields = Some("spec.nodeName=,status.phase=Pending");
        let query = Query { what: &what, path: &path, labels: None, fields };
        let keep = |waiting: &mut Vec<Pod>, pod: Pod| waiting.extend(is_for(&pod, node).then_some(pod));
        let (waiting, refused) = tokio::join!(
            timeout(time, pagination::fold(connection, &query, Vec::new, keep)),
            timeout(time, events::of_failed_creates(connection, &namespace))
        );
        let waiting = waiting.ok().and_then(Result::ok).unwrap_or_default();
        let refused = refused.ok().and_then(Result::ok).unwrap_or_default();
        for set in sets.iter_mut().filter(|set| set.namespace == namespace) {
            let pod = waiting.iter().find(|pod| pod.owner_references().iter().any(|owner| owner.name == set.name));
            let controller = format!("DaemonSet {}", set.name);
            let event = refused.iter().rev().find(|refused| refused.controller == controller);
            let words = pod.and_then(not_scheduled).or_else(|| Some(event?.event.message.clone()));
            set.refusal = words.map(|text| clean_keeping_end(&text, MESSAGE));
        }
    }
}

/// Returns whether the DaemonSet controller created the pod for this node.
fn is_for(pod: &Pod, node: &str) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let fields = terms.iter().flat_map(|terms| &terms.node_selector_terms).flat_map(|term| &term.match_fields);
    fields
        .flatten()
        .any(|field| field.key == "metadata.name" && field.values.iter().flatten().any(|value| value == node))
}

/// Returns the scheduler's message about a pod.
fn not_scheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    scheduled.message.clone()
}
