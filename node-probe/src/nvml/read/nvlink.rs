//! `links`, `counters_now`: read the NVLinks of one GPU, or only their counters. Equal links form one entry.
//! `between`: counts the links between two GPUs.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use syringe_core::facts::topology::{GpuTopology, NvlinkGroup};
use syringe_core::pci::PciAddress;

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::field_values;
use super::field_values::{NVLINK_SPEED, NVLINK_SPEED_COMMON, NVLINK5_ERRORS};
use super::nvlink_fields::LinkFields;
use super::{enum_names, raw};
use crate::nvml::errors::{Kind, NvmlError};

/// `NVML_NVLINK_MAX_LINKS` of the newest header. The list ends at the first number that NVML rejects.
const MAX_LINKS: u32 = 36;
/// The value of `NVML_NVLINK_DEVICE_TYPE_SWITCH`.
const SWITCH: u32 = 2;
/// The path of the links in a GPU's entry.
const LINKS: &str = "nvlinks";

/// Counters of `nvmlDeviceGetNvLinkErrorCounter` (`nvmlNvLinkErrorCounter_t`) and their names in the report. NVLink 5
/// has other counters: [`NVLINK5_ERRORS`].
const ERRORS: &[(u32, &str)] = &[(2, "crc_flit"), (3, "crc_data"), (0, "replay"), (1, "recovery"), (4, "ecc")];

/// The meaning of the answer for a link number.
enum Link {
    State(bool),
    /// The link exists, but its state could not be read.
    Unreadable,
    /// The GPU has no link with this number, but may have links with higher numbers.
    Gap,
    /// There is no link with this number or a higher number.
    End,
}

/// Reads the links of one GPU.
struct LinkReader<'d, 'r, 'a> {
    device: &'d Device<'d>,
    reader: &'r mut DeviceReader<'a>,
    fields: LinkFields,
    /// Whether the version field has the same meaning as the version function; `None` until both were compared.
    version_field: Option<bool>,
    /// Whether the links have the counters of NVLink 5.
    is_nvlink5: bool,
    /// The bit error rates of the link that was read last.
    bit_error_rates: BTreeMap<String, f64>,
}

