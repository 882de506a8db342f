//! Test of the child that asks NCCL in the network namespace of a pod: where it is, and which privileges it has when it asks.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::{Running, document, may_unshare, open_folder, run, until};

const POD: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";

/// A status service in its own network namespace. In place of NCCL's version it returns who asks.
const SERVICE: &str = r#"
import fcntl, json, os, socket, struct
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sh22x", b"lo", 0x49))
service = socket.create_server(("127.0.0.1", 28028))
def asker():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if not open(f"/proc/{pid}/cmdline").read().startswith("node-probe: NCCL"):
                continue
            status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
            here = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        except OSError:
            continue
        ids = {word for name in ("Uid", "Gid", "Groups") for word in status[name].split()}
        capabilities = {status["Cap" + name].strip("\t0\n") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        return f"{here} {sorted(ids)} {sorted(capabilities)} {status['NoNewPrivs'].strip()}"
while True:
    stream, _ = service.accept()
    lines = stream.makefile("rw")
    for line in lines:
        if line == "STATUS\n":
            lines.write(json.dumps({"nccl_version": asker(), "communicators": []}))
        else:
            lines.write("SERVER PROTOCOL 2\n" if line.startswith("CLIENT") else "OK\n")
        lines.flush()
        if line == "STATUS\n":
            stream.shutdown(socket.SHUT_RDWR)
            break
"#;

#[test]
fn the_child_asks_in_the_network_of_the_pod_without_privileges() {
    let has_python = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_python || !may_unshare(&["--net"]) {
        eprintln!("skipped: needs python3 and network namespaces");
        return;
    }
    let service =
        Running(Command::new("unshare").args(["--net", "python3", "-c", SERVICE]).spawn().expect("it starts"));
    let real = |name: &str| format!("/proc/{}/{name}", service.0.id());
    until("it listens", || std::fs::read_to_string(real("net/tcp")).is_ok_and(|text| text.contains("0100007F:6D7C")));
    // A tree in which this process belongs to a pod.
    let tree = open_folder();
    let process = tree.path().join("proc/20");
    std::fs::create_dir_all(process.join("ns")).expect("a folder");
    std::fs::create_dir_all(process.join("net")).expect("a folder");
    std::fs::write(process.join("cgroup"), format!("0::/kubepods/pod{POD}/{}\n", "a1".repeat(32))).expect("a file");
    for name in ["ns/net", "net/tcp", "fd"] {
        symlink(real(name), process.join(name)).expect("a link");
    }
    let output = run(Command::new(env!("CARGO_BIN_EXE_node-probe-dev"))
        .args(["all", "--nccl-ras", POD, "--timeout-ms", "1000", "--root"])
        .arg(tree.path())
        .stdin(Stdio::null()));
    let nccl = &document(&output)["nccl"];
    assert_eq!(nccl["version"], "True ['65534'] [''] 1", "{nccl}");
    assert!(nccl["between_ms"].as_u64().is_some_and(|time| time >= 3000), "{nccl}");
}
