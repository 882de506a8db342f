//! Test that each change of a single fact of a healthy node changes the diagnosis, except for the changes in a table.
//!
//! `docs/facts.md` shows the result: each kind of fact, the rules that read this fact, and the changes that are not judged,
//! with the reason (`single_changes/not_judged.tsv`).

#[path = "single_changes/machine.rs"]
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use diagnosis::diagnose;
use diagnosis::finding::Diagnosis;
use serde_json::{Value, json};
use syringe_core::facts::host::Host;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::Report;

/// A way to change one fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// The fact, or one element of a list, is missing.
    Removed,
    /// `true` becomes `false`, or the reverse.
    Flipped,
    /// A number becomes zero.
    Zero,
    /// A number becomes half of its value.
    Half,
    /// A number becomes far too large.
    Beyond,
    /// A word becomes another word that some scenario has for this fact.
    Word,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Flipped => "flipped",
            Self::Zero => "zero",
            Self::Half => "half",
            Self::Beyond => "beyond",
            Self::Word => "word",
        }
    }
}

/// Returns the facts of a node, from the report and from the Kubernetes API, as one JSON document.
fn document(report: &Report, cluster: &KubernetesFacts) -> Value {
    let mut sections = ::scenarios::in_full(report)["sections"].take();
    let mut document = json!({"kubernetes": cluster});
    for (name, section) in sections.as_object_mut().into_iter().flatten() {
        if name != "xid" {
            document[name] = section["data"].take();
        }
    }
    document
}

/// The path of a fact without positions in lists: `telemetry.gpus[].power.limit_milliwatts`.
type Kind = String;

/// One step into the document.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    At(usize),
}

/// In a list with more objects than this, only the first object and the third object from the end are changed.
const FEW: usize = 3;

/// Collects the path of every fact in the document.
fn walk(value: &Value, path: &mut Vec<Step>, kind: &str, visit: &mut dyn FnMut(&[Step], &str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let kind = if kind.is_empty() { key.clone() } else { format!("{kind}.{key}") };
                path.push(Step::Key(key.clone()));
                visit(path, &kind, value);
                walk(value, path, &kind, visit);
                path.pop();
            }
        }
        Value::Array(elements) => {
            let kind = format!("{kind}[]");
            for (at, value) in elements.iter().enumerate() {
                if elements.len() > FEW && at != 0 && at != elements.len() - FEW {
                    continue;
                }
                path.push(Step::At(at));
                visit(path, &kind, value);
                walk(value, path, &kind, visit);
                path.pop();
            }
        }
        _ => {}
    }
}

fn at_mut<'v>(document: &'v mut Value, path: &[Step]) -> &'v mut Value {
    path.iter().fold(document, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::At(at) => &mut value[*at],
    })
}

fn remove(document: &mut Value, path: &[Step]) {
    let Some((last, parent)) = path.split_last() else { return };
    match (at_mut(document, parent), last) {
        (Value::Object(fields), Step::Key(key)) => drop(fields.shift_remove(key)),
        (Value::Array(elements), Step::At(at)) => drop(elements.remove(*at)),
        _ => {}
    }
}

/// The words that occur in the scenarios for each kind of fact.
static WORDS: LazyLock<BTreeMap<Kind, BTreeSet<String>>> = LazyLock::new(|| {
    let mut words: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
    for (report, expected) in super::scenarios().into_values() {
        walk(&document(&report, &expected.cluster), &mut Vec::new(), "", &mut |_, kind, value| {
            if let Some(word) = value.as_str() {
                words.entry(kind.to_owned()).or_default().insert(word.to_owned());
            }
        });
    }
    words
});

/// Maximum number of other words that are tried for a fact. A fact with more words in the scenarios is an identifier.
const WORDS_OF_A_FACT: usize = 2;

