//! Tests of the texts of plans: no finding contradicts the plan of its GPU, and a plan states its urgency, wrong
//! results, and whether work may continue.

use serde_json::{Value, json};

use crate::diagnose;
use crate::finding::{Diagnosis, Finding, Rma, Urgency};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::Report;

const FIRST: &str = "00000000:18:00.0";
const SECOND: &str = "00000000:2a:00.0";

/// Creates an Xid that occurred a minute before the facts were collected.
fn xid(code: u32, pci: &str, pid: u32) -> Value {
    let time = "2026-11-21T02:44:10Z";
    json!({"kind": "xid", "code": code, "pci_address": pci, "pid": pid, "process": "job", "count": 1, "first": time,
        "last": time})
}

/// Returns the diagnosis of a node with two responding GPUs and these kernel events. `failed`: whether a row remap of
/// the first GPU failed.
fn judged(events: &[Value], failed: bool, processes: &[Value]) -> Diagnosis {
    diagnose(&report(events, failed, processes), &KubernetesFacts::default())
}

fn report(events: &[Value], failed: bool, processes: &[Value]) -> Report {
    let gpu = |index: u32, pci: &str, more: Value| {
        let mut gpu = json!({"index": index, "uuid": format!("GPU-{index}"), "pci_address": pci});
        gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        gpu
    };
    let both =
        |more: Value| json!({"status": "ok", "data": {"gpus": [gpu(0, FIRST, more.clone()), gpu(1, SECOND, more)]}});
    let mut ecc = both(json!({"volatile": {"uncorrected": 0}}));
    if failed {
        ecc["data"]["gpus"][0]["remapped_rows"] =
            json!({"correctable": 0, "uncorrectable": 8, "pending": false, "failure_occurred": true});
    }
    serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "hostname": "n1", "sections": {
        "inventory": both(json!({})), "telemetry": both(json!({"temperature": {"gpu_celsius": 40}})), "ecc": ecc,
        "processes": {"status": "ok", "data": {"host_pid_namespace": true, "processes": processes}},
        "xid": {"status": "ok", "data": {"events": events}}}}))
    .expect("a report")
}

fn finding<'d>(diagnosis: &'d Diagnosis, id: &str) -> &'d Finding {
    diagnosis.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id}: {diagnosis:#?}"))
}

#[test]
fn a_return_that_depends_on_the_site_is_no_step_of_a_plan() {
    let worn = judged(&[xid(165, FIRST, 7)], false, &[]);
    let finding = finding(&worn, "xid-power");
    assert!(finding.action.text.contains("only if power swings are not acceptable"), "{finding:#?}");
    assert!(worn.plan.iter().all(|plan| plan.rma == Rma::No && !plan.steps.join(" ").contains("RMA")), "{worn:#?}");
    let failed = judged(&[], true, &[]);
    assert!(failed.plan.iter().any(|plan| plan.rma != Rma::No), "{failed:#?}");
}

#[test]
fn an_application_fault_beside_a_reset_does_not_say_that_other_work_may_continue() {
    let alone = judged(&[xid(31, FIRST, 7)], false, &[]);
    assert!(finding(&alone, "application-fault").action.text.contains("other work may continue"));
    let both = judged(&[xid(31, FIRST, 7), xid(62, FIRST, 8)], false, &[]);
    let action = &finding(&both, "application-fault").action.text;
    assert!(action.contains("Check the log of the application") && action.contains("follow"), "{action}");
    assert!(!action.contains("may continue") && !action.contains("Stop the work"), "{action}");
    let elsewhere = judged(&[xid(31, FIRST, 7), xid(62, SECOND, 8)], false, &[]);
    assert!(finding(&elsewhere, "application-fault").action.text.contains("other work may continue"));
}

#[test]
fn a_warning_beside_a_reset_has_no_action_of_its_own() {
    let alone = judged(&[xid(63, FIRST, 7)], false, &[]);
    let action = &finding(&alone, "row-remap-recorded").action.text;
    assert!(action.ends_with("(snapshot_ecc). Reset GPU 0 (0000:18:00.0) at the next drain."), "{action}");
    let both = judged(&[xid(63, FIRST, 7), xid(62, FIRST, 8)], false, &[]);
    let action = &finding(&both, "row-remap-recorded").action;
    assert_eq!(action.code, ActionCode::Watch);
    assert!(action.text.starts_with("No separate action: follow"), "{}", action.text);
}

#[test]
fn work_may_continue_beside_a_contained_error_only() {
    let job = [json!({"pid": 9, "state": "S", "uses": [{"gpu": 0, "memory_bytes": 1}]})];
    let before_plan = |events: &[Value], processes: &[Value]| {
        let [plan] = judged(events, false, processes).plan.try_into().expect("one plan");
        plan.before_plan
    };
    let contained = before_plan(&[xid(94, FIRST, 7), xid(63, FIRST, 7)], &job);
    assert!(contained.contains("may continue until the drain"), "{contained}");
    let unused = before_plan(&[xid(94, FIRST, 7), xid(63, FIRST, 7)], &[]);
    assert!(unused.starts_with("No program uses GPU 0"), "{unused}");
    let worse = before_plan(&[xid(94, FIRST, 7), xid(63, FIRST, 7), xid(62, FIRST, 8)], &job);
    assert!(worse.contains("stop its running work now"), "{worse}");
}

