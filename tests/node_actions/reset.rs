//! Tests of `node-probe reset` with a script as `nvidia-smi` that succeeds, fails, hangs, or loses the GPU.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{GPU, Node, blockers, facts};

const RESET: [&str; 4] = ["reset", "--gpu", GPU, "--cordoned"];

/// Returns the purpose of each call of nvidia-smi.
fn jobs(node: &Node) -> Vec<&'static str> {
    let job = |call: &String| {
        ["-pm 0", "--gpu-reset", "-pm 1"].into_iter().find(|job| call.contains(job)).unwrap_or("something else")
    };
    node.smi_calls().iter().map(job).collect()
}

fn pending() -> Value {
    let mut facts = facts();
    facts["sections"]["ecc"]["data"]["gpus"][0]["remapped_rows"]["pending"] = json!(true);
    facts["sections"]["ecc"]["data"]["gpus"][0]["recovery_action"] = json!("gpu_reset");
    facts
}

/// Installs a script that replaces the current facts with the facts `after` when the GPU is reset.
fn becomes(node: &Node, after: &Value) {
    node.file("after.json", &after.to_string());
    let after = node.path("after.json");
    node.nvidia_smi(&format!("case \"$*\" in *--gpu-reset*) cp {} $facts;; esac\necho All done.", after.display()));
}

#[test]
fn a_plan_says_what_would_be_done_and_calls_nothing() {
    let node = Node::new(&pending());
    node.nvidia_smi("exit 1");
    let action = node.act(&[&RESET[..], &["--plan"]].concat());
    assert_eq!((&action["outcome"], blockers(&action)), (&json!("planned"), vec![]), "{action}");
    assert_eq!(action["plan"]["steps"].as_array().expect("steps").len(), 4, "{action}");
    assert_eq!(action["plan"]["reasons"].as_array().expect("reasons").len(), 2, "{action}");
    assert_eq!(jobs(&node), Vec::<&str>::new());
}

#[test]
fn a_gpu_that_hangs_does_not_block_the_plan_for_another() {
    let mut node = Node::new(&pending());
    node.block = "nvmlDeviceGetPciInfo_v3:1";
    node.nvidia_smi("exit 1");
    let action = node.act(&[&RESET[..], &["--plan"]].concat());
    assert_eq!((&action["outcome"], blockers(&action)), (&json!("planned"), vec![]), "{action}");
}

#[test]
fn a_successful_reset_is_verified_and_persistence_mode_is_restored() {
    let node = Node::new(&pending());
    becomes(&node, &facts());
    let action = node.act(&RESET);
    assert_eq!(action["outcome"], json!("reset"), "{action}");
    assert_eq!(jobs(&node), ["-pm 0", "--gpu-reset", "-pm 1"]);
    assert!(node.smi_calls()[1].ends_with(GPU), "{:?}", node.smi_calls());
    let now = &action["now"];
    assert_eq!((&now["answers"], &now["remap_pending"]), (&json!(true), &json!(false)), "{action}");
    assert_eq!((&now["recovery_action"], &now["persistence_mode"]), (&json!("none"), &json!(true)), "{action}");
}

#[test]
fn a_failed_reset_reports_the_state_of_the_gpu_and_restores_persistence_mode() {
    let node = Node::new(&facts());
    node.nvidia_smi("case \"$*\" in *--gpu-reset*) echo 'GPU is in use by another client'; exit 3;; esac");
    let action = node.act(&RESET);
    assert_eq!((&action["outcome"], &action["steps"][1]["exit_code"]), (&json!("failed"), &json!(3)), "{action}");
    assert_eq!(jobs(&node), ["-pm 0", "--gpu-reset", "-pm 1"]);
    let summary = action["summary"].as_str().expect("a summary");
    assert!(summary.contains("in use by another client") && summary.contains("the GPU responds"), "{summary}");
}

#[test]
fn a_reset_that_hangs_is_unknown_and_keeps_the_lock() {
    let node = Node::new(&facts());
    node.nvidia_smi("case \"$*\" in *--gpu-reset*) echo $$ > $log.pid; exec sleep 30;; esac");
    let began = Instant::now();
    let action = node.act(&[&RESET[..], &["--reset-seconds", "1"]].concat());
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!((&action["outcome"], &action["steps"][1]["exit_code"]), (&json!("timed_out"), &Value::Null), "{action}");
    assert_eq!(
        jobs(&node),
        ["-pm 0", "--gpu-reset"],
        "no second nvidia-smi must start while the first one is working on the GPU"
    );
    assert!(action["summary"].as_str().expect("a summary").contains("-pm 1 restores it"), "{action}");
    assert!(action["summary"].as_str().expect("a summary").contains("container of the probe exists"), "{action}");
    assert_eq!(blockers(&node.act(&RESET)), ["reset_running"], "the hanging nvidia-smi must hold the lock");
    let pid = std::fs::read_to_string(node.path("smi.log.pid")).expect("it ran");
    assert!(std::fs::exists(format!("/proc/{}", pid.trim())).expect("proc"), "nvidia-smi must not be killed");
    let _ = std::process::Command::new("kill").arg(pid.trim()).status();
}

