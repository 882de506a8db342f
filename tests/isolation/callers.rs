//! Tests with hostile callers of exec, who choose the arguments and the standard input of `node-probe`.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{PROBE, Running, document, facts_in, library_in, may_unshare, open_folder, run, until};

const GPU: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000001";

/// In earlier versions, each of these arguments ran a program of the caller as root, or changed a file of the caller's
/// choice.
#[test]
fn no_argument_loads_runs_or_writes_a_file() {
    let folder = open_folder();
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (library, facts) = (library_in(folder.path()), facts_in(folder.path()));
    let library = library.to_str().expect("UTF-8");
    std::fs::write(at("tool"), format!("#!/bin/sh\necho ran > {}\n", at("ran"))).expect("a file");
    std::fs::set_permissions(at("tool"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(at("host-file"), "before").expect("a file");
    let (tool, root, file) = (at("tool"), at(""), at("host-file"));
    let words: Vec<Vec<&str>> = vec![
        vec!["inventory", "--nvml-library", library],
        vec!["--nvml-library", library, "all"],
        vec!["--root", &root, "all"],
        vec!["--facts", facts.to_str().expect("UTF-8"), "all"],
        vec!["xid", "--kernel-log", &file],
        vec!["host-journal", &root, "--since", "0"],
        vec!["device-access", "--theirs", &file, "--ours", &file, "--folder", "/dev", "--names", "null"],
        vec!["--operator", "driver-tool", "--driver-root", "/", "--program", &tool, "--gpu", GPU, "--job", "reset"],
        vec![],
    ];
    for words in words {
        let output = run(Command::new(PROBE)
            .args(&words)
            .env("FAKE_NVML_LOADED", at("loaded"))
            .env("FAKE_NVML_FACTS", &facts)
            .stdin(Stdio::null()));
        let document = document(&output);
        assert_eq!((output.status.code(), &document["error"]["code"]), (Some(2), &json!("usage")), "{words:?}");
        for trace in ["loaded", "ran"] {
            assert!(!folder.path().join(trace).exists(), "{words:?}: {trace}");
        }
        assert_eq!(std::fs::read_to_string(at("host-file")).expect("there"), "before", "{words:?}");
    }
}

#[test]
fn no_environment_variable_names_a_library() {
    let folder = open_folder();
    let loaded = folder.path().join("loaded");
    run(Command::new(PROBE)
        .args(["inventory", "--timeout-ms", "2000"])
        .env("NODE_PROBE_NVML_LIBRARY", library_in(folder.path()))
        .env("NODE_PROBE_TEST_TREE", "1")
        .env("FAKE_NVML_LOADED", &loaded)
        .stdin(Stdio::null()));
    assert!(!loaded.exists());
}

/// Returns a task for each child of the probe, with files in `folder`. A unit test of node-probe checks that children can
/// read these tasks.
fn tasks(folder: &str) -> Vec<Value> {
    serde_json::from_str(&include_str!("tasks.json").replace("FOLDER", folder)).expect("a list")
}

/// The standard input of a caller is a pipe, a terminal or a socket of the runtime, with any content.
#[test]
fn only_tasks_of_the_probe_itself_are_run() {
    let folder = open_folder();
    library_in(folder.path());
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("tool"), format!("#!/bin/sh\necho ran > {}\n", at("ran").display())).expect("a file");
    std::fs::set_permissions(at("tool"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(at("host-file"), "before").expect("a file");
    for task in tasks(folder.path().to_str().expect("UTF-8")) {
        std::fs::write(at("task"), task.to_string()).expect("a file");
        // The other socket of the pair belongs to the parent, as for the probe's own children. However, this parent is
        // not the probe.
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(task.to_string().as_bytes()).expect("written");
        drop(ours);
        let (pipe, mut into_pipe) = std::io::pipe().expect("a pipe");
        into_pipe.write_all(task.to_string().as_bytes()).expect("written");
        drop(into_pipe);
        let file = std::fs::File::open(at("task")).expect("there");
        for stdin in [Stdio::from(OwnedFd::from(theirs)), Stdio::from(pipe), Stdio::from(file)] {
            let output = run(Command::new(PROBE).env("FAKE_NVML_LOADED", at("loaded")).stdin(stdin));
            assert_eq!(document(&output)["error"]["code"], json!("usage"), "{task}");
            assert!(!at("loaded").exists() && !at("ran").exists(), "{task}");
            assert_eq!(std::fs::read_to_string(at("host-file")).expect("there"), "before", "{task}");
        }
    }
}

#[test]
fn a_container_that_was_not_started_for_actions_does_not_act() {
    let kill = ["--operator", "kill", "--gpu", GPU, "--pid", "999999", "--start-ticks", "1", "--plan"];
    // Without `--operator`, there is no action.
    let output = run(Command::new(PROBE).args(&kill[1..]));
    assert_eq!(document(&output)["error"]["code"], json!("operator_mode_off"));
    if !may_unshare(&["--mount"]) {
        return;
    }
    for (more, refused) in [(&[][..], true), (&["--operator"][..], false)] {
        // This is the main process of a mount namespace, as in a container.
        let mut container = Command::new("unshare");
        container.args(["--mount", PROBE, "hold", "--seconds", "60"]).args(more);
        let container = Running(container.spawn().expect("it starts"));
        let pid = container.0.id();
        until("hold", || {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(PROBE.as_bytes())
        });
        let enter = || {
            let mut enter = Command::new("nsenter");
            enter.arg("--mount").arg("--target").arg(pid.to_string()).arg(PROBE);
            enter
        };
        // A second `hold`, which an exec may start, changes nothing.
        let _second = Running(enter().args(["hold", "--seconds", "60", "--operator"]).spawn().expect("it starts"));
        let output = run(enter().args(kill));
        let document = document(&output);
        assert_eq!(document["error"]["code"] == json!("not_for_actions"), refused, "{document}");
        assert_eq!(output.status.code(), Some(if refused { 2 } else { 0 }), "{document}");
        // In a container that was started for actions, the probe examines the process. It rejects the action, because
        // neither the GPU nor the process exists.
        assert_eq!(document["action"]["pid"], if refused { Value::Null } else { json!(999_999) }, "{document}");
        assert_eq!(document["error"].is_null(), !refused, "{document}");
    }
}
