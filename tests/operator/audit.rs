//! Tests of the audit log on the workstation, and of the annotations of probe pods in the cluster.

use std::time::Duration;

use gpu_syringe::audit::AuditEvent;
use k8s_openapi::api::core::v1::Pod;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use serde_json::json;

use crate::support::{Bed, PID, Setup, User, kill, reset, with};

#[tokio::test]
async fn every_probe_and_every_action_is_a_line() {
    let bed = Bed::new(Setup { user: User::Agrees, ..Setup::default() }).await;
    bed.answer("get_gpu_inventory", &json!({"node_name": "busy"})).await;
    bed.answer("kill_gpu_process", &kill()).await;
    let lines = bed.audit();
    let events: Vec<AuditEvent> = lines.iter().map(|line| line.event).collect();
    assert_eq!(events, [AuditEvent::Probe, AuditEvent::Probe, AuditEvent::ActionStarted, AuditEvent::ActionEnded]);
    for line in &lines {
        assert_eq!((line.context.as_str(), line.user.as_deref(), line.node.as_str()), ("test", Some("alice"), "busy"));
        assert!(line.time.is_some() && !line.server.is_empty());
    }
    let [inventory, plan, started, ended] = lines.as_slice() else { panic!() };
    assert_eq!(
        (inventory.tool.as_str(), &inventory.arguments),
        ("get_gpu_inventory", &json!(["read", "inventory,mig"]))
    );
    assert_eq!((inventory.outcome.as_deref(), inventory.deleted), (Some("answered"), Some(true)));
    assert!(inventory.pod.is_some() && inventory.pod_uid.is_some() && inventory.duration_ms.is_some());
    assert_eq!(plan.outcome.as_deref(), Some("planned"));
    assert_eq!((&started.pod, &started.outcome), (&None, &None), "the line must be written before the pod exists");
    for line in [started, ended] {
        assert_eq!((&line.arguments["pid"], line.consent.as_deref()), (&json!(PID), Some("user (elicitation)")));
        assert!(line.plan.as_deref().is_some_and(|plan| plan.contains("Kill process")));
    }
    assert_eq!((ended.outcome.as_deref(), ended.deleted), (Some("simulated"), Some(true)));
    assert!(ended.pod.is_some() && ended.pod != plan.pod && ended.pod_uid.is_some());
}

#[tokio::test]
async fn an_action_whose_line_cannot_be_written_is_not_done() {
    let bed = Bed::new(Setup { no_audit: true, ..Setup::default() }).await;
    let answer = bed.answer("reset_gpu", &reset()).await;
    let error = bed.failure("reset_gpu", &with(reset(), "token", answer["token"].clone())).await;
    assert!(error.contains("audit log") && error.contains("nothing was done"), "{error}");
    assert!(bed.done().is_empty());
    bed.answer("get_gpu_inventory", &json!({"node_name": "busy"})).await;
}

#[tokio::test]
async fn the_annotations_of_the_pod_have_the_audit_facts() {
    let bed = Bed::new(Setup { user: User::Agrees, linger: Duration::from_millis(400), ..Setup::default() }).await;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(bed.cluster.kubeconfig(), &options).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "default");
    let look = async {
        loop {
            let list = pods.list(&Default::default()).await.unwrap();
            let notes = list.items.into_iter().filter_map(|pod| pod.metadata.annotations);
            if let Some(notes) = notes.into_iter().find(|notes| notes.contains_key("gpu-syringe.dev/consent")) {
                return notes;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let arguments = kill();
    let (notes, answer) = tokio::join!(
        async { tokio::time::timeout(Duration::from_secs(20), look).await.unwrap() },
        bed.answer("kill_gpu_process", &arguments)
    );
    assert_eq!(answer["outcome"], json!("simulated"));
    let note = |name: &str| notes[&format!("gpu-syringe.dev/{name}")].as_str();
    assert_eq!((note("tool"), note("user"), note("consent")), ("kill_gpu_process", "alice", "user (elicitation)"));
    assert!(note("arguments").contains("41210") && note("plan").contains("Kill process 41210"), "{notes:?}");
    // Every user who may list pods can read annotations: they must not contain text of the node.
    let plan = &bed.asked()[0];
    assert!(plan.contains("python3") && plan.contains("Command line"), "{plan}");
    assert!(!notes.values().any(|note| note.contains("python3") || note.contains("Command line")), "{notes:?}");
}

#[tokio::test]
async fn only_the_pod_of_an_action_is_started_for_actions() {
    let bed = Bed::new(Setup { user: User::Agrees, linger: Duration::from_millis(400), ..Setup::default() }).await;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(bed.cluster.kubeconfig(), &options).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "default");
    for (tool, arguments, acts) in
        [("get_gpu_inventory", json!({"node_name": "busy"}), false), ("kill_gpu_process", kill(), true)]
    {
        let mut seen = Vec::new();
        let look = async {
            loop {
                for pod in pods.list(&Default::default()).await.unwrap().items {
                    // The pod of the previous call may still exist.
                    let labels = pod.metadata.labels.unwrap_or_default();
                    if labels.get("gpu-syringe.dev/tool").is_none_or(|of| of != tool) {
                        continue;
                    }
                    let container = pod.spec.and_then(|spec| spec.containers.into_iter().next());
                    seen.extend(container.and_then(|container| container.command));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = look => {}
            _ = bed.answer(tool, &arguments) => {}
        }
        assert!(!seen.is_empty(), "{tool}");
        for command in seen {
            assert_eq!(command.last().is_some_and(|word| word == "--operator"), acts, "{tool}: {command:?}");
        }
    }
}
