//! The facts as a rule sees them: each GPU once, the kernel events in the order of time, the GPUs in Kubernetes.

pub(crate) mod gpu;
pub(crate) mod node;
pub(crate) mod timeline;
