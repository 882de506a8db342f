//! The table of harmless lines about NVIDIA: lines that say nothing about the health of a GPU.
//!
//! These are banners, normal messages of the driver, explanations of a line that is an event, and messages of the kernel
//! about programs called `nvidia-…`.
//!
//! Lines that are neither events nor in this table are counted and shown as not recognized. Therefore the table must be
//! narrow: a line is added only if its meaning is known.

use crate::kernel_log::line_parser;

/// The first words of harmless lines.
const BEGINS: [&str; 61] = [
    // Module load and unload.
    "nvidia: loading out-of-tree module",
    "nvidia: module license",
    "nvidia: module verification failed: signature and/or required key missing",
    "nvidia_uvm: module ",
    "nvidia_drm: module ",
    "nvidia_modeset: module ",
    "nvidia_peermem: module ",
    "nvidia_fs: module ",
    "nvidia_vgpu_vfio: module ",
    "nvidia-nvlink: Nvlink Core is being initialized",
    "nvidia-nvlink: Unregistered Nvlink Core",
    "nvidia-nvlink: Unregistered the Nvlink Core",
    "nvidia-nvswitch: Probing device",
    "nvidia-modeset: Loading NVIDIA",
    "nvidia-modeset: Unloading",
    "nvidia-uvm: Loaded the UVM driver",
    "nvidia-uvm: Unloaded the UVM driver",
    "nvidia-fs: Initializing nvfs driver",
    "nvidia-fs: registered correctly",
    "nvidia-fs: driver unloaded",
    "nvidia-gpu ",
    "NVRM: loading NVIDIA UNIX ",
    "NVRM: Persistence mode is deprecated",
    "NVRM: nvidia-vgpu-vfio",
    "NVRM: GPU Board Serial Number",
    "NVRM: Open nvidia.ko is only ready for use on",
    "NVRM: To force use of Open nvidia.ko",
    "NVRM: 'OpenRmEnableUnsupportedGpus'",
    // Further lines of messages whose first lines are events.
    "NVRM: (PCI ID: ",
    "NVRM: installed in this system",
    "NVRM: make sure that this kernel module",
    "NVRM: kernel module and all NVIDIA driver",
    "NVRM: components have the same version",
    "NVRM: has the version ",
    "NVRM: the version ",
    "NVRM: this kernel module has the version",
    "NVRM: have the same version",
    "NVRM: nvidia.ko because it does not include",
    "NVRM: System Processor (GSP)",
    "NVRM: Please see the",
    "NVRM: sections in the driver README",
    "NVRM: at www.nvidia.com",
    "NVRM: The system BIOS may have misconfigured your",
    "NVRM: This is a 64-bit BAR mapped above",
    "NVRM: This can occur when a driver such as",
    "NVRM: nouveau, rivafb, nvidiafb",
    "NVRM: was loaded and obtained ownership of",
    "NVRM: the NVIDIA device(s)",
    "NVRM: Try unloading the conflicting kernel module",
    "NVRM: reconfigure your kernel without the conflicting",
    "NVRM: driver(s)), then try loading the NVIDIA kernel module",
    "NVRM: again.",
    "NVRM: No NVIDIA devices probed",
    "NVRM: A GPU crash dump has been created",
    // Messages of other components about NVIDIA programs and settings.
    "audit: ",
    "systemd[",
    "Linux version ",
    "Command line: ",
    "Kernel command line: ",
    "Modules linked in: ",
    "Unknown kernel command line parameters",
];

/// Parts of harmless lines of the driver.
const DRIVER_CHAT: [&str; 2] = ["**********", "nvidia-bug-report"];

/// Parts of lines that belong to an Xid. If there is no Xid nearby, the error was not recognized.
const PART_OF_XID: [&str; 12] = [
    "RPC history",
    "RPC event history",
    "GSP RPC buffer contains",
    "entry function",
    "_kgspLogXid",
    "Check failed:",
    "-CPU -> GSP",
    "GSP_RM_",
    "gpuHandleSanityCheckRegReadError",
    "krcWatchdog",
    "GspRmFree failed",
    "os_dump_stack",
];

