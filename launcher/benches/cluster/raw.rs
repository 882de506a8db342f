//! Reference measurements without gpu-syringe. `read`, `read_in_process`: lists whose bytes are discarded. `lean_pod`:
//! a minimal pod. `connect`, `gpu_pod`, `ready_node`: a connection, a pod and a node for them.

use std::path::Path;
use std::time::{Duration, Instant};

use gpu_syringe::settings::Settings;
use http::{Request, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, PostParams};
use kube::client::Body;
use kube_read::Connection;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::program::run_timed;

/// Path of the kernel log, relative to the path of the node. Many kubelets do not serve it.
pub(crate) const LOG: &str = "/proxy/logs/kern.log";

/// Opens a connection with the transport of gpu-syringe, because kube's own transport delays small frames.
pub(crate) async fn connect(kubeconfig: &Path) -> Connection {
    let settings = Settings::from_args(["--kubeconfig", kubeconfig.to_str().unwrap()]).unwrap();
    settings.contexts().connect(None).await.unwrap()
}

/// Reads each path as protobuf in a separate process. Returns the time and the number of bytes.
pub(crate) async fn read_in_process(kubeconfig: &Path, steps: &[Vec<String>]) -> (Duration, u64) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.arg("--kubeconfig").arg(kubeconfig).arg("--read").arg(serde_json::to_string(steps).unwrap());
    command.stdout(out.reopen().unwrap());
    let (time, _) = run_timed(command).await;
    (time, std::fs::read_to_string(out.path()).unwrap().trim().parse().unwrap())
}

/// Reads each path, one step after the other. The paths of a step are read in parallel, each on its own connection.
pub(crate) async fn read(kubeconfig: &Path, steps: &[Vec<String>]) -> u64 {
    let mut bytes = 0;
    for paths in steps {
        bytes += read_step(kubeconfig, paths).await;
    }
    bytes
}

async fn read_step(kubeconfig: &Path, paths: &[String]) -> u64 {
    let mut reads = tokio::task::JoinSet::new();
    for path in paths {
        let (connection, path) = (connect(kubeconfig).await, path.clone());
        reads.spawn(async move {
            let accept = "application/vnd.kubernetes.protobuf, application/json;q=0.9";
            let request = Request::get(&path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
            let mut body = connection.client.send(request).await.unwrap();
            assert!(body.status().is_success() || path.ends_with(LOG), "{path}: {}", body.status());
            let mut bytes = 0;
            while let Some(frame) = body.body_mut().frame().await {
                bytes += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
            }
            bytes
        });
    }
    reads.join_all().await.into_iter().sum()
}

/// Returns a pod with GPUs on a node: namespace, name and UID.
pub(crate) async fn gpu_pod(kubeconfig: &Path, node: &str) -> Option<[String; 3]> {
    let client = connect(kubeconfig).await.client;
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client).list(&on_node).await.unwrap().items;
    let has_gpus = |pod: &&Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let limits = containers.filter_map(|one| one.resources.as_ref()?.limits.as_ref());
        limits.flat_map(|limits| limits.keys()).any(|name| name == "nvidia.com/gpu")
    };
    let found = pods.iter().find(has_gpus)?.metadata.clone();
    Some([found.namespace?, found.name?, found.uid?])
}

/// Returns the name of the first node that is Ready.
pub(crate) async fn ready_node(kubeconfig: &Path) -> String {
    let client = connect(kubeconfig).await.client;
    let nodes = Api::<Node>::all(client).list(&ListParams::default().limit(50)).await.unwrap();
    let is_ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    nodes.items.iter().find(is_ready).and_then(|node| node.metadata.name.clone()).expect("a node that is Ready")
}

/// Measures a minimal pod: its creation, execs until the container is running and returns a document, and its deletion.
pub(crate) async fn lean_pod(
    connection: &Connection,
    namespace: &str,
    node: &str,
    image: &str,
    argv: &[&str],
) -> Duration {
    let pods = Api::<Pod>::namespaced(connection.client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": "lean-", "labels": {"app": "gpu-syringe-bench"}},
        "spec": {
            "nodeName": node, "hostNetwork": true, "hostPID": true, "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0, "activeDeadlineSeconds": 60, "automountServiceAccountToken": false,
            "enableServiceLinks": false, "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "probe", "image": image, "command": ["/usr/bin/node-probe", "hold", "--seconds", "30"],
                "securityContext": {"privileged": true},
            }],
        },
    }))
    .unwrap();
    let began = Instant::now();
    let name = pods.create(&PostParams::default(), &pod).await.unwrap().metadata.name.unwrap();
    let attach = AttachParams::default().stdin(false).stderr(false);
    let mut exec = loop {
        match pods.exec(&name, argv.iter().copied(), &attach).await {
            Ok(exec) => break exec,
            Err(_) if began.elapsed() < Duration::from_secs(20) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let mut out = Vec::new();
    exec.stdout().unwrap().read_to_end(&mut out).await.unwrap();
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    let time = began.elapsed();
    assert!(out.ends_with(b"}\n") || out.ends_with(b"}"), "{}", String::from_utf8_lossy(&out));
    time
}
