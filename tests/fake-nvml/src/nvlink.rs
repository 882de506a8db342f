//! NVML functions for NVLinks and C2C links (state, version, remote device, errors) and the NVSwitch fabric (section
//! `topology`). `field`: the values by field ID.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::topology::{C2cLinks, Fabric, NvlinkGroup};

use crate::device::pci_info;
use crate::facts::{Gpu, driver_branch};
use crate::ffi::{Answer, INVALID_ARGUMENT, NOT_SUPPORTED, Out, on_gpu, put, versioned};
use crate::fields::Value;
use crate::rates;

/// The `scopeId` for the sum over all links.
const ALL_LINKS: u32 = u32::MAX;

/// Fields of the error counters of NVLink 5, with their names in the facts. Fields without a name do not count errors: they
/// are not in the facts, and their value is zero.
const NVLINK5_COUNTERS: [(u32, &str); 15] = [
    (205, "vl15_dropped"),
    (206, "malformed_packets"),
    (207, "buffer_overrun"),
    (208, "receive"),
    (209, "receive_remote"),
    (210, "receive_general"),
    (211, "local_link_integrity"),
    (212, "transmit_discards"),
    (213, "link_recovery_successful"),
    (214, "link_recovery_failed"),
    (215, "link_recovery"),
    (216, ""),
    (217, ""),
    (219, "effective_errors"),
    (221, "symbol_errors"),
];

/// Error counters of links up to version 4.
const NVLINK4_COUNTERS: [(u32, &str); 4] = [(160, "ecc"), (161, "replay"), (162, "recovery"), (163, "crc_flit")];

gpu_selected! {
    nvmlDeviceGetNvLinkState: nvmlEnableState_t => |gpu, link| {
        // A link with an unknown state exists. Therefore, the error is not the error for a missing link.
        group(gpu, link)?.active.map(u32::from).ok_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN)
    };
    nvmlDeviceGetNvLinkVersion: c_uint => |gpu, link| group(gpu, link)?.version.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetNvLinkRemoteDeviceType: nvmlIntNvLinkDeviceType_t => |gpu, link| {
        match group(gpu, link)?.remote_type.as_deref().ok_or(NOT_SUPPORTED)? {
            "gpu" => Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU),
            "ibm_npu" => Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU),
            "switch" => Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH),
            _ => Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN),
        }
    };
    nvmlDeviceGetNvLinkRemotePciInfo_v2: nvmlPciInfo_t => |gpu, link| {
        Ok(pci_info(group(gpu, link)?.remote_pci_address.as_ref().ok_or(NOT_SUPPORTED)?, 0, 0))
    };
}

fn groups<'r>(gpu: &Gpu<'r>) -> Answer<&'r [NvlinkGroup]> {
    let groups = gpu.topology().map(|gpu| gpu.nvlinks.as_slice()).unwrap_or_default();
    if groups.is_empty() { Err(NOT_SUPPORTED) } else { Ok(groups) }
}

/// Returns the facts about one link. A number after the last link is an invalid argument; without links, the call is not
/// supported.
fn group<'r>(gpu: &Gpu<'r>, link: u32) -> Answer<&'r NvlinkGroup> {
    groups(gpu)?.iter().find(|group| group.links.contains(&link)).ok_or(INVALID_ARGUMENT)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkCapability(
    device: nvmlDevice_t,
    link: c_uint,
    capability: nvmlNvLinkCapability_t,
    out: Out<'_, c_uint>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetNvLinkCapability", device, |gpu| {
        let active = group(gpu, link)?.active.ok_or(NOT_SUPPORTED)?;
        match capability {
            nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SLI_BRIDGE => put(out, 0),
            known if known < nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_COUNT => put(out, active.into()),
            _ => Err(INVALID_ARGUMENT),
        }
    })
}

/// Returns an error counter of a link up to version 4. NVLink 5 does not have these counters.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: nvmlNvLinkErrorCounter_t,
    out: Out<'_, c_ulonglong>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetNvLinkErrorCounter", device, |gpu| {
        let group = group(gpu, link)?;
        let name = match counter {
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => "replay",
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => "recovery",
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => "crc_flit",
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => "crc_data",
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA => "ecc",
            _ => return Err(INVALID_ARGUMENT),
        };
        if is_nvlink5(group) {
            return Err(NOT_SUPPORTED);
        }
        put(out, errors(group, name) + rates::added_to_link(gpu, link, name))
    })
}

