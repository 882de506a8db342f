//! What the Kubernetes API itself can answer, and the way to it.

pub mod allocation;
pub mod alone;
mod client;
pub mod conditions;
mod connect;
pub mod dra;
mod dra_objects;
pub(crate) mod events;
pub mod gpu_nodes;
mod gpu_stack;
pub mod lean;
pub(crate) mod live_pods;
pub(crate) mod names;
pub mod node;
pub(crate) mod node_gpus;
pub(crate) mod node_log;
pub(crate) mod offered;
mod pages;
pub(crate) mod patience;
pub mod placement;
mod plugin;
pub mod pod_facts;
pub mod pod_names;
pub mod pod_rows;
pub(crate) mod pods;
mod proxy;
mod requests;
pub mod resolve;
pub mod resources;
pub(crate) mod view;

pub(crate) use connect::IN_CLUSTER;
pub use connect::{Connection, Contexts};
