//! Giving up every privilege, for code that is not the node's own.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::process::{getegid, geteuid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// `nobody`: owns nothing.
const NOBODY: u32 = 65_534;
/// Capabilities that a kernel may have: the sets have 64 bits.
const MAX_CAPABILITIES: u32 = 64;

/// Makes this process `nobody` without any capability, and without a way to get one again. Linux keeps all of this for each
/// thread, so it must be called while there is only one.
///
/// # Errors
///
/// Where anything of it could not be given up. Then nothing must be run.
pub(crate) fn drop_all() -> io::Result<()> {
    for number in 0..MAX_CAPABILITIES {
        // Refused to who has none left to give up, and for numbers that this kernel does not know.
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
    if are_dropped() { Ok(()) } else { Err(io::Error::other("privileges are left")) }
}

/// Whether this process has none, and no way to get one.
pub(crate) fn are_dropped() -> bool {
    let is_root = getuid().is_root() || geteuid().is_root() || getegid().is_root();
    let none = |CapabilitySets { effective, permitted, inheritable }| (effective | permitted | inheritable).is_empty();
    !is_root && capabilities(None).is_ok_and(none) && no_new_privs().unwrap_or(false)
}
