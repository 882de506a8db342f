//! `family`, `parse`, `parse_key`: classify and parse one kernel log text about a GPU.
//! `has_error_frame`, `speaks_of_error`, `looks_like_gpu_error` and others: find texts about errors.
//!
//! [`family`] checks a few bytes and rejects almost all lines of a busy node; only the remaining lines are parsed. A
//! line that only mentions a GPU does not count: the frame of the driver and valid addresses are required.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::kernel_log::line::Parsed;
use crate::kernel_log::{host_lines, iommu, module_refused, nvrm, other_kernel_lines, pcie, sxid, xid_frame};
use crate::tsv::{list, unescaped};

/// The family of a text, which determines the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The NVIDIA driver (`NVRM: …`).
    Nvrm,
    Nvswitch,
    Peermem,
    /// The `nvidia-uvm` module.
    Uvm,
    /// A PCI device or a PCIe port.
    Pcie,
    /// A message of the kernel about the nvidia module (`nvidia: probe of … failed`).
    Probe,
    /// A message of the kernel about a module that it rejected.
    ModuleLoad,
    /// A Mellanox network card.
    Nic,
    /// Machine checks and hardware error records of the firmware.
    MachineCheck,
    /// The out-of-memory killer.
    Oom,
    HungTask,
    /// A crash of a program.
    Crash,
    /// A fault of the IOMMU.
    Iommu,
    /// A line about the host, from the table of these lines.
    Host,
}

impl Family {
    /// Returns whether lines of this family contain the name of a program.
    pub(super) const fn names_a_program(self) -> bool {
        matches!(self, Self::Oom | Self::HungTask | Self::Crash)
    }
}

/// Returns whether a text is a record of the audit system. Such a record contains text of programs.
pub(super) fn is_audit(text: &str) -> bool {
    text.starts_with("audit: type=") || text.starts_with("audit: audit_")
}

/// Returns the family of a text, based on the first bytes. `None` for almost all lines of a log.
#[inline]
pub fn family(text: &str) -> Option<Family> {
    let found = match text.as_bytes().first()? {
        b'N' if text.starts_with("NVRM: ") => Family::Nvrm,
        _ if iommu::is_of_iommu(text) => Family::Iommu,
        b'n' if text.starts_with("nvidia-nvswitch") && host_lines::find(text).is_none() => Family::Nvswitch,
        b'n' if text.starts_with("nvidia-peermem") || text.starts_with("nvidia_peermem") => Family::Peermem,
        b'n' if text.starts_with("nvidia ") => Family::Pcie,
        b'n' if text.starts_with("nvidia-uvm: ") => Family::Uvm,
        b'n' if text.starts_with("nvidia: probe of ") => Family::Probe,
        b'n' | b'L' | b'a' | b'g' | b'M' | b'm' | b'i' | b'r' if module_refused::is_of_module(text) => {
            Family::ModuleLoad
        }
        b'p' if text.starts_with("pcieport ") || text.starts_with("pci ") || text.starts_with("pciehp ") => {
            Family::Pcie
        }
        b'm' if text.starts_with("mlx5_core ") => Family::Nic,
        b'm' if text.starts_with("mce: ") => Family::MachineCheck,
        b'E' if text.starts_with("EDAC ") => Family::MachineCheck,
        b'{' if text.contains("[Hardware Error]") => Family::MachineCheck,
        b'[' if text.starts_with("[Hardware Error]") => Family::MachineCheck,
        b'O' if text.starts_with("Out of memory") => Family::Oom,
        b'K' if text.starts_with("Killed process ") => Family::Oom,
        b'M' if text.starts_with("Memory cgroup out of memory") => Family::Oom,
        b'o' if text.starts_with("oom-kill:") => Family::Oom,
        b'I' if text.starts_with("INFO: task ") => Family::HungTask,
        b't' if text.starts_with("traps: ") && host_lines::find(text).is_none() => Family::Crash,
        b'R' if text.starts_with("RIP: ") && text.contains("[nvidia") => Family::Crash,
        _ if is_segfault(text.as_bytes()) => Family::Crash,
        _ if host_lines::find(text).is_some() => Family::Host,
        _ => return None,
    };
    Some(found)
}

/// Returns whether the text is `name[pid]: segfault at …`. A program chooses its name, so the marker must be after the name.
fn is_segfault(text: &[u8]) -> bool {
    /// The name has at most 15 bytes, the PID at most 10 digits; the PID is in brackets.
    const REACH: usize = 32;
    let head = &text[..text.len().min(REACH)];
    let Some(close) = memchr::memchr(b']', head) else { return false };
    text[close..].starts_with(b"]: segfault at ")
}

/// Returns whether a text mentions the NVIDIA driver or NVSwitches, so that it must not be ignored.
#[inline]
pub(super) fn mentions_nvidia(text: &str) -> bool {
    may_mention_nvidia(text.as_bytes())
        && ["nvidia", "NVRM", "nvrm", "NVSwitch", "SXid"].iter().any(|name| text.contains(name))
}

