//! The type `Node`: the simulated machine of the tests, with files, a fake NVML library and real processes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const GPU: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000001";
pub(crate) const OTHER: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000002";

const ADDRESSES: [&str; 2] = ["0000:3b:00.0", "0000:3c:00.0"];

/// A node in a temporary directory. Each session of the fake NVML library reads the facts file again: a script that rewrites
/// the file changes the GPU.
pub(crate) struct Node {
    root: TempDir,
    /// Value of `NODE_PROBE_TEST_TREE`. It determines whether the root directory is changed when the driver's tool
    /// runs.
    tree: &'static str,
    /// The NVML call that does not return.
    pub(crate) block: &'static str,
}

/// A process that is killed at the end of the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the facts of two idle H100 with persistence mode on.
pub(crate) fn facts() -> Value {
    let gpu = |index: u32, uuid: &str| {
        json!({"index": index, "uuid": uuid, "pci_address": ADDRESSES[index as usize], "name": "NVIDIA H100",
            "architecture": "Hopper", "minor_number": index, "persistence_mode": true, "display_active": false,
            "virtualization_mode": "none", "mig_mode": {"current": false, "pending": false},
            "ecc_mode": {"current": true, "pending": true}})
    };
    let ecc = |index: u32, uuid: &str| {
        json!({"index": index, "uuid": uuid, "recovery_action": "none", "mode": {"current": true, "pending": true},
            "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": false, "failure_occurred": false}})
    };
    let memory = |index: u32, uuid: &str| {
        json!({"index": index, "uuid": uuid, "memory": {"total_bytes": 85_899_345_920_u64, "reserved_bytes": 0,
            "used_bytes": 1_073_741_824, "free_bytes": 84_825_604_096_u64}})
    };
    let ok = |data: Value| json!({"status": "ok", "data": data});
    let both = |entry: &dyn Fn(u32, &str) -> Value| ok(json!({"gpus": [entry(0, GPU), entry(1, OTHER)]}));
    json!({"schema_version": 3, "sections": {"inventory": both(&gpu), "ecc": both(&ecc), "telemetry": both(&memory),
        "mig": ok(json!({"gpus": [{"index": 0, "uuid": GPU, "mode": {"current": false, "pending": false}}]})),
        "processes": ok(json!({"host_pid_namespace": true, "processes": []}))}})
}

impl Node {
    pub(crate) fn new(facts: &Value) -> Self {
        let node = Self { root: tempfile::tempdir().expect("a folder"), tree: "here", block: "" };
        node.file("proc/sys/kernel/hostname", "gpu-1\n");
        node.file("proc/modules", "nvidia 1 1 - Live 0x0\n");
        node.file("proc/stat", "cpu 1\nbtime 1763688000\n");
        node.file("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", CHECKPOINT);
        node.file("proc/1/comm", "systemd\n");
        node.file("run/utmp", "");
        node.file("dev/kmsg", "6,0,100,-;Linux version 6.1\n");
        node.link("proc/self/ns/pid", "pid:[4026531836]");
        for (minor, address) in ADDRESSES.iter().enumerate() {
            let folder = format!("sys/devices/pci0000:00/{address}");
            for (file, text) in [("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200")] {
                node.file(&format!("{folder}/{file}"), text);
            }
            node.link(&format!("{folder}/driver"), "/sys/bus/pci/drivers/nvidia");
            node.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/pci0000:00/{address}"));
            node.file(&format!("dev/nvidia{minor}"), "");
        }
        node.set_facts(facts);
        node
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).expect("the folder can be made");
        fs::write(&path, text).expect("the file can be written");
        // On a machine, only root can change these files. The permissions must not depend on the umask of the test.
        let close = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        close(&path, 0o644);
        folder
            .ancestors()
            .take_while(|folder| folder.starts_with(self.root.path()))
            .for_each(|folder| close(folder, 0o755));
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        symlink(target, path).expect("the link can be made");
    }

    pub(crate) fn set_facts(&self, facts: &Value) {
        self.file("facts.json", &facts.to_string());
    }

    /// Installs a script as nvidia-smi. In the script, `$facts` is the facts file of the GPUs, and `$log` is a log file.
    pub(crate) fn nvidia_smi(&self, script: &str) {
        let (facts, log) = (self.path("facts.json"), self.path("smi.log"));
        let head = format!("#!/bin/sh\nfacts={}\nlog={}\necho \"$*\" >> $log\n", facts.display(), log.display());
        self.file("usr/bin/nvidia-smi", &format!("{head}{script}\n"));
        let program = self.path("usr/bin/nvidia-smi");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// Adds a shell to the node, so that programs can run inside its root. If that is not possible, returns `None` and
    /// prints the reason to standard error.
    pub(crate) fn with_its_own_shell(mut self) -> Option<Self> {
        let libraries = Command::new("ldd").arg("/bin/sh").output().ok().filter(|ldd| ldd.status.success());
        let is_root =
            fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0);
        let (Some(libraries), true) = (libraries, is_root) else {
            eprintln!("skipped: changing the root directory needs root, and ldd");
            return None;
        };
        let listed = String::from_utf8_lossy(&libraries.stdout).into_owned();
        for path in listed.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sh"]) {
            let copy = self.path(path.trim_start_matches('/'));
            self.file(path.trim_start_matches('/'), "");
            fs::copy(path, &copy).expect("it can be copied");
            fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        self.tree = "chroot";
        Some(self)
    }

    /// Returns the arguments of every call of the nvidia-smi script.
    pub(crate) fn smi_calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("smi.log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Starts a script with the device file of a GPU as `$0`, and adds its process to the node's `/proc`.
    pub(crate) fn shell(&self, script: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(self.path("dev/nvidia0")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("it starts");
        self.link(&format!("proc/{}", child.id()), &format!("/proc/{}", child.id()));
        until("sleep", || {
            fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|comm| comm.trim_end() == "sleep")
        });
        Running(child)
    }

    /// Runs `node-probe` with these arguments. Returns the document and the exit code.
    pub(crate) fn probe(&self, words: &[&str]) -> (Value, i32) {
        let output = Command::new(env!("CARGO_BIN_EXE_node-probe-dev"))
            .args(words)
            .arg("--root")
            .arg(self.root.path())
            .arg("--nvml-library")
            .arg(fake_nvml::library_path())
            .env("FAKE_NVML_FACTS", self.path("facts.json"))
            .env("NODE_PROBE_TEST_TREE", self.tree)
            .env("FAKE_NVML_BLOCK", self.block)
            .output()
            .expect("node-probe runs");
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
        (document, output.status.code().unwrap_or(-1))
    }

    /// Runs an action and returns the field `action` of the document.
    pub(crate) fn act(&self, words: &[&str]) -> Value {
        let (document, code) = self.probe(&[&["--operator"], words].concat());
        assert_eq!(code, 0, "{document}");
        document["action"].clone()
    }
}

const CHECKPOINT: &str = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}"#;

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the start time of a process in the unit of reports.
pub(crate) fn start_ticks(pid: u32) -> String {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).expect("it runs");
    let rest = stat.rsplit_once(')').expect("a name").1;
    rest.split_whitespace().nth(19).expect("a start time").to_owned()
}

/// Returns the codes of the blockers.
pub(crate) fn blockers(action: &Value) -> Vec<String> {
    let list = action["plan"]["blockers"].as_array().expect("a list");
    list.iter().map(|blocker| blocker["code"].as_str().expect("a code").to_owned()).collect()
}
