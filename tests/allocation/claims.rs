//! Tests of GPU counts with dynamic resource allocation: each device of a claim is counted once.

use demo_cluster::{Denial, Fixture, NodeFixture};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use syringe_core::report::Report;

use crate::pods::{pod, used};
use crate::tools::Bench;

const DRIVER: &str = "gpu.nvidia.com";

fn slice(node: &str, gpus: usize) -> Value {
    let device = |number: usize| {
        json!({"name": format!("gpu-{number}"), "attributes": {
            "type": {"string": "gpu"}, "uuid": {"string": format!("GPU-{number}")},
            "productName": {"string": "NVIDIA H100 80GB HBM3"}, "driverVersion": {"version": "570.124.6"},
        }})
    };
    let devices: Vec<_> = (0..gpus).map(device).collect();
    json!({
        "metadata": {"name": format!("{node}-{DRIVER}")},
        "spec": {
            "driver": DRIVER, "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    })
}

fn claim(name: &str, devices: &[&str], pods: &[&str]) -> Value {
    let result = |device: &&str| match device.strip_suffix(" (admin)") {
        Some(device) => {
            json!({"request": "r", "driver": DRIVER, "pool": "gpu-1", "device": device, "adminAccess": true})
        }
        None => json!({"request": "r", "driver": DRIVER, "pool": "gpu-1", "device": device}),
    };
    let results: Vec<_> = devices.iter().map(result).collect();
    let reserved: Vec<_> =
        pods.iter().map(|pod| json!({"resource": "pods", "name": pod, "uid": format!("uid-{pod}")})).collect();
    json!({
        "metadata": {"name": name, "namespace": "jobs"},
        "spec": {"devices": {"requests": [{"name": "r"}]}},
        "status": {"allocation": {"devices": {"results": results, "config": []}}, "reservedFor": reserved},
    })
}

/// Returns a pod that uses a claim. `made`: the claim was created from a template of the pod.
fn claiming(name: &str, claim: &str, made: bool) -> Pod {
    let container = json!({"name": "main", "image": "i", "resources": {"claims": [{"name": "gpu"}]}});
    let named = if made {
        json!({"name": "gpu", "resourceClaimTemplateName": "t"})
    } else {
        json!({"name": "gpu", "resourceClaimName": claim})
    };
    let mut value = serde_json::to_value(pod(
        "jobs",
        name,
        "Running",
        json!({"containers": [container], "resourceClaims": [named]}),
    ))
    .unwrap();
    if made {
        value["status"]["resourceClaimStatuses"] = json!([{"name": "gpu", "resourceClaimName": claim}]);
    }
    serde_json::from_value(value).unwrap()
}

fn fixture(claims: Vec<Value>, pods: Vec<Pod>) -> Fixture {
    let node = NodeFixture::new("gpu-1", Report::default());
    Fixture { resource_slices: vec![slice("gpu-1", 8)], resource_claims: claims, pods, ..Fixture::of([node]) }
}

#[tokio::test]
async fn a_device_of_several_claims_and_pods_is_counted_once() {
    let cases: Vec<(&str, Vec<Value>, Vec<Pod>, u64)> = vec![
        ("no claim", vec![], vec![], 0),
        ("one claim of two devices", vec![claim("c", &["gpu-0", "gpu-1"], &["a"])], vec![claiming("a", "c", true)], 2),
        (
            "two claims of one device",
            vec![claim("c", &["gpu-0"], &["a"]), claim("d", &["gpu-0"], &["b"])],
            vec![claiming("a", "c", false), claiming("b", "d", false)],
            1,
        ),
        (
            "two pods share a claim",
            vec![claim("c", &["gpu-0"], &["a", "b"])],
            vec![claiming("a", "c", false), claiming("b", "c", false)],
            1,
        ),
        (
            "access for administration allocates nothing",
            vec![claim("c", &["gpu-0 (admin)"], &["a"])],
            vec![claiming("a", "c", false)],
            0,
        ),
        ("a claim that no pod uses any more still holds its device", vec![claim("c", &["gpu-5"], &[])], vec![], 1),
    ];
    for (case, claims, pods, held) in cases {
        let bench = Bench::of(fixture(claims, pods)).await;
        let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
        assert_eq!(used(&answer, DRIVER), (held, 8 - held), "{case}");
        // The node has neither a GPU label nor GPU capacity: only its devices show that it is a GPU node.
        let list = bench.ask("list_gpu_nodes", json!({})).await;
        assert_eq!(list["totals"]["gpu_nodes"], 1, "{case}");
        let allocated = list["totals"]["allocated"].get(DRIVER).and_then(Value::as_u64);
        assert_eq!(allocated.unwrap_or(0), held, "{case}");
    }
}

#[tokio::test]
async fn a_claim_gives_the_uuids_without_a_probe() {
    let claims = vec![claim("c", &["gpu-3"], &["a", "b"])];
    let bench = Bench::of(fixture(claims, vec![claiming("a", "c", false), claiming("b", "c", false)])).await;
    let answer = bench.ask("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})).await;
    let row = &answer["pods"][0];
    assert_eq!(row["containers"][0]["devices"], json!([{"uuid": "GPU-3", "source": "claim"}]));
    assert_eq!(row["claims"][0]["shared_with"], json!(["b"]));
    let list = bench.ask("list_gpu_nodes", json!({})).await;
    assert_eq!(list["nodes"][0]["model"], "NVIDIA H100 80GB HBM3");
    assert_eq!(bench.cluster.pods_created(), 0);
}

#[tokio::test]
async fn claims_that_cannot_be_listed_are_unknown_with_their_devices() {
    let claims = vec![claim("c", &["gpu-3"], &["a"])];
    let fixture = fixture(claims, vec![claiming("a", "c", true)]).denying(Denial::of("list", "resourceclaims"));
    let bench = Bench::of(fixture).await;
    for (tool, arguments) in [("get_pod_gpu_allocation", json!({"node_name": "gpu-1"})), ("list_gpu_nodes", json!({}))]
    {
        let answer = bench.ask(tool, arguments).await;
        let unknown = &answer["unknown"][0];
        assert_eq!(unknown["section"], "dynamic resource allocation", "{tool}: {answer}");
        assert!(unknown["why"].as_str().unwrap().contains("resourceclaims"), "{tool}: {unknown}");
        assert!(!answer["resources"].to_string().contains(DRIVER), "{tool}: {answer}");
    }
}

#[tokio::test]
async fn a_pod_without_devices_is_told_which_claims_hold_them() {
    let mut waiting = claiming("b", "d", false);
    waiting.spec.as_mut().unwrap().node_name = None;
    waiting.status = serde_json::from_value(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
        "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 cannot allocate all claims."}]}))
    .unwrap();
    let fixture = fixture(vec![claim("c", &["gpu-0"], &["a"])], vec![claiming("a", "c", false), waiting]);
    let answer = Bench::of(fixture).await.ask("explain_gpu_pod", json!({"pod": "b", "namespace": "jobs"})).await;
    let holder = "claim jobs/c (pod a) holds gpu-0 of gpu.nvidia.com (pool gpu-1)";
    assert!(answer["summary"].as_str().unwrap().contains(holder), "{answer:#}");
}
