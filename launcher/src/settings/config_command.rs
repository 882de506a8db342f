//! `SettingValue`: a setting with its value and its source. `all`: every setting.
//! `text`, `json`: format the settings, which `gpu-syringe config` prints.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::file::{FileValues, is_setting_of_files};
use crate::carried::{self, CarriedProgram};

/// One setting with its current value.
#[derive(Clone, Debug)]
pub(crate) struct SettingValue {
    name: String,
    values: Vec<String>,
    list: bool,
    /// Whether a settings file may contain the setting.
    is_of_files: bool,
    source: String,
}

impl SettingValue {
    /// Returns the name of the setting in the settings file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Returns every setting of the command line, in the order of its help.
pub(crate) fn all(settings: &Command, matches: &ArgMatches, file: &FileValues) -> Vec<SettingValue> {
    let shown = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        let raw = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => format!("--{}", id.replace('_', "-")),
            Some(ValueSource::EnvVariable) => {
                arg.get_env().map_or_else(|| "environment".into(), |name| name.to_string_lossy().into_owned())
            }
            _ if file.has(id) => file.path.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            _ => "default".into(),
        };
        let values = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        let list = matches!(arg.get_action(), clap::ArgAction::Append);
        SettingValue { name: id.to_owned(), values, list, is_of_files: is_setting_of_files(id), source }
    };
    settings.get_arguments().map(shown).chain(carried()).collect()
}

/// Returns the programs that are embedded in this program. No setting changes them.
fn carried() -> Vec<SettingValue> {
    let shown = |program: &CarriedProgram| SettingValue {
        name: format!("node_probe_{}", program.arch),
        values: vec![format!("sha256:{}", program.sha256)],
        list: false,
        is_of_files: false,
        source: format!("inside gpu-syringe, {} bytes", program.size),
    };
    carried::programs().iter().map(shown).collect()
}

/// Formats the settings as a JSON object: `{"probe_namespace": {"value": "gpu-syringe", "from": "default"}, …}`.
pub(crate) fn json(all: &[SettingValue]) -> Value {
    let entry = |shown: &SettingValue| {
        let value = match (&shown.values[..], shown.list) {
            (values, true) => json!(values),
            ([], false) => Value::Null,
            ([one], false) => json!(one),
            (values, false) => json!(values),
        };
        (shown.name.clone(), json!({ "value": value, "from": shown.source }))
    };
    Value::Object(all.iter().map(entry).collect())
}

/// Formats the settings as lines in the syntax of the settings file.
pub(crate) fn text(all: &[SettingValue]) -> String {
    let line = |shown: &SettingValue| {
        let quoted: Vec<_> = shown.values.iter().map(|value| format!("{value:?}")).collect();
        let is_plain = |value: &String| value == "true" || value == "false" || value.parse::<u64>().is_ok();
        let value = match (&shown.values[..], shown.list) {
            (_, true) => format!("[{}]", quoted.join(", ")),
            ([], false) => String::new(),
            ([one], false) if is_plain(one) => one.clone(),
            (_, false) => quoted.join(", "),
        };
        // The lines form a settings file. A setting that a file cannot contain becomes a comment.
        let is_comment = shown.values.is_empty() && !shown.list || !shown.is_of_files;
        let name = if is_comment { format!("# {}", shown.name) } else { shown.name.clone() };
        format!("{name:<20} = {value:<40} # {}", shown.source)
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}
