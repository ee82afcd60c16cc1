//! What JSON lines and database rows share: names, cells, and the way from cells to a record.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::super::event::{Company, Origin, SyncEvent};
use super::{ReadTime, Record};

/// One value of a source, before it is known which type is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    /// Something that no column takes, in words.
    Other(&'static str),
}

/// Every field that a source may have, under all of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    LegacyRowId,
    CompanyGuid,
    CompanyAlterid,
    CompanyName,
    Level,
    Message,
    Details,
    Status,
    Records,
    ErrorCode,
    ErrorMessage,
    Duration,
    Time,
    // From here on only in our own export.
    Seq,
    Store,
    Run,
    LegacyId,
    OriginStore,
    OriginSeq,
    Key,
    AppendedAt,
}

const NAMES: [(&str, Field); 23] = [
    ("log_id", Field::LegacyRowId),
    ("id", Field::LegacyRowId),
    ("company_guid", Field::CompanyGuid),
    ("company_alterid", Field::CompanyAlterid),
    ("company_name", Field::CompanyName),
    ("log_level", Field::Level),
    ("log_message", Field::Message),
    ("log_details", Field::Details),
    ("sync_status", Field::Status),
    ("records_synced", Field::Records),
    ("error_code", Field::ErrorCode),
    ("error_message", Field::ErrorMessage),
    ("duration_seconds", Field::Duration),
    ("timestamp", Field::Time),
    ("created_at", Field::Time),
    ("seq", Field::Seq),
    ("store", Field::Store),
    ("run", Field::Run),
    ("legacy_id", Field::LegacyId),
    ("origin_store", Field::OriginStore),
    ("origin_seq", Field::OriginSeq),
    ("key", Field::Key),
    ("appended_at", Field::AppendedAt),
];

/// The number of variants of [`Field`].
const FIELDS: usize = Field::AppendedAt as usize + 1;

/// The field of this name.
pub(super) fn field(name: &str) -> Option<Field> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
}

/// The name that a field has in messages: the one it was given under, or else its first one.
fn default_name(field: Field) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == field).map_or("", |(name, _)| *name)
}

