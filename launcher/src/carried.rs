//! `programs`: the node-probe programs that are embedded in this program (feature `carry`), each a `CarriedProgram`.
//! `CarriedProgram::unpack`: decompresses a program. `sha256`: computes a SHA-256.

use sha2::{Digest, Sha256};

/// A compressed program.
#[derive(Debug)]
pub(crate) struct CarriedProgram {
    /// Architecture: `x86_64` or `aarch64`.
    pub(crate) arch: &'static str,
    /// SHA-256 of the program, in hexadecimal digits.
    pub(crate) sha256: &'static str,
    /// Size of the program in bytes.
    pub(crate) size: usize,
    deflated: &'static [u8],
}

/// The embedded programs.
#[cfg(feature = "carry")]
const PROGRAMS: &[CarriedProgram] = include!(concat!(env!("OUT_DIR"), "/carried.rs"));
/// Without the feature `carry`, no program is embedded.
#[cfg(not(feature = "carry"))]
const PROGRAMS: &[CarriedProgram] = &[];

pub(crate) fn programs() -> &'static [CarriedProgram] {
    PROGRAMS
}

impl CarriedProgram {
    /// Decompresses the embedded program.
    ///
    /// # Errors
    /// If the compressed data are damaged, or the SHA-256 differs.
    pub(crate) fn unpack(&self) -> Result<Vec<u8>, String> {
        let program = inflate(self.deflated, self.size)?;
        let sha256 = sha256(&program);
        if sha256 != self.sha256 {
            return Err(format!("the SHA-256 of the program is {sha256}, not {}", self.sha256));
        }
        Ok(program)
    }
}

/// Returns the SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(feature = "carry")]
fn inflate(deflated: &[u8], size: usize) -> Result<Vec<u8>, String> {
    miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, size).map_err(|error| error.to_string())
}

#[cfg(not(feature = "carry"))]
fn inflate(deflated: &[u8], size: usize) -> Result<Vec<u8>, String> {
    Err(format!("this program cannot unpack {} bytes to {size}", deflated.len()))
}

#[cfg(all(test, feature = "carry"))]
mod tests {
    use super::{CarriedProgram, programs};

    #[test]
    fn what_is_unpacked_is_what_the_hash_names() {
        let names: Vec<_> = programs().iter().map(|program| program.arch).collect();
        assert_eq!(names, ["x86_64", "aarch64"]);
        for carried in programs() {
            let program = carried.unpack().expect("a program");
            assert_eq!(program.len(), carried.size);
            assert!(program.starts_with(b"\x7fELF"));
            let cut = CarriedProgram { deflated: &carried.deflated[..100], ..*carried };
            assert!(cut.unpack().is_err());
            let zeros = "0".repeat(64);
            let other = CarriedProgram { sha256: Box::leak(zeros.into_boxed_str()), ..*carried };
            assert!(other.unpack().expect_err("another program").contains("SHA-256"));
        }
    }
}
