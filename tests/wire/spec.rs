//! Tests that the created pod equals the pod that `pod-spec` prints, and has only the fields that it needs.

use demo_cluster::ExecFault;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cleanup::{READ, on_gpu_1};

const SETTINGS: [&str; 8] = [
    "--image",
    "registry.example/node-probe@sha256:0123",
    "--image-pull-secret",
    "registry",
    "--call-timeout",
    "20",
    "--start-timeout",
    "15",
];

/// Returns the pod that a call creates, as the API server stores it.
async fn created(bed: &Bed) -> Value {
    bed.cluster.faults(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into()));
    let launcher = bed.launcher().args(SETTINGS);
    let mut client = crate::support::client::Client::start(launcher).await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    let pod = serde_json::to_value(&bed.pods()[0]).unwrap();
    client.cancel(call);
    bed.until_bare().await;
    pod
}

/// Asserts that `stored` contains every field of `printed`. The API server may have added other fields.
fn assert_within(printed: &Value, stored: &Value, place: &str) {
    match (printed, stored) {
        (Value::Object(printed), Value::Object(stored)) => {
            for (key, value) in printed {
                let place = format!("{place}.{key}");
                // These fields differ by design: each pod has its own name, session and tool.
                if [".metadata.name", "/session", "/tool"].iter().any(|own| place.ends_with(own)) {
                    continue;
                }
                assert_within(value, stored.get(key).unwrap_or_else(|| panic!("{place} was not created")), &place);
            }
        }
        (Value::Array(printed), Value::Array(stored)) if printed.len() == stored.len() => {
            for (printed, stored) in printed.iter().zip(stored) {
                assert_within(printed, stored, place);
            }
        }
        _ => assert_eq!(printed, stored, "{place}"),
    }
}

#[tokio::test]
async fn what_pod_spec_prints_is_what_is_created() {
    let bed = Bed::healthy().await;
    let printed = bed.launcher().args(SETTINGS).args(["pod-spec", "-o", "json", "gpu-1"]).run().await.json();
    assert_eq!(bed.cluster.pods_created(), 0, "pod-spec must not create a pod");
    let created = created(&bed).await;
    assert_within(&printed, &created, "");
    // The created pod must not have further fields, except those that an API server adds.
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let defaults =
        ["preemptionPolicy", "priority", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName"];
    let added: Vec<_> = keys(&created["spec"]).into_iter().filter(|key| printed["spec"].get(key).is_none()).collect();
    assert!(added.iter().all(|key| defaults.contains(&key.as_str())), "{added:?}");
}

#[tokio::test]
async fn each_method_prints_its_own_pod() {
    let home = tempfile::tempdir().unwrap();
    let print = async |via: &str| {
        let launcher = crate::support::launcher::Launcher::alone(home.path());
        launcher.args(["--via", via, "--base-image", "debian:13", "pod-spec", "-o", "json"]).run().await
    };
    let container = async |via: &str| print(via).await.json()["spec"]["containers"][0].take();
    assert_eq!(container("logs").await["command"], json!(["node-probe", "all"]));
    let inject = container("inject").await;
    assert_eq!((&inject["image"], &inject["imagePullPolicy"]), (&json!("debian:13"), &json!("Never")));
    assert_eq!(inject["command"][0], "sh");
    for none in ["ephemeral", "none"] {
        let ended = print(none).await;
        assert!(ended.code == Some(3) && ended.stderr.contains("creates no pod"), "{none}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn pod_spec_needs_no_cluster() {
    let home = tempfile::tempdir().unwrap();
    let printed =
        crate::support::launcher::Launcher::alone(home.path()).args(["pod-spec", "-o", "json"]).run().await.json();
    assert_eq!(printed["spec"]["nodeName"], "NODE");
}

#[tokio::test]
async fn the_pod_has_only_the_fields_that_it_needs() {
    let bed = Bed::healthy().await;
    let pod = created(&bed).await;
    let spec = &pod["spec"];
    assert_eq!(spec["containers"].as_array().map(Vec::len), Some(1));
    let container = &spec["containers"][0];
    for absent in ["volumes", "initContainers", "priorityClassName"] {
        assert_eq!(spec.get(absent), None, "{absent}");
    }
    for absent in ["volumeMounts", "env", "envFrom", "ports", "lifecycle", "livenessProbe", "tty", "stdin"] {
        assert_eq!(container.get(absent), None, "{absent}");
    }
    assert_eq!(spec["nodeName"], "gpu-1", "the pod must not need the scheduler");
    assert_eq!(spec["tolerations"][0], json!({"operator": "Exists"}));
    assert_eq!(spec["hostPID"], true);
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(spec.get("hostIPC"), None);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["terminationGracePeriodSeconds"], 0);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["resources"]["requests"], json!({"cpu": "0", "memory": "0"}));
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
}

#[tokio::test]
async fn the_pod_exits_on_its_own_after_the_call_timeout() {
    let bed = Bed::healthy().await;
    let spec = created(&bed).await["spec"].take();
    let held: u64 = spec["containers"][0]["command"][3].as_str().unwrap().parse().unwrap();
    let deadline = spec["activeDeadlineSeconds"].as_u64().unwrap();
    let words = spec["containers"][0]["command"].as_array().unwrap();
    assert_eq!(words[..3], [json!("node-probe"), json!("hold"), json!("--seconds")]);
    assert!((20..=60).contains(&held) && held < deadline && deadline <= 90, "{held} {deadline}");
}

#[tokio::test]
async fn the_pod_contains_no_name_of_the_user_or_the_machine() {
    let bed = Bed::healthy().await;
    let metadata = created(&bed).await["metadata"].take();
    for label in ["owner", "session", "tool"] {
        let value = metadata["labels"][format!("gpu-syringe.dev/{label}")].as_str().unwrap();
        assert!(!value.is_empty() && value.len() <= 63, "{label}: {value}");
    }
    assert_eq!(metadata["labels"]["gpu-syringe.dev/tool"], "get_gpu_inventory");
    assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "gpu-syringe");
    assert_eq!(metadata["annotations"]["sidecar.istio.io/inject"], "false");
}
