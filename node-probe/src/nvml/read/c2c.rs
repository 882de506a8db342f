//! `read`: reads the C2C links, which connect a GPU with the CPU of its module. `error_count`: the sum of their errors.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use syringe_core::facts::topology::C2cLinks;

use super::device_reader::DeviceReader;
use super::field_values;
use super::field_values::FIELD_VALUES;
use super::nvlink_fields::LinkFields;
use super::raw::{FieldKey, field_values as values_of};

/// Status of one link (0 inactive, 1 active) and its speed in megabytes a second. The scope is the link.
const OF_LINK: [u32; 2] = [171, 172];
/// Error counters of one link and their names in the report (`NVML_FI_DEV_C2C_LINK_ERROR_INTR`, `…_REPLAY`,
/// `…_REPLAY_B2B`, R575 and later). The driver counts interrupts of these errors for each link
/// (`NV2080_CTRL_CMD_BUS_GET_C2C_ERR_INFO`).
const ERRORS: [(u32, &str); 3] = [(231, "crc"), (232, "replay"), (233, "replay_back_to_back")];
/// Maximum number of links. A GH200 has ten; a higher number from a driver is not used.
const MAX_LINKS: u32 = 64;
/// The path of the links in a GPU's entry.
const C2C: &str = "c2c";

/// Returns the C2C links; `None` if the GPU has no such links.
pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<C2cLinks> {
    let ids: Vec<u32> = OF_LINK.into_iter().chain(ERRORS.map(|(id, _)| id)).collect();
    let links = values(device, reader, &ids)?;
    let mut read = C2cLinks { count: u32::try_from(links.len()).unwrap_or_default(), ..C2cLinks::default() };
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for (link, values) in (0..).zip(&links) {
        let [state, speed, counts @ ..] = values.as_slice() else { continue };
        match state {
            Some(0) => read.down.push(link),
            Some(1) => {
                let speed = speed.and_then(|speed| u32::try_from(speed).ok());
                read.megabytes_per_second = read.megabytes_per_second.into_iter().chain(speed).min();
            }
            _ => {}
        }
        for ((_, name), count) in ERRORS.iter().zip(counts).filter_map(|(error, count)| Some((error, (*count)?))) {
            *errors.entry(name).or_default() += count;
        }
    }
    let counted = errors.into_iter().filter(|(_, count)| *count > 0);
    read.errors = counted.map(|(name, count)| (name.to_owned(), count)).collect();
    Some(read)
}

/// Returns the number of errors of all C2C links now; `None` if the GPU has no links, or the driver does not count errors.
pub(in crate::nvml) fn error_count(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<u64> {
    let counts = values(device, reader, &ERRORS.map(|(id, _)| id))?.into_iter().flatten().flatten();
    counts.reduce(|sum, count| sum + count)
}

/// Returns the values of these fields for each link. The error counters have 32 bits.
fn values(device: &Device<'_>, reader: &mut DeviceReader<'_>, ids: &[u32]) -> Option<Vec<Vec<Option<u64>>>> {
    let count = LinkFields::read(device, reader).c2c_count()?.min(MAX_LINKS);
    let of_link = |link| ids.iter().map(move |id| FieldKey { id: *id, scope: link });
    let keys: Vec<FieldKey> = (0..count).flat_map(of_link).collect();
    let answers = reader.call_if_supported(FIELD_VALUES, &[C2C], || values_of(device, &keys)).ok()?;
    let values = field_values::numbers(reader, answers.into_iter(), C2C);
    // A value with all bits set is not a number of errors.
    let values: Vec<_> = values.into_iter().map(|value| value.filter(|value| *value < u64::from(u32::MAX))).collect();
    Some(values.chunks(ids.len()).map(<[_]>::to_vec).collect())
}
