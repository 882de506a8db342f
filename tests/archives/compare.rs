//! Tests of `gpu-syringe compare`: only changes are listed, worst first; GPUs are matched by identity; nodes and names
//! that cannot be compared are left out; exit codes.

use std::path::PathBuf;

use serde_json::{Value, json};
use syringe_core::scenarios;

use crate::bed::{Bed, node};
use crate::support::client::{Client, Era};
use crate::support::launcher::Launcher;

/// Two reports of a node, and the home directory of the launchers.
struct Reports {
    home: tempfile::TempDir,
    earlier: Value,
    later: Value,
}

impl Reports {
    /// Returns two equal reports of a healthy node. The kernel log is parsed, as in a report from a node.
    fn equal() -> Self {
        let facts = scenarios::named("healthy-h100-8").unwrap().report();
        let report = node_probe::run(&["all".to_owned()], Some(&facts)).stdout;
        let earlier: Value = serde_json::from_slice(&report).unwrap();
        let mut later = earlier.clone();
        later["taken_at"] = json!("2026-11-21T04:00:00Z");
        Self { home: tempfile::tempdir().unwrap(), earlier, later }
    }

    /// Returns the GPU with this index in a section of the later report.
    fn gpu(&mut self, section: &str, index: usize) -> &mut Value {
        &mut self.later["sections"][section]["data"]["gpus"][index]
    }

    async fn compare(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let file = |name: &str, report: &Value| -> PathBuf {
            let path = self.home.path().join(name);
            std::fs::write(&path, report.to_string()).unwrap();
            path
        };
        let (one, two) = (file("a.json", &self.earlier), file("b.json", &self.later));
        let words = ["compare", one.to_str().unwrap(), two.to_str().unwrap()];
        let ended =
            Launcher::alone(self.home.path()).args(words.into_iter().chain(arguments.iter().copied())).run().await;
        let answer = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        (ended.code, answer)
    }
}

