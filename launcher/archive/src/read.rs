//! `Archive::read`, `Archive::read_with_raw_of`: read an archive, or the report of one node, from an untrusted file,
//! without or with the kernel logs and driver files of the nodes. `ArchiveError`: why a file is rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::marker::PhantomData;

use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use syringe_core::raw_file::RawFile;
use syringe_core::report::{Problem, Report};
use syringe_core::text::{self, clean};
use tar::EntryType;
use thiserror::Error;

use crate::manifest::{FORMAT, is_context, is_kubernetes_version, is_version};
use crate::{Archive, FORMAT_VERSION, KINDS, Manifest, SavedNode};

/// Maximum size of the unpacked archive. The raw kernel logs of 1,000 nodes take 256 MiB.
const MAX_UNPACKED: u64 = 2 << 30;
/// Maximum size of the files that are kept in memory.
const MAX_KEPT: u64 = 512 << 20;
/// Maximum number of files and folders: four for each of 10,000 nodes.
const MAX_FILES: usize = 40_000;
const MAX_MANIFEST: u64 = 8 << 20;
/// Maximum size of a report. A probe prints at most 4 MiB.
const MAX_REPORT: u64 = 8 << 20;
/// Maximum size of a kernel log. A probe prints at most 2 MiB.
const MAX_KERNEL_LOG: u64 = 4 << 20;
/// Maximum number of records in a kernel log. The kernel and the probe keep fewer records.
const MAX_RECORDS: usize = 100_000;
/// Maximum size of the files of a node. A probe prints at most 1 MiB.
const MAX_RAW_FILES: u64 = 2 << 20;
/// Maximum number of files of a node, and of lines in a file. A probe prints at most 256 files with at most 256 lines,
/// and 257 lines of a configuration space.
const MAX_FILES_OF_NODE: usize = 512;
const MAX_OBJECTS: u64 = 256 << 20;
const MAX_LOGS: u64 = 16 << 20;
/// Maximum number of nodes, and of container logs.
const MAX_NODES: usize = 10_000;
/// Maximum number of objects of one kind, except nodes.
const MAX_OF_KIND: usize = 200_000;
/// Maximum number of objects of all kinds together.
const MAX_ALL_OBJECTS: usize = 400_000;
/// Maximum number of maps and lists in the objects. The objects of a very large cluster have a few millions. Even an
/// empty map needs hundreds of bytes in memory.
const MAX_MAPS: usize = 6_000_000;
/// Maximum number of commas in the objects, which limits the number of entries in maps and lists.
const MAX_ENTRIES: usize = 20_000_000;
/// Maximum length of a name in a message.
const MAX_NAME: usize = 120;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The reason why this program cannot use a file as an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("the file is not an archive of gpu-syringe, and not a report of node-probe")]
    Unknown,
    #[error("the archive is damaged: {0}")]
    Damaged(#[source] io::Error),
    #[error("{path} is not a plain file")]
    NotAFile { path: String },
    #[error("{path} is not a file of an archive")]
    UnexpectedPath { path: String },
    #[error("{path} is in the archive twice")]
    Twice { path: String },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("the archive has more than {MAX_FILES} files")]
    TooManyFiles,
    #[error("{path} cannot be parsed: {why}")]
    Invalid { path: String, why: String },
    #[error("{path}: {why}")]
    OtherVersion { path: String, why: String },
    #[error("manifest.json is not the first file of the archive")]
    NoManifest,
}

/// A file of an archive.
enum Place {
    Manifest,
    Report(String),
    KernelLog(String),
    RawFiles(String),
    Objects(&'static str),
    Logs,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        Some(match parts[..] {
            ["manifest.json"] => Self::Manifest,
            ["logs.json"] => Self::Logs,
            ["nodes", folder, "report.json"] if is_plain(folder) => Self::Report(folder.to_owned()),
            ["nodes", folder, "kernel.log"] if is_plain(folder) => Self::KernelLog(folder.to_owned()),
            ["nodes", folder, "files.json"] if is_plain(folder) => Self::RawFiles(folder.to_owned()),
            ["kubernetes", file] => {
                let kind = file.strip_suffix(".json")?;
                Self::Objects(KINDS.into_iter().find(|known| *known == kind)?)
            }
            _ => return None,
        })
    }

