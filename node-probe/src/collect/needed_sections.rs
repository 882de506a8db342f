//! `NeededSections`: the requested sections in their fixed order, and whether NVML must be read for them.

use syringe_core::section_name::SectionName;

/// The sections to read.
#[derive(Clone, Default)]
pub(super) struct NeededSections {
    pub(super) sections: Vec<SectionName>,
    /// Whether only a saved log is read, without the GPUs of this machine.
    pub(super) nothing_of_this_machine: bool,
}

impl NeededSections {
    pub(super) fn of(requested: &[SectionName]) -> Self {
        let sections = SectionName::ALL.into_iter().filter(|name| requested.contains(name)).collect();
        Self { sections, nothing_of_this_machine: false }
    }

    pub(super) fn has(&self, name: SectionName) -> bool {
        self.sections.contains(&name)
    }

    /// Returns whether NVML is read. Kernel events and host devices use NVML, but do not need it.
    pub(super) fn nvml(&self) -> bool {
        !self.nothing_of_this_machine && self.sections.iter().any(|name| *name != SectionName::Kubelet)
    }
}
