//! `outliers`: finds nodes that differ from most nodes of their GPU model, or are hotter. `groups`: the nodes by model.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::answer::fleet::{ModelGroup, Outlier};
use crate::answer::node_name_ranges::NodeNames;
use crate::fleet::node_row::NodeRow;

/// Minimum number of nodes of a model for a comparison.
const MIN_NODES: usize = 3;
/// Minimum difference between an outlier and the median of the hottest GPUs of all nodes.
const HOTTER_BY_CELSIUS: i32 = 15;
/// Minimum temperature of an outlier, because the other nodes may be idle.
const HOT_CELSIUS: i32 = 75;
/// Maximum number of bytes of the names in one outlier.
const NAMES_BYTES: usize = 240;

/// Returns the groups by model, largest first.
pub(crate) fn groups(rows: &[NodeRow]) -> Vec<ModelGroup> {
    let mut groups: Vec<_> = by_model(rows)
        .into_iter()
        .map(|(model, rows)| ModelGroup {
            model: model.to_owned(),
            gpus: rows.iter().map(|row| row.gpus).sum(),
            nodes: NodeNames::of(rows.iter().map(|row| row.node.as_str()), 600),
            common: traits(&rows)
                .into_iter()
                .filter_map(|name| Some((name, common(&rows, name)?.to_owned())))
                .collect(),
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes.count));
    groups
}

/// The differences that are listed first if several differences occur on the same nodes. They can be the cause of the
/// other differences.
const FIRST: [&str; 4] = ["gpus", "driver_version", "kernel", "operating_system"];

/// Returns the outliers with their nodes, fewest nodes first. Several differences on the same nodes are one outlier.
pub(crate) fn outliers(rows: &[NodeRow]) -> Vec<(Outlier, Vec<String>)> {
    let mut outliers = Vec::new();
    for (model, rows) in by_model(rows) {
        if rows.len() < MIN_NODES {
            continue;
        }
        for name in traits(&rows) {
            let Some(common) = common(&rows, name) else { continue };
            let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for row in &rows {
                if let Some(value) = row.traits.get(name).filter(|value| *value != common) {
                    others.entry(value).or_default().push(&row.node);
                }
            }
            outliers.extend(
                others
                    .into_iter()
                    .map(|(value, nodes)| outlier(name, value.to_owned(), common.to_owned(), model, &nodes)),
            );
        }
        outliers.extend(hot(model, &rows));
    }
    joined(outliers)
}

fn joined(mut outliers: Vec<(Outlier, Vec<String>)>) -> Vec<(Outlier, Vec<String>)> {
    outliers.sort_by_key(|(one, _)| FIRST.iter().position(|first| *first == one.what).unwrap_or(FIRST.len()));
    let mut of_nodes: BTreeMap<(String, Vec<String>), usize> = BTreeMap::new();
    let mut joined: Vec<(Outlier, Vec<String>)> = Vec::new();
    for (outlier, nodes) in outliers {
        match of_nodes.entry((outlier.model.clone(), nodes)) {
            Entry::Occupied(known) => joined[*known.get()].0.also.push(outlier.in_words()),
            Entry::Vacant(new) => {
                let nodes = new.key().1.clone();
                new.insert(joined.len());
                joined.push((outlier, nodes));
            }
        }
    }
    joined.sort_by_key(|(outlier, _)| outlier.nodes.count);
    joined
}

fn outlier(what: &'static str, value: String, common: String, model: &str, nodes: &[&str]) -> (Outlier, Vec<String>) {
    let names = NodeNames::of(nodes.iter().copied(), NAMES_BYTES);
    let outlier = Outlier { what, value, common, also: Vec::new(), model: model.to_owned(), nodes: names };
    (outlier, nodes.iter().map(|name| (*name).to_owned()).collect())
}

fn by_model(rows: &[NodeRow]) -> BTreeMap<&str, Vec<&NodeRow>> {
    let mut models: BTreeMap<&str, Vec<&NodeRow>> = BTreeMap::new();
    for row in rows {
        models.entry(&row.model).or_default().push(row);
    }
    models
}

fn traits(rows: &[&NodeRow]) -> std::collections::BTreeSet<&'static str> {
    rows.iter().flat_map(|row| row.traits.keys().copied()).collect()
}

