//! Tests of completions, colors, table width, the log of API requests (`-v`), `--watch`, and kill commands.

use demo_cluster::Fixture;
use serde_json::Value;

use crate::bed::{Bed, node};
use crate::support::launcher::Launcher;

/// Returns the launcher as a shell calls it to complete the last of these words.
fn completing(bed: &Bed, words: &[&'static str]) -> Launcher {
    let index = (words.len() - 1).to_string();
    let launcher = bed.launcher().env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    launcher.args(["--"]).args(words.iter().copied())
}

async fn completed(bed: &Bed, words: &[&'static str]) -> Vec<String> {
    let ended = completing(bed, words).run().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{words:?}");
    ended.stdout.lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn commands_nodes_and_contexts_are_completed() {
    let bed = Bed::of(Fixture::of([node("gpu-1", "healthy-h100-8"), node("gpu-2", "healthy-h100-8")])).await;
    let commands = completed(&bed, &["gpu-syringe", "dia"]).await;
    assert_eq!(commands, ["diagnose"]);
    for words in [&["gpu-syringe", "diagnose", ""][..], &["gpu-syringe", "health", "gpu"]] {
        let nodes = completed(&bed, words).await;
        assert!(["gpu-1", "gpu-2"].iter().all(|name| nodes.iter().any(|found| found == name)), "{words:?}: {nodes:?}");
    }
    let kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(bed.kubeconfig()).unwrap()).unwrap();
    let context = kubeconfig["contexts"][0]["name"].as_str().unwrap();
    let contexts = completed(&bed, &["gpu-syringe", "--context", ""]).await;
    assert!(contexts.iter().any(|name| name == context), "{contexts:?}");
    bed.assert_bare(0);
}

#[tokio::test]
async fn without_a_cluster_a_completion_has_no_names_and_no_message() {
    let bed = Bed::healthy().await;
    let launcher = completing(&bed, &["gpu-syringe", "diagnose", "gpu"]).env("KUBECONFIG", "/nowhere");
    let ended = launcher.run().await;
    assert_eq!((ended.code, ended.stdout.trim(), ended.stderr.as_str()), (Some(0), "", ""));
}

/// kubectl calls a program with this name to complete the words after the name of its plugin.
#[cfg(unix)]
#[tokio::test]
async fn kubectl_gets_the_completions_of_its_plugin() {
    let bed = Bed::healthy().await;
    let program = bed.home().join("kubectl_complete-gpu_syringe");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gpu-syringe"), &program).unwrap();
    let asked = std::process::Command::new(&program).args(["dia"]).env_clear().output().unwrap();
    let said = String::from_utf8(asked.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("diagnose\t") && lines[1..] == [":4"], "{said}");
}

#[tokio::test]
async fn colour_is_only_for_terminals_unless_it_is_asked_for() {
    let bed = Bed::of(Fixture::of([node("gpu-1", "xid79-off-bus")])).await;
    let table = ["diagnose", "gpu-1", "-o", "table"];
    let plain = bed.launcher().args(table).run().await.stdout;
    assert!(plain.starts_with("FATAL  ") && !plain.contains('\x1b'), "{plain}");
    let colored = bed.launcher().args(table).args(["--color", "always"]).run().await.stdout;
    assert!(colored.starts_with("\x1b[1m\x1b[31mFATAL\x1b[0m  "), "{colored:?}");
    let never = bed.launcher().env("GPU_SYRINGE_COLOR", "never").args(table).run().await.stdout;
    assert!(!never.contains('\x1b'));
    let json = bed.launcher().args(["diagnose", "gpu-1", "-o", "json", "--color", "always"]).run().await.stdout;
    assert!(!json.contains('\x1b') && serde_json::from_str::<Value>(&json).is_ok());
}

#[tokio::test]
async fn a_table_in_a_pipe_has_the_width_of_columns() {
    let bed = Bed::of(Fixture::of([node("gpu-1", "xid79-off-bus")])).await;
    for width in ["60", "80", "120"] {
        let text = bed.launcher().env("COLUMNS", width).args(["telemetry", "gpu-1", "-o", "table"]).run().await.stdout;
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width.parse().unwrap(), "{longest} of {width}\n{text}");
    }
    let ascii = bed.launcher().env("LC_ALL", "C").args(["diagnose", "gpu-1", "-o", "table"]).run().await.stdout;
    assert!(ascii.is_ascii() && ascii.contains("  -> "), "{ascii}");
}

#[tokio::test]
async fn requests_are_shown_without_credentials() {
    let bed = Bed::healthy().await;
    let quiet = bed.launcher().args(["ecc", "gpu-1", "-q"]).run().await;
    assert_eq!(quiet.stderr, "");
    let said = bed.launcher().args(["ecc", "gpu-1", "-v", "--log-format", "text"]).run().await.stderr;
    assert!(said.contains("GET /api/v1/nodes/gpu-1 200 in "), "{said}");
    assert!(said.contains("POST /api/v1/namespaces/gpu-syringe/pods") && said.contains(" 201 in "), "{said}");
    let kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(bed.kubeconfig()).unwrap()).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
    assert!(!token.is_empty() && !said.contains(token) && !said.contains("Bearer"), "{said}");
    let lines = bed.launcher().args(["nodes", "-v"]).run().await.stderr;
    assert!(lines.lines().count() > 1);
    lines.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_watch_makes_one_probe_for_each_reading_and_ends_with_ctrl_c() {
    let bed = Bed::healthy().await;
    let mut running = bed.launcher().args(["telemetry", "gpu-1", "--watch=2"]).start();
    for _ in 0..2 {
        let line = running.lines.recv().await.expect("a reading");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["probe"]["deleted"], true);
    }
    running.signal("INT");
    let status = running.exit().await;
    assert_eq!(status.code(), Some(130), "{}", running.said());
    let made = bed.audit().iter().filter(|line| line["event"] == "probe").count();
    assert!((2..=3).contains(&made), "{made}");
    assert!(bed.pods().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_watch_ends_when_nobody_reads_its_output() {
    let bed = Bed::healthy().await;
    let formats = ["json", "yaml", "table", "name"];
    let commands = [&["telemetry", "gpu-1"][..], &["health"], &["nodes"]];
    let calls = commands.iter().flat_map(|words| formats.map(|format| (*words, format)));
    let mut started = Vec::new();
    for (words, format) in calls {
        let mut running = bed.launcher().args(words.iter().copied()).args(["--watch=2", "-o", format]).start();
        running.lines.recv().await.expect("a reading");
        // The program gets a closed pipe when it prints its next line.
        running.lines.close();
        started.push((words, format, running));
    }
    for (words, format, mut running) in started {
        let status = running.exit().await;
        assert_eq!(status.code(), Some(0), "{words:?} -o {format}: {}", running.said());
    }
    assert!(bed.pods().is_empty());
}

/// Each process removes its own session file, even if one of its tasks is still using the session.
#[tokio::test]
async fn an_ended_command_leaves_no_session_file() {
    let bed = Bed::healthy().await;
    for _ in 0..12 {
        assert_eq!(bed.launcher().args(["nodes"]).run().await.code, Some(0));
        assert_eq!(bed.launcher().args(["ecc", "gpu-9"]).run().await.code, Some(3));
    }
    let mut folders = vec![bed.home().to_owned()];
    let mut locks = Vec::new();
    let mut owners = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            owners += usize::from(name == "owner");
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if name.starts_with("session-") {
                locks.push(name);
            }
        }
    }
    assert_eq!((owners, locks), (1, Vec::new()));
}

#[tokio::test]
async fn each_process_has_the_command_that_ends_it() {
    let bed = Bed::healthy().await;
    let answer = bed.launcher().args(["processes", "gpu-1"]).run().await.json();
    let processes = answer["processes"].as_array().unwrap();
    let on_gpu: Vec<_> = processes.iter().filter(|one| one["gpu"].is_u64()).collect();
    assert_eq!(on_gpu.len(), 8, "{answer}");
    for one in on_gpu {
        let command = one["terminal_command"].as_str().unwrap();
        let (pid, ticks) = (&one["pid"], &one["start_ticks"]);
        let said =
            format!("kill-gpu-process gpu-1 --gpu {} --pid {pid} --start-ticks {ticks}", one["uuid"].as_str().unwrap());
        assert!(command.contains("--mode operator ") && command.ends_with(&said), "{command}");
    }
    bed.assert_bare(1);
}
