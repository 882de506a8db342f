//! `said_by_the_program`: explains a program by its known message (of CUDA, NVML, NCCL or a loader).
//! `child_killed`, `child_crashed`: explain a program whose child process was ended by a signal.
//! `before_its_end`: the severe errors of its GPUs long before its end, or of another process.
//!
//! A program can report a wrong cause, so the cause is likely, not certain. A finding about the GPU or the node gives
//! the reason.

use crate::explanation::causes::{
    Case, REQUEST_A_GPU, claims, cuda_versions, end_quote, finding_quote, injection, is_fault, memory, process, quotes,
};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::finding::{Action, Finding};
use crate::messages::ending;
use crate::messages::phrases::{self, Part, Phrase};
use crate::messages::{child_signals, cuda_errors};
use jiff::SignedDuration;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::pod::Termination;
use syringe_core::kernel_log::event_meaning;
use syringe_core::pci::PciAddress;
use syringe_core::report::Section;

/// Number of evidence lines that are quoted from a finding.
const FINDING_LINES: usize = 2;

/// Names of GPU software. A message with such a name that is not in the table may be about the GPU or the node.
const GPU_SOFTWARE: [&str; 9] = ["cuda", "nvml", "nvidia", "nccl", "cudnn", "cublas", "nvlink", "nvswitch", "xid"];

/// Returns whether a message is about GPU software.
pub(crate) fn speaks_of_gpus(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    GPU_SOFTWARE.iter().any(|word| message.contains(word))
}

