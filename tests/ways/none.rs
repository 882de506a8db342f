//! What the API alone gives, chosen or fallen back to.

use gpu_syringe::embedded::{Cluster, Denial, Fixture};
use k8s_openapi::api::core::v1::{Event, NodeCondition, ObjectReference};
use serde_json::json;

use crate::suite::node_tools;
use crate::support::{Launcher, fixture, ours};

fn xid_event() -> Event {
    Event {
        metadata: kube::core::ObjectMeta {
            name: Some("gpu-1.xid".into()),
            namespace: Some("default".into()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            kind: Some("Node".into()),
            name: Some("gpu-1".into()),
            ..ObjectReference::default()
        },
        reason: Some("XidError".into()),
        message: Some("NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus".into()),
        ..Event::default()
    }
}

#[tokio::test]
async fn nothing_is_created_and_every_hardware_section_is_unknown() {
    let mut fixture = Fixture { events: vec![xid_event()], ..fixture() };
    fixture.nodes[0].conditions.push(NodeCondition {
        type_: "GpuXidWatch".into(),
        status: "True".into(),
        reason: Some("Xid79".into()),
        message: Some("GPU 3 fell off the bus".into()),
        ..NodeCondition::default()
    });
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    // What needs no probe unless it is asked for stays as it is.
    for tool in node_tools().into_iter().filter(|tool| *tool != "get_pod_gpu_allocation") {
        let answer = launcher.call(tool, json!({ "node_name": "gpu-1" })).await;
        let answer = answer.unwrap_or_else(|failure| panic!("{tool}: {failure}"));
        assert_ne!(answer["verdict"], "healthy", "{tool}");
        let unknown = answer["unknown"].to_string();
        for section in ["inventory", "telemetry", "ecc", "xid", "host"] {
            assert!(unknown.contains(section), "{tool}: {unknown}");
        }
        assert!(unknown.contains("--via none"), "{tool}: {unknown}");
        assert_eq!((&answer["probe"]["via"], &answer["probe"]["source"]), (&json!("none"), &json!("api")), "{tool}");
        // Has the same and more in fields of its own.
        if tool == "describe_gpu_node" {
            assert_ne!(answer["summary"]["overall_health"], "healthy", "{}", answer["summary"]);
            continue;
        }
        let kubernetes = &answer["kubernetes"];
        assert_eq!(kubernetes["capacity"]["nvidia.com/gpu"], 8, "{tool}");
        assert!(kubernetes["events"][0].as_str().unwrap().contains("Xid"), "{kubernetes}");
        assert!(kubernetes["conditions"][0].as_str().unwrap().contains("GpuXidWatch"), "{kubernetes}");
    }
    assert_eq!(cluster.pods_created(), 0);
}

#[tokio::test]
async fn where_a_policy_forbids_probes_the_answer_names_it_and_the_remedy() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.api.pod_security = true);
    let namespace = ["--namespace", "default"];
    for way in ["pod", "ephemeral", "inject", "logs"] {
        let launcher = Launcher::start(&cluster, &[&["--via", way], &namespace[..]].concat());
        let answer = launcher.inventory().await.unwrap_or_else(|failure| panic!("{way}: {failure}"));
        assert_eq!(answer["probe"]["via"], "none", "{way}");
        let note = answer["probe"]["note"].as_str().unwrap();
        assert!(note.contains("Pod Security \"baseline:latest\" of namespace"), "{way}: {note}");
        assert!(note.contains("kubectl label namespace"), "{way}: {note}");
        assert_eq!(answer["verdict"], "unknown", "{way}");
    }
    assert_eq!((cluster.pods_created(), ours(&cluster)), (0, 0));
}

#[tokio::test]
async fn a_runtime_class_needs_no_privileges() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.api.pod_security = true);
    let launcher = Launcher::start(&cluster, &["--runtime-class", "nvidia", "--namespace", "default"]);
    let answer = launcher.inventory().await.unwrap();
    assert_eq!(answer["probe"]["via"], "pod");
    assert!(answer["probe"]["note"].as_str().unwrap().contains("RuntimeClass nvidia"));
}

#[tokio::test]
async fn a_node_that_is_away_and_lists_that_are_forbidden_still_give_an_answer() {
    let fixture = fixture().denying(Denial::of("list", "events")).denying(Denial::of("list", "pods"));
    let cluster = Cluster::start(fixture).await.unwrap();
    cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    let answer = Launcher::start(&cluster, &["--via", "none"]).inventory().await.unwrap();
    let kubernetes = &answer["kubernetes"];
    assert_eq!(kubernetes["not_read"].as_array().unwrap().len(), 2, "{kubernetes}");
    assert!(kubernetes["conditions"][0].as_str().unwrap().contains("Ready is Unknown"), "{kubernetes}");
}

#[tokio::test]
async fn a_survey_of_all_nodes_says_that_none_was_read() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let answer = launcher.call("get_gpu_inventory", json!({})).await.unwrap();
    assert_ne!(answer["verdict"], "healthy", "{answer}");
    assert_eq!(cluster.pods_created(), 0);
}
