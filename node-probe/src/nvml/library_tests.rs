//! The search for the library, in trees made for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Candidate, candidates, mapped_libraries, mapped_path, open};
use crate::host;
use crate::nvml::trace::Trace;
use crate::paths::Paths;

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
    fs::write(path, text).expect("file");
}

fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
    symlink(target, path).expect("link");
}

fn found(root: &Path, loaded: Option<&str>) -> Vec<String> {
    let inside = |candidate: Candidate| {
        candidate.path.strip_prefix(root).unwrap_or(&candidate.path).to_string_lossy().into_owned()
    };
    candidates(&Paths::below(root), loaded).into_iter().map(inside).collect()
}

#[test]
fn absolute_links_are_followed_inside_the_root() {
    let root = tempfile::tempdir().expect("tempdir");
    let root = root.path();
    let folder = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    file(root, &format!("{folder}/nvidia/current/libnvidia-ml.so.535.261.03"), "");
    link(root, "etc/alternatives/nvml", &format!("/{folder}/nvidia/current/libnvidia-ml.so.535.261.03"));
    link(root, &format!("{folder}/libnvidia-ml.so.1"), "/etc/alternatives/nvml");
    let real = host::inside(root, &format!("{folder}/libnvidia-ml.so.1")).expect("resolves");
    assert_eq!(real, root.join(format!("{folder}/nvidia/current/libnvidia-ml.so.535.261.03")));
    assert_eq!(found(root, None), [format!("{folder}/nvidia/current/libnvidia-ml.so.535.261.03")]);
}

#[test]
fn a_link_cannot_leave_the_root_nor_loop() {
    let root = tempfile::tempdir().expect("tempdir");
    let root = root.path();
    file(root, "inside", "");
    link(root, "up", "../../../inside");
    link(root, "loop", "loop");
    assert_eq!(host::inside(root, "up"), Some(root.join("inside")));
    assert_eq!(host::inside(root, "loop"), None);
    assert_eq!(host::inside(root, "absent"), None);
}

#[test]
fn the_library_of_the_loaded_modules_version_comes_first() {
    let root = tempfile::tempdir().expect("tempdir");
    let root = root.path();
    file(root, "usr/lib64/libnvidia-ml.so.550.163.01", "");
    link(root, "usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.550.163.01");
    file(root, "home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.570.124.06", "");
    link(root, "home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.570.124.06");
    assert_eq!(
        found(root, Some("570.124.06")),
        ["home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.570.124.06", "usr/lib64/libnvidia-ml.so.550.163.01",]
    );
}

#[test]
fn the_loaders_own_path_is_tried_on_this_machine_only() {
    let root = tempfile::tempdir().expect("tempdir");
    let paths = Paths { proc: "/proc".into(), ..Paths::below(root.path()) };
    let found = candidates(&paths, Some("570.124.06"));
    assert_eq!(found, [Candidate { path: "libnvidia-ml.so.1".into(), version: None }]);
    assert!(candidates(&Paths::below(root.path()), None).is_empty());
}

#[test]
fn driver_containers_and_listed_folders_are_searched() {
    let root = tempfile::tempdir().expect("tempdir");
    let root = root.path();
    file(root, "run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", "");
    file(root, "etc/ld.so.conf.d/nvidia.conf", "# comment\n/opt/gpu/lib\n");
    file(root, "opt/gpu/lib/libnvidia-ml.so.1", "");
    let bottlerocket = format!("{}-bottlerocket-linux-gnu", std::env::consts::ARCH);
    let tesla = format!("{bottlerocket}/sys-root/usr/lib/nvidia/tesla/535/libnvidia-ml.so.1");
    file(root, &tesla, "");
    let expected = ["run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", &tesla, "opt/gpu/lib/libnvidia-ml.so.1"];
    assert_eq!(found(root, Some("570.124.06")), expected);
}

#[test]
fn a_library_that_a_process_has_open_is_found_through_its_root() {
    let proc = tempfile::tempdir().expect("tempdir");
    let maps = "7f00-7f01 r-xp 00000000 08:01 42   /usr/lib/libnvidia-ml.so.570.1\n";
    file(proc.path(), "77/maps", maps);
    file(proc.path(), "self/maps", maps);
    file(proc.path(), "78/maps", "7f00-7f01 r-xp 0 08:01 42 /usr/lib/libc.so.6\n");
    let found = mapped_libraries(proc.path());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, proc.path().join("77/root/usr/lib/libnvidia-ml.so.570.1"));
    assert_eq!(found[0].version.as_deref(), Some("570.1"));
    assert_eq!(mapped_path("0-1 r-xp 0 0:0 0 /usr/lib/libnvidia-ml.so.1 (deleted)"), None);
}

#[test]
fn without_a_library_the_problem_lists_what_was_tried_and_what_to_do() {
    let root = tempfile::tempdir().expect("tempdir");
    let root = root.path();
    file(root, "sys/module/nvidia/version", "570.124.06\n");
    file(root, "usr/lib64/libnvidia-ml.so.1", "not a library");
    let explicit = root.join("usr/lib64/libnvidia-ml.so.1");
    let problem = open(Some(&explicit), &Paths::below(root), &Trace::default()).expect_err("no library");
    assert_eq!(problem.code, "library_not_found");
    assert!(problem.why.contains("570.124.06"), "{}", problem.why);
    assert!(problem.why.contains("usr/lib64/libnvidia-ml.so.1: "), "{}", problem.why);
    assert!(problem.next_step.contains("--nvml-library"));
}
