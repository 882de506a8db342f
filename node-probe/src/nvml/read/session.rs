//! NVML, opened once, and its GPUs. A step reads one section of one GPU with [`Session::part`].
//!
//! A session lives as long as the process: a thread that hangs in a call keeps using it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use nvml_wrapper::struct_wrappers::device::PciInfo;
use nvml_wrapper::{Device, Nvml};
use syringe_core::facts::topology::GpuTopology;
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

use super::cache::{Function, KeptAnswers};
use super::device_reader::{Calls, Context, DeviceReader};
use super::identity::Identity;
use super::library;
use crate::child_task::NvmlRequest;
use crate::nvml::answer::{GpuAddress, Missing, Part};
use crate::nvml::current_call::CallRecorder;
use crate::nvml::errors::NvmlError;

/// Maximum length of a text of NVML in a report; NVML's buffers have 96 bytes.
const TEXT: usize = 96;
/// Maximum number of GPUs. No node has more; a higher count of a driver is ignored.
pub(in crate::nvml) const MAX_GPUS: u32 = 128;

const HANDLE: &str = "nvmlDeviceGetHandleByIndex_v2";

/// NVML opened and initialised once.
pub(in crate::nvml) struct Session {
    nvml: &'static Nvml,
    library: PathBuf,
    recorder: CallRecorder,
    pub(in crate::nvml) gpus: Vec<Gpu>,
    /// Whether answers are kept for products: there are several GPUs, and a section has such values.
    shares_products: bool,
    products: Mutex<Vec<(Product, &'static KeptAnswers)>>,
    /// Whether NVML does not support peer-to-peer capabilities. They are then not asked for again.
    pub(in crate::nvml) p2p_absent: AtomicBool,
}

/// One GPU that NVML counts.
pub(in crate::nvml) struct Gpu {
    /// NVML index.
    pub(in crate::nvml) index: u32,
    opened: OnceLock<Opened>,
    /// Why it no longer responds, from the first such call.
    pub(in crate::nvml) gone: OnceLock<NvmlError>,
    kept: KeptAnswers,
    /// Whether a call on it does not return now.
    pub(in crate::nvml) stuck: AtomicBool,
    /// Its links, for the pairs.
    pub(in crate::nvml) topology: OnceLock<GpuTopology>,
}

/// The identity of a GPU, and its handle or the reason why it has none.
struct Opened {
    identity: Identity,
    device: Result<&'static Device<'static>, NvmlError>,
    of_product: Option<&'static KeptAnswers>,
}

/// What tells two products apart: name, PCI device, subsystem, VBIOS.
type Product = (String, u32, Option<u32>, String);

impl Session {
    /// Initializes the first of these libraries that works, and counts its GPUs. `trace` records the current call.
    ///
    /// # Errors
    ///
    /// A problem that lists every library that was tried, with its error and the next step.
    pub(in crate::nvml) fn open_one_of(
        libraries: library::Candidates,
        request: &NvmlRequest,
        recorder: CallRecorder,
    ) -> Result<&'static Self, Problem> {
        let NvmlRequest { paths, sections, without, .. } = request;
        // A GPU that hangs would also stop the initialization.
        let (nvml, library) = library::open(libraries, paths, &recorder, !without.is_empty())?;
        let count = {
            let _under_way = recorder.record("nvmlDeviceGetCount_v2", None);
            nvml.device_count().map_err(|error| NvmlError::from(error).problem("number of GPUs", None))?
        };
        let gpu = |index| Gpu {
            index,
            opened: OnceLock::new(),
            gone: OnceLock::new(),
            kept: KeptAnswers::default(),
            stuck: AtomicBool::new(false),
            topology: OnceLock::new(),
        };
        let gpus: Vec<Gpu> = (0..count.min(MAX_GPUS)).map(gpu).collect();
        let of_products = [SectionName::Inventory, SectionName::Telemetry];
        let shares_products = gpus.len() > 1 && sections.iter().any(|section| of_products.contains(section));
        // Never dropped, because that would call nvmlShutdown.
        let nvml = Box::leak(Box::new(nvml));
        let (products, p2p_absent) = (Mutex::default(), AtomicBool::new(false));
        Ok(Box::leak(Box::new(Self { nvml, library, recorder, gpus, shares_products, products, p2p_absent })))
    }

    /// Path of the library that is open.
    pub(in crate::nvml) fn library(&self) -> &Path {
        &self.library
    }

