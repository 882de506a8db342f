//! Generates `docs/findings.md` and `docs/checks.md` from the rules and a table. Tests that both are current, that
//! the facts of each rule exist, and that each code of DCGM belongs to a finding.
//!
//! The table is `findings/checks.tsv`.
//!
//! `INSTA_UPDATE=always cargo test -p diagnosis --test findings` writes the pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use diagnosis::Rule;
use diagnosis::{catalogue_of_rules, explains_pods};
use serde_json::Value;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::host::Host;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::tsv::{parts, rows};

const CLASSES: [(Class, &str, &str); 6] = [
    (Class::Hardware, "Hardware", "The GPU, its memory or its board."),
    (Class::Fabric, "Fabric", "PCIe, NVLink, NVSwitch, network cards."),
    (Class::Thermal, "Thermal", "Heat."),
    (Class::Power, "Power", "Power supply and power limits."),
    (
        Class::Driver,
        "Driver and set-up",
        "Driver, firmware, container runtime, NVIDIA's stack on Kubernetes, and problems that limit what can be read.",
    ),
    (Class::Application, "Application", "Programs that use the GPUs."),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Compares a generated page with its file, and writes the file if the tests are run to update files.
fn assert_current(name: &str, text: &str) {
    if std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always") {
        std::fs::write(path(name), text).expect(name);
    }
    let is = std::fs::read_to_string(path(name)).unwrap_or_default();
    let differs = text.lines().find(|line| !is.lines().any(|one| one == *line)).unwrap_or_default();
    assert!(
        is == text,
        "docs/{name} is not current: INSTA_UPDATE=always writes the file. First missing line: {differs}"
    );
}

/// Returns the highest severity of a rule, with the condition for a higher one.
fn severities(rule: &Rule) -> String {
    let no_gpus = (rule.highest_severity() > rule.severity).then_some("no pod can get a GPU of the node");
    let no_start = explains_pods(rule.id).then_some("a pod of the node cannot run because of it");
    let conditions: Vec<&str> = no_gpus.into_iter().chain(no_start).collect();
    match (rule.severity, conditions.as_slice()) {
        (Severity::Warning, [_, ..]) => format!("warning; critical if {}", conditions.join(", or ")),
        (other, _) => severity(other).to_owned(),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
        Severity::Fatal => "fatal",
    }
}

fn entry(rule: &Rule) -> String {
    let Rule { id, title, advice, reference, meaning, reads, .. } = rule;
    let advice = advice.replace("{gpu}", "the GPU").replace("{node}", "the node");
    let mut text = format!("### {id}\n\n**{title}** ({})\n\n{meaning}\n\n", severities(rule));
    let _ = writeln!(text, "- Facts: {reads}");
    let _ = writeln!(text, "- Action: {advice}");
    if let Some(reference) = reference {
        let _ = writeln!(text, "- See: <{reference}>");
    }
    if let Some(code) = rule.dcgm() {
        let _ = writeln!(text, "- DCGM: `{code}`");
    }
    text.push('\n');
    text
}

fn written() -> String {
    let mut text = String::from(
        "# Findings\n\n\
         This file is generated from the rules in `launcher/diagnosis/src/rules/` by `tests/findings.rs`.\n\n\
         A finding has an id, which does not change its meaning. The severity below is the highest that a finding of the rule \
         can have: `fatal` (out of service), `critical` (work on it fails or will fail), `warning` (works; plan something), \
         `info` (nothing to do, or past). Facts are fields of the report of the probe (`section.field`; `xid` is the kernel \
         log) and of what Kubernetes says of the node (`kubernetes.field`). A finding quotes the values of these facts as its \
         evidence. The action of a finding can be more specific than the usual one below.\n\n",
    );
    for (class, heading, about) in CLASSES {
        let _ = write!(text, "## {heading}\n\n{about}\n\n");
        let mut rules: Vec<&Rule> = catalogue_of_rules().iter().filter(|rule| rule.class == class).collect();
        rules.sort_by_key(|rule| rule.id);
        rules.iter().for_each(|rule| text.push_str(&entry(rule)));
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn the_page_of_findings_is_current() {
    assert_current("findings.md", &written());
}

#[test]
fn every_rule_is_on_the_page_and_says_what_it_means() {
    let text = written();
    for rule in catalogue_of_rules() {
        assert!(text.contains(&format!("\n### {}\n", rule.id)), "{}", rule.id);
        assert!(rule.meaning.ends_with('.') && !rule.meaning.contains('{'), "{}: {}", rule.id, rule.meaning);
        assert!(!rule.reads.is_empty(), "{} does not list the facts that it reads", rule.id);
    }
}

/// Adds the names of all fields in a value.
fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            names(value, into);
        }),
        Value::Array(list) => list.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

/// Returns every field that occurs in a scenario, by section.
fn fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for scenario in scenarios::all() {
        let report = scenarios::in_full(&scenario.report());
        for (section, content) in report["sections"].as_object().into_iter().flatten() {
            names(&content["data"], all.entry(section.clone()).or_default());
        }
    }
    // A scenario contains the lines of the kernel log; the parser creates the section from these lines.
    let log = KernelLog { events_omitted: 1, ..KernelLog::default() };
    names(&serde_json::to_value(log).expect("a log"), all.entry("xid".into()).or_default());
    // The tests of the rule about these services contain services that are not running.
    let host = Host { services_not_running: vec![String::new()], ..Host::default() };
    names(&serde_json::to_value(host).expect("a host"), all.entry("host".into()).or_default());
    let cluster = serde_json::to_value(KubernetesFacts::default()).expect("facts");
    names(&cluster, all.entry("kubernetes".into()).or_default());
    all
}

