//! `spread_faults`: finds the first faults in an NVLink fabric of several nodes, and the nodes that each fault
//! affected. `FabricNode`: the facts of one node. `SpreadFault`: a fault with the affected nodes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::Severity;
use syringe_core::report::{Report, Section};

use crate::chain::{CLOCKS, Event, FOLLOWS, Origin, echoes, first_faults, in_words};
use crate::evidence;

/// Maximum age of the events that are compared. Older events no longer matter.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of events that are kept for one node. The newest are kept.
const MAX_EVENTS: usize = 8;

/// The facts of one node that `spread_faults` needs. They are few, because a survey keeps them for every node.
#[derive(Clone, Debug, PartialEq)]
pub struct FabricNode {
    /// Cluster UUID and clique: nodes with the same value share a fabric.
    fabric: Box<str>,
    events: Vec<Event>,
    /// Start of the period whose events are all known.
    log_from: Option<Timestamp>,
}

/// A fault of one node that caused events (echoes) on other nodes of its fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadFault<'a> {
    /// The node with the first fault.
    pub node: &'a str,
    /// Severity of the fault.
    pub severity: Severity,
    /// Text for the fault: `GPU 0, Xid 149 at 2026-11-21T02:35:10Z`.
    pub fault: String,
    /// Texts for the echoes: `Xid 145 on 21 other nodes`.
    pub echoes: Vec<String>,
    /// The nodes with echoes.
    pub victims: Vec<&'a str>,
    /// Nodes with a fault of their own at about the same time. The first fault does not explain these faults.
    pub own_faults: Vec<&'a str>,
    /// Whether the fault of one of these nodes may be the first, because the difference in time is within the
    /// difference between clocks.
    pub is_order_unsure: bool,
    /// Nodes of the fabric whose log begins after the fault or was not read. Earlier faults on these nodes are not
    /// known.
    pub log_begins_later: Vec<&'a str>,
}

impl FabricNode {
    /// Returns the facts of a node. `label`: the value of its label `nvidia.com/gpu.clique`. The label is needed
    /// because a GPU that lost its registration does not report its fabric.
    pub fn of(report: &Report, label: Option<&str>) -> Option<Self> {
        let topology = Section::data_of(&report.sections.topology);
        let fabrics = topology.iter().flat_map(|all| &all.gpus).filter_map(|gpu| gpu.fabric.as_ref());
        let registered =
            fabrics.into_iter().find_map(|one| Some(format!("{}.{}", one.cluster_uuid.as_ref()?, one.clique_id?)));
        let fabric = registered.or_else(|| label.map(str::to_owned))?.to_ascii_lowercase().into_boxed_str();
        let log = Section::data_of(&report.sections.xid);
        let oldest = report.taken_at.map(|at| at - WINDOW);
        let mut events = Vec::new();
        for event in log.iter().flat_map(|log| &log.events) {
            let times = event.occurred_at().into_iter().filter(|at| oldest.is_none_or(|oldest| *at >= oldest));
            let read = times.filter_map(|at| Event::of(event, at));
            events.extend(read.filter(|one| one.severity >= Severity::Critical || one.origin() == Origin::Echo));
        }
        events.sort_by(|one: &Event, other| (one.at, &one.name).cmp(&(other.at, &other.name)));
        events.dedup_by(|next, one| next.name == one.name && next.at <= one.at + CLOCKS);
        events.drain(..events.len().saturating_sub(MAX_EVENTS));
        events.shrink_to_fit();
        let begins = log.iter().flat_map(|log| &log.coverage).filter_map(|log| log.from).min();
        let since = log.and_then(|log| log.since);
        Some(Self { fabric, events, log_from: begins.map(|begins| since.map_or(begins, |since| begins.max(since))) })
    }
}

/// Returns the faults that affected other nodes of their fabric, oldest first. Each node is listed at most once.
pub fn spread_faults<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a FabricNode)>) -> Vec<SpreadFault<'a>> {
    let mut fabrics: BTreeMap<&str, Vec<(&str, &FabricNode)>> = BTreeMap::new();
    for (name, node) in nodes {
        fabrics.entry(&node.fabric).or_default().push((name, node));
    }
    fabrics.into_values().filter(|nodes| nodes.len() > 1).flat_map(|nodes| of_fabric(&nodes)).collect()
}

