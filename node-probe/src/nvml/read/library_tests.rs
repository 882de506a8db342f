//! Tests that invalid libraries, and libraries that must not be loaded, are rejected.

use std::os::unix::fs::PermissionsExt;

use super::{Candidates, found, open};
use crate::nvml::current_call::CallRecorder;
use crate::paths::{Owner, Paths};
use crate::testing::Tree;

#[test]
fn without_a_library_the_problem_lists_what_was_tried_and_what_to_do() {
    let tree = Tree::new();
    tree.file("sys/module/nvidia/version", "570.124.06\n").file("usr/lib64/libnvidia-ml.so.1", "not a library");
    let named = tree.path().join("usr/lib64/libnvidia-ml.so.1");
    for found in [Candidates::Named(named.clone()), found(None, &tree.paths())] {
        let problem = open(found, &tree.paths(), &CallRecorder::default(), false).expect_err("no library");
        assert_eq!(problem.code, "library_not_found");
        assert!(problem.why.contains("570.124.06"), "{}", problem.why);
        assert!(problem.why.contains("usr/lib64/libnvidia-ml.so.1: "), "{}", problem.why);
        assert!(problem.next_step.contains("GPU Operator"), "{}", problem.next_step);
    }
}

#[test]
fn a_library_that_others_can_change_is_not_opened_and_the_reason_is_reported() {
    let tree = Tree::new();
    tree.file("usr/lib64/libnvidia-ml.so.1", std::fs::read(fake_nvml::library_path()).expect("built"));
    let file = tree.path().join("usr/lib64/libnvidia-ml.so.1");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).expect("ours");
    let problem =
        open(found(None, &tree.paths()), &tree.paths(), &CallRecorder::default(), false).expect_err("refused");
    assert_eq!(problem.code, "library_not_found");
    assert!(problem.why.contains("can be changed by users other than root"), "{}", problem.why);
}

#[test]
fn a_workloads_library_is_not_opened_with_privileges() {
    let tree = Tree::new();
    tree.file("usr/lib64/libnvidia-ml.so.1", std::fs::read(fake_nvml::library_path()).expect("built"));
    let paths = Paths { owner: Owner::Workload, ..tree.paths() };
    let problem = open(found(None, &paths), &paths, &CallRecorder::default(), false).expect_err("refused");
    assert!(problem.why.contains("this process has privileges"), "{}", problem.why);
}
