//! Tests of what is refused: files that are not archives, and actions, commands and options of a cluster with an
//! archive. Also tests that an archive is written completely, replaces no file without `--force`, and may lack the
//! kernel log.

use serde_json::json;

use crate::bed::Bed;
use crate::support::client::Client;
use crate::support::launcher::Launcher;

#[tokio::test]
async fn a_file_that_is_no_archive_is_refused_with_its_reason_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let good = demo_cluster::DEMO;
    let mut packed = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    packed.append_link(&mut header, "nodes/gpu-1/report.json", "/etc/passwd").unwrap();
    let link = packed.into_inner().unwrap().finish().unwrap();
    for (file, content, why) in [
        ("absent", None, "No such file"),
        ("text", Some(&b"hello"[..]), "is not an archive"),
        ("answer", Some(br#"{"verdict": "healthy"}"#), "not a report"),
        ("cut", Some(&good[..good.len() / 2]), "damaged"),
        ("link", Some(&link), "is not a plain file"),
    ] {
        let path = home.path().join(file);
        content.into_iter().for_each(|content| std::fs::write(&path, content).unwrap());
        let path = path.to_str().unwrap();
        let ended = Launcher::alone(home.path()).args(["--from", path, "diagnose", "gpu-1", "-o", "table"]).run().await;
        assert_eq!(ended.code, Some(3), "{file}: {}", ended.stderr);
        assert!(ended.stderr.contains(why) && ended.stderr.contains("archive"), "{file}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{file}: {}", ended.stdout);
    }
    let mut found: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["answer", "cut", "link", "text"]);
}

#[tokio::test]
async fn an_action_is_refused_on_an_archive_but_not_on_the_demo() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("demo.tar.gz");
    std::fs::write(&file, demo_cluster::DEMO).unwrap();
    let from = ["--mode", "operator", "--from", file.to_str().unwrap()];
    let mut client = Client::start(Launcher::alone(home.path()).args(from)).await;
    let offered = client.tools().await;
    let changing = offered.iter().filter(|tool| tool["annotations"]["destructiveHint"] == true);
    assert_eq!(changing.map(|tool| &tool["name"]).collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
    let gpu = "GPU-1906b427-fa8b-452e-a9fb-861e895b635f";
    let words = ["reset-gpu", "gpu-3", "--gpu", gpu, "--yes", "-o", "table"];
    let ended = Launcher::alone(home.path()).args(from).args(words).run().await;
    assert!(
        ended.stderr.contains("nothing can be changed") && ended.stderr.contains("without --from"),
        "{}",
        ended.stderr
    );
    let arguments = json!({"node_name": "gpu-3", "gpu": gpu});
    let mut client = Client::start(Launcher::alone(home.path()).args(["--mode", "operator", "--demo"])).await;
    let answer = client.call("reset_gpu", arguments).await;
    assert!(
        !answer.is_error || !answer.error().contains("archive"),
        "the demo makes a plan, or says why there is none"
    );
}

#[tokio::test]
async fn an_archive_is_written_completely_or_not_at_all() {
    let bed = Bed::healthy().await;
    let path = bed.home().join("nosuch/archive.tar.gz");
    let ended = bed.launcher().args(["save", "-f", path.to_str().unwrap(), "-o", "table"]).run().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("with -f"), "{}", ended.stderr);
    let ended = bed.launcher().args(["save", "nosuch", "-o", "table"]).run().await;
    assert!(ended.stderr.contains("no such node"), "{}", ended.stderr);
    bed.until_bare().await;
}

#[tokio::test]
async fn commands_about_a_cluster_are_refused_on_an_archive() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("demo.tar.gz");
    std::fs::write(&file, demo_cluster::DEMO).unwrap();
    let from = ["--from", file.to_str().unwrap()];
    for command in ["setup", "doctor", "sweep", "save"] {
        let ended = Launcher::alone(home.path()).args(from).args([command, "-o", "table"]).run().await;
        assert_eq!(ended.code, Some(2), "{command}: {}", ended.stderr);
        assert!(ended.stderr.contains("names an archive"), "{command}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{command}: {}", ended.stdout);
    }
    let ended = Launcher::alone(home.path()).args(["--demo", "doctor", "-o", "table"]).run().await;
    assert!(!ended.stderr.contains("names an archive"), "{}", ended.stderr);
}

