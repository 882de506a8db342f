//! `in_message`: finds the program, file, library or other object (`Missing`, `Kind`) that a message reports as missing
//! or unusable.
//!
//! The text "not found" is not sufficient, because the repair depends on the missing object. `data/missing.tsv` defines
//! where a message contains its name.

use std::sync::LazyLock;

use syringe_core::text::clean;
use syringe_core::tsv::{rows, word};

/// Maximum length of a name.
const MAX_NAME: usize = 120;

/// Kind of a missing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A program that something tried to start.
    Program,
    Library,
    PythonModule,
    Directory,
    /// A file or folder. Its name shows whether it is a device.
    Path,
    /// A device file.
    Device,
    /// A Kubernetes object with its name.
    Object,
    /// A Kubernetes object that the message does not name.
    SomeObject,
}

/// A missing object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) kind: Kind,
    /// Name of the object. For [`Kind::SomeObject`], the kind of the object: `pod`.
    pub(crate) name: String,
    /// Kind of the Kubernetes object, in the singular.
    of: Option<&'static ObjectKind>,
}

/// A kind of Kubernetes objects.
#[derive(Debug, PartialEq, Eq)]
struct ObjectKind {
    /// The kind as messages write it, in lower case.
    word: &'static str,
    shown: &'static str,
    /// Whether controllers or nodes create such objects. Other objects are created by people.
    is_made_by_software: bool,
}

const fn kind(word: &'static str, shown: &'static str, is_made_by_software: bool) -> ObjectKind {
    ObjectKind { word, shown, is_made_by_software }
}

/// Kinds of objects. A message may contain the plural.
const KINDS: [ObjectKind; 30] = [
    kind("persistentvolumeclaim", "PersistentVolumeClaim", false),
    kind("persistentvolume", "PersistentVolume", false),
    kind("resourceclaimtemplate", "ResourceClaimTemplate", false),
    kind("resourceclaim", "ResourceClaim", true),
    kind("deviceclass", "DeviceClass", false),
    kind("storageclass", "StorageClass", false),
    kind("storageclass.storage.k8s.io", "StorageClass", false),
    kind("runtimeclass", "RuntimeClass", false),
    kind("runtimeclass.node.k8s.io", "RuntimeClass", false),
    kind("priorityclass", "PriorityClass", false),
    kind("serviceaccount", "ServiceAccount", false),
    kind("service account", "ServiceAccount", false),
    kind("configmap", "ConfigMap", false),
    kind("secret", "Secret", false),
    kind("namespace", "namespace", false),
    kind("localqueue", "LocalQueue", false),
    kind("clusterqueue", "ClusterQueue", false),
    kind("queue", "queue", false),
    kind("podgroup", "PodGroup", true),
    kind("workload", "Workload", true),
    kind("deployment", "Deployment", false),
    kind("deployments.apps", "Deployment", false),
    kind("daemonsets.apps", "DaemonSet", false),
    kind("job", "job", false),
    kind("jobs.batch", "Job", false),
    kind("service", "Service", false),
    kind("endpoints", "Endpoints", true),
    kind("container", "container", true),
    kind("pod", "pod", true),
    kind("node", "node", true),
];

/// A pattern: the texts before and after the name.
struct Pattern {
    kind: Kind,
    before: String,
    after: &'static str,
    of: Option<&'static ObjectKind>,
}

static PATTERNS: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| rows(include_str!("../data/missing.tsv")).flat_map(patterns).collect());

/// Returns the patterns of a row. If the row is about objects, there is a pattern for each kind of objects, in the
/// singular and the plural.
fn patterns(fields: Vec<&'static str>) -> Vec<Pattern> {
    let [kind, pattern] = fields[..] else { return Vec::new() };
    let Some(kind) = word(kind) else { return Vec::new() };
    let (before, after) = pattern.split_once("{it}").unwrap_or((pattern, ""));
    let Some((head, tail)) = before.split_once("{kind}") else {
        return vec![Pattern { kind, before: before.to_owned(), after, of: None }];
    };
    let both = |of: &'static ObjectKind| {
        let forms = [of.word.to_owned(), format!("{}s", of.word), format!("{}es", of.word)];
        forms.map(|form| Pattern { kind, before: format!("{head}{form}{tail}"), after, of: Some(of) })
    };
    KINDS.iter().flat_map(both).collect()
}

