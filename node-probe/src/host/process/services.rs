//! `processes`: the processes of a GPU node's services. `logs`: the last starts of Fabric Manager and IMEX.
//!
//! If both the host and a driver container have a log of the same service, the newer log is read.

use syringe_core::facts::host::ServiceLog;
use syringe_core::facts::nvidia_stack::StackProcess;
use syringe_core::text::clean;

use super::daemons::{COMPUTE_DOMAIN, DAEMONS, Named, TOOLKIT};
use super::{arguments, boot_time, start_time};
use crate::bounded;
use crate::in_root::{HostFile, Root};
use crate::paths::{Owner, Paths};

/// The daemon that starts IMEX in a pod. The kernel truncates its name, and the result is also the name of
/// the kubelet plugin.
const COMPUTE_DOMAIN_DAEMON: &str = "compute-domain-daemon";

/// Maximum number of processes.
const MAX_LISTED: usize = 16;

/// Names of the logs in `/var/log`, each with the name of the service in the line about a start.
const LOGS: [(&str, &str); 2] = [("fabricmanager", "Fabric Manager version "), ("nvidia-imex", "IMEX version ")];

/// Folders of the logs: of the host, and of a driver container.
const FOLDERS: [&str; 2] = ["/var/log", "/run/nvidia/driver/var/log"];

/// Number of bytes that are read from the end of a log.
const TAIL: u64 = 64 * 1024;

/// Maximum length of a line of a log in the report.
const MAX_LINE: usize = 240;

/// Returns the daemons, the programs that start IMEX in a pod, and the toolkit, with their start times. The persistence
/// daemon has its own user. All other processes without a pod count only if they belong to root.
pub(in crate::host) fn processes(paths: &Paths, named: &[Named]) -> Vec<StackProcess> {
    let name_of = |process: &Named| match process.comm {
        COMPUTE_DOMAIN => {
            let arguments = arguments(&paths.proc, process.pid)?;
            let is_daemon =
                arguments.first().is_some_and(|program| program.rsplit('/').next() == Some(COMPUTE_DOMAIN_DAEMON));
            is_daemon.then_some(COMPUTE_DOMAIN_DAEMON)
        }
        name => (DAEMONS.contains(&name) || name == TOOLKIT).then_some(name),
    };
    let belongs = |process: &&Named| process.comm == DAEMONS[0] || process.of_node() || process.pod_uid().is_some();
    let named = named.iter().filter(belongs);
    let mut found: Vec<(&Named, &str)> = named.filter_map(|process| Some((process, name_of(process)?))).collect();
    // Processes of the node are first, because a process in a pod can choose any name.
    found.sort_by_key(|(process, _)| !process.of_node());
    bounded::cut(&mut found, MAX_LISTED, "daemons of NVIDIA");
    let boot = if found.is_empty() { None } else { boot_time(paths) };
    let described = found.into_iter().map(|(process, name)| StackProcess {
        name: name.to_owned(),
        pid: process.pid,
        pod_uid: process.pod_uid().map(|uid| clean(&uid, 64)),
        started_at: start_time(&paths.proc, boot, process.pid),
    });
    described.collect()
}

/// Returns the last start of Fabric Manager and IMEX according to their logs.
pub(in crate::host) fn logs(paths: &Paths) -> Vec<ServiceLog> {
    if paths.owner == Owner::Workload {
        return Vec::new();
    }
    let Ok(host) = Root::open(&paths.host) else { return Vec::new() };
    let log = |(service, words): (&str, &str)| {
        let files = FOLDERS.iter().filter_map(|folder| host.find(&format!("{folder}/{service}.log")));
        let file = files.max_by_key(HostFile::modified)?;
        let (data, _) = file.tail(TAIL).ok()?;
        let log = parse(&String::from_utf8_lossy(&data), words);
        Some(ServiceLog { service: service.to_owned(), written_at: file.changed_at(), ..log })
    };
    LOGS.into_iter().filter_map(log).collect()
}

/// Parses the end of a log: `[Nov 24 2026 00:11:22] [INFO] [tid 7] Fabric Manager version 570.124.06 is running with …`.
fn parse(text: &str, words: &str) -> ServiceLog {
    let mut log = ServiceLog::default();
    let mut days: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once(words).filter(|(_, rest)| rest.contains(" is running with")) {
            log.version =
                rest.split(' ').next().map(|version| clean(version, 24)).filter(|version| !version.is_empty());
            log.last_error = None;
            days.push(day_of(line).unwrap_or_default());
        } else if line.contains("[ERROR]") {
            log.last_error = Some(clean(line, MAX_LINE));
        }
    }
    let mut dated = text.lines().rev().filter_map(day_of);
    let last = dated.next().unwrap_or_default();
    let before = dated.find(|day| *day != last).unwrap_or(last);
    let of_last_days = days.into_iter().filter(|day| !day.is_empty() && (*day == last || *day == before));
    log.starts = u32::try_from(of_last_days.count()).unwrap_or(u32::MAX);
    log
}

