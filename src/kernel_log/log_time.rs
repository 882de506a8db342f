//! `WallTime`: a wall-clock time. `ctime`, `syslog`, `iso`, `unix`, `uptime` and others: parse times of log lines.
//!
//! All times are converted to microseconds since boot or since 1970. Limits: a time without a time zone is read as UTC,
//! and a time without a year gets the latest possible year.

use jiff::civil;
use jiff::tz::Offset;

use crate::kernel_log::scan::{decimal, split_at_byte};

/// A wall-clock time with the parts that the line contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallTime {
    At {
        /// Microseconds since 1970.
        microseconds: i64,
        /// Whether the line contains the time zone. If not, the time was read as UTC.
        zone: bool,
    },
    /// A date without a year, as in classic syslog.
    NoYear {
        /// Month, 1 to 12.
        month: i8,
        /// Day, 1 to 31.
        day: i8,
        /// Microseconds since midnight.
        of_day: i64,
    },
}

impl WallTime {
    /// Returns microseconds since 1970. A missing year becomes the last year in which the time was not in the future.
    pub fn microseconds(self, now: Option<i64>) -> Option<i64> {
        /// Clocks differ and the time zone is unknown, so a time that is up to one day in the future belongs to this year.
        const SLACK: i64 = 86_400_000_000;
        match self {
            Self::At { microseconds, .. } => Some(microseconds),
            Self::NoYear { month, day, of_day } => {
                let now = now?;
                let year = jiff::Timestamp::from_microsecond(now).ok()?.to_zoned(jiff::tz::TimeZone::UTC).year();
                // Going back eight years finds a 29 February even if a leap year was skipped.
                (0..=8).find_map(|back| {
                    let time = midnight(year.checked_sub(back)?, month, day)?.checked_add(of_day)?;
                    (time <= now.checked_add(SLACK)?).then_some(time)
                })
            }
        }
    }
}

