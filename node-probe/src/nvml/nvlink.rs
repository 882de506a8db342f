//! The NVLinks of one GPU, including inactive ones. Links with the same values form one entry.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use syringe_core::facts::topology::{GpuTopology, NvlinkGroup};
use syringe_core::pci::PciAddress;

use super::device_reader::DeviceReader;
use super::errors::{Kind, NvmlError};
use super::field_values::{self, NVLINK_SPEED, NVLINK_SPEED_COMMON, NVLINK5_ERRORS};
use super::{enum_names, raw};

/// `NVML_NVLINK_MAX_LINKS` of the newest header. The list ends at the first number that NVML rejects.
const MAX_LINKS: u32 = 36;

/// Counters of `nvmlDeviceGetNvLinkErrorCounter` (`nvmlNvLinkErrorCounter_t`) and their names in the report. NVLink 5
/// has others: [`NVLINK5_ERRORS`].
const ERRORS: &[(u32, &str)] = &[(2, "crc_flit"), (3, "crc_data"), (0, "replay"), (1, "recovery"), (4, "ecc")];

/// The meaning of the answer for a link number.
enum Link {
    /// The link exists.
    State(bool),
    /// It exists, but its state could not be read.
    Unreadable,
    /// The GPU's numbering has a gap here.
    Gap,
    /// There is no link of this number or above.
    End,
}