#[test]
fn the_facts_of_a_rule_exist() {
    let fields = fields();
    let mut unknown = Vec::new();
    for rule in catalogue_of_rules() {
        let words = rule.reads.split([' ', ',', '(', ')', ':']);
        for (section, field) in words.filter_map(|word| word.split_once('.')) {
            let known = fields.get(section).is_some_and(|names| field.split('.').all(|part| names.contains(part)));
            if !known {
                unknown.push(format!("{}: {section}.{field} does not exist", rule.id));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// A row of the table of checks.
struct Check {
    /// `others`: at least two other systems have the check. `lead`: at most one other system has it. `active`: the
    /// check puts load on GPUs.
    group: &'static str,
    /// From 5 (decides many incidents at low cost) down to 3. Active tests have lower values.
    value: &'static str,
    name: &'static str,
    /// `judged`, `partly`, `open`, or `out` (intentionally left out).
    state: &'static str,
    /// Ids of findings, or commands.
    by: Vec<&'static str>,
    note: &'static str,
}

fn checks() -> Vec<Check> {
    let check = |row: Vec<&'static str>| match *row {
        [group, value, name, state, by, note] => {
            let by = parts(by).into_iter().filter(|one| *one != "-").collect();
            Check { group, value, name, state, by, note: Some(note).filter(|note| *note != "-").unwrap_or_default() }
        }
        _ => panic!("a row has six cells: {row:?}"),
    };
    rows(include_str!("findings/checks.tsv")).map(check).collect()
}

/// Groups of the page: name, heading, explanation.
const GROUPS: [(&str, &str, &str); 3] = [
    (
        "others",
        "Checks that at least two other systems have",
        "Fleet monitors, node problem detectors and health checks of clouds were compared.",
    ),
    ("lead", "Checks that at most one other system has", ""),
    (
        "active",
        "Active tests",
        "Active tests put load on GPUs that jobs may use. gpu-syringe runs no active tests. Run them after a drain.",
    ),
];

fn page_of_checks() -> String {
    let all = checks();
    let mut text = String::from(
        "# Checks\n\n\
         This file is generated from `tests/findings/checks.tsv` and from the rules by `tests/findings.rs`.\n\n\
         Each row is a check that monitors of GPU nodes make or could make, with its value from 5 (decides many incidents at low cost) \
         to 1. *Judged*: a finding of [findings.md](findings.md) or a command covers the usual form of the fault. *Partly*: covers only \
         one form of the fault, or only if another monitor reports it. *Open*: not covered yet. *Out*: intentionally left out.\n\n",
    );
    for (group, heading, about) in GROUPS {
        let of_group: Vec<&Check> = all.iter().filter(|check| check.group == group).collect();
        let judged = of_group.iter().filter(|check| check.state == "judged").count();
        let _ = write!(text, "## {heading}\n\n");
        if !about.is_empty() {
            let _ = write!(text, "{about} ");
        }
        let _ = write!(
            text,
            "{judged} of {} are judged.\n\n| check | value | state | by | note |\n|---|--:|---|---|---|\n",
            of_group.len()
        );
        for Check { value, name, state, by, note, .. } in of_group {
            let link = |one: &&str| match one.contains(' ') {
                true => format!("`{one}`"),
                false => format!("[{one}](findings.md#{one})"),
            };
            let by: Vec<String> = by.iter().map(link).collect();
            let _ = writeln!(text, "| {name} | {value} | {state} | {} | {note} |", by.join(", "));
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn the_page_of_checks_is_current_and_names_only_findings_that_exist() {
    let ids: BTreeSet<&str> = catalogue_of_rules().iter().map(|rule| rule.id).collect();
    let mut names = BTreeSet::new();
    for Check { group, name, state, by, note, .. } in checks() {
        assert!(names.insert(name), "{name} is listed twice");
        assert!(GROUPS.iter().any(|(known, ..)| *known == group), "{name}: {group}");
        let unknown: Vec<&&str> =
            by.iter().filter(|one| !ids.contains(**one) && !one.starts_with("gpu-syringe ")).collect();
        assert!(unknown.is_empty(), "{name}: no such finding: {unknown:?}");
        match state {
            "judged" => assert!(!by.is_empty(), "{name}"),
            "partly" => assert!(!by.is_empty() && !note.is_empty(), "{name}"),
            "open" | "out" => assert!(by.is_empty() && !note.is_empty(), "{name}"),
            _ => panic!("{name}: {state}"),
        }
    }
    assert_current("checks.md", &page_of_checks());
}

#[test]
fn each_code_of_dcgm_belongs_to_a_finding() {
    let ids: BTreeSet<&str> = catalogue_of_rules().iter().map(|rule| rule.id).collect();
    for row in rows(include_str!("../launcher/diagnosis/src/data/dcgm.tsv")) {
        let [id, code, source] = row[..] else { panic!("a row has three cells: {row:?}") };
        assert!(ids.contains(id) && code.starts_with("DCGM_FR_") && source.starts_with("https://"), "{row:?}");
    }
}
