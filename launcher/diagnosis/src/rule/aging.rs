//! `of`, `severity`, `repeated`, `worst`: the meaning of kernel events in the Xid catalogue.
//! `Draft::with_meaning`: applies it. `Draft::aged`, `Draft::aged_on_node`: lower the severity of old events.
//!
//! The catalogue (`src/kernel_log/data`) defines which codes can recover. For each family of faults, it also defines
//! the evidence that the GPU works again: see [`Node::recovery`].

use crate::evidence;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::recovery::{Recovered, Recovery, asks_for_reset};
use crate::rule::Draft;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue::Ageing;
use syringe_core::kernel_log::event_meaning;
pub(crate) use syringe_core::kernel_log::event_meaning::EventMeaning;

/// Meaning of codes that are newer than the catalogue.
const UNKNOWN: EventMeaning = EventMeaning {
    severity: Severity::Warning,
    action: ActionCode::Watch,
    ageing: Ageing::AfterADay,
    advice: "Look up the code in NVIDIA's catalogue: the code is newer than this tool",
};

/// Returns the meaning of a new event.
pub(crate) fn of(event: &KernelEvent) -> EventMeaning {
    event_meaning::of(event).unwrap_or(EventMeaning { ageing: without_code(event.kind), ..UNKNOWN })
}

/// Returns how a log line without a code ages. A driver line about a GPU counts until the GPU works again. A line about
/// another component counts for a limited time.
fn without_code(kind: Kind) -> Ageing {
    match kind {
        Kind::OffBus | Kind::GspFailed | Kind::GspRateLimit | Kind::ProbeFailed => Ageing::WhenWorking,
        _ => Ageing::AfterADay,
    }
}

/// Returns the meaning of a repeated event if its severity is warning. Otherwise, returns the meaning of a single
/// event.
pub(crate) fn repeated(event: &KernelEvent) -> EventMeaning {
    let single = of(event);
    let several = of(&KernelEvent { count: event.count.max(2), ..event.clone() });
    if several.severity == Severity::Warning { several } else { single }
}

/// Returns the severity of a new event.
pub(crate) fn severity(event: &KernelEvent) -> Severity {
    of(event).severity
}

/// Returns the meaning with the highest severity. If several have this severity, returns the meaning that counts
/// for the longest time.
pub(crate) fn worst(events: &[&KernelEvent]) -> EventMeaning {
    events.iter().map(|event| of(event)).max_by_key(|meaning| (meaning.severity, meaning.ageing)).unwrap_or(UNKNOWN)
}

impl Draft {
    /// Sets the severity and the action from the catalogue.
    pub(crate) fn with_meaning(self, meaning: &EventMeaning) -> Self {
        let advice = format!("{{gpu}} of {{node}}: {}.", evidence::uncapitalized(meaning.advice));
        self.with_severity(meaning.severity).with_action(meaning.action, advice)
    }

    /// Lowers the severity of old events. `works`: false if other facts show that the fault is not over.
    pub(crate) fn aged(self, node: &Node<'_>, gpu: &Gpu, events: &[&KernelEvent], works: bool) -> Self {
        let recovery = || if works { node.recovery(gpu, events) } else { Recovery::Current };
        match age(node, events, recovery) {
            Age::Past => self.with_severity(Severity::Info),
            Age::Of(Recovery::Current) => self.unless_unread(node, events),
            Age::Of(recovery) => self.unless_recovered(recovery, node.booted().is_some()),
        }
    }

    /// If the sections that show whether a GPU works were not requested, adds that a reading of all sections may lower
    /// the severity. For events more than a day old, such a reading usually lowers the severity, so these events are
    /// only warnings.
    pub(crate) fn unless_unread(self, node: &Node<'_>, events: &[&KernelEvent]) -> Self {
        let waits = matches!(worst(events).ageing, Ageing::WhenWorking | Ageing::WhenWorkingADay);
        if !waits || self.severity <= Severity::Warning || node.shows_recovery() {
            return self;
        }
        let unread = "it is not known whether the GPU works: diagnose_gpu_node reads this and may lower the severity";
        let newest = events.iter().filter_map(|event| event.last).max();
        let draft = self.with_evidence(unread);
        match node.age(newest).is_some_and(|age| age > STALE_AFTER) {
            true => draft.with_severity(Severity::Warning).with_action(
                ActionCode::Watch,
                "Call diagnose_gpu_node for {node} before you act: the event is more than a day old, and only that tool reads \
                 whether {gpu} works again.",
            ),
            false => draft,
        }
    }

