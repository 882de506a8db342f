//! One kernel text → what it says about GPUs.
//!
//! [`family`] looks at a few bytes and lets almost every line of a busy node go; only what is left is parsed. A line
//! that merely mentions a GPU is nothing: the driver's own frames count, and their addresses must be addresses.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::facts::kernel_log::KernelEventKind;
use crate::pci::PciAddress;
use crate::text::clean;

use super::{host, module_load, nvrm, pcie, scan, sxid, xid_frame};

/// The longest value that goes into an event's details.
pub(super) const VALUE_CAP: usize = 160;

/// The longest process name: the kernel keeps 15 bytes, some lines print a whole program name.
const PROCESS_CAP: usize = 64;

/// Which part of its event a line is. Events of which one error prints two lines count the more frequent part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The line that announces it.
    Header,
    /// The line with its details.
    Detail,
}

/// What one line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub kind: KernelEventKind,
    /// Which part of it.
    pub part: Part,
    /// Xid or SXid number.
    pub code: Option<u32>,
    /// The PCI function it names.
    pub pci: Option<PciAddress>,
    /// MIG GPU instance.
    pub gpu_instance: Option<u32>,
    /// MIG compute instance.
    pub compute_instance: Option<u32>,
    /// What tells events of one code apart.
    pub sub_code: Option<String>,
    /// Facts taken out of the text.
    pub details: BTreeMap<&'static str, String>,
    /// Process id.
    pub pid: Option<u32>,
    /// Process name.
    pub process: Option<String>,
}

/// What became of a line that was worth parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An event.
    Event(Line),
    /// More about an event that has its own line: not to be counted again.
    Companion(Line),
    /// The driver's own note of which GPU sits where. It outlives the GPU.
    GpuUuid {
        /// Where.
        pci: PciAddress,
        /// Which: `GPU-…`.
        uuid: String,
    },
    /// A board's serial number. Without an address it belongs to the GPU named just before.
    GpuSerial {
        /// Where, if the line says so.
        pci: Option<PciAddress>,
        /// The serial number, as printed.
        serial: String,
    },
}

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
    /// The kernel about a module that it refuses to load.
    ModuleLoad,
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
        b'n' | b'L' | b'a' if module_load::is_of_module(text) => Family::ModuleLoad,
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
    may_mention_nvidia(text.as_bytes()) && ["nvidia", "NVRM", "NVSwitch", "SXid"].iter().any(|name| text.contains(name))
}

/// Whether `nvi`, `NV` or `SX` occurs. One search for the rarer letter of each pair: this runs over every line of a busy
/// log, where a search for each name costs as much as the rest of the line's work.
#[inline]
fn may_mention_nvidia(text: &[u8]) -> bool {
    memchr::memchr3_iter(b'v', b'V', b'X', text).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        match before {
            Some(b'n') => text.get(at + 1) == Some(&b'i'),
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
        Family::ModuleLoad => module_load::parse(text).map(Parsed::Event),
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

impl Line {
    /// An empty line of one kind.
    pub(super) fn of(kind: KernelEventKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Adds a detail, cleaned and capped.
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<String>) {
        let value = value.into();
        // Numbers and single words need no cleaning; in a storm they are most of the work.
        let plain = value.len() <= VALUE_CAP && value.bytes().all(|byte| byte.is_ascii_graphic());
        let value = if plain { value } else { clean(&value, VALUE_CAP) };
        if !value.is_empty() {
            self.details.insert(name, value);
        }
    }

    /// Sets the sub-code, cleaned and capped.
    pub(super) fn tell_apart(&mut self, sub_code: &str) {
        self.sub_code = Some(clean(sub_code, 64)).filter(|sub_code| !sub_code.is_empty());
    }

    /// Adds a detail that may be missing.
    pub(super) fn put_some<T: ToString>(&mut self, name: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.put(name, value.to_string());
        }
    }

    /// A detail that is already there.
    #[cfg(test)]
    pub(super) fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name).map(String::as_str)
    }

    /// Sets the process's name, unless it is empty or `<unknown>`.
    pub(super) fn name_process(&mut self, name: &str) {
        let plain = name.len() <= PROCESS_CAP && name.bytes().all(|byte| byte.is_ascii_graphic());
        let name = if plain { name.to_owned() } else { clean(name, PROCESS_CAP) };
        if !name.is_empty() && name != "<unknown>" {
            self.process = Some(name);
        }
    }
}

/// A PCI address at the start of `text` (with or without `PCI:`), ended by a blank or by `: `, and what follows.
pub(super) fn leading_address(text: &str) -> Option<(PciAddress, &str)> {
    let token = text.split_once(' ').map_or(text, |(token, _)| token);
    let rest = text.get(token.len()..)?;
    let address = PciAddress::parse(token.trim_end_matches([':', '.', ',']))?;
    Some((address, rest.trim_start()))
}

/// The address that follows `marker`.
pub(super) fn address_after(text: &str, marker: &str) -> Option<PciAddress> {
    leading_address(scan::after(text, marker)?).map(|(address, _)| address)
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
