//! The Kubernetes API: a client, the objects without I/O, and the requests that read them. Each module imports only from
//! those above it.

pub(crate) mod client;
pub(crate) mod model;
pub(crate) mod read;

pub(crate) use client::connect::IN_CLUSTER;
pub use client::connect::{Connection, Contexts};
