//! `Inject`: the method `--via inject`, which uploads node-probe to a pod from an image on the node, and runs it.
//! `upload_pod`: this pod. `preview`: the base image that would be used, without creating anything.
//!
//! This method needs no registry and no image of node-probe. It is for air-gapped clusters and builds from source.

mod archive;
mod base_image;
mod binary;
#[cfg(any(test, fuzzing))]
#[path = "../../../../../fuzz/checks/archive.rs"]
pub(in crate::probe) mod fuzzing;
pub(in crate::probe) mod privileged_images;
#[cfg(all(test, unix))]
mod script_tests;
mod upload;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use syringe_core::probe_command::ProbeCommand;

use self::archive::Archive;
pub(in crate::probe) use self::archive::Archives;
use self::upload::DIRECTORY;
use super::probe_steps::ProbeSteps;
use crate::probe::exec::read_report;
use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::exec::retry as exec_retry;
use crate::probe::exec::websocket::{ExecEnd, ExecOutput};
use crate::probe::lifecycle::pod_lifecycle::PodLifecycle;
use crate::probe::lifecycle::pod_spec::ProbePod;
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::{CleanUp, Timings};
use crate::settings::{ProbeMethod, Settings};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::failure::Cause;
use kube_read::reads::nodes;

/// Runs the probe with the base image's own loader.
const RUN: &str = r#"exec /tmp/node-probe "$@""#;
/// Runs the probe with the loader of the host: the base image may have no loader (a static busybox), or not the
/// loader of glibc (Alpine). The shell keeps running, because the host sees the file through the root of the shell.
/// Only the root of PID 1 is trusted: another process can choose its own name, and its root may be that of a container.
const RUN_WITH_HOST_LOADER: &str = r#"chroot /proc/1/root /proc/$$/root/tmp/node-probe "$@"; exit $?"#;
/// Exit code of a shell if the program or its loader is not found.
const NOT_FOUND: i32 = 127;
/// Exit code of a shell if the program may not be executed.
const NOT_EXECUTABLE: i32 = 126;
/// Exit codes of a failed `chroot` of GNU and of busybox. The probe also uses the second code.
const CHROOT_FAILED: [i32; 2] = [125, 1];
/// Next step if the base image has no shell.
const NO_SHELL: &str = "The base image has no shell: use an image that has sh, sleep, and head or tar (--base-image).";

/// A pod into which node-probe is uploaded.
pub(in crate::probe) struct Inject {
    archives: Arc<Archives>,
    /// The base image, if it was already chosen.
    base_image: Option<String>,
    created: Option<CreatedPod>,
}

struct CreatedPod {
    pod: PodLifecycle,
    archive: Arc<Archive>,
}

impl Inject {
    pub(in crate::probe) fn new(archives: Arc<Archives>, base_image: Option<String>) -> Self {
        Self { archives, base_image, created: None }
    }
}

impl ProbeSteps for Inject {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Inject
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        let node = nodes::read(&context.connection, &context.request.node).await?;
        let image = match &self.base_image {
            Some(image) => image.clone(),
            None => base_image::choose(&context.settings, &node)?,
        };
        let architecture = architecture(&node);
        // The file and its architecture are checked before anything is created.
        let binary = binary::find(&context.settings, &architecture)?;
        let archive = self.archives.of(&binary).await?;
        let pod = upload_pod(context.pod()?, &image, &context.settings);
        let created = self.created.insert(CreatedPod { pod: PodLifecycle::new(pod), archive });
        created.pod.create(context).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let Some(CreatedPod { pod, archive }) = &self.created else {
            return Err(context.out_of_time("no pod was created"));
        };
        let probe_container = pod.probe_container(self.method(), NO_SHELL);
        upload::upload(context, &probe_container, archive, timings).await?;
        let argv = shell_command(RUN, &context.command());
        let output = exec_retry::exec(context, &probe_container, &argv, &[], timings).await?;
        if !is_exit(&output, NOT_FOUND) {
            refused(context, &output)?;
            return read_report::read_or_retry(context, output, &probe_container, &argv, timings).await;
        }
        let argv = shell_command(RUN_WITH_HOST_LOADER, &context.command());
        let output = exec_retry::exec(context, &probe_container, &argv, &[], timings).await?;
        refused(context, &output)?;
        let document = read_report::read_or_retry(context, output, &probe_container, &argv, timings).await?;
        Ok(document.with_note(Some(format!(
            "{} has no loader for node-probe, which therefore ran with the loader of the node",
            probe_container.image
        ))))
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        match &mut self.created {
            Some(created) => created.pod.clean_up(context).await,
            None => CleanUp { pod: String::new(), deleted: true, left_behind: None },
        }
    }
}

/// Returns the base image that would be used on this node, if there is also a node-probe for the node. Creates nothing.
pub(crate) async fn preview(connection: &Connection, settings: &Settings, node: &Node) -> Result<String, Failure> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let image = match (settings.via, &settings.base_image) {
        (ProbeMethod::Auto, None) => privileged_images::find(connection, name).await?.swap_remove(0),
        _ => base_image::choose(settings, node)?,
    };
    binary::find(settings, &architecture(node)).map(|_| image)
}

/// Returns the pod that waits while node-probe is uploaded and run.
pub(super) fn upload_pod(pod: ProbePod, image: &str, settings: &Settings) -> ProbePod {
    let hold = format!("exec sleep {}", settings.probe_lifetime().as_secs());
    pod.with_image(image, ["sh", "-c", &hold].map(str::to_owned).to_vec())
}

/// Returns `sh -c SCRIPT node-probe ARGUMENTS…`. The shell does not interpret the arguments.
fn shell_command(script: &str, command: &ProbeCommand) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).into_iter().chain(command.argv()).collect()
}

fn is_closed_root(output: &ExecOutput) -> bool {
    CHROOT_FAILED.iter().any(|code| is_exit(output, *code)) && output.stderr.starts_with("chroot:")
}

fn is_exit(output: &ExecOutput, code: i32) -> bool {
    output.stdout.is_empty() && output.ended == ExecEnd::Exit(code)
}

/// Fails if the shell or `chroot` could not run the probe.
fn refused(context: &ProbeContext, output: &ExecOutput) -> Result<(), Failure> {
    let stderr = syringe_core::text::clean(&output.stderr, 300);
    let failed = |why: String, next: &str| {
        let what = format!("Running the uploaded node-probe on node {}", context.request.node);
        Err(Failure::new(what, why, next).because_of(Cause::Upload))
    };
    if is_exit(output, NOT_EXECUTABLE) {
        return failed(
            format!("{DIRECTORY} of the base image does not let programs run (mounted noexec): {stderr}"),
            "Specify another image with --base-image, or let the node's runtime mount containers without noexec.",
        );
    }
    if is_closed_root(output) {
        return failed(
            format!("the base image has no loader for node-probe, and the host's root cannot be entered: {stderr}"),
            "With --base-image, specify a base image with glibc (debian, ubuntu, an NVIDIA image).",
        );
    }
    if is_exit(output, NOT_FOUND) {
        return failed(
            format!("the base image and the host have no loader for node-probe (glibc 2.17 or newer): {stderr}"),
            "With --base-image, specify a base image with glibc (debian, ubuntu, an NVIDIA image).",
        );
    }
    Ok(())
}

/// Returns the architecture of the node by its Kubernetes name: `amd64`, `arm64`.
fn architecture(node: &Node) -> String {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let label = || node.metadata.labels.as_ref()?.get("kubernetes.io/arch").cloned();
    info.map(|info| info.architecture.clone()).filter(|name| !name.is_empty()).or_else(label).unwrap_or_default()
}