/// Returns every NVLink of the GPU.
pub(in crate::nvml) fn links(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Vec<NvlinkGroup> {
    let architecture = Function::of_product("nvmlDeviceGetArchitecture", "architecture");
    let architecture = reader.try_call(architecture, || raw::architecture(device));
    let fields = LinkFields::read(device, reader);
    let mut links =
        LinkReader { device, reader, fields, version_field: None, is_nvlink5: false, bit_error_rates: BTreeMap::new() }
            .links();
    if links.is_empty() && !reader.has_failed(LINKS) {
        reader.note_unsupported(&[LINKS]);
    }
    for link in &mut links {
        link.version = match &architecture {
            // The meaning of the number depends on the architecture.
            Err(error) if error.kind() == Kind::Gone || error.is_not_reached() => None,
            known => link.version.map(|version| enum_names::nvlink_version(version, known.clone().ok())),
        };
    }
    group(links)
}

/// Reads the counters of all links again: the counts that are not zero, by name and link.
pub(in crate::nvml) fn counters_now(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
) -> BTreeMap<(String, u32), u64> {
    let fields = LinkFields::read_again(device, reader);
    let mut links =
        LinkReader { device, reader, fields, version_field: None, is_nvlink5: false, bit_error_rates: BTreeMap::new() };
    let states = links.states().into_iter();
    let counts = states.flat_map(|(number, active)| {
        let errors = if active == Some(false) { links.counted_when_down(number) } else { links.errors(number) };
        errors.into_iter().map(move |(name, count)| ((name, number), count))
    });
    counts.collect()
}

impl LinkReader<'_, '_, '_> {
    fn links(&mut self) -> Vec<NvlinkGroup> {
        let states = self.states();
        let active = states.iter().filter(|(_, active)| *active == Some(true)).count();
        let all_to_switches = active > 0 && self.fields.to_switches() == Some(active);
        states.into_iter().map(|(number, active)| self.one_link(number, active, all_to_switches)).collect()
    }

    /// Returns the numbers of the links, each with whether it is up.
    fn states(&mut self) -> Vec<(u32, Option<bool>)> {
        let mut states = Vec::new();
        for number in 0..MAX_LINKS {
            // The count is only reliable if no number was skipped.
            if self.fields.count() == Some(number) && states.len() == number as usize {
                break;
            }
            match self.state(number) {
                Link::State(active) => states.push((number, Some(active))),
                Link::Unreadable => states.push((number, None)),
                Link::Gap => {}
                Link::End => break,
            }
        }
        states
    }

    fn state(&mut self, number: u32) -> Link {
        const FUNCTION: &str = "nvmlDeviceGetNvLinkState";
        if let Some(active) = self.fields.is_active(number) {
            return Link::State(active);
        }
        let link = self.device.link_wrapper_for(number);
        match self.reader.try_call(FUNCTION, || link.is_active()) {
            Ok(active) => Link::State(active),
            Err(NvmlError::NOT_SUPPORTED) if self.fields.says_no_links() => Link::End,
            Err(NvmlError::NOT_SUPPORTED) => Link::Gap,
            Err(error) if error.is_not_reached() => {
                self.reader.note_failure(FUNCTION, &error, &[LINKS]);
                Link::End
            }
            Err(error) if error.kind() == Kind::Failed => {
                self.reader.note_failure(FUNCTION, &error, &["nvlinks.active"]);
                Link::Unreadable
            }
            Err(_) => Link::End,
        }
    }

    /// Reads one link. Missing values of an inactive link are ignored.
    fn one_link(&mut self, number: u32, active: Option<bool>, all_to_switches: bool) -> NvlinkGroup {
        let (speed, errors) = match active {
            // Field 90 is the common speed of the GPU's links; a link that is down has no speed.
            Some(false) => (None, self.counted_when_down(number)),
            _ => (self.speed(number, active), self.errors(number)),
        };
        let device = self.device;
        let remote = self.far_end("nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvlinks.remote_pci_address", || {
            device.link_wrapper_for(number).remote_pci_info().map_err(NvmlError::from)
        });
        let remote_type = match active {
            Some(true) if all_to_switches => Some(SWITCH),
            _ => self.far_end("nvmlDeviceGetNvLinkRemoteDeviceType", "nvlinks.remote_type", || {
                raw::nvlink_remote_type(device, number)
            }),
        };
        NvlinkGroup {
            links: vec![number],
            active,
            traffic_disabled: self.fields.is_traffic_disabled(number),
            version: self.version(number).filter(|version| *version > 0),
            speed_megabytes_per_second: speed,
            remote_type: remote_type.map(|kind| enum_names::link_end(kind).to_owned()),
            remote_pci_address: remote.and_then(|pci| PciAddress::parse(&pci.bus_id)).filter(is_somewhere),
            errors,
            bit_error_rates: std::mem::take(&mut self.bit_error_rates),
        }
    }

    /// Reads a value that some drivers do not return for working links. A missing value is not an error, but a call
    /// that was not made is noted.
    fn far_end<T: Clone + 'static>(
        &mut self,
        function: &'static str,
        field: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        let answer = self.reader.try_call(function, call);
        if let Some(error) = answer.as_ref().err().filter(|error| error.is_not_reached()) {
            self.reader.note_failure(function, error, &[field]);
        }
        answer.ok()
    }

    /// Reads the version. A GPU's links have one version, but the field is newer than the function, so both are compared
    /// once.
    fn version(&mut self, number: u32) -> Option<u32> {
        let field = self.fields.version(number);
        if let (Some(true), Some(version)) = (self.version_field, field) {
            return Some(version);
        }
        let device = self.device;
        let version = self.far_end("nvmlDeviceGetNvLinkVersion", "nvlinks.version", || {
            device.link_wrapper_for(number).version().map_err(NvmlError::from)
        });
        if let (None, Some(version), Some(field)) = (self.version_field, version, field) {
            self.version_field = Some(version == field);
        }
        version
    }

    /// Returns the speed in megabytes per second. If the state of the link is unknown, only the field of the link is used.
    fn speed(&mut self, number: u32, active: Option<bool>) -> Option<u32> {
        const FIELD: &str = "nvlinks.speed_megabytes_per_second";
        let usable = if active.is_some() { 2 } else { 1 };
        let speeds = match self.fields.speeds(number) {
            Some(answers) => field_values::numbers(self.reader, answers.into_iter().take(usable), FIELD),
            None => {
                let ids = [NVLINK_SPEED, NVLINK_SPEED_COMMON];
                let ids = ids.get(..usable).unwrap_or_default();
                field_values::of_link(self.device, self.reader, number, ids, FIELD)
            }
        };
        u32::try_from(speeds.into_iter().flatten().find(|speed| *speed > 0)?).ok()
    }

    /// Returns the counters that are not zero. A counter that could not be read is noted; a missing counter is not.
    fn errors(&mut self, number: u32) -> BTreeMap<String, u64> {
        if self.is_nvlink5 {
            return self.errors5(number);
        }
        let mut counts: Vec<(&str, Option<u64>)> = Vec::new();
        for (counter, name) in ERRORS {
            if let Some(count) = self.fields.counter(*counter, number) {
                counts.push((name, Some(count)));
                continue;
            }
            let device = self.device;
            let ask = || raw::nvlink_error_counter(device, number, *counter);
            match self.reader.call_if_supported(COUNTER, &[COUNTERS], ask) {
                // Blackwell and later GPUs do not have these counters. Other GPUs lack only the ECC counter.
                Err(error) if counts.is_empty() && error.kind() == Kind::Absent => {
                    self.is_nvlink5 = true;
                    return self.errors5(number);
                }
                Ok(u64::MAX) => self.reader.note_failure(COUNTER, &NvmlError::impossible(u64::MAX), &[COUNTERS]),
                answer => counts.push((name, answer.ok())),
            }
        }
        self.counted_or_noted(counts)
    }

    /// Returns the counters of NVLink 5.
    fn errors5(&mut self, number: u32) -> BTreeMap<String, u64> {
        let ids: Vec<_> = NVLINK5_ERRORS.iter().map(|(id, _)| *id).chain(BIT_ERROR_RATES.map(|(id, _)| id)).collect();
        let mut values = field_values::of_link(self.device, self.reader, number, &ids, COUNTERS);
        let rates = values.split_off(NVLINK5_ERRORS.len());
        self.bit_error_rates = bit_error_rates(rates.into_iter());
        self.counted_or_noted(NVLINK5_ERRORS.iter().map(|(_, name)| *name).zip(values).collect())
    }

    fn counted_or_noted(&mut self, counts: Vec<(&str, Option<u64>)>) -> BTreeMap<String, u64> {
        if counts.iter().all(|(_, count)| count.is_none()) && !self.reader.has_failed(COUNTERS) {
            self.reader.note_unsupported(&[COUNTERS]);
        }
        counted(counts)
    }

    /// Returns the counters of a link that is down, if the link returns them.
    fn counted_when_down(&self, number: u32) -> BTreeMap<String, u64> {
        let ask = |counter| {
            self.reader.call_ignoring_errors(COUNTER, || raw::nvlink_error_counter(self.device, number, counter))
        };
        let count = |counter| self.fields.counter(counter, number).or_else(|| ask(counter));
        counted(
            ERRORS.iter().map(|(counter, name)| (*name, count(*counter).filter(|count| *count < u64::MAX))).collect(),
        )
    }
}

