//! `request_failed`, `page_of_proxy`, `timed_out`, `silent`: create a `Failure` for a failed API request.
//! `certificate_step`: the next step after a rejected certificate. `section_unknown`, `unread_input`: create an entry
//! for data that could not be read.

use std::time::Duration;

use syringe_core::facts::kubernetes::node::{KubernetesInput, UnreadInput};
use syringe_core::unknown::{NOT_IN_ARCHIVE, Unknown};

use crate::Failure;
use crate::client::api_status::{is_page_of_proxy, is_web_page};
use crate::client::connection::Connection;
use crate::client::retry;
use crate::failure::kube_reason;

/// Creates the failure for a request that failed, with the address of the server and the next step.
pub fn request_failed(connection: &Connection, what: String, error: &kube::Error) -> Failure {
    // There is no permission and no address, because no cluster was read.
    if let kube::Error::Api(status) = error
        && let Some((_, why)) = status.message.split_once(NOT_IN_ARCHIVE)
    {
        return Failure::new(what, format!("{NOT_IN_ARCHIVE}{why}"), "");
    }
    let next = match error {
        kube::Error::Api(status) if is_page_of_proxy(status) || is_web_page(status) => {
            return page_of_proxy(connection, what, error);
        }
        // A proxy sends a login page with HTTP status 200.
        kube::Error::SerdeError(error_of_json) if error_of_json.is_syntax() => return page_of_proxy(connection, what, error),
        kube::Error::Api(status) if status.code == 403 && status.message.contains("\"system:anonymous\"") => {
            "The API server does not recognize you: the user of this context in the kubeconfig has no credentials. \
                Sign in, or choose another context (--context). Do not grant permissions to system:anonymous."
                .to_owned()
        }
        kube::Error::Api(status) if status.code == 403 => {
            "Ask an administrator of the cluster for the missing permission. The command gpu-syringe setup --apply \
                --user NAME grants everything that gpu-syringe needs."
                .to_owned()
        }
        kube::Error::Api(status) if status.code == 400 && what.contains("nodes") && is_about_selector(&status.message) => {
            "Correct the selector (-l).".to_owned()
        }
        kube::Error::Api(status) if status.code == 401 => {
            "Sign in again: the credentials of this context are no longer accepted.".to_owned()
        }
        kube::Error::Api(_) => "Try again. See the message of the API server.".to_owned(),
        _ if kube_reason(error).contains("UnsupportedCertVersion") => {
            "The client certificate in the kubeconfig is X.509 version 1, which the TLS library of gpu-syringe does not accept. \
             Issue it again as version 3 (openssl x509 -req … -extfile with any extension), or use a token."
                .to_owned()
        }
        _ if kube_reason(error).contains("invalid peer certificate") => {
            certificate_step(&kube_reason(error)).to_owned()
        }
        _ => format!("Check that {} can be reached from this machine (VPN, proxy, firewall).", connection.server),
    };
    Failure::new(what, format!("{}: {}", connection.server, kube_reason(error)), next)
}

/// Parts of the messages about a rejected server certificate, each with the next step.
const CERTIFICATES: [(&str, &str); 5] = [
    (
        "not valid for name",
        "The certificate is for another name. Use an address of the API server that the certificate contains, or set \
         tls-server-name of the cluster in the kubeconfig to a name in the certificate.",
    ),
    (
        "NotValidYet",
        "The certificate is not valid yet: compare the clock of this machine with the correct time, or renew the certificate of the API server.",
    ),
    (
        "xpired",
        "The certificate has expired: renew the certificate of the API server (kubeadm certs check-expiration), or correct the clock \
         of this machine.",
    ),
    (
        "CaUsedAsEndEntity",
        "The API server uses the certificate of a CA as its own, which the TLS library of gpu-syringe does not accept: give the server \
         a certificate that the CA signed.",
    ),
    ("", "Check certificate-authority of the cluster in the kubeconfig, and whether a proxy replaces certificates."),
];

/// Returns the next step after the server's certificate was rejected with this message.
pub fn certificate_step(reason: &str) -> &'static str {
    CERTIFICATES.iter().find(|(part, _)| reason.contains(part)).map_or("", |(_, step)| step)
}

/// Returns whether the API server rejected a label selector. Not all messages about rejected label selectors contain
/// the word "selector".
fn is_about_selector(message: &str) -> bool {
    message.contains("selector") || message.contains("unable to parse requirement")
}

/// Creates the failure for a response that a proxy or load balancer sent in place of the API server.
pub fn page_of_proxy(connection: &Connection, what: String, error: &kube::Error) -> Failure {
    let Connection { server, .. } = connection;
    Failure::new(
        what,
        format!("{server}: {}; this response is not from the API server", kube_reason(error)),
        format!(
            "Check the proxy or load balancer between this machine and {server}, or connect to the API server \
            directly."
        ),
    )
}

/// Creates the failure for an API server that did not respond.
pub fn timed_out(connection: &Connection, what: String) -> Failure {
    silent(connection, what, retry::READ_TIME)
}

/// Creates the failure for an API server that sent no response, or no more data, within `time`.
pub fn silent(connection: &Connection, what: String, time: Duration) -> Failure {
    let Connection { server, .. } = connection;
    Failure::new(
        what,
        format!("{server} did not answer within {time:?}"),
        format!("Check that {server} can be reached from this machine (VPN, proxy, firewall)."),
    )
}

/// Creates the entry for a section that is unknown in an answer because of a failure.
pub fn section_unknown(section: &str, failure: &Failure) -> Unknown {
    Unknown::new(section, reason(failure))
}

/// Creates the entry for an input of the rules that could not be read.
pub fn unread_input(input: KubernetesInput, failure: &Failure) -> UnreadInput {
    UnreadInput { input, why: reason(failure) }
}

fn reason(Failure { what, why, next_step, .. }: &Failure) -> String {
    // If a list is not in the archive, the reason is the same for all lists.
    if why.starts_with(NOT_IN_ARCHIVE) {
        return why.clone();
    }
    format!("{what}: {why}. {next_step}")
}

#[cfg(test)]
mod tests {
    use super::certificate_step;

    #[test]
    fn each_reason_against_a_certificate_has_its_own_step() {
        let step = |reason: &str| certificate_step(&format!("invalid peer certificate: {reason}"));
        let cases = [
            (
                "certificate not valid for name \"10.0.0.1\"; certificate is only valid for DnsName(\"kubernetes\")",
                "tls-server-name",
            ),
            ("Expired", "renew"),
            ("certificate expired: verification time 1 (UNIX)", "renew"),
            ("NotValidYet", "clock"),
            ("Other(OtherError(CaUsedAsEndEntity))", "of a CA"),
            ("UnknownIssuer", "certificate-authority"),
        ];
        for (reason, words) in cases {
            assert!(step(reason).contains(words), "{reason}: {}", step(reason));
        }
    }
}
