//! Causes that the kubelet reports for a pod: failed probes (`killed_by_a_probe`), readiness (`not_ready`), the
//! sandbox, init containers, sidecars, image pulls, GPUs that are not allocated or unhealthy. For pods that the kubelet
//! rejected, see `kubelet_admission`.

use jiff::SignedDuration;

use crate::explanation::causes::{Case, event_quote, failing_part, gpu};
use crate::explanation::types::{Cause, Certainty, Explanation};
use crate::messages::phrases::{self, Part};
use crate::messages::shapes;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{ContainerState, PodEvent, Termination};
use syringe_core::text::clean;

/// Maximum time from the kubelet's decision to the end of the container. The grace period can be minutes.
const MAX_GRACE: SignedDuration = SignedDuration::from_mins(15);

/// A container younger than this is not checked, because the report may be older than the allocation of its devices.
const SETTLED: SignedDuration = SignedDuration::from_mins(1);

/// Explains a container that the kubelet killed because its liveness or startup probe failed.
pub(crate) fn killed_by_a_probe(case: &Case<'_>) -> Option<Explanation> {
    let kill = case.events(&["Killing"]).find_map(|event| Some((event, failed_probe(&event.message)?)));
    let (kill, probe) = kill?;
    let end = case.ended().filter(|end| is_about(kill, end.container))?;
    // An event long before or after the end of the container is about another termination.
    let near =
        kill.time.zip(end.finished).is_none_or(|(killed, ended)| ended.duration_since(killed).abs() <= MAX_GRACE);
    let failure = case.events(&["Unhealthy"]).find(|event| failed_probe(&event.message) == Some(probe));
    // A program on a GPU that does not work cannot respond, so the failed probe is only a consequence.
    let is_effect = || gpu::state_of_its_gpu(case).is_some() || gpu::broken_node(case).is_some();
    (near && !is_effect()).then(|| {
        let container = end.container;
        let what = format!("the kubelet killed container {container}, because its {probe} probe failed");
        if let Some(known) = failure.and_then(|event| failed_with_known_error(case, event, &what)) {
            return known;
        }
        let answer = failure.and_then(|event| answer(&event.message));
        let why = answer.map(|(meaning, _)| format!(": {meaning}")).unwrap_or_default();
        let what = format!("the kubelet killed container {container}, because its {probe} probe failed{why}");
        let first = answer.map(|(_, advice)| format!("{advice} ")).unwrap_or_default();
        let log = failing_part::where_is_log(case, container, &end.log_command(case.pod));
        let advice = match probe {
            "startup" => format!(
                "If the program was still loading (its log: {log}), give it more time: raise failureThreshold of the startup probe, or shorten the \
                 load, for example with a local copy of the model. If the program had started, compare the path and port of the probe with \
                 those of the program."
            ),
            _ => format!(
                "{first}Check in the container's log why the program did not respond ({log}). If it is only slow, add a startupProbe, or give the \
                 {probe} probe more time."
            ),
        };
        case.explain(Cause::Application, Certainty::Certain, what)
            .with_evidence([event_quote(kill)])
            .with_evidence(failure.map(event_quote))
            .with_evidence(crate::explanation::causes::end_quote(case))
            .with_action(ActionCode::FixApplication, advice)
    })
}

/// Explains a container that the kubelet stops because its postStart hook fails.
pub(crate) fn stopped_by_its_hook(case: &Case<'_>) -> Option<Explanation> {
    let event = case.events(&["FailedPostStartHook"]).next().filter(|_| case.pod.ready != Some(true))?;
    let name = event.container().map(|name| format!(" {name}")).unwrap_or_default();
    let reading = shapes::read(&event.message).filter(shapes::Reading::is_specific);
    let why =
        reading.as_ref().map_or_else(|| format!("\"{}\"", shapes::words_of(&event.message)), shapes::Reading::quoted);
    let what = format!("the kubelet stops container{name}, because its postStart hook fails: {why}");
    let repair = reading.map(|reading| format!("{} ", reading.advice(case.node))).unwrap_or_default();
    let advice = format!(
        "{repair}Correct the command of the hook (lifecycle.postStart in the specification of container{name}): it runs inside the container, and the \
         kubelet stops the container if it fails."
    );
    Some(
        case.explain(Cause::Application, Certainty::Certain, what)
            .with_evidence([event_quote(event)])
            .with_evidence(crate::explanation::causes::end_quote(case))
            .with_action(ActionCode::FixApplication, advice),
    )
}

