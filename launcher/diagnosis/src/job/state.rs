//! `explained`: creates the explanation of a job: its state, the summary, and the recommended action.

use syringe_core::classification::ActionCode;

use crate::evidence;
use crate::finding::Action;
use crate::job::compare::Comparison;
use crate::job::facts::LOADED_PERCENT;
use crate::job::nccl::Progress;
use crate::job::observe::Load;
use crate::job::suspects::{self, Found};
use crate::job::{JobExplanation, JobState, Member, Suspect, Suspicion};

/// Maximum utilization of an idle GPU.
const IDLE_PERCENT: f64 = 5.0;
/// Share of the power limit. Below this share, a GPU with high utilization hardly computes.
const LITTLE_POWER: f64 = 0.35;

/// Advice for a job with missing pods.
const FIND_OUT: &str = "Find out why the controller did not create the missing pods: its events and its status.";

/// Returns the explanation of a job.
pub(super) fn explained(
    members: &[Member],
    missing: &[u64],
    compared: Comparison,
    found: Found,
    (progress, said): (Progress, String),
) -> JobExplanation {
    let (state, doing) = state_of(members, &found, progress);
    let Comparison { compared, shared, .. } = compared;
    let Found { suspects, omitted, failed_alike, all_blame, .. } = found;
    let is_unread = |member: &&Member| {
        let pod = &member.pod;
        member.observed.is_err() && pod.node.is_some() && pod.wants_gpus && pod.phase != "Succeeded"
    };
    let unread = members.iter().filter(is_unread).count();
    let read = members.iter().filter(|member| member.observed.is_ok()).count();
    let mut parts = vec![doing];
    parts.extend(Some(said).filter(|said| !said.is_empty()));
    if !missing.is_empty() {
        let listed = missing.iter().map(|index| u32::try_from(*index).unwrap_or(u32::MAX)).collect::<Vec<_>>();
        parts.push(format!("There is no pod with index {}.", evidence::reason(&evidence::ranges(&listed))));
        parts.extend(not_created(members).map(|why| format!("Its controller could not create it: {why}.")));
    }
    if all_blame {
        parts.push("Each failed pod only reports that it lost or waited for another pod. No failed pod has an error of its own.".to_owned());
    }
    match suspects.first() {
        Some(first) => parts.push(accusation(first)),
        None if failed_alike.is_some() => {
            let words = failed_alike.as_deref().unwrap_or_default();
            parts.push(format!(
                "The failed pods ended at the same time with the same message (\"{words}\"): no pod failed first."
            ));
        }
        None if read == 0 || all_blame => {}
        None => parts.push(format!(
            "Nothing differs. Compared: {} of {}.",
            evidence::count(compared.len(), "fact"),
            evidence::count(read, "pod")
        )),
    }
    if unread > 0 {
        parts.push(format!("The nodes of {} were not read.", evidence::count(unread, "pod")));
    }
    let is_waiting = |first: &&Suspect| missing.is_empty() || !all_blame || first.because == Suspicion::Fault;
    let mut action = action_of(state, suspects.first().filter(is_waiting), missing, all_blame);
    if !missing.is_empty() && action.text == FIND_OUT && not_created(members).is_some() {
        action.text =
            "Resolve what the controller reports about the missing pods. The other pods wait for them.".to_owned();
    }
    JobExplanation { state, summary: parts.join(" "), suspects, suspects_omitted: omitted, shared, compared, action }
}

