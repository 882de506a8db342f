//! The facts as a rule sees them: each GPU once, the kernel events in the order of time, the state of the driver and of
//! NVIDIA's stack.

pub(crate) mod driver;
pub(crate) mod gpu;
pub(crate) mod log_window;
pub(crate) mod node;
pub(crate) mod processes;
pub(crate) mod stack;
pub(crate) mod timeline;
pub(crate) mod xids;
