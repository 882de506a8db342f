//! Rules about the container runtime, CDI and one container.

pub(crate) mod cdi;
pub(crate) mod container;
pub(crate) mod runtime;