/// Parses `secs.fraction` since boot.
pub(super) fn uptime(text: &str) -> Option<u64> {
    // Each line of `dmesg` has such a time, so it is parsed in one pass.
    let (mut value, mut digits, mut decimals) = (0_u64, 0, None);
    for byte in text.trim_ascii().bytes() {
        match (byte, &mut decimals) {
            (b'0'..=b'9', None) => digits += 1,
            // Digits from the seventh decimal on are below one microsecond.
            (b'0'..=b'9', Some(6..)) => continue,
            (b'0'..=b'9', Some(decimals)) => *decimals += 1,
            (b'.', None) if digits > 0 => {
                decimals = Some(0_u32);
                continue;
            }
            _ => return None,
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    let missing = 6 - decimals.filter(|decimals| *decimals > 0)?;
    value.checked_mul(10_u64.pow(missing))
}

/// Parses the digits after a decimal point as microseconds. No other characters may follow the digits.
fn fraction(digits: &str) -> Option<u64> {
    let digits = digits.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |place: usize| digits.get(place).map_or(0, |digit| u64::from(digit - b'0'));
    Some((0..6).fold(0, |sum, place| sum * 10 + digit(place)))
}

/// Parses `Sun Feb 23 16:24:18 2025` (`dmesg -T`), or `Feb23 16:24` (`dmesg -H`).
pub(super) fn ctime(text: &str) -> Option<WallTime> {
    let mut words = text.split_ascii_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    if let Some(short) = month(first.get(..3)?).zip(first.get(3..).and_then(|day| day.parse().ok())) {
        let (hour, minute) = second.split_once(':')?;
        let minutes = hour.parse::<i64>().ok()? * 60 + minute.parse::<i64>().ok()?;
        let valid =
            (0..1440).contains(&minutes) && words.next().is_none() && midnight(2000, short.0, short.1).is_some();
        return valid.then_some(WallTime::NoYear { month: short.0, day: short.1, of_day: minutes * 60_000_000 });
    }
    let day = words.next()?.parse().ok()?;
    let of_day = clock(words.next()?)?;
    let date = midnight(words.next()?.parse().ok()?, month(second)?, day)?;
    words.next().is_none().then_some(WallTime::At { microseconds: date + of_day, zone: false })
}

/// Parses `Feb 23 16:24:18[.ffffff]` at the start of a line. Returns the time and the rest.
pub(super) fn syslog(text: &str) -> Option<(WallTime, &str)> {
    let month = month(text.get(..3)?)?;
    let (day, rest) = decimal(text.get(3..)?.strip_prefix(' ')?.trim_start_matches(' '))?;
    let rest = rest.strip_prefix(' ')?;
    let (time, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (day, of_day) = (i8::try_from(day).ok()?, clock(time)?);
    midnight(2000, month, day)?;
    Some((WallTime::NoYear { month, day, of_day }, rest))
}

/// An ISO 8601 time at the start of a line.
pub(super) struct Iso<'a> {
    pub(super) wall: WallTime,
    /// Whether a comma precedes the fraction, as in `dmesg`. Lines of `dmesg` have no host name and no tag. Other logs
    /// use a point.
    pub(super) comma: bool,
    pub(super) rest: &'a str,
}

/// Parses `2025-02-23T16:24:18[.,ffffff][Z|±hh:mm|±hhmm] rest`.
pub(super) fn iso(text: &str) -> Option<Iso<'_>> {
    let (stamp, rest) = split_at_byte(text, b' ').unwrap_or((text, ""));
    let (date, time) = split_at_byte(stamp, b'T')?;
    let date = iso_date(date)?;
    let zone_at = memchr::memchr3(b'Z', b'+', b'-', time.as_bytes()).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let microseconds = date.checked_add(clock(time)?)?.checked_sub(offset(zone)?)?;
    let wall = WallTime::At { microseconds, zone: !zone.is_empty() };
    Some(Iso { wall, comma: time.contains(','), rest })
}

/// Parses `Sun 2025-02-23 16:24:18 UTC rest` (`journalctl -o short-full`).
pub(super) fn short_full(text: &str) -> Option<(WallTime, &str)> {
    // Most lines that begin with a capital letter do not contain a time. The check of the fourth byte rejects them.
    if text.as_bytes().get(3) != Some(&b' ') {
        return None;
    }
    let mut parts = text.splitn(5, ' ');
    let (weekday, date, time) = (parts.next()?, parts.next()?, parts.next()?);
    let (zone, rest) = (parts.next()?, parts.next()?);
    let microseconds = iso_date(date)?.checked_add(clock(time)?)?;
    (weekday.len() == 3).then_some((WallTime::At { microseconds, zone: zone == "UTC" }, rest))
}

/// Parses `1740327858.123456 rest` (`journalctl -o short-unix`).
pub(super) fn unix(text: &str) -> Option<(WallTime, &str)> {
    let (stamp, rest) = text.split_once(' ')?;
    let microseconds = i64::try_from(uptime(stamp)?).ok()?;
    Some((WallTime::At { microseconds, zone: true }, rest))
}

fn iso_date(text: &str) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let year = two_digits(y1, y2)? * 100 + two_digits(y3, y4)?;
    midnight(
        i16::try_from(year).ok()?,
        i8::try_from(two_digits(m1, m2)?).ok()?,
        i8::try_from(two_digits(d1, d2)?).ok()?,
    )
}

