//! `FileValues`: the values of the settings file, which become the defaults of the flags. clap validates the values.
//! Flags and environment variables override these defaults. `is_setting_of_files`: whether a file may contain a
//! setting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Command};
use syringe_core::text::{self, clean};

use super::value_parsers;
use crate::user_dirs::config_dir;
use kube_read::Failure;

/// Settings that a settings file cannot contain.
const NOT_IN_FILES: [&str; 3] = ["config", "demo", "from"];

/// Returns whether a settings file may contain this setting.
pub fn is_setting_of_files(id: &str) -> bool {
    !NOT_IN_FILES.contains(&id)
}

/// The values of a settings file, as command line arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileValues {
    /// Path of the file. `None` if there is no file.
    pub(crate) path: Option<PathBuf>,
    values: BTreeMap<String, Vec<String>>,
}

impl FileValues {
    /// Reads the file that the arguments or the environment set, or else the default file if it exists.
    pub(crate) fn find(argv: &[OsString], settings: &Command) -> Result<Self, Failure> {
        let named =
            config_option(argv).or_else(|| std::env::var_os("GPU_SYRINGE_CONFIG").filter(|value| !value.is_empty()));
        let (path, required) = match named {
            Some(path) => (path.to_str().map_or_else(|| PathBuf::from(&path), expanded), true),
            None => match default_path() {
                Some(path) => (path, false),
                None => return Ok(Self::default()),
            },
        };
        match std::fs::read(&path) {
            Ok(bytes) => Self::read(&path, &text::of_file(&bytes), settings),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(error) => Err(wrong(&path, None, error)),
        }
    }

    fn read(path: &Path, text: &str, settings: &Command) -> Result<Self, Failure> {
        let table: toml::Table = text.parse().map_err(|error| wrong(path, None, syntax_error(text, &error)))?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let id = key.replace('-', "_");
            let known = settings.get_arguments().any(|arg| arg.get_id() == id.as_str());
            if !known || !is_setting_of_files(&id) {
                let names = settings.get_arguments().map(|arg| arg.get_id().as_str());
                let names: Vec<_> = names.filter(|name| is_setting_of_files(name)).collect();
                return Err(wrong(
                    path,
                    Some(&key),
                    format!("there is no setting '{key}'; there are: {}", names.join(", ")),
                ));
            }
            let texts = value_texts(&value).ok_or_else(|| {
                wrong(path, Some(&key), format!("'{key}' must be a text, a number, true or false, or a list of those"))
            })?;
            values.insert(id, texts);
        }
        let read = Self { path: Some(path.to_owned()), values };
        // The file is first validated alone, so that the message mentions the file and not a flag.
        let alone = settings.clone().no_binary_name(true).mut_args(|arg| arg.env(Resettable::Reset));
        alone.try_get_matches_from(read.as_flags(settings)).map_err(|error| {
            let (key, why) = of_key(&error);
            wrong(path, key.as_deref(), why)
        })?;
        Ok(read)
    }

    /// Returns the command with these values as its defaults.
    pub(crate) fn as_defaults(&self, mut command: Command) -> Command {
        for (id, texts) in &self.values {
            let texts = texts.clone();
            command = command.mut_arg(id, |arg| arg.default_values(texts));
        }
        command
    }

    /// Returns whether the file contains this setting.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.values.contains_key(id)
    }

    fn as_flags(&self, settings: &Command) -> Vec<String> {
        let mut flags = Vec::new();
        for (id, texts) in &self.values {
            let arg = settings.get_arguments().find(|arg| arg.get_id() == id.as_str());
            let switch = arg.is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
            let name = format!("--{}", id.replace('_', "-"));
            match (switch, texts.first().map(String::as_str)) {
                (true, Some("true")) => flags.push(name),
                (true, Some("false")) => {}
                (true, _) => flags.push(format!("{name}={}", texts.join(","))),
                (false, _) => flags.extend(texts.iter().map(|text| format!("{name}={text}"))),
            }
        }
        flags
    }
}

