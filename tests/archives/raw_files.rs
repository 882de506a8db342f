//! Tests of the raw files in an archive: driver files and configuration spaces, and that `--redact` removes names.

use demo_cluster::{Fixture, NodeFacts};
use serde_json::Value;
use syringe_core::raw_file::RawFile;

use crate::bed::{Bed, node};
use crate::support::launcher::Launcher;

const UUID: &str = "9d1ff2a7-60cb-4e2b-8f2b-3b0a5f6c7d8e";

/// Returns a cluster with a node that has files of the driver. The files contain names.
async fn cluster() -> (Bed, String) {
    let mut gpu = node("gpu-1", "xid79-off-bus");
    let mut report = (*gpu.facts.report()).clone();
    let serial = report.sections.inventory.as_ref().unwrap().data.as_ref().unwrap().gpus[0].serial.clone().unwrap();
    let text = |path: &str, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        RawFile { path: format!("/proc/driver/nvidia/{path}"), lines }
    };
    let mut config = vec![0x10; 512];
    config[0x100..0x10c].copy_from_slice(&[3, 0, 1, 0, 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef]);
    report.raw_files = vec![
        text("registry", &["RegistryDwords: \"x=1\" ![ignore](http://10.1.2.3/a) gpu-1"]),
        text("gpus/0000:5d:00.0/information", &[&format!("GPU UUID: \t GPU-{UUID}"), &format!("Serial: {serial} ```")]),
        RawFile::of_bytes("/sys/bus/pci/devices/0000:5d:00.0/config".to_owned(), &config),
    ];
    gpu.facts = NodeFacts::Known(report.into());
    (Bed::of(Fixture::of([gpu])).await, serial)
}

#[tokio::test]
async fn the_files_are_beside_the_report_and_a_return_report_quotes_those_of_its_gpu() {
    let (bed, _) = cluster().await;
    let file = bed.home().join("saved.tar.gz");
    let path = file.to_str().unwrap();
    let ended = bed.launcher().args(["save", "-f", path]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let archive = archive::Archive::read(std::fs::File::open(&file).unwrap(), true).unwrap();
    let saved = &archive.nodes["gpu-1"];
    assert_eq!(saved.files.len(), 3);
    assert!(!String::from_utf8_lossy(&saved.report).contains("raw_files"), "rules read the report, and not the files");
    let words = ["return-report", "gpu-1", "--gpu", "0000:5d:00.0", "-o"];
    let from_cluster = bed.launcher().args(words.into_iter().chain(["json"])).run().await;
    let from = ["--from", path].into_iter().chain(words);
    let from_archive = Launcher::alone(bed.home()).args(from.clone().chain(["json"])).run().await;
    for ended in [from_cluster, from_archive] {
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let files = report["files"].as_array().unwrap();
        assert_eq!(files.len(), 2, "only the files of the GPU: {files:?}");
        assert_eq!(files[1]["lines"].as_array().unwrap().len(), 16, "the start of the configuration space");
        assert!(report["quoted"].as_array().unwrap().iter().any(|field| field == "lines"), "{report}");
        assert!(!report["missing"].to_string().contains("lspci"), "{report}");
    }
    let text = Launcher::alone(bed.home()).args(from.chain(["table"])).run().await.stdout;
    assert!(text.contains("    00: 10 10 10") && text.contains("/information`\n\n    GPU UUID:"), "{text}");
    assert!(
        text.lines().all(|line| line.starts_with("    ") || !line.contains("```")),
        "text of others is code: {text}"
    );
}

#[tokio::test]
async fn a_redacted_archive_has_the_files_without_names() {
    let (bed, serial) = cluster().await;
    let file = bed.home().join("saved.tar.gz");
    let ended = bed.launcher().args(["save", "--redact", "-f", file.to_str().unwrap()]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let archive = archive::Archive::read(std::fs::File::open(&file).unwrap(), true).unwrap();
    let saved = archive.nodes.values().next().unwrap();
    assert!(saved.kernel_log.is_empty(), "the raw kernel log has names in forms that nobody knows");
    let files = serde_json::to_string(&saved.files).unwrap();
    for secret in [UUID, &serial, "10.1.2.3", "gpu-1", "de ad be ef"] {
        assert!(!files.contains(secret), "{secret}: {files}");
    }
    for kept in ["0000:5d:00.0", "RegistryDwords", "100: 03 00 01 00 00 00 00 00 00 00 00 00 10"] {
        assert!(files.contains(kept), "{kept}: {files}");
    }
}
