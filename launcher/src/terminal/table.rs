//! `Rows`, `new_table`: a table that fits the terminal. Columns are left out, and cells are wrapped between words.
//! `cell`, `pci_cell`, `second`, `age`, `counted`: format values.

use syringe_core::pci::PciAddress;
use textwrap::core::display_width;

use crate::terminal::command_names::with_commands;
use crate::terminal::layout::{Layout, broken, cleaned};
use crate::terminal::style::without_marks;

/// Space between two columns.
const GAP: &str = "  ";
/// Below this width, a column of prose may be printed below its row.
const NARROW: usize = 100;
/// Optional columns are left out so that cells up to this width stay on one line.
const MAX_WHOLE: usize = 40;
/// Minimum width of a column of prose next to the other columns. If less is left, the column is printed below its row.
const MIN_NOTE: usize = 28;
/// Indentation of a line below its row.
const NOTE_INDENT: &str = "    ";

/// The rows of a table.
#[derive(Clone, Debug)]
pub struct Rows {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns that a narrow terminal does not show. The first column in this list is left out first.
    optional: Vec<usize>,
    /// The column of prose, if the table has such a column.
    note: Option<usize>,
}

/// Creates a table with these column heads, in upper case.
pub(crate) fn new_table<'a>(heads: impl IntoIterator<Item = &'a str>) -> Rows {
    Rows::new(heads.into_iter().map(str::to_uppercase))
}

impl Rows {
    /// Creates a table with these column heads, which are not changed.
    pub(crate) fn new(heads: impl IntoIterator<Item = String>) -> Self {
        Self { heads: heads.into_iter().collect(), rows: Vec::new(), optional: Vec::new(), note: None }
    }

    /// Sets the columns that a narrow terminal does not show. The first column in this list is left out first.
    #[must_use]
    pub(crate) fn optional(mut self, heads: &[&str]) -> Self {
        self.optional = heads.iter().filter_map(|head| self.column(head)).collect();
        debug_assert_eq!(self.optional.len(), heads.len(), "{heads:?}");
        self
    }

    /// Sets the column of prose, which gets the space that the other columns leave.
    #[must_use]
    pub(crate) fn note(mut self, head: &str) -> Self {
        self.note = self.column(head);
        debug_assert!(self.note.is_some(), "{head}");
        self
    }

    fn column(&self, head: &str) -> Option<usize> {
        self.heads.iter().position(|known| *known == head.to_uppercase())
    }