    fn limit(&self) -> u64 {
        match self {
            Self::Manifest => MAX_MANIFEST,
            Self::Report(_) => MAX_REPORT,
            Self::KernelLog(_) => MAX_KERNEL_LOG,
            Self::RawFiles(_) => MAX_RAW_FILES,
            Self::Objects(_) => MAX_OBJECTS,
            Self::Logs => MAX_LOGS,
        }
    }
}

/// Returns whether a text is allowed as the name of a folder: only characters of node names, and no leading dot.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(plain)
}

/// Limits the size of the unpacked archive.
struct Limited<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("it unpacks to more than {MAX_UNPACKED} bytes"))
        })?;
        Ok(count)
    }
}

impl Archive {
    /// Reads an archive, or the report of one node. Kernel logs and files of the driver are kept only if `with_raw` is
    /// true.
    ///
    /// # Errors
    /// Fails if the file is not an archive, or exceeds a limit.
    pub fn read(from: impl Read, with_raw: bool) -> Result<Self, ArchiveError> {
        Self::read_with_raw_of(from, &|_| with_raw)
    }

    /// Reads an archive, and keeps the kernel logs and files of the `wanted` nodes.
    ///
    /// # Errors
    /// See [`Archive::read`].
    pub fn read_with_raw_of(mut from: impl Read, wanted: &dyn Fn(&str) -> bool) -> Result<Self, ArchiveError> {
        let mut start = [0; 2];
        from.read_exact(&mut start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Unknown,
            _ => ArchiveError::Unreadable(error),
        })?;
        let mut from = start.chain(from);
        if start == GZIP {
            return packed(Limited { from: GzDecoder::new(from), left: MAX_UNPACKED }, wanted);
        }
        let mut document = Vec::new();
        from.by_ref().take(MAX_REPORT + 1).read_to_end(&mut document).map_err(ArchiveError::Unreadable)?;
        if document.first().is_some_and(|byte| *byte >= 0x80) {
            document = text::of_file(&document).into_owned().into_bytes();
        }
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(ArchiveError::Unknown);
        }
        if document.len() as u64 > MAX_REPORT {
            return Err(ArchiveError::TooLarge { what: "the report".into(), limit: MAX_REPORT });
        }
        of_report(document)
    }
}

