//! `LinkFields`: reads state, version, speed and error counters of all NVLinks of one GPU by field ID, in one call.
//!
//! A driver may lack a field, or return a value with another meaning than the function for one link. This is not an
//! error: the caller then uses the function. Limits: CRC and ECC counters have fields only for the first twelve links.

use nvml_wrapper::Device;

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::field_values::{FIELD_VALUES, NVLINK_SPEED, NVLINK_SPEED_COMMON};
use super::raw;
use super::raw::FieldKey;
use crate::nvml::errors::NvmlError;

/// Number of links that are read in one call. GPUs with more links (Rubin has 36) need a second call.
const LINKS: u32 = 18;
/// `NVML_NVLINK_MAX_LINKS` of the newest header.
const MAX_LINKS: u32 = 36;
/// Name of the answer about the links after the first [`LINKS`] in the cache.
const MORE_LINKS: &str = "more nvlinks";
/// Number of NVLinks of the GPU.
const LINK_COUNT: u32 = 91;
/// Number of the GPU's NVLinks that are connected to an NVSwitch.
const SWITCH_LINK_COUNT: u32 = 147;
/// Number of C2C links of the GPU.
const C2C_LINK_COUNT: u32 = 170;
/// State of one link: 0 inactive, 1 active, 3 active with disabled traffic. The value 2 (asleep) is not a state of
/// `nvmlDeviceGetNvLinkState`.
const STATE: u32 = 165;
const TRAFFIC_DISABLED: u64 = 3;
const VERSION: u32 = 166;

/// The values by field and link.
#[derive(Default)]
pub(in crate::nvml) struct LinkFields(Vec<(FieldKey, Result<i128, NvmlError>)>);

/// The fields of the counters of `nvmlDeviceGetNvLinkErrorCounter`: counter number, first link, last link, field ID of the
/// first link. Fields 161 and 162 have the link as their scope.
const COUNTERS: &[(u32, u32, u32, u32)] = &[
    // NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L0 to _L5, _L6 to _L11
    (2, 0, 5, 32),
    (2, 6, 11, 96),
    // NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L0, _L6
    (3, 0, 5, 39),
    (3, 6, 11, 102),
    // NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_L0
    (4, 0, 11, 148),
];
/// Counters whose field has the link as its scope (`NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY`, `…_RECOVERY`): counter number,
/// field ID.
const SCOPED_COUNTERS: &[(u32, u32)] = &[(0, 161), (1, 162)];

/// Returns the field of a counter of a link.
fn counter_key(counter: u32, link: u32) -> Option<FieldKey> {
    if let Some((_, id)) = SCOPED_COUNTERS.iter().find(|(known, _)| *known == counter) {
        return Some(FieldKey { id: *id, scope: link });
    }
    let has = |(known, first, last, _): &&(u32, u32, u32, u32)| *known == counter && (*first..=*last).contains(&link);
    let (_, first, _, id) = COUNTERS.iter().find(has)?;
    Some(FieldKey { id: id + link - first, scope: 0 })
}

impl LinkFields {
    /// Reads all fields in one call, once for each GPU.
    pub(in crate::nvml) fn read(device: &Device<'_>, reader: &DeviceReader<'_>) -> Self {
        Self::read_by(device, reader, Function { field: "nvlinks", ..Function::of_gpu(FIELD_VALUES) })
    }

    /// Reads all fields once more.
    pub(in crate::nvml) fn read_again(device: &Device<'_>, reader: &DeviceReader<'_>) -> Self {
        Self::read_by(device, reader, FIELD_VALUES.into())
    }

    fn read_by(device: &Device<'_>, reader: &DeviceReader<'_>, function: Function) -> Self {
        let of_gpu =
            [NVLINK_SPEED_COMMON, LINK_COUNT, SWITCH_LINK_COUNT, C2C_LINK_COUNT].map(|id| FieldKey { id, scope: 0 });
        let of_link = |link: u32| {
            let state = [STATE, VERSION, NVLINK_SPEED].map(|id| FieldKey { id, scope: link });
            state.into_iter().chain((0..=4).filter_map(move |counter| counter_key(counter, link)))
        };
        let read = |function: Function, keys: Vec<FieldKey>| {
            let values = reader.try_call(function, || raw::field_values(device, &keys));
            values.map(|values| keys.into_iter().zip(values).collect::<Vec<_>>()).unwrap_or_default()
        };
        let mut fields = Self(read(function, of_gpu.into_iter().chain((0..LINKS).flat_map(of_link)).collect()));
        let count = fields.count().unwrap_or(0).min(MAX_LINKS);
        if count > LINKS {
            let function = Function { field: MORE_LINKS, ..function };
            fields.0.extend(read(function, (LINKS..count).flat_map(of_link).collect()));
        }
        fields
    }

