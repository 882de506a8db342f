//! Finds `libnvidia-ml.so.1` and opens it. Every platform keeps it elsewhere; the probe's image does not have it.
//!
//! The library is opened by its path on the host's file system (`/proc/1/root/…`): it needs nothing but an old glibc,
//! which is the probe's own. Links are followed inside the root that they belong to, since `/etc/alternatives/…` read
//! through `/proc/1/root` means the host's `/etc`, not ours.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use super::errors::Refusal;
use super::trace::Trace;
use crate::host;
use crate::paths::Paths;

/// The name that the driver's own loader path knows.
const NAME: &str = "libnvidia-ml.so.1";

/// Text of tried candidates that a problem carries.
const TRIED_TEXT: usize = 900;
/// A process's memory map is not read beyond this.
const MOST_MAPS_BYTES: usize = 4 << 20;

/// A library that might be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    /// What `dlopen` gets: a path without links, or the bare name.
    path: PathBuf,
    /// From the file name (`libnvidia-ml.so.570.124.06`).
    version: Option<String>,
}

/// Opens and initialises NVML: `explicit` alone if given, else the best library of this node. Returns it with its path.
pub(super) fn open(explicit: Option<&Path>, paths: &Paths, trace: &Trace) -> Result<(Nvml, PathBuf), Problem> {
    let loaded = loaded_version(paths);
    let mut tried: Vec<(PathBuf, Refusal)> = Vec::new();
    let first = match explicit {
        Some(path) => vec![Candidate::at(path.to_owned())],
        None => candidates(paths, loaded.as_deref()),
    };
    // Reading the memory map of every process is the last resort: it finds any library that something has open.
    let mapped = || if explicit.is_none() { mapped_libraries(&paths.proc) } else { Vec::new() };
    for candidate in first.into_iter().chain(std::iter::once_with(mapped).flatten()) {
        if tried.iter().any(|(path, _)| *path == candidate.path) {
            continue;
        }
        let _under_way = trace.enter("nvmlInit_v2", None);
        match initialise(&candidate.path) {
            Ok(nvml) => return Ok((nvml, path_opened(candidate.path))),
            Err(refusal) => {
                let decisive = is_decisive(&refusal);
                tried.push((candidate.path, refusal));
                if decisive {
                    break;
                }
            }
        }
    }
    Err(unopened(&tried, paths, loaded.as_deref()))
}

/// Whether another library file would meet the same refusal: the driver has spoken, not the library.
fn is_decisive(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::Unloadable(_) | Refusal::MissingFunction | Refusal::Code(12 | 18))
}

/// `dlopen` and `nvmlInit_v2`, with the two ways out that help: a copy in memory where the file lies on a `noexec`
/// mount, and initialisation that tolerates GPUs that do not attach.
fn initialise(path: &Path) -> Result<Nvml, Refusal> {
    match initialise_file(path) {
        Err(Refusal::Unloadable(why)) if path.is_absolute() && is_noexec(&why) => {
            let Ok(copy) = copy_in_memory(path) else { return Err(Refusal::Unloadable(why)) };
            initialise_file(Path::new(&format!("/proc/self/fd/{}", copy.as_raw_fd())))
        }
        result => result,
    }
}

fn initialise_file(path: &Path) -> Result<Nvml, Refusal> {
    let init = |flags| {
        let mut builder = Nvml::builder();
        builder.lib_path(path.as_os_str()).flags(flags).init().map_err(Refusal::from)
    };
    let nvml = match init(InitFlags::empty()) {
        // 1, 9, 12, 18: no GPU is at fault.
        Err(refusal @ Refusal::Code(code)) if ![1, 9, 12, 18].contains(&code) => {
            init(InitFlags::NO_GPUS).map_err(|_| refusal)?
        }
        result => result?,
    };
    if nvml.lib().nvmlShutdown.is_err() {
        // Dropping it would panic inside the wrapper. What lacks this is not NVML.
        std::mem::forget(nvml);
        return Err(Refusal::MissingFunction);
    }
    Ok(nvml)
}

/// glibc's words where a file system does not allow execution.
fn is_noexec(why: &str) -> bool {
    why.contains("failed to map segment") || why.contains("cannot enable executable")
}

fn copy_in_memory(path: &Path) -> io::Result<fs::File> {
    let mut copy = fs::File::from(rustix::fs::memfd_create(NAME, rustix::fs::MemfdFlags::CLOEXEC)?);
    io::copy(&mut fs::File::open(path)?, &mut copy)?;
    Ok(copy)
}

/// The loader chose the file behind a bare name: our own memory map tells which.
fn path_opened(path: PathBuf) -> PathBuf {
    if path.is_absolute() {
        return path;
    }
    fs::read_to_string("/proc/self/maps").ok().and_then(|maps| mapped_path(&maps).map(PathBuf::from)).unwrap_or(path)
}

