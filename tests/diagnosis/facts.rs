//! Tests of `diagnose` with changed facts: findings, unknown facts, length of an answer, stuck processes, plans.
//! `changed`, `judged`, `has`: change a scenario, diagnose it, and check whether a finding exists.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Finding, Verdict};
use diagnosis::health::HealthStatus;

use serde_json::{Value, json};
use syringe_core::action_rules::reset_needs::needs;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Problem, Report, Section, Sections};
use syringe_core::section_name::SectionName;

use super::{replayed, scenarios, told};

/// Writes a scenario as JSON with a full entry for each GPU, changes the JSON, and reads it again.
pub(super) fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Report {
    let (report, _) = scenarios().remove(name).expect(name);
    let mut value = ::scenarios::in_full(&report);
    change(&mut value);
    replayed(serde_json::from_value(value).expect("a report"))
}

pub(super) fn gpus<'v>(report: &'v mut Value, section: &str) -> &'v mut Vec<Value> {
    report["sections"][section]["data"]["gpus"].as_array_mut().expect(section)
}

pub(super) fn judged(report: &Report) -> Diagnosis {
    diagnose(report, &KubernetesFacts::default())
}

fn finding<'d>(diagnosis: &'d Diagnosis, id: &str) -> &'d Finding {
    diagnosis.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id}: {}", told(diagnosis)))
}

pub(super) fn has(diagnosis: &Diagnosis, id: &str) -> bool {
    diagnosis.findings.iter().any(|finding| finding.id == id)
}

/// Returns a report that only has these kernel lines, parsed as a probe does.
fn log_of(lines: &[&str]) -> Report {
    let mut report = Report { taken_at: "2026-11-21T02:45:10Z".parse().ok(), ..Report::default() };
    report.kernel_log = lines.iter().map(|line| (*line).to_owned()).collect();
    replayed(report)
}

const AT: &str = "2026-11-21T02:40:00+00:00 n kernel: NVRM: Xid (PCI:0000:5d:00):";

// ---- GPUs that are known from the log only

