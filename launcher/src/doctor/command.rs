//! `DoctorArgs`, `run`: the command `gpu-syringe doctor`, which runs all checks within a time limit.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::check::Check;
use super::fix::Fixes;
use super::node::{self, NodeProbe};
use super::observe::{self, observe};
use super::report::Report;
use super::{access_checks, namespace_checks, node_checks};
use crate::policy::admitted_image;
use crate::probe::Prober;
use crate::settings::Settings;
use kube_read::{Connection, Contexts};

/// Time limit for all checks without a node, including a credential plugin.
const TIME: Duration = Duration::from_secs(15);

#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Also probe this node once, and show how long each phase takes
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// Runs all checks. A check that is not possible is a result, and not an error.
pub(crate) async fn run(args: &DoctorArgs, settings: &Settings, contexts: &Contexts, prober: &Prober) -> Report {
    let end = Instant::now() + TIME;
    let connection = match timeout_at(end, contexts.connect(None)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(failure)) => return Report::of(None, vec![access_checks::no_connection(&failure)], None),
        Err(_) => {
            let why = format!("the connection was not ready within {TIME:?} (a credential plugin may be waiting)");
            let fix = Fixes::run(
                "kubectl get nodes",
                "this command uses the context of gpu-syringe; sign in if \
                kubectl requires it",
            );
            return Report::of(None, vec![Check::failure("credentials", why, fix)], None);
        }
    };
    let mut checks = vec![access_checks::connected(&connection)];
    let version = match observe::version(&connection, end).await {
        Ok(version) => version,
        Err(error) => {
            checks.push(access_checks::no_server(&connection, error.as_ref()));
            return Report::of(Some(&connection), checks, None);
        }
    };
    checks.push(Check::ok("server", format!("{} answers", connection.server)));
    let of_policy = image_of_policy(&connection, settings).await;
    let settings = of_policy.as_ref().unwrap_or(settings);
    let mut observed = observe(&connection, settings, end).await;
    observed.is_image_of_policy = of_policy.is_some();
    let fixes = Fixes::new(settings, observed.user.as_deref());
    checks.push(access_checks::version(&version, &fixes));
    checks.push(access_checks::clock(&observed, settings));
    checks.extend(access_checks::permissions(&observed, settings, &fixes));
    checks.extend(namespace_checks::checks(&observed, settings, &fixes));
    checks.push(access_checks::exec(&observed, settings));
    checks.extend(node_checks::checks(&observed, settings, &fixes));
    let probe = probe(args, &connection, settings, prober, &mut checks).await;
    Report::of(Some(&connection), checks, probe)
}

/// Returns the settings with the image that the policy admits, if the settings specify no image.
async fn image_of_policy(connection: &Connection, settings: &Settings) -> Option<Settings> {
    if settings.names_image() {
        return None;
    }
    let admitted = admitted_image::read(connection, &settings.probe_namespace).await.ok()??;
    Some(settings.with_admitted(admitted.image, admitted.pull_secrets))
}

async fn probe(
    args: &DoctorArgs,
    connection: &Connection,
    settings: &Settings,
    prober: &Prober,
    checks: &mut Vec<Check>,
) -> Option<NodeProbe> {
    let (more, probe) = node::probe(args.node.as_deref()?, connection, settings, prober).await;
    checks.extend(more);
    probe
}
