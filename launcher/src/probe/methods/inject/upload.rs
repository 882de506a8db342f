//! `upload`: uploads node-probe into the pod by one of the `METHODS`, and verifies its hash there (`UploadResult`,
//! `UploadError`). The hash is needed because runtimes may truncate standard input and report success.

use syringe_core::text::clean;

use super::archive::{Archive, NAME};
use crate::probe::exec::retry as exec_retry;
use crate::probe::exec::websocket::{ExecEnd, ExecOutput};
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::{ProbeContainer, Timings};
use kube_read::Failure;
use kube_read::failure::Cause;

/// Directory of node-probe in the pod.
pub(super) const DIRECTORY: &str = "/tmp";

/// The way in which the pod writes standard input to a file. The shell keeps standard output open and prints the hash
/// last, because containerd truncates the input of a command whose output closes early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadMethod {
    /// `head` with the length of the file, because version 4 of the protocol cannot signal the end of the input.
    Head,
    /// `tar`, if the image has no head or no chmod. GNU tar reads until the end of its input, so this needs version 5 of the
    /// protocol.
    Tar,
}

/// The upload methods in the order in which they are tried.
pub(super) const METHODS: [UploadMethod; 2] = [UploadMethod::Head, UploadMethod::Tar];

/// Result of one upload.
pub(super) enum UploadResult {
    Whole,
    /// The image does not have this program.
    Lacking(&'static str),
    Broken(String),
}

/// The failure of an upload that no other upload method could complete.
pub(super) struct UploadError {
    pub(super) why: String,
    next_step: &'static str,
    cause: Cause,
}

impl UploadMethod {
    pub(super) fn script(self, length: usize) -> String {
        let file = format!("{DIRECTORY}/{NAME}");
        match self {
            Self::Head => format!("head -c {length} > {file}; chmod 0700 {file}; sha256sum {file}"),
            Self::Tar => format!("tar -xmf - -C {DIRECTORY}; sha256sum {file}"),
        }
    }

    pub(super) fn input(self, archive: &Archive) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Tar => archive.tar(),
            Self::Head => archive.program(),
        }
    }

    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Head => &["head", "chmod"],
            Self::Tar => &["tar"],
        }
    }
}

/// Uploads node-probe with the first method that the programs of the image allow.
pub(super) async fn upload(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    archive: &Archive,
    timings: &mut Timings,
) -> Result<(), Failure> {
    let failed = |why: String, next: &str| {
        Err(Failure::new(
            format!("Uploading node-probe to pod {}/{}", probe_container.namespace, probe_container.pod),
            why,
            next,
        ))
    };
    let mut lacking = Vec::new();
    let mut half_close = true;
    for method in METHODS {
        if method == UploadMethod::Tar && !half_close {
            continue;
        }
        let mut broken = String::new();
        for _ in 0..2 {
            let input = match method.input(archive) {
                Ok(input) => input,
                Err(error) => return failed(error.to_string(), "Check the temporary directory of this machine."),
            };
            let argv = ["sh", "-c", &method.script(input.len())].map(str::to_owned);
            let output = exec_retry::exec(context, probe_container, &argv, &input, timings).await?;
            half_close = output.half_close;
            match upload_result(method, &output, &archive.sha256) {
                Ok(UploadResult::Whole) => return Ok(()),
                Ok(UploadResult::Lacking(program)) => {
                    if !lacking.contains(&program) {
                        lacking.push(program);
                    }
                    broken.clear();
                    break;
                }
                Ok(UploadResult::Broken(why)) => broken = why,
                Err(UploadError { why, next_step, cause }) => {
                    return failed(why, next_step).map_err(|failure| failure.because_of(cause));
                }
            }
        }
        if !broken.is_empty() {
            return failed(
                format!("checksum mismatch after two uploads: {broken}"),
                "A proxy may cut or change the stream: try again, or connect from a place closer to the cluster.",
            );
        }
    }
    failed(
        format!("base image {} lacks {}", probe_container.image, lacking.join(" and ")),
        "With --base-image, specify an image that has sh, sleep, and head or tar.",
    )
    .map_err(|failure| failure.because_of(Cause::Upload))
}