/// Explains a program that ended with a known message.
pub(crate) fn said_by_the_program(case: &Case<'_>) -> Option<Explanation> {
    let end = case.failed().filter(|end| !end.never_ran() && end.reason != "OOMKilled")?;
    // When a program is asked to stop, its shutdown often causes errors in its log. Frameworks end their own processes
    // with SIGKILL after an error. In that case, no other sender of the signal is known.
    let asked = end.exit_code == 143 || end.exit_code == 137 && process::is_killed_by_another(case, &end);
    // If an exception of the program itself ended it, the program had handled the errors that it logged before.
    let has_ended = asked || ending::is_own_exception(end.message);
    let in_log = case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node()).filter(|_| !has_ended);
    let in_log = if end.exit_code == 137 { ending::after_last_work(in_log) } else { in_log.collect() };
    let in_log = ending::deciding(in_log.into_iter());
    let deciding = ending::deciding(end.message.lines()).join("\n");
    let of_log = in_log.iter().rev().map(|line| (*line, Certainty::Possible));
    let texts = std::iter::once((deciding.as_str(), Certainty::Likely)).chain(of_log);
    let known = |(text, certainty)| Some((phrases::known(Part::Program, text)?, text, certainty));
    let mut known = texts.filter_map(known).peekable();
    let last = known.peek().copied();
    let (phrase, text, certainty) = known.find(|(phrase, ..)| !phrase.is_consequence).or(last)?;
    let (phrase, text, certainty) = of_cuda(case, &end, phrase).unwrap_or((phrase, text, certainty));
    if let Some(elsewhere) = about_another_place(case, phrase, text) {
        return Some(elsewhere);
    }
    let finding = finding_behind(case, phrase, text);
    let advice = || match (phrase.often, finding) {
        (Some(_), None) => phrase.advice_for(text, case.node),
        _ => phrase.advice(case.node),
    };
    let past = phrase.is_about_present_driver() && finding.is_none() && case.driver_works();
    // The driver worked before the container started, too: the container did not get it.
    let not_given = past && driver_was_loaded_before(case, &end);
    let past = past && !not_given;
    // CUDA reports the same error if it finds no driver at all.
    let not_added = Some(()).filter(|()| phrase.is_about_old_driver() && !text.contains(FOUND) && case.driver_works());
    let not_added = not_added.and_then(|()| injection::other_handler(case));
    let undecided = phrase.cause == Cause::Unknown && finding.is_none();
    let lost = if undecided { lost_with_its_end(case, &end) } else { Vec::new() };
    let elsewhere = if phrase.is_about_other_ranks() { on_other_gpus(case, &end) } else { lost.clone() };
    let container = end.container;
    let why = finding.map(|finding| format!(" ({})", finding.headline())).unwrap_or_default();
    let without = requests_none(case, phrase);
    let lacks_gpu = phrase.is_about_injection() || phrase.finds_no_gpu() || injection::finds_no_gpu(text);
    let holder = injection::requested_by_other(case).filter(|_| !without && lacks_gpu);
    let of_library = injection::capability_of_library(text).is_some();
    let hidden = injection::hiding_variable(case, text)
        .filter(|_| !without && holder.is_none() && (phrase.is_about_injection() || of_library));
    let hidden = hidden.or_else(|| injection::limiting_variable(case).filter(|_| phrase.is_about_number_of_gpus()));
    let own_fault = fault_of_its_code(case, &end)
        .filter(|_| phrase.cause == Cause::Unknown && finding.is_none() && text.to_ascii_lowercase().contains("cuda"));
    let is_its_own = hidden.is_some() || holder.is_some() || own_fault.is_some();
    let cause = match (is_its_own, lost.is_empty()) {
        (true, _) => Cause::Application,
        (false, false) => Cause::Gpu,
        (false, true) => cause_of(case, phrase, finding),
    };
    let newer = newer_on_node(case, phrase, text);
    let cause = if newer.is_some() { Cause::Application } else { cause };
    let note = match (without, holder, past, elsewhere.is_empty()) {
        (true, ..) => "; the pod requests no GPU".to_owned(),
        (_, Some(holder), ..) => {
            format!("; this container requests no GPU, but container {holder} of the pod requests the GPU")
        }
        (_, _, true, _) => "; the driver of its node works now".to_owned(),
        _ if not_given => "; the driver of its node has worked since before the container started".to_owned(),
        _ if newer.is_some() => String::new(),
        (_, _, _, false) if !lost.is_empty() => "; a GPU of its node failed when it ended".to_owned(),
        (_, _, _, false) => "; another GPU or an NVSwitch of its node failed before".to_owned(),
        _ => own_fault.as_ref().map(|words| format!("; {words}")).unwrap_or_default(),
    };
    let mesh = sidecar(case).filter(|_| phrase.is_about_connections());
    let mesh_note = mesh.map(|name| {
        format!("; its sidecar {name} belongs to a service mesh, which intercepts the connections of the pod")
    });
    let mesh_note = mesh_note.unwrap_or_default();
    let shown = phrase.often.filter(|_| finding.is_none() && injection::is_shown(case));
    let why = if holder.is_some() { String::new() } else { why };
    let shown = match &hidden {
        _ if holder.is_some() => String::new(),
        Some(variable) => format!(", and its specification sets {variable}"),
        None => shown.map(|often| format!(": {often}")).unwrap_or_default(),
    };
    let meaning = match &not_added {
        Some(_) => "it finds no driver, or a driver that is too old for it (error 35)".to_owned(),
        None => newer.clone().unwrap_or_else(|| phrase.meaning(text)),
    };
    let what = format!("container {container}: {meaning}{shown}{why}{note}{mesh_note}");
    let quoted = (!std::ptr::eq(text, deciding.as_str())).then(|| format!("log of container {container}: {text}"));
    let finding_lines = finding.into_iter().flat_map(|finding| {
        std::iter::once(finding_quote(finding)).chain(finding.evidence.iter().take(FINDING_LINES).cloned())
    });
    let mut explanation = case
        .explain(cause, certainty, what)
        .with_evidence(end_quote(case))
        .with_evidence(quoted)
        .with_evidence(finding_lines)
        .with_evidence(quotes(&elsewhere).into_iter().map(|line| format!("elsewhere on its node: {line}")))
        .with_evidence(before_its_end(case))
        .with_action(phrase.code, advice());
    // A message is often about a value in the specification of the container.
    let told = format!("{text} {}", phrase.action);
    let settings = if finding.is_none() { injection::settings_named_in(case, &told) } else { Vec::new() };
    let requested = Some(case.pod.gpus_requested).filter(|count| *count > 0 && phrase.is_about_number_of_gpus());
    let facts = requested.map(|count| format!("the pod requests {count} GPUs")).into_iter();
    let facts =
        facts.chain(settings.iter().filter(|_| hidden.is_none()).map(|set| format!("its specification sets {set}")));
    let facts: Vec<String> = facts.collect();
    if !facts.is_empty() {
        explanation.summary = format!("{}; {}.", explanation.summary.trim_end_matches('.'), facts.join("; "));
    }
    let others = if phrase.is_about_gpu_memory() && finding.is_none() { memory::of_others(case) } else { Vec::new() };
    if let Some(first) = others.first() {
        explanation.summary = format!("{}; {first}.", explanation.summary.trim_end_matches('.'));
        let advice = format!(
            "End {} if it has no GPU allocated (such a program sees all GPUs with NVIDIA_VISIBLE_DEVICES=all or as a privileged container); \
             programs that share the GPU on purpose each need a limit of their share. {}",
            if others.len() == 1 { "this process" } else { "each of these processes" },
            advice()
        );
        explanation = explanation.with_evidence(others).with_action(phrase.code, advice);
    }
    if let Some(mig) = mig_permission(case, text) {
        explanation.summary = format!("{}; {mig}.", explanation.summary.trim_end_matches('.'));
        let advice = format!(
            "Let the container see the MIG instances. Set NVIDIA_MIG_MONITOR_DEVICES=all and add the capability \
             SYS_ADMIN, or make the container privileged (the manifests and charts of the device plugin and of DCGM \
             have both for nodes with MIG). Or give the container the devices in /dev/nvidia-caps. {}",
            advice()
        );
        explanation = explanation.with_action(phrase.code, advice);
    } else if let Some(name) = mesh {
        explanation = explanation.with_action(
            phrase.code,
            format!(
                "Keep the sidecar {name} out of the pods of the job (Istio: annotation sidecar.istio.io/inject: \"false\"; Linkerd: \
                 linkerd.io/inject: disabled), or exclude the ports of NCCL and the rendezvous. {}",
                advice()
            ),
        );
    } else if without {
        explanation = explanation.with_action(ActionCode::ChangeRequest, REQUEST_A_GPU);
    } else if let Some(holder) = holder {
        let advice = format!(
            "Request the GPU in the limits of container {container} (nvidia.com/gpu: 1), which uses the GPU, and not \
             in the limits of {holder}. A GPU belongs to the container that requests it, not to the pod."
        );
        explanation = explanation.with_action(ActionCode::ChangeRequest, advice);
    } else if let Some(variable) = hidden {
        let usual = if of_library { format!(" {}", advice()) } else { String::new() };
        let advice = format!(
            "Remove {variable} from the specification of container {container}, or correct its value: with this value, the program does \
             not get the GPU or the part of the driver that it needs.{usual}"
        );
        explanation = explanation.with_action(ActionCode::FixApplication, advice);
    } else if newer.is_some() {
        explanation = explanation.with_action(
            ActionCode::FixApplication,
            "Remove libcuda and the folder cuda-compat from the library path of the image (LD_LIBRARY_PATH, ld.so.conf): the program loads \
             a libcuda that is not the one of the node's driver.",
        );
    } else if let Some(finding) = finding {
        explanation.action = case.action_for(finding);
    } else if own_fault.is_some() {
        explanation = explanation.with_evidence(quotes(&case.own_xids(&[Class::Application]))).with_action(
            ActionCode::FixApplication,
            "Debug the program (compute-sanitizer, CUDA_LAUNCH_BLOCKING=1). The GPU can stay in service.",
        );
    } else if let Some(why) = not_added {
        let code = ActionCode::FixApplication;
        explanation = Explanation { cause: Cause::Application, ..explanation.with_action(code, why) };
    } else if not_given {
        let advice = format!(
            "Find out why the container does not use the driver of {}: runtimeClassName or CDI, the devices that the kubelet allocated, \
             NVIDIA_VISIBLE_DEVICES and NVIDIA_DRIVER_CAPABILITIES, and driver libraries in its image.",
            case.node
        );
        explanation = explanation.with_action(ActionCode::FixApplication, advice);
    } else if past {
        explanation = explanation.with_action(ActionCode::RestartPod, restart_now(case));
    } else if let Some(plan) = plan_elsewhere(case, &elsewhere) {
        // The next pod of the job gets GPUs of the same board.
        let text = format!("{} Then: {}", plan.text, advice());
        explanation = explanation.with_action(plan.code, text);
    }
    Some(explanation)
}

