//! `write`: writes manual pages from the definition of the command line, one page for each command.

use std::path::Path;

use clap::Command;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::help;
use crate::outcome::{FOUND, INTERRUPTED, NOT_KNOWN, NOTHING_FOUND, USAGE};
use crate::settings::all_settings;
use kube_read::Failure;

/// The exit statuses and their meaning.
const EXIT_STATUSES: [(u8, &str); 5] = [
    (NOTHING_FOUND, "nothing was found, or nothing at or above the severity of --fail-on"),
    (FOUND, "there is a finding, or an action was not done"),
    (USAGE, "the arguments or the settings are not valid"),
    (NOT_KNOWN, "the command failed, or too little could be read for a verdict"),
    (INTERRUPTED, "interrupted by a signal"),
];

/// Writes one page for the program and one for each command into a folder. Returns the names of the files.
pub(crate) fn write(folder: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| {
        let what = format!("Writing the manual pages to {}", folder.display());
        Failure::new(what, error, "Use a folder that you may write to.")
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut names = Vec::new();
    for (name, page) in pages().map_err(failed)? {
        std::fs::write(folder.join(&name), page).map_err(failed)?;
        names.push(name);
    }
    Ok(names)
}

/// Returns the name and text of each page.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let command = super::command();
    let mut pages = vec![page(command.clone())?];
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        // The page of the program contains the settings.
        pages.push(page(sub.clone().name(format!("gpu-syringe-{}", sub.get_name())))?);
    }
    Ok(pages)
}

fn page(command: Command) -> std::io::Result<(String, Vec<u8>)> {
    let name = format!("{}.1", command.get_name());
    let sub = command.get_name().strip_prefix("gpu-syringe-").unwrap_or_default().to_owned();
    let mut text = Vec::new();
    // The examples are in a separate section.
    let command = command.after_help(Resettable::Reset).disable_help_flag(true).disable_version_flag(true);
    Man::new(command).source(concat!("gpu-syringe ", env!("CARGO_PKG_VERSION"))).render(&mut text)?;
    let mut more = Roff::new();
    let examples = if sub.is_empty() { help::examples("diagnose") } else { help::examples(&sub) };
    more.control("SH", ["EXAMPLES"]);
    for (line, purpose) in examples {
        more.control("TP", []).text([bold(format!("gpu-syringe {line}"))]).text([roman(*purpose)]);
    }
    if sub.is_empty() {
        more.control("SH", ["ENVIRONMENT"]);
        for arg in all_settings().get_arguments() {
            let Some((variable, flag)) = arg.get_env().zip(arg.get_long()) else { continue };
            let variable = variable.to_string_lossy().into_owned();
            more.control("TP", []).text([bold(variable)]).text([roman(format!("the setting --{flag}"))]);
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUSES {
        more.control("TP", []).text([bold(status.to_string())]).text([roman(meaning)]);
    }
    more.to_writer(&mut text)?;
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text as a person sees it, with `-` in place of roff's `\-`.
    fn text_of(page: &[u8]) -> String {
        String::from_utf8_lossy(page).replace("\\-", "-")
    }

    #[test]
    fn every_command_and_flag_stands_in_a_manual_page() {
        let pages = pages().expect("pages");
        let page = |name: &str| {
            let found = pages.iter().find(|(known, _)| *known == format!("{name}.1"));
            text_of(&found.unwrap_or_else(|| panic!("no page {name}")).1)
        };
        let command = super::super::command();
        let shown = |command: &Command, text: &str| {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let named = arg.get_long().map(|flag| format!("--{flag}"));
                let named = named.or_else(|| Some(arg.get_value_names()?.first()?.to_string()));
                let named = named.expect("a flag or a positional argument");
                assert!(text.contains(&named), "{} has no {named}", command.get_name());
            }
        };
        let main = page("gpu-syringe");
        shown(&command, &main);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = format!("gpu-syringe-{}", sub.get_name());
            for section in ["EXAMPLES", "EXIT STATUS"] {
                assert!(page(&name).contains(section), "{name}: {section}");
            }
            assert!(main.contains(&name), "{name}");
            shown(sub, &page(&name));
        }
    }
}