/// Returns the state of the job, and a sentence about it.
fn state_of(members: &[Member], found: &Found, progress: Progress) -> (JobState, String) {
    let all = members.len();
    let finished = members.iter().filter(|member| member.pod.phase == "Succeeded").count();
    let lost = (found.lost > 0)
        .then(|| format!("{} of {all} pods {} lost.", found.lost, if found.lost == 1 { "is" } else { "are" }));
    if found.failed > 0 || lost.is_some() {
        let failed = (found.failed > 0).then(|| format!("{} of {all} pods failed.", found.failed));
        return (JobState::Failed, failed.into_iter().chain(lost).collect::<Vec<_>>().join(" "));
    }
    if found.not_started > 0 {
        return (JobState::Starting, format!("{} of {all} pods never started.", found.not_started));
    }
    if finished == all {
        return (JobState::Finished, format!("All {all} pods ended without an error."));
    }
    let loads: Vec<Load> =
        members.iter().flat_map(|member| member.observed.iter().flat_map(|one| one.loads.iter().copied())).collect();
    let gpus = evidence::count(loads.len(), "GPU");
    let Some(percent) = median(loads.iter().map(|load| f64::from(load.percent))) else {
        return (JobState::Unknown, format!("{all} pods; the load of their GPUs was not read."));
    };
    let watts = median(loads.iter().filter_map(|load| load.watts).map(|(draw, _)| draw));
    let share = median(loads.iter().filter_map(|load| load.watts).map(|(draw, limit)| draw / limit));
    let power = watts.map(|watts| format!(" and {watts:.0} W")).unwrap_or_default();
    let load = format!("the median of {gpus} is {percent:.0} % utilization{power}");
    if progress == Progress::Lags {
        return (JobState::Waiting, format!("The ranks of the job wait for each other ({load})."));
    }
    if percent <= IDLE_PERCENT {
        let why = "The job waits: all its GPUs are idle";
        return (
            JobState::Waiting,
            format!("{why} ({load}). It waits for something outside of the GPUs: data, CPUs, a file server, a lock."),
        );
    }
    if progress != Progress::Moves
        && percent >= f64::from(LOADED_PERCENT)
        && share.is_some_and(|share| share < LITTLE_POWER)
    {
        let why = "which is usual if ranks wait for each other in a collective operation or have little to compute";
        return (JobState::Waiting, format!("The GPUs are in use but draw little power ({load}), {why}."));
    }
    (JobState::Computing, format!("The job computes ({load})."))
}

