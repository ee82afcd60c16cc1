//! Points in time: microseconds since 1970-01-01T00:00:00Z, UTC and nothing else.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A point in time in whole microseconds, UTC.
///
/// Shown as `YYYY-MM-DD HH:MM:SS.ffffff`, the form of the `created_at` column: always 26
/// characters, so that text order is time order. The range is the years 0001 to 9999. Through serde it is the
/// number of microseconds since 1970, and a number out of range is refused.
///
/// ```
/// use synclog::Timestamp;
/// let time: Timestamp = "2025-12-17 09:00:00.123456".parse()?;
/// assert_eq!(time.to_string(), "2025-12-17 09:00:00.123456");
/// assert_eq!("2025-12-17T10:30:00.123456+01:30".parse::<Timestamp>()?, time);
/// # Ok::<(), synclog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "i64", try_from = "i64")]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time: 0001-01-01 00:00:00.000000.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// The latest time: 9999-12-30 22:00:00.000000, as far as the calendar library goes.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// The present time of the system's clock, cut to whole microseconds. A clock that is set to a time outside
    /// the range reads as the nearest end of it.
    pub fn now() -> Self {
        Self::of_clock(ask_clock())
    }

    /// Not through the calendar library, which panics where a clock is set beyond its range.
    fn of_clock(time: SystemTime) -> Self {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Self(micros).clamp(Self::MIN, Self::MAX)
    }

    /// From microseconds since 1970; `None` outside [`Timestamp::MIN`] to [`Timestamp::MAX`].
    pub fn from_micros(micros: i64) -> Option<Self> {
        let time = Self(micros);
        (Self::MIN..=Self::MAX).contains(&time).then_some(time)
    }

    /// Microseconds since 1970.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// True where the time has no fraction of a second, as the tables of older systems had it.
    pub fn is_whole_second(self) -> bool {
        self.0.rem_euclid(1_000_000) == 0
    }

    /// The whole second this time lies in, counted from 1970.
    pub fn whole_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time moved by `micros`, kept within the range.
    #[must_use]
    pub fn saturating_add_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros)).clamp(Self::MIN, Self::MAX)
    }

    /// Whether a text is a time that names its zone.
    pub(crate) fn names_zone(text: &str) -> bool {
        text.trim().parse::<jiff::Timestamp>().is_ok()
    }

    /// Reads a time with a zone (`2025-12-17T09:00:00Z`, `+05:30`), or one without: a date, or a
    /// date and a time with `T` or a blank between, read as UTC plus `zone_offset_seconds` east.
    pub fn parse_in_zone(text: &str, zone_offset_seconds: i32) -> Result<Self, Error> {
        let text = text.trim();
        let refuse = |reason: String| Error::invalid("timestamp", reason);
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Self::from_micros(time.as_microsecond())
                .ok_or_else(|| refuse("is outside the years 0001 to 9999".into()));
        }
        // What is no date either is refused below.
        let civil: Option<jiff::civil::DateTime> = text.parse().ok();
        // The calendar library passes over a zone in brackets; nobody means that.
        let civil = civil.filter(|_| !text.contains('[')).ok_or_else(|| {
            refuse(
                "is not a date or time like 2025-12-17, 2025-12-17T09:00:00Z or 2025-12-17 09:00:00.123456"
                    .into(),
            )
        })?;
        let offset = jiff::tz::Offset::from_seconds(zone_offset_seconds)
            .map_err(|_| refuse("has a zone offset beyond 25 hours".into()))?;
        offset
            .to_timestamp(civil)
            // Both are the same to the caller: no time within the range.
            .ok()
            .and_then(|time| Self::from_micros(time.as_microsecond()))
            .ok_or_else(|| refuse("is outside the years 0001 to 9999".into()))
    }
}

/// The one place that asks the system's clock, which may be set to anything.
fn ask_clock() -> SystemTime {
    #[cfg(test)]
    if let Some(time) = crate::proof::outside::clock() {
        return time;
    }
    SystemTime::now()
}

