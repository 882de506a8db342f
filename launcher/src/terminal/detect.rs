//! `width`, `is_ascii`: detect the width and the character set of the terminal.

use std::ffi::OsString;

use terminal_size::Width;

/// Returns the width of the terminal at standard output, or else the value of `COLUMNS`. `None` in a pipe.
pub(crate) fn width() -> Option<usize> {
    let terminal = terminal_size::terminal_size_of(std::io::stdout()).map(|(Width(width), _)| usize::from(width));
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.or_else(columns).and_then(usable)
}

/// Minimum width of a page. A narrower terminal wraps its lines.
const MIN_WIDTH: usize = 40;

/// Returns the width for a page. A width of 0 means that the terminal does not report its width.
fn usable(width: usize) -> Option<usize> {
    (width > 0).then(|| width.max(MIN_WIDTH))
}

/// Returns whether the locale uses ASCII.
pub(crate) fn is_ascii() -> bool {
    is_ascii_locale(|name| std::env::var_os(name))
}

/// Uses the first variable that is set. `C.UTF-8` is not ASCII. If no variable is set, the locale counts as UTF-8.
fn is_ascii_locale(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    set.is_some_and(|value| value == "C" || value == "POSIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_a_narrow_terminal_as_well_as_possible() {
        assert_eq!([0, 1, 39, 40, 200].map(usable), [None, Some(40), Some(40), Some(40), Some(200)]);
    }

    #[test]
    fn only_the_c_locale_is_ascii() {
        let is_ascii = |set: &[(&str, &str)]| {
            is_ascii_locale(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
        };
        assert!(is_ascii(&[("LANG", "C")]) && is_ascii(&[("LC_ALL", "POSIX"), ("LANG", "en_US.UTF-8")]));
        assert!(is_ascii(&[("LC_ALL", ""), ("LANG", "C")]));
        for set in [&[][..], &[("LANG", "C.UTF-8")], &[("LC_ALL", "de_DE.UTF-8"), ("LANG", "C")]] {
            assert!(!is_ascii(set), "{set:?}");
        }
    }
}