/// Every NVLink that the GPU has.
pub(super) fn links(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Vec<NvlinkGroup> {
    let architecture = reader.call_ignoring_errors("nvmlDeviceGetArchitecture", || raw::architecture(device));
    let mut links = Vec::new();
    for number in 0..MAX_LINKS {
        let active = match state(device, reader, number) {
            Link::State(active) => Some(active),
            Link::Unreadable => None,
            Link::Gap => continue,
            Link::End => break,
        };
        let mut link = one_link(device, reader, number, active);
        link.version = link.version.map(|version| enum_names::nvlink_version(version, architecture));
        links.push(link);
    }
    if links.is_empty() {
        reader.note_unsupported(&["nvlinks"]);
    }
    group(links)
}

fn state(device: &Device<'_>, reader: &mut DeviceReader<'_>, number: u32) -> Link {
    let link = device.link_wrapper_for(number);
    match reader.try_call("nvmlDeviceGetNvLinkState", || link.is_active()) {
        Ok(active) => Link::State(active),
        Err(NvmlError::NOT_SUPPORTED) => Link::Gap,
        Err(error) if error.kind() == Kind::Failed => {
            reader.note_failure("nvmlDeviceGetNvLinkState", &error, &["nvlinks.active"]);
            Link::Unreadable
        }
        Err(_) => Link::End,
    }
}

/// One link. Missing values of an inactive link are ignored.
fn one_link(device: &Device<'_>, reader: &mut DeviceReader<'_>, number: u32, active: Option<bool>) -> NvlinkGroup {
    let link = device.link_wrapper_for(number);
    let remote = reader.call_ignoring_errors("nvmlDeviceGetNvLinkRemotePciInfo_v2", || link.remote_pci_info());
    let remote_type =
        reader.call_ignoring_errors("nvmlDeviceGetNvLinkRemoteDeviceType", || raw::nvlink_remote_type(device, number));
    let (speed, errors) = match active {
        // Field 90 is the common speed of the GPU's links; a link that is down has no speed.
        Some(false) => (None, counted_when_down(device, reader, number)),
        _ => (speed(device, reader, number, active), errors(device, reader, number)),
    };
    NvlinkGroup {
        links: vec![number],
        active,
        version: reader
            .call_ignoring_errors("nvmlDeviceGetNvLinkVersion", || link.version())
            .filter(|version| *version > 0),
        speed_megabytes_per_second: speed,
        remote_type: remote_type.map(|kind| enum_names::link_end(kind).to_owned()),
        remote_pci_address: remote.and_then(|pci| PciAddress::parse(&pci.bus_id)).filter(is_somewhere),
        errors,
    }
}

/// Speed in megabytes per second. If the state of the link is unknown, only the field of the link is used.
fn speed(device: &Device<'_>, reader: &mut DeviceReader<'_>, number: u32, active: Option<bool>) -> Option<u32> {
    let ids: &[u32] = if active.is_some() { &[NVLINK_SPEED, NVLINK_SPEED_COMMON] } else { &[NVLINK_SPEED] };
    let speeds = field_values::of_link(device, reader, number, ids, "nvlinks.speed_megabytes_per_second");
    u32::try_from(speeds.into_iter().flatten().find(|speed| *speed > 0)?).ok()
}

/// Whether the address is valid: a link without a partner has all zeros or all ones.
fn is_somewhere(address: &PciAddress) -> bool {
    !matches!(address.as_str(), "00000000:00:00.0" | "ffffffff:ff:1f.0" | "ffffffff:ff:ff.0")
}

const COUNTER: &str = "nvmlDeviceGetNvLinkErrorCounter";
/// The path of the counters in the entry of a GPU.
const COUNTERS: &str = "nvlinks.errors";

/// The counters that are not zero. A counter that could not be read is noted; a missing counter is not.
fn errors(device: &Device<'_>, reader: &mut DeviceReader<'_>, number: u32) -> BTreeMap<String, u64> {
    let mut counts: Vec<(&str, Option<u64>)> = Vec::new();
    for (counter, name) in ERRORS {
        let ask = || raw::nvlink_error_counter(device, number, *counter);
        match reader.call_if_supported(COUNTER, &[COUNTERS], ask) {
            // Blackwell and later have none of these; other GPUs lack the ECC counter only.
            Err(error) if counts.is_empty() && error.kind() == Kind::Absent => {
                let ids: Vec<_> = NVLINK5_ERRORS.iter().map(|(id, _)| *id).collect();
                let values = field_values::of_link(device, reader, number, &ids, COUNTERS);
                counts = NVLINK5_ERRORS.iter().map(|(_, name)| *name).zip(values).collect();
                break;
            }
            Ok(u64::MAX) => reader.note_failure(COUNTER, &NvmlError::impossible(u64::MAX), &[COUNTERS]),
            answer => counts.push((name, answer.ok())),
        }
    }
    if counts.iter().all(|(_, count)| count.is_none()) && !reader.has_failed(COUNTERS) {
        reader.note_unsupported(&[COUNTERS]);
    }
    counted(counts)
}

/// The counters that a link returns although it is down.
fn counted_when_down(device: &Device<'_>, reader: &DeviceReader<'_>, number: u32) -> BTreeMap<String, u64> {
    let count = |counter| reader.call_ignoring_errors(COUNTER, || raw::nvlink_error_counter(device, number, counter));
    counted(ERRORS.iter().map(|(counter, name)| (*name, count(*counter).filter(|count| *count < u64::MAX))).collect())
}

fn counted(counts: Vec<(&str, Option<u64>)>) -> BTreeMap<String, u64> {
    let present = |(name, count): (&str, Option<u64>)| Some((name.to_owned(), count.filter(|count| *count > 0)?));
    counts.into_iter().filter_map(present).collect()
}

/// Links that differ only in their number become one entry, in the order of the first link.
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

/// The number of active NVLinks between two GPUs, direct or through switches. `None` if there are none.
pub(super) fn between(own: &GpuTopology, other: &GpuTopology) -> Option<usize> {
    let to = |gpu: &GpuTopology, far: &GpuTopology| {
        let there =
            |group: &&NvlinkGroup| group.remote_pci_address.is_some() && group.remote_pci_address == far.pci_address;
        active(&gpu.nvlinks).filter(there).map(|group| group.links.len()).sum::<usize>()
    };
    let to_switches = |gpu: &GpuTopology| {
        let switched = |group: &&NvlinkGroup| group.remote_type.as_deref() == Some("switch");
        active(&gpu.nvlinks).filter(switched).map(|group| group.links.len()).sum::<usize>()
    };
    // One end may not have the address of its partner.
    let direct = to(own, other).max(to(other, own));
    let switched = to_switches(own).min(to_switches(other));
    Some(if direct > 0 { direct } else { switched }).filter(|links| *links > 0)
}

fn active(groups: &[NvlinkGroup]) -> impl Iterator<Item = &NvlinkGroup> {
    groups.iter().filter(|group| group.active == Some(true))
}

#[cfg(test)]
mod tests {
    use super::{GpuTopology, NvlinkGroup, PciAddress, between, group};

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
