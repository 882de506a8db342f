//! NVML, opened once, and its GPUs. Sections read one GPU after the other with [`Session::each`].

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nvml_wrapper::{Device, Nvml};
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use super::current_call::CallRecorder;
use super::device_reader::DeviceReader;
use super::errors::{Kind, NvmlError};
use super::field_errors::FieldErrors;
use super::identity::Identity;
use super::library;
use crate::paths::Paths;

/// Maximum length of a text of NVML in a report; NVML's buffers have 96 bytes.
const TEXT: usize = 96;
/// Maximum number of GPUs. No node has more; a higher count of a driver is ignored.
const MAX_GPUS: u32 = 128;

/// NVML opened and initialised once. Dropping it shuts NVML down.
pub(crate) struct Session {
    nvml: Nvml,
    library: PathBuf,
    recorder: CallRecorder,
    gpus: Vec<Gpu>,
}

/// One GPU that NVML lists.
struct Gpu {
    identity: Identity,
    /// Why it cannot be read: there is no handle, or it was lost before the session opened.
    closed: Option<NvmlError>,
    /// Why it no longer responds, from the first such call.
    gone: OnceLock<NvmlError>,
}

impl Session {
    /// Initializes the first of these libraries that works, and lists its GPUs. `trace` records the current call.
    ///
    /// # Errors
    ///
    /// A problem that lists every library that was tried, with its error and the next step.
    pub(super) fn open_one_of(
        libraries: library::Candidates,
        paths: &Paths,
        recorder: &CallRecorder,
    ) -> Result<Self, Problem> {
        let (nvml, library) = library::open(libraries, paths, recorder)?;
        let count = {
            let _under_way = recorder.record("nvmlDeviceGetCount_v2", None);
            nvml.device_count().map_err(|error| NvmlError::from(error).problem("number of GPUs", None))?
        };
        let gpus = (0..count.min(MAX_GPUS)).map(|index| Gpu::open(&nvml, index, recorder)).collect();
        Ok(Self { nvml, library, recorder: recorder.clone(), gpus })
    }

    /// Path of the library that is open.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// Number of GPUs of NVML (`nvmlDeviceGetCount_v2`), including those that do not respond.
    pub(crate) fn device_count(&self) -> usize {
        self.gpus.len()
    }

    /// The GPUs that respond: PCI address, NVML index, UUID.
    pub(crate) fn pci_addresses(&self) -> Vec<(PciAddress, u32, Option<String>)> {
        let identities = self.gpus.iter().filter(|gpu| gpu.closed.is_none()).map(|gpu| &gpu.identity);
        identities.filter_map(|gpu| Some((gpu.pci_address.clone()?, gpu.index, gpu.uuid.clone()))).collect()
    }

    /// Frame buffer in use (`nvmlDeviceGetMemoryInfo_v2`): NVML index and bytes, only GPUs that return it.
    pub(crate) fn memory_used(&self) -> Vec<(u32, u64)> {
        let used = |device: &Device<'_>, reader: &mut DeviceReader<'_>, used: &mut Option<u64>| {
            *used = reader
                .call_ignoring_errors("nvmlDeviceGetMemoryInfo_v2", || super::raw::memory(device))
                .map(|memory| memory.used);
        };
        self.numbers(used)
    }

    /// `/dev/nvidiaN` of each GPU (`nvmlDeviceGetMinorNumber`): NVML index and N, only GPUs that return it.
    pub(crate) fn minor_numbers(&self) -> Vec<(u32, u32)> {
        self.numbers(|device, reader, minor| {
            *minor = reader.call_ignoring_errors("nvmlDeviceGetMinorNumber", || device.minor_number());
        })
    }

    fn numbers<N>(&self, read: impl FnMut(&Device<'_>, &mut DeviceReader<'_>, &mut Option<N>)) -> Vec<(u32, N)> {
        let mut indices = Vec::new();
        let note = |gpu: Identity| {
            indices.push(gpu.index);
            None
        };
        let (numbers, _) = self.each(note, read);
        indices.into_iter().zip(numbers).filter_map(|(index, number)| Some((index, number?))).collect()
    }

