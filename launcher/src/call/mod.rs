//! The context of one call.

mod failure_backoff;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use failure_backoff::Setbacks;

use crate::answer::node::ProbeNote;
use crate::consent::Consent;
use crate::error::Failure;
use crate::kubernetes::Contexts;
use crate::probe::{OnPhase, Syringe};
use crate::settings::Settings;

/// What every call works with.
#[derive(Clone)]
pub struct Call {
    /// Settings of this launcher.
    pub settings: Arc<Settings>,
    /// The way to the clusters.
    pub contexts: Arc<Contexts>,
    /// Makes the probes.
    pub syringe: Syringe,
    /// Told of each phase.
    pub on_phase: OnPhase,
    /// Fires when the caller no longer wants the answer.
    pub cancel: CancellationToken,
    /// How a tool that changes something gets the user's word for it.
    pub consent: Consent,
    /// Nodes that failed of late, kept from call to call by whoever makes many.
    pub setbacks: Arc<Setbacks>,
    /// The API server that an action must be meant for, where somebody said so.
    pub server: Option<String>,
    /// When reading must have ended; what was put on the cluster is removed all the same. Set when the tool is entered.
    pub end: Instant,
}

impl Call {
    /// A call that nobody watches or takes back.
    pub fn new(settings: Arc<Settings>, contexts: Arc<Contexts>, syringe: Syringe, consent: Consent) -> Self {
        Self {
            end: Instant::now() + settings.call_time(),
            settings,
            contexts,
            syringe,
            on_phase: Arc::new(|_| ()),
            cancel: CancellationToken::new(),
            consent,
            setbacks: Arc::default(),
            server: None,
        }
    }

    /// Time that is left for reading.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// What became of a probe that brought no facts; `None` where none was made.
    pub(crate) fn note_of_failed(&self, node: &str, context: &str, failure: &Failure) -> Option<ProbeNote> {
        let Failure { why, removed, left_behind, .. } = failure;
        if !removed && left_behind.is_none() {
            return None;
        }
        let note = ProbeNote::of_nothing(node, context, format!("the probe brought no facts: {why}"));
        let via = self.settings.via.word();
        Some(ProbeNote { via, removed: left_behind.is_none(), left_behind: left_behind.clone(), ..note })
    }

    /// What `asking` of the API brings, within the call's time.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout_at(self.end, asking).await.unwrap_or_else(|_| {
            let why = format!("it took longer than the {} s that a call may take", self.settings.call_timeout);
            Err(Failure::new(what, why, "Ask for less (one node, a selector), or allow more time with --call-timeout."))
        })
    }
}
