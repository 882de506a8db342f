//! `ValueByAddress`: a value from the log (UUID or serial number) for each boot and PCI address of a GPU.
//!
//! There is one map for each boot, because a GPU can be replaced between two boots.

use std::collections::BTreeMap;

use crate::pci::PciAddress;

/// Maximum number of GPUs in each boot. No host has more.
const MAX_GPUS: usize = 256;

/// One value (UUID or serial number) for each GPU. The value is empty if the log contains two different values. This can
/// happen because all earlier boots in a text log count as one boot. The value for an event is then unknown.
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

    /// Moves the values of one boot to another boot.
    pub(super) fn move_boot(&mut self, from: usize, to: usize) {
        let moved = self.0.get_mut(from).map(std::mem::take).unwrap_or_default();
        moved.into_iter().for_each(|(pci, value)| self.insert(to, pci, value));
    }

    pub(super) fn get(&self, boot: usize, pci: &PciAddress) -> Option<&String> {
        self.0.get(boot)?.get(pci).filter(|value| !value.is_empty())
    }
}
