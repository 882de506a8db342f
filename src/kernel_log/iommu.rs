//! `parse`: parses IOMMU faults (Intel DMAR, AMD-Vi, Arm SMMU): the IOMMU blocked a memory access of a device.
//! `is_of_iommu`: a fast check before `parse`.
//!
//! Source: `drivers/iommu/intel/dmar.c`, `drivers/iommu/amd/iommu.c` and `drivers/iommu/arm/arm-smmu-v3` of the kernel.
//! Limits: kernels before 6.13 print SMMU events as numbers, without the address of the device.

use crate::facts::kernel_log::KernelEventKind as Kind;
use crate::pci::PciAddress;

use crate::kernel_log::line::Line;
use crate::kernel_log::scan::{after, between};

/// The first words of lines of the IOMMU drivers.
const BEGINS: [&str; 5] = ["DMAR: ", "DMAR:[", "AMD-Vi: ", "iommu ", "arm-smmu"];

/// Returns whether a text may be a fault line of an IOMMU driver. Lines of AMD can begin with the driver and the
/// address of the device.
pub(super) fn is_of_iommu(text: &str) -> bool {
    let after_device = || text.split_once(": ").is_some_and(|(_, rest)| rest.starts_with("AMD-Vi: Event logged ["));
    BEGINS.iter().any(|begin| text.starts_with(begin)) || after_device()
}

/// Parses a fault line. `None` for other lines, and for lines that do not contain the device.
pub(super) fn parse(text: &str) -> Option<Line> {
    let (device, fault) = dmar(text).or_else(|| amd(text)).or_else(|| smmu(text))?;
    let mut line = Line { pci: Some(PciAddress::parse(device)?), ..Line::of(Kind::Iommu) };
    line.set_sub_code(fault);
    line.put_some(
        "fault_address",
        ["fault addr ", "address=", "iova: "]
            .iter()
            .find_map(|name| Some(after(text, name)?.split([' ', ']']).next()?.to_owned())),
    );
    Some(line)
}

/// Parses `DMAR: [DMA Write NO_PASID] Request device [5d:00.0] fault addr 0xffc00000 [fault reason 0x05] …`.
fn dmar(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("DMAR:")?.trim_start();
    let device = between(rest, "equest device [", "]")?;
    let fault = between(rest, "[", "]")?;
    Some((device.trim(), fault.split(" NO_PASID").next().unwrap_or(fault)))
}

/// Parses `AMD-Vi: Event logged [IO_PAGE_FAULT device=5d:00.0 domain=0x0012 address=0x… flags=0x0020]`. The device can also
/// be before `AMD-Vi:`.
fn amd(text: &str) -> Option<(&str, &str)> {
    let (before, event) = text.split_once("AMD-Vi: Event logged [")?;
    let fault = event.split([' ', ']']).next()?;
    let named = after(event, "device=").map(|rest| rest.split([' ', ']']).next().unwrap_or(rest));
    let device = named.or_else(|| before.trim_end_matches([':', ' ']).rsplit(' ').next())?;
    Some((device, fault))
}

/// Parses `arm-smmu-v3 arm-smmu-v3.16.auto: event: F_TRANSLATION client: 0009:01:00.0 sid: 0x90100 ssid: 0x0 iova: 0x…`.
fn smmu(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("arm-smmu")?;
    let device = after(rest, "client: ").or_else(|| after(rest, "client "))?.split([' ', ',']).next()?;
    let fault = after(rest, "event: ").and_then(|rest| rest.split(' ').next()).unwrap_or("fault");
    Some((device, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_device_and_its_type() {
        for (text, device, fault) in [
            (
                "DMAR: [DMA Write NO_PASID] Request device [5d:00.0] fault addr 0xffc00000 [fault reason 0x05] PTE Write \
                 access is not set",
                "5d:00.0",
                "DMA Write",
            ),
            (
                "DMAR:[DMA Read] Request device [5d:00.0] fault addr 7f000000 [fault reason 06] PTE Read access is not set",
                "5d:00.0",
                "DMA Read",
            ),
            (
                "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:c1:00.0 domain=0x0012 address=0xfd200000 flags=0x0020]",
                "c1:00.0",
                "IO_PAGE_FAULT",
            ),
            (
                "nvidia 0000:c1:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0xfd200000 flags=0x0020]",
                "c1:00.0",
                "IO_PAGE_FAULT",
            ),
            (
                "nvidia-nvswitch 0000:c5:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0x1000 flags=0x0020]",
                "c5:00.0",
                "IO_PAGE_FAULT",
            ),
            (
                "mlx5_core 0000:18:00.1: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0x1000 flags=0x0020]",
                "18:00.1",
                "IO_PAGE_FAULT",
            ),
            (
                "arm-smmu-v3 arm-smmu-v3.16.auto: event: F_TRANSLATION client: 0009:01:00.0 sid: 0x90100 ssid: 0x0 iova: 0x1",
                "0009:01:00.0",
                "F_TRANSLATION",
            ),
        ] {
            let line = parse(text).expect(text);
            assert!(is_of_iommu(text), "{text}");
            assert_eq!((line.pci, line.sub_code.as_deref()), (PciAddress::parse(device), Some(fault)), "{text}");
        }
    }

    #[test]
    fn other_lines_of_the_iommu_are_no_faults() {
        for text in [
            "DMAR: DRHD: handling fault status reg 2",
            "DMAR: IOMMU enabled",
            "AMD-Vi: Interrupt remapping enabled",
            "iommu: Default domain type: Translated",
            "arm-smmu-v3 arm-smmu-v3.0.auto: option mask 0x0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
