//! Tests of `all --deep` with the fake CUDA library in the tree of a node: its results, a hang, a crash, and files that
//! are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use fake_cuda::Answers;
use syringe_core::facts::cuda::CudaStart;

use crate::{Bench, data};

const VERSION: &str = "570.124.06";

/// A node with a loaded driver and the CUDA library of this version.
fn node(answers: &Answers) -> (Bench, PathBuf) {
    let bench = Bench::of("healthy-t4-1");
    let root = bench.directory.path();
    let library = root.join(format!("usr/lib64/libcuda.so.{VERSION}"));
    for folder in ["sys/module/nvidia", "usr/lib64"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::write(root.join("sys/module/nvidia/version"), format!("{VERSION}\n")).expect("a file");
    fs::write(&library, fake_cuda::library(answers)).expect("a file");
    fs::set_permissions(&library, Permissions::from_mode(0o755)).expect("ours");
    (bench, library)
}

fn start(bench: &Bench, args: &[&str]) -> (Option<CudaStart>, Duration) {
    let variables = [("CUDA_VISIBLE_DEVICES", "0"), ("LD_BIND_NOW", "1")];
    let run = bench.run(&[&["all"], args].concat(), &variables);
    (data(run.report.sections.host).cuda, run.took)
}

fn started(answers: &Answers) -> CudaStart {
    start(&node(answers).0, &["--deep"]).0.expect("it was asked for")
}

/// The fake library also fails in a process with an environment, with a privilege, or with other descriptors.
#[test]
fn cuda_starts_in_an_isolated_process_and_its_results_are_reported() {
    let (bench, library) = node(&Answers::default());
    let (cuda, _) = start(&bench, &["--deep"]);
    let cuda = cuda.expect("it was asked for");
    assert_eq!((cuda.init_code, cuda.count_code, cuda.devices), (Some(0), Some(0), Some(8)), "{cuda:?}");
    assert_eq!((cuda.version.as_deref(), cuda.problem.as_ref()), (Some("12.8"), None), "{cuda:?}");
    assert_eq!(cuda.library.as_deref(), library.to_str());
    assert!(cuda.open_call.is_none() && cuda.ended.is_none() && cuda.left_process.is_none(), "{cuda:?}");
    assert_eq!(start(&bench, &[]).0, None, "nothing is started without the option");
}

#[test]
fn an_error_is_reported_by_the_call_that_returned_it() {
    let cuda = started(&Answers { init: 802, ..Answers::default() });
    assert_eq!((cuda.init_code, cuda.count_code, cuda.devices), (Some(802), None, None), "{cuda:?}");
    let cuda = started(&Answers { count: 100, ..Answers::default() });
    assert_eq!((cuda.init_code, cuda.count_code, cuda.devices), (Some(0), Some(100), None), "{cuda:?}");
}

#[test]
fn a_crash_is_reported_with_its_call_and_its_signal() {
    for call in ["cuInit", "cuDeviceGetCount"] {
        let cuda = started(&Answers { crashes: call, ..Answers::default() });
        assert_eq!(cuda.open_call.as_deref(), Some(call), "{cuda:?}");
        assert!(cuda.ended.as_ref().is_some_and(|ended| ended.contains("signal 11")), "{cuda:?}");
    }
}

#[test]
fn a_hang_is_reported_with_its_call_and_the_probe_ends_in_time() {
    let (cuda, took) = start(&node(&Answers { hangs: "cuInit", ..Answers::default() }).0, &["--deep"]);
    let cuda = cuda.expect("it was asked for");
    assert_eq!((cuda.open_call.as_deref(), cuda.init_code), (Some("cuInit"), None), "{cuda:?}");
    assert_eq!((cuda.ended, cuda.left_process), (None, None), "the process could be killed");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_library_that_others_can_change_is_not_loaded() {
    let (bench, library) = node(&Answers { crashes: "cuInit", ..Answers::default() });
    fs::set_permissions(&library, Permissions::from_mode(0o777)).expect("ours");
    let problem = start(&bench, &["--deep"]).0.and_then(|cuda| cuda.problem).expect("it was refused");
    assert!(problem.why.contains("can be changed by users other than root"), "{problem:?}");
}

#[test]
fn without_a_loaded_driver_or_a_library_nothing_is_started() {
    let (bench, library) = node(&Answers::default());
    fs::remove_file(library).expect("ours");
    let code = || start(&bench, &["--deep"]).0.and_then(|cuda| cuda.problem).map(|problem| problem.code);
    assert_eq!(code().as_deref(), Some("cuda_library"));
    fs::remove_file(bench.directory.path().join("sys/module/nvidia/version")).expect("ours");
    assert_eq!(code().as_deref(), Some("cuda_no_driver"));
}
