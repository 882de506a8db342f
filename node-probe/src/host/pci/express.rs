//! `Express`: reads registers of a PCI function: the PCI Express capability and access control services (ACS).
//!
//! Only the bytes that are needed are read: each byte of a configuration space is a transaction on the bus.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{bounded, files};

/// Offset of the pointer to the first capability.
const FIRST: u64 = 0x34;
/// Id of the PCI Express capability.
const EXPRESS: u8 = 0x10;
/// The 192 bytes after the header have space for at most 48 capabilities. A longer list must contain a cycle.
const MAX_CAPABILITIES: usize = 48;
/// Offset of the first extended capability.
const FIRST_EXTENDED: u64 = 0x100;
/// Id of the extended capability of access control services.
const ACS: u32 = 0x000d;
/// Maximum number of extended capabilities. A function has about 20; a longer list must contain a cycle.
const MAX_EXTENDED: usize = 64;

/// Values of the PCI Express capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct Express {
    /// Port type: 4 root port, 5 upstream port of a switch, 6 downstream port of a switch.
    pub(in crate::host) port_type: u8,
    /// Largest payload of a packet in bytes, and largest read request.
    pub(in crate::host) max_payload: Option<u32>,
    pub(in crate::host) max_read_request: Option<u32>,
    /// The control register of ACS; 0 without ACS. `None` if the extended configuration space cannot be read.
    pub(in crate::host) acs_control: Option<u16>,
}

impl Express {
    /// Reads the capability of the function with this folder. `None` for a function that is not PCI Express, or if only
    /// the first 64 bytes can be read (not root).
    pub(in crate::host) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join("config");
        let at = path.clone();
        bounded::in_time(&path, move || Ok(Config(files::open_now(&at)?).express())).ok()?
    }
}

struct Config(File);

impl Config {
    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    fn byte(&self, at: u64) -> Option<u8> {
        self.bytes(at).map(|[byte]| byte)
    }

    fn express(&self) -> Option<Express> {
        let mut at = u64::from(self.byte(FIRST)? & 0xfc);
        for _ in 0..MAX_CAPABILITIES {
            if at < 0x40 {
                return None;
            }
            let [id, next] = self.bytes(at)?;
            if id == EXPRESS {
                let control = self.bytes(at + 8).map(u16::from_le_bytes);
                // The largest values of the three bits are reserved.
                let size = |shift: u16| control.map(|bits| bits >> shift & 7).filter(|size| *size < 6);
                return Some(Express {
                    port_type: self.byte(at + 2)? >> 4,
                    max_payload: size(5).map(|size| 128 << size),
                    max_read_request: size(12).map(|size| 128 << size),
                    acs_control: self.acs_control(),
                });
            }
            at = u64::from(next & 0xfc);
        }
        None
    }

    fn acs_control(&self) -> Option<u16> {
        let mut at = FIRST_EXTENDED;
        let mut header = u32::from_le_bytes(self.bytes(at)?);
        for _ in 0..MAX_EXTENDED {
            if header == u32::MAX {
                return None;
            }
            if header & 0xffff == ACS {
                return self.bytes(at + 6).map(u16::from_le_bytes);
            }
            at = u64::from(header >> 20 & 0xffc);
            if at < FIRST_EXTENDED {
                return Some(0);
            }
            header = u32::from_le_bytes(self.bytes(at)?);
        }
        None
    }
}

#[cfg(test)]
pub(in crate::host) mod tests {
    use super::*;
    use crate::testing::Tree;

    /// Returns a configuration space with PCI Express and ACS capabilities.
    pub(in crate::host) fn config(port_type: u8, device_control: u16, acs: u16) -> Vec<u8> {
        let mut config = vec![0; 4096];
        config[0x34] = 0x40;
        config[0x40..0x44].copy_from_slice(&[0x01, 0x60, 0, 0]);
        config[0x60..0x64].copy_from_slice(&[0x10, 0, port_type << 4 | 2, 0]);
        config[0x68..0x6a].copy_from_slice(&device_control.to_le_bytes());
        config[0x100..0x104].copy_from_slice(&0x1480_0001_u32.to_le_bytes());
        config[0x148..0x14c].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        config[0x14e..0x150].copy_from_slice(&acs.to_le_bytes());
        config
    }

    fn read(config: impl AsRef<[u8]>) -> Option<Express> {
        let tree = Tree::new();
        tree.file("config", config);
        Express::read(tree.path())
    }

    #[test]
    fn the_registers_are_found_behind_other_capabilities() {
        let express = read(config(6, 0x5936, 0x1d)).expect("PCI Express");
        let expected =
            Express { port_type: 6, max_payload: Some(256), max_read_request: Some(4096), acs_control: Some(0x1d) };
        assert_eq!(express, expected);
        let short = read(&config(4, 0x2010, 0x1d)[..256]).expect("PCI Express");
        assert_eq!((short.acs_control, short.max_payload, short.max_read_request), (None, Some(128), Some(512)));
    }

    #[test]
    fn a_cycle_a_lost_device_and_a_short_file_are_not_read_forever() {
        let mut cycle = config(6, 0, 0);
        cycle[0x60..0x62].copy_from_slice(&[0x05, 0x40]);
        assert_eq!(read(&cycle), None);
        let mut cycle = config(6, 0, 0);
        cycle[0x148..0x14c].copy_from_slice(&0x1000_0001_u32.to_le_bytes());
        assert_eq!(read(&cycle).expect("PCI Express").acs_control, None);
        assert_eq!((read([0xff; 4096]), read([0; 64])), (None, None));
    }
}
