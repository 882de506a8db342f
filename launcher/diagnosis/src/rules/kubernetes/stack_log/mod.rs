//! `reason`, `of_log`, `of_scheduler`, `of_controller`: find why a container of NVIDIA's stack fails (`Reason`), from
//! its log, or from messages of the runtime, the scheduler or a controller. `log_of`, `known_line`: the lines of the
//! log, and the line with the reason.
//!
//! The table contains messages of the driver container, the container toolkit, the device plugin, the operator's
//! validator, the MIG manager and the DRA driver. A log line is data from the node: it selects an entry of the table
//! and is quoted, but has no other effect.

mod changes;
mod counter_facts;
pub(crate) mod linked;
mod phrase;

use crate::evidence;
use crate::input::node::Node;
use crate::input::platforms;
use crate::input::runtimes;
use crate::input::stack::pods::FailingPod;
use crate::messages::phrases;
use crate::messages::phrases::{Part, RESOLVE, as_usual, lowercased};
use crate::messages::{owners, placeholders, shapes, versions};
use counter_facts::CounterFact;
use phrase::PHRASES;
pub(crate) use phrase::Phrase;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::facts::stack_log::StackLog;
use syringe_core::text::clean_keeping_end;

/// Maximum length of a line in the evidence.
const LINE: usize = 240;
/// Maximum length of a quoted line in a title.
const WORDS: usize = 160;

/// Returns the lines of a pod's log that the probe read on the node, or else those that the API server returned.
pub(crate) fn log_of<'a>(node: &Node<'a>, pod: &NvidiaPod) -> Option<Vec<&'a str>> {
    let of_probe = |log: &'a StackLog| log.detail_lines.iter().chain(&log.lines).map(String::as_str).collect();
    let on_node = node.host().and_then(|host| host.stack_log.as_ref()).filter(|log| log.pod_uid == pod.uid);
    let linked = || node.kubernetes.linked_pods.iter().find(|linked| linked.pod.uid == pod.uid);
    let of_api = || Some(linked()?.log.as_ref()?.iter().map(String::as_str).collect());
    on_node.map(of_probe).or_else(of_api)
}

/// Returns the line of a pod's log that contains the reason, with its phrase.
pub(crate) fn known_line(node: &Node<'_>, pod: &NvidiaPod) -> Option<(String, &'static Phrase)> {
    let log = log_of(node, pod)?;
    let (line, phrase) = most_telling(pod.component, log)?;
    Some((clean_keeping_end(line, LINE), phrase))
}

/// The reason why a component fails.
pub(crate) struct Reason {
    /// The cause for the title, from a table or from the text of the log.
    pub(crate) cause: Option<String>,
    /// Evidence: the messages.
    pub(crate) evidence: Vec<String>,
    /// The innermost parts of the messages.
    pub(crate) told: Vec<String>,
    /// The action for the cause.
    pub(crate) action: Option<(ActionCode, String)>,
}

/// Returns why a pod fails, from the container runtime's message about a failed start, or else from the log. Adds the
/// owners of the things that the messages name, and the note about the platform of the node.
pub(crate) fn reason(node: &Node<'_>, failing_pod: &FailingPod<'_>) -> Option<Reason> {
    let reason = of_last_end(failing_pod)
        .or_else(|| for_other_runtime(node, failing_pod))
        .or_else(|| of_runtime(failing_pod))
        .or_else(|| of_image(&failing_pod.warning()?))
        .or_else(|| of_log(node, failing_pod.pod, failing_pod.container_name()))
        .or_else(|| failing_pod.scheduling().and_then(of_scheduler))
        .or_else(|| of_last_words(failing_pod.last_words()?))?;
    // If there is a message, the text of a table is not searched, because the message does not name the things in that
    // text.
    let named = reason.told.iter().chain(reason.cause.iter().filter(|_| reason.told.is_empty())).map(String::as_str);
    let owners = owners::about_on(named, node.kubernetes.os_image.as_deref());
    let older = changes::pods_before_driver(node, reason.told.iter().map(String::as_str));
    let note = platforms::note(node.report);
    let (code, text) = reason.action.clone().unwrap_or((ActionCode::UpdateSoftware, String::new()));
    let texts = older.into_iter().chain(owners).chain([text]).chain(note).filter(|text| !text.is_empty());
    let text = texts.collect::<Vec<_>>().join(" ");
    let action = (!text.is_empty()).then_some((code, text));
    Some(Reason { action, ..reason })
}

/// Returns the reason that Kubernetes gives for the last termination of the container.
fn of_last_end(failing_pod: &FailingPod<'_>) -> Option<Reason> {
    failing_pod.is_out_of_memory().then(|| Reason {
        cause: Some("it was killed because it used more memory than its limit (OOMKilled)".to_owned()),
        evidence: Vec::new(),
        told: Vec::new(),
        action: Some((ActionCode::FixLimits, MORE_MEMORY.to_owned())),
    })
}

