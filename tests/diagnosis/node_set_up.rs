//! Tests of the rules about the container runtime, CDI and the driver load: contradictory settings are found; healthy
//! settings, unread files and files of a container lead to no finding.

use diagnosis::diagnose;
use diagnosis::finding::Verdict;
use syringe_core::classification::Severity;
use syringe_core::facts::cdi::StaleDevice;
use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler, ToolkitConfig};
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kubernetes::node::{DraDevice, KubernetesFacts, NvidiaContainerState};
use syringe_core::report::{Extent, Report, ReportScope, Section};

use super::scenarios;

/// Returns whether a finding is about how containers get their GPUs.
fn is_of_containers(id: &str) -> bool {
    (id.starts_with("runtime-") && id != "runtime-restarted") || id.starts_with("cdi-")
}

fn host(report: &mut Report) -> &mut syringe_core::facts::host::Host {
    report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the section")
}

/// Files of a container are not files of the node, regardless of their content.
#[test]
fn a_probe_in_a_container_says_nothing_of_the_nodes_runtime() {
    let mut seen = 0;
    for (name, (report, expected)) in scenarios() {
        let ids = |report: &Report| -> Vec<String> {
            let findings = diagnose(report, &expected.cluster).findings;
            findings.into_iter().map(|finding| finding.id).filter(|id| is_of_containers(id)).collect()
        };
        seen += usize::from(!ids(&report).is_empty());
        let inside = |scope| Report { scope: Some(scope), ..report.clone() };
        for scope in [
            ReportScope { files: Extent::Container, ..ReportScope::default() },
            ReportScope { files: Extent::Unknown, ..ReportScope::default() },
            ReportScope { gpus: Extent::Container, ..ReportScope::default() },
        ] {
            assert_eq!(ids(&inside(scope)), Vec::<String>::new(), "{name} {scope:?}");
        }
    }
    assert!(seen >= 12, "{seen} scenarios have such a finding");
}

/// The rules draw no conclusion from an incomplete list, or from files that were not read.
#[test]
fn what_was_not_read_is_no_reason() {
    for (name, (mut report, expected)) in scenarios() {
        if Section::data_of(&report.sections.host).is_none_or(|host| host.container_runtime.is_none()) {
            continue;
        }
        let runtime = host(&mut report).container_runtime.as_mut().expect("a runtime");
        runtime.complete = false;
        runtime.handlers.iter_mut().for_each(|handler| handler.binary_exists = None);
        (runtime.config_changed_at, runtime.toolkit) = (None, None);
        host(&mut report).cdi = None;
        let findings = diagnose(&report, &expected.cluster).findings;
        let left: Vec<String> =
            findings.into_iter().map(|finding| finding.id).filter(|id| is_of_containers(id)).collect();
        assert_eq!(left, Vec::<String>::new(), "{name}");
    }
}

/// A finding with the reason for a missing driver replaces the finding `driver-not-loaded`, and there is only one such
/// finding.
#[test]
fn an_absent_driver_has_one_finding() {
    const ABSENT: [&str; 5] = [
        "driver-not-loaded",
        "driver-wrong-kernel-module-type",
        "driver-refused-by-secure-boot",
        "driver-refused-by-selinux",
        "driver-not-built-for-kernel",
    ];
    let mut seen = 0;
    for (name, (mut report, expected)) in scenarios() {
        let findings = diagnose(&report, &expected.cluster).findings;
        let of_driver = findings.iter().filter(|finding| ABSENT.contains(&finding.id.as_str())).count();
        assert!(of_driver <= 1, "{name}");
        let is_reason = |id: &str| ABSENT[2..].contains(&id);
        if !findings.iter().any(|finding| is_reason(&finding.id)) {
            continue;
        }
        seen += 1;
        // If the driver is loaded, there must be no finding with a reason for a missing driver.
        host(&mut report).driver.loaded = Some("580.95.05".to_owned());
        let why = diagnose(&report, &expected.cluster).findings;
        assert!(!why.iter().any(|finding| is_reason(&finding.id) && !told_not_loaded(&report)), "{name}");
    }
    assert!(seen >= 5, "{seen} scenarios have a reason");
}

