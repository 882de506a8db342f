//! The names of the sections, as commands and in the report.

/// One section of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SectionName {
    /// Identity and properties of the GPUs.
    Inventory,
    /// Current state of the GPUs.
    Telemetry,
    /// How the GPUs are connected.
    Topology,
    /// Memory errors and repairs.
    Ecc,
    /// Processes that use the GPUs.
    Processes,
    /// MIG instances.
    Mig,
    /// The kubelet's device allocation.
    Kubelet,
    /// Driver, modules, PCI and other facts without NVML.
    Host,
    /// Kernel events.
    Xid,
}

impl SectionName {
    /// Every section, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Inventory,
        Self::Telemetry,
        Self::Topology,
        Self::Ecc,
        Self::Processes,
        Self::Mig,
        Self::Kubelet,
        Self::Host,
        Self::Xid,
    ];

    /// The name in commands and in the report.
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
        }
    }
}