/// Bit error rates of one NVLink 5 link: field ID and name in the report. Field 218 is deprecated since R610.
const BIT_ERROR_RATES: [(u32, &str); 3] = [(220, "effective"), (222, "symbol"), (218, "raw")];

/// Rates that are not higher than this rate mean that there are no errors: links with such rates form one entry of the
/// report.
const NO_BIT_ERRORS: f64 = 1e-15;

/// Returns the rates if errors remain after error correction.
fn bit_error_rates(values: impl Iterator<Item = Option<u64>>) -> BTreeMap<String, f64> {
    let rates = BIT_ERROR_RATES.into_iter().zip(values);
    let rates: BTreeMap<String, f64> =
        rates.filter_map(|((_, name), value)| Some((name.to_owned(), bit_error_rate(value?)?))).collect();
    let remain = ["effective", "symbol"].iter().any(|name| rates.get(*name).is_some_and(|rate| *rate > NO_BIT_ERRORS));
    if remain { rates } else { BTreeMap::new() }
}

/// Decodes a rate: the exponent is in bits 0 to 7, the mantissa in bits 8 to 11. The value 15e-255 means that no error
/// has occurred.
fn bit_error_rate(value: u64) -> Option<f64> {
    let (mantissa, exponent) = (value >> 8, value & 0xff);
    let is_rate = (1..=0xf).contains(&mantissa) && exponent != 0xff;
    // Parsing returns the number that is nearest to the decimal rate.
    if is_rate { format!("{mantissa}e-{exponent}").parse().ok() } else { None }
}

/// Returns whether the address is valid. For a link without a partner, all bits of the address are zero or one.
fn is_somewhere(address: &PciAddress) -> bool {
    !matches!(address.as_str(), "00000000:00:00.0" | "ffffffff:ff:1f.0" | "ffffffff:ff:ff.0")
}

const COUNTER: &str = "nvmlDeviceGetNvLinkErrorCounter";
/// The path of the counters in a GPU's entry.
const COUNTERS: &str = "nvlinks.errors";

fn counted(counts: Vec<(&str, Option<u64>)>) -> BTreeMap<String, u64> {
    let present = |(name, count): (&str, Option<u64>)| Some((name.to_owned(), count.filter(|count| *count > 0)?));
    counts.into_iter().filter_map(present).collect()
}

