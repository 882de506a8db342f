//! Finds signs of platforms and monitors on a node (conditions, taints, labels, annotations), from
//! `platform_signals.tsv`. `decisions`, `running_repair`: maintenance and repairs. `of_condition`, `is_known_state`:
//! whether the table has a condition or label.

use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};
use syringe_core::text::clean;
use syringe_core::tsv::{parts, rows, word};

/// A row of the table.
#[derive(Debug)]
pub struct Signal {
    place: &'static str,
    names: Vec<&'static str>,
    values: Vec<&'static str>,
    means: &'static str,
    owner: &'static str,
    next: Option<&'static str>,
}

static SIGNALS: LazyLock<Vec<Signal>> = LazyLock::new(|| {
    let signal = |row: Vec<&'static str>| match *row {
        [place, names, values, means, owner, next, _source] => {
            let next = Some(next).filter(|next| *next != "-");
            Some(Signal { place, names: parts(names), values: parts(values), means, owner, next })
        }
        _ => None,
    };
    rows(include_str!("data/platform_signals.tsv")).filter_map(signal).collect()
});

impl Signal {
    fn matches(&self, place: &str, name: &str, value: &str) -> bool {
        self.is(place, name) && (self.values == ["*"] || self.values.contains(&value))
    }

    fn is(&self, place: &str, name: &str) -> bool {
        self.place == place && self.names.contains(&name)
    }

    /// Returns whether the condition is about GPUs.
    pub fn is_about_gpus(&self) -> bool {
        self.means == "gpu"
    }

    /// Returns whether a condition with this status reports a fault. An announcement is not a fault. The status
    /// `Unknown` means that the monitor did not measure.
    pub fn is_fault(&self, status: &str) -> bool {
        ["gpu", "node"].contains(&self.means) && self.values.contains(&status)
    }

    /// Returns the decision that the signal shows. A fault shows a decision only if the table contains the next action
    /// of the owner.
    fn decision(&self) -> Option<DecisionKind> {
        word(self.means).or_else(|| self.next.map(|_| DecisionKind::Announced))
    }
}

/// Returns the row of a condition whose name is in the table.
pub fn of_condition(name: &str) -> Option<&'static Signal> {
    SIGNALS.iter().find(|signal| signal.is("condition", name))
}

/// Returns whether a label or annotation is in the table.
pub fn is_known_state(name: &str) -> bool {
    SIGNALS.iter().any(|signal| signal.is("label", name) || signal.is("annotation", name))
}

/// Maximum length of the message of a condition.
const MAX_MESSAGE: usize = 200;

/// Returns the message of a condition, in quotation marks.
fn message_of(node: &Node, condition: &str) -> Option<String> {
    let all = node.status.as_ref()?.conditions.as_ref()?;
    let message = all.iter().find(|one| one.type_ == condition)?.message.as_deref()?;
    Some(format!("\"{}\"", clean(message, MAX_MESSAGE))).filter(|_| !message.is_empty())
}

