//! Tests that a finding, the plan of the same answer and the explanation of a pod never contradict each other.
//! `assert_one_answer`, `strength`: check this for a diagnosis, and return the strongest action of a text.

use diagnosis::diagnose;
use diagnosis::explanation::explain;
use diagnosis::finding::{Diagnosis, Finding, Plan, Rma, Urgency};
use jiff::SignedDuration;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::report::{Report, Section};

use super::explained::{allocated, pod};
use super::{assert_consistent, scenarios};

/// Words of an action that lets work continue, and words of an action that stops work at once.
const WAITS: [&str; 5] = [
    "Other work on",
    "at the next drain",
    "when its jobs have ended",
    "when its work has finished",
    "next maintenance",
];
const AT_ONCE: [&str; 3] = ["stop its running work now", "Stop jobs that use it now", "before its work continues"];

fn says(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Returns the strongest action of a text without a condition: 0 for none, 1 for a reset, 2 for a reboot, 3 for a power
/// cycle.
pub(super) fn strength(text: &str) -> u8 {
    let mut depth = 0;
    let text = text.to_lowercase();
    let plain = text.chars().filter(|one| {
        depth += i32::from(*one == '(') - i32::from(*one == ')');
        depth == 0 && *one != ')'
    });
    let plain: String = plain.collect::<String>().replace("stop and start", "power-cycle");
    let is_free = |clause: &&str| {
        let clause = format!(" {}", clause.trim());
        ![" if ", " unless ", " otherwise"].iter().any(|word| clause.contains(word))
    };
    let before = |clause: &str, verb: &str| {
        // After one of these words, the verb does not recommend the action: it is a noun, a participle, negated, or the
        // second choice.
        let words =
            "a an the no not or plain warm separate was were is are last next each every before after this needed";
        let at = clause.split_whitespace().collect::<Vec<_>>();
        at.windows(2)
            .any(|pair| pair[1].trim_matches([',', ':']) == verb && !words.split(' ').any(|word| word == pair[0]))
            || at.first() == Some(&verb)
    };
    let of = |clause: &str| {
        let verbs = [("power-cycle", 3), ("reboot", 2), ("reset", 1)];
        verbs.into_iter().find(|(verb, _)| before(clause, verb)).map_or(0, |(_, strength)| strength)
    };
    plain
        .split(". ")
        .flat_map(|sentence| sentence.split(';'))
        .filter(is_free)
        .map(|clause| of(clause.trim_end_matches('.')))
        .max()
        .unwrap_or(0)
}

/// Asserts that the verbs after the names of several GPUs are in the plural, and that a text begins with an upper-case
/// letter.
fn assert_grammar(name: &str, text: &str) {
    assert!(!text.contains("its GPUs of"), "{name}: {text}");
    let is_command =
        |text: &str| text.starts_with("nvidia") || text.starts_with("systemctl") || text.starts_with("kubectl");
    assert!(!text.starts_with("the NVSwitch") && !text.starts_with("the GPU"), "{name}: {text}");
    assert!(
        is_command(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) || text.starts_with("gpu-"),
        "{name}: {text}"
    );
    for (at, _) in text.match_indices("GPUs ") {
        let names =
            text[at + 5..].trim_start_matches(|one: char| one.is_ascii_digit() || [',', '-', ' '].contains(&one));
        if names.len() == text.len() - at - 5 {
            continue;
        }
        let names = names
            .strip_prefix("of ")
            .or_else(|| names.strip_prefix("on "))
            .map_or(names, |rest| rest.split_once(' ').map_or("", |(_, rest)| rest));
        let word = names.split([' ', '.', ',', ';', ':']).next().unwrap_or_default();
        let is_singular = word.ends_with('s') && !["as", "unless", "its", "this", "across"].contains(&word);
        assert!(!is_singular, "{name}: \"{word}\" after several GPUs: {text}");
    }
}

/// Returns the plans that cover a finding about a GPU.
fn plans_of<'d>(diagnosis: &'d Diagnosis, finding: &Finding) -> Vec<&'d Plan> {
    let covers = |plan: &&Plan| {
        plan.addresses.is_empty() || plan.addresses.iter().any(|address| finding.addresses.contains(address))
    };
    diagnosis.plan.iter().filter(covers).collect()
}

