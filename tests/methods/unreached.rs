//! Tests of answers from Kubernetes alone, about nodes on which no probe can run and machines that never joined.

use demo_cluster::{Cluster, Denial, Fixture, workload_pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Node, NodeCondition, ObjectReference, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::support::{Launcher, fixture, node};

/// Returns the time this many minutes ago, and five seconds more, because the clock of an API server has whole seconds.
fn ago(minutes: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(minutes) - SignedDuration::from_secs(5)
}

/// Sets the condition `Ready`, as the kubelet or the node controller does.
fn set_ready(node: &mut Node, status: &str, reason: &str, message: &str) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(NodeCondition {
        type_: "Ready".into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(ago(20))),
        ..NodeCondition::default()
    });
}

fn warning(kind: &str, name: &str, reason: &str, message: &str) -> Event {
    Event {
        metadata: kube::core::ObjectMeta {
            name: Some(format!("{name}.{reason}").to_lowercase()),
            namespace: Some("default".into()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            kind: Some(kind.into()),
            name: Some(name.into()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_timestamp: Some(Time(ago(1))),
        ..Event::default()
    }
}

async fn diagnosed(cluster: &Cluster, name: &str) -> Value {
    let answer = Launcher::start(cluster, &[]).call("diagnose_gpu_node", json!({ "node_name": name })).await;
    answer.unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

fn finding<'a>(answer: &'a Value, id: &str) -> &'a Value {
    let all = answer["findings"].as_array().expect("findings");
    all.iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id}: {answer}"))
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_named_by_the_cause_with_the_message() {
    let cases = [
        (
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin \
             returns error: cni plugin not initialized",
            "node-network-not-ready",
        ),
        ("False", "KubeletNotReady", "container runtime is down", "node-runtime-down"),
        ("False", "KubeletNotReady", "PLEG is not healthy: pleg was last seen active 3m12s ago", "node-runtime-down"),
        ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", "kubelet-not-reporting"),
        ("False", "KubeletNotReady", "node is shutting down", "node-shut-down"),
        ("False", "KubeletNotReady", "frobnication of the quux failed: errno 7", "node-not-ready"),
    ];
    let cluster = Cluster::start(fixture()).await.unwrap();
    for (status, reason, message, id) in cases {
        cluster.edit_node("gpu-1", |node| set_ready(node, status, reason, message));
        let answer = diagnosed(&cluster, "gpu-1").await;
        let evidence = finding(&answer, id)["evidence"].to_string();
        assert!(evidence.contains(message) && evidence.contains("Ready is"), "{id}: {evidence}");
        assert_eq!((&answer["verdict"], &answer["probe"]["source"]), (&json!("critical"), &json!("api")), "{id}");
        let told = answer["kubernetes"]["conditions"][0].as_str().unwrap();
        assert!(told.contains(message), "{told}");
        assert!(answer["summary"].as_str().unwrap().contains("Nothing was read on the node"), "{}", answer["summary"]);
        // The answer about all nodes must contain the same finding as the answer about this node.
        let survey = Launcher::start(&cluster, &[]).call("get_gpu_health", json!({})).await.unwrap();
        assert!(survey.to_string().contains(id), "{id}: {survey}");
        assert_eq!(survey["verdict"], "critical", "{id}: {survey}");
    }
    assert_eq!(cluster.pods_created(), 0);
}

#[tokio::test]
async fn pods_machine_lease_and_events_of_an_unreached_node_are_in_the_answer() {
    let mut stuck: Pod = workload_pod("kube-system", "cilium-x7k2p", "gpu-1", 0);
    stuck.status = serde_json::from_value(json!({"phase": "Pending", "startTime": ago(30), "containerStatuses": [
        {"name": "agent", "ready": false, "restartCount": 0, "image": "", "imageID": "",
         "state": {"waiting": {"reason": "CreateContainerError", "message": "open /sys/fs/bpf: no such device"}}}]}))
    .unwrap();
    let cluster = Cluster::start(Fixture { pods: vec![stuck], ..fixture() }).await.unwrap();
    let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady";
    cluster.edit_node("gpu-1", |node| set_ready(node, "False", "KubeletNotReady", message));
    cluster.add_event(warning("Node", "gpu-1", "InvalidDiskCapacity", "invalid capacity 0 on image filesystem"));
    cluster.add_object(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "gpu-1", "namespace": "kube-node-lease"}, "spec": {"renewTime": ago(3)}}));
    cluster.add_object(json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "pool-7xk2p"},
        "status": {"nodeName": "gpu-1", "conditions": [
            {"type": "Launched", "status": "True"},
            {"type": "Initialized", "status": "Unknown", "reason": "NodeNotReady", "message": "Node status is NotReady"}]}}));
    let answer = diagnosed(&cluster, "gpu-1").await;
    let evidence = finding(&answer, "node-network-not-ready")["evidence"].to_string();
    let told = answer["kubernetes"].to_string();
    for words in ["cilium-x7k2p", "open /sys/fs/bpf: no such device", "Node status is NotReady", "invalid capacity 0"] {
        assert!(evidence.contains(words) && told.contains(words), "{words}: {evidence} {told}");
    }
    assert!(evidence.contains("Lease 3 min ago"), "{evidence}");
    // A call with the name of the machine diagnoses the same node.
    let by_machine = diagnosed(&cluster, "pool-7xk2p").await;
    assert!(by_machine["probe"]["note"].as_str().unwrap().contains("NodeClaim pool-7xk2p is node gpu-1."));
    finding(&by_machine, "node-network-not-ready");
}

