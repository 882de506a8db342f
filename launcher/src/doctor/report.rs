//! `Report`: the result of all doctor checks, as text and as JSON.

use serde_json::{Map, Value, json};
use syringe_core::classification::Severity;

use super::check::{Check, Fix, Status};
use super::node::NodeProbe;
use crate::outcome::Outcome;
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::{counted, new_table};
use kube_read::Connection;

/// Prefix of the ids of permissions.
const PERMISSION: &str = "permission-";

pub(crate) struct Report {
    place: Option<(String, String)>,
    /// The checks, problems first.
    checks: Vec<Check>,
    probe: Option<NodeProbe>,
}

impl Report {
    pub(super) fn of(connection: Option<&Connection>, mut checks: Vec<Check>, probe: Option<NodeProbe>) -> Self {
        // The sort is stable: checks of the same rank keep their order.
        checks.sort_by_key(Check::rank);
        let place = connection.map(|connection| (connection.context.clone(), connection.server.clone()));
        Self { place, checks, probe }
    }

    fn count(&self, is_counted: impl Fn(&Check) -> bool) -> usize {
        self.checks.iter().filter(|check| is_counted(check)).count()
    }

    fn status(&self) -> &'static str {
        match self.outcome() {
            Outcome::Found(Severity::Critical) => "failure",
            Outcome::Unknown => "unknown",
            Outcome::Found(_) => "warning",
            _ => "ok",
        }
    }

    /// Returns the outcome for the exit status. A failure is critical.
    pub(crate) fn outcome(&self) -> Outcome {
        let has = |status: Status| self.checks.iter().any(|check| check.status == status);
        match () {
            () if has(Status::Failure) => Outcome::Found(Severity::Critical),
            () if self.checks.iter().any(|check| check.undecided) => Outcome::Unknown,
            () if has(Status::Warning) => Outcome::Found(Severity::Warning),
            () => Outcome::NothingFound,
        }
    }

    pub(crate) fn json(&self) -> Value {
        let mut json = Map::new();
        json.insert("status".to_owned(), self.status().into());
        if let Some((context, server)) = &self.place {
            json.insert("context".to_owned(), context.as_str().into());
            json.insert("server".to_owned(), server.as_str().into());
        }
        json.insert("checks".to_owned(), json!(self.checks));
        if let Some(NodeProbe { node, via, deleted, timings_ms }) = &self.probe {
            let timings: Map<_, _> =
                timings_ms.iter().map(|(phase, time)| ((*phase).to_owned(), json!(*time as u64))).collect();
            json.insert(
                "probe".to_owned(),
                json!({"node": node, "via": via, "deleted": deleted, "timings_ms": timings}),
            );
        }
        Value::Object(json)
    }

    /// Returns the ids of the checks with a problem.
    pub(crate) fn names(&self) -> Vec<String> {
        let problems = self.checks.iter().filter(|check| check.is_problem());
        problems.map(|check| format!("check/{}", check.id)).collect()
    }

    /// Formats the report for a person: problems in full, then a table of the other checks.
    pub(crate) fn page(&self) -> Page {
        let mut page = Page::default();
        let (missing, problems): (Vec<_>, Vec<_>) =
            self.checks.iter().filter(|check| check.is_problem()).partition(|check| is_missing_permission(check));
        push_missing(&mut page, &missing);
        for check in problems {
            let Check { id, status, evidence, fix, .. } = check;
            let word = match status {
                Status::Failure => paint("FAILURE", Paint::Fatal),
                Status::Warning => paint("WARNING", Paint::Warning),
                _ => paint("UNKNOWN", Paint::Unknown),
            };
            page.push_str(&format!("{word}  {id}\n    {evidence}\n"));
            if let Some(Fix { command, note }) = fix {
                page.push_str(&format!("    → {command}\n      {note}\n"));
            }
            page.push_str("\n");
        }
        let mut rows = new_table(["check", "result", "found"]).note("found");
        let mut permissions = 0;
        for Check { id, status, evidence, .. } in self.checks.iter().filter(|check| !check.is_problem()) {
            if id.starts_with(PERMISSION) {
                permissions += 1;
                continue;
            }
            let result = if *status == Status::Ok { "ok" } else { "skipped" };
            rows.add_row([id.clone(), result.to_owned(), with_short_digests(evidence)]);
        }
        if permissions > 0 {
            let found = format!("{} that you have (-o json lists them)", counted(permissions, "permission"));
            rows.add_row([format!("{PERMISSION}…"), "ok".to_owned(), found]);
        }
        page.push_table(rows);
        page.push_str(&format!("\n{}: {}", counted(self.checks.len(), "check"), self.counts()));
        page
    }

    fn counts(&self) -> String {
        let counts = [
            (self.count(|check| check.status == Status::Failure), "failed"),
            (self.count(|check| check.undecided), "unknown"),
            (self.count(|check| check.status == Status::Warning), "with a warning"),
            (self.count(|check| check.status == Status::Ok), "ok"),
            (self.count(|check| check.status == Status::Skipped && !check.undecided), "skipped"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}

/// Number of digits of a digest in a table.
const DIGITS: usize = 12;
const DIGEST: &str = "@sha256:";

/// Shortens the digests of images, which are wider than the column.
fn with_short_digests(text: &str) -> String {
    let mut parts = text.split(DIGEST);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let mark = if digits > DIGITS { "…" } else { "" };
        short.push_str(&format!("{DIGEST}{}{mark}{}", &part[..digits.min(DIGITS)], &part[digits..]));
    }
    short
}

/// Returns whether the check is of a permission that the user does not have. All missing permissions have the same fix.
fn is_missing_permission(check: &Check) -> bool {
    check.id.starts_with(PERMISSION) && check.fix.is_some()
}

/// Adds one block for all missing permissions.
fn push_missing(page: &mut Page, missing: &[&Check]) {
    let Some(Fix { command, note }) = missing.iter().find_map(|check| check.fix.as_ref()) else { return };
    let (needed, optional): (Vec<&Check>, Vec<&Check>) =
        missing.iter().partition(|check| check.status == Status::Failure);
    let word = if needed.is_empty() { paint("WARNING", Paint::Warning) } else { paint("FAILURE", Paint::Fatal) };
    page.push_str(&format!("{word}  {}\n", counted(missing.len(), "missing permission")));
    if !needed.is_empty() {
        page.push_str("    Without a permission on nodes, these still work: gpu-syringe explain POD, pods, xid CODE\n");
    }
    for (heading, checks) in [("needed", needed), ("optional", optional)] {
        for Check { evidence, .. } in checks {
            page.push_str(&format!("    {heading}: {evidence}\n"));
        }
    }
    page.push_str(&format!("    → {command}\n      {note}\n\n"));
}

#[cfg(test)]
mod tests {
    use super::with_short_digests;

    #[test]
    fn a_digest_has_twelve_digits_in_a_table() {
        let digest = "0123456789abcdef".repeat(4);
        let short = "r.example/a@sha256:0123456789ab…, r.example/b@sha256:0123456789ab….";
        assert_eq!(with_short_digests(&format!("r.example/a@sha256:{digest}, r.example/b@sha256:{digest}.")), short);
        for text in ["no image", "a@sha256:0123", "a@sha256:", "@sha256:é"] {
            assert_eq!(with_short_digests(text), text);
        }
    }
}
