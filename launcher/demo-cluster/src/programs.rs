//! `Programs`: the trait that starts the programs of container images (`Invocation`, `Streams`). `NodeProbe`: the
//! programs of the probe's image.
//!
//! [`NodeProbe`] is the image of the probe with the real `node-probe`, which replays the facts of its node. With the
//! feature `test-support`, `ShellImages` has images with a shell and other programs.

use std::pin::Pin;

use bytes::Bytes;
use node_probe::RELEASE_FILE;
use syringe_core::probe_command::{NODE_PROBE, ProbeCommand};
use tokio::sync::mpsc;

use crate::container_files::{ContainerFile, ContainerFiles};
use crate::node_fixture::NodeFacts;

/// Maximum number of bytes of output in one piece, the same as when containerd reads from a pipe.
const PIECE: usize = 32 * 1024;

#[derive(Clone, Debug)]
pub struct Invocation {
    /// Program and arguments. This list is never empty.
    pub argv: Vec<String>,
    /// The image of the container.
    pub image: String,
    pub node: String,
    /// The facts that a probe reads on the node.
    pub facts: NodeFacts,
    /// The files of the container.
    pub files: ContainerFiles,
}

/// The streams of a process. Dropping an output closes it.
#[derive(Debug)]
pub struct Streams {
    /// Standard input; `recv` returns `None` at its end.
    pub stdin: mpsc::Receiver<Bytes>,
    pub stdout: mpsc::Sender<Bytes>,
    pub stderr: mpsc::Sender<Bytes>,
}

/// A running process. The future resolves to the exit code. Dropping the future kills the process if possible.
pub type Process = Pin<Box<dyn Future<Output = i32> + Send>>;

/// The programs of the container images.
pub trait Programs: Send + Sync + 'static {
    /// Starts a process; `None` if the image does not have the program.
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process>;

    /// Returns whether an image has `node-probe`. The kubelet simulates `node-probe hold` itself.
    fn has_node_probe(&self, image: &str) -> bool {
        image.contains("probe") || image.contains("syringe")
    }
}

/// Returns the last part of a path: `node-probe` for `/usr/bin/node-probe`.
pub(crate) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The programs of images with `node-probe`: images with `probe` or `syringe` in the name.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeProbe;

impl Programs for NodeProbe {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let [program, arguments @ ..] = &invocation.argv[..] else { return None };
        if !self.has_node_probe(&invocation.image) || base_name(program) != NODE_PROBE {
            return None;
        }
        let may_release = arguments.iter().any(|word| word == "release");
        if may_release && node_probe::parse(arguments) == Some(ProbeCommand::Release) {
            invocation.files.put(RELEASE_FILE, ContainerFile { bytes: Bytes::new(), executable: false });
        }
        let (arguments, facts) = (arguments.to_vec(), invocation.facts.clone());
        let run = tokio::task::spawn_blocking(move || facts.run_probe(&arguments));
        Some(Box::pin(async move {
            // A panic of the real program aborts the process, which gives this exit code.
            let Ok(outcome) = run.await else { return 134 };
            let Streams { stdin: _open, stdout, stderr } = streams;
            tokio::join!(write(stderr, outcome.stderr), write(stdout, outcome.stdout));
            outcome.exit_code
        }))
    }
}

/// Writes output in pieces. Stops if the receiver was dropped.
async fn write(to: mpsc::Sender<Bytes>, output: Vec<u8>) {
    let mut rest = Bytes::from(output);
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        if to.send(piece).await.is_err() {
            return;
        }
    }
}
