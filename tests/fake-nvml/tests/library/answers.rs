//! Tests that the library returns the values of the facts file, and exports all functions of a list.

use crate::support::{Fake, facts, open, said};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, InfoRom, MemoryError, MemoryLocation, PerformancePolicy, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::Mode;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};
use syringe_core::scenarios;

/// Returns the scenarios in which NVML works.
fn working() -> impl Iterator<Item = (&'static str, Report)> {
    let all = scenarios::all().iter().map(|scenario| (scenario.name, scenario.report()));
    all.filter(|(_, report)| report.sections.inventory.as_ref().is_some_and(|section| section.data.is_some()))
}

fn data<T: Clone>(section: &Option<Section<T>>) -> T {
    section.clone().and_then(|section| section.data).expect("the scenario has this section")
}

fn mode(current: bool, pending: bool) -> Mode {
    Mode { current, pending }
}

/// Returns the value of a structure's version field: size and version.
fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

#[test]
fn identity_firmware_and_modes_are_those_of_the_facts() {
    for (name, report) in working() {
        let Fake { nvml, .. } = &open(&report).expect(name);
        let inventory = data(&report.sections.inventory);
        assert_eq!(said(nvml.sys_driver_version()), inventory.driver_version);
        assert_eq!(said(nvml.sys_nvml_version()), inventory.nvml_version);
        let cuda = said(nvml.sys_cuda_driver_version()).map(|cuda| format!("{}.{}", cuda / 1000, cuda % 1000 / 10));
        assert_eq!(cuda, inventory.cuda_version);
        for gpu in &inventory.gpus {
            identity(&nvml.device_by_index(gpu.index).expect("listed"), gpu);
            let by_uuid = nvml.device_by_uuid(gpu.uuid.clone().expect("listed")).expect("listed");
            assert_eq!(by_uuid.index().ok(), Some(gpu.index));
            let address = gpu.pci_address.clone().expect("listed");
            let by_address = nvml.device_by_pci_bus_id(address.sysfs()).expect("listed");
            assert_eq!(by_address.index().ok(), Some(gpu.index));
        }
    }
}

fn identity(device: &Device<'_>, gpu: &GpuInventory) {
    let hex =
        |text: &Option<String>| text.as_deref().map(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16));
    let pci = device.pci_info().expect("always");
    assert_eq!(PciAddress::parse(&pci.bus_id), gpu.pci_address);
    assert_eq!(Some(Ok(pci.pci_device_id)), hex(&gpu.pci_device_id));
    assert_eq!(pci.pci_sub_system_id.map(Ok), hex(&gpu.pci_subsystem_id));
    assert_eq!(said(device.name()), gpu.name);
    assert_eq!(said(device.uuid()), gpu.uuid);
    assert_eq!(said(device.serial()), gpu.serial);
    assert_eq!(said(device.board_part_number()), gpu.board_part_number);
    assert_eq!(said(device.board_id()).map(Ok), hex(&gpu.board_id));
    assert_eq!(said(device.minor_number()), gpu.minor_number);
    assert_eq!(said(device.vbios_version()), gpu.vbios_version);
    assert_eq!(said(device.info_rom_image_version()), gpu.inforom.image);
    assert_eq!(said(device.info_rom_version(InfoRom::ECC)), gpu.inforom.ecc);
    assert_eq!(said(device.info_rom_version(InfoRom::Power)), gpu.inforom.power);
    assert_eq!(said(device.gsp_firmware_version()), gpu.gsp_firmware_version);
    assert_eq!(said(device.gsp_firmware_mode()).map(|mode| mode.enabled), gpu.gsp_enabled);
    assert_eq!(said(device.is_in_persistent_mode()), gpu.persistence_mode);
    assert_eq!(said(device.is_display_active()), gpu.display_active);
    assert_eq!(said(device.num_cores()), gpu.cores);
    assert_eq!(said(device.max_pcie_link_gen()), gpu.pcie_max_generation);
    assert_eq!(said(device.max_pcie_link_width()), gpu.pcie_max_width);
    assert_eq!(said(device.bar1_memory_info()).map(|bar1| bar1.total), gpu.bar1_total_bytes);
    let capability = said(device.cuda_compute_capability());
    assert_eq!(capability.map(|it| format!("{}.{}", it.major, it.minor)), gpu.compute_capability);
    assert_eq!(said(device.architecture()).map(|architecture| format!("{architecture:?}")), gpu.architecture);
    assert_eq!(
        said(device.brand()).map(|brand| format!("{brand:?}").to_lowercase()),
        gpu.brand.as_ref().map(|brand| brand.to_lowercase())
    );
    let ecc = said(device.is_ecc_enabled()).map(|ecc| mode(ecc.currently_enabled, ecc.pending_enabled));
    assert_eq!(ecc, gpu.ecc_mode);
    assert_eq!(said(device.mig_mode()).map(|mig| mode(mig.current != 0, mig.pending != 0)), gpu.mig_mode);
    assert_eq!(said(device.compute_mode()).map(|mode| format!("{mode:?}").to_lowercase()), gpu.compute_mode);
}

