//! The body of the fuzz target `saved_archive`: properties of the archive reader for any file.

use crate::Archive;

/// Fuzz target `saved_archive`. `data` is the file. If the magic number of gzip is missing, `data` is compressed first,
/// so that the fuzzer reaches the tar reader.
pub fn saved_archive(data: &[u8]) {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let packed = packed.write_all(data).and_then(|()| packed.finish());
    for file in [Some(data.to_vec()), packed.ok()].into_iter().flatten() {
        let Ok(mut archive) = Archive::read(&*file, true) else { continue };
        for entry in &archive.manifest.nodes {
            assert_eq!(entry.folder.is_some(), archive.nodes.contains_key(&entry.name), "{entry:?}");
        }
        let mut written = Vec::new();
        if archive.write(&mut written).is_ok() {
            let again = Archive::read(&*written, true).expect("a written archive can be read");
            assert_eq!(again, archive);
        }
        let _ = crate::redact(&mut archive);
    }
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    #[test]
    fn the_archives_of_the_corpus_keep_the_properties() {
        super::committed_inputs::run("saved_archive", super::saved_archive);
    }
}
