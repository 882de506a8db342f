//! `decode`: finds the severity, the origin and NVIDIA's action of an Xid 144 to 150 of an NVLink 5 GPU.
//! `sub_code_before_r575`, `sub_code_from_r575`, `link_down_reason`: parts of its first hex word.
//!
//! Source: the NVLink 5 table of NVIDIA's Xid catalogue, stored in `data/nvlink5.tsv`. The first hex word of the line is
//! `intrInfo`, the second is `errorStatus`. `intrInfo` contains the sub-code: in bits 9:5 before driver R575, in bits 6:0
//! from R575 on. For a link-down (149), bits 25:20 contain the reason.
//!
//! Limits: a row matches only if the unit, the bits and the word Fatal or Nonfatal of the line agree. If no row matches,
//! the severity depends only on that word, and action and origin are unknown.

use std::sync::LazyLock;

use crate::tsv::rows;

const ROWS: &str = include_str!("data/nvlink5.tsv");

/// The meaning of an Xid 144 to 150.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Whether a row of the table matched. If not, only `fatal` and `link_down_reason` are valid.
    pub known: bool,
    /// The sub-code, in the layout of the row that matched (the layout before R575 if no row matched).
    pub sub_code: u32,
    /// Reason of the link-down (149 only), e.g. 33: the device at the other end.
    pub link_down_reason: Option<u32>,
    /// Whether the link or the GPU is lost until a reset.
    pub fatal: bool,
    /// NVIDIA's action: `IGNORE`, `RESET_GPU`, `XID_154_EVAL` (follow the recovery action of an Xid 154, if there is one).
    pub action: Option<&'static str>,
    /// NVIDIA's advice for the later investigation.
    pub investigate: Option<&'static str>,
    /// Origin: `HW`, `SW`, `HW/SW`, `FW`.
    pub origin: Option<&'static str>,
}

/// The fields of one Xid line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidLine<'a> {
    /// The Xid, 144 to 150.
    pub xid: u32,
    /// Name of the unit in the line (`RLW_REMAP`, `NETIR_LINK_EVT`).
    pub unit: &'a str,
    /// Whether the line has the word Fatal (`true`) or Nonfatal (`false`); `None` if it has no such word.
    pub fatal: Option<bool>,
    /// The first hex word.
    pub intr_info: u32,
    /// The second hex word.
    pub error_status: u32,
}

struct Pattern {
    mask: u32,
    value: u32,
}

struct Row {
    xid: u32,
    units: &'static str,
    before_r575: Option<Pattern>,
    from_r575: Option<Pattern>,
    status: u32,
    fatal: bool,
    action: &'static str,
    investigate: &'static str,
    origin: &'static str,
}

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| rows(ROWS).filter_map(row).collect());

/// Returns the sub-code in the layout of drivers before R575.
pub fn sub_code_before_r575(intr_info: u32) -> u32 {
    (intr_info >> 5) & 0x1f
}

/// Returns the sub-code in the layout of drivers from R575 on.
pub fn sub_code_from_r575(intr_info: u32) -> u32 {
    intr_info & 0x7f
}

/// Returns the reason of a link-down, from bits 25:20.
pub fn link_down_reason(intr_info: u32) -> u32 {
    (intr_info >> 20) & 0x3f
}

/// Decodes one line. The line does not contain the driver version: both layouts are tried, and the name of the unit shows
/// which layout matches.
pub fn decode(line: &XidLine<'_>) -> Decoded {
    let found = [false, true].into_iter().find_map(|new| best_row(line, new).map(|row| (row, new)));
    let new = found.is_some_and(|(_, new)| new);
    let sub_code = if new { sub_code_from_r575 } else { sub_code_before_r575 };
    Decoded {
        known: found.is_some(),
        sub_code: sub_code(line.intr_info),
        link_down_reason: (line.xid == 149).then(|| link_down_reason(line.intr_info)),
        fatal: found.map_or(line.fatal.unwrap_or(false), |(row, _)| row.fatal),
        action: found.map(|(row, _)| row.action),
        investigate: found.map(|(row, _)| row.investigate),
        origin: found.map(|(row, _)| row.origin),
    }
}

