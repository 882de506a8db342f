//! Rules about counters of RDMA ports (`rdma_counters.tsv`): links that flap, transmission errors, lost packets, EFA
//! devices.
//!
//! The counters are totals since the driver of the card was loaded. A total is compared with the usual number for the
//! time since boot, and with ports of the same kind. If all ports have a high count, the cause is in the network.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, Rule, rules};
use crate::rules::links::rdma_ports::{carries_default_route, distance, is_active, name_of, on_device_of};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::rdma_counters;
use syringe_core::facts::rdma_counters::RdmaCounter;
use syringe_core::facts::topology::NicPort;

rules! {
    about Network;
    FLAPS: "rdma-port-flaps" Warning Fabric DEBUG_DOC, "The link of a network port goes down repeatedly",
        CheckCabling "Check cable, transceiver and switch port of the network port of {node} in the evidence: reseat or swap them and watch \
            the counter. Each time the link goes down, jobs on several nodes hang or fail.",
        means "The link of an InfiniBand or RoCE port went down more often than those of the other ports of the node.",
        reads "topology.nics, host.uptime_seconds", in_plan WorkContinues;
    ERRORS: "rdma-port-errors" Warning Fabric DEBUG_DOC, "A network port counts transmission errors",
        CheckCabling "Check cable and transceiver of the network port of {node} in the evidence (mlxlink shows the error rate and the optical \
            power), and swap them with the cable and transceiver of another port at the next maintenance. The port repeats packets, so jobs are slow.",
        means "An InfiniBand or RoCE port counts more symbol errors, damaged packets or recoveries of its link than the other ports of the node.",
        reads "topology.nics, host.uptime_seconds", in_plan WorkContinues;
    LOST: "rdma-packets-lost" Warning Fabric DEBUG_DOC, "A network port loses more packets than the other ports",
        Watch "Check the flow control (PFC, ECN) of the port of {node} in the evidence and of its switch port, and what else uses the port. \
            This is not a fault of a GPU.",
        means "An InfiniBand or RoCE port dropped, repeated or missed many more packets than the other ports of the node.",
        reads "topology.nics, host.uptime_seconds", in_plan WorkContinues;
    EFA: "efa-errors" Warning Fabric None, "An EFA device counts errors",
        Watch "If the device does not complete commands, stop and start the instance of {node} when its jobs have \
            ended. Otherwise, check the security groups and the nodes at the other end.",
        means "An EFA device (AWS) did not complete commands, or counts more drops and timeouts than the other EFA devices of the node. The \
            state of the port gives no information: the driver always reports ACTIVE.",
        reads "topology.nics, host.uptime_seconds", in_plan WorkContinues;
}

const SECONDS_OF_A_DAY: f64 = 86_400.0;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let (Some(topology), Some(uptime)) = (node.topology(), node.host().and_then(|host| host.uptime_seconds)) else {
        return Vec::new();
    };
    #[expect(clippy::cast_precision_loss, reason = "a duration in days")]
    let days = uptime as f64 / SECONDS_OF_A_DAY;
    let since = evidence::span(SignedDuration::from_secs(i64::try_from(uptime).unwrap_or(i64::MAX)));
    let mut drafts: BTreeMap<(&str, bool, Option<u32>), Draft> = BTreeMap::new();
    for row in rdma_counters::all() {
        let Some(rule) = RULES.iter().copied().find(|rule| rule.id == row.finding) else { continue };
        for group in groups(&topology.nics, rule) {
            let counts: Vec<(&NicPort, u64)> =
                group.iter().map(|port| (*port, port.counters.get(row.name).copied().unwrap_or(0))).collect();
            let high: Vec<Count<'_>> =
                (0..counts.len()).filter_map(|at| Count::new(&counts, at, row.usual(days), row)).collect();
            let alone = high.iter().filter(|count| count.is_unlike_others).collect::<Vec<_>>();
            for count in &alone {
                let (draft, severity) = (on_device_of(node, count.port, rule), count.severity(row));
                let line = format!(
                    "{}: {} {} in {since}{}: {}",
                    name_of(count.port),
                    row.name,
                    count.count,
                    count.others,
                    row.meaning
                );
                let key = (rule.id, severity == Severity::Info, draft.scope.gpu);
                let draft = drafts.remove(&key).unwrap_or_else(|| draft.with_severity(severity));
                drafts.insert(key, draft.with_evidence(line));
            }
            if alone.is_empty() && high.len() * 2 > group.len() {
                let (least, most) = (high.iter().map(|one| one.count).min(), high.iter().map(|one| one.count).max());
                let line = format!(
                    "{} {} to {} in {since} at {} of {} ports: {}",
                    row.name,
                    least.unwrap_or_default(),
                    most.unwrap_or_default(),
                    high.len(),
                    group.len(),
                    row.meaning
                );
                let draft = drafts.remove(&(rule.id, true, None)).unwrap_or_else(|| {
                    Draft::on_node(rule).with_severity(Severity::Info).with_action(ActionCode::Watch, OF_ALL)
                });
                drafts.insert((rule.id, true, None), draft.with_evidence(line));
            }
        }
    }
    drafts.into_values().collect()
}