fn packed(unpacked: impl Read, wanted: &dyn Fn(&str) -> bool) -> Result<Archive, ArchiveError> {
    let mut tar = tar::Archive::new(unpacked);
    let mut manifest = None;
    let mut archive = Archive::default();
    // The names of the nodes, by folder, from the manifest.
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut files, mut kept, mut counts) = (0, 0, Counts::default());
    // Extended headers are rejected, because they could contain other paths and sizes.
    for entry in tar.entries().map_err(ArchiveError::Damaged)?.raw(true) {
        // If the unpacked data is not a tar file, its first entry is invalid.
        let damaged = |error: io::Error| match error.kind() {
            io::ErrorKind::Other if files == 0 => ArchiveError::Unknown,
            _ => ArchiveError::Damaged(error),
        };
        let mut entry = entry.map_err(damaged)?;
        files += 1;
        if files > MAX_FILES {
            return Err(ArchiveError::TooManyFiles);
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let shown = || clean(&path, MAX_NAME);
        match entry.header().entry_type() {
            EntryType::Directory => continue,
            EntryType::Regular => {}
            _ => return Err(ArchiveError::NotAFile { path: shown() }),
        }
        let plain = path.strip_prefix("./").unwrap_or(&path);
        let place = Place::of(plain).ok_or_else(|| ArchiveError::UnexpectedPath { path: shown() })?;
        let is_kept = match &place {
            Place::KernelLog(folder) | Place::RawFiles(folder) => names.get(folder).is_some_and(|name| wanted(name)),
            _ => true,
        };
        if entry.size() > place.limit() {
            return Err(ArchiveError::TooLarge { what: shown(), limit: place.limit() });
        }
        kept += if is_kept { entry.size() } else { 0 };
        if kept > MAX_KEPT {
            return Err(ArchiveError::TooLarge { what: "the content of the archive".into(), limit: MAX_KEPT });
        }
        if manifest.is_none() && !matches!(place, Place::Manifest) {
            return Err(ArchiveError::NoManifest);
        }
        if !seen.insert(plain.to_owned()) {
            return Err(ArchiveError::Twice { path: shown() });
        }
        let mut content = Vec::new();
        if is_kept {
            entry.read_to_end(&mut content).map_err(ArchiveError::Damaged)?;
            if content.len() as u64 != entry.size() {
                let why = io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is cut off", shown()));
                return Err(ArchiveError::Damaged(why));
            }
        }
        let of_folder = |folder: &str| {
            names.get(folder).cloned().ok_or_else(|| ArchiveError::UnexpectedPath { path: clean(&path, MAX_NAME) })
        };
        match place {
            Place::Manifest => {
                let read = manifest_of(&content)?;
                let folders = read.nodes.iter().filter_map(|entry| Some((entry.folder.clone()?, entry.name.clone())));
                names = folders.collect();
                manifest = Some(read);
            }
            Place::Report(folder) => {
                check_report(&content, plain)?;
                archive.nodes.entry(of_folder(&folder)?).or_default().report = content;
            }
            Place::KernelLog(folder) => {
                if content.iter().filter(|byte| **byte == b'\n').count() > MAX_RECORDS {
                    let why = format!("the kernel log has more than {MAX_RECORDS} lines");
                    return Err(ArchiveError::Invalid { path: shown(), why });
                }
                archive.nodes.entry(of_folder(&folder)?).or_default().kernel_log = content;
            }
            Place::RawFiles(folder) => {
                let name = of_folder(&folder)?;
                if is_kept {
                    let files: Vec<RawFile> = parsed_with(&content, plain, AtMost::new(MAX_FILES_OF_NODE, "files"))?;
                    if files.iter().any(|file| file.lines.len() > MAX_FILES_OF_NODE) {
                        let why = format!("a file has more than {MAX_FILES_OF_NODE} lines");
                        return Err(ArchiveError::Invalid { path: shown(), why });
                    }
                    archive.nodes.entry(name).or_default().files = files;
                }
            }
            Place::Objects(kind) => {
                counts.add(kind, &content, plain)?;
                archive.objects.insert(kind.to_owned(), content);
            }
            Place::Logs => archive.logs = parsed_with(&content, plain, AtMost::new(MAX_NODES, "logs"))?,
        }
    }
    // The checksum of gzip follows the last file.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(ArchiveError::Damaged)?;
    archive.manifest = manifest.ok_or(ArchiveError::NoManifest)?;
    for entry in &mut archive.manifest.nodes {
        if archive.nodes.get(&entry.name).is_none_or(|node| node.report.is_empty()) {
            archive.nodes.remove(&entry.name);
            entry.folder = None;
            entry.unread.get_or_insert_with(|| "the archive has no report of the node".to_owned());
        }
    }
    Ok(archive)
}

fn parsed<'a, T: Deserialize<'a>>(content: &'a [u8], path: &str) -> Result<T, ArchiveError> {
    serde_json::from_slice(content)
        .map_err(|error| ArchiveError::Invalid { path: path.to_owned(), why: clean(&error.to_string(), MAX_NAME) })
}

/// Parses a value with a seed, and rejects text after the value.
fn parsed_with<'a, S: DeserializeSeed<'a>>(content: &'a [u8], path: &str, seed: S) -> Result<S::Value, ArchiveError> {
    let mut from = serde_json::Deserializer::from_slice(content);
    let read = seed.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    read.map_err(|error| ArchiveError::Invalid { path: path.to_owned(), why: clean(&error.to_string(), MAX_NAME) })
}

/// The number of objects, maps and entries in the lists that were read so far.
#[derive(Default)]
struct Counts {
    objects: usize,
    maps: usize,
    entries: usize,
}

