//! Cases of public reports about the container runtime and CDI, for the tool `diagnose_gpu_node`.

use demo_cluster::Fixture;
use serde_json::json;
use syringe_core::report::Report;

use crate::case::Case;
use crate::cluster::{at, cluster, facts, from_json, node};

/// Findings about stages of the stack after the broken stage. These findings are also true.
const BEHIND: [&str; 2] = ["gpus-not-advertised", "stack-broken-at-plugin"];

/// Returns a node whose device plugin uses NVIDIA's RuntimeClass. `offered`: whether the GPUs are in the capacity.
fn with_plugin(scenario: &str, offered: bool) -> Fixture {
    of_plugin(facts(scenario), offered, Some("nvidia"))
}

fn of_plugin(report: Report, offered: bool, class: Option<&str>) -> Fixture {
    let mut gpu_node = node(report);
    if !offered {
        gpu_node.resources.retain(|name, _| !name.starts_with("nvidia.com/"));
    }
    let mut fixture = cluster(gpu_node);
    fixture.pods.push(from_json(json!({
        "metadata": {
            "name": "nvidia-device-plugin-daemonset-x7p2q", "namespace": "gpu-operator", "uid": "0f8a7c2e-11aa-4bbb-8ccc-123456789abc",
            "creationTimestamp": at("00:10:00"), "labels": {"app": "nvidia-device-plugin-daemonset"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "nvidia-device-plugin-daemonset", "uid": "d", "controller": true}],
        },
        "spec": {
            "nodeName": "gpu-1", "runtimeClassName": class,
            "containers": [{"name": "nvidia-device-plugin", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.4"}],
        },
        "status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at("00:10:09")}],
            "containerStatuses": [{
                "name": "nvidia-device-plugin", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": at("00:10:05")}},
            }],
        },
    })));
    fixture
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(2, with_plugin("cdi-with-other-names", true))
            .finding("cdi-names-differ", &["has all only", "management.nvidia.com/gpu=GPU-"])
            .twin(with_plugin("cdi-of-the-operators-own", true)),
        Case::of_node(3, with_plugin("cdi-never-written", false))
            .finding("cdi-missing", &["no specification of NVIDIA devices", "nvidia-ctk cdi generate"])
            .beside(&BEHIND)
            .twin(with_plugin("cdi-that-nobody-needs", true)),
        Case::of_node(6, with_plugin("cdi-with-old-numbers", true))
            .finding("cdi-stale", &["/dev/nvidia-uvm is 511:0 in the specification, 507:0 on the node"])
            .twin(with_plugin("cdi-that-nobody-needs", true)),
        Case::of_node(7, with_plugin("runtime-without-the-handler", false))
            .finding("runtime-handler-missing", &["has no handler nvidia"])
            .beside(&BEHIND)
            .twin(with_plugin("runtime-whose-file-was-touched", true)),
        Case::of_node(8, with_plugin("runtime-handler-without-a-type", false))
            .finding("runtime-handler-incomplete", &["no runtime_type", "99-nvidia.toml"])
            .beside(&BEHIND)
            .twin(with_plugin("runtime-whose-file-was-touched", true)),
        Case::of_node(9, of_plugin(facts("plugin-in-the-wrong-runtime"), false, None))
            .finding("runtime-class-missing-on-plugin", &["the default handler is runc"])
            .beside(&BEHIND)
            .twin(of_plugin(facts("plugin-in-the-default-runtime"), true, None)),
    ]
}