/// Explains a container that the kubelet stopped repeatedly, because the sandbox of its pod was gone or had changed.
/// One such event is normal after a reboot of the node.
pub(crate) fn sandbox_changed(case: &Case<'_>) -> Option<Explanation> {
    let changed = case.events(&["SandboxChanged"]).find(|event| event.count > 1)?;
    let end = case.failed().filter(|end| matches!(end.exit_code, 137 | 143) && end.reason != "OOMKilled")?;
    let (container, count) = (end.container, changed.count);
    let handler = case.pod.runtime_handler.as_deref().or(case.pod.runtime_class.as_deref());
    let handler = handler.map(|handler| format!(" {handler}")).unwrap_or_default();
    let what = format!(
        "the kubelet stopped container {container}, because the sandbox of the pod was gone or had changed ({count} times)"
    );
    let text = format!(
        "Find out what ends the sandbox on {}. The cgroup drivers of the kubelet and of the handler{handler} of the \
         container runtime must be the same (containerd: SystemdCgroup = true for each handler, also for the handler \
         of NVIDIA's runtime). If they are the same, look for restarts of the runtime, and read its log.",
        case.node
    );
    Some(
        case.explain(Cause::Node, Certainty::Likely, what)
            .with_evidence([event_quote(changed)])
            .with_evidence(crate::explanation::causes::end_quote(case))
            .with_action(ActionCode::UpdateSoftware, text),
    )
}

/// Responses to a probe: phrases of the kubelet in lower case, the meaning, and the advice.
const ANSWERS: [(&[&str], &str, &str); 6] = [
    (
        &["statuscode: 404", "status code: 404"],
        "its server responds, but does not have the path of the probe (404)",
        "Use a path of the probe that this version of the program has.",
    ),
    (
        &["connection refused"],
        "nothing listens at the port of the probe",
        "Compare the port of the probe with the port of the program. While the program loads a model, nothing listens yet: use a startupProbe.",
    ),
    (
        &["deadline exceeded", "client.timeout", "i/o timeout"],
        "its server does not respond within the timeout of the probe",
        "If the program is only busy, raise timeoutSeconds of the probe. Otherwise find out what the program waits for.",
    ),
    (
        &["statuscode: 503", "status code: 503"],
        "its server responds that it is not ready (503)",
        "Read in the log whether the program still loads (a model, data) or has an error.",
    ),
    (
        &["statuscode: 401", "statuscode: 403"],
        "its server rejects the probe because it sends no credentials",
        "Use a path that needs no credentials, or send the header that the program expects (httpHeaders).",
    ),
    (
        &["server gave http response to https client", "malformed http response"],
        "the probe and its server speak different protocols (HTTP and HTTPS)",
        "Correct the scheme of the probe.",
    ),
];

/// Explains a container whose failed probe reports a known error. The command of a probe runs in the container.
fn failed_with_known_error(case: &Case<'_>, event: &PodEvent, what: &str) -> Option<Explanation> {
    let known = phrases::known(Part::Program, &event.message).filter(|phrase| phrase.cause != Cause::Unknown)?;
    let what = format!("{what}; it reports that {}", known.meaning(&event.message));
    let explained = case.explain(known.cause, Certainty::Likely, what).with_evidence([event_quote(event)]);
    Some(explained.with_action(known.code, known.advice_for(&event.message, case.node)))
}

/// Returns the meaning of the response to a failed probe, with the advice.
fn answer(message: &str) -> Option<(&'static str, &'static str)> {
    let message = message.to_ascii_lowercase();
    let row = ANSWERS.iter().find(|(words, ..)| words.iter().any(|word| message.contains(word)))?;
    Some((row.1, row.2))
}

/// Returns `liveness` or `startup` if a message is about the failure of such a probe.
fn failed_probe(message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    ["liveness", "startup"]
        .into_iter()
        .find(|probe| message.contains(&format!("{probe} probe")) && message.contains("fail"))
}

/// Returns whether an event is about this container, according to its field or its message.
fn is_about(event: &PodEvent, container: &str) -> bool {
    match event.container() {
        Some(name) => name == container,
        None => event.message.split_whitespace().any(|word| word == container),
    }
}

