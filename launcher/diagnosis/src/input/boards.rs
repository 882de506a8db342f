//! `Board`, `of`, `of_node`: the board of a GPU product, with its NVLinks, NVSwitches and fabric. `count`: the number
//! of GPUs of a node. `is_virtual_machine`, `is_bare_metal`, `is_integrated`, `hypervisor`: the kind of machine of a
//! node.
//!
//! If all GPUs of a node have the same fault, a comparison of the GPUs with each other does not show it. Sources of the
//! table: NVIDIA's data sheets and HGX guides (NVLinks, GPUs, NVSwitches), the Fabric Manager guide (fabric), and NVML
//! field 164 (speeds).

use crate::input::instance_types;
use crate::input::node::{Gpu, Node};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::topology::GpuTopology;
use syringe_core::pci::PciAddress;

/// A GPU product that is mounted on boards with NVLink. PCIe cards with the same name are different products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Board {
    /// A word in the product's name in NVML.
    pub(crate) product: &'static str,
    /// Number of NVLinks that the board uses for each GPU.
    pub(crate) links: u32,
    /// Speed of one NVLink in one direction, as NVML reports it.
    pub(crate) link_megabytes_per_second: u32,
    /// Number of GPUs and number of NVSwitches on the PCI bus (0: none), for each size of the board with NVSwitches.
    pub(crate) switches: &'static [(usize, usize)],
    /// Numbers of GPUs that a whole board can have, if every machine gets a whole board. Empty if a machine can have a
    /// part of a board.
    pub(crate) sizes: &'static [usize],
    /// Whether GPUs behind NVSwitches register with the fabric through NVML.
    pub(crate) has_fabric: bool,
}

/// Speeds of one NVLink, for the generations 2 to 5.
const NVLINK_2: u32 = 25_781;
const NVLINK_3: u32 = 25_781;
const NVLINK_4: u32 = 26_562;
const NVLINK_5: u32 = 53_125;

const fn board(
    product: &'static str,
    links: u32,
    link_megabytes_per_second: u32,
    switches: &'static [(usize, usize)],
    has_fabric: bool,
) -> Board {
    Board { product, links, link_megabytes_per_second, switches, sizes: &[], has_fabric }
}

/// Creates the board of a compute tray or a superchip, which is one machine without NVSwitches.
const fn tray(
    product: &'static str,
    link_megabytes_per_second: u32,
    sizes: &'static [usize],
    has_fabric: bool,
) -> Board {
    Board { product, links: 18, link_megabytes_per_second, switches: &[], sizes, has_fabric }
}

const BOARDS: &[Board] = &[
    // HGX-2: two baseboards with six NVSwitches each.
    board("V100-SXM3", 6, NVLINK_2, &[(8, 6), (16, 12)], false),
    board("A100-SXM4", 12, NVLINK_3, &[(8, 6), (16, 12)], false),
    // Products with less NVLink bandwidth because of export rules: 400 GB/s instead of 600 or 900 GB/s.
    board("A800-SXM4", 8, NVLINK_3, &[(8, 6)], false),
    board("H800", 8, NVLINK_4, &[(8, 4)], true),
    board("H100", 18, NVLINK_4, &[(8, 4)], true),
    board("H200", 18, NVLINK_4, &[(8, 4)], true),
    board("H20", 18, NVLINK_4, &[(8, 4)], true),
    // The NVSwitches of HGX B200 and B300 are managed through network cards and are not PCI devices of the node.
    board("B200", 18, NVLINK_5, &[(8, 0)], true),
    board("B300", 18, NVLINK_5, &[(8, 0)], true),
    // Racks and superchips: the NVSwitches of a rack are not in its GPU nodes, and a superchip has no NVSwitches.
    tray("GB200", NVLINK_5, &[2, 4], true),
    tray("GB300", NVLINK_5, &[2, 4], true),
    tray("GH200", NVLINK_4, &[1, 2, 4], false),
];

/// Words in the names of products that are cards. Cards have other connections than boards.
const CARDS: [&str; 4] = ["PCIe", "NVL", "CNX", "PCIE"];

