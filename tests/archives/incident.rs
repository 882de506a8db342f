//! Tests of `gpu-syringe incident`: order, lanes and gaps of a timeline, and the HTML page.
//! `Case`: an archive with nodes, pods and events. `kmsg`, `journal`: create kernel lines.
//!
//! The cases are an NVSwitch fault of four nodes, a reboot, and incomplete logs. In the HTML page, text of nodes and
//! pods must not become markup.

use std::path::{Path, PathBuf};

use archive::{Archive, SavedNode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use syringe_core::scenarios;

use crate::bed::{Bed, node};
use crate::support::launcher::Launcher;

/// The time of the reports in the archives.
const NOW: &str = "2026-11-21T02:45:10Z";

/// An archive that a test fills, in its own directory.
pub(crate) struct Case {
    home: tempfile::TempDir,
    archive: Archive,
    pods: Vec<Value>,
    events: Vec<Value>,
    nodes: Vec<Value>,
}

/// A record of `/dev/kmsg` at this time of day, on a node that booted at `booted`.
pub(crate) fn kmsg(booted: &str, time: &str, number: usize, text: &str) -> String {
    let at = |time: &str| -> Timestamp { format!("2026-11-21T{time}Z").parse().unwrap() };
    format!("3,{number},{},-;{text}", at(time).duration_since(at(booted)).as_micros())
}

/// A line of the journal of an earlier boot.
pub(crate) fn journal(time: &str, text: &str) -> String {
    let at: Timestamp = format!("2026-11-21T{time}Z").parse().unwrap();
    json!({
        "__REALTIME_TIMESTAMP": at.as_microsecond().to_string(), "_BOOT_ID": "0e".repeat(16), "_TRANSPORT": "kernel",
        "SYSLOG_FACILITY": "0", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": text,
    })
    .to_string()
}

impl Case {
    pub(crate) fn new() -> Self {
        let mut archive = Archive::default();
        archive.manifest.taken_at = NOW.parse().unwrap();
        let (pods, events, nodes) = (Vec::new(), Vec::new(), Vec::new());
        Self { home: tempfile::tempdir().unwrap(), archive, pods, events, nodes }
    }

    /// Adds a node with the facts of a scenario. The node was booted at this time of day and has these kernel lines.
    pub(crate) fn node(mut self, name: &str, scenario: &str, booted: &str, log: &[String]) -> Self {
        let mut report = scenarios::named(scenario).unwrap().report();
        let booted: Timestamp = format!("2026-11-21T{booted}Z").parse().unwrap();
        let uptime = NOW.parse::<Timestamp>().unwrap().duration_since(booted);
        report.hostname = Some(name.to_owned());
        let host = report.sections.host.as_mut().and_then(|host| host.data.as_mut()).unwrap();
        host.uptime_seconds = Some(uptime.as_secs().unsigned_abs());
        report.kernel_log = log.to_vec();
        let report = serde_json::to_vec(&report).unwrap();
        self.archive.add_node(name, SavedNode { report, ..SavedNode::default() }, None);
        self
    }

    /// Adds a pod with four GPUs. Its container terminated with this exit code.
    fn pod(mut self, node: &str, name: &str, ended: &str, exit_code: i32) -> Self {
        self.pods.push(json!({
            "metadata": {"namespace": "ml", "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-21T01:00:00Z"},
            "spec": {"nodeName": node, "containers": [{"name": "main", "resources": {
                "limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "4"}}}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "image": "train", "imageID": "", "ready": true, "restartCount": 1,
                "state": {"running": {"startedAt": "2026-11-21T02:33:00Z"}},
                "lastState": {"terminated": {"exitCode": exit_code, "reason": "Error", "startedAt": "2026-11-21T01:00:30Z",
                    "finishedAt": format!("2026-11-21T{ended}Z")}},
            }]},
        }));
        self
    }

    /// Adds an event of Kubernetes.
    fn event(mut self, kind: &str, name: &str, at: &str, reason: &str, message: &str) -> Self {
        let namespace = if kind == "Pod" { "ml" } else { "" };
        self.events.push(json!({
            "metadata": {"name": format!("event-{}", self.events.len()), "namespace": "default"},
            "involvedObject": {"kind": kind, "name": name, "namespace": namespace},
            "reason": reason, "message": message, "type": "Warning", "lastTimestamp": format!("2026-11-21T{at}Z"),
        }));
        self
    }

    /// Writes the archive and returns its path.
    pub(crate) fn write(&mut self) -> PathBuf {
        for (kind, list) in [("pods", &self.pods), ("events", &self.events), ("nodes", &self.nodes)] {
            self.archive.objects.insert(kind.to_owned(), serde_json::to_vec(list).unwrap());
        }
        let path = self.home.path().join("case.tar.gz");
        self.archive.write(std::fs::File::create(&path).unwrap()).unwrap();
        path
    }

    pub(crate) async fn run(&mut self, words: &[&str]) -> (Option<i32>, String, String) {
        let path = self.write();
        let from = ["--from", path.to_str().unwrap()];
        let ended = Launcher::alone(self.home.path()).args(from.into_iter().chain(words.iter().copied())).run().await;
        (ended.code, ended.stdout, ended.stderr)
    }

    async fn incident(&mut self, words: &[&str]) -> (Option<i32>, Value) {
        let words = ["incident", "-o", "json"].into_iter().chain(words.iter().copied()).collect::<Vec<_>>();
        let (code, stdout, stderr) = self.run(&words).await;
        (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
    }
}

fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

/// Returns time of day, node, lane and kind of each entry, starting with `from`.
fn steps(answer: &Value, from: &str) -> Vec<String> {
    let entries = list(answer, "entries").iter().map(|entry| {
        let word = |field: &str| entry[field].as_str().unwrap().to_owned();
        format!("{} {} {} {}", &word("at")[11..19], word("node"), word("lane"), word("kind"))
    });
    entries.filter(|step| step.as_str() >= from).collect()
}

fn lanes(answer: &Value, node: &str) -> Vec<String> {
    let nodes = list(answer, "nodes").iter().find(|one| one["node"] == node).unwrap();
    list(nodes, "lanes").iter().map(|lane| lane["name"].as_str().unwrap().to_owned()).collect()
}

/// Returns kind, start and end of each gap of a node.
fn gaps(answer: &Value, node: &str) -> Vec<(String, String, String)> {
    let of_node = list(answer, "gaps").iter().filter(|gap| gap["node"] == node);
    let word = |gap: &Value, field: &str| gap[field].as_str().unwrap_or_default().to_owned();
    of_node.map(|gap| (word(gap, "kind"), word(gap, "from"), word(gap, "to"))).collect()
}

const XID_149: &str = "pid='<unknown>', name=<unknown>, NETIR_LINK_EVT Fatal XC0 i0 Link 11 (0x021425c6 0x00000000 0x00000000 \
    0x00000000 0x00000000 0x00000000)";

/// Returns four nodes of one NVLink domain. They lose their links and their pods within seconds.
fn switch_fault() -> Case {
    let booted = "00:00:10";
    (1..=4).fold(Case::new(), |case, number| {
        let name = format!("gpu-{number}");
        let at = |second: usize| format!("02:31:{:02}", second + number);
        let log = [
            kmsg(booted, booted, 0, "Linux version 6.8.0-1041-nvidia-64k"),
            kmsg(
                booted,
                "00:00:20",
                1,
                "NVRM: loading NVIDIA UNIX Open Kernel Module for aarch64  570.124.06  Release Build",
            ),
            kmsg(booted, &at(6), 2, &format!("NVRM: Xid (PCI:0009:01:00): 149, {XID_149}")),
            kmsg(booted, &at(8), 3, "NVRM: Xid (PCI:0009:01:00): 45, pid=30119, name=python3, Ch 00000008"),
        ];
        case.node(&name, "gb200-4", booted, &log).pod(&name, &format!("train-{number}"), &at(12), 139).event(
            "Node",
            &name,
            &at(30),
            "NodeNotReady",
            "Kubelet stopped posting node status.",
        )
    })
}

#[tokio::test]
async fn a_switch_that_takes_four_nodes_down_is_one_fault_with_its_first_node_and_the_others() {
    let (code, answer) = switch_fault().incident(&["--since", "2026-11-21T02:00:00Z"]).await;
    assert_eq!(code, Some(1), "{answer}");
    let first = &answer["faults"][0];
    assert_eq!((&first["node"], &first["lane"]), (&json!("gpu-1"), &json!("GPU 1")), "{first}");
    assert_eq!(first["also_on"], json!(["gpu-2", "gpu-3", "gpu-4"]));
    assert!(first["what"].as_str().unwrap().starts_with("Xid 149"), "{first}");
    assert_eq!(list(&answer, "faults").len(), 1, "{answer}");
    let summary = answer["summary"].as_str().unwrap();
    assert!(summary.contains("also on gpu-2, gpu-3, gpu-4"), "{summary}");
    let expected: Vec<String> = [
        "07 gpu-1 GPU 1 kernel",
        "08 gpu-2 GPU 1 kernel",
        "09 gpu-1 GPU 1 kernel",
        "09 gpu-3 GPU 1 kernel",
        "10 gpu-2 GPU 1 kernel",
        "10 gpu-4 GPU 1 kernel",
        "11 gpu-3 GPU 1 kernel",
        "12 gpu-4 GPU 1 kernel",
        "13 gpu-1 pod ml/train-1 pod_ended",
        "14 gpu-2 pod ml/train-2 pod_ended",
        "15 gpu-3 pod ml/train-3 pod_ended",
        "16 gpu-4 pod ml/train-4 pod_ended",
        "31 gpu-1 node node_event",
    ]
    .map(|step| format!("02:31:{step}"))
    .to_vec();
    assert_eq!(steps(&answer, "02:31")[..13], expected, "{answer}");
    for number in 1..=4 {
        let node = format!("gpu-{number}");
        assert_eq!(lanes(&answer, &node), ["node".to_owned(), "GPU 1".into(), format!("pod ml/train-{number}")]);
        assert!(gaps(&answer, &node).is_empty(), "the log begins at the boot, before the period: {answer}");
    }
    let ended = list(&answer, "entries").iter().find(|entry| entry["kind"] == "pod_ended").unwrap();
    assert!(ended["what"].as_str().unwrap().contains("exit code 139"), "{ended}");
}

#[tokio::test]
async fn a_reboot_is_between_what_was_before_and_after_it_and_the_silence_before_it_is_a_gap() {
    let booted = "02:25:10";
    let log = [
        journal("01:30:00", "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)"),
        journal(
            "02:10:00",
            "NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        ),
        journal("02:11:30", "usb 1-1: USB disconnect, device number 3"),
        kmsg(booted, booted, 0, "Linux version 5.15.0-131-generic"),
        kmsg(
            booted,
            "02:25:25",
            1,
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build",
        ),
        kmsg(
            booted,
            "02:40:00",
            2,
            "NVRM: Xid (PCI:0000:5d:00): 154, pid='<unknown>', name=<unknown>, GPU recovery action changed from \
            0x1 (GPU Reset Required) to 0x0 (None)",
        ),
    ];
    let mut case = Case::new().node("gpu-1", "healthy-h100-8", booted, &log).pod("gpu-1", "train-0", "02:24:00", 137);
    // Two pods that no longer exist. The kubelet of another node reported the second event.
    for (pod, host) in [("gone", "gpu-1"), ("elsewhere", "gpu-9")] {
        case = case.event("Pod", pod, "02:05:00", "FailedMount", "the volume is not there");
        case.events.last_mut().unwrap()["source"] = json!({"component": "kubelet", "host": host});
    }
    let (_, answer) = case.incident(&["gpu-1", "--since", "2026-11-21T02:00:00Z"]).await;
    let expected = [
        "02:05:00 gpu-1 pod ml/gone pod_event",
        "02:10:00 gpu-1 GPU 3 kernel",
        "02:24:00 gpu-1 pod ml/train-0 pod_ended",
        "02:25:10 gpu-1 node boot",
        "02:25:25 gpu-1 node driver_load",
        "02:33:00 gpu-1 pod ml/train-0 pod_started",
        "02:40:00 gpu-1 GPU 3 gpu_reset",
    ];
    assert_eq!(steps(&answer, "02")[..7], expected, "{answer}");
    assert_eq!(lanes(&answer, "gpu-1"), ["node", "GPU 3", "pod ml/gone", "pod ml/train-0"]);
    let gap = |kind: &str, from: &str, to: &str| {
        (kind.to_owned(), format!("2026-11-21T{from}Z"), format!("2026-11-21T{to}Z"))
    };
    assert_eq!(gaps(&answer, "gpu-1"), [gap("before_boot", "02:11:30", "02:25:10")], "{answer}");
    let runs = &answer["nodes"][0]["lanes"][3]["runs"];
    assert_eq!(
        runs,
        &json!([
            {"from": "2026-11-21T01:00:30Z", "to": "2026-11-21T02:24:00Z"}, {"from": "2026-11-21T02:33:00Z"},
        ])
    );
}

#[tokio::test]
async fn what_no_log_covers_is_told_with_its_time_and_its_reason() {
    let mut case = Case::new().node("gpu-1", "healthy-h100-8", "00:00:10", &[]);
    let mut report: Value = serde_json::from_slice(&case.archive.nodes["gpu-1"].report).unwrap();
    report.as_object_mut().unwrap().remove("kernel_log");
    report["sections"]["host"]["data"]["uptime_seconds"] = json!(40 * 86_400);
    report["sections"]["xid"] = json!({"status": "ok", "duration_ms": 1, "data": {"events": [], "coverage": [
        {"source": "/var/log/kern.log", "from": "2026-11-20T12:00:00Z", "to": "2026-11-20T20:00:00Z", "records": 40},
        {"source": "/dev/kmsg", "from": "2026-11-21T02:00:00Z", "to": "2026-11-21T02:44:00Z", "records": 900,
            "lost_records": 12, "complete_since_boot": false},
    ]}});
    case.archive.nodes.get_mut("gpu-1").unwrap().report = serde_json::to_vec(&report).unwrap();
    case.archive.add_unread_node("gpu-2", "the node is not ready".into());
    let node = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"nvidia.com/gpu.present": "true"}},
        "status": {"capacity": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    case.nodes = vec![node("gpu-1"), node("gpu-2")];
    let (code, answer) = case.incident(&[]).await;
    assert_eq!(code, Some(3), "a node was not read: {answer}");
    let gap =
        |kind: &str, from: &str, to: &str| (kind.to_owned(), format!("2026-11-{from}Z"), format!("2026-11-{to}Z"));
    let of_node = gaps(&answer, "gpu-1");
    for expected in [
        gap("log_begins_later", "20T02:45:10", "20T12:00:00"),
        gap("log_missing", "20T20:00:00", "21T02:00:00"),
        gap("lines_lost", "21T02:00:00", "21T02:44:00"),
    ] {
        let is_found = |(kind, from, to): &&(String, String, String)| {
            *kind == expected.0 && from[..19] == expected.1[..19] && to[..19] == expected.2[..19]
        };
        assert!(of_node.iter().any(|gap| is_found(&gap)), "{expected:?}: {of_node:?}");
    }
    assert_eq!(of_node.len(), 3, "{of_node:?}");
    let unread = list(&answer, "gaps").iter().find(|gap| gap["node"] == "gpu-2").unwrap();
    assert_eq!(unread["kind"], "node_not_read", "{unread}");
    assert!(unread["why"].as_str().unwrap().contains("the node is not ready"), "{unread}");
    assert!(answer["summary"].as_str().unwrap().contains("1 node could not be read"), "{answer}");
    let of_cluster = list(&answer, "gaps").iter().find(|gap| gap["kind"] == "events_missing").unwrap();
    assert!(of_cluster.get("node").is_none(), "{of_cluster}");
    // By default, only one day is requested. The log of the last half hour has no gap.
    let (_, answer) = case.incident(&["gpu-1", "--since", "30m"]).await;
    assert!(!gaps(&answer, "gpu-1").iter().any(|(kind, ..)| kind.starts_with("log_")), "{answer}");
}

/// Returns the tags of a page, without the tags of its frame.
fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).map(|rest| rest.split(['>', ' ', '\n']).next().unwrap()).collect()
}

#[tokio::test]
async fn no_text_of_others_is_more_than_text_in_the_page() {
    let evil = "\"><script>alert('1')</script><img src=x onerror=alert(2)> \u{1b}[31mred\u{202e}evil &amp; ' onload='x";
    let booted = "00:00:10";
    let line = format!("NVRM: Xid (PCI:0000:5d:00): 79, pid=7, name={evil}, GPU has fallen off the bus.");
    let mut case = Case::new()
        .node("gpu-1", "healthy-h100-8", booted, &[kmsg(booted, "02:10:00", 7, &line)])
        .pod("gpu-1", evil, "02:12:00", 1)
        .event("Pod", evil, "02:13:00", evil, evil)
        .event("Node", "gpu-1", "02:14:00", "<b>Bold", evil);
    let page = case.home.path().join("page.html");
    let file = page.to_str().unwrap();
    let (code, answer) = case.incident(&["--html", file]).await;
    assert_eq!(code, Some(1), "{answer}");
    let html = std::fs::read_to_string(&page).unwrap();
    let known = [
        "!doctype", "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "i", "a", "div", "span",
        "table", "thead", "tbody", "tr", "th", "td", "time", "code",
    ];
    for tag in tags(&html) {
        assert!(known.contains(&tag.trim_start_matches('/')), "<{tag}>");
    }
    assert_eq!(html.matches("<title>").count(), 1);
    assert!(!html.contains(['\u{1b}', '\u{202e}']) && !html.contains("http://") && !html.contains("https://"));
    assert!(html.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    // The texts are in the page, but not in attributes of tags.
    assert!(html.matches("alert(").count() >= 3 && html.matches("&quot;&gt;").count() >= 3, "{html}");
    for tag in html.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
        let outside: String = tag.split('"').step_by(2).collect();
        assert!(!outside.contains("onload") && !outside.contains("onerror"), "{tag}");
    }
    assert!(!answer.to_string().contains(['\u{1b}', '\u{202e}']), "{answer}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_page_is_private_and_replaces_no_file_without_force() {
    use std::os::unix::fs::PermissionsExt;
    let mut case = switch_fault();
    let page = case.home.path().join("page.html");
    let file = page.to_str().unwrap().to_owned();
    std::fs::write(&page, "mine").unwrap();
    let (code, _, stderr) = case.run(&["incident", "--html", &file, "-o", "table"]).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("--html") && stderr.contains("--force"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "mine");
    let (code, stdout, _) = case.run(&["incident", "--html", &file, "--force", "-o", "table"]).await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("HTML page: ") && stdout.contains("From an archive of"), "{stdout}");
    let mode = std::fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(Path::new(&file).is_file() && std::fs::read_to_string(&page).unwrap().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn an_unknown_node_is_refused_with_its_name() {
    let (code, _, stderr) = switch_fault().run(&["incident", "nosuch", "-o", "table"]).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("nosuch") && stderr.contains("Next step"), "{stderr}");
    let ago = NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_mins(1);
    let (code, answer) = switch_fault().incident(&["gpu-1", "--since", &ago.to_string()]).await;
    assert_eq!((code, &answer["faults"]), (Some(0), &json!([])), "nothing in the last minute: {answer}");
}

#[tokio::test]
async fn a_cluster_is_read_with_one_probe_per_node_and_again_where_the_raw_log_is_refused() {
    let nodes = [node("gpu-1", "healthy-h100-8"), node("gpu-2", "xid79-off-bus")];
    let bed = Bed::of(demo_cluster::Fixture::of(nodes)).await;
    let ended = bed.launcher().args(["incident", "-o", "json", "--since", "30d"]).run().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["faults"][0]["node"], "gpu-2", "{answer}");
    assert!(answer["context"].is_string() && answer.get("archive").is_none(), "{answer}");
    bed.until_bare().await;
    bed.assert_bare(2);
    let refused = demo_cluster::CountedFault::once(demo_cluster::ExecFault::Forbidden);
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(refused)).await;
    let ended = bed.launcher().args(["incident", "-o", "json"]).run().await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(!answer["gaps"].to_string().contains("node_not_read"), "{answer}");
    bed.until_bare().await;
}
