//! Modules for the settings of the person who starts gpu-syringe: flags, settings file, output, image names, node
//! selector. Tools cannot change them. Order of precedence: flags, environment, settings file, defaults.

mod archive_note;
mod as_command_line;
pub(crate) mod config_command;
pub(crate) mod file;
mod flags;
pub(crate) mod image_reference;
mod node_selector;
mod output_flags;
mod value_parsers;

pub(crate) use archive_note::ArchiveNote;
pub(crate) use as_command_line::as_command_line;
pub use flags::{DEFAULT_IMAGE, DrainCheck, Mode, ProbeMethod, PullPolicy, Settings};
pub use node_selector::NodeSelector;
pub use output_flags::{ColorWhen, LogFormat, OutputFormat, OutputSettings, all_settings};
pub use value_parsers::{EphemeralPod, KeyValue, PodRef, TolerationArg};