fn changes(kind: &str, value: &Value) -> Vec<(Change, Option<Value>)> {
    let mut changes = vec![(Change::Removed, None)];
    match value {
        Value::Bool(flag) => changes.push((Change::Flipped, Some((!flag).into()))),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let beyond = if number.abs() < 1000.0 { 4_000_000_000_u64 } else { 4_000_000_000_000_000 };
            if number != 0.0 {
                changes.push((Change::Zero, Some(0.into())));
            }
            if number.abs() >= 2.0 {
                #[allow(clippy::cast_possible_truncation, reason = "half of an integer")]
                changes.push((Change::Half, Some(((number / 2.0) as i64).into())));
            }
            changes.push((Change::Beyond, Some(beyond.into())));
        }
        Value::String(word) => {
            let others = WORDS.get(kind).into_iter().flatten().filter(|other| *other != word);
            changes.extend(others.take(WORDS_OF_A_FACT).map(|other| (Change::Word, Some(other.as_str().into()))));
        }
        _ => {}
    }
    changes
}

fn changed(document: &Value, path: &[Step], value: Option<&Value>) -> Value {
    let mut document = document.clone();
    match value {
        Some(value) => *at_mut(&mut document, path) = value.clone(),
        None => remove(&mut document, path),
    }
    document
}

/// Returns the conclusions of a diagnosis, without the values that the diagnosis quotes.
fn conclusions(diagnosis: &Diagnosis) -> BTreeSet<String> {
    let findings = diagnosis
        .findings
        .iter()
        .map(|one| format!("`{}` {:?} {:?} {:?}", one.id, one.severity, one.scope.gpu, one.scope.pid));
    let stages = diagnosis.stack.iter().map(|stage| format!("stage {:?} is {:?}", stage.stage, stage.state));
    let unknown = diagnosis.unknown.iter().map(|one| format!("unknown {one:?}"));
    let not_checked = diagnosis.not_checked.iter().map(|one| format!("not checked {one}"));
    let verdict = [format!("verdict {:?}", diagnosis.verdict)];
    findings.chain(stages).chain(unknown).chain(not_checked).chain(verdict).collect()
}

/// Returns the word for a conclusion in `docs/facts.md`: the id of a finding, or the kind of the conclusion.
fn judge_of(conclusion: &str) -> &str {
    let id = conclusion.strip_prefix('`').and_then(|rest| rest.find('`'));
    match id {
        Some(end) => &conclusion[..end + 2],
        None => conclusion.split(' ').next().unwrap_or_default(),
    }
}

/// A healthy node that can be read back from its document.
struct Base {
    report: Report,
    cluster: KubernetesFacts,
    document: Value,
    /// The time that each section took to read.
    durations: Value,
}

impl Base {
    fn named(name: &str) -> Self {
        let mut scenarios = super::scenarios();
        let of = if name == MACHINE { MACHINE_OF } else { name };
        let (mut report, mut expected) = scenarios.remove(of).expect(of);
        if name == MACHINE {
            machine::change(&mut report, &mut expected.cluster);
        }
        if name == WITH_CONTAINER {
            // A container is read only if the request is about a pod.
            let host =
                |report: &mut Report| report.sections.host.as_mut().and_then(|host| host.data.take()).expect("it");
            let (mut fine, _) = scenarios.remove("container-fine").expect("a container");
            let mut container = host(&mut fine).container;
            let data = host(&mut report);
            let view = container.as_mut().and_then(|container| container.view.as_mut()).expect("a view");
            view.mapped_libraries[0].version.clone_from(&data.driver.loaded);
            report.sections.host.as_mut().expect("it").data = Some(Host { container, ..data });
        }
        let document = document(&report, &expected.cluster);
        let mut durations = serde_json::to_value(&report.sections).expect("sections");
        durations
            .as_object_mut()
            .into_iter()
            .flatten()
            .for_each(|(_, section)| *section = section["duration_ms"].take());
        Self { report, cluster: expected.cluster, document, durations }
    }

