//! An action runs once. An exec whose connection was lost may be tried again by whoever sent it; a read may, an action not.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use syringe_core::report::Problem;

/// Memory that every container has, and that goes away with it.
const FOLDER: &str = "/dev/shm";

/// Takes the id; a problem where it was taken before, or where that cannot be told.
pub(super) fn claim(id: &str) -> Result<(), Problem> {
    claim_in(Path::new(FOLDER), id)
}

fn claim_in(folder: &Path, id: &str) -> Result<(), Problem> {
    let file = folder.join(format!("gpu-syringe-action-{id}"));
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
            "this action was started before and its answer was lost; it was not started again".into(),
            "Look at the node again before you decide anything.",
        )),
        Err(error) => Err(problem(
            "once_unknown",
            format!("whether the action ran before cannot be told: {}: {error}", file.display()),
            "Run it where /dev/shm can be written.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::claim_in;

    #[test]
    fn the_same_id_is_refused_and_another_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(claim_in(folder.path(), "a"), Ok(()));
        assert_eq!(claim_in(folder.path(), "a").expect_err("taken").code, "already_run");
        assert_eq!(claim_in(folder.path(), "b"), Ok(()));
        assert_eq!(claim_in(&folder.path().join("absent"), "c").expect_err("no folder").code, "once_unknown");
    }
}