fn what(answer: &Value) -> Vec<&str> {
    answer["nodes"][0]["changes"].as_array().unwrap().iter().map(|change| change["what"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_unchanged_node_has_no_change_although_temperatures_differ() {
    let mut reports = Reports::equal();
    reports.gpu("telemetry", 0)["temperature"]["gpu_celsius"] = json!(64);
    let draw = &mut reports.gpu("telemetry", 1)["power"]["draw_milliwatts"];
    *draw = json!(draw.as_u64().unwrap() - 3_000);
    reports.later["sections"]["host"]["data"]["uptime_seconds"] = json!(99_999_999);
    let (code, answer) = reports.compare(&["--fail-on", "warning"]).await;
    assert_eq!((code, what(&answer)), (Some(0), Vec::new()), "{answer}");
}

#[tokio::test]
async fn counters_that_grow_are_changes_worst_first() {
    let mut reports = Reports::equal();
    reports.gpu("ecc", 5)["aggregate"]["uncorrected"] = json!(2);
    reports.gpu("ecc", 1)["aggregate"]["corrected"] = json!(900);
    for gpu in 0..8 {
        reports.gpu("inventory", gpu)["vbios_version"] = json!("96.00.99.00.01");
    }
    let (code, answer) = reports.compare(&[]).await;
    assert_eq!(code, Some(0), "a warning is below the default of --fail-on");
    let found = what(&answer);
    assert_eq!(found[0], "ecc.aggregate.uncorrected", "{answer}");
    let change = &answer["nodes"][0]["changes"][0];
    assert_eq!((change["severity"].as_str(), change["after"].as_str()), (Some("warning"), Some("2")));
    for expected in ["ecc.aggregate.corrected", "inventory.vbios_version"] {
        assert!(found.contains(&expected), "{found:?}");
    }
    assert_eq!(reports.compare(&["--fail-on", "warning"]).await.0, Some(1));
}

#[tokio::test]
async fn gpus_are_matched_by_identity_and_not_by_index() {
    let mut reports = Reports::equal();
    let lists = ["inventory", "telemetry", "ecc", "topology", "mig"];
    for section in lists {
        let gpus = reports.later["sections"][section]["data"]["gpus"].as_array_mut().unwrap();
        gpus.remove(2);
        for (index, gpu) in gpus.iter_mut().enumerate() {
            gpu["index"] = json!(index);
        }
    }
    reports.later["sections"]["host"]["data"]["pci_gpus"].as_array_mut().unwrap().remove(2);
    let (code, answer) = reports.compare(&[]).await;
    assert_eq!(code, Some(1), "{answer}");
    assert!(what(&answer).contains(&"the GPU is missing"), "{answer}");
    assert!(!what(&answer).iter().any(|what| what.starts_with("ecc.")), "no value of another GPU: {answer}");
    // A replaced board has another UUID and serial number at the same address.
    let mut reports = Reports::equal();
    let uuid = reports.gpu("inventory", 2)["uuid"].as_str().unwrap().to_owned();
    let later = reports.later.to_string().replace(&uuid, "GPU-00000000-1111-2222-3333-444444444444");
    reports.later = serde_json::from_str(&later).unwrap();
    reports.gpu("inventory", 2)["serial"] = json!("1999999999999");
    let (_, answer) = reports.compare(&[]).await;
    assert_eq!(what(&answer)[..2], ["UUID", "serial number"], "{answer}");
}

#[tokio::test]
async fn archives_nodes_and_both_can_be_compared() {
    let bed =
        Bed::of(demo_cluster::Fixture::of([node("gpu-1", "healthy-h100-8"), node("gpu-2", "xid79-off-bus")])).await;
    let file = bed.home().join("before.tar.gz");
    let file = file.to_str().unwrap();
    let ended = bed.launcher().args(["save", "-f", file]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (arguments, code, changed) in [
        ([file, "gpu-1"], 0, false),
        (["gpu-2", file], 0, false),
        ([file, file], 0, false),
        (["gpu-1", "gpu-2"], 1, true),
    ] {
        let ended = bed.launcher().args(["compare"].into_iter().chain(arguments)).run().await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {} {}", ended.stdout, ended.stderr);
        let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
        let has_changes =
            answer["nodes"].as_array().unwrap().iter().any(|node| !node["changes"].as_array().unwrap().is_empty());
        assert_eq!(has_changes, changed, "{arguments:?}: {answer}");
    }
    // The answer must contain the source of each side.
    let ended = bed.launcher().args(["compare", file, "gpu-1"]).run().await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    let (earlier, later) = (&answer["earlier"], &answer["later"]);
    assert_eq!((&earlier["archive"]["redacted"], earlier.get("context")), (&json!(false), None), "{answer}");
    assert!(earlier["archive"]["taken_at"].is_string() && later["context"].is_string(), "{answer}");
    assert!(
        later.get("archive").is_none() && answer["quoted"].as_array().unwrap().contains(&json!("version")),
        "{answer}"
    );
    let ended = bed.launcher().args(["compare", file, "gpu-1", "-o", "table"]).run().await;
    let page = ended.stdout.replace('\n', " ");
    assert!(
        page.contains("earlier: ") && page.contains("From an archive of") && page.contains("later: gpu-1: context"),
        "{page}"
    );
    let ended = bed.launcher().args(["compare", "gpu-1", file.replace("before", "nosuch").as_str()]).run().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    bed.until_bare().await;
}

/// Writes an archive with these nodes. Each value specifies whether the node was read.
fn archive(path: &std::path::Path, redacted: bool, nodes: &[(&str, bool)]) -> String {
    let mut archive = archive::Archive::default();
    archive.manifest.taken_at = "2026-11-21T02:45:10Z".parse().unwrap();
    archive.manifest.redacted = redacted;
    for (name, is_read) in nodes {
        let report = scenarios::named("healthy-h100-8").unwrap().json.as_bytes().to_vec();
        match is_read {
            true => archive.add_node(name, archive::SavedNode { report, ..Default::default() }, None),
            false => archive.add_unread_node(name, "the node is not ready".into()),
        }
    }
    archive.write(std::fs::File::create(path).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_node_that_one_archive_lacks_is_not_compared() {
    let home = tempfile::tempdir().unwrap();
    let both = archive(&home.path().join("both.tar.gz"), false, &[("gpu-1", true), ("gpu-2", true)]);
    let one = archive(&home.path().join("one.tar.gz"), false, &[("gpu-1", true)]);
    let failed = archive(&home.path().join("failed.tar.gz"), false, &[("gpu-1", true), ("gpu-2", false)]);
    let other = archive(&home.path().join("other.tar.gz"), false, &[("gpu-1", false), ("gpu-2", true)]);
    for (words, code, why) in [
        ([&both, &one], 3, "gpu-2 of "),
        ([&both, &failed], 3, "not read: the node is not ready"),
        ([&failed, &both], 3, "not read: the node is not ready"),
        ([&failed, &other], 3, "gpu-1 of "),
        ([&one, &both], 0, "\"only_later\""),
        ([&one, &one], 0, "no change"),
    ] {
        let ended = Launcher::alone(home.path()).args(["compare", words[0], words[1], "-o", "json"]).run().await;
        assert_eq!(ended.code, Some(code), "{words:?}: {} {}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains(why), "{words:?}: {}", ended.stdout);
    }
}

#[tokio::test]
async fn pseudonyms_are_not_compared_with_other_names() {
    let home = tempfile::tempdir().unwrap();
    let plain = archive(&home.path().join("plain.tar.gz"), false, &[("gpu-1", true)]);
    let [one, two] =
        ["one", "two"].map(|name| archive(&home.path().join(format!("{name}.tar.gz")), true, &[("gpu-1", true)]));
    for (words, code) in [([&one, &two], 2), ([&one, &plain], 2), ([&plain, &one], 2), ([&one, &one], 0)] {
        let ended = Launcher::alone(home.path()).args(["compare", words[0], words[1], "-o", "table"]).run().await;
        assert_eq!(ended.code, Some(code), "{words:?}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.stderr.contains("pseudonyms"), code == 2, "{words:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_report_of_too_many_gpus_is_refused() {
    let mut reports = Reports::equal();
    let gpus = reports.later["sections"]["inventory"]["data"]["gpus"].as_array_mut().unwrap();
    let gpu = gpus[0].clone();
    gpus.resize(300, gpu);
    let (code, answer) = reports.compare(&[]).await;
    assert_eq!(code, Some(3), "{answer}");
    assert!(answer["not_compared"].to_string().contains("the limit is 256"), "{answer}");
}

#[tokio::test]
async fn a_host_compares_two_nodes_or_a_node_with_the_archive_that_the_user_named() {
    let bed = Bed::of(demo_cluster::Fixture::of([
        node("gpu-1", "healthy-h100-8"),
        node("gpu-2", "ecc-remap-pending"),
        node("gpu-3", "healthy-h100-8"),
    ]))
    .await;
    let mut client = bed.client().await;
    let worse = json!({"node_name": "gpu-2", "other_node": "node/gpu-1"});
    let answer = client.call("compare_gpu_nodes", worse).await;
    let answer = answer.success();
    let changes = answer["nodes"][0]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["what"].as_str().unwrap().starts_with("row-remap-pending")), "{answer}");
    assert_eq!((&answer["nodes"][0]["node"], &answer["nodes"][0]["later_node"]), (&json!("gpu-1"), &json!("gpu-2")));
    assert!(answer.get("left_behind").is_none() && answer["quoted"].as_array().is_some(), "{answer}");
    for (arguments, why) in [
        (json!({"node_name": "gpu-2", "other_node": "gpu-2"}), "the same node"),
        (json!({"node_name": "gpu-2"}), "--earlier FILE"),
        (json!({"node_name": "gpu-2", "other_node": "/etc/passwd"}), "lower-case"),
        (json!({"node_name": "gpu-2", "other_node": "gpu-1", "earlier": "/etc/passwd"}), "unknown field"),
    ] {
        client.call("compare_gpu_nodes", arguments).await.error_with(&[why]);
    }
    client.close().await;
    // The archive contains the node before its fault.
    let file = archive(&bed.home().join("before.tar.gz"), false, &[("gpu-1", true), ("gpu-2", true)]);
    let mut client = Client::connect(Era::Initialize, bed.launcher().args(["mcp", "--earlier", &file])).await;
    let answer = client.call("compare_gpu_nodes", json!({"node_name": "gpu-2"})).await;
    let answer = answer.success();
    assert_eq!(answer["nodes"].as_array().map(Vec::len), Some(1), "only the node that was asked for: {answer}");
    assert!(answer["earlier"]["archive"]["taken_at"].is_string() && answer["later"]["context"].is_string(), "{answer}");
    assert!(answer["nodes"][0]["changes"].to_string().contains("row-remap-pending"), "{answer}");
    client.call("compare_gpu_nodes", json!({"node_name": "gpu-3"})).await.error_with(&["no node with the same name"]);
    client.close().await;
    bed.until_bare().await;
}