#[test]
fn a_gpu_that_is_returned_is_not_returned_on_a_condition_too() {
    let processes = [json!({"pid": 9, "state": "D", "uses": [{"gpu": 1, "memory_bytes": 1}]})];
    let steps = |failed| {
        // Two losses at the same moment would count as one event with a cause outside the GPUs.
        let mut earlier = xid(79, SECOND, 9);
        for time in ["first", "last"] {
            earlier[time] = json!("2026-11-21T02:39:10Z");
        }
        let diagnosis = judged(&[xid(79, FIRST, 7), earlier], failed, &processes);
        let [plan] = diagnosis.plan.clone().try_into().unwrap_or_else(|_| panic!("one plan: {diagnosis:#?}"));
        assert!(diagnosis.findings.iter().any(|finding| finding.severity == Severity::Fatal));
        plan.steps
    };
    let again = |steps: &[String], gpu: &str| {
        steps.iter().any(|step| step.contains("off the bus again, return") && step.contains(gpu))
    };
    let good = steps(false);
    assert!(again(&good, "0") && again(&good, "1"), "{good:#?}");
    let bad = steps(true);
    assert!(bad.iter().any(|step| step.contains("field diagnostic on GPU 0")), "{bad:#?}");
    assert!(!again(&bad, FIRST.trim_start_matches("0000")) && again(&bad, "GPU 1"), "{bad:#?}");
}

#[test]
fn a_gpu_is_named_once_in_a_step() {
    let processes = [json!({"pid": 9, "state": "D", "uses": [{"gpu": 0, "memory_bytes": 1}]})];
    let diagnosis = judged(&[xid(79, FIRST, 7), xid(62, SECOND, 8)], false, &processes);
    let [plan] = diagnosis.plan.clone().try_into().unwrap_or_else(|_| panic!("one plan: {diagnosis:#?}"));
    for text in plan.steps.iter().chain([&plan.before_plan]) {
        assert!(text.matches("GPU 0").count() <= 1, "{text}");
    }
    assert!(plan.steps.iter().any(|step| step.contains("Do not wait for pid 9")), "{:#?}", plan.steps);
    // A normal reboot waits for a process that no signal can kill.
    let hangs = judged(&[xid(119, FIRST, 9), xid(62, SECOND, 8)], false, &processes);
    let [plan] = hangs.plan.clone().try_into().unwrap_or_else(|_| panic!("one plan: {hangs:#?}"));
    assert!(plan.steps.iter().any(|step| step.starts_with("Power-cycle n1 (BMC)")), "{:#?}", plan.steps);
    // A finding about the process names its GPU a second time. Work on the other GPU may still continue.
    let only = judged(&[xid(79, FIRST, 7)], false, &processes);
    let [plan] = only.plan.clone().try_into().unwrap_or_else(|_| panic!("one plan: {only:#?}"));
    assert!(plan.before_plan.starts_with("Work that does not use GPU 0"), "{}", plan.before_plan);
}

/// Returns the diagnosis of a node with these kernel events. NVML reports this recovery action for the first GPU.
fn recommended(events: &[Value], action: &str) -> Diagnosis {
    let mut report = report(events, false, &[]);
    let ecc = report.sections.ecc.as_mut().and_then(|section| section.data.as_mut()).expect("ECC");
    ecc.gpus[0].recovery_action = serde_json::from_value(json!(action)).expect("an action");
    diagnose(&report, &KubernetesFacts::default())
}

#[test]
fn no_recommendation_of_the_driver_removes_a_stronger_action() {
    let codes = syringe_core::kernel_log::xids().filter(|entry| entry.severity >= Severity::Critical);
    for code in codes.map(|entry| entry.code).filter(|code| *code != 154) {
        let event = [xid(code, FIRST, 7)];
        let alone = judged(&event, false, &[]);
        let own = alone.findings.iter().filter(|finding| finding.severity >= Severity::Critical);
        for own in own.clone() {
            for action in
                ["gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset", "recover_imex", "bus_reset", "unknown"]
            {
                let joined = recommended(&event, action);
                let plans = joined.plan.iter().map(|plan| plan.action);
                let actions = joined.findings.iter().map(|finding| finding.action.code);
                let kept = actions.chain(plans).any(|action| action.includes(own.action.code));
                assert!(kept, "{code} {action}: {:?} of {} is gone: {joined:#?}", own.action.code, own.id);
            }
        }
    }
}

#[test]
fn an_imex_domain_is_recovered_in_addition_to_the_reset() {
    let [plan] = recommended(&[xid(95, FIRST, 7)], "recover_imex").plan.try_into().expect("one plan");
    let step = |words: &str| plan.steps.iter().position(|step| step.contains(words));
    assert_eq!(plan.action, ActionCode::DrainAndReset);
    assert!(step("nvidia-imex") < step("Reset GPU 0") && step("nvidia-imex").is_some(), "{:#?}", plan.steps);
}