/// Returns why the controller of the job could not create a pod, from its newest event about that.
fn not_created(members: &[Member]) -> Option<String> {
    let events = members.iter().flat_map(|member| &member.pod.related_warnings);
    let newest = events.filter(|event| event.reason.starts_with("FailedCreate")).max_by_key(|event| event.time)?;
    Some(evidence::reason(newest.message.trim().trim_end_matches('.')))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Returns a text about the first suspect and its first fact.
fn accusation(suspect: &Suspect) -> String {
    let who = suspect.members.first().map(|member| member.in_words()).unwrap_or_default();
    let more = suspect.members.len() + suspect.members_omitted - 1;
    let others = if more > 0 { format!(" and {} like it", evidence::count(more, "pod")) } else { String::new() };
    let what = match suspect.because {
        Suspicion::NeverStarted => "never started",
        Suspicion::FailedFirst => match suspect.facts.first().map(|one| (one.fact.as_str(), one.value.as_str())) {
            Some((suspects::NODE, _)) => "was lost first",
            Some((suspects::DELETION, _)) => "was deleted first",
            Some((_, value)) if value.starts_with(suspects::WITHOUT_ERROR) => "ended first, without an error",
            _ => "failed first",
        },
        Suspicion::ProcessStopped => "has a process that is stopped, stuck or missing",
        Suspicion::Fault => "has the first fault",
        Suspicion::Slower => "has a slower device",
        Suspicion::NcclClaim => "lags, is missing or has an error, as NCCL in the job reports",
        Suspicion::Differs => "has other software or hardware",
        Suspicion::WorksDifferently => "works differently",
    };
    let fact = suspect.facts.first().map(|one| {
        let place = if one.place.is_empty() { String::new() } else { format!("{}, ", one.place) };
        let common = if one.common.is_empty() { String::new() } else { format!(", others {}", one.common) };
        format!(": {place}{} {}{common}", one.fact, one.value.trim_end_matches('.'))
    });
    let echoes = if suspect.echoes.is_empty() { String::new() } else { format!(" Echoes: {}.", suspect.echoes) };
    format!("{}{others} {what}{}.{echoes}", evidence::capitalized(&who), fact.unwrap_or_default())
}

/// Returns the recommended action for the first suspect.
fn action_of(state: JobState, suspect: Option<&Suspect>, missing: &[u64], all_blame: bool) -> Action {
    let Some((suspect, first)) = suspect.and_then(|suspect| Some((suspect, suspect.members.first()?))) else {
        let (code, text) = match state {
            _ if !missing.is_empty() => (ActionCode::Watch, FIND_OUT),
            JobState::Waiting => (
                ActionCode::FixApplication,
                "No node is the cause. Find out what all ranks wait for (the data loader, the file server, a barrier): start with the log of rank 0.",
            ),
            JobState::Failed if all_blame => (
                ActionCode::FixApplication,
                "Look for what the failed pods wait for or lost: a rank without a pod, a pod that was deleted, the network between the nodes, a service outside of the job.",
            ),
            JobState::Failed => {
                (ActionCode::FixApplication, "No pod failed alone. Read the log of one of the failed pods.")
            }
            JobState::Unknown => {
                (ActionCode::Watch, "Make the nodes readable (see the entries of unknown), and call again.")
            }
            _ => (ActionCode::None, ""),
        };
        return Action { code, text: text.to_owned() };
    };
    let node = first.node.as_deref().unwrap_or("the node");
    let pod = &first.pod;
    let of_first = suspect.facts.first();
    let is_fact = |name: &str| of_first.is_some_and(|one| one.fact == name);
    let (code, text) = match suspect.because {
        Suspicion::NeverStarted => (
            ActionCode::Watch,
            format!(
                "Find out with explain_gpu_pod why pod {pod} does not start, and let it start. The other pods wait for this pod."
            ),
        ),
        Suspicion::FailedFirst if is_fact(suspects::NODE) => (
            ActionCode::Watch,
            format!("Find out why {node} is not Ready with diagnose_gpu_node. The later failures follow from it."),
        ),
        Suspicion::FailedFirst if is_fact(suspects::DELETION) => (
            ActionCode::Watch,
            format!("Find out what deletes pod {pod} with explain_gpu_pod. The later failures follow from it."),
        ),
        Suspicion::FailedFirst if of_first.is_some_and(|one| one.value.starts_with(suspects::WITHOUT_ERROR)) => (
            ActionCode::FixApplication,
            format!(
                "Find out at the end of the log of pod {pod} why its program ended before the others. The others lost the connection to it."
            ),
        ),
        Suspicion::FailedFirst => (
            ActionCode::FixApplication,
            format!(
                "Find the reason for the failure of pod {pod} at the end of its log and with explain_gpu_pod. The later failures follow from it."
            ),
        ),
        Suspicion::ProcessStopped => (
            ActionCode::RestartPod,
            format!(
                "If the process is stopped, continue it (SIGCONT). Otherwise restart pod {pod}. If the process cannot be killed, reboot {node}."
            ),
        ),
        Suspicion::Fault => (
            ActionCode::Watch,
            format!(
                "Follow the plan of diagnose_gpu_node for {node}, and restart the job without this node. The events on other nodes that follow from it need no separate repair."
            ),
        ),
        Suspicion::Slower => (
            ActionCode::Watch,
            format!(
                "Find the cause on {node} with diagnose_gpu_node, and restart the job without this node if it cannot be repaired soon."
            ),
        ),
        Suspicion::NcclClaim => (
            ActionCode::Watch,
            format!(
                "Look at the log and the stack of the process of pod {pod}. Only the processes of the job report this, and no data from {node} confirms it. Leave the node in use."
            ),
        ),
        Suspicion::Differs => (
            ActionCode::UpdateSoftware,
            format!("Give {node} and pod {pod} the same software as the others, if the difference is not intended."),
        ),
        Suspicion::WorksDifferently => (
            ActionCode::Watch,
            format!(
                "Look at the program of pod {pod}: the log and the stack of its process. Call again: only a difference that persists counts."
            ),
        ),
    };
    Action { code, text }
}
