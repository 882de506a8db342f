//! The arguments of the program.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Tools that only read the API, against the same requests without decoding.
    Lists,
    /// Calls with a probe, against the leanest pod, `kubectl debug node`, and on a distant cluster.
    Calls,
    /// Many nodes; in the embedded cluster only.
    Survey,
}

/// Measures gpu-syringe against a cluster.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Cluster; the embedded one by default
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Image of the probe
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Namespace for probe pods
    #[arg(long, default_value = "gpu-syringe")]
    pub(crate) namespace: String,
    /// Node for calls; the first one that is Ready by default
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
    /// Nodes of the embedded cluster
    #[arg(long, default_value_t = 5_000)]
    pub(crate) nodes: usize,
    /// Pods of the embedded cluster
    #[arg(long, default_value_t = 50_000)]
    pub(crate) pods: usize,
    /// The program that is measured
    #[arg(long, default_value = env!("CARGO_BIN_EXE_gpu-syringe"))]
    pub(crate) program: PathBuf,
    /// Reads these paths (steps of paths, in JSON), prints the bytes, and measures nothing
    #[arg(long, hide = true)]
    pub(crate) read: Option<String>,
    /// Given by cargo
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
