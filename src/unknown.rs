//! Facts that an answer needs and that could not be read.

use serde::{Deserialize, Serialize};

/// Something that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Unknown {
    /// Section of the report.
    pub section: String,
    /// NVML index, if it is about one GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// The reason and the next step.
    pub why: String,
}
