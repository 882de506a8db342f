//! Tests that the report stays small and on time, and reports omissions, if a tenant creates many files or processes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use syringe_core::probe_command::{ReadCommand, StackContainer};

use super::collect;
use super::test_node::{ID, POD, node};
use crate::request::{Files, Request};
use crate::testing::Tree;

/// Maximum size of the report in these tests: far below the maximum size of a document.
const MOST_BYTES: usize = 1 << 20;
/// Maximum time of a run on a busy machine.
const TIME: Duration = Duration::from_secs(20);

/// The name of the entries that are added, the function that adds them, and a part of the expected problem (empty if no
/// problem is expected).
type Growth = (&'static str, fn(&Tree), &'static str);

const GROWN: [Growth; 14] = [
    ("device files of a container", |tree| many(tree, "proc/42/root/dev/nvidia", 20_000), "more device files"),
    ("device files of the node", |tree| many(tree, "dev/nvidia", 20_000), "/dev has"),
    ("capability devices", |tree| many(tree, "proc/42/root/dev/nvidia-caps/nvidia-cap", 5_000), "more device files"),
    ("sockets of plugins", |tree| many(tree, "var/lib/kubelet/device-plugins/a.sock", 5_000), ""),
    ("validations", |tree| many(tree, "run/nvidia/validations/x", 5_000), "entries of /run/nvidia/validations"),
    ("specifications", |tree| many(tree, "etc/cdi/x.yaml", 2_000), ""),
    ("allocations", allocations, "GPU allocations of the kubelet"),
    ("devices of a resource", registered, "GPU devices of one resource"),
    ("claims", claims, "pods of one resource claim"),
    ("processes", processes, "processes with an open GPU"),
    ("open devices of one process", open_devices, "processes were not read completely"),
    ("handlers", handlers, "handlers of the container runtime"),
    ("the environment", environment, "64 KiB"),
    ("lines of logs", log_lines, ""),
];

/// Creates many files whose long names begin and end like `path`.
fn many(tree: &Tree, path: &str, number: usize) {
    let (stem, end) = path.rsplit_once('.').map_or((path, String::new()), |(stem, end)| (stem, format!(".{end}")));
    tree.file(path, "");
    for number in 0..number {
        let path = tree.path().join(format!("{stem}{number}-{}{end}", "x".repeat(200)));
        std::fs::write(path, "").expect("written");
    }
}

