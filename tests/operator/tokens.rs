//! Tests of consent by token in two calls, for hosts that cannot ask the user, and of actions with a lost connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use demo_cluster::{AnswerFault, CountedFault, ExecFault, Faults, RequestFault, StartFault};
use gpu_syringe::audit::AuditEvent;
use gpu_syringe::consent::Tokens;
use serde_json::{Value, json};

use crate::support::{Bed, Era, Setup, kill, reset, with};

async fn token(bed: &Bed, tool: &'static str, arguments: &Value) -> Value {
    let answer = bed.answer(tool, arguments).await;
    assert_eq!(
        (&answer["outcome"], &answer["token_valid_seconds"]),
        (&json!("awaiting_consent"), &json!(120)),
        "{answer}"
    );
    answer["token"].clone()
}

#[tokio::test]
async fn the_first_call_gives_a_plan_and_a_token_and_the_second_acts() {
    for era in [Era::Legacy, Era::Modern] {
        let bed = Bed::new(Setup { era, ..Setup::default() }).await;
        let answer = bed.answer("kill_gpu_process", &kill()).await;
        let plan = answer["plan"].as_str().unwrap();
        for words in ["Kill process 41210 (python3)", "node busy", "GPU 0", "SIGKILL", "pod"] {
            assert!(plan.contains(words), "'{words}' is missing in: {plan}");
        }
        assert!(bed.done().is_empty(), "a plan must not change anything");
        let answer = bed.answer("kill_gpu_process", &with(kill(), "token", answer["token"].clone())).await;
        assert_eq!((&answer["outcome"], &answer["consent"]), (&json!("simulated"), &json!("token")), "{answer}");
        let done = bed.done();
        assert_eq!(done.len(), 1, "{done:?}");
        assert!(
            done[0].contains("kill --gpu") && done[0].contains("--pid 41210") && done[0].contains("--once"),
            "{done:?}"
        );
    }
}

#[tokio::test]
async fn without_the_setting_the_model_gets_a_command_for_the_user_s_terminal_and_no_token() {
    for era in [Era::Legacy, Era::Modern] {
        let bed = Bed::new(Setup { era, words: &["--mode", "operator"], ..Setup::default() }).await;
        let tools = bed.client.list_all_tools().await.unwrap();
        let kills = tools.iter().find(|tool| tool.name == "kill_gpu_process").unwrap();
        assert!(!kills.input_schema["properties"].as_object().unwrap().contains_key("token"));
        let answer = bed.answer("kill_gpu_process", &kill()).await;
        assert_eq!((&answer["outcome"], answer.get("token")), (&json!("awaiting_consent"), None), "{answer}");
        let command = answer["terminal_command"].as_str().unwrap();
        let server = bed.cluster.url();
        for words in [
            "--context test ",
            "--probe-namespace default ",
            "--mode operator kill-gpu-process busy ",
            &format!("--gpu {} --pid 41210 --start-ticks 418000 --grace-seconds 10 ", crate::support::BUSY_GPU),
            &format!("--server {server}"),
        ] {
            assert!(command.contains(words), "'{words}' is missing in: {command}");
        }
        let plan = answer["plan"].as_str().unwrap();
        assert!(plan.starts_with(&format!("Context test, API server {server}.\n")), "{plan}");
        let error = bed.failure("kill_gpu_process", &with(kill(), "token", json!("0123456789abcdef"))).await;
        assert!(error.contains("--token-to-model"), "{error}");
        assert!(bed.done().is_empty());
    }
}

#[tokio::test]
async fn a_refused_token_is_a_line_of_the_audit_log() {
    let bed = Bed::new(Setup::default()).await;
    let forged = "0123456789abcdef0123456789abcdef";
    bed.failure("kill_gpu_process", &with(kill(), "token", json!(forged))).await;
    let lines = bed.audit();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(
        (line.event, line.tool.as_str(), line.node.as_str()),
        (AuditEvent::ActionRefused, "kill_gpu_process", "busy")
    );
    assert!(
        line.outcome.as_deref().is_some_and(|outcome| outcome.contains("refused: the token is unknown")),
        "{line:?}"
    );
    assert!(!format!("{line:?}").contains(forged), "the audit log must not contain the token");
}

#[tokio::test]
async fn a_token_is_valid_once() {
    let bed = Bed::new(Setup::default()).await;
    let token = token(&bed, "reset_gpu", &reset()).await;
    let second = with(reset(), "token", token);
    assert_eq!(bed.answer("reset_gpu", &second).await["outcome"], json!("simulated"));
    let error = bed.failure("reset_gpu", &second).await;
    assert!(error.contains("used before"), "{error}");
    assert_eq!(bed.done().len(), 1);
}

