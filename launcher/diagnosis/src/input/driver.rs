//! `Driver`: the state of the driver as a whole. `Refusal`: the reason why NVML cannot be used.

use crate::input::node::Node;
use syringe_core::facts::kernel_log::KernelEventKind as Kind;
use syringe_core::nvml_codes as codes;
use syringe_core::report::Problem;

/// State of the driver as a whole.
pub(crate) enum Driver<'a> {
    /// NVML lists GPUs, no GPU needs the driver, or no fact shows a fault.
    Usable,
    /// nouveau is bound to a GPU, and no GPU works with NVIDIA's driver.
    Nouveau,
    /// NVML cannot be used. Contains the error if NVML was called.
    Unusable(Refusal, Option<&'a Problem>),
    /// NVML did not respond, perhaps because it was initializing the GPUs.
    Waking(&'a Problem),
}

/// The reason why NVML cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    VersionMismatch,
    NotLoaded,
    AccessBlocked,
    Timeout,
    /// The kernel module is loaded, but the library was not found.
    NoLibrary,
    /// The library was not found, and the facts of the host were not read.
    NotFound,
    Other,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(node: &Node<'a>) -> Self {
        let host = node.host();
        let pci_gpus = host.map(|host| host.pci_gpus.as_slice()).unwrap_or_default();
        let works = node.inventory().is_some_and(|inventory| !inventory.gpus.is_empty());
        if !works && pci_gpus.iter().any(|gpu| gpu.driver.as_deref() == Some("nouveau")) {
            return Self::Nouveau;
        }
        // A node without GPUs needs no driver. `gpus` in `rules/kubernetes` checks whether the node should have GPUs.
        let unneeded = host.is_some_and(|host| host.pci_gpus.is_empty() && host.driver.loaded.is_none());
        if works || unneeded || node.is_passed_through() {
            return Self::Usable;
        }
        match refusal(node) {
            None => Self::Usable,
            Some((Refusal::Timeout, Some(problem))) if may_be_waking(node) => Self::Waking(problem),
            Some((refusal, problem)) => Self::Unusable(refusal, problem),
        }
    }

    /// Returns whether the state of the driver makes all GPUs unusable.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Nouveau | Self::Unusable(..))
    }
}

/// Returns the reason that NVML reports, or a reason from the data about the host.
fn refusal<'a>(node: &Node<'a>) -> Option<(Refusal, Option<&'a Problem>)> {
    const REASONS: [(&[&str], Refusal); 4] = [
        (&[codes::VERSION_MISMATCH], Refusal::VersionMismatch),
        (&[codes::DRIVER_NOT_LOADED], Refusal::NotLoaded),
        (&[codes::ACCESS_BLOCKED, codes::NO_PERMISSION], Refusal::AccessBlocked),
        (&[codes::TIMEOUT], Refusal::Timeout),
    ];
    let driver = node.host().map(|host| &host.driver);
    let found = REASONS.into_iter().find_map(|(codes, refusal)| Some((refusal, Some(node.nvml_problem(codes)?))));
    let library = node.nvml_problem(&[codes::LIBRARY_NOT_FOUND]);
    // For other NVML errors, the kernel log contains more information.
    let other = || node.nvml_problem(&codes::FAILURES);
    match (found, library) {
        (Some(found), _) => Some(found),
        (None, library) if driver.is_some_and(|driver| driver.loaded.is_none()) => {
            Some((Refusal::NotLoaded, library.or_else(other)))
        }
        // If it is not known whether the module is loaded, more than the library may be missing.
        (None, Some(problem)) => {
            Some((if driver.is_some() { Refusal::NoLibrary } else { Refusal::NotFound }, Some(problem)))
        }
        (None, None) => Some((Refusal::Other, Some(other()?))),
    }
}

/// Returns whether NVML may be slow because the GPUs are being initialized (no persistence mode), and no fact indicates
/// a hang.
fn may_be_waking(node: &Node<'_>) -> bool {
    let asleep = node.host().is_some_and(|host| host.daemons.persistenced == Some(false));
    let unused = node.processes().is_some_and(|section| {
        section.processes.iter().all(|process| process.uses.is_empty() && process.open_device_files.is_empty())
    });
    let errors = [Kind::Xid, Kind::OffBus, Kind::HungTask, Kind::GspFailed, Kind::RmInitFailed];
    let quiet = node.kernel_log().is_some() && !node.timeline.current().any(|event| errors.contains(&event.kind));
    asleep && unused && quiet
}
