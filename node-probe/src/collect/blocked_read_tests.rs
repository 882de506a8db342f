//! Tests of runs on a complete file tree in which reading one file blocks, or one file is not a regular file.
//!
//! The report must be on time, a problem must contain the path, and every section without such a problem must be
//! unchanged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use syringe_core::probe_command::{ReadCommand, StackContainer};

use super::collect;
use super::test_node::{ID, POD, node};
use crate::bounded::fault;
use crate::request::{Files, Request};
use crate::testing::Tree;

/// Time limit of a run. A read that blocks gets an eighth of this time.
const TIME: Duration = Duration::from_secs(8);
/// Number of parallel runs. The runs mostly wait.
const PARALLEL: usize = 16;
/// Number of attempts for each path: on a busy machine a file that does not block may also be late.
const TRIES: usize = 4;
/// Returns the report for a tree, without times, and with `ROOT` instead of the path of the tree.
fn report(tree: &Tree) -> (Value, Duration) {
    let files = Files { root: Some(tree.path().to_owned()), ..Files::default() };
    let stack_log = Some(StackContainer { pod_uid: POD.into(), container: "plugin".into() });
    let read = ReadCommand { container: Some(ID.parse().expect("an ID")), stack_log, ..ReadCommand::everything() };
    let request = Request { read, timeout: TIME, files, development: true };
    let started = Instant::now();
    let report = collect(&request);
    let time = started.elapsed();
    let text = serde_json::to_string(&report).expect("a report");
    let text = text.replace(&*tree.path().to_string_lossy(), "ROOT");
    let mut report: Value = serde_json::from_str(&text).expect("JSON");
    let sections = report["sections"].as_object_mut().expect("sections");
    sections.values_mut().for_each(|section| section["duration_ms"] = Value::Null);
    (report["sections"].take(), time)
}

/// Returns the faults of the report of a tree in which `path` cannot be read.
fn faults(before: &Value, tree: &Tree, path: &Path) -> Vec<String> {
    let (after, time) = report(tree);
    let named = format!("ROOT/{}", path.display());
    let named = named.trim_end_matches('/');
    // The path of the same file through the link to the folder of the device.
    let device = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let by_link = format!("ROOT/sys/bus/pci/devices/{device}/{name}");
    let names_it = |section: &Value| {
        section["problems"].as_array().is_some_and(|problems| {
            problems.iter().any(|problem| {
                let text = |key: &str| {
                    let text = problem[key].as_str().unwrap_or_default();
                    text.contains(named) || text.contains(&by_link)
                };
                text("what") || text("why")
            })
        })
    };
    let sections = before.as_object().expect("sections");
    let differs = |section: &Value, other: &Value| match (section, other) {
        (Value::Object(one), Value::Object(two)) => {
            let keys = one.keys().filter(|key| two.get(*key) != one.get(*key)).take(1);
            keys.map(|key| format!("{key}: {} / {}", one[key], two.get(key).unwrap_or(&Value::Null))).collect()
        }
        _ => format!("{section} / {other}"),
    };
    let mut faults: Vec<String> = sections
        .iter()
        .filter(|(name, section)| !names_it(&after[*name]) && after[*name] != **section)
        .map(|(name, section)| format!("{name} differs without a problem: {}", differs(section, &after[name])))
        .collect();
    if !sections.keys().any(|name| names_it(&after[name])) {
        faults.push("no problem contains the path".into());
    }
    if time > TIME + TIME / 4 {
        faults.push(format!("it took {time:?}"));
    }
    faults.into_iter().map(|fault| format!("{named}: {fault}")).collect()
}

/// Runs `check` for all paths, several at a time, and returns the faults.
fn for_each(paths: Vec<PathBuf>, check: impl Fn(&Path) -> Vec<String> + Sync) -> Vec<String> {
    let (paths, faults) = (Mutex::new(paths), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(path) = paths.lock().expect("not poisoned").pop() else { return };
                    let found = (0..TRIES).map(|_| check(&path)).find(Vec::is_empty).unwrap_or_else(|| check(&path));
                    faults.lock().expect("not poisoned").extend(found);
                }
            });
        }
    });
    faults.into_inner().expect("not poisoned")
}

fn paths_read(tree: &Tree) -> Vec<PathBuf> {
    let below = |path: PathBuf| path.strip_prefix(tree.path()).expect("below").to_owned();
    let paths: BTreeSet<PathBuf> = fault::reads_below(tree.path()).into_iter().map(below).collect();
    paths.into_iter().collect()
}

/// Blocks each path that is read, except for the paths in `but`.
fn each_path_may_block(loaded: bool, but: &[PathBuf], least: usize) {
    let tree = node(loaded);
    let (before, _) = report(&tree);
    assert_eq!(report(&tree).0, before, "two runs give the same report");
    let paths: Vec<PathBuf> = paths_read(&tree).into_iter().filter(|path| !but.contains(path)).collect();
    assert!(paths.len() >= least, "{} paths: {paths:#?}", paths.len());
    let faults = for_each(paths, |path| {
        let tree = node(loaded);
        fault::block(&tree.path().join(path));
        faults(&before, &tree, path)
    });
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_file_that_blocks_costs_only_its_own_facts() {
    each_path_may_block(true, &[], 150);
    let with_driver = node(true);
    report(&with_driver);
    each_path_may_block(false, &paths_read(&with_driver), 5);
}

#[test]
fn every_file_may_be_a_fifo() {
    let tree = node(true);
    let (before, _) = report(&tree);
    let is_file = |path: &PathBuf| std::fs::symlink_metadata(tree.path().join(path)).is_ok_and(|file| file.is_file());
    let paths: Vec<PathBuf> = paths_read(&tree).into_iter().filter(is_file).collect();
    // The content of these files is not read: only their names matter.
    let only_names = ["dev/nvidia", "usr/lib64/", ".sock", "driver-ready", "usr/bin/"];
    let read = |path: &PathBuf| !only_names.iter().any(|name| path.to_string_lossy().contains(name));
    let paths: Vec<PathBuf> = paths.into_iter().filter(read).collect();
    assert!(paths.len() >= 60, "{} paths: {paths:#?}", paths.len());
    let faults = for_each(paths, |path| {
        let tree = node(true);
        let at = tree.path().join(path);
        std::fs::remove_file(&at).expect("ours");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644));
        rustix::fs::mknodat(rustix::fs::CWD, &at, kind, mode, 0).expect("a FIFO");
        faults(&before, &tree, path)
    });
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