#[tokio::test]
async fn a_token_is_valid_only_for_its_plan() {
    let bed = Bed::new(Setup::default()).await;
    let others = [
        ("kill_gpu_process", with(kill(), "pid", json!(41_211))),
        ("kill_gpu_process", with(kill(), "start_ticks", json!(418_001))),
        ("kill_gpu_process", with(kill(), "grace_seconds", json!(1))),
        ("kill_gpu_process", with(kill(), "node_name", json!("idle"))),
        ("kill_gpu_process", with(kill(), "gpu", json!(crate::support::IDLE_GPU))),
        ("reset_gpu", reset()),
    ];
    for (tool, other) in others {
        let token = token(&bed, "kill_gpu_process", &kill()).await;
        let error = bed.failure(tool, &with(other, "token", token.clone())).await;
        assert!(error.contains("other content"), "{error}");
        let error = bed.failure("kill_gpu_process", &with(kill(), "token", token)).await;
        assert!(error.contains("unknown"), "a misused token must be deleted: {error}");
    }
    let error = bed.failure("kill_gpu_process", &with(kill(), "token", json!("0123456789abcdef"))).await;
    assert!(error.contains("unknown"), "{error}");
    assert!(bed.done().is_empty());
}

#[tokio::test]
async fn a_token_expires_after_two_minutes() {
    let (start, seconds) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let hand = seconds.clone();
    let tokens = Tokens::with_clock(move || start + Duration::from_secs(hand.load(Ordering::Relaxed)));
    let bed = Bed::new(Setup { tokens, ..Setup::default() }).await;
    let token = token(&bed, "reset_gpu", &reset()).await;
    seconds.store(121, Ordering::Relaxed);
    let error = bed.failure("reset_gpu", &with(reset(), "token", token)).await;
    assert!(error.contains("expired"), "{error}");
    assert!(bed.done().is_empty());
}

/// Returns the answer to an action call whose connection is cut. The next `refused` attempts to connect fail.
async fn cut(setup: Setup, refused: u32) -> (Bed, Value) {
    let bed = Bed::new(setup).await;
    let token = token(&bed, "kill_gpu_process", &kill()).await;
    bed.cluster.faults(|faults| {
        faults.on("busy").exec = Some(CountedFault::once(ExecFault::Cut { after_bytes: 1 }));
        faults.everywhere.exec = Some(CountedFault::times(ExecFault::UpgradeRefused(400), refused));
    });
    let answer = bed.answer("kill_gpu_process", &with(kill(), "token", token)).await;
    (bed, answer)
}

#[tokio::test]
async fn an_action_never_changes_the_method_after_its_start() {
    let (bed, answer) = cut(Setup::default(), 1).await;
    assert_eq!((&answer["outcome"], &answer["probe"]["via"]), (&json!("simulated"), &json!("pod")), "{answer}");
    assert_eq!(bed.cluster.pods_created(), 2, "one pod for the plan, one for the action");
    assert_eq!(bed.audit().iter().filter(|line| line.event == AuditEvent::ActionEnded).count(), 1);
}

#[tokio::test]
async fn an_action_whose_answer_was_lost_keeps_its_pod_until_the_outcome_is_known() {
    let (bed, answer) = cut(Setup { asked_in_vain: 1, ..Setup::default() }, 0).await;
    assert_eq!(answer["outcome"], json!("simulated"), "{answer}");
    assert!(answer["probe"]["note"].as_str().unwrap().contains("second request"), "{answer}");
    assert_eq!((bed.cluster.pods_created(), bed.cluster.pods("default").len()), (2, 0));
}

/// Regardless of the fault of an action's pod, only one pod is requested, and the action is sent at most once.
#[tokio::test]
async fn an_action_is_never_moved_to_another_pod() {
    fn refused(faults: &mut Faults, why: &str) {
        let answer = CountedFault::always(AnswerFault::Forbidden(why.to_owned()));
        faults.api.requests.push(RequestFault { verb: Some("create"), resource: Some("pods"), answer });
    }
    type Cause = fn(&mut Faults);
    let meets: [(&str, Cause); 5] = [
        ("no image", |faults| faults.on("busy").start = Some(StartFault::ImagePull.into())),
        ("no websocket", |faults| faults.on("busy").exec = Some(ExecFault::UpgradeRefused(400).into())),
        ("a lost answer", |faults| {
            faults.on("busy").exec = Some(CountedFault::once(ExecFault::Cut { after_bytes: 1 }))
        }),
        ("a policy", |faults| refused(faults, "violates PodSecurity \"baseline:latest\": privileged")),
        ("another refusal", |faults| refused(faults, "no")),
    ];
    for (what, fault) in meets {
        let bed = Bed::new(Setup::default()).await;
        let token = token(&bed, "kill_gpu_process", &kill()).await;
        bed.cluster.faults(fault);
        let said = format!("{:?}", bed.call("kill_gpu_process", &with(kill(), "token", token)).await);
        // A second request with the same name only requests the outcome of the first request.
        let done = bed.done();
        let runs: BTreeSet<_> =
            done.iter().filter_map(|line| line.split_once("--once")).map(|(_, name)| name).collect();
        assert!(runs.len() <= 1, "{what}: {done:?}");
        assert!(
            bed.cluster.pods_created() <= 3,
            "{what}: the plan, the action, and a look at the node afterwards: {said}"
        );
        let acted = bed.audit().into_iter().filter(|line| line.event == AuditEvent::ActionEnded).count();
        assert_eq!(acted, 1, "{what}: {said}");
    }
}
