//! What the log says of the GPU at each address, one map a boot: a GPU may be swapped between two boots.

use std::collections::BTreeMap;

use crate::pci::PciAddress;

/// GPUs whose identity is remembered, in each boot; no host has more.
const MAX_GPUS: usize = 256;

/// One fact (UUID, serial number) of the GPUs. Empty: the log says two things (all earlier boots of a text log are one),
/// so nobody knows which holds for an event.
#[derive(Debug, Default)]
pub(super) struct ValueByAddress(Vec<BTreeMap<PciAddress, String>>);

impl ValueByAddress {
    pub(super) fn insert(&mut self, boot: usize, pci: PciAddress, value: String) {
        if self.0.len() <= boot {
            self.0.resize_with(boot + 1, BTreeMap::new);
        }
        let of_boot = &mut self.0[boot];
        let full = of_boot.len() >= MAX_GPUS;
        match of_boot.get_mut(&pci) {
            Some(known) if *known == value => {}
            Some(known) => known.clear(),
            None if !full => drop(of_boot.insert(pci, value)),
            None => {}
        }
    }

    pub(super) fn get(&self, boot: usize, pci: &PciAddress) -> Option<&String> {
        self.0.get(boot)?.get(pci).filter(|value| !value.is_empty())
    }
}
