//! Build script: with the feature `carry`, embeds compressed node-probe programs and their SHA-256 digests.

#[cfg(feature = "carry")]
mod carry {
    use std::path::{Path, PathBuf};

    use sha2::{Digest, Sha256};

    /// The programs: the name of the architecture, and the ELF machine number.
    const PROGRAMS: [(&str, u8); 2] = [("x86_64", 62), ("aarch64", 183)];
    /// Compression level: the slowest, with the smallest result.
    const LEVEL: u8 = 10;
    /// An environment variable that only node-probe-dev reads. The options of node-probe-dev can make it run any
    /// program.
    const OF_DEVELOPMENT: &[u8] = b"NODE_PROBE_NVML_LIBRARY";

    /// Writes `carried.rs` and the compressed programs.
    pub(super) fn programs(out: &Path) -> Result<(), String> {
        println!("cargo::rerun-if-env-changed=NODE_PROBE_DIR");
        let folder = std::env::var_os("NODE_PROBE_DIR").map(PathBuf::from).ok_or(
            "the feature carry needs NODE_PROBE_DIR: the folder with node-probe-x86_64 and node-probe-aarch64, as an absolute \
             path (to build a program, run: sh deploy/build-probe.sh --arch ARCH)",
        )?;
        let mut entries = String::new();
        for (arch, machine) in PROGRAMS {
            let path = folder.join(format!("node-probe-{arch}"));
            println!("cargo::rerun-if-changed={}", path.display());
            let failed = |why: &str| format!("NODE_PROBE_DIR: {}: {why}", path.display());
            let program = std::fs::read(&path).map_err(|error| failed(&error.to_string()))?;
            // ELF, 64 bits, little endian.
            if !program.starts_with(b"\x7fELF\x02\x01") || program.get(18..20) != Some(&[machine, 0]) {
                return Err(failed(&format!("this is not a Linux program for {arch}")));
            }
            if program.windows(OF_DEVELOPMENT.len()).any(|bytes| bytes == OF_DEVELOPMENT) {
                return Err(failed("this is node-probe-dev, which must not run on nodes"));
            }
            let packed = out.join(format!("node-probe-{arch}.deflate"));
            std::fs::write(&packed, miniz_oxide::deflate::compress_to_vec(&program, LEVEL))
                .map_err(|error| format!("{}: {error}", packed.display()))?;
            let sha256: String = Sha256::digest(&program).iter().map(|byte| format!("{byte:02x}")).collect();
            entries += &format!(
                "CarriedProgram {{ arch: {arch:?}, sha256: {sha256:?}, size: {}, deflated: include_bytes!({:?}) }}, ",
                program.len(),
                packed.display().to_string()
            );
        }
        let carried = out.join("carried.rs");
        std::fs::write(&carried, format!("&[{entries}]")).map_err(|error| format!("{}: {error}", carried.display()))
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "carry")]
    {
        let out = std::env::var_os("OUT_DIR").unwrap_or_default();
        if let Err(why) = carry::programs(std::path::Path::new(&out)) {
            println!("cargo::error={why}");
        }
    }
}
