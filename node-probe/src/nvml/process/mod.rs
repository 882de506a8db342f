//! The child process that calls NVML:
//!
//! ```text
//!   sections         joins the answers to sections (runs in the parent)
//!   subprocess       starts the child process that calls NVML, and reads its answers (runs in the parent)
//!   supervisor       reads the steps in a thread, and goes on without a GPU that hangs
//!   subprocess_main  the code of the child process
//! ```

pub(super) mod call_log;
pub(super) mod sections;
pub(super) mod subprocess;
pub(super) mod subprocess_main;
mod supervisor;
