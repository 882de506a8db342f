//! Tests with sixty reports from public trackers: each fault is reproduced, and a tool must name the cause.
//!
//! `reports/reports.jsonl` contains the reports: symptom, cause and link. The other files of `reports/` contain the cases by
//! subject: a cluster with the fault, the tool call that a user would make first, and the cause that the answer must name.
//! `case::judge` derives the verdict of a case from the answer. With `INSTA_UPDATE=always`, the test writes the verdicts to
//! `docs/reports.md`; without it, the test fails if that table is not current.
#![allow(clippy::unwrap_used)]

#[path = "reports/basics.rs"]
mod basics;
#[path = "support/bed.rs"]
mod bed;
#[path = "reports/case.rs"]
mod case;
#[path = "reports/cluster.rs"]
mod cluster;
#[path = "reports/driver.rs"]
mod driver;
#[path = "reports/fabric.rs"]
mod fabric;
#[path = "reports/hardware.rs"]
mod hardware;
#[path = "reports/runtime.rs"]
mod runtime;
#[path = "reports/stack.rs"]
mod stack;
#[path = "reports/start.rs"]
mod start;
#[path = "support/mod.rs"]
mod support;
#[path = "reports/table.rs"]
mod table;
#[path = "reports/usage.rs"]
mod usage;

use futures_util::StreamExt;

use crate::case::{Case, Outcome, Verdict};

/// Minimum number of reports for which an answer must name the cause.
const NAMED_AT_LEAST: usize = 59;
/// Number of cases that run at the same time: each has its own cluster and launcher.
const AT_THE_SAME_TIME: usize = 4;

/// Returns all cases. The first case of a row is the call that a user would make first, and determines the row's verdict.
fn cases() -> Vec<Case> {
    let mut cases = [
        runtime::cases(),
        start::cases(),
        stack::cases(),
        driver::cases(),
        usage::cases(),
        basics::cases(),
        fabric::cases(),
        hardware::cases(),
    ]
    .concat();
    cases.sort_by_key(|case| case.row);
    cases
}

#[tokio::test]
async fn every_report_is_answered_as_the_table_says() {
    // `REPORTS=14,15 cargo test …` runs only these rows, prints the answers, and does not check the table.
    let only: Option<Vec<u32>> =
        std::env::var("REPORTS").ok().map(|rows| rows.split(',').map(|row| row.parse().unwrap()).collect());
    let cases = cases().into_iter().filter(|case| only.as_ref().is_none_or(|rows| rows.contains(&case.row)));
    let mut outcomes: Vec<Outcome> =
        futures_util::stream::iter(cases.map(Case::outcome)).buffered(AT_THE_SAME_TIME).collect().await;
    if only.is_some() {
        outcomes.iter().for_each(Outcome::print);
        return;
    }
    let mut complaints: Vec<String> = outcomes.iter_mut().flat_map(|outcome| outcome.complaints.drain(..)).collect();
    let rows = table::rows(&outcomes);
    let named = rows.iter().filter(|row| row.verdict == Verdict::Named).count();
    if named < NAMED_AT_LEAST {
        complaints.push(format!("the cause is named in {named} reports, fewer than {NAMED_AT_LEAST}"));
    }
    let wrong: Vec<u32> = rows.iter().filter(|row| row.verdict == Verdict::Wrong).map(|row| row.report.row).collect();
    if !wrong.is_empty() {
        complaints.push(format!("the answers to these reports are wrong: {wrong:?}"));
    }
    complaints.extend(table::stale(&rows));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_reports_are_sixty_in_their_order() {
    let numbers: Vec<u32> = table::reports().iter().map(|report| report.row).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    assert!(cases().iter().all(|case| numbers.contains(&case.row)));
}
