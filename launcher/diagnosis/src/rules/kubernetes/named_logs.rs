//! `logs_to_read`, `named_in`: the pods whose logs the findings or other texts advise to read.
//! `add`: adds the lines of these logs to the findings. `after_reading`: the advice after a log was read.
//!
//! A finding advises to read a log only if the log could not be read. The caller of the rules reads the logs of these
//! pods and applies the rules again.

use crate::evidence;
use crate::finding::Diagnosis;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::messages::shapes;
use crate::rule::Draft;
use crate::rules::kubernetes::stack_log;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::KubernetesFacts;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, NvidiaPod};
use syringe_core::report::{Report, Section};
use syringe_core::text::clean_keeping_end;

/// Phrases with which texts name the log of a component, in lower case.
const NAMES: [(&str, Component); 8] = [
    ("log of the driver pod", Component::Driver),
    ("log of the container toolkit", Component::ContainerToolkit),
    ("log of the validation", Component::Validator),
    ("log of the device plugin", Component::DevicePlugin),
    ("log of the nvidia device plugin", Component::DevicePlugin),
    ("log of the dra driver", Component::DraDriver),
    ("log of gpu feature discovery", Component::FeatureDiscovery),
    ("log of the mig manager", Component::MigManager),
];

/// Maximum number of quoted lines of one log.
const LINES: usize = 3;
/// Maximum length of a quoted line.
const LINE: usize = 240;
/// Number of characters by which a line is recognized if the evidence already contains it.
const RECOGNIZED: usize = 60;

/// Phrases that advise to read a log, and their replacements after the log was read.
const READ: [(&str, &str); 2] =
    [("Read the log of", "See in the evidence the log of"), ("Check the log of", "See in the evidence the log of")];

/// Returns the pods of NVIDIA's software whose logs the findings of a diagnosis name and that were not read.
pub fn logs_to_read<'k>(report: &Report, kubernetes: &'k KubernetesFacts, diagnosis: &Diagnosis) -> Vec<&'k NvidiaPod> {
    let findings = diagnosis.findings.iter().filter(|finding| finding.severity > Severity::Info);
    let texts: Vec<&str> = findings.map(|finding| finding.action.text.as_str()).collect();
    let read_on_node = Section::data_of(&report.sections.host).and_then(|host| host.stack_log.as_ref());
    let is_read = |pod: &NvidiaPod| read_on_node.is_some_and(|log| log.pod_uid == pod.uid);
    named_in(&texts, kubernetes).into_iter().filter(|pod| !is_read(pod)).collect()
}

/// Returns the pods of NVIDIA's software on a node whose logs the texts advise to read and that are not linked yet.
pub fn named_in<'k>(texts: &[&str], kubernetes: &'k KubernetesFacts) -> Vec<&'k NvidiaPod> {
    let is_linked = |pod: &NvidiaPod| kubernetes.linked_pods.iter().any(|linked| linked.pod.uid == pod.uid);
    let pods = kubernetes.nvidia_pods.iter().flatten();
    pods.filter(|pod| !is_linked(pod) && has_run(pod) && texts.iter().any(|text| names(text, pod))).collect()
}

/// Returns the advice without the part that advises to read the log of this pod.
pub(crate) fn after_reading(advice: &str, pod: &NvidiaPod) -> String {
    READ.iter().fold(without_command(advice, pod), |text, (read, see)| text.replace(read, see))
}

/// Returns whether a text advises to read the log of a pod.
fn names(text: &str, pod: &NvidiaPod) -> bool {
    let by_name = || text.contains(&format!(" logs {}", evidence::name(&pod.name)));
    let lower = text.to_ascii_lowercase();
    by_name() || NAMES.iter().any(|(words, component)| *component == pod.component && lower.contains(words))
}

/// Returns whether a container of a pod has a log.
fn has_run(pod: &NvidiaPod) -> bool {
    pod.containers.iter().any(|one| one.restarts > 0 || one.state.kind != ContainerStateKind::Waiting)
}