/// Explains a running container that requests GPUs, but has no GPU allocated by the kubelet.
pub(crate) fn no_gpu_allocated(case: &Case<'_>) -> Option<Explanation> {
    let (pod, on_node) = (case.pod, case.on_node);
    let now = case.report?.taken_at?;
    let settled = |since: Option<jiff::Timestamp>| since.is_some_and(|since| now.duration_since(since) >= SETTLED);
    let (name, _) = pod
        .running()
        .find(|(name, since)| pod.gpu_containers.iter().any(|container| container == name) && settled(*since))?;
    let none = on_node.allocations_read && on_node.allocations.is_empty() && on_node.processes.is_empty();
    (none && pod.phase == "Running").then(|| {
        let what = format!("its container {name} requests GPUs, but the kubelet has allocated no GPU to it");
        case.explain(Cause::Node, Certainty::Likely, what)
            .with_evidence([format!("the kubelet on {} has allocated no device to this pod", case.node)])
            .with_action(
                ActionCode::RestartPod,
                format!(
                    "Delete the pod, so that the kubelet of {} allocates devices to the new pod. The old pod was \
                     started while the device plugin was not registered, for example after a reboot.",
                    case.node
                ),
            )
    })
}

/// Explains a pod with a device that its device plugin reports as unhealthy, if there is no other cause.
pub(crate) fn device_unhealthy(case: &Case<'_>) -> Option<Explanation> {
    let devices = &case.pod.unhealthy_devices;
    if devices.is_empty() || case.pod.phase == "Succeeded" {
        return None;
    }
    let names = devices.join(", ");
    let node = case.node;
    Some(
        case.explain(
            Cause::Gpu,
            Certainty::Possible,
            format!("the device plugin reports one of its GPUs as unhealthy: {names}"),
        )
        .with_evidence([format!("pod status: allocatedResourcesStatus: {names} Unhealthy")])
        .with_evidence(crate::explanation::causes::end_quote(case))
        .with_plan_or(
            case.severe_plan(),
            ActionCode::Watch,
            format!("Check the Xids of that GPU (analyze_xid_errors for {node}), and the device plugin's log."),
        ),
    )
}

/// Explains a pod whose containers have not started because an init container is still running. In a Pending pod, only
/// init containers run.
pub(crate) fn waits_for_init(case: &Case<'_>) -> Option<Explanation> {
    let pod = case.pod;
    if pod.phase != "Pending" || pod.deleted.is_some() {
        return None;
    }
    let (name, since) = pod.containers.iter().rev().find_map(|container| match container.state {
        ContainerState::Running { since } => Some((&container.name, since)),
        _ => None,
    })?;
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    let what = format!(
        "the pod waits for its init container {name}, which runs{since}; its other containers have not started"
    );
    let command = format!("kubectl logs -n {} {} -c {name}", pod.namespace, pod.name);
    let logs = failing_part::where_is_log(case, name, &command);
    let conditions = pod.other_conditions.iter().filter(|condition| condition.contains(name.as_str()));
    let lines = failing_part::log_of(case, name).unwrap_or_default();
    let telling = shapes::telling_lines(lines.iter().copied());
    let known = lines.iter().rev().find_map(|line| Some((*line, phrases::known(Part::Program, line)?)));
    let reading = shapes::read_log(lines.iter().copied());
    let (cause, code, why, advice) = match (known, reading) {
        (Some((line, phrase)), _) => {
            let why = format!(": {} (\"{}\")", phrase.meaning(line), shapes::words_of(line));
            // A component of the node waits for the node, not for its own image.
            let cause = if pod.is_gpu_stack { Cause::Node } else { phrase.cause };
            (cause, phrase.code, why, phrase.advice_for(line, case.node))
        }
        (None, Some((_, reading))) => {
            let advice = format!("{} (Log of {name}: {logs}.)", reading.advice(case.node));
            (reading.cause, ActionCode::Watch, format!(": {}", reading.quoted()), advice)
        }
        (None, None) => {
            let last = telling.last().map(|line| format!(" (its log says: \"{}\")", shapes::words_of(line)));
            (
                Cause::Unknown,
                ActionCode::Watch,
                last.unwrap_or_default(),
                format!("Find out what {name} waits for: {logs}"),
            )
        }
    };
    // A container that has just started may still succeed, even if its log contains an error.
    let (cause, certainty) = if just_started(case).is_some() && cause != Cause::Unknown {
        (Cause::Unknown, Certainty::Possible)
    } else {
        (cause, Certainty::Likely)
    };
    Some(
        case.explain(cause, certainty, format!("{what}{why}"))
            .with_evidence(conditions.map(|condition| format!("condition {condition}")))
            .with_evidence(telling.into_iter().map(|line| format!("log of container {name}: {line}")))
            .with_action(code, advice),
    )
}