    pub(crate) fn width(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| with_commands(&cleaned(&cell)).into_owned()).collect());
    }

    /// Returns whether the table has no rows. Such a table is not printed.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the lines of the table. A table without rows has no lines.
    pub(super) fn lines(&self, layout: &Layout) -> String {
        if self.is_empty() {
            return String::new();
        }
        let width = layout.width.filter(|_| !layout.all_columns);
        let shown = self.shown_columns(width);
        let mut columns: Vec<Column> = shown.iter().map(|index| self.measure(*index)).collect();
        let below = width.and_then(|width| self.note_below(&shown, &columns, width));
        if let Some(place) = below {
            columns.remove(place);
        }
        // Heads are wrapped before cells.
        shrink(&mut columns, width.unwrap_or(usize::MAX), |column| column.whole_cells);
        shrink(&mut columns, width.unwrap_or(usize::MAX), |column| column.least);
        let head = columns.iter().map(|column| self.heads[column.index].as_str()).collect::<Vec<_>>();
        let mut text = grid(&head, &columns);
        for row in &self.rows {
            let cells: Vec<_> = columns.iter().map(|column| row.get(column.index).map_or("", String::as_str)).collect();
            text.push_str(&grid(&cells, &columns));
            if let Some((note, width)) = below.and(self.note).and_then(|note| row.get(note)).zip(width)
                && !note.is_empty()
            {
                let lines = note.split('\n').flat_map(|line| broken(line, width, NOTE_INDENT, NOTE_INDENT));
                lines.for_each(|line| text.push_str(&(line + "\n")));
            }
        }
        text
    }

    /// Returns the columns for a width, without some optional columns if they would not fit.
    fn shown_columns(&self, width: Option<usize>) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.heads.len()).collect();
        let Some(width) = width else { return shown };
        // Columns without a value are left out even if they fit.
        let is_empty = |index: &usize| self.rows.iter().all(|row| row.get(*index).is_none_or(|cell| is_blank(cell)));
        shown.retain(|index| *index == 0 || !is_empty(index));
        // A wider terminal never shows fewer columns than a narrower terminal, which prints the prose below the row.
        for index in &self.optional {
            if self.fits(&shown, width) || width >= NARROW && self.fits(&shown, NARROW - 1) {
                break;
            }
            shown.retain(|other| other != index);
        }
        shown
    }

    /// Returns whether these columns fit without wrapped cells.
    fn fits(&self, shown: &[usize], width: usize) -> bool {
        let columns: Vec<_> = shown.iter().map(|index| self.measure(*index)).collect();
        // A table is easier to read with fewer columns than with wrapped cells.
        let wanted = |column: &Column| match Some(column.index) == self.note {
            // The column of prose may be printed below its row.
            true if width < NARROW => 0,
            true => MIN_NOTE.min(column.natural),
            false => column.whole_cells,
        };
        columns.iter().map(wanted).sum::<usize>() + gaps(columns.len()) <= width
    }

    /// Returns the position of the column of prose if the other columns leave too little space for it.
    fn note_below(&self, shown: &[usize], columns: &[Column], width: usize) -> Option<usize> {
        let place = shown.iter().position(|index| Some(*index) == self.note)?;
        let others: usize = columns.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, one)| one.least).sum();
        let left = width.saturating_sub(others + gaps(columns.len()));
        (left < columns[place].natural.min(MIN_NOTE.max(columns[place].least))).then_some(place)
    }

    fn measure(&self, index: usize) -> Column {
        let cells = || self.rows.iter().filter_map(move |row| row.get(index)).chain([&self.heads[index]]);
        let width = |text: &str| display_width(&without_marks(text, false));
        let natural = cells().flat_map(|cell| cell.split('\n')).map(width).max().unwrap_or(0);
        let least = cells().flat_map(|cell| cell.split_whitespace()).map(width).max().unwrap_or(0);
        let values = || self.rows.iter().filter_map(move |row| row.get(index));
        let longest = values().flat_map(|cell| cell.split('\n')).map(width).max().unwrap_or(0);
        let whole_cells = longest.min(MAX_WHOLE).max(least);
        Column { index, natural, least, whole_cells, width: natural }
    }
}

/// A column with its widths.
struct Column {
    index: usize,
    /// Width of the longest line.
    natural: usize,
    /// Width of the longest word.
    least: usize,
    /// Width at which only the head and long cells are wrapped.
    whole_cells: usize,
    width: usize,
}

fn gaps(columns: usize) -> usize {
    columns.saturating_sub(1) * GAP.len()
}

fn is_blank(cell: &str) -> bool {
    cell.is_empty() || cell == "-"
}

/// Makes the widest columns narrower until the table fits, but none narrower than `least`.
fn shrink(columns: &mut [Column], width: usize, least: impl Fn(&Column) -> usize) {
    let space = gaps(columns.len());
    while columns.iter().map(|column| column.width).sum::<usize>() + space > width {
        let widest = columns.iter_mut().filter(|column| column.width > least(column)).max_by_key(|column| column.width);
        match widest {
            Some(column) => column.width -= 1,
            None => return,
        }
    }
}

