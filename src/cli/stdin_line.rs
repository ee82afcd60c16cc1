//! One line of `append --stdin`: from bytes to an event, in bounded memory.

use std::io::{self, BufRead};

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use synclog::{Company, Level, Status, SyncEvent, Timestamp};

use super::append::default_message;

/// The longest line. The largest event is 1 MiB, and JSON may write six bytes for one.
pub(crate) const MAX_LINE: usize = 8 * 1024 * 1024;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The end of the input.
    End,
    /// A line; it is in the buffer.
    Whole,
    /// A line beyond the limit; its rest was passed over.
    TooLong,
}

/// Reads the next line into `into`, without its end. The last line may lack its end.
pub(crate) fn next(input: &mut impl BufRead, into: &mut Vec<u8>, limit: usize) -> io::Result<Line> {
    into.clear();
    into.shrink_to(64 * 1024);
    let (mut any, mut too_long) = (false, false);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            break;
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let piece = &available[..end.unwrap_or(available.len())];
        too_long |= piece.len() > limit - into.len();
        if !too_long {
            into.extend_from_slice(piece);
        }
        let used = piece.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(match (any, too_long) {
        (false, _) => Line::End,
        (true, false) => Line::Whole,
        (true, true) => Line::TooLong,
    })
}

/// The fields of a line. A field that is not known would be lost, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    company_guid: Option<String>,
    company_alterid: Option<String>,
    company_name: Option<String>,
    log_level: Option<String>,
    log_message: Option<String>,
    log_details: Option<String>,
    sync_status: Option<String>,
    #[serde(default, deserialize_with = "present")]
    records_synced: Option<Records>,
    error_code: Option<String>,
    error_message: Option<String>,
    duration_seconds: Option<f64>,
    created_at: Option<String>,
    timestamp: Option<String>,
    run: Option<String>,
    key: Option<String>,
}

/// A number of records that was given. One that was not given is 0, null is unknown.
struct Records(Option<i64>);

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Records>, D::Error> {
    Option::deserialize(deserializer).map(|records| Some(Records(records)))
}

/// The event of a line and its key, or why there is none. Times without a zone are read in `zone`.
pub(crate) fn parse(bytes: &[u8], zone: &TimeZone) -> Result<(SyncEvent, Option<String>), String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    // Some programs start their output with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with('{') {
        // The parser would take an array as well, by the order of the fields.
        return Err("the line is not a JSON object".into());
    }
    let given: Given = serde_json::from_str(text).map_err(|error| {
        // The parser counts lines too, but it sees only one. It may quote a piece of any length.
        let problem = error.to_string().replace(" at line 1 column ", " at column ");
        let short: String = problem.chars().take(300).collect();
        format!("the line is not an event: {short}")
    })?;
    given.event(zone)
}

impl Given {
    fn event(self, zone: &TimeZone) -> Result<(SyncEvent, Option<String>), String> {
        let level = self.log_level.map(|word| word.parse::<Level>()).transpose().map_err(plain)?;
        let status = self.sync_status.map(|word| word.parse::<Status>()).transpose().map_err(plain)?;
        let company = Company::new(
            required("company_guid", self.company_guid)?,
            required("company_alterid", self.company_alterid)?,
            required("company_name", self.company_name)?,
        );
        let level = level.unwrap_or_else(|| Level::default_for(status));
        let mut event = SyncEvent::new(company, level, "");
        event.details = self.log_details;
        event.status = status;
        let counted = self.records_synced.is_some();
        event.records_synced = self.records_synced.map_or(event.records_synced, |records| records.0);
        event.error_code = self.error_code;
        event.error_message = self.error_message;
        event.duration_seconds = self.duration_seconds;
        event.run = self.run;
        event.created_at = match (self.created_at, self.timestamp) {
            (Some(_), Some(_)) => return Err("created_at and timestamp are both given".into()),
            (Some(text), None) => Some(time("created_at", &text, zone)?),
            (None, Some(text)) => Some(time("timestamp", &text, zone)?),
            (None, None) => None,
        };
        event.message = match self.log_message {
            Some(message) => message,
            None => default_message(&event, counted)
                .ok_or("log_message is missing, and there is no sync_status to make one from")?,
        };
        Ok((event, self.key))
    }
}

fn required(name: &str, text: Option<String>) -> Result<String, String> {
    text.ok_or_else(|| format!("{name} is missing"))
}

fn time(name: &str, text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    super::time::read(text, zone).map_err(|error| match error {
        synclog::Error::Invalid { reason, .. } => format!("{name} {reason}"),
        other => other.to_string(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn plain(error: synclog::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<(SyncEvent, Option<String>), String> {
        super::parse(bytes, &TimeZone::UTC)
    }

    fn lines(input: &[u8], limit: usize, chunk: usize) -> Vec<(Line, Vec<u8>)> {
        let mut reader = io::BufReader::with_capacity(chunk, input);
        let (mut found, mut buffer) = (Vec::new(), Vec::new());
        loop {
            match next(&mut reader, &mut buffer, limit).unwrap() {
                Line::End => return found,
                Line::TooLong => found.push((Line::TooLong, Vec::new())),
                Line::Whole => found.push((Line::Whole, buffer.clone())),
            }
        }
    }

    #[test]
    fn lines_are_cut_and_long_ones_passed_over_whatever_the_buffer() {
        for chunk in [1, 2, 3, 100] {
            let found = lines(b"ab\n\nabcd\nabcde\nx", 4, chunk);
            let whole = |text: &[u8]| (Line::Whole, text.to_vec());
            assert_eq!(
                found,
                [whole(b"ab"), whole(b""), whole(b"abcd"), (Line::TooLong, vec![]), whole(b"x")]
            );
        }
        assert!(lines(b"", 4, 8).is_empty());
    }

    const COMPANY: &str = r#""company_guid":"g","company_alterid":"a","company_name":"n""#;

    #[test]
    fn level_and_message_come_from_the_status() {
        let (event, key) = parse(
            format!(r#"{{{COMPANY},"sync_status":"failed","error_message":"no route","key":"k"}}"#)
                .as_bytes(),
        )
        .unwrap();
        assert_eq!((event.level, event.message.as_str()), (Level::Error, "Sync failed: no route"));
        assert_eq!((event.records_synced, key.as_deref()), (Some(0), Some("k")));
        let (event, _) =
            parse(format!(r#"{{{COMPANY},"log_message":"m","records_synced":null}}"#).as_bytes()).unwrap();
        assert_eq!((event.level, event.records_synced), (Level::Info, None));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        for (rest, word) in [
            (r#""log_message":"m","colour":"red""#, "colour"),
            (r#""log_message":"m","records_synced":"many""#, "string"),
            (r#""log_message":"m","records_synced":1.5"#, "floating point"),
            (r#""log_message":"m","created_at":"2025-01-01","timestamp":"2025-01-01""#, "both"),
            (r#""log_message":"m","timestamp":"soon""#, "timestamp"),
            (r#""log_message":"m","log_level":"LOUD""#, "log_level"),
            (r#""log_message":"m","company_guid":"g""#, "duplicate"),
            (r#""log_level":"INFO""#, "log_message"),
        ] {
            let reason = parse(format!("{{{COMPANY},{rest}}}").as_bytes()).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
        for bad in [&b"\xff"[..], b"[]", b"{", b"null", b"{}{}"] {
            assert!(parse(bad).is_err());
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
