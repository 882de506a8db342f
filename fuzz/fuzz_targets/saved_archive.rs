//! The fuzz target `saved_archive`: reads any file as an archive for `--from`, and starts the embedded cluster with it.
//!
//! The bodies are in `fuzz/checks/saved_archive.rs` and `fuzz/checks/saved_cluster.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    archive::fuzzing::saved_archive(data);
    demo_cluster::fuzzing::saved_cluster(data);
});
