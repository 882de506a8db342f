//! Tests that compare the diagnosis of every scenario with its expectation and its snapshot.
//! The modules test groups of rules and properties of all diagnoses.
//!
//! The crate `scenarios` contains the reports of the nodes and the expectations: the verdict, findings that must appear
//! (with their GPU) and findings that must not appear. The snapshots contain the whole diagnosis.

#[path = "diagnosis/all_clear.rs"]
mod all_clear;
#[path = "diagnosis/contradictions.rs"]
mod contradictions;
#[path = "diagnosis/explained.rs"]
mod explained;
#[path = "diagnosis/facts.rs"]
mod facts;
#[path = "diagnosis/host_lines.rs"]
mod host_lines;
#[path = "diagnosis/kubernetes_inputs.rs"]
mod kubernetes_inputs;
#[path = "diagnosis/machines.rs"]
mod machines;
#[path = "diagnosis/node_set_up.rs"]
mod node_set_up;
#[path = "diagnosis/node_state.rs"]
mod node_state;
#[path = "diagnosis/one_answer.rs"]
mod one_answer;
#[path = "diagnosis/order_and_runtimes.rs"]
mod order_and_runtimes;
#[path = "diagnosis/products.rs"]
mod products;
#[path = "diagnosis/properties.rs"]
mod properties;
#[path = "diagnosis/rates.rs"]
mod rates;
#[path = "diagnosis/real.rs"]
mod real;
#[path = "diagnosis/refused.rs"]
mod refused;
#[path = "diagnosis/rows.rs"]
mod rows;
#[path = "diagnosis/single_changes.rs"]
mod single_changes;
#[path = "diagnosis/stack.rs"]
mod stack;
#[path = "diagnosis/unusual.rs"]
mod unusual;
#[path = "diagnosis/urgency.rs"]
mod urgency;
#[path = "diagnosis/usage.rs"]
mod usage;
#[path = "diagnosis/verdicts.rs"]
mod verdicts;
#[path = "diagnosis/walls.rs"]
mod walls;
#[path = "diagnosis/window.rs"]
mod window;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ::scenarios::{Expectation, Scenario};
use diagnosis::finding::{Diagnosis, Finding, Plan, Rma, Verdict};
use diagnosis::health::HealthStatus;
use diagnosis::{catalogue_of_rules, diagnose, explains_pods};
use insta::assert_json_snapshot;
use jiff::SignedDuration;
use serde_json::Value;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::gpu_names::gpu_addresses;
use syringe_core::kernel_log::LogOrigin;
use syringe_core::kernel_log::event_log::{Clock, EventLog, Options};
use syringe_core::nvml_codes::{ACCESS_BLOCKED, NO_PERMISSION};
use syringe_core::report::{Problem, Report, Section};
use syringe_core::section_name::SectionName;

/// Returns every scenario: the report as the rules get it, and the expectation.
fn scenarios() -> BTreeMap<String, (Report, Expectation)> {
    static ALL: LazyLock<BTreeMap<String, (Report, Expectation)>> = LazyLock::new(|| {
        let read = |one: &Scenario| (one.name.to_owned(), (replayed(one.report()), one.expected.clone()));
        scenarios::all().map(read).collect()
    });
    ALL.clone()
}

/// Parses the kernel log of a report with the real parser, as a replay does.
fn replayed(mut report: Report) -> Report {
    if report.kernel_log.is_empty() {
        return report;
    }
    let host = Section::data_of(&report.sections.host);
    let uptime = host.and_then(|host| host.uptime_seconds).and_then(|uptime| i64::try_from(uptime).ok());
    let boot = report.taken_at.zip(uptime).map(|(now, uptime)| now - SignedDuration::from_secs(uptime));
    let options = Options { running_boot_id: report.boot_id.clone(), now: report.taken_at, ..Options::default() };
    let mut log = EventLog::new(boot.map(|boot_wall_time| Clock { boot_wall_time }), options);
    log.source("facts file");
    report.kernel_log.iter().for_each(|record| log.push_line(record));
    let mut log = log.finish();
    syringe_core::kernel_log::join_gpus(&mut log, LogOrigin::ThisNode, &gpu_addresses(&report), &[]);
    report.sections.xid = Some(Section::read(log, Vec::new()));
    report
}

