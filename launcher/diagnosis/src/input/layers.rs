//! `Layer`: a layer of a node: PCI, driver, `/dev`, NVML, CDI, kubelet or NVLink.
//! `things`: the devices, device files and modules (`Thing`) that the layers list.
//!
//! Things of different layers are the same if they have a name in common. If a layer was not read completely, nothing
//! counts as missing in it.

use std::collections::BTreeMap;

use crate::evidence::{self, data};
use syringe_core::facts::kubelet::Kubelet;
use syringe_core::facts::kubernetes::node::DraDevice;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::gpu_names::without_share;
use syringe_core::pci::PciAddress;
use syringe_core::report::Status;
use syringe_core::section_name::SectionName;

use crate::input::node::{Gpu, Node};

/// A layer: a list of things of one kind from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// GPUs on the PCI bus that are bound to the nvidia driver.
    Pci,
    /// GPUs that NVML lists.
    Nvml,
    /// GPUs and MIG devices that containers can use: the MIG devices of GPUs in MIG mode, and the other GPUs.
    Schedulable,
    /// All GPUs and MIG devices that NVML lists.
    Listed,
    /// Device files of GPUs: `/dev/nvidiaN`.
    DeviceFiles,
    /// Devices of the CDI specifications.
    Cdi,
    /// Devices that device plugins registered with the kubelet.
    Registered,
    /// GPUs and MIG devices that DRA drivers publish in ResourceSlices.
    Published,
    /// Devices that the kubelet allocated to containers.
    Allocated,
    /// Devices at the remote end of NVLinks.
    LinkedSwitches,
    /// NVSwitches on the PCI bus.
    Switches,
    /// Modules that the driver needs, and device files that do not belong to a GPU.
    Needed,
    /// Kernel modules that are loaded, and device files that do not belong to a GPU.
    Present,
}

impl Layer {
    /// Returns words about a thing of this layer, for evidence.
    pub(crate) const fn listed_in(self) -> &'static str {
        match self {
            Self::Pci | Self::Switches => "on the PCI bus",
            Self::Nvml | Self::Schedulable | Self::Listed => "in NVML",
            Self::DeviceFiles => "in /dev",
            Self::Cdi => "in the CDI specification",
            Self::Registered => "registered with the kubelet",
            Self::Published => "in a ResourceSlice",
            Self::Allocated => "allocated to a container",
            Self::LinkedSwitches => "at the end of NVLinks",
            Self::Needed => "needed by the driver",
            Self::Present => "loaded or in /dev",
        }
    }
}

/// One thing of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    /// The names of the thing: `uuid GPU-…`, `pci 0000:18:00.0`, `index 3`, `file nvidia3`, `module nvidia_uvm`.
    pub(crate) names: Vec<String>,
    /// The name in messages.
    pub(crate) label: String,
    /// The GPU that the thing is, or to which it belongs.
    pub(crate) gpu: Option<Gpu>,
    /// The fact that shows that the thing exists and works, if there is one. A layer that lacks a proven thing is
    /// wrong.
    pub(crate) proof: Option<String>,
}

impl Thing {
    fn named(name: String, label: &str) -> Self {
        Self { names: vec![name], label: label.to_owned(), gpu: None, proof: None }
    }
}

/// Maximum number of devices in one CDI specification of a report.
const MOST_CDI_DEVICES: usize = 64;

/// Returns the things of a layer. `None` if the layer was not read completely.
pub(crate) fn things(node: &Node<'_>, layer: Layer) -> Option<Vec<Thing>> {
    let is_whole = |section: SectionName| {
        let section = node.report.sections.get(section);
        section.status() == Some(Status::Ok) && section.has_data()
    };
    let of_node = node.shows_whole_node();
    let read = match layer {
        Layer::Pci | Layer::DeviceFiles | Layer::Cdi | Layer::Present => is_whole(SectionName::Host) && of_node,
        Layer::Nvml | Layer::Needed => is_whole(SectionName::Inventory) && of_node,
        Layer::Schedulable | Layer::Listed => is_whole(SectionName::Inventory) && is_whole(SectionName::Mig) && of_node,
        Layer::Registered | Layer::Allocated => {
            is_whole(SectionName::Kubelet) && node.kubelet().is_some_and(|kubelet| kubelet.source == "checkpoint")
        }
        Layer::Published => node.kubernetes.gpu_dra == Some(true),
        Layer::LinkedSwitches | Layer::Switches => is_whole(SectionName::Topology) && of_node,
    };
    let things = read.then(|| list(node, layer))??;
    (!things.is_empty() || layer != Layer::Nvml).then_some(things)
}

