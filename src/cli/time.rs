//! Durations, zones and points in time as the command line takes them.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use synclog::{Error, Result, SourceTime, Timestamp};

/// Reads a duration: whole numbers with a unit, such as `10s`, `500ms`, `24h`, `90d` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "give a number and a unit (ms, s, m, h, d or w), such as 10s, 500ms or 1h30m";
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(WANTED.into());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| WANTED.to_owned())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(WANTED.into()),
        };
        rest = &rest[letters..];
        total = number
            .checked_mul(unit)
            .and_then(|millis| total.checked_add(Duration::from_millis(millis)))
            .ok_or("that is too long")?;
    }
    Ok(total)
}

/// Reads a zone: a name such as `Asia/Kolkata`, or an offset such as `+05:30`.
pub(crate) fn zone(text: &str) -> Result<TimeZone, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Ok(TimeZone::UTC);
    }
    if let Some(offset) = fixed_offset(text) {
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(text)
        .map_err(|_| "is no known zone; give a name such as Asia/Kolkata or an offset such as +05:30".into())
}

/// `+05:30`, `-0800` or `+05`.
fn fixed_offset(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|letter| *letter != ':').collect();
    let fits = matches!((rest.len(), rest.find(':')), (2 | 4, None) | (5, Some(2)));
    if !fits || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is no offset may still be the name of a zone.
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    if hours > 14 || minutes > 59 {
        return None;
    }
    // As above.
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// Reads a date or time; one without a zone is read in `zone`. Where a clock change makes a local time
/// ambiguous, the earlier one is meant; where it skips one, the time is moved on by the gap.
pub(crate) fn read(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    read_source(text, zone).map(SourceTime::timestamp)
}

/// The same, and whether it had a zone, or is one that a clock change skips or repeats.
pub(crate) fn read_source(text: &str, zone: &TimeZone) -> Result<SourceTime> {
    let text = text.trim();
    let refuse = |reason: &str| Error::invalid("timestamp", reason);
    let point = |time: jiff::Timestamp| {
        let time = Timestamp::from_micros(time.as_microsecond());
        time.ok_or_else(|| refuse("is outside the years 0001 to 9999"))
    };
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return point(time).map(SourceTime::Zoned);
    }
    // The parser of civil times would read past a zone and ignore it.
    let civil: Option<DateTime> = text.parse().ok().filter(|_| !text.contains('['));
    let civil = civil.ok_or_else(|| {
        refuse("is not a date or time like 2025-12-17, 2025-12-17T09:00:00Z or 2025-12-17 09:00:00")
    })?;
    let local = zone.to_ambiguous_timestamp(civil);
    let offset = local.offset();
    let time = point(local.compatible().map_err(|_| refuse("is outside the years 0001 to 9999"))?)?;
    Ok(match offset {
        AmbiguousOffset::Unambiguous { .. } => SourceTime::Local(time),
        AmbiguousOffset::Gap { .. } => SourceTime::Skipped(time),
        AmbiguousOffset::Fold { .. } => SourceTime::Twice(time),
    })
}

/// Reads a point in time, or a duration that leads back from now.
pub(crate) fn instant(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    if let Ok(ago) = duration(text) {
        let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Timestamp::now().saturating_add_micros(-micros));
    }
    read(text, zone)
}

/// A time as tables show it: in a zone, with the zone's offset.
pub(crate) fn show(time: Timestamp, zone: &TimeZone) -> String {
    let Ok(point) = jiff::Timestamp::from_microsecond(time.as_micros()) else { return time.to_string() };
    let offset = zone.to_offset(point);
    let civil = offset.to_datetime(point);
    let minutes = offset.seconds().abs() / 60;
    let sign = if offset.seconds() < 0 { '-' } else { '+' };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{sign}{:02}:{:02}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_and_add_up() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in
            ["", "10", "s", "-1s", "1x", "1.5h", "99999999999999999999s", "18446744073709551615w", "1ß"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_names_or_offsets() {
        for (text, seconds) in [("+05:30", 19_800), ("-0800", -28_800), ("+01", 3600), ("UTC", 0)] {
            let zone = zone(text).unwrap();
            assert_eq!(zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds(), seconds, "{text}");
        }
        for bad in ["+5", "+15:00", "+05:60", "+05:3", "Mars/Base", "", "+ä", "+0:530"] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_without_a_zone_are_read_in_the_given_one() {
        let india = zone("+05:30").unwrap();
        let read = |text| read(text, &india).map(|time| time.to_string());
        assert_eq!(read("2025-12-17 09:00:00").unwrap(), "2025-12-17 03:30:00.000000");
        assert_eq!(read("2025-12-17").unwrap(), "2025-12-16 18:30:00.000000");
        assert_eq!(read("2025-12-17T09:00:00Z").unwrap(), "2025-12-17 09:00:00.000000");
        assert!(read("2025-12-17 09:00:00[Europe/Berlin]").is_err());
        assert!(read("soon").is_err());
        assert_eq!(show("2025-12-17".parse().unwrap(), &india), "2025-12-17 05:30:00+05:30");
    }

    #[test]
    fn clock_changes_are_resolved() {
        let Ok(berlin) = zone("Europe/Berlin") else {
            eprintln!("NOT EXERCISED: no zone database");
            return;
        };
        let read = |text| read(text, &berlin).unwrap().to_string();
        assert_eq!(read("2025-03-30 02:30:00"), "2025-03-30 01:30:00.000000");
        assert_eq!(read("2025-10-26 02:30:00"), "2025-10-26 00:30:00.000000");
        let sort = |text| read_source(text, &berlin).unwrap();
        assert!(matches!(sort("2025-03-30 02:30:00"), SourceTime::Skipped(_)));
        assert!(matches!(sort("2025-10-26 02:30:00"), SourceTime::Twice(_)));
        assert!(matches!(sort("2025-10-26 03:30:00"), SourceTime::Local(_)));
        assert!(matches!(sort("2025-10-26 02:30:00+01:00"), SourceTime::Zoned(_)));
    }
}
