//! Tests that `docs/findings.md`, which is generated from the rules, is current.
//!
//! `INSTA_UPDATE=always cargo test -p syringe-core --test findings` writes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use diagnosis::Rule;
use diagnosis::catalogue_of_rules;
use serde_json::Value;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubernetes::node::KubernetesFacts;

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

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings.md")
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
    let mut text = format!("### {id}\n\n**{title}** ({})\n\n{meaning}\n\n", severity(rule.severity));
    let _ = writeln!(text, "- Facts: {reads}");
    let _ = writeln!(text, "- Action: {advice}");
    if let Some(reference) = reference {
        let _ = writeln!(text, "- See: <{reference}>");
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
    let text = written();
    if std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always") {
        std::fs::write(path(), &text).expect("docs/findings.md");
    }
    let is = std::fs::read_to_string(path()).unwrap_or_default();
    let differs = text.lines().find(|line| !is.lines().any(|one| one == *line)).unwrap_or_default();
    assert!(
        is == text,
        "docs/findings.md is not current: INSTA_UPDATE=always writes the file. First missing line: {differs}"
    );
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