fn list(node: &Node<'_>, layer: Layer) -> Option<Vec<Thing>> {
    let host = node.host();
    Some(match layer {
        Layer::Pci => {
            let bound = host?.pci_gpus.iter().filter(|gpu| gpu.driver.as_deref() == Some("nvidia"));
            let addresses = bound.filter_map(|gpu| gpu.pci_address.clone());
            addresses.map(|address| Thing::named(pci(&address), &format!("GPU {}", address.sysfs()))).collect()
        }
        Layer::Nvml => node.answering().map(|gpu| whole_gpu(node, gpu)).collect(),
        Layer::Schedulable => schedulable(node),
        Layer::Listed => {
            let whole = node.answering().map(|gpu| whole_gpu(node, gpu));
            whole.chain(node.answering().flat_map(|gpu| mig_devices(node, gpu).unwrap_or_default())).collect()
        }
        Layer::DeviceFiles => {
            let files = host?.device_nodes.iter().filter(|file| gpu_number(file).is_some());
            files.map(|file| Thing::named(format!("file {file}"), &format!("/dev/{file}"))).collect()
        }
        Layer::Cdi => {
            let specs = || host.and_then(|host| host.cdi.as_ref()).into_iter().flat_map(|cdi| &cdi.specs);
            let specs = || specs().filter(|spec| spec.kind == "nvidia.com/gpu");
            // The probe truncates longer lists.
            if specs().any(|spec| spec.devices.len() >= MOST_CDI_DEVICES) {
                return None;
            }
            let specs = specs();
            let devices = specs.flat_map(|spec| &spec.devices).filter(|device| *device != "all");
            devices.filter_map(|device| Some(Thing::named(device_name(device)?, device))).collect()
        }
        Layer::Registered => of_kubelet(node.kubelet()?, |kubelet| {
            kubelet.registered.iter().flat_map(|registered| &registered.devices).collect()
        }),
        Layer::Published => {
            // A GPU that is passed through to virtual machines (vfio) is not in NVML.
            let devices = node.kubernetes.dra_devices.iter().filter(|device| device.kind.as_deref() != Some("vfio"));
            // A MIG device that is created for a claim has no UUID before. Then the devices cannot be compared.
            let named = |device: &DraDevice| {
                let uuid = device.uuid.as_deref()?;
                Some(Thing::named(device_name(uuid)?, &format!("{} ({})", data(&device.name), data(uuid))))
            };
            devices.map(named).collect::<Option<Vec<Thing>>>()?
        }
        Layer::Allocated => of_kubelet(node.kubelet()?, |kubelet| {
            let by_plugin = kubelet.allocations.iter().filter(|allocation| allocation.claim.is_none());
            by_plugin.flat_map(|allocation| &allocation.devices).collect()
        }),
        Layer::LinkedSwitches => {
            let groups = node.topology()?.gpus.iter().flat_map(|gpu: &GpuTopology| &gpu.nvlinks);
            let mut active: BTreeMap<&PciAddress, usize> = BTreeMap::new();
            for (address, group) in groups.filter_map(|group| Some((remote_switch(group)?, group))) {
                let links = if group.active == Some(true) { group.links.len() } else { 0 };
                *active.entry(address).or_default() += links;
            }
            let switch = |(address, links): (&PciAddress, usize)| {
                let name = format!("NVSwitch {}", address.sysfs());
                let proof = (links > 0).then(|| format!("{} to {name} are active", evidence::count(links, "NVLink")));
                Thing { proof, ..Thing::named(pci(address), &name) }
            };
            active.into_iter().map(switch).collect()
        }
        Layer::Switches => {
            let switches = node.topology()?.nvswitches.iter();
            switches.map(|address| Thing::named(pci(address), &format!("NVSwitch {}", address.sysfs()))).collect()
        }
        Layer::Needed => {
            let needed =
                [("module", "nvidia"), ("module", "nvidia_uvm"), ("file", "nvidiactl"), ("file", "nvidia-uvm")];
            let mut things: Vec<Thing> = needed
                .into_iter()
                .map(|(kind, name)| Thing::named(format!("{kind} {name}"), &label(kind, name)))
                .collect();
            let with_gsp = node.inventory()?.gpus.iter().any(|gpu| gpu.gsp_enabled == Some(true));
            if let Some(version) = host.and_then(|host| host.driver.loaded.as_deref()).filter(|_| with_gsp) {
                things.push(Thing::named(format!("firmware {version}"), &label("firmware", version)));
            }
            things
        }
        Layer::Present => {
            let modules = host?.modules.iter().map(|name| ("module", name));
            let files = host?.device_nodes.iter().filter(|file| gpu_number(file).is_none()).map(|name| ("file", name));
            let firmware = host?.gsp_firmware_versions.iter().map(|name| ("firmware", name));
            let all = modules.chain(files).chain(firmware);
            all.map(|(kind, name)| Thing::named(format!("{kind} {name}"), &label(kind, name))).collect()
        }
    })
}

