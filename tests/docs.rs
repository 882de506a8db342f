//! The documents are true: their links lead somewhere, the paths they name exist, their commands are those of the program, the
//! messages they explain are in the source, and what is generated is current.
//!
//! `INSTA_UPDATE=always cargo test -p gpu-syringe --test docs` writes `docs/tools.md` and `docs/configuration.md`.
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
#[path = "docs/readme.rs"]
mod readme;
#[path = "docs/skill.rs"]
mod skill;
#[path = "docs/tools_page.rs"]
mod tools_page;
#[path = "docs/troubleshooting.rs"]
mod troubleshooting;

/// Compares a generated page with its file, and writes it if that is wanted.
fn assert_current(file: &str, text: &str) {
    let path = markdown::root().join(file);
    if std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always") {
        std::fs::write(&path, text).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().find(|line| !is.lines().any(|one| one == *line)).unwrap_or_default();
    assert!(is == text, "{file} is not current: INSTA_UPDATE=always writes it. It lacks: {differs}");
}
