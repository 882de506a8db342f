//! `table`: formats the lines of the audit log as a table, newest line last.

use serde_json::Value;

use super::line::AuditLine;
use crate::terminal::page::Page;
use crate::terminal::table;

/// Formats the lines as a table, newest last.
pub fn table(lines: &[AuditLine]) -> Page {
    let mut rows =
        table::new_table(["time (UTC)", "event", "context", "node", "tool", "pod", "consent", "outcome", "ms"])
            .optional(&["ms", "context", "consent", "pod"]);
    for line in lines {
        let AuditLine { time, event, context, node, tool, pod, consent, outcome, deleted, duration_ms, .. } = line;
        let event = serde_json::to_value(event).unwrap_or(Value::Null);
        let left = if *deleted == Some(false) { " (pod NOT DELETED)" } else { "" };
        rows.add_row([
            table::cell(time.map(table::second)),
            event.as_str().unwrap_or_default().replace('_', " "),
            context.clone(),
            node.clone(),
            tool.clone(),
            table::cell(pod.clone()),
            table::cell(consent.clone()),
            format!("{}{left}", outcome.as_deref().unwrap_or("-")),
            table::cell(*duration_ms),
        ]);
    }
    let mut page = Page::default();
    page.push_table(rows);
    page
}
