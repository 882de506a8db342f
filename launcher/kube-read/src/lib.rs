//! Modules of the crate `kube-read`, which reads the Kubernetes API for gpu-syringe.
//!
//! | module | content |
//! |---|---|
//! | [`failure`] | a failed call: the step that failed, the reason, the next step |
//! | [`client`] | connection, credentials, proxy, retries, lists, errors of the API |
//! | [`objects`] | types for nodes, pods and claims, and functions that evaluate them. No I/O |
//! | [`reads`] | the requests: nodes, pods, events, claims, node logs |

pub mod client;
pub mod failure;
pub mod objects;
pub mod reads;

pub use client::connection::Connection;
pub use client::contexts::Contexts;
pub use failure::Failure;
