//! JSON lines: one object a line, the legacy form and our own export.

use std::io::BufRead;
use std::path::Path;

use crate::error::{Error, Result};

use super::fields::Cells;
use super::{MAX_LINE, ReadTime, Record, Source};

/// What one line turned out to be.
enum Line {
    End,
    Whole,
    TooLong,
}

/// Reads JSON lines to their end. `path` is only for errors of reading.
pub(crate) fn read_lines(mut input: impl BufRead, path: &Path, read_time: ReadTime<'_>) -> Result<Source> {
    let mut source = Source::default();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        let line = next(&mut input, &mut bytes, MAX_LINE).map_err(|error| Error::io("read", path, error))?;
        number += 1;
        match line {
            Line::End => return Ok(source),
            Line::TooLong => source.take(number, Err(format!("the line is longer than {MAX_LINE} bytes"))),
            Line::Whole => {
                let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&bytes);
                // A blank line counts for numbering only.
                if !bytes.trim_ascii().is_empty() {
                    source.take(number, record(bytes, number, read_time));
                }
            }
        }
    }
}

fn record(bytes: &[u8], line: u64, read_time: ReadTime<'_>) -> Result<Record, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    let cells: Cells = serde_json::from_str(text).map_err(|error| {
        // The parser counts lines too, but it sees only one. It may quote a piece of any length.
        let problem = error.to_string().replace(" at line 1 column ", " at column ");
        let short: String = problem.chars().take(200).collect();
        format!("the line is not a JSON object: {short}")
    })?;
    cells.into_record(line, read_time)
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
