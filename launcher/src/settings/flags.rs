//! `Settings`: the settings of the launcher as flags, and the values that follow from them (image, time limits, number
//! of probes). `ProbeMethod`, `Mode`, `PullPolicy`, `DrainCheck`: types of their values. `DEFAULT_IMAGE`: the image of
//! the probe.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use k8s_openapi::api::core::v1::Node;
use kube_read::Contexts;

use super::archive_note::ArchiveNote;
use super::node_selector::{self, NodeSelector};
use super::value_parsers::{self, EphemeralPod, KeyValue, TolerationArg};
use kube_read::Failure;

/// Image that contains `node-probe`, if no other image is set.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/gpu-syringe/node-probe:", env!("CARGO_PKG_VERSION"));

/// Digest of the image that was released with this program. The release workflow sets it.
const RELEASED_DIGEST: Option<&str> = option_env!("GPU_SYRINGE_RELEASED_IMAGE_DIGEST");

/// Default of the maximum number of probes in flight: twice the number of nodes that one call reads at the same time.
const DEFAULT_MAX_PROBES: u16 = 16;

/// Settings of the launcher.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Use the built-in archive of a demo cluster instead of a cluster
    #[cfg(feature = "demo")]
    #[arg(long, global = true, conflicts_with = "from")]
    pub demo: bool,
    /// Answer from an archive of `gpu-syringe save`, or from a report of node-probe, instead of a cluster
    #[cfg(feature = "demo")]
    #[arg(long, global = true, value_name = "ARCHIVE", value_parser = value_parsers::path)]
    pub from: Option<PathBuf>,
    /// File with settings, in TOML: `probe_namespace = "gpu-tools"`; by default gpu-syringe/config.toml in the user's config directory
    #[arg(long, global = true, value_name = "FILE", env = "GPU_SYRINGE_CONFIG", value_parser = value_parsers::path)]
    pub config: Option<PathBuf>,
    /// Kubeconfig file; by default $KUBECONFIG, ~/.kube/config, then the service account of the pod
    #[arg(long, global = true, value_name = "FILE", env = "GPU_SYRINGE_KUBECONFIG", value_parser = value_parsers::path)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; by default the current context, which is never changed
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_CONTEXT")]
    pub context: Option<String>,
    /// User that every request impersonates, as in kubectl
    #[arg(id = "as", long = "as", global = true, value_name = "USER", env = "GPU_SYRINGE_AS")]
    pub impersonate: Option<String>,
    /// Group that every request impersonates, with --as (repeatable)
    #[arg(
        id = "as_group",
        long = "as-group",
        global = true,
        value_name = "GROUP",
        env = "GPU_SYRINGE_AS_GROUP",
        value_delimiter = ',',
        requires = "as"
    )]
    pub impersonate_group: Vec<String>,
    /// Additional context that a tool argument may specify, or * for all (repeatable)
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_ALLOW_CONTEXT", value_delimiter = ',')]
    pub allow_context: Vec<String>,
    /// Label selector of the nodes that may be probed, or * for all; by default all except control plane nodes
    #[arg(long, global = true, value_name = "SELECTOR", env = "GPU_SYRINGE_ALLOW_NODES")]
    pub allow_nodes: Option<NodeSelector>,
    /// How to reach the node; auto takes the first method that works there (deploy/METHODS.md)
    #[arg(long, global = true, value_name = "METHOD", env = "GPU_SYRINGE_VIA", default_value = "auto")]
    pub via: ProbeMethod,
    /// In an answer about a job, also ask NCCL (2.29.2 or later) in one or two of its pods. This runs code of NCCL in the processes of the job
    #[arg(long, global = true, env = "GPU_SYRINGE_ASK_NCCL", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub ask_nccl: bool,
    /// Never add an ephemeral container to a running pod
    #[arg(long, global = true, env = "GPU_SYRINGE_NO_EPHEMERAL", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_ephemeral: bool,
    /// Pod for --via ephemeral, in which the entry of the probe stays; any: a running pod with a GPU on the node, outside kube-system
    #[arg(long, global = true, value_name = "NAMESPACE/NAME", env = "GPU_SYRINGE_EPHEMERAL_POD")]
    pub ephemeral_pod: Option<EphemeralPod>,
    /// Image with a shell for --via inject, present on the node; by default an image of the node from a trusted repository
    #[arg(long, global = true, value_name = "REF", env = "GPU_SYRINGE_BASE_IMAGE")]
    pub base_image: Option<String>,
    /// node-probe for the node's architecture, for --via inject; by default the file next to this program
    #[arg(long, global = true, value_name = "FILE", env = "GPU_SYRINGE_PROBE_BINARY", value_parser = value_parsers::path)]
    pub probe_binary: Option<PathBuf>,
    /// RuntimeClass of the probe pod (nvidia). The pod is then not privileged: NVML only, no kernel log
    #[arg(long, global = true, value_name = "NAME", env = "GPU_SYRINGE_RUNTIME_CLASS")]
    pub runtime_class: Option<String>,
    /// Namespace in which probe pods are created; it must admit privileged pods
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "GPU_SYRINGE_PROBE_NAMESPACE",
        default_value = "gpu-syringe"
    )]
    pub probe_namespace: String,
    /// Image of the probe, pinned by digest; by default the image in the admission policy. With --via auto no other
    /// image is pulled
    #[arg(long, global = true, value_name = "REF", env = "GPU_SYRINGE_IMAGE")]
    pub image: Option<String>,
    /// Digest of the image; replaces its tag (sha256:…)
    #[arg(long, global = true, value_name = "DIGEST", env = "GPU_SYRINGE_IMAGE_DIGEST", value_parser = value_parsers::digest)]
    pub image_digest: Option<String>,
    /// Registry that replaces the registry of the image, with an optional path
    #[arg(long, global = true, value_name = "HOST", env = "GPU_SYRINGE_REGISTRY_MIRROR")]
    pub registry_mirror: Option<String>,
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
    /// Additional label for probe pods (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", env = "GPU_SYRINGE_LABEL", value_delimiter = ',')]
    pub label: Vec<KeyValue>,
    /// Additional annotation for probe pods (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", env = "GPU_SYRINGE_ANNOTATION", value_delimiter = ',')]
    pub annotation: Vec<KeyValue>,
    /// Toleration of probe pods; by default they tolerate every taint (repeatable)
    #[arg(
        long,
        global = true,
        value_name = "KEY[=VALUE][:EFFECT]",
        env = "GPU_SYRINGE_TOLERATION",
        value_delimiter = ','
    )]
    pub toleration: Vec<TolerationArg>,
    /// Time limit in seconds for the start of a probe pod, including the image pull
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_START_TIMEOUT", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub start_timeout: u64,
    /// Time limit in seconds for a call; many MCP hosts stop waiting after 60
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_CALL_TIMEOUT", default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub call_timeout: u64,
    /// Number of nodes that are read at the same time
    #[arg(long, global = true, value_name = "NODES", env = "GPU_SYRINGE_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Maximum number of probes in flight, in all calls together; by default 16, or --concurrency if that is more
    #[arg(long, global = true, value_name = "PROBES", env = "GPU_SYRINGE_MAX_PROBES", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_probes: Option<u16>,
    /// Time limit in seconds for each node in a call about many nodes
    #[arg(long, global = true, value_name = "SECONDS", env = "GPU_SYRINGE_NODE_TIMEOUT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub node_timeout: u64,
    /// read-only, or operator to allow kill and reset
    #[arg(long, global = true, value_name = "MODE", env = "GPU_SYRINGE_MODE", default_value = "read-only")]
    pub mode: Mode,
    /// Operator mode: reject a reset while the node is schedulable or pods hold the GPU
    #[arg(long, global = true, value_name = "WHETHER", env = "GPU_SYRINGE_DRAIN_CHECK", default_value = "on")]
    pub drain_check: DrainCheck,
    /// Operator mode: if the host cannot ask its user, give the consent token to the model, which can redeem it at once
    #[arg(long, global = true, env = "GPU_SYRINGE_TOKEN_TO_MODEL", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub token_to_model: bool,
    /// The origin of answers from an archive.
    #[arg(skip)]
    pub(crate) archive: Option<Arc<ArchiveNote>>,
    /// Digest of the image released with this program. Only an image with this digest counts as the image of the probe.
    #[arg(skip = RELEASED_DIGEST.map(str::to_owned))]
    pub released_digest: Option<String>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainCheck {
    /// Check
    On,
    /// Do not check
    Off,
}

