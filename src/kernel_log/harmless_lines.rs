//! `meaning`: decides whether a line that is not an event is harmless, a part of an Xid message, or unknown.
//! `is_unread_device`: finds unrecognized lines about network cards, PCIe ports and the IOMMU.
//!
//! Harmless lines are banners, normal messages of the driver, explanations of a line that is an event, and kernel
//! messages about programs called `nvidia-…`.
//!
//! Lines that are not events and not in this table are counted and shown as not recognized. Therefore the table must be
//! narrow: a line is added only if its meaning is known.

use std::sync::LazyLock;

use crate::kernel_log::{iommu, line_parser};
use crate::pci::PciAddress;
use crate::tsv::{rows, unescaped};

/// Returns the texts of this kind in the table.
fn texts(kind: &str) -> Vec<String> {
    let rows = rows(include_str!("data/harmless_lines.tsv"));
    rows.filter(|row| row[0] == kind).filter_map(|row| row.get(1).map(|text| unescaped(text))).collect()
}

/// The first words of harmless lines.
static BEGINS: LazyLock<Vec<String>> = LazyLock::new(|| texts("begin"));

/// Parts of harmless lines of the driver.
static DRIVER_CHAT: LazyLock<Vec<String>> = LazyLock::new(|| texts("driver"));

/// Parts of lines that belong to an Xid. If there is no Xid nearby, the error was not recognized.
static PART_OF_XID: LazyLock<Vec<String>> = LazyLock::new(|| texts("xid"));

/// Parts of harmless lines of `nvidia` and `pcieport` devices: interrupts, power and VGA.
static DEVICE_CHAT: LazyLock<Vec<String>> = LazyLock::new(|| texts("device"));

/// Parts of harmless warnings of network cards, PCIe ports and IOMMUs.
static OTHER_CHAT: LazyLock<Vec<String>> = LazyLock::new(|| texts("other"));

/// Returns whether a text is an unrecognized line about a network card, a PCIe port or a device of the IOMMU.
pub(super) fn is_unread_device(text: &str) -> bool {
    let is_address = |word: &str| word.contains(':') && word.contains('.') && PciAddress::parse(word).is_some();
    let names_device = || text.split([' ', '[', ']', '=', ',']).any(|word| is_address(word.trim_end_matches(':')));
    let known = |table: &[String]| table.iter().any(|words| text.contains(words.as_str()));
    let of_device = match text.split_once(' ').map_or(text, |(first, _)| first) {
        "mlx5_core" | "pcieport" => true,
        _ => iommu::is_of_iommu(text) && names_device(),
    };
    of_device
        && !known(&OTHER_CHAT)
        && !known(&DEVICE_CHAT)
        && !is_status_bit(text.splitn(3, ' ').nth(2).unwrap_or_default())
}

/// Returns whether a text is the name of an AER status bit. The kernel prints each name on a separate line below the
/// error, after `[ 6] `.
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
    /// The line is harmless.
    Nothing,
    /// The line contains details of an Xid. The Xid itself is in another line.
    PartOfXid,
    /// The line is not in any table.
    Unknown,
}

/// Returns the meaning of a line that is not an event.
pub(super) fn meaning(text: &str) -> Meaning {
    let text = without_process_name(text);
    let behind = |frame: &str| text.find(frame).is_some_and(|at| at > 0);
    // A driver frame after other text is an unknown format.
    if behind("NVRM") || behind("SXid") || line_parser::has_error_frame(text) || is_grave(text) {
        return Meaning::Unknown;
    }
    if BEGINS.iter().any(|begin| text.starts_with(begin.as_str())) {
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
    let holds = |words: &[String]| words.iter().any(|words| rest.contains(words.as_str()));
    if holds(&DRIVER_CHAT) || rest.contains("Check failed:") && USUAL.iter().any(|words| rest.contains(words)) {
        Meaning::Nothing
    } else if holds(&PART_OF_XID) || is_table_row(rest) {
        Meaning::PartOfXid
    } else {
        Meaning::Unknown
    }
}

fn is_of_others(text: &str) -> bool {
    const OF_DEVICES: [&str; 4] = ["nvidia ", "nvidia-nvswitch ", "pcieport ", "pci "];
    if OF_DEVICES.iter().any(|driver| text.starts_with(driver)) {
        let rest = text.splitn(3, ' ').nth(2).unwrap_or_default();
        let rest = rest.strip_prefix("AER: ").unwrap_or(rest);
        return DEVICE_CHAT.iter().any(|words| text.contains(words.as_str())) || is_status_bit(rest);
    }
    // A monitor that describes itself incorrectly is not a fault of the GPU.
    if text.starts_with("nvidia-modeset: ") && text.contains("EDID") {
        return true;
    }
    if text.starts_with("nvidia-nvswitch") {
        return ["using MSI", "open (", "release (", "Loaded", "Unloaded", "ioctl", "probed"]
            .iter()
            .any(|words| text.contains(words));
    }
    let graphics = text.starts_with("[drm]") || text.starts_with("fbcon: ") || text.starts_with("Console: ");
    graphics && !text.contains("rror") && !text.contains("ailed") || is_dump(text)
}

/// Returns the end of a line about a trap in a program, without the name that the program chose:
/// `traps: name[123] general protection …`.
fn without_process_name(text: &str) -> &str {
    /// The name has at most 15 bytes, the PID at most 10 digits.
    const REACH: usize = 28;
    let Some(rest) = text.strip_prefix("traps: ") else { return text };
    match rest.split_once("] ").filter(|(name, _)| name.len() <= REACH && name.contains('[')) {
        // The rest begins like a line about a trap.
        Some((_, what)) if what.starts_with("general protection") || what.starts_with("trap ") => "traps: ",
        _ => text,
    }
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
            "nvidia-modeset: WARNING: GPU:0: Unable to read EDID for display device DP-1",
            "nvidia-nvswitch 0000:07:00.0:   device [10de:22a3] error status/mask=00040000/00400000",
            "audit: type=1400 apparmor=\"STATUS\" profile=\"unconfined\" name=\"nvidia_modprobe\"",
            "[   4711]     0  4711   123456     1234   12345        0             0 nvidia-device-p",
            "CPU: 3 PID: 812 Comm: nvidia-smi Tainted: P",
            " ? nvidia_ioctl+0x1a/0x90 [nvidia]",
            "traps: NVRM: Xid 95[9123] general protection fault ip:7f1 sp:7ffd error:0 in libc.so.6[7f00+1000]",
            "traps: SXid (x[9123] trap invalid opcode ip:7f1 sp:7ffd error:0 in x[7f00+1000]",
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
            "traps: NVRM: Xid (PCI:0000:3b:00): 95",
        ] {
            assert!(!is_known(line), "{line}");
        }
    }
}
