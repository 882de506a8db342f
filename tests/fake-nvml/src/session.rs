//! The type `Session`: the loaded facts and the injected faults (`Switches`) between `nvmlInit` (`begin`) and
//! `nvmlShutdown` (`end`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings::*;
use syringe_core::report::{Report, Status};

use crate::facts;
use crate::failures::Failures;
use crate::ffi::Answer;

/// The state between the first `nvmlInit` and the last `nvmlShutdown`.
pub(crate) struct Session {
    pub(crate) report: Report,
    pub(crate) switches: Switches,
}

/// The only global state of the library. NVML counts its users: every `nvmlInit` needs a `nvmlShutdown`.
struct Users {
    count: u32,
    session: Option<Arc<Session>>,
}

/// With `FAKE_NVML_LOCK`, the running call holds this lock.
static CALLS: Mutex<()> = Mutex::new(());

static USERS: Mutex<Users> = Mutex::new(Users { count: 0, session: None });

fn users() -> MutexGuard<'static, Users> {
    // No holder of the lock can leave an incomplete change behind.
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `nvmlInit`: reads the facts file for the first user.
pub(crate) fn begin(function: &str) -> Answer {
    let switches = Switches::read();
    switches.dispatch(function, None)?;
    let mut users = users();
    if users.session.is_none() {
        users.session = Some(Arc::new(Session { report: read_facts()?, switches }));
    }
    users.count += 1;
    Ok(())
}

/// `nvmlShutdown`.
pub(crate) fn end() -> Answer {
    Switches::read().dispatch("nvmlShutdown", None)?;
    let mut users = users();
    users.count = users.count.checked_sub(1).ok_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
    if users.count == 0 {
        users.session = None;
    }
    Ok(())
}

/// Returns the running session. The caller keeps the session alive during its call, without a lock.
pub(crate) fn current() -> Answer<Arc<Session>> {
    users().session.clone().ok_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)
}

fn read_facts() -> Answer<Report> {
    let unusable = |why: &dyn std::fmt::Display| {
        eprintln!("fake NVML: FAKE_NVML_FACTS: {why}");
        nvmlReturn_enum_NVML_ERROR_UNKNOWN
    };
    let path = std::env::var_os("FAKE_NVML_FACTS").ok_or_else(|| unusable(&"not set"))?;
    let text = std::fs::read_to_string(&path).map_err(|error| unusable(&error))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
    match &report.sections.inventory {
        Some(section) if section.status == Status::Error => Err(section
            .problems
            .first()
            .map_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN, |why| facts::return_code(&why.code))),
        _ => Ok(report),
    }
}

/// The faults that the environment variables request.
#[derive(Default)]
pub(crate) struct Switches {
    /// Functions that never return, each for one GPU or for all.
    block: Vec<(String, Option<u32>)>,
    /// Functions that crash, each for one GPU or for all.
    crash: Vec<(String, Option<u32>)>,
    /// Functions that this "driver" does not have.
    hide: Vec<String>,
    /// Calls and fields that fail, and the log of calls.
    pub(crate) failures: Failures,
    /// Additional time of every call.
    delay: Duration,
    /// Functions that take longer, each for one GPU or for all, with the additional time.
    slow: Vec<(String, Option<u32>, Duration)>,
    /// Whether a call waits until no other call is running.
    lock: bool,
}

/// Parses `FUNCTION[:GPU]=MILLISECONDS`.
fn slow(item: &str) -> Option<(String, Option<u32>, Duration)> {
    let (what, time) = item.split_once('=')?;
    let (name, gpu) = what.split_once(':').map_or((what, None), |(name, gpu)| (name, gpu.parse().ok()));
    Some((name.to_owned(), gpu, Duration::from_millis(time.parse().ok()?)))
}

impl Switches {
    fn read() -> Self {
        let list = |name: &str| -> Vec<String> {
            let value = std::env::var(name).unwrap_or_default();
            value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect()
        };
        let calls = |name: &str| {
            let call = |item: String| match item.split_once(':') {
                Some((function, gpu)) => (function.to_owned(), gpu.parse().ok()),
                None => (item, None),
            };
            list(name).into_iter().map(call).collect()
        };
        let micros = std::env::var("FAKE_NVML_DELAY_US").ok().and_then(|value| value.parse().ok()).unwrap_or(0);
        Self {
            block: calls("FAKE_NVML_BLOCK"),
            crash: calls("FAKE_NVML_CRASH"),
            hide: list("FAKE_NVML_HIDE"),
            delay: Duration::from_micros(micros),
            slow: list("FAKE_NVML_SLOW").iter().filter_map(|item| slow(item)).collect(),
            lock: std::env::var_os("FAKE_NVML_LOCK").is_some(),
            failures: Failures::read(),
        }
    }

    /// Applies the requested faults to a call. `gpu` is the NVML index, for a call that concerns one GPU.
    pub(crate) fn dispatch(&self, function: &str, gpu: Option<u32>) -> Answer {
        if self.hide.iter().any(|hidden| hidden == function) {
            return Err(nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND);
        }
        let _alone = self.lock.then(|| CALLS.lock().unwrap_or_else(PoisonError::into_inner));
        let meant = |(name, only, _): &&(String, Option<u32>, _)| name == function && (only.is_none() || *only == gpu);
        if let Some((.., more)) = self.slow.iter().find(meant) {
            std::thread::sleep(*more);
        }
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let meant = |(name, only): &(String, Option<u32>)| name == function && (only.is_none() || *only == gpu);
        if self.crash.iter().any(meant) {
            // SAFETY: none. The write to an unmapped page crashes the process, as a defect of a real library might do.
            unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
        }
        while self.block.iter().any(meant) {
            std::thread::sleep(Duration::from_secs(3600));
        }
        self.failures.note(function, gpu);
        self.failures.refuse(function, gpu)
    }
}
