//! Rules about the ComputeDomain of a node: its IMEX daemon on the node, and the other nodes of the domain.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::{self, FailingPod};
use crate::rule::{Draft, IMEX_DOC, Unread, rules};
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::compute_domain::ComputeDomain;
use syringe_core::facts::kubernetes::node::NvidiaPod;
use syringe_core::unknown::Unknown;

rules! {
    about Workload;
    MEMBER: "compute-domain-node-not-ready" Warning Fabric IMEX_DOC, "The IMEX daemon of the node's ComputeDomain is not ready",
        UpdateSoftware "Read the log of the ComputeDomain's daemon on {node}, and correct the error in it. Then \
            delete the pod of the daemon. Until the daemon is ready, pods of the domain on {node} wait, or cannot \
            share GPU memory with other nodes.",
        means "The node belongs to a ComputeDomain of the DRA driver. The IMEX daemon of the domain on this node is \
            not ready or has ended, so that programs on the node cannot use NVLink to the other nodes. The finding is informational if another finding names the cause.",
        reads "kubernetes.compute_domain, kubernetes.nvidia_pods, host.services, host.stack_log, topology.fabric";
    OTHERS: "compute-domain-incomplete" Info Fabric IMEX_DOC, "Other nodes of the node's ComputeDomain are missing or not ready",
        Watch "Diagnose the nodes that the evidence names. {node} itself is ready in its ComputeDomain.",
        means "The ComputeDomain of the node has fewer nodes than it should have, or nodes whose IMEX daemon is not ready. The node itself is ready.",
        reads "kubernetes.compute_domain";
}

/// A daemon or domain younger than this may still be starting.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// Name of the container and the process that start IMEX.
const DAEMON: &str = "compute-domain-daemon";
/// Maximum number of nodes in the evidence.
const NAMED: usize = 6;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    if !pods::is_settled(node) {
        return Vec::new();
    }
    member(node).or_else(|| others(node)).into_iter().collect()
}

/// Returns an entry if the ComputeDomain could not be read. The verdict does not depend on this entry, because the
/// daemon's pod and the processes of the node show most faults.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let why = node.kubernetes.compute_domain_unread.iter();
    why.map(|why| Unread { fact: Unknown::new("ComputeDomain", why.clone()), decides: false }).collect()
}

/// Returns the pods of the daemon on the node.
fn daemons<'a>(node: &Node<'a>) -> impl Iterator<Item = &'a NvidiaPod> {
    let all = node.kubernetes.nvidia_pods.as_deref().unwrap_or_default();
    let is_daemon = |pod: &&NvidiaPod| !pod.deleting && pod.containers.iter().any(|container| container.name == DAEMON);
    all.iter().filter(is_daemon)
}

/// Checks the daemon of the node: its pod, its state in the domain, and the IMEX program that it starts.
fn member(node: &Node<'_>) -> Option<Draft> {
    let failing = daemons(node).filter(|pod| !pod.ready).find_map(|pod| pods::failing(node, pod));
    let now = pods::time_of_api(node);
    let has_run = |pod: &NvidiaPod| {
        pod.ready && now.zip(pod.ready_since).is_some_and(|(now, since)| now.duration_since(since) >= STARTING)
    };
    let own = node
        .kubernetes
        .compute_domain
        .as_ref()
        .and_then(|domain| domain.nodes.iter().find(|entry| Some(&entry.name) == node.kubernetes.node.as_ref()));
    let is_refused = own.is_some_and(|own| own.ready == Some(false)) && daemons(node).any(has_run);
    let ended = daemons(node).filter(|pod| has_run(pod)).find_map(|pod| without_imex(node, pod));
    if failing.is_none() && !is_refused && ended.is_none() {
        return None;
    }
    let refused = own
        .filter(|own| own.ready == Some(false))
        .map(|_| "the status of the domain: this node is NotReady".to_owned());
    let draft = Draft::on_node(MEMBER).with_all_evidence(node.kubernetes.compute_domain.as_ref().map(state));
    let draft = draft.with_all_evidence(refused).with_all_evidence(ended);
    let draft = match &failing {
        Some(failing) => explained(node, failing, draft),
        None => draft,
    };
    // The rule about two daemons reports this cause.
    let is_service = |service: &&syringe_core::facts::nvidia_stack::StackProcess| {
        service.name == "nvidia-imex" && service.pod_uid.is_none()
    };
    let beside = node.host().and_then(|host| host.services.iter().find(is_service));
    Some(match beside {
        Some(service) => {
            let line =
                format!("nvidia-imex also runs as a service of the node (pid {}): see that finding", service.pid);
            draft.with_severity(Severity::Info).with_evidence(line)
        }
        None => draft,
    })
}