/// Returns a base node with more lines in its kernel log. `lines`: the age in minutes and the text of each line.
fn with_lines(base: &str, lines: &[(i64, &str)]) -> Report {
    let mut report = syringe_core::scenarios::named(base).expect("a base node").report();
    let uptime = Section::data_of(&report.sections.host).and_then(|host| host.uptime_seconds).expect("an uptime");
    let microseconds = |minutes: i64| uptime as i64 * 1_000_000 - minutes * 60_000_000;
    let last = report.kernel_log.iter().filter_map(|record| record.split(',').nth(1)?.parse::<u64>().ok()).max();
    for (sequence, (age, line)) in (last.map_or(0, |last| last + 1)..).zip(lines) {
        report.kernel_log.push(format!("4,{sequence},{},-;{line}", microseconds(*age)));
    }
    replayed(report)
}

fn told(diagnosis: &Diagnosis) -> String {
    serde_json::to_string_pretty(diagnosis).expect("a diagnosis")
}

/// Returns the differences between the diagnosis of a scenario and its expectation.
fn complaints(name: &str, report: &Report, expected: &Expectation) -> Vec<String> {
    let diagnosis = diagnose(report, &expected.cluster);
    let mut complaints = Vec::new();
    let word = |value: Result<Value, _>| value.expect("a word").as_str().unwrap_or_default().to_owned();
    if word(serde_json::to_value(diagnosis.verdict)) != expected.verdict {
        complaints.push(format!("the verdict is {:?}, not {:?}", diagnosis.verdict, expected.verdict));
    }
    for must in &expected.must {
        let found = diagnosis.findings.iter().any(|finding| {
            finding.id == must.id
                && (must.gpu.is_none() || must.gpu == finding.scope.gpu)
                && must.severity.is_none_or(|severity| severity == finding.severity)
                && must.evidence.iter().all(|words| finding.evidence.iter().any(|line| line.contains(words)))
        });
        if !found {
            complaints.push(format!("this finding is missing: {must:?}"));
        }
    }
    for finding in &diagnosis.findings {
        let words = [
            finding.id.clone(),
            format!("class:{}", word(serde_json::to_value(finding.class))),
            format!("severity:{}", word(serde_json::to_value(finding.severity))),
        ];
        let forbidden = expected.must_not.iter().filter(|forbidden| words.iter().any(|word| word == *forbidden));
        complaints.extend(forbidden.map(|forbidden| format!("{} is a forbidden finding: {forbidden}", finding.id)));
        let listed = expected.must.iter().any(|must| must.id == finding.id);
        if !(expected.more || listed || finding.severity == Severity::Info) {
            complaints.push(format!("{} was not expected", finding.id));
        }
    }
    let missing = expected.summary.iter().filter(|words| !diagnosis.summary.contains(*words));
    complaints.extend(missing.map(|words| format!("no '{words}' in the summary: {}", diagnosis.summary)));
    let missing = expected.unknown.iter().filter(|words| !diagnosis.unknown.iter().any(|one| one.why.contains(*words)));
    complaints.extend(missing.map(|words| format!("no '{words}' in `unknown`: {:?}", diagnosis.unknown)));
    let health = diagnosis.health.clone();
    if word(serde_json::to_value(health.status)) != expected.health {
        complaints.push(format!("health is {:?}, not {:?}", health.status, expected.health));
    }
    if !complaints.is_empty() {
        complaints.push(told(&diagnosis));
    }
    assert_consistent(name, &diagnosis);
    complaints
}

/// Asserts the properties that every diagnosis must have.
fn assert_consistent(name: &str, diagnosis: &Diagnosis) {
    one_answer::assert_one_answer(name, diagnosis);
    for finding in &diagnosis.findings {
        let rule = catalogue_of_rules().iter().find(|rule| rule.id == finding.id);
        let rule = rule.unwrap_or_else(|| panic!("{name}: {} is not in the catalogue", finding.id));
        let names_pod = finding.evidence.iter().any(|line| line.starts_with("pod "));
        let highest = if explains_pods(rule.id) && names_pod { Severity::Critical } else { rule.severity };
        assert!(
            finding.severity <= rule.highest_severity().max(highest),
            "{name}: {} is more severe than its rule",
            finding.id
        );
        let title = finding.title.strip_prefix("Earlier: ").unwrap_or(&finding.title);
        assert_eq!((finding.class, title), (rule.class, rule.title), "{name}: {}", finding.id);
        assert!(!finding.evidence.is_empty(), "{name}: {} has no evidence", finding.id);
        assert!(!finding.action.text.is_empty() && !finding.action.text.contains('{'), "{name}: {}", finding.id);
    }
    let worst = diagnosis.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Info);
    let fits = match diagnosis.verdict {
        Verdict::Fatal => worst == Severity::Fatal,
        Verdict::Critical => worst == Severity::Critical,
        Verdict::Warning => worst == Severity::Warning,
        Verdict::Healthy | Verdict::NoFaultFound | Verdict::Unknown => worst == Severity::Info,
    };
    assert!(fits, "{name}: verdict {:?}, worst finding {worst:?}", diagnosis.verdict);
    let status = diagnosis.health.status;
    let agrees = match diagnosis.verdict {
        Verdict::Fatal | Verdict::Critical => status == HealthStatus::Unhealthy,
        Verdict::Warning => status == HealthStatus::Degraded,
        Verdict::Healthy => status == HealthStatus::Healthy,
        Verdict::NoFaultFound | Verdict::Unknown => status == HealthStatus::Unknown,
    };
    assert!(agrees, "{name}: verdict {:?}, status {status:?}", diagnosis.verdict);
    assert!(diagnosis.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)), "{name}: order");
    assert!(!diagnosis.summary.is_empty(), "{name}");
    plans_cover_their_findings(name, diagnosis);
}

