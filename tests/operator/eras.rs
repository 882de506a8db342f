//! Tests, in both protocol versions, that an MCP host's user can give or refuse consent, which is valid for one call.

use std::collections::BTreeMap;

use rmcp::model::{CallToolResponse, InputRequiredResult};
use serde_json::{Value, json};

use crate::support::{Bed, Era, Setup, User, kill, params, reset, with};

async fn bed(era: Era, user: User) -> Bed {
    Bed::new(Setup { era, user, ..Setup::default() }).await
}

#[tokio::test]
async fn after_consent_the_plan_is_carried_out() {
    for (era, how) in [(Era::Legacy, "user (elicitation)"), (Era::Modern, "user (input required)")] {
        let bed = bed(era, User::Agrees).await;
        let answer = bed.answer("kill_gpu_process", &kill()).await;
        assert_eq!((&answer["outcome"], &answer["consent"]), (&json!("simulated"), &json!(how)), "{answer}");
        let asked = bed.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].contains("Kill process 41210 (python3)"), "{asked:?}");
        let first = format!("Context test, API server {}.\n", bed.cluster.url());
        assert!(asked[0].starts_with(&first), "{asked:?}");
        let answer = bed.answer("reset_gpu", &reset()).await;
        assert_eq!(answer["outcome"], json!("simulated"), "{answer}");
        assert!(bed.asked()[1].contains("nvidia-smi --gpu-reset"), "{:?}", bed.asked());
        assert_eq!(bed.done().len(), 2);
    }
}

#[tokio::test]
async fn without_consent_nothing_is_done() {
    for era in [Era::Legacy, Era::Modern] {
        for user in [User::SaysNo, User::Declines] {
            let bed = bed(era, user).await;
            let answer = bed.answer("kill_gpu_process", &kill()).await;
            assert_eq!(
                (&answer["outcome"], &answer["token"]),
                (&json!("declined"), &json!(null)),
                "{era:?} {user:?}: {answer}"
            );
            assert_eq!(bed.asked().len(), 1);
            assert!(bed.done().is_empty());
            assert!(
                bed.audit()
                    .iter()
                    .any(|line| line.outcome.as_deref().is_some_and(|outcome| outcome.starts_with("declined")))
            );
        }
    }
}

#[tokio::test]
async fn a_node_that_became_not_ready_during_the_question_is_not_changed() {
    let bed = bed(Era::Legacy, User::Agrees).await;
    let cluster = bed.cluster.clone();
    let away = move || cluster.faults(|faults| faults.on("busy").not_ready = true);
    *bed.host.meanwhile.lock().unwrap() = Some(Box::new(away));
    let error = bed.failure("kill_gpu_process", &kill()).await;
    assert!(error.contains("Ready is Unknown"), "{error}");
    assert_eq!(
        (bed.asked().len(), bed.done().len(), bed.cluster.pods_created()),
        (1, 0, 1),
        "only the pod of the plan must be created"
    );
}

/// Returns the question to the user in the format of the newer protocol version.
async fn question(bed: &Bed) -> InputRequiredResult {
    match bed.client.call_tool_once(params("kill_gpu_process", &kill())).await.unwrap() {
        CallToolResponse::InputRequired(question) => question,
        other => panic!("expected a question: {other:?}"),
    }
}

/// Sends the user's answer to a question.
async fn bring(bed: &Bed, arguments: &Value, state: &str, said: Value) -> Value {
    let responses = BTreeMap::from([("consent".to_owned(), said)]);
    let request = params("kill_gpu_process", arguments).with_request_state(state).with_input_responses(responses);
    match bed.client.call_tool_once(request).await.unwrap() {
        CallToolResponse::Complete(result) => serde_json::to_value(result).unwrap(),
        other => panic!("expected a complete result: {other:?}"),
    }
}

#[tokio::test]
async fn the_question_of_the_newer_protocol_is_bound_to_its_call() {
    let bed = bed(Era::Modern, User::Agrees).await;
    let yes = json!({"action": "accept", "content": {"agree": true}});
    let asked = question(&bed).await;
    let state = asked.request_state.unwrap();
    assert!(serde_json::to_string(&asked.input_requests).unwrap().contains("Kill process 41210"));
    let other = bring(&bed, &with(kill(), "pid", json!(41_211)), &state, yes.clone()).await;
    assert!(other["isError"] == true && other.to_string().contains("other content"), "{other}");
    let again = bring(&bed, &kill(), &state, yes.clone()).await;
    assert!(again["isError"] == true, "the question must be valid only once: {again}");
    let forged = bring(&bed, &kill(), "made-up", yes).await;
    assert!(forged["isError"] == true, "{forged}");
    assert!(bed.done().is_empty());
}

#[tokio::test]
async fn a_token_of_the_host_is_not_valid_for_the_model() {
    let bed = bed(Era::Modern, User::Agrees).await;
    let state = question(&bed).await.request_state.unwrap();
    let error = bed.failure("kill_gpu_process", &with(kill(), "token", json!(state))).await;
    assert!(error.contains("other content"), "{error}");
    assert!(bed.done().is_empty());
}

#[tokio::test]
async fn only_agree_true_is_consent() {
    let bed = bed(Era::Modern, User::Agrees).await;
    for said in [
        json!({"action": "accept"}),
        json!({"action": "accept", "content": {}}),
        json!({"action": "accept", "content": {"agree": "true"}}),
        json!({"action": "cancel", "content": {"agree": true}}),
        json!({"action": "decline"}),
        json!(null),
    ] {
        let state = question(&bed).await.request_state.unwrap();
        let answer = bring(&bed, &kill(), &state, said.clone()).await;
        assert_eq!(answer["structuredContent"]["outcome"], json!("declined"), "{said}: {answer}");
    }
    let state = question(&bed).await.request_state.unwrap();
    let unanswered = params("kill_gpu_process", &kill()).with_request_state(state);
    let CallToolResponse::Complete(result) = bed.client.call_tool_once(unanswered).await.unwrap() else { panic!() };
    assert_eq!(result.structured_content.unwrap()["outcome"], json!("declined"));
    assert!(bed.done().is_empty());
}
