//! `open`: opens and initializes the first NVML library that works. `found`, `Candidates`: the libraries to try.
//!
//! The library is loaded through the descriptor of the checked file, not through its path. The library only needs an old
//! glibc, which the probe has.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::host::driver::nvml_library;
use crate::host::driver::nvml_library::Library;
use crate::host::driver::version;
use crate::nvml::current_call::CallRecorder;
use crate::nvml::errors::NvmlError;
use crate::paths::Paths;
use crate::privileges;

/// Maximum length of the list of tried candidates in a problem.
const TRIED_TEXT: usize = 900;

/// The libraries that may be loaded, best first. The search needs privileges; the libraries are loaded later.
pub(in crate::nvml) enum Candidates {
    /// The library that is set with the development option.
    Named(PathBuf),
    /// The result of the search.
    Libraries(Vec<Library>),
}

/// Returns the libraries of this node, or only `explicit` if it is set.
pub(in crate::nvml) fn found(explicit: Option<&Path>, paths: &Paths) -> Candidates {
    match explicit {
        Some(path) => Candidates::Named(path.to_owned()),
        None => Candidates::Libraries(nvml_library::libraries(paths, version::loaded(paths).as_deref())),
    }
}

/// Opens and initializes NVML. Returns NVML with the path of the library.
pub(in crate::nvml) fn open(
    found: Candidates,
    paths: &Paths,
    recorder: &CallRecorder,
    unattached: bool,
) -> Result<(Nvml, PathBuf), Problem> {
    let mut tried: Vec<(PathBuf, NvmlError)> = Vec::new();
    match found {
        Candidates::Named(path) => match start(&path, recorder, unattached) {
            Ok(nvml) => return Ok((nvml, path)),
            Err(error) => tried.push((path, error)),
        },
        Candidates::Libraries(first) => {
            // The search ends with the memory maps of all processes, to find a library that is in use.
            let mapped = std::iter::once_with(|| nvml_library::mapped_libraries(paths)).flatten();
            for Library { path, file, foreign, .. } in first.into_iter().chain(mapped) {
                if tried.iter().any(|(known, _)| *known == path) {
                    continue;
                }
                let started = match file {
                    Ok(_) if foreign && !privileges::are_dropped() => Err(NvmlError::Unloadable(
                        "refused: the library belongs to a workload, and this process has privileges".into(),
                    )),
                    Ok(file) => start(&file.as_path(), recorder, unattached),
                    Err(distrust) => Err(NvmlError::Unloadable(distrust.to_string())),
                };
                match started {
                    Ok(nvml) => return Ok((nvml, path)),
                    Err(error) => {
                        let decisive = is_decisive(&error);
                        tried.push((path, error));
                        if decisive {
                            break;
                        }
                    }
                }
            }
        }
    }
    Err(unopened(&tried, paths, version::loaded(paths).as_deref()))
}

fn start(path: &Path, recorder: &CallRecorder, unattached: bool) -> Result<Nvml, NvmlError> {
    let _current = recorder.record("nvmlInit_v2", None, None);
    initialise(path, unattached)
}

/// Returns whether another library file would result in the same error, because the error comes from the driver.
fn is_decisive(error: &NvmlError) -> bool {
    !matches!(error, NvmlError::Unloadable(_) | NvmlError::MissingFunction | NvmlError::Code(12 | 18))
}

/// Calls `dlopen` and `nvmlInit_v2`, with two fallbacks: a copy in memory if the file is on a `noexec`
/// mount, and initialization that tolerates GPUs that do not attach.
fn initialise(path: &Path, unattached: bool) -> Result<Nvml, NvmlError> {
    match initialise_file(path, unattached) {
        Err(NvmlError::Unloadable(why)) if path.is_absolute() && is_noexec(&why) => {
            let Ok(copy) = copy_in_memory(path) else { return Err(NvmlError::Unloadable(why)) };
            initialise_file(Path::new(&format!("/proc/self/fd/{}", copy.as_raw_fd())), unattached)
        }
        result => result,
    }
}

fn initialise_file(path: &Path, unattached: bool) -> Result<Nvml, NvmlError> {
    let init = |flags| {
        let mut builder = Nvml::builder();
        builder.lib_path(path.as_os_str()).flags(flags).init().map_err(NvmlError::from)
    };
    let usual = || init(InitFlags::empty());
    // A driver without support for the flag returns an error.
    let first = if unattached { init(InitFlags::NO_ATTACH).or_else(|_| usual()) } else { usual() };
    let nvml = match first {
        // Codes 1, 9, 12 and 18 are not caused by a GPU.
        Err(error @ NvmlError::Code(code)) if ![1, 9, 12, 18].contains(&code) => {
            init(InitFlags::NO_GPUS).map_err(|_| error)?
        }
        result => result?,
    };
    if nvml.lib().nvmlShutdown.is_err() {
        // Without `nvmlShutdown`, dropping `nvml` would panic in the wrapper. A library without this function is not
        // NVML.
        std::mem::forget(nvml);
        return Err(NvmlError::MissingFunction);
    }
    Ok(nvml)
}

/// Returns whether the text is the error of glibc for a file system without execute permission.
fn is_noexec(why: &str) -> bool {
    why.contains("failed to map segment") || why.contains("cannot enable executable")
}

fn copy_in_memory(path: &Path) -> io::Result<fs::File> {
    let mut copy = fs::File::from(rustix::fs::memfd_create("libnvidia-ml.so.1", rustix::fs::MemfdFlags::CLOEXEC)?);
    io::copy(&mut fs::File::open(path)?, &mut copy)?;
    Ok(copy)
}

/// Explains why no library could be opened, with every candidate and its error.
fn unopened(tried: &[(PathBuf, NvmlError)], paths: &Paths, loaded: Option<&str>) -> Problem {
    let module = clean(loaded.unwrap_or("not loaded"), 40);
    let list = |without: Option<usize>| {
        let others = tried.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let list: Vec<_> = others.map(|(_, (path, why))| format!("{}: {}", path.display(), why.why())).collect();
        clean(&list.join("; "), TRIED_TEXT)
    };
    // An error of the driver is more specific than the error for a library that was not found.
    if let Some(at) = tried.iter().rposition(|(_, error)| matches!(error, NvmlError::Code(_))) {
        let (path, error) = &tried[at];
        let problem = error.problem("NVML", None);
        let library = clean(&path.display().to_string(), TRIED_TEXT);
        let also = if tried.len() > 1 { format!("; also tried {}", list(Some(at))) } else { String::new() };
        let why = format!("{} (library {library}, kernel module {module}{also})", problem.why);
        return Problem { why, ..problem };
    }
    let tried = if tried.is_empty() {
        "no libnvidia-ml.so.1 in the known folders or in the folders of ld.so.conf".to_owned()
    } else {
        format!("tried {}", list(None))
    };
    Problem {
        what: "NVML".into(),
        why: format!(
            "no NVML library could be opened below {} (kernel module {module}; {tried})",
            paths.host.display(),
        ),
        next_step: "On a node without GPUs, no action is needed. Otherwise, install the NVIDIA driver. With the GPU \
                    Operator, check that the driver pod of this node is ready."
            .into(),
        gpu: None,
        code: "library_not_found".into(),
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
