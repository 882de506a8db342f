//! `printed`: the pod that `gpu-syringe pod-spec` prints. `defaulted`: a pod with the defaults that an API server adds.

use std::process::Command;

use serde_json::{Value, json};

use crate::manifests::IMAGE;

/// Returns the pod that the built program prints with these settings.
pub(crate) fn printed(settings: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
    command.env_clear().env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state"));
    command.args(["--image", IMAGE, "pod-spec", "--output", "json", "gpu-1"]).args(settings);
    let printed = command.output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).unwrap()
}

/// Returns a pod in the form that validating admission receives: with defaults and the fields of the default admission
/// plugins (Kubernetes 1.36: `SetDefaults_Pod*`, ServiceAccount, Priority).
pub(crate) fn defaulted(mut pod: Value) -> Value {
    let fill = |fields: &mut Value, defaults: Value| {
        for (name, value) in defaults.as_object().unwrap() {
            let field = &mut fields[name];
            if field.is_null() {
                *field = value.clone();
            }
        }
    };
    fill(
        &mut pod["metadata"],
        json!({"uid": "00000000-0000-0000-0000-000000000000", "creationTimestamp": "2026-11-22T00:00:00Z", "generation": 1,
               "managedFields": []}),
    );
    let spec = &mut pod["spec"];
    fill(
        spec,
        json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            "serviceAccountName": "default", "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
        }),
    );
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    for container in spec["containers"].as_array_mut().unwrap() {
        fill(
            container,
            json!({"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                   "imagePullPolicy": "IfNotPresent", "resources": {}}),
        );
    }
    pod["status"] = json!({"phase": "Pending", "qosClass": "Burstable"});
    pod
}
