//! Types of Kubernetes objects, and functions that evaluate them. No I/O.

pub mod allocation;
pub mod api_objects;
pub mod conditions;
pub mod dra;
pub mod dra_objects;
pub mod gpu_pods;
pub mod gpu_stack;
pub mod names;
pub mod node_gpus;
pub mod node_labels;
pub mod nvidia_pods;
pub mod placement;
pub mod pod_facts;
pub mod pod_rows;
pub mod requests;
pub mod resolve_devices;
pub mod resources;
pub mod room;
pub mod slim;
pub mod stack_labels;