/// Returns a text that MIG is enabled on the node, if NVML or CUDA denied a request. The MIG devices of a GPU need
/// their own permissions.
fn mig_permission(case: &Case<'_>, text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let is_denied =
        ["insufficient permissions", "no_permission", "not_permitted"].iter().any(|words| text.contains(words));
    let mig = Section::data_of(&case.report.filter(|_| is_denied)?.sections.mig)?;
    let is_on = |gpu: &&syringe_core::facts::mig::GpuMig| gpu.mode.as_ref().is_some_and(|mode| mode.current);
    let count = mig.gpus.iter().filter(is_on).count();
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| {
        format!("MIG is on for {count} GPU{plural} of {}: the driver lets a container read MIG devices only with a permission for them", case.node)
    })
}

/// Returns whether the driver was loaded before the container started.
fn driver_was_loaded_before(case: &Case<'_>, end: &Termination<'_>) -> bool {
    case.driver_loaded().zip(end.started).is_some_and(|(loaded, started)| loaded < started)
}

/// Words before the CUDA version that a program found in its driver library: `found version 12040`.
const FOUND: &str = "found version ";

/// Returns a text if a program found an older CUDA version in its driver library than the driver of its node offers.
fn newer_on_node(case: &Case<'_>, phrase: &Phrase, text: &str) -> Option<String> {
    let (_, rest) = text.split_once(FOUND).filter(|_| phrase.is_about_old_driver())?;
    let digits = rest.split(|next: char| !next.is_ascii_digit()).next()?;
    let number: u32 = digits.parse().ok()?;
    let found = (number / 1000, number % 1000 / 10);
    let inventory = Section::data_of(&case.report?.sections.inventory)?;
    let offered = inventory.cuda_version.as_deref()?;
    (cuda_versions::version(offered)? > found).then(|| {
        format!(
            "it loads a libcuda of CUDA {}.{}, which is older than the driver of its node (CUDA {offered})",
            found.0, found.1
        )
    })
}