/// Version of the kernel module that is loaded; NVML works only with a library of the same version.
fn loaded_version(paths: &Paths) -> Option<String> {
    let text = fs::read_to_string(paths.sys.join("module/nvidia/version")).ok()?;
    Some(text.trim().to_owned()).filter(|version| !version.is_empty())
}

impl Candidate {
    fn at(path: PathBuf) -> Self {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let version = name.strip_prefix("libnvidia-ml.so.").filter(|version| version.contains('.')).map(str::to_owned);
        Self { path, version }
    }

    /// 0: of the loaded module's version, 1: may be, 2: is not (its initialisation would fail).
    fn rank(&self, loaded: Option<&str>) -> u8 {
        match (self.version.as_deref(), loaded) {
            (Some(version), Some(loaded)) if version == loaded => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        }
    }
}

/// The libraries that exist, best first: those of the loaded module's version, then in the order of the search.
fn candidates(paths: &Paths, loaded: Option<&str>) -> Vec<Candidate> {
    // What the container runtime injected, if it did. The loader knows this machine only, not a saved file tree.
    let injected = Candidate { path: NAME.into(), version: None };
    let mut found = if paths.proc == Path::new("/proc") { vec![injected] } else { Vec::new() };
    for root in host::DRIVER_ROOTS.map(|root| paths.host.join(root)) {
        for folder in host::library_folders(&root) {
            let exact = loaded.map(|version| format!("libnvidia-ml.so.{version}"));
            for name in exact.iter().map(String::as_str).chain([NAME]) {
                let Some(path) = host::inside(&root, &format!("{folder}/{name}")) else { continue };
                let candidate = Candidate::at(path);
                if !found.contains(&candidate) {
                    found.push(candidate);
                }
            }
        }
    }
    found.sort_by_key(|candidate| candidate.rank(loaded));
    found
}

/// Libraries that running processes have mapped, as paths through their `/proc/PID/root`.
fn mapped_libraries(proc: &Path) -> Vec<Candidate> {
    let mut found: Vec<(String, Candidate)> = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let process = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(maps) = read_capped(&process.join("maps")) else { continue };
        let Some(path) = mapped_path(&maps) else { continue };
        // Any process will do for one and the same path.
        if !found.iter().any(|(known, _)| known == path) {
            let through = process.join("root").join(path.trim_start_matches('/'));
            found.push((path.to_owned(), Candidate::at(through)));
        }
    }
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

fn read_capped(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    let most = u64::try_from(MOST_MAPS_BYTES).unwrap_or(u64::MAX);
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, most), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The path of the NVML library in a `/proc/PID/maps`. A deleted file cannot be opened again.
fn mapped_path(maps: &str) -> Option<&str> {
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let name = path.rsplit('/').next()?;
        (name.starts_with("libnvidia-ml.so") && !name.ends_with(" (deleted)")).then_some(path)
    })
}

/// Why no library could be opened, with every candidate and its error.
fn unopened(tried: &[(PathBuf, Refusal)], paths: &Paths, loaded: Option<&str>) -> Problem {
    let module = clean(loaded.unwrap_or("not loaded"), 40);
    let list = |without: Option<usize>| {
        let others = tried.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let list: Vec<_> = others.map(|(_, (path, why))| format!("{}: {}", path.display(), why.why())).collect();
        clean(&list.join("; "), TRIED_TEXT)
    };
    // The driver's own word decides; only without one the library was not found.
    if let Some(at) = tried.iter().rposition(|(_, refusal)| matches!(refusal, Refusal::Code(_))) {
        let (path, refusal) = &tried[at];
        let problem = refusal.problem("NVML", None);
        let library = clean(&path.display().to_string(), TRIED_TEXT);
        let also = if tried.len() > 1 { format!("; also tried {}", list(Some(at))) } else { String::new() };
        let why = format!("{} (library {library}, kernel module {module}{also})", problem.why);
        return Problem { why, ..problem };
    }
    let tried = if tried.is_empty() {
        "no libnvidia-ml.so.1 in the usual folders nor in those of ld.so.conf".to_owned()
    } else {
        format!("tried {}", list(None))
    };
    Problem {
        what: "NVML".into(),
        why: format!(
            "no NVML library could be opened below {} (kernel module {module}; {tried})",
            paths.host.display(),
        ),
        next_step:
            "Nothing to do on a node without GPUs; otherwise install the NVIDIA driver (GPU Operator: is the driver \
                    pod of this node ready?), or name the library with --nvml-library."
                .into(),
        gpu: None,
        code: "library_not_found".into(),
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