/// Returns whether `nvi`, `nvr`, `NV` or `SX` occurs. For speed, the function searches only for the rarer letter of
/// each pair. It runs for every line of a busy log, and a search for each name would take as long as all other work on
/// the line.
#[inline]
fn may_mention_nvidia(text: &[u8]) -> bool {
    memchr::memchr3_iter(b'v', b'V', b'X', text).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        match before {
            Some(b'n') => matches!(text.get(at + 1), Some(b'i' | b'r')),
            Some(b'N') => text.get(at) == Some(&b'V'),
            Some(b'S') => text.get(at) == Some(&b'X'),
            _ => false,
        }
    })
}

/// The frame of the driver's messages.
static FRAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("NVRM: "));

/// Returns whether a text contains the frame of an error message, even if spaces or upper and lower case differ.
pub(super) fn has_error_frame(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let followed = |name: &str, by: &str| {
        text.match_indices(name).filter_map(|(at, _)| text.get(at + name.len()..)).any(|rest| {
            rest.trim_start_matches(|between: char| !between.is_alphabetic() && between != '(').starts_with(by)
        })
    };
    followed("nvrm", "xid") || followed("sxid", "(")
}

/// Returns whether an unrecognized text reports an error, by words of the kernel and the driver.
pub(super) fn speaks_of_error(text: &str) -> bool {
    static WORDS: LazyLock<Vec<String>> =
        LazyLock::new(|| list(include_str!("data/error_words.tsv")).map(unescaped).collect());
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word.as_str())) || has_error_frame(&text)
}

/// Returns the second driver frame in a text. Two lines are joined if the line break was lost.
///
/// The name of a process can look like a frame, so the second frame is not a separate event. Messages of several lines
/// repeat the frame.
pub(super) fn second_frame(text: &str) -> Option<&str> {
    let from = text.len().min(1);
    let at = from + FRAME.find(text.as_bytes().get(from..)?)?;
    let before = text.get(..at)?;
    let rest = text.get(at..)?;
    let of_one_message = before.ends_with('\n') || before.ends_with("#012");
    if of_one_message {
        return second_frame(rest);
    }
    (looks_like_gpu_error(rest) || has_error_frame(rest)).then_some(rest)
}

/// Parses the key of an event. This is the same as [`parse`] without the details of an Xid, which take most of the time
/// in a storm.
pub(super) fn parse_key(text: &str) -> Option<Parsed> {
    if text.starts_with("NVRM: Xid") && !text.contains('\n') {
        return xid_frame::parse_key(text).map(Parsed::Event);
    }
    parse(text)
}

/// Parses the text of one record. `None` if the text is not about a GPU, or is incomplete.
///
/// A kernel record can consist of several lines, which are joined.
pub fn parse(text: &str) -> Option<Parsed> {
    let family = family(text)?;
    if text.contains('\n') {
        let joined = text.replace("\nNVRM: ", " ").replace('\n', " ");
        return parse_family(family, &joined);
    }
    parse_family(family, text)
}

fn parse_family(family: Family, text: &str) -> Option<Parsed> {
    let of_host = || host_lines::parse(text).map(Parsed::Event);
    match family {
        Family::Nvrm if text.starts_with("NVRM: Xid") => xid_frame::parse(text).map(Parsed::Event),
        Family::Nvrm => nvrm::parse(text),
        // PCIe lines also contain the name of the NVSwitch driver: `nvidia-nvswitch 0000:07:00.0: AER: …`.
        Family::Nvswitch => sxid::parse(text).or_else(|| pcie::parse(text).map(Parsed::Event)),
        Family::Peermem => nvrm::peermem(text).map(Parsed::Event),
        Family::Uvm => nvrm::uvm(text).map(Parsed::Event),
        Family::Pcie => pcie::parse(text).map(Parsed::Event),
        Family::Probe => pcie::old_probe(text).map(Parsed::Event),
        Family::ModuleLoad => module_refused::parse(text).map(Parsed::Event),
        Family::Nic => other_kernel_lines::nic(text).map(Parsed::Event),
        Family::MachineCheck => other_kernel_lines::machine_check(text).map(Parsed::Event).or_else(of_host),
        Family::Oom => other_kernel_lines::out_of_memory(text).map(Parsed::Event),
        Family::HungTask => other_kernel_lines::hung_task(text).map(Parsed::Event),
        Family::Crash => other_kernel_lines::crash(text).map(Parsed::Event),
        Family::Iommu => iommu::parse(text).map(Parsed::Event),
        Family::Host => of_host(),
    }
}

/// Returns whether a text that was written by a program looks like a GPU error, because it contains a driver frame.
pub fn looks_like_gpu_error(text: &str) -> bool {
    let frame = ["NVRM: ", "nvidia-nvswitch"].iter().filter_map(|marker| text.find(marker)).min();
    frame.and_then(|at| text.get(at..)).is_some_and(|frame| matches!(parse(frame), Some(Parsed::Event(_))))
}

#[cfg(test)]
#[path = "line_parser_tests.rs"]
mod tests;