impl Counts {
    /// Checks a list of objects without keeping them in memory, and adds their number. In memory, an object can be 100
    /// times as large as in the file.
    fn add(&mut self, kind: &str, content: &[u8], path: &str) -> Result<(), ArchiveError> {
        let invalid = |why: String| ArchiveError::Invalid { path: path.to_owned(), why };
        self.maps += content.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
        self.entries += content.iter().filter(|byte| **byte == b',').count();
        if self.maps > MAX_MAPS || self.entries > MAX_ENTRIES {
            return Err(invalid(format!(
                "the objects have more than {MAX_MAPS} maps and lists, or {MAX_ENTRIES} entries"
            )));
        }
        self.objects += parsed_with(content, path, Objects(if kind == "nodes" { MAX_NODES } else { MAX_OF_KIND }))?;
        if self.objects > MAX_ALL_OBJECTS {
            return Err(invalid(format!("the archive has more than {MAX_ALL_OBJECTS} objects")));
        }
        Ok(())
    }
}

/// Counts the objects of a list, up to this limit. Each object must be a map with a name in its metadata.
struct Objects(usize);

impl<'de> DeserializeSeed<'de> for Objects {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while list.next_element_seed(HasField("metadata", HasField("name", Name)))?.is_some() {
            count += 1;
            if count > self.0 {
                return Err(de::Error::custom(format_args!("the list has more than {} objects", self.0)));
            }
        }
        Ok(count)
    }
}

/// Checks that a value is a map with this field, and checks the field.
#[derive(Clone, Copy)]
struct HasField<S>(&'static str, S);

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> DeserializeSeed<'de> for HasField<S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> Visitor<'de> for HasField<S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a map with the field {}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut has_field = false;
        while let Some(field) = fields.next_key::<std::borrow::Cow<'de, str>>()? {
            if field != self.0 {
                fields.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut has_field, true) {
                return Err(de::Error::duplicate_field(self.0));
            } else {
                fields.next_value_seed(self.1)?;
            }
        }
        if has_field { Ok(()) } else { Err(de::Error::missing_field(self.0)) }
    }
}

/// Checks that a value is a text that is not empty.
#[derive(Clone, Copy)]
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match String::deserialize(from)?.is_empty() {
            true => Err(de::Error::custom("the name of an object is empty")),
            false => Ok(()),
        }
    }
}

/// Reads a list of values, up to the limit.
struct AtMost<T> {
    most: usize,
    what: &'static str,
    of: PhantomData<T>,
}

impl<T> AtMost<T> {
    fn new(most: usize, what: &'static str) -> Self {
        Self { most, what, of: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<T>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
            if values.len() > self.most {
                return Err(de::Error::custom(format_args!("the list has more than {} {}", self.most, self.what)));
            }
        }
        Ok(values)
    }
}

fn manifest_of(content: &[u8]) -> Result<Manifest, ArchiveError> {
    /// The fields that every version of the format has.
    #[derive(Deserialize)]
    struct Start {
        format: String,
        format_version: u32,
    }
    let path = "manifest.json";
    let Start { format, format_version } = parsed(content, path)?;
    if format != FORMAT {
        let why = format!("the format is '{}'", clean(&format, MAX_NAME));
        return Err(ArchiveError::OtherVersion { path: path.into(), why });
    }
    if format_version != FORMAT_VERSION {
        let why = format!("the version of the format is {format_version}; this program reads version {FORMAT_VERSION}");
        return Err(ArchiveError::OtherVersion { path: path.into(), why });
    }
    let mut manifest: Manifest = parsed(content, path)?;
    let invalid = |why: &str| ArchiveError::Invalid { path: path.into(), why: why.into() };
    check_time(manifest.taken_at, path)?;
    if manifest.nodes.len() > MAX_NODES {
        return Err(invalid(&format!("it has more than {MAX_NODES} nodes")));
    }
    let mut names = BTreeSet::new();
    for entry in &mut manifest.nodes {
        if !is_plain(&entry.name) || !names.insert(entry.name.clone()) {
            return Err(invalid("a node has an invalid name, or is listed twice"));
        }
        entry.unread = entry.unread.take().map(|why| clean(&why, 400));
    }
    // Answers print these texts as texts of the program.
    check_version(&manifest.version, path)?;
    if !is_context(&manifest.context) {
        return Err(invalid("the context is not a name"));
    }
    if !is_kubernetes_version(&manifest.kubernetes_version) {
        return Err(invalid("kubernetes_version is not a version"));
    }
    if manifest.context.is_empty() {
        manifest.context = "archive".to_owned();
    }
    manifest.note = manifest.note.map(|note| clean(&note, 200));
    manifest.unread.values_mut().for_each(|why| *why = clean(why, 400));
    Ok(manifest)
}

