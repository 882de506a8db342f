//! Converts failed requests to the API server into failures of the call.

use std::time::Duration;

use syringe_core::facts::kubernetes::node::{KubernetesInput, UnreadInput};
use syringe_core::unknown::Unknown;

use crate::Failure;
use crate::client::api_status::is_page_of_proxy;
use crate::client::connection::Connection;
use crate::client::retry;
use crate::failure::kube_reason;

/// A failed read of the API, with the address of the server and the next step.
pub fn request_failed(connection: &Connection, what: String, error: &kube::Error) -> Failure {
    let next = match error {
        kube::Error::Api(status) if is_page_of_proxy(status) => return page_of_proxy(connection, what, error),
        kube::Error::Api(status) if status.code == 403 => {
            "Grant that permission; deploy/rbac.yaml lists everything gpu-syringe needs.".to_owned()
        }
        kube::Error::Api(status) if status.code == 401 => {
            "Sign in again: the credentials of this context are no longer accepted.".to_owned()
        }
        kube::Error::Api(_) => "Try again. See the message of the API server.".to_owned(),
        _ if kube_reason(error).contains("invalid peer certificate") => {
            "Check certificate-authority of the cluster in the kubeconfig, and whether a proxy replaces certificates."
                .to_owned()
        }
        _ => format!("Check that {} can be reached from here (VPN, proxy, firewall).", connection.server),
    };
    Failure::new(what, format!("{}: {}", connection.server, kube_reason(error)), next)
}

/// A proxy or load balancer answered in place of the API server.
pub fn page_of_proxy(connection: &Connection, what: String, error: &kube::Error) -> Failure {
    let Connection { server, .. } = connection;
    Failure::new(
        what,
        format!("{server}: {}; this is not an answer of the API server", kube_reason(error)),
        format!("Check the proxy or load balancer between here and {server}, or connect to the API server directly."),
    )
}

/// The API server did not answer.
pub fn timed_out(connection: &Connection, what: String) -> Failure {
    silent(connection, what, retry::READ_TIME)
}

/// The API server did not answer, or went on with its answer, for this time.
pub fn silent(connection: &Connection, what: String, time: Duration) -> Failure {
    let Connection { server, .. } = connection;
    Failure::new(
        what,
        format!("{server} did not answer within {time:?}"),
        format!("Check that {server} can be reached from here (VPN, proxy, firewall)."),
    )
}

/// A failure that leaves only a part of the answer unknown.
pub fn section_unknown(section: &str, failure: &Failure) -> Unknown {
    Unknown::new(section, reason(failure))
}

/// A failure to read what the rules need.
pub fn unread_input(input: KubernetesInput, failure: &Failure) -> UnreadInput {
    UnreadInput { input, why: reason(failure) }
}

fn reason(Failure { what, why, next_step, .. }: &Failure) -> String {
    format!("{what}: {why}. {next_step}")
}
