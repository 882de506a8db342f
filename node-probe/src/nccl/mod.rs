//! `ask`: queries the NCCL status service (RAS) of a pod twice, in a child process without privileges.
//! `run_in_child`: the code of the child process.
//!
//! The service can be queried safely since NCCL 2.29.2.
//!
//! ```text
//!   ask ─▶ child, root:    Pod (the processes) ─▶ setns to its network ─▶ Listener (a port of this pod only)
//!          child, nobody:  client ─▶ answer (JSON) ─▶ compared ─▶ standard output, at most 60 KiB ─▶ ask
//! ```
//!
//! The pod controls every byte of the answers. The child reads them after it has dropped all privileges, with little
//! memory and without access to files of the node. Only status requests are sent, to a loopback address in the network
//! namespace of the pod.

mod answer;
mod client;
mod compared;
#[cfg(any(test, fuzzing))]
#[path = "../../../fuzz/checks/nccl.rs"]
pub(crate) mod fuzzing;
mod listener;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::Resource;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use syringe_core::facts::nccl::{NOT_LISTENING, NcclRank, NcclStatus};
use syringe_core::probe_command::PodUid;
use syringe_core::report::Extent;
use syringe_core::text::clean;

use self::listener::{Network, Pod, Tables};
use crate::child_task::{ChildTask, NcclRequest};
use crate::document::millis;
use crate::paths::Paths;
use crate::{child, files, host, privileges};

/// Time limit for both answers and the pause between them. After a process has stopped, NCCL needs 2 to 5 s for the
/// first answer.
const TIME: Duration = Duration::from_secs(9);
/// Time to find the listener and to start the child.
const START_TIME: Duration = Duration::from_secs(2);
/// [`ask`] returns after this time, even if the child cannot be killed.
pub(crate) const MOST_TIME: Duration = Duration::from_millis(11_600);
/// Pause between the two answers. A rank that makes progress usually launches an operation in this time.
const PAUSE: Duration = Duration::from_secs(3);
/// Maximum address space of the child: half of the memory of the probe pod. Two answers of the maximum size need less
/// than that.
const MEMORY: u64 = 64 << 20;
/// Maximum length of a reason, and the codes of the problems that the child finds.
const MAX_WHY: usize = 300;
const CODES: [&str; 4] = [NOT_LISTENING, "nccl_not_asked", "nccl_unanswered", "nccl_second"];
/// The root directory of the child when it sends requests: it contains no device, and no file that the user `nobody`
/// may change.
const NO_FILES: &str = "/proc/self/fdinfo";
/// Maximum size of the output of the child, which [`child::output`] accepts.
const MAX_OUTPUT: usize = 60 * 1024;

/// Queries NCCL in the pod. The result always has an answer or a problem.
pub(crate) fn ask(paths: &Paths, pod_uid: &PodUid) -> NcclStatus {
    let uid = pod_uid.as_str();
    let sees_node = || host::scope(paths).is_none_or(|scope| scope.processes == Extent::Node);
    if !paths.is_saved_tree() && !sees_node() {
        return without_answer(
            uid,
            "nccl_not_visible",
            "the probe does not see the processes of the node",
            "Probe the node itself: --via pod.",
        );
    }
    let task = ChildTask::Nccl(NcclRequest {
        proc: paths.proc.clone(),
        pod_uid: uid.to_owned(),
        is_saved_tree: paths.is_saved_tree(),
    });
    let output = child::command(&task).and_then(|command| child::output(command, START_TIME + TIME));
    match output {
        Ok(output) if output.status.success() => serde_json::from_slice::<NcclStatus>(&output.stdout)
            .map(|status| NcclStatus { pod_uid: uid.to_owned(), ..checked(status) })
            .unwrap_or_else(|_| without_answer(uid, "nccl_child", "the output of the child is not readable", "")),
        Ok(output) => without_answer(uid, "nccl_child", format!("the child failed: {}", output.status), ""),
        Err(error) => without_answer(uid, "nccl_child", error, ""),
    }
}

