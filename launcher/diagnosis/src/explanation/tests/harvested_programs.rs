//! Tests of messages from the source code of programs in GPU containers (`programs.tsv`): the explanation names the
//! subject and the cause, and compares the message with the settings and the GPU request of the pod.

use syringe_core::facts::kubernetes::pod::ContainerSpec;
use syringe_core::tsv::rows;

use crate::explanation::tests::{ContainerState, PodFacts, cause_of, failed, node};
use crate::explanation::types::Cause;

const TABLE: &str = include_str!("../../../../../tests/messages/programs.tsv");

/// Returns the answer without the text that it quotes from the message.
fn unquoted(answer: &str, message: &str) -> String {
    let mut rest = answer.to_owned();
    for quoted in answer.split('"').skip(1).step_by(2) {
        if quoted.len() > 12 && message.contains(quoted.trim_matches('…')) {
            rest = rest.replace(quoted, "");
        }
    }
    rest.replace(message, "").to_lowercase()
}

fn ended_with(message: &str) -> PodFacts {
    let mut pod = failed(1, "Error");
    if let ContainerState::Terminated { message: end, .. } = &mut pod.containers[0].state {
        *end = message.into();
    }
    pod
}

#[test]
fn harvested_messages_of_programs_have_their_answer() {
    let mut wrong = Vec::new();
    for row in rows(TABLE) {
        let [source, causes, message, expected] = row[..] else { panic!("{row:?}") };
        let explained = cause_of(&ended_with(message), &node(Vec::new()));
        let answer = format!("{} >> {}", explained.summary, explained.action.text);
        let text = unquoted(&answer, message);
        let names = match expected.strip_prefix('!') {
            Some(words) => !words.split(" | ").any(|word| text.contains(word)),
            None => expected.split(" | ").any(|word| text.contains(word)),
        };
        let cause = match explained.cause {
            Cause::Application => "application",
            Cause::Node => "node",
            Cause::Gpu => "gpu",
            Cause::Cluster => "cluster",
            Cause::Unknown => "unknown",
            _ => "none",
        };
        let blames = causes.split('|').any(|one| one == cause);
        if !names || !blames {
            wrong.push(format!("{source}: {message}\n    expected {causes}, {expected}: {cause}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// An explanation contains a variable of the container only if the row of the message names the variable. Other
/// variables can be secret.
#[test]
fn a_message_is_joined_with_the_settings_that_it_is_about() {
    let no_interface = "NCCL WARN Bootstrap : no socket interface found";
    let no_key = "Error: NGC_API_KEY is not set; Authentication Error. Set a valid NGC_API_KEY";
    for (message, name, is_joined) in [
        (no_interface, "NCCL_SOCKET_IFNAME", true),
        (no_interface, "NCCL_SOCKET_FAMILY", false),
        (no_interface, "UCX_TLS", false),
        ("UCX  ERROR no usable transports/devices (asked rc)", "UCX_TLS", true),
        (no_key, "NGC_API_KEY", false),
        ("NCCL WARN Invalid NCCL_COMM_ID, please use format: <ipv4>:<port>", "NCCL_COMM_ID", true),
        ("CUDA error: an illegal memory access was encountered", "CUDA_VISIBLE_DEVICES", false),
    ] {
        let environment = vec![(name.to_owned(), "first".to_owned()), (name.to_owned(), "eth7".to_owned())];
        let spec = ContainerSpec { name: "main".into(), requests_gpus: true, environment, ..ContainerSpec::default() };
        let explained = cause_of(&PodFacts { specs: vec![spec], ..ended_with(message) }, &node(Vec::new()));
        let joined = explained.summary.contains(&format!("{name}=\"eth7\""));
        assert_eq!(joined, is_joined, "{name}: {}", explained.summary);
        assert!(!explained.summary.contains("first\""), "{}", explained.summary);
    }
}

#[test]
fn a_message_about_the_number_of_gpus_is_joined_with_the_request() {
    for (message, is_joined) in [
        ("ValueError: World size (8) is larger than the number of available GPUs (4) in this node.", true),
        ("NCCL WARN Bootstrap : no socket interface found", false),
    ] {
        let explained = cause_of(&PodFacts { gpus_requested: 4, ..ended_with(message) }, &node(Vec::new()));
        assert_eq!(explained.summary.contains("the pod requests 4 GPUs"), is_joined, "{}", explained.summary);
    }
}
