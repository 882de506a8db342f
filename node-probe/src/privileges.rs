//! `drop_all`: drops all privileges of this process. `drop_all_below`: also changes its root directory. `are_dropped`:
//! whether no privilege is left.
//!
//! This is needed before the process loads an NVML library of a workload or reads answers of a workload.

use std::io;
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::process::{chroot, getegid, geteuid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// ID of the user `nobody`, who owns no files.
const NOBODY: u32 = 65_534;
/// Maximum number of capabilities: the sets have 64 bits.
const MAX_CAPABILITIES: u32 = 64;

/// Changes the user of this process to `nobody` without capabilities, and without a way to get them back. Linux keeps this
/// state for each thread, so the caller must be the only thread.
///
/// # Errors
///
/// Fails if a privilege could not be dropped. The caller must then not run anything.
pub(crate) fn drop_all() -> io::Result<()> {
    drop_all_below(None)
}

/// Like [`drop_all`]. If this process is root, it also changes its root directory.
///
/// # Errors
///
/// Fails like [`drop_all`], and if the root directory could not be changed.
pub(crate) fn drop_all_below(root: Option<&Path>) -> io::Result<()> {
    // A library could make another thread run its code with that thread's privileges.
    if std::fs::read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    if let Some(root) = root.filter(|_| geteuid().is_root()) {
        chroot(root)?;
        std::env::set_current_dir("/")?;
    }
    for number in 0..MAX_CAPABILITIES {
        // Errors are ignored: the call fails if the process has no privileges, or if the kernel does not have the
        // capability.
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
    }
    let _ = clear_ambient_capability_set();
    if geteuid().is_root() || !capabilities(None)?.permitted.is_empty() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    if are_dropped() { Ok(()) } else { Err(io::Error::other("the process still has privileges")) }
}

/// Returns whether this process has no privileges, and no way to get them.
pub(crate) fn are_dropped() -> bool {
    let is_root = getuid().is_root() || geteuid().is_root() || getegid().is_root();
    let none = |CapabilitySets { effective, permitted, inheritable }| (effective | permitted | inheritable).is_empty();
    !is_root && capabilities(None).is_ok_and(none) && no_new_privs().unwrap_or(false)
}
