//! `start`: starts CUDA of the node in a child process without privileges, and returns the results of the calls.
//! `run_in_child`: the code of the child process.
//!
//! ```text
//!   start ─▶ child, root:    the libraries of the node, by the rule for NVML (`nvml_library`)
//!            child, nobody:  dlopen ─▶ cuDriverGetVersion ─▶ cuInit ─▶ cuDeviceGetCount
//!                            (writes a line of JSON before and after each call)
//! ```
//!
//! The child has an empty environment, creates no context and allocates no memory of a GPU. It writes to a file in
//! memory. The parent reads this file after the child ended or was killed. The file shows which call hangs or crashed.

#![allow(unsafe_code, reason = "calls functions of libcuda")]

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use libloading::{Library, Symbol};
use rustix::fs::{Access, MemfdFlags};
use rustix::process::{Signal, getpid, kill_process};
use syringe_core::facts::cuda::CudaStart;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::child::{self, End};
use crate::child_task::ChildTask;
use crate::document::millis;
use crate::files;
use crate::host::driver::{nvml_library, version};
use crate::paths::{Owner, Paths};
use crate::privileges;
use crate::trusted_file::TrustedFile;

/// Time limit for the whole run, including the sections that were read before.
const TIME: Duration = Duration::from_secs(10);
/// Minimum time for CUDA. If the GPUs are in use or in persistence mode, `cuInit` takes about a second.
const LEAST_TIME: Duration = Duration::from_secs(3);
/// Maximum number of bytes that are read of the output of the child.
const MAX_OUTPUT: usize = 16 * 1024;
/// Maximum length of a text of the loader, and of a path.
const TEXT: usize = 300;
/// Device files that every CUDA program opens.
const DEVICES: [&str; 2] = ["nvidiactl", "nvidia-uvm"];
/// SIGKILL: the kernel sends this signal if memory runs out. Such an end is not a crash of CUDA.
const OUT_OF_MEMORY: i32 = 9;

/// Starts CUDA. `reset`: the reason not to call the driver. `spent`: the time since the start of the run. `more`: extra
/// time in which the driver initializes GPUs.
pub(crate) fn start(paths: &Paths, reset: Option<Problem>, spent: Duration, more: Duration) -> CudaStart {
    if let Some(problem) = reset {
        return without(problem);
    }
    if paths.owner == Owner::Workload {
        let next_step = "Probe the node itself: --via pod.";
        return without(not_started("cuda_not_of_the_node", "only the files of a workload are visible", next_step));
    }
    if version::loaded(paths).is_none() {
        return without(not_started("cuda_no_driver", "the kernel module of the driver is not loaded", ""));
    }
    let limit = TIME.saturating_sub(spent).max(LEAST_TIME) + more;
    run(paths, limit).unwrap_or_else(|error| {
        without(not_started("cuda_child", &format!("the child process failed: {error}"), "Try again."))
    })
}

fn run(paths: &Paths, limit: Duration) -> io::Result<CudaStart> {
    let answers = File::from(rustix::fs::memfd_create("node-probe", MemfdFlags::CLOEXEC)?);
    let mut command = child::command(&ChildTask::Cuda(paths.clone()))?;
    command.env_clear().current_dir("/").stdout(Stdio::from(answers.try_clone()?)).stderr(Stdio::null());
    let started = Instant::now();
    let mut process = command.spawn()?;
    let end = child::end(&mut process, limit)?;
    let mut cuda = last_answer(&answers)?;
    cuda.duration_ms = Some(millis(started.elapsed()));
    if cuda.problem.is_some() || cuda.open_call.is_none() && cuda.init_code.is_some() {
        return Ok(cuda);
    }
    match end {
        End::Late { left } => cuda.left_process = left,
        End::Exited(status) => cuda.ended = Some(child::exit_text(status)),
    }
    // If no call was made, the end of the process gives no information about the library and the driver.
    let of_memory = matches!(end, End::Exited(status) if status.signal() == Some(OUT_OF_MEMORY));
    if cuda.open_call.is_none() || of_memory {
        let ended = cuda.ended.take().unwrap_or_else(|| "made no CUDA call within the time limit".to_owned());
        let left = cuda.left_process.map(child::left_behind).unwrap_or_default();
        let memory = if of_memory { ", possibly because the memory of the probe's pod was not enough" } else { "" };
        return Ok(without(not_started("cuda_child", &format!("the process {ended}{memory}{left}"), "Try again.")));
    }
    Ok(cuda)
}

/// Returns the last complete line of the child.
fn last_answer(answers: &File) -> io::Result<CudaStart> {
    let mut text = vec![0; MAX_OUTPUT];
    let length = answers.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().next_back().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default())
}

fn without(problem: Problem) -> CudaStart {
    CudaStart { problem: Some(problem), ..CudaStart::default() }
}

fn not_started(code: &str, why: &str, next_step: &str) -> Problem {
    files::problem(code, "start of CUDA", clean(why, TEXT), next_step)
}

