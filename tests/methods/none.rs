//! Tests of answers without a probe (`--via none` or as a fallback of `auto`), with and without log files of the kubelet.

use demo_cluster::{Cluster, Denial, Fixture, workload_pod};
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
    let mut holder = workload_pod("ml", "train-0", "gpu-1", 1);
    holder.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].allocated_resources_status =
        serde_json::from_value(json!([{ "name": "nvidia.com/gpu", "resources": [
            { "resourceID": "GPU-1", "health": "Healthy" }, { "resourceID": "GPU-2", "health": "Unhealthy" },
        ]}]))
        .unwrap();
    fixture.pods.push(holder);
    let cluster = Cluster::start(fixture).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    // `get_pod_gpu_allocation` is omitted, because it starts a probe only on request.
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
        // `describe_gpu_node` returns the data from Kubernetes in other fields than the other tools.
        if tool == "describe_gpu_node" {
            assert_ne!(answer["overall_health"], "healthy", "{}", answer["summary"]);
            continue;
        }
        let kubernetes = &answer["kubernetes"];
        assert_eq!(kubernetes["capacity"]["nvidia.com/gpu"], 8, "{tool}");
        assert!(kubernetes["events"][0].as_str().unwrap().contains("Xid"), "{kubernetes}");
        assert!(kubernetes["conditions"][0].as_str().unwrap().contains("GpuXidWatch"), "{kubernetes}");
        let devices = json!(["nvidia.com/gpu GPU-2 is Unhealthy, allocated to pod ml/train-0"]);
        assert_eq!(kubernetes["unhealthy_devices"], devices, "{tool}");
    }
    assert_eq!(cluster.pods_created(), 0);
}

#[tokio::test]
async fn if_a_policy_denies_probes_the_answer_names_it_and_the_next_step() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.api.pod_security = true);
    let namespace = ["--probe-namespace", "default"];
    for way in ["pod", "ephemeral", "inject", "logs"] {
        let launcher = Launcher::start(&cluster, &[&["--via", way], &namespace[..]].concat());
        let answer = launcher.inventory().await.unwrap_or_else(|failure| panic!("{way}: {failure}"));
        assert_eq!(answer["probe"]["via"], "none", "{way}");
        let note = answer["probe"]["note"].as_str().unwrap();
        assert!(note.contains("Pod Security \"baseline:latest\" of namespace"), "{way}: {note}");
        assert!(note.contains("kubectl label --overwrite namespace"), "{way}: {note}");
        assert_eq!(answer["verdict"], "unknown", "{way}");
    }
    assert_eq!((cluster.pods_created(), ours(&cluster)), (0, 0));
}

#[tokio::test]
async fn a_runtime_class_needs_no_privileges() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.api.pod_security = true);
    let launcher = Launcher::start(&cluster, &["--runtime-class", "nvidia", "--probe-namespace", "default"]);
    let answer = launcher.inventory().await.unwrap();
    assert_eq!(answer["probe"]["via"], "pod");
    assert!(answer["probe"]["note"].as_str().unwrap().contains("RuntimeClass nvidia"));
}

