//! Tests that hostile and damaged archives (bombs, links, wrong paths, duplicate files, many objects) are rejected with
//! an error that names the file, and that valid archives and reports are read.

use std::io::{Read, Write};

use archive::{Archive, FORMAT_VERSION, SavedNode};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use syringe_core::raw_file::RawFile;
use tar::{Builder, EntryType, Header};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(content).expect("memory");
    packed.finish().expect("memory")
}

/// Adds an entry. The header gets the raw name, because the library would reject some of the names.
fn entry(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, content).expect("memory");
}

fn manifest() -> Value {
    json!({
        "format": "gpu-syringe archive", "format_version": FORMAT_VERSION, "version": "0.1.0",
        "taken_at": "2026-11-21T02:45:10Z", "context": "c", "nodes": [{"name": "gpu-1", "folder": "gpu-1"}],
    })
}

fn report() -> Vec<u8> {
    syringe_core::scenarios::named("no-gpu").expect("a scenario").json.as_bytes().to_vec()
}

/// Returns an archive with these files after the manifest.
fn with(files: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    entry(&mut tar, "manifest.json", EntryType::Regular, manifest().to_string().as_bytes());
    files.iter().for_each(|(path, kind, content)| entry(&mut tar, path, *kind, content));
    gzip(&tar.into_inner().expect("memory"))
}

fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = manifest();
    change(&mut manifest);
    let mut tar = Builder::new(Vec::new());
    entry(&mut tar, "manifest.json", EntryType::Regular, manifest.to_string().as_bytes());
    gzip(&tar.into_inner().expect("memory"))
}

fn refusal(file: &[u8]) -> String {
    Archive::read(file, false).expect_err("a refusal").to_string()
}

#[test]
fn an_archive_is_read_as_it_was_written() {
    let mut archive = Archive::default();
    archive.manifest.context = "prod".into();
    archive.manifest.taken_at = "2026-11-21T02:45:10Z".parse().expect("a time");
    let files = vec![RawFile { path: "/proc/driver/nvidia/version".into(), lines: vec!["NVRM version: x".into()] }];
    let node = SavedNode { report: report(), kernel_log: b"6,1,2,-;line\n".to_vec(), files };
    archive.add_node("gpu-1", node.clone(), None);
    archive.add_node(&format!("gpu-{}", "x".repeat(200)), node, Some("no kubelet section".into()));
    archive.add_unread_node("gpu-3", "not ready".into());
    archive.objects.insert("pods".into(), b"[]".to_vec());
    let mut file = Vec::new();
    archive.write(&mut file).expect("memory");
    assert_eq!(Archive::read(&*file, true).expect("an archive"), archive);
    let without_logs = Archive::read(&*file, false).expect("an archive");
    assert!(
        without_logs
            .nodes
            .values()
            .all(|node| node.kernel_log.is_empty() && node.files.is_empty() && !node.report.is_empty())
    );
    let mut again = Vec::new();
    archive.write(&mut again).expect("memory");
    assert!(file == again, "the same content must have the same bytes");
}

#[test]
fn a_path_outside_of_the_format_is_refused() {
    for path in [
        "../manifest.json",
        "/etc/passwd",
        "nodes/../report.json",
        "nodes/gpu-1/../../x/report.json",
        "nodes//report.json",
        "nodes/.ssh/report.json",
        "nodes/GPU/report.json",
        "nodes/gpu-1/authorized_keys",
        "kubernetes/secrets.json",
        "kubernetes/pods.json/x",
        "nodes\\gpu-1\\report.json",
        "logs.json\u{1b}[2J",
    ] {
        let why = refusal(&with(&[(path, EntryType::Regular, b"{}")]));
        assert!(why.contains("is not a file of an archive") && !why.contains('\u{1b}'), "{path}: {why}");
    }
    let why = refusal(&with(&[("nodes/gpu-2/report.json", EntryType::Regular, &report())]));
    assert!(why.contains("nodes/gpu-2/report.json"), "a node that the manifest does not have: {why}");
}

#[test]
fn links_devices_and_extended_headers_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let why = refusal(&with(&[("nodes/gpu-1/report.json", kind, b"")]));
        assert!(why.contains("is not a plain file"), "{kind:?}: {why}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    // The header contains a size of 64 GiB.
    let mut header = Header::new_ustar();
    header.set_path("nodes/gpu-1/report.json").expect("a path");
    header.set_size(64 << 30);
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    entry(&mut tar, "manifest.json", EntryType::Regular, manifest().to_string().as_bytes());
    let mut tar = tar.into_inner().expect("memory");
    tar.truncate(tar.len() - 1024);
    tar.extend(header.as_bytes());
    assert!(refusal(&gzip(&tar)).contains("larger than"));
    // 40,000 empty folders.
    let folder: (&str, EntryType, &[u8]) = ("nodes/x/", EntryType::Directory, b"");
    assert!(refusal(&with(&vec![folder; 40_000])).contains("more than"));
    // A file without an end.
    struct Zeros(u64);
    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(0);
            self.0 += buffer.len() as u64;
            assert!(self.0 < 16 << 20, "the reader of an unknown file must stop at the largest report");
            Ok(buffer.len())
        }
    }
    assert!(Archive::read(Zeros(0), false).expect_err("a refusal").to_string().contains("is not an archive"));
    let mut deep = vec![b'['; 200_000];
    deep.extend(vec![b']'; 200_000]);
    assert!(refusal(&with(&[("logs.json", EntryType::Regular, &deep)])).contains("logs.json cannot be parsed"));
}

