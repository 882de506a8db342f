//! `drop_events_before`: drops events before a time window, except events that describe a lasting state.

use jiff::Timestamp;

use crate::classification::{Class, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use crate::kernel_log::catalogue;
use crate::kernel_log::catalogue::Ageing;
use crate::kernel_log::host_lines;
use crate::kernel_log::host_lines::Lasts;

/// Reduces a log to the window that begins at `time`.
///
/// Events that ended before the window are removed and counted. Events of the running boot that describe the state of a
/// GPU until a reset (`is_state`) are kept. Driver loads, which end such a state, and events without a time are also kept.
/// An event that continues into the window keeps its count and its `first`.
pub fn drop_events_before(log: &mut KernelLog, time: Timestamp) {
    let all = log.events.len();
    log.events.retain(|event| event.last.is_none_or(|last| last >= time) || is_state(event));
    let left_out = u64::try_from(all - log.events.len()).unwrap_or(u64::MAX);
    log.events_before = log.events_before.saturating_add(left_out);
    log.since = log.since.max(Some(time));
    for coverage in &mut log.coverage {
        // A log that ended before the window does not cover it.
        let latest = coverage.to.map_or(time, |to| to.min(time));
        if coverage.from.is_some_and(|from| from < latest) {
            coverage.from = Some(latest);
            coverage.complete_since_boot = coverage.complete_since_boot.map(|_| false);
        }
    }
}

/// Xids with a severity below critical that describe a state until a reset, or that announce such a state.
const WAITS_FOR_RESET: [u32; 2] = [63, 154];

/// Returns whether an event describes a state that lasts until a reset, a driver load or a reboot.
fn is_state(event: &KernelEvent) -> bool {
    use KernelEventKind as Kind;
    let grave = event.code.is_some_and(|code| match event.kind {
        Kind::Xid => {
            WAITS_FOR_RESET.contains(&code)
                || catalogue::xid(code).is_some_and(|entry| {
                    entry.severity >= Severity::Critical && entry.class != Some(Class::Application)
                        || entry.ageing >= Ageing::Never
                })
        }
        Kind::Sxid => event.details.get("nv_severity").is_some_and(|word| word == "Fatal"),
        _ => false,
    });
    let of_driver = event.kind == Kind::Uvm && event.sub_code.as_deref() == Some("fatal");
    let of_host = host_lines::row_of(event).is_some_and(|row| row.lasts == Lasts::UntilBoot);
    // A damaged memory module stays in the node.
    let of_module =
        event.kind == Kind::Mce && event.sub_code.as_deref().is_some_and(|sub| sub.starts_with("memory_uncorrected"));
    let lasting = matches!(
        event.kind,
        Kind::OffBus
            | Kind::RmInitFailed
            | Kind::GspFailed
            | Kind::GspRateLimit
            | Kind::DriverLoaded
            | Kind::ModuleRefused
            | Kind::NvlinkInitFailed
            | Kind::HungTask
            | Kind::ProbeFailed
            | Kind::BarUnassigned
            | Kind::NotSupported
    );
    let permanent = event.code.filter(|_| event.kind == Kind::Xid).and_then(catalogue::xid);
    let permanent = permanent.is_some_and(|entry| entry.ageing == Ageing::Permanent);
    let lasts = grave || lasting || of_driver || of_host || of_module || is_state_of_bus(event);
    permanent || event.boot_id.is_none() && lasts
}

/// Returns whether a PCIe line describes a fault of a port: until the link is restored, no device below the port
/// responds.
fn is_state_of_bus(event: &KernelEvent) -> bool {
    let sub_code = event.sub_code.as_deref().unwrap_or_default();
    match event.kind {
        KernelEventKind::PcieLink => {
            matches!(sub_code, "link_down" | "card_not_present" | "power_fault" | "power_state")
        }
        KernelEventKind::Aer => matches!(sub_code, "uncorrected_fatal" | "cannot_recover" | "recovery_failed"),
        _ => false,
    }
}