fn label(kind: &str, name: &str) -> String {
    match kind {
        "module" => format!("kernel module {name}"),
        "firmware" => format!("GSP firmware {}", data(name)),
        _ => format!("/dev/{name}"),
    }
}

fn pci(address: &PciAddress) -> String {
    format!("pci {}", address.sysfs())
}

fn remote_switch(group: &syringe_core::facts::topology::NvlinkGroup) -> Option<&PciAddress> {
    group.remote_pci_address.as_ref().filter(|_| group.remote_type.as_deref() == Some("switch"))
}

/// Returns the number of a device file of a GPU: 3 for `nvidia3`.
fn gpu_number(file: &str) -> Option<u32> {
    file.strip_prefix("nvidia")?.parse().ok()
}

/// Returns a GPU with all the names that other layers use for it.
fn whole_gpu(node: &Node<'_>, gpu: &Gpu) -> Thing {
    let minor = node.inventory_of(gpu).and_then(|gpu| gpu.minor_number);
    let names = [
        gpu.pci.as_ref().map(pci),
        gpu.uuid.as_ref().map(|uuid| format!("uuid {uuid}")),
        gpu.index.map(|index| format!("index {index}")),
        minor.map(|minor| format!("file nvidia{minor}")),
    ];
    Thing { names: names.into_iter().flatten().collect(), label: gpu.label(), gpu: Some(gpu.clone()), proof: None }
}

fn schedulable(node: &Node<'_>) -> Vec<Thing> {
    let of_gpu = |gpu: &Gpu| mig_devices(node, gpu).unwrap_or_else(|| vec![whole_gpu(node, gpu)]);
    node.answering().flat_map(of_gpu).collect()
}

/// Returns the MIG devices of a GPU in MIG mode.
fn mig_devices(node: &Node<'_>, gpu: &Gpu) -> Option<Vec<Thing>> {
    let mig = node.mig_of(gpu).filter(|mig| mig.mode.is_some_and(|mode| mode.current))?;
    // NVML's numbers of MIG devices have gaps, so only the UUID identifies a MIG device.
    let uuids = mig.devices.iter().filter_map(|device| device.uuid.as_ref());
    let thing = |uuid: &String| Thing {
        names: vec![format!("uuid {uuid}")],
        label: format!("{} of {}", data(uuid), gpu.label()),
        gpu: Some(gpu.clone()),
        proof: None,
    };
    Some(uuids.map(thing).collect())
}

fn of_kubelet<'k>(kubelet: &'k Kubelet, devices: impl Fn(&'k Kubelet) -> Vec<&'k String>) -> Vec<Thing> {
    let mut things: Vec<Thing> = Vec::new();
    for device in devices(kubelet) {
        // The numbers that plugins of other vendors use are not GPU indices.
        if let Some(name) = device_name(device).filter(|name| !name.starts_with("index"))
            && !things.iter().any(|thing| thing.names.contains(&name))
        {
            things.push(Thing::named(name, &data(device)));
        }
    }
    things
}

/// Returns the name of a device of CDI or of a device plugin, if the device is from NVIDIA: a UUID, an index,
/// `nvidia3`.
fn device_name(device: &str) -> Option<String> {
    let device = without_share(device);
    let is_index =
        |text: &str| text.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if device.starts_with("GPU-") || device.starts_with("MIG-") {
        Some(format!("uuid {device}"))
    } else if is_index(device) {
        Some(format!("index {device}"))
    } else if let Some(index) = device.strip_prefix("gpu").filter(|rest| is_index(rest)) {
        Some(format!("index {index}"))
    } else {
        gpu_number(device.split('/').next()?).map(|number| format!("file nvidia{number}"))
    }
}
