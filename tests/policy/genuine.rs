//! Tests that the policy admits the pods and execs of the methods `pod` and `logs`, and rejects those of `inject`.
//!
//! The requests are recorded from the launcher, with every setting that changes them. `inject` is rejected because it runs a
//! shell.

use std::collections::BTreeSet;

use demo_cluster::{Cluster, Fixture};
use futures_util::StreamExt;
use gpu_syringe::tools;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use syringe_core::probe_command::{ProbeCommand, ReadCommand};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::admission::{Denial, Policies, Request};
use crate::manifests::{IMAGE, NAMESPACE, with_values};
use crate::support::{Launcher, fixture, node};

const CORDONED: &str = "gpu-2";

/// Returns policies with the values that the settings of these tests need.
fn opened() -> Policies {
    with_values(&json!({
        "runtimeClass": "nvidia", "pullSecrets": ["one", "two"], "moreLabels": ["team"],
        "moreAnnotations": ["policy.example/exempt"],
    }))
}

/// A cluster, and the pods that are created in the namespace of the probes.
struct Site {
    cluster: Cluster,
    created: UnboundedReceiver<Value>,
}

impl Site {
    async fn start() -> Self {
        let mut nodes = fixture();
        let mut cordoned = node(CORDONED, "ecc-remap-pending");
        cordoned.unschedulable = true;
        nodes.nodes.push(cordoned);
        let cluster = Cluster::start(Fixture { ..nodes }).await.unwrap();
        let config = Config::from_custom_kubeconfig(cluster.kubeconfig(), &KubeConfigOptions::default()).await.unwrap();
        let pods = Api::<Pod>::namespaced(Client::try_from(config).unwrap(), NAMESPACE);
        let mut seen = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let (tell, created) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(event)) = seen.next().await {
                if let WatchEvent::Added(mut pod) = event {
                    // The resource version is set when the pod is stored, after admission.
                    pod.metadata.resource_version = None;
                    drop(tell.send(serde_json::to_value(pod).unwrap()));
                }
            }
        });
        Self { cluster, created }
    }

    /// Returns the new requests for pods and execs in the namespace of the probes. Panics on other admission requests.
    async fn asked(&mut self, from: usize) -> Vec<Request> {
        let mut asked = Vec::new();
        for line in self.cluster.requests().split_off(from) {
            let (verb, path) = line.split_once(' ').unwrap();
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let Some(rest) = path.strip_prefix("/api/v1/namespaces/gpu-syringe/") else { continue };
            let parts: Vec<_> = rest.split('/').collect();
            let request = match (verb, parts.as_slice()) {
                ("POST", ["pods"]) => {
                    let pod = tokio::time::timeout(std::time::Duration::from_secs(5), self.created.recv()).await;
                    ("CREATE", "", pod.unwrap().unwrap())
                }
                (_, ["pods", _, "exec"]) => ("CONNECT", "exec", exec_options(query)),
                // Reads and deletions are not checked by the policy.
                ("GET" | "DELETE", _) => continue,
                other => panic!("{other:?} is a request for which there is no policy"),
            };
            let (operation, subresource, object) = request;
            let (subresource, namespace) = (subresource.to_owned(), NAMESPACE.to_owned());
            asked.push(Request { operation, subresource, namespace, object, may_act: false });
        }
        asked
    }
}

/// Parses `PodExecOptions` from a query as the API server does.
fn exec_options(query: &str) -> Value {
    let mut options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": []});
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        let value = decoded(value);
        match name {
            "command" => options["command"].as_array_mut().unwrap().push(value.into()),
            "container" => options["container"] = value.into(),
            flag if value == "true" => options[flag] = true.into(),
            // Options with the value false are omitted.
            _ => {}
        }
    }
    options
}

/// Decodes a value of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at(2);
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                rest = after;
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Returns the calls of every tool with the arguments that change the command of a probe.
fn calls(operator: bool, pod: &str, namespace: &str) -> Vec<(&'static str, Value)> {
    let gpu = "GPU-0ef073d2-8b0d-4220-a630-44b3db6f98bb";
    let mut calls = Vec::new();
    for entry in tools::all(gpu_syringe::settings::Mode::ReadOnly).iter().filter(|entry| entry.probes) {
        let on_node = json!({"node_name": "gpu-1"});
        match entry.name {
            "explain_gpu_pod" => calls.push((entry.name, json!({"pod": pod, "namespace": namespace}))),
            "get_pod_gpu_allocation" => {
                calls.push((entry.name, json!({"node_name": "gpu-1", "resolve_devices": true})))
            }
            "analyze_xid_errors" => {
                calls.push((entry.name, on_node));
                for since in ["24h", "7d", "1h30m", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00+01:00", "1 day"] {
                    calls.push((entry.name, json!({"node_name": "gpu-1", "since": since})));
                }
            }
            "get_gpu_telemetry" => {
                calls.push((entry.name, on_node));
                let sampled = [0, 3, 10].map(|seconds| json!({"node_name": "gpu-1", "sample_seconds": seconds}));
                calls.extend(sampled.map(|arguments| (entry.name, arguments)));
            }
            "get_gpu_health" | "get_gpu_inventory" => calls.extend([(entry.name, on_node), (entry.name, json!({}))]),
            "compare_gpu_nodes" => calls.push((entry.name, json!({"node_name": "gpu-1", "other_node": CORDONED}))),
            name => calls.push((name, on_node)),
        }
    }
    if operator {
        let kill =
            json!({"node_name": "gpu-1", "gpu": gpu, "pid": 4_000_000, "start_ticks": 418_000, "grace_seconds": 5});
        calls.push(("kill_gpu_process", kill));
        calls.extend(["gpu-1", CORDONED].map(|node| ("reset_gpu", json!({"node_name": node, "gpu": gpu}))));
    }
    calls
}