/// Explains a pod whose main program completed, but that keeps its GPUs because another container of the pod still
/// runs.
pub(crate) fn kept_by_a_sidecar(case: &Case<'_>) -> Option<Explanation> {
    let pod = case.pod;
    let with_gpus = || pod.containers.iter().filter(|container| pod.gpu_containers.contains(&container.name));
    let ends: Vec<_> =
        with_gpus().filter_map(|container| Termination::of(container, &container.state, false)).collect();
    let completed = !ends.is_empty() && ends.len() == with_gpus().count() && ends.iter().all(|end| end.exit_code == 0);
    let others: Vec<&str> = pod.running().map(|(name, _)| name).collect();
    if pod.phase != "Running" || pod.deleted.is_some() || !completed || others.is_empty() {
        return None;
    }
    let names = |all: &[&str]| format!("container{} {}", if all.len() == 1 { "" } else { "s" }, all.join(", "));
    let done: Vec<&str> = ends.iter().map(|end| end.container).collect();
    let at = ends.iter().filter_map(|end| end.finished).max().map(|at| format!(" at {at:.0}")).unwrap_or_default();
    let kept = names(&others);
    let what = format!(
        "{} completed{at} (exit code 0), but {kept} still runs, so the pod remains and its GPUs stay allocated",
        names(&done)
    );
    let advice = format!(
        "End {kept} in the pod (Istio: a POST to localhost:15020/quitquitquit), so that the pod completes and frees its GPUs. If the pod is deleted \
         instead, a Job runs it again. For the next pod, make {kept} a native sidecar (an init container with restartPolicy \
         Always, Kubernetes 1.29 or newer), which ends with the program."
    );
    let not_ready = pod.not_ready.as_ref().map(|why| format!("condition Ready: {why}"));
    let ended = ends.iter().map(|end| format!("container {} ended{at}: {}, exit code 0", end.container, end.reason));
    Some(
        case.explain(Cause::Application, Certainty::Certain, what)
            .with_evidence(ended)
            .with_evidence(not_ready)
            .with_action(ActionCode::FixApplication, advice),
    )
}

/// An image pull that takes longer than this is slow even for a large image.
const LONG_PULL: SignedDuration = SignedDuration::from_mins(30);

/// Explains a pod whose image is being pulled.
pub(crate) fn pulls_its_image(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase != "Pending" || case.pod.node.is_none() || case.pod.deleted.is_some() {
        return None;
    }
    let newest = case.events(&["Pulling", "Pulled"]).next().filter(|event| event.reason == "Pulling")?;
    let now = case.report.and_then(|report| report.taken_at);
    let lasts = now.zip(newest.time).map(|(now, since)| now.duration_since(since));
    let (certainty, cause, advice) = match lasts {
        Some(lasts) if lasts > LONG_PULL => (
            Certainty::Possible,
            Cause::Unknown,
            "Check the size of the image, the network between {node} and the registry, and the disk of the node: a pull rarely takes this long.",
        ),
        _ => (Certainty::Likely, Cause::None, "Wait: a large image takes some minutes."),
    };
    let since = newest.time.map(|since| format!(" since {since:.0}")).unwrap_or_default();
    let what = format!("its node pulls an image{since}: {}", clean(&newest.message, MAX_IMAGE));
    let code = if cause == Cause::None { ActionCode::None } else { ActionCode::Watch };
    Some(
        case.explain(cause, certainty, what)
            .with_evidence([event_quote(newest)])
            .with_action(code, advice.replace("{node}", case.node)),
    )
}

/// Maximum length of a message of the kubelet about an image.
const MAX_IMAGE: usize = 200;

/// A container younger than this may still be starting.
const STARTING: SignedDuration = SignedDuration::from_mins(2);