fn is_nvlink5(group: &NvlinkGroup) -> bool {
    group.version.is_some_and(|version| version >= 5)
}

/// Returns an error counter. The facts omit counters that are zero.
fn errors(group: &NvlinkGroup, name: &str) -> u64 {
    group.errors.get(name).copied().unwrap_or(0)
}

/// Returns the value of a field about NVLinks. `None` for all other fields.
pub(crate) fn field(gpu: &Gpu<'_>, id: u32, scope: u32) -> Option<Answer<Value>> {
    let find = |table: &[(u32, &'static str)]| table.iter().find(|(field, _)| *field == id).map(|(_, name)| *name);
    Some(match id {
        // NVML_FI_DEV_NVLINK_LINK_COUNT
        91 => groups(gpu).map(|groups| Value::Unsigned(groups.iter().map(|group| group.links.len() as u32).sum())),
        // NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: the speed of all links of the GPU, for any scope.
        90 => groups(gpu)
            .and_then(|groups| groups.iter().find_map(|group| group.speed_megabytes_per_second).ok_or(NOT_SUPPORTED))
            .map(Value::Unsigned),
        // NVML_FI_DEV_NVLINK_GET_SPEED, _GET_STATE, _GET_VERSION
        164 => group(gpu, scope)
            .and_then(|group| group.speed_megabytes_per_second.ok_or(NOT_SUPPORTED))
            .map(Value::Unsigned),
        165 => {
            let state = |group: &NvlinkGroup| match group.traffic_disabled {
                true => Ok(3),
                false => group.active.map(u32::from).ok_or(NOT_SUPPORTED),
            };
            group(gpu, scope).and_then(state).map(Value::Unsigned)
        }
        166 => group(gpu, scope).and_then(|group| group.version.ok_or(NOT_SUPPORTED)).map(Value::Unsigned),
        // NVML_FI_DEV_C2C_LINK_COUNT, _GET_STATUS, _GET_MAX_BW
        170 => c2c(gpu).map(|links| Value::Unsigned(links.count)),
        171 => c2c_link(gpu, scope).map(|(_, is_up)| Value::Unsigned(is_up.into())),
        172 => c2c_link(gpu, scope)
            .and_then(|(links, is_up)| links.megabytes_per_second.filter(|_| is_up).ok_or(NOT_SUPPORTED))
            .map(Value::Unsigned),
        // NVML_FI_DEV_C2C_LINK_ERROR_INTR, _REPLAY, _REPLAY_B2B
        231..=233 if driver_branch(gpu.report) < Some(575) => Err(INVALID_ARGUMENT),
        231 => c2c_link(gpu, scope).map(|(links, _)| {
            let new = rates::added(gpu, &format!("c2c {scope}"), |sample| sample.c2c_errors.unwrap_or(0));
            // All new errors are those of one link.
            Value::Unsigned((c2c_errors(links, scope, "crc") + if scope == 1 { new } else { 0 }) as u32)
        }),
        232 => c2c_link(gpu, scope).map(|(links, _)| Value::Unsigned(c2c_errors(links, scope, "replay") as u32)),
        233 => c2c_link(gpu, scope)
            .map(|(links, _)| Value::Unsigned(c2c_errors(links, scope, "replay_back_to_back") as u32)),
        // NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT
        147 => groups(gpu).map(|groups| {
            let switched = groups.iter().filter(|group| group.remote_type.as_deref() == Some("switch"));
            Value::Unsigned(switched.map(|group| group.links.len() as u32).sum())
        }),
        // NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L0 and the like: one field for each of the first links.
        32..=37 | 39..=44 | 46..=51 | 53..=58 | 96..=119 | 148..=159 => {
            let (name, link) = counter_of_link(id);
            counter(gpu, link, name, |group| !is_nvlink5(group))
        }
        160..=163 => counter(gpu, scope, find(&NVLINK4_COUNTERS)?, |group| !is_nvlink5(group)),
        218 if driver_branch(gpu.report) >= Some(610) => Err(NOT_SUPPORTED),
        218 => bit_error_rate(gpu, scope, "raw"),
        220 => bit_error_rate(gpu, scope, "effective"),
        222 => bit_error_rate(gpu, scope, "symbol"),
        205..=222 => counter(gpu, scope, find(&NVLINK5_COUNTERS)?, is_nvlink5),
        // NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_0 to _15
        235..=250 => counter(gpu, scope, &format!("fec_history_{}", id - 235), is_nvlink5),
        _ => return None,
    })
}

fn c2c<'r>(gpu: &Gpu<'r>) -> Answer<&'r C2cLinks> {
    gpu.topology().and_then(|gpu| gpu.c2c.as_ref()).ok_or(NOT_SUPPORTED)
}

