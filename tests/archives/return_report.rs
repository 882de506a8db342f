//! Tests of `gpu-syringe return-report`: a healthy GPU, a lost GPU, a fault that recurs after a reboot, wrong names.

use serde_json::{Value, json};

use crate::incident::{Case, journal, kmsg};
use crate::support::launcher::Launcher;

const LOST: &str = "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
/// The lost GPU of node gpu-2 of the demo.
const UUID: &str = "GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417";

async fn demo(words: &[&str]) -> (Option<i32>, String, String) {
    let home = tempfile::tempdir().unwrap();
    let words = ["--demo", "return-report"].into_iter().chain(words.iter().copied());
    let ended = Launcher::alone(home.path()).args(words).run().await;
    (ended.code, ended.stdout, ended.stderr)
}

/// Returns the value of a fact.
fn value<'a>(report: &'a Value, section: &str, name: &str) -> Option<&'a str> {
    report[section].as_array()?.iter().find(|fact| fact["name"] == name)?["value"].as_str()
}

#[tokio::test]
async fn nothing_supports_the_return_of_a_healthy_gpu() {
    let (code, stdout, _) = demo(&["gpu-3", "--gpu", "0"]).await;
    assert_eq!(code, Some(0), "{stdout}");
    assert!(
        stdout.starts_with("# Return report: GPU of gpu-3\n\nThe diagnosis does not support a return of GPU 0"),
        "{stdout}"
    );
    assert!(!stdout.contains("Missing for a complete case"), "{stdout}");
    let (code, stdout, _) = demo(&["gpu-3", "--gpu", "GPU-998ca674-d73f-45e6-a36d-38593bb9521c", "-o", "json"]).await;
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["supported"]), (Some(0), &json!("no")), "{report}");
    assert_eq!(value(&report, "identity", "part number"), Some("692-2G506-0212-002"));
    assert_eq!(value(&report, "versions", "VBIOS"), Some("92.00.A0.00.01"));
    assert_eq!(value(&report, "counters", "ecc.remapped_rows.pending"), Some("false"));
    assert!(report.get("missing").is_none() && report.get("tried").is_none(), "{report}");
}

#[tokio::test]
async fn a_lost_gpu_has_the_identity_that_is_still_known_and_the_commands_for_the_rest() {
    for name in [UUID, "0000:5d:00.0", "5d:00.0"] {
        let (code, stdout, stderr) = demo(&["gpu-2", "--gpu", name, "-o", "json"]).await;
        assert_eq!(code, Some(1), "{name}: {stderr}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["supported"], "if_repeated", "{report}");
        assert_eq!(value(&report, "identity", "UUID"), Some(UUID));
        assert_eq!(value(&report, "identity", "serial number"), Some("1675710730620"));
        let events = report["events"].as_array().unwrap();
        assert!(
            events
                .iter()
                .any(|event| event["what"].as_str().unwrap().starts_with("Xid 79") && event["names_uuid"] == true)
        );
        assert_eq!(report["findings"][0]["id"], "gpu-off-bus");
        assert_eq!(report["plan"][0]["rma"], "if_repeated");
        let missing = report["missing"].as_array().unwrap();
        let command = |what: &str| missing.iter().find(|one| one["what"] == what).map(|one| one["command"].clone());
        assert_eq!(command("bug report of the driver"), Some(json!("nvidia-bug-report.sh")));
        assert!(command("VBIOS version").is_some() && command("serial number of the GPU").is_none(), "{missing:?}");
        assert!(command("diagnostic of DCGM").is_none(), "DCGM cannot test a GPU that is lost");
    }
    // The driver may have numbered the GPUs without the lost GPU.
    let (code, _, stderr) = demo(&["gpu-2", "--gpu", "1", "-o", "table"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("ambiguous") && stderr.contains(UUID), "{stderr}");
    let (code, _, stderr) = demo(&["gpu-2", "--gpu", "GPU-nosuch", "-o", "table"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("GPU-nosuch") && stderr.contains(UUID), "{stderr}");
}

#[tokio::test]
async fn a_fault_that_comes_back_after_a_reboot_supports_a_return_with_what_was_tried() {
    let booted = "02:25:10";
    let xid = |code: u32, rest: &str| format!("NVRM: Xid (PCI:0000:5d:00): {code}, {rest}");
    let marks = "pid=7, name=```|<b>[x](http://evil), GPU has fallen off the bus.";
    let log = [
        journal("01:30:00", "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)"),
        journal("02:10:00", &xid(79, LOST)),
        kmsg(booted, booted, 0, "Linux version 5.15.0-131-generic"),
        kmsg(
            booted,
            "02:25:25",
            1,
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build",
        ),
        kmsg(booted, "02:40:00", 2, &xid(79, LOST)),
        kmsg(booted, "02:40:01", 3, &xid(79, marks)),
    ];
    let mut case = Case::new().node("gpu-1", "xid79-off-bus", booted, &log);
    let (code, stdout, stderr) = case.run(&["return-report", "gpu-1", "--gpu", "0000:5d:00.0", "-o", "json"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["supported"], "if_diagnostic_fails", "{report}");
    let tried = report["tried"].as_array().unwrap().iter();
    let tried: Vec<_> = tried.map(|step| (step["kind"].as_str().unwrap(), step["fault_again"] == true)).collect();
    assert_eq!(tried, [("boot", true), ("driver_load", true)], "{report}");
    let lines = report["kernel_lines"].as_array().unwrap();
    assert_eq!(lines.iter().filter(|line| line.as_str().unwrap().contains("79, pid=")).count(), 3, "{lines:?}");
    assert!(report["gaps"].as_array().unwrap().iter().any(|gap| gap["kind"] == "before_boot"), "{report}");
    let (_, text, _) = case.run(&["return-report", "gpu-1", "--gpu", "0000:5d:00.0"]).await;
    for part in [
        "## Tried after the first fault",
        "| 2026-11-21T02:25:10Z | reboot of the node | yes |",
        "(RMA: if diagnostic fails)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    } // Lines of the kernel are indented, which is code in Markdown.
    let line = text.lines().find(|line| line.contains("name=```")).unwrap();
    assert!(line.starts_with("    "), "{line}");
    assert!(text.lines().all(|line| line.starts_with("    ") || !line.contains("```")), "{text}");
}