fn of_fabric<'a>(nodes: &[(&'a str, &'a FabricNode)]) -> Vec<SpreadFault<'a>> {
    let events: Vec<(usize, &Event)> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, (_, node))| node.events.iter().map(move |one| (index, one)))
        .collect();
    let first = first_faults(&events);
    let names = |of: &BTreeSet<usize>| -> Vec<&'a str> { of.iter().map(|index| nodes[*index].0).collect() };
    let mut found: Vec<SpreadFault<'a>> = Vec::new();
    for (number, (origin, fault)) in first.iter().enumerate() {
        let end = fault.at + FOLLOWS;
        let until = first.get(number + 1).map_or(end, |(_, next)| next.at.min(end));
        let is_own = |event: &Event| {
            let near = event.at <= fault.at + CLOCKS && event.at >= fault.at - CLOCKS;
            event.severity >= Severity::Critical && event.origin() >= if near { fault.origin() } else { Origin::Own }
        };
        // A program that failed before the fault has another reason for its failure.
        let can_follow = |event: &Event| event.is_of_fabric() || event.at >= fault.at - CLOCKS;
        let elsewhere = || events.iter().copied().filter(|(index, _)| index != origin);
        let own: Vec<_> = elsewhere()
            .filter(|(_, event)| is_own(event) && event.at >= fault.at - CLOCKS && event.at <= end)
            .collect();
        let reached = elsewhere().filter(|(_, event)| !is_own(event) && can_follow(event));
        let of_fabric = fault.is_of_fabric() || reached.clone().any(|(_, event)| event.is_of_fabric());
        let echoes = echoes(reached, fault, Some(until));
        let is_known = found.iter().any(|one| one.node == nodes[*origin].0);
        if fault.origin() == Origin::Echo || !of_fabric || echoes.is_empty() || is_known {
            continue;
        }
        let late = |(_, node): &(&str, &FabricNode)| node.log_from.is_none_or(|from| from > fault.at);
        let late: BTreeSet<usize> = (0..nodes.len()).filter(|index| index != origin && late(&nodes[*index])).collect();
        let place = if fault.place.is_empty() { String::new() } else { format!("{}, ", fault.place) };
        found.push(SpreadFault {
            node: nodes[*origin].0,
            severity: fault.severity,
            fault: format!("{place}{} at {}", fault.name, evidence::time(fault.at)),
            echoes: in_words(&echoes, "other node"),
            victims: names(&echoes.into_values().flatten().collect()),
            is_order_unsure: own.iter().any(|(_, event)| event.at <= fault.at + CLOCKS),
            own_faults: names(&own.into_iter().map(|(index, _)| index).collect()),
            log_begins_later: names(&late),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FATAL: (Severity, &str) = (Severity::Fatal, "GPU 0");

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    /// Creates a node with Xids at these seconds. Xid 31 and 45 have the severity `info`.
    fn node(fabric: &str, log_from: i64, xids: &[(i64, u32)]) -> FabricNode {
        let event = |(second, code): &(i64, u32)| Event {
            at: at(*second),
            code: Some(*code),
            severity: if [31, 45].contains(code) { Severity::Info } else { FATAL.0 },
            place: FATAL.1.to_owned(),
            name: format!("Xid {code}"),
            line: String::new(),
        };
        FabricNode { fabric: fabric.into(), events: xids.iter().map(event).collect(), log_from: Some(at(log_from)) }
    }

    const LONG_AGO: i64 = -1_000_000;

    /// Returns the node of each fault with three lists: its victims, the nodes with own faults, and the nodes with a
    /// short log.
    fn spread(nodes: &[FabricNode]) -> Vec<(usize, [Vec<usize>; 3], bool)> {
        let names: Vec<String> = (0..nodes.len()).map(|index| index.to_string()).collect();
        let number = |name: &&str| name.parse::<usize>().expect("a number");
        let numbers = |names: &[&str]| names.iter().map(number).collect::<Vec<_>>();
        let found = spread_faults(names.iter().map(String::as_str).zip(nodes));
        let one = |fault: SpreadFault<'_>| {
            let lists = [&fault.victims, &fault.own_faults, &fault.log_begins_later].map(|names| numbers(names));
            (number(&fault.node), lists, fault.is_order_unsure)
        };
        found.into_iter().map(one).collect()
    }

    #[test]
    fn the_first_link_fault_is_named_whatever_the_clocks_say_about_its_echoes() {
        // The clocks of the nodes with echoes differ from the clock of the first node by seconds or minutes.
        for skew in [-120, -4, 0, 3, 200] {
            let mut nodes = vec![node("a.1", LONG_AGO, &[(0, 149), (2, 145)])];
            nodes.extend((1..20).map(|_| node("a.1", LONG_AGO, &[(skew, 145)])));
            nodes.push(node("a.1", LONG_AGO, &[]));
            assert_eq!(spread(&nodes), [(0, [(1..20).collect(), vec![], vec![]], false)], "{skew}");
        }
        for skew in [-4, 0, 3] {
            // Both ends of a link report Xid 74.
            let nodes = [node("a.1", LONG_AGO, &[(0, 149)]), node("a.1", LONG_AGO, &[(skew, 74)])];
            assert_eq!(spread(&nodes), [(0, [vec![1], vec![], vec![]], false)], "{skew}");
        }
        let late_31 = [node("a.1", LONG_AGO, &[(0, 149)]), node("a.1", LONG_AGO, &[(4, 31), (5, 45)])];
        assert_eq!(spread(&late_31), [(0, [vec![1], vec![], vec![]], false)]);
    }

    #[test]
    fn events_of_other_fabrics_of_other_hours_and_of_programs_name_no_node() {
        let first = || node("a.1", LONG_AGO, &[(0, 149)]);
        let none: [&[FabricNode]; 8] = [
            &[first()],
            &[first(), node("a.1", LONG_AGO, &[])],
            &[first(), node("a.2", LONG_AGO, &[(2, 145)])],
            &[first(), node("b.1", LONG_AGO, &[(2, 145)])],
            &[first(), node("a.1", LONG_AGO, &[(7200, 145)])],
            &[first(), node("a.1", LONG_AGO, &[(-60, 31)])],
            &[node("a.1", LONG_AGO, &[(0, 145)]), node("a.1", LONG_AGO, &[(1, 145)])],
            &[node("a.1", LONG_AGO, &[(0, 79)]), node("a.1", LONG_AGO, &[(1, 31)])],
        ];
        for nodes in none {
            assert_eq!(spread(nodes), [], "{nodes:?}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let first = || node("a.1", LONG_AGO, &[(0, 149)]);
        let short = [first(), node("a.1", LONG_AGO, &[(2, 145)]), node("a.1", 1, &[(2, 145)])];
        assert_eq!(spread(&short), [(0, [vec![1, 2], vec![], vec![2]], false)]);
        let same_time = [first(), node("a.1", LONG_AGO, &[(3, 149)]), node("a.1", LONG_AGO, &[(2, 145)])];
        assert_eq!(spread(&same_time), [(0, [vec![2], vec![1], vec![]], true)]);
        let own = [first(), node("a.1", LONG_AGO, &[(300, 149)]), node("a.1", LONG_AGO, &[(2, 145)])];
        assert_eq!(spread(&own), [(0, [vec![2], vec![1], vec![]], false)]);
        let off_bus = [node("a.1", LONG_AGO, &[(0, 79)]), node("a.1", LONG_AGO, &[(1, 145)])];
        assert_eq!(spread(&off_bus), [(0, [vec![1], vec![], vec![]], false)]);
    }

    #[test]
    fn two_faults_hours_apart_are_two_groups_and_a_fault_that_repeats_is_one() {
        let nodes = [
            node("a.1", LONG_AGO, &[(0, 149), (1800, 149)]),
            node("a.1", LONG_AGO, &[(1, 145), (1801, 145), (36_001, 145)]),
            node("a.1", LONG_AGO, &[(36_000, 149)]),
        ];
        let found = spread(&nodes);
        assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), [0, 2], "{found:?}");
    }
}
