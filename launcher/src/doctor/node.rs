//! `probe`: runs one real probe for `gpu-syringe doctor --node`, and measures the time of each phase (`NodeProbe`).

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use syringe_core::probe_command::ProbeCommand;
use syringe_core::section_name::SectionName;
use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::fix::Fixes;
use crate::probe::{ProbeRequest, Prober};
use crate::settings::{ProbeMethod, Settings};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::reads::nodes;

/// The result of the probe.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeProbe {
    pub(crate) node: String,
    pub(crate) via: &'static str,
    /// Whether the object of the pod is certainly deleted.
    pub(crate) deleted: bool,
    /// Milliseconds of each phase: create, start, exec, remove, total.
    pub(crate) timings_ms: [(&'static str, u128); 5],
}

/// Reads the node object, and probes the node.
pub(super) async fn probe(
    name: &str,
    connection: &Connection,
    settings: &Settings,
    prober: &Prober,
) -> (Vec<Check>, Option<NodeProbe>) {
    if let Err(failure) = check_node(name, connection, settings).await {
        return (vec![failed("node", &failure), Check::skipped("probe", "see the check `node`")], None);
    }
    let mut checks = vec![Check::ok("node", format!("{name} is Ready"))];
    if settings.via == ProbeMethod::None {
        checks.push(Check::skipped("probe", "--via none creates no probe"));
        return (checks, None);
    }
    let request = ProbeRequest {
        node: name.to_owned(),
        command: ProbeCommand::Read(SectionName::Inventory.into()),
        tool: "doctor",
        target: None,
        deadline: settings.call_time(),
        upload_time: Duration::from_secs(15),
    };
    match prober.probe(connection, request, Arc::new(|_| ()), CancellationToken::new()).await {
        Err(failure) => {
            checks.push(failed("probe", &failure));
            (checks, None)
        }
        Ok(result) => {
            let timings = result.timings;
            let phases = [
                ("create", timings.create),
                ("start", timings.start),
                ("exec", timings.exec),
                ("remove", timings.remove),
                ("total", timings.total),
            ];
            let probe = NodeProbe {
                node: name.to_owned(),
                via: result.via.as_str(),
                deleted: result.deleted,
                timings_ms: phases.map(|(phase, time)| (phase, time.as_millis())),
            };
            checks.push(match &result.left_behind {
                None => Check::ok("probe", probe.text()),
                Some(left) => Check::warning("probe", left, Fixes::run("gpu-syringe sweep", "deletes leftover pods")),
            });
            (checks, Some(probe))
        }
    }
}

impl NodeProbe {
    fn text(&self) -> String {
        let phases: Vec<_> = self.timings_ms.iter().map(|(phase, time)| format!("{phase} {time} ms")).collect();
        format!("read {} via {}: {}", self.node, self.via, phases.join(", "))
    }
}

async fn check_node(name: &str, connection: &Connection, settings: &Settings) -> Result<(), Failure> {
    let node = nodes::read(connection, name).await?;
    settings.check_node_allowed(&node)?;
    nodes::must_be_ready(&node)
}

fn failed(id: &str, failure: &Failure) -> Check {
    let Failure { what, why, next_step, .. } = failure;
    let command = Fixes::command_in(next_step).unwrap_or_else(|| "gpu-syringe nodes".to_owned());
    let fix = Fixes::run(command, next_step.clone());
    Check::failure(id, format!("{what}: {why}"), fix)
}
