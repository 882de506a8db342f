//! What runs inside containers: the seam between the embedded kubelet and the programs that a container image holds.
//!
//! [`NodeProbe`] is the probe's image: the real `node-probe`, replaying the facts of the node that it runs on. The programs
//! of other images (`sh`, `tar`, …) are [`Userland`](super::Userland).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use syringe_core::report::Report;
use tokio::sync::mpsc;

use super::files::Files;

/// How much output travels in one piece: what containerd reads from a pipe at once.
const PIECE: usize = 32 * 1024;

/// A process that was asked for.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// The image of the container.
    pub image: String,
    /// The node that it runs on.
    pub node: String,
    /// What a probe finds on that node.
    pub facts: Arc<Report>,
    /// The container's files.
    pub files: Files,
}

/// The three streams of a process. An output that is dropped has ended.
#[derive(Debug)]
pub struct Streams {
    /// What the client sends; `None` from `recv` is its end.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Standard output.
    pub stdout: mpsc::Sender<Bytes>,
    /// Standard error.
    pub stderr: mpsc::Sender<Bytes>,
}

/// A running process; resolves to its exit code. Dropping it kills it, as far as it can be killed.
pub type Process = Pin<Box<dyn Future<Output = i32> + Send>>;

/// The programs that containers hold.
pub trait Programs: Send + Sync + 'static {
    /// Starts a process; `None` when the image holds no such program.
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process>;

    /// Whether an image holds node-probe, of which the kubelet plays `hold` itself.
    fn have_probe(&self, image: &str) -> bool {
        image.contains("probe") || image.contains("syringe")
    }
}

/// The last part of a path: `/usr/bin/node-probe` → `node-probe`.
pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Images that hold `node-probe`: those whose name says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeProbe;

impl Programs for NodeProbe {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let [program, arguments @ ..] = &invocation.argv[..] else { return None };
        if !self.have_probe(&invocation.image) || base_name(program) != "node-probe" {
            return None;
        }
        let (arguments, facts) = (arguments.to_vec(), Arc::clone(&invocation.facts));
        let run = tokio::task::spawn_blocking(move || node_probe::run(&arguments, Some(&facts)));
        Some(Box::pin(async move {
            // A panic of the probe is what it is in a container, too: an abort.
            let Ok(outcome) = run.await else { return 134 };
            let Streams { stdin: _open, stdout, stderr } = streams;
            tokio::join!(write(stderr, outcome.stderr), write(stdout, outcome.stdout));
            outcome.exit_code
        }))
    }
}

/// Writes in pieces; stops when nobody reads any more.
async fn write(to: mpsc::Sender<Bytes>, output: Vec<u8>) {
    let mut rest = Bytes::from(output);
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        if to.send(piece).await.is_err() {
            return;
        }
    }
}
