//! `survivor`, `why`: explain why a process does not exit: its state, and whether the kernel reports it as blocked.

use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::processes::GpuProcess;

use crate::paths::Paths;
use crate::{host, kernel_log};

/// Explains why a process did not exit.
pub(super) fn survivor(paths: &Paths, pid: u32) -> String {
    let state = host::read_stat(&paths.proc, pid).and_then(|stat| stat.state).unwrap_or_else(|| "?".to_owned());
    let why = why(paths, pid).unwrap_or("SIGKILL is pending");
    format!("The process still exists, in state {state}: {why}.")
}

/// Explains why a process in state D does not handle a signal; `None` if the process is in another state.
pub(super) fn why(paths: &Paths, pid: u32) -> Option<&'static str> {
    is_blocked(paths, pid).map(explain_wait)
}

/// Returns whether the kernel log reports a thread of a process as blocked; `None` if the process is not in state D.
fn is_blocked(paths: &Paths, pid: u32) -> Option<bool> {
    let process = host::describe(paths, pid).filter(GpuProcess::is_uninterruptible)?;
    let log = kernel_log::read(paths, &kernel_log::Options { since: None, journal: false });
    let events = log.data.map(|log| log.events).unwrap_or_default();
    let boot_id = host::identity(paths).boot_id;
    // An earlier process may have had the same pid.
    let is_of_process =
        |event: &&KernelEvent| event.boot_id == boot_id && (event.last.is_none() || event.last >= process.started_at);
    let names_task = |event: &KernelEvent| event.pid.is_some_and(|task| process.has_task(task));
    let blocked = |event: &&KernelEvent| event.kind == KernelEventKind::HungTask && names_task(event);
    Some(events.iter().filter(blocked).any(|event| is_of_process(&event)))
}

fn explain_wait(blocked: bool) -> &'static str {
    if blocked {
        "the kernel reports the process as blocked, so no signal ends it; drain and power-cycle the node"
    } else {
        "the process handles signals only after its wait in the kernel ends. If it still waits after one minute, the \
            driver hangs, and only a reboot of the node stops the process"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_process_in_state_d_is_not_called_blocked_without_a_report_of_the_kernel() {
        let tree = Tree::new();
        for (pid, state) in [(77, "D"), (78, "S")] {
            let stat = format!("{pid} (job) {state} 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0");
            tree.file(&format!("proc/{pid}/stat"), stat);
        }
        assert_eq!(why(&tree.paths(), 77), Some(explain_wait(false)));
        assert_eq!(why(&tree.paths(), 78), None);
    }

    #[test]
    fn only_what_the_kernel_reports_is_called_blocked_for_good() {
        assert!(explain_wait(true).contains("the kernel reports") && explain_wait(true).contains("power-cycle"));
        let perhaps = explain_wait(false);
        assert!(perhaps.contains("after one minute") && !perhaps.contains("drain"), "one read is no proof: {perhaps}");
    }
}
