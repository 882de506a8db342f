//! Cases of public reports about hardware, firmware, PCIe, processes outside of pods, and programs that crash.

use demo_cluster::Fixture;
use serde_json::json;

use crate::case::Case;
use crate::cluster::{at, pod, scenario, status};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(52, scenario("gsp-timeout"))
            .finding("gsp-failed", &["Xid 119"])
            .beside(&["process-stuck"])
            .twin(scenario("healthy-h100-8")),
        Case::of_node(53, scenario("ecc-remap-pending"))
            .finding("row-remap-pending", &["Xid 63"])
            .beside(&["ecc-contained"])
            .twin(scenario("ecc-lifetime-only")),
        Case::of_node(54, scenario("init-failed"))
            .finding("gpu-init-failed", &["RmInitAdapter"])
            .beside(&["gpus-not-allocatable"])
            .twin(scenario("healthy-h100-8")),
        Case::of_node(55, scenario("pcie-width")).finding("pcie-width-degraded", &[]).twin(scenario("l40s-4-idle")),
        Case::of_node(56, monitored("application-crash-storm"))
            .finding("application-fault", &["Xid 31"])
            .beside(&["kubernetes-gpu-condition"])
            .never(&["Drain and reboot", "reset it"])
            .twin(monitored("healthy-h100-8")),
        Case::of_node(57, scenario("process-without-pod"))
            .finding("process-outside-kubernetes", &["jupyter-noteboo"])
            .twin(scenario("l40s-4-idle")),
        Case::of_pod(60, "research/train", killed("OOMKilled")).cause("application", &["memory"]).twin(killed("Error")),
    ]
}

/// Returns a node that a monitor has cordoned because the monitor considers the GPUs unhealthy.
fn monitored(name: &str) -> Fixture {
    let mut fixture = scenario(name);
    let condition = json!({"type": "GpuXidError", "status": "True", "reason": "XidDetected",
        "message": "Xid 31 on GPU 0", "lastTransitionTime": at("02:00:00")});
    fixture.nodes[0].conditions = vec![serde_json::from_value(condition).unwrap()];
    fixture.nodes[0].unschedulable = true;
    fixture
}

/// Returns a container that was killed by SIGKILL while its program was loading.
fn killed(reason: &str) -> Fixture {
    let ended = json!({"terminated": {"exitCode": 137, "reason": reason, "startedAt": at("02:00:05"),
        "finishedAt": at("02:01:19")}});
    scenario("healthy-h100-8").with_pod(pod("train", 1, status("Failed", ended)))
}