/// Checks the output of the child, and removes texts that the child does not create: a pod could have taken control of
/// the child.
fn checked(mut status: NcclStatus) -> NcclStatus {
    let is_hex = |text: &str| text.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok());
    let is_made = |rank: &NcclRank| rank.host.is_empty() || rank.host.parse::<IpAddr>().is_ok();
    let is_kind = |kind: &String| answer::KINDS.contains(&kind.as_str());
    status.version = status.version.and_then(|version| answer::version(&version));
    status.communicators.retain(|one| {
        let ranks = one.ranks.iter().flat_map(|ranks| &ranks.examples).chain(&one.missing);
        let kinds = one.ranks.iter().flat_map(|ranks| ranks.launched.keys().chain(ranks.launched_before.keys()));
        is_hex(&one.hash) && ranks.into_iter().all(is_made) && kinds.into_iter().all(is_kind)
    });
    for one in &mut status.communicators {
        one.impossible = one.impossible.take().map(|why| clean(&why, MAX_WHY));
    }
    status.problem = status.problem.and_then(|problem| {
        let code = CODES.into_iter().find(|code| *code == problem.code).unwrap_or("nccl_child");
        without_answer("", code, problem.why, "").problem
    });
    status
}

fn without_answer(pod_uid: &str, code: &str, why: impl ToString, next_step: &str) -> NcclStatus {
    let problem = files::problem(code, "NCCL in the pod", clean(&why.to_string(), MAX_WHY), next_step);
    NcclStatus { pod_uid: pod_uid.to_owned(), problem: Some(problem), ..NcclStatus::default() }
}

/// Runs in the child: prints the answer or the problem.
pub(crate) fn run_in_child(request: &NcclRequest) -> ExitCode {
    let status = status(request).unwrap_or_else(|(code, error)| without_answer(&request.pod_uid, code, error, ""));
    match io::stdout().write_all(&fit(status)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn status(request: &NcclRequest) -> Result<NcclStatus, (&'static str, io::Error)> {
    let other = |error| ("nccl_not_asked", error);
    child::isolate().map_err(other)?;
    let pod = Pod::find(&request.proc, &request.pod_uid).map_err(other)?;
    let mut found = None;
    for network in pod.networks() {
        enter(&network, request.is_saved_tree).map_err(other)?;
        let tables = Tables::open(Path::new("/proc/thread-self/net")).map_err(other)?;
        if let Some(listener) = pod.listener(&tables).map_err(other)? {
            found = Some((listener, tables));
            break;
        }
    }
    drop(pod);
    let Some((listener, tables)) = found else {
        return Err((
            NOT_LISTENING,
            io::Error::other("no process of the pod listens on the port of NCCL's status service"),
        ));
    };
    drop_everything().map_err(other)?;
    let end = Instant::now() + TIME;
    let unanswered = |error| ("nccl_unanswered", error);
    let ask = || client::ask(listener.address, end, || listener.check(&tables));
    let before = ask().map_err(unanswered)?;
    let asked = Instant::now();
    std::thread::sleep(PAUSE.min(end.saturating_duration_since(asked)));
    let between = asked.elapsed();
    let (after, problem) = match ask() {
        Ok(after) => (Some(after), None),
        Err(error) => (None, without_answer("", "nccl_second", format!("no second answer: {error}"), "").problem),
    };
    let between_ms = after.is_some().then(|| millis(between));
    Ok(NcclStatus { between_ms, problem, ..compared::compare(&request.pod_uid, before, after) })
}

/// Enters the network namespace of the pod. Otherwise, the request would be sent to the host.
fn enter(Network { file, is_namespace }: &Network, is_saved_tree: bool) -> io::Result<()> {
    match (is_namespace, is_saved_tree) {
        (false, true) => Ok(()),
        (false, false) => Err(io::Error::other("the file of the network of the pod is not a namespace")),
        (true, _) => move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| io::Error::new(error.kind(), format!("the network namespace of the pod: {error}"))),
    }
}

/// Drops everything that is not needed for the request: privileges, files, processes and memory.
fn drop_everything() -> io::Result<()> {
    child::limit(Resource::As, MEMORY)?;
    child::limit(Resource::Fsize, 0)?;
    child::limit(Resource::Nproc, 0)?;
    privileges::drop_all_below(Some(Path::new(NO_FILES)))?;
    // The change of the user has reset these settings.
    child::end_with_parent()
}

/// Returns the JSON. Communicators are removed from the end until the JSON is short enough.
fn fit(mut status: NcclStatus) -> Vec<u8> {
    loop {
        let text = serde_json::to_vec(&status).unwrap_or_default();
        if text.len() <= MAX_OUTPUT || status.communicators.is_empty() {
            return text;
        }
        let keep = status.communicators.len() / 2;
        status.communicators_omitted += (status.communicators.len() - keep) as u64;
        status.communicators.truncate(keep);
    }
}
