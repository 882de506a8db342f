//! Tests that the library fails, blocks and crashes as the facts or the environment variables specify.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::{Fake, facts, open, open_with};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Problem, Section};

#[test]
fn a_lost_gpu_keeps_its_place_and_gives_no_handle() {
    let Fake { nvml, .. } = &open(&facts("xid79-off-bus")).expect("opens");
    assert_eq!(nvml.device_count().ok(), Some(8));
    for index in 0..8 {
        match nvml.device_by_index(index) {
            Ok(device) => assert!(device.uuid().is_ok() && index != 3),
            Err(error) => assert!(matches!(error, NvmlError::GpuLost) && index == 3),
        }
    }
}

#[test]
fn a_lost_gpu_that_is_listed_knows_its_address_and_nothing_else() {
    let mut report = facts("xid79-off-bus");
    let inventory = report.sections.inventory.as_mut().and_then(|section| section.data.as_mut()).expect("it is there");
    let address = PciAddress::parse("0000:5d:00.0");
    inventory.gpus.insert(3, GpuInventory { index: 3, pci_address: address.clone(), ..GpuInventory::default() });
    let Fake { nvml, .. } = &open(&report).expect("opens");
    let device = nvml.device_by_index(3).expect("listed");
    assert_eq!(device.pci_info().ok().and_then(|pci| PciAddress::parse(&pci.bus_id)), address);
    assert!(matches!(device.uuid(), Err(NvmlError::GpuLost)));
    assert!(matches!(device.memory_info(), Err(NvmlError::GpuLost)));
    assert!(matches!(device.running_compute_processes(), Err(NvmlError::GpuLost)));
    let other = nvml.device_by_index(0).expect("listed");
    assert!(matches!(other.topology_common_ancestor(device), Err(NvmlError::GpuLost)));
}

#[test]
fn initialisation_fails_with_the_code_of_the_inventorys_problem() {
    let init = |code: &str| {
        let mut report = facts("healthy-t4-1");
        report.sections.inventory = Some(Section::failed(Problem { code: code.into(), ..Problem::default() }));
        open(&report).err()
    };
    assert!(matches!(open(&facts("no-driver")).err(), Some(NvmlError::DriverNotLoaded)));
    assert!(matches!(open(&facts("driver-mismatch")).err(), Some(NvmlError::LibRmVersionMismatch)));
    assert!(matches!(open(&facts("no-gpu")).err(), Some(NvmlError::LibraryNotFound)));
    assert!(matches!(init("no_permission"), Some(NvmlError::NoPermission)));
    assert!(matches!(init("access_blocked"), Some(NvmlError::OperatingSystem)));
    assert!(matches!(init("something else"), Some(NvmlError::Unknown)));
}

#[test]
fn a_hidden_function_is_as_one_that_an_old_driver_lacks() {
    let switches = [("FAKE_NVML_HIDE", "nvmlDeviceGetSerial, nvmlDeviceGetRepairStatus")];
    let Fake { nvml, .. } = &open_with(&facts("healthy-t4-1"), &switches).expect("opens");
    let device = nvml.device_by_index(0).expect("listed");
    assert!(matches!(device.serial(), Err(NvmlError::FunctionNotFound)));
    assert!(device.uuid().is_ok());
}

#[test]
fn a_call_or_a_field_fails_with_the_code_that_a_switch_names() {
    let switches = [("FAKE_NVML_FAIL", "nvmlDeviceGetPowerUsage:1=999, nvmlDeviceGetFanSpeed_v2=4, field 186:0=29")];
    let Fake { nvml, .. } = &open_with(&facts("healthy-h100-8"), &switches).expect("opens");
    let [one, other] = [0, 1].map(|index| nvml.device_by_index(index).expect("listed"));
    assert!(one.power_usage().is_ok() && matches!(other.power_usage(), Err(NvmlError::Unknown)));
    assert!(matches!(one.fan_speed(0), Err(NvmlError::NoPermission)));
    assert_eq!(field_code(&one, 186), 29);
    assert_eq!((field_code(&one, 82), field_code(&other, 186)), (0, 0));
}

/// Returns the return code of one field.
fn field_code(device: &nvml_wrapper::Device<'_>, id: u32) -> u32 {
    // SAFETY: plain data, for which zeros are valid.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    value.fieldId = id;
    // SAFETY: the handle is valid, and there is one entry.
    assert_eq!(unsafe { device.nvml().lib().nvmlDeviceGetFieldValues(device.handle(), 1, &mut value) }, 0);
    value.nvmlReturn
}

#[test]
fn every_call_is_written_down_where_a_switch_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("calls");
    let switches = [("FAKE_NVML_CALLS", path.to_str().expect("UTF-8"))];
    let Fake { nvml, .. } = &open_with(&facts("healthy-h100-8"), &switches).expect("opens");
    assert!(nvml.device_by_index(3).and_then(|device| device.power_usage()).is_ok());
    let calls = std::fs::read_to_string(path).expect("written");
    assert!(calls.lines().any(|line| line == "nvmlDeviceGetPowerUsage 3"), "{calls}");
}