    /// NVML, for calls without a GPU.
    pub(super) fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// Records the current call, for functions without a GPU.
    pub(super) fn recorder(&self) -> &CallRecorder {
        &self.recorder
    }

    /// Reads every GPU: `start` creates its entry from its identity, and `read` adds the values. A GPU without a handle has
    /// no entry, and a GPU that stopped responding keeps the values read before. Both have a problem.
    pub(super) fn each<T>(
        &self,
        mut start: impl FnMut(Identity) -> T,
        mut read: impl FnMut(&Device<'_>, &mut DeviceReader<'_>, &mut T),
    ) -> (Vec<T>, FieldErrors) {
        let (mut entries, mut field_errors) = (Vec::new(), FieldErrors::default());
        for gpu in &self.gpus {
            if let Some(error) = &gpu.closed {
                field_errors.add_unresponsive_gpu(&gpu.identity, error);
                continue;
            }
            let mut entry = start(gpu.identity.clone());
            let mut reader = DeviceReader::new(gpu.identity.index, &self.recorder, &gpu.gone);
            match reader.try_call(HANDLE, || self.nvml.device_by_index(gpu.identity.index)) {
                Ok(device) => read(&device, &mut reader, &mut entry),
                Err(error) if error.kind() != Kind::Gone => field_errors.add_unresponsive_gpu(&gpu.identity, &error),
                Err(_) => {}
            }
            field_errors.add_gpu(reader, &gpu.identity);
            entries.push(entry);
        }
        (entries, field_errors)
    }

    /// The handle of a GPU that responds, for calls with two GPUs.
    pub(super) fn device(&self, index: u32) -> Option<Device<'_>> {
        let gpu = self.gpus.iter().find(|gpu| gpu.identity.index == index)?;
        let answers = gpu.closed.is_none() && gpu.gone.get().is_none();
        if answers { self.nvml.device_by_index(index).ok() } else { None }
    }
}

const HANDLE: &str = "nvmlDeviceGetHandleByIndex_v2";

impl Gpu {
    /// Opens one GPU. For the first process, the driver initializes the GPU, which can take seconds.
    fn open(nvml: &Nvml, index: u32, recorder: &CallRecorder) -> Self {
        let mut gpu = Self { identity: Identity { index, ..Identity::default() }, closed: None, gone: OnceLock::new() };
        let opened = {
            let _under_way = recorder.record(HANDLE, Some(index));
            nvml.device_by_index(index)
        };
        match opened {
            Ok(device) => gpu.identify(&device, recorder),
            Err(error) => gpu.closed = Some(error.into()),
        }
        // NVML may still return the handle of a lost GPU, but no values.
        if let Some(error) = gpu.gone.get() {
            gpu.closed = Some(error.clone());
        }
        gpu
    }

    fn identify(&mut self, device: &Device<'_>, recorder: &CallRecorder) {
        let index = self.identity.index;
        let pci = {
            let _under_way = recorder.record("nvmlDeviceGetPciInfo_v3", Some(index));
            device.pci_info().map_err(NvmlError::from)
        };
        let uuid = {
            let _under_way = recorder.record("nvmlDeviceGetUUID", Some(index));
            device.uuid().map_err(NvmlError::from)
        };
        for error in [pci.as_ref().err(), uuid.as_ref().err()].into_iter().flatten() {
            if error.kind() == Kind::Gone {
                let _ = self.gone.set(error.clone());
            }
        }
        self.identity.pci_address = pci.ok().and_then(|pci| PciAddress::parse(&pci.bus_id));
        self.identity.uuid = uuid.ok().and_then(|uuid| text(&uuid));
    }
}

/// A text of NVML, cleaned and truncated; `None` if it is empty.
pub(super) fn text(raw: &str) -> Option<String> {
    Some(clean(raw, TEXT)).filter(|text| !text.is_empty())
}
