//! Whether process ids here are the host's.

use std::path::Path;

/// The inode number that the kernel gives to the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL: &str = "pid:[4026531836]";

/// Whether the probe sees every process of the machine, by this procfs. A kind node's `hostPID` is the kind node's: not the
/// machine's.
pub(crate) fn is_initial(proc: &Path) -> bool {
    std::fs::read_link(proc.join("self/ns/pid")).is_ok_and(|target| target.as_os_str() == INITIAL)
}
