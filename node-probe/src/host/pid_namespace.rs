//! Whether process ids here are the host's.

use std::path::Path;

use crate::paths::Paths;

/// The inode number that the kernel gives to the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL: &str = "pid:[4026531836]";

/// Whether the probe sees every process of the machine. A kind node's `hostPID` is the kind node's: not the machine's.
pub(super) fn is_the_hosts(paths: &Paths) -> bool {
    is_initial(&paths.proc)
}

/// The same, of a procfs.
pub(crate) fn is_initial(proc: &Path) -> bool {
    std::fs::read_link(proc.join("self/ns/pid")).is_ok_and(|target| target.as_os_str() == INITIAL)
}