/// Parses `hh:mm:ss` with an optional fraction as microseconds since midnight.
fn clock(text: &str) -> Option<i64> {
    let (whole, part) = match memchr::memchr2(b'.', b',', text.as_bytes()) {
        Some(at) => (text.get(..at)?, i64::try_from(fraction(text.get(at + 1..)?)?).ok()?),
        None => (text, 0),
    };
    let &[h1, h2, b':', m1, m2, b':', s1, s2] = whole.as_bytes() else { return None };
    let (hour, minute, second) = (two_digits(h1, h2)?, two_digits(m1, m2)?, two_digits(s1, s2)?);
    // A leap second has the number 60.
    let valid = hour < 24 && minute < 60 && second < 61;
    valid.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + part)
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let valid = tens.is_ascii_digit() && ones.is_ascii_digit();
    valid.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Parses a time zone as microseconds east of UTC. An empty zone is 0.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z") {
        return Some(0);
    }
    let (sign, digits) = if let Some(digits) = zone.strip_prefix('-') { (-1, digits) } else { (1, zone.get(1..)?) };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None => (digits.get(..2)?, digits.get(2..).filter(|minutes| !minutes.is_empty()).unwrap_or("00")),
    };
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let fits = (0..=15).contains(&hours) && (0..60).contains(&minutes);
    fits.then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

fn midnight(year: i16, month: i8, day: i8) -> Option<i64> {
    let date = civil::Date::new(year, month, day).ok()?;
    Some(Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_microsecond())
}

fn month(name: &str) -> Option<i8> {
    let number = match name.as_bytes() {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a valid time").as_microsecond()
    }

    #[test]
    fn every_spelling_of_one_moment_is_one_moment() {
        let moment = at("2025-02-23T16:24:18Z");
        assert_eq!(ctime("Sun Feb 23 16:24:18 2025").and_then(|wall| wall.microseconds(None)), Some(moment));
        for text in [
            "2025-02-23T16:24:18,000000+00:00 x",
            "2025-02-23T11:24:18-05:00 x",
            "2025-02-23T17:24:18.000+0100 x",
            "2025-02-23T16:24:18Z",
        ] {
            let iso = iso(text).expect(text);
            assert_eq!((iso.wall.microseconds(None), iso.comma), (Some(moment), text.contains(',')), "{text}");
        }
        let full = short_full("Sun 2025-02-23 16:24:18 UTC host kernel: x").expect("short-full");
        assert_eq!((full.0.microseconds(None), full.1), (Some(moment), "host kernel: x"));
        let unix = unix("1740327858.000000 host kernel: x").expect("short-unix");
        assert_eq!(unix.0.microseconds(None), Some(moment));
    }

    #[test]
    fn a_missing_year_is_the_last_one_that_is_not_in_the_future() {
        let (wall, rest) = syslog("Dec 31 23:59:59 host kernel: x").expect("a syslog time");
        assert_eq!(rest, "host kernel: x");
        assert_eq!(wall.microseconds(Some(at("2026-01-02T00:00:00Z"))), Some(at("2025-12-31T23:59:59Z")));
        assert_eq!(wall.microseconds(None), None, "the year is unknown");
        let (leap, _) = syslog("Feb 29 00:00:01 h k: x").expect("a leap day");
        assert_eq!(leap.microseconds(Some(at("2026-01-02T00:00:00Z"))), Some(at("2024-02-29T00:00:01Z")));
        let (single, _) = syslog("Feb  1 14:25:31.123456 h k: x").expect("a padded day");
        assert_eq!(single.microseconds(Some(at("2026-02-02T00:00:00Z"))), Some(at("2026-02-01T14:25:31.123456Z")));
    }

    #[test]
    fn other_text_is_no_time() {
        for text in ["", "Feb", "Feb 30 14:25:31 x", "Feb 01 24:00:00 x", "Feb 1", "Fäb 01 01:01:01"] {
            assert!(syslog(text).is_none(), "{text}");
        }
        for text in ["", "x", "2025-13-01T00:00:00Z", "2025-02-23T16:24", "2025-02-23T16:24:18+99:00", "ä-1-1T"] {
            assert!(iso(text).is_none(), "{text}");
        }
        for text in ["", "1", "1.", "1.x", "99999999999999999999.1", "18446744073709551615.0", "-1.5"] {
            assert!(uptime(text).is_none(), "{text}");
        }
        assert_eq!(uptime("  1843.439662"), Some(1_843_439_662));
        assert_eq!(uptime("111111111.111"), Some(111_111_111_111_000));
    }
}