/// Returns whether a C2C link is active.
fn c2c_link<'r>(gpu: &Gpu<'r>, link: u32) -> Answer<(&'r C2cLinks, bool)> {
    let links = c2c(gpu)?;
    if link < links.count { Ok((links, !links.down.contains(&link))) } else { Err(INVALID_ARGUMENT) }
}

/// Returns the errors of a C2C link. The facts have the sum of all links: here, one error is that of the second link,
/// and the others are those of the first link.
fn c2c_errors(links: &C2cLinks, link: u32, name: &str) -> u64 {
    let sum = links.errors.get(name).copied().unwrap_or(0);
    match link {
        0 => sum.saturating_sub(1),
        1 => sum.min(1),
        _ => 0,
    }
}

/// Returns the counter and the link of a field that exists for each of the first twelve links.
fn counter_of_link(id: u32) -> (&'static str, u32) {
    match id {
        32..=37 => ("crc_flit", id - 32),
        39..=44 => ("crc_data", id - 39),
        46..=51 => ("replay", id - 46),
        53..=58 => ("recovery", id - 53),
        96..=101 => ("crc_flit", id - 96 + 6),
        102..=107 => ("crc_data", id - 102 + 6),
        108..=113 => ("replay", id - 108 + 6),
        114..=119 => ("recovery", id - 114 + 6),
        _ => ("ecc", id - 148),
    }
}

fn counter(gpu: &Gpu<'_>, scope: u32, name: &str, counts: fn(&NvlinkGroup) -> bool) -> Answer<Value> {
    if scope == ALL_LINKS {
        let counted: Vec<_> = groups(gpu)?.iter().filter(|group| counts(group)).collect();
        let sum = counted.iter().map(|group| errors(group, name) * group.links.len() as u64).sum();
        return if counted.is_empty() { Err(NOT_SUPPORTED) } else { Ok(Value::Long(sum)) };
    }
    let group = group(gpu, scope)?;
    let now = || errors(group, name) + rates::added_to_link(gpu, scope, name);
    if counts(group) { Ok(Value::Long(now())) } else { Err(NOT_SUPPORTED) }
}

/// Returns a bit error rate in NVML's encoding: the exponent in bits 0 to 7, the mantissa in bits 8 to 11. The value
/// 15e-255 means that there was no error.
fn bit_error_rate(gpu: &Gpu<'_>, scope: u32, name: &str) -> Answer<Value> {
    let group = group(gpu, scope).ok().filter(|group| is_nvlink5(group)).ok_or(NOT_SUPPORTED)?;
    let Some(rate) = group.bit_error_rates.get(name) else { return Ok(Value::Long(0xfff)) };
    let encodings = (0..0xff_u64).flat_map(|exponent| (1..=0xf_u64).map(move |mantissa| (mantissa, exponent)));
    let is_rate = |(mantissa, exponent): &(u64, u64)| format!("{mantissa}e-{exponent}").parse() == Ok(*rate);
    let (mantissa, exponent) = encodings.into_iter().find(is_rate).ok_or(INVALID_ARGUMENT)?;
    Ok(Value::Long(mantissa << 8 | exponent))
}

fn fabric<'r>(gpu: &Gpu<'r>) -> Answer<&'r Fabric> {
    gpu.topology().and_then(|gpu| gpu.fabric.as_ref()).ok_or(NOT_SUPPORTED)
}