#[test]
fn a_delay_makes_every_call_slower() {
    let Fake { nvml, .. } = &open_with(&facts("healthy-t4-1"), &[("FAKE_NVML_DELAY_US", "20000")]).expect("opens");
    let begin = Instant::now();
    assert!(nvml.device_count().is_ok());
    assert!(begin.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_blocked_call_never_returns_and_blocks_no_other() {
    let switches = [("FAKE_NVML_BLOCK", "nvmlDeviceGetPowerUsage:2")];
    // The library is never dropped, because the thread below keeps using it.
    let fake: &'static Fake = Box::leak(Box::new(open_with(&facts("healthy-h100-8"), &switches).expect("opens")));
    let power = |index: u32| fake.nvml.device_by_index(index).and_then(|device| device.power_usage());
    let (done, waits) = channel();
    std::thread::spawn(move || done.send(power(2).is_ok()));
    assert!(power(1).is_ok());
    assert_eq!(waits.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    assert!(fake.nvml.device_by_index(2).and_then(|device| device.uuid()).is_ok());
}

#[test]
fn with_a_lock_a_blocked_call_blocks_all() {
    let switches = [("FAKE_NVML_BLOCK", "nvmlDeviceGetPowerUsage:2"), ("FAKE_NVML_LOCK", "1")];
    // The library is never dropped, because the threads below keep using it.
    let fake: &'static Fake = Box::leak(Box::new(open_with(&facts("healthy-h100-8"), &switches).expect("opens")));
    let power = |index: u32| fake.nvml.device_by_index(index).and_then(|device| device.power_usage());
    assert!(power(1).is_ok());
    let (done, waits) = channel();
    let first = done.clone();
    std::thread::spawn(move || first.send(power(2).is_ok()));
    assert_eq!(waits.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    std::thread::spawn(move || done.send(power(1).is_ok()));
    assert_eq!(waits.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
}

/// Wrong arguments of a C caller lead to error codes.
#[test]
fn null_pointers_short_buffers_and_wrong_versions_are_refused() {
    let Fake { nvml, .. } = &open(&facts("healthy-h100-8")).expect("opens");
    let (lib, handle) = (nvml.lib(), unsafe { nvml.device_by_index(0).expect("listed").handle() });
    let mut text = [0; 96];
    let mut number = 0;
    let mut memory = nvmlMemory_v2_t { version: 1, total: 0, reserved: 0, free: 0, used: 0 };
    let unknown = std::ptr::without_provenance_mut(0x7777);
    let null: *mut u8 = std::ptr::null_mut();
    // SAFETY: accepted calls only write to the buffers above. This is the tested property.
    unsafe {
        assert_eq!(lib.nvmlDeviceGetName(handle, null.cast(), 96), 2);
        assert_eq!(lib.nvmlDeviceGetName(handle, text.as_mut_ptr(), 21), 7);
        assert_eq!(lib.nvmlDeviceGetName(handle, text.as_mut_ptr(), 22), 0);
        assert_eq!(lib.nvmlDeviceGetMinorNumber(handle, null.cast()), 2);
        assert_eq!(lib.nvmlDeviceGetMinorNumber(null.cast(), &mut number), 2);
        assert_eq!(lib.nvmlDeviceGetMinorNumber(unknown, &mut number), 2);
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(handle, &mut memory), 25);
        assert_eq!(lib.nvmlDeviceGetComputeRunningProcesses_v3(handle, null.cast(), null.cast()), 2);
        assert_eq!(lib.nvmlDeviceGetComputeRunningProcesses_v3(handle, &mut number, null.cast()), 7);
        assert_eq!(number, 1);
        assert_eq!(lib.nvmlDeviceGetFieldValues(handle, 1, null.cast()), 2);
        let mut set = [0; 1];
        assert_eq!(lib.nvmlDeviceGetCpuAffinity(handle, 1, set.as_mut_ptr()), 7);
        assert_eq!(lib.nvmlDeviceGetTemperatureThreshold(handle, 99, &mut number), 2);
        let words = std::ffi::CStr::from_ptr(lib.nvmlErrorString(15));
        assert_eq!(words, c"GPU is lost");
    }
}

#[test]
fn nothing_answers_before_the_first_and_after_the_last_user() {
    let fake = open(&facts("healthy-t4-1")).expect("opens");
    // SAFETY: the library stays open while `library` exists, and its functions have the types of the real functions.
    unsafe {
        let library = NvmlLib::new(&fake.library).expect("opens");
        let mut count = 0;
        assert_eq!(library.nvmlInitWithFlags(0), 0);
        assert_eq!(library.nvmlShutdown(), 0);
        assert_eq!(library.nvmlDeviceGetCount_v2(&mut count), 0);
        drop(fake.nvml);
        assert_eq!(library.nvmlDeviceGetCount_v2(&mut count), 1);
        assert_eq!(library.nvmlShutdown(), 1);
    }
}