/// Parts of harmless lines of `nvidia` and `pcieport` devices: interrupts, power and VGA.
const DEVICE_CHAT: [&str; 25] = [
    "enabling device (",
    "vgaarb:",
    " for MSI/MSI-X",
    "PCI INT ",
    "can't derive routing",
    "irq ",
    "Direct firmware load",
    "firmware: ",
    "error status/mask=",
    "TLP Header",
    "aer_status:",
    "aer_layer=",
    "aer_uncor_severity",
    "broadcast ",
    "AER: enabled with",
    "AER: aerdrv:",
    "DPC: error containment capabilities",
    "AER: subordinate device reset",
    "AER: Root Port link has been reset",
    "AER: Downstream Port link has been reset",
    "runtime IRQ mapping",
    "enabling Extended Tags",
    "PME: ",
    "Signaling",
    "restoring config space",
];

/// Returns whether a text is the name of an AER status bit. The kernel prints one per line below an error, after `[ 6] `.
fn is_status_bit(text: &str) -> bool {
    let Some((bit, name)) = text.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    let bit = bit.trim();
    (1..=2).contains(&bit.len()) && bit.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()
}

/// The meaning of a line that is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    Nothing,
    /// Details of an Xid. The Xid has a separate line.
    PartOfXid,
    /// The line is not in any table.
    Unknown,
}

/// Returns the meaning of a line that is not an event.
pub(super) fn meaning(text: &str) -> Meaning {
    let behind = |frame: &str| text.find(frame).is_some_and(|at| at > 0);
    // A driver frame after other text is an unknown format.
    if behind("NVRM") || behind("SXid") || line_parser::has_error_frame(text) || is_grave(text) {
        return Meaning::Unknown;
    }
    if BEGINS.iter().any(|begin| text.starts_with(begin)) {
        return Meaning::Nothing;
    }
    if let Some(rest) = text.strip_prefix("NVRM: ") {
        return of_driver(rest);
    }
    if is_of_others(text) { Meaning::Nothing } else { Meaning::Unknown }
}

/// Returns whether a text contains words of severe errors. Such lines are never harmless: their Xid may not be in the log.
fn is_grave(text: &str) -> bool {
    ["probably locked", "is lost", "fallen off the bus"].iter().any(|words| text.contains(words))
}

fn of_driver(rest: &str) -> Meaning {
    /// Unsupported calls and failed allocations of applications. A working driver logs them.
    const USUAL: [&str; 2] = ["[NV_ERR_NOT_SUPPORTED]", "[NV_ERR_NO_MEMORY]"];
    let holds = |words: &[&str]| words.iter().any(|words| rest.contains(words));
    if holds(&DRIVER_CHAT) || rest.contains("Check failed:") && holds(&USUAL) {
        Meaning::Nothing
    } else if holds(&PART_OF_XID) || is_table_row(rest) {
        Meaning::PartOfXid
    } else {
        Meaning::Unknown
    }
}

fn is_of_others(text: &str) -> bool {
    if text.starts_with("nvidia ") || text.starts_with("pcieport ") || text.starts_with("pci ") {
        let rest = text.splitn(3, ' ').nth(2).unwrap_or_default();
        let rest = rest.strip_prefix("AER: ").unwrap_or(rest);
        return DEVICE_CHAT.iter().any(|words| text.contains(words)) || is_status_bit(rest);
    }
    if text.starts_with("nvidia-nvswitch") {
        return ["using MSI", "open (", "release (", "Loaded", "Unloaded", "ioctl", "probed"]
            .iter()
            .any(|words| text.contains(words));
    }
    let graphics = text.starts_with("[drm]") || text.starts_with("fbcon: ") || text.starts_with("Console: ");
    graphics && !text.contains("rror") && !text.contains("ailed") || is_dump(text)
}