#[test]
fn readings_are_those_of_the_facts() {
    for (name, report) in working() {
        let Fake { nvml, .. } = &open(&report).expect(name);
        for gpu in &data(&report.sections.telemetry).gpus {
            reading(&nvml.device_by_index(gpu.index).expect("listed"), gpu);
        }
    }
}

fn reading(device: &Device<'_>, gpu: &GpuTelemetry) {
    let celsius = |degrees: Option<u32>| degrees.map(|degrees| degrees as i32);
    let threshold = |which| celsius(said(device.temperature_threshold(which)));
    let GpuTelemetry { temperature, power, clocks, utilization, memory, pcie, throttling, .. } = gpu;
    assert_eq!(celsius(said(device.temperature(TemperatureSensor::Gpu))), temperature.gpu_celsius);
    assert_eq!(threshold(TemperatureThreshold::Slowdown), temperature.slowdown_celsius);
    assert_eq!(threshold(TemperatureThreshold::Shutdown), temperature.shutdown_celsius);
    assert_eq!(threshold(TemperatureThreshold::GpuMax), temperature.gpu_max_celsius);
    assert_eq!(threshold(TemperatureThreshold::MemoryMax), temperature.memory_max_celsius);
    assert_eq!(said(device.fan_speed(0)), gpu.fan_percent);
    assert_eq!(said(device.power_usage()), power.draw_milliwatts);
    assert_eq!(said(device.power_management_limit()), power.limit_milliwatts);
    assert_eq!(said(device.power_management_limit_default()), power.default_limit_milliwatts);
    assert_eq!(said(device.enforced_power_limit()), power.enforced_limit_milliwatts);
    let range = said(device.power_management_limit_constraints());
    assert_eq!(range.as_ref().map(|range| range.min_limit), power.min_limit_milliwatts);
    assert_eq!(range.map(|range| range.max_limit), power.max_limit_milliwatts);
    assert_eq!(said(device.total_energy_consumption()), power.energy_millijoules);
    assert_eq!(said(device.clock_info(Clock::SM)), clocks.sm_mhz);
    assert_eq!(said(device.clock_info(Clock::Video)), clocks.video_mhz);
    assert_eq!(said(device.max_clock_info(Clock::Graphics)), clocks.max_graphics_mhz);
    assert_eq!(said(device.max_clock_info(Clock::Memory)), clocks.max_memory_mhz);
    assert_eq!(said(device.applications_clock(Clock::Memory)), clocks.application_memory_mhz);
    assert_eq!(said(device.utilization_rates()).map(|rates| rates.gpu), utilization.gpu_percent);
    assert_eq!(said(device.utilization_rates()).map(|rates| rates.memory), utilization.memory_percent);
    assert_eq!(said(device.decoder_utilization()).map(|rate| rate.utilization), utilization.decoder_percent);
    let now = said(device.memory_info()).expect("always");
    assert_eq!([now.total, now.used, now.free].map(Some), [memory.total_bytes, memory.used_bytes, memory.free_bytes]);
    assert_eq!(Some(now.reserved), memory.reserved_bytes);
    assert_eq!(said(device.bar1_memory_info()).map(|bar1| bar1.used), memory.bar1_used_bytes);
    assert_eq!(said(device.current_pcie_link_gen()), pcie.generation);
    assert_eq!(said(device.current_pcie_link_width()), pcie.width);
    assert_eq!(said(device.pcie_replay_counter()).map(u64::from), pcie.replays);
    let reasons = said(device.current_throttle_reasons()).map(|reasons| reasons.bits());
    assert_eq!(reasons, throttling.reasons_mask);
    let power_cap = throttling.violations.iter().find(|violation| violation.policy == "power");
    let time = said(device.violation_status(PerformancePolicy::Power)).map(|time| time.violation_time / 1_000_000);
    assert_eq!(time, Some(power_cap.map_or(0, |violation| violation.duration_ms)));
    assert_eq!(said(field(device, 82, 0)).map(|degrees| degrees as i32), temperature.memory_celsius);
    assert_eq!(said(field(device, 186, 0)).map(|milliwatts| milliwatts as u32), power.instant_milliwatts);
    let mut margin = nvmlMarginTemperature_t { version: version::<nvmlMarginTemperature_t>(1), marginTemperature: 0 };
    // SAFETY: the handle is valid, and the structure has the stated version.
    let code = unsafe { device.nvml().lib().nvmlDeviceGetMarginTemperature(device.handle(), &mut margin) };
    assert_eq!((code == 0).then_some(margin.marginTemperature), temperature.tlimit_margin_celsius);
}