const QUOTES: [char; 6] = ['"', '\'', '`', '‘', '’', '\\'];

/// Returns the missing object that a message names.
pub(crate) fn in_message(message: &str) -> Option<Missing> {
    let lower = message.to_ascii_lowercase();
    let found = PATTERNS.iter().filter_map(|pattern| pattern.find(message, &lower));
    // If keys are equal, `max_by_key` returns the last element. The order is reversed, so the first row is used.
    let mut found: Vec<_> = found.collect();
    found.reverse();
    let (_, missing) = found.into_iter().max_by_key(|(rank, _)| *rank)?;
    Some(missing)
}

/// Position of the end of a match, whether the match names the object, and the length of its words. A longer pattern is
/// more specific.
type Rank = (bool, usize, usize);

impl Pattern {
    /// Returns the last match in the message.
    fn find(&self, message: &str, lower: &str) -> Option<(Rank, Missing)> {
        let words = self.before.trim().len() + self.after.len();
        if self.kind == Kind::SomeObject {
            let at = lower.rmatch_indices(self.before.as_str()).map(|(at, _)| at).find(|at| is_word(lower, *at))?;
            // If a name follows, or the order is different, another pattern matches.
            let of = self.of?;
            let name = of.shown.to_owned();
            return Some(((false, at, words), Missing { kind: self.kind, name, of: Some(of) }));
        }
        let places: Vec<(usize, usize)> = if self.before.is_empty() {
            lower.rmatch_indices(self.after).filter_map(|(at, _)| Some((start_of_token(message, at)?, at))).collect()
        } else {
            let starts = lower.rmatch_indices(self.before.as_str()).filter(|(at, _)| is_word(lower, *at));
            let ends = starts.filter_map(|(at, _)| {
                let start = at + self.before.len();
                let end = end_of_token(message, start)?;
                let rest = lower[end..].trim_start_matches(QUOTES).trim_start_matches(' ');
                let wanted = self.after.trim_start();
                (rest.starts_with(wanted) || rest.trim_start_matches([':', ')', ' ']).starts_with(wanted))
                    .then_some((start, end))
            });
            ends.collect()
        };
        places.into_iter().find_map(|(start, end)| {
            let name = message[start..end].trim().trim_matches(QUOTES).trim_end_matches([':', ',', ';', ')', '.']);
            let name = name.trim_matches(QUOTES);
            if !self.accepts(name) {
                return None;
            }
            let kind = match self.kind {
                Kind::Path if name.starts_with("/dev/") => Kind::Device,
                Kind::Path if name.contains(".so.") || name.ends_with(".so") => Kind::Library,
                kind => kind,
            };
            Some(((true, start, words), Missing { kind, name: clean(name, MAX_NAME), of: self.of }))
        })
    }

    /// Returns whether a text can be the name of an object of the pattern's kind.
    fn accepts(&self, name: &str) -> bool {
        let is_plain = name.len() > 1 && !name.contains(['"', '`', '\n']) && name.chars().any(char::is_alphanumeric);
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        is_plain
            && match self.kind {
                Kind::Path | Kind::Directory => name.contains(['/', '.']) && !name.contains("://"),
                Kind::Program => !is_number && !name.contains("://") && !name.starts_with('-') && !is_filler(name),
                Kind::Object => !is_filler(name),
                Kind::Library => name.contains("lib") || name.contains(".so") || self.before.contains("-l"),
                _ => !is_number,
            }
    }
}

/// Words that may be at the position of a name but are not names.
const FILLERS: [&str; 17] = [
    "unknown", "error", "is", "was", "not", "found", "file", "the", "a", "an", "with", "that", "for", "in", "on", "to",
    "and",
];

