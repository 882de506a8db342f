//! Rules about NVLink, NVSwitch and PCIe.

pub(crate) mod fabric_manager;
pub(crate) mod nvlink_events;
pub(crate) mod nvlink_state;
pub(crate) mod pcie;
