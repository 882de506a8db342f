//! Tests with hostile tenants, who put libraries, programs and files where the probe reads them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{PROBE, Running, document, facts_in, is_root, library_in, may_unshare, open_folder, run, until};

/// User ID of `nobody`.
const NOBODY: u32 = 65_534;

/// An unprivileged process maps its own library with the name of NVML's library. The probe must not load that library.
#[test]
fn a_library_that_another_process_has_mapped_is_not_loaded() {
    let folder = open_folder();
    let library = library_in(folder.path());
    if is_root() {
        std::os::unix::fs::chown(&library, Some(NOBODY), Some(NOBODY)).expect("root can");
    }
    let mut tenant = Command::new("sleep");
    tenant.arg("60").env("LD_PRELOAD", &library).stdin(Stdio::null());
    if is_root() {
        tenant.uid(NOBODY).gid(NOBODY);
    }
    let tenant = Running(tenant.spawn().expect("it starts"));
    let maps = format!("/proc/{}/maps", tenant.0.id());
    until("the library is mapped", || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("libnvidia-ml.so.1")));
    let loaded = folder.path().join("loaded");
    let output = run(Command::new(PROBE)
        .args(["inventory", "--timeout-ms", "5000"])
        .env("FAKE_NVML_LOADED", &loaded)
        .env("FAKE_NVML_FACTS", facts_in(folder.path()))
        .stdin(Stdio::null()));
    assert!(
        !loaded.exists(),
        "the constructor of the library ran: {}",
        fs::read_to_string(&loaded).unwrap_or_default()
    );
    let library = document(&output)["sections"]["inventory"]["data"]["nvml_library"].clone();
    assert!(!library.to_string().contains(folder.path().to_str().expect("UTF-8")), "{library}");
}

/// Process 1 of a new PID namespace is a workload. Its root has its own `journalctl`, `nvidia-smi` and NVML library. The
/// probe runs beside the workload with all privileges, like an ephemeral container.
const WORKLOAD: &str = r#"
set -e
top=$1 probe=$2 root=$1/root
mount -t proc proc /proc
for folder in /lib /lib64 /usr/lib /usr/lib64; do
    if [ -L $folder ]; then ln -s "$(readlink $folder)" $root$folder
    elif [ -d $folder ]; then mkdir -p $root$folder; mount --bind $folder $root$folder
    fi
done
cp "$(readlink -f /bin/sh)" $root/bin/sh
cp "$(readlink -f "$(command -v sleep)")" $root/sleep
unshare --mount sh -c '
    until [ "$(readlink /proc/1/root)" = "$0/root" ]; do sleep 0.05; done
    "$1" all --timeout-ms 5000 < /dev/null > "$0/document.part"
    "$1" --operator reset --gpu GPU-1 --cordoned < /dev/null > "$0/action"
    mv "$0/document.part" "$0/document"
' "$top" "$probe" &
exec chroot $root /sleep 60
"#;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
}

/// Writes the root of a workload that imitates a node, with its own programs, logs, kubelet files and library.
fn imitate_a_node(root: &Path) {
    put(root, "etc/os-release", "PRETTY_NAME=\"A workload\"\n");
    put(root, "bin/.keep", "");
    // Only the user root can write the files, so the owner does not distinguish this file tree from that of the node.
    for tool in ["usr/bin/journalctl", "usr/bin/nvidia-smi"] {
        put(root, tool, &format!("#!/bin/sh\necho {tool} >> /ran\n"));
    }
    put(root, "var/log/journal/0123456789abcdef/system.journal", "");
    let line =
        "2026-11-19T05:00:00+00:00 n kernel: NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n";
    put(root, "var/log/messages", line);
    put(root, "usr/local/lib/.keep", "");
    let checkpoint =
        r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"nvidia.com/gpu":["GPU-forged"]}},"Checksum":1}"#;
    put(root, "var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", checkpoint);
    library_in(&root.join("usr/local/lib"));
}

#[test]
fn programs_of_a_workload_are_not_run_and_its_library_has_no_privileges() {
    let namespaces = ["--pid", "--mount", "--propagation", "private"];
    if !is_root() || !may_unshare(&namespaces) {
        return eprintln!("skipped: root and namespaces are needed");
    }
    if Path::new("/sys/module/nvidia").exists() {
        return eprintln!("skipped: the driver of this machine would be found first");
    }
    let folder = open_folder();
    let root = folder.path().join("root");
    imitate_a_node(&root);
    let loaded = folder.path().join("loaded");
    let mut workload = Command::new("unshare");
    workload.args(namespaces).args(["--fork", "--kill-child", "sh", "-c", WORKLOAD, "sh"]);
    workload.arg(folder.path()).arg(PROBE).stdin(Stdio::null());
    workload.env("FAKE_NVML_LOADED", &loaded).env("FAKE_NVML_FACTS", facts_in(folder.path()));
    let workload = Running(workload.spawn().expect("it starts"));
    until("the document", || folder.path().join("document").exists());
    drop(workload);
    let document: Value =
        serde_json::from_slice(&fs::read(folder.path().join("document")).expect("there")).expect("a document");
    let sections = &document["sections"];

    // The probe read the files of the workload, and the report shows this.
    assert_eq!(sections["host"]["data"]["operating_system"], json!("A workload"), "{document}");
    assert_eq!(document["scope"]["files"], json!("container"), "{document}");
    let library = sections["inventory"]["data"]["nvml_library"].as_str().expect("NVML answered");
    assert_eq!(library, "/proc/1/root/usr/local/lib/libnvidia-ml.so.1");

    // The code of the library ran as nobody.
    let status = fs::read_to_string(&loaded).expect("the library was loaded");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((field("Uid:"), field("Gid:")), (vec!["65534".to_owned(); 4], vec!["65534".to_owned(); 4]));
    assert_eq!((field("Groups:"), field("NoNewPrivs:")), (Vec::new(), vec!["1".to_owned()]));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }

    // The programs of the workload did not run, and the log and kubelet files of the workload were not used.
    assert_eq!(sections["kubelet"]["problems"][0]["code"], json!("not_the_node"), "{document}");
    assert!(!root.join("ran").exists(), "{}", fs::read_to_string(root.join("ran")).unwrap_or_default());
    let log = sections["xid"]["data"].to_string();
    assert!(!log.contains("fallen off the bus") && !log.contains("/var/log") && !log.contains("journal"), "{log}");
    let action: Value =
        serde_json::from_slice(&fs::read(folder.path().join("action")).expect("there")).expect("a document");
    assert!(action["action"]["steps"].is_null() || action["action"]["steps"] == json!([]), "{action}");
}
