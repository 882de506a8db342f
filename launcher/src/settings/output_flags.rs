//! `OutputSettings`: flags for the output of a command: format (`OutputFormat`), colours, exit status, progress,
//! requests, log. `all_settings`: the flags of the launcher and of the output together.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Command, ValueEnum};

use super::flags::Settings;
use crate::outcome::FailOn;

/// Output of a command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputSettings {
    /// Output format; by default a table on a terminal and JSON in a pipe
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", env = "GPU_SYRINGE_OUTPUT")]
    pub output: Option<OutputFormat>,
    /// When to use colours; auto: on a terminal, and not with NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", env = "GPU_SYRINGE_COLOR", default_value = "auto")]
    pub color: ColorWhen,
    /// Exit with status 1 for findings of this severity or higher
    #[arg(long, global = true, value_name = "SEVERITY", env = "GPU_SYRINGE_FAIL_ON", default_value = "critical")]
    pub fail_on: FailOn,
    /// No progress on standard error; errors are still printed
    #[arg(short = 'q', long, global = true, env = "GPU_SYRINGE_QUIET", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Print each request to the API server with its status and time on standard error
    #[arg(short = 'v', long, global = true, env = "GPU_SYRINGE_VERBOSE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Format of log messages; by default text on a terminal, and JSON in a pipe or for the server
    #[arg(long, global = true, value_name = "FORMAT", env = "GPU_SYRINGE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Format of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object on each line
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR or TERM=dumb is set
    #[default]
    Auto,
    /// Also in a pipe
    Always,
    /// Never
    Never,
}

/// Format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text and tables that fit the terminal
    Table,
    /// Text and tables with all columns
    Wide,
    /// The JSON that an AI host gets
    Json,
    /// The JSON as YAML
    Yaml,
    /// Only the names: node/NAME, pod/NAME
    Name,
}

/// Returns every setting, those of the launcher first.
pub fn all_settings() -> Command {
    OutputSettings::augment_args(Settings::augment_args(Command::new("settings")))
}