fn is_filler(name: &str) -> bool {
    FILLERS.contains(&name.to_ascii_lowercase().as_str())
}

/// Returns whether the text at a position starts there and is not a part of a longer word.
fn is_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '-')
}

/// Returns the end of the token that starts at a position: its closing quote, or else the next space.
fn end_of_token(message: &str, start: usize) -> Option<usize> {
    let rest = message.get(start..)?;
    let quotes = rest.len() - rest.trim_start_matches(QUOTES).len();
    let inner = &rest[quotes..];
    let end = if quotes > 0 {
        inner.find(QUOTES).or_else(|| inner.find(char::is_whitespace))
    } else {
        let end = inner.find([' ', '\t', '\n', ',', ')', '"', '\'', '`']);
        // A colon after the name is not a part of it. A colon inside the name is.
        end.or(Some(inner.len())).map(|end| inner[..end].trim_end_matches([':', ';', '.']).len())
    };
    let end = end.unwrap_or(inner.len());
    (end > 0).then_some(start + quotes + end)
}

/// Returns the start of the token that ends at a position.
fn start_of_token(message: &str, end: usize) -> Option<usize> {
    let before = message.get(..end)?.trim_end_matches([' ', ':']);
    let inner = before.trim_end_matches(QUOTES);
    let is_quoted = inner.len() < before.len();
    let start = if is_quoted {
        inner.char_indices().rev().find(|(_, one)| QUOTES.contains(one)).map(|(at, one)| at + one.len_utf8())
    } else {
        inner
            .char_indices()
            .rev()
            .find(|(_, one)| one.is_whitespace() || "(=,[".contains(*one))
            .map(|(at, one)| at + one.len_utf8())
    };
    Some(start.unwrap_or(0)).filter(|start| *start < inner.len())
}

impl Missing {
    /// Returns a text that states that the object is missing.
    pub(crate) fn in_words(&self) -> String {
        let Self { kind, name, of } = self;
        match kind {
            Kind::Program => format!("the program {name} was not found"),
            Kind::Library => format!("the shared library {name} is missing"),
            Kind::PythonModule => format!("the Python module {name} is not installed in the image"),
            Kind::Directory => format!("the directory {name} does not exist"),
            Kind::Path => format!("{name} does not exist"),
            Kind::Device => format!("the device file {name} does not exist"),
            Kind::Object => format!("the {} {name} does not exist", of.map_or("object", |of| of.shown)),
            Kind::SomeObject => format!("a {name} that it looks for was not found"),
        }
    }