/// Returns the reason if a container toolkit is configured for another container runtime than the one that the kubelet
/// uses.
fn for_other_runtime(node: &Node<'_>, failing_pod: &FailingPod<'_>) -> Option<Reason> {
    if failing_pod.pod.component != Component::ContainerToolkit {
        return None;
    }
    let other = runtimes::mismatch(node)?;
    // The log shows the failure, but not that the runtime is another one.
    let of_log = of_log(node, failing_pod.pod, failing_pod.container_name());
    Some(Reason {
        cause: Some(other.line),
        evidence: of_log.map(|reason| reason.evidence).unwrap_or_default(),
        told: Vec::new(),
        action: Some((ActionCode::UpdateSoftware, other.advice)),
    })
}

/// Action for a container of the stack that was killed because of its memory limit.
pub(crate) const MORE_MEMORY: &str = "Raise the memory limit of that container (resources.limits.memory) where its pod is defined: in its job or DaemonSet, or in \
                                      the custom resource of the operator that writes it.";

/// Returns why the kubelet or the container runtime cannot start the container.
fn of_runtime(failing_pod: &FailingPod<'_>) -> Option<Reason> {
    let messages: Vec<&str> = failing_pod.runtime_messages().collect();
    let parts = [Part::Start, Part::Image, Part::Config, Part::Volume];
    let known = messages.iter().find_map(|message| {
        let phrase = parts.iter().find_map(|part| phrases::known(*part, message))?;
        let reading = shapes::read(message).filter(|reading| reading.is_specific());
        let words = reading.map_or_else(|| shapes::words_of(message), |reading| reading.words);
        let inner = phrase.inner_error(message);
        let words = inner.map_or(words, |inner| clean_keeping_end(inner, LINE));
        let told = vec![inner.map_or_else(|| shapes::core(message), str::to_owned)];
        let cause = format!("{} (\"{words}\")", phrase.meaning(message));
        let code = if phrase.is_usual_for(message) { softened(phrase.code) } else { phrase.code };
        let has_none = code == ActionCode::FixApplication && phrases::known(Part::Image, message).is_some();
        let action = match failing_pod.pod.component {
            // The operator creates the tag of the driver image.
            Component::Driver | Component::VgpuManager if has_none => {
                (ActionCode::UpdateSoftware, NO_DRIVER_IMAGE.to_owned())
            }
            _ => (code, phrase.advice_for(message, "{node}")),
        };
        Some(Reason { cause: Some(cause), evidence: vec![quoted(message)], told, action: Some(action) })
    });
    known.or_else(|| {
        let (message, reading) = messages.iter().find_map(|message| Some((*message, shapes::read(message)?)))?;
        let action = Some((ActionCode::UpdateSoftware, reading.advice.to_owned()));
        let told = vec![shapes::core(message)];
        Some(Reason { cause: Some(reading.quoted()), evidence: vec![quoted(message)], told, action })
    })
}

/// Action if there is no driver image with the tag that the operator creates from the driver version, operating system
/// and kernel.
const NO_DRIVER_IMAGE: &str = "Choose a driver version that has an image for the operating system and kernel of {node} (the tag names them). \
                               Precompiled images exist only for some kernels: boot such a kernel, or let the driver \
                               be built on the node (driver.usePrecompiled=false). Otherwise, correct the repository \
                               of the image.";

/// Returns why the scheduler does not assign the pod to a node, from its message.
pub(crate) fn of_scheduler(message: &str) -> Option<Reason> {
    let phrase = phrases::known(Part::Scheduler, message)?;
    let cause = format!("{} (\"{}\")", phrase.meaning(message), clean_keeping_end(message, LINE));
    let advice = format!(
        "{} A DaemonSet of GPU software needs a priority class (system-node-critical), so that it finds room beside other pods.",
        phrase.action
    );
    let action = Some((ActionCode::UpdateSoftware, advice));
    Some(Reason { cause: Some(cause), evidence: Vec::new(), told: Vec::new(), action })
}

/// Returns why the image of a container cannot be pulled, from the event of the kubelet.
pub(crate) fn of_image(event: &str) -> Option<Reason> {
    let phrase = phrases::known(Part::Image, event).filter(|_| event.to_ascii_lowercase().contains("image"))?;
    let action = Some((phrase.code, phrase.advice_for(event, "{node}")));
    Some(Reason { cause: Some(phrase.meaning(event)), evidence: Vec::new(), told: Vec::new(), action })
}

