//! `RawFile`: an unparsed file of a node, for people and vendors. No rule reads it.

use syringe_macros::facts;

/// Bytes in one line of a dump.
const IN_LINE: usize = 16;

/// A file of `/proc/driver/nvidia`, or the configuration space of a PCI device, in reports with `--raw-log`.
#[facts]
#[derive(Eq)]
pub struct RawFile {
    /// The path on the node.
    pub path: String,
    /// The lines of the file. A configuration space is a dump as `lspci -xxxx` prints it: `10: 00 00 40 5f …`.
    pub lines: Vec<String>,
}

impl RawFile {
    /// Makes the dump of a configuration space.
    pub fn of_bytes(path: String, bytes: &[u8]) -> Self {
        let line = |(number, bytes): (usize, &[u8])| {
            let bytes = bytes.iter().map(|byte| format!(" {byte:02x}"));
            format!("{:02x}:{}", number * IN_LINE, bytes.collect::<String>())
        };
        Self { path, lines: bytes.chunks(IN_LINE).enumerate().map(line).collect() }
    }

    /// Returns the bytes of a dump. `None` if any line is not in the format of [`RawFile::of_bytes`].
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let words =
            self.lines.iter().filter_map(|line| Some(line.split_once(": ")?.1)).flat_map(|line| line.split(' '));
        let bytes: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).ok()).collect::<Option<_>>()?;
        (!bytes.is_empty() && Self::of_bytes(String::new(), &bytes).lines == self.lines).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_the_form_of_lspci_and_is_read_back() {
        let bytes: Vec<u8> = (0..=255).chain(0..20).collect();
        let dump = RawFile::of_bytes("x".into(), &bytes);
        assert_eq!(dump.lines[0], "00: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f");
        assert_eq!(dump.lines[16..], ["100: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f", "110: 10 11 12 13"]);
        assert_eq!(dump.bytes(), Some(bytes));
        for text in ["Model: \t\t NVIDIA H100", "00: 00 +1", "00: 00 01 ", "10: 00 01", "00: 0 1", ""] {
            assert_eq!(RawFile { lines: vec![text.into()], ..RawFile::default() }.bytes(), None, "{text}");
        }
    }
}