/// Groups links that differ only in their number into one entry, in the order of the first link.
fn group(links: Vec<NvlinkGroup>) -> Vec<NvlinkGroup> {
    let mut groups: Vec<NvlinkGroup> = Vec::new();
    for mut link in links {
        let numbers = std::mem::take(&mut link.links);
        let same = |group: &&mut NvlinkGroup| NvlinkGroup { links: Vec::new(), ..(**group).clone() } == link;
        match groups.iter_mut().find(same) {
            Some(group) => group.links.extend(numbers),
            None => groups.push(NvlinkGroup { links: numbers, ..link }),
        }
    }
    groups
}

/// Returns the number of active NVLinks between two GPUs, direct or through switches; `None` if there are no such
/// links.
pub(in crate::nvml) fn between(own: &GpuTopology, other: &GpuTopology) -> Option<usize> {
    let to = |gpu: &GpuTopology, far: &GpuTopology| {
        let there =
            |group: &&NvlinkGroup| group.remote_pci_address.is_some() && group.remote_pci_address == far.pci_address;
        active(&gpu.nvlinks).filter(there).map(|group| group.links.len()).sum::<usize>()
    };
    let to_switches = |gpu: &GpuTopology| {
        let switched = |group: &&NvlinkGroup| group.remote_type.as_deref() == Some("switch");
        active(&gpu.nvlinks).filter(switched).map(|group| group.links.len()).sum::<usize>()
    };
    // One end of a link may lack the address of its partner.
    let direct = to(own, other).max(to(other, own));
    let switched = to_switches(own).min(to_switches(other));
    Some(if direct > 0 { direct } else { switched }).filter(|links| *links > 0)
}

fn active(groups: &[NvlinkGroup]) -> impl Iterator<Item = &NvlinkGroup> {
    groups.iter().filter(|group| group.active == Some(true))
}

#[cfg(test)]
mod tests {
    use super::{GpuTopology, NvlinkGroup, PciAddress, between, bit_error_rate, bit_error_rates, group};

    #[test]
    fn a_rate_is_decoded_and_its_special_values_are_no_rates() {
        assert_eq!(bit_error_rate(0x20c), Some(2e-12));
        assert_eq!(bit_error_rate(0xf07), Some(1.5e-6));
        // The value 15e-255, zero, a mantissa with more than four bits, and a value with all bits set.
        assert_eq!([0xfff, 0, 0x1006, u64::from(u32::MAX)].map(bit_error_rate), [None; 4]);
        let rates = |effective, raw| bit_error_rates([Some(effective), Some(0xfff), Some(raw)].into_iter());
        assert_eq!(rates(0x106, 0x304), [("effective".to_owned(), 1e-6), ("raw".to_owned(), 3e-4)].into());
        assert!(rates(0xfff, 0x304).is_empty(), "a raw rate is normal");
        assert!(rates(0x110, 0x304).is_empty(), "1e-16 is normal");
    }

    fn link(number: u32, active: bool, remote: &str, kind: &str) -> NvlinkGroup {
        NvlinkGroup {
            links: vec![number],
            active: Some(active),
            remote_type: Some(kind.into()),
            remote_pci_address: PciAddress::parse(remote),
            ..NvlinkGroup::default()
        }
    }

    #[test]
    fn links_that_agree_in_everything_are_one_entry() {
        let links = [(0, true), (1, true), (2, false), (3, true)];
        let groups = group(links.map(|(number, active)| link(number, active, "5:00.0", "switch")).into());
        let numbers: Vec<_> = groups.iter().map(|group| group.links.clone()).collect();
        assert_eq!(numbers, [vec![0, 1, 3], vec![2]]);
    }

    fn gpu(address: &str, nvlinks: Vec<NvlinkGroup>) -> GpuTopology {
        GpuTopology { pci_address: PciAddress::parse(address), nvlinks, ..GpuTopology::default() }
    }

    #[test]
    fn gpus_on_switches_are_joined_by_the_links_that_are_up_at_both() {
        let links = |down| (0..18).map(|number| link(number, number != down, "5:00.0", "switch")).collect();
        let (own, other) = (gpu("1:00.0", group(links(99))), gpu("2:00.0", group(links(7))));
        assert_eq!(between(&own, &other), Some(17));
        assert_eq!(between(&own, &gpu("3:00.0", vec![])), None);
    }

    #[test]
    fn direct_links_count_by_the_partners_address() {
        let links =
            vec![link(0, true, "2:00.0", "gpu"), link(1, true, "3:00.0", "gpu"), link(2, false, "2:00.0", "gpu")];
        let own = gpu("1:00.0", links);
        assert_eq!(between(&own, &gpu("2:00.0", vec![])), Some(1));
        assert_eq!(between(&gpu("2:00.0", vec![]), &own), Some(1));
        assert_eq!(between(&own, &gpu("4:00.0", vec![])), None);
    }
}
