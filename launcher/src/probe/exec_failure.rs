//! The failures of an exec, with their causes and next steps.

use std::time::Duration;

use super::container_state::{self, is_missing_program};
use super::create_forbidden::is_missing_permission;
use super::exec_websocket;
use super::probe_context::ProbeContext;
use super::types::ProbeContainer;
use crate::settings::ProbeMethod;
use kube_read::Failure;
use kube_read::failure::RejectionReason;

/// Why a pod that was deleted by somebody else does not run the probe.
pub(super) const DELETED: &str = "the pod was deleted";

/// The failure of an upload that the connection was too slow for.
pub(super) fn slow_upload(context: &ProbeContext, sent: usize, length: usize, took: Duration) -> Failure {
    let kilobytes = |bytes: usize| bytes as f64 / 1000.0;
    let seconds = took.as_secs_f64();
    let why = format!(
        "{:.0} of {:.0} kB were sent in {seconds:.1} s ({:.0} kB/s)",
        kilobytes(sent),
        kilobytes(length),
        kilobytes(sent) / seconds
    );
    Failure::new(
        format!("Uploading node-probe to node {}", context.request.node),
        why,
        "The connection to the API server is slow: raise --call-timeout, connect from a place closer to the cluster, or use \
         --via pod, which uploads nothing.",
    )
}

pub(super) fn exec_forbidden(probe_container: &ProbeContainer, why: &str) -> Failure {
    let what = format!("Running the probe in pod {}/{}", probe_container.namespace, probe_container.pod);
    let next = "Your user needs get and create on pods/exec in that namespace (deploy/rbac.yaml). Without them, use --via logs.";
    // Any other refusal is of an admission plugin or of the credentials.
    let obstacle = is_missing_permission(why).then_some(RejectionReason::ExecForbidden);
    Failure { obstacle, ..Failure::new(what, why, next) }.cluster_wide()
}

pub(super) fn no_websocket(context: &ProbeContext, why: &str) -> Failure {
    let what = format!("Opening a websocket to node {} through {}", context.request.node, context.connection.server);
    if why.contains("dial") {
        // The log is read through the kubelet as well: no other method helps.
        let next = "The API server cannot reach the kubelet of the node (port 10250): check the firewall between them, or \
             konnectivity.";
        return Failure::new(what, why, next);
    }
    let next = "A proxy or load balancer in front of the API server rejects websockets: allow them, connect to the API server \
             directly, or use --via logs.";
    Failure::new(what, why, next).because_of(RejectionReason::Websockets)
}

/// The same for a running container. A proxy that drops websockets and a node that hangs look alike if neither answers.
pub(super) fn no_exec(context: &ProbeContext, why: &str, answered: bool) -> Failure {
    let failure = no_websocket(context, why);
    match failure.obstacle {
        Some(_) if !answered => failure.because_of(RejectionReason::ExecUnanswered),
        _ => failure,
    }
}

pub(super) fn not_started(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    why: &str,
    next: String,
) -> Failure {
    let what = format!("Starting the probe on node {} (image {})", context.request.node, probe_container.image);
    let obstacle = container_state::image_obstacle(why, probe_container.method);
    let failure = Failure { obstacle, ..Failure::new(what, why, next) };
    let no_image = probe_container.method != ProbeMethod::Inject && container_state::is_image_pull_failure(why);
    if no_image { failure.cluster_wide() } else { failure }
}

pub(super) fn not_run(context: &ProbeContext, probe_container: &ProbeContainer, why: &str) -> Failure {
    let next = if is_missing_program(why) {
        probe_container.if_missing
    } else if why == exec_websocket::OUTPUT_TOO_LARGE {
        "The image contains another program of that name: use the right image with --image."
    } else if why.starts_with(exec_websocket::OUTPUT_TOO_LARGE) {
        "Use a probe image of this version. Its probe leaves out a section that is too large."
    } else if why == DELETED || why.starts_with("pods \"") && why.contains("\" not found") {
        container_state::BY_OTHERS
    } else {
        "Check the kubelet and the container runtime of the node, and try again."
    };
    let what = format!("Running the probe on node {}", context.request.node);
    Failure { obstacle: container_state::image_obstacle(why, probe_container.method), ..Failure::new(what, why, next) }
}
