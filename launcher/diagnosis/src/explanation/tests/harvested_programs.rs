//! Tests of messages that were collected from the sources of the programs in GPU containers: the answer names what they are about, and blames
//! only what they blame.

use syringe_core::tsv::rows;

use crate::explanation::tests::{ContainerState, cause_of, failed, node};
use crate::explanation::types::Cause;

const TABLE: &str = include_str!("../../../../../tests/messages/programs.tsv");

/// Returns the answer without what it quotes from the message.
fn unquoted(answer: &str, message: &str) -> String {
    let mut rest = answer.to_owned();
    for quoted in answer.split('"').skip(1).step_by(2) {
        if quoted.len() > 12 && message.contains(quoted.trim_matches('…')) {
            rest = rest.replace(quoted, "");
        }
    }
    rest.replace(message, "").to_lowercase()
}

#[test]
fn harvested_messages_of_programs_have_their_answer() {
    let mut wrong = Vec::new();
    for row in rows(TABLE) {
        let [source, causes, message, expected] = row[..] else { panic!("{row:?}") };
        let mut pod = failed(1, "Error");
        if let ContainerState::Terminated { message: end, .. } = &mut pod.containers[0].state {
            *end = message.into();
        }
        let explained = cause_of(&pod, &node(Vec::new()));
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
        if std::env::var("DUMP").is_ok() {
            let kind = if blames && names {
                "OK"
            } else if cause == "unknown" || answer.contains("not identified") {
                "SHOWN"
            } else if blames {
                "OTHER"
            } else {
                "WRONG"
            };
            println!("{kind}\t{source}\t{message}\t{causes}\t{expected}\t{cause}\t{answer}");
        }
        if !names || !blames {
            wrong.push(format!("{source}: {message}\n    expected {causes}, {expected}: {cause}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
