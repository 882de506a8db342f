//! `refusal`: returns why a process (`Candidate`) must not be killed, e.g. because the node or the driver needs it.
//!
//! Most of these processes are recognized by their names in the kernel. Any process can have such a name. This is
//! harmless: the process is then not killed.

use std::sync::LazyLock;

use crate::facts::action::Obstacle;
use crate::tsv::{parts, rows};

/// Maximum length of a process name in the kernel.
const COMM_BYTES: usize = 15;

/// A protected process, and what to do instead of a kill.
struct Protected {
    names: Vec<&'static str>,
    /// Whether the names are prefixes.
    prefix: bool,
    what: &'static str,
    next_step: &'static str,
}

static PROTECTED: LazyLock<Vec<Protected>> = LazyLock::new(|| {
    let rows = rows(include_str!("data/protected.tsv"));
    let entry = |row: Vec<&'static str>| {
        let [names, kind, what, next_step] = row[..] else { return None };
        Some(Protected { names: parts(names), prefix: kind == "prefixes", what, next_step })
    };
    rows.filter_map(entry).collect()
});

/// The process that is to be killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate<'a> {
    pub pid: u32,
    pub parent: Option<u32>,
    /// Name in the kernel (`comm`).
    pub comm: &'a str,
    /// File name of the executable, without folders. Kernel threads have no executable.
    pub executable: Option<&'a str>,
    /// Whether the process is a kernel thread (`PF_KTHREAD` in the flags of `/proc/PID/stat`).
    pub kernel_thread: bool,
    /// Whether the process is node-probe itself, or an ancestor or descendant of node-probe.
    pub ours: bool,
}

/// Returns why this process must not be killed; `None` if it may be killed.
pub fn refusal(candidate: &Candidate<'_>) -> Option<Obstacle> {
    let Candidate { pid, parent, comm, executable, kernel_thread, ours } = *candidate;
    let protected = |what: String, next_step: &str| Some(Obstacle::new("protected", what, next_step));
    if pid <= 1 {
        return protected(
            format!("PID {pid} is the init process of the node"),
            "If the process must be stopped, reboot the node.",
        );
    }
    if kernel_thread || pid == 2 || parent == Some(2) {
        return protected(
            format!("PID {pid} ({comm}) is a kernel thread, which ignores signals"),
            "If a kernel thread hangs, reboot the node.",
        );
    }
    if ours {
        return protected(
            format!("PID {pid} ({comm}) is gpu-syringe itself"),
            "The probes of gpu-syringe exit on their \
            own.",
        );
    }
    let entry =
        PROTECTED.iter().find(|entry| [Some(comm), executable].into_iter().flatten().any(|name| entry.is(name)))?;
    protected(format!("PID {pid} ({comm}) is {}", entry.what), entry.next_step)
}

impl Protected {
    fn is(&self, name: &str) -> bool {
        // The kernel truncates names, so a name of full length is compared with the truncated known name.
        self.names.iter().any(|known| {
            let known_short = &known[..known.len().min(COMM_BYTES)];
            name == *known
                || (name.len() == COMM_BYTES && name == known_short)
                || (self.prefix && name.starts_with(known_short))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(comm: &str) -> Candidate<'_> {
        Candidate { pid: 4242, parent: Some(1), comm, executable: Some("x"), ..Candidate::default() }
    }

    #[test]
    fn processes_of_the_node_and_the_driver_are_protected() {
        for comm in [
            "systemd",
            "systemd-journal",
            "(systemd-udevd)",
            "kubelet",
            "containerd",
            "containerd-shim",
            "containerd-shim-",
            "crio",
            "conmon",
            "dockerd",
            "runc",
            "nvidia-persiste",
            "nv-fabricmanage",
            "nvidia-imex",
            "nv-hostengine",
            "dcgm-exporter",
            "nvidia-device-p",
            "nvidia-cuda-mps",
            "Xorg",
            "node-probe",
            "gpu-syringe",
            "k3s-server",
        ] {
            let comm = comm.trim_matches(['(', ')']);
            let refused = refusal(&named(comm)).unwrap_or_else(|| panic!("{comm} may be killed"));
            assert_eq!(refused.code, "protected", "{comm}");
            assert!(refused.why.contains("4242") && !refused.next_step.is_empty(), "{comm}");
        }
    }

    #[test]
    fn a_renamed_daemon_is_known_by_its_executable() {
        let renamed = Candidate { executable: Some("nvidia-persistenced"), ..named("worker") };
        assert!(refusal(&renamed).is_some());
    }

    #[test]
    fn init_kernel_threads_and_our_own_processes_are_refused() {
        assert!(refusal(&Candidate { pid: 1, comm: "bash", ..Candidate::default() }).is_some());
        assert!(refusal(&Candidate { pid: 0, comm: "", ..Candidate::default() }).is_some());
        assert!(refusal(&Candidate { parent: Some(2), executable: None, ..named("nv_queue") }).is_some());
        assert!(refusal(&Candidate { kernel_thread: true, ..named("kworker/0:1") }).is_some());
        assert!(refusal(&Candidate { ours: true, ..named("python3") }).is_some());
    }

    #[test]
    fn workloads_may_be_ended() {
        for comm in [
            "python3",
            "torchrun",
            "pt_main_thread",
            "tritonserver",
            "systemctl-like",
            "kubeletter",
            "initialise",
            "sh",
        ] {
            assert_eq!(refusal(&named(comm)), None, "{comm}");
        }
    }
}
