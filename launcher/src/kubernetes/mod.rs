//! The Kubernetes API: a client, the objects without I/O, and the requests that read them. Each of the three imports only
//! from those before it.

pub mod client;
pub mod model;
pub mod read;

pub use client::connection::Connection;
pub(crate) use client::connection::IN_CLUSTER;
pub use client::contexts::Contexts;
