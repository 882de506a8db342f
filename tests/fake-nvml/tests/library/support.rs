//! The type `Fake`: a copy of the fake library, opened by path with `nvml-wrapper`; and functions that open the copy.

use std::path::PathBuf;
use std::sync::Mutex;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use syringe_core::report::Report;
use syringe_core::scenarios;

/// The environment belongs to the whole process: only one library at a time may read it.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

const SWITCHES: [&str; 7] = [
    "FAKE_NVML_BLOCK",
    "FAKE_NVML_CALLS",
    "FAKE_NVML_DELAY_US",
    "FAKE_NVML_FAIL",
    "FAKE_NVML_HIDE",
    "FAKE_NVML_LOCK",
    "FAKE_NVML_SLOW",
];

/// The library of one test. The file is a copy, so that the loader treats the copy as another library.
pub(crate) struct Fake {
    pub(crate) nvml: Nvml,
    pub(crate) library: PathBuf,
    _folder: tempfile::TempDir,
}

/// Opens the library with these facts.
pub(crate) fn open(report: &Report) -> Result<Fake, NvmlError> {
    open_with(report, &[])
}

/// Opens the library with these facts and environment variables.
pub(crate) fn open_with(report: &Report, switches: &[(&str, &str)]) -> Result<Fake, NvmlError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (library, facts) = (folder.path().join("libnvidia-ml.so.1"), folder.path().join("facts.json"));
    std::fs::copy(fake_nvml::library_path(), &library).expect("the library is built");
    std::fs::write(&facts, serde_json::to_vec(report).expect("a report is JSON")).expect("the folder is ours");
    let _alone = ENVIRONMENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: the tests of this program change and read the environment only while they hold the lock.
    unsafe {
        SWITCHES.iter().for_each(|name| std::env::remove_var(name));
        switches.iter().for_each(|(name, value)| std::env::set_var(name, value));
        std::env::set_var("FAKE_NVML_FACTS", &facts);
    }
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init()?;
    Ok(Fake { nvml, library, _folder: folder })
}

/// Returns the facts of one scenario.
pub(crate) fn facts(name: &str) -> Report {
    scenarios::named(name).unwrap_or_else(|| panic!("there is no scenario {name}")).report()
}

/// Returns the value from NVML. "Not supported" is `None`.
pub(crate) fn said<T>(answer: Result<T, NvmlError>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(NvmlError::NotSupported) => None,
        Err(error) => panic!("{error}"),
    }
}