/// From this factor on, the traffic of programs does not explain the difference between the ports.
const FAR: u64 = 100;

const OF_ALL: &str = "No action at the ports of {node}: all ports have similar counts, so look at the switch or the \
    network.";

/// A counter of a port that is higher than usual.
struct Count<'n> {
    port: &'n NicPort,
    count: u64,
    /// Whether the other ports of the group count much less.
    is_unlike_others: bool,
    /// Whether it is more than [`FAR`] times the count of each other port.
    is_far: bool,
    /// The counts of the other ports, for the evidence.
    others: String,
}

impl<'n> Count<'n> {
    /// Evaluates the port at a position of its group. `usual`: the largest number that is not a fault.
    fn new(counts: &[(&'n NicPort, u64)], at: usize, usual: u64, row: &RdmaCounter) -> Option<Self> {
        let (port, count) = counts[at];
        let is_full = row.full.is_some_and(|full| count >= full);
        if count <= usual && !is_full {
            return None;
        }
        let mut others: Vec<u64> =
            counts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, (_, count))| *count).collect();
        others.sort_unstable();
        let median = others.get(others.len().saturating_sub(1) / 2).copied().unwrap_or(0);
        let told = match others.as_slice() {
            [] => String::new(),
            [one] => format!(" (the other port: {one})"),
            [least, .., most] => format!(" (the other {} ports: {least} to {most})", others.len()),
        };
        let is_unlike_others = count > median.saturating_add(usual) || (is_full && median < count / 2);
        let is_far = others.last().is_some_and(|most| count / FAR > *most);
        Some(Self { port, count, is_unlike_others, is_far, others: told })
    }

    /// Returns the severity. A card with the default route is used by the node, not by the jobs.
    fn severity(&self, row: &RdmaCounter) -> Severity {
        if carries_default_route(self.port) {
            Severity::Info
        } else if self.is_far {
            row.if_far
        } else {
            row.severity
        }
    }
}