/// Returns whether this is a row of the table of calls that the driver prints for an Xid 119:
/// `GPU0      0    76   GSP_RM_CONTROL  0x…`.
fn is_table_row(rest: &str) -> bool {
    let mut words = rest.split_ascii_whitespace().skip_while(|word| word.starts_with("GPU"));
    let number = |word: Option<&str>| word.is_some_and(|word| word.trim_start_matches('-').parse::<u32>().is_ok());
    number(words.next()) && number(words.next())
}

/// Returns whether this is a line of a dump: a stack, the process table of the out-of-memory killer, the summary of a crash.
///
/// `RIP:` is not included, because a crash in the driver is a fault.
fn is_dump(text: &str) -> bool {
    let stack = text.contains("+0x") && text.contains("/0x") && !text.contains("RIP:") && !text.contains("BUG");
    let table = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).is_some_and(|(pid, _)| {
        let pid = pid.trim();
        !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())
    });
    stack
        || table
        || text.contains(" Comm: ")
        || text.contains(" invoked oom-killer: ")
        || text.starts_with("task:")
        || text.starts_with("traps: ")
        || text.contains("]: segfault at ")
        || text.starts_with("Tasks state")
}

#[cfg(test)]
mod tests {
    use super::{Meaning, meaning};

    fn is_known(text: &str) -> bool {
        meaning(text) != Meaning::Unknown
    }

    #[test]
    fn a_healthy_boot_has_no_line_that_is_not_known() {
        for line in [
            "Linux version 6.8.0-1041-nvidia-64k (builder@buildhost)",
            "nvidia: loading out-of-tree module taints kernel.",
            "nvidia: module license 'NVIDIA' taints kernel.",
            "nvidia-nvlink: Nvlink Core is being initialized, major device number 235",
            "nvidia 0000:3b:00.0: enabling device (0140 -> 0142)",
            "nvidia 0000:3b:00.0: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=none:owns=none",
            "nvidia-modeset: Loading NVIDIA Kernel Mode Setting Driver for UNIX platforms  570.124.06",
            "[drm] [nvidia-drm] [GPU ID 0x00003b00] Loading driver",
            "[drm] Initialized nvidia-drm 0.0.0 for 0000:3b:00.0 on minor 1",
            "nvidia-uvm: Loaded the UVM driver, major device number 511.",
            "nvidia_uvm: module uses symbols nvUvmInterfaceDisableAccessCntr from proprietary module nvidia",
            "nvidia-nvswitch: Probing device 0000:05:00.0, Vendor Id = 0x10de, Device Id = 0x22a3",
            "nvidia-nvswitch0: using MSI",
            "audit: type=1400 apparmor=\"STATUS\" profile=\"unconfined\" name=\"nvidia_modprobe\"",
            "[   4711]     0  4711   123456     1234   12345        0             0 nvidia-device-p",
            "CPU: 3 PID: 812 Comm: nvidia-smi Tainted: P",
            " ? nvidia_ioctl+0x1a/0x90 [nvidia]",
        ] {
            assert!(is_known(line.trim_start()), "{line}");
        }
    }

    #[test]
    fn trouble_is_not_in_the_table() {
        for line in [
            "nvidia: disagrees about version of symbol module_layout",
            "nvidia: Unknown symbol mutex_lock (err 0)",
            "NVRM: a sentence that nobody has seen yet",
            "RIP: 0010:_nv000123rm+0x1a/0x90 [nvidia]",
            "nvidia-uvm: uvm_pmm_gpu.c:123 something new",
            "[drm:nv_drm_load [nvidia_drm]] *ERROR* [nvidia-drm] Failed to allocate NvKmsKapiDevice",
            "pcieport 0000:00:03.0: AER: something new",
        ] {
            assert!(!is_known(line), "{line}");
        }
    }
}
