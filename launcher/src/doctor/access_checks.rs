//! Functions that create doctor checks from `Observed`: `connected`, `no_connection`, `no_server` (connection),
//! `version`, `permissions`, `exec`, `clock`.

use jiff::SignedDuration;

use super::check::Check;
use super::fix::Fixes;
use super::observe::{ExecAnswer, Observed, Seen};
use crate::policy::cluster_name;
use crate::settings::{ProbeMethod, Settings};
use crate::setup::permissions::{GrantedBy, Permission};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::api_error::certificate_step;
use kube_read::client::api_status::{is_page_of_proxy, is_web_page};
use kube_read::failure::kube_reason;
use syringe_core::text::clean;

/// Maximum difference between the clocks. With a larger difference, ages and times of logs are wrong.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(30);
/// Minor version of the oldest Kubernetes release with the admission policy.
const POLICY_MINOR: u32 = 30;

/// Creates the check for a kubeconfig, context or credential that does not work.
pub(super) fn no_connection(failure: &Failure) -> Check {
    let Failure { what, why, next_step, .. } = failure;
    let evidence = format!("{what}: {why}");
    if what.starts_with("Signing in") {
        return Check::failure("credentials", evidence, Fixes::run("kubectl get nodes", next_step.clone()));
    }
    Check::failure("kubeconfig", evidence, Fixes::run("kubectl config get-contexts", next_step.clone()))
}

pub(super) fn connected(connection: &Connection) -> Check {
    let Connection { context, server, user, .. } = connection;
    let user = user.as_ref().map(|user| format!(", user {user}")).unwrap_or_default();
    Check::ok("kubeconfig", format!("context {context}, {server}{user}"))
}

/// Creates the check for an API server that did not return its version.
pub(super) fn no_server(connection: &Connection, error: Option<&kube::Error>) -> Check {
    let Connection { server, .. } = connection;
    let reach = || {
        let note = "check the address, and the VPN, the proxy and the firewall between this machine and the API server";
        Fixes::run(format!("curl -vk {}/version", connection.address()), note)
    };
    match error {
        Some(kube::Error::Api(status)) if status.code == 401 => Check::failure(
            "credentials",
            format!("{server} rejects the credentials of this context (HTTP 401)"),
            Fixes::run("kubectl get nodes", "sign in again; if kubectl works, compare the contexts"),
        ),
        Some(error @ kube::Error::Api(status)) if is_page_of_proxy(status) || is_web_page(status) => Check::failure(
            "server",
            format!("{server}: {}; this response is not from the API server", kube_reason(error)),
            reach(),
        ),
        Some(kube::Error::Api(status)) if status.code == 403 => Check::failure(
            "server",
            format!("{server}: {} (HTTP 403)", clean(&status.message, 200)),
            Fixes::run(
                "kubectl get --raw /version",
                "every user who is signed in may read the version. Sign in, or ask an administrator to restore this permission",
            ),
        ),
        Some(error @ kube::Error::SerdeError(json)) if json.is_syntax() => Check::failure(
            "server",
            format!("{server}: {}; this response is not from the API server", kube_reason(error)),
            reach(),
        ),
        Some(error) => {
            let reason = kube_reason(error);
            // For a rejected certificate, `curl -k` is not a valid test, because this command accepts every
            // certificate.
            let fix = if reason.contains("invalid peer certificate") {
                Fixes::run("kubectl config view --minify", certificate_step(&reason))
            } else {
                reach()
            };
            Check::failure("server", format!("{server}: {reason}"), fix)
        }
        None => Check::failure("server", format!("{server} did not answer in time"), reach()),
    }
}

pub(super) fn version(version: &str, fixes: &Fixes<'_>) -> Check {
    let minor = version.trim_start_matches('v').split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        Some(minor) if version.starts_with("v1.") && minor < POLICY_MINOR => Check::warning(
            "server-version",
            format!("Kubernetes {version}: the admission policy needs 1.30 or later"),
            fixes.setup("--profile trial", "without the policy, every pod of the namespace can get root on the nodes"),
        ),
        _ => Check::ok("server-version", format!("Kubernetes {version}")),
    }
}