#[tokio::test]
async fn a_node_that_is_not_ready_and_forbidden_lists_still_give_an_answer() {
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

const XID_79: &str = "gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n";

/// A node whose kubelet serves log files. The newest file is longer than the part that is read.
fn logging() -> Fixture {
    let mut fixture = fixture();
    let ago = |hours| jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
    let noise = format!("{} gpu-1 kernel: usb 1-1: new high-speed USB device\n", ago(500)).repeat(60_000);
    let old = format!("{} gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 48, pid=1, beyond the end\n", ago(900));
    let kern = format!("{old}{noise}{} {XID_79}", ago(2));
    fixture.nodes[0].log_files = [("kern.log".to_owned(), kern)].into();
    fixture
}

#[tokio::test]
async fn the_end_of_a_log_file_that_the_kubelet_serves_is_read() {
    let cluster = Cluster::start(logging()).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let answer = launcher.call("analyze_xid_errors", json!({ "node_name": "gpu-1" })).await.unwrap();
    let codes: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| &event["code"]).collect();
    assert_eq!(codes, [79], "{answer}");
    let coverage = &answer["coverage"]["kernel_log"][0];
    assert_eq!(coverage["source"], "/var/log/kern.log");
    assert!(coverage["from"].is_string(), "{coverage}");
    for tool in ["diagnose_gpu_node", "describe_gpu_node"] {
        let answer = launcher.call(tool, json!({ "node_name": "gpu-1" })).await.unwrap();
        let findings = answer["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["evidence"].to_string().contains("Xid")), "{tool}: {findings:?}");
        let unknown = answer["unknown"].to_string();
        assert!(unknown.contains("telemetry") && !unknown.contains("xid"), "{tool}: {unknown}");
    }
    let since = json!({ "node_name": "gpu-1", "since": "1h" });
    let answer = launcher.call("analyze_xid_errors", since).await.unwrap();
    // The event was two hours ago, and no later line shows that the GPU has recovered.
    assert_eq!((&answer["events"][0]["code"], &answer["verdict"]), (&json!(79), &json!("fatal")), "{answer}");
    // Tools that do not use the kernel log do not request it.
    let before = cluster.requests().len();
    launcher.inventory().await.unwrap();
    assert!(!cluster.requests()[before..].iter().any(|request| request.contains("/proxy/")));
    assert_eq!(cluster.pods_created(), 0);
}

#[tokio::test]
async fn no_log_file_is_read_of_a_node_that_may_not_be_probed() {
    let cluster = Cluster::start(logging()).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none", "--allow-nodes", "pool=elsewhere"]);
    for tool in ["analyze_xid_errors", "diagnose_gpu_node", "describe_gpu_node"] {
        let answer = launcher.call(tool, json!({ "node_name": "gpu-1" })).await.unwrap();
        assert!(answer.to_string().contains("do not match --allow-nodes pool=elsewhere"), "{tool}: {answer}");
        assert!(!answer.to_string().contains("fallen off the bus"), "{tool}: {answer}");
    }
    assert!(!cluster.requests().iter().any(|request| request.contains("/proxy/")), "{:?}", cluster.requests());
}

/// Returns a time in the log format of a node in the zone UTC+2: without zone and year.
fn local(hours_ago: i64) -> String {
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2 - hours_ago);
    time.strftime("%b %e %H:%M:%S").to_string()
}

fn with_files(files: &[(&str, String)]) -> Fixture {
    let mut fixture = fixture();
    fixture.nodes[0].log_files = files.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    fixture
}

#[tokio::test]
async fn a_rotated_log_is_read_with_the_previous_file_in_local_time() {
    let started = format!("{} gpu-1 systemd[1]: Started\n", local(0));
    let files = [("syslog", started), ("syslog.1", format!("{} {XID_79}", local(3)))];
    let cluster = Cluster::start(with_files(&files)).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let ask = |since: &str| launcher.call("analyze_xid_errors", json!({ "node_name": "gpu-1", "since": since }));
    let answer = ask("4h").await.unwrap();
    assert_eq!(answer["events"][0]["code"], 79, "{answer}");
    let coverage = answer["coverage"]["kernel_log"].as_array().unwrap();
    let sources = [&coverage[0]["source"], &coverage[1]["source"]];
    assert_eq!(sources, ["/var/log/syslog.1", "/var/log/syslog"]);
    assert!(coverage[0]["note"].as_str().unwrap().contains("local times"), "{coverage:?}");
    let answer = ask("2h").await.unwrap();
    assert_eq!((&answer["events"][0]["code"], &answer["verdict"]), (&json!(79), &json!("fatal")), "{answer}");
}