fn value_texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(on) => Some(vec![on.to_string()]),
        toml::Value::Array(all) => {
            let texts: Option<Vec<Vec<String>>> = all.iter().map(value_texts).collect();
            texts.map(|texts| texts.concat())
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Returns the value of `--config FILE` or `--config=FILE`, before the arguments are parsed.
fn config_option(argv: &[OsString]) -> Option<OsString> {
    let at = argv.iter().position(|word| word.to_str().is_some_and(|word| word.starts_with("--config")))?;
    let word = argv[at].to_str()?;
    match word.strip_prefix("--config")? {
        "" => argv.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(OsString::from),
    }
}

fn expanded(text: &str) -> PathBuf {
    let Ok(path) = value_parsers::path(text);
    path
}

/// Returns the path of `gpu-syringe/config.toml` in the user's config directory.
fn default_path() -> Option<PathBuf> {
    Some(config_dir()?.join("config.toml"))
}

/// Returns the failure for a settings file. `key`: the setting that is not valid.
fn wrong(path: &Path, key: Option<&str>, why: impl std::fmt::Display) -> Failure {
    let key = key.map(|key| format!("{} in ", clean(key, 80))).unwrap_or_default();
    let path = path.display();
    Failure::usage(
        format!("Reading the settings file {path}"),
        why,
        format!("Correct {key}{path}, or use another file: --config FILE. docs/configuration.md lists the settings."),
    )
}

/// Describes a syntax error with its line. For a text without quotes, the message contains the corrected line.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let number = text.get(..start).unwrap_or(text).matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default();
    let place = format!("line {}", number + 1);
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.split('#').next().unwrap_or_default().trim());
        let is_word = value.starts_with(|first: char| first.is_alphabetic() || ['/', '~'].contains(&first));
        if is_word && !value.contains(['"', '\'', '\\']) {
            return format!("{place}: the value of {key} is a text without quotes; write {key} = \"{value}\"");
        }
    }
    format!("{place}: {}", error.message())
}

/// Returns the key of a value that the parser rejected, and the reason with the permitted values.
fn of_key(error: &clap::Error) -> (Option<String>, String) {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => Some(flag.clone()),
        _ => None,
    };
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty() && !line.starts_with("Usage:"));
    let why = lines.collect::<Vec<_>>().join(" ");
    let why = why.trim_start_matches("error: ");
    let Some(flag) = flag else { return (None, why.to_owned()) };
    let key = flag.split([' ', '=']).next().unwrap_or_default().trim_start_matches("--").replace('-', "_");
    let why = why.replace(&format!("'{flag}'"), &key);
    (Some(key), why)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Args;

    use super::FileValues;
    use crate::settings::all_settings;
    use crate::settings::flags::Settings;

    fn read(text: &str) -> Result<FileValues, String> {
        FileValues::read(Path::new("config.toml"), text, &all_settings()).map_err(|failure| failure.why)
    }

    fn settings(text: &str, argv: &[&str]) -> Settings {
        use clap::FromArgMatches;
        let file = read(text).expect("a good file");
        let command = Settings::augment_args(clap::Command::new("settings").no_binary_name(true));
        let matches = file.as_defaults(command).try_get_matches_from(argv).expect("valid arguments");
        Settings::from_arg_matches(&matches).expect("settings")
    }

    #[test]
    fn flags_override_the_file_and_the_file_overrides_the_defaults() {
        let text = "probe_namespace = 'tools'\ncall-timeout = 20\nlabel = ['team=a', 'cost=b']\nno_ephemeral = true\n";
        let read = settings(text, &[]);
        assert_eq!((read.probe_namespace.as_str(), read.call_timeout, read.label.len()), ("tools", 20, 2));
        assert!(read.no_ephemeral);
        let read = settings(text, &["--probe-namespace", "mine"]);
        assert_eq!((read.probe_namespace.as_str(), read.start_timeout), ("mine", 30));
    }

    #[test]
    fn an_error_says_what_to_write() {
        let failure =
            |text: &str| FileValues::read(Path::new("x/config.toml"), text, &all_settings()).expect_err("wrong");
        for (text, why, next) in [
            (
                "fail_on = never\n",
                "line 1: the value of fail_on is a text without quotes; write fail_on = \"never\"",
                "x/config.toml",
            ),
            (
                "quiet = true\nkubeconfig = ~/k # mine\n",
                "line 2: the value of kubeconfig is a text without quotes",
                "x/config.toml",
            ),
            (
                "fail_on = \"often\"\n",
                "invalid value 'often' for fail_on [possible values: warning, critical, fatal, never]",
                "fail_on in x/config.toml",
            ),
            ("call-timeout = \"soon\"\n", "for call_timeout", "call_timeout in x/config.toml"),
            ("colour = \"x\"\n", "there is no setting 'colour'", "colour in x/config.toml"),
            ("quiet = [\n", "line ", "x/config.toml"),
        ] {
            let found = failure(text);
            assert!(found.why.contains(why), "{text}: {}", found.why);
            assert!(
                found.next_step.contains(next) && !found.next_step.contains("gpu-syringe config"),
                "{text}: {}",
                found.next_step
            );
        }
    }

    #[test]
    fn an_error_names_the_wrong_key_or_value() {
        assert!(read("namespcae = 'x'").expect_err("unknown").contains("no setting 'namespcae'"));
        assert!(read("call_timeout = 'soon'").expect_err("no number").contains("soon"));
        assert!(read("output = 'xml'").expect_err("no format").contains("xml") && read("output = 'yaml'").is_ok());
        assert!(read("via = 'magic'").expect_err("no way").contains("magic"));
        assert!(read("label = 1.5").expect_err("no word").contains("label"));
        assert!(read("demo = true").is_err() && read("probe_namespace = ").is_err());
    }
}
