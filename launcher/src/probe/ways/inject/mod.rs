//! The probe is carried in: a pod of an image that the node has already, an upload, a check of its hash, a run.
//!
//! Needs no image of ours and no registry, so it serves air-gapped clusters and whoever built from source.

mod archive;
mod base_image;
mod binary;
mod upload;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use self::archive::Archive;
pub(super) use self::archive::Archives;
use super::Known;
use crate::error::Failure;
use crate::kubernetes::read::nodes as node;
use crate::probe::document::Document;
use crate::probe::eager::Place;
use crate::probe::exec::{Ended, Output};
use crate::probe::life::{Left, Life, Way};
use crate::probe::own_pod::OwnPod;
use crate::probe::{ProbePod, Timings};
use crate::settings::{Settings, Via};

/// Where the probe goes in the pod.
const DIRECTORY: &str = "/tmp";
/// Runs the probe with the base image's own loader.
const RUN: &str = r#"exec /tmp/node-probe "$@""#;
/// Names the processes that call themselves kubelet: its root is the host's where that of PID 1 is closed (a kubelet inside
/// a container).
const FIND_KUBELET: &str = "grep -slx kubelet /proc/[0-9]*/comm";
/// Of the files behind it, names those that speak of no pod. A process chooses its own name, and a pod's "kubelet" would be
/// root on the node; nobody chooses his cgroup. The second expression is a sibling's as a cgroup namespace shows it.
const OF_NO_POD: &str = "grep -sL -e kubepods -e /pod[0-9a-f][0-9a-f] -e cri-containerd- -e crio- ";
/// What a shell says of a program that it cannot find, or whose loader it cannot find.
const NOT_FOUND: i32 = 127;
/// What a shell says of a program that may not be run.
const NOT_EXECUTABLE: i32 = 126;
/// What `chroot` says when it fails itself: GNU's, and busybox's, which the probe itself says as well.
const CHROOT_FAILED: [i32; 2] = [125, 1];
/// What to do when the base image cannot hold the pod open.
const NO_SHELL: &str = "The base image has no shell: name one that has sh, sleep and head or tar with --base-image.";

/// A pod to carry the probe into.
pub(super) struct Inject {
    known: Arc<Known>,
    entered: Option<Entered>,
}

struct Entered {
    pod: OwnPod,
    archive: Arc<Archive>,
}

impl Inject {
    pub(super) fn new(known: Arc<Known>) -> Self {
        Self { known, entered: None }
    }
}

impl Way for Inject {
    fn via(&self) -> Via {
        Via::Inject
    }

    async fn enter(&mut self, life: &Life) -> Result<(), Failure> {
        let node = node::read(&life.connection, &life.order.node).await?;
        let image = base_image::choose(&life.settings, &node)?;
        let architecture = architecture(&node);
        // Before anything is created: the file, and whether the node's processors understand it.
        let binary = binary::find(&life.settings, &architecture)?;
        let archive = self.known.archives.of(&binary).await?;
        let pod = carrying(life.pod(), &image, &life.settings);
        let entered = self.entered.insert(Entered { pod: OwnPod::new(pod), archive });
        entered.pod.enter(life).await
    }

    async fn read(&self, life: &Life, timings: &mut Timings) -> Result<Document, Failure> {
        let Some(Entered { pod, archive }) = &self.entered else { return Err(life.out_of_time("no pod was made")) };
        let place = pod.place(NO_SHELL);
        upload::upload(life, &place, archive, timings).await?;
        let argv = words(RUN, &life.order.command);
        let output = life.exec(&place, &argv, &[], timings).await?;
        if !is_exit(&output, NOT_FOUND) {
            refused(life, &output)?;
            return life.read_or_retry(output, &place, &argv, timings).await;
        }
        let mut argv = words(&run_below("/proc/1/root"), &life.order.command);
        let mut output = life.exec(&place, &argv, &[], timings).await?;
        if is_closed_root(&output)
            && let Some(kubelet) = kubelet(life, &place, timings).await?
        {
            argv = words(&run_below(&format!("{kubelet}/root")), &life.order.command);
            output = life.exec(&place, &argv, &[], timings).await?;
        }
        refused(life, &output)?;
        let document = life.read_or_retry(output, &place, &argv, timings).await?;
        Ok(document.noting(Some(format!("{} has no loader for node-probe: the host's own ran it", place.image))))
    }