#[tokio::test]
async fn a_file_that_is_no_longer_written_is_skipped() {
    let old = format!("2026-01-01T00:00:00+00:00 {XID_79}");
    let live = format!("{} gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 94, pid=1, Contained\n", local(0));
    let cluster = Cluster::start(with_files(&[("kern.log", old.clone()), ("messages", live)])).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let answer = launcher.call("analyze_xid_errors", json!({ "node_name": "gpu-1" })).await.unwrap();
    let codes: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| &event["code"]).collect();
    assert_eq!(codes, [94], "{answer}");
    // If `kern.log` is the only log, its old events do not lead to a fault.
    let cluster = Cluster::start(with_files(&[("kern.log", old)])).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let answer = launcher.call("diagnose_gpu_node", json!({ "node_name": "gpu-1" })).await.unwrap();
    assert_eq!(answer["verdict"], "unknown", "{answer}");
    let not_read = answer["kubernetes"]["not_read"].to_string();
    assert!(not_read.contains("kern.log ends at 2026-01-01T00:00:00Z"), "{not_read}");
}

#[tokio::test]
async fn log_files_that_cannot_be_read_are_named_with_the_reason() {
    for (fixture, why) in [
        (fixture(), "may have only a journal"),
        (with_files(&[("kern.log", String::new())]), "kern.log contains no line with a time"),
        (logging().denying(Denial::of("get", "nodes/proxy")), "cannot get resource \"nodes/proxy\""),
    ] {
        let cluster = Cluster::start(fixture).await.unwrap();
        let launcher = Launcher::start(&cluster, &["--via", "none"]);
        let answer = launcher.call("analyze_xid_errors", json!({ "node_name": "gpu-1" })).await.unwrap();
        let not_read = answer["kubernetes"]["not_read"].to_string().replace("\\\"", "\"");
        assert!(not_read.contains(why), "{not_read}");
        assert!(answer["unknown"].to_string().contains("xid"), "{answer}");
    }
}

#[tokio::test]
async fn a_pod_on_a_node_that_no_probe_read_has_no_gpu_cleared() {
    let cluster = Cluster::start(fixture().with_pod(workload_pod("ml", "train-0", "gpu-1", 1))).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let pod = json!({ "pod": "train-0", "namespace": "ml" });
    let answer = launcher.call("explain_gpu_pod", pod).await.unwrap();
    assert_eq!((&answer["cause"], &answer["certainty"]), (&json!("unknown"), &json!("possible")), "{answer}");
    let unknown = answer["unknown"].to_string();
    assert!(unknown.contains("GPU or driver fault not ruled out") && unknown.contains("--via none"), "{answer}");
    assert_eq!(answer["ruled_out"], json!([]), "{answer}");
}

/// A call about all nodes has the findings of a call about one node.
#[tokio::test]
async fn the_fleet_has_the_findings_that_kubernetes_has_of_a_node() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let hours_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(5);
    cluster.edit_node("gpu-1", |node| {
        let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
        let time = || serde_json::from_value(json!(hours_ago)).unwrap();
        conditions.iter_mut().for_each(|condition| condition.last_transition_time = Some(time()));
    });
    let spec = json!({"containers": [{"name": "dcgm-exporter", "image": "nvcr.io/nvidia/k8s/dcgm-exporter:4.2.3"}]});
    cluster.add_object(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "dcgm-exporter", "namespace": "gpu", "generation": 1, "creationTimestamp": hours_ago},
        "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "dcgm-exporter"}}, "spec": spec}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3,
            "currentNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2},
    }));
    let launcher = Launcher::start(&cluster, &["--via", "none"]);
    let one = launcher.call("diagnose_gpu_node", json!({ "node_name": "gpu-1" })).await.unwrap();
    let all = launcher.call("get_gpu_health", json!({})).await.unwrap();
    let ids = |findings: &serde_json::Value| {
        let findings = findings.as_array().unwrap().iter().filter(|finding| finding["severity"] != "info");
        let mut ids: Vec<_> = findings.map(|finding| finding["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert!(!ids(&one["findings"]).is_empty(), "{one}");
    assert_eq!((ids(&all["findings"]), &all["verdict"]), (ids(&one["findings"]), &one["verdict"]), "{all}");
}