/// Returns the value of a field as an integer.
fn field(device: &Device<'_>, id: u32, scope: u32) -> Result<i64, nvml_wrapper::error::NvmlError> {
    // SAFETY: plain data, for which zeros are valid.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    (value.fieldId, value.scopeId) = (id, scope);
    // SAFETY: the handle is valid, and there is one entry.
    nvml_wrapper::error::nvml_try(unsafe {
        device.nvml().lib().nvmlDeviceGetFieldValues(device.handle(), 1, &mut value)
    })?;
    nvml_wrapper::error::nvml_try(value.nvmlReturn)?;
    // SAFETY: the library has set the union, and `valueType` identifies the member.
    Ok(unsafe {
        match value.valueType {
            nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => value.value.uiVal.into(),
            nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => value.value.siVal.into(),
            _ => value.value.ullVal as i64,
        }
    })
}

#[test]
fn nvlinks_fabric_and_neighbours_are_those_of_the_facts() {
    for (name, report) in working() {
        let Fake { nvml, .. } = &open(&report).expect(name);
        let topology = data(&report.sections.topology);
        for gpu in &topology.gpus {
            let device = nvml.device_by_index(gpu.index).expect("listed");
            for group in &gpu.nvlinks {
                for number in &group.links {
                    let link = device.link_wrapper_for(*number);
                    assert_eq!(said(link.is_active()), group.active, "{name}");
                    assert_eq!(said(link.version()), group.version);
                    let remote = said(link.remote_pci_info()).and_then(|pci| PciAddress::parse(&pci.bus_id));
                    assert_eq!(remote, group.remote_pci_address);
                    assert_eq!(
                        said(field(&device, 164, *number)).map(|speed| speed as u32),
                        group.speed_megabytes_per_second
                    );
                    // A link has either the counters of NVLink 4 or those of NVLink 5.
                    assert_eq!(said(field(&device, 163, *number)).is_some(), group.version < Some(5));
                    assert_eq!(said(field(&device, 221, *number)).is_some(), group.version >= Some(5));
                }
            }
            let links = gpu.nvlinks.iter().map(|group| group.links.len()).sum::<usize>() as u32;
            assert!(device.link_wrapper_for(links).is_active().is_err());
            let words = said(device.cpu_affinity(4)).expect("always");
            assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), cpus(gpu.cpu_affinity.as_deref()));
        }
        if let [first, second, ..] = &topology.gpus[..] {
            let [one, other] = [first, second].map(|gpu| nvml.device_by_index(gpu.index).expect("listed"));
            let readable = topology.p2p_all_ok.iter().any(|capability| capability == "read");
            let index = nvml_wrapper::enum_wrappers::device::P2pCapabilitiesIndex::Read;
            let status = one.p2p_status(&other, index).expect("always");
            assert_eq!(status == nvml_wrapper::enum_wrappers::device::P2pStatus::Ok, readable, "{name}");
        }
    }
}

fn cpus(list: Option<&str>) -> u32 {
    let ranges = list.expect("always").split(',');
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().expect("a number") - first.parse::<u32>().expect("a number") + 1
    };
    ranges.map(count).sum()
}