#[test]
fn a_gpu_that_does_not_come_back_needs_a_reboot() {
    let mut lost = facts();
    lost["sections"]["inventory"]["problems"] =
        json!([{"what": "GPU 0", "why": "NVML: GPU is lost", "gpu": 0, "code": "gpu_lost"}]);
    lost["sections"]["inventory"]["status"] = json!("partial");
    let node = Node::new(&facts());
    becomes(&node, &lost);
    let action = node.act(&RESET);
    assert_eq!(
        (&action["outcome"], &action["now"]["answers"]),
        (&json!("reset_not_verified"), &json!(false)),
        "{action}"
    );
    assert!(action["summary"].as_str().expect("a summary").contains("reboot"), "{action}");
}

#[test]
fn without_switching_persistence_mode_off_there_is_no_reset() {
    let node = Node::new(&facts());
    node.nvidia_smi("echo 'Insufficient Permissions'; exit 4");
    let action = node.act(&RESET);
    assert_eq!(
        (&action["outcome"], blockers(&action)),
        (&json!("refused"), vec!["persistence_mode".to_owned()]),
        "{action}"
    );
    assert_eq!(jobs(&node), ["-pm 0", "-pm 1"], "persistence mode may be off although the command failed");
    assert!(action["summary"].as_str().expect("a summary").contains("may be off now"), "{action}");
    node.nvidia_smi("case \"$*\" in *'-pm 0'*) exit 4;; esac");
    let restored = node.act(&RESET);
    assert!(restored["summary"].as_str().expect("a summary").contains("is on, as before"), "{restored}");
}

#[test]
fn nothing_is_done_with_a_saved_tree() {
    let node = Node::new(&facts());
    node.nvidia_smi("exit 0");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_node-probe-dev"))
        .args(["--operator", "--root"])
        .arg(node.path(""))
        .args(RESET)
        .output()
        .expect("node-probe runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["error"]["code"], json!("saved_tree"), "{document}");
    assert_eq!(jobs(&node), Vec::<&str>::new());
}

#[test]
fn persistence_mode_stays_off_if_it_was_off() {
    let mut off = facts();
    off["sections"]["inventory"]["data"]["gpus"][0]["persistence_mode"] = json!(false);
    let node = Node::new(&off);
    node.nvidia_smi("exit 0");
    assert_eq!(node.act(&RESET)["outcome"], json!("reset"));
    assert_eq!(jobs(&node), ["--gpu-reset"]);
}

#[test]
fn a_gpu_that_a_process_holds_is_not_reset() {
    let node = Node::new(&facts());
    node.nvidia_smi("exit 0");
    let process = node.shell("exec sleep 1000 < $0");
    let action = node.act(&RESET);
    assert_eq!((&action["outcome"], blockers(&action)), (&json!("refused"), vec!["processes".to_owned()]), "{action}");
    assert!(action["plan"]["blockers"][0]["why"].as_str().expect("why").contains(&process.0.id().to_string()));
    assert_eq!(jobs(&node), Vec::<&str>::new());
}

#[test]
fn a_node_that_is_not_cordoned_blocks_a_reset_unless_the_check_is_off() {
    let node = Node::new(&facts());
    node.nvidia_smi("exit 0");
    assert_eq!(blockers(&node.act(&["reset", "--gpu", GPU])), ["not_cordoned"]);
    let off = node.act(&["reset", "--gpu", GPU, "--drain-check", "off"]);
    assert_eq!(off["outcome"], json!("reset"), "{off}");
}

#[test]
fn without_nvidia_smi_the_plan_says_so() {
    let node = Node::new(&facts());
    assert_eq!(blockers(&node.act(&RESET)), ["no_nvidia_smi"]);
}

#[test]
fn two_concurrent_resets_are_refused() {
    let node = Node::new(&facts());
    node.nvidia_smi("exit 0");
    let path = node.path("run/gpu-syringe-reset.lock");
    std::fs::write(&path, "").expect("ours");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let lock = std::fs::File::open(&path).expect("there");
    lock.lock().expect("nobody has it");
    assert_eq!(blockers(&node.act(&RESET)), ["reset_running"]);
    drop(lock);
    assert_eq!(node.act(&RESET)["outcome"], json!("reset"));
    assert!(!path.exists(), "the lock file must be removed");
}

/// The container runtime mounts nvidia-smi into every GPU container, so each of these containers can lock that file.
#[test]
fn a_tenant_that_locks_nvidia_smi_blocks_no_reset() {
    let node = Node::new(&facts());
    node.nvidia_smi("exit 0");
    let tenants = std::fs::File::open(node.path("usr/bin/nvidia-smi")).expect("there");
    tenants.lock().expect("nobody has it");
    assert_eq!(node.act(&RESET)["outcome"], json!("reset"));
}

#[test]
fn nvidia_smi_is_run_below_the_root_of_the_node() {
    let Some(node) = Node::new(&facts()).with_its_own_shell() else { return };
    // Inside the root folder of the node, the file `$log` of the usual script header does not exist.
    node.nvidia_smi("echo \"$*\" >> /smi.log; case \"$*\" in *--gpu-reset*) echo from below; exit 7;; esac");
    let action = node.act(&RESET);
    assert_eq!(jobs(&node), ["-pm 0", "--gpu-reset", "-pm 1"], "{action}");
    assert_eq!((&action["outcome"], &action["steps"][1]["exit_code"]), (&json!("failed"), &json!(7)), "{action}");
    assert!(action["steps"][1]["message"].as_str().expect("text").contains("from below"), "{action}");
}
