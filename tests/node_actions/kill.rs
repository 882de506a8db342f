//! Tests of `node-probe kill` (processes from NVML or a device file, rejections, one run per id) and of `reset --gpu`.

use std::fs;

use serde_json::{Value, json};

use crate::support::{GPU, Node, OTHER, facts, start_ticks};

/// Returns the facts with this process on the first GPU.
fn with_process(pid: u32) -> Value {
    let mut facts = facts();
    facts["sections"]["processes"]["data"]["processes"] =
        json!([{"pid": pid, "uses": [{"gpu": 0, "kind": "compute", "memory_bytes": 1 << 29}]}]);
    facts
}

fn kill(node: &Node, gpu: &str, pid: u32) -> Value {
    let (number, ticks) = (pid.to_string(), start_ticks(pid));
    node.act(&["kill", "--gpu", gpu, "--pid", &number, "--start-ticks", &ticks, "--grace-seconds", "1"])
}

#[test]
fn a_process_that_nvml_lists_is_ended_and_the_memory_is_reported() {
    let node = Node::new(&facts());
    let process = node.shell("exec sleep 1000");
    node.set_facts(&with_process(process.0.id()));
    let action = kill(&node, GPU, process.0.id());
    assert_eq!((&action["outcome"], &action["ended_by"]), (&json!("ended"), &json!("SIGTERM")), "{action}");
    assert_eq!((&action["evidence"], &action["gpu_index"]), (&json!(["nvml"]), &json!(0)), "{action}");
    assert_eq!(action["memory_before_bytes"], json!(1 << 30));
    assert!(action["memory_after_bytes"].is_u64(), "{action}");
    // The facts file still lists the process, so the answer must say that the driver still lists the process.
    assert!(action["notes"].to_string().contains("still lists"), "{action}");
}

#[test]
fn a_process_with_only_the_open_device_file_uses_the_gpu() {
    let node = Node::new(&facts());
    let process = node.shell("exec sleep 1000 < $0");
    let action = kill(&node, GPU, process.0.id());
    assert_eq!((&action["outcome"], &action["evidence"]), (&json!("ended"), &json!(["device_file"])), "{action}");
}

#[test]
fn a_holder_of_a_gpu_that_nvml_lost_can_still_be_ended() {
    let mut one_left = facts();
    one_left["sections"]["inventory"]["data"]["gpus"].as_array_mut().expect("GPUs").remove(0);
    let node = Node::new(&one_left);
    let text = format!("GPU UUID: \t {GPU}\nDevice Minor: \t 0\n");
    node.file("proc/driver/nvidia/gpus/0000:3b:00.0/information", &text);
    let process = node.shell("exec sleep 1000 < $0");
    let action = kill(&node, GPU, process.0.id());
    assert_eq!((&action["outcome"], &action["evidence"]), (&json!("ended"), &json!(["device_file"])), "{action}");
}

#[test]
fn a_process_of_another_gpu_is_refused_and_keeps_running() {
    let node = Node::new(&facts());
    let mut process = node.shell("exec sleep 1000");
    node.set_facts(&with_process(process.0.id()));
    let action = kill(&node, OTHER, process.0.id());
    assert_eq!((&action["outcome"], &action["refusal"]["code"]), (&json!("refused"), &json!("no_gpu")), "{action}");
    let action = kill(&node, "GPU-ffffffff", process.0.id());
    assert_eq!(action["refusal"]["code"], json!("no_such_gpu"), "{action}");
    assert!(process.0.try_wait().expect("ours").is_none());
}

#[test]
fn in_another_pid_namespace_process_ids_of_nvml_are_not_used() {
    let node = Node::new(&facts());
    let mut process = node.shell("exec sleep 1000");
    node.set_facts(&with_process(process.0.id()));
    let link = node.path("proc/self/ns/pid");
    fs::remove_file(&link).expect("ours");
    std::os::unix::fs::symlink("pid:[4026532201]", link).expect("a link");
    let action = kill(&node, GPU, process.0.id());
    assert_eq!(action["refusal"]["code"], json!("no_gpu"), "{action}");
    assert!(process.0.try_wait().expect("ours").is_none());
}

#[test]
fn without_the_operator_flag_nothing_is_done() {
    let node = Node::new(&facts());
    let mut process = node.shell("exec sleep 1000 < $0");
    let (number, ticks) = (process.0.id().to_string(), start_ticks(process.0.id()));
    let (document, code) = node.probe(&["kill", "--gpu", GPU, "--pid", &number, "--start-ticks", &ticks]);
    assert_eq!((code, &document["error"]["code"]), (2, &json!("operator_mode_off")), "{document}");
    assert!(document.get("action").is_none() && process.0.try_wait().expect("ours").is_none());
}

#[test]
fn an_action_with_the_same_id_runs_once() {
    let node = Node::new(&facts());
    let process = node.shell("exec sleep 1000 < $0");
    let (number, ticks) = (process.0.id().to_string(), start_ticks(process.0.id()));
    let id = format!("test{}", std::process::id());
    let words = ["--operator", "kill", "--gpu", GPU, "--pid", &number, "--start-ticks", &ticks, "--once", &id];
    let (first, _) = node.probe(&words);
    assert_eq!(first["action"]["outcome"], json!("ended"));
    let (second, code) = node.probe(&words);
    assert_eq!((code, &second), (0, &first), "a repeated request must return the outcome of the first");
    let file = format!("/dev/shm/gpu-syringe-action-{id}");
    let _ = fs::remove_file(format!("{file}.json"));
    let (document, code) = node.probe(&words);
    let _ = fs::remove_file(file);
    assert_eq!((code, &document["error"]["code"]), (1, &json!("already_run")), "{document}");
}

#[test]
fn an_option_of_another_program_is_not_a_uuid() {
    let node = Node::new(&facts());
    for uuid in ["0", "--help", "GPU-1;reboot", "GPU-1 -pm", "all", ""] {
        let (document, code) = node.probe(&["--operator", "reset", &format!("--gpu={uuid}")]);
        assert_eq!((code, &document["error"]["code"]), (2, &json!("usage")), "{uuid}: {document}");
    }
}
