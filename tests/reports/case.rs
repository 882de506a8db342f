//! The type `Case`: a cluster with a fault, a tool call, and the expected cause. `judge` derives the `Verdict`.
//! `Outcome`: the verdict with its reason.
#![allow(dead_code, reason = "each case uses only some of the functions")]

use demo_cluster::Fixture;
use serde_json::{Value, json};

use crate::bed::Bed;

/// The verdict on an answer about a reported fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer names the cause.
    Named,
    /// The answer contains the deciding fact, but no conclusion from that fact.
    Shown,
    /// The answer does not contain the deciding fact, but blames nothing else.
    NotSeen,
    /// The answer reports no fault, or blames something else.
    Wrong,
}

/// The tool call of a case.
#[derive(Clone, Debug)]
enum Question {
    /// `diagnose_gpu_node`: name of the node.
    Node(String),
    /// `explain_gpu_pod`: namespace and name.
    Pod(String, String),
}

/// The part of an answer that must name the cause, and the words that this part must contain.
#[derive(Clone, Debug)]
enum Name {
    /// A finding with this id.
    Finding(&'static str, Vec<String>),
    /// A cause of `explain_gpu_pod`.
    Cause(&'static str, Vec<String>),
}

/// One tool call for one cluster.
#[derive(Clone)]
pub(crate) struct Case {
    /// Number of the row in `reports.jsonl`.
    pub(crate) row: u32,
    question: Question,
    cluster: Fixture,
    names: Vec<Name>,
    shows: Vec<String>,
    beside: Vec<&'static str>,
    never: Vec<&'static str>,
    limit: Option<&'static str>,
    twin: Option<Box<(Fixture, Question)>>,
}

impl Case {
    /// Creates a case that calls `diagnose_gpu_node` for the node `gpu-1`.
    pub(crate) fn of_node(row: u32, cluster: Fixture) -> Self {
        Self::of(row, Question::Node("gpu-1".into()), cluster)
    }

    /// Creates a case that calls `explain_gpu_pod` for a pod (`namespace/name`).
    pub(crate) fn of_pod(row: u32, pod: &str, cluster: Fixture) -> Self {
        Self::of(row, pod_question(pod), cluster)
    }

    fn of(row: u32, question: Question, cluster: Fixture) -> Self {
        let (names, shows, beside, never) = Default::default();
        Self { row, question, cluster, names, shows, beside, never, limit: None, twin: None }
    }

    /// The cause is named if a finding with this id has all of these words in its title, evidence or action. If `finding`
    /// and `cause` are called several times, one match is enough. For a pod, the finding is in `node_findings`.
    pub(crate) fn finding(mut self, id: &'static str, words: &[&str]) -> Self {
        self.names.push(Name::Finding(id, owned(words)));
        self
    }

    /// The cause is named if the answer has this cause (`node`, `cluster`, …) and all of these words in summary, evidence
    /// or action.
    pub(crate) fn cause(mut self, cause: &'static str, words: &[&str]) -> Self {
        self.names.push(Name::Cause(cause, owned(words)));
        self
    }

    /// Sets the deciding facts as the answer quotes them. If the answer has the facts but no cause, the verdict is `Shown`.
    pub(crate) fn shows(mut self, words: &[&str]) -> Self {
        self.shows = owned(words);
        self
    }

    /// Adds findings that are also true and do not blame something else. Any other finding above `info` makes the
    /// answer wrong. For a pod, adds causes that are correct but not precise.
    pub(crate) fn beside(mut self, ids: &[&'static str]) -> Self {
        self.beside.extend(ids);
        self
    }

    /// Adds words that must not be in the answer.
    pub(crate) fn never(mut self, words: &[&'static str]) -> Self {
        self.never.extend(words);
        self
    }

    /// For faults without a rule: a healthy verdict is not wrong if the answer contains these words, which state the limit.
    pub(crate) fn limit(mut self, words: &'static str) -> Self {
        self.limit = Some(words);
        self
    }

    /// Sets the same cluster without the fault. For this cluster, the answer must not name the cause.
    pub(crate) fn twin(mut self, cluster: Fixture) -> Self {
        self.twin = Some(Box::new((cluster, self.question.clone())));
        self
    }

    /// Sets the same cluster without the fault, and another pod for the call.
    pub(crate) fn twin_pod(mut self, pod: &str, cluster: Fixture) -> Self {
        self.twin = Some(Box::new((cluster, pod_question(pod))));
        self
    }

    /// Calls the tool, and returns the verdict.
    pub(crate) async fn outcome(self) -> Outcome {
        let answer = ask(&self.cluster, &self.question).await;
        let mut complaints = Vec::new();
        if let Some((cluster, question)) = self.twin.as_deref() {
            let answer = ask(cluster, question).await;
            if self.named(&answer).is_some() {
                complaints.push(format!(
                    "row {}: the same cause is named for the cluster without the fault: {answer:#}",
                    self.row
                ));
            }
        }
        let (verdict, by) = self.judge(&answer);
        let asked = match self.question {
            Question::Node(_) => "diagnose_gpu_node",
            Question::Pod(..) => "explain_gpu_pod",
        };
        Outcome { row: self.row, asked, verdict, by, answer, complaints }
    }

    /// Returns the verdict, with the finding that names the cause or the reason why the answer is wrong.
    fn judge(&self, answer: &Value) -> (Verdict, String) {
        if let Some(words) = self.never.iter().find(|words| holds(answer, words)) {
            return (Verdict::Wrong, format!("says '{words}'"));
        }
        if let Some(blamed) = self.blamed(answer) {
            return (Verdict::Wrong, blamed);
        }
        if let Some(name) = self.named(answer) {
            return (Verdict::Named, name);
        }
        let unsaid = |limit: &&str| {
            let limits = answer["not_checked"].as_array().into_iter().flatten();
            !limits.filter_map(Value::as_str).any(|line| line.contains(*limit))
        };
        let well = ["verdict", "cause"].iter().find_map(|key| answer[*key].as_str());
        let well = well.filter(|word| ["healthy", "no_fault_found", "none"].contains(word));
        match well {
            Some(word) if self.limit.as_ref().is_none_or(unsaid) => (Verdict::Wrong, format!("says '{word}'")),
            _ if !self.shows.is_empty() && self.shows.iter().all(|words| holds(answer, words)) => {
                (Verdict::Shown, String::new())
            }
            _ => (Verdict::NotSeen, String::new()),
        }
    }

    /// Returns the causes in the answer other than the expected cause and the permitted findings.
    fn blamed(&self, answer: &Value) -> Option<String> {
        if let Some(cause) = answer["cause"].as_str() {
            let expected = |name: &Name| matches!(name, Name::Cause(expected, _) if *expected == cause);
            let fits = self.beside.contains(&cause) || self.names.iter().any(expected);
            return (!fits && !["none", "unknown"].contains(&cause)).then(|| format!("cause: {cause}"));
        }
        let expected = |id: &str| {
            let of_names = |name: &Name| matches!(name, Name::Finding(expected, _) if *expected == id);
            self.beside.contains(&id) || self.names.iter().any(of_names)
        };
        let mut grave = findings(answer).filter(|finding| finding["severity"] != "info");
        grave.find_map(|finding| finding["id"].as_str().filter(|id| !expected(id))).map(|id| format!("`{id}`"))
    }

    /// Returns the finding or cause of the answer that names the cause.
    fn named(&self, answer: &Value) -> Option<String> {
        let all = |value: &Value, words: &[String]| words.iter().all(|words| holds(value, words));
        self.names.iter().find_map(|name| match name {
            Name::Finding(id, words) => {
                findings(answer).any(|finding| finding["id"] == *id && all(finding, words)).then(|| format!("`{id}`"))
            }
            Name::Cause(cause, words) => {
                let said = json!([answer["summary"], answer["evidence"], answer["action"]]);
                (answer["cause"] == *cause && all(&said, words)).then(|| format!("cause: {cause}"))
            }
        })
    }
}

fn findings(answer: &Value) -> impl Iterator<Item = &Value> {
    ["findings", "node_findings"].into_iter().filter_map(|key| answer[key].as_array()).flatten()
}

/// Returns whether a text in the value contains these words.
fn holds(value: &Value, words: &str) -> bool {
    match value {
        Value::String(text) => text.contains(words),
        Value::Array(all) => all.iter().any(|value| holds(value, words)),
        Value::Object(all) => all.values().any(|value| holds(value, words)),
        _ => false,
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pod_question(pod: &str) -> Question {
    let (namespace, name) = pod.split_once('/').expect("namespace/name");
    Question::Pod(namespace.to_owned(), name.to_owned())
}

async fn ask(cluster: &Fixture, question: &Question) -> Value {
    let bed = Bed::of(cluster.clone()).await;
    let words = match question {
        Question::Node(node) => vec!["diagnose", node],
        Question::Pod(namespace, name) => vec!["explain", name, "-n", namespace],
    };
    let ended = bed.launcher().args(["--output", "json"]).args(words).run().await;
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ended.stdout, ended.stderr))
}

/// The outcome of a case.
pub(crate) struct Outcome {
    /// Number of the row in `reports.jsonl`.
    pub(crate) row: u32,
    /// The tool.
    pub(crate) asked: &'static str,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// The finding that names the cause, or the reason why the answer is wrong.
    pub(crate) by: String,
    /// Errors in the case itself.
    pub(crate) complaints: Vec<String>,
    answer: Value,
}

impl Outcome {
    /// Prints the answer if `REPORTS=…` is set.
    #[allow(clippy::print_stdout, reason = "the user requested the output")]
    pub(crate) fn print(&self) {
        println!("row {}: {:?} {}\n{:#}", self.row, self.verdict, self.by, self.answer);
        self.complaints.iter().for_each(|complaint| println!("{complaint}"));
    }
}
