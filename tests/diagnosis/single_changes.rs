//! Changes each fact of healthy nodes, one at a time, and checks that the diagnosis changes or that the table says why not.
//!
//! `docs/facts.md` shows the result: each kind of fact, the rules that read it, and the changes that are not judged, with the reason
//! (`single_changes/not_judged.tsv`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use diagnosis::diagnose;
use diagnosis::finding::Diagnosis;
use serde_json::{Value, json};
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
    /// A word becomes another word that any scenario has for this fact.
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

/// Facts of a node: the report and what the Kubernetes API says, as one JSON document.
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

/// The path of a fact without the places in lists: `telemetry.gpus[].power.limit_milliwatts`.
type Kind = String;

/// One step into the document.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    At(usize),
}

/// Lists with more objects than this are alike: the first and the last but two are changed.
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

/// The words that any scenario has for each kind of fact.
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

/// Words beyond this number are identifiers, and a few of them are enough.
const WORDS_OF_A_FACT: usize = 4;

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

/// What a diagnosis judges: not the values that it quotes.
fn judgement(diagnosis: &Diagnosis) -> impl PartialEq + std::fmt::Debug + use<> {
    let findings: BTreeSet<String> = diagnosis
        .findings
        .iter()
        .map(|one| format!("{} {:?} {:?} {:?}", one.id, one.severity, one.scope.gpu, one.scope.pid))
        .collect();
    let stages: Vec<_> = diagnosis.stack.iter().map(|stage| (stage.stage, stage.state)).collect();
    let unknown: BTreeSet<String> = diagnosis.unknown.iter().map(|one| format!("{one:?}")).collect();
    (diagnosis.verdict, findings, unknown, stages, diagnosis.not_checked.clone())
}

/// A healthy node that can be read back from its document.
struct Base {
    name: &'static str,
    report: Report,
    document: Value,
}

impl Base {
    fn judge(&self, document: &Value) -> Option<Diagnosis> {
        let mut report = serde_json::to_value(&self.report).ok()?;
        for (name, data) in document.as_object()? {
            if name != "kubernetes" {
                report["sections"][name]["data"] = data.clone();
            }
        }
        let report: Report = serde_json::from_value(report).ok()?;
        let cluster: KubernetesFacts = serde_json::from_value(document["kubernetes"].clone()).ok()?;
        Some(diagnose(&report, &cluster))
    }
}

/// Healthy nodes of which everything was read.
const BASES: [&str; 5] = ["whole-h100-8", "whole-a100-mig-8", "whole-gb200-4", "whole-l40s-4", "whole-t4-1"];

#[derive(Default)]
struct Heard {
    tried: usize,
    heard: usize,
    unheard: Vec<String>,
}

#[test]
fn every_change_of_a_fact_is_heard_or_listed() {
    let mut counts: BTreeMap<(Kind, Change), Heard> = BTreeMap::new();
    for name in BASES {
        let (report, expected) = super::scenarios().remove(name).expect(name);
        let document = document(&report, &expected.cluster);
        let base = Base { name, report, document };
        let before = judgement(&base.judge(&base.document).expect("the node itself"));
        let mut places = Vec::new();
        walk(&base.document, &mut Vec::new(), "", &mut |path, kind, value| {
            places.push((path.to_vec(), kind.to_owned(), value.clone()));
        });
        for (path, kind, value) in places {
            for (change, to) in changes(&kind, &value) {
                let Some(after) = base.judge(&changed(&base.document, &path, to.as_ref())) else { continue };
                let heard = counts.entry((kind.clone(), change)).or_default();
                heard.tried += 1;
                if judgement(&after) == before {
                    heard.unheard.push(format!("{} {value} -> {to:?}", base.name));
                } else {
                    heard.heard += 1;
                }
            }
        }
    }
    let (mut tried, mut heard) = (0, 0);
    let mut text = String::new();
    for ((kind, change), count) in &counts {
        tried += count.tried;
        heard += count.heard;
        if count.heard < count.tried {
            text.push_str(&format!("{kind}\t{}\t{}/{}\t{}\n", change.as_str(), count.heard, count.tried, count.unheard[0]));
        }
    }
    std::fs::write("/tmp/unheard.tsv", text).expect("x");
    println!("{heard} of {tried}");
}
