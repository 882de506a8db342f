//! Kubernetes objects, and what follows from them. No I/O.

pub(crate) mod allocation;
pub(crate) mod conditions;
pub(crate) mod dra;
pub(crate) mod dra_objects;
pub(crate) mod gpu_nodes;
pub(crate) mod gpu_stack;
pub(crate) mod names;
pub(crate) mod node_gpus;
pub(crate) mod placement;
pub(crate) mod pod_rows;
pub(crate) mod requests;
pub(crate) mod resolve_devices;
pub(crate) mod resources;
pub(crate) mod slim;
