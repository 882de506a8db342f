//! `Refusal`: why an exec was rejected. Functions that create the failures of an exec, with causes and next steps:
//! `no_exec`, `exec_forbidden`, `no_websocket`, `not_started`, `not_run`, `pod_deleted`, `slow_upload`.

use std::time::Duration;

use crate::probe::exec::container_state::{BY_OTHERS, FatalState, is_missing_program};
use crate::probe::exec::websocket::{ExecError, TooLarge};
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::create_forbidden::is_missing_permission;
use crate::probe::result::ProbeContainer;
use crate::settings::ProbeMethod;
use kube_read::Failure;
use kube_read::client::api_status::is_not_a_status;
use kube_read::failure::Cause;

/// The reason why an exec was rejected, from the message of the API server, the kubelet or the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The container is not running yet.
    NotYet,
    /// The API server cannot connect to the kubelet.
    KubeletUnreachable,
    PodDeleted,
    /// The image does not contain the program.
    MissingProgram,
    Other,
}

impl Refusal {
    pub(crate) fn of(message: &str) -> Self {
        // "unable to upgrade connection" is not in this list: both temporary and permanent causes follow that text.
        const NOT_YET: [&str; 5] = [
            "container not found",
            "pod does not exist",
            "does not have a host assigned",
            "CONTAINER_CREATED",
            "is not created or running",
        ];
        if NOT_YET.iter().any(|phrase| message.contains(phrase)) {
            Self::NotYet
        } else if message.contains("dial") {
            Self::KubeletUnreachable
        } else if is_missing_program(message) {
            Self::MissingProgram
        } else if message.starts_with("pods \"") && message.contains("\" not found") {
            Self::PodDeleted
        } else {
            Self::Other
        }
    }

    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::NotYet | Self::KubeletUnreachable)
    }
}

/// Returns the failure of an upload for which the connection was too slow.
pub(crate) fn slow_upload(context: &ProbeContext, sent: usize, length: usize, took: Duration) -> Failure {
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

pub(crate) fn exec_forbidden(probe_container: &ProbeContainer, why: &str) -> Failure {
    let what = format!("Running the probe in pod {}/{}", probe_container.namespace, probe_container.pod);
    let next = "Your user needs get and create on pods/exec in the namespace of the probe (gpu-syringe setup --apply --user NAME grants them); otherwise, use --via logs.";
    // If no permission is missing, an admission plugin rejects the exec, or the credentials are not valid.
    let cause = if is_missing_permission(why) { Cause::ExecForbidden } else { Cause::Refused };
    Failure::new(what, why, next).because_of(cause)
}

pub(crate) fn no_websocket(context: &ProbeContext, why: &str) -> Failure {
    let what = format!("Opening a websocket to node {} through {}", context.request.node, context.connection.server);
    if Refusal::of(why) == Refusal::KubeletUnreachable {
        // To read the log, the API server also needs the kubelet, so no other method helps.
        let next = "The API server cannot reach the kubelet of the node (port 10250): check the firewall between them, or \
             konnectivity.";
        return Failure::new(what, why, next);
    }
    let next = "A proxy or load balancer in front of the API server rejects websockets: allow them, connect to the API server \
             directly, or use --via logs.";
    Failure::new(what, why, next).because_of(Cause::WebsocketsRefused)
}

/// Returns the failure of an exec in a running container. If there is no response, a proxy that drops websockets cannot be
/// distinguished from a node that hangs.
pub(crate) fn no_exec(context: &ProbeContext, error: &ExecError) -> Failure {
    let failure = no_websocket(context, &error.to_string());
    match failure.cause {
        Cause::WebsocketsRefused if !is_answer(error) => failure.because_of(Cause::ExecUnanswered),
        _ => failure,
    }
}

/// Returns whether the API server, the kubelet or a proxy responded to the exec, and would send the same response again.
fn is_answer(error: &ExecError) -> bool {
    let ExecError::Kube(error) = error else { return false };
    match error {
        // The response is from a proxy: the API server and the kubelet respond with a Status.
        kube::Error::Api(status) if is_not_a_status(status) && status.code == 502 => true,
        kube::Error::Api(status) => is_final(status.code) && !Refusal::of(&status.message).is_temporary(),
        error => matches!(error, kube::Error::UpgradeConnection(_)),
    }
}

/// Returns whether a proxy with this status code will never pass the request on, for example because it does not support
/// websockets. A bad gateway may recover.
pub(crate) fn is_final(code: u16) -> bool {
    code < 500 || code == 501
}

pub(crate) fn not_started(context: &ProbeContext, probe_container: &ProbeContainer, state: FatalState) -> Failure {
    let FatalState { why, next_step, cause } = state;
    let what = format!("Starting the probe on node {} (image {})", context.request.node, probe_container.image);
    Failure::new(what, why, next_step).because_of(cause)
}

pub(crate) fn not_run(context: &ProbeContext, probe_container: &ProbeContainer, error: &ExecError) -> Failure {
    let why = error.to_string();
    let refusal = Refusal::of(&why);
    let next = match (error, refusal) {
        (ExecError::TooLarge(TooLarge { section: None }), _) => {
            "The image contains another program with the name of the probe: use the right image with --image."
        }
        (ExecError::TooLarge(_), _) => {
            "Use the probe image of the same version as gpu-syringe: its node-probe leaves out sections that are too \
                large."
        }
        (_, Refusal::MissingProgram) => probe_container.if_missing,
        (_, Refusal::PodDeleted) => BY_OTHERS,
        _ => "Check the kubelet and the container runtime of the node, and try again.",
    };
    let is_unfit = refusal == Refusal::MissingProgram && probe_container.method == ProbeMethod::Inject;
    let cause = if is_unfit { Cause::Upload } else { Cause::Other };
    Failure::new(running(context), why, next).because_of(cause)
}

/// Returns the failure of a probe whose pod was deleted by another user or a controller.
pub(crate) fn pod_deleted(context: &ProbeContext) -> Failure {
    Failure::new(running(context), "the pod was deleted", BY_OTHERS)
}

fn running(context: &ProbeContext) -> String {
    format!("Running the probe on node {}", context.request.node)
}