/// Returns why the API server rejected a pod of a DaemonSet, from its message. `set`: the name of the DaemonSet.
pub(crate) fn of_controller(message: &str, set: &str) -> Option<Reason> {
    let phrase = phrases::known(Part::Controller, message)?;
    let words = clean_keeping_end(message, LINE);
    let cause = format!("{} (\"{words}\")", phrase.meaning(message));
    let advice = format!(
        "{} The message about DaemonSet {set}: \"{words}\". Software of the node needs privileges and host paths: exclude its namespace from \
         the policy, webhook or quota that the message names.",
        phrase.action
    );
    let action = Some((ActionCode::UpdateSoftware, advice));
    Some(Reason { cause: Some(cause), evidence: Vec::new(), told: Vec::new(), action })
}

/// Returns the reason in the termination message of a container.
fn of_last_words(message: &str) -> Option<Reason> {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let reading = shapes::read_log(lines.clone());
    let told = lines.clone().next_back()?;
    let (line, cause) = match &reading {
        Some((line, reading)) => (*line, reading.quoted()),
        None => {
            (shapes::last_error(lines).unwrap_or(told), format!("its last message: \"{}\"", shapes::words_of(told)))
        }
    };
    let advice = match &reading {
        Some((_, reading)) => reading.advice,
        None => {
            "Correct the problem in the termination message of the container: its arguments, its settings, or the version of its image."
        }
    };
    let action = Some((ActionCode::UpdateSoftware, advice.to_owned()));
    let evidence = vec![format!("termination message: {}", clean_keeping_end(line, LINE))];
    Some(Reason { cause: Some(cause), evidence, told: vec![line.to_owned()], action })
}

/// Returns the kind of action for a cause that is only a guess. A guess must not make a node unusable.
fn softened(code: ActionCode) -> ActionCode {
    match code {
        ActionCode::DrainAndReboot | ActionCode::DrainAndReset | ActionCode::ContactVendor => {
            ActionCode::UpdateSoftware
        }
        code => code,
    }
}

fn quoted(message: &str) -> String {
    format!("container runtime: {}", clean_keeping_end(message, LINE))
}

/// Returns the reason in the log of a container.
pub(crate) fn of_log(node: &Node<'_>, pod: &NvidiaPod, container: &str) -> Option<Reason> {
    let quote = |line: &str| format!("log of {}: \"{}\"", evidence::data(container), clean_keeping_end(line, LINE));
    let log = log_of(node, pod)?;
    let lines = || log.iter().copied();
    // The evidence contains the most informative lines, whatever the conclusion from one of them is.
    let with_others = |first: String, told: &str| {
        let others = shapes::telling_lines(lines()).into_iter().filter(|line| *line != told.trim()).map(quote);
        std::iter::once(first).chain(others.take(OTHER_LINES)).collect::<Vec<_>>()
    };
    if let Some((line, phrase)) = most_telling(pod.component, lines()) {
        let earlier = || lines().take_while(|other| *other != line);
        let against = phrase.unless.iter().find_map(|fact| fact.holds(node, pod, earlier()));
        let told = clean_keeping_end(line, LINE);
        let words = clean_keeping_end(&shapes::core(line), WORDS);
        let mut all_told = vec![words.clone()];
        if let Some(name) = placeholders::host(line).filter(|_| phrase.id == UNREACHABLE) {
            let cause = format!("its configuration has the placeholder {name} in place of a host name (\"{words}\")");
            let action = Some((ActionCode::UpdateSoftware, placeholders::advice(name)));
            let evidence = with_others(quote(&told), line);
            return Some(Reason { cause: Some(cause), evidence, told: all_told, action });
        }
        let Some(against) = against else {
            let mut cause = match phrase.cause.contains(&words) {
                true => phrase.cause.to_owned(),
                false => format!("{} (\"{words}\")", phrase.cause),
            };
            let lacks = no_handler(node).filter(|_| phrase.unless.contains(&CounterFact::NvidiaHandler));
            let needs = &phrase.needs;
            let is_shown = lacks.is_some() || (!needs.is_empty() && needs.iter().all(|fact| fact.is_shown(node, pod)));
            let is_wrapped = phrase.inner_error(&shapes::undecorated(line)).is_some();
            let is_guess = (phrase.is_usual && !is_shown) || is_wrapped;
            let reasons = [phrase.often.filter(|_| is_shown).map(str::to_owned), lacks.map(str::to_owned)];
            let holders = (phrase.id == DRIVER_IN_USE).then(|| changes::holders(node)).flatten();
            let pair = versions::pair(lines()).map(|pair| pair.in_words());
            let first = shapes::first_error(lines(), line).filter(|_| pair.is_none());
            let first = first
                .map(|first| clean_keeping_end(&shapes::undecorated(first), WORDS))
                .filter(|first| *first != words);
            let first = first.map(|first| {
                all_told.push(first.clone());
                format!("first error: \"{first}\"")
            });
            for more in reasons.into_iter().flatten().chain(holders).chain(pair).chain(first) {
                cause = format!("{cause}; {more}");
            }
            let advice = lacks.map_or(phrase.advice, |_| CONFIGURE);
            // The row contains the reporter of the error. The general form of the error determines the action.
            let reading = shapes::read(line).filter(|_| is_wrapped);
            let reading = reading.filter(|reading| reading.is_specific() || phrase.id == RECONCILE);
            if let Some(reading) = &reading {
                cause = format!("{cause}; {}", reading.what);
            }
            let action = match (is_guess, phrase.often) {
                (false, _) => (phrase.action, advice.to_owned()),
                (true, Some(often)) => {
                    (softened(phrase.action), format!("{RESOLVE} Often: {often}; then {}", lowercased(advice)))
                }
                (true, None) => (softened(phrase.action), as_usual(advice)),
            };
            let action = match reading {
                Some(reading) if is_guess => (action.0, format!("{} {}", action.1, reading.advice)),
                _ => action,
            };
            let evidence = with_others(format!("{}: {}", quote(&told), phrase.cause), line);
            return Some(Reason { cause: Some(cause), evidence, told: all_told, action: Some(action) });
        };
        // The line about the method that failed first contains the reason.
        let first = lines().find(|line| counter_facts::is_fallback(line)).unwrap_or(line);
        let first = shapes::words_of(first);
        let cause = Some(format!("its log says \"{first}\"; cause not identified"));
        let evidence = with_others(format!("{}; {against}", quote(&told)), line);
        // The runtime has the handler, but the container has no driver nevertheless.
        let of_runtime = phrase.unless.contains(&CounterFact::NvidiaHandler);
        let action = of_runtime.then(|| (ActionCode::UpdateSoftware, WITHOUT_DRIVER.to_owned()));
        return Some(Reason { cause, evidence, told: vec![first], action });
    }
    if let Some((line, reading)) = shapes::read_log(lines()) {
        let action = Some((ActionCode::UpdateSoftware, reading.advice.to_owned()));
        let told = vec![reading.words.clone()];
        return Some(Reason { cause: Some(reading.quoted()), evidence: with_others(quote(line), line), told, action });
    }
    let error = shapes::last_error(lines());
    let line = error.or(log.last().copied())?;
    let words = shapes::words_of(line);
    let cause = Some(format!("its log says \"{words}\""));
    Some(Reason { cause, evidence: with_others(quote(line), line), told: vec![words], action: None })
}