#[test]
fn a_plan_says_how_urgent_it_is_and_which_results_are_wrong() {
    let of = |events: &[Value]| judged(events, false, &[]).plan.into_iter().next().expect("a plan");
    let uncontained = of(&[xid(95, FIRST, 7)]);
    assert_eq!((uncontained.urgency, uncontained.rma), (Urgency::Now, Rma::IfRepeated));
    assert!(uncontained.results.contains("from 2026-11-21T02:44:10Z on"), "{}", uncontained.results);
    assert!(uncontained.if_pod_deleted.contains("cordon n1"), "{}", uncontained.if_pod_deleted);
    let contained = of(&[xid(94, FIRST, 7)]);
    assert_eq!(contained.urgency, Urgency::WhenJobsEnd);
    assert!(contained.results.starts_with("Only the program"), "{}", contained.results);
    let processes = [json!({"pid": 9, "state": "D", "uses": [{"gpu": 0, "memory_bytes": 1}]})];
    let [stuck] = judged(&[xid(119, FIRST, 9)], false, &processes).plan.try_into().expect("one plan");
    assert!(stuck.if_pod_deleted.contains("stays in Terminating"), "{}", stuck.if_pod_deleted);
}

/// Creates the report of a node with these kernel events. `old`: the events are three hours older.
fn at_age(events: &[Value], old: bool) -> Report {
    let mut report = report(events, false, &[]);
    if old {
        let log = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log");
        for event in &mut log.events {
            event.first = event.first.map(|time| time - jiff::SignedDuration::from_hours(3));
            event.last = event.first;
        }
    }
    report
}

/// Returns the diagnosis of a node with these kernel events. The first GPU is in hardware thermal slowdown.
fn hot(events: &[Value], old: bool) -> Diagnosis {
    let mut report = at_age(events, old);
    let telemetry = report.sections.telemetry.as_mut().and_then(|section| section.data.as_mut()).expect("telemetry");
    telemetry.gpus[0].throttling.reasons = vec!["hw_thermal_slowdown".to_owned()];
    telemetry.gpus[0].throttling.reasons_mask = Some(0x40);
    diagnose(&report, &KubernetesFacts::default())
}

#[test]
fn a_hot_gpu_does_not_make_its_reset_urgent() {
    let mut waiting = 0;
    for entry in syringe_core::kernel_log::xids().filter(|entry| entry.severity >= Severity::Warning) {
        for old in [false, true] {
            let events = [xid(entry.code, FIRST, 7)];
            let alone = diagnose(&at_age(&events, old), &KubernetesFacts::default());
            let joined = hot(&events, old);
            let [plan] = &joined.plan[..] else { panic!("{}: {joined:#?}", entry.code) };
            let texts = plan.steps.iter().chain([&plan.before_plan]).cloned().collect::<Vec<_>>().join(" ");
            let alone_now = alone.plan.iter().any(|plan| plan.urgency == Urgency::Now);
            let stops = texts.contains("stop its running work now")
                || texts.contains("Stop the work on")
                || texts.contains("Stop jobs that use it now");
            assert!(alone_now || !stops, "{}: {texts}", entry.code);
            if plan.urgency == Urgency::Now && !alone_now {
                assert_eq!(plan.action, ActionCode::CheckCooling, "{}: {plan:#?}", entry.code);
                assert!(plan.steps.iter().any(|step| step.contains("airflow")), "{plan:#?}");
            }
            waiting += u32::from(!alone_now && texts.contains("eset GPU 0"));
        }
    }
    assert!(waiting > 3, "{waiting}");
}

#[test]
fn a_fault_that_has_repeated_is_not_awaited_again() {
    let mut repeated = 0;
    for entry in syringe_core::kernel_log::xids().filter(|entry| entry.severity >= Severity::Warning) {
        let mut event = xid(entry.code, FIRST, 7);
        (event["count"], event["first"]) = (json!(3), json!("2026-11-21T02:05:10Z"));
        event["details"] = json!({"action": "RESET_GPU", "fatal": "true"});
        let diagnosis = judged(&[event], false, &[]);
        let own = |finding: &&Finding| ["xid-", "nvlink-"].iter().any(|start| finding.id.starts_with(start));
        for finding in diagnosis.findings.iter().filter(own) {
            let text = finding.action.text.to_lowercase();
            for words in ["if the same link fails again", "if the error repeats,", "if it repeats,"] {
                assert!(!text.contains(words), "{}: {text}", entry.code);
            }
            repeated += u32::from(text.contains("it has failed 3 times already"));
            let checks = text.contains("already, so check the board and the cables");
            let planned = diagnosis.plan.iter().flat_map(|plan| &plan.steps).any(|step| step.contains("cables"));
            assert!(!checks || planned, "{}: {diagnosis:#?}", entry.code);
        }
    }
    assert!(repeated > 5, "{repeated}");
}
