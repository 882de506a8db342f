//! `read`: reads a TOML file of a container runtime. `matching`: lists the files that match a pattern.
//! `at`, `text_at`, `texts_at`: return the value at a path of keys.

use jiff::Timestamp;
use toml::{Table, Value};

use crate::files;
use crate::in_root::Root;

/// Maximum size of a file. A containerd configuration with all defaults has about 10 KiB.
const MAX_CONFIG: usize = 256 * 1024;

/// Maximum number of files of one configuration. A node has one to three.
pub(in crate::host) const MAX_FILES: usize = 32;

#[derive(Debug)]
pub(in crate::host) struct ConfigFile {
    /// Path on the host.
    pub(in crate::host) path: String,
    /// Time of the last change.
    pub(in crate::host) changed_at: Option<Timestamp>,
    pub(in crate::host) table: Table,
}

/// The result of reading a file.
#[derive(Debug)]
pub(in crate::host) enum Read {
    Parsed(ConfigFile),
    Absent,
    /// The file exists, but cannot be read or is not TOML.
    Unreadable,
}

pub(in crate::host) fn read(host: &Root, path: &str) -> Read {
    let Some(file) = host.find(path) else {
        return if host.exists(path) == Some(false) { Read::Absent } else { Read::Unreadable };
    };
    let text = file.whole(MAX_CONFIG).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(table) = text.and_then(|text| text.parse::<Table>().ok()) else { return Read::Unreadable };
    let changed_at = file.changed_at();
    Read::Parsed(ConfigFile {
        path: files::shown(&host.path, &host.path.join(path.trim_start_matches('/'))),
        changed_at,
        table,
    })
}

/// Returns the files that match a pattern with `*` in its last part, sorted; without `*`, the path itself. `None`: the
/// pattern is not supported, or its folder cannot be read.
pub(in crate::host) fn matching(host: &Root, pattern: &str) -> Option<Vec<String>> {
    if !pattern.contains(['*', '?', '[', '$']) {
        return Some(vec![pattern.to_owned()]);
    }
    let (folder, name) = pattern.rsplit_once('/')?;
    let (begin, end) = name.split_once('*')?;
    if [folder, begin, end].iter().any(|part| part.contains(['*', '?', '[', '$'])) {
        return None;
    }
    let Some(found) = host.find(folder) else { return (host.exists(folder) == Some(false)).then(Vec::new) };
    let fits = |name: &String| {
        name.len() >= begin.len() + end.len()
            && name.starts_with(begin)
            && name.ends_with(end)
            && !name.starts_with('.')
    };
    Some(found.names().ok()?.into_iter().filter(fits).map(|name| format!("{folder}/{name}")).collect())
}

/// Returns the value at a path of keys.
pub(in crate::host) fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, above) = path.split_last()?;
    let folder = above.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?;
    folder.get(*last)
}

pub(in crate::host) fn text_at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a str> {
    at(table, path)?.as_str()
}

pub(in crate::host) fn texts_at(table: &Table, path: &[&str]) -> Option<Vec<String>> {
    Some(at(table, path)?.as_array()?.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn root(tree: &Tree) -> Root {
        Root::open(tree.path()).expect("there")
    }

    #[test]
    fn a_pattern_names_the_files_of_its_folder_in_order() {
        let tree = Tree::new();
        tree.file("etc/c/b.toml", "").file("etc/c/a.toml", "").file("etc/c/a.conf", "").file("etc/c/.x.toml", "");
        let of = |pattern| matching(&root(&tree), pattern);
        assert_eq!(of("/etc/c/*.toml"), Some(vec!["/etc/c/a.toml".to_owned(), "/etc/c/b.toml".to_owned()]));
        assert_eq!(of("/etc/none/*.toml"), Some(Vec::new()), "a missing folder has no files");
        for unknown in ["/etc/*/a.toml", "$SNAP/x.toml", "/etc/c/[ab].toml", "*.toml"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn deep_nesting_does_not_end_the_probe() {
        let deep = |part: &str| part.repeat(MAX_CONFIG / part.len() - 8);
        for text in [
            format!("a{} = 1\n", deep(".a")),
            format!("[a{}]\n", deep(".a")),
            format!("[[a{}]]\n", deep(".a")),
            format!("a = {}\n", deep("[")),
            format!("a = {}\n", deep("{a=")),
        ] {
            let tree = Tree::new();
            tree.file("a.toml", &text);
            assert!(matches!(read(&root(&tree), "/a.toml"), Read::Unreadable), "{}", &text[..12]);
        }
    }

    #[test]
    fn what_is_no_toml_or_no_file_is_told_from_what_is_absent() {
        let tree = Tree::new();
        tree.file("a.toml", "version = 2\n").file("b.toml", "[[[").folder("c.toml").link("d.toml", "/nowhere");
        let read = |path| read(&root(&tree), path);
        assert!(matches!(read("/a.toml"), Read::Parsed(file) if file.path == "/a.toml" && file.changed_at.is_some()));
        assert!(matches!((read("/b.toml"), read("/c.toml")), (Read::Unreadable, Read::Unreadable)));
        assert!(matches!((read("/d.toml"), read("/e.toml")), (Read::Absent, Read::Absent)));
    }
}
