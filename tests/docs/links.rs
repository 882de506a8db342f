//! Tests that the links, anchors and paths in the documents exist.

use std::path::{Component, Path, PathBuf};

use crate::markdown::{Located, Page, page, pages, root};

/// Paths in the documents that a build or a command of the same page creates.
const NOT_IN_THE_REPOSITORY: [&str; 1] = ["fuzz/target"];

#[test]
fn every_link_leads_to_a_file_and_to_a_heading() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in pages() {
        for link in &page.links {
            checked += 1;
            wrong.extend(problem(&page, link).map(|why| format!("{}:{}: {}: {why}", page.path, link.line, link.text)));
        }
    }
    assert!(checked > 50, "{checked} links");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn problem(from: &Page, link: &Located) -> Option<String> {
    if link.text.starts_with("https://") {
        return None;
    }
    if link.text.contains("://") {
        return Some("links must use https".into());
    }
    let (path, anchor) = link.text.split_once('#').unwrap_or((&link.text, ""));
    let file = if path.is_empty() {
        from.path.clone()
    } else {
        let folder = Path::new(&from.path).parent().unwrap_or(Path::new(""));
        match inside(&folder.join(path)) {
            Some(file) => file,
            None => return Some("outside of the repository".into()),
        }
    };
    if !root().join(&file).exists() {
        return Some(format!("{file} does not exist"));
    }
    if !anchor.is_empty() && !page(&file).anchors.iter().any(|one| one == anchor) {
        return Some(format!("{file} has no heading #{anchor}"));
    }
    None
}

/// Returns the path without `..`, or `None` if the path is outside of the repository.
fn inside(path: &Path) -> Option<String> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    Some(clean.to_string_lossy().replace('\\', "/"))
}

#[test]
fn every_path_in_the_text_exists() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    let folders = top_folders();
    for page in pages() {
        for span in &page.spans {
            if !is_path(&span.text, &folders) || NOT_IN_THE_REPOSITORY.contains(&span.text.as_str()) {
                continue;
            }
            checked += 1;
            if !exists(&span.text) {
                wrong.push(format!("{}:{}: this path does not exist: {}", page.path, span.line, span.text));
            }
        }
    }
    assert!(checked > 80, "{checked} paths");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn top_folders() -> Vec<String> {
    let entries = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let names = folders.map(|folder| folder.file_name().to_string_lossy().into_owned());
    names.filter(|name| !["target", ".git"].contains(&name.as_str())).collect()
}

/// Returns whether a text is a path below one of the folders of the repository.
fn is_path(text: &str, folders: &[String]) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./*".contains(letter);
    let first = text.split('/').next().unwrap_or_default();
    text.contains('/') && text.chars().all(plain) && folders.iter().any(|folder| folder == first)
}

/// Returns whether a path exists. A part with `*` or in capitals (`NAME.json`) is a placeholder; the rest is not checked.
fn exists(text: &str) -> bool {
    let mut path = root();
    for part in text.trim_end_matches('/').split('/') {
        let stem = part.split('.').next().unwrap_or_default();
        let is_placeholder = stem.len() > 1 && stem.bytes().all(|byte| byte.is_ascii_uppercase());
        if part.contains('*') || is_placeholder && !path.join(part).exists() {
            return path.is_dir();
        }
        path.push(part);
    }
    path.exists()
}

#[test]
fn a_path_is_told_from_other_text() {
    let folders = top_folders();
    for path in ["deploy/rbac.yaml", "tests/scenarios/base/NAME.json", "tests/scenarios/src/*.rs", "launcher/src/"] {
        assert!(is_path(path, &folders) && exists(path), "{path}");
    }
    for text in ["nodes/NAME/proxy", "pods/exec", "/dev/kmsg", "rbac.yaml", "deploy and more"] {
        assert!(!is_path(text, &folders), "{text}");
    }
    assert!(is_path("deploy/no-such-file.yaml", &folders) && !exists("deploy/no-such-file.yaml"));
}
