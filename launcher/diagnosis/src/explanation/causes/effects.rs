//! `ends_programs`, `stops_starts`: whether the fault of a finding ends programs (`Effect`), or stops pods from
//! starting. `is_elsewhere`: whether a finding is about another part of the node than its GPUs.

use std::sync::LazyLock;

use serde::Deserialize;
use syringe_core::tsv::{rows, word};

use crate::finding::Finding;

/// Effect of a finding on pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// Programs on the GPU, or on all GPUs of the node, end or hang, and new programs fail.
    Ends,
    /// Containers do not start or get no GPU. A program that already has its GPU continues to run.
    Starts,
    /// The finding is about another part of the node, and no GPU is at fault.
    Elsewhere,
}

/// One row: the id of a rule or a prefix of ids, the effect, and the mechanism.
struct Row {
    id: &'static str,
    effect: Effect,
    mechanism: &'static str,
}

static TABLE: LazyLock<Vec<Row>> =
    LazyLock::new(|| rows(include_str!("../../data/effects.tsv")).filter_map(row).collect());

fn row(fields: Vec<&'static str>) -> Option<Row> {
    let [id, effect, mechanism] = fields[..] else { return None };
    Some(Row { id, effect: word(effect)?, mechanism })
}

impl Row {
    fn is_about(&self, id: &str) -> bool {
        self.id.strip_suffix('*').map_or(id == self.id, |start| id.starts_with(start))
    }
}

/// Returns how the fault of a finding ends programs. `None` if the fault does not end programs.
pub(crate) fn ends_programs(finding: &Finding) -> Option<&'static str> {
    of(finding).filter(|row| row.effect == Effect::Ends && !finding.work_continues).map(|row| row.mechanism)
}

/// Returns whether a finding is about the advertising of GPUs or the start of containers.
pub(crate) fn stops_starts(finding: &Finding) -> bool {
    of(finding).is_some_and(|row| row.effect == Effect::Starts)
}

/// Returns whether a finding is about another part of the node than its GPUs.
pub(crate) fn is_elsewhere(finding: &Finding) -> bool {
    of(finding).is_some_and(|row| row.effect == Effect::Elsewhere)
}

fn of(finding: &Finding) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.is_about(&finding.id))
}

#[cfg(test)]
mod tests {
    use super::{TABLE, ends_programs, rows, stops_starts};
    use crate::catalogue_of_rules;
    use crate::finding::Finding;

    #[test]
    fn every_row_is_read_and_is_about_a_rule() {
        assert_eq!(TABLE.len(), rows(include_str!("../../data/effects.tsv")).count(), "a row has an error");
        for row in TABLE.iter() {
            assert!(catalogue_of_rules().iter().any(|rule| row.is_about(rule.id)), "{}", row.id);
            assert!(!row.mechanism.is_empty(), "{}", row.id);
        }
    }

    #[test]
    fn slow_hot_and_pending_gpus_end_no_program() {
        for id in [
            "pcie-width-degraded",
            "thermal-slowdown-hardware",
            "gpu-too-hot",
            "power-brake",
            "inforom-corrupted",
            "row-remap-pending",
            "retired-pages-pending",
            "recovery-gpu-reset",
        ] {
            assert!(catalogue_of_rules().iter().any(|rule| rule.id == id), "{id}");
            let finding = Finding { id: id.into(), ..Finding::default() };
            assert!(ends_programs(&finding).is_none() && !stops_starts(&finding), "{id}");
        }
    }
}