/// Returns the value that more than half of the nodes have, or `None` if there is no such value.
fn common<'a>(rows: &[&'a NodeRow], name: &str) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        if let Some(value) = row.traits.get(name) {
            *counts.entry(value).or_default() += 1;
        }
    }
    let all: usize = counts.values().sum();
    let (value, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    (count * 2 > all).then_some(value)
}

fn hot(model: &str, rows: &[&NodeRow]) -> Option<(Outlier, Vec<String>)> {
    let mut all: Vec<i32> = rows.iter().filter_map(|row| row.hottest_celsius).collect();
    all.sort_unstable();
    let median = *all.get(all.len() / 2)?;
    let limit = HOT_CELSIUS.max(median + HOTTER_BY_CELSIUS);
    let hot: Vec<&&NodeRow> =
        rows.iter().filter(|row| row.hottest_celsius.is_some_and(|celsius| celsius >= limit)).collect();
    let hottest = hot.iter().filter_map(|row| row.hottest_celsius).max()?;
    let names: Vec<&str> = hot.iter().map(|row| row.node.as_str()).collect();
    Some(outlier("hottest_celsius", format!("up to {hottest}"), format!("median {median}"), model, &names))
}

#[cfg(test)]
mod tests {
    use diagnosis::finding::Verdict;

    use super::*;

    fn row(node: &str, gpus: usize, driver: &str, hottest: i32) -> NodeRow {
        NodeRow {
            node: node.into(),
            verdict: Verdict::Healthy,
            summary: String::new(),
            checked_only: Vec::new(),
            findings: Vec::new(),
            first_findings: Vec::new(),
            findings_omitted: 0,
            urgency: None,
            undecided: false,
            unknown: 0,
            score: None,
            gpus,
            model: "H100".into(),
            traits: [("gpus", gpus.to_string()), ("driver_version", driver.to_owned())].into(),
            hottest_celsius: Some(hottest),
            fabric: None,
            left_behind: None,
            passed_over: Vec::new(),
            took_ms: 1,
        }
    }

    #[test]
    fn a_node_with_seven_of_eight_gpus_and_an_old_driver_is_an_outlier() {
        let rows = [row("a", 8, "570", 60), row("b", 8, "570", 61), row("c", 7, "570", 62), row("d", 8, "550", 88)];
        let found = outliers(&rows);
        let values: Vec<_> = found
            .iter()
            .map(|(one, _)| (one.what, one.value.as_str(), one.common.as_str(), one.nodes.names.as_str()))
            .collect();
        assert!(values.contains(&("gpus", "7", "8", "c")));
        assert!(values.contains(&("driver_version", "550", "570", "d")));
        assert_eq!(values.len(), 2);
        let also: Vec<_> = found.iter().flat_map(|(one, _)| &one.also).collect();
        assert_eq!(also, ["hottest_celsius up to 88 (common: median 62)"]);
    }

    #[test]
    fn only_differences_of_exactly_the_same_nodes_are_joined() {
        let mut rows: Vec<NodeRow> = ["a", "b", "c", "d", "e"].map(|node| row(node, 8, "570", 60)).into();
        let mut set =
            |row: usize, name: &'static str, value: &str| drop(rows[row].traits.insert(name, value.to_owned()));
        (0..5).for_each(|row| set(row, "kernel", if row < 3 { "6.8" } else { "5.15" }));
        (3..5).for_each(|row| set(row, "driver_version", "550"));
        set(4, "cpus", "64");
        (0..4).for_each(|row| set(row, "cpus", "128"));
        let found = outliers(&rows);
        let lines: Vec<_> =
            found.iter().map(|(one, nodes)| (one.in_words(), one.also.clone(), nodes.join(" "))).collect();
        let kernel = vec!["kernel 5.15 (common: 6.8)".to_owned()];
        let expected = [
            ("cpus 64 (common: 128)".to_owned(), Vec::new(), "e".to_owned()),
            ("driver_version 550 (common: 570)".to_owned(), kernel, "d e".to_owned()),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn without_a_majority_there_is_no_usual_value() {
        let rows = [row("a", 8, "570", 60), row("b", 8, "550", 61), row("c", 8, "535", 62)];
        assert!(outliers(&rows).is_empty());
        assert_eq!(groups(&rows)[0].common.get("driver_version"), None);
    }
}