/// Returns the age of the newest container in seconds, if this is the first start of the pod: no container was
/// restarted.
fn just_started(case: &Case<'_>) -> Option<i64> {
    let now = case.report?.taken_at?;
    let newest = case.pod.running().filter_map(|(_, since)| since).max()?;
    let age = now.duration_since(newest);
    let is_first = case.pod.containers.iter().all(|container| container.restarts == 0);
    (is_first && !age.is_negative() && age < STARTING).then(|| age.as_secs())
}

/// A server that loads a large model may need this time until it responds.
const LOADING: SignedDuration = SignedDuration::from_mins(30);

/// Explains a pod whose container still starts: its startup probe fails, and the kubelet has not restarted it.
fn passes_startup_probe(case: &Case<'_>) -> Option<Explanation> {
    let failure =
        case.events(&["Unhealthy"]).next().filter(|event| event.message.starts_with("Startup probe failed"))?;
    let (_, since) =
        case.pod.running().find(|(name, _)| failure.container().is_none_or(|container| container == *name))?;
    let age = case.report?.taken_at?.duration_since(since?);
    let is_first = case.pod.containers.iter().all(|container| container.restarts == 0);
    if !is_first || age > LOADING || !failing_part::doubts_of_logs(case).is_empty() {
        return None;
    }
    let what = format!(
        "the program is still starting: its startup probe has failed {} times in {} min, and the kubelet has not restarted it",
        failure.count.max(1),
        age.as_mins()
    );
    let advice = "Wait while the program starts (a server may load its model for many minutes). The kubelet restarts \
         the container after failureThreshold failures of the startup probe. If the start takes longer, raise \
         failureThreshold.";
    Some(
        case.explain(Cause::None, Certainty::Likely, what)
            .with_evidence([event_quote(failure)])
            .with_action(ActionCode::None, advice),
    )
}

/// Words, in lower case, in the log of a program that still loads.
const LOADS: [&str; 8] =
    ["loading", "downloading", "fetching", "capturing cuda graph", "compiling", "warming up", "initializing", "it/s"];

/// Explains a pod that is not Ready because its program still loads: the container is young and was not restarted, its
/// log has no error, and the last line of the log is about loading.
fn still_loads(case: &Case<'_>, failure: Option<&PodEvent>) -> Option<Explanation> {
    let container = failure.and_then(PodEvent::container);
    let mut running = case.pod.running();
    let (name, since) = running.find(|(name, _)| container.is_none_or(|container| container == *name))?;
    let age = case.report?.taken_at?.duration_since(since?);
    let is_first = case.pod.containers.iter().all(|container| container.restarts == 0);
    let lines = failing_part::log_of(case, name)?;
    let last = lines.into_iter().rfind(|line| !line.trim().is_empty())?;
    let lower = last.to_ascii_lowercase();
    let loads = LOADS.iter().any(|word| lower.contains(word)) && !shapes::is_error(last);
    if !is_first || age > LOADING || !loads || !failing_part::doubts_of_logs(case).is_empty() {
        return None;
    }
    let what = format!(
        "the program has run for {} min and still loads: the last line of its log is \"{}\"",
        age.as_mins(),
        shapes::words_of(last)
    );
    Some(
        case.explain(Cause::None, Certainty::Likely, what)
            .with_evidence(failure.map(event_quote))
            .with_evidence([format!("log of container {name}: {last}")])
            .with_action(ActionCode::None, "Wait until the program is Ready. If the last line of its log stays the same for many minutes, explain the pod again."),
    )
}

