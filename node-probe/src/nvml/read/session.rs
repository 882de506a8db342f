//! `Session`: opens NVML and its GPUs once. [`Session::part`] reads one section of one GPU.
//! `Gpu`: a GPU with its handle, or with the reason why it has no handle.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nvml_wrapper::struct_wrappers::device::PciInfo;
use nvml_wrapper::{Device, Nvml};
use syringe_core::facts::topology::GpuTopology;
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

use super::cache::{Cache, Function};
use super::device_reader::{Context, DeviceReader};
use super::identity::{Entry, Identity};
use super::library;
use super::nvlink_fields::LinkFields;
use crate::child_task::NvmlRequest;
use crate::nvml::answer::{GpuAddress, Missing, Part};
use crate::nvml::current_call::CallRecorder;
use crate::nvml::errors::NvmlError;

/// Maximum length of a text from NVML in a report; NVML's buffers have 96 bytes.
const TEXT: usize = 96;
/// Maximum number of GPUs. No node has more, and a higher count from a driver is ignored.
pub(in crate::nvml) const MAX_GPUS: u32 = 128;

const HANDLE: &str = "nvmlDeviceGetHandleByIndex_v2";

/// NVML opened and initialised once.
pub(in crate::nvml) struct Session {
    pub(in crate::nvml) nvml: &'static Nvml,
    /// Path of the library that is open.
    pub(in crate::nvml) library: PathBuf,
    recorder: CallRecorder,
    /// Time after which no call is made.
    deadline: Instant,
    /// Number of GPUs that NVML counts.
    pub(in crate::nvml) count: u32,
    /// The GPUs to read.
    pub(in crate::nvml) gpus: Vec<Gpu>,
    /// Whether answers are cached for each product: only if there are several GPUs, and a section has values that
    /// depend on the product.
    shares_products: bool,
    products: RefCell<Vec<(Product, &'static Cache)>>,
    /// Whether NVML does not support peer-to-peer capabilities. In that case they are not read again.
    pub(in crate::nvml) p2p_absent: Cell<bool>,
}

pub(in crate::nvml) struct Gpu {
    pub(in crate::nvml) identity: Identity,
    /// The GPU's handle, or the reason why it has no handle.
    device: Result<&'static Device<'static>, NvmlError>,
    /// The first error that shows that the GPU no longer responds.
    gone: OnceCell<NvmlError>,
    cache: Cache,
    of_product: Option<&'static Cache>,
    /// The GPU's links, for reading the pairs.
    pub(in crate::nvml) topology: OnceCell<GpuTopology>,
}

/// Identifies a product: name, PCI device, subsystem, VBIOS.
type Product = (String, u32, Option<u32>, String);

impl Session {
    /// Initializes the first of these libraries that works, and opens the GPUs. `recorder` records the current call.
    ///
    /// # Errors
    ///
    /// Fails with a problem that lists every library that was tried, with its error and the next step.
    pub(in crate::nvml) fn open_one_of(
        libraries: library::Candidates,
        request: &NvmlRequest,
        recorder: CallRecorder,
        deadline: Instant,
    ) -> Result<Self, Problem> {
        let NvmlRequest { paths, sections, without, .. } = request;
        // If a GPU is left out because it hangs, NVML is initialized without attaching GPUs. The usual initialization
        // would also hang at this GPU.
        let (nvml, library) = library::open(libraries, paths, &recorder, !without.is_empty())?;
        let count = {
            let _current = recorder.record("nvmlDeviceGetCount_v2", None, None);
            nvml.device_count().map_err(|error| NvmlError::from(error).problem("number of GPUs", None))?
        };
        let count = count.min(MAX_GPUS);
        let of_products = [SectionName::Inventory, SectionName::Telemetry];
        let shares_products = count > 1 && sections.iter().any(|section| of_products.contains(section));
        // `nvml` is never dropped, because that would call nvmlShutdown.
        let nvml = Box::leak(Box::new(nvml));
        let (gpus, products, p2p_absent) = (Vec::new(), RefCell::default(), Cell::new(false));
        let mut session =
            Self { nvml, library, recorder, deadline, count, gpus, shares_products, products, p2p_absent };
        session.gpus = (0..count).filter(|gpu| !without.contains(gpu)).map(|index| session.gpu(index)).collect();
        Ok(session)
    }

    /// Returns the GPUs that respond: PCI address, NVML index, UUID.
    pub(in crate::nvml) fn pci_addresses(&self) -> Vec<GpuAddress> {
        let open = self.gpus.iter().filter(|gpu| gpu.is_open()).map(|gpu| gpu.identity.clone());
        open.filter_map(|Identity { index, uuid, pci_address }| Some((pci_address?, index, uuid))).collect()
    }