/// Method to reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeMethod {
    /// The probe image if it is set or on the node, otherwise inject with an image that runs privileged there, otherwise none
    Auto,
    /// A privileged pod of the probe's image
    Pod,
    /// An ephemeral container in a running GPU pod: for full nodes
    Ephemeral,
    /// A pod of an image that is on the node, with node-probe uploaded: needs no registry
    Inject,
    /// A pod that prints its answer to its log: needs no websocket and no exec
    Logs,
    /// No probe: only the Kubernetes API is read
    None,
}

impl ProbeMethod {
    /// Returns the name in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pod => "pod",
            Self::Ephemeral => "ephemeral",
            Self::Inject => "inject",
            Self::Logs => "logs",
            Self::None => "none",
        }
    }
}

/// Permitted actions of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Read. Only the probe's own pod is created and deleted.
    ReadOnly,
    /// Also kill a GPU process or reset a GPU.
    Operator,
}

/// When the kubelet pulls the probe's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Only when the node does not have the image.
    #[value(alias = "IfNotPresent")]
    IfNotPresent,
    /// At every start.
    #[value(alias = "Always")]
    Always,
    /// Never: the image must be on the node.
    #[value(alias = "Never")]
    Never,
}

impl PullPolicy {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

impl Settings {
    /// Parses settings from command line arguments, without the settings file. For programs that embed the library.
    ///
    /// # Errors
    /// If an argument is not valid.
    pub fn from_args<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Self, clap::Error> {
        use clap::FromArgMatches;
        let command = Self::augment_args(clap::Command::new("gpu-syringe").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// Returns the contexts of the kubeconfig that the settings select.
    pub fn contexts(&self) -> Contexts {
        Contexts::new(self.kubeconfig.as_deref(), self.context.clone(), self.allow_context.clone())
            .impersonating(self.impersonate.clone(), self.impersonate_group.clone())
    }

    /// Returns whether the settings name an archive: the archive of `--from`, or the demo archive.
    pub(crate) fn names_archive(&self) -> bool {
        #[cfg(feature = "demo")]
        return self.demo || self.from.is_some();
        #[cfg(not(feature = "demo"))]
        false
    }

    /// Returns whether the cluster is the demo. `--from` has priority over `--demo`.
    #[cfg(feature = "demo")]
    pub(crate) fn is_demo(&self) -> bool {
        self.demo && self.from.is_none()
    }

    /// Returns the mode of the tools for an AI host. With an archive, only read-only tools are offered.
    pub(crate) fn offered_mode(&self) -> Mode {
        if self.refuses_actions() { Mode::ReadOnly } else { self.mode }
    }

    /// Returns whether actions are rejected, because they would have no effect: the cluster is an archive, but not the
    /// demo.
    pub(crate) fn refuses_actions(&self) -> bool {
        #[cfg(feature = "demo")]
        return self.from.is_some();
        #[cfg(not(feature = "demo"))]
        false
    }

    /// Returns whether a probe may print the raw kernel log. With `--via logs`, everyone who may read the logs of the
    /// namespace could read the kernel log.
    pub(crate) fn may_read_raw_log(&self) -> bool {
        self.via != ProbeMethod::Logs
    }

    /// Returns the image of the probe, with mirror and digest applied.
    pub fn probe_image(&self) -> String {
        let of_release = self.released_digest.as_ref().filter(|_| self.image.is_none());
        let digest = self.image_digest.as_ref().or(of_release);
        let image = self.image.as_deref().unwrap_or(DEFAULT_IMAGE);
        value_parsers::image(image, self.registry_mirror.as_deref(), digest.map(String::as_str))
    }

    /// Returns the settings with the image that a policy admits. If the settings have no pull secrets, those of the
    /// policy are used.
    pub(crate) fn with_admitted(&self, image: String, pull_secrets: Vec<String>) -> Self {
        let own = &self.image_pull_secret;
        let image_pull_secret = if own.is_empty() { pull_secrets } else { own.clone() };
        Self { image: Some(image), image_digest: None, registry_mirror: None, image_pull_secret, ..self.clone() }
    }

    /// Returns the settings of a launcher that was released with the image of this digest.
    #[doc(hidden)]
    #[must_use]
    pub fn with_released_digest(self, digest: &str) -> Self {
        Self { released_digest: Some(digest.to_owned()), ..self }
    }

    /// Returns whether the settings contain the image of the probe.
    pub fn names_image(&self) -> bool {
        self.image.is_some() || self.image_digest.is_some() || self.registry_mirror.is_some()
    }

    /// Rejects a node on which no probe may be created.
    pub(crate) fn check_node_allowed(&self, node: &Node) -> Result<(), Failure> {
        node_selector::check(self.allow_nodes.as_ref(), node)
    }

    /// Returns the time limit for the start of a pod.
    pub fn start_time(&self) -> Duration {
        Duration::from_secs(self.start_timeout)
    }

    /// Returns the time limit for a whole call.
    pub fn call_time(&self) -> Duration {
        Duration::from_secs(self.call_timeout)
    }

    /// Returns the settings with this time limit for a call, so that the probe container runs long enough.
    pub fn with_call_time(&self, time: Duration) -> Self {
        Self { call_timeout: self.call_timeout.max(time.as_secs()), ..self.clone() }
    }

    /// Returns the maximum number of probes in flight.
    pub fn probes_in_flight(&self) -> u16 {
        self.max_probes.unwrap_or(DEFAULT_MAX_PROBES.max(self.concurrency))
    }

    /// Returns the number of nodes that one call reads at the same time.
    pub fn nodes_at_once(&self) -> u16 {
        self.concurrency.min(self.probes_in_flight())
    }

    /// Returns the time limit for one node in a call about many nodes.
    pub fn node_time(&self) -> Duration {
        Duration::from_secs(self.node_timeout)
    }

    /// Returns the maximum run time of a probe container: longer than any call, and short enough that the probe of a
    /// killed launcher stops soon.
    pub fn probe_lifetime(&self) -> Duration {
        Duration::from_secs(self.call_timeout.max(self.start_timeout) + 30)
    }
}
