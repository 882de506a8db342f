//! Rule about pods that failed with an error of the node. `refine`: adds failed pods, and pods that do not start, to the
//! findings that explain their messages; the other failed pods are a finding of their own.
//!
//! The table of phrases names the findings that explain a message. Without such a finding, only a message that the node
//! alone can cause counts.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::now;
use crate::messages::ending;
use crate::messages::phrases::{self, Part, Phrase};
use crate::rule::{Draft, rules};
use crate::rules::containers::starting_pods::{has_waited, is_of_volume};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{FailedPod, StartingPod};

rules! {
    about Workload;
    NODE_ERROR: "pod-reports-node-error" Warning Driver None, "Pods fail with an error of the node",
        UpdateSoftware "Find the part of {node} that the message in the evidence names.",
        means "The message with which the kubelet rejected a pod, or the last message of a program on the node, is about \
            the node. Other pods that need the same part fail, too. A program can write any text: compare with other \
            pods.",
        reads "kubernetes.failed_pods", depth 3;
}

/// A failure that is older than this says little about the node now.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

/// A container that was restarted as often as this fails again and again.
const OFTEN: u32 = 2;

/// Maximum number of pods in the evidence.
const NAMED: usize = 3;

/// Reason of a rejection by the Topology Manager, with its meaning and advice. The message has no details.
const TOPOLOGY: (&str, &str, &str) = (
    "TopologyAffinityError",
    "no NUMA node has enough free GPUs and CPUs for the pod, as the policy of the Topology Manager requires",
    "Recreate the pod when GPUs of one NUMA node are free, request fewer GPUs, or relax topologyManagerPolicy in the configuration of the kubelet.",
);

/// A pod whose failure is known.
struct Failure {
    uid: String,
    /// `namespace/name` of the pod.
    name: String,
    /// The pod, its container, the time, and the meaning of the message.
    line: String,
    at: Option<Timestamp>,
    /// Whether the pod cannot run now.
    is_lasting: bool,
    /// Whether the pod waits for its start. Such pods have a rule of their own.
    waits: bool,
    /// Whether the program of the pod wrote the message. It can write any text.
    of_program: bool,
    phrase: Option<&'static Phrase>,
    advice: (ActionCode, String),
}

pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let mut others: Vec<Failure> = Vec::new();
    let failed = node.kubernetes.failed_pods.iter().flatten().filter_map(|pod| failure(node, pod));
    let waiting = node.kubernetes.starting_pods.iter().flatten().filter_map(|pod| waits(node, pod));
    for failure in failed.chain(waiting) {
        let is_listed = drafts.iter().any(|draft| draft.evidence.iter().any(|line| failure.is_in(line)));
        let explains = |draft: &&mut Draft| failure.is_explained_by(node, draft);
        match drafts.iter_mut().filter(explains).max_by_key(|draft| draft.severity) {
            Some(draft) => failure.add_to(draft, is_listed),
            None if failure.is_of_node() => others.push(failure),
            None => {}
        }
    }
    while let Some(first) = others.first() {
        let (action, advice) = first.advice.clone();
        let (alike, rest): (Vec<Failure>, Vec<Failure>) =
            others.into_iter().partition(|failure| failure.advice.1 == advice);
        others = rest;
        // A program can write any text, and a restart may have repaired the fault.
        let is_alone = matches!(alike.as_slice(), [only] if only.of_program && !only.is_lasting);
        let severity = if is_alone { Severity::Info } else { NODE_ERROR.severity };
        let when = alike.iter().filter_map(|failure| failure.at).max();
        let uid = if let [only] = alike.as_slice() { Some(only.uid.clone()) } else { None };
        let lines = evidence::lines(alike.into_iter().map(|failure| failure.line), NAMED);
        let mut draft = Draft { severity, when, ..Draft::on_node(NODE_ERROR) };
        draft.scope.pod_uid = uid.filter(|uid| !uid.is_empty());
        drafts.push(draft.with_action(action, advice).with_all_evidence(lines));
    }
}

