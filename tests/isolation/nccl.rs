//! Test of the child process that queries NCCL in the network namespace of a pod: its namespace and its privileges.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Running, document, may_unshare, open_folder, run, until};

const POD: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";

/// A status service in its own network namespace. It writes the properties of its client to the file in its argument.
/// With a second argument, its answer is as long as possible.
const SERVICE: &str = r#"
import fcntl, json, os, socket, struct, sys
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sh22x", b"lo", 0x49))
service = socket.create_server(("127.0.0.1", 28028))
def asker():
    # Another test can ask at the same time, in another network.
    elsewhere = ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if not open(f"/proc/{pid}/cmdline").read().startswith("node-probe: NCCL"):
                continue
            status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
            limits = [line.split()[-3] for line in open(f"/proc/{pid}/limits") if line.startswith(("Max file size", "Max core", "Max processes", "Max address"))]
            first = open(f"/proc/{pid}/oom_score_adj").read().strip()
            root = os.readlink(f"/proc/{pid}/root").rsplit("/", 1)[1]
            owner = os.stat(f"/proc/{pid}/status").st_uid
            here = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        except OSError:
            continue
        ids = {word for name in ("Uid", "Gid", "Groups") for word in status[name].split()}
        capabilities = {status["Cap" + name].strip("\t0\n") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        found = f"{here} {sorted(ids)} {sorted(capabilities)} {status['NoNewPrivs'].strip()} {limits} {first} {root} {owner}"
        if here:
            return found
        elsewhere = found
    return elsewhere
while True:
    stream, _ = service.accept()
    lines = stream.makefile("rw")
    answers = {"CLIENT PROTOCOL 2\n": "SERVER PROTOCOL 2\n", "MONITOR x\n": "ERROR: Invalid event group 'x'\n"}
    for line in lines:
        if line == "STATUS\n":
            open(sys.argv[1], "w").write(asker() or "")
            communicators = []
            if len(sys.argv) > 2:
                kinds = "".join(f'"{kind}":{kind},' for kind in range(8))
                state = '"init_state":%d,"async_error":0,"finalize_called":true,"destroy_flag":true,"abort_flag":true'
                rank = '{"rank":%d,"host":"1.1.1.1","pid":0,"nvml_dev":0,"status":{' + state + '},"collective_counts":{' + kinds + '"Reduce":%d}}'
                missing = '{"rank":%d,"host":"","pid":0,"nvml_dev":0,"status":{"unresponsive":true,"considered_dead":true}}'
                few = ",".join(rank % (number, number, number) for number in range(3))
                few = '{"hash":"0x%x","secondary_hash":"0x0:0x0","size":9,"ranks":[' + few + '],"missing_ranks":[%s]}'
                many = '{"hash":"0xf","secondary_hash":"0x0:0x0","size":1,"ranks":[' + ",".join(rank % (n, n, n) for n in range(6000)) + '],"missing_ranks":[' + ",".join(missing % n for n in range(6000)) + "]}"
                few = ",".join(few % (number, missing % 8) for number in range(1900))
                text = '{"nccl_version":"2.29.2","communicators":[' + many + "," + few + "]}"
                lines.write(text + " " * ((4 << 20) - len(text)))
            else:
                lines.write(json.dumps({"nccl_version": "2.29.2", "communicators": []}))
        else:
            lines.write(answers.get(line, "OK\n"))
        lines.flush()
        if line == "STATUS\n":
            stream.shutdown(socket.SHUT_RDWR)
            break
"#;

#[test]
fn the_child_asks_in_the_network_of_the_pod_without_privileges() {
    let Some((nccl, asker)) = asked(false) else { return };
    // If a process can be dumped or traced, its files in `/proc` belong to its user.
    assert_eq!(asker, "True ['65534'] [''] 1 ['0', '1', '0', '67108864'] 1000 fdinfo 0", "{nccl}");
    assert!(nccl["between_ms"].as_u64().is_some_and(|time| time >= 3000), "{nccl}");
}

/// The pod of the probe has 128 MiB of memory, and a pod that exceeds it would hide its node.
#[test]
fn two_answers_of_the_maximum_size_need_less_than_64_mib() {
    let Some((nccl, _)) = asked(true) else { return };
    assert_eq!(
        (&nccl["version"], nccl["communicators"].as_array().map(Vec::len)),
        (&"2.29.2".into(), Some(64)),
        "{nccl}"
    );
    assert!(nccl["between_ms"].as_u64().is_some() && nccl["problem"].is_null(), "{nccl}");
}

/// Returns the report of the probe, and the properties of the client. `None` if this machine does not permit the test.
fn asked(is_long: bool) -> Option<(Value, String)> {
    let has_python = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_python || !may_unshare(&["--net"]) {
        eprintln!("skipped: needs python3 and network namespaces");
        return None;
    }
    let tree = open_folder();
    let asker = tree.path().join("asker");
    let mut service = Command::new("unshare");
    service.args(["--net", "python3", "-c", SERVICE]).arg(&asker).args(is_long.then_some("long"));
    let service = Running(service.spawn().expect("it starts"));
    let real = |name: &str| format!("/proc/{}/{name}", service.0.id());
    until("it listens", || std::fs::read_to_string(real("net/tcp")).is_ok_and(|text| text.contains("0100007F:6D7C")));
    // A tree in which this process belongs to a pod.
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
    let nccl = document(&output)["nccl"].clone();
    Some((nccl, std::fs::read_to_string(asker).unwrap_or_default()))
}