/// Formats one row of a table, with as many lines as the cell with the most lines.
fn grid(cells: &[&str], columns: &[Column]) -> String {
    let lines_of = |(cell, column): (&&str, &Column)| -> Vec<String> {
        cell.split('\n').flat_map(|line| broken(line, column.width.max(1), "", "")).collect()
    };
    let cells: Vec<_> = cells.iter().zip(columns).map(lines_of).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for number in 0..height {
        let mut line = String::new();
        for (cell, column) in cells.iter().zip(columns) {
            let part = cell.get(number).map_or("", String::as_str);
            let blanks = column.width.saturating_sub(display_width(&without_marks(part, false)));
            line.push_str(&format!("{part}{}{GAP}", " ".repeat(blanks)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats a value, or `-` if it is unknown.
pub(crate) fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// Formats a PCI address as in sysfs.
pub(crate) fn pci_cell(address: Option<&PciAddress>) -> String {
    cell(address.map(PciAddress::sysfs))
}

/// Formats a time, rounded to seconds.
pub(crate) fn second(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// Formats a duration in the largest unit in which the value is at least 2: `90 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Formats a count with its noun: `1 node`, `2 nodes`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "GPU-b8f3a1c2-4d5e-6f70-8192-a3b4c5d6e7f8";

    fn at(width: usize) -> Layout {
        Layout { width: Some(width), ..Layout::default() }
    }

    fn gpus() -> Rows {
        let mut rows =
            new_table(["gpu", "pci address", "name", "uuid", "problems"]).optional(&["name", "uuid"]).note("problems");
        rows.add_row(
            ["0", "0000:5d:00.0", "NVIDIA H100 80GB HBM3", UUID, "row remap pending: takes effect after a reset"]
                .map(str::to_owned),
        );
        rows
    }

    #[test]
    fn a_table_without_rows_is_empty_and_one_is_singular() {
        let mut rows = new_table(["node"]);
        assert_eq!(rows.lines(&at(80)), "");
        rows.add_row(["gpu-1".to_owned()]);
        assert_eq!(rows.lines(&at(80)), "NODE\ngpu-1\n");
        assert_eq!((counted(1, "node"), counted(0, "node")), ("1 node".to_owned(), "0 nodes".to_owned()));
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns_and_a_wide_one_all() {
        let narrow = gpus().lines(&at(80));
        assert!(
            !narrow.contains("NVIDIA") && narrow.contains("0000:5d:00.0") && narrow.contains("takes effect"),
            "{narrow}"
        );
        assert!(
            gpus().lines(&at(160)).contains("NVIDIA H100 80GB HBM3") && gpus().lines(&at(160)).lines().count() == 2
        );
        let all = gpus().lines(&Layout { all_columns: true, ..at(40) });
        assert!(all.contains(UUID) && all.lines().count() == 2, "{all}");
    }

    #[test]
    fn prose_without_space_is_a_line_below_its_row() {
        let mut rows = new_table(["uuid", "message"]).note("message");
        rows.add_row([
            UUID.to_owned(),
            "a message of many words that needs more than the space that is left".to_owned(),
        ]);
        let text = rows.lines(&at(60));
        assert_eq!(text.lines().nth(1), Some(UUID), "{text}");
        assert!(text.lines().skip(2).all(|line| line.starts_with("    ")) && text.lines().count() == 4, "{text}");
    }

    #[test]
    fn a_column_without_a_value_is_not_shown_on_a_terminal() {
        let mut rows = new_table(["pod", "devices", "processes"]);
        rows.add_row(["ml/train".to_owned(), "-".to_owned(), String::new()]);
        assert_eq!(rows.lines(&at(200)), "POD\nml/train\n");
        assert!(
            rows.lines(&Layout::default()).starts_with("POD       DEVICES  PROCESSES\n"),
            "a script counts columns"
        );
    }

    proptest! {
        /// For any cells, a wider terminal shows the columns of a narrower terminal.
        #[test]
        fn a_wider_terminal_never_shows_fewer_columns(
            cells in prop::collection::vec(prop::collection::vec("(-|[a-z0-9]{1,30}( [a-z]{1,12}){0,5})", 5), 1..4),
            width in 40_usize..200,
        ) {
            let mut rows = new_table(["one", "two", "three", "four", "five"]).optional(&["two", "four", "three"]).note("five");
            cells.iter().for_each(|row| rows.add_row(row.clone()));
            let (narrow, wide) = (rows.shown_columns(Some(width)), rows.shown_columns(Some(width + 1)));
            prop_assert!(narrow.iter().all(|column| wide.contains(column)), "{width}: {narrow:?}, then {wide:?}");
        }

        /// For any cells, no word is broken, and a line is longer than the terminal only if nothing more can be wrapped.
        #[test]
        fn no_word_is_ever_broken(
            cells in prop::collection::vec(prop::collection::vec("[a-z0-9]{1,30}( [a-z]{1,12}){0,5}", 4), 1..5),
            width in 40_usize..200,
        ) {
            let mut rows = new_table(["one", "two", "three", "four"]).optional(&["two"]).note("four");
            cells.iter().for_each(|row| rows.add_row(row.clone()));
            let text = rows.lines(&at(width));
            let printed: Vec<&str> = text.split_whitespace().collect();
            for row in &cells {
                for (number, cell) in row.iter().enumerate() {
                    let all = cell.split(' ').all(|word| printed.contains(&word));
                    prop_assert!(all || number == 1, "{cell}\n{text}");
                }
            }
            let least: usize = [0, 2, 3].iter().map(|index| rows.measure(*index).least).sum::<usize>() + gaps(3);
            let longest = text.lines().map(display_width).max().unwrap_or(0);
            prop_assert!(longest <= width.max(least), "{longest} of {width}\n{text}");
        }
    }
}
