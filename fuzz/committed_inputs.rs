//! `run`: runs the body of a fuzz target on the inputs in `fuzz/corpus`, in the tests of a crate.
//!
//! The file is included with `#[path]`, because other crates cannot use code under `cfg(test)`.

use std::path::Path;

/// Minimum number of inputs of a target.
const MIN_INPUTS: usize = 10;

/// Runs a target on its committed inputs.
pub(super) fn run(target: &str, body: fn(&[u8])) {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("fuzz/corpus"));
    let folder = folders.into_iter().find(|folder| folder.is_dir()).expect("a folder fuzz/corpus").join(target);
    let inputs: Vec<_> = std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry")).collect();
    assert!(inputs.len() >= MIN_INPUTS, "{} has only {} inputs", folder.display(), inputs.len());
    for input in inputs {
        body(&std::fs::read(input.path()).expect("an input"));
    }
}
