//! The settings of the person who starts gpu-syringe: flags, then environment, then one file, then defaults. Never a tool's
//! argument.

pub(crate) mod file;
mod flags;
mod node_selector;
pub(crate) mod shown;
mod to_words;
mod values;

pub use flags::{Check, DEFAULT_IMAGE, Mode, ProbeMethod, PullPolicy, Settings};
pub use node_selector::NodeSelector;
pub(crate) use to_words::to_words;
pub use values::{Pair, PodRef, Tolerate};
