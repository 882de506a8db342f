//! Modules with the input of the rules: node, GPUs, boards, layers, processes, container runtimes, platform, kernel
//! events and recovery, driver, NVIDIA's stack.

pub(crate) mod absent;
pub(crate) mod boards;
pub(crate) mod cuda;
pub(crate) mod decisions;
pub(crate) mod driver;
pub(crate) mod fields;
pub(crate) mod gpu;
pub(crate) mod instance_types;
pub(crate) mod layers;
pub(crate) mod load;
pub(crate) mod log_window;
pub(crate) mod named_causes;
pub(crate) mod node;
pub(crate) mod optional_inputs;
pub(crate) mod order;
pub(crate) mod platforms;
pub(crate) mod pods_match;
pub(crate) mod processes;
pub(crate) mod quoted_lines;
pub(crate) mod recovery;
pub(crate) mod recurrence;
pub(crate) mod runtimes;
pub(crate) mod stack;
pub(crate) mod timeline;
pub(crate) mod xids;