/// Asserts that the findings of a diagnosis and its plans recommend the same actions.
pub(super) fn assert_one_answer(name: &str, diagnosis: &Diagnosis) {
    let texts = diagnosis.findings.iter().map(|finding| &finding.action.text);
    let of_plans = |plan: &'_ Plan| {
        plan.steps.iter().chain([&plan.before_plan, &plan.if_pod_deleted]).cloned().collect::<Vec<_>>()
    };
    let texts = texts.cloned().chain(diagnosis.plan.iter().flat_map(of_plans));
    texts.for_each(|text| assert_grammar(name, &text));
    for plan in &diagnosis.plan {
        let text = format!("{} {}", plan.before_plan, plan.steps.join(" "));
        let waits = plan.before_plan.starts_with("Work on ") && plan.before_plan.contains("may continue");
        let suspect = plan.results.contains("Do not use");
        assert!(!(waits && suspect), "{name}: work continues whose results nobody can use: {plan:#?}");
        match plan.urgency {
            Urgency::Now => assert!(!says(&text, &WAITS), "{name}: {plan:#?}"),
            Urgency::WhenJobsEnd | Urgency::NextMaintenance => {
                assert!(!says(&plan.before_plan, &AT_ONCE), "{name}: {plan:#?}");
            }
        }
    }
    for finding in diagnosis.findings.iter().filter(|one| one.severity > Severity::Info && !one.addresses.is_empty()) {
        let text = &finding.action.text;
        assert!(!text.contains("reset the NVSwitch") && !text.contains("on the NVSwitch"), "{name}: {finding:#?}");
        for plan in plans_of(diagnosis, finding) {
            let told = || format!("{name}: {finding:#?}\n{plan:#?}");
            assert!(!text.contains("No action now"), "{}", told());
            if !plan.findings.contains(&finding.id) {
                continue;
            }
            let steps = plan.steps.join(" ");
            let returns = text.contains("(RMA)") && finding.severity >= Severity::Critical;
            assert!(!returns || plan.rma > Rma::No, "the text returns a GPU that the plan does not return. {}", told());
            let of_plan = plan.steps.iter().map(|step| strength(step)).max().unwrap_or(0);
            assert!(strength(text) <= of_plan, "the text asks for more than the plan. {}", told());
            let code = finding.action.code;
            let has_step = match code {
                ActionCode::UpdateSoftware | ActionCode::RestartPod => true,
                ActionCode::CheckCabling | ActionCode::CheckCooling => {
                    says(&steps, &["check seating", "Check airflow", "operator of its host"])
                }
                // The operator of the host returns the GPU of a virtual machine.
                ActionCode::ContactVendor => says(&steps, &["(RMA)", "operator of its host"]),
                _ => plan.action.includes(code),
            };
            assert!(has_step, "the plan is weaker than the finding. {}", told());
            let asks = |one: &&Finding| plan.findings.contains(&one.id) && one.action.code.includes(plan.action);
            assert!(diagnosis.findings.iter().any(|one| asks(&one)), "no finding asks for the plan. {}", told());
            match plan.urgency {
                // The urgency is that of the worst finding: the other findings refer to the plan.
                Urgency::Now => assert!(!says(text, &WAITS), "{}", told()),
                Urgency::WhenJobsEnd | Urgency::NextMaintenance => assert!(!says(text, &AT_ONCE), "{}", told()),
            }
        }
    }
}