    fn answer(&self, key: FieldKey) -> Option<&Result<i128, NvmlError>> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, answer)| answer)
    }

    fn value(&self, id: u32, scope: u32) -> Option<u64> {
        let value = self.answer(FieldKey { id, scope })?.as_ref().ok()?;
        // A value with all bits set is NVML's "not available".
        u64::try_from(*value).ok().filter(|value| *value != u64::MAX && *value != u64::from(u32::MAX))
    }

    /// Returns whether a link is up.
    pub(in crate::nvml) fn is_active(&self, link: u32) -> Option<bool> {
        match self.value(STATE, link)? {
            0 => Some(false),
            1 | TRAFFIC_DISABLED => Some(true),
            _ => None,
        }
    }

    /// Returns whether the driver has disabled traffic on a link that is up.
    pub(in crate::nvml) fn is_traffic_disabled(&self, link: u32) -> bool {
        self.value(STATE, link) == Some(TRAFFIC_DISABLED)
    }

    /// Returns the number of C2C links.
    pub(in crate::nvml) fn c2c_count(&self) -> Option<u32> {
        u32::try_from(self.value(C2C_LINK_COUNT, 0)?).ok().filter(|count| *count > 0)
    }

    /// Returns the NVLink version of a link, as a number of NVML.
    pub(in crate::nvml) fn version(&self, link: u32) -> Option<u32> {
        u32::try_from(self.value(VERSION, link)?).ok()
    }

    /// Returns the answers for the speed of a link and for the common speed of all links, in megabytes per second. `None` if
    /// the speeds were not read.
    pub(in crate::nvml) fn speeds(&self, link: u32) -> Option<[Result<i128, NvmlError>; 2]> {
        let [own, common] = [(NVLINK_SPEED, link), (NVLINK_SPEED_COMMON, 0)]
            .map(|(id, scope)| self.answer(FieldKey { id, scope }).cloned());
        Some([own?, common?])
    }

    /// Returns a counter of a link; `None` if the function of the counter must be called.
    pub(in crate::nvml) fn counter(&self, counter: u32, link: u32) -> Option<u64> {
        let FieldKey { id, scope } = counter_key(counter, link)?;
        self.value(id, scope)
    }

    pub(in crate::nvml) fn count(&self) -> Option<u32> {
        u32::try_from(self.value(LINK_COUNT, 0)?).ok()
    }

    /// Returns the number of links to NVSwitches.
    pub(in crate::nvml) fn to_switches(&self) -> Option<usize> {
        usize::try_from(self.value(SWITCH_LINK_COUNT, 0)?).ok()
    }

    /// Returns whether the driver supports the states of links, and this GPU has no link.
    pub(in crate::nvml) fn says_no_links(&self) -> bool {
        let states = (0..LINKS).map(|scope| self.answer(FieldKey { id: STATE, scope }));
        states.into_iter().all(|state| matches!(state, Some(Err(NvmlError::NOT_SUPPORTED))))
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldKey, counter_key};

    #[test]
    fn each_counter_has_the_field_of_its_link() {
        let id = |counter, link| counter_key(counter, link).map(|FieldKey { id, scope }| (id, scope));
        assert_eq!(
            (id(2, 0), id(2, 5), id(2, 6), id(2, 11)),
            (Some((32, 0)), Some((37, 0)), Some((96, 0)), Some((101, 0)))
        );
        assert_eq!(
            (id(3, 0), id(3, 5), id(3, 6), id(3, 11)),
            (Some((39, 0)), Some((44, 0)), Some((102, 0)), Some((107, 0)))
        );
        assert_eq!((id(4, 0), id(4, 11)), (Some((148, 0)), Some((159, 0))));
        assert_eq!((id(0, 17), id(1, 3)), (Some((161, 17)), Some((162, 3))));
        assert_eq!([2, 3, 4].map(|counter| id(counter, 12)), [None; 3]);
    }
}
