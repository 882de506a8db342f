//! Tests of the kill action with real processes. A regular file in a temporary `dev` folder represents the GPU.
//!
//! The test tree has a `proc` folder with links to the real `/proc/PID` folders, and with the kernel module's list of
//! GPUs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use syringe_core::facts::action::{KillAction, KillOutcome};
use syringe_core::probe_command::KillCommand;

use super::super::gpu_facts::GpuReader;
use super::{Target, kill};
use crate::host;
use crate::testing::Tree;

const GPU: &str = "GPU-00000000";
const OTHER: &str = "GPU-11111111";

/// A node with two GPUs and without NVML.
struct Node {
    tree: Tree,
}

/// A process of a test, which is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Node {
    fn new() -> Self {
        let tree = Tree::new();
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        for (minor, uuid) in [GPU, OTHER].iter().enumerate() {
            tree.file(&format!("dev/nvidia{minor}"), "");
            let text = format!("GPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n");
            tree.file(&format!("proc/driver/nvidia/gpus/0000:0{minor}:00.0/information"), text);
        }
        Self { tree }
    }

    fn device(&self, minor: u32) -> PathBuf {
        self.tree.path().join(format!("dev/nvidia{minor}"))
    }

    /// Starts a shell script. In the script, `$0` is the device file of the first GPU, and `$1` that of the second.
    fn shell(&self, script: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(self.device(0)).arg(self.device(1));
        self.start(&mut command)
    }

    fn start(&self, command: &mut Command) -> Running {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        self.show(child.id());
        Running(child)
    }

    /// Makes a real process visible in the node's `/proc`.
    fn show(&self, pid: u32) {
        symlink(format!("/proc/{pid}"), self.tree.path().join(format!("proc/{pid}"))).expect("a link");
    }

    fn gpu_reader(&self) -> GpuReader {
        // The path of a library that does not exist, so that the tests do not load an NVML of the test machine.
        let library = Some(self.tree.path().join("no-nvml"));
        GpuReader { paths: self.tree.paths(), library, time: Duration::from_secs(2) }
    }

    fn kill_request(&self, pid: u32, gpu: &str) -> KillCommand {
        let start_ticks =
            host::read_stat(&self.tree.paths().proc, pid).and_then(|stat| stat.start_ticks).expect("it runs");
        KillCommand { gpu: gpu.into(), pid, start_ticks, grace: Duration::from_secs(1), plan: false }
    }

    fn kill(&self, pid: u32) -> KillAction {
        kill(&self.kill_request(pid, GPU), &self.gpu_reader())
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn until_holding(node: &Node, pid: u32) {
    until("holding the GPU", || host::held_by(&node.tree.paths(), pid).is_ok_and(|held| held.contains(&0)));
}

fn until_called(pid: u32, name: &str) {
    until(name, || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name));
}

fn code(action: &KillAction) -> &str {
    assert_eq!(action.outcome, KillOutcome::Refused, "{action:?}");
    action.refusal.as_ref().map_or("", |refusal| refusal.code.as_str())
}

#[test]
fn a_process_that_handles_sigterm_ends_by_it() {
    let node = Node::new();
    let process = node.shell("exec sleep 1000 < $0");
    until_called(process.pid(), "sleep");
    let action = node.kill(process.pid());
    assert_eq!((action.outcome, action.ended_by.as_deref()), (KillOutcome::Ended, Some("SIGTERM")), "{action:?}");
    assert_eq!(action.evidence, ["device_file"]);
    assert_eq!(action.process.and_then(|process| process.name).as_deref(), Some("sleep"));
}

#[test]
fn a_process_that_ignores_sigterm_ends_by_sigkill_after_the_grace() {
    let node = Node::new();
    let process = node.shell("trap '' TERM; exec sleep 1000 < $0");
    until_called(process.pid(), "sleep");
    let action = node.kill(process.pid());
    assert_eq!((action.outcome, action.ended_by.as_deref()), (KillOutcome::Ended, Some("SIGKILL")), "{action:?}");
    assert!(action.waited_ms >= Some(1000), "{action:?}");
}

#[test]
fn a_plan_checks_everything_and_sends_nothing() {
    let node = Node::new();
    let mut process = node.shell("exec sleep 1000 < $0");
    until_called(process.pid(), "sleep");
    let action = kill(&KillCommand { plan: true, ..node.kill_request(process.pid(), GPU) }, &node.gpu_reader());
    assert_eq!(action.outcome, KillOutcome::Planned, "{action:?}");
    assert!(process.0.try_wait().expect("ours").is_none(), "the process must still be running");
}

