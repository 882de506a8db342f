//! What the Kubernetes API itself can answer, and the way to it.

pub mod alone;
mod connect;
pub mod gpu_nodes;
pub mod node;
pub(crate) mod patience;
mod plugin;
pub mod pod_facts;
pub mod pod_names;

pub use connect::{Connection, Contexts};
