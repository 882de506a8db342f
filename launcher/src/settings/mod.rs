//! The settings of the person who starts gpu-syringe: flags, then environment, then one file, then defaults. Never a tool's
//! argument.

pub(crate) mod config_command;
pub(crate) mod file;
mod flags;
mod node_selector;
mod output_flags;
mod to_args;
mod value_parsers;

pub use flags::{DEFAULT_IMAGE, DrainCheck, Mode, ProbeMethod, PullPolicy, Settings};
pub use node_selector::NodeSelector;
pub use output_flags::{ColorWhen, LogFormat, OutputFormat, OutputSettings, all_settings};
pub(crate) use to_args::to_args;
pub use value_parsers::{KeyValue, PodRef, TolerationArg};