/// Maximum time between an Xid and the end of the program that caused the Xid.
const WITH_ITS_END: SignedDuration = SignedDuration::from_secs(10);

/// Returns a text if the driver reported a fault of the program's own GPU code when the program ended, and no other
/// fault.
fn fault_of_its_code(case: &Case<'_>, end: &Termination<'_>) -> Option<String> {
    let faults: Vec<&KernelEvent> = case.on_node.own_events.iter().filter(|event| is_fault(event)).collect();
    let own = case.own_xids(&[Class::Application]);
    let at_end = |event: &&KernelEvent| {
        let apart = event.last.zip(end.finished).map(|(last, end)| end.duration_since(last).abs());
        apart.is_some_and(|apart| apart <= WITH_ITS_END)
    };
    let first = own.iter().find(|event| at_end(event))?;
    let only = faults.iter().all(|fault| own.iter().any(|event| std::ptr::eq(*event, *fault)));
    let code = first.code?;
    (only && !case.may_be_of_others(&own)).then(|| {
        format!("when it ended, the driver reported Xid {code} on its GPU, which the program itself causes, and no other fault of the GPU")
    })
}

/// Explains a program whose message is about a GPU or node elsewhere: on another node of its job, or of another rank.
fn about_another_place(case: &Case<'_>, phrase: &Phrase, text: &str) -> Option<Explanation> {
    let hostname = case.report.and_then(|report| report.hostname.as_deref()).unwrap_or(case.node);
    let place = ending::other_place(text, &[case.node, hostname, &case.pod.name])?;
    if !matches!(phrase.cause, Cause::Gpu | Cause::Node) {
        return None;
    }
    let container = case.failed()?.container;
    let what = format!(
        "container {container}: its message is about {place}, and not about its own node: {}",
        phrase.meaning(text)
    );
    let advice =
        format!("Diagnose the node of {place}, and look for the rank that failed first. This program only reports it.");
    Some(
        case.explain(Cause::Unknown, Certainty::Likely, what)
            .with_evidence(end_quote(case))
            .with_evidence(before_its_end(case))
            .with_action(ActionCode::Watch, advice),
    )
}