/// Adds the state, the events and the log of the daemon's pod, and the action for the reason.
fn explained(node: &Node<'_>, failing: &FailingPod<'_>, draft: Draft) -> Draft {
    let draft = draft.with_evidence(failing.description()).with_all_evidence(failing.warning());
    let log = failing.log_command().map(|command| format!(" Log: {command}.")).unwrap_or_default();
    let Some(reason) = stack_log::reason(node, failing) else {
        let advice = format!("{}{log}", draft.advice);
        return draft.with_action(ActionCode::UpdateSoftware, advice);
    };
    let draft = Draft { reason: reason.cause, ..draft.with_all_evidence(reason.evidence) };
    let (code, text) = reason.action.unwrap_or((ActionCode::UpdateSoftware, draft.advice.to_string()));
    draft.with_action(code, format!("{text}{log} Then: {}.", pods::delete_command(failing.pod)))
}

/// Returns a line if the daemon's pod is ready and running, but the IMEX program is not running. If the GPUs of the
/// node are in no fabric of several nodes, the daemon does not start IMEX.
fn without_imex(node: &Node<'_>, pod: &NvidiaPod) -> Option<String> {
    let services = &node.host()?.services;
    let runs = |name: &str| {
        services.iter().find(|service| service.name == name && service.pod_uid.as_deref() == Some(pod.uid.as_str()))
    };
    let daemon = runs(DAEMON)?;
    let in_clique = node
        .topology()?
        .gpus
        .iter()
        .filter_map(|gpu| gpu.fabric.as_ref())
        .any(|fabric| fabric.state == "completed" && fabric.cluster_uuid.is_some());
    (in_clique && runs("nvidia-imex").is_none()).then(|| {
        format!(
            "pid {} {DAEMON} runs in pod {}, which is ready, but nvidia-imex does not run in it",
            daemon.pid,
            pods::name(pod)
        )
    })
}

/// Checks the other nodes of the domain.
fn others(node: &Node<'_>) -> Option<Draft> {
    let domain = node.kubernetes.compute_domain.as_ref()?;
    let age = pods::time_of_api(node).zip(domain.created).map(|(now, created)| now.duration_since(created));
    let is_young = age.is_none_or(|age| age < STARTING);
    let is_own = |name: &str| node.kubernetes.node.as_deref() == Some(name);
    let late: Vec<String> = domain
        .nodes
        .iter()
        .filter(|entry| entry.ready == Some(false) && !is_own(&entry.name))
        .map(|entry| entry.name.clone())
        .collect();
    let is_short = u64::from(domain.expected_nodes) > domain.nodes.len() as u64;
    let is_ready = domain.nodes.iter().any(|entry| is_own(&entry.name) && entry.ready != Some(false));
    if is_young || !is_ready || late.is_empty() && !is_short {
        return None;
    }
    let named = (!late.is_empty()).then(|| format!("not ready: {}", evidence::names(&late, NAMED)));
    Some(Draft::on_node(OTHERS).with_evidence(state(domain)).with_all_evidence(named))
}

