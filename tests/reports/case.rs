//! A case: a cluster with a fault, the question, and what the answer has to name. `judge` derives the verdict.
#![allow(dead_code, reason = "each case takes what it needs")]

use demo_cluster::Fixture;
use serde_json::{Value, json};

use crate::bed::Bed;

/// How a report is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer names the cause.
    Named,
    /// The deciding fact is in the answer, and nothing is concluded from it.
    Shown,
    /// The deciding fact is not in the answer, and the answer blames nothing else.
    NotSeen,
    /// The answer says that all is well, or blames something else.
    Wrong,
}

/// Which tool is asked.
#[derive(Clone, Debug)]
enum Question {
    /// `diagnose_gpu_node`.
    Node(String),
    /// `explain_gpu_pod`: namespace and name.
    Pod(String, String),
}

/// What names the cause, with words that have to be in it.
#[derive(Clone, Debug)]
enum Name {
    /// A finding of this id.
    Finding(&'static str, Vec<String>),
    /// A cause of `explain_gpu_pod`.
    Cause(&'static str, Vec<String>),
}

/// One question about one cluster.
#[derive(Clone)]
pub(crate) struct Case {
    /// The row of `reports.jsonl`.
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
    /// `diagnose_gpu_node` is asked about the node `gpu-1`.
    pub(crate) fn of_node(row: u32, cluster: Fixture) -> Self {
        Self::of(row, Question::Node("gpu-1".into()), cluster)
    }

    /// `explain_gpu_pod` is asked about a pod, named `namespace/name`.
    pub(crate) fn of_pod(row: u32, pod: &str, cluster: Fixture) -> Self {
        Self::of(row, pod_question(pod), cluster)
    }

    fn of(row: u32, question: Question, cluster: Fixture) -> Self {
        let (names, shows, beside, never) = Default::default();
        Self { row, question, cluster, names, shows, beside, never, limit: None, twin: None }
    }

    /// A finding of this id names the cause, with all of these words in its title, evidence or action. With several of
    /// `finding` and `cause`, one of them is enough. For a pod, the finding is one of `node_findings`.
    pub(crate) fn finding(mut self, id: &'static str, words: &[&str]) -> Self {
        self.names.push(Name::Finding(id, owned(words)));
        self
    }

    /// The answer about the pod gives this cause (`node`, `cluster`, …), with all of these words in its summary, evidence or
    /// action.
    pub(crate) fn cause(mut self, cause: &'static str, words: &[&str]) -> Self {
        self.names.push(Name::Cause(cause, owned(words)));
        self
    }

    /// The deciding facts, as the answer quotes them: where they are in an answer that names nothing, the fact is shown.
    pub(crate) fn shows(mut self, words: &[&str]) -> Self {
        self.shows = owned(words);
        self
    }

    /// Findings that are true as well, and blame nothing else. Any other finding above `info` makes the answer wrong. For a
    /// pod: causes that are not precise, and not false.
    pub(crate) fn beside(mut self, ids: &[&'static str]) -> Self {
        self.beside.extend(ids);
        self
    }

    /// Words that must not be in the answer.
    pub(crate) fn never(mut self, words: &[&'static str]) -> Self {
        self.never.extend(words);
        self
    }

    /// For what no rule judges: a healthy verdict is not wrong as long as the answer says, in these words, that this was
    /// not checked.
    pub(crate) fn limit(mut self, words: &'static str) -> Self {
        self.limit = Some(words);
        self
    }

    /// A cluster as alike as possible without the fault: there the cause must not be named.
    pub(crate) fn twin(mut self, cluster: Fixture) -> Self {
        self.twin = Some(Box::new((cluster, self.question.clone())));
        self
    }

    /// The same, with another pod to ask about.
    pub(crate) fn twin_pod(mut self, pod: &str, cluster: Fixture) -> Self {
        self.twin = Some(Box::new((cluster, pod_question(pod))));
        self
    }

    /// Asks, and judges.
    pub(crate) async fn outcome(self) -> Outcome {
        let answer = ask(&self.cluster, &self.question).await;
        let mut complaints = Vec::new();
        if let Some((cluster, question)) = self.twin.as_deref() {
            let answer = ask(cluster, question).await;
            if self.named(&answer).is_some() {
                complaints.push(format!("row {}: its twin without the fault is answered alike: {answer:#}", self.row));
            }
        }
        let (verdict, by) = self.judge(&answer);
        let asked = match self.question {
            Question::Node(_) => "diagnose_gpu_node",
            Question::Pod(..) => "explain_gpu_pod",
        };
        Outcome { row: self.row, asked, verdict, by, answer, complaints }
    }

    /// The verdict, with what names the cause or why the answer is wrong.
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

    /// What the answer blames that is neither the cause nor beside it.
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

    /// What names the cause in the answer.
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

/// Whether any text in the value has these words.
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

/// What became of a case.
pub(crate) struct Outcome {
    /// The row of `reports.jsonl`.
    pub(crate) row: u32,
    /// The tool.
    pub(crate) asked: &'static str,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// What names the cause, or why the answer is wrong.
    pub(crate) by: String,
    /// What is wrong with the case itself.
    pub(crate) complaints: Vec<String>,
    answer: Value,
}

impl Outcome {
    /// For `REPORTS=…`.
    #[allow(clippy::print_stdout, reason = "a person asked for it")]
    pub(crate) fn print(&self) {
        println!("row {}: {:?} {}\n{:#}", self.row, self.verdict, self.by, self.answer);
        self.complaints.iter().for_each(|complaint| println!("{complaint}"));
    }
}
