//! The names of the sections, as commands and in the report.

/// One section of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SectionName {
    /// What the GPUs are.
    Inventory,
    /// What the GPUs do now.
    Telemetry,
    /// How they are connected.
    Topology,
    /// Memory errors and repairs.
    Ecc,
    /// Who uses them.
    Processes,
    /// MIG instances.
    Mig,
    /// The kubelet's device allocation.
    Kubelet,
    /// Everything that needs no NVML.
    Host,
    /// Kernel events.
    Xid,
    /// Score and status, computed from all others.
    Health,
}

impl SectionName {
    /// Every section, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::Inventory,
        Self::Telemetry,
        Self::Topology,
        Self::Ecc,
        Self::Processes,
        Self::Mig,
        Self::Kubelet,
        Self::Host,
        Self::Xid,
        Self::Health,
    ];

    /// The word in commands and in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Telemetry => "telemetry",
            Self::Topology => "topology",
            Self::Ecc => "ecc",
            Self::Processes => "processes",
            Self::Mig => "mig",
            Self::Kubelet => "kubelet",
            Self::Host => "host",
            Self::Xid => "xid",
            Self::Health => "health",
        }
    }
}
