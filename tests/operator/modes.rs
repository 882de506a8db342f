//! Tests of the tools and arguments in each mode, of rejected plans, and of the cordon state that the probe gets.

use serde_json::json;

use crate::support::{Bed, Setup, kill, params, reset, with};

const OPERATOR_TOOLS: [&str; 2] = ["kill_gpu_process", "reset_gpu"];

#[tokio::test]
async fn read_only_mode_has_no_tool_that_changes_a_node() {
    let bed = Bed::new(Setup { words: &[], ..Setup::default() }).await;
    let tools = bed.client.list_all_tools().await.unwrap();
    assert_eq!(tools.len(), 12, "the README must list the same number of tools");
    for tool in &tools {
        assert!(!OPERATOR_TOOLS.contains(&&*tool.name), "{}", tool.name);
        assert_eq!(tool.annotations.as_ref().unwrap().destructive_hint, Some(false), "{}", tool.name);
    }
    for (tool, arguments) in OPERATOR_TOOLS.into_iter().zip([kill(), reset()]) {
        let error = bed.client.call_tool(params(tool, &arguments)).await.unwrap_err().to_string();
        assert!(error.contains("no tool"), "{error}");
    }
    assert!(bed.done().is_empty());
}

#[tokio::test]
async fn operator_mode_adds_two_tools_that_say_what_they_are() {
    let bed = Bed::new(Setup::default()).await;
    let tools = bed.client.list_all_tools().await.unwrap();
    for name in OPERATOR_TOOLS {
        let tool = tools.iter().find(|tool| tool.name == name).unwrap();
        let hints = tool.annotations.as_ref().unwrap();
        // A hint that is absent has its default: the call is not idempotent.
        assert_eq!(
            (hints.destructive_hint, hints.read_only_hint, hints.idempotent_hint),
            (Some(true), Some(false), None)
        );
    }
}

#[tokio::test]
async fn the_drain_check_is_not_an_argument() {
    let bed = Bed::new(Setup::default()).await;
    let error = bed.failure("reset_gpu", &with(reset(), "drain_check", json!("off"))).await;
    assert!(error.contains("unknown field"), "{error}");
    let error = bed.failure("reset_gpu", &with(reset(), "yes", json!(true))).await;
    assert!(error.contains("unknown field"), "{error}");
}

#[tokio::test]
async fn arguments_are_validated_before_a_pod_is_created() {
    let bed = Bed::new(Setup::default()).await;
    for gpu in ["0", "MIG-1", "GPU-1 --help", ""] {
        let error = bed.failure("reset_gpu", &with(reset(), "gpu", json!(gpu))).await;
        assert!(error.contains("is not the UUID of a GPU"), "{error}");
    }
    let error = bed.failure("kill_gpu_process", &with(kill(), "grace_seconds", json!(3600))).await;
    assert!(error.contains("grace_seconds"), "{error}");
    assert!(bed.audit().is_empty(), "no pod, no line");
}

#[tokio::test]
async fn a_refused_plan_is_not_shown_for_consent() {
    let bed = Bed::new(Setup::default()).await;
    let daemon = json!({"node_name": "busy", "gpu": BUSY, "pid": 3121, "start_ticks": 7400});
    let answer = bed.answer("kill_gpu_process", &daemon).await;
    assert_eq!((&answer["outcome"], &answer["token"]), (&json!("refused"), &json!(null)), "{answer}");
    assert_eq!(answer["action"]["refusal"]["code"], json!("protected"));
    let recycled = with(kill(), "start_ticks", json!(1));
    assert_eq!(bed.answer("kill_gpu_process", &recycled).await["action"]["refusal"]["code"], json!("recycled_pid"));
    let busy = json!({"node_name": "busy", "gpu": BUSY});
    let answer = bed.answer("reset_gpu", &busy).await;
    let codes: Vec<&str> = answer["action"]["plan"]["blockers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["not_cordoned", "allocated", "processes"], "{answer}");
    assert!(bed.done().is_empty());
}

const BUSY: &str = crate::support::BUSY_GPU;

#[tokio::test]
async fn the_probe_gets_the_cordon_state_and_the_setting() {
    let bed = Bed::new(Setup::default()).await;
    let open = json!({"node_name": "open", "gpu": crate::support::IDLE_GPU});
    assert_eq!(bed.answer("reset_gpu", &open).await["action"]["plan"]["blockers"][0]["code"], json!("not_cordoned"));
    assert_eq!(bed.answer("reset_gpu", &reset()).await["outcome"], json!("awaiting_consent"));
    let off = Bed::new(Setup { words: &["--mode", "operator", "--drain-check", "off"], ..Setup::default() }).await;
    let answer = off.answer("reset_gpu", &open).await;
    assert_eq!(answer["outcome"], json!("awaiting_consent"), "{answer}");
    assert!(answer["plan"].as_str().unwrap().contains("drain check is off"), "{answer}");
}

#[tokio::test]
async fn a_gpu_is_not_reset_while_another_system_repairs_the_node() {
    const STATE: &str = "dgxc.nvidia.com/nvsentinel-state";
    let bed = Bed::new(Setup::default()).await;
    let mark = |state: &str| {
        let label = (STATE.to_owned(), state.to_owned());
        bed.cluster.edit_node("idle", |node| node.metadata.labels.get_or_insert_default().extend([label]));
    };
    let token = bed.answer("reset_gpu", &reset()).await["token"].clone();
    mark("draining");
    // The repair began after the user agreed.
    let failure = bed.failure("reset_gpu", &with(reset(), "token", token)).await;
    assert!(failure.to_string().contains("NVSentinel"), "{failure:?}");
    let answer = bed.answer("reset_gpu", &reset()).await;
    assert_eq!((&answer["outcome"], &answer["token"]), (&json!("refused"), &json!(null)), "{answer}");
    assert_eq!(answer["action"]["plan"]["blockers"][0]["code"], json!("in_repair"), "{answer}");
    assert!(bed.done().is_empty());
    // NVSentinel has stopped its repair, so a person must repair the node.
    mark("remediation-failed");
    assert_eq!(bed.answer("reset_gpu", &reset()).await["outcome"], json!("awaiting_consent"));
}