/// Returns whether NVML reported that the driver is not loaded.
fn told_not_loaded(report: &Report) -> bool {
    let problems = report.sections.problems();
    problems.iter().any(|(_, problem)| problem.code == "driver_not_loaded")
}

/// A change of a node and of its Kubernetes data.
type Change = fn(&mut Report, &mut KubernetesFacts);

fn runtime(report: &mut Report) -> &mut ContainerRuntime {
    host(report).container_runtime.as_mut().expect("a runtime")
}

/// Lets a DRA driver publish all GPUs of the node, and lets no device plugin offer them.
fn publish(report: &mut Report, cluster: &mut KubernetesFacts) {
    let gpus = &report.sections.inventory.as_ref().and_then(|section| section.data.as_ref()).expect("GPUs").gpus;
    let device = |gpu: &GpuInventory| DraDevice {
        name: format!("gpu-{}", gpu.index),
        kind: Some("gpu".into()),
        uuid: gpu.uuid.clone(),
        ..DraDevice::default()
    };
    cluster.dra_devices = gpus.iter().map(device).collect();
    cluster.gpu_dra = Some(true);
    (cluster.gpu_capacity, cluster.gpu_allocatable) = (None, None);
    let kubelet = report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("the kubelet");
    kubelet.registered.clear();
}

/// Returns the verdict and the findings (id, severity) of a node that was read completely, after a change.
fn after(change: Change) -> (Verdict, Vec<(String, Severity)>) {
    let (mut report, mut expected) = scenarios().remove("whole-h100-8").expect("the scenario");
    change(&mut report, &mut expected.cluster);
    let diagnosis = diagnose(&report, &expected.cluster);
    (diagnosis.verdict, diagnosis.findings.into_iter().map(|finding| (finding.id, finding.severity)).collect())
}

#[test]
fn settings_that_contradict_each_other_are_found() {
    let changes: [(&str, Severity, Change); 13] = [
        ("runtime-default-not-nvidia", Severity::Warning, |report, cluster| {
            runtime(report).cdi_enabled = Some(false);
            let runc = RuntimeHandler {
                name: "runc".into(),
                runtime_type: Some("io.containerd.runc.v2".into()),
                ..RuntimeHandler::default()
            };
            runtime(report).handlers.push(runc);
            runtime(report).default_handler = Some("runc".into());
            cluster.runtime_classes = Some(Vec::new());
        }),
        ("runtime-handler-runs-other-program", Severity::Warning, |report, _| {
            runtime(report).handlers.iter_mut().for_each(|handler| handler.binary = Some("/usr/bin/runc".into()));
        }),
        ("runtime-cdi-disabled", Severity::Warning, |report, cluster| {
            runtime(report).cdi_enabled = Some(false);
            cluster.gpu_dra = Some(true);
        }),
        ("toolkit-mode-for-jetson", Severity::Warning, |report, _| {
            runtime(report).toolkit =
                Some(ToolkitConfig { path: "/etc/c.toml".into(), mode: Some("csv".into()), default_kind: None });
        }),
        ("gpus-offered-twice", Severity::Warning, |_, cluster| cluster.gpu_dra = Some(true)),
        ("gpus-offered-twice", Severity::Warning, |report, cluster| {
            let both = (cluster.gpu_capacity, report.sections.kubelet.clone());
            publish(report, cluster);
            (cluster.gpu_capacity, report.sections.kubelet) = both;
        }),
        ("gpu-not-published", Severity::Warning, |report, cluster| {
            publish(report, cluster);
            cluster.dra_devices.remove(3);
        }),
        ("published-device-without-gpu", Severity::Warning, |report, cluster| {
            publish(report, cluster);
            cluster.dra_devices[3].uuid = Some("GPU-0ef073d2-8b0d-4220-a630-44b3db6f98bb".into());
        }),
        ("dra-device-tainted", Severity::Warning, |report, cluster| {
            publish(report, cluster);
            cluster.dra_devices[3].taints = vec!["gpu.nvidia.com/xid=79:NoSchedule".into()];
        }),
        ("stack-component-restarts", Severity::Info, |report, cluster| {
            let container = &mut cluster.nvidia_pods.as_mut().expect("pods")[2].containers[0];
            container.restarts = 212;
            let since = report.taken_at.map(|now| now - jiff::SignedDuration::from_hours(1));
            container.last =
                Some(NvidiaContainerState { since, reason: Some("OOMKilled".into()), ..container.state.clone() });
        }),
        ("driver-library-newer", Severity::Warning, |report, _| {
            host(report).driver.library = Some("580.95.05".into());
        }),
        ("driver-part-missing", Severity::Critical, |report, _| {
            host(report).modules.retain(|module| module != "nvidia_uvm");
        }),
        ("cdi-stale", Severity::Warning, |report, _| {
            let specification = &mut host(report).cdi.as_mut().expect("CDI").specs[0];
            specification.stale_devices = vec![StaleDevice {
                path: "/dev/nvidia-uvm".into(),
                in_spec: Some("511:0".into()),
                on_node: Some("508:0".into()),
            }];
        }),
    ];
    for (id, severity, change) in changes {
        let (_, found) = after(change);
        assert!(found.contains(&(id.to_owned(), severity)), "{id}: {found:?}");
    }
}

