//! `refusal`: refuses an action if the container of the probe was not started for actions.
//!
//! A user with exec rights chooses the arguments of a command, so `--operator` alone is not sufficient. The user cannot
//! choose the main process of the container, which is part of the pod and is checked by the admission policy.
//! Therefore, an action in the probe's container also needs a main process that was started with `--operator`. On the
//! node itself, the user is already root.
//!
//! Limits: the check shows that the pod was created for actions, not who is calling now. The admission policy decides which
//! users may exec `--operator`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use syringe_core::facts::action::Obstacle;

use crate::{files, host, paths};

/// The argument that the main process must have.
const OPERATOR: &[u8] = b"--operator";

/// Returns the reason why the probe must not act; `None` if the probe may act.
pub(super) fn refusal() -> Option<Obstacle> {
    refusal_in(Path::new("/proc"), std::process::id())
}

fn refusal_in(proc: &Path, ours: u32) -> Option<Obstacle> {
    let mounts = |pid: u32| files::link(&proc.join(format!("{pid}/ns/mnt"))).ok();
    let program =
        |pid: u32| files::metadata(&proc.join(format!("{pid}/exe"))).ok().map(|file| (file.dev(), file.ino()));
    let Some(own_mounts) = mounts(ours) else { return Some(unknown("the namespaces of the container cannot be read")) };
    if mounts(1).as_ref() == Some(&own_mounts) && paths::is_initial_pid_namespace(proc) {
        return None;
    }
    // The oldest process in the same mount namespace is the main process of the container.
    let started = |pid: u32| host::read_stat(proc, pid)?.start_ticks;
    let pids = files::pids(proc).unwrap_or_default();
    let in_container = pids.into_iter().filter(|pid| mounts(*pid).as_ref() == Some(&own_mounts));
    let Some((_, main)) = in_container.filter_map(|pid| Some((started(pid)?, pid))).min() else {
        return Some(unknown("the main process of the container cannot be found"));
    };
    let words = files::head(&proc.join(main.to_string()).join("cmdline"), files::SMALL).unwrap_or_default();
    let (Some(of_main), Some(of_us)) = (program(main), program(ours)) else {
        return Some(unknown("the program of the main process of the container cannot be read"));
    };
    // If the probe was uploaded into another image, a shell of that image can do everything that the probe can do.
    let is_allowed = of_main != of_us || words.split(|byte| *byte == 0).any(|word| word == OPERATOR);
    (!is_allowed).then(|| {
        Obstacle::new(
            "not_for_actions",
            format!("this container was not started for actions: its main process, {main}, has no --operator"),
            "Use gpu-syringe --mode operator to create the pod, or run node-probe --operator on the node itself.",
        )
    })
}

fn unknown(why: &str) -> Obstacle {
    Obstacle::new(
        "not_for_actions",
        format!("cannot determine whether this container was started for actions: {why}"),
        "Run node-probe --operator on the node itself, as root.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    /// Returns the result for a container with these processes (pid, start, program, arguments). The last process is
    /// the probe.
    fn container(pid_namespace: &str, init_mounts: &str, processes: &[(u32, u64, &str, &str)]) -> Option<String> {
        let tree = Tree::new();
        tree.link("proc/self/ns/pid", pid_namespace).link("proc/1/ns/mnt", init_mounts);
        tree.file("usr/bin/node-probe", "a").file("bin/sh", "b");
        for (pid, start, program, words) in processes {
            let stat = format!("{pid} (x) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 {start} 0 0");
            tree.file(&format!("proc/{pid}/stat"), stat).file(&format!("proc/{pid}/cmdline"), words.replace(' ', "\0"));
            if *pid != 1 {
                tree.link(&format!("proc/{pid}/ns/mnt"), "mnt:[7]");
            }
            let program = tree.path().join(program);
            tree.link(&format!("proc/{pid}/exe"), program.to_str().expect("UTF-8"));
        }
        // This process of a tenant is older than all others, and has different mounts.
        tree.file("proc/5/stat", "5 (x) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 1 0 0")
            .link("proc/5/ns/mnt", "mnt:[9]");
        tree.file("proc/5/cmdline", "node-probe\0hold\0--operator\0");
        let ours = processes.last().map_or(1, |process| process.0);
        refusal_in(&tree.path().join("proc"), ours).map(|refusal| refusal.why)
    }

    const INITIAL: &str = "pid:[4026531836]";
    const OTHER: &str = "pid:[4026532201]";
    const PROBE: &str = "usr/bin/node-probe";
    const ACT: (u32, u64, &str, &str) = (900, 200, PROBE, "node-probe --operator kill --gpu GPU-1");

    #[test]
    fn only_a_container_that_was_started_for_actions_acts() {
        for namespace in [INITIAL, OTHER] {
            let hold = |words| container(namespace, "mnt:[1]", &[(700, 100, PROBE, words), ACT]);
            assert_eq!(hold("node-probe hold --seconds 90 --operator"), None);
            assert!(hold("node-probe hold --seconds 90").expect("refused").contains("700, has no --operator"));
            assert!(hold("node-probe hold --seconds 90 --operator=x").is_some());
        }
    }

    #[test]
    fn a_second_hold_started_by_exec_changes_nothing() {
        let fake = (800, 150, PROBE, "node-probe hold --operator");
        let first = (850, 100, PROBE, "node-probe hold");
        assert!(container(INITIAL, "mnt:[1]", &[first, fake, ACT]).expect("refused").contains("850"));
    }

    #[test]
    fn the_action_may_be_the_main_process_itself() {
        assert_eq!(container(INITIAL, "mnt:[1]", &[ACT]), None);
    }

    #[test]
    fn actions_are_allowed_in_other_images_and_on_the_node_itself() {
        assert_eq!(container(INITIAL, "mnt:[1]", &[(700, 100, "bin/sh", "sleep 90"), ACT]), None);
        assert_eq!(container(INITIAL, "mnt:[7]", &[(1, 0, "bin/sh", "init"), (900, 9, PROBE, "node-probe")]), None);
        // The probe has the mounts of process 1, but not the initial PID namespace: it is in a container.
        assert!(container(OTHER, "mnt:[7]", &[(1, 0, PROBE, "node-probe hold"), ACT]).is_some());
    }

    #[test]
    fn an_unknown_main_process_is_refused() {
        let tree = Tree::new();
        tree.folder("proc");
        assert!(refusal_in(&tree.path().join("proc"), 900).expect("refused").why.contains("cannot determine"));
    }
}
