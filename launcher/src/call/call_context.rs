//! `CallContext`: the settings, clusters, prober, deadline and cancellation of one call.
//! `EarlierState`: an open archive for comparisons.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::call::failure_backoff::FailureBackoff;
use crate::consent::Consent;
use crate::probe::{OnPhase, Prober};
use crate::settings::Settings;
use kube_read::Contexts;
use kube_read::Failure;

/// The settings and objects that one call uses.
#[derive(Clone)]
pub struct CallContext {
    /// Settings of this launcher.
    pub settings: Arc<Settings>,
    /// The clusters.
    pub contexts: Arc<Contexts>,
    /// Creates the probes.
    pub prober: Prober,
    /// Callback for each phase.
    pub on_phase: OnPhase,
    /// This token is cancelled when the caller cancels the call.
    pub cancel: CancellationToken,
    /// The consent for a tool that changes a node.
    pub consent: Consent,
    /// Nodes that failed recently. The list is kept from call to call.
    pub failure_backoff: Arc<FailureBackoff>,
    /// The archive with which a node is compared.
    pub earlier: Option<Arc<EarlierState>>,
    /// Expected API server of an action (`--server`).
    pub server: Option<String>,
    /// Whether the answer is limited to the size that hosts show to a model. A command prints everything.
    pub limits_size: bool,
    /// Deadline for reading, set when the tool starts. Probe pods are deleted even after this deadline.
    pub end: Instant,
}

/// An archive that is opened in addition to the cluster of the settings.
pub struct EarlierState {
    pub(crate) settings: Arc<Settings>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) prober: Prober,
    pub(crate) nodes: Vec<String>,
    /// The nodes of the archive that were not read, with the reason.
    pub(crate) unread: BTreeMap<String, String>,
    pub(crate) file: PathBuf,
}

impl CallContext {
    /// Creates a call of a model, without progress reports and without cancellation.
    pub fn new(settings: Arc<Settings>, contexts: Arc<Contexts>, prober: Prober, consent: Consent) -> Self {
        Self {
            end: Instant::now() + settings.call_time(),
            settings,
            contexts,
            prober,
            on_phase: Arc::new(|_| ()),
            cancel: CancellationToken::new(),
            consent,
            failure_backoff: Arc::default(),
            earlier: None,
            server: None,
            limits_size: true,
        }
    }

    /// Returns the time that is left for reading.
    pub(crate) fn time_left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Returns the result of `request`, or a failure at the deadline.
    pub(crate) async fn with_deadline<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout_at(self.end, request).await.unwrap_or_else(|_| {
            let why = format!("the request took longer than the {} s that a call may take", self.settings.call_timeout);
            Err(Failure::new(what, why, "Check that the API server answers (gpu-syringe doctor), or raise --call-timeout. With many nodes, name some of them or use a selector."))
        })
    }
}
