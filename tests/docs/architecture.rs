//! Tests that `docs/architecture.md` lists exactly the modules of the launcher.

use crate::markdown::root;

/// Modules that have no layer: the root of the crate, the program, and a module for tests.
const NO_LAYER: [&str; 3] = ["lib", "main", "fuzzing"];

/// Returns the names of modules in the first column of the table of layers.
fn layers() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = text.split("## Layers of the launcher").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split(','));
    names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn every_module_of_the_launcher_has_a_layer() {
    let layers = layers();
    let source = root().join("launcher/src");
    for name in &layers {
        let exists = source.join(format!("{name}.rs")).exists() || source.join(name).is_dir();
        assert!(exists, "docs/architecture.md names {name}, which does not exist in launcher/src");
    }
    for entry in std::fs::read_dir(&source).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        let has_layer = layers.iter().any(|layer| *layer == name || layer.starts_with(&format!("{name}/")));
        assert!(
            has_layer || NO_LAYER.contains(&name.as_str()),
            "launcher/src/{name} is missing in docs/architecture.md"
        );
    }
}
