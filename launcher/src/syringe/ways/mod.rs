//! The ways to a node, and which one a call takes.

mod ephemeral;
mod inject;
mod logs;
pub(crate) mod none;
mod pod;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::Probed;
use super::life::Life;
use crate::error::{Failure, Obstacle};
use crate::settings::Via;

/// What a launcher has learnt or made on the way, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// API servers to which no websocket gets through.
    no_websockets: Mutex<BTreeSet<String>>,
    /// Probes that were packed for carrying.
    archives: inject::Archives,
}

/// Takes the way that the settings name. Where no websocket gets through, the log takes the place of exec.
pub(super) async fn go(life: Life, known: Arc<Known>) -> Result<Probed, Failure> {
    acts_on_the_host(&life)?;
    match life.settings.via {
        Via::Pod => by_pod(&life, &known).await,
        Via::Ephemeral => life.run(ephemeral::Ephemeral::new()).await,
        Via::Inject => life.run(inject::Inject::new(known)).await,
        Via::Logs => life.run(logs::Logs::new(&life)).await,
        Via::None => Err(none::refusal(&life.order.node)),
    }
}

/// Refuses an action where the probe does not see the host: a process number of the host is somebody else's in a pod.
fn acts_on_the_host(life: &Life) -> Result<(), Failure> {
    let acts = life.order.command.iter().any(|word| word == "--operator");
    let blind = life.settings.via == Via::Ephemeral || life.settings.runtime_class.is_some();
    if !acts || !blind {
        return Ok(());
    }
    Err(Failure::new(
        format!("Running {} on node {}", life.order.tool, life.order.node),
        "the way that this launcher takes does not see the host's own processes and devices; nothing was done",
        "Start it with --via pod, inject or logs, and without --runtime-class.",
    ))
}

async fn by_pod(life: &Life, known: &Known) -> Result<Probed, Failure> {
    let server = &life.connection.server;
    let is_known = known.no_websockets.lock().unwrap_or_else(PoisonError::into_inner).contains(server);
    let refused = if is_known {
        Failure::new("Opening a websocket", "refused before", "")
    } else {
        match life.run(pod::HeldPod::new(life)).await {
            Err(failure) if failure.obstacle == Some(Obstacle::Websockets) => failure,
            done => return done,
        }
    };
    tracing::info!(why = %refused.why, "no websocket gets through: reading from the pod's log");
    let left = refused.left_behind;
    let done = life.run(logs::Logs::new(life)).await;
    let join = |other: Option<String>| match (left, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    };
    match done {
        Ok(mut probed) => {
            known.no_websockets.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone());
            let note = format!("no websocket gets through to {server} ({}): read from the pod's log", refused.why);
            probed.note = Some(probed.note.map_or(note.clone(), |more| format!("{note}; {more}")));
            probed.left_behind = join(probed.left_behind);
            probed.removed &= probed.left_behind.is_none();
            Ok(probed)
        }
        Err(mut failure) => {
            failure.left_behind = join(failure.left_behind);
            Err(failure)
        }
    }
}

/// The words that run the probe where its image has it in the path.
fn node_probe(command: &[String]) -> Vec<String> {
    std::iter::once("node-probe".to_owned()).chain(command.iter().cloned()).collect()
}
