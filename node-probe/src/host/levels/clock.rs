//! `read`: reads whether the clock is synchronized, and which time service runs.
//!
//! The call of `adjtimex` changes nothing.

#![allow(unsafe_code, reason = "no crate of this program offers adjtimex")]

use std::ffi::{c_int, c_uint};

use syringe_core::facts::host_levels::Clock;

use crate::host::process::daemons::{Named, TIME_SERVICES};
use crate::paths::Paths;

/// The kernel sets this flag if no time service has corrected the clock for a long time (`STA_UNSYNC`).
const UNSYNCHRONIZED: c_int = 0x40;

/// `struct timex` of 64-bit Linux up to the field `status`, and room for the rest: 208 bytes.
#[repr(C)]
struct Timex {
    /// The values to change; 0 changes nothing.
    modes: c_uint,
    offset: i64,
    frequency: i64,
    maximum_error: i64,
    estimated_error: i64,
    status: c_int,
    rest: [i64; 20],
}

unsafe extern "C" {
    fn adjtimex(buffer: *mut Timex) -> c_int;
}

/// Returns the state of the clock, and the time service that runs on the node.
pub(super) fn read(paths: &Paths, named: &[Named]) -> Option<Clock> {
    // A saved tree has no clock.
    let is_synchronized = if paths.is_saved_tree() { None } else { is_synchronized() };
    let service = named.iter().find(|process| TIME_SERVICES.contains(&process.comm) && process.is_outside_of_pods());
    let clock = Clock { is_synchronized, service: service.map(|process| process.comm.to_owned()) };
    (clock != Clock::default()).then_some(clock)
}

#[cfg(target_pointer_width = "64")]
fn is_synchronized() -> Option<bool> {
    const { assert!(size_of::<Timex>() == 208, "the size in the kernel's header") };
    let mut buffer =
        Timex { modes: 0, offset: 0, frequency: 0, maximum_error: 0, estimated_error: 0, status: 0, rest: [0; 20] };
    // SAFETY: the buffer has the size of the structure, and `modes` is 0, so the kernel only writes to the buffer.
    let state = unsafe { adjtimex(&raw mut buffer) };
    (state >= 0).then_some(buffer.status & UNSYNCHRONIZED == 0)
}

#[cfg(not(target_pointer_width = "64"))]
fn is_synchronized() -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::daemons;
    use crate::testing::Tree;

    #[test]
    fn the_kernel_answers_about_its_clock() {
        assert!(is_synchronized().is_some());
    }

    #[test]
    fn a_time_service_in_a_pod_does_not_keep_the_clock_of_the_node() {
        let tree = Tree::new();
        let pod = "0::/kubepods.slice/kubepods-pod0f8a7c2e_11aa_4bbb_8ccc_123456789abc.slice/x.scope\n";
        tree.file("proc/7/comm", "ntpd\n").file("proc/7/cgroup", pod);
        let service = || read(&tree.paths(), &daemons::read(&tree.paths()).1).and_then(|clock| clock.service);
        assert_eq!(service(), None);
        tree.file("proc/8/comm", "systemd-timesyn\n");
        tree.file("proc/8/cgroup", "0::/system.slice/systemd-timesyncd.service\n");
        assert_eq!(service().as_deref(), Some("systemd-timesyn"));
    }
}
