//! Modules for the child processes that call NVML: their start, their code, their answers and their supervision.
//!
//! ```text
//!   subprocess       starts a child process that calls NVML, and reads its answers
//!   subprocess_main  the code of the child process
//!   sections         combines the answers into sections
//!   supervisor       watches the processes: continues without a GPU that makes a process hang or crash
//! ```

pub(super) mod sections;
pub(super) mod subprocess;
pub(super) mod subprocess_main;
pub(super) mod supervisor;