    /// Returns the advice for the missing object.
    pub(crate) fn advice(&self) -> &'static str {
        match self.kind {
            Kind::Program => {
                "The program must be in a folder of PATH. Install it where the command runs (the image of the \
                 container, or the host of a hook), add its folder to PATH (for example, the folder of a virtual \
                 environment), or start it by its full path."
            }
            Kind::Library => {
                "Install the library for the program in the message, or correct the search path of its loader (LD_LIBRARY_PATH). A library \
                 of the driver comes from {node} through the container toolkit."
            }
            Kind::PythonModule => "Install the module in the image, for the Python that runs the program.",
            Kind::Directory => {
                "Create the directory in the image or mount a volume there, or correct the path (workingDir)."
            }
            Kind::Path => {
                "Create the missing file or folder, mount it into the container, or correct the path. If it belongs \
                 to a driver or another component of {node}, install this component first."
            }
            Kind::Device => {
                "Check on {node} that the driver which creates the device file is loaded, and that the container gets the device."
            }
            Kind::Object | Kind::SomeObject if self.of.is_some_and(|of| of.is_made_by_software) => {
                "Find out whether the object was deleted or renamed, never existed, or does not match the search \
                 (labels, requests, state): software creates such objects. Then restart the component that needs the \
                 object."
            }
            Kind::Object | Kind::SomeObject => {
                "Create the object in the right namespace, or correct its name in the place that refers to it."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_row_is_read() {
        let all = rows(include_str!("../data/missing.tsv"));
        for fields in all {
            assert_eq!(fields.len(), 2, "{fields:?}");
            assert!(!patterns(fields.clone()).is_empty() && fields[1] == fields[1].to_ascii_lowercase(), "{fields:?}");
        }
    }

    #[test]
    fn the_object_and_its_kind_are_read() {
        use Kind::{Device, Directory, Library, Object, Path, Program, PythonModule, SomeObject};
        for (message, kind, name) in [
            (
                "error: Failed to spawn: `dynamo`\n  Caused by: No such file or directory (os error 2)",
                Program,
                "dynamo",
            ),
            ("exec: \"acme-run\": executable file not found in $PATH: unknown", Program, "acme-run"),
            ("/entrypoint.sh: line 7: acme-run: command not found", Program, "acme-run"),
            ("/usr/bin/env: ‘python3’: No such file or directory", Program, "python3"),
            ("/bin/sh: 1: ray: not found", Program, "ray"),
            ("Error: spawn nvcc ENOENT", Program, "nvcc"),
            ("FileNotFoundError: [Errno 2] No such file or directory: '/data/train.bin'", Path, "/data/train.bin"),
            ("open /etc/acme/x.conf: no such file or directory", Path, "/etc/acme/x.conf"),
            ("open /dev/nvidia3: no such file or directory", Device, "/dev/nvidia3"),
            ("libnccl.so.2: cannot open shared object file: No such file or directory", Library, "libnccl.so.2"),
            ("ModuleNotFoundError: No module named 'flash_attn'", PythonModule, "flash_attn"),
            (
                "chdir to cwd (\"/workspace\") set in config.json failed: no such file or directory",
                Directory,
                "/workspace",
            ),
            ("secrets \"hub-token\" not found", Object, "hub-token"),
            ("nodes \"gpu-7\" not found", Object, "gpu-7"),
            ("configmap \"layouts\" not found", Object, "layouts"),
            ("storageclass.storage.k8s.io \"fast\" not found", Object, "fast"),
            (
                "rpc error: code = Unknown desc = candidate pod not found for request &AllocateRequest{}",
                SomeObject,
                "pod",
            ),
        ] {
            let found = in_message(message).unwrap_or_else(|| panic!("nothing: {message}"));
            assert_eq!((found.kind, found.name.as_str()), (kind, name), "{message}");
        }
        for other in ["the frobnicator is sad", "step 3 of 9", "404 Not Found", "port 8080 is in use", "not found"] {
            assert_eq!(in_message(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
        /// Tests that the object of each pattern is found in a chain of errors with its kind, for any name.
        #[test]
        fn the_name_of_any_object_is_found(
            word in "[a-z][a-z0-9]{2,8}(-[a-z0-9]{2,5})?",
            row in 0..PATTERNS.len(),
            quote in prop::sample::select(vec!["", "'", "\"", "`"]),
            head in prop::sample::select(vec!["", "starting: ", "failed to run: loading zq: ", "E1121 02:40:02.611072 1 zq.go:7] "]),
            tail in prop::sample::select(vec!["", ": unknown", " (os error 2)"]),
        ) {
            let pattern = &PATTERNS[row];
            prop_assume!(pattern.kind != Kind::SomeObject && !is_filler(&word));
            let name = match pattern.kind {
                Kind::Library => format!("lib{word}.so.1"),
                Kind::Path | Kind::Directory => format!("/opt/{word}/x.conf"),
                _ => word.clone(),
            };
            // A name without quotes needs words of the pattern on both sides.
            let message = format!("{head}{}{quote}{name}{quote}{}{tail}", pattern.before, pattern.after);
            let found = in_message(&message);
            prop_assert!(found.is_some(), "{message}");
            let found = found.unwrap();
            prop_assert_eq!(&found.name, &name, "{}", &message);
            prop_assert_eq!(found.kind == Kind::Program, pattern.kind == Kind::Program, "{}", &message);
            prop_assert_eq!(found.of, pattern.of, "{}", &message);
            prop_assert!(found.in_words().contains(&name));
        }
    }
}
