//! Property tests: an explanation quotes the message of every reported failure, names the owner of its subject, and
//! never states "no problem" for such a pod.

use proptest::prelude::*;
use syringe_core::facts::kubernetes::pod::{ContainerLog, ContainerSpec};

use super::process::running;
use super::*;

/// Generates random words that are in no table. Some of them are names.
fn words() -> impl Strategy<Value = String> {
    prop::collection::vec("[b-z]{4,9}", 5..9).prop_map(|words| format!("the zqx {} wvk", words.join(" ")))
}

/// Creates a pod that has run since 02:00 and has been Ready since 02:06.
fn runs() -> PodFacts {
    PodFacts { ready_since: Some(time("02:06:00")), ..running("S", Vec::new()).0 }
}

fn event(words: &str, at: &str) -> PodEvent {
    PodEvent {
        time: Some(time(at)),
        reason: "Frobbed".into(),
        message: words.into(),
        count: 3,
        warning: true,
        ..PodEvent::default()
    }
}

fn log(line: String) -> Vec<ContainerLog> {
    let lines = vec!["starting".to_owned(), line, "step 7 of 90".to_owned()];
    vec![ContainerLog { container: "main".into(), lines, ..ContainerLog::default() }]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pod_that_runs_is_not_free_of_problems_beside_any_message(words in words()) {
        let report = node(Vec::new());
        let places = [
            PodFacts { related_warnings: vec![event(&format!("Machine m: {words}"), "02:20:00")], ..runs() },
            PodFacts { events: vec![event(&words, "02:20:00")], ..runs() },
            PodFacts { other_conditions: vec![format!("x.io/Ready is False: {words}")], ..runs() },
            PodFacts { other_logs: log(format!("ERROR {words}")), ..runs() },
            PodFacts { other_logs: log(format!("time=\"x\" level=fatal msg=\"{words}\"")), ..runs() },
            PodFacts { other_logs: log(format!("ZqxError: {words}")), ..runs() },
        ];
        for pod in places {
            let explained = cause_of(&pod, &report);
            prop_assert!(explained.cause != Cause::None, "{}", explained.summary);
            prop_assert!(!explained.summary.contains("no problem"), "{}", explained.summary);
            prop_assert!(explained.summary.contains(&words), "{}", explained.summary);
            prop_assert!(explained.evidence.iter().any(|line| line.contains(&words)), "{:?}", explained.evidence);
        }
    }

    #[test]
    fn messages_from_before_the_start_are_history(words in words()) {
        let report = node(Vec::new());
        let early = PodFacts {
            related_warnings: vec![event(&words, "01:20:00")],
            events: vec![event(&words, "01:20:00"), event("Readiness probe failed: x", "02:05:30"), event(&words, "02:01:00")],
            other_logs: log(format!("INFO no error: {words}").replace("error:", "mistake,")),
            ..runs()
        };
        prop_assert_eq!(cause_of(&early, &report).cause, Cause::None);
    }

    #[test]
    fn a_pod_that_failed_is_explained_with_its_last_words(words in words(), code in 1..100_i32) {
        let report = node(Vec::new());
        let message = PodFacts { containers: ended(code, &format!("hello\nZqxError: {words}\n")), ..failed(code, "Error") };
        let line = format!("level=error msg=\"{words}\"");
        let in_log = PodFacts { log_lines: vec!["a".into(), line, "b".into()], ..failed(code, "Error") };
        let last = PodFacts { log_lines: vec!["a".into(), words.clone()], ..failed(code, "Error") };
        for pod in [message, in_log, last] {
            let explained = cause_of(&pod, &report);
            prop_assert!(explained.summary.contains(&words), "{}", explained.summary);
            prop_assert!(explained.evidence.iter().any(|line| line.contains(&words)), "{:?}", explained.evidence);
        }
    }
}

fn ended(exit_code: i32, message: &str) -> Vec<ContainerFacts> {
    let state = ContainerState::Terminated {
        exit_code,
        reason: "Error".into(),
        message: message.into(),
        started: Some(time("02:00:05")),
        finished: Some(time("02:30:00")),
    };
    vec![ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() }]
}

/// The action names the part of the pod's specification that the message is about.
#[test]
fn the_owner_of_a_subject_is_named() {
    let report = node(Vec::new());
    let spec = || ContainerSpec {
        name: "main".into(),
        image: "registry.example/serve:7".into(),
        arguments: vec!["serve".into(), "--fast-mode=2 --port 80".into()],
        environment: vec![("LISTEN_ON".into(), "9400".into()), ("TOKEN".into(), "s3cret-value".into())],
        mounts: vec![("/data".into(), "PersistentVolumeClaim models (volume data)".into())],
        ..ContainerSpec::default()
    };
    for (message, named) in [
        (
            "error: unrecognized arguments: --fast-mode",
            "--fast-mode is an argument of container main (image registry.example/serve:7)",
        ),
        ("fatal: listen tcp: address 9400: missing port in address", "the variable LISTEN_ON=9400 of container main"),
        ("error: TOKEN is not accepted", "the variable TOKEN of container main"),
        ("error: open /data/a/b.bin: permission denied", "below the mount /data: PersistentVolumeClaim models"),
    ] {
        let pod = PodFacts { containers: ended(2, message), specs: vec![spec()], ..failed(2, "Error") };
        let explained = cause_of(&pod, &report);
        assert!(explained.action.text.contains(named), "{message}: {}", explained.action.text);
        assert!(!format!("{explained:?}").contains("s3cret"), "{explained:?}");
    }
    // A flag or value that is not in the message is not named.
    let pod = PodFacts { containers: ended(2, "error: it is sad"), specs: vec![spec()], ..failed(2, "Error") };
    let text = cause_of(&pod, &report).action.text;
    assert!(!text.contains("argument") && !text.contains("variable") && !text.contains("mount"), "{text}");
}
