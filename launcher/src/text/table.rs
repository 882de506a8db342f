//! Table primitives.

use comfy_table::{ContentArrangement, Table, presets};

/// Width if the width of the terminal is unknown.
const USUAL_WIDTH: u16 = 120;

/// A table with these column heads, as wide as the terminal.
pub(crate) fn new_table<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    let width = terminal_size::terminal_size().map_or(USUAL_WIDTH, |(width, _)| width.0.max(60));
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(heads.map(str::to_ascii_uppercase));
    table
}

/// The table as text, without trailing blanks; nothing for a table without rows.
pub(crate) fn lines(table: &Table) -> String {
    if table.is_empty() {
        return String::new();
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `-` for an unknown value.
pub(crate) fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A time rounded to seconds.
pub(crate) fn second(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// `1 node`, `2 nodes`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{counted, lines, new_table};

    #[test]
    fn a_table_without_rows_is_empty_and_one_is_singular() {
        let mut rows = new_table(["node"]);
        assert_eq!(lines(&rows), "");
        rows.add_row(["gpu-1"]);
        assert_eq!(lines(&rows).lines().count(), 2);
        assert_eq!((counted(1, "node"), counted(0, "node")), ("1 node".to_owned(), "0 nodes".to_owned()));
    }
}
