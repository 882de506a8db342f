//! A replacement for `libcuda.so.1` with the functions that `node-probe --deep` calls.
//! `library`: the content of such a library with given answers.
//!
//! The probe starts CUDA without environment variables, so the answers are at the end of the file of the library, after
//! the parts that the loader reads: [`library`] returns such a file.
//!
//! `cuInit` fails with [`NOT_ISOLATED`] in a process with an environment, with a privilege, or with a descriptor that
//! only its parent needs.
#![allow(non_snake_case, reason = "CUDA's own names")]
#![allow(unsafe_code, reason = "a C ABI: exported symbols, and pointers that a C caller owns")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;

/// The result of `cuInit` in a process that is not isolated.
pub const NOT_ISOLATED: u32 = 304;
/// Maximum number of descriptors: the three standard ones, the output, the file of the library, and the folder that is read.
const MOST_DESCRIPTORS: usize = 6;
/// The marker before the answers. The code contains the marker in two parts, so the whole marker is only at the end of
/// the file.
const MARK: [&str; 2] = ["FAKE-", "CUDA:"];

/// The results of the library's functions.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Result of `cuInit`.
    pub init: u32,
    /// Result of `cuDeviceGetCount`.
    pub count: u32,
    pub devices: u32,
    /// The function that does not return.
    pub hangs: &'static str,
    /// The function that crashes.
    pub crashes: &'static str,
}

impl Default for Answers {
    fn default() -> Self {
        Self { init: 0, count: 0, devices: 8, hangs: "-", crashes: "-" }
    }
}

/// Returns the content of a library with these answers.
///
/// # Panics
///
/// Panics if the library was not built.
pub fn library(answers: &Answers) -> Vec<u8> {
    let file = format!("{}fake_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let executable = std::env::current_exe().unwrap_or_default();
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM: look in both folders, in `deps` first.
    let folders = executable.ancestors().skip(1).take(2);
    let places: Vec<PathBuf> =
        folders.flat_map(|folder| [folder.join("deps").join(&file), folder.join(&file)]).collect();
    let found = places.iter().find_map(|place| std::fs::read(place).ok());
    let mut content = found.unwrap_or_else(|| panic!("the fake CUDA library was not built: none of {places:?} exists"));
    let Answers { init, count, devices, hangs, crashes } = answers;
    content.extend(format!("{}{init} {count} {devices} {hangs} {crashes}", MARK.concat()).into_bytes());
    content
}

/// `Dl_info`.
#[repr(C)]
struct Place {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, place: *mut Place) -> c_int;
}

/// Returns the words at the end of the file of this library: results, number of devices, function that hangs, function
/// that crashes.
fn answers() -> Vec<String> {
    let mut place = Place {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        name: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: the address is that of a function of this library, and the loader keeps the text.
    let file = unsafe {
        dladdr(cuInit as *const c_void, &raw mut place);
        CStr::from_ptr(place.file)
    };
    let content = std::fs::read(file.to_string_lossy().as_ref()).unwrap_or_default();
    let mark = MARK.concat().into_bytes();
    let at = content.windows(mark.len()).rposition(|part| part == mark).map_or(content.len(), |at| at + mark.len());
    String::from_utf8_lossy(&content[at..]).split(' ').map(str::to_owned).collect()
}

fn answer(function: &str, number: usize) -> c_uint {
    let answers = answers();
    let is_it = |at: usize| answers.get(at).is_some_and(|name| name == function);
    while is_it(3) {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
    if is_it(4) {
        // SAFETY: none; this is the crash.
        unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
    }
    answers.get(number).and_then(|word| word.parse().ok()).unwrap_or(999)
}

/// Returns whether this process has no environment, no privilege, and no other descriptor.
fn is_isolated() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    let is_root = value("Uid:").split_whitespace().chain(value("Gid:").split_whitespace()).any(|id| id == "0");
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
    let has_none = sets.iter().all(|set| !value(set).is_empty() && value(set).chars().all(|digit| digit == '0'));
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(usize::MAX, Iterator::count);
    std::env::vars_os().next().is_none()
        && !is_root
        && has_none
        && value("NoNewPrivs:") == "1"
        && descriptors <= MOST_DESCRIPTORS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_uint {
    match is_isolated() {
        _ if flags != 0 => 1,
        true => answer("cuInit", 0),
        false => NOT_ISOLATED,
    }
}

/// # Safety
///
/// `version` is a valid pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_uint {
    // SAFETY: see above.
    unsafe { *version = 12_080 };
    0
}

/// # Safety
///
/// `count` is a valid pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_uint {
    // SAFETY: see above.
    unsafe { *count = c_int::try_from(answer("devices", 2)).unwrap_or(-1) };
    answer("cuDeviceGetCount", 1)
}