#[test]
fn a_rack_is_registered_with_its_fabric() {
    let Fake { nvml, .. } = &open(&facts("gb200-4")).expect("opens");
    let device = nvml.device_by_index(2).expect("listed");
    // SAFETY: plain data, for which zeros are valid.
    let mut info: nvmlGpuFabricInfo_v3_t = unsafe { std::mem::zeroed() };
    info.version = version::<nvmlGpuFabricInfo_v3_t>(3);
    // SAFETY: the handle is valid, and the structure has the stated version.
    assert_eq!(unsafe { nvml.lib().nvmlDeviceGetGpuFabricInfoV(device.handle(), &mut info) }, 0);
    assert_eq!((info.state, info.status, info.cliqueId, info.healthSummary), (3, 0, 32766, 1));
    assert_eq!(info.healthMask, 0b01_1010_1010);
    assert_ne!(info.clusterUuid, [0; 16]);
    // SAFETY: as above.
    let mut platform: nvmlPlatformInfo_v2_t = unsafe { std::mem::zeroed() };
    platform.version = version::<nvmlPlatformInfo_v2_t>(2);
    // SAFETY: as above.
    assert_eq!(unsafe { nvml.lib().nvmlDeviceGetPlatformInfo(device.handle(), &mut platform) }, 0);
    assert_eq!(&platform.chassisSerialNumber[..13], b"1823725190437");
    assert_eq!((platform.slotNumber, platform.trayIndex, platform.moduleId), (14, 6, 3));
}

#[test]
fn memory_errors_and_repairs_are_those_of_the_facts() {
    let report = facts("ecc-remap-pending");
    let Fake { nvml, .. } = &open(&report).expect("opens");
    for gpu in &data(&report.sections.ecc).gpus {
        let device = nvml.device_by_index(gpu.index).expect("listed");
        let total = |kind, counter| said(device.total_ecc_errors(kind, counter));
        assert_eq!(total(MemoryError::Uncorrected, EccCounter::Volatile), gpu.volatile.uncorrected);
        assert_eq!(total(MemoryError::Corrected, EccCounter::Aggregate), gpu.aggregate.corrected);
        let dram =
            said(device.memory_error_counter(MemoryError::Uncorrected, EccCounter::Volatile, MemoryLocation::Device));
        assert_eq!(dram, gpu.volatile.uncorrected);
        let rows = gpu.remapped_rows.clone().expect("Ampere");
        let fields = [142, 143, 144, 145].map(|id| said(field(&device, id, 0)).expect("Ampere"));
        let [correctable, uncorrectable] = [rows.correctable, rows.uncorrectable].map(i64::from);
        assert_eq!(fields, [correctable, uncorrectable, rows.pending.into(), rows.failure_occurred.into()]);
        assert_eq!(said(field(&device, 230, 0)), Some(if gpu.index == 5 { 4 } else { 0 }));
        assert!(device.validate_info_rom().is_ok());
        assert_eq!(said(device.are_pages_pending_retired()), None);
    }
}

#[test]
fn pages_are_retired_where_rows_cannot_be_remapped() {
    let mut report = facts("healthy-t4-1");
    let ecc = report.sections.ecc.as_mut().and_then(|section| section.data.as_mut()).expect("the scenario has it");
    let pages = ecc.gpus[0].retired_pages.as_mut().expect("Turing");
    (pages.single_bit, pages.double_bit, pages.pending) = (Some(3), Some(1), Some(true));
    let Fake { nvml, .. } = &open(&report).expect("opens");
    let device = nvml.device_by_index(0).expect("listed");
    use nvml_wrapper::enum_wrappers::device::RetirementCause::{DoubleBitEccError, MultipleSingleBitEccErrors};
    assert_eq!(device.retired_pages(MultipleSingleBitEccErrors).map(|pages| pages.len()).ok(), Some(3));
    assert_eq!(device.retired_pages(DoubleBitEccError).map(|pages| pages.len()).ok(), Some(1));
    assert_eq!(said(device.are_pages_pending_retired()), Some(true));
    assert_eq!(said(field(&device, 144, 0)), None);
}

