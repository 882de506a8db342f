//! `compare`: compares each value of the table `FACTS`, and each finding, between the pods of a job.
//! `Comparison`: the values of the majority, and the pods with other values (`Odd`).

use std::collections::{BTreeMap, BTreeSet};

use syringe_core::classification::{Class, Severity};

use crate::job::facts::{FACTS, Fact, Read, Value, Worse};
use crate::job::observe::Observation;
use crate::job::{Compared, Difference, Member, Suspicion};

/// Maximum share of the pods that may have other values. In a pipeline, whole groups of pods differ.
const FEW: usize = 4;

/// The result of the comparison.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) compared: Vec<Compared>,
    pub(super) odd: Vec<Odd>,
    /// Unusual values that the majority of the pods has.
    pub(super) shared: Vec<String>,
}

/// A value of one pod that differs.
pub(super) struct Odd {
    /// Index of the pod.
    pub(super) member: usize,
    /// The suspicion that follows from the difference. `None` if the difference is shown only together with another
    /// difference.
    pub(super) suspicion: Option<Suspicion>,
    pub(super) difference: Difference,
    /// Whether the value belongs to the node: all pods of the job on this node have it.
    pub(super) is_of_node: bool,
    /// Whether the value is a measured number, which varies from reading to reading.
    pub(super) is_number: bool,
}

struct Entry<'a> {
    member: usize,
    place: &'a str,
    value: &'a Value,
}

/// Compares the values of all observed pods.
pub(super) fn compare(members: &[Member]) -> Comparison {
    let mut result = Comparison::default();
    for (index, fact) in FACTS.iter().enumerate() {
        add_fact(&mut result, members, index, fact);
    }
    add_findings(&mut result, members);
    result
}

/// Returns the observed pods. If `nodes` is true, returns only the first pod of each node.
fn observed(members: &[Member], nodes: bool) -> impl Iterator<Item = (usize, &[Observation])> {
    let mut seen = BTreeSet::new();
    members.iter().enumerate().filter_map(move |(index, member)| {
        let values = member.observed.as_ref().ok()?.values.as_slice();
        (!nodes || seen.insert(member.pod.node.as_deref())).then_some((index, values))
    })
}

fn add_fact(result: &mut Comparison, members: &[Member], index: usize, fact: &'static Fact) {
    let is_of_node = matches!(fact.read, Read::Node(_) | Read::Port(_));
    let mut groups: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
    for (member, values) in observed(members, is_of_node) {
        for one in values.iter().filter(|one| one.fact == index) {
            let group = match fact.read {
                Read::Port(_) => one.place.as_str(),
                Read::Pod(_) | Read::ProcessCount => members[member].role.as_str(),
                Read::Gpu(_) if fact.name != MODEL => model(values, &one.place),
                _ => "",
            };
            let entry = Entry { member, place: &one.place, value: &one.value };
            groups.entry(group).or_default().push(entry);
        }
    }
    let (mut with_value, mut differ) = (BTreeSet::<usize>::new(), BTreeSet::<usize>::new());
    let mut commons: Vec<String> = Vec::new();
    for entries in groups.values() {
        let pods: BTreeSet<usize> = entries.iter().map(|entry| entry.member).collect();
        with_value.extend(&pods);
        let Some(common) = common(fact, entries) else { continue };
        let in_words = fact.in_words(&common);
        if !commons.contains(&in_words) {
            commons.push(in_words.clone());
        }
        let odd: Vec<&Entry<'_>> = entries.iter().filter(|entry| fact.differs(entry.value, &common)).collect();
        let odd_pods: BTreeSet<usize> = odd.iter().map(|entry| entry.member).collect();
        let most = if fact.suspicion == Some(Suspicion::WorksDifferently) {
            (pods.len() / FEW).max(1)
        } else {
            pods.len() / 2
        };
        let is_unusual = matches!((fact.worse, &common), (Worse::Not(usual), Value::Text(text)) if text != usual);
        if is_unusual && !matches!(fact.read, Read::Port(_)) {
            let all = pods.len();
            result.shared.push(format!("{}: {in_words} (on {} of {all} pods)", fact.name, all - odd_pods.len()));
        }
        // A single pod cannot be compared with others. Only its own GPUs can be compared.
        if odd_pods.len() > most.max(usize::from(pods.len() == 1)) {
            continue;
        }
        differ.extend(&odd_pods);
        result.odd.extend(odd.into_iter().map(|entry| Odd {
            member: entry.member,
            suspicion: fact.suspicion,
            difference: Difference {
                fact: fact.name.to_owned(),
                place: entry.place.to_owned(),
                value: fact.in_words(entry.value),
                common: in_words.clone(),
            },
            is_of_node,
            is_number: matches!(entry.value, Value::Number(_)),
        }));
    }
    if !with_value.is_empty() {
        let common = commons.into_iter().take(3).collect::<Vec<_>>().join(" / ");
        result.compared.push(Compared { fact: fact.name, common, pods: with_value.len(), differ: differ.len() });
    }
}