/// Id of the phrase about a package repository that cannot be reached.
const UNREACHABLE: &str = "package-repository-unreachable";

/// Id of the phrase about an operator that reports an error of an object.
const RECONCILE: &str = "operator-reconcile-failed";

/// Id of the phrase about a driver that cannot be unloaded.
const DRIVER_IN_USE: &str = "driver-in-use";

/// Action for a container of the stack that has no driver although NVIDIA's handler starts it.
const WITHOUT_DRIVER: &str = "Find out why NVIDIA's runtime gives the pod no driver on {node}. Check whether the \
     container requests the driver (NVIDIA_VISIBLE_DEVICES, privileged, or accept-nvidia-visible-devices-envvar-when-unprivileged of the container toolkit), and whether the \
     toolkit finds the driver (root in nvidia-container-runtime/config.toml). Then delete the pod: a restart of its container keeps the old \
     runtime.";

/// Action for a node whose container runtime has no NVIDIA handler.
const CONFIGURE: &str = "Configure NVIDIA's runtime as a handler of the container runtime of {node} (nvidia-ctk runtime configure, the \
     container toolkit's pod, or the setting of the image of the node), restart the runtime, then delete the pod.";

/// Returns a text if the container runtime has no NVIDIA handler and its configuration was read completely.
fn no_handler(node: &Node<'_>) -> Option<&'static str> {
    let runtime = node.host()?.container_runtime.as_ref().filter(|runtime| runtime.complete)?;
    let has_one = runtime.handlers.iter().any(|handler| handler.is_nvidia());
    (!has_one).then_some("the container runtime of the node has no handler of NVIDIA")
}

/// Number of quoted log lines in addition to the line with the reason.
const OTHER_LINES: usize = 2;

/// Returns the phrase of the table that matches the innermost error, which is at the end of the line. If several
/// phrases match there, the first one is used, because the table lists reasons before symptoms.
fn explain(component: Component, line: &str) -> Option<&'static Phrase> {
    let line = line.to_ascii_lowercase();
    let of_component = PHRASES.iter().filter(|phrase| phrase.is_of(component));
    let found = of_component.filter_map(|phrase| Some((phrase, phrase.end_in(&line)?)));
    found.min_by_key(|(_, end)| std::cmp::Reverse(*end)).map(|(phrase, _)| phrase)
}