/// Returns the last CUDA error in the messages of a program that finds no GPU. Frameworks report this error as a
/// warning, and end with a general message.
fn of_cuda<'c>(
    case: &'c Case<'_>,
    end: &Termination<'c>,
    phrase: &Phrase,
) -> Option<(&'static Phrase, &'c str, Certainty)> {
    let in_log = case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
    let in_log = in_log.map(|line| (line, Certainty::Possible));
    let lines = in_log.chain(end.message.lines().map(|line| (line, Certainty::Likely)));
    let lines: Vec<_> = lines.filter(|(line, _)| phrase.finds_no_gpu() && cuda_errors::is_about_one(line)).collect();
    let known = |(line, certainty)| Some((phrases::known(Part::Program, line)?, line, certainty));
    lines.into_iter().rev().filter_map(known).find(|(phrase, ..)| !phrase.finds_no_gpu())
}

/// Explains a program whose child process the kernel ended with SIGKILL or SIGBUS. Errors of other processes in the log
/// are consequences.
pub(crate) fn child_killed(case: &Case<'_>) -> Option<Explanation> {
    child_ended(case, &["SIGKILL", "SIGBUS"])
}

/// Explains a program whose child process crashed.
pub(crate) fn child_crashed(case: &Case<'_>) -> Option<Explanation> {
    child_ended(case, &["SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGSYS"])
}

fn child_ended(case: &Case<'_>, signals: &[&str]) -> Option<Explanation> {
    let end = case.failed().filter(|end| !end.never_ran() && !matches!(end.exit_code, 137 | 143))?;
    let in_log = case.pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
    let lines: Vec<&str> = in_log.chain(end.message.lines()).map(str::trim).collect();
    let child = child_signals::read(&lines).filter(|child| signals.contains(&child.name))?;
    // The message of the program is more exact than the message of its launcher.
    let known =
        |line: &&str| phrases::known(Part::Program, line).is_some_and(|phrase| phrase.code == ActionCode::FixLimits);
    if lines.iter().any(known) {
        return None;
    }
    let has_kill = case.on_node.own_events.iter().any(|event| event.kind == KernelEventKind::OomKill);
    let no_kill = case.on_node.log_covers && !case.unread && !has_kill;
    let (cause, code, why, advice) = match child.name {
        "SIGKILL" if no_kill => (
            Cause::Unknown,
            ActionCode::Watch,
            "and the kernel log of this time has no OOM kill, so another process sent the signal",
            "Find out who ended this process: the launcher after an error of another rank (its first error is earlier in the log), a person, or a \
             scheduler of the job.",
        ),
        "SIGKILL" => (
            Cause::Application,
            ActionCode::FixLimits,
            "mostly because the host memory of the container was used up",
            "Compare the memory use of the pod with its memory limit. Raise the limit, or use fewer or smaller data \
             loader workers. A kernel line about the OOM killer (analyze_xid_errors for {node}) proves this cause.",
        ),
        "SIGBUS" => (
            Cause::Application,
            ActionCode::FixLimits,
            "mostly because /dev/shm of the container is full",
            "Mount an emptyDir with medium Memory and a sizeLimit at /dev/shm, or use fewer data loader workers.",
        ),
        "SIGABRT" => (
            Cause::Unknown,
            ActionCode::Watch,
            "the process or one of its libraries ended the process after an error",
            "Find the last lines of this rank in the complete log. Look for a message of the NCCL watchdog, a failed assertion, or a C++ exception.",
        ),
        "SIGILL" => (
            Cause::Application,
            ActionCode::FixApplication,
            "its code uses instructions that the processor does not have",
            "Use a build for the processor of {node}.",
        ),
        _ => (
            Cause::Unknown,
            ActionCode::Watch,
            "it crashed in native code",
            "Run the program with PYTHONFAULTHANDLER=1 to see where it crashes. Check that the libraries of its image match.",
        ),
    };
    let rank = child.rank.map(|rank| format!(" of rank {rank}")).unwrap_or_default();
    let container = end.container;
    let what = format!("container {container}: its process{rank} was ended by {}, {why}", child.name);
    Some(
        case.explain(cause, Certainty::Likely, what)
            .with_evidence(end_quote(case))
            .with_evidence([format!("log of container {container}: {}", child.line)])
            .with_evidence(before_its_end(case))
            .with_action(code, advice.replace("{node}", case.node)),
    )
}

