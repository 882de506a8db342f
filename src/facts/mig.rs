//! The types of the `mig` section: MIG mode and MIG devices of each GPU, from NVML.
//! `GpuMig::layout`: the MIG devices of a GPU, counted by profile.

use syringe_macros::facts;

use super::Mode;
use super::{Unread, Unsupported};

/// MIG state of every GPU that supports MIG.
#[facts(omit(Vec, !gpus))]
pub struct Mig {
    /// One entry per GPU that supports MIG, in NVML's order.
    pub gpus: Vec<GpuMig>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
}

/// MIG state of one GPU.
#[facts]
pub struct GpuMig {
    /// NVML index.
    pub index: u32,
    /// UUID of the GPU.
    pub uuid: Option<String>,
    /// MIG mode; `None` if the GPU does not support MIG.
    pub mode: Option<Mode>,
    /// Maximum number of MIG devices of the GPU.
    pub max_devices: Option<u32>,
    /// The MIG devices. A MIG device is a compute instance in a GPU instance.
    pub devices: Vec<MigDevice>,
}

/// One MIG device.
#[facts]
pub struct MigDevice {
    /// UUID (`MIG-…`).
    pub uuid: Option<String>,
    /// GPU instance id.
    pub gpu_instance: Option<u32>,
    /// Compute instance id.
    pub compute_instance: Option<u32>,
    /// Name of the profile, e.g. `1g.10gb`, `1c.3g.40gb`.
    pub profile: Option<String>,
    /// Number of GPU instance slices.
    pub gpu_slices: Option<u32>,
    /// Number of compute instance slices.
    pub compute_slices: Option<u32>,
    /// Number of multiprocessors.
    pub multiprocessors: Option<u32>,
    /// Total memory.
    pub memory_total_bytes: Option<u64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
}

impl GpuMig {
    /// Returns the MIG devices, counted by profile: `2 x 3g.40gb, 1 x 1g.10gb`. `None` while MIG is off.
    pub fn layout(&self) -> Option<String> {
        let is_on = self.mode.as_ref().is_some_and(|mode| mode.current);
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for device in &self.devices {
            let profile = device.profile.as_deref().unwrap_or("unknown profile");
            match counts.iter_mut().find(|(known, _)| *known == profile) {
                Some((_, count)) => *count += 1,
                None => counts.push((profile, 1)),
            }
        }
        let counts: Vec<_> = counts.iter().map(|(profile, count)| format!("{count} x {profile}")).collect();
        match counts.is_empty() {
            true => is_on.then(|| "no MIG device".to_owned()),
            false => Some(counts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GpuMig, MigDevice};
    use crate::facts::Mode;

    #[test]
    fn the_devices_are_counted_by_profile() {
        let mut gpu = GpuMig { mode: Some(Mode { current: true, ..Mode::default() }), ..GpuMig::default() };
        assert_eq!(gpu.layout().as_deref(), Some("no MIG device"));
        let device = |profile: &str| MigDevice { profile: Some(profile.to_owned()), ..MigDevice::default() };
        gpu.devices = ["3g.40gb", "1g.10gb", "1g.10gb"].map(device).to_vec();
        assert_eq!(gpu.layout().as_deref(), Some("1 x 3g.40gb, 2 x 1g.10gb"));
        assert_eq!(GpuMig::default().layout(), None);
    }
}