#[tokio::test]
async fn what_may_not_be_read_of_an_unreached_node_is_named_and_no_error() {
    let denied =
        [("list", "pods"), ("list", "events"), ("get", "leases"), ("list", "nodeclaims"), ("list", "machines")];
    let denied = denied.into_iter().fold(fixture(), |fixture, (verb, kind)| fixture.denying(Denial::of(verb, kind)));
    let cluster = Cluster::start(denied).await.unwrap();
    cluster.faults(|faults| faults.on("gpu-1").not_ready = true);
    let answer = diagnosed(&cluster, "gpu-1").await;
    finding(&answer, "kubelet-not-reporting");
    let not_read = answer["kubernetes"]["not_read"].to_string();
    for what in ["Lease", "events", "nodeclaims.karpenter.sh", "machines.cluster.x-k8s.io"] {
        assert!(not_read.contains(what), "{what}: {not_read}");
    }
}

#[tokio::test]
async fn a_machine_that_never_joined_is_explained_by_its_conditions() {
    let claim = |created: Timestamp| {
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": "gpu-pool-abcde", "creationTimestamp": created},
            "status": {"conditions": [{"type": "Launched", "status": "False", "reason": "InsufficientCapacityError",
                "message": "no p5.48xlarge in us-east-1a"}]}})
    };
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.add_object(claim(ago(40)));
    cluster.add_event(warning("NodeClaim", "gpu-pool-abcde", "InsufficientCapacityError", "could not launch"));
    let answer = diagnosed(&cluster, "gpu-pool-abcde").await;
    let found = finding(&answer, "node-never-joined");
    assert!(found["evidence"].to_string().contains("no p5.48xlarge in us-east-1a"), "{found}");
    assert!(found["evidence"].to_string().contains("could not launch"), "{found}");
    assert!(found["action"]["text"].as_str().unwrap().contains("did not start the machine"), "{found}");
    assert_eq!(answer["verdict"], "critical");
    cluster.add_object(claim(ago(2)));
    let answer = diagnosed(&cluster, "gpu-pool-abcde").await;
    finding(&answer, "node-joining");
    assert_eq!(answer["verdict"], "unknown", "{answer}");
    // The node no longer exists, but its events still exist.
    cluster.add_event(warning("Node", "gpu-9", "DeletingNode", "the node does not exist in the cloud provider"));
    let answer = diagnosed(&cluster, "gpu-9").await;
    assert!(finding(&answer, "node-gone")["evidence"].to_string().contains("does not exist in the cloud provider"));
    // An event about a pod does not mean that there was a node with this name.
    cluster.add_event(warning("Pod", "gpu-8", "BackOff", "back-off restarting failed container"));
    let nothing = Launcher::start(&cluster, &[]).call("diagnose_gpu_node", json!({ "node_name": "gpu-8" })).await;
    assert!(nothing.unwrap_err().to_string().contains("no such node"));
}

#[tokio::test]
async fn a_node_that_no_probe_can_run_on_is_answered_with_the_reason() {
    type Mark = fn(&mut Node);
    let marks: [(&str, Mark); 3] = [
        ("virtual", |node| {
            let taint =
                Taint { key: "virtual-kubelet.io/provider".into(), effect: "NoSchedule".into(), ..Taint::default() };
            node.spec.get_or_insert_default().taints = Some(vec![taint]);
        }),
        ("Fargate", |node| {
            let label = ("eks.amazonaws.com/compute-type".to_owned(), "fargate".to_owned());
            node.metadata.labels.get_or_insert_default().extend([label]);
        }),
        ("Windows", |node| {
            let label = ("kubernetes.io/os".to_owned(), "windows".to_owned());
            node.metadata.labels.get_or_insert_default().extend([label]);
        }),
    ];
    for (word, mark) in marks {
        let cluster = Cluster::start(fixture()).await.unwrap();
        cluster.edit_node("gpu-1", mark);
        let answer = diagnosed(&cluster, "gpu-1").await;
        assert!(answer["probe"]["note"].as_str().unwrap().contains(word), "{word}: {}", answer["probe"]);
        assert_eq!((&answer["verdict"], cluster.pods_created()), (&json!("unknown"), 0), "{word}: {answer}");
    }
    let image = "registry.example/none:1";
    let cluster = Fixture::of([node("gpu-1", "healthy-h100-8").with_unpullable_image(image)]);
    let cluster = Cluster::start(cluster).await.unwrap();
    let launcher = Launcher::start(&cluster, &["--via", "pod", "--image", image]);
    let answer = launcher.call("diagnose_gpu_node", json!({ "node_name": "gpu-1" })).await.unwrap();
    let note = answer["probe"]["note"].as_str().unwrap();
    assert!(note.contains(image) && answer["verdict"] != "healthy", "{note} {answer}");
    assert_eq!(answer["kubernetes"]["capacity"]["nvidia.com/gpu"], 8);
}