impl From<Timestamp> for i64 {
    /// Microseconds since 1970.
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl TryFrom<i64> for Timestamp {
    type Error = Error;

    /// From microseconds since 1970.
    fn try_from(micros: i64) -> Result<Self, Error> {
        let refuse = || Error::invalid("timestamp", "is outside the years 0001 to 9999");
        Self::from_micros(micros).ok_or_else(refuse)
    }
}

/// The written form, with zeros for digits. Every event's row is written and read in it.
const FORM: [u8; 26] = *b"0000-00-00 00:00:00.000000";

impl Timestamp {
    fn written(self) -> [u8; FORM.len()] {
        // Every time lies within what the calendar library takes; an error here would be a panic in `to_string`.
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        let civil = jiff::tz::Offset::UTC.to_datetime(time);
        let mut text = FORM;
        let mut put = |range: Range<usize>, number: i64| {
            let mut number = number.unsigned_abs();
            for digit in text[range].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0..4, civil.year().into());
        put(5..7, civil.month().into());
        put(8..10, civil.day().into());
        put(11..13, civil.hour().into());
        put(14..16, civil.minute().into());
        put(17..19, civil.second().into());
        put(20..26, self.0.rem_euclid(1_000_000));
        text
    }

    /// The time that is written as exactly this text, if there is one.
    pub(crate) fn from_written(text: &str) -> Option<Self> {
        let text: &[u8; FORM.len()] = text.as_bytes().try_into().ok()?; // `None` is the answer
        let number = |range: Range<usize>| {
            text[range].iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit & 15))
        };
        let date = jiff::civil::Date::new(number(0..4) as i16, number(5..7) as i8, number(8..10) as i8);
        let date = date.ok()?; // no such day
        let days = date.to_datetime(jiff::civil::Time::midnight());
        let midnight = jiff::tz::Offset::UTC.to_timestamp(days).ok()?; // no such day in UTC
        let seconds = (number(11..13) * 60 + number(14..16)) * 60 + number(17..19);
        let micros = midnight.as_microsecond() + seconds * 1_000_000 + number(20..26);
        Self::from_micros(micros).filter(|time| time.written() == *text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.written()).unwrap_or_default()) // digits are text
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Like [`Timestamp::parse_in_zone`] with UTC.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse_in_zone(text, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_order_is_time_order_and_both_ends_print() {
        assert_eq!(Timestamp::MIN.to_string(), "0001-01-01 00:00:00.000000");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30 22:00:00.000000");
        let before = Timestamp(-1);
        assert_eq!(before.to_string(), "1969-12-31 23:59:59.999999");
        assert!(before.to_string() < Timestamp(0).to_string());
        for micros in [Timestamp::MIN.0, -1, 0, 1, 1_000_000, Timestamp::MAX.0] {
            let time = Timestamp::from_micros(micros).unwrap();
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
        assert!(Timestamp::from_micros(i64::MAX).is_none());
    }

    #[test]
    fn only_what_is_written_is_read_as_written() {
        let mut micros = Timestamp::MIN.0;
        while micros < Timestamp::MAX.0 {
            let text = Timestamp(micros).to_string();
            assert_eq!(Timestamp::from_written(&text), Some(Timestamp(micros)), "{text}");
            micros += 86_399_987_654 * 97;
        }
        for text in [
            "2025-12-17 09:00:00",
            "2025-12-17T09:00:00.000000",
            "2025-12-17 24:00:00.000000",
            "2025-02-29 09:00:00.000000",
            "2025-12-17 09:60:00.000000",
            "2025-12-17 09:00:0:.000000",
            "9999-12-31 23:00:00.000000",
            "2025-12-17 09:00:00.00000 ",
            "2025-12-17 09:00:00.0000000",
            "0000-01-01 00:00:00.000000",
            "-025-12-17 09:00:00.000000",
            "",
            "202\u{0666}-12-17 09:00:00.00000",
        ] {
            assert_eq!(Timestamp::from_written(text), None, "{text}");
        }
    }

    #[test]
    fn what_serde_reads_is_in_range() {
        for time in [Timestamp::MIN, Timestamp(0), Timestamp::MAX] {
            let text = serde_json::to_string(&time).unwrap();
            assert_eq!(text, time.as_micros().to_string());
            assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
        }
        for micros in [i64::MIN, Timestamp::MIN.0 - 1, Timestamp::MAX.0 + 1, i64::MAX] {
            let read = serde_json::from_str::<Timestamp>(&micros.to_string());
            assert!(read.unwrap_err().to_string().contains("0001 to 9999"), "{micros}");
        }
    }

    #[test]
    fn times_without_a_zone_take_the_given_offset() {
        let time = Timestamp::parse_in_zone("2025-12-17T09:00:00", 5 * 3600 + 1800).unwrap();
        assert_eq!(time.to_string(), "2025-12-17 03:30:00.000000");
        assert_eq!("2025-12-17".parse::<Timestamp>().unwrap().to_string(), "2025-12-17 00:00:00.000000");
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!("2025-12-17 09:00:00[Europe/Berlin]".parse::<Timestamp>().is_err());
    }
}