const MODEL: &str = "GPU model";

fn model<'a>(values: &'a [Observation], place: &str) -> &'a str {
    let of_gpu = values.iter().find(|one| FACTS[one.fact].name == MODEL && one.place == place);
    of_gpu
        .and_then(|one| if let Value::Text(text) = &one.value { Some(text.as_str()) } else { None })
        .unwrap_or_default()
}

/// Returns the value of the majority: the text of more than half of the pods, or the median if more than half are
/// within the margin. If half of the values are worse than the other half, the better half counts.
fn common(fact: &Fact, entries: &[Entry<'_>]) -> Option<Value> {
    let mut numbers: Vec<f64> = Vec::new();
    let mut texts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        match entry.value {
            Value::Number(number) => numbers.push(*number),
            Value::Text(text) => *texts.entry(text).or_default() += 1,
        }
    }
    let all = entries.len();
    if numbers.is_empty() {
        let (most, count) = texts.iter().max_by_key(|(_, count)| **count)?;
        return match fact.worse {
            Worse::Not(usual) if texts.get(usual).is_some_and(|count| count * 2 >= all) => {
                Some(Value::Text(usual.to_owned()))
            }
            _ if count * 2 > all => Some(Value::Text((*most).to_owned())),
            _ => None,
        };
    }
    numbers.sort_by(f64::total_cmp);
    let at = if fact.worse == Worse::Higher { (all - 1) / 2 } else { all / 2 };
    let median = *numbers.get(at)?;
    let near = numbers.iter().filter(|number| (**number - median).abs() <= fact.margin_at(median)).count();
    let is_majority = if fact.worse == Worse::Other { near * 2 > all } else { near * 2 >= all };
    is_majority.then_some(Value::Number(median))
}

impl Fact {
    fn margin_at(&self, median: f64) -> f64 {
        let (absolute, share) = self.margin;
        absolute.max(share * median)
    }

    fn differs(&self, value: &Value, common: &Value) -> bool {
        match (value, common) {
            (Value::Number(number), Value::Number(median)) => {
                let difference = number - median;
                let counts = match self.worse {
                    Worse::Lower => difference < 0.0,
                    Worse::Higher => difference > 0.0,
                    Worse::Other | Worse::Not(_) => true,
                };
                counts && difference.abs() > self.margin_at(*median)
            }
            // A pod without a problem that the others have is not suspect.
            (Value::Text(text), common) => value != common && !matches!(self.worse, Worse::Not(usual) if text == usual),
            _ => true,
        }
    }

    fn in_words(&self, value: &Value) -> String {
        match value {
            Value::Text(text) => text.clone(),
            Value::Number(number) if number.fract() == 0.0 || *number >= 10.0 => format!("{number:.0}{}", self.unit),
            Value::Number(number) => format!("{number:.1}{}", self.unit),
        }
    }
}

/// Adds the findings that at most half of the nodes have.
fn add_findings(result: &mut Comparison, members: &[Member]) {
    let mut nodes: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for member in members {
        let Ok(observed) = &member.observed else { continue };
        let node = member.pod.node.as_deref();
        all.insert(node);
        for finding in &observed.findings {
            nodes.entry(&finding.id).or_default().insert(node);
        }
    }
    let mut seen = BTreeSet::new();
    for (index, member) in members.iter().enumerate() {
        for finding in member.observed.iter().flat_map(|observed| &observed.findings) {
            let on = &nodes[finding.id.as_str()];
            if on.len() * 2 > all.len() || !seen.insert((member.pod.node.as_deref(), &finding.id, &finding.place)) {
                continue;
            }
            let suspicion = match (finding.class, finding.severity) {
                // A GPU with less power or cooling continues with lower clocks.
                (Class::Thermal | Class::Power, _) => Suspicion::Slower,
                (_, Severity::Critical | Severity::Fatal) => Suspicion::Fault,
                (Class::Hardware | Class::Fabric, _) => Suspicion::Slower,
                _ => Suspicion::Differs,
            };
            let (place, value) = (finding.place.clone(), finding.text.clone());
            let difference = Difference { fact: finding.id.clone(), place, value, common: String::new() };
            let is_of_node = finding.place.is_empty();
            result.odd.push(Odd {
                member: index,
                suspicion: Some(suspicion),
                difference,
                is_of_node,
                is_number: false,
            });
        }
    }
    for (id, on) in nodes.iter().filter(|(_, on)| on.len() * 2 > all.len()) {
        result.shared.push(format!("finding {id} (on {} of {} nodes)", on.len(), all.len()));
    }
}