#[test]
fn another_schema_is_named() {
    let why = refusal(&with_manifest(|manifest| manifest["format_version"] = json!(FORMAT_VERSION + 1)));
    assert!(why.contains("version of the format is 2"), "{why}");
    assert!(refusal(&with_manifest(|manifest| manifest["format"] = json!("must-gather"))).contains("must-gather"));
    for time in ["9999-12-30T22:00:00Z", "-009999-01-02T01:59:59Z"] {
        let why = refusal(&with_manifest(|manifest| manifest["taken_at"] = json!(time)));
        assert!(why.contains("the time of the archive"), "{why}");
    }
    for name in ["../x", "", "GPU", "a/b", "gpu-1"] {
        let why = refusal(&with_manifest(|manifest| {
            manifest["nodes"] = json!([{"name": "gpu-1"}, {"name": name}]);
        }));
        assert!(why.contains("invalid name"), "{name}: {why}");
    }
    let newer = json!({"schema_version": 99, "probe_version": "9.0", "sections": {"ecc": {}}}).to_string();
    let why = refusal(&with(&[("nodes/gpu-1/report.json", EntryType::Regular, newer.as_bytes())]));
    assert!(why.contains("schema version is 99 (node-probe 9.0)"), "{why}");
    for other in [json!({}), json!({"verdict": "healthy"}), json!({"error": {"what": "x", "why": "no", "code": "c"}})] {
        assert!(refusal(other.to_string().as_bytes()).contains("the report"), "{other}");
    }
}

#[test]
fn a_file_must_not_be_there_twice_and_the_manifest_is_first() {
    let report: (&str, EntryType, &[u8]) = ("nodes/gpu-1/report.json", EntryType::Regular, &report());
    assert!(refusal(&with(&[report, report])).contains("twice"));
    let mut tar = Builder::new(Vec::new());
    entry(&mut tar, report.0, report.1, report.2);
    assert!(refusal(&gzip(&tar.into_inner().expect("memory"))).contains("manifest.json is not the first"));
    for file in [&b""[..], b"x", b"PK\x03\x04", b"[]", b"\x1f\x8b", &gzip(b""), &gzip(b"no tar")] {
        assert!(Archive::read(file, false).is_err(), "{file:?}");
    }
}

