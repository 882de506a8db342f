//! One kernel text → what it says about GPUs.
//!
//! [`family`] looks at a few bytes and lets almost every line of a busy node go; only what is left is parsed. A line
//! that merely mentions a GPU is nothing: the driver's own frames count, and their addresses must be addresses.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::line::Parsed;
use super::{host, nvrm, pcie, sxid, xid_frame};

/// Which parser a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The NVIDIA driver (`NVRM: …`).
    Nvrm,
    /// The NVSwitch driver.
    Nvswitch,
    /// GPUDirect RDMA.
    Peermem,
    /// The `nvidia-uvm` module.
    Uvm,
    /// A PCI device or port.
    Pcie,
    /// The kernel about the nvidia module (`nvidia: probe of … failed`).
    Probe,
    /// A Mellanox network card.
    Nic,
    /// Machine checks and firmware's hardware error records.
    MachineCheck,
    /// The out-of-memory killer.
    Oom,
    /// A task that does not move.
    HungTask,
    /// A crash of a program.
    Crash,
}

/// The parser that a text belongs to, from its first bytes. `None` for almost every line of a log.
#[inline]
pub fn family(text: &str) -> Option<Family> {
    let found = match text.as_bytes().first()? {
        b'N' if text.starts_with("NVRM: ") => Family::Nvrm,
        b'n' if text.starts_with("nvidia-nvswitch") => Family::Nvswitch,
        b'n' if text.starts_with("nvidia-peermem") || text.starts_with("nvidia_peermem") => Family::Peermem,
        b'n' if text.starts_with("nvidia ") => Family::Pcie,
        b'n' if text.starts_with("nvidia-uvm: ") => Family::Uvm,
        b'n' if text.starts_with("nvidia: probe of ") => Family::Probe,
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
        b't' if text.starts_with("traps: ") => Family::Crash,
        _ if is_segfault(text.as_bytes()) => Family::Crash,
        _ => return None,
    };
    Some(found)
}

/// `name[pid]: segfault at …`: the name is whatever a program calls itself, so the marker is looked for after it.
fn is_segfault(text: &[u8]) -> bool {
    /// 15 bytes of name, 10 of pid, the brackets.
    const REACH: usize = 32;
    let head = &text[..text.len().min(REACH)];
    let Some(close) = head.iter().position(|&byte| byte == b']') else { return false };
    text[close..].starts_with(b"]: segfault at ")
}

/// Whether a text mentions NVIDIA's driver or switches, so that it may not be dropped without a word.
#[inline]
pub(super) fn mentions_nvidia(text: &str) -> bool {
    may_mention_nvidia(text.as_bytes())
        && ["nvidia", "NVRM", "nvrm", "NVSwitch", "SXid"].iter().any(|name| text.contains(name))
}

/// Whether `nvi`, `nvr`, `NV` or `SX` occurs. One search for the rarer letter of each pair: this runs over every line of a busy
/// log, where a search for each name costs as much as the rest of the line's work.
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

/// Whether a text holds the frame of an error that must never be lost, however it is spelt: other blanks, other case.
pub(super) fn has_error_frame(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let followed = |name: &str, by: &str| {
        text.match_indices(name).filter_map(|(at, _)| text.get(at + name.len()..)).any(|rest| {
            rest.trim_start_matches(|between: char| !between.is_alphabetic() && between != '(').starts_with(by)
        })
    };
    followed("nvrm", "xid") || followed("sxid", "(")
}

/// Whether a text that was not understood speaks of an error, in the words that the kernel and the driver use.
pub(super) fn speaks_of_error(text: &str) -> bool {
    const WORDS: [&str; 28] = [
        "error",
        "fail",
        "fatal",
        "bug:",
        "lockup",
        "locked",
        "lost",
        "fallen",
        "unusable",
        "not respond",
        "timeout",
        "timed out",
        "panic",
        "oops",
        "rip:",
        "unknown symbol",
        "disagrees",
        "does not",
        "cannot",
        "unable",
        "invalid",
        "corrupt",
        "hang",
        "hung",
        "bad ",
        "stuck",
        "warning: cpu",
        "power cable",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word)) || has_error_frame(&text)
}

/// A second frame of the driver behind the first: two lines that lost the end of line between them.
///
/// A process may have such a name, so it is no event of its own. A message of several lines repeats its frame.
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

/// What tells a text's event from others: like [`parse`], but without the details of an Xid, of which storms are made.
pub(super) fn parse_key(text: &str) -> Option<Parsed> {
    if text.starts_with("NVRM: Xid") && !text.contains('\n') {
        return xid_frame::parse_key(text).map(Parsed::Event);
    }
    parse(text)
}

/// Parses the text of one record. `None`: nothing that concerns a GPU, or a broken line.
///
/// A text of several lines (one record of the kernel may hold them) is read as one.
pub fn parse(text: &str) -> Option<Parsed> {
    let family = family(text)?;
    if text.contains('\n') {
        let joined = text.replace("\nNVRM: ", " ").replace('\n', " ");
        return parse_family(family, &joined);
    }
    parse_family(family, text)
}

fn parse_family(family: Family, text: &str) -> Option<Parsed> {
    match family {
        Family::Nvrm if text.starts_with("NVRM: Xid") => xid_frame::parse(text).map(Parsed::Event),
        Family::Nvrm => nvrm::parse(text),
        Family::Nvswitch => sxid::parse(text),
        Family::Peermem => nvrm::peermem(text).map(Parsed::Event),
        Family::Uvm => nvrm::uvm(text).map(Parsed::Event),
        Family::Pcie => pcie::parse(text).map(Parsed::Event),
        Family::Probe => pcie::old_probe(text).map(Parsed::Event),
        Family::Nic => host::nic(text).map(Parsed::Event),
        Family::MachineCheck => host::machine_check(text).map(Parsed::Event),
        Family::Oom => host::out_of_memory(text).map(Parsed::Event),
        Family::HungTask => host::hung_task(text).map(Parsed::Event),
        Family::Crash => host::crash(text).map(Parsed::Event),
    }
}

/// Whether a text that a program wrote looks like a GPU error: it holds a driver's frame, at its start or further on.
pub fn looks_like_gpu_error(text: &str) -> bool {
    let frame = ["NVRM: ", "nvidia-nvswitch"].iter().filter_map(|marker| text.find(marker)).min();
    frame.and_then(|at| text.get(at..)).is_some_and(|frame| matches!(parse(frame), Some(Parsed::Event(_))))
}

#[cfg(test)]
#[path = "line_parser_tests.rs"]
mod tests;