    async fn leave(&mut self, life: &Life) -> Left {
        match &mut self.entered {
            Some(entered) => entered.pod.leave(life).await,
            None => Left { pod: String::new(), removed: true, left_behind: None },
        }
    }
}

/// The pod that holds while the probe is carried in and runs.
pub(super) fn carrying(pod: ProbePod, image: &str, settings: &Settings) -> ProbePod {
    let hold = format!("exec sleep {}", settings.probe_lifetime().as_secs());
    pod.carrying_into(image, ["sh", "-c", &hold].map(str::to_owned).to_vec())
}

/// `sh -c SCRIPT node-probe WORDS…`: the words arrive as they are, whatever is in them.
fn words(script: &str, command: &[String]) -> Vec<String> {
    let start = ["sh", "-c", script, "node-probe"].map(str::to_owned);
    start.into_iter().chain(command.iter().cloned()).collect()
}

/// Runs it with the loader below `root`, the host's: the base image may have none (a static busybox), or not glibc's (Alpine).
/// The shell stays, since it is through its root that the host sees the file.
fn run_below(root: &str) -> String {
    format!(r#"chroot {root} /proc/$$/root/tmp/node-probe "$@"; exit $?"#)
}

/// The kubelet's process, such as `/proc/812`; `None` where there is none that is no pod's.
async fn kubelet(life: &Life, place: &Place, timings: &mut Timings) -> Result<Option<String>, Failure> {
    let named = life.exec(place, &words(FIND_KUBELET, &[]), &[], timings).await?;
    let named: Vec<_> = processes(&named.stdout, "comm").map(|process| format!("{process}/cgroup")).collect();
    if named.is_empty() {
        return Ok(None);
    }
    let of_no_pod = words(&format!("{OF_NO_POD}{}", named.join(" ")), &[]);
    let left = life.exec(place, &of_no_pod, &[], timings).await?;
    Ok(processes(&left.stdout, "cgroup").next())
}

/// The processes of which `grep` named the file. What a container printed is no path until it looks like one.
fn processes(named: &[u8], file: &str) -> impl Iterator<Item = String> {
    let named = String::from_utf8_lossy(named).into_owned();
    let process = |line: &str| line.strip_prefix("/proc/")?.strip_suffix(file)?.strip_suffix('/')?.parse::<u32>().ok();
    let processes: Vec<_> = named.lines().filter_map(process).collect();
    processes.into_iter().map(|process| format!("/proc/{process}"))
}

fn is_closed_root(output: &Output) -> bool {
    CHROOT_FAILED.iter().any(|code| is_exit(output, *code)) && output.stderr.starts_with("chroot:")
}

fn is_exit(output: &Output, code: i32) -> bool {
    output.stdout.is_empty() && output.ended == Ended::Exit(code)
}

/// A run that a shell or `chroot` refused.
fn refused(life: &Life, output: &Output) -> Result<(), Failure> {
    let said = syringe_core::text::clean(&output.stderr, 300);
    let failed = |why: String, next: &str| {
        Err(Failure::new(format!("Running the carried probe on node {}", life.order.node), why, next))
    };
    if is_exit(output, NOT_EXECUTABLE) {
        return failed(
            format!("{DIRECTORY} of the base image does not let programs run (mounted noexec): {said}"),
            "Name another image with --base-image, or let the node's runtime mount containers without noexec.",
        );
    }
    if is_closed_root(output) {
        return failed(
            format!("the base image has no loader for it, and the host's root cannot be entered: {said}"),
            "Name a base image with glibc (debian, ubuntu, an NVIDIA one) with --base-image.",
        );
    }
    if is_exit(output, NOT_FOUND) {
        return failed(
            format!("neither the base image nor the host has a loader for it (glibc 2.17 or newer): {said}"),
            "Name a base image with glibc (debian, ubuntu, an NVIDIA one) with --base-image.",
        );
    }
    Ok(())
}

/// The node's architecture, as Kubernetes names it: `amd64`, `arm64`.
fn architecture(node: &Node) -> String {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let label = || node.metadata.labels.as_ref()?.get("kubernetes.io/arch").cloned();
    info.map(|info| info.architecture.clone()).filter(|name| !name.is_empty()).or_else(label).unwrap_or_default()
}
