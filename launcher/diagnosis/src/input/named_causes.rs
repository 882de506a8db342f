//! `with_named_causes`: adds events for Xids that the log names only as the cause of another Xid (`45, … caused by
//! previous Xid 95`).
//!
//! The line of the cause itself can be missing, because the kernel limits the rate of its messages and overwrites old
//! lines. In that case, its time is not known, but it is not later than the line that names the cause.

use std::borrow::Cow;

use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue;
use syringe_core::report::{Report, Section};

/// Returns the report with one event for each severe Xid that is mentioned only as a cause.
pub(crate) fn with_named_causes(report: &Report) -> Cow<'_, Report> {
    let events = Section::data_of(&report.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
    let mut named: Vec<KernelEvent> = Vec::new();
    for event in events {
        let Some(cause) = cause_of(event) else { continue };
        let is_same = |known: &KernelEvent| {
            known.is_xid(&[cause]) && known.pci_address == event.pci_address && known.boot_id == event.boot_id
        };
        let off_bus = |known: &KernelEvent| cause == 79 && known.is_off_bus() && known.boot_id == event.boot_id;
        if !events.iter().any(|known| is_same(known) || off_bus(known)) && !named.iter().any(is_same) {
            named.push(named_by(event, cause));
        }
    }
    if named.is_empty() {
        return Cow::Borrowed(report);
    }
    let mut report = report.clone();
    if let Some(log) = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()) {
        log.events.extend(named);
    }
    Cow::Owned(report)
}

/// Returns the code that a line names as its cause, if that code is a fault of the GPU.
fn cause_of(event: &KernelEvent) -> Option<u32> {
    let code = event.details.get("caused_by").filter(|_| event.kind == Kind::Xid)?.parse().ok()?;
    catalogue::xid(code).filter(|entry| entry.severity > Severity::Info && code != 154).map(|entry| entry.code)
}

fn named_by(event: &KernelEvent, cause: u32) -> KernelEvent {
    let by = event.code.map(|code| format!("Xid {code}")).unwrap_or_default();
    KernelEvent {
        code: Some(cause),
        sub_code: None,
        details: [("named_by".to_owned(), by)].into(),
        count: 1,
        pid: None,
        process: None,
        first: event.first.or(event.last),
        last: event.first.or(event.last),
        ..event.clone()
    }
}
