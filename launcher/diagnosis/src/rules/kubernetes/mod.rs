//! Rules about GPUs in Kubernetes: advertised, allocated, used, and the software that serves them.

pub(crate) mod gpus;
pub(crate) mod nvidia_stack;
pub(crate) mod stack_log;
pub(crate) mod usage;
