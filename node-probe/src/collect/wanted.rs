//! Which sections have to be read for the requested ones.

use crate::section::SectionName;

/// The sections to read.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    pub(super) sections: Vec<SectionName>,
    /// Only a saved log is read: the GPUs of this machine say nothing about it.
    pub(super) nothing_of_this_machine: bool,
}

impl Wanted {
    /// `health` is computed from all others.
    pub(super) fn of(requested: &[SectionName]) -> Self {
        let all = requested.contains(&SectionName::Health);
        let sections = SectionName::ALL.into_iter().filter(|name| *name != SectionName::Health);
        let sections = sections.filter(|name| all || requested.contains(name)).collect();
        Self { sections, nothing_of_this_machine: false }
    }

    pub(super) fn has(&self, name: SectionName) -> bool {
        self.sections.contains(&name)
    }

    /// Kernel events are joined to GPUs, host devices to NVML's list: they profit from NVML without needing it.
    pub(super) fn nvml(&self) -> bool {
        !self.nothing_of_this_machine && self.sections.iter().any(|name| *name != SectionName::Kubelet)
    }
}
