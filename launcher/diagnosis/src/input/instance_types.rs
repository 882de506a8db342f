//! `InstanceType`, `of`: GPUs, GPU product and InfiniBand ports of a cloud instance type, from
//! `data/instance_types.tsv`.

use std::sync::LazyLock;

use syringe_core::tsv::rows;

/// An instance type of a cloud provider.
pub(crate) struct InstanceType {
    /// The name of the instance type, or the prefix of its name.
    name: &'static str,
    is_family: bool,
    /// Number of physical GPUs.
    pub(crate) gpus: u32,
    /// A word in the NVML name of its GPUs.
    pub(crate) product: &'static str,
    /// Number of InfiniBand ports, if every machine of the type has them.
    pub(crate) infiniband_ports: Option<usize>,
}

static TYPES: LazyLock<Vec<InstanceType>> =
    LazyLock::new(|| rows(include_str!("../data/instance_types.tsv")).filter_map(instance_type).collect());

fn instance_type(row: Vec<&'static str>) -> Option<InstanceType> {
    let (name, gpus, product, ports) = match row[..] {
        [name, gpus, product] => (name, gpus, product, None),
        [name, gpus, product, ports] => (name, gpus, product, Some(ports.parse().ok()?)),
        _ => return None,
    };
    let family = name.strip_suffix('*');
    let (name, is_family) = (family.unwrap_or(name), family.is_some());
    Some(InstanceType { name, is_family, gpus: gpus.parse().ok()?, product, infiniband_ports: ports })
}

/// Returns the instance type with this name. `None` if the type is not in the table.
pub(crate) fn of(name: &str) -> Option<&'static InstanceType> {
    let is_this = |one: &&InstanceType| if one.is_family { name.starts_with(one.name) } else { name == one.name };
    TYPES.iter().find(is_this)
}

impl InstanceType {
    /// Returns whether a machine of this type can have a GPU with this NVML name.
    pub(crate) fn has(&self, gpu: &str) -> bool {
        gpu.split([' ', '-', '_']).any(|word| word == self.product)
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::tsv::rows;

    use super::TYPES;

    #[test]
    fn every_row_is_read_and_a_family_comes_after_its_larger_types() {
        assert_eq!(TYPES.len(), rows(include_str!("../data/instance_types.tsv")).count());
        let of = |name: &str| super::of(name).map(|one| one.gpus);
        assert_eq!(
            (of("g6e.12xlarge"), of("g6e.xlarge"), of("g6.xlarge"), of("g5.48xlarge")),
            (Some(4), Some(1), Some(1), Some(8))
        );
        assert_eq!((of("m5.large"), of("g6f.xlarge"), of("p5.48xlarge.x")), (None, None, None));
        for (at, one) in TYPES.iter().enumerate() {
            let shadow = TYPES[..at].iter().find(|before| before.is_family && one.name.starts_with(before.name));
            assert!(shadow.is_none(), "{}", one.name);
        }
    }
}
