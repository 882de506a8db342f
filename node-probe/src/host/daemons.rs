//! Which daemons of a GPU node run. Source: `/proc/*/comm`, which the kernel cuts at 15 bytes.
//!
//! Limits: a name proves little, and outside the host's PID namespace a daemon that is not seen may still run.

use syringe_core::facts::host::Daemons;

use crate::paths::Paths;
use crate::{files, pid_namespace};

/// What was found so far.
struct Daemon {
    comm: &'static str,
    running: bool,
}

/// Looks at every process. `None` for all where `/proc` cannot be listed.
pub(super) fn read(paths: &Paths) -> Daemons {
    let daemon = |comm| Daemon { comm, running: false };
    let mut daemons = [
        daemon("nvidia-persiste"),
        daemon("nv-fabricmanage"),
        daemon("nvidia-imex"),
        daemon("nv-hostengine"),
        daemon("nvidia-cuda-mps"),
    ];
    let pids = files::pids(&paths.proc).unwrap_or_default();
    for pid in &pids {
        let Ok(comm) = files::head(&paths.proc.join(pid.to_string()).join("comm"), 32) else { continue };
        let comm = comm.trim_ascii_end();
        if let Some(daemon) = daemons.iter_mut().find(|daemon| daemon.comm.as_bytes() == comm) {
            daemon.running = true;
        }
    }
    let all_visible = !pids.is_empty() && pid_namespace::is_initial(&paths.proc);
    let [persistenced, fabric_manager, imex, dcgm, mps] =
        daemons.map(|daemon| (daemon.running || all_visible).then_some(daemon.running));
    Daemons { persistenced, fabric_manager, imex, dcgm, mps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_daemon_is_known_by_the_fifteen_bytes_that_the_kernel_keeps() {
        let tree = Tree::new();
        tree.file("proc/700/comm", "nvidia-persiste\n").file("proc/701/comm", "nv-fabricmanage\n");
        tree.file("proc/702/comm", "nvidia-imex-ctl\n").file("proc/self/comm", "nv-hostengine\n");
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        let daemons = read(&tree.paths());
        assert_eq!((daemons.persistenced, daemons.fabric_manager), (Some(true), Some(true)));
        assert_eq!((daemons.imex, daemons.dcgm, daemons.mps), (Some(false), Some(false), Some(false)));
    }

    #[test]
    fn in_another_pid_namespace_not_seen_is_not_absent() {
        let tree = Tree::new();
        tree.file("proc/1/comm", "nv-hostengine\n").link("proc/self/ns/pid", "pid:[4026532201]");
        let daemons = read(&tree.paths());
        assert_eq!((daemons.dcgm, daemons.fabric_manager), (Some(true), None));
    }
}