/// Returns the groups of ports that are compared with each other: ports with the same link layer and distance to GPUs.
/// For a port that is not active, only the number of link failures counts.
fn groups(ports: &[NicPort], rule: Rule) -> Vec<Vec<&NicPort>> {
    let mut groups: BTreeMap<(&str, Option<u32>, bool), Vec<&NicPort>> = BTreeMap::new();
    for port in ports.iter().filter(|port| is_active(port) || rule.id == FLAPS.id) {
        let layer = port.link_layer.as_deref().unwrap_or_default();
        groups.entry((layer, distance(port), carries_default_route(port))).or_default().push(port);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    use super::*;

    const DAYS: u64 = 10;

    /// Returns the findings about four ports of one kind, whose counter `name` has these values.
    fn found(layer: &str, name: &str, counts: [u64; 4], default_route: bool) -> Vec<(&'static str, Severity, String)> {
        let ports: Vec<Value> = (0..4)
            .map(|at| {
                json!({"device": format!("rdma{at}"), "port": 1, "state": "ACTIVE", "link_layer": layer, "counters": {name: counts[at]},
                    "interface": {"name": format!("eth{at}"), "default_route": default_route}})
            })
            .collect();
        let report: Report = serde_json::from_value(json!({
            "schema_version": syringe_core::report::SCHEMA_VERSION,
            "sections": {"host": {"status": "ok", "data": {"uptime_seconds": DAYS * 86_400}},
                "topology": {"status": "ok", "data": {"gpus": [], "nics": ports}}}}))
        .expect("a report");
        let cluster = KubernetesFacts::default();
        let drafts = check(&Node::new(&report, &cluster)).into_iter();
        drafts.map(|draft| (draft.rule.id, draft.severity, draft.evidence.join("\n"))).collect()
    }

    /// Returns the rows of a rule, each with its usual number after [`DAYS`] days.
    #[expect(clippy::cast_precision_loss, reason = "a duration in days")]
    fn rows_of(rule: Rule) -> Vec<(&'static RdmaCounter, u64)> {
        let of = rdma_counters::all().iter().filter(|row| row.finding == rule.id);
        of.map(|row| (row, row.usual(DAYS as f64))).collect()
    }

    #[test]
    fn each_counter_of_lost_packets_and_of_efa_is_compared_with_the_other_ports() {
        for (rule, layer) in [(LOST, "Ethernet"), (EFA, "Unspecified")] {
            let rows = rows_of(rule);
            assert!(rows.len() >= 5, "{}", rule.id);
            for (row, usual) in rows {
                let high = usual.saturating_mul(2) + 10;
                let told = found(layer, row.name, [0, 0, high, 0], false);
                assert!(
                    matches!(&told[..], [(id, severity, text)] if *id == rule.id && *severity == row.if_far
                        && text.contains("rdma2") && text.contains(row.name) && !text.contains("rdma1")),
                    "{}: {told:?}",
                    row.name
                );
                assert_eq!(found(layer, row.name, [usual; 4], false), [], "{}: the usual number", row.name);
                assert_eq!(
                    found(layer, row.name, [0, 0, usual, 0], false),
                    [],
                    "{}: the usual number at one",
                    row.name
                );
                // If all ports have equal counts, the cause is in the network.
                let told = found(layer, row.name, [high; 4], false);
                assert!(matches!(&told[..], [(id, Severity::Info, _)] if *id == rule.id), "{}: {told:?}", row.name);
            }
        }
    }

    #[test]
    fn commands_that_an_efa_device_did_not_complete_are_a_warning_from_the_first_few() {
        let told = found("Unspecified", "no_completion_cmds", [0, 7, 0, 0], false);
        assert!(matches!(&told[..], [(id, Severity::Warning, _)] if *id == EFA.id), "{told:?}");
        let told = found("Unspecified", "rx_drops", [0, 1_000_000, 0, 0], false);
        assert!(matches!(&told[..], [(_, Severity::Info, _)]), "{told:?}");
    }

    #[test]
    fn packets_lost_on_the_way_are_a_warning_if_one_port_loses_far_more_than_each_other() {
        let told = found("Ethernet", "local_ack_timeout_err", [1, 0, 90_000, 3], false);
        assert!(matches!(&told[..], [(id, Severity::Warning, _)] if *id == LOST.id), "{told:?}");
        let told = found("Ethernet", "local_ack_timeout_err", [1, 0, 90_000, 1_200], false);
        assert!(matches!(&told[..], [(_, Severity::Info, _)]), "{told:?}");
    }

    #[test]
    fn the_card_of_the_node_itself_has_no_warning() {
        let told = found("Ethernet", "roce_slow_restart", [0, 90_000_000, 0, 0], true);
        assert!(matches!(&told[..], [(id, Severity::Info, _)] if *id == LOST.id), "{told:?}");
    }
}