/// Returns the state of a domain in one line.
fn state(domain: &ComputeDomain) -> String {
    let ready = domain.nodes.iter().filter(|entry| entry.ready == Some(true)).count();
    let expected = match domain.expected_nodes {
        0 => evidence::count(domain.nodes.len(), "node"),
        expected => format!("{} in the domain, {expected} expected", evidence::count(domain.nodes.len(), "node")),
    };
    let status = domain.status.as_deref().map(|status| format!(" is {}", evidence::data(status))).unwrap_or_default();
    let (namespace, name) = (evidence::name(&domain.namespace), evidence::name(&domain.name));
    format!("ComputeDomain {namespace}/{name}{status}: {ready} ready of {expected}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    use super::*;

    const POD: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
    const NOW: &str = "2026-11-21T03:00:00Z";

    fn found_in(report: Value, cluster: Value) -> Vec<(&'static str, Severity, String)> {
        let report: Report = serde_json::from_value(report).expect("a report");
        let cluster: KubernetesFacts = serde_json::from_value(cluster).expect("facts");
        let node = Node::new(&report, &cluster);
        let drafts = check(&node).into_iter();
        drafts.map(|draft| (draft.rule.id, draft.severity, draft.evidence.join("\n"))).collect()
    }

    fn pod(ready: bool, since: &str) -> Value {
        json!({"namespace": "dra", "name": "computedomain-daemon-u-x7k2p", "uid": POD, "component": "dra_driver", "phase": "Running",
            "ready": ready, "ready_since": since, "created": since, "containers": [{"name": DAEMON, "ready": ready,
                "state": {"kind": "running", "since": since}}]})
    }

    fn cluster(pod: Value, nodes: Value, expected: u32) -> Value {
        json!({"node": "n1", "read_at": NOW, "nvidia_pods": [pod], "compute_domain": {"namespace": "ml", "name": "cd", "status": "NotReady",
            "expected_nodes": expected, "created": "2026-11-21T00:00:00Z", "nodes": nodes}})
    }

    fn report(services: Value) -> Value {
        let data = json!({"services": services});
        let fabric =
            json!({"state": "completed", "cluster_uuid": "abababab-abab-abab-abab-abababababab", "clique_id": 1});
        json!({"schema_version": syringe_core::report::SCHEMA_VERSION, "sections": {
            "host": {"status": "ok", "data": data},
            "topology": {"status": "ok", "data": {"gpus": [{"index": 0, "fabric": fabric}]}}}})
    }

    fn daemon(name: &str) -> Value {
        json!({"name": name, "pid": 70, "pod_uid": POD})
    }

    #[test]
    fn a_ready_domain_and_a_starting_daemon_have_no_finding() {
        let both = report(json!([daemon(DAEMON), daemon("nvidia-imex")]));
        let ready = json!([{"name": "n1", "ready": true, "clique": "c"}, {"name": "n2", "ready": true}]);
        let old = "2026-11-21T01:00:00Z";
        for expected in [0, 2] {
            assert_eq!(found_in(both.clone(), cluster(pod(true, old), ready.clone(), expected)), []);
        }
        let young = "2026-11-21T02:58:00Z";
        let waiting = json!([{"name": "n1", "ready": false}]);
        assert_eq!(found_in(report(json!([daemon(DAEMON)])), cluster(pod(false, young), waiting, 0)), []);
        assert_eq!(found_in(both, json!({"node": "n1", "read_at": NOW})), []);
    }

    #[test]
    fn a_daemon_that_is_not_ready_is_found_by_its_pod_its_domain_and_its_process() {
        let old = "2026-11-21T01:00:00Z";
        let own = |ready: bool| json!([{"name": "n1", "ready": ready}]);
        let both = || report(json!([daemon(DAEMON), daemon("nvidia-imex")]));
        for (report, cluster, words) in [
            (both(), cluster(pod(false, old), json!([]), 0), "is running but not ready"),
            (both(), cluster(pod(true, old), own(false), 0), "this node is NotReady"),
            (report(json!([daemon(DAEMON)])), cluster(pod(true, old), own(true), 0), "nvidia-imex does not run in it"),
        ] {
            let found = found_in(report, cluster);
            assert!(
                matches!(&found[..], [(id, Severity::Warning, text)] if *id == MEMBER.id && text.contains(words)),
                "{found:?}"
            );
        }
        let service = report(json!([daemon(DAEMON), {"name": "nvidia-imex", "pid": 8}]));
        let found = found_in(service, cluster(pod(false, old), json!([]), 0));
        assert!(matches!(&found[..], [(_, Severity::Info, _)]), "{found:?}");
        // Outside a fabric of several nodes, the daemon does not start IMEX.
        let mut alone = report(json!([daemon(DAEMON)]));
        alone["sections"]["topology"]["data"]["gpus"][0]["fabric"] = json!({"state": "not_supported"});
        assert_eq!(found_in(alone, cluster(pod(true, old), own(true), 0)), []);
    }

    #[test]
    fn other_nodes_of_the_domain_are_no_fault_of_this_node() {
        let old = "2026-11-21T01:00:00Z";
        let both = || report(json!([daemon(DAEMON), daemon("nvidia-imex")]));
        for (nodes, expected, words) in [
            (json!([{"name": "n1", "ready": true}, {"name": "n2", "ready": false}]), 0, "not ready: n2"),
            (json!([{"name": "n1", "ready": true}]), 4, "1 ready of 1 node in the domain, 4 expected"),
        ] {
            let found = found_in(both(), cluster(pod(true, old), nodes, expected));
            assert!(
                matches!(&found[..], [(id, Severity::Info, text)] if *id == OTHERS.id && text.contains(words)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_domain_that_could_not_be_read_is_named_and_decides_nothing() {
        let cluster = json!({"node": "n1", "compute_domain_unread": "Listing ComputeDomains: forbidden (HTTP 403)"});
        let cluster: KubernetesFacts = serde_json::from_value(cluster).expect("facts");
        let report = Report::default();
        let unread = unread(&Node::new(&report, &cluster));
        assert!(matches!(&unread[..], [one] if !one.decides && one.fact.why.contains("403")));
    }
}
