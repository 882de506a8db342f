//! Modules of the tests of documents and generated pages: links, commands, settings, messages, the README and others.
//! `assert_current`: compares a generated page with its file.
//!
//! Links and paths must exist, commands must be valid, and explained messages must be in the source.
//!
//! `INSTA_UPDATE=always cargo test -p gpu-syringe --test docs` writes `docs/tools.md`, `docs/configuration.md`
//! and `docs/terminal.svg`.
#![allow(clippy::unwrap_used)]

#[path = "docs/markdown.rs"]
mod markdown;

#[path = "docs/architecture.rs"]
mod architecture;
#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/configuration_page.rs"]
mod configuration_page;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/picture.rs"]
mod picture;
#[path = "docs/readme.rs"]
mod readme;
#[path = "docs/skill.rs"]
mod skill;
#[path = "docs/tools_page.rs"]
mod tools_page;
#[path = "docs/troubleshooting.rs"]
mod troubleshooting;

/// Compares a generated page with its file, or writes the file if `INSTA_UPDATE=always` is set.
fn assert_current(file: &str, text: &str) {
    let path = markdown::root().join(file);
    if std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always") {
        std::fs::write(&path, text).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().find(|line| !is.lines().any(|one| one == *line)).unwrap_or_default();
    assert!(is == text, "{file} is not current: INSTA_UPDATE=always writes the file. First missing line: {differs}");
}