#[test]
fn memory_errors_of_a_gpu_that_only_the_log_names_are_found() {
    let lines = [
        format!("{AT} 48, DBE"),
        format!("{AT} 63, Row Remapper: New row marked for remapping"),
        format!("{AT} 94, Contained"),
    ];
    let diagnosis = judged(&log_of(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(diagnosis.verdict >= Verdict::Critical, "{}", told(&diagnosis));
    assert_eq!(finding(&diagnosis, "ecc-contained").severity, Severity::Critical);
    assert!(has(&diagnosis, "row-remap-recorded"));
}

#[test]
fn a_gpu_that_only_the_log_names_is_not_counted_as_one_more() {
    let (report, _) = scenarios().remove("gpu-gone-from-pci").expect("it");
    let diagnosis = judged(&report);
    assert!(!diagnosis.summary.contains("of 9"), "{}", diagnosis.summary);
    let virtual_function = changed("healthy-h100-8", |value| {
        let line = AT.replace("5d:00", "5d:00.4") + " 31, pid=1, name=a, MMU Fault";
        value["kernel_log"].as_array_mut().expect("lines").push(json!(line));
    });
    let cluster = KubernetesFacts { gpu_capacity: Some(8), ..KubernetesFacts::default() };
    let diagnosis = diagnose(&virtual_function, &cluster);
    assert!(diagnosis.summary.starts_with("All 8 GPUs"), "{}", diagnosis.summary);
    assert_eq!(
        diagnose(&virtual_function, &KubernetesFacts::default())
            .health
            .gpus
            .iter()
            .filter(|gpu| gpu.index.is_some())
            .count(),
        8
    );
}

#[test]
fn a_gpu_without_an_address_in_nvml_is_the_one_in_the_log() {
    let mut report = log_of(&[&format!("{AT} 79, GPU has fallen off the bus.")]);
    let lost = Problem {
        what: "GPU 3".into(),
        why: "NVML: GPU is lost".into(),
        code: "gpu_lost".into(),
        gpu: Some(3),
        ..Problem::default()
    };
    report.sections.ecc = Some(Section::read(Default::default(), vec![lost]));
    let diagnosis = judged(&report);
    let fatal = diagnosis.findings.iter().filter(|finding| finding.severity == Severity::Fatal).count();
    assert_eq!((fatal, finding(&diagnosis, "gpu-off-bus").scope.gpu), (1, Some(3)), "{}", told(&diagnosis));
}

#[test]
fn gpus_of_earlier_boots_and_replaced_gpus_are_ignored() {
    let log = |boot: Option<&str>| {
        let mut report = log_of(&[&format!("{AT} 95, Uncontained")]);
        report.boot_id = Some("now".into());
        let events = &mut report.sections.xid.as_mut().expect("it").data.as_mut().expect("it").events;
        events.iter_mut().for_each(|event| event.boot_id = boot.map(str::to_owned));
        judged(&report).verdict
    };
    assert_eq!(log(None), Verdict::Fatal);
    assert!(log(Some("before")) < Verdict::Warning);
}

#[test]
fn a_failed_initialization_is_found_in_the_log_alone() {
    let placed =
        log_of(&["2026-11-21T02:40:00+00:00 n kernel: NVRM: GPU 0000:5d:00.0: RmInitAdapter failed! (0x24:0x72:1568)"]);
    assert_eq!(finding(&judged(&placed), "gpu-init-failed").severity, Severity::Fatal);
    let nameless =
        log_of(&["2026-11-21T02:40:00+00:00 n kernel: NVRM: rm_init_adapter failed for device bearing minor number 0"]);
    assert!(judged(&nameless).verdict >= Verdict::Critical, "{}", told(&judged(&nameless)));
}

// ---- statements in the summary

#[test]
fn unsupported_facts_are_not_claimed() {
    let (report, _) = scenarios().remove("a100-mig-8").expect("it");
    let diagnosis = judged(&report);
    assert_eq!(diagnosis.verdict, Verdict::Healthy, "{}", told(&diagnosis));
    assert!(!diagnosis.summary.contains("pending") && !diagnosis.summary.contains("recovery"), "{}", diagnosis.summary);
    let told: Vec<_> = diagnosis.not_checked.iter().filter(|limit| limit.contains("not offered")).collect();
    assert!(told.iter().any(|limit| limit.contains("pending memory repair") && limit.contains("GPUs 0-6")), "{told:?}");
}

#[test]
fn a_fact_that_is_missing_without_a_reason_makes_the_verdict_unknown() {
    let without = |section: &str, clause: &str, change: fn(&mut Value)| {
        let report = changed("healthy-h100-8", |value| change(&mut gpus(value, section)[4]));
        let diagnosis = judged(&report);
        assert_eq!(diagnosis.verdict, Verdict::Unknown, "{clause}: {}", told(&diagnosis));
        assert!(diagnosis.unknown.iter().any(|unknown| unknown.why.contains(clause)), "{}", told(&diagnosis));
        assert!(!diagnosis.summary.contains(&format!("no {clause}")), "{}", diagnosis.summary);
    };
    without("telemetry", "throttling", |gpu| {
        gpu["throttling"] = json!({"active": null, "reasons": [], "reasons_mask": null});
    });
    without("telemetry", "overheating", |gpu| {
        gpu["temperature"] = json!({"gpu_celsius": 60, "slowdown_celsius": null, "tlimit_margin_celsius": null});
    });
    without("ecc", "pending memory repair", |gpu| gpu["remapped_rows"] = Value::Null);
    without("ecc", "recovery action", |gpu| gpu["recovery_action"] = Value::Null);
    without("ecc", "uncorrected memory error", |gpu| gpu["volatile"]["uncorrected"] = Value::Null);
    without("topology", "NVLink fault", |gpu| gpu["nvlinks"][0]["active"] = Value::Null);
}

#[test]
fn a_margin_to_the_limit_is_a_threshold_too() {
    let (report, _) = scenarios().remove("gb200-4").expect("it");
    assert!(judged(&report).summary.contains("no overheating") || judged(&report).summary.contains("overheating"));
    let used_up = changed("gb200-4", |value| {
        let now = &mut gpus(value, "telemetry")[1]["temperature"];
        (now["gpu_celsius"], now["tlimit_margin_celsius"]) = (json!(88), json!(0));
    });
    assert_eq!(finding(&judged(&used_up), "gpu-too-hot").severity, Severity::Warning);
}

#[test]
fn a_log_of_hardware_faults_is_not_clear_and_one_section_says_so() {
    let (report, _) = scenarios().remove("ecc-remap-pending").expect("it");
    let part = Report {
        kernel_log: Vec::new(),
        sections: Sections { xid: report.sections.xid.clone(), ..Sections::default() },
        ..report
    };
    let diagnosis = judged(&part);
    assert!(diagnosis.verdict >= Verdict::Critical, "{}", told(&diagnosis));
    assert!(diagnosis.summary.contains("Only xid was checked"), "{}", diagnosis.summary);
    assert_eq!(diagnosis.checked, [SectionName::Xid]);
}

#[test]
fn a_healthy_answer_names_its_limits() {
    let (report, _) = scenarios().remove("healthy-h100-8").expect("it");
    let diagnosis = judged(&report);
    assert!(
        diagnosis.checked.len() + diagnosis.partly_checked.len() == 9 && diagnosis.not_requested.is_empty(),
        "{}",
        told(&diagnosis)
    );
    let limits = diagnosis.not_checked.join("; ");
    assert!(
        ["no test was run", "counters were read once", "kernel log before"].iter().all(|limit| limits.contains(limit)),
        "{limits}"
    );
}

#[test]
fn a_report_without_sections_has_no_score() {
    let health = diagnose(&Report::default(), &KubernetesFacts::default()).health;
    assert_eq!((health.score, health.status), (None, HealthStatus::Unknown));
    let (whole, _) = scenarios().remove("healthy-h100-8").expect("it");
    assert_eq!(diagnose(&whole, &KubernetesFacts::default()).health.score, Some(100));
    let part = Report {
        sections: Sections { telemetry: whole.sections.telemetry.clone(), ..Sections::default() },
        ..Report::default()
    };
    assert_eq!(diagnose(&part, &KubernetesFacts::default()).health.status, HealthStatus::Unknown);
}

// ---- GPUs that the node advertises in Kubernetes

#[test]
fn gpus_without_a_resource_are_not_advertised() {
    let (report, _) = scenarios().remove("healthy-h100-8").expect("it");
    let of = |cluster: KubernetesFacts| {
        let diagnosis = diagnose(&report, &KubernetesFacts { node: Some("gpu-1".into()), ..cluster });
        diagnosis
            .findings
            .into_iter()
            .find(|finding| finding.id == "gpus-not-advertised")
            .map(|finding| finding.severity)
    };
    assert_eq!(of(KubernetesFacts::default()), Some(Severity::Warning), "no plugin has registered");
    assert_eq!(of(KubernetesFacts { gpu_capacity: Some(0), ..KubernetesFacts::default() }), Some(Severity::Critical));
    assert_eq!(of(KubernetesFacts { gpu_capacity: Some(8), ..KubernetesFacts::default() }), None);
    assert_eq!(of(KubernetesFacts { gpu_dra: Some(true), ..KubernetesFacts::default() }), None, "DRA");
    assert_eq!(of(KubernetesFacts { other_gpu_resources: true, ..KubernetesFacts::default() }), None, "MIG, renamed");
    let nobody =
        KubernetesFacts { gpu_plugin_in_cluster: Some(false), gpu_dra: Some(false), ..KubernetesFacts::default() };
    assert_eq!(of(nobody), Some(Severity::Info), "no node has a device plugin");
    assert_eq!(diagnose(&report, &KubernetesFacts::default()).verdict, Verdict::Healthy, "Kubernetes was not read");
    let (passed_on, expected) = scenarios().remove("passthrough").expect("it");
    let cluster = KubernetesFacts { node: Some("gpu-1".into()), gpu_capacity: None, ..expected.cluster };
    assert!(!has(&diagnose(&passed_on, &cluster), "gpus-not-advertised"));
}

// ---- links, temperatures, MIG, implausible values

#[test]
fn a_gpu_with_all_links_down_is_found_by_comparison_with_the_others() {
    let down = |scenario: &str, at: usize| {
        let report = changed(scenario, |value| {
            let links: Vec<u32> = (0..18).collect();
            gpus(value, "topology")[at]["nvlinks"] = json!([{"links": links, "active": false}]);
        });
        let diagnosis = judged(&report);
        diagnosis.findings.iter().find(|finding| finding.id == "nvlink-down").map(|finding| finding.severity)
    };
    assert_eq!(down("gb200-4", 2), Some(Severity::Critical), "no switch is on PCI");
    assert_eq!(down("l40s-4-idle", 1), None, "no other GPU has active links");
    let pair = changed("l40s-4-idle", |value| {
        for (at, gpu) in gpus(value, "topology").iter_mut().enumerate() {
            gpu["nvlinks"] = json!([{"links": [0, 1, 2, 3], "active": at < 2, "version": 3, "remote_type": "gpu"}]);
        }
    });
    assert!(!has(&judged(&pair), "nvlink-down"), "two of four cards have a bridge");
}

#[test]
fn counters_are_divided_by_the_time_since_the_driver_was_loaded() {
    let with = |loaded: &str| {
        let report = changed("healthy-h100-8", |value| {
            gpus(value, "telemetry")[2]["pcie"]["replays"] = json!(60_000);
            gpus(value, "telemetry")[3]["throttling"]["violations"] =
                json!([{"policy": "thermal", "duration_ms": 1_200_000}]);
            value["kernel_log"].as_array_mut().expect("lines").push(json!(format!(
                "{loaded} n kernel: NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06"
            )));
        });
        let diagnosis = judged(&report);
        let heat = diagnosis.findings.iter().find(|one| one.id == "thermal-slowdown-frequent").map(|one| one.severity);
        (has(&diagnosis, "pcie-replays-high"), heat)
    };
    assert_eq!(with("2026-11-12T02:45:10+00:00"), (true, Some(Severity::Info)));
    assert_eq!(with("2026-11-21T02:15:10+00:00"), (true, Some(Severity::Warning)));
}

#[test]
fn mig_without_a_readable_maximum_has_no_finding_about_instances() {
    let with = |most: Value| {
        let report = changed("mig-unfinished", |value| {
            for gpu in gpus(value, "mig") {
                gpu["max_devices"] = most.clone();
            }
        });
        has(&judged(&report), "mig-without-instances")
    };
    assert!(with(json!(7)) && !with(Value::Null));
}

#[test]
fn implausible_values_are_found() {
    let same = changed("healthy-h100-8", |value| {
        for section in ["inventory", "telemetry", "topology", "ecc", "mig"] {
            gpus(value, section).iter_mut().for_each(|gpu| gpu["uuid"] = json!("GPU-1"));
        }
    });
    let diagnosis = judged(&same);
    assert!(finding(&diagnosis, "gpu-identity-ambiguous").evidence[0].contains("GPUs 0-7"), "{}", told(&diagnosis));
    let much = changed("healthy-h100-8", |value| {
        gpus(value, "telemetry")[6]["utilization"]["gpu_percent"] = json!(4_294_967_295_u32);
    });
    let diagnosis = judged(&much);
    assert_eq!(finding(&diagnosis, "sensor-value-implausible").scope.gpu, Some(6));
    assert_ne!(diagnosis.verdict, Verdict::Healthy);
}

#[test]
fn refused_counters_are_unknown() {
    for (section, what) in [("ecc", "volatile errors"), ("topology", "NVLink errors"), ("telemetry", "violations")] {
        let report = changed("healthy-h100-8", |value| {
            let why = Problem {
                what: what.into(),
                why: "NVML: Unknown Error".into(),
                code: "999".into(),
                gpu: Some(5),
                ..Problem::default()
            };
            value["sections"][section]["status"] = json!("partial");
            value["sections"][section]["problems"] = json!([why]);
        });
        let diagnosis = judged(&report);
        assert_eq!(diagnosis.verdict, Verdict::Unknown, "{section}: {}", told(&diagnosis));
    }
}

// ---- a lost GPU, and processes that wait for it

#[test]
fn gpus_that_spin_next_to_a_lost_gpu_wait_for_it() {
    let (report, _) = scenarios().remove("xid79-off-bus").expect("it");
    let diagnosis = judged(&report);
    let waits = finding(&diagnosis, "job-waits-for-lost-gpu");
    assert!(waits.evidence[0].contains("GPUs 0-2, 4-7"), "{waits:?}");
    let lost = finding(&diagnosis, "gpu-off-bus").evidence.join("; ");
    assert!(lost.contains("UUID GPU-ad0124a1") && lost.contains("serial 1675710730620"), "{lost}");
    // A program that computes in registers also causes a low power draw without memory access, but its GPU is not lost.
    let spinning = changed("healthy-h100-8", |value| {
        for gpu in gpus(value, "telemetry") {
            gpu["utilization"]["memory_percent"] = json!(0);
            gpu["power"]["draw_milliwatts"] = json!(187_000);
        }
    });
    assert!(!has(&judged(&spinning), "job-waits-for-lost-gpu"));
    // GPUs with a high power draw are working, so there is no finding about a job that waits for a lost GPU.
    let working = changed("xid79-off-bus", |value| {
        for gpu in gpus(value, "telemetry") {
            gpu["power"]["draw_milliwatts"] = json!(600_000);
        }
    });
    assert!(!has(&judged(&working), "job-waits-for-lost-gpu"));
}

#[test]
fn every_tool_judges_a_stuck_process_alike() {
    let stuck = |report: &Report| diagnosis::stuck(report, 41213);
    let (whole, _) = scenarios().remove("xid79-off-bus").expect("it");
    assert_eq!(stuck(&whole), Some(diagnosis::Stuck::Permanent), "the kernel reports the process as stuck");
    let silent = changed("xid79-off-bus", |value| {
        value["kernel_log"] = json!([]);
        value["sections"].as_object_mut().expect("sections").remove("xid");
    });
    assert_eq!(
        stuck(&silent),
        Some(diagnosis::Stuck::Permanent),
        "the process holds the device of a GPU that does not respond"
    );
    assert!(has(&judged(&silent), "process-stuck"));
    assert_eq!(diagnosis::stuck(&whole, 41210), None, "state S");
    let (moment, _) = scenarios().remove("momentary-d-state").expect("it");
    let waiting = moment.sections.processes.as_ref().and_then(|section| section.data.as_ref()).expect("processes");
    let pid = waiting.processes.iter().find(|process| process.state.as_deref() == Some("D")).expect("one").pid;
    assert_eq!(diagnosis::stuck(&moment, pid), Some(diagnosis::Stuck::Possible));
}

// ---- GPUs that are gone, and cards that are not GPUs of the node

#[test]
fn every_sign_of_gpus_forbids_to_call_a_node_one_without_gpus() {
    let none = scenarios().remove("no-gpu").expect("it").0;
    let base = KubernetesFacts { node: Some("n".into()), ..KubernetesFacts::default() };
    assert!(has(&diagnose(&none, &base), "not-a-gpu-node"));
    let labels = |change: Value| serde_json::from_value(json!({"node": "n", "labels": change})).expect("facts");
    for facts in [
        KubernetesFacts { gpu_dra: Some(true), ..base.clone() },
        KubernetesFacts { other_gpu_resources: true, ..base.clone() },
        labels(json!({"pci_present": true})),
        labels(json!({"deploy": {"device-plugin": "true"}})),
    ] {
        let diagnosis = diagnose(&none, &facts);
        assert_eq!(finding(&diagnosis, "no-gpus-found").severity, Severity::Fatal, "{facts:?}");
        assert!(!has(&diagnosis, "not-a-gpu-node"), "{facts:?}");
    }
    let mut registered = none;
    let kubelet = json!({"status": "ok", "data": {"source": "checkpoint",
        "registered": [{"resource": "nvidia.com/gpu", "devices": ["GPU-1"]}]}});
    registered.sections.kubelet = Some(serde_json::from_value(kubelet).expect("a section"));
    assert!(has(&diagnose(&registered, &base), "no-gpus-found"));
}

#[test]
fn nouveau_on_a_display_card_is_no_fault_of_the_gpus() {
    let beside = |device_id: &str| {
        changed("healthy-h100-8", |value| {
            let card = json!({"pci_address": "00000000:02:00.0", "device_id": device_id, "driver": "nouveau",
                "in_nvml": false, "answers": true});
            value["sections"]["host"]["data"]["pci_gpus"].as_array_mut().expect("GPUs").push(card);
        })
    };
    let display = judged(&beside("1c81"));
    assert_eq!(
        (display.verdict, display.health.status),
        (Verdict::Healthy, HealthStatus::Healthy),
        "{}",
        told(&display)
    );
    assert_eq!(finding(&display, "gpu-bound-to-nouveau").severity, Severity::Info);
    let lost = judged(&beside("2330"));
    assert!(lost.verdict >= Verdict::Warning && has(&lost, "gpu-not-bound"), "{}", told(&lost));
}

#[test]
fn a_slot_with_fewer_lanes_is_no_degraded_link() {
    let link = |port: u32| {
        let report = changed("l40s-4-idle", |value| {
            let hop = |kind: &str, most: u32| json!({"kind": kind, "width": 8, "max_width": most});
            gpus(value, "topology")[1]["pcie_path"] = json!([hop("gpu", 16), hop("root_port", port)]);
            let pcie = &mut gpus(value, "telemetry")[1]["pcie"];
            (pcie["width"], pcie["max_width"]) = (json!(8), json!(16));
        });
        let diagnosis = judged(&report);
        (has(&diagnosis, "pcie-width-degraded"), has(&diagnosis, "pcie-slot-limits-gpu"))
    };
    assert_eq!(link(8), (false, true), "by design");
    assert_eq!(link(16), (true, false), "degraded");
}

// ---- impossible numbers

#[test]
fn impossible_numbers_are_told_and_nothing_is_ended_because_of_them() {
    let report = changed("healthy-h100-8", |value| {
        let ecc = &mut gpus(value, "ecc")[1];
        (ecc["volatile"]["uncorrected"], ecc["aggregate"]["uncorrected"]) = (json!(1), json!(0));
    });
    let diagnosis = judged(&report);
    assert!(diagnosis.unknown.iter().any(|one| one.why.contains("not reliable")), "{}", told(&diagnosis));
    // In the API data, no pod has a GPU process or an allocation of the kubelet.
    let whole = scenarios().remove("healthy-h100-8").expect("it").0;
    let pod = |uid: &str| {
        let running = "2026-11-21T00:00:00Z";
        json!({"namespace": "ml", "name": format!("train-{uid}"), "uid": uid, "phase": "Running", "created": running,
            "containers": [{"name": "main", "requests": {"nvidia.com/gpu": 8}, "running_since": running}]})
    };
    let facts = |uids: &[&str]| -> KubernetesFacts {
        let pods: Vec<Value> = uids.iter().map(|uid| pod(uid)).collect();
        let facts =
            json!({"node": "n", "gpu_capacity": 8, "gpu_allocatable": 8, "live_pod_uids": uids, "gpu_pods": pods});
        serde_json::from_value(facts).expect("facts")
    };
    let diagnosis = diagnose(&whole, &facts(&["x"]));
    assert!(has(&diagnosis, "pods-do-not-match-node"), "{}", told(&diagnosis));
    for one in &diagnosis.findings {
        let text = one.action.text.to_lowercase();
        let advises = text.contains("delete the pod") || text.contains("end it") || text.contains("restart the pod");
        assert!(!advises, "{}: {}", one.id, one.action.text);
    }
    let twice = diagnose(&whole, &facts(&["x", "y"]));
    let found = finding(&twice, "more-gpus-requested-than-exist");
    assert!(found.evidence[0].contains("16 of 8 nvidia.com/gpu"), "{:?}", found.evidence);
}

// ---- one plan for all findings about a GPU

#[test]
fn a_gpu_has_one_plan_and_no_finding_asks_for_the_opposite() {
    for (name, (report, expected)) in scenarios() {
        let diagnosis = diagnose(&report, &expected.cluster);
        let reboots = diagnosis
            .findings
            .iter()
            .any(|one| one.action.code == ActionCode::DrainAndReboot && one.severity > Severity::Info);
        for one in &diagnosis.findings {
            let text = &one.action.text;
            let alone = diagnosis.plan.is_empty();
            assert!(alone || !text.contains("may continue"), "{name}: {}: {text}", one.id);
            let resets = matches!(one.action.code, ActionCode::ResetGpu | ActionCode::DrainAndReset);
            assert!(!(reboots && resets && one.severity > Severity::Info), "{name}: {} resets beside a reboot", one.id);
        }
        let mut subjects: Vec<_> = diagnosis.plan.iter().map(|plan| &plan.subject).collect();
        subjects.dedup();
        assert_eq!(subjects.len(), diagnosis.plan.len(), "{name}");
        for plan in &diagnosis.plan {
            let words = format!("{} {}", plan.before_plan, plan.steps.join(" "));
            assert!(!plan.steps.is_empty() && !words.contains('{'), "{name}: {words}");
        }
    }
}

/// Every finding that interrupts work has a plan, whether it is about a GPU, a switch or the node.
#[test]
fn every_critical_finding_that_interrupts_work_has_a_plan() {
    let quiet = [ActionCode::None, ActionCode::Watch, ActionCode::RestartPod, ActionCode::UpdateSoftware];
    for (name, (report, expected)) in scenarios() {
        let diagnosis = diagnose(&report, &expected.cluster);
        let severe = diagnosis.findings.iter().filter(|one| one.severity >= Severity::Critical);
        for one in severe.filter(|one| !quiet.contains(&one.action.code)) {
            let planned = diagnosis.plan.iter().any(|plan| plan.findings.contains(&one.id));
            assert!(planned, "{name}: {}: {}", one.id, told(&diagnosis));
        }
    }
}

/// `reset_gpu` rejects a GPU that only a reboot can repair, so no plan may recommend a reset of this GPU.
#[test]
fn no_plan_contradicts_the_rules_of_the_reset() {
    for (name, (report, expected)) in scenarios() {
        let diagnosis = diagnose(&report, &expected.cluster);
        let resets = diagnosis.plan.iter().filter(|plan| plan.action == ActionCode::DrainAndReset);
        for address in resets.flat_map(|plan| &plan.addresses) {
            let inventory = report.sections.inventory.as_ref().and_then(|section| section.data.as_ref());
            let all = inventory.map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
            let gpu = all.iter().find(|gpu| gpu.pci_address.as_ref() == Some(address));
            let needs = gpu.and_then(|gpu| needs(&report, gpu.uuid.as_deref()?));
            assert!(needs.is_none_or(|needs| needs.reboot.is_none()), "{name}: {address}");
        }
    }
}

#[test]
fn gpus_that_must_be_reset_together_have_one_plan() {
    let plan = |architecture: &str, fabric_manager: bool, codes: &[u32]| {
        let report = changed("healthy-h100-8", |value| {
            gpus(value, "inventory").iter_mut().for_each(|gpu| gpu["architecture"] = json!(architecture));
            value["sections"]["host"]["data"]["daemons"]["fabric_manager"] = json!(fabric_manager);
            for code in codes {
                let line = format!("{AT} {code}, pid=1, name=a, x");
                value["kernel_log"].as_array_mut().expect("lines").push(json!(line));
            }
        });
        let diagnosis = judged(&report);
        diagnosis.plan.first().unwrap_or_else(|| panic!("{}", told(&diagnosis))).clone()
    };
    let alone = plan("Hopper", true, &[95]).steps.join(" ");
    assert!(alone.contains("then reset GPU 3") && !alone.contains("together"), "{alone}");
    let volta = plan("Volta", true, &[95]);
    assert!(volta.steps.join(" ").contains("reset GPUs 0-7 together"), "{:#?}", volta.steps);
    assert!(volta.before_plan.contains("until the reset, which includes them"), "{}", volta.before_plan);
    let ampere = plan("Ampere", false, &[95]).steps.join(" ");
    assert!(ampere.contains("Start nvidia-fabricmanager"), "{ampere}");
    let reboot = plan("Hopper", true, &[95, 79]);
    assert_eq!(reboot.action, ActionCode::DrainAndReboot, "reset_gpu refuses a GPU that fell off the bus: {reboot:#?}");
}

#[test]
fn a_plan_says_which_work_may_continue_and_does_not_wait_for_a_stuck_process() {
    let of = |name: &str| judged(&scenarios().remove(name).expect(name).0).plan;
    let [lost] = of("xid79-off-bus").try_into().expect("one plan");
    let steps = lost.steps.join(" ");
    assert!(steps.contains("Power-cycle") && steps.contains("Do not wait for pid 41213"), "{steps}");
    assert!(lost.before_plan.contains("GPU 3"), "{}", lost.before_plan);
    let [memory] = of("ecc-remap-pending").try_into().expect("one plan");
    assert!(memory.before_plan.contains("may continue until the drain"), "{}", memory.before_plan);
    assert!(memory.steps.join(" ").contains("Reset GPU 5"), "{:?}", memory.steps);
}
