//! `Line` and `Parsed`: the parsed content of one line of the kernel log, with functions that add its details.
//! `leading_address`, `address_after`: find a PCI address in a line.

use std::collections::BTreeMap;

use crate::facts::kernel_log::KernelEventKind;
use crate::pci::PciAddress;
use crate::text::clean;

use crate::kernel_log::scan;

/// Maximum length of a value in the details of an event.
pub(super) const VALUE_CAP: usize = 160;

/// Maximum length of a process name. The kernel keeps 15 bytes, but some lines print the full name.
const PROCESS_CAP: usize = 64;

/// The part of an event that a line contains. If an event has header lines and detail lines, only the more frequent
/// part is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Whole,
    /// The first line of the event.
    Header,
    /// The line with the details of the event.
    Detail,
}

/// The content of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Kind of the event.
    pub kind: KernelEventKind,
    /// Part of the event.
    pub part: Part,
    /// Number of the Xid or SXid.
    pub code: Option<u32>,
    /// The PCI function in the line.
    pub pci: Option<PciAddress>,
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
    /// Distinguishes events with the same code.
    pub sub_code: Option<String>,
    /// Values from the text, by name.
    pub details: BTreeMap<&'static str, String>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    /// Number of faults that the line reports, if it contains a number.
    pub times: Option<u64>,
}

/// The result of parsing a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Event(Line),
    /// Details of an event, in addition to the line of the event itself. The event is not counted again.
    Companion(Line),
    /// The line of the driver with the address and UUID of a GPU.
    GpuUuid {
        pci: PciAddress,
        /// UUID: `GPU-…`.
        uuid: String,
    },
    /// The serial number of a board. If the line has no address, it belongs to the GPU of the previous line.
    GpuSerial {
        /// PCI address, if the line has an address.
        pci: Option<PciAddress>,
        /// The serial number, as printed.
        serial: String,
    },
}

impl Line {
    /// Creates an empty line of one kind.
    pub(super) fn of(kind: KernelEventKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Adds a detail, cleaned and capped.
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<String>) {
        let value = value.into();
        // Numbers and single words need no cleaning. This saves time in a storm.
        let plain = value.len() <= VALUE_CAP && value.bytes().all(|byte| byte.is_ascii_graphic());
        let value = if plain { value } else { clean(&value, VALUE_CAP) };
        if !value.is_empty() {
            self.details.insert(name, value);
        }
    }

    /// Sets the sub-code, cleaned and capped.
    pub(super) fn set_sub_code(&mut self, sub_code: &str) {
        self.sub_code = Some(clean(sub_code, 64)).filter(|sub_code| !sub_code.is_empty());
    }

    /// Adds a detail, if there is a value.
    pub(super) fn put_some<T: ToString>(&mut self, name: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.put(name, value.to_string());
        }
    }

    /// Returns a detail that was added before.
    #[cfg(test)]
    pub(super) fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name).map(String::as_str)
    }

    /// Sets the name of the process, unless it is empty or `<unknown>`.
    pub(super) fn set_process(&mut self, name: &str) {
        let plain = name.len() <= PROCESS_CAP && name.bytes().all(|byte| byte.is_ascii_graphic());
        let name = if plain { name.to_owned() } else { clean(name, PROCESS_CAP) };
        if !name.is_empty() && name != "<unknown>" {
            self.process = Some(name);
        }
    }
}

/// Returns a PCI address at the start of `text`, and the rest. `PCI:` may precede the address. A space or `: ` must
/// follow the address.
pub(super) fn leading_address(text: &str) -> Option<(PciAddress, &str)> {
    let token = text.split_once(' ').map_or(text, |(token, _)| token);
    let rest = text.get(token.len()..)?;
    let address = PciAddress::parse(token.trim_end_matches([':', '.', ',']))?;
    Some((address, rest.trim_start()))
}

/// Returns the address after `marker`.
pub(super) fn address_after(text: &str, marker: &str) -> Option<PciAddress> {
    leading_address(scan::after(text, marker)?).map(|(address, _)| address)
}