    /// NVML, for calls without a GPU.
    pub(in crate::nvml) fn nvml(&self) -> &'static Nvml {
        self.nvml
    }

    /// Records the current call, for functions without a GPU.
    pub(in crate::nvml) fn recorder(&self) -> &CallRecorder {
        &self.recorder
    }

    /// The GPUs that respond: PCI address, NVML index, UUID.
    pub(in crate::nvml) fn pci_addresses(&self) -> Vec<GpuAddress> {
        let opened = self.gpus.iter().filter_map(|gpu| gpu.opened.get()).filter(|gpu| gpu.device.is_ok());
        let address =
            |Identity { index, uuid, pci_address }: &Identity| Some((pci_address.clone()?, *index, uuid.clone()));
        opened.filter_map(|gpu| address(&gpu.identity)).collect()
    }

    /// Opens one GPU. For the first process, the driver initializes the GPU, which can take seconds.
    pub(in crate::nvml) fn open(&self, gpu: &Gpu, calls: Calls<'_>) {
        let mut identity = Identity { index: gpu.index, ..Identity::default() };
        let gone = OnceLock::new();
        let reader = DeviceReader::new(self.context(gpu, &gone, None), calls);
        let device = reader.try_call(HANDLE, || {
            let device = self.nvml.device_by_index(gpu.index).map_err(NvmlError::from)?;
            Ok::<&'static Device<'static>, NvmlError>(Box::leak(Box::new(device)))
        });
        let (mut not_reached, mut of_product) = (None, None);
        if let Ok(device) = device {
            let pci = reader.try_call(Function::of_gpu("nvmlDeviceGetPciInfo_v3"), || device.pci_info());
            let uuid = reader.try_call("nvmlDeviceGetUUID", || device.uuid());
            of_product = pci.as_ref().ok().and_then(|pci| self.product(device, &reader, pci));
            let errors = [pci.as_ref().err(), uuid.as_ref().err()];
            not_reached = errors.into_iter().flatten().find(|error| error.is_not_reached()).cloned();
            identity.pci_address = pci.ok().and_then(|pci| PciAddress::parse(&pci.bus_id));
            identity.uuid = uuid.ok().and_then(|uuid| text(&uuid));
        }
        // NVML may still return the handle of a lost GPU, but no values.
        let device = match gone.get().or(not_reached.as_ref()) {
            Some(error) => Err(error.clone()),
            None => device,
        };
        // Already set if a call that was given up returned after all.
        let _ = gpu.opened.set(Opened { identity, device, of_product });
    }

    /// The answers of the product of a GPU, if other GPUs may be of the same.
    fn product(&self, device: &Device<'_>, reader: &DeviceReader<'_>, pci: &PciInfo) -> Option<&'static KeptAnswers> {
        if !self.shares_products {
            return None;
        }
        let name = reader.try_call(Function::of_gpu("nvmlDeviceGetName"), || device.name()).ok()?;
        let vbios = reader.try_call(Function::of_gpu("nvmlDeviceGetVbiosVersion"), || device.vbios_version()).ok()?;
        let product = (name, pci.pci_device_id, pci.pci_sub_system_id, vbios);
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answers)) = products.iter().find(|(known, _)| *known == product) {
            return Some(*answers);
        }
        let answers: &'static KeptAnswers = Box::leak(Box::default());
        products.push((product, answers));
        Some(answers)
    }

    fn context<'a>(
        &'a self,
        gpu: &'a Gpu,
        gone: &'a OnceLock<NvmlError>,
        of_product: Option<&'a KeptAnswers>,
    ) -> Context<'a> {
        Context { gpu: Some(gpu.index), recorder: &self.recorder, gone, kept: &gpu.kept, of_product }
    }

    /// Reads one GPU's part of a section: `start` creates its entry from its identity, and `read` adds the values. A GPU that
    /// stopped responding keeps the values read before.
    pub(in crate::nvml) fn part<T>(
        &self,
        gpu: &Gpu,
        calls: Calls<'_>,
        start: impl FnOnce(Identity) -> T,
        read: impl FnOnce(&'static Device<'static>, &mut DeviceReader<'_>, &mut T),
    ) -> Part<T> {
        let started = Instant::now();
        let complete = matches!(calls, Calls::Made(_));
        // A repetition must not tell the other threads that the GPU is gone.
        let unshared = OnceLock::new();
        let gone = if complete { &gpu.gone } else { &unshared };
        let (entry, missing) = match gpu.opened.get() {
            Some(Opened { identity, device: Ok(device), of_product }) => {
                let mut entry = start(identity.clone());
                let mut reader = DeviceReader::new(self.context(gpu, gone, *of_product), calls);
                read(device, &mut reader, &mut entry);
                (Some(entry), Missing::of(reader, identity))
            }
            Some(Opened { identity, device: Err(error), .. }) => (None, Missing::all(identity, error)),
            None => {
                let identity = Identity { index: gpu.index, ..Identity::default() };
                (None, Missing::all(&identity, &NvmlError::NotReached("the GPU was not opened".into())))
            }
        };
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Part { gpu: gpu.index, entry, missing, complete, duration_us }
    }
}

impl Gpu {
    /// The handle of a GPU that responds, for calls with two GPUs.
    pub(in crate::nvml) fn device(&self) -> Option<&'static Device<'static>> {
        let device = self.opened.get()?.device.as_ref().ok()?;
        (self.gone.get().is_none() && !self.stuck.load(Ordering::SeqCst)).then_some(*device)
    }

    /// Whether it has an entry in sections: it was opened.
    pub(in crate::nvml) fn is_listed(&self) -> bool {
        self.opened.get().is_some_and(|opened| opened.device.is_ok())
    }

    /// UUID.
    pub(in crate::nvml) fn uuid(&self) -> Option<&str> {
        self.opened.get()?.identity.uuid.as_deref()
    }
}

/// A text of NVML, cleaned and truncated; `None` if it is empty.
pub(in crate::nvml) fn text(raw: &str) -> Option<String> {
    Some(clean(raw, TEXT)).filter(|text| !text.is_empty())
}