    /// Diagnoses the node with one section of the document replaced. `None`: the section is no longer valid, or has the
    /// same meaning as before, for example without a value that is the default.
    fn diagnose(&self, section: &str, changed: &Value) -> Option<Diagnosis> {
        let mut report = self.report.clone();
        let cluster = if section == "kubernetes" { changed } else { &self.document["kubernetes"] };
        let cluster: KubernetesFacts = serde_json::from_value(cluster.clone()).ok()?;
        if section != "kubernetes" {
            let one: Report =
                serde_json::from_value(json!({"sections": {section: {"status": "ok", "duration_ms": self.durations[section], "data": changed}}})).ok()?;
            let (from, to) = (one.sections, &mut report.sections);
            match section {
                "inventory" => to.inventory = from.inventory,
                "telemetry" => to.telemetry = from.telemetry,
                "topology" => to.topology = from.topology,
                "ecc" => to.ecc = from.ecc,
                "processes" => to.processes = from.processes,
                "mig" => to.mig = from.mig,
                "kubelet" => to.kubelet = from.kubelet,
                _ => to.host = from.host,
            }
        }
        let is_same = report.sections == self.report.sections && cluster == self.cluster;
        (!is_same).then(|| diagnose(&report, &cluster))
    }
}

/// Healthy nodes whose facts were read completely.
const BASES: [&str; 6] = ["whole-h100-8", "whole-a100-mig-8", "whole-gb200-4", "whole-l40s-4", "whole-t4-1", MACHINE];

/// A virtual machine with RoCE and time-slicing, and the base node from which it is made.
const MACHINE: &str = "roce-machine";
const MACHINE_OF: &str = "whole-h100-8";

/// The base whose host section has a container.
const WITH_CONTAINER: &str = "whole-l40s-4";

/// The result of all changes of one kind to one kind of fact.
#[derive(Default)]
struct Heard {
    tried: usize,
    heard: usize,
    judges: BTreeSet<String>,
    unheard: Option<String>,
}

type Counts = BTreeMap<(Kind, Change), Heard>;

fn sweep(name: &str, counts: &Mutex<Counts>) {
    let base = Base::named(name);
    for (section, data) in base.document.as_object().expect("sections") {
        let before = conclusions(&diagnose(&base.report, &base.cluster));
        let mut places = Vec::new();
        walk(data, &mut Vec::new(), section, &mut |path, kind, value| {
            places.push((path.to_vec(), kind.to_owned(), value.clone()));
        });
        for (path, kind, value) in places {
            for (change, to) in changes(&kind, &value) {
                let Some(diagnosis) = base.diagnose(section, &changed(data, &path, to.as_ref())) else { continue };
                let after = conclusions(&diagnosis);
                let mut counts = counts.lock().expect("no panic");
                let heard = counts.entry((kind.clone(), change)).or_default();
                heard.tried += 1;
                if after == before {
                    heard.unheard.get_or_insert_with(|| format!("{name}: {value} becomes {to:?}"));
                } else {
                    heard.heard += 1;
                    heard.judges.extend(after.symmetric_difference(&before).map(|one| judge_of(one).to_owned()));
                }
            }
        }
    }
}

/// A row of the table of changes that are not judged.
struct NotJudged {
    /// A kind of fact. `*` at the end or at the start matches any text.
    kinds: &'static str,
    /// A change, or `any`.
    change: &'static str,
    reason: &'static str,
}

impl NotJudged {
    fn covers(&self, kind: &str, change: Change) -> bool {
        let kinds = match (self.kinds.strip_suffix('*'), self.kinds.strip_prefix('*')) {
            (Some(start), _) => kind.starts_with(start),
            (_, Some(end)) => kind.ends_with(end),
            _ => kind == self.kinds,
        };
        kinds && (self.change == "any" || self.change.split(' ').any(|one| one == change.as_str()))
    }
}

fn not_judged() -> Vec<NotJudged> {
    let rows = include_str!("single_changes/not_judged.tsv").lines().filter(|line| !line.starts_with('#'));
    let parsed = rows.map(|row| {
        let mut cells = row.split('\t');
        let mut cell = || cells.next().unwrap_or_else(|| panic!("a row has three cells: {row}"));
        NotJudged { kinds: cell(), change: cell(), reason: cell() }
    });
    parsed.collect()
}

/// Minimum percentage of the unlisted changes that must change the diagnosis.
const HEARD_PERCENT: usize = 95;

