//! Explains the log of a failing container of NVIDIA's stack: known phrases, each with its cause and action.
//!
//! The table contains messages of the driver container, the container toolkit, the device plugin, the operator's validator,
//! the MIG manager and the DRA driver. A line is data from the node: it only selects an entry of the table, and is quoted.

mod phrase;

use crate::input::node::Node;
use phrase::PHRASES;
pub(crate) use phrase::Phrase;
use syringe_core::facts::kubernetes::node::NvidiaPod;
use syringe_core::facts::stack_log::StackLog;
use syringe_core::text::clean_keeping_end;

/// Maximum length of a line in the evidence.
const LINE: usize = 240;

fn log_of<'a>(node: &Node<'a>, pod: &NvidiaPod) -> Option<&'a StackLog> {
    node.host()?.stack_log.as_ref().filter(|log| log.pod_uid == pod.uid)
}

/// Returns the line of a pod's log that gives the reason, with its phrase.
pub(crate) fn known_line(node: &Node<'_>, pod: &NvidiaPod) -> Option<(String, &'static Phrase)> {
    let log = log_of(node, pod)?;
    let (line, phrase) = most_telling(log.detail_lines.iter().chain(&log.lines).map(String::as_str))?;
    Some((clean_keeping_end(line, LINE), phrase))
}

pub(crate) fn last_line(node: &Node<'_>, pod: &NvidiaPod) -> Option<String> {
    log_of(node, pod)?.lines.last().map(|line| clean_keeping_end(line, LINE))
}

/// Returns the first phrase of the table that matches the line. The table lists reasons before symptoms.
fn explain(line: &str) -> Option<&'static Phrase> {
    let line = line.to_ascii_lowercase();
    PHRASES.iter().find(|phrase| phrase.is_in(&line))
}

