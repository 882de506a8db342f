//! Tests of failed actions: the failure says that the action may have been done only if the action was started.

use std::time::Duration;

use gpu_syringe::audit::AuditEvent;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use serde_json::json;

use crate::support::{Bed, Setup, User, kill, reset};

const USUAL: &[&str] = &["--mode", "operator"];
const VIA_LOGS: &[&str] = &["--mode", "operator", "--via", "logs"];

/// Another user deletes the pod of an action after the action was started, so it is not known what was done.
#[tokio::test]
async fn an_action_whose_pod_is_deleted_says_that_it_may_have_been_done() {
    let tools =
        [("kill_gpu_process", kill(), "process 41210 is still running"), ("reset_gpu", reset(), "NVML lists the GPU")];
    for words in [USUAL, VIA_LOGS] {
        for (tool, arguments, state) in &tools {
            let setup = Setup { user: User::Agrees, words, linger: Duration::from_millis(700), ..Setup::default() };
            let bed = Bed::new(setup).await;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(bed.cluster.kubeconfig(), &options).await.unwrap();
            let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "default");
            let deleting = async {
                while bed.done().is_empty() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                let name = bed.cluster.pods("default")[0].metadata.name.clone().unwrap();
                pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
            };
            let (said, ()) = tokio::join!(bed.failure(tool, arguments), deleting);
            for part in
                ["may have been done", "the state of the node afterwards", state, "Do not repeat", "diagnose_gpu_node"]
            {
                assert!(said.contains(part), "{tool} {words:?}: '{part}' is missing in: {said}");
            }
            assert!(!said.to_lowercase().contains("try again"), "{tool} {words:?}: {said}");
            let lines = bed.audit();
            let ended = lines.iter().find(|line| line.event == AuditEvent::ActionEnded).expect("a line");
            assert!(ended.outcome.as_deref().unwrap().contains("may have been done"), "{ended:?}");
            assert_eq!(bed.cluster.pods("default").len(), 0);
        }
    }
}

/// If the action was not started, the failure does not say that the action may have been done.
#[tokio::test]
async fn an_action_that_was_never_started_is_no_lost_action() {
    let bed = Bed::new(Setup { user: User::Agrees, words: USUAL, ..Setup::default() }).await;
    let fault = demo_cluster::ExecFault::Forbidden;
    let meanwhile = {
        let cluster = bed.cluster.clone();
        move || cluster.faults(|faults| faults.everywhere.exec = Some(fault.into()))
    };
    *bed.host.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    let said = bed.failure("kill_gpu_process", &kill()).await;
    assert!(said.contains("pods/exec") && !said.contains("may have been done"), "{said}");
    assert_eq!(bed.done(), Vec::<String>::new());
    assert_eq!(json!(bed.cluster.pods("default").len()), json!(0));
}
