//! `run`: runs the main process of one container, and updates the container status in the API.

use std::time::Duration;

use node_probe::RELEASE_FILE;
use tokio::sync::mpsc;

use super::container_config::ContainerConfig;
use super::scheduled_pod::ScheduledPod;
use crate::cluster_state::ClusterState;
use crate::fixture::Timing;
use crate::pod_status::{self, Termination};
use crate::programs::{Invocation, Streams};

/// Capacity of the channel to the log, in pieces of output.
const OUTPUT_CHANNEL: usize = 16;

/// Runs a container until it exits. The API shows the start and the exit later, because of the relist interval of the
/// kubelet.
pub(super) async fn run(state: &ClusterState, pod_ref: &ScheduledPod, config: &ContainerConfig) {
    state.runtime.set_running(&pod_ref.uid, &config.name);
    let main = main_process(state, pod_ref, config);
    tokio::pin!(main);
    let end = tokio::select! {
        end = &mut main => end,
        () = Timing::pass(state.timing.status_lag) => {
            pod_ref.update(state, |pod| pod_status::running(pod, &config.name));
            main.await
        }
    };
    state.runtime.set_ended(&pod_ref.uid, &config.name);
    Timing::pass(state.timing.status_lag).await;
    pod_ref.update(state, |pod| pod_status::terminated(pod, &config.name, &end));
}

async fn main_process(state: &ClusterState, pod_ref: &ScheduledPod, config: &ContainerConfig) -> Termination {
    let killed = state.injector.main_process_killed(&pod_ref.node);
    let process = async {
        match config.hold_time() {
            Some(Duration::MAX) => std::future::pending().await,
            // Every image can run `sleep` and `pause`, but `node-probe hold` needs an image with node-probe.
            Some(time) if !config.is_probe() || state.programs.has_node_probe(&config.image) => {
                let files = state.runtime.files_of(&pod_ref.uid, &config.name);
                let _ = tokio::time::timeout(time, files.wait_for(RELEASE_FILE)).await;
                Termination::exit(0)
            }
            Some(_) | None => execute(state, pod_ref, config).await,
        }
    };
    tokio::select! {
        () = killed => Termination { exit_code: 137, reason: "OOMKilled", message: None },
        end = process => end,
    }
}

/// Runs a main process. Its output becomes the log of the container.
async fn execute(state: &ClusterState, pod_ref: &ScheduledPod, config: &ContainerConfig) -> Termination {
    let Some(host) = state.host(&pod_ref.node) else { return Termination::exit(1) };
    let invocation = Invocation {
        argv: config.argv.clone(),
        image: config.image.clone(),
        node: pod_ref.node.clone(),
        facts: host.facts.clone(),
        files: state.runtime.files_of(&pod_ref.uid, &config.name),
    };
    let (stdout, mut out) = mpsc::channel(OUTPUT_CHANNEL);
    let (stderr, mut err) = mpsc::channel(OUTPUT_CHANNEL);
    let (_, stdin) = mpsc::channel(1);
    let Some(process) = state.programs.start(&invocation, Streams { stdin, stdout, stderr }) else {
        let program = config.argv.first().map_or("", String::as_str);
        let message = format!(
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"{program}\": \
             executable file not found in $PATH"
        );
        return Termination { exit_code: 128, reason: "StartError", message: Some(message) };
    };
    let log = async {
        while let Some(output) = tokio::select! {
            Some(output) = out.recv() => Some(output),
            Some(output) = err.recv() => Some(output),
            else => None,
        } {
            state.runtime.write_log(&pod_ref.uid, &config.name, &output);
        }
    };
    let (code, ()) = tokio::join!(process, log);
    Termination::exit(code)
}
