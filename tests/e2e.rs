//! Tests of the built program against a real cluster: nodes are read, and the pod is deleted after every end of a call.
//! The tests are ignored by default. `policy`: the admission policy on this cluster.
//!
//! ```text
//! GPU_SYRINGE_E2E_KUBECONFIG=~/.kube/config GPU_SYRINGE_E2E_IMAGE=registry/node-probe:tag \
//!     cargo test -p gpu-syringe --test e2e -- --ignored
//! ```
//!
//! `GPU_SYRINGE_E2E_NAMESPACE` is the namespace (`gpu-syringe` by default; `deploy/` creates it). The tests use the first
//! node that is Ready; the node needs no GPU. `GPU_SYRINGE_E2E_GPUS` contains the GPUs of this node. All files of `deploy/`
//! must be installed. The variable `image` of the policy gpu-syringe-probe-only must be the tested image, by digest. The
//! kubeconfig must belong to an administrator, because the tests of the policy impersonate a reader and create a namespace
//! without a policy. The other tests only create probe pods.
#![allow(clippy::unwrap_used)]

#[path = "policy/cases.rs"]
mod cases;
#[path = "e2e/policy.rs"]
mod policy;
#[path = "support/e2e.rs"]
mod site;
#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use site::Site;

use crate::support::client::{Client, Era};

/// Number of the phase that waits for the container. The pod exists, and the answer follows after about 100 ms.
const START: u64 = 2;

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn a_node_is_read_and_the_pod_is_deleted_with_both_protocols() {
    let site = Site::open().await;
    for era in [Era::Initialize, Era::PerRequest] {
        let mut client = Client::start_in(era, site.launcher()).await;
        client.call("list_gpu_nodes", json!({})).await.success();
        let answer = client.call("analyze_xid_errors", json!({"node_name": site.node, "since": "24h"})).await;
        site.assert_bare().await;
        let answer = answer.deleted();
        assert_eq!(answer["probe"]["source"], "hardware");
        assert!(answer["coverage"]["kernel_log"].is_array(), "{answer}");
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_host_is_read_whether_it_has_gpus_or_not() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let answer = client.call("diagnose_gpu_node", json!({"node_name": site.node, "detail": true})).await;
    let answer = answer.deleted();
    let host = answer["sections_read"].as_array().unwrap().iter().find(|looked| looked["section"] == "host").unwrap();
    assert_ne!(host["status"], "error", "{answer}");
    assert!(answer["detail"]["host"]["data"]["uptime_seconds"].as_u64() > Some(0), "{answer}");
    site.assert_bare().await;
}

/// `GPU_SYRINGE_E2E_GPUS` contains the product name and the number of the node's GPUs: `NVIDIA H100 80GB HBM3,8`.
#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_gpus_that_nvml_shows_are_read() {
    let Ok(expected) = std::env::var("GPU_SYRINGE_E2E_GPUS") else {
        eprintln!("SKIPPED: GPU_SYRINGE_E2E_GPUS is not set to the GPUs of the node");
        return;
    };
    let (product, count) = expected.rsplit_once(',').unwrap();
    let site = Site::open().await;
    let answer = site.client().await.call("get_gpu_inventory", json!({"node_name": site.node})).await;
    let gpus = answer.deleted()["inventory"]["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), count.parse::<usize>().unwrap());
    for gpu in gpus {
        assert_eq!(gpu["name"], product, "{gpu}");
        assert!(gpu["uuid"].as_str().is_some_and(|uuid| uuid.starts_with("GPU-")), "{gpu}");
    }
    site.assert_bare().await;
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn two_calls_at_once_on_one_node_are_both_answered() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let calls = [(); 2].map(|()| client.send_call("analyze_xid_errors", json!({"node_name": site.node})));
    for call in calls {
        client.result(call).await.deleted();
    }
    site.assert_bare().await;
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_pod_is_gone_when_the_client_cancels() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let call = client.send_call("diagnose_gpu_node", json!({"node_name": site.node}));
    client.until_progress(call, START).await;
    client.cancel(call);
    site.until_bare().await;
    client.close().await;
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_pod_is_gone_when_standard_input_ends_in_mid_call() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let call = client.send_call("diagnose_gpu_node", json!({"node_name": site.node}));
    client.until_progress(call, START).await;
    client.close().await;
    site.assert_bare().await;
}

#[cfg(unix)]
#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_pod_is_gone_after_sigterm_in_mid_call() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let call = client.send_call("diagnose_gpu_node", json!({"node_name": site.node}));
    client.until_progress(call, START).await;
    client.program.signal("TERM");
    assert!(client.program.exit().await.success());
    site.assert_bare().await;
}

#[cfg(unix)]
#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_next_start_sweeps_the_pod_of_a_launcher_that_was_killed() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let call = client.send_call("diagnose_gpu_node", json!({"node_name": site.node}));
    client.until_progress(call, START).await;
    client.program.signal("KILL");
    client.program.exit().await;
    let left = site.pods().await;
    assert_eq!(left.len(), 1, "the program was killed before it deleted its pod");
    let swept = site.launcher().args(["sweep"]).run().await.json();
    assert_eq!(swept["deleted"], json!(left), "{swept}");
    site.assert_bare().await;
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn an_image_that_cannot_be_pulled_is_an_error_in_the_kubelet_s_words() {
    // The policy would reject the pod before a kubelet pulls the image.
    let site = Site::open().await.in_a_namespace_without_policy().await;
    // Nothing listens on this port: a connection is refused immediately on any network.
    let image = "127.0.0.1:1/gpu-syringe/nothing:0";
    let launcher = site.launcher().env("GPU_SYRINGE_IMAGE", image);
    let answer = Client::start(launcher).await.call("analyze_xid_errors", json!({"node_name": site.node})).await;
    let left = site.pods().await;
    site.remove_namespace().await;
    answer.error_with(&["Image", image, "--image"]);
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn nothing_is_created_for_a_node_that_does_not_exist() {
    let site = Site::open().await;
    let answer = site.client().await.call("analyze_xid_errors", json!({"node_name": "gpu-syringe-e2e-absent"})).await;
    answer.error_with(&["gpu-syringe-e2e-absent", "no such node"]);
    site.assert_bare().await;
}