/// Returns a node with an Xid of GPU 0. The job of the node began either long before or after the Xid.
fn node_with(base: &Report, code: u32, minutes: i64, readable: bool, new_program: bool) -> Report {
    let mut report = base.clone();
    let now = report.taken_at.expect("a time");
    let gpu = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus[0].clone()).expect("a GPU");
    let when = Some(now - SignedDuration::from_mins(minutes));
    let event = KernelEvent {
        kind: Kind::Xid,
        code: Some(code),
        pci_address: gpu.pci_address,
        gpu_index: Some(0),
        count: 1,
        first: when,
        last: when,
        ..KernelEvent::default()
    };
    report.sections.xid.as_mut().and_then(|section| section.data.as_mut()).expect("a log").events.push(event);
    if !readable {
        let telemetry = report.sections.telemetry.as_mut().and_then(|section| section.data.as_mut());
        telemetry.expect("telemetry").gpus.retain(|gpu| gpu.index != 0);
    }
    let begun = now - if new_program { SignedDuration::from_mins(10) } else { SignedDuration::from_hours(40) };
    let processes = report.sections.processes.as_mut().and_then(|section| section.data.as_mut()).expect("processes");
    processes.processes.iter_mut().for_each(|process| process.started_at = Some(begun));
    report
}

#[test]
fn each_xid_has_one_action_in_finding_plan_and_explanation() {
    let (base, expected) = scenarios().remove("healthy-h100-8").expect("the scenario");
    let uuid = Section::data_of(&base.sections.inventory).and_then(|inventory| inventory.gpus[0].uuid.clone());
    let uuid = uuid.expect("a UUID");
    let mut planned = 0;
    for entry in syringe_core::kernel_log::xids() {
        // Codes of severity information differ only in their text.
        let is_fault = entry.severity > Severity::Info;
        let ages = if is_fault { &[2, 20, 26 * 60][..] } else { &[20] };
        let states = [(true, false), (true, true), (false, false), (false, true)];
        for &minutes in ages {
            for &(readable, new_program) in if is_fault { &states[..] } else { &states[..1] } {
                let name = format!("Xid {}, {minutes} min, readable {readable}, new program {new_program}", entry.code);
                let report = node_with(&base, entry.code, minutes, readable, new_program);
                let diagnosis = diagnose(&report, &expected.cluster);
                assert_consistent(&name, &diagnosis);
                let of_gpu = |finding: &&Finding| finding.scope.gpu == Some(0) && finding.severity > Severity::Info;
                let worst = diagnosis.findings.iter().filter(of_gpu).max_by_key(|finding| finding.severity);
                let grave = worst.filter(|finding| finding.severity >= Severity::Critical);
                assert!(
                    grave.is_none() || !diagnosis.plan.is_empty(),
                    "{name}: a grave fault without a plan: {worst:#?}"
                );
                let case =
                    entry.sre_action.contains("pen a support case") && !entry.sre_action.contains("support case if");
                let told = serde_json::to_string(&diagnosis).expect("a diagnosis");
                let said = told.contains("pen a support case") || told.contains("(RMA)");
                assert!(!case || worst.is_none() || said, "{name}: the support case is lost: {diagnosis:#?}");
                let Some(plan) = diagnosis.plan.first() else { continue };
                planned += 1;
                let mut pod = pod(report.taken_at.expect("a time"), "Running", "");
                let begun = base.taken_at.map(|now| now - SignedDuration::from_hours(40));
                (pod.created, pod.scheduled) = (begun, begun);
                let explained = explain(&pod, Some((&allocated(&report, &uuid), &diagnosis)), None);
                let (code, text) = (explained.action.code, &explained.action.text);
                assert!(plan.action.includes(code), "{name}: {explained:#?} {plan:#?}");
                let resets = code.includes(ActionCode::ResetGpu);
                assert!(!resets || code == plan.action, "{name}: {explained:#?} {plan:#?}");
                match plan.urgency {
                    Urgency::Now => assert!(!says(text, &WAITS), "{name}: {explained:#?} {plan:#?}"),
                    _ => assert!(!says(text, &AT_ONCE), "{name}: {explained:#?} {plan:#?}"),
                }
                let ends = explained.evidence.iter().any(|line| line.contains("the driver ends"));
                let continues = diagnosis.findings.iter().any(|finding| finding.work_continues && of_gpu(&finding));
                assert!(!(ends && continues), "{name}: {explained:#?}");
            }
        }
    }
    assert!(planned > 300, "{planned} plans");
}
