//! `tail`: reads the last lines of a container's log, without control characters and private keys. `None` if the log is
//! empty. `read`: reads the same lines, and returns an empty list for an empty log.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use syringe_core::text::{clean, without_private_keys};
use tokio::time::timeout;

use crate::client::connection::Connection;

/// Number of lines to read.
const LINES: i64 = 20;
/// Maximum number of bytes to read.
const MAX_BYTES: i64 = 16 * 1024;
/// Maximum length of a line, in characters.
const MAX_LINE: usize = 300;
/// Maximum indentation of a line, in blanks.
const MAX_INDENTATION: usize = 24;
/// Number of blanks in place of a tab.
const TAB: usize = 4;
/// Time limit for the request. The explanation does not depend on the log.
const TIME: Duration = Duration::from_secs(3);

/// Reads the last lines of a container's log, or of its log before the last restart. Returns `None` if the log could not
/// be read: the user has no permission, or there is no log.
pub async fn tail(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Option<Vec<String>> {
    read(connection, namespace, pod, container, previous).await.filter(|lines| !lines.is_empty())
}

/// Works like [`tail`], but returns an empty list for an empty log.
pub async fn read(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Option<Vec<String>> {
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(LINES),
        limit_bytes: Some(MAX_BYTES),
        ..LogParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let log = timeout(TIME, pods.logs(pod, &params)).await.ok()?.ok()?;
    let lines = shown(&log);
    let first = lines.len().saturating_sub(LINES as usize);
    Some(lines[first..].to_vec())
}

/// Returns the lines of a log that may be shown.
fn shown(log: &str) -> Vec<String> {
    let lines = without_private_keys(log.lines()).into_iter();
    lines.map(|line| indented(&line)).filter(|line| !line.is_empty()).collect()
}

/// Cleans a line and keeps its indentation, which is a part of a traceback.
fn indented(line: &str) -> String {
    let cleaned = clean(line, MAX_LINE);
    let blanks = line.chars().take_while(|character| matches!(character, ' ' | '\t'));
    let indentation: usize = blanks.map(|blank| if blank == '\t' { TAB } else { 1 }).sum();
    if cleaned.is_empty() { cleaned } else { " ".repeat(indentation.min(MAX_INDENTATION)) + &cleaned }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_traceback_keeps_its_indentation() {
        let log = "Traceback (most recent call last):\n  File \"train.py\", line 3, in main\n    main()\n\tat x\n   \n";
        let lines =
            ["Traceback (most recent call last):", "  File \"train.py\", line 3, in main", "    main()", "    at x"];
        assert_eq!(shown(log), lines);
        assert_eq!(shown(&format!("{}x", " ".repeat(400))), [format!("{}x", " ".repeat(24))]);
    }

    #[test]
    fn a_private_key_over_several_lines_is_not_shown() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        let log =
            format!("loaded\n-----BEGIN PRIVATE KEY-----\n{body}\n{body}\nShort==\n-----END PRIVATE KEY-----\ndone\n");
        assert_eq!(shown(&log), ["loaded", "[redacted]", "done"]);
    }
}