/// Adds the logs that were read to the findings that name them, and removes the advice to read them.
pub(crate) fn add(node: &Node<'_>, drafts: &mut [Draft]) {
    for draft in drafts.iter_mut().filter(|draft| draft.severity > Severity::Info) {
        for pod in node.kubernetes.nvidia_pods.iter().flatten() {
            if !names(&draft.advice, pod) {
                continue;
            }
            let Some(log) = stack_log::log_of(node, pod) else { continue };
            draft.advice = after_reading(&draft.advice, pod);
            let is_empty = log.iter().all(|line| line.trim().is_empty());
            let telling = shapes::telling_lines(log.into_iter());
            let name = pods::name(pod);
            if is_empty {
                draft.evidence.push(format!("the log of {name} is empty"));
            }
            for line in telling.iter().rev().take(LINES).rev() {
                let line = clean_keeping_end(line, LINE);
                let end: String = line.chars().skip(line.chars().count().saturating_sub(RECOGNIZED)).collect();
                if !draft.evidence.iter().any(|known| known.contains(&end)) {
                    draft.evidence.push(format!("log of {name}: \"{line}\""));
                }
            }
        }
    }
}

/// Removes the sentence with the command that shows the log of a pod.
fn without_command(text: &str, pod: &NvidiaPod) -> String {
    let name = format!(" logs {}", evidence::name(&pod.name));
    let Some(at) = text.find(&name) else { return text.to_owned() };
    let start = text[..at].rfind(" Log: ").unwrap_or(at);
    let rest = &text[at..];
    let end = rest.find(". ").map_or(text.len(), |end| at + end + 1);
    format!("{}{}", &text[..start], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::facts::kubernetes::linked_pod::LinkedPod;

    /// Returns the scenarios. For each pod of NVIDIA's software, there is a scenario in which the pod crashes.
    fn nodes() -> Vec<(String, Report, KubernetesFacts)> {
        let mut all = Vec::new();
        for scenario in scenarios::all() {
            let (mut report, kubernetes) = (scenario.report(), scenario.expected.cluster.clone());
            // The probe reads one log on the node. The other logs are read from the API server.
            let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut());
            host.into_iter().for_each(|host| host.stack_log = None);
            for at in 0..kubernetes.nvidia_pods.iter().flatten().count() {
                let mut crashed = kubernetes.clone();
                let pod = crashed.nvidia_pods.iter_mut().flatten().nth(at).expect("a pod");
                let component = pod.component;
                pod.ready = false;
                let Some(container) = pod.containers.iter_mut().find(|one| !one.init) else { continue };
                (container.ready, container.restarts) = (false, 9);
                container.state.kind = ContainerStateKind::Waiting;
                container.state.reason = Some("CrashLoopBackOff".to_owned());
                crashed.gpu_capacity = Some(0);
                crashed.gpu_allocatable = Some(0);
                all.push((format!("{} with a crash of {component:?}", scenario.name), report.clone(), crashed));
            }
            all.push((scenario.name.to_owned(), report, kubernetes));
        }
        all
    }

    /// Tests in all scenarios that a finding advises to read a log only if the log could not be read.
    #[test]
    fn no_finding_tells_to_read_a_log_that_was_read() {
        let (mut asked, mut quoted) = (0, 0);
        for (name, report, kubernetes) in nodes() {
            let first = crate::diagnose(&report, &kubernetes);
            let wanted: Vec<NvidiaPod> = logs_to_read(&report, &kubernetes, &first).into_iter().cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            asked += wanted.len();
            let words = "level=error the frobnicator is sad";
            let linked = wanted.iter().map(|pod| LinkedPod {
                role: LinkedPod::NAMED_BY_FINDING.to_owned(),
                pod: pod.clone(),
                log: Some(vec![words.to_owned()]),
                ..LinkedPod::default()
            });
            let mut known = kubernetes.clone();
            known.linked_pods.extend(linked);
            let second = crate::diagnose(&report, &known);
            let findings = || second.findings.iter().filter(|finding| finding.severity > Severity::Info);
            for pod in &wanted {
                let tells = findings().find(|finding| {
                    names(&finding.action.text, pod)
                        && READ.iter().any(|(read, _)| {
                            finding.action.text.contains(read) || finding.action.text.contains(" Log: ")
                        })
                });
                assert!(tells.is_none(), "{name}: {}: {:?}", pod.name, tells.map(|one| &one.action.text));
            }
            let says = |finding: &crate::Finding| {
                finding.evidence.iter().chain([&finding.title]).any(|line| line.contains("frobnicator"))
            };
            quoted += usize::from(findings().any(says));
            assert_eq!(first.verdict, second.verdict, "{name}");
        }
        assert!(asked > 5 && quoted > 5, "{asked} {quoted}");
    }
}