/// Reads the result of an upload.
pub(super) fn upload_result(
    method: UploadMethod,
    output: &ExecOutput,
    sha256: &str,
) -> Result<UploadResult, UploadError> {
    let not_this_image = |why, next_step| Err(UploadError { why, next_step, cause: Cause::Upload });
    let stderr = clean(&output.stderr, 300);
    let printed = String::from_utf8_lossy(&output.stdout);
    let hash = printed.split_whitespace().next().filter(|word| word.len() == 64);
    let lacks = |program: &str| {
        output.stderr.lines().any(|line| line.contains(&format!("{program}: ")) && line.contains("not found"))
    };
    let lacking = method.programs().iter().find(|program| lacks(program));
    // A correct hash is not sufficient: if chmod is missing, the file is complete but not executable, and the next
    // upload method would find this file.
    if hash == Some(sha256) && lacking.is_none() {
        return Ok(UploadResult::Whole);
    }
    if stderr.contains("Read-only file system") {
        let next = "Use a base image and a runtime that let a container write to its /tmp, or use --via pod.";
        return not_this_image(format!("{DIRECTORY} of the base image is read-only: {stderr}"), next);
    }
    if stderr.contains("No space left") {
        // Another image would not help.
        return Err(UploadError {
            why: format!("the node's disk is full: {stderr}"),
            next_step: "Free space on the node's container storage.",
            cause: Cause::Other,
        });
    }
    if let Some(program) = lacking {
        return Ok(UploadResult::Lacking(program));
    }
    if lacks("sha256sum") {
        let next = "With --base-image, specify a base image that has sha256sum (busybox, debian, ubuntu).";
        return not_this_image("the base image has no sha256sum, so the upload cannot be verified".into(), next);
    }
    let why = match (hash, &output.ended) {
        (Some(hash), _) => format!("the SHA-256 of the uploaded file is {hash}, not {sha256}"),
        (None, ExecEnd::Disconnected) => "the connection was cut".to_owned(),
        (None, _) => format!("no hash was printed; the pod printed: {stderr}"),
    };
    Ok(UploadResult::Broken(why))
}

#[cfg(test)]
mod tests {
    use super::{UploadError, UploadMethod, UploadResult, upload_result};
    use crate::probe::exec::websocket::{ExecEnd, ExecOutput};

    fn judged(stdout: &str, stderr: &str) -> String {
        let sha256 = "a".repeat(64);
        let output =
            ExecOutput { stdout: stdout.into(), stderr: stderr.into(), ended: ExecEnd::Exit(0), half_close: true };
        match upload_result(UploadMethod::Head, &output, &sha256) {
            Ok(UploadResult::Whole) => "whole".into(),
            Ok(UploadResult::Lacking(program)) => format!("lacks {program}"),
            Ok(UploadResult::Broken(why)) | Err(UploadError { why, .. }) => why,
        }
    }

    #[test]
    fn the_hash_decides_whatever_else_was_said() {
        let (good, bad) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(judged(&format!("{good}  /tmp/node-probe\n"), "head: a note"), "whole");
        assert!(judged(&format!("{bad}  /tmp/node-probe\n"), "").contains("SHA-256"));
        assert_eq!(judged("", "sh: chmod: not found\n"), "lacks chmod");
        assert_eq!(judged("", "sh: 1: head: not found\nsha256sum: no file\n"), "lacks head");
        assert_eq!(judged("", "bash: line 1: head: command not found\n"), "lacks head");
        assert!(judged("", "sh: can't create /tmp/node-probe: Read-only file system\n").contains("read-only"));
        assert!(judged("", "sh: sha256sum: not found\n").contains("no sha256sum"));
    }
}