/// Returns the best line with its phrase: the line whose phrase is first in the table; among equal ones the last, which is
/// the newest.
fn most_telling<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &'static Phrase)> {
    let rank = |phrase: &Phrase| PHRASES.iter().position(|other| other.id == phrase.id);
    let known = lines.into_iter().filter_map(|line| Some((line, explain(line)?)));
    // `min_by_key` keeps the first of equal ones, so the order is reversed.
    known.collect::<Vec<_>>().into_iter().rev().min_by_key(|(_, phrase)| rank(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines from public reports, each with the id of its phrase.
    const LINES: &[(&str, &str)] = &[
        ("Could not resolve Linux kernel version", "kernel-packages-missing"),
        ("Error: Unable to find a match: kernel-headers-4.18.0-513.el8_9.x86_64", "kernel-packages-missing"),
        ("E: Unable to locate package linux-headers-5.15.0-91-generic", "kernel-packages-missing"),
        (
            "W: Failed to fetch http://archive.example/jammy/InRelease  Temporary failure resolving 'archive.example'",
            "package-repository-unreachable",
        ),
        ("Could not unload NVIDIA driver kernel modules, driver is in use", "driver-in-use"),
        ("level=error msg=\"Failed to uninstall nvidia driver components\"", "driver-in-use"),
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "module-signature-rejected"),
        ("modprobe: ERROR: could not insert 'nvidia': Required key not available", "module-signature-rejected"),
        ("modprobe: ERROR: could not insert 'nvidia': Permission denied", "module-load-denied"),
        ("modprobe: ERROR: could not insert 'nvidia': Exec format error", "module-of-another-kernel"),
        ("modprobe: ERROR: could not insert 'nvidia': No such device", "gpu-refused-by-driver"),
        ("modprobe: ERROR: could not insert 'nvidia_peermem': Invalid argument", "peer-memory-module-not-loaded"),
        ("ERROR: The Nouveau kernel driver is currently in use by your system.", "nouveau-in-use"),
        ("ERROR: Unable to load the kernel module 'nvidia.ko'.", "module-does-not-load"),
        ("make[1]: *** [/usr/src/nvidia-550.54.15/kernel/Makefile] Error 2", "module-does-not-compile"),
        (
            "E1106 09:17:18.873659 factory.go:112] Incompatible strategy detected auto",
            "plugin-without-driver-libraries",
        ),
        ("I1106 09:17:18.873686 main.go:381] No devices found. Waiting indefinitely.", "plugin-found-no-devices"),
        ("Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND", "plugin-without-driver-libraries"),
        ("Failed to initialize NVML: could not load NVML library.", "plugin-without-driver-libraries"),
        ("failed to locate driver libraries: error locating \"libnvidia-ml.so.1\"", "plugin-without-driver-libraries"),
        (
            "error starting plugins: failed to create FS watcher for /var/lib/kubelet/device-plugins/: too many open files",
            "inotify-exhausted",
        ),
        ("2018/11/27 03:44:12 Could not register device plugin: context deadline exceeded", "kubelet-does-not-answer"),
        (
            "at least one device with migEnabled=true was not configured correctly: error visiting device: device 0 has no MIG devices configured",
            "mig-without-instances",
        ),
        ("panic: More than one MIG device type present on node", "mig-not-uniform"),
        ("all devices on the node must be configured with the same migEnabled value", "mig-not-uniform"),
        (
            "error running nvidia-toolkit: unable to setup runtime: unable to restart containerd: unable to dial: dial unix /runtime/sock-dir/containerd.sock: connect: connection refused",
            "runtime-socket-missing",
        ),
        (
            "Error: error validating toolkit installation: exec: \"nvidia-smi\": executable file not found in $PATH",
            "validator-without-nvidia-smi",
        ),
        (
            "error creating symlink creator: failed to create NVIDIA device nodes: failed to create device node nvidiactl: failed to determine major: invalid device node",
            "device-nodes-not-created",
        ),
        (
            "failed to load module nvidia-modeset: exit status 1; output=modprobe: ERROR: could not insert 'nvidia_modeset': No such device",
            "gpu-refused-by-driver",
        ),
        ("level=warning msg=\"failed to validate the driver, retrying after 5 seconds\"", "validator-finds-no-driver"),
        ("  GPU 00000000:01:00.0: In use by another client", "mig-gpu-in-use"),
        ("level=error msg=\"Unable to validate the selected MIG configuration\"", "mig-configuration-unknown"),
        ("MIG mode change did not take effect after rebooting", "mig-mode-not-applied"),
        (
            "level=fatal msg=\"Error applying MIG configuration with hooks: error resetting all GPUs: exit status 255\"",
            "mig-not-applied",
        ),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver-does-not-answer"),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver-library-mismatch"),
        ("rpc error: GetPreferredAllocation: error getting device handle: GPU is lost", "gpu-lost"),
        ("Failed to allocate device vector A (error code system not yet initialized)!", "fabric-not-ready"),
        ("NVRM: installed in this system requires use of the NVIDIA open kernel modules.", "kernel-module-flavour"),
        ("write /run/nvidia/driver/lib: no space left on device", "disk-full"),
    ];

    #[test]
    fn every_line_of_the_reports_has_its_explanation() {
        for (line, id) in LINES {
            assert_eq!(explain(line).map(|phrase| phrase.id), Some(*id), "{line}");
            assert!(syringe_core::facts::stack_log::names_failure(line), "node-probe would not keep it: {line}");
        }
    }

    #[test]
    fn lines_of_a_stack_that_works_explain_nothing() {
        for line in [
            "Starting FS watcher for /var/lib/kubelet/device-plugins",
            "Registered device plugin for 'nvidia.com/gpu' with Kubelet",
            "Done, now waiting for signal",
            "level=info msg=\"Waiting for change to 'nvidia.com/mig.config' label\"",
            "level=info msg=\"Successfully uninstalled nvidia driver components\"",
            "MIG configuration applied successfully",
            "Loading NVML",
            "",
        ] {
            assert_eq!(explain(line), None, "{line}");
        }
    }

    #[test]
    fn ids_are_unique_and_parts_are_lower_case() {
        let rows = syringe_core::tsv::rows(include_str!("../../../data/stack_phrases.tsv")).count();
        assert_eq!(PHRASES.len(), rows, "a row has an error");
        for (at, phrase) in PHRASES.iter().enumerate() {
            let Phrase { id, any, cause, advice, .. } = phrase;
            assert!(any.iter().all(|parts| !parts.is_empty()), "{id}: an empty phrase matches every line");
            let parts = any.iter().flat_map(|parts| parts.iter());
            assert!(parts.clone().count() > 0, "{id}");
            assert!(parts.into_iter().all(|part| !part.is_empty() && *part == part.to_ascii_lowercase()), "{id}");
            assert!(!PHRASES[..at].iter().any(|other| other.id == *id), "{id} occurs twice");
            assert!(!cause.is_empty() && advice.ends_with('.'), "{id}");
        }
    }

    #[test]
    fn a_reason_is_told_before_a_symptom_and_the_newest_of_equals() {
        let lines = [
            "E1 Incompatible strategy detected auto",
            "E2 Incompatible strategy detected auto",
            "I3 No devices found. Waiting indefinitely.",
        ];
        let (line, phrase) = most_telling(lines).expect("an explanation");
        assert_eq!((line, phrase.id), (lines[1], "plugin-without-driver-libraries"));
        assert_eq!(most_telling(["all is well"]), None);
    }
}
