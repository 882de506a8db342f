//! `read`: reads the values of one GPU for the `mig` section: MIG mode and MIG devices.
//! `devices`: returns the handles of the MIG devices of a GPU.

use nvml_wrapper::Device;
use syringe_core::facts::mig::{GpuMig, MigDevice};

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::inventory::mig_mode;
use super::raw;
use super::session::text;
use crate::nvml::errors::{Kind, NvmlError};

/// Maximum number of MIG devices of one GPU; the hardware has seven slices.
const MAX_DEVICES: u32 = 64;

pub(in crate::nvml) fn read(device: &'static Device<'static>, reader: &mut DeviceReader<'_>, gpu: &mut GpuMig) {
    gpu.mode = mig_mode(device, reader, "mode");
    gpu.max_devices = reader.call("nvmlDeviceGetMaxMigDeviceCount", &["max_devices"], || device.mig_device_count());
    if gpu.mode.is_some_and(|mode| mode.current) {
        let total = reader
            .call_ignoring_errors(Function::of_gpu("nvmlDeviceGetMemoryInfo_v2"), || raw::memory(device))
            .map(|memory| memory.total);
        gpu.devices =
            devices(device, reader, gpu.max_devices).iter().map(|device| one_device(device, reader, total)).collect();
    }
}

/// Returns the handles of a GPU's MIG devices. Their indices may have gaps.
pub(in crate::nvml) fn devices(
    device: &'static Device<'static>,
    reader: &mut DeviceReader<'_>,
    most: Option<u32>,
) -> Vec<&'static Device<'static>> {
    let mut devices = Vec::new();
    for index in 0..most.unwrap_or(0).min(MAX_DEVICES) {
        let handle = || {
            let device = device.mig_device_by_index(index).map_err(NvmlError::from)?;
            Ok::<&'static Device<'static>, NvmlError>(Box::leak(Box::new(device)))
        };
        match reader.try_call("nvmlDeviceGetMigDeviceHandleByIndex", handle) {
            Ok(device) => devices.push(device),
            Err(error) if error.kind() == Kind::Failed => {
                reader.note_failure("nvmlDeviceGetMigDeviceHandleByIndex", &error, &["devices"]);
            }
            Err(_) => {}
        }
    }
    devices
}

fn one_device(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu_bytes: Option<u64>) -> MigDevice {
    let attributes = reader.call(
        "nvmlDeviceGetAttributes_v2",
        &["devices.gpu_slices", "devices.compute_slices", "devices.multiprocessors"],
        || device.attributes(),
    );
    let memory =
        reader.call("nvmlDeviceGetMemoryInfo_v2", &["devices.memory_total_bytes", "devices.memory_used_bytes"], || {
            raw::memory(device)
        });
    let name = reader.call_ignoring_errors("nvmlDeviceGetName", || device.name());
    let computed = attributes.as_ref().zip(gpu_bytes).and_then(|(attributes, gpu_bytes)| {
        let slices = (attributes.gpu_instance_slice_count, attributes.compute_instance_slice_count);
        profile(slices, attributes.memory_size_mb, gpu_bytes)
    });
    let profile = name.as_deref().and_then(named_profile).or(computed);
    if profile.is_none() {
        reader.note_unsupported(&["devices.profile"]);
    }
    MigDevice {
        uuid: reader.call("nvmlDeviceGetUUID", &["devices.uuid"], || device.uuid()).and_then(|uuid| text(&uuid)),
        gpu_instance: reader
            .call("nvmlDeviceGetGpuInstanceId", &["devices.gpu_instance"], || raw::gpu_instance_id(device)),
        compute_instance: reader
            .call("nvmlDeviceGetComputeInstanceId", &["devices.compute_instance"], || raw::compute_instance_id(device)),
        profile,
        gpu_slices: attributes.as_ref().map(|attributes| attributes.gpu_instance_slice_count),
        compute_slices: attributes.as_ref().map(|attributes| attributes.compute_instance_slice_count),
        multiprocessors: attributes.as_ref().map(|attributes| attributes.multiprocessor_count),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
    }
}

/// Returns the profile in a MIG device's name: `NVIDIA A100-SXM4-80GB MIG 1g.10gb`.
fn named_profile(name: &str) -> Option<String> {
    let (_, profile) = name.rsplit_once("MIG ")?;
    text(profile)
}

/// Returns the profile for these sizes, as NVIDIA's own tools write it: memory in GB, as eighths of the GPU, rounded up.
fn profile((gpu, compute): (u32, u32), memory_mib: u64, gpu_bytes: u64) -> Option<String> {
    const GIB: u64 = 1 << 30;
    let bytes = memory_mib.checked_mul(1 << 20)?;
    let eighths = bytes.checked_mul(8)?.div_ceil(gpu_bytes.max(1)).min(8);
    let gigabytes = (eighths * gpu_bytes.div_ceil(GIB) + 4) / 8;
    let compute = if compute == gpu { String::new() } else { format!("{compute}c.") };
    (gpu > 0).then(|| format!("{compute}{gpu}g.{gigabytes}gb"))
}

#[cfg(test)]
mod tests {
    use super::{named_profile, profile};

    const A100_80: u64 = 85_899_345_920;

    #[test]
    fn a_profile_is_read_from_the_devices_name() {
        assert_eq!(named_profile("NVIDIA A100-SXM4-80GB MIG 1g.10gb").as_deref(), Some("1g.10gb"));
        assert_eq!(named_profile("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb").as_deref(), Some("1c.3g.40gb"));
        assert_eq!(named_profile("NVIDIA H100 80GB HBM3"), None);
    }

    #[test]
    fn a_profile_without_a_name_is_computed_as_nvidia_does() {
        assert_eq!(profile((1, 1), 9728, A100_80).as_deref(), Some("1g.10gb"));
        assert_eq!(profile((3, 1), 40192, A100_80).as_deref(), Some("1c.3g.40gb"));
        assert_eq!(profile((7, 7), 81051, A100_80).as_deref(), Some("7g.80gb"));
        assert_eq!(profile((0, 0), 0, 0), None);
    }
}