fn fabric_state(fabric: &Fabric) -> nvmlGpuFabricState_t {
    let state = match fabric.state.as_str() {
        "not_started" => NVML_GPU_FABRIC_STATE_NOT_STARTED,
        "in_progress" => NVML_GPU_FABRIC_STATE_IN_PROGRESS,
        "completed" => NVML_GPU_FABRIC_STATE_COMPLETED,
        _ => NVML_GPU_FABRIC_STATE_NOT_SUPPORTED,
    };
    state as nvmlGpuFabricState_t
}

fn fabric_status(fabric: &Fabric) -> nvmlReturn_t {
    match fabric.status.as_deref() {
        None | Some("success") => nvmlReturn_enum_NVML_SUCCESS,
        Some(words) => crate::facts::return_code_of_text(words),
    }
}

fn cluster_uuid(fabric: &Fabric) -> [u8; 16] {
    let digits: String = fabric.cluster_uuid.iter().flat_map(|uuid| uuid.chars()).filter(|char| *char != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// Encodes the health of the fabric: two bits for each issue (1: true, 2: false), four for the configuration (1: correct).
fn health_mask(fabric: &Fabric) -> c_uint {
    if fabric.health.is_none() && fabric.health_issues.is_empty() {
        return 0;
    }
    let has = |issue: &str| fabric.health_issues.iter().any(|named| named == issue);
    let flags = [
        ("degraded_bandwidth", NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_DEGRADED_BW),
        ("route_recovery", NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_RECOVERY),
        ("route_unhealthy", NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_UNHEALTHY),
        ("access_timeout", NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ACCESS_TIMEOUT_RECOVERY),
    ];
    let mask = flags.iter().fold(0, |mask, (issue, shift)| mask | (if has(issue) { 1 } else { 2 }) << shift);
    // The numbers of the kinds begin at 2, in this order.
    const KINDS: [&str; 7] = [
        "incorrect_sysguid",
        "incorrect_chassis_sn",
        "no_partition",
        "insufficient_nvlinks",
        "incompatible_gpu_fw",
        "invalid_location",
        "gpu_state_invalid",
    ];
    let kind =
        fabric.misconfiguration.as_deref().and_then(|kind| KINDS.iter().zip(2..).find(|(name, _)| **name == kind));
    let configuration = match kind {
        Some((_, number)) => number,
        None if has("incorrect_configuration") => NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NO_PARTITION,
        None => NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NONE,
    };
    mask | configuration << NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_INCORRECT_CONFIGURATION
}

fn health_summary(word: &str) -> u8 {
    let summary = match word {
        "healthy" => NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY,
        "unhealthy" => NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY,
        "limited_capacity" => NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY,
        _ => NVML_GPU_FABRIC_HEALTH_SUMMARY_NOT_SUPPORTED,
    };
    summary as u8
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuFabricInfo(device: nvmlDevice_t, info: Out<'_, nvmlGpuFabricInfo_t>) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetGpuFabricInfo", device, |gpu| {
        let fabric = fabric(gpu)?;
        let (state, status) = (fabric_state(fabric), fabric_status(fabric));
        let cliqueId = fabric.clique_id.unwrap_or(0);
        put(info, nvmlGpuFabricInfo_t { clusterUuid: cluster_uuid(fabric), status, cliqueId, state })
    })
}

/// Version 3 contains the health summary, which old drivers do not have. Facts without a summary support only version 2.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, info: *mut nvmlGpuFabricInfoV_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetGpuFabricInfoV", device, |gpu| {
        let fabric = fabric(gpu)?;
        let (clusterUuid, status, state) = (cluster_uuid(fabric), fabric_status(fabric), fabric_state(fabric));
        let (cliqueId, healthMask) = (fabric.clique_id.unwrap_or(0), health_mask(fabric));
        if let (Some(health), Ok(info)) = (&fabric.health, versioned(info, 3)) {
            let (version, healthSummary) = (info.version, health_summary(health));
            *info = nvmlGpuFabricInfo_v3_t { version, clusterUuid, status, cliqueId, state, healthMask, healthSummary };
            return Ok(());
        }
        let info = versioned(info.cast::<nvmlGpuFabricInfo_v2_t>(), 2)?;
        *info = nvmlGpuFabricInfo_v2_t { version: info.version, clusterUuid, status, cliqueId, state, healthMask };
        Ok(())
    })
}
