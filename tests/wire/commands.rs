//! Tests of command lines in the style of kubectl, of kernel lines from arguments or standard input, and of the exit
//! codes for scripts.

use demo_cluster::{Denial, ExecFault, Fixture, workload_pod, workloads_of};
use serde_json::{Value, json};

use crate::bed::{Bed, NAMESPACE, node};

/// Starts a cluster of three nodes: no fault, a pending row remap (critical), a GPU that fell off the bus (fatal).
async fn three_nodes() -> Bed {
    let facts = [("gpu-1", "healthy-h100-8"), ("gpu-2", "ecc-remap-pending"), ("gpu-3", "xid79-off-bus")];
    Bed::of(Fixture::of(facts.map(|(name, scenario)| node(name, scenario)))).await
}

#[tokio::test]
async fn the_exit_status_says_what_was_found() {
    let bed = three_nodes().await;
    for (words, status) in [
        (&["nodes"][..], 0),
        (&["ecc", "gpu-1"], 0),
        (&["ecc", "gpu-2"], 1),
        (&["diagnose", "gpu-3"], 1),
        (&["diagnose", "gpu-2", "--fail-on", "fatal"], 0),
        (&["diagnose", "gpu-3", "--fail-on", "fatal"], 1),
        (&["diagnose", "gpu-3", "--fail-on", "never"], 0),
        (&["health"], 1),
        (&["health", "node/gpu-1", "--via", "none"], 3),
        (&["diagnose", "gpu-9"], 3),
        (&["diagnose"], 2),
        (&["diagnose", "gpu-1", "--no-such-option"], 2),
        (&["diagnose", "gpu-1", "-n", "ml"], 2),
        (&["explain", "ml/train", "-n", "web"], 2),
        (&["explain", "my_pod"], 2),
        (&["diagnose", "gpu 2"], 2),
        (&["health", "GPU-1"], 2),
        (&["pods", "node/"], 2),
        (&["xid", "my_node"], 2),
        (&["nodes", "-l", "a in ("], 2),
        (&["health", "-l", "!!x"], 2),
        (&["nodes", "-l", "no=such-label"], 0),
        (&["setup", "--probe-namespace", "kube-system"], 2),
        (&["setup", "--user", ""], 2),
        (&["setup", "--user", "sre", "--group", " "], 2),
        (&["reset-gpu", "gpu-1", "--mode", "operator", "--gpu", "5"], 2),
        (&["kill-gpu-process", "gpu-1", "--gpu", "GPU-1", "--pid", "1", "--start-ticks", "1"], 2),
    ] {
        let ended = bed.launcher().args(words.iter().copied()).run().await;
        assert_eq!(ended.code, Some(status), "{words:?}: {} {}", ended.stdout, ended.stderr);
        let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
        let is_error = printed["error"].is_string() && printed["next_step"].is_string();
        assert_eq!(is_error, !ended.stderr.is_empty(), "{words:?}: {printed} {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_pasted_kernel_line_is_explained_without_a_cluster() {
    let bed = Bed::healthy().await;
    let line = "NVRM: Xid (PCI:0000:3b:00): 63, Row Remapper: new row marked for remapping";
    let ended = bed.launcher().env("KUBECONFIG", "/nowhere").args(["xid", line]).run().await;
    assert_eq!(ended.json()["code"], 63, "{}", ended.stderr);
    let ended = bed.launcher().env("KUBECONFIG", "/nowhere").args(["xid", "Xid", "119"]).run().await;
    assert!(ended.code == Some(2) && ended.stderr.contains("gpu-syringe xid 119"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_error_is_json_only_where_json_is_printed() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let ended = bed.launcher().args(["diagnose", "gpu-1", "-o", "json", "--call-timeout", "5"]).run().await;
    let error: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &error["probe"]["deleted"]), (Some(3), &json!(true)), "{error}");
    let ended = bed.launcher().args(["diagnose", "gpu-9", "-o", "table"]).run().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    assert!(ended.stderr.contains("gpu-syringe nodes"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_namespace_of_a_pod_is_that_of_the_context() {
    let pods = vec![workload_pod("jobs", "training", "gpu-1", 1), workload_pod("default", "web", "gpu-1", 1)];
    let bed = Bed::of(Fixture { pods, ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
    let with_namespace = bed.home().join("with-namespace");
    let kubeconfig = std::fs::read_to_string(bed.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
    kubeconfig["contexts"][0]["context"]["namespace"] = json!("jobs");
    std::fs::write(&with_namespace, kubeconfig.to_string()).unwrap();
    let phase = async |kubeconfig: &std::path::Path, words: &[&str]| {
        let launcher = bed.launcher().env("KUBECONFIG", kubeconfig).args(words.iter().copied());
        // The pods of this cluster are not in the node's facts, so the cause is unknown.
        serde_json::from_str::<Value>(&launcher.run().await.stdout).unwrap()["phase"].clone()
    };
    assert_eq!(phase(&with_namespace, &["explain", "training"]).await, "Running");
    assert_eq!(phase(&with_namespace, &["explain", "web", "-n", "default"]).await, "Running");
    assert_eq!(phase(&bed.kubeconfig(), &["explain", "web"]).await, "Running");
    assert_eq!(phase(&bed.kubeconfig(), &["explain", "jobs/training"]).await, "Running");
    assert_eq!(phase(&bed.kubeconfig(), &["-n", "jobs", "explain", "pod/training"]).await, "Running");
    let ended = bed.launcher().args(["explain", "training"]).run().await;
    assert!(ended.code == Some(3) && ended.stderr.contains("-n NAMESPACE"), "{}", ended.stderr);
    // The probe pods are created in their own namespace.
    let created = format!("POST /api/v1/namespaces/{NAMESPACE}/pods");
    assert!(bed.cluster.requests().iter().any(|request| request.starts_with(&created)));
}

#[tokio::test]
async fn names_and_yaml_are_printed_as_by_kubectl() {
    let bed = three_nodes().await;
    let names = bed.launcher().args(["nodes", "-o", "name"]).run().await.stdout;
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["node/gpu-1", "node/gpu-2", "node/gpu-3"]);
    let yaml = bed.launcher().args(["ecc", "node/gpu-2", "-oyaml"]).run().await.stdout;
    let json = bed.launcher().args(["ecc", "gpu-2", "-ojson"]).run().await.json();
    let read: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!((&read["findings"], &read["verdict"]), (&json["findings"], &json["verdict"]));
}

#[tokio::test]
async fn a_person_reads_once_why_no_probe_ran() {
    let pods = vec![workload_pod("jobs", "training", "gpu-1", 1)];
    let fixture =
        Fixture { pods, ..Fixture::of([node("gpu-1", "healthy-h100-8"), node("gpu-2", "ecc-remap-pending")]) };
    let bed = Bed::of(fixture.denying(Denial::of("get", "nodes/proxy"))).await;
    for words in [
        &["diagnose", "gpu-1"][..],
        &["describe", "gpu-1"],
        &["explain", "jobs/training"],
        &["processes", "gpu-1"],
        &["telemetry", "gpu-1"],
        &["xid", "gpu-1"],
    ] {
        let ended = bed.launcher().args(words.iter().copied()).args(["--via", "none", "-o", "table"]).run().await;
        let text = &ended.stdout;
        assert_eq!(text.matches("--via none").count(), 1, "{words:?}: {text}");
        assert!(!text.contains("..") && !text.contains("nodes/proxy"), "{words:?}: {text}");
        assert_eq!(ended.code, Some(3), "{words:?}: not enough was read for a verdict: {text}");
    }
    let ended = bed.launcher().args(["health", "--via", "none"]).run().await;
    assert_eq!(ended.code, Some(3), "nodes that were not read may have findings: {}", ended.stdout);
}

#[tokio::test]
async fn the_pods_of_a_namespace_are_counted_among_those_of_a_node() {
    let pods = vec![workload_pod("jobs", "training", "gpu-1", 1)];
    let bed = Bed::of(Fixture { pods, ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await;
    for (namespace, count) in [("jobs", 1), ("nothing-here", 0)] {
        let answer = bed.launcher().args(["pods", "gpu-1", "-n", namespace]).run().await.json();
        let summary = answer["summary"].as_str().unwrap();
        assert!(summary.ends_with(&format!("{count} of these pods in namespace {namespace}.")), "{summary}");
    }
}

#[tokio::test]
async fn the_nodes_that_health_does_not_name_are_healthy() {
    let healthy = ["gpu-1", "gpu-4", "gpu-5"].map(|name| node(name, "healthy-h100-8"));
    let others = [node("gpu-2", "ecc-remap-pending"), node("gpu-3", "healthy-h100-8")];
    let nodes: Vec<_> = healthy.into_iter().chain(others).collect();
    let pods = nodes.iter().flat_map(workloads_of).collect();
    let bed = Bed::of(Fixture { pods, ..Fixture::of(nodes) }).await;
    bed.cluster.faults(|faults| faults.nodes.entry("gpu-3".into()).or_default().exec = Some(ExecFault::Hang.into()));
    let args = ["health", "-o", "name", "--node-timeout", "3", "--call-timeout", "20"];
    let names = bed.launcher().args(args).run().await.stdout;
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["node/gpu-2", "node/gpu-3"], "gpu-2 has a finding, gpu-3 was not read");
}

/// A log is analysed without a cluster.
#[tokio::test]
async fn a_kernel_log_is_read_from_standard_input_or_refused_with_the_way() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("dmesg.txt");
    let line = "[  120.5] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.";
    std::fs::write(&file, format!("{line}\n{line}\n")).unwrap();
    let alone = || crate::support::launcher::Launcher::alone(home.path());
    let mut running = alone().args(["xid", "-", "-o", "table"]).start();
    running.write(line);
    running.close_stdin();
    let mut text = String::new();
    while let Some(line) = running.lines.recv().await {
        text.push_str(&line);
    }
    assert_eq!(running.exit().await.code(), Some(1), "{text}");
    assert!(text.contains("gpu-off-bus") && text.contains("the node of this log"), "{text}");
    let ended = alone().args(["xid", file.to_str().unwrap()]).run().await;
    assert!(ended.code == Some(2) && ended.stderr.contains("cat FILE | gpu-syringe xid -"), "{}", ended.stderr);
}