/// Returns the most severe row that matches: several status bits may be set at once.
fn best_row(line: &XidLine<'_>, new_layout: bool) -> Option<&'static Row> {
    TABLE.iter().filter(|row| row.matches(line, new_layout)).max_by_key(|row| (row.fatal, row.action != "IGNORE"))
}

impl Row {
    fn matches(&self, line: &XidLine<'_>, new_layout: bool) -> bool {
        let pattern = if new_layout { &self.from_r575 } else { &self.before_r575 };
        let bits = pattern.as_ref().is_none_or(|pattern| line.intr_info & pattern.mask == pattern.value);
        // Xids 149 and 150 report a state; the other codes report one bit each.
        let status = match self.xid {
            149 | 150 => line.error_status == self.status,
            _ => line.error_status & self.status != 0,
        };
        self.xid == line.xid
            && self.units.split(',').any(|unit| unit == line.unit)
            && bits
            && status
            && line.fatal.is_none_or(|fatal| fatal == self.fatal)
    }
}

fn row(fields: Vec<&'static str>) -> Option<Row> {
    let [xid, units, before, from, status, severity, action, investigate, origin] = fields[..] else { return None };
    Some(Row {
        xid: xid.parse().ok()?,
        units,
        before_r575: pattern(before),
        from_r575: pattern(from),
        status: u32::from_str_radix(status, 16).ok()?,
        fatal: severity != "nonfatal",
        action,
        investigate,
        origin,
    })
}

fn pattern(field: &str) -> Option<Pattern> {
    let (mask, value) = field.split_once('/')?;
    Some(Pattern { mask: u32::from_str_radix(mask, 16).ok()?, value: u32::from_str_radix(value, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(xid: u32, unit: &str, fatal: bool, intr_info: u32, error_status: u32) -> XidLine<'_> {
        XidLine { xid, unit, fatal: Some(fatal), intr_info, error_status }
    }

    #[test]
    fn every_row_of_the_table_is_read_and_finds_itself() {
        let lines = ROWS.lines().filter(|row| !row.starts_with('#')).count();
        assert_eq!((TABLE.len(), lines), (99, 99));
        for row in TABLE.iter() {
            let unit = row.units.split(',').next().unwrap_or_default();
            for (pattern, new) in [(&row.before_r575, false), (&row.from_r575, true)] {
                let value = pattern.as_ref().map_or(0, |pattern| pattern.value);
                let line = line(row.xid, unit, row.fatal, value, row.status);
                assert!(row.matches(&line, new), "{} {unit} {value:08x} {:08x}", row.xid, row.status);
                let decoded = decode(&line);
                assert_eq!((decoded.known, decoded.fatal), (true, row.fatal));
            }
        }
    }

    #[test]
    fn a_link_down_names_its_reason() {
        let decoded = decode(&line(149, "NETIR_LINK_EVT", true, 0x0214_25c6, 0));
        assert!(decoded.known && decoded.fatal);
        assert_eq!((decoded.sub_code, decoded.link_down_reason), (14, Some(33)));
        assert_eq!((decoded.action, decoded.investigate), (Some("RESET_GPU"), Some("INVESTIGATE_PEER_DEVICE")));
    }

    #[test]
    fn a_harmless_row_is_ignore_and_a_conditional_one_refers_to_154() {
        let pipe = decode(&line(145, "RLW_RXPIPE", false, 0x0409_a0c2, 8));
        assert_eq!((pipe.known, pipe.fatal, pipe.action), (true, false, Some("IGNORE")));
        let track = decode(&line(145, "RLW_SRC_TRACK", false, 0x0408_68e2, 8));
        assert_eq!((track.known, track.fatal, track.action), (true, false, Some("XID_154_EVAL")));
    }

    #[test]
    fn the_layout_is_the_one_that_the_unit_has_such_a_row_in() {
        let new = line(144, "SAW_MVB", true, 0x0000_0001, 2);
        assert!(best_row(&new, false).is_none(), "drivers before R575 have no such pattern");
        assert_eq!((decode(&new).known, decode(&new).sub_code), (true, 1));
    }

    #[test]
    fn an_unknown_row_falls_back_to_the_word_in_the_line() {
        let fatal = decode(&line(146, "NEW_UNIT", true, 0xffff_ffff, 0xffff_ffff));
        assert_eq!((fatal.known, fatal.fatal, fatal.action), (false, true, None));
        let disagreeing = decode(&line(144, "SAW_MVB", false, 0x21, 2));
        assert_eq!((disagreeing.known, disagreeing.fatal), (false, false), "the row is fatal, but the line is not");
    }

    #[test]
    fn of_several_status_bits_the_worst_row_counts() {
        let both = XidLine { xid: 145, unit: "RLW_RSPCOL", fatal: None, intr_info: 0xa2, error_status: 3 };
        assert!(decode(&both).fatal);
    }
}
