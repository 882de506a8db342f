//! Tests of the dependencies between the folders of the crate `diagnosis`, which `lib.rs` also lists.

use std::fs;
use std::path::{Path, PathBuf};

use diagnosis::catalogue_of_rules;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The folders that each folder may use, besides itself. A folder of `rules/` must not use another folder of `rules/`.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("chain.rs", &["evidence"]),
    ("fabric.rs", &["chain", "evidence"]),
    ("evidence.rs", &["finding"]),
    ("input", &["evidence", "finding", "stack_stage"]),
    ("rule", &["evidence", "finding", "input"]),
    ("rules", &["evidence", "finding", "input", "messages", "rule", "stack_stage"]),
    ("conclusion", &["evidence", "finding", "health", "input", "rule", "stack_stage"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect();
    found.retain(|path| !path.to_string_lossy().ends_with("_tests.rs"));
    found.sort();
    found
}

/// Returns the code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("the file");
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the paths after `crate::` in a file: `input::node::Node`.
fn paths(code: &str) -> Vec<&str> {
    let ends =
        |text: &str| text.find(|next: char| !next.is_alphanumeric() && !"_:".contains(next)).unwrap_or(text.len());
    code.split("crate::").skip(1).map(|rest| &rest[..ends(rest)]).collect()
}

/// Returns the folder of a rule file: `gpu` for `rules/gpu/memory.rs`.
fn group_folder(path: &Path) -> Option<String> {
    let below = path.strip_prefix(Path::new(SOURCE).join("rules")).ok()?;
    let mut parts = below.components();
    let folder = parts.next()?.as_os_str().to_string_lossy().into_owned();
    parts.next().map(|_| folder)
}

#[test]
fn a_folder_uses_only_the_folders_below_it() {
    for (folder, allowed) in ALLOWED {
        for path in files(&Path::new(SOURCE).join(folder)) {
            let code = code(&path);
            let name = path.strip_prefix(SOURCE).expect("a source file").display();
            assert!(!code.contains("super::super"), "{name}: write the path of the module from `crate` on");
            for used in paths(&code) {
                let first = used.split("::").next().unwrap_or_default();
                assert!(
                    !first.is_empty() && used != "rules::",
                    "{name}: import single paths, because a group of paths is not checked"
                );
                let own = first == folder.trim_end_matches(".rs");
                assert!(own || allowed.contains(&first), "{name} uses crate::{used}");
                if let (true, Some(own)) = (first == "rules", group_folder(&path)) {
                    let other = used.split("::").nth(1);
                    assert_eq!(other, Some(own.as_str()), "{name} uses the rules of another folder: crate::{used}");
                }
            }
        }
    }
}

/// The id of a rule in a text would be a dependency that is not checked. The phrases of `stack_log` have their own ids.
#[test]
fn no_folder_names_a_rule_of_another_one_by_its_id() {
    let own: Vec<(String, String)> = files(&Path::new(SOURCE).join("rules"))
        .iter()
        .filter_map(|path| Some((group_folder(path)?, code(path))))
        .collect();
    for path in
        ["conclusion", "input", "rule", "rules"].iter().flat_map(|folder| files(&Path::new(SOURCE).join(folder)))
    {
        if path.ends_with("stack_log/phrases.rs") {
            continue;
        }
        let (code, folder) = (code(&path), group_folder(&path));
        for id in catalogue_of_rules().iter().map(|rule| format!("\"{}\"", rule.id)) {
            let home = own.iter().find(|(_, code)| code.contains(&format!(": {id} "))).map(|(folder, _)| folder);
            assert!(home.is_some(), "no table declares {id}");
            assert!(!code.contains(&id) || home == folder.as_ref(), "{} names {id}", path.display());
        }
    }
}