/// Creates 1,000 containers with names of ten kilobytes, and more containers with short names.
fn allocations(tree: &Tree) {
    let mut entries = String::new();
    for number in 0..5_000 {
        let name = "n".repeat(if number < 1000 { 10_000 } else { 10 });
        let comma = if number > 0 { "," } else { "" };
        let entry = r#""ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-5d5d"]}"#;
        write!(entries, r#"{comma}{{"PodUID":"{name}{number}","ContainerName":"{name}",{entry}}}"#).expect("a string");
    }
    // The names are shortened if the file would exceed its size limit: the whole file would then be a single problem.
    let text = format!(r#"{{"Data":{{"PodDeviceEntries":[{entries}],"RegisteredDevices":{{}}}},"Checksum":1}}"#);
    let text = if text.len() > 16 << 20 { text.replace(&"n".repeat(10_000), &"n".repeat(1_000)) } else { text };
    tree.file("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", text);
}

fn registered(tree: &Tree) {
    let ids: Vec<String> = (0..50_000).map(|number| format!("\"GPU-{number}-{}\"", "x".repeat(100))).collect();
    let ids = ids.join(",");
    let text = format!(r#"{{"Data":{{"RegisteredDevices":{{"nvidia.com/gpu":[{ids}]}}}},"Checksum":1}}"#);
    tree.file("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", text);
}

fn claims(tree: &Tree) {
    let pods: Vec<String> = (0..50_000).map(|number| format!(r#"\"pod-{number}\":{{}}"#)).collect();
    let devices = r#"[{\"DeviceName\":\"gpu-0\"}]"#;
    let claim = format!(
        r#"{{\"ClaimName\":\"c\",\"PodUIDs\":{{{}}},\"DriverState\":{{\"gpu.nvidia.com\":{{\"Devices\":{devices}}}}}}}"#,
        pods.join(",")
    );
    let text = format!(r#"{{"Data":"{{\"ClaimInfoStateList\":[{claim}]}}","Checksum":1}}"#);
    tree.file("var/lib/kubelet/dra_manager_state", text);
}

fn processes(tree: &Tree) {
    for pid in 1000..3500 {
        let stat = format!("{pid} ({}) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0", "x".repeat(15));
        tree.file(&format!("proc/{pid}/stat"), stat).link(&format!("proc/{pid}/fd/7"), "/dev/nvidia0");
        tree.file(&format!("proc/{pid}/cmdline"), "x".repeat(4096));
    }
}

fn open_devices(tree: &Tree) {
    for number in 0..3_000 {
        tree.link(&format!("proc/42/fd/{}", number + 8), &format!("/dev/nvidia{}", 1_000_000 + number));
    }
}

fn handlers(tree: &Tree) {
    let mut text = String::from("version = 3\n");
    for number in 0..1_000 {
        let name = format!("h{number}{}", "x".repeat(100));
        writeln!(text, "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{name}]").expect("a string");
    }
    tree.file("etc/containerd/config.toml", text);
}

fn environment(tree: &Tree) {
    tree.file("proc/42/environ", vec![b'x'; 1 << 20]);
}

fn log_lines(tree: &Tree) {
    let line = |number: usize| format!("2026-01-01T00:00:00Z stderr F it failed {number} {}\n", "x".repeat(2000));
    let text: String = (0..10_000).map(line).collect();
    tree.file(&format!("var/log/pods/gpu_nvidia-device-plugin-x_{POD}/plugin/0.log"), text);
    let kernel = |number: usize| {
        format!("4,{number},{number}00,-;NVRM: Xid (PCI:0000:5d:00): 13, pid={number}, {}\n", "y".repeat(500))
    };
    tree.file("dev/kmsg", (0..20_000).map(kernel).collect::<String>());
}

fn report(tree: &Tree) -> (Value, usize) {
    let files = Files { root: Some(tree.path().to_owned()), ..Files::default() };
    let stack_log = Some(StackContainer { pod_uid: POD.into(), container: "plugin".into() });
    let read = ReadCommand { container: Some(ID.parse().expect("an ID")), stack_log, ..ReadCommand::everything() };
    let request = Request { read, timeout: TIME, files, development: true };
    let document = serde_json::to_vec(&collect(&request)).expect("JSON");
    (serde_json::from_slice(&document).expect("JSON"), document.len())
}

/// Returns the faults in the report of a node on which `grow` added entries.
fn faults(grow: fn(&Tree), problem: &str) -> Vec<String> {
    let tree = node(true);
    grow(&tree);
    let started = Instant::now();
    let (report, length) = report(&tree);
    let time = started.elapsed();
    let sections = report["sections"].as_object().expect("sections");
    let problems: String = sections.values().map(|section| section["problems"].to_string()).collect();
    let address = &report["sections"]["host"]["data"]["pci_gpus"][0]["pci_address"];
    let expected = [
        (time < TIME + TIME / 4, format!("it took {time:?}")),
        (length < MOST_BYTES, format!("the report has {length} bytes")),
        (problems.contains(problem), format!("no problem says {problem:?}: {problems:.2000}")),
        (address == "00000000:5d:00.0", format!("the GPU is missing: {address}")),
    ];
    expected.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
}

#[test]
fn what_a_tenant_makes_grow_is_bounded_and_said() {
    let named = |(name, grow, problem): Growth| {
        faults(grow, problem).into_iter().map(|fault| format!("{name}: {fault}")).collect::<Vec<_>>()
    };
    let faults: Vec<String> = GROWN.into_iter().flat_map(named).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