/// Names of the containers that service meshes add to pods.
const SIDECARS: [&str; 5] = ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "envoy-sidecar", "consul-dataplane"];

/// Returns the container of the pod that belongs to a service mesh.
fn sidecar<'c>(case: &'c Case<'_>) -> Option<&'c str> {
    let names = case.pod.containers.iter().map(|container| container.name.as_str());
    names.into_iter().find(|name| SIDECARS.contains(name))
}

/// Returns whether the message is about a GPU or driver that the pod did not request.
fn requests_none(case: &Case<'_>, phrase: &Phrase) -> bool {
    case.asks_for_no_gpu() && matches!(phrase.cause, Cause::Node | Cause::Gpu)
}

fn cause_of(case: &Case<'_>, phrase: &Phrase, finding: Option<&Finding>) -> Cause {
    let of_gpu = |finding: &Finding| {
        // A network port near the GPU is a part of the node.
        let is_port = finding.id.starts_with("rdma-port-");
        let hardware = matches!(finding.class, Class::Hardware | Class::Fabric) && !is_port;
        hardware && finding.addresses.iter().any(|address| case.on_node.addresses.contains(address))
    };
    match (phrase.cause, finding) {
        _ if requests_none(case, phrase) => Cause::Application,
        // NVIDIA's software is not an application, so its failure is a fault of the node.
        (Cause::Application, None) if case.pod.is_gpu_stack => Cause::Node,
        (Cause::Application, Some(finding)) if finding.scope.pod_uid.as_ref() != Some(&case.pod.uid) => Cause::Node,
        (Cause::Node | Cause::Unknown, Some(finding)) if of_gpu(finding) => Cause::Gpu,
        (Cause::Unknown, Some(finding)) if finding.class == Class::Driver || finding.id.starts_with("rdma-port-") => {
            Cause::Node
        }
        (cause, _) => cause,
    }
}

/// Returns the action if the driver works now, although the message reports a fault of the driver.
pub(super) fn restart_now(case: &Case<'_>) -> String {
    format!(
        "Restart the pod: the driver of {} is loaded, and its versions agree. If the pod fails again, its image or RuntimeClass gives \
         it another driver library.",
        case.node
    )
}

/// Returns the severe errors of the pod's GPUs that occurred long before the pod's end, or in another process.
pub(super) fn before_its_end(case: &Case<'_>) -> Vec<String> {
    let lines = quotes(&case.without_effect());
    lines.into_iter().map(|line| format!("{line}; nothing shows that it ended the program")).collect()
}

/// If another GPU failed within this time before the end of a rank, the failure may be the reason.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);