/// Explains a pod that is running but not Ready.
pub(crate) fn not_ready(case: &Case<'_>) -> Option<Explanation> {
    if case.pod.phase != "Running" || case.pod.ready != Some(false) || case.pod.deleted.is_some() {
        return None;
    }
    let failure = case.events(&["Unhealthy"]).find(|event| event.message.to_ascii_lowercase().contains("readiness"));
    if let Some(age) = just_started(case).filter(|_| failure.is_none()) {
        let what = format!("the pod is starting: its newest container started {age} s ago, and it is not Ready yet");
        return Some(
            case.explain(Cause::None, Certainty::Likely, what)
                .with_evidence(case.pod.not_ready.as_ref().map(|why| format!("condition Ready: {why}")))
                .with_action(
                    ActionCode::None,
                    "Wait until the program has started, and explain the pod again if it does not become Ready.",
                ),
        );
    }
    if let Some(gated) = waits_for_gate(case) {
        return Some(gated);
    }
    let newest = case.events(&["Unhealthy"]).next();
    if let Some(known) = newest.and_then(|event| failed_with_known_error(case, event, "one of its probes fails")) {
        return Some(known);
    }
    if let Some(starting) = passes_startup_probe(case) {
        return Some(starting);
    }
    if let Some(loading) = still_loads(case, failure) {
        return Some(loading);
    }
    let container = failure.and_then(PodEvent::container);
    let whose = match container.filter(|_| case.pod.containers.len() > 1) {
        Some(container) => format!("the readiness probe of its container {container} fails"),
        None => "its readiness probe fails".to_owned(),
    };
    let answer = failure.and_then(|event| answer(&event.message));
    let whose = answer.map_or(whose.clone(), |(meaning, _)| format!("{whose}: {meaning}"));
    let (certainty, what) = match failure {
        Some(event) if event.count > 1 => (Certainty::Likely, format!("{whose} ({} times)", event.count)),
        Some(_) => (Certainty::Likely, whose),
        None => (Certainty::Possible, "it is running but is not Ready; the reason was not found".to_owned()),
    };
    let name = container.or_else(|| Some(case.pod.running().next()?.0)).unwrap_or_default();
    let command = format!("kubectl logs -n {} {} -c {name}", case.pod.namespace, case.pod.name);
    let logs = failing_part::where_is_log(case, name, &command);
    let doubts = failing_part::doubts_of_logs(case);
    // A known error in the log determines the cause. Any other error may be irrelevant.
    let known = doubts.iter().find_map(|doubt| Some((doubt, phrases::known(Part::Program, &doubt.message)?)));
    let known = known.filter(|(_, phrase)| phrase.cause != Cause::Unknown);
    let (cause, what) = match (known, doubts.first()) {
        (Some((doubt, phrase)), _) => (phrase.cause, format!("{what}; in its log: {}", phrase.meaning(&doubt.message))),
        (None, Some(doubt)) => {
            (Cause::Application, format!("{what}; {}: \"{}\"", doubt.source, shapes::words_of(&doubt.message)))
        }
        (None, None) if failure.is_none() => (Cause::Unknown, what),
        (None, None) => (Cause::Application, what),
    };
    let known = known.map(|(doubt, phrase)| (phrase.code, phrase.advice_for(&doubt.message, case.node)));
    Some(
        case.explain(cause, certainty, what)
            .with_evidence(case.pod.not_ready.as_ref().map(|why| format!("condition Ready: {why}")))
            .with_evidence(failure.map(event_quote))
            .with_evidence(doubts.into_iter().map(|doubt| doubt.quote))
            .with_action(
                known.as_ref().map_or(ActionCode::Watch, |(code, _)| *code),
                match (known, answer) {
                    (Some((_, advice)), _) => format!("{advice} See the log of the program ({logs})."),
                    (None, Some((_, advice))) => format!("{advice} See the log of the program ({logs})."),
                    (None, None) => {
                        format!("Check its readiness probe, and why the program does not respond ({logs}).")
                    }
                },
            ),
    )
}

/// Explains a pod that is not Ready because of a readiness gate: a condition that a controller sets.
fn waits_for_gate(case: &Case<'_>) -> Option<Explanation> {
    let why = case.pod.not_ready.as_deref().filter(|why| why.starts_with("ReadinessGatesNotReady"))?;
    let gate = why.split('"').nth(1).filter(|gate| !gate.is_empty())?;
    let condition =
        case.pod.other_conditions.iter().find(|one| one.strip_prefix(gate).is_some_and(|rest| rest.starts_with(' ')));
    let (what, advice) = match condition {
        Some(condition) => (
            format!("its containers are ready, but its readiness gate is not True: {condition}"),
            "Correct what the condition reports.".to_owned(),
        ),
        None => (
            format!("its containers are ready, but its readiness gate {gate} has no condition"),
            format!("Check that the controller that sets the condition {gate} runs, and read its log."),
        ),
    };
    let explained = case.explain(Cause::Cluster, Certainty::Certain, what);
    Some(explained.with_evidence([format!("condition Ready: {why}")]).with_action(ActionCode::Watch, advice))
}
