//! JSON lines: the legacy form and our own export. A line should be one object. Where it holds several, or a
//! torn one with the next behind it, each is taken by itself.

use std::io::BufRead;
use std::path::Path;

use crate::error::{Error, Result};

use super::fields::Cells;
use super::{MAX_LINE, Reading, Source};

/// What one line turned out to be.
enum Line {
    End,
    Whole,
    TooLong,
}

/// Reads JSON lines to their end. `path` is only for errors of reading.
pub(crate) fn read_lines(mut input: impl BufRead, path: &Path, reading: &Reading<'_>) -> Result<Source> {
    let mut source = Source::default();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        let line = next(&mut input, &mut bytes, MAX_LINE).map_err(|error| Error::io("read", path, error))?;
        number += 1;
        match line {
            Line::End => return Ok(source),
            Line::TooLong => source.reject(number, 0, format!("the line is longer than {MAX_LINE} bytes")),
            Line::Whole => {
                let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&bytes);
                // A blank line counts for numbering only.
                if !bytes.trim_ascii().is_empty() {
                    let objects = objects(bytes);
                    let several = objects.len() > 1;
                    for (object, number_in_line) in objects.into_iter().zip(1..) {
                        let place = (number, if several { number_in_line } else { 0 });
                        match object {
                            Ok(cells) => source.take(place, cells, reading, ""),
                            Err(reason) => source.reject(place.0, place.1, reason),
                        }
                    }
                }
            }
        }
    }
}

/// The objects of a line, and what is none. After a torn object the next one is looked for inside it, because
/// the tear may be anywhere; what is found there must look like an event.
fn objects(bytes: &[u8]) -> Vec<Result<Cells, String>> {
    let mut found = Vec::new();
    // Where a torn object began, and what is wrong with it.
    let mut torn: Option<(usize, String)> = None;
    // A line of many beginnings must not be read once for each of them.
    let mut budget = 16 * bytes.len() + (1 << 16);
    let mut at = skip_separators(bytes, 0);
    while at < bytes.len() {
        let mut objects = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Cells>();
        match objects.next() {
            Some(Ok(cells)) if torn.is_none() || cells.look_like_an_event() => {
                found.extend(torn.take().map(|torn| Err(reason(bytes, torn, at))));
                found.push(Ok(cells));
                at = skip_separators(bytes, at + objects.byte_offset());
                continue;
            }
            Some(Err(error)) => {
                budget = budget.saturating_sub(error.column());
                torn.get_or_insert_with(|| (at, problem(&error, at)));
            }
            _ => budget = budget.saturating_sub(objects.byte_offset()),
        }
        if budget == 0 {
            break;
        }
        at = next_start(bytes, at + 1);
    }
    let is_nothing = torn.is_none() && found.is_empty();
    let nothing = is_nothing.then(|| (0, "the line is not a JSON object".to_owned()));
    found.extend(torn.or(nothing).map(|torn| Err(reason(bytes, torn, bytes.len()))));
    found
}

/// What stands between the objects of a line.
fn skip_separators(bytes: &[u8], from: usize) -> usize {
    let is_other = |byte: &u8| !byte.is_ascii_whitespace() && !b",[]".contains(byte);
    bytes[from..].iter().position(is_other).map_or(bytes.len(), |at| from + at)
}

/// Where an object with a field may begin.
fn next_start(bytes: &[u8], from: usize) -> usize {
    let begins = |at: &usize| {
        bytes[*at] == b'{' && bytes[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'"')
    };
    (from..bytes.len()).find(begins).unwrap_or(bytes.len())
}

fn problem(error: &serde_json::Error, at: usize) -> String {
    // The parser counts from where it began. It may quote a piece of any length.
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let short: String = text.chars().take(200).collect();
    format!("the line is not a JSON object: {short} at column {}", at + error.column())
}

/// Why there is no object from where one began up to `end`.
fn reason(bytes: &[u8], (from, problem): (usize, String), end: usize) -> String {
    match std::str::from_utf8(&bytes[from..end]) {
        Ok(_) => problem,
        Err(error) => format!("the line is not UTF-8 from byte {} on", from + error.valid_up_to() + 1),
    }
}

/// The next line, without its end, into `into`. Of a line beyond `limit` nothing more is kept.
fn next(input: &mut impl BufRead, into: &mut Vec<u8>, limit: usize) -> std::io::Result<Line> {
    let (mut any, mut too_long) = (false, false);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let piece = &available[..end.unwrap_or(available.len())];
        if piece.len() > limit - into.len() {
            too_long = true;
        }
        if !too_long {
            into.extend_from_slice(piece);
        }
        let done = end.is_some() || available.is_empty();
        any |= !available.is_empty();
        let used = piece.len() + usize::from(end.is_some());
        input.consume(used);
        if done {
            return Ok(match (any, too_long) {
                (false, _) => Line::End,
                (true, false) => Line::Whole,
                (true, true) => Line::TooLong,
            });
        }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
