//! Dates with month names in many languages, as `dmesg -T` and log systems print them.
//!
//! Limits: a line with a month in another language has no time.

use crate::kernel_log::log_time;
use crate::kernel_log::log_time::WallTime;
use crate::kernel_log::scan::decimal;

/// Words before the clock of a date: weekday, month, day, year.
const MAX_DATE_WORDS: usize = 4;

/// Parses a date at the start of a line. The time is missing if the language of the month is not known.
pub(super) fn date(line: &str) -> Option<(Option<WallTime>, &str)> {
    let mut words = Words::default();
    let mut rest = line;
    for _ in 0..=MAX_DATE_WORDS {
        let (word, after) = rest.split_once(' ')?;
        if let Some(of_day) = log_time::clock(word) {
            return words.has_number().then(|| (words.wall(of_day), after.trim_start()));
        }
        words.take(word)?;
        rest = after.trim_start_matches(' ');
    }
    None
}

/// The same in brackets, with the year last: `dim. févr. 23 16:24:18 2025`.
pub(super) fn ctime(inside: &str) -> Option<Option<WallTime>> {
    let mut words = Words::default();
    let mut of_day = None;
    let mut count = 0;
    for word in inside.split_ascii_whitespace() {
        count += 1;
        match log_time::clock(word).filter(|_| of_day.is_none()) {
            Some(time) => of_day = Some(time),
            None => words.take(word)?,
        }
        if count > MAX_DATE_WORDS + 2 {
            return None;
        }
    }
    let of_day = of_day?;
    words.has_number().then(|| words.wall(of_day))
}

/// The words of a date.
#[derive(Default)]
struct Words {
    date: Option<i64>,
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
}

impl Words {
    fn has_number(&self) -> bool {
        self.date.is_some() || self.day.is_some()
    }

    /// `None`: no word of a date.
    fn take(&mut self, word: &str) -> Option<()> {
        let word = word.trim_end_matches(['.', ',', '日', '일']);
        if let Some(date) = log_time::iso_date(word) {
            self.date = Some(date);
        } else if let Some((number, rest)) = decimal(word) {
            match (number, rest) {
                (1..=12, "月" | "월") => self.month = i8::try_from(number).ok(),
                (1..=31, "") if self.day.is_none() => self.day = i8::try_from(number).ok(),
                (1970..=2200, "" | "年" | "년") => self.year = i16::try_from(number).ok(),
                _ => return None,
            }
        } else {
            let letters = word.chars().all(char::is_alphabetic) && word.chars().count() <= 12 && !word.is_empty();
            if !letters {
                return None;
            }
            self.month = self.month.or_else(|| month(word));
        }
        Some(())
    }

    fn wall(&self, of_day: i64) -> Option<WallTime> {
        if let Some(date) = self.date {
            return Some(WallTime::At { microseconds: date.checked_add(of_day)?, zone: false });
        }
        let (month, day) = (self.month?, self.day?);
        match self.year {
            Some(year) => {
                let midnight = log_time::midnight(year, month, day)?;
                Some(WallTime::At { microseconds: midnight.checked_add(of_day)?, zone: false })
            }
            None => log_time::midnight(2000, month, day).map(|_| WallTime::NoYear { month, day, of_day }),
        }
    }
}

/// First letters of the month names in the languages for which `strftime` has short names.
const MONTHS: [&str; 12] = [
    "jan ene gen sty янв led oca tammi",
    "feb fev fév lut фев úno şub helmi",
    "mar mär maa mrt mrz мар bře maalis",
    "apr avr abr апр kwi dub nis huhti",
    "mai may mag mei maj мая май kvě touko",
    "jun juin giu cze июн haz kesä",
    "jul juil lug lip июл tem heinä",
    "aug aoû ago sie авг srp ağu elo",
    "sep set wrz сен zář eyl syys",
    "oct okt out ott paź окт říj eki loka",
    "nov lis ноя kas marras",
    "dec dez dic déc des gru дек pro ara joulu",
];

fn month(word: &str) -> Option<i8> {
    let lower = word.to_lowercase();
    let begins = |names: &str| names.split(' ').filter(|name| lower.starts_with(name)).map(str::len).max();
    let found = MONTHS.iter().zip(1..).filter_map(|(names, month)| Some((begins(names)?, month)));
    // The longest match is used, as in `mar` and `marras`.
    found.max_by_key(|(length, _)| *length).map(|(_, month)| month)
}

#[cfg(test)]
mod tests {
    use super::month;

    #[test]
    fn every_month_is_found_by_its_own_name() {
        for (name, number) in
            [("juin", 6), ("juillet", 7), ("Mai", 5), ("März", 3), ("marraskuu", 11), ("maaliskuu", 3)]
        {
            assert_eq!(month(name), Some(number), "{name}");
        }
    }
}
