//! `licensable_features`: reads the vGPU features that need a license, with their license state.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

use super::NvmlError;

/// A licensable feature as NVML returns it.
pub(in crate::nvml) type Feature = sys::nvmlGridLicensableFeature_t;

/// Returns the features; an empty list if the driver has no licensable features.
pub(in crate::nvml) fn licensable_features(device: &Device<'_>) -> Result<Vec<Feature>, NvmlError> {
    let expiry = sys::nvmlGridLicenseExpiry_t { year: 0, month: 0, day: 0, hour: 0, min: 0, sec: 0, status: 0 };
    let blank = Feature {
        featureCode: 0,
        featureState: 0,
        licenseInfo: [0; 128],
        productName: [0; 128],
        featureEnabled: 0,
        licenseExpiry: expiry,
    };
    let mut features = sys::nvmlGridLicensableFeatures_t {
        isGridLicenseSupported: 0,
        licensableFeaturesCount: 0,
        gridLicensableFeatures: [blank; 3],
    };
    call!(device, nvmlDeviceGetGridLicensableFeatures_v4, &mut features)?;
    // The count comes from the driver, so it is limited to the length of the array.
    let count = if features.isGridLicenseSupported == 0 { 0 } else { features.licensableFeaturesCount as usize };
    Ok(features.gridLicensableFeatures.into_iter().take(count).collect())
}
