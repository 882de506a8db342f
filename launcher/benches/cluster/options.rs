//! `Options`, `Part`: the command-line arguments of the benchmark, and the parts of the benchmark that they select.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Commands that only read the API, compared with requests to the same paths without decoding.
    Lists,
    /// Calls with a probe, compared with a minimal pod and `kubectl debug node`, and on a distant cluster.
    Calls,
    /// Surveys of many nodes, only in the embedded cluster.
    Survey,
}

/// Measures gpu-syringe against a cluster.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Kubeconfig of the cluster (default: the embedded cluster)
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Image of the probe
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Namespace for probe pods
    #[arg(long, default_value = "gpu-syringe")]
    pub(crate) namespace: String,
    /// Node for calls (default: the first Ready node)
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Parts to measure
    #[arg(long, value_delimiter = ',', default_value = "lists,calls,survey")]
    pub(crate) only: Vec<Part>,
    /// Number of rounds for lists
    #[arg(long, default_value_t = 5)]
    pub(crate) list_rounds: u32,
    /// Number of rounds for calls
    #[arg(long, default_value_t = 15)]
    pub(crate) call_rounds: u32,
    /// Number of nodes in the embedded cluster
    #[arg(long, default_value_t = 5_000)]
    pub(crate) nodes: usize,
    /// Number of pods in the embedded cluster
    #[arg(long, default_value_t = 50_000)]
    pub(crate) pods: usize,
    /// Program to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_gpu-syringe"))]
    pub(crate) program: PathBuf,
    /// Only read these paths (a JSON list of steps, each a list of paths), and print the number of bytes
    #[arg(long, hide = true)]
    pub(crate) read: Option<String>,
    /// Argument that cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn parse_args() -> Self {
        Self::parse()
    }

    pub(crate) fn measures(&self, part: Part) -> bool {
        self.only.contains(&part)
    }
}
