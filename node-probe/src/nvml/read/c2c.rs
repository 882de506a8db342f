//! `read`: reads the C2C links, which connect a GPU with the CPU of its module.

use nvml_wrapper::Device;
use syringe_core::facts::topology::C2cLinks;

use super::device_reader::DeviceReader;
use super::field_values;
use super::field_values::FIELD_VALUES;
use super::nvlink_fields::LinkFields;
use super::raw::{FieldKey, field_values as values_of};

/// Status of one link (0 inactive, 1 active) and its speed in megabytes a second. The scope is the link.
const OF_LINK: [u32; 2] = [171, 172];
/// Maximum number of links. A GH200 has ten; a higher number from a driver is not used.
const MAX_LINKS: u32 = 64;
/// The path of the links in a GPU's entry.
const C2C: &str = "c2c";

/// Returns the C2C links; `None` if the GPU has no such links.
pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<C2cLinks> {
    let count = LinkFields::read(device, reader).c2c_count()?.min(MAX_LINKS);
    let keys: Vec<FieldKey> = (0..count).flat_map(|link| OF_LINK.map(|id| FieldKey { id, scope: link })).collect();
    let answers = reader.call_if_supported(FIELD_VALUES, &[C2C], || values_of(device, &keys)).ok()?;
    let values = field_values::numbers(reader, answers.into_iter(), C2C);
    let links = || (0..count).zip(values.chunks(OF_LINK.len()));
    let down = links().filter(|(_, values)| values.first() == Some(&Some(0))).map(|(link, _)| link).collect();
    let speeds = links().filter(|(_, values)| values.first() == Some(&Some(1)));
    let slowest = speeds.filter_map(|(_, values)| values.get(1).copied().flatten()).min();
    Some(C2cLinks { count, down, megabytes_per_second: slowest.and_then(|speed| u32::try_from(speed).ok()) })
}