/// Checks that each critical or fatal finding that recommends a reset or a reboot is in a plan, and that the plan
/// includes this action.
fn plans_cover_their_findings(name: &str, diagnosis: &Diagnosis) {
    let asks = |finding: &&Finding| {
        finding.severity >= Severity::Critical && finding.action.code.includes(ActionCode::ResetGpu)
    };
    for finding in diagnosis.findings.iter().filter(asks) {
        let of_it = |plan: &&Plan| {
            let same_place = plan.addresses.is_empty()
                || finding.addresses.is_empty()
                || plan.addresses.iter().any(|address| finding.addresses.contains(address));
            same_place && plan.findings.contains(&finding.id)
        };
        let plan = diagnosis.plan.iter().find(of_it);
        let plan = plan.unwrap_or_else(|| panic!("{name}: no plan for {}: {:?}", finding.id, diagnosis.plan));
        let code = finding.action.code;
        // A reboot does not include the return of the board, and a return does not include a reboot. The steps of the
        // plan contain the return.
        let returns = code == ActionCode::ContactVendor && plan.rma > Rma::No;
        let covered = plan.action.includes(code) || plan.action == ActionCode::ContactVendor || returns;
        assert!(covered, "{name}: {} asks for {code:?}, its plan is {:?}", finding.id, plan.action);
    }
}

#[test]
fn every_scenario_meets_its_expectation() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= 40, "{} scenarios", scenarios.len());
    let complaints: Vec<String> = scenarios
        .iter()
        .map(|(name, (report, expected))| (name, complaints(name, report, expected)))
        .filter(|(_, complaints)| !complaints.is_empty())
        .map(|(name, complaints)| format!("{name}:\n  {}", complaints.join("\n  ")))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Tests that every word in an expectation exists, because a misspelled word in the list of forbidden findings would
/// have no effect.
#[test]
fn every_word_of_an_expectation_exists() {
    let words = |of: &str, values: Vec<Value>| {
        values.into_iter().map(move |value| format!("{of}:{}", value.as_str().unwrap_or_default())).collect::<Vec<_>>()
    };
    let rules = catalogue_of_rules();
    let classes = rules.iter().map(|rule| serde_json::to_value(rule.class).expect("a class")).collect();
    let severities = rules.iter().map(|rule| serde_json::to_value(rule.severity).expect("a severity")).collect();
    let known = [words("class", classes), words("severity", severities)].concat();
    for (name, (_, expected)) in scenarios() {
        for word in expected.must.iter().map(|must| must.id).chain(expected.must_not) {
            assert!(rules.iter().any(|rule| rule.id == word) || known.iter().any(|one| one == word), "{name}: {word}");
        }
    }
}

/// The probe and the rules must use the same codes: a code that only the probe uses would be a fault without a finding.
#[test]
fn every_failure_of_nvml_has_a_finding() {
    let (base, _) = &scenarios()["l40s-4-idle"];
    let grave = |report: &Report| {
        let diagnosis = diagnose(report, &KubernetesFacts::default());
        diagnosis.findings.iter().any(|finding| finding.severity >= Severity::Critical)
    };
    for code in syringe_core::nvml_codes::FAILURES {
        let why = Problem { what: "NVML".into(), why: "no".into(), code: code.into(), ..Problem::default() };
        let mut whole = base.clone();
        let sections = &mut whole.sections;
        sections.inventory = Some(Section::failed(why.clone()));
        sections.telemetry = Some(Section::failed(why.clone()));
        sections.topology = Some(Section::failed(why.clone()));
        sections.ecc = Some(Section::failed(why.clone()));
        sections.mig = Some(Section::failed(why.clone()));
        if [ACCESS_BLOCKED, NO_PERMISSION].contains(&code) {
            assert!(!grave(&whole), "{code}: the device files are there, so only the probe has no access");
            let host = whole.sections.host.as_mut().and_then(|host| host.data.as_mut()).expect("a host");
            host.device_nodes.clear();
        }
        assert!(grave(&whole), "{code} for NVML as a whole");

        let mut one: Value = serde_json::to_value(base).expect("JSON");
        for name in ["inventory", "telemetry", "topology", "ecc", "mig"] {
            let section = &mut one["sections"][name];
            section["data"]["gpus"].as_array_mut().expect("GPUs").remove(1);
            section["problems"] = serde_json::json!([Problem { gpu: Some(1), ..why.clone() }]);
        }
        assert!(grave(&serde_json::from_value(one).expect("a report")), "{code} for one GPU");
    }
}

