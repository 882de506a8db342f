//! `limit_to_container`: limits a report from inside a container to the GPUs of that container.
//!
//! GPUs that NVML does not list in a container are not missing on the node. Without this limit, a probe in a container
//! without GPUs would report that the node has lost all GPUs.

use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Extent, Problem, Report, ReportScope, Section, Status};

/// Code of a problem that the container causes, not the GPU. No rule uses this code, so the section becomes unknown.
const OUT_OF_SIGHT: &str = "out_of_sight";

/// Removes from a report and from the cluster facts everything that depends on what is outside the container.
pub(crate) fn limit_to_container(report: &mut Report, cluster: &mut KubernetesFacts) {
    let Some(ReportScope { gpus, files, .. }) = report.scope else { return };
    let listed = Section::data_of(&report.sections.inventory).map_or(0, |inventory| inventory.gpus.len());
    // A privileged container has all device files.
    let blind = gpus != Extent::Node || (files != Extent::Node && listed == 0);
    if !blind {
        return;
    }
    (cluster.gpu_capacity, cluster.gpu_allocatable, cluster.gpu_label_count) = (None, None, None);
    cluster.instance_type = None;
    // Allocations and processes of other containers are missing.
    cluster.gpu_pods = None;
    // The capacity of the node is not compared with the GPUs of one container.
    cluster.other_gpu_resources = true;
    let sections = &mut report.sections;
    let given: Vec<_> = Section::data_of(&sections.inventory)
        .into_iter()
        .flat_map(|inventory| &inventory.gpus)
        .filter_map(|gpu| gpu.pci_address.clone())
        .collect();
    if let Some(host) = sections.host.as_mut().and_then(|section| section.data.as_mut()) {
        host.pci_gpus.retain(|gpu| gpu.pci_address.as_ref().is_some_and(|address| given.contains(address)));
        host.device_nodes_missing.clear();
    }
    // The node's allocations contain GPUs that are not visible in the container.
    let uuids: Vec<_> = Section::data_of(&sections.inventory)
        .into_iter()
        .flat_map(|inventory| &inventory.gpus)
        .filter_map(|gpu| gpu.uuid.clone())
        .collect();
    if let Some(kubelet) = sections.kubelet.as_mut().and_then(|section| section.data.as_mut()) {
        let here = |id: &String| !id.starts_with("GPU-") || uuids.iter().any(|uuid| id.starts_with(uuid));
        kubelet.allocations.iter_mut().for_each(|allocation| allocation.devices.retain(here));
        kubelet.registered.iter_mut().for_each(|registered| registered.devices.retain(here));
    }
    if listed == 0 {
        mark_unknown(&mut sections.inventory);
        mark_unknown(&mut sections.telemetry);
        mark_unknown(&mut sections.topology);
        mark_unknown(&mut sections.ecc);
        mark_unknown(&mut sections.mig);
    }
}

/// Sets a requested section without data to unknown.
fn mark_unknown<T>(section: &mut Option<Section<T>>) {
    let Some(section) = section else { return };
    let why = section.problems.first().map(|problem| format!(" ({})", problem.why)).unwrap_or_default();
    section.data = None;
    section.status = Status::Error;
    section.problems = vec![Problem {
        what: "NVML".into(),
        why: format!("the probe ran inside a container in which no GPU is visible{why}"),
        next_step: "Specify a pod with a GPU (--ephemeral-pod), or use --via pod to read all GPUs of the node.".into(),
        gpu: None,
        code: OUT_OF_SIGHT.into(),
    }];
}

#[cfg(test)]
mod tests {
    use diagnosis::finding::Verdict;
    use serde_json::json;
    use syringe_core::classification::Severity;
    use syringe_core::scenarios;

    use super::*;

    fn confined(change: impl FnOnce(&mut Report)) -> diagnosis::Diagnosis {
        let mut report = scenarios::named("healthy-h100-8").expect("a scenario").report();
        change(&mut report);
        let mut cluster = KubernetesFacts {
            node: Some("gpu-1".into()),
            gpu_capacity: Some(8),
            gpu_allocatable: Some(8),
            gpu_label_count: Some(8),
            ..KubernetesFacts::default()
        };
        limit_to_container(&mut report, &mut cluster);
        diagnosis::diagnose(&report, &cluster)
    }

    fn in_a_container(gpus: Extent) -> Option<ReportScope> {
        Some(ReportScope { gpus, processes: Extent::Container, files: Extent::Container })
    }

    #[test]
    fn a_container_without_gpus_says_nothing_of_its_node() {
        for code in ["library_not_found", "driver_not_loaded", "access_blocked"] {
            for gpus in [Extent::Node, Extent::Container, Extent::Unknown] {
                let diagnosis = confined(|report| {
                    report.scope = in_a_container(gpus);
                    let why = Problem {
                        what: "NVML".into(),
                        why: "NVML: no".into(),
                        code: code.into(),
                        ..Problem::default()
                    };
                    report.sections.inventory = Some(Section::failed(why.clone()));
                    report.sections.telemetry = Some(Section::failed(why.clone()));
                    report.sections.topology = Some(Section::failed(why.clone()));
                    report.sections.ecc = Some(Section::failed(why.clone()));
                    report.sections.mig = Some(Section::failed(why));
                });
                let worst = diagnosis.findings.iter().map(|finding| finding.severity).max();
                assert!(worst < Some(Severity::Critical), "{code} {gpus:?}: {:?}", diagnosis.findings);
                assert_ne!(diagnosis.verdict, Verdict::Healthy);
                assert!(json!(diagnosis.unknown).to_string().contains("inside a container"), "{:?}", diagnosis.unknown);
            }
        }
    }

    #[test]
    fn a_container_with_some_of_the_gpus_misses_none() {
        let diagnosis = confined(|report| {
            report.scope = in_a_container(Extent::Container);
            let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut());
            inventory.expect("an inventory").gpus.truncate(2);
        });
        let critical = diagnosis.findings.iter().filter(|finding| finding.severity >= Severity::Critical);
        assert_eq!(critical.count(), 0, "{:?}", diagnosis.findings);
    }

    #[test]
    fn on_a_node_nothing_is_taken_away() {
        let diagnosis = confined(|report| {
            let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut());
            inventory.expect("an inventory").gpus.truncate(2);
        });
        assert!(diagnosis.verdict >= Verdict::Critical, "six GPUs are missing: {:?}", diagnosis.findings);
    }
}