/// The cells of one line or row, by field. Names and repeats that do not belong are noted, and the
/// rest of the input is still looked at.
#[derive(Debug, Default)]
pub(super) struct Cells {
    cells: [Option<(&'static str, Cell)>; FIELDS],
    problem: Option<String>,
}

impl Cells {
    /// Puts a value under a name of the source.
    pub(super) fn put(&mut self, name: &str, cell: Cell) {
        let Some((name, field)) = NAMES.iter().find(|(known, _)| *known == name) else {
            self.note(format!("{} is not a known field, and it would be lost", shown(name)));
            return;
        };
        match &self.cells[*field as usize] {
            None => self.cells[*field as usize] = Some((name, cell)),
            Some((before, _)) if before == name => self.note(format!("{name} is given twice")),
            Some((before, _)) => self.note(format!("{before} and {name} are both given")),
        }
    }

    /// Keeps the first problem.
    pub(super) fn note(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    fn has(&self, field: Field) -> bool {
        self.cells[field as usize].is_some()
    }

    fn name(&self, field: Field) -> &'static str {
        self.cells[field as usize].as_ref().map_or_else(|| default_name(field), |(name, _)| name)
    }

    fn take(&mut self, field: Field) -> Cell {
        self.cells[field as usize].take().map_or(Cell::Null, |(_, cell)| cell)
    }

    fn text(&mut self, field: Field) -> Result<Option<String>, String> {
        let name = self.name(field);
        match self.take(field) {
            Cell::Null => Ok(None),
            Cell::Text(text) => Ok(Some(text)),
            other => Err(format!("{name} is {}, not text", other.kind())),
        }
    }

    fn required(&mut self, field: Field) -> Result<String, String> {
        let name = self.name(field);
        let missing = if self.has(field) { "empty" } else { "missing" };
        self.text(field)?.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("{name} is {missing}"))
    }

    fn integer(&mut self, field: Field) -> Result<Option<i64>, String> {
        let name = self.name(field);
        match self.take(field) {
            Cell::Null => Ok(None),
            Cell::Integer(number) => Ok(Some(number)),
            other => Err(format!("{name} is {}, not an integer", other.kind())),
        }
    }

    /// A seq: an integer from 1.
    fn seq(&mut self, field: Field) -> Result<Option<u64>, String> {
        let name = self.name(field);
        match self.integer(field)? {
            None => Ok(None),
            Some(number) => match u64::try_from(number) {
                Ok(seq) if seq > 0 => Ok(Some(seq)),
                _ => Err(format!("{name} is {number}, not a number from 1 on")),
            },
        }
    }

    fn real(&mut self, field: Field) -> Result<Option<f64>, String> {
        let name = self.name(field);
        match self.take(field) {
            Cell::Null => Ok(None),
            Cell::Real(number) => Ok(Some(number)),
            Cell::Integer(number) if i128::from(number) == number as f64 as i128 => Ok(Some(number as f64)),
            Cell::Integer(_) => Err(format!("{name} is an integer too large to keep every digit")),
            other => Err(format!("{name} is {}, not a number", other.kind())),
        }
    }

    fn word<T: std::str::FromStr>(&mut self, field: Field) -> Result<Option<T>, String> {
        let name = self.name(field);
        match self.text(field)? {
            None => Ok(None),
            Some(word) => {
                word.parse().map(Some).map_err(|_| format!("{name} is the unknown word {}", shown(&word)))
            }
        }
    }

    fn store(&mut self, field: Field) -> Result<Option<StoreId>, String> {
        let name = self.name(field);
        self.text(field)?
            .map(|text| text.parse().map_err(|_| format!("{name} is not 32 hex digits")))
            .transpose()
    }

    fn time(&mut self, field: Field, read: ReadTime<'_>) -> Result<Timestamp, String> {
        let name = self.name(field);
        let text = self.required(field)?;
        read(&text).map_err(|error| match error {
            Error::Invalid { reason, .. } => format!("{name} {reason}"),
            other => format!("{name}: {other}"),
        })
    }

    /// The record, or what is wrong. A line with `seq` or `store` is one of our own export.
    pub(super) fn into_record(mut self, line: u64, read_time: ReadTime<'_>) -> Result<Record, String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let own = self.has(Field::Seq) || self.has(Field::Store);
        let (mut key, mut run, mut origin) = (None, None, None);
        let legacy_id;
        let time_zone: ReadTime<'_>;
        if own {
            if self.has(Field::LegacyRowId) {
                return Err(format!("{} does not belong into an export line", self.name(Field::LegacyRowId)));
            }
            let seq = self.seq(Field::Seq)?.ok_or("seq is missing")?;
            let store = self.store(Field::Store)?.ok_or("store is missing")?;
            origin = Some(match (self.store(Field::OriginStore)?, self.seq(Field::OriginSeq)?) {
                (None, None) => Origin { store, seq },
                (Some(store), Some(seq)) => Origin { store, seq },
                _ => return Err("only one of origin_store and origin_seq is given".into()),
            });
            key = self.text(Field::Key)?;
            run = self.text(Field::Run)?;
            legacy_id = self.integer(Field::LegacyId)?;
            if self.has(Field::AppendedAt) {
                self.time(Field::AppendedAt, &super::utc)?;
            }
            time_zone = &super::utc;
        } else {
            if let Some((name, _)) = self.cells[Field::Run as usize..].iter().flatten().next() {
                return Err(format!("{name} belongs to an export line, and seq and store are missing"));
            }
            legacy_id = self.integer(Field::LegacyRowId)?;
            time_zone = read_time;
        }
        let mut event = SyncEvent {
            company: Company {
                guid: self.required(Field::CompanyGuid)?,
                alterid: self.required(Field::CompanyAlterid)?,
                name: self.required(Field::CompanyName)?,
            },
            level: self.word(Field::Level)?.ok_or("log_level is missing")?,
            message: self.required(Field::Message)?,
            details: self.text(Field::Details)?,
            status: self.word(Field::Status)?,
            records_synced: self.integer(Field::Records)?,
            error_code: self.text(Field::ErrorCode)?,
            error_message: self.text(Field::ErrorMessage)?,
            duration_seconds: self.real(Field::Duration)?,
            created_at: Some(self.time(Field::Time, time_zone)?),
            run,
            legacy_id,
            origin,
        };
        event.prepare(Timestamp::MIN).map_err(|error| error.to_string())?;
        Ok(Record { line, event, key })
    }
}

impl Cell {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a number with a fraction",
            Self::Text(_) => "text",
            Self::Other(kind) => kind,
        }
    }
}

/// A piece of input in a message: short, quoted, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Line;
        impl<'de> Visitor<'de> for Line {
            type Value = Cells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = Cells::default();
                while let Some(name) = map.next_key::<String>()? {
                    cells.put(&name, map.next_value()?);
                }
                Ok(cells)
            }
        }
        deserializer.deserialize_map(Line)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Cell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Cell, E> {
                Ok(Cell::Null)
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Cell, E> {
                Ok(Cell::Other("true or false"))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Cell, E> {
                Ok(Cell::Integer(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Cell, E> {
                Ok(i64::try_from(number).map_or(Cell::Other("an integer beyond 64 bits"), Cell::Integer))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Cell, E> {
                Ok(Cell::Real(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
                Ok(Cell::Text(text.into()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Cell, E> {
                Ok(Cell::Text(text))
            }

            // Arrays and objects are passed over without being kept: a short line of brackets
            // would take a lot of memory otherwise.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Cell::Other("an array"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Cell::Other("an object"))
            }
        }
        deserializer.deserialize_any(One)
    }
}