/// Returns the severe errors of other GPUs of the node that occurred shortly before a program reported that another
/// rank did not respond.
fn on_other_gpus<'c>(case: &'c Case<'_>, end: &Termination<'_>) -> Vec<&'c KernelEvent> {
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid));
    let before = |event: &&KernelEvent| {
        let gap = end.finished.zip(event.last).map(|(finished, last)| finished.duration_since(last));
        gap.is_some_and(|gap| gap <= BEFORE && gap >= -BEFORE / 60)
    };
    let severe = |event: &&KernelEvent| {
        let meaning = event_meaning::of(event);
        is_fault(event) && meaning.is_none_or(|meaning| meaning.severity >= Severity::Critical)
    };
    let own = |event: &&KernelEvent| {
        event.pci_address.as_ref().is_none_or(|address| case.on_node.addresses.contains(address))
    };
    let events = log.into_iter().flat_map(|log| &log.events).filter(|event| event.boot_id.is_none());
    events.filter(severe).filter(before).filter(|event| !own(event)).collect()
}

/// If a GPU of the node was lost within this time before the end of a program, the loss ended the program.
const AT_ITS_END: SignedDuration = SignedDuration::from_secs(60);

/// Returns the losses of GPUs of the node shortly before the end of a program whose GPUs are not known any more.
fn lost_with_its_end<'c>(case: &'c Case<'_>, end: &Termination<'_>) -> Vec<&'c KernelEvent> {
    if !case.on_node.addresses.is_empty() || !case.pod.wants_gpus {
        return Vec::new();
    }
    let before = |event: &&KernelEvent| {
        let gap = end.finished.zip(event.last).map(|(finished, last)| finished.duration_since(last));
        gap.is_some_and(|gap| (-WITH_ITS_END..=AT_ITS_END).contains(&gap))
    };
    case.on_node.node_events.iter().filter(|event| event.is_off_bus()).filter(before).collect()
}

/// Returns the action of the diagnosis for a GPU or NVSwitch of the node that failed, with its name.
fn plan_elsewhere(case: &Case<'_>, events: &[&KernelEvent]) -> Option<Action> {
    let places: Vec<PciAddress> = events.iter().filter_map(|event| event.pci_address.clone()).collect();
    let about = |finding: &&Finding| finding.addresses.iter().any(|address| places.contains(address));
    let worst = case.severe_findings().filter(about).min_by_key(|finding| std::cmp::Reverse(finding.severity))?;
    let of_node = case.diagnosis?.action_for(worst, &places);
    let place = worst.addresses.first().map(|address| format!(" ({})", address.sysfs())).unwrap_or_default();
    let whose = worst.scope.gpu.map_or_else(|| "An NVSwitch".to_owned(), |index| format!("GPU {index}"));
    let text = format!("{whose}{place} of {} failed: {}. {}", case.node, worst.headline(), of_node.text);
    Some(Action { code: of_node.code, text })
}

/// Returns whether all faults in the kernel log about the devices of a finding began after the end of the failed
/// container.
fn began_after(case: &Case<'_>, finding: &Finding) -> bool {
    let Some(end) = case.failed().and_then(|end| end.finished) else { return false };
    let log = case.report.and_then(|report| Section::data_of(&report.sections.xid));
    let events = log.into_iter().flat_map(|log| &log.events).filter(|event| is_fault(event));
    let of_it = events.filter(|event| event.pci_address.as_ref().is_some_and(|at| finding.addresses.contains(at)));
    let mut starts = of_it.map(|event| event.first.or(event.last)).peekable();
    starts.peek().is_some() && starts.all(|start| start.is_some_and(|start| start.duration_since(end) > BEFORE / 60))
}

/// Returns the finding that gives the reason for the message. It is about the pod, its GPUs or its node, or about a
/// device that the message names.
fn finding_behind<'c>(case: &'c Case<'_>, phrase: &Phrase, text: &str) -> Option<&'c Finding> {
    let mut found = claims::concerns(case);
    found.retain(|finding| !began_after(case, finding));
    if phrase.is_about_gpu_memory() {
        found.retain(|finding| finding.scope.pid.is_none_or(|pid| case.holds_much_memory(pid)));
    }
    let about = |start: &&str| found.iter().find(|finding| finding.id.starts_with(*start)).copied();
    let of_row = || phrase.findings.iter().find_map(about).filter(|finding| finding.severity > Severity::Info);
    claims::named(case, text).filter(|_| phrase.cause != Cause::Application).or_else(of_row)
}
