//! Whether process IDs of the probe are those of the host.

use std::path::Path;

use crate::files;

/// The inode number that the kernel gives to the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL: &str = "pid:[4026531836]";

/// Whether this procfs shows every process of the machine. With kind, `hostPID` gives the PID namespace of the kind node, not of the
/// machine's.
pub(crate) fn is_initial(proc: &Path) -> bool {
    files::link(&proc.join("self/ns/pid")).is_ok_and(|target| target.as_os_str() == INITIAL)
}