/// Runs in the child.
pub(crate) fn run_in_child(paths: &Paths) -> ExitCode {
    let Ok(mut output) = child::take_output() else { return ExitCode::FAILURE };
    let mut answer = |cuda: &CudaStart| {
        let mut line = serde_json::to_vec(cuda).unwrap_or_default();
        line.push(b'\n');
        // If a result cannot be written, the parent reports that it is missing.
        let _ = output.write_all(&line);
    };
    if let Err(problem) = call(paths, &mut answer) {
        answer(&without(problem));
    }
    // The library's handlers for the exit of a process must not run: a crash there would look like a failed start.
    let _ = kill_process(getpid(), Signal::KILL);
    ExitCode::FAILURE
}

/// `cuInit`.
type Init = unsafe extern "C" fn(c_uint) -> c_uint;
/// `cuDriverGetVersion` and `cuDeviceGetCount`.
type Get = unsafe extern "C" fn(*mut c_int) -> c_uint;

/// Loads the library and calls it. `answer` receives the results so far, before and after each call.
fn call(paths: &Paths, answer: &mut impl FnMut(&CudaStart)) -> Result<(), Problem> {
    let refused = |error: io::Error| not_started("cuda_child", &format!("privileges: {error}"), "");
    child::isolate().map_err(refused)?;
    let found = nvml_library::cuda_libraries(paths, version::loaded(paths).as_deref());
    privileges::drop_all().map_err(refused)?;
    // The change of the user cleared this setting.
    child::end_with_parent().map_err(refused)?;
    check_access(paths)?;
    let (library, path, _file) = open(found)?;
    let init: Symbol<'_, Init> = symbol(&library, "cuInit")?;
    let (get_version, get_count): (Symbol<'_, Get>, Symbol<'_, Get>) =
        (symbol(&library, "cuDriverGetVersion")?, symbol(&library, "cuDeviceGetCount")?);
    let mut cuda = CudaStart { library: Some(path), ..CudaStart::default() };
    let mut made = |cuda: &mut CudaStart, name: &str, run: &mut dyn FnMut() -> c_uint| {
        cuda.open_call = Some(name.to_owned());
        answer(cuda);
        let code = run();
        cuda.open_call = None;
        code
    };
    let (mut version, mut devices): (c_int, c_int) = (0, 0);
    // SAFETY: the signatures are the same as in the header. The argument of `cuInit` must be 0, and the pointers are
    // valid.
    if made(&mut cuda, "cuDriverGetVersion", &mut || unsafe { get_version(&raw mut version) }) == 0 {
        cuda.version = Some(format!("{}.{}", version / 1000, version % 1000 / 10));
    }
    // SAFETY: see above.
    cuda.init_code = Some(made(&mut cuda, "cuInit", &mut || unsafe { init(0) }));
    if cuda.init_code == Some(0) {
        // SAFETY: see above.
        cuda.count_code = Some(made(&mut cuda, "cuDeviceGetCount", &mut || unsafe { get_count(&raw mut devices) }));
        cuda.devices = u32::try_from(devices).ok().filter(|_| cuda.count_code == Some(0));
    }
    answer(&cuda);
    Ok(())
}

fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, Problem> {
    // SAFETY: the callers name the type of the header.
    unsafe { library.get(name.as_bytes()) }
        .map_err(|_| not_started("cuda_library", &format!("the library has no {name}"), ""))
}

/// Checks that a user without privileges may open the devices of the driver. Otherwise `cuInit` fails, although CUDA
/// works for root.
fn check_access(paths: &Paths) -> Result<(), Problem> {
    let is_denied = |name: &&&str| {
        let result = rustix::fs::access(paths.dev.join(name), Access::READ_OK | Access::WRITE_OK);
        result == Err(rustix::io::Errno::ACCESS)
    };
    match DEVICES.iter().find(is_denied).filter(|_| !paths.is_saved_tree()) {
        Some(name) => {
            let why =
                format!("/dev/{name} cannot be opened without privileges, and CUDA is started without privileges");
            Err(not_started("cuda_no_access", &why, "To test CUDA, start a pod with a GPU on the node."))
        }
        None => Ok(()),
    }
}

/// Loads the first library that may be loaded. Returns the library, its path, and its open file: the
/// library was loaded through a path to this open file.
fn open(found: Vec<nvml_library::Library>) -> Result<(Library, String, TrustedFile), Problem> {
    let mut tried = Vec::new();
    for nvml_library::Library { path, file, foreign, .. } in found {
        let path = clean(&path.display().to_string(), TEXT);
        // A library of a workload does not show whether CUDA of the node starts.
        let loaded = match file {
            Ok(_) if foreign => Err("the library belongs to a workload".to_owned()),
            // SAFETY: only root can have changed the file, and this process has no privileges.
            Ok(file) => unsafe { Library::new(file.as_path()) }
                .map(|library| (library, file))
                .map_err(|error| error.to_string()),
            Err(distrust) => Err(distrust.to_string()),
        };
        match loaded {
            Ok((library, file)) => return Ok((library, path, file)),
            Err(why) => tried.push(format!("{path}: {why}")),
        }
    }
    let why = match tried.is_empty() {
        true => "no libcuda.so.1 in the known folders or in the folders of ld.so.conf".to_owned(),
        false => format!("the library could not be loaded: {}", tried.join("; ")),
    };
    Err(not_started(
        "cuda_library",
        &why,
        "Install the CUDA library of the driver on the node. Containers get the library from the node.",
    ))
}