#[test]
fn a_process_that_ends_between_check_and_signal_was_not_killed() {
    for collected in [true, false] {
        let node = Node::new();
        let mut process = node.shell("exec sleep 1000 < $0");
        until_called(process.pid(), "sleep");
        let kill_request = node.kill_request(process.pid(), GPU);
        let (gpu_reader, paths) = (node.gpu_reader(), node.tree.paths());
        let target = Target::open(&kill_request, &paths).map_err(|action| *action).expect("it runs");
        let view = gpu_reader.read(GPU).expect("the GPU");
        let checked = target.check(&kill_request, &view, &paths).map_err(|action| *action).expect("may be ended");
        process.0.kill().expect("ours");
        if collected {
            process.0.wait().expect("ours");
        } else {
            let pid = process.pid();
            until("a zombie", || {
                host::read_stat(&node.tree.paths().proc, pid).is_some_and(|stat| stat.state.as_deref() == Some("Z"))
            });
        }
        let action = checked.end(&kill_request, &node.gpu_reader());
        assert_eq!((action.outcome, action.ended_by), (KillOutcome::AlreadyGone, None), "collected: {collected}");
    }
}

#[test]
fn a_process_that_ended_before_is_reported_as_gone() {
    let node = Node::new();
    let mut process = node.shell("exec sleep 1000 < $0");
    let kill_request = node.kill_request(process.pid(), GPU);
    process.0.kill().expect("ours");
    process.0.wait().expect("ours");
    assert_eq!(kill(&kill_request, &node.gpu_reader()).outcome, KillOutcome::AlreadyGone);
}

#[test]
fn an_id_that_this_pid_namespace_does_not_have_may_exist_on_the_host() {
    let node = Node::new();
    fs::remove_file(node.tree.path().join("proc/self/ns/pid")).expect("ours");
    node.tree.link("proc/self/ns/pid", "pid:[4026532201]");
    let mut process = node.shell("exec sleep 1000 < $0");
    let kill_request = node.kill_request(process.pid(), GPU);
    process.0.kill().expect("ours");
    process.0.wait().expect("ours");
    let action = kill(&kill_request, &node.gpu_reader());
    assert_eq!(code(&action), "pid_namespace", "{action:?}");
}

#[test]
fn the_gpu_is_checked_before_the_process() {
    let node = Node::new();
    let mut process = node.shell("exec sleep 1000 < $0");
    let kill_request = node.kill_request(process.pid(), "GPU-22222222");
    process.0.kill().expect("ours");
    process.0.wait().expect("ours");
    assert_eq!(code(&kill(&kill_request, &node.gpu_reader())), "gpu_unknown", "not: already gone");
}

#[test]
fn another_process_of_the_same_number_is_refused() {
    let node = Node::new();
    let mut process = node.shell("exec sleep 1000 < $0");
    until_called(process.pid(), "sleep");
    let kill_request = node.kill_request(process.pid(), GPU);
    let action = kill(&KillCommand { start_ticks: kill_request.start_ticks - 1, ..kill_request }, &node.gpu_reader());
    assert_eq!(code(&action), "recycled_pid");
    assert!(process.0.try_wait().expect("ours").is_none());
}

#[test]
fn a_zombie_is_reported_as_a_zombie() {
    let node = Node::new();
    let process = node.shell("exit 0");
    let pid = process.pid();
    until("a zombie", || {
        host::read_stat(&node.tree.paths().proc, pid).is_some_and(|stat| stat.state.as_deref() == Some("Z"))
    });
    let action = node.kill(pid);
    assert_eq!(code(&action), "zombie");
    let parent = std::process::id().to_string();
    assert!(action.refusal.is_some_and(|refusal| refusal.next_step.contains(&parent)));
}