/// Returns the date at the start of a line: `Nov 24 2026`.
fn day_of(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split_once(']')?.0.rsplit_once(' ').map(|(day, _)| day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::daemons;
    use crate::testing::Tree;

    const POD: &str = "0::/kubepods.slice/kubepods-pod0f8a7c2e_11aa_4bbb_8ccc_123456789abc.slice/x.scope\n";

    #[test]
    fn two_imex_daemons_are_told_apart_by_their_pods() {
        let tree = Tree::new();
        tree.file("proc/stat", "btime 1763688000\n");
        let process = |pid: u32, comm: &str, cgroup: &str| {
            tree.file(&format!("proc/{pid}/comm"), format!("{comm}\n")).file(&format!("proc/{pid}/cgroup"), cgroup);
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0");
            tree.file(&format!("proc/{pid}/stat"), stat);
        };
        process(70, "nvidia-imex", POD);
        process(71, "compute-domain-", POD);
        process(72, "compute-domain-", POD);
        process(80, "nvidia-imex", "0::/system.slice/nvidia-imex.service\n");
        process(81, "nvidia-device-p", POD);
        tree.file("proc/71/cmdline", "/usr/bin/compute-domain-daemon\0run\0");
        tree.file("proc/72/cmdline", "compute-domain-kubelet-plugin\0-v=4\0");
        let found = processes(&tree.paths(), &daemons::read(&tree.paths()).1);
        let short: Vec<(&str, u32, bool)> =
            found.iter().map(|one| (one.name.as_str(), one.pid, one.pod_uid.is_some())).collect();
        assert_eq!(short, [("nvidia-imex", 80, false), ("nvidia-imex", 70, true), ("compute-domain-daemon", 71, true)]);
        assert_eq!(found[0].started_at.map(|at| at.to_string()).as_deref(), Some("2025-11-21T01:22:03.45Z"));
    }

    #[test]
    fn the_last_start_of_a_log_counts() {
        let start = |day: &str, version: &str| {
            format!(
                "[{day} 10:00:00] [INFO] [tid 7] Fabric Manager version {version} is running with the following configuration options\n"
            )
        };
        let text = format!(
            "Fabric Manager Log initializing at: 11/20/2026 10:00:00.1\n{}{}[Nov 23 2026 10:00:01] [ERROR] [tid 7] old\n{}\
             [Nov 24 2026 10:00:01] [ERROR] [tid 7] fabric manager version 570.1 doesn't match\u{1b}[2J driver version 570.2\n",
            start("Nov 20 2026", "570.0"),
            start("Nov 23 2026", "570.0"),
            start("Nov 24 2026", "570.1"),
        );
        let log = parse(&text, LOGS[0].1);
        assert_eq!((log.version.as_deref(), log.starts), (Some("570.1"), 2));
        let error = log.last_error.expect("an error");
        assert!(error.contains("doesn't match [2J driver version 570.2"), "{error}");
        for rubbish in ["", "[]", "[ERROR]", "Fabric Manager version  is running with", "] [\n[x] [y\n"] {
            assert_eq!((parse(rubbish, LOGS[0].1).version, parse(rubbish, LOGS[0].1).starts), (None, 0), "{rubbish:?}");
        }
    }

    #[test]
    fn a_log_is_read_from_its_end_and_not_for_a_workload() {
        let tree = Tree::new();
        let line = "[Apr 22 2025 00:14:21] [INFO] [tid 43] IMEX version 570.133.20 is running with the following configuration options\n";
        tree.file("var/log/nvidia-imex.log", format!("{}{line}", "x".repeat(200_000)));
        let found = logs(&tree.paths());
        assert_eq!(
            found.iter().map(|log| (log.service.as_str(), log.version.as_deref())).collect::<Vec<_>>(),
            [("nvidia-imex", Some("570.133.20"))]
        );
        assert!(found[0].written_at.is_some());
        tree.file("run/nvidia/driver/var/log/nvidia-imex.log", line.replace("570.133.20", "580.65.06"));
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        let newer = tree.path().join("run/nvidia/driver/var/log/nvidia-imex.log");
        std::fs::File::open(newer).and_then(|file| file.set_modified(later)).expect("a time");
        assert_eq!(logs(&tree.paths())[0].version.as_deref(), Some("580.65.06"));
        assert_eq!(logs(&Paths { owner: Owner::Workload, ..tree.paths() }), []);
    }
}