/// Rejects a text that is not a valid program version.
fn check_version(version: &str, path: &str) -> Result<(), ArchiveError> {
    if is_version(version) {
        return Ok(());
    }
    let why = format!("'{}' is not a valid program version, such as 1.2.3", clean(version, 40));
    Err(ArchiveError::Invalid { path: path.to_owned(), why })
}

/// Rejects a time outside of this century. The clock of the cluster shows this time, and other times are computed from
/// it.
fn check_time(time: Timestamp, path: &str) -> Result<(), ArchiveError> {
    let years = 946_684_800..4_102_444_800;
    if years.contains(&time.as_second()) {
        return Ok(());
    }
    Err(ArchiveError::Invalid { path: path.to_owned(), why: format!("the time of the archive is {time}") })
}

/// The fields at the start of a report. Of the sections, only the syntax is checked here, because the probe of the node
/// parses them.
#[derive(Deserialize)]
struct ReportStart {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    probe_version: String,
    #[serde(default)]
    taken_at: Option<Timestamp>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    sections: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    kernel_log: Vec<IgnoredAny>,
    #[serde(default)]
    error: Option<Problem>,
}

fn check_report(document: &[u8], path: &str) -> Result<ReportStart, ArchiveError> {
    let start: ReportStart = parsed(document, path)?;
    let ReportStart { schema_version, probe_version, .. } = &start;
    let report = Report { schema_version: *schema_version, probe_version: probe_version.clone(), ..Report::default() };
    if let Some(why) = report.other_version() {
        return Err(ArchiveError::OtherVersion { path: path.to_owned(), why });
    }
    // A document without sections would be replayed as a node without faults.
    if start.sections.is_empty() && start.kernel_log.is_empty() {
        let why = match &start.error {
            Some(problem) => format!("the probe failed: {}", clean(&problem.why, 200)),
            None => "the document is not a report: it has no sections and no kernel_log".to_owned(),
        };
        return Err(ArchiveError::Invalid { path: path.to_owned(), why });
    }
    Ok(start)
}

/// Returns an archive with one node and no Kubernetes objects.
fn of_report(report: Vec<u8>) -> Result<Archive, ArchiveError> {
    const WHY: &str = "the archive is a report of node-probe, which has no objects of Kubernetes";
    let ReportStart { probe_version, taken_at, hostname, .. } = check_report(&report, "the report")?;
    check_version(&probe_version, "the report")?;
    let taken_at = taken_at.unwrap_or_else(Timestamp::now);
    check_time(taken_at, "the report")?;
    let name = hostname.map(|name| name.to_ascii_lowercase()).filter(|name| is_plain(name));
    let mut archive = Archive {
        manifest: Manifest {
            version: probe_version,
            taken_at,
            context: "report".to_owned(),
            unread: KINDS.iter().filter(|kind| **kind != "nodes").map(|kind| ((*kind).into(), WHY.into())).collect(),
            ..Manifest::default()
        },
        ..Archive::default()
    };
    archive.add_node(&name.unwrap_or_else(|| "node".to_owned()), SavedNode { report, ..SavedNode::default() }, None);
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_stops_at_the_limit() {
        let mut limited = Limited { from: io::repeat(0), left: 100_000 };
        let error = io::copy(&mut limited, &mut io::sink()).expect_err("a limit");
        assert!(error.to_string().contains("unpacks to more than"), "{error}");
    }
}
