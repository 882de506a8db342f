//! Functions for the tests: start a cluster with a client, create probe pods and wait for their phase, and run an exec
//! until it ends. `Echo`: a program that prints its input.

use std::time::{Duration, Instant};

use demo_cluster::{Cluster, Fixture, Invocation, NodeFixture, Process, Programs, Streams};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess, PostParams};
use kube::core::Status;
use kube::{Client, Config, Error};
use serde_json::json;
use syringe_core::report::Report;
use tokio::io::AsyncReadExt;

pub(crate) const NAMESPACE: &str = "default";

pub(crate) const IMAGE: &str = "registry.example/node-probe:1";

pub(crate) fn node(name: &str) -> NodeFixture {
    let facts = Report { hostname: Some(name.to_owned()), ..Report::default() };
    NodeFixture::new(name, facts).with_resource("nvidia.com/gpu", 8).with_label("nvidia.com/gpu.present", "true")
}

pub(crate) async fn start(fixture: Fixture) -> (Cluster, Client) {
    let cluster = Cluster::start(fixture).await.unwrap();
    let client = client(&cluster).await;
    (cluster, client)
}

pub(crate) async fn client(cluster: &Cluster) -> Client {
    let mut config = Config::from_custom_kubeconfig(cluster.kubeconfig(), &Default::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Returns the `Authorization` header with the token of a cluster.
pub(crate) fn authorization(cluster: &Cluster) -> String {
    let kubeconfig: serde_json::Value = serde_json::from_str(&cluster.kubeconfig_yaml()).unwrap();
    format!("Bearer {}", kubeconfig["users"][0]["user"]["token"].as_str().unwrap_or_default())
}

pub(crate) fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), NAMESPACE)
}

pub(crate) fn probe_on(node: &str, name: &str) -> Pod {
    probe_running(node, name, &["node-probe", "hold", "--seconds", "60"])
}

pub(crate) fn probe_running(node: &str, name: &str, command: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "probe"}},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "hostNetwork": true, "hostPID": true,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "probe", "image": IMAGE, "command": command, "securityContext": {"privileged": true},
            }],
        },
    }))
    .unwrap()
}

pub(crate) async fn create(client: &Client, pod: Pod) -> Pod {
    pods(client).create(&PostParams::default(), &pod).await.unwrap()
}

pub(crate) fn status(error: &Error) -> &Status {
    match error {
        Error::Api(status) => status,
        other => panic!("no status: {other:?}"),
    }
}

/// Repeats `look` until it returns a value.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) async fn until_phase(client: &Client, name: &str, wanted: &str) -> Pod {
    until(wanted, async || pods(client).get(name).await.ok().filter(|pod| phase(pod) == wanted)).await
}

pub(crate) fn streams() -> AttachParams {
    AttachParams::default().container("probe").max_stdout_buf_size(256 * 1024)
}

/// Starts an exec as soon as the container is running.
pub(crate) async fn exec(client: &Client, pod: &str, command: &[&str], streams: &AttachParams) -> AttachedProcess {
    until("an exec", async || pods(client).exec(pod, command.to_vec(), streams).await.ok()).await
}

/// Returns the error status of an exec that is rejected.
pub(crate) async fn refused(client: &Client, pod: &str, streams: &AttachParams) -> Status {
    match pods(client).exec(pod, ["node-probe", "inventory"], streams).await {
        Ok(_) => panic!("the exec was accepted"),
        Err(error) => status(&error).clone(),
    }
}

pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) exit_code: Option<String>,
    pub(crate) success: bool,
    pub(crate) status: Option<Status>,
}

pub(crate) async fn finish(mut process: AttachedProcess) -> Ran {
    let mut out = process.stdout().unwrap();
    let status = process.take_status().unwrap();
    let mut stdout = Vec::new();
    let mut error = process.stderr();
    let (mut buffer, mut ignored) = (vec![0; 65_536], vec![0; 4_096]);
    tokio::pin!(status);
    let ended = loop {
        tokio::select! {
            biased;
            read = out.read(&mut buffer) => match read.unwrap() {
                0 => break status.await,
                length => stdout.extend_from_slice(&buffer[..length]),
            },
            _ = async { match &mut error { Some(error) => error.read(&mut ignored).await.unwrap(), None => 0 } },
                if error.is_some() => {}
            ended = &mut status => break ended,
        }
    };
    let cause = |status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status| {
        let causes = status.details.as_ref()?.causes.as_ref()?;
        causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?.message.clone()
    };
    Ran {
        stdout,
        exit_code: ended.as_ref().and_then(cause),
        success: ended.as_ref().is_some_and(|status| status.status.as_deref() == Some("Success")),
        status: ended.and_then(|status| serde_json::from_value(serde_json::to_value(status).unwrap()).ok()),
    }
}

/// A program that prints its input and the length of the input.
pub(crate) struct Echo;

impl Programs for Echo {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let Streams { mut stdin, stdout, stderr } = streams;
        if invocation.argv[0] == "output" {
            let length: usize = invocation.argv[1].parse().ok()?;
            return Some(Box::pin(async move {
                let _ = stderr.send("noise\n".into()).await;
                let _ = stdout.send(vec![b'x'; length].into()).await;
                0
            }));
        }
        (invocation.argv[0] == "echo").then(|| {
            let run = async move {
                let mut length = 0;
                while let Some(piece) = stdin.recv().await {
                    length += piece.len();
                    if stdout.send(piece).await.is_err() {
                        return 1;
                    }
                }
                let _ = stderr.send(format!("{length}\n").into()).await;
                7
            };
            Box::pin(run) as Process
        })
    }
}

pub(crate) async fn echo() -> (Cluster, Client) {
    let programs = std::sync::Arc::new(Echo);
    let (cluster, client) = start(Fixture { programs, ..Fixture::of([node("gpu-1")]) }).await;
    create(&client, probe_on("gpu-1", "a")).await;
    (cluster, client)
}
