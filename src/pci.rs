//! `PciAddress`: PCI addresses in one format, so that NVML, the kernel log and sysfs can be compared.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A PCI function in the form `dddddddd:bb:dd.f`: domain with 8 hex digits, lower case, always with the function.
///
/// NVML prints `00000000:5D:00.0`, the kernel `0000:5d:00.0`, an Xid line `PCI:0000:5d:00`, older NVRM lines `5d:00.0`.
/// All these forms are parsed to the same value. Other text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress(String);

impl PciAddress {
    /// Parses every format that is described for [`PciAddress`]. A missing domain or function is 0.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("PCI:").unwrap_or(text);
        let mut parts = text.rsplitn(3, ':');
        let (slot, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
        let (device, function) = slot.split_once('.').unwrap_or((slot, "0"));
        let (domain, bus) = (hex(domain, 8)?, hex(bus, 2)?);
        let (device, function) = (hex(device, 2)?, hex(function, 1)?);
        Some(Self::new(domain, bus, device, function))
    }

    /// Creates an address from its numbers.
    pub fn new(domain: u32, bus: u32, device: u32, function: u32) -> Self {
        if bus > 0xff || device > 0xff || function > 0xf {
            return Self(format!("{domain:08x}:{bus:02x}:{device:02x}.{function:x}"));
        }
        // `format!` would take a fifth of the parsing time if there are many kernel lines.
        let mut text = String::with_capacity(16);
        for (value, digits, end) in [(domain, 8, ":"), (bus, 2, ":"), (device, 2, "."), (function, 1, "")] {
            let digit = |place: u32| char::from_digit(value >> (4 * place) & 0xf, 16).unwrap_or('0');
            text.extend((0..digits).rev().map(digit));
            text.push_str(end);
        }
        Self(text)
    }

    /// Returns the numbers of the domain and of the bus.
    pub fn domain_and_bus(&self) -> Option<(u32, u32)> {
        let mut parts = self.0.split(':');
        Some((hex(parts.next()?, 8)?, hex(parts.next()?, 2)?))
    }

    /// Returns whether the device is on bus 0, where no PCIe port is above it. A GPU of a physical machine is below a
    /// port.
    pub fn is_on_bus_0(&self) -> bool {
        self.domain_and_bus().is_some_and(|(_, bus)| bus == 0)
    }

    /// Returns the address in the form `dddddddd:bb:dd.f`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address in the form of sysfs and the kernel, with a domain of 4 digits if possible.
    pub fn sysfs(&self) -> &str {
        self.0.strip_prefix("0000").unwrap_or(&self.0)
    }
}

fn hex(digits: &str, most: usize) -> Option<u32> {
    let fits = !digits.is_empty() && digits.len() <= most && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { u32::from_str_radix(digits, 16).ok() } else { None }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for PciAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("not a PCI address: {}", crate::text::clean(&text, 40)))
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.0
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for PciAddress {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PciAddress".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "pci-address", "description": "PCI address, dddddddd:bb:dd.f" })
    }
}

#[cfg(test)]
mod tests {
    use super::PciAddress;

    #[test]
    fn every_spelling_of_one_function_is_one_address() {
        for text in ["00000000:5D:00.0", "0000:5d:00.0", "PCI:0000:5d:00", "5d:00.0", "5D:00", " 0:5d:00.0 "] {
            assert_eq!(PciAddress::parse(text).map(String::from).as_deref(), Some("00000000:5d:00.0"), "{text}");
        }
        assert_eq!(PciAddress::parse("0018:01:00").map(String::from).as_deref(), Some("00000018:01:00.0"));
        assert_eq!(PciAddress::new(0x10000, 1, 2, 3).sysfs(), "00010000:01:02.3");
        assert_eq!(PciAddress::new(0, 0xc1, 2, 3).sysfs(), "0000:c1:02.3");
    }

    #[test]
    fn other_text_is_no_address() {
        for text in ["", "invalid", "5d", "0000:5d:zz.0", "0:0:0:0.0", "123456789:00:00.0", "0000:+5:00.0"] {
            assert!(PciAddress::parse(text).is_none(), "{text}");
        }
    }
}
