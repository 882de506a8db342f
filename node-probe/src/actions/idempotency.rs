//! `claim`, `keep`, `outcome`: let an action run only once for each id, and store its report for repeated calls.
//!
//! Ids and reports are files. A repeated call returns the report of the first run after that run has ended.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use syringe_core::report::{Problem, Report};

use crate::files;

/// A memory file system that every container has. Its content is deleted with the container.
const FOLDER: &str = "/dev/shm";

/// Maximum size of a report. The report of an action has a few kilobytes.
const MAX_REPORT: u64 = 4 << 20;

/// Claims the ID of an action. Fails if the ID was claimed before, or if that cannot be determined.
pub(super) fn claim(id: &str) -> Result<(), Problem> {
    claim_in(Path::new(FOLDER), id)
}

/// Returns the report of the run with this ID; `None` while the run continues, or if it ended without a report.
pub(super) fn outcome(id: &str) -> Option<Report> {
    outcome_in(Path::new(FOLDER), id)
}

/// Stores the report of a run for repeated calls. Errors are ignored, because the report is also printed.
pub(super) fn keep(id: &str, report: &Report) {
    keep_in(Path::new(FOLDER), id, report);
}

fn file_in(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("gpu-syringe-action-{id}"))
}

fn outcome_in(folder: &Path, id: &str) -> Option<Report> {
    // The folder may be shared with other containers: only regular files of this user are read.
    let file = files::open(&file_in(folder, id).with_extension("json")).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut document = Vec::new();
    file.take(MAX_REPORT).read_to_end(&mut document).ok()?;
    Report::from_json(&document).ok()
}

fn keep_in(folder: &Path, id: &str, report: &Report) {
    let file = file_in(folder, id);
    let (unfinished, whole) = (file.with_extension("part"), file.with_extension("json"));
    let Ok(document) = serde_json::to_vec(report) else { return };
    let create = || OpenOptions::new().write(true).create_new(true).open(&unfinished);
    // The file is renamed after it is complete, so that a reader never sees a part of it.
    let written = create().and_then(|mut file| file.write_all(&document));
    let _ = written.and_then(|()| fs::rename(&unfinished, &whole));
}

fn claim_in(folder: &Path, id: &str) -> Result<(), Problem> {
    let file = file_in(folder, id);
    let problem = |code: &str, why: String, next_step: &str| Problem {
        what: "action".into(),
        why,
        next_step: next_step.into(),
        gpu: None,
        code: code.into(),
    };
    match OpenOptions::new().write(true).create_new(true).open(&file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(problem(
            "already_run",
            "this action was started before and its result was lost; the action is not started again".into(),
            "Check the node again before the next step.",
        )),
        Err(error) => Err(problem(
            "once_unknown",
            format!("cannot determine whether the action ran before: {}: {error}", file.display()),
            "Run the action in a container whose /dev/shm is writable.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::report::Report;

    use super::{claim_in, keep_in, outcome_in};

    #[test]
    fn a_repeated_call_gets_the_outcome_after_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(claim_in(folder.path(), "a"), Ok(()));
        assert_eq!(outcome_in(folder.path(), "a"), None);
        let report = Report { probe_version: "9".into(), ..Report::default() };
        keep_in(folder.path(), "a", &report);
        assert_eq!(outcome_in(folder.path(), "a"), Some(report));
        assert_eq!(outcome_in(folder.path(), "b"), None);
    }

    #[test]
    fn the_same_id_is_refused_and_another_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(claim_in(folder.path(), "a"), Ok(()));
        assert_eq!(claim_in(folder.path(), "a").expect_err("taken").code, "already_run");
        assert_eq!(claim_in(folder.path(), "b"), Ok(()));
        assert_eq!(claim_in(&folder.path().join("absent"), "c").expect_err("no folder").code, "once_unknown");
    }
}
