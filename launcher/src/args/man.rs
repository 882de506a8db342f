//! `write`: writes manual pages from the definition of the command line, one page for each command.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use kube_read::Failure;

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
    let mut text = Vec::new();
    Man::new(command.disable_help_flag(true).disable_version_flag(true))
        .source(concat!("gpu-syringe ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)?;
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
            assert!(main.contains(&name), "{name}");
            shown(sub, &page(&name));
        }
    }
}
