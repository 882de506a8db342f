//! `Answer`: a message of the NVML process to the probe, as one line of JSON.
//! `Part`, `Missing`, `Versions`, `Pairs`, `GpuUses`, `GpuState`: the contents of messages.
//!
//! A section is sent as one part for each GPU, as soon as the part is read. A part that was not complete in time has the
//! values that arrived and a list of the missing values. A later part of the same GPU replaces the earlier part.

use std::io::Write;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use syringe_core::facts::LostGpu;
use syringe_core::facts::ecc::GpuEcc;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::mig::GpuMig;
use syringe_core::facts::processes::GpuUse;
use syringe_core::facts::rates::Sample;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::{GpuTopology, MissingP2p};
use syringe_core::json_reader;
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;

/// PCI address, NVML index, UUID.
pub(crate) type GpuAddress = (PciAddress, u32, Option<String>);

/// An answer of NVML.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// NVML is open: the number of its GPUs, and the GPUs that have a PCI address.
    Opened {
        count: u32,
        addresses: Vec<GpuAddress>,
    },
    /// NVML is not open, or the process failed.
    Failed(Problem),
    Versions(Versions),
    Inventory(Part<GpuInventory>),
    Telemetry(Part<GpuTelemetry>),
    Sample(Part<Sample>),
    Ecc(Part<GpuEcc>),
    Mig(Part<GpuMig>),
    Topology(Part<GpuTopology>),
    Pairs(Part<Pairs>),
    Uses(Part<GpuUses>),
    /// The GPU that an action needs; `None` if NVML has no such GPU.
    Gpu(Option<GpuState>),
    /// All answers were sent.
    Done,
}

impl Answer {
    /// Writes the answer as one line of JSON.
    pub(super) fn send(&self, output: &mut impl Write) {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        // If the write fails, the parent is no longer reading, and will kill this process.
        let _ = output.write_all(&line);
    }
}

/// One GPU's part of a section.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: DeserializeOwned"))]
pub(crate) struct Part<T> {
    /// NVML index.
    pub(crate) gpu: u32,
    /// The GPU's entry; `None` if the GPU has no handle.
    #[serde(serialize_with = "write_entry", deserialize_with = "read_entry")]
    pub(crate) entry: Option<T>,
    pub(crate) missing: Missing,
    /// Whether all calls were made.
    pub(crate) complete: bool,
    pub(crate) duration_us: u64,
}

/// Writes an entry in the format of the report, through `serde_json::Value`. Code for a second serializer would make the
/// program 10 % larger.
fn write_entry<T: Serialize, S: Serializer>(entry: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::to_value(entry).map_err(ser::Error::custom)?.serialize(serializer)
}

/// Reads an entry in the format of the report.
fn read_entry<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    json_reader::read(serde_json::Value::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The values that are missing in a part.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// Fields that are not supported.
    pub(crate) unsupported: Vec<String>,
    /// Fields that could not be read.
    pub(crate) unread: Vec<String>,
    /// Set if the GPU does not respond.
    pub(crate) lost: Option<LostGpu>,
    pub(crate) problems: Vec<Problem>,
}

/// Versions of the installation, and the path of the library.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) driver: Option<String>,
    pub(crate) nvml: Option<String>,
    pub(crate) cuda: Option<String>,
    pub(crate) library: String,
    /// GPUs that are excluded from the driver.
    pub(crate) excluded: Vec<PciAddress>,
    /// GPUs that NVML does not list because they are in the drain state.
    pub(crate) draining: Vec<PciAddress>,
    pub(crate) problems: Vec<Problem>,
}

/// The connections between a GPU and the GPUs with a higher index.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pairs {
    /// Index of the other GPU, and the connection type.
    pub(crate) words: Vec<(u32, String)>,
    /// Number of pairs whose capabilities were read.
    pub(crate) answered: u32,
    /// Capabilities that some of the pairs lack.
    pub(crate) lacking: Vec<MissingP2p>,
    /// Whether NVML does not support the call.
    pub(crate) absent: bool,
}

/// The processes that use one GPU, the memory in use, and N of `/dev/nvidiaN`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct GpuUses {
    pub(crate) uses: Vec<(u32, GpuUse)>,
    pub(crate) memory_used: Option<u64>,
    pub(crate) minor: Option<u32>,
}

/// The facts about one GPU that an action needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GpuState {
    pub(crate) index: u32,
    pub(crate) minor: Option<u32>,
    pub(crate) memory_used: Option<u64>,
    pub(crate) uses: Vec<(u32, GpuUse)>,
    pub(crate) problem: Option<Problem>,
}