pub(super) fn clock(observed: &Observed, settings: &Settings) -> Check {
    let Some(ahead) = observed.ahead else {
        return match &settings.archive {
            Some(_) => Check::skipped("clock", "the cluster is an archive, whose clock shows the time of the archive"),
            None => Check::undecided("clock", "the API server sent no Date header"),
        };
    };
    let seconds = ahead.as_secs();
    if ahead.abs() <= MAX_SKEW {
        return Check::ok(
            "clock",
            format!("the clock of this machine is within {} s of the API server's clock", seconds.abs() + 1),
        );
    }
    let direction = if seconds > 0 { "ahead of" } else { "behind" };
    let note = "run this command on the machine whose clock is wrong; until then, ages and times in answers are wrong";
    Check::warning(
        "clock",
        format!("the clock of this machine is {} s {direction} the clock of the API server", seconds.abs()),
        Fixes::run("sudo timedatectl set-ntp true", note),
    )
}

/// Returns the ID of the check of a permission.
pub(super) fn permission_id(permission: &Permission) -> String {
    let Permission { grant, resource, verb } = permission;
    let place = match grant.by {
        GrantedBy::Reader | GrantedBy::Operator => "probe",
        GrantedBy::ClusterRead => "cluster",
        GrantedBy::Ephemeral => "ephemeral",
    };
    format!("permission-{place}-{verb}-{}", resource.replace('/', "-"))
}

/// Creates one check for each permission.
pub(super) fn permissions(observed: &Observed, settings: &Settings, fixes: &Fixes<'_>) -> Vec<Check> {
    let you = observed.user.as_deref().unwrap_or("you");
    let check = |(permission, answer): &(Permission, Seen<bool>)| {
        let Permission { grant, resource, verb } = permission;
        let id = permission_id(permission);
        let place = match grant.by {
            GrantedBy::Reader | GrantedBy::Operator => format!("in namespace {}", settings.probe_namespace),
            GrantedBy::ClusterRead | GrantedBy::Ephemeral => "in the whole cluster".to_owned(),
        };
        let only = grant.name.map(|name| format!(" {}", cluster_name(name, &settings.probe_namespace)));
        let what = format!("{verb} {resource}{} {place}", only.unwrap_or_default());
        match answer {
            Seen::Found(true) => Check::ok(id, what),
            Seen::Found(false) => {
                let needs_no_pod = settings.via == ProbeMethod::None && grant.by == GrantedBy::Reader;
                Check::problem(
                    !grant.optional && !needs_no_pod,
                    id,
                    format!("{you} may not {what}; without this permission: {}", grant.without),
                    fixes.grant(grant.by == GrantedBy::Operator),
                )
            }
            Seen::Absent | Seen::Forbidden => Check::undecided(id, format!("{what}: the API server does not answer")),
            Seen::Unknown(why) => Check::undecided(id, format!("{what}: {why}")),
        }
    };
    observed.permissions.iter().map(check).collect()
}

/// Returns whether the user lacks a permission.
pub(super) fn is_denied(observed: &Observed, id: &str) -> bool {
    observed
        .permissions
        .iter()
        .any(|(permission, answer)| matches!(answer, Seen::Found(false)) && permission_id(permission) == id)
}

/// Checks whether an exec reaches the API server.
pub(super) fn exec(observed: &Observed, settings: &Settings) -> Check {
    let id = "exec-websocket";
    match &observed.exec {
        ExecAnswer::Server => Check::ok(id, "the API server responds to an exec"),
        ExecAnswer::Forbidden => {
            Check::skipped(id, "no permission to exec in this namespace: see the permission checks")
        }
        ExecAnswer::Unknown(why) => Check::undecided(id, why),
        ExecAnswer::NotServer(why) => Check::problem(
            match settings.via {
                ProbeMethod::Logs | ProbeMethod::None => false,
                // If an image is set, `--via auto` reads the log of the pod instead of an exec.
                ProbeMethod::Auto => !settings.names_image(),
                ProbeMethod::Pod | ProbeMethod::Inject | ProbeMethod::Ephemeral => true,
            },
            id,
            format!("something between this machine and the API server rejects websockets: {why}"),
            Fixes::run(
                "gpu-syringe --via logs diagnose NODE",
                "this command reads the answer from the log of the pod. Other fixes: allow websockets in the proxy, or connect to the API server directly",
            ),
        ),
    }
}