#[test]
fn mig_devices_are_those_of_the_facts() {
    let report = facts("a100-mig-8");
    let Fake { nvml, .. } = &open(&report).expect("opens");
    for gpu in &data(&report.sections.mig).gpus {
        let device = nvml.device_by_index(gpu.index).expect("listed");
        assert_eq!(said(device.mig_device_count()), gpu.max_devices);
        let found: Vec<_> = (0..7).filter_map(|index| device.mig_device_by_index(index).ok()).collect();
        assert_eq!(found.len(), gpu.devices.len());
        for (mig, fact) in found.iter().zip(&gpu.devices) {
            assert_eq!(said(mig.uuid()), fact.uuid);
            assert_eq!(mig.mig_is_mig_device_handle().ok(), Some(true));
            let parent = mig.mig_parent_device().and_then(|parent| parent.index());
            assert_eq!(parent.ok(), Some(gpu.index));
            assert_eq!(said(mig.memory_info()).map(|memory| memory.used), fact.memory_used_bytes);
            assert!(said(mig.name()).is_some_and(|name| name.ends_with(fact.profile.as_deref().unwrap_or("?"))));
            let attributes = said(mig.attributes());
            assert_eq!(attributes.map(|attributes| attributes.multiprocessor_count), fact.multiprocessors);
            // Only a whole GPU supports this call.
            assert_eq!(said(mig.power_usage()), None);
        }
    }
}

#[test]
fn processes_are_those_of_the_facts() {
    for (name, report) in working() {
        let Fake { nvml, .. } = &open(&report).expect(name);
        let facts = data(&report.sections.processes);
        for gpu in &data(&report.sections.inventory).gpus {
            let device = nvml.device_by_index(gpu.index).expect("listed");
            let bytes = |memory: UsedGpuMemory| match memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let said: Vec<_> = device
                .running_compute_processes()
                .expect("always")
                .into_iter()
                .map(|process| (process.pid, bytes(process.used_gpu_memory), process.gpu_instance_id))
                .collect();
            let fact: Vec<_> = facts
                .processes
                .iter()
                .flat_map(|process| process.uses.iter().map(move |usage| (process.pid, usage)))
                .filter(|(_, usage)| usage.gpu == gpu.index)
                .map(|(pid, usage)| (pid, usage.memory_bytes, usage.mig_gpu_instance))
                .collect();
            assert_eq!(said, fact, "{name}");
            assert_eq!(device.running_graphics_processes_count().ok(), Some(0));
        }
    }
}

/// The library exports every function that the probe needs.
#[test]
fn no_function_is_missing() {
    let Fake { nvml, .. } = &open(&facts("healthy-h100-8")).expect("opens");
    macro_rules! exported {
        ($($name:ident)*) => { $( assert!(nvml.lib().$name.is_ok(), stringify!($name)); )* };
    }
    exported! {
        nvmlInit_v2 nvmlInitWithFlags nvmlShutdown nvmlErrorString nvmlSystemGetCudaDriverVersion
        nvmlSystemGetProcessName nvmlDeviceGetModuleId nvmlDeviceGetVirtualizationMode nvmlDeviceGetDisplayMode
        nvmlDeviceGetDefaultEccMode nvmlDeviceGetMemoryInfo nvmlDeviceGetGpuMaxPcieLinkGeneration
        nvmlDeviceGetPowerState
        nvmlDeviceGetTemperatureV nvmlDeviceGetFanSpeed nvmlDeviceGetNumFans nvmlDeviceGetClock
        nvmlDeviceGetDefaultApplicationsClock nvmlDeviceGetJpgUtilization nvmlDeviceGetOfaUtilization
        nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetSupportedClocksEventReasons
        nvmlDeviceGetSupportedClocksThrottleReasons nvmlDeviceGetSramEccErrorStatus nvmlDeviceGetRemappedRows
        nvmlDeviceGetRowRemapperHistogram nvmlDeviceGetRetiredPages nvmlDeviceGetRetiredPages_v2
        nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetRepairStatus nvmlDeviceGetNvLinkCapability
        nvmlDeviceGetNvLinkRemoteDeviceType nvmlDeviceGetNvLinkErrorCounter nvmlDeviceGetGpuFabricInfo
        nvmlDeviceGetTopologyCommonAncestor nvmlDeviceGetTopologyNearestGpus nvmlDeviceGetMemoryAffinity
        nvmlDeviceGetNumaNodeId nvmlDeviceGetGpuInstanceId nvmlDeviceGetComputeInstanceId
        nvmlDeviceGetMPSComputeRunningProcesses_v3 nvmlDeviceGetRunningProcessDetailList
        nvmlGpmQueryDeviceSupport nvmlGpmSampleAlloc nvmlGpmSampleGet nvmlGpmSampleFree nvmlGpmMetricsGet
    }
}
