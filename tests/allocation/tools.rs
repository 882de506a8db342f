//! `Bench`: a demo cluster and a launcher in the test process, for calls of tools.

use std::sync::Arc;

use clap::Parser;
use demo_cluster::{Cluster, Fixture};
use gpu_syringe::call::CallContext;
use gpu_syringe::consent::{Consent, NoPrompt};
use gpu_syringe::probe::{OnPhase, Prober};
use gpu_syringe::settings::{Mode, Settings};
use gpu_syringe::tools;
use kube_read::Contexts;
use kube_read::Failure;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A cluster and the state of a launcher.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    call: CallContext,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

impl Bench {
    pub(crate) async fn of(fixture: Fixture) -> Self {
        Self::with(fixture, &[]).await
    }

    /// Creates a bench with a launcher that was started with these flags.
    pub(crate) async fn with(fixture: Fixture, flags: &[&str]) -> Self {
        let cluster = Cluster::start(fixture).await.unwrap();
        let flags = Flags::parse_from(["gpu-syringe"].iter().chain(flags));
        let settings = Arc::new(flags.settings.with_released_digest(demo_cluster::probe_image_digest()));
        let contexts = Arc::new(Contexts::in_memory(cluster.kubeconfig(), None));
        let prober = Prober::new(settings.clone(), CancellationToken::new());
        let call = CallContext::new(settings, contexts, prober, Consent::new(Arc::new(NoPrompt), Arc::default()));
        Self { cluster, call }
    }

    pub(crate) async fn call(&self, tool: &str, args: Value) -> Result<Value, Failure> {
        self.call_told(tool, args, Arc::new(|_| ())).await
    }

    pub(crate) async fn call_told(&self, tool: &str, args: Value, on_phase: OnPhase) -> Result<Value, Failure> {
        let tools = tools::all(Mode::ReadOnly);
        let entry = tools.iter().find(|entry| entry.name == tool).unwrap();
        let answer = entry.call(CallContext { on_phase, ..self.call.clone() }, args).await?;
        assert!(
            !answer.page.print(&gpu_syringe::terminal::layout::Layout::default()).is_empty(),
            "the table must not be empty"
        );
        Ok(answer.json)
    }

    /// Returns the answer to a call that must succeed.
    pub(crate) async fn ask(&self, tool: &str, args: Value) -> Value {
        self.call(tool, args).await.unwrap_or_else(|failure| panic!("{tool}: {failure}"))
    }

    /// Waits for deletions in the background, and returns the number of pods that are left.
    pub(crate) async fn left_over(&self) -> usize {
        for _ in 0..200 {
            if self.cluster.pods("gpu-syringe").is_empty() {
                return 0;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.cluster.pods("gpu-syringe").len()
    }
}