/// Returns the board of a GPU with this name. `None` for cards and for products that are not in the table.
pub(crate) fn of_name(name: &str) -> Option<&'static Board> {
    let words: Vec<&str> = name.split([' ', '-']).collect();
    let is_card = words.iter().any(|word| CARDS.contains(word));
    let is_product = |product: &str| product.split('-').all(|part| words.contains(&part));
    BOARDS.iter().find(|board| !is_card && is_product(board.product))
}

/// Returns whether the kernel manages the memory of this product as memory of the host: superchips with Grace.
pub(crate) fn shares_memory(name: &str) -> bool {
    of_name(name).is_some_and(|board| board.product.starts_with('G'))
}

/// Returns the board of a GPU.
pub(crate) fn of(gpu: &Gpu) -> Option<&'static Board> {
    of_name(gpu.name.as_deref()?)
}

/// Returns the board of the node, if the node is not a virtual machine, all its GPUs were read, and they are of one
/// product.
pub(crate) fn of_node(node: &Node<'_>) -> Option<&'static Board> {
    let board = of(node.answering().next()?)?;
    (node.shows_whole_node() && is_bare_metal(node) && node.answering().all(|gpu| of(gpu) == Some(board)))
        .then_some(board)
}

/// Returns whether the host of a virtual machine runs the NVSwitches and Fabric Manager: the board has NVSwitches on
/// the PCI bus, this machine shows no NVSwitch, but every GPU is registered and has all its NVLinks.
pub(crate) fn host_serves_fabric(node: &Node<'_>) -> bool {
    let Some(topology) = node.topology().filter(|topology| topology.nvswitches.is_empty()) else { return false };
    let Some(board) = node.answering().next().and_then(of) else { return false };
    let active = |gpu: &GpuTopology| -> usize {
        gpu.nvlinks.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len()).sum()
    };
    let is_served = |gpu: &GpuTopology| {
        let is_registered = gpu.fabric.as_ref().is_some_and(|fabric| fabric.state == "completed");
        is_registered && active(gpu) >= board.links as usize
    };
    board.switches_of(count(node)).is_some_and(|switches| switches > 0)
        && topology.gpus.len() == count(node)
        && topology.gpus.iter().all(is_served)
}

/// Returns the speed that most of the active NVLinks of a GPU have.
pub(crate) fn usual_link_speed(topology: &GpuTopology) -> Option<u32> {
    let active = || topology.nvlinks.iter().filter(|group| group.active == Some(true));
    let links = |speed: u32| {
        let of_speed = active().filter(|group| group.speed_megabytes_per_second == Some(speed));
        of_speed.map(|group| group.links.len()).sum::<usize>()
    };
    active().filter_map(|group| group.speed_megabytes_per_second).max_by_key(|speed| (links(*speed), *speed))
}

/// Returns the number of GPUs of the node, including GPUs that only the PCI bus lists. Display cards are not counted.
pub(crate) fn count(node: &Node<'_>) -> usize {
    let device = |gpu: &Gpu| node.pci_of(gpu).and_then(|pci| pci.device_id.as_deref());
    let kinds: Vec<Option<&str>> = node.answering().map(device).collect();
    node.listed().filter(|gpu| gpu.answers || gpu.index.is_some() || kinds.contains(&device(gpu))).count()
}

/// Returns whether every GPU is integrated into the processor (Jetson): the driver is `nvgpu`, and the GPU is not on
/// the PCI bus.
pub(crate) fn is_integrated(node: &Node<'_>) -> bool {
    let is_part = |gpu: &Gpu| gpu.name.as_deref().is_some_and(|name| name.contains("nvgpu"));
    // Older versions of the software of Jetson have no NVML.
    let is_tegra = node.report.kernel.as_deref().is_some_and(|kernel| kernel.ends_with("-tegra"));
    let has_module = node.host().is_some_and(|host| host.modules.iter().any(|module| module == "nvgpu"));
    match node.answering().next() {
        Some(_) => node.answering().all(is_part),
        None => node.listed().next().is_none() && is_tegra && has_module,
    }
}

