//! `Output`: writes answers, pages and manifests to standard output in the chosen format, and failures to standard
//! error. `print`, `note`, `is_reader_gone`: write a text or a remark, and find out whether the reader of a pipe has
//! closed it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use serde_json::{Value, json};
use syringe_core::text;

use super::progress;
use crate::audit::AuditLine;
use crate::outcome::{NOT_KNOWN, USAGE};
use crate::settings::{ColorWhen, OutputFormat, OutputSettings};
use crate::terminal::detect;
use crate::terminal::layout::Layout;
use crate::terminal::page::Page;
use kube_read::Failure;

/// Format and layout of printed answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: OutputFormat,
    /// Whether the user chose the format.
    is_chosen: bool,
    layout: Layout,
    color: ColorChoice,
}

impl Output {
    /// Uses the chosen format, or else a table on a terminal and JSON in a pipe.
    pub(super) fn new(settings: &OutputSettings) -> Self {
        let default = if std::io::stdout().is_terminal() { OutputFormat::Table } else { OutputFormat::Json };
        let format = settings.output.unwrap_or(default);
        let color = match settings.color {
            ColorWhen::Auto => ColorChoice::Auto,
            ColorWhen::Always => ColorChoice::AlwaysAnsi,
            ColorWhen::Never => ColorChoice::Never,
        };
        let all_columns = format == OutputFormat::Wide;
        let layout = Layout { width: detect::width(), all_columns, ascii: detect::is_ascii(), colored: true };
        Self { format, is_chosen: settings.output.is_some(), layout, color }
    }

    pub(super) fn is_json(self) -> bool {
        matches!(self.format, OutputFormat::Json | OutputFormat::Yaml)
    }

    /// Prints an answer in the chosen format. `names` are the objects in the answer.
    pub(super) fn print(self, json: &Value, names: &[String], page: impl FnOnce() -> Page) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Table | OutputFormat::Wide => self.print_page(&page()),
            OutputFormat::Name if names.is_empty() => Ok(()),
            OutputFormat::Name => print(&names.join("\n")),
            OutputFormat::Json | OutputFormat::Yaml => print(&self.structured(json)?),
        }
    }

    /// Prints lines of a log. In JSON, each line is one document.
    pub(super) fn print_lines(self, lines: &[AuditLine], page: impl FnOnce() -> Page) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Json => lines.iter().try_for_each(|line| print(&json!(line).to_string())),
            OutputFormat::Yaml => print(&self.structured(&json!(lines))?),
            OutputFormat::Table | OutputFormat::Wide => self.print_page(&page()),
            OutputFormat::Name => Err(Failure::usage("Printing the log", "log lines have no names", "Use -o json.")),
        }
    }

    /// Separates two readings of `--watch`. On a terminal, clears the screen.
    pub(super) fn begin_reading(self, pause: Duration, is_first: bool) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Yaml if !is_first => print("---"),
            OutputFormat::Table | OutputFormat::Wide if std::io::stdout().is_terminal() => print(&format!(
                "\x1b[H\x1b[2J{:.0}, every {} s; Ctrl-C stops.\n",
                jiff::Timestamp::now(),
                pause.as_secs()
            )),
            OutputFormat::Table | OutputFormat::Wide if !is_first => print(""),
            _ => Ok(()),
        }
    }

    /// Prints a text, with colours if the terminal shows them.
    pub(super) fn print_page(self, page: &Page) -> Result<(), Failure> {
        let text = page.print(&self.layout);
        written(writeln!(AutoStream::new(std::io::stdout(), self.color), "{text}"))
    }

    /// Prints a manifest as JSON if the user chose JSON, or else as YAML.
    pub(super) fn print_manifest(self, manifest: &Value) -> Result<(), Failure> {
        let is_json = self.is_chosen && self.format == OutputFormat::Json;
        let format = if is_json { OutputFormat::Json } else { OutputFormat::Yaml };
        print(&Self { format, ..self }.structured(manifest)?)
    }

    /// Prints a text such as a settings file or a report in Markdown, or JSON or YAML if the user chose one of them.
    pub(super) fn print_document(self, json: &Value, names: &[String], file: String) -> Result<(), Failure> {
        let format = if self.is_chosen { self.format } else { OutputFormat::Table };
        Self { format, ..self }.print(json, names, || Page::verbatim(file))
    }

    /// Prints manifests with their comments, or as JSON if the user chose JSON.
    pub(super) fn print_manifests(self, json: &Value, yaml: &str) -> Result<(), Failure> {
        if self.is_chosen && self.format == OutputFormat::Json { print(&self.structured(json)?) } else { print(yaml) }
    }

    fn structured(self, json: &Value) -> Result<String, Failure> {
        let failed = |error: String| Failure::new("Writing the answer", error, "This is a defect: please report it.");
        if self.format == OutputFormat::Yaml {
            let yaml = serde_saphyr::to_string(json).map_err(|error| failed(error.to_string()))?;
            return Ok(yaml.trim_end().to_owned());
        }
        // A person reads the output on a terminal, and a program reads the output in a pipe.
        let pretty = std::io::stdout().is_terminal();
        let text = if pretty { serde_json::to_string_pretty(json) } else { serde_json::to_string(json) };
        text.map_err(|error| failed(error.to_string()))
    }

    /// Prints the failure of a command, and returns the exit status.
    pub(super) fn complain(self, failure: &Failure) -> u8 {
        let on_stdout = self.is_json() && self.structured(&failure.to_json()).and_then(|text| print(&text)).is_ok();
        // If both streams go to a terminal, the message is printed only once.
        if !(on_stdout && std::io::stdout().is_terminal() && std::io::stderr().is_terminal()) {
            complain(failure);
        }
        if failure.is_usage() { USAGE } else { NOT_KNOWN }
    }
}

/// Prints a text to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    written(writeln!(std::io::stdout(), "{text}"))
}

/// Whether a write to standard output failed because the reader of the pipe closed it.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// Returns whether the reader of standard output has closed the pipe. This is not an error, but it ends `--watch`.
pub(super) fn is_reader_gone() -> bool {
    READER_IS_GONE.load(Ordering::Relaxed)
}

fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            READER_IS_GONE.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Failure::new("Writing the answer", error, "Check where standard output goes.")),
        Ok(()) => Ok(()),
    }
}

/// Prints a remark about an answer to standard error.
pub(super) fn note(remark: &str) {
    let _ = writeln!(std::io::stderr(), "{}", message(remark));
}

fn complain(failure: &Failure) {
    let _ = writeln!(progress::Messages, "{}", message(&failure.to_string()));
}

/// Formats a message for a person: with commands in place of tools, and wrapped between words on a terminal.
fn message(text: &str) -> String {
    let width = if std::io::stderr().is_terminal() { detect::width() } else { None };
    let layout = Layout { width, all_columns: false, ascii: detect::is_ascii(), colored: false };
    Page::from(format!("gpu-syringe: {}", text::clean_keeping_lines(text))).print(&layout)
}