/// Returns the decisions of the platforms about the node. If several signals show an action of the same owner, the
/// first row is used.
pub fn decisions(node: &Node) -> Vec<Decision> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let conditions = conditions.map(|one| ("condition", one.type_.as_str(), one.status.as_str()));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints = taints.map(|taint| ("taint", taint.key.as_str(), taint.value.as_deref().unwrap_or_default()));
    let labels = node.labels().iter().map(|(name, value)| ("label", name.as_str(), value.as_str()));
    let annotations = node.annotations().iter().map(|(name, value)| ("annotation", name.as_str(), value.as_str()));
    let present: Vec<_> = conditions.chain(taints).chain(labels).chain(annotations).collect();
    let mut decisions: Vec<Decision> = Vec::new();
    for signal in SIGNALS.iter() {
        let Some(kind) = signal.decision() else { continue };
        let acts = |known: &Decision| known.owner == signal.owner && known.kind != DecisionKind::Announced;
        let of_row = present.iter().filter(|(place, name, value)| signal.matches(place, name, value));
        for (place, name, value) in of_row {
            if kind != DecisionKind::Announced && decisions.iter().any(acts) {
                continue;
            }
            let at = seconds(value).filter(|_| kind == DecisionKind::Announced);
            let is = if *place == "condition" { " is " } else { "=" };
            let value = if value.is_empty() { String::new() } else { format!("{is}{}", clean(value, 40)) };
            decisions.push(Decision {
                kind,
                owner: signal.owner.to_owned(),
                signal: format!("{place} {name}{value}"),
                next: signal
                    .next
                    .into_iter()
                    .map(str::to_owned)
                    .chain(reason(node, name))
                    .chain(if *place == "condition" { message_of(node, name) } else { None })
                    .collect::<Vec<_>>()
                    .join("; "),
                at,
            });
        }
    }
    decisions.extend(taken_out(node));
    decisions
}

/// Words in taints of systems that are not in the table, and the decisions that they show. A word must be at the start
/// of a word of the taint's key or value.
const REASONS: [(&str, DecisionKind); 14] = [
    ("unhealthy", DecisionKind::OutOfService),
    ("degraded", DecisionKind::OutOfService),
    ("xid", DecisionKind::OutOfService),
    ("fault", DecisionKind::OutOfService),
    ("fail", DecisionKind::OutOfService),
    ("broken", DecisionKind::OutOfService),
    ("not-ready", DecisionKind::OutOfService),
    ("out-of-service", DecisionKind::OutOfService),
    ("quarantine", DecisionKind::OutOfService),
    ("repair", DecisionKind::Repair),
    ("remediat", DecisionKind::Repair),
    ("triage", DecisionKind::Repair),
    ("maintenance", DecisionKind::Maintenance),
    ("drain", DecisionKind::Maintenance),
];

/// Taints that follow from the conditions of a node, or that rules about the removal of a node check.
const OF_OTHER_RULES: [&str; 3] =
    ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "aws-node-termination-handler/"];

/// Returns the decision of a system that is not in the table and whose taint keeps pods away: a word of the taint shows
/// the reason, or a label of the same domain has the taint's name as a state (`node.example.com/state=x` and
/// `node.example.com/x`).
fn taken_out(node: &Node) -> Option<Decision> {
    let is_of_table = |key: &str| SIGNALS.iter().any(|signal| signal.is("taint", key) || signal.is("label", key));
    let is_other = |key: &str| is_of_table(key) || OF_OTHER_RULES.iter().any(|prefix| key.starts_with(prefix));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints = taints.filter(|taint| taint.effect != "PreferNoSchedule" && !is_other(&taint.key));
    taints.into_iter().find_map(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        let words = words(&format!("{} {value}", taint.key));
        let named = REASONS.iter().find(|(word, _)| words.contains(&format!("-{word}"))).map(|(_, kind)| *kind);
        let (domain, state) = taint.key.split_once('/').unwrap_or((&taint.key, ""));
        let is_state = |(label, value): &(&String, &String)| {
            let name = label.strip_prefix(domain).and_then(|rest| rest.strip_prefix('/'));
            value.as_str() == state && name.is_some_and(|name| name.contains("state") || name.contains("status"))
        };
        let label = node.labels().iter().find(is_state).map(|(label, _)| format!(" and label {label}={state}"));
        let kind = named.or(label.is_some().then_some(DecisionKind::Repair))?;
        let equals = if value.is_empty() { "" } else { "=" };
        let sign = format!("taint {}{equals}{value}:{}{}", taint.key, taint.effect, label.unwrap_or_default());
        let reason = reason(node, &taint.key).map(|reason| format!("; {reason}")).unwrap_or_default();
        Some(Decision {
            kind,
            owner: clean(domain, 80),
            signal: clean(&sign, 200),
            next: format!("this taint keeps pods away from the node{reason}"),
            at: None,
        })
    })
}