    /// Opens one GPU. If no other process uses the GPU, the driver initializes it, which can take seconds.
    fn gpu(&self, index: u32) -> Gpu {
        let mut identity = Identity { index, ..Identity::default() };
        let (gone, cache) = (OnceCell::new(), Cache::default());
        let reader = DeviceReader::new(self.context(Some(index), &gone, &cache, None));
        let device = reader.try_call(HANDLE, || {
            let device = self.nvml.device_by_index(index).map_err(NvmlError::from)?;
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
        // NVML may still return the handle of a lost GPU, but no values of this GPU.
        let device = match gone.get().or(not_reached.as_ref()) {
            Some(error) => Err(error.clone()),
            None => device,
        };
        Gpu { identity, device, gone: OnceCell::new(), cache, of_product, topology: OnceCell::new() }
    }

    /// Returns the cache for the product of a GPU, if other GPUs may be the same product.
    fn product(&self, device: &Device<'_>, reader: &DeviceReader<'_>, pci: &PciInfo) -> Option<&'static Cache> {
        if !self.shares_products {
            return None;
        }
        let name = reader.try_call(Function::of_gpu("nvmlDeviceGetName"), || device.name()).ok()?;
        let vbios = reader.try_call(Function::of_gpu("nvmlDeviceGetVbiosVersion"), || device.vbios_version()).ok()?;
        let product = (name, pci.pci_device_id, pci.pci_sub_system_id, vbios);
        let mut products = self.products.borrow_mut();
        if let Some((_, cache)) = products.iter().find(|(known, _)| *known == product) {
            return Some(*cache);
        }
        let cache: &'static Cache = Box::leak(Box::default());
        products.push((product, cache));
        Some(cache)
    }

    pub(in crate::nvml) fn context<'a>(
        &'a self,
        gpu: Option<u32>,
        gone: &'a OnceCell<NvmlError>,
        cache: &'a Cache,
        of_product: Option<&'a Cache>,
    ) -> Context<'a> {
        Context { gpu, recorder: &self.recorder, gone, cache, of_product, deadline: self.deadline }
    }

    /// Reads one GPU's part of a section: `read` adds the values to the GPU's entry. A GPU that stopped responding keeps the
    /// values that were read before.
    pub(in crate::nvml) fn part<T: Entry>(
        &self,
        gpu: &Gpu,
        read: impl FnOnce(&'static Device<'static>, &mut DeviceReader<'_>, &mut T),
    ) -> Part<T> {
        let started = Instant::now();
        let identity = &gpu.identity;
        let (entry, missing, complete) = match &gpu.device {
            Ok(device) => {
                let mut entry = T::of(identity.clone());
                let mut reader = self.reader(gpu);
                read(device, &mut reader, &mut entry);
                let complete = !reader.is_late.get();
                (Some(entry), Missing::of(reader, identity), complete)
            }
            Err(error) => (None, Missing::all(identity, error), !error.is_not_reached()),
        };
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Part { gpu: identity.index, entry, missing, complete, duration_us }
    }

    /// Returns the time until the deadline for calls.
    pub(in crate::nvml) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(in crate::nvml) fn reader<'a>(&'a self, gpu: &'a Gpu) -> DeviceReader<'a> {
        DeviceReader::new(self.context(Some(gpu.identity.index), &gpu.gone, &gpu.cache, gpu.of_product))
    }

    /// Reads the states and counters of all links of a GPU in one call, and keeps them for its topology.
    pub(in crate::nvml) fn read_links(&self, gpu: &Gpu) {
        if let Ok(device) = gpu.device {
            LinkFields::read(device, &self.reader(gpu));
        }
    }
}

impl Gpu {
    /// Returns the handle of a GPU that responds, for calls with two GPUs.
    pub(in crate::nvml) fn device(&self) -> Option<&'static Device<'static>> {
        self.device.as_ref().ok().copied().filter(|_| self.gone.get().is_none())
    }

    /// Returns whether the GPU has an entry in the sections.
    pub(in crate::nvml) fn is_open(&self) -> bool {
        self.device.is_ok()
    }
}

/// Returns a text from NVML, cleaned and truncated; `None` if the text is empty.
pub(in crate::nvml) fn text(raw: &str) -> Option<String> {
    Some(clean(raw, TEXT)).filter(|text| !text.is_empty())
}