    /// Lowers the severity of old events that name no GPU.
    pub(crate) fn aged_on_node(self, node: &Node<'_>, events: &[&KernelEvent]) -> Self {
        // If all GPUs work again, the result depends only on the age of the event, so the result for any GPU can be
        // used.
        let all = || {
            let recovered: Option<Recovered> =
                node.listed().map(|gpu| node.recovered(gpu, events)).reduce(Option::and).flatten();
            Recovery::from(recovered)
        };
        match age(node, events, all) {
            Age::Past => self.with_severity(Severity::Info),
            Age::Of(Recovery::Shown(recovered)) => {
                let severity = if recovered.long_ago { Severity::Info } else { Severity::Warning };
                self.with_severity(severity).with_evidence("all GPUs of the node work now").with_action(
                    ActionCode::Watch,
                    "No action now: all GPUs of {node} work. Watch whether the kernel logs the event again.",
                )
            }
            Age::Of(Recovery::Current | Recovery::Unproven { .. }) => self,
        }
    }
}

/// Effect of the time since an event on its finding.
enum Age {
    /// The event no longer counts.
    Past,
    Of(Recovery),
}

fn age(node: &Node<'_>, events: &[&KernelEvent], recovery: impl Fn() -> Recovery) -> Age {
    let newest = events.iter().filter_map(|event| event.ordered_at()).max();
    let old = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    match worst(events).ageing {
        Ageing::AfterADay if old => Age::Past,
        Ageing::WhenWorking => Age::Of(recovery()),
        Ageing::WhenWorkingADay if old => Age::Of(recovery()),
        // For a fault that needs no repair, the only evidence of recovery would be that the GPU responds.
        Ageing::WhenWorkingADay if events.iter().any(|event| asks_for_reset(event)) => match recovery() {
            shown @ Recovery::Shown(_) => Age::Of(shown),
            Recovery::Current | Recovery::Unproven { .. } => Age::Of(Recovery::Current),
        },
        Ageing::WhenWorkingADay | Ageing::AfterADay | Ageing::Never | Ageing::Permanent => Age::Of(Recovery::Current),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnose;
    use crate::finding::Finding;
    use syringe_core::classification::{ActionCode, Severity};
    use syringe_core::facts::kernel_log::KernelEvent;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    /// Returns the findings of a node with one working GPU that had this Xid `minutes` ago. `None` as
    /// `recovery_action`: the driver does not support that call.
    fn findings(code: u32, details: Value, minutes: i64, recovery_action: Option<&str>) -> Vec<Finding> {
        let when = ago(minutes);
        let event = json!({"kind": "xid", "code": code, "pci_address": "00000000:5d:00.0", "count": 1,
            "first": when, "last": when, "details": details});
        of_event(event, recovery_action, false)
    }

    /// Returns the findings of a node with two working GPUs and this event in its log. `at_work`: a program that
    /// started ten minutes ago is running on both GPUs.
    fn of_event(event: Value, recovery_action: Option<&str>, at_work: bool) -> Vec<Finding> {
        let now = NOW;
        let of = |more: Value| {
            let gpu = |index: u32, place: &str| {
                let mut gpu = json!({"index": index, "uuid": format!("GPU-{index}"), "pci_address": place});
                gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
                gpu
            };
            json!({"status": "ok", "data": {"gpus": [gpu(0, "00000000:5d:00.0"), gpu(1, "00000000:9a:00.0")]}})
        };
        let log = json!({"events": [event]});
        let program = json!({"pid": 7, "name": "python3", "started_at": ago(10), "uses": [{"gpu": 0}, {"gpu": 1}]});
        let programs = if at_work { vec![program] } else { Vec::new() };
        let report: Report = serde_json::from_value(json!({"taken_at": now, "sections": {
            "inventory": of(json!({})), "telemetry": of(json!({"temperature": {"gpu_celsius": 40}})),
            "ecc": of(json!({"recovery_action": recovery_action, "volatile": {"uncorrected": 0}})),
            "processes": {"status": "ok", "data": {"host_pid_namespace": true, "processes": programs}},
            "xid": {"status": "ok", "data": log}}}))
        .expect("a report");
        diagnose(&report, &KubernetesFacts::default()).findings
    }

    const DAYS: i64 = 24 * 60;
    const NOW: &str = "2026-11-21T02:45:10Z";

    fn ago(minutes: i64) -> String {
        let now: jiff::Timestamp = NOW.parse().expect("a time");
        (now - jiff::SignedDuration::from_mins(minutes)).to_string()
    }

    fn worst_of(found: &[Finding]) -> Severity {
        found.iter().map(|finding| finding.severity).max().unwrap_or_default()
    }

    #[test]
    fn faults_of_the_bus_and_of_a_switch_age_if_the_gpus_are_at_work() {
        for event in [
            json!({"kind": "aer", "sub_code": "uncorrected_fatal", "pci_address": "00000000:5d:00.0"}),
            json!({"kind": "sxid", "code": 20034, "pci_address": "00000000:05:00.0"}),
            json!({"kind": "sxid", "code": 10004, "pci_address": "00000000:05:00.0",
                "details": {"nv_severity": "Non-fatal"}}),
        ] {
            let at = |minutes, at_work| {
                let mut event = event.clone();
                event["first"] = ago(minutes).into();
                event["last"] = ago(minutes).into();
                worst_of(&of_event(event, Some("none"), at_work))
            };
            assert!(at(60, true) >= Severity::Critical, "{event}");
            assert_eq!(at(6 * DAYS, true), Severity::Info, "{event}");
            let fatal_of_switch = event["code"] == 20034;
            let idle = if fatal_of_switch { Severity::Warning } else { Severity::Info };
            assert_eq!(at(60 * DAYS, false), idle, "{event}: no reset and no work since then");
        }
    }

    fn worst(code: u32, details: Value, minutes: i64, recovery_action: Option<&str>) -> Severity {
        worst_of(&findings(code, details, minutes, recovery_action))
    }

    #[test]
    fn recovered_means_the_same_with_every_driver() {
        for code in [119, 95, 48, 109, 62, 149] {
            let with = |minutes, action| worst(code, json!({}), minutes, action);
            assert_eq!(with(6 * DAYS, Some("none")), Severity::Warning, "{code}: nothing shows that it is over");
            assert_eq!(with(6 * DAYS, Some("none")), with(6 * DAYS, None), "{code}");
            assert_eq!(with(60, Some("none")), with(60, None), "{code}");
            assert!(with(5, None) >= Severity::Critical, "{code} is not settled yet");
            assert!(
                with(6 * DAYS, Some("gpu_reset")) >= Severity::Critical,
                "{code}: the driver still recommends an action"
            );
        }
    }

    /// Tests every critical or fatal Xid and SXid for which NVIDIA requires a reset or a reboot, except RESET_SCOPED.
    #[test]
    fn time_alone_ends_no_fault_that_asks_for_a_reset() {
        let asks =
            |action: Option<&str>| matches!(action, Some("RESET_GPU" | "RESTART_BM" | "RESET_ALL" | "RESTART_HOST"));
        let xids = syringe_core::kernel_log::xids().filter(|entry| entry.severity >= Severity::Critical);
        let xids = xids.filter(|entry| asks(entry.nvidia_action)).map(|entry| ("xid", entry.code, "5d:00.0"));
        let sxids = syringe_core::kernel_log::sxids().filter(|entry| entry.severity >= Severity::Critical);
        let sxids = sxids.filter(|entry| asks(entry.nvidia_action)).map(|entry| ("sxid", entry.code, "05:00.0"));
        let all: Vec<_> = xids.chain(sxids).collect();
        assert!(all.len() > 30);
        for (kind, code, place) in all {
            for minutes in [25 * 60, 6 * DAYS, 60 * DAYS] {
                let event = json!({"kind": kind, "code": code, "pci_address": format!("00000000:{place}"), "count": 1,
                    "first": ago(minutes), "last": ago(minutes)});
                let found = of_event(event, Some("none"), false);
                let worst = found.iter().max_by_key(|finding| finding.severity).expect("a finding");
                assert!(worst.severity >= Severity::Warning, "{kind} {code}, {minutes} min ago: {found:#?}");
                let action = worst.action.code;
                assert!(action.includes(ActionCode::ResetGpu), "{kind} {code}, {minutes} min ago: {action:?}");
                assert!(!worst.action.text.contains("No action now"), "{kind} {code}: {}", worst.action.text);
            }
        }
    }

    #[test]
    fn a_counter_of_zero_after_an_uncorrectable_error_contradicts_the_log() {
        for code in [48, 94, 95, 140, 171, 172] {
            for minutes in [30, 3 * 60, 3 * DAYS] {
                let found = findings(code, json!({}), minutes, None);
                let worst = found.iter().max_by_key(|finding| finding.severity).expect("a finding");
                let said = worst.evidence.iter().any(|line| line.contains("contradicts the log"));
                assert!(worst.severity >= Severity::Warning && said, "{code}: {found:#?}");
                assert_eq!(worst.action.code, ActionCode::DrainAndReset, "{code}");
            }
        }
    }

    #[test]
    fn a_state_holds_until_a_reset() {
        for code in [160, 161, 177, 157, 156] {
            assert!(worst(code, json!({}), 6 * DAYS, Some("none")) >= Severity::Warning, "{code}");
        }
    }

    #[test]
    fn an_old_warning_is_information() {
        for (code, details) in [
            (155, json!({})),
            (92, json!({})),
            (74, json!({"register_class": "secondary"})),
            (145, json!({"action": "XID_154_EVAL", "fatal": "false"})),
        ] {
            assert_eq!(worst(code, details.clone(), 60, None), Severity::Warning, "{code}");
            assert_eq!(worst(code, details, 2 * DAYS, None), Severity::Info, "{code}");
        }
    }

    #[test]
    fn a_finding_has_the_action_of_the_catalogue() {
        for (code, action) in [
            (155, ActionCode::Watch),
            (157, ActionCode::Watch),
            (167, ActionCode::DrainAndReboot),
            (173, ActionCode::DrainAndReboot),
            (168, ActionCode::DrainAndReboot),
            (151, ActionCode::DrainAndReboot),
            (78, ActionCode::UpdateSoftware),
            (109, ActionCode::DrainAndReset),
            (54, ActionCode::CheckCabling),
        ] {
            let found = findings(code, json!({}), 5, None);
            let finding = found.iter().find(|finding| finding.severity > Severity::Info);
            assert_eq!(finding.map(|finding| finding.action.code), Some(action), "{code}: {found:#?}");
        }
        let cold = findings(110, json!({}), 5, None);
        assert!(cold.iter().any(|finding| finding.action.text.contains("power-cycle")), "{cold:#?}");
    }

    /// Tests each code as the only log line about a GPU, whatever group checks the code.
    #[test]
    fn every_code_has_a_finding_of_its_severity() {
        for entry in syringe_core::kernel_log::xids().filter(|entry| entry.severity > Severity::Info) {
            // The details of the event determine the meaning of Xid 154.
            let details = if entry.code == 154 { json!({"recovery_to": "1"}) } else { json!({}) };
            let single = KernelEvent { code: Some(entry.code), count: 1, ..KernelEvent::default() };
            let expected = match entry.code {
                154 => Severity::Critical,
                _ => super::severity(&single),
            };
            assert!(worst(entry.code, details, 5, None) >= expected, "{}", entry.code);
        }
    }
}
