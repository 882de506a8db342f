//! `RdmaCounter`, `all`, `row_of`: the error counters of RDMA ports and their limits (`data/rdma_counters.tsv`).
//!
//! A counter counts since the driver of the card was loaded or the counter was cleared, so a total alone is not a
//! fault. Each row has the number of events that is normal for the time since boot.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::classification::Severity;
use crate::tsv::{rows, word};

/// The folder of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Folder {
    /// `ports/N/counters` of the RDMA device.
    Counters,
    /// `ports/N/hw_counters` of the RDMA device.
    HwCounters,
    /// `hw_counters` of an EFA device or of its port, depending on the kernel.
    Efa,
    /// `statistics` of the network interface.
    Statistics,
    /// The folder of the network interface.
    Interface,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct RdmaCounter {
    pub name: &'static str,
    pub folder: Folder,
    /// Id of the rule that reports the counter.
    pub finding: &'static str,
    pub severity: Severity,
    /// The severity if one port counts far more than every other port.
    pub if_far: Severity,
    /// Minimum count of a fault.
    pub at_least: u64,
    /// Maximum number of events per day that is not a fault.
    pub per_day: f64,
    /// The largest value that the counter can have.
    pub full: Option<u64>,
    pub meaning: &'static str,
    pub source: &'static str,
}

static ROWS: LazyLock<Vec<RdmaCounter>> =
    LazyLock::new(|| rows(include_str!("data/rdma_counters.tsv")).filter_map(|row| counter(&row)).collect());

/// Returns all rows.
pub fn all() -> &'static [RdmaCounter] {
    &ROWS
}

/// Returns the row of a counter.
pub fn row_of(name: &str) -> Option<&'static RdmaCounter> {
    ROWS.iter().find(|row| row.name == name)
}

fn counter(row: &[&'static str]) -> Option<RdmaCounter> {
    let &[name, folder, finding, severity, if_far, at_least, per_day, full, meaning, source] = row else { return None };
    Some(RdmaCounter {
        name,
        folder: word(folder)?,
        finding,
        severity: word(severity)?,
        if_far: word(if_far)?,
        at_least: at_least.parse().ok()?,
        per_day: per_day.parse().ok()?,
        full: full.parse().ok(),
        meaning,
        source,
    })
}

impl RdmaCounter {
    /// Returns the largest number that is not a fault after this number of days.
    pub fn usual(&self, days: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a limit, rounded down")]
        let by_days = (self.per_day * days.max(1.0)) as u64;
        by_days.max(self.at_least.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_once_and_has_a_source() {
        let text = rows(include_str!("data/rdma_counters.tsv")).count();
        assert_eq!(all().len(), text, "a row is not valid");
        for row in all() {
            assert!(row.source.starts_with("https://") && !row.meaning.is_empty() && row.at_least > 0, "{row:?}");
            assert_eq!(all().iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
            assert!(row.full.is_none_or(|full| full >= row.at_least), "{row:?}");
        }
    }

    #[test]
    fn symbol_errors_are_judged_at_the_rate_of_their_source() {
        let row = row_of("symbol_error").expect("a row");
        assert_eq!((row.usual(0.1), row.usual(10.0)), (2880, 28_800), "120 an hour, and a day at least");
    }
}
