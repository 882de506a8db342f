//! `read`: reads the end of the log of one container of NVIDIA's software for Kubernetes, from `/var/log/pods`.
//!
//! The logs of other containers cannot be read. The name of the pod must belong to this software, and the files must be
//! in the pod's own folder, or be Docker's log of one container. A pod that mounts `/var/log` of the host can create
//! links there.

use std::path::Path;
use std::sync::LazyLock;

use syringe_core::facts::stack_log::{StackLog, names_failure};
use syringe_core::probe_command::StackContainer;
use syringe_core::report::Problem;
use syringe_core::text::{clean_keeping_end, without_private_keys};
use syringe_core::tsv::list;

use crate::files;
use crate::in_root::{HostFile, Root};
use crate::paths::{Owner, Paths};

/// The kubelet's log folder. It has one folder per pod, `NAMESPACE_NAME_UID`, with one folder per container.
const PODS: &str = "/var/log/pods";

/// Parts of names of pods whose logs may be read. The word `nvidia` alone is not in this list, because names of
/// workloads also contain it.
static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| list(include_str!("data/log_pods.tsv")).collect());

/// Maximum number of bytes that are read.
const MAX_LOG: u64 = 64 * 1024;
/// Maximum number of lines: the last lines of the log, and earlier lines about failures.
const LAST: usize = 20;
const MAX_TELLING: usize = 20;
/// Maximum length of a line. The end is kept, because it has the reason of an error.
const LINE_CAP: usize = 400;
/// Maximum number of restarts whose logs are read: the kubelet keeps one or two.
const MAX_FILES: usize = 3;

/// Reads the log. If the log cannot be read, adds a problem with the reason.
pub(in crate::host) fn read(paths: &Paths, of: &StackContainer, problems: &mut Vec<Problem>) -> Option<StackLog> {
    let what = || format!("log of container {} of pod {}", of.container, of.pod_uid);
    let mut refuse = |code: &str, why: &str| {
        let next_step = "To read the log, run: kubectl logs -n NAMESPACE POD -c CONTAINER --previous";
        problems.push(files::problem(code, what(), why, next_step));
        None
    };
    if paths.owner == Owner::Workload {
        return refuse("stack_log_refused", "the probe sees the files of a workload, not the files of the node");
    }
    let Some(pods) = Root::open(&paths.host).ok().and_then(|host| Some((host.find(PODS)?, host))) else {
        return refuse("stack_log_missing", "there is no folder /var/log/pods");
    };
    let (folder, host) = pods;
    let end = format!("_{}", of.pod_uid);
    let names = folder.names().unwrap_or_default();
    let Some(pod) = names.iter().find(|name| name.ends_with(&end)) else {
        return refuse("stack_log_missing", "the pod has no logs on this node");
    };
    let name = pod.strip_suffix(&end).unwrap_or(pod).rsplit('_').next().unwrap_or_default();
    if !NAMES.iter().any(|known| name.contains(known)) {
        return refuse(
            "stack_log_refused",
            "according to its name, the pod does not belong to NVIDIA's software for Kubernetes",
        );
    }
    let logs = files_of(&host, &folder.path.join(pod), &format!("{PODS}/{pod}/{}", of.container));
    let Some((newest, _)) = logs.first() else {
        return refuse("stack_log_missing", "the container has no log on this node");
    };
    let changed_at = logs.first().and_then(|(_, file)| file.changed_at());
    let lines = last_lines(&logs);
    let lines = without_private_keys(lines.iter().map(String::as_str));
    let (before, last) = lines.split_at(lines.len().saturating_sub(LAST));
    let mut telling: Vec<&String> = before.iter().filter(|line| names_failure(line)).collect();
    telling.drain(..telling.len().saturating_sub(MAX_TELLING));
    let shown = |line: &String| clean_keeping_end(line, LINE_CAP);
    Some(StackLog {
        pod_uid: of.pod_uid.clone(),
        container: of.container.clone(),
        file: Some(newest.clone()),
        changed_at,
        lines: last.iter().map(shown).collect(),
        detail_lines: telling.into_iter().map(shown).collect(),
    })
}

