//! Tests of the diagnosis of a log that is limited to a time window (`--since`).

use diagnosis::finding::Verdict;
use jiff::SignedDuration;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::kernel_log as xid;
use syringe_core::report::{Report, Sections};

use super::facts::{has, judged};
use super::{scenarios, told};

fn narrowed(report: &Report, back: SignedDuration) -> Report {
    let mut part = Report {
        kernel_log: Vec::new(),
        sections: Sections { xid: report.sections.xid.clone(), ..Sections::default() },
        ..report.clone()
    };
    let since = part.taken_at.expect("a time") - back;
    let log: &mut KernelLog = part.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log");
    xid::drop_events_before(log, since);
    part
}

#[test]
fn a_window_removes_events_but_no_states() {
    let (lost, _) = scenarios().remove("xid79-off-bus").expect("it");
    let diagnosis = judged(&narrowed(&lost, SignedDuration::from_mins(5)));
    assert_eq!(diagnosis.verdict, Verdict::Fatal, "{}", told(&diagnosis));
    assert!(has(&diagnosis, "gpu-off-bus"));
    let (pending, _) = scenarios().remove("ecc-remap-pending").expect("it");
    assert!(judged(&narrowed(&pending, SignedDuration::from_mins(5))).verdict >= Verdict::Critical);
}

#[test]
fn texts_are_about_the_requested_window() {
    let (report, _) = scenarios().remove("application-lone-faults").expect("it");
    let part = narrowed(&report, SignedDuration::from_mins(1));
    let diagnosis = judged(&part);
    let since = (part.taken_at.expect("a time") - SignedDuration::from_mins(1)).to_string();
    assert_eq!(diagnosis.verdict, Verdict::NoFaultFound, "{}", told(&diagnosis));
    assert!(
        diagnosis.summary.contains(&format!("no Xid since {since}").replace("no Xid", "No Xid")),
        "{}",
        diagnosis.summary
    );
    assert!(
        diagnosis
            .kernel_log
            .iter()
            .all(|log| log.from.is_none_or(|from| from.to_string() >= since) || log.from == log.to)
    );
    assert!(!diagnosis.findings.iter().any(|one| one.id == "application-fault"), "{}", told(&diagnosis));
    assert!(diagnosis.not_checked.iter().any(|limit| limit.contains("before it omitted")), "{}", told(&diagnosis));
    let log = part.sections.xid.and_then(|section| section.data).expect("a log");
    assert!(log.events_before > 0);
}