impl Failure {
    /// Returns whether a line of evidence names the pod.
    fn is_in(&self, line: &str) -> bool {
        let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || matches!(next, '-' | '.'));
        line.split(self.name.as_str()).skip(1).any(is_end)
    }

    /// Returns whether a finding gives the reason for the message. A fault of one GPU explains only pods with this GPU.
    fn is_explained_by(&self, node: &Node<'_>, draft: &Draft) -> bool {
        let explains = |id: &&str| draft.rule.id.starts_with(*id);
        draft.severity > Severity::Info
            && !draft.is_over
            && self.phrase.is_some_and(|phrase| phrase.findings.iter().any(explains))
            && (!draft.names_gpu() || self.has_gpu_of(node, draft))
    }

    fn has_gpu_of(&self, node: &Node<'_>, draft: &Draft) -> bool {
        let of_draft = node.gpus.iter().filter(|gpu| draft.is_on(gpu));
        let mut pods = of_draft.flat_map(|gpu| node.allocations_of(gpu)).map(|allocation| &allocation.pod_uid);
        !self.uid.is_empty() && pods.any(|uid| *uid == self.uid)
    }

    /// Adds the pod to the finding that explains its message. Work that cannot run now makes the finding critical, unless
    /// the pod can have another reason, or the finding is expected. A finding about GPUs explains only pods with these
    /// GPUs. `is_listed`: whether a finding already names the pod.
    fn add_to(self, draft: &mut Draft, is_listed: bool) {
        let is_reason = !self.of_program || self.phrase.is_some_and(|phrase| phrase.is_of_node()) || draft.names_gpu();
        let raises = self.is_lasting && is_reason && draft.action != ActionCode::Watch;
        if raises && draft.severity < Severity::Critical {
            draft.severity = Severity::Critical;
        } else if is_listed || draft.evidence.iter().filter(|line| line.starts_with("pod ")).count() >= NAMED {
            return;
        }
        draft.evidence.push(self.line);
    }

    /// Returns whether the failure is a fact about the node without another finding.
    fn is_of_node(&self) -> bool {
        !self.waits && self.phrase.is_none_or(Phrase::is_of_node_alone)
    }
}

/// Returns the failure of a pod, if it is recent and its message is known.
fn failure(node: &Node<'_>, pod: &FailedPod) -> Option<Failure> {
    if now(node)?.duration_since(pod.at?) > RECENT {
        return None;
    }
    let text = pod.message.as_deref().unwrap_or_default();
    let (phrase, meaning, advice) = match &pod.container {
        Some(_) => of_phrase(Part::Program, &ending::deciding(text.lines()).join("\n"))?,
        None if pod.reason == TOPOLOGY.0 => {
            (None, TOPOLOGY.1.to_owned(), (ActionCode::ChangeRequest, TOPOLOGY.2.to_owned()))
        }
        None => of_phrase(Part::Admission, text)?,
    };
    let container = pod.container.as_deref().map(|name| format!(" (container {})", evidence::name(name)));
    let ago = evidence::ago(now(node), pod.at).map(|ago| format!(", {ago}")).unwrap_or_default();
    let restarts = match pod.restarts {
        0 => String::new(),
        count => format!(", restarted {}", evidence::times(u64::from(count))),
    };
    let name = evidence::object(&pod.namespace, &pod.name);
    let line = format!("pod {name}{} failed{ago}{restarts}: {meaning}", container.unwrap_or_default());
    Some(Failure {
        uid: pod.uid.clone(),
        name,
        line,
        at: pod.at,
        is_lasting: pod.backs_off && pod.restarts >= OFTEN,
        waits: false,
        of_program: pod.container.is_some(),
        phrase,
        advice,
    })
}

/// Returns the failure of a pod that the node has not started for a long time, if its message is known.
fn waits(node: &Node<'_>, pod: &StartingPod) -> Option<Failure> {
    if !has_waited(node, pod) {
        return None;
    }
    let of_event = pod.warning.as_ref().map(|event| (event.reason.as_str(), event.message.as_str()));
    let of_container = pod.reason.as_deref().zip(pod.message.as_deref());
    let known =
        |(reason, text): (&str, &str)| of_phrase(if is_of_volume(reason) { Part::Volume } else { Part::Start }, text);
    let (phrase, meaning, advice) = of_event.into_iter().chain(of_container).find_map(known)?;
    let ago = evidence::ago(now(node), pod.since).map(|ago| format!(", since {ago}")).unwrap_or_default();
    let name = evidence::object(&pod.namespace, &pod.name);
    let line = format!("pod {name} does not start{ago}: {meaning}");
    Some(Failure {
        uid: pod.uid.clone(),
        name,
        line,
        at: pod.since,
        is_lasting: true,
        waits: true,
        of_program: false,
        phrase,
        advice,
    })
}

type Known = (Option<&'static Phrase>, String, (ActionCode, String));

fn of_phrase(part: Part, text: &str) -> Option<Known> {
    let phrase = phrases::known(part, text).filter(|phrase| !phrase.is_consequence)?;
    Some((Some(phrase), phrase.meaning(text), (phrase.code, phrase.advice_for(text, "{node}"))))
}
