//! The ways to a node, and which one a call takes.

mod ephemeral;
mod inject;
mod logs;
pub(crate) mod none;
mod pod;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::context::ProbeContext;
use super::{Owner, ProbePod, ProbeResult};
use crate::error::{Failure, Obstacle};
use crate::settings::{Settings, ProbeMethod};

/// For how long an API server is taken to pass no websockets on: a proxy may be mended, and the log is slower.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What a launcher has learnt or made on the way, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct ProberCache {
    /// API servers to which no websocket got through, and when that was seen.
    no_websockets: Mutex<HashMap<String, Instant>>,
    /// Probes that were packed for carrying.
    archives: inject::Archives,
}

impl ProberCache {
    fn passes_no_websockets(&self, server: &str, now: Instant) -> bool {
        let seen = self.no_websockets.lock().unwrap_or_else(PoisonError::into_inner).get(server).copied();
        seen.is_some_and(|seen| now.saturating_duration_since(seen) < REMEMBERED)
    }

    fn no_websocket_got_through(&self, server: &str, now: Instant) {
        self.no_websockets.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), now);
    }
}

/// Takes the way that the settings name. Where no websocket gets through, the log takes the place of exec.
pub(super) async fn go(context: ProbeContext, known: Arc<ProberCache>) -> Result<ProbeResult, Failure> {
    if let Err(refusal) = acts_on_the_host(&context) {
        return context.refused(refusal);
    }
    match context.settings.via {
        ProbeMethod::Pod => by_pod(&context, &known).await,
        ProbeMethod::Ephemeral => context.run(ephemeral::Ephemeral::new()).await,
        ProbeMethod::Inject => context.run(inject::Inject::new(known)).await,
        ProbeMethod::Logs => context.run(logs::Logs::new(&context)).await,
        ProbeMethod::None => context.refused(none::refusal(&context.request.node)),
    }
}

/// Refuses an action where the probe does not see the host: a process number of the host is somebody else's in a pod.
fn acts_on_the_host(context: &ProbeContext) -> Result<(), Failure> {
    let acts = context.request.command.iter().any(|word| word == "--operator");
    let blind = context.settings.via == ProbeMethod::Ephemeral || context.settings.runtime_class.is_some();
    if !acts || !blind {
        return Ok(());
    }
    Err(Failure::new(
        format!("Running {} on node {}", context.request.tool, context.request.node),
        "the way that this launcher takes does not see the host's own processes and devices; nothing was done",
        "Start it with --via pod, inject or logs, and without --runtime-class.",
    ))
}

async fn by_pod(context: &ProbeContext, known: &ProberCache) -> Result<ProbeResult, Failure> {
    let server = &context.connection.server;
    let refused = if known.passes_no_websockets(server, Instant::now()) {
        Failure::new("Opening a websocket", "refused before", "")
    } else {
        match context.run(pod::HeldPod::new(context)).await {
            Err(failure) if failure.obstacle == Some(Obstacle::Websockets) && context.may_retry_with_another_pod() => failure,
            done => return done,
        }
    };
    tracing::info!(why = %refused.why, "no websocket gets through: reading from the pod's log");
    let left = refused.left_behind;
    let done = context.run(logs::Logs::new(context)).await;
    let join = |other: Option<String>| match (left, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    };
    match done {
        Ok(mut probed) => {
            known.no_websocket_got_through(server, Instant::now());
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

/// The pod that the settings' way would create for `pod-spec`; the words of the probe in it are those of the widest reading.
pub(crate) fn printed(settings: &Settings, node: &str) -> Result<ProbePod, Failure> {
    let pod = ProbePod::new(settings, &Owner::claim(), node, "pod-spec");
    match settings.via {
        ProbeMethod::Pod => Ok(pod),
        ProbeMethod::Logs => Ok(pod.running(node_probe(&["all".to_owned()]))),
        ProbeMethod::Inject => {
            Ok(inject::carrying(pod, settings.base_image.as_deref().unwrap_or("AN-IMAGE-OF-THE-NODE"), settings))
        }
        ProbeMethod::Ephemeral | ProbeMethod::None => Err(Failure::new(
            "Printing the pod",
            format!("--via {} makes none", settings.via.word()),
            "deploy/METHODS.md says what each way puts on the cluster.",
        )),
    }
}

/// The words that run the probe where its image has it in the path.
fn node_probe(command: &[String]) -> Vec<String> {
    std::iter::once("node-probe".to_owned()).chain(command.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_websockets_is_tried_again_after_some_minutes() {
        let (known, now) = (ProberCache::default(), Instant::now());
        known.no_websocket_got_through("s", now);
        assert!(known.passes_no_websockets("s", now) && !known.passes_no_websockets("t", now));
        assert!(!known.passes_no_websockets("s", now + REMEMBERED));
    }
}