/// Returns the container's log files, `3.log` before `2.log`. `own`: the real folder of the pod.
fn files_of(host: &Root, own: &Path, folder: &str) -> Vec<(String, HostFile)> {
    let names = host.find(folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    let found = numbers.into_iter().take(MAX_FILES).filter_map(|number| {
        let name = format!("{number}.log");
        let file = host.find(&format!("{folder}/{name}"))?;
        // The real path is checked, because a link may point anywhere on the host, also to the log of another pod.
        (file.path.starts_with(own) || is_dockers(&file.path)).then_some((name, file))
    });
    found.collect()
}

/// Returns whether the path has the form `…/containers/ID/ID-json.log`, the target of Docker's links.
fn is_dockers(path: &Path) -> bool {
    let mut parts = path.iter().rev().filter_map(|part| part.to_str());
    let (Some(file), Some(id), Some("containers")) = (parts.next(), parts.next(), parts.next()) else { return false };
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id && file.strip_suffix("-json.log") == Some(id)
}

/// Returns the last lines of the newest file and, if that file is short, of the older files.
fn last_lines(logs: &[(String, HostFile)]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut left = MAX_LOG;
    for (_, file) in logs {
        let Ok((data, cut)) = file.tail(left) else { break };
        left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
        let text = String::from_utf8_lossy(&data);
        // The first line may be incomplete.
        let whole = if cut { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
        let mut of_file = messages(whole);
        of_file.append(&mut lines);
        lines = of_file;
        if left == 0 || lines.len() >= LAST {
            break;
        }
    }
    lines
}

/// Returns the lines of the program, without the format of the runtime. Parts of one line are joined.
fn messages(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let (message, partial) = message(line);
        match lines.last_mut().filter(|_| goes_on) {
            Some(last) => last.push_str(&message),
            None => lines.push(message),
        }
        goes_on = partial;
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// Parses a line of the file: the message, and whether the next line continues it. Formats: `TIME STREAM P|F MESSAGE` (CRI),
/// Docker's JSON.
fn message(line: &str) -> (String, bool) {
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(line)
        && let (Some(serde_json::Value::String(message)), true) = (fields.get("log"), fields.contains_key("stream"))
    {
        return (message.trim_end_matches('\n').to_owned(), !message.ends_with('\n'));
    }
    let mut words = line.splitn(4, ' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some("stdout" | "stderr"), Some(tag), message) if matches!(tag, "P" | "F") => {
            (message.unwrap_or_default().to_owned(), tag == "P")
        }
        _ => (line.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const UID: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";

    fn log_of(tree: &Tree, container: &str) -> Result<StackLog, String> {
        let mut problems = Vec::new();
        let of = StackContainer { pod_uid: UID.to_owned(), container: container.to_owned() };
        read(&tree.paths(), &of, &mut problems).ok_or_else(|| problems.remove(0).code)
    }

    fn folder(pod: &str) -> String {
        format!("var/log/pods/gpu-operator_{pod}_{UID}/ctr")
    }

    fn cri(message: &str) -> String {
        format!("2026-11-21T02:31:07.123456789Z stderr F {message}\n")
    }

    #[test]
    fn the_end_of_the_newest_log_and_the_telling_lines_before_it_are_returned() {
        let tree = Tree::new();
        let mut log = cri("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service");
        log.push_str(&(0..60).map(|number| cri(&format!("line {number} password=hunter2"))).collect::<String>());
        let folder = folder("nvidia-driver-daemonset-abcde");
        tree.file(&format!("{folder}/9.log"), "old").file(&format!("{folder}/10.log"), log);
        let log = log_of(&tree, "ctr").expect("a log");
        assert_eq!((log.file.as_deref(), log.lines.len()), (Some("10.log"), 20));
        assert_eq!(log.lines.last().map(String::as_str), Some("line 59 password=[redacted]"));
        assert_eq!(log.detail_lines, ["modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"]);
    }

    #[test]
    fn a_private_key_over_several_lines_is_not_shown() {
        let tree = Tree::new();
        let body = cri("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj").repeat(60);
        let log =
            format!("{}{body}{}{}", cri("-----BEGIN PRIVATE KEY-----"), cri("-----END PRIVATE KEY-----"), cri("done"));
        tree.file(&format!("{}/0.log", folder("nvidia-driver-daemonset-abcde")), log);
        let log = log_of(&tree, "ctr").expect("a log");
        assert_eq!((log.lines, log.detail_lines), (vec!["[redacted]".to_owned(), "done".to_owned()], Vec::new()));
    }

    #[test]
    fn after_a_restart_the_log_of_the_run_before_is_read_too() {
        let tree = Tree::new();
        let folder = folder("nvidia-device-plugin-daemonset-x");
        tree.file(&format!("{folder}/0.log"), cri("it failed")).file(&format!("{folder}/1.log"), cri("it starts"));
        assert_eq!(log_of(&tree, "ctr").expect("a log").lines, ["it failed", "it starts"]);
    }

    #[test]
    fn partial_lines_are_joined_and_dockers_lines_are_read() {
        let partial = "2026-11-21T02:31:07Z stdout P one \n2026-11-21T02:31:07Z stdout F line\n";
        assert_eq!(messages(partial), ["one line"]);
        assert_eq!(messages("{\"log\":\"said\\n\",\"stream\":\"stderr\",\"time\":\"x\"}\n"), ["said"]);
        assert_eq!(messages("no frame at all\n"), ["no frame at all"]);
        let long = format!("x {}", "y".repeat(2000));
        assert_eq!(clean_keeping_end(&long, LINE_CAP).chars().count(), LINE_CAP);
    }

    #[test]
    fn logs_of_other_pods_and_files_behind_links_are_not_read() {
        let tree = Tree::new();
        let ours = folder("nvidia-driver-daemonset-abcde");
        tree.file("etc/shadow", "root:secret\n").link(&format!("{ours}/0.log"), "/etc/shadow");
        assert_eq!(log_of(&tree, "ctr"), Err("stack_log_missing".to_owned()), "the link leads out of the folder");
        tree.file(&format!("var/log/pods/ml_payroll_{}/ctr/0.log", UID.replace('0', "1")), cri("a secret"));
        let other = format!("../../ml_payroll_{}/ctr/0.log", UID.replace('0', "1"));
        tree.link(&format!("{ours}/2.log"), &other);
        assert_eq!(log_of(&tree, "ctr"), Err("stack_log_missing".to_owned()), "the link leads to another pod");
        let docker = format!("var/lib/docker/containers/{0}/{0}-json.log", "ab".repeat(32));
        tree.file(&docker, "{\"log\":\"said\\n\",\"stream\":\"stderr\"}\n")
            .link(&format!("{ours}/1.log"), &format!("/{docker}"));
        assert_eq!(log_of(&tree, "ctr").expect("Docker's link").lines, ["said"]);
        for workload in ["payroll-7c9", "nvidia-nim-llm-0", "tritonserver-nvidia-x"] {
            let theirs = Tree::new();
            theirs.file(&format!("{}/0.log", folder(workload)), cri("a secret"));
            assert_eq!(log_of(&theirs, "ctr"), Err("stack_log_refused".to_owned()), "{workload}");
        }
        assert_eq!(log_of(&tree, "other"), Err("stack_log_missing".to_owned()));
        assert_eq!(log_of(&Tree::new(), "ctr"), Err("stack_log_missing".to_owned()));
    }

    #[test]
    fn no_more_than_the_end_of_a_long_log_is_read() {
        let tree = Tree::new();
        let log: String = (0..20_000).map(|number| cri(&format!("error {number}"))).collect();
        tree.file(&format!("{}/0.log", folder("nvidia-mig-manager-x")), log);
        let log = log_of(&tree, "ctr").expect("a log");
        assert_eq!((log.lines.len(), log.detail_lines.len()), (LAST, MAX_TELLING));
        assert_eq!(log.lines.last().map(String::as_str), Some("error 19999"));
    }
}