#[test]
fn settings_of_healthy_nodes_are_no_finding() {
    let changes: [Change; 9] = [
        publish,
        |report, cluster| {
            publish(report, cluster);
            cluster.dra_devices[3].taints = vec!["example.com/reserved=team-a:NoSchedule".into()];
        },
        // A MIG device that exists only while a pod uses it has no UUID.
        |report, cluster| {
            publish(report, cluster);
            cluster.dra_devices.truncate(3);
            cluster.dra_devices.push(DraDevice { name: "gpu-4-mig-1g10gb-0".into(), ..DraDevice::default() });
        },
        // The device plugin offers half of the GPUs, and the DRA driver offers the other half.
        |report, cluster| {
            let (capacity, kubelet) = (cluster.gpu_capacity, report.sections.kubelet.clone());
            publish(report, cluster);
            let uuids: Vec<String> = cluster.dra_devices.drain(..4).filter_map(|device| device.uuid).collect();
            report.sections.kubelet = kubelet;
            (cluster.gpu_capacity, cluster.gpu_allocatable) = (capacity.map(|_| 4), capacity.map(|_| 4));
            let kubelet =
                report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("the kubelet");
            kubelet.registered.iter_mut().for_each(|one| one.devices.retain(|device| uuids.contains(device)));
            kubelet.allocations.clear();
            cluster.gpu_pods = Some(Vec::new());
            let processes = report.sections.processes.as_mut().and_then(|section| section.data.as_mut());
            processes.expect("the processes").processes.clear();
        },
        |report, _| host(report).driver.library = Some("570.86.15".into()),
        |report, _| {
            runtime(report).toolkit =
                Some(ToolkitConfig { path: "/etc/c.toml".into(), mode: Some("legacy".into()), default_kind: None });
            let specification = &mut host(report).cdi.as_mut().expect("CDI").specs[0];
            specification.driver_version = Some("550.54.15".into());
        },
        |report, _| runtime(report).cdi_enabled = Some(false),
        // Only the DRA driver offers GPUs.
        |report, cluster| {
            cluster.gpu_dra = Some(true);
            (cluster.gpu_capacity, cluster.gpu_allocatable) = (None, None);
            let kubelet =
                report.sections.kubelet.as_mut().and_then(|section| section.data.as_mut()).expect("the kubelet");
            kubelet.registered.clear();
        },
        |_, cluster| {
            // The restarts were weeks ago.
            let container = &mut cluster.nvidia_pods.as_mut().expect("pods")[2].containers[0];
            container.restarts = 212;
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (verdict, found) = after(change);
        assert!(found.iter().all(|(_, severity)| *severity == Severity::Info), "{at}: {verdict:?} {found:?}");
    }
}

#[test]
fn an_answer_that_doubts_the_start_of_containers_is_not_healthy() {
    let (verdict, found) = after(|report, _| {
        host(report).cdi.as_mut().expect("CDI").unread = vec!["/etc/cdi/other.yaml".into()];
    });
    assert_eq!(verdict, Verdict::Unknown, "{found:?}");
}
