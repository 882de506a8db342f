//! What the person who starts gpu-syringe decides: flags, then environment, then defaults. Never a tool's argument.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Image that holds `node-probe` and nothing else that matters.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/gpu-syringe/node-probe:", env!("CARGO_PKG_VERSION"));

/// Settings of the launcher.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Use a built-in cluster of example nodes in place of a real one
    #[arg(long, global = true)]
    pub demo: bool,
    /// Kubeconfig file; by default $KUBECONFIG, ~/.kube/config, then the service account of the pod
    #[arg(long, global = true, value_name = "FILE", env = "GPU_SYRINGE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; by default its current one, which is never changed
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_CONTEXT")]
    pub context: Option<String>,
    /// Namespace in which probe pods are created; it must admit privileged pods
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_NAMESPACE", default_value = "gpu-syringe")]
    pub namespace: String,
    /// Image of the probe, best pinned by digest
    #[arg(long, global = true, value_name = "REF", env = "GPU_SYRINGE_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,
    /// When the kubelet pulls the image
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "GPU_SYRINGE_IMAGE_PULL_POLICY",
        default_value = "if-not-present"
    )]
    pub image_pull_policy: PullPolicy,
    /// Secret in the probe's namespace with the registry's credentials (repeatable)
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_IMAGE_PULL_SECRET", value_delimiter = ',')]
    pub image_pull_secret: Vec<String>,
    /// Seconds that a probe pod may take to start (image pull included)
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_START_TIMEOUT", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub start_timeout: u64,
    /// Seconds that a whole call may take; MCP hosts cut at 60
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_CALL_TIMEOUT", default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub call_timeout: u64,
    /// Nodes that are read at the same time by a call about many
    #[arg(long, global = true, value_name = "NODES", env = "GPU_SYRINGE_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Seconds that one node may take in a call about many
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_NODE_TIMEOUT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub node_timeout: u64,
    /// read-only, or operator to allow the tools that change something
    #[arg(long, global = true, value_name = "MODE", env = "GPU_SYRINGE_MODE", default_value = "read-only")]
    pub mode: Mode,
    /// Operator mode: whether a node that takes new pods, and pods that have the GPU, are in the way of its reset
    #[arg(long, global = true, value_name = "WHETHER", env = "GPU_SYRINGE_DRAIN_CHECK", default_value = "on")]
    pub drain_check: Check,
}

/// Whether something is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// What the tools may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Look, and change nothing but the probe's own pod.
    ReadOnly,
    /// Also kill a GPU process or reset a GPU.
    Operator,
}

/// When the kubelet pulls the probe's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Only when the node does not have it.
    IfNotPresent,
    /// At every start.
    Always,
    /// Never: the image must be on the node.
    Never,
}

impl PullPolicy {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

impl Settings {
    /// Time for a pod to start.
    pub fn start_time(&self) -> Duration {
        Duration::from_secs(self.start_timeout)
    }

    /// Time for a whole call.
    pub fn call_time(&self) -> Duration {
        Duration::from_secs(self.call_timeout)
    }

    /// The same settings for a call that may take `time`: its container must live as long.
    pub fn lasting(&self, time: Duration) -> Self {
        Self { call_timeout: self.call_timeout.max(time.as_secs()), ..self.clone() }
    }

    /// Time for one node of many.
    pub fn node_time(&self) -> Duration {
        Duration::from_secs(self.node_timeout)
    }

    /// How long a probe's container lives when nobody ends it: longer than any call, so that it never cuts one short, and
    /// short enough that a probe whose launcher was killed is soon gone.
    pub fn probe_lifetime(&self) -> Duration {
        Duration::from_secs(self.call_timeout.max(self.start_timeout) + 30)
    }
}