#[test]
fn a_parent_is_not_ended_for_its_child_and_the_child_is_named() {
    let node = Node::new();
    let process = node.shell("sleep 1000 < $0 & echo $! > $0.pid; wait");
    let file = node.device(0).with_extension("pid");
    until("the child", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let child: u32 = fs::read_to_string(&file).expect("there").trim().parse().expect("a number");
    node.show(child);
    until_holding(&node, child);
    let action = node.kill(process.pid());
    assert_eq!(code(&action), "child_holds_gpu");
    assert_eq!(action.children_on_gpu, [child]);
    assert_eq!(node.kill(child).outcome, KillOutcome::Ended, "the child itself may be ended");
}

#[test]
fn children_that_stay_on_the_gpu_are_named() {
    let node = Node::new();
    let process = node.shell("exec 3< $0; sleep 1000 & echo $! > $0.pid; wait");
    let file = node.device(0).with_extension("pid");
    until("the child", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let child: u32 = fs::read_to_string(&file).expect("there").trim().parse().expect("a number");
    node.show(child);
    let action = node.kill(process.pid());
    assert_eq!((action.outcome, action.children_on_gpu.as_slice()), (KillOutcome::Ended, [child].as_slice()));
    assert!(action.notes.iter().any(|note| note.contains(&child.to_string())));
    assert_eq!(node.kill(child).outcome, KillOutcome::Ended);
}

#[test]
fn a_process_of_another_gpu_or_of_none_is_refused() {
    let node = Node::new();
    let other = node.shell("exec sleep 1000 < $1");
    until_called(other.pid(), "sleep");
    assert_eq!(code(&node.kill(other.pid())), "no_gpu");
    let kill_request = node.kill_request(other.pid(), OTHER);
    assert_eq!(kill(&kill_request, &node.gpu_reader()).outcome, KillOutcome::Ended, "this process is on its GPU");
    let none = node.shell("exec sleep 1000");
    until_called(none.pid(), "sleep");
    assert_eq!(code(&node.kill(none.pid())), "no_gpu");
    let unknown = kill(&node.kill_request(none.pid(), "GPU-22222222"), &node.gpu_reader());
    assert_eq!(code(&unknown), "gpu_unknown", "without NVML, only the GPUs of the kernel module are known");
}

#[test]
fn processes_that_the_node_needs_are_refused_even_if_they_hold_the_gpu() {
    let node = Node::new();
    let sleep =
        ["/usr/bin/sleep", "/bin/sleep"].into_iter().find(|path| fs::exists(path).unwrap_or(false)).expect("sleep");
    for (file, name) in [
        ("nvidia-persistenced", "nvidia-persiste"),
        ("kubelet", "kubelet"),
        ("containerd-shim-runc-v2", "containerd-shim"),
    ] {
        let program = node.tree.path().join(file);
        fs::copy(sleep, &program).expect("a copy");
        let device = fs::File::open(node.device(0)).expect("the device");
        let child = Command::new(&program).arg("1000").stdin(device).spawn().expect("it starts");
        node.show(child.id());
        let mut process = Running(child);
        until_called(process.pid(), name);
        assert_eq!(code(&node.kill(process.pid())), "protected", "{name}");
        assert!(process.0.try_wait().expect("ours").is_none());
    }
}

#[test]
fn init_and_processes_of_the_probe_are_refused() {
    let node = Node::new();
    node.show(std::process::id());
    assert_eq!(code(&node.kill(std::process::id())), "protected");
    let init = KillCommand { pid: 1, ..node.kill_request(std::process::id(), GPU) };
    assert_eq!(code(&kill(&init, &node.gpu_reader())), "protected");
}

#[test]
fn state_d_is_reported_and_the_signals_are_still_sent() {
    let node = Node::new();
    let process = node.shell("exec sleep 1000 < $0");
    until_called(process.pid(), "sleep");
    let kill_request = node.kill_request(process.pid(), GPU);
    // Replaces the process in the node's `/proc` with a copy that has a `stat` file of this test.
    let folder = node.tree.path().join(format!("proc/{}", kill_request.pid));
    fs::remove_file(&folder).expect("the link");
    let stat = fs::read_to_string(format!("/proc/{}/stat", kill_request.pid)).expect("it runs");
    let (name, rest) = stat.split_once(") ").expect("a name");
    let stat = format!("{name}) D{}", &rest[1..]);
    node.tree
        .file(&format!("proc/{}/stat", kill_request.pid), stat)
        .file(&format!("proc/{}/comm", kill_request.pid), "python3\n");
    symlink(format!("/proc/{}/fd", kill_request.pid), folder.join("fd")).expect("a link");
    let action = kill(&kill_request, &node.gpu_reader());
    assert_eq!(action.outcome, KillOutcome::Ended);
    assert!(action.notes.iter().any(|note| note.contains("state D")), "{:?}", action.notes);
    assert!(
        !action.notes.iter().any(|note| note.contains("hangs inside")),
        "one read of the state is no proof: {:?}",
        action.notes
    );
}