/// Returns the launcher's admission requests with these settings, and the results of the policy.
async fn reviewed(settings: &[&str]) -> Vec<(Request, Vec<Denial>)> {
    let mut site = Site::start().await;
    let operator = settings.contains(&"operator");
    let words: Vec<_> = ["--image", IMAGE].iter().chain(settings).copied().collect();
    let workload = fixture().pods.into_iter().next().unwrap().metadata;
    let mut all = Vec::new();
    let policies = opened();
    for (tool, arguments) in calls(operator, &workload.name.unwrap(), &workload.namespace.unwrap()) {
        let before = site.cluster.requests().len();
        let launcher = Launcher::start(&site.cluster, &words);
        // Other tests check whether the call succeeds. This test checks the requests to the API server.
        let result = launcher.call(tool, arguments.clone()).await;
        launcher.prober.settle().await;
        let asked = site.asked(before).await;
        assert!(!asked.is_empty(), "{tool} {arguments} {settings:?}: {:?}", result.err());
        for request in asked {
            // With operator settings, actions are requested, and the user has the right to act.
            let request = Request { may_act: operator, ..request };
            let denials = policies.review(&request);
            all.push((request, denials));
        }
    }
    all
}

/// Settings that change the pod. With the variables of [`opened`], the policy must admit the pods of each entry.
const MODES: [&[&str]; 8] = [
    &["--via", "pod", "--mode", "operator"],
    &["--via", "logs", "--mode", "operator"],
    &["--via", "pod", "--mode", "operator", "--drain-check", "off"],
    &["--via", "pod", "--runtime-class", "nvidia"],
    &["--via", "logs", "--runtime-class", "nvidia"],
    &[
        "--via",
        "pod",
        "--label",
        "team=ml",
        "--annotation",
        "policy.example/exempt=yes",
        "--image-pull-secret",
        "one,two",
    ],
    &["--via", "pod", "--toleration", "dedicated=gpu:NoSchedule,nvidia.com/gpu", "--image-pull-policy", "always"],
    &["--via", "logs", "--start-timeout", "600", "--call-timeout", "600", "--image-pull-policy", "never"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_requests_of_the_methods_pod_and_logs_are_admitted() {
    let (mut commands, mut with_raw_log) = (BTreeSet::new(), BTreeSet::new());
    let policies = opened();
    for settings in MODES {
        for (request, denials) in reviewed(settings).await {
            assert_eq!(denials, [], "{settings:?}: {:#}", request.object);
            let words = request.object.get("command").or(request.object.pointer("/spec/containers/0/command"));
            commands.insert(words.unwrap().as_array().unwrap()[1].clone().to_string());
            // `gpu-syringe save` also reads the records of the kernel log, but not into the log of a pod.
            if words == Some(&json!(ProbeCommand::Read(ReadCommand::everything()).argv())) {
                let with_log =
                    json!(ProbeCommand::Read(ReadCommand { raw_log: true, ..ReadCommand::everything() }).argv());
                let mut request = request;
                match request.object.get_mut("command") {
                    Some(words) => *words = with_log,
                    None => request.object["spec"]["containers"][0]["command"] = with_log,
                }
                let admitted = policies.review(&request).is_empty();
                assert_eq!(admitted, request.operation == "CONNECT", "{settings:?}: {:#}", request.object);
                with_raw_log.insert(request.operation);
            }
        }
    }
    assert_eq!(with_raw_log, BTreeSet::from(["CONNECT", "CREATE"]));
    // The commands that the policy admits must be the same as the recorded commands.
    let known = ["--operator", "all", "ecc", "hold", "inventory", "read", "telemetry", "topology", "xid"];
    assert_eq!(commands, known.iter().map(|word| format!("\"{word}\"")).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inject_is_denied_by_the_policy() {
    let all = reviewed(&["--via", "inject"]).await;
    assert!(all.iter().any(|(request, _)| request.subresource == "exec"));
    for (request, denials) in all {
        assert_ne!(denials, [], "{:#}", request.object);
    }
}

#[test]
fn other_namespaces_are_not_affected() {
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}});
    for (operation, subresource) in
        [("CREATE", ""), ("UPDATE", ""), ("UPDATE", "ephemeralcontainers"), ("CONNECT", "exec")]
    {
        let (subresource, namespace) = (subresource.to_owned(), "ml".to_owned());
        let request = Request { operation, subresource, namespace, object: pod.clone(), may_act: false };
        assert_eq!(opened().review(&request), []);
    }
}