/// Returns the line whose phrase is first in the table, with this phrase. If several lines have this phrase, returns
/// the newest.
fn most_telling<'a>(
    component: Component,
    lines: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, &'static Phrase)> {
    let rank = |phrase: &Phrase| PHRASES.iter().position(|other| other.id == phrase.id);
    let known = lines.into_iter().filter_map(|line| Some((line, explain(component, line)?)));
    // `min_by_key` returns the first of equal elements, so the order is reversed.
    known.collect::<Vec<_>>().into_iter().rev().min_by_key(|(_, phrase)| rank(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::facts::Mode;
    use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};
    use syringe_core::facts::driver_load::DriverLoad;
    use syringe_core::facts::host::{Daemons, DriverVersions, Host};
    use syringe_core::facts::inventory::{GpuInventory, Inventory};
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::facts::mig::{GpuMig, Mig, MigDevice};
    use syringe_core::report::{Report, Section};

    /// Lines from public reports, each with the id of its phrase.
    const LINES: &[(&str, &str)] = &[
        (
            "E1220 main.go:213] Failed to start MPS daemon: error setting SELinux context: lsetxattr /mps/pipe: permission denied",
            "selinux-label-refused",
        ),
        (
            "\"error\":\"failed to retrieve GPU node OS tag: error processing OS major version v1\"",
            "operator-os-unreadable",
        ),
        ("no devices in device pool, skipping creating resource server for x", "rdma-device-not-found"),
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
            "mig-gpus-not-reset",
        ),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver-does-not-answer"),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver-library-mismatch"),
        ("rpc error: GetPreferredAllocation: error getting device handle: GPU is lost", "gpu-lost"),
        ("Failed to allocate device vector A (error code system not yet initialized)!", "fabric-not-ready"),
        ("NVRM: installed in this system requires use of the NVIDIA open kernel modules.", "kernel-module-flavour"),
        ("write /run/nvidia/driver/lib: no space left on device", "disk-full"),
        (
            "FATAL: failed to reach RHEL package repositories. Ensure that the cluster can access the proper networks.",
            "package-repository-unreachable",
        ),
        (
            "FATAL: failed to install elfutils-libel-devel. RHEL entitlement may be improperly deployed.",
            "rhel-entitlement-missing",
        ),
        ("Error: Unable to find a match: elfutils-libelf-devel.x86_64", "rhel-entitlement-missing"),
        ("Error: No matching repo to modify: rhocp-4.6-for-rhel-8-x86_64-rpms.", "driver-image-for-another-release"),
        (
            "Error parsing config file: error validating values in 'devices' field: Unsupported MIG Device specified 7g.80gb, expected 7g.79gb instead",
            "mig-profile-not-on-gpu",
        ),
        ("error setting VGPU config: no parent devices found for GPU at index '1'", "vgpu-types-missing"),
        ("Unable to resolve RHEL version from kernel version", "rhel-version-unresolved"),
        ("Could not locate Linux kernel version string", "kernel-image-unreadable"),
        ("modprobe: ERROR: could not insert 'ipmi_msghandler': Invalid argument", "ipmi-module-not-loaded"),
        ("modprobe: ERROR: could not insert 'ipmi_devintf': Invalid argument", "ipmi-module-not-loaded"),
        ("modprobe: ERROR: could not insert 'i2c_core': Exec format error", "ipmi-module-not-loaded"),
        ("The CC version check failed:", "compiler-mismatch"),
        ("ERROR: Failed CC version check. Bailing out!", "compiler-mismatch"),
        ("make[2]: *** [cc_version_check] Error 1", "compiler-mismatch"),
        ("Failed to find NVIDIA driver source, exiting.", "driver-source-missing"),
        ("invalid value for the KERNEL_MODULE_TYPE variable: closed", "kernel-module-type-invalid"),
        (
            "cannot find match for compatible vgpu driver from available list, please check /var/log/vgpu-util.log for more details...",
            "vgpu-driver-not-matching",
        ),
        (
            "cannot find vgpu devices on host, pleae check /var/log/vgpu-util.log for more details...",
            "vgpu-driver-not-matching",
        ),
        ("failed to load nvidia-peermem module", "peer-memory-load-failed"),
        (
            "cannot drain the DRA kubelet-plugin: pod(s) still hold GPU resource claims: research/train-0",
            "claims-hold-the-driver",
        ),
        ("level=fatal msg=\"error: driver is pre-installed on host\"", "driver-preinstalled"),
        (
            "nv-fabricmanager: Error: fabric manager NVIDIA GPU driver interface version 590.48.01 don't match with driver version 580.126.09. Please update with matching NVIDIA driver package.",
            "fabric-manager-version",
        ),
        ("Failed to initialize NVML: Insufficient Permissions", "nvml-without-permission"),
        ("nvml error: insufficient permissions", "nvml-without-permission"),
        ("Failed to initialize NVML: Unknown Error", "nvml-unknown-error"),
        ("error restarting containerd using systemd: exit status 1", "runtime-not-restarted-by-systemd"),
        ("unable to setup runtime: unable to restart docker: unable to dial", "other-runtime-not-restarted"),
        (
            "unable to setup runtime: unable to restart crio: invalid restart mode specified",
            "other-runtime-not-restarted",
        ),
        ("unable to get flock on pidfile: resource temporarily unavailable", "another-toolkit-container"),
        ("unable to load docker config: invalid character", "other-runtime-configuration-broken"),
        ("unable to load crio config: toml: line 3", "other-runtime-configuration-broken"),
        (
            "error starting plugins: error getting plugins: unable to create plugins: CDI --device-list-strategy options are only supported on NVML-based systems",
            "plugin-strategy-needs-nvml",
        ),
        ("invalid --device-list-strategy option: invalid strategy: cdi", "plugin-flag-invalid"),
        ("invalid --device-id-strategy option: name", "plugin-flag-invalid"),
        ("invalid --device-discovery-strategy option cdi", "plugin-flag-invalid"),
        ("error starting plugins: unknown MIG strategy: dual", "plugin-flag-invalid"),
        ("unable to load config: unable to validate flags: invalid --x", "plugin-flag-invalid"),
        (
            "error building device map from config.resources: GPU name 'NVIDIA H200' does not match any resource patterns",
            "plugin-resource-without-match",
        ),
        (
            "invalid MPS configuration: invalid device: maximum allowed replicas exceeded: 100 > 48",
            "plugin-sharing-invalid",
        ),
        ("number of replicas must be >= 2", "plugin-sharing-invalid"),
        (
            "error starting plugins: error building device map: requested 4 devices to be replicated, but only 2 devices available",
            "plugin-sharing-invalid",
        ),
        ("unable to load config: using --mig-strategy=mixed is not supported with MPS", "plugin-sharing-invalid"),
        ("unable to load config: using MPS requires --mps-root to be specified", "plugin-mps-without-root"),
        ("modprobe: ERROR: could not insert 'nvidia': Invalid argument", "module-argument-rejected"),
        (
            "invalid resource name: incorrect format for resource name 'nvidia.com/GPU 1': a lowercase RFC 1123 label",
            "plugin-resource-name-invalid",
        ),
        ("fully-qualified resource name must be 63 characters or less: x", "plugin-resource-name-invalid"),
        ("level=error msg=\"specified config a100-shared does not exist\"", "plugin-configuration-missing"),
        ("no config was set, no default was provided, and all fallbacks failed", "plugin-configuration-missing"),
        (
            "error starting plugins: error waiting for MPS daemon: error checking MPS daemon health: failed to send command to MPS daemon: exit status 1",
            "mps-daemon-not-ready",
        ),
        ("error checking MPS daemon health: exit status 1", "mps-daemon-not-ready"),
        (
            "failed to get NodeFeature object: the server could not find the requested resource",
            "node-feature-resource-missing",
        ),
        (
            "failed to create NodeFeature object \"nvidia-features-for-gpu-1\": forbidden",
            "node-feature-resource-missing",
        ),
        (
            "failed to update NodeFeature object \"nvidia-features-for-gpu-1\": forbidden",
            "node-feature-resource-missing",
        ),
        (
            "Error: nodefeatures.nfd.k8s-sigs.io is forbidden: User \"x\" cannot create resource \"nodefeatures\" in API group \"nfd.k8s-sigs.io\"",
            "node-feature-resource-missing",
        ),
        (
            "checkpoint failed checksum verification; unified diff (on-disk vs re-marshaled by current binary)",
            "dra-driver-checkpoint-broken",
        ),
        ("error: unable to get checkpoint: checkpoint is corrupted", "dra-driver-checkpoint-broken"),
        (
            "nvidia-imex-ctl not found under driver root \"/driver-root\": no such file (is nvidia-imex installed on this node?)",
            "imex-not-installed",
        ),
        (
            "IMEXDaemonsWithDNSNames feature requires GPU driver version >= 570.158.01, but found 570.86.15",
            "imex-needs-newer-driver",
        ),
        ("error: CDI container edits did not apply -- is CDI enabled in your container runtime?", "cdi-not-applied"),
        ("error: no available indices within maxNodesPerIMEXDomain (18)", "imex-domain-full"),
        ("error getting cliqueID: unexpected number of unique CliqueIDs found on devices", "fabric-cliques-differ"),
        ("Failed to allocate Imex session: NV_ERR_IN_USE", "imex-session-in-use"),
        (
            "[ERROR] [tid 39] No matching network interface found for any IP addresses in the node configuration file: cannot start",
            "imex-without-own-address",
        ),
        (
            "failed to find driver directory for vfio module \"vfio_pci\" at \"/sys/bus/pci/drivers\", is the module loaded?",
            "vfio-driver-missing",
        ),
        ("cannot set MIG mode on non MIG-capable GPU", "mig-not-supported"),
        ("error: cannot configure as a subset of any valid configuration", "mig-layout-impossible"),
        ("error attempting multiple config orderings: all orderings failed", "mig-layout-impossible"),
        ("error creating GPU instance for '19': Insufficient Resources", "mig-instance-not-created"),
        (
            "Error: error validating vfio-pci driver installation: device not bound to 'vfio-pci'; device: 0000:5d:00.0 driver: 'nvidia'",
            "vfio-not-bound",
        ),
        (
            "level=fatal msg=\"error getting vGPU config: error getting all vGPU devices: unable to read MDEV devices directory: open /sys/bus/mdev/devices: no such file or directory\"",
            "vgpu-manager-not-loaded",
        ),
        ("error: no vGPU devices found", "no-vgpu-devices"),
        ("Error: error validating MOFED driver installation: exit status 1", "additional-module-not-ready"),
        ("error validating nvidia-fs driver installation: exit status 1", "additional-module-not-ready"),
        ("error validating gdrcopy driver installation: exit status 1", "additional-module-not-ready"),
        ("error validating nvidia-peermem driver installation: exit status 1", "additional-module-not-ready"),
        ("Error: Host engine connection invalid/disconnected", "dcgm-host-engine-unreachable"),
        ("level=ERROR msg=\"Failed to connect to remote hostengine\"", "dcgm-host-engine-unreachable"),
        (
            "failed: Cannot perform the requested operation because NVML doesn't exist on this system.",
            "dcgm-without-nvml",
        ),
        (
            "level=ERROR msg=\"Failed to watch DCGM fields\" error=\"error watching fields: Host engine is running as non-root\"",
            "dcgm-not-root",
        ),
        (
            "failed to watch metrics: Error watching fields: The third-party Profiling module returned an unrecoverable error",
            "dcgm-profiling-failed",
        ),
        (
            "level=fatal msg=\"Error watching fields: This request is serviced by a module of DCGM that is not currently loaded\"",
            "dcgm-profiling-failed",
        ),
        ("Error: GPU resources are not discovered by the node", "gpus-not-advertised-to-validator"),
        (
            "error: gave up waiting for pod nvidia-device-plugin-validator to be available",
            "validation-pod-not-finished",
        ),
    ];

    #[test]
    fn every_line_of_the_reports_has_its_explanation() {
        for (line, id) in LINES {
            let of = PHRASES.iter().find(|phrase| phrase.id == *id).map(Phrase::example_of).unwrap_or_default();
            assert_eq!(explain(of, line).map(|phrase| phrase.id), Some(*id), "{line}");
            assert!(syringe_core::facts::stack_log::names_failure(line), "node-probe would not keep it: {line}");
        }
    }

    /// Returns the reason in a log with one line, if nothing else is known about the node.
    fn reason_of(component: Component, line: &str) -> Option<Reason> {
        let pod = NvidiaPod { uid: "u".into(), component, ..NvidiaPod::default() };
        let log = StackLog { pod_uid: "u".into(), lines: vec![line.to_owned()], ..StackLog::default() };
        let host = Host { stack_log: Some(log), ..Host::default() };
        let mut report = Report::default();
        report.sections.host = Some(Section::read(host, Vec::new()));
        of_log(&Node::new(&report, &KubernetesFacts::default()), &pod, "main")
    }

    #[test]
    fn an_error_inside_a_line_comes_before_what_is_usual_for_its_words() {
        for (line, id) in LINES {
            let Some(phrase) = PHRASES.iter().find(|phrase| phrase.id == *id) else { panic!("{id}") };
            let line = format!("{line}: acme helper failed: reading /opt/acme/y.conf: the frobnicator is sad");
            let reason = reason_of(phrase.example_of(), &line).expect("a reason");
            let Some((code, text)) = reason.action else { continue };
            assert!(text.starts_with(RESOLVE), "{line}: {text}");
            assert!(!matches!(code, ActionCode::DrainAndReboot | ActionCode::DrainAndReset), "{line}");
            assert!(reason.cause.is_some_and(|cause| cause.contains("frobnicator")), "{line}");
        }
    }

    #[test]
    fn a_usual_reason_without_its_facts_is_no_cause() {
        for (line, id) in LINES {
            let Some(phrase) = PHRASES.iter().find(|phrase| phrase.id == *id && phrase.is_usual) else { continue };
            let reason = reason_of(phrase.example_of(), line).expect("a reason");
            let cause = reason.cause.unwrap_or_default();
            assert!(phrase.often.is_none_or(|often| !cause.contains(often)), "{line}: {cause}");
            let text = reason.action.map(|(_, text)| text).unwrap_or_default();
            assert!(text.is_empty() || text.starts_with(RESOLVE), "{line}: {text}");
        }
    }

    /// Creates a report in which all facts about the driver, the system and the runtime contradict a cause: the driver
    /// works, on Ubuntu without Secure Boot, with NVIDIA's runtime.
    fn working_report(log: StackLog) -> Report {
        let driver = DriverVersions {
            loaded: Some("570.1".into()),
            library: Some("570.1".into()),
            flavor: Some("open".into()),
            ..DriverVersions::default()
        };
        let runtime = ContainerRuntime {
            complete: true,
            default_handler: Some("nvidia".into()),
            handlers: vec![RuntimeHandler { name: "nvidia".into(), ..RuntimeHandler::default() }],
            cdi_enabled: Some(true),
            ..ContainerRuntime::default()
        };
        let load = DriverLoad { secure_boot: Some(false), signature_enforced: Some(false), ..DriverLoad::default() };
        let modules = ["nvidia", "nvidia_uvm", "nvidia_peermem", "vfio_pci"].map(str::to_owned).to_vec();
        let running = Some(true);
        let daemons = Daemons { mps: running, imex: running, fabric_manager: running, ..Daemons::default() };
        let host = Host {
            operating_system: Some("Ubuntu 24.04 LTS".into()),
            stack_log: Some(log),
            driver_load: Some(load),
            container_runtime: Some(runtime),
            driver,
            modules,
            daemons,
            ..Host::default()
        };
        let mode = Some(Mode { current: true, pending: true });
        let mig = GpuMig { mode, devices: vec![MigDevice::default()], ..GpuMig::default() };
        let gpu = GpuInventory { uuid: Some("GPU-1".into()), ..GpuInventory::default() };
        let mut report = Report::default();
        report.sections.host = Some(Section::read(host, Vec::new()));
        report.sections.inventory =
            Some(Section::read(Inventory { gpus: vec![gpu], ..Inventory::default() }, Vec::new()));
        report.sections.mig = Some(Section::read(Mig { gpus: vec![mig], ..Mig::default() }, Vec::new()));
        report
    }

    #[test]
    fn a_cause_that_the_facts_contradict_is_not_identified() {
        let mut tried = 0;
        for (line, id) in LINES {
            let Some(phrase) = PHRASES.iter().find(|phrase| phrase.id == *id) else { panic!("{id}") };
            if phrase.unless.is_empty() {
                continue;
            }
            tried += 1;
            let pod = NvidiaPod { uid: "u".into(), component: phrase.example_of(), ..NvidiaPod::default() };
            let lines = vec![(*line).to_owned()];
            let report = working_report(StackLog { pod_uid: "u".into(), lines, ..StackLog::default() });
            let reason = of_log(&Node::new(&report, &KubernetesFacts::default()), &pod, "main").expect("a reason");
            let cause = reason.cause.unwrap_or_default();
            assert!(cause.contains("cause not identified"), "{id}: {line}: {cause}");
            // A container without the driver has an action that finds the reason, but no repair that is only a guess.
            let of_runtime = phrase.unless.contains(&CounterFact::NvidiaHandler);
            assert_eq!(reason.action.is_some(), of_runtime, "{id}: {line}");
            assert!(reason.action.is_none_or(|(_, text)| text.starts_with("Find out why")), "{id}: {line}");
        }
        assert!(tried > 20, "{tried}");
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
            assert_eq!(explain(Component::Driver, line), None, "{line}");
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
    fn a_placeholder_in_place_of_a_host_is_no_fault_of_the_network() {
        for (line, placeholder) in [
            ("curl: (6) Could not resolve host: HTTPENDPOINT", true),
            ("curl: (6) Could not resolve host: archive.example", false),
        ] {
            let pod = NvidiaPod { uid: "u".into(), component: Component::Driver, ..NvidiaPod::default() };
            let mut report = Report::default();
            let log = StackLog { pod_uid: "u".into(), lines: vec![line.into()], ..StackLog::default() };
            report.sections.host = Some(Section::read(Host { stack_log: Some(log), ..Host::default() }, Vec::new()));
            let kubernetes = KubernetesFacts::default();
            let reason = of_log(&Node::new(&report, &kubernetes), &pod, "driver").expect("a reason");
            let text = reason.action.expect("an action").1;
            assert_eq!(text.contains("placeholder"), placeholder, "{text}");
            assert_eq!(text.contains("name resolution"), !placeholder, "{text}");
        }
    }

    #[test]
    fn a_reason_is_told_before_a_symptom_and_the_newest_of_equals() {
        let lines = [
            "E1 Incompatible strategy detected auto",
            "E2 Incompatible strategy detected auto",
            "I3 No devices found. Waiting indefinitely.",
        ];
        let (line, phrase) = most_telling(Component::DevicePlugin, lines).expect("an explanation");
        assert_eq!((line, phrase.id), (lines[1], "plugin-without-driver-libraries"));
        assert_eq!(most_telling(Component::Other, ["all is well"]), None);
    }
}
