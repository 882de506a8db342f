//! What the diagnosis says of a process that takes no signal: the same rule for the action as for every answer.

use jiff::Timestamp;
use syringe_core::diagnosis::{self, Stuck};
use syringe_core::facts::processes::{GpuProcess, Processes};
use syringe_core::report::{Report, Section, Sections};

use crate::paths::Paths;
use crate::{host, kernel_log, pid_namespace};

/// Why a process did not end.
pub(super) fn survivor(paths: &Paths, pid: u32) -> String {
    let state = host::read_stat(&paths.proc, pid).and_then(|stat| stat.state).unwrap_or_else(|| "?".to_owned());
    let why = why(paths, pid).unwrap_or("SIGKILL is pending");
    format!("It still exists, in state {state}: {why}.")
}

/// What its wait in state D means for a signal; `None`: it does not wait.
pub(super) fn why(paths: &Paths, pid: u32) -> Option<&'static str> {
    judged(paths, pid).map(waiting)
}

/// What the diagnosis says of a process that waits in state D, from its threads and the kernel's log. `None`: it does not.
fn judged(paths: &Paths, pid: u32) -> Option<Stuck> {
    let process = host::describe(paths, pid).filter(GpuProcess::is_uninterruptible)?;
    let host_pid_namespace = pid_namespace::is_initial(&paths.proc);
    let processes = Processes { host_pid_namespace, processes: vec![process], ..Processes::default() };
    let xid = kernel_log::read(paths, &kernel_log::Options { since: None, journal: false });
    let sections =
        Sections { processes: Some(Section::read(processes, Vec::new())), xid: Some(xid), ..Sections::default() };
    let boot_id = host::identity(paths).boot_id;
    diagnosis::stuck(&Report { boot_id, taken_at: Some(Timestamp::now()), sections, ..Report::default() }, pid)
}

fn waiting(stuck: Stuck) -> &'static str {
    match stuck {
        Stuck::Permanent => {
            "the kernel reports that it is blocked, and no signal ends it; drain the node and power-cycle it"
        }
        Stuck::Possible => {
            "it receives no signal until the wait in the kernel ends; if it still waits in a minute, the driver hangs, and \
             only a reboot of the node ends the process"
        }
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
        assert_eq!(why(&tree.paths(), 77), Some(waiting(Stuck::Possible)));
        assert_eq!(why(&tree.paths(), 78), None);
    }

    #[test]
    fn only_what_the_kernel_reports_is_called_blocked_for_good() {
        assert!(
            waiting(Stuck::Permanent).contains("the kernel reports")
                && waiting(Stuck::Permanent).contains("power-cycle")
        );
        let perhaps = waiting(Stuck::Possible);
        assert!(perhaps.contains("in a minute") && !perhaps.contains("drain"), "one look proves nothing: {perhaps}");
    }
}