/// Compares `value` with `snapshots/diagnosis/NAME.snap`.
fn reviewed(name: &str, value: &impl serde::Serialize) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots/diagnosis");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| assert_json_snapshot!(name, value));
}

#[test]
fn every_diagnosis_matches_its_snapshot() {
    for (name, (report, expected)) in scenarios() {
        reviewed(&name, &diagnose(&report, &expected.cluster));
    }
}

#[test]
fn a_healthy_node_of_eight_gpus_fits_a_thousand_tokens() {
    let (report, expected) = &scenarios()["healthy-h100-8"];
    let answer = serde_json::to_string(&diagnose(report, &expected.cluster)).expect("an answer");
    // A token has about four bytes.
    assert!(answer.len() / 4 <= 1000, "{} bytes", answer.len());
}

#[test]
fn a_summary_of_one_section_is_about_that_section_only() {
    let (report, _) = &scenarios()["healthy-h100-8"];
    let mut telemetry = Report { kernel_log: Vec::new(), ..report.clone() };
    telemetry.sections =
        syringe_core::report::Sections { telemetry: report.sections.telemetry.clone(), ..Default::default() };
    let diagnosis = diagnose(&telemetry, &KubernetesFacts::default());
    assert_eq!(diagnosis.verdict, Verdict::NoFaultFound, "{}", told(&diagnosis));
    assert_eq!(diagnosis.checked, [SectionName::Telemetry]);
    assert_eq!(diagnosis.not_requested.len(), 8);
    assert!(diagnosis.summary.contains("Only telemetry was checked"), "{}", diagnosis.summary);
    assert!(!diagnosis.summary.contains("Xid") && !diagnosis.summary.contains("memory"), "{}", diagnosis.summary);
    assert!(diagnosis.summary.contains("All 8 GPUs"), "{}", diagnosis.summary);
    let nothing = diagnose(&Report::default(), &KubernetesFacts::default());
    assert_eq!(nothing.verdict, Verdict::Unknown, "{}", told(&nothing));
}

#[test]
fn ids_are_unique_and_in_kebab_case() {
    let mut ids: Vec<&str> = catalogue_of_rules().iter().map(|rule| rule.id).collect();
    assert!(
        ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'))
    );
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    let listed: Vec<String> = catalogue_of_rules()
        .iter()
        .map(|rule| format!("{} {:?} {:?} {:?}: {}", rule.id, rule.severity, rule.class, rule.action, rule.title))
        .collect();
    reviewed("catalogue-of-rules", &listed);
}

/// Xids that programs cause never lead to a hardware finding. A pattern of such Xids is at most a warning.
#[test]
fn application_codes_alone_never_condemn_hardware() {
    let (base, _) = &scenarios()["healthy-h100-8"];
    let pci = gpu_addresses(base)[2].0.clone();
    for code in [13, 31, 43, 45, 68] {
        for pids in [1_u32, 2, 40] {
            let mut report = base.clone();
            let log = report.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log");
            for pid in 0..pids {
                log.events.push(syringe_core::facts::kernel_log::KernelEvent {
                    code: Some(code),
                    pci_address: Some(pci.clone()),
                    gpu_index: Some(2),
                    pid: Some(1000 + pid),
                    process: Some(format!("job-{pid}")),
                    count: 9,
                    first: base.taken_at,
                    last: base.taken_at,
                    ..Default::default()
                });
            }
            let diagnosis = diagnose(&report, &KubernetesFacts::default());
            for finding in &diagnosis.findings {
                let limit = if pids == 1 { Severity::Info } else { Severity::Warning };
                let condemned = finding.class == Class::Hardware && finding.severity > limit;
                assert!(!condemned && finding.severity <= Severity::Warning, "{code} {pids}: {}", told(&diagnosis));
            }
        }
    }
}