/// Returns the words of a text in lower case, each after a hyphen: `-gpu-not-ready-xid-79` of `gpuNotReady=xid_79`.
fn words(text: &str) -> String {
    let mut words = String::from("-");
    let mut was_lower = false;
    for one in text.chars() {
        if (!one.is_ascii_alphanumeric() || one.is_ascii_uppercase() && was_lower) && !words.ends_with('-') {
            words.push('-');
        }
        words.extend(one.is_ascii_alphanumeric().then(|| one.to_ascii_lowercase()));
        was_lower = one.is_ascii_lowercase();
    }
    words
}

/// Returns the reason in a label or annotation with the same domain as `key`: `reason: failed to drain node`.
fn reason(node: &Node, key: &str) -> Option<String> {
    let (domain, _) = key.split_once('/')?;
    let is_reason = |(name, value): &(&String, &String)| {
        let name = name.strip_prefix(domain).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| name.ends_with("reason") || name.ends_with("reasons")) && !value.is_empty()
    };
    let (name, value) = node.labels().iter().chain(node.annotations()).find(is_reason)?;
    Some(format!("{}: {}", name.rsplit('/').next().unwrap_or(name), clean(value, 160)))
}

/// Returns the time in a GKE label, which contains the seconds since 1970.
fn seconds(value: &str) -> Option<Timestamp> {
    Timestamp::from_second(value.parse().ok()?).ok()
}