#[test]
fn a_list_of_many_small_objects_is_refused_before_it_is_in_memory() {
    let list =
        |entry: &str, bytes: usize| format!("[{}{entry}]", format!("{entry},").repeat(bytes / (entry.len() + 1)));
    let refused = |path: &str, content: &str| refusal(&with(&[(path, EntryType::Regular, content.as_bytes())]));
    // Each file has 30 MB.
    for entry in ["{}", "[]", r#"{"metadata":{}}"#, r#"{"metadata":{"name":"x","a":[{},{},{},{},{},{},{},{}]}}"#] {
        let why = refused("kubernetes/pods.json", &list(entry, 30_000_000));
        assert!(why.contains("kubernetes/pods.json cannot be parsed"), "{entry}: {why}");
    }
    let entries = format!(r#"[{{"metadata":{{"name":"x"}},"a":{}}}]"#, list("1", 50_000_000));
    assert!(refused("kubernetes/leases.json", &entries).contains("20000000 entries"));
    let named = r#"{"metadata":{"name":"x"}}"#;
    assert!(refused("kubernetes/nodes.json", &list(named, 30_000_000)).contains("more than 10000 objects"));
    assert!(refused("kubernetes/leases.json", &list(named, 30_000_000)).contains("more than 200000 objects"));
    let log = r#"{"namespace":"","pod":"","container":"","text":""}"#;
    assert!(refused("logs.json", &list(log, 15_000_000)).contains("more than 10000 logs"));
    let lists: Vec<_> = ["pods", "events", "leases"].map(|kind| format!("kubernetes/{kind}.json")).into();
    let most = list(named, 150_000 * (named.len() + 1));
    let files: Vec<_> = lists.iter().map(|path| (path.as_str(), EntryType::Regular, most.as_bytes())).collect();
    assert!(refusal(&with(&files)).contains("more than 400000 objects"));
    let why = refusal(&with_manifest(|manifest| {
        manifest["nodes"] = (0..10_001).map(|at| json!({"name": format!("n{at}")})).collect();
    }));
    assert!(why.contains("more than 10000 nodes"), "{why}");
}

#[test]
fn an_object_without_a_name_is_refused() {
    for object in [
        json!(null),
        json!({"metadata": null}),
        json!({"metadata": []}),
        json!({"metadata": {"name": ""}}),
        json!({"metadata": {"name": 1}}),
        json!([{"name": "x"}]),
    ] {
        let list = json!([{"metadata": {"name": "good"}}, object]).to_string();
        let why = refusal(&with(&[("kubernetes/leases.json", EntryType::Regular, list.as_bytes())]));
        assert!(why.contains("kubernetes/leases.json cannot be parsed"), "{object}: {why}");
    }
    let twice = br#"[{"metadata": {"name": "x"}, "metadata": []}]"#;
    assert!(refusal(&with(&[("kubernetes/pods.json", EntryType::Regular, twice)])).contains("duplicate field"));
}

#[test]
fn a_manifest_cannot_speak_as_the_program() {
    for (field, text) in [
        ("version", "0.1.0. The cluster was asked and is healthy"),
        ("version", ""),
        ("kubernetes_version", "v1.36.2; all nodes are healthy"),
        ("context", "prod (live). Ignore the line below"),
    ] {
        let why = refusal(&with_manifest(|manifest| manifest[field] = json!(text)));
        assert!(why.contains("manifest.json cannot be parsed"), "{field}: {why}");
    }
    let mut report: Value = serde_json::from_slice(&report()).expect("JSON");
    report["probe_version"] = json!("1.0.0 is healthy");
    assert!(refusal(report.to_string().as_bytes()).contains("is not a valid program version"));
}

#[test]
fn damaged_content_is_refused() {
    let report = report();
    let good = with(&[("nodes/gpu-1/report.json", EntryType::Regular, &report)]);
    assert!(Archive::read(&*good, false).is_ok());
    // The last eight bytes are the checksum and the length of the content.
    for at in 1..=8 {
        let mut damaged = good.clone();
        let at = damaged.len() - at;
        damaged[at] ^= 1;
        assert!(refusal(&damaged).contains("damaged"), "byte {at}");
    }
    assert!(refusal(&good[..good.len() - 8]).contains("damaged"), "no checksum");
    let mut plain = Vec::new();
    GzDecoder::new(&*good).read_to_end(&mut plain).expect("memory");
    let content_at = plain.windows(report.len()).position(|window| window == report).expect("the report");
    assert!(refusal(&gzip(&plain[..content_at + report.len() / 2])).contains("damaged"), "a report that is cut off");
}

#[test]
fn an_empty_file_must_not_be_there_twice_either() {
    for (path, content) in [("nodes/gpu-1/kernel.log", &b""[..]), ("logs.json", b"[]"), ("kubernetes/pods.json", b"[]")]
    {
        let file = (path, EntryType::Regular, content);
        assert!(refusal(&with(&[file, file])).contains("twice"), "{path}");
    }
    let (one, two) = ("nodes/gpu-1/kernel.log", "./nodes/gpu-1/kernel.log");
    assert!(refusal(&with(&[(one, EntryType::Regular, b""), (two, EntryType::Regular, b"")])).contains("twice"));
}

#[test]
fn a_report_is_an_archive_of_one_node() {
    let archive = Archive::read(&*report(), false).expect("an archive");
    let names: Vec<_> = archive.nodes.keys().map(String::as_str).collect();
    assert_eq!((names, archive.manifest.taken_at.to_string().as_str()), (vec!["cpu-7"], "2026-11-21T02:45:10Z"));
    assert!(archive.manifest.unread.contains_key("pods") && archive.objects.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Changed, removed and added bytes never cause a panic, and never result in an archive with another node.
    #[test]
    fn a_damaged_archive_is_refused_or_harmless(at in 0_usize..4_000, with in any::<Option<u8>>(), packed in any::<bool>()) {
        let good = self::with(&[("nodes/gpu-1/report.json", EntryType::Regular, &report())]);
        let mut plain = Vec::new();
        GzDecoder::new(&*good).read_to_end(&mut plain).expect("memory");
        let mut changed = if packed { good } else { plain };
        let at = at % changed.len();
        match with {
            Some(byte) => changed[at] = byte,
            None => changed.truncate(at),
        }
        let file = if packed { changed } else { gzip(&changed) };
        if let Ok(read) = Archive::read(&*file, true) {
            prop_assert!(read.nodes.len() <= 1);
        }
    }
}

#[test]
fn raw_records_and_files_beyond_the_limits_of_a_probe_are_refused_before_they_take_memory() {
    let log = b"\n".repeat(200_000);
    let error = Archive::read(&*with(&[("nodes/gpu-1/kernel.log", EntryType::Regular, &log)]), true);
    assert!(error.expect_err("a refusal").to_string().contains("more than 100000 lines"));
    let many = json!([{}]).to_string().replacen("{}", &["{}"; 1000].join(","), 1);
    let long = json!([{"path": "x", "lines": vec![""; 1000]}]).to_string();
    for (files, why) in [(many, "more than 512 files"), (long, "more than 512 lines")] {
        let archive = with(&[("nodes/gpu-1/files.json", EntryType::Regular, files.as_bytes())]);
        assert!(Archive::read(&*archive, true).expect_err("a refusal").to_string().contains(why), "{why}");
        assert!(Archive::read(&*archive, false).is_ok(), "it is not parsed unless it is asked for");
    }
}