/// Returns whether the node is known to be a physical machine without virtual GPUs: NVML reports no virtualization for
/// its GPUs.
pub(crate) fn is_bare_metal(node: &Node<'_>) -> bool {
    let mut modes = node.listed().filter_map(|gpu| virtualization(node, gpu)).peekable();
    modes.peek().is_some() && modes.all(|mode| mode == "none")
}

/// Returns whether the node is known to be a virtual machine: a GPU is passed through or virtual, the kernel detected a
/// hypervisor, the instance type is a virtual machine, or NVML did not read the GPUs and a GPU is on PCI bus 0.
pub(crate) fn is_virtual_machine(node: &Node<'_>) -> bool {
    let has_guest_gpu =
        node.listed().any(|gpu| virtualization(node, gpu).is_some_and(|mode| GUEST_MODES.contains(&mode)));
    let instance = node.kubernetes.instance_type.as_deref().filter(|name| instance_types::of(name).is_some());
    let is_instance = instance.is_some_and(|name| !name.starts_with("BM.") && !name.contains("metal"));
    // A hypervisor gives a GPU a place on bus 0, or on a bus of its own. Integrated GPUs are not on PCI.
    let is_unread = node.listed().all(|gpu| virtualization(node, gpu).is_none());
    let is_on_bus_0 = is_unread && node.gpus.iter().filter_map(|gpu| gpu.pci.as_ref()).any(PciAddress::is_on_bus_0);
    has_guest_gpu || hypervisor(node).is_some() || is_instance || is_on_bus_0
}

/// Returns the kernel line about the hypervisor of the node. A host that runs a hypervisor, for example Hyper-V, can
/// have this line, too. In that case, NVML reports no virtualization for its GPUs.
pub(crate) fn hypervisor<'a>(node: &Node<'a>) -> Option<&'a KernelEvent> {
    let lines = node.timeline.of_kind(KernelEventKind::Host);
    lines.into_iter().find(|event| event.sub_code.as_deref() == Some("hypervisor")).filter(|_| !is_bare_metal(node))
}

/// Virtualization modes that NVML reports inside a virtual machine.
const GUEST_MODES: [&str; 2] = ["passthrough", "vgpu"];

fn virtualization<'a>(node: &Node<'a>, gpu: &Gpu) -> Option<&'a str> {
    node.inventory_of(gpu)?.virtualization_mode.as_deref()
}

impl Board {
    /// Returns whether this is a compute tray of a rack, whose NVSwitches and Fabric Manager are in other trays.
    pub(crate) fn is_of_rack(&self) -> bool {
        self.has_fabric && self.switches.is_empty()
    }

    /// Returns the number of NVSwitches on the PCI bus for a board with this number of GPUs. `None` if boards of this
    /// size have no NVSwitches.
    pub(crate) fn switches_of(&self, gpus: usize) -> Option<usize> {
        self.switches.iter().find(|(count, _)| *count == gpus).map(|(_, switches)| *switches)
    }
}

#[cfg(test)]
mod tests {
    use super::of_name;

    #[test]
    fn names_in_nvml_are_assigned_to_boards() {
        let product = |name| of_name(name).map(|board| board.product);
        for (name, expected) in [
            ("NVIDIA H100 80GB HBM3", Some("H100")),
            ("NVIDIA H200", Some("H200")),
            ("NVIDIA H20", Some("H20")),
            ("NVIDIA H20-3e", Some("H20")),
            ("NVIDIA H800", Some("H800")),
            ("NVIDIA A100-SXM4-80GB", Some("A100-SXM4")),
            ("NVIDIA GB200", Some("GB200")),
            ("NVIDIA B300 SXM6 AC", Some("B300")),
            ("Tesla V100-SXM3-32GB", Some("V100-SXM3")),
            ("Tesla V100-SXM2-16GB", None),
            ("NVIDIA H100 PCIe", None),
            ("NVIDIA H100 NVL", None),
            ("NVIDIA H200 NVL", None),
            ("NVIDIA A100-PCIE-40GB", None),
            ("NVIDIA A100 80GB PCIe", None),
            ("NVIDIA L40S", None),
        ] {
            assert_eq!(product(name), expected, "{name}");
        }
    }
}