/// Returns the current decision of another system to repair or maintain the node, if there is one.
pub fn running_repair(node: &Node) -> Option<Decision> {
    decisions(node).into_iter().find(|one| matches!(one.kind, DecisionKind::Repair | DecisionKind::Maintenance))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn node(node: Value) -> Node {
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn one_state_in_a_label_and_a_taint_of_one_domain_is_a_decision_of_its_owner() {
        let of = |label: &str| {
            let node = node(json!({"metadata": {"labels": {label: "held"}},
                "spec": {"taints": [{"key": "node.example.com/held", "effect": "NoExecute"}]}}));
            decisions(&node).into_iter().map(|decision| (decision.kind, decision.owner)).collect::<Vec<_>>()
        };
        assert_eq!(of("node.example.com/state"), [(DecisionKind::Repair, "node.example.com".to_owned())]);
        assert_eq!(of("other.example.com/state"), [], "another domain");
        assert_eq!(of("node.example.com/pool"), [], "no state");
    }

    #[test]
    fn a_word_of_a_taint_says_why_it_keeps_pods_away() {
        let of = |key: &str, value: &str, effect: &str| {
            let node = node(json!({"spec": {"taints": [{"key": key, "value": value, "effect": effect}]}}));
            decisions(&node).into_iter().map(|decision| decision.kind).collect::<Vec<_>>()
        };
        for (key, value, kind) in [
            ("gpu-unhealthy", "xid-79", DecisionKind::OutOfService),
            ("nvidia.com/gpu-health", "degraded", DecisionKind::OutOfService),
            ("example.com/gpuNotReady", "", DecisionKind::OutOfService),
            ("node.kubernetes.io/out-of-service", "nodeshutdown", DecisionKind::OutOfService),
            ("node.example.com/maintenance", "planned", DecisionKind::Maintenance),
            ("medik8s.io/drain", "node-maintenance", DecisionKind::Maintenance),
            ("example.com/gpu", "UnderRepair", DecisionKind::Repair),
        ] {
            assert_eq!(of(key, value, "NoSchedule"), [kind], "{key}={value}");
        }
        assert_eq!(of("gpu-unhealthy", "xid-79", "PreferNoSchedule"), [], "pods may still run there");
        for (key, value) in [
            ("nvidia.com/gpu", "present"),
            ("dedicated", "team-a"),
            ("pool", "default"),
            ("kueue.x-k8s.io/x", "y"),
            ("node.kubernetes.io/not-ready", ""),
            ("aws-node-termination-handler/scheduled-maintenance", "x"),
        ] {
            assert_eq!(of(key, value, "NoExecute"), [], "{key}={value}");
        }
    }

    #[test]
    fn the_reason_beside_a_state_is_quoted() {
        let node = node(json!({"metadata": {"annotations": {"machineconfiguration.openshift.io/state": "Degraded",
            "machineconfiguration.openshift.io/reason": "failed to drain node"}}}));
        let next: Vec<_> = decisions(&node).into_iter().map(|one| one.next).collect();
        assert!(next[0].ends_with("; reason: failed to drain node"), "{next:?}");
    }

    #[test]
    fn every_row_is_complete_and_a_condition_has_one_polarity() {
        let lines = include_str!("data/platform_signals.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(SIGNALS.len(), lines, "a row does not have seven cells");
        let mut polarity: BTreeMap<&str, &[&str]> = BTreeMap::new();
        for signal in SIGNALS.iter() {
            let is_fault = ["gpu", "node"].contains(&signal.means);
            assert!(is_fault || word::<DecisionKind>(signal.means).is_some(), "{signal:?}");
            assert!(is_fault || signal.next.is_some(), "{signal:?}");
            for name in signal.names.iter().filter(|_| signal.place == "condition") {
                assert!(["True", "False"].contains(&signal.values[0]), "{signal:?}");
                assert_eq!(*polarity.entry(name).or_insert(&signal.values), signal.values, "{name}");
            }
        }
    }

    #[test]
    fn each_signal_of_a_decision_gives_the_decision_and_an_ordinary_node_has_none() {
        for signal in SIGNALS.iter().filter(|signal| signal.decision().is_some()) {
            for (name, value) in
                signal.names.iter().flat_map(|name| signal.values.iter().map(move |value| (name, value)))
            {
                let (key, value) = (*name, if *value == "*" { "1797000000" } else { value });
                let with = match signal.place {
                    "condition" => json!({"status": {"conditions": [{"type": key, "status": value}]}}),
                    "taint" => json!({"spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]}}),
                    "label" => json!({"metadata": {"labels": {key: value}}}),
                    _ => json!({"metadata": {"annotations": {key: value}}}),
                };
                let found = decisions(&node(with));
                assert_eq!(found.len(), 1, "{key}: {found:?}");
                assert_eq!((Some(found[0].kind), found[0].owner.as_str()), (signal.decision(), signal.owner), "{key}");
                assert!(found[0].signal.contains(key) && found[0].signal.contains(value), "{found:?}");
            }
        }
        let ordinary = json!({"metadata": {"labels": {"cloud.google.com/gke-nodepool": "a"}},
            "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "VMEventScheduled", "status": "False"},
                {"type": "AcceleratedHardwareReady", "status": "True"}, {"type": "GPUCount", "status": "Unknown"}]}});
        assert_eq!(decisions(&node(ordinary)), []);
    }

    #[test]
    fn the_state_of_one_owner_counts_once_and_only_a_running_repair_forbids_others() {
        let state = |state: &str| {
            node(json!({"metadata": {"labels": {"dgxc.nvidia.com/nvsentinel-state": state},
                "annotations": {"quarantineHealthEventIsCordoned": "True"}}}))
        };
        assert_eq!(decisions(&state("draining")).len(), 1);
        assert!(running_repair(&state("draining")).is_some_and(|one| one.signal.ends_with("=draining")));
        assert_eq!(running_repair(&state("remediation-failed")), None);
        let planned =
            node(json!({"metadata": {"labels": {"cloud.google.com/scheduled-maintenance-time": "1797000000"}}}));
        assert_eq!(decisions(&planned)[0].at.map(Timestamp::as_second), Some(1_797_000_000));
        assert_eq!(running_repair(&planned), None);
    }
}
