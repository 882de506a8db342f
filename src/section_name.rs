//! `SectionName`: the names of the sections of a report, e.g. `inventory`, `telemetry` and `topology`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One section of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SectionName {
    Inventory,
    Telemetry,
    Topology,
    Ecc,
    Processes,
    Mig,
    Kubelet,
    Host,
    /// All kernel events, not only Xids.
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

    pub const fn as_str(self) -> &'static str {
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

    /// Returns the names as one text, separated by `separator`.
    pub fn join(names: &[Self], separator: &str) -> String {
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(separator)
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for SectionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
        known.ok_or_else(|| {
            format!("there is no section with this name; the names are: {}", Self::join(&Self::ALL, ", "))
        })
    }
}