#[tokio::test]
async fn options_of_a_cluster_are_refused_with_an_archive_but_settings_are_ignored() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("demo.tar.gz");
    std::fs::write(&file, demo_cluster::DEMO).unwrap();
    let from = ["--from", file.to_str().unwrap()];
    for option in [["--kubeconfig", "/nosuch"], ["--context", "prod"], ["--as", "admin"]] {
        let ended = Launcher::alone(home.path()).args(from).args(option).args(["nodes", "-o", "table"]).run().await;
        assert_eq!(ended.code, Some(2), "{option:?}: {}", ended.stderr);
        let expected = format!("{} is about a cluster", option[0]);
        assert!(ended.stderr.replace('\n', " ").contains(&expected), "{option:?}: {}", ended.stderr);
    }
    let config = home.path().join("config.toml");
    std::fs::write(&config, "context = \"prod\"\nas = \"admin\"\nkubeconfig = \"/nosuch\"\n").unwrap();
    let arguments = ["--config", config.to_str().unwrap(), "nodes", "-o", "json"];
    let ended = Launcher::alone(home.path()).args(from).args(arguments).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("\"demo\"") && !ended.stdout.contains("prod"), "{}", ended.stdout);
}

#[tokio::test]
async fn an_archive_is_asked_without_a_line_in_the_audit_log_and_the_demo_has_its_own_log() {
    let bed = Bed::healthy().await;
    let file = bed.home().join("saved.tar.gz");
    let path = file.to_str().unwrap();
    let ended = bed.launcher().args(["save", "--redact", "-f", path, "--fail-on", "never"]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = bed.audit();
    let saved = lines.last().unwrap();
    assert_eq!(saved["event"], "saved");
    assert_eq!(saved["arguments"]["file"], path);
    assert_eq!(saved["arguments"]["redacted"], true);
    assert_eq!(saved["arguments"]["nodes"], json!(["gpu-1"]), "the log is private, and names the nodes");
    assert_eq!(saved["arguments"]["bytes"], std::fs::metadata(&file).unwrap().len());
    let ended = bed.launcher().args(["--from", path, "inventory", "node-1", "-o", "json"]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(bed.audit(), lines);
    let ended = bed.launcher().args(["--demo", "inventory", "gpu-1", "-o", "json"]).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(bed.audit(), lines);
    assert!(bed.home().join("state/gpu-syringe/audit-demo.jsonl").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn an_existing_file_is_replaced_only_with_force_and_only_if_it_is_a_plain_file() {
    let bed = Bed::healthy().await;
    let (file, target, link) = (bed.home().join("a.tar.gz"), bed.home().join("target"), bed.home().join("link"));
    std::fs::write(&file, "mine").unwrap();
    std::fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for (path, force, is_written) in
        [(&file, false, false), (&file, true, true), (&link, false, false), (&link, true, false)]
    {
        let words = ["save", "-f", path.to_str().unwrap(), "--fail-on", "never"];
        let ended = bed.launcher().args(words.into_iter().chain(force.then_some("--force"))).run().await;
        assert_eq!(ended.code == Some(0), is_written, "{path:?} {force}: {}", ended.stderr);
        assert_eq!(std::fs::read(path).unwrap() != b"mine", is_written, "{path:?} {force}");
    }
    assert!(link.is_symlink());
}

#[tokio::test]
async fn a_node_is_saved_without_its_kernel_log_where_a_policy_refuses_the_log_or_others_could_read_it() {
    for (via, redact, why) in [
        ("pod", false, "exec is not allowed in this namespace"),
        ("pod", true, "exec is not allowed in this namespace"),
        ("logs", false, "--via logs"),
        ("logs", true, "--via logs"),
    ] {
        let is_refused = via == "pod";
        let fault = is_refused.then(|| demo_cluster::CountedFault::once(demo_cluster::ExecFault::Forbidden));
        let bed = Bed::with(|faults| faults.everywhere.exec = fault).await;
        let file = bed.home().join("saved.tar.gz");
        let words = ["save", "--via", via, "-f", file.to_str().unwrap(), "-o", "json"];
        let ended = bed.launcher().args(words.into_iter().chain(redact.then_some("--redact"))).run().await;
        assert_eq!(ended.code, Some(0), "{via}: {}{}", ended.stdout, ended.stderr);
        let saved: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let unread = saved["unread"].to_string();
        assert!(unread.contains("the files of the driver were not read") && unread.contains(why), "{via}: {unread}");
        let archive = archive::Archive::read(std::fs::File::open(&file).unwrap(), true).unwrap();
        assert_eq!(archive.nodes.len(), 1, "{via}");
        assert!(archive.nodes.values().all(|node| node.kernel_log.is_empty() && node.files.is_empty()), "{via}");
    }
}
