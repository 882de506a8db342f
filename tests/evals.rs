//! Tests of `evals/`: each archive equals the `source` of its case, and the page `docs/evals.md` shows the scores.
//!
//! With `INSTA_UPDATE=always`, the tests write the archives and `docs/evals.md`.
#![allow(clippy::unwrap_used)]

#[path = "evals/source.rs"]
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use archive::Archive;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_update() -> bool {
    std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always")
}

/// Returns the folders with a `case.json`. `EVALS=FOLDER` specifies another folder, e.g. with unpublished cases.
fn cases() -> Vec<PathBuf> {
    let folder = std::env::var_os("EVALS").map_or_else(|| root().join("evals"), PathBuf::from);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.filter(|path| path.join("case.json").is_file()).collect();
    cases.sort();
    cases
}

#[test]
fn each_archive_is_made_from_the_source_of_its_case() {
    let mut old = Vec::new();
    for folder in cases() {
        let text = std::fs::read(folder.join("case.json")).unwrap();
        let case: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert_eq!(case["id"], name, "{}", folder.display());
        // A case can also have an archive of `gpu-syringe save` instead of a source.
        let Some(source) = case.get("source") else { continue };
        let expected = source::archive(source).unwrap_or_else(|error| panic!("{name}: {error}"));
        let file = folder.join("archive.tar.gz");
        let found = std::fs::File::open(&file).ok().and_then(|file| Archive::read(file, true).ok());
        if found.as_ref() == Some(&expected) {
            continue;
        }
        if is_update() {
            expected.write(std::fs::File::create(&file).unwrap()).unwrap();
        } else {
            old.push(name.to_owned());
        }
    }
    assert!(old.is_empty(), "these archives are old: run this test with INSTA_UPDATE=always: {old:?}");
}

#[test]
fn the_page_shows_the_scores_of_the_transcripts() {
    let mode = if is_update() { "--write" } else { "--check" };
    let mut command = Command::new("python3");
    command.args(["-B", "evals/run.py", "page", mode]).current_dir(root());
    let output = command.output().expect("python3 starts");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{out}{err}");
}