/// A base with a finding would hide the changes that cause the same finding.
#[test]
fn the_virtual_machine_is_healthy() {
    let base = Base::named(MACHINE);
    let diagnosis = diagnose(&base.report, &base.cluster);
    let found: Vec<_> = diagnosis.findings.iter().map(|one| (&one.id, one.severity, &one.evidence)).collect();
    assert_eq!(diagnosis.verdict, diagnosis::finding::Verdict::Healthy, "{found:#?} {:#?}", diagnosis.unknown);
}

#[test]
fn every_change_of_a_fact_is_heard_or_listed() {
    let counts: Mutex<Counts> = Mutex::default();
    std::thread::scope(|scope| {
        for name in BASES {
            let counts = &counts;
            scope.spawn(move || sweep(name, counts));
        }
    });
    let counts = counts.into_inner().expect("no panic");
    let listed = not_judged();
    let mut complaints = Vec::new();
    let (mut tried, mut heard) = (0, 0);
    for ((kind, change), count) in &counts {
        let is_listed = listed.iter().any(|row| row.covers(kind, *change));
        if !is_listed {
            tried += count.tried;
            heard += count.heard;
        }
        if let (false, 0, Some(example)) = (is_listed, count.heard, &count.unheard) {
            complaints.push(format!("{kind}\t{}\t{}\t{example}", change.as_str(), count.tried));
        }
    }
    if heard * 100 < tried * HEARD_PERCENT {
        complaints.push(format!("only {heard} of {tried} unlisted changes change the diagnosis"));
        let partly = counts.iter().filter(|((kind, change), count)| {
            count.heard > 0 && count.heard < count.tried && !listed.iter().any(|row| row.covers(kind, *change))
        });
        complaints.extend(partly.map(|((kind, change), count)| {
            let example = count.unheard.as_deref().unwrap_or_default();
            format!("{kind}\t{}\t{} of {}\t{example}", change.as_str(), count.heard, count.tried)
        }));
    }
    let is_stale = |row: &&NotJudged| {
        !counts.iter().any(|((kind, change), count)| row.covers(kind, *change) && count.heard < count.tried)
    };
    complaints
        .extend(listed.iter().filter(is_stale).map(|row| format!("{} {} is listed but judged", row.kinds, row.change)));
    let page = page(&counts, &listed, (heard, tried));
    if std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always") {
        std::fs::write(PAGE, &page).expect("docs/facts.md");
    }
    if std::fs::read_to_string(PAGE).unwrap_or_default() != page {
        complaints.push("docs/facts.md is not current: INSTA_UPDATE=always writes it".to_owned());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/facts.md");

/// Returns the page: each kind of fact, with the findings that its changes cause and the changes that are not judged.
fn page(counts: &Counts, listed: &[NotJudged], (heard, tried): (usize, usize)) -> String {
    let mut text = format!(
        "# Facts and the findings that judge them\n\n\
         This file is generated by `tests/diagnosis/single_changes.rs`. The test changes each fact of healthy nodes, one at a time: \
         the fact is removed, flipped, or set to zero, to half, far beyond its range, or to another word that a scenario has. The \
         second column lists the findings, stages (`stage`) and unknown facts (`unknown`) that appear or disappear. The third column \
         lists the changes that do not affect the answer, with the reason. Of {tried} changes that are not listed there, {heard} change the \
         answer.\n\n\
         | fact | judged by | not judged |\n|---|---|---|\n",
    );
    let kinds: BTreeSet<&Kind> = counts.keys().map(|(kind, _)| kind).collect();
    for kind in kinds {
        let of_kind = || counts.iter().filter(|((one, _), _)| one == kind);
        let judges: BTreeSet<&String> =
            of_kind().flat_map(|(_, count)| &count.judges).filter(|one| *one != "verdict").collect();
        let judges: Vec<&str> = judges.into_iter().map(String::as_str).collect();
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for ((_, change), _) in of_kind().filter(|(_, count)| count.heard < count.tried) {
            if let Some(row) = listed.iter().find(|row| row.covers(kind, *change)) {
                reasons.entry(row.reason).or_default().push(change.as_str());
            }
        }
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, changes)| format!("{}: {reason}", changes.join(", "))).collect();
        text.push_str(&format!("| `{kind}` | {} | {} |\n", judges.join(", "), reasons.join("; ")));
    }
    text
}
