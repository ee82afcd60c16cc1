//! What JSON lines and database rows share: names, and the way from cells to a record.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::super::event::{Company, Level, Origin, SyncEvent};
use super::cells::Cell;
use super::{Extra, Reading, Record, SourceTime, utc};

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
    Run,
    Key,
    // From here on only in our own export.
    Seq,
    Store,
    LegacyId,
    OriginStore,
    OriginSeq,
    AppendedAt,
}

/// What starts a line of the details that an event has no field for.
const EXTRA: &str = "[extra] ";

/// The details of an event as the source has them in their own field.
pub(super) fn details_of(event: &SyncEvent) -> Option<&str> {
    let details = event.details.as_deref().filter(|details| !details.starts_with(EXTRA))?;
    let added = details.match_indices(EXTRA).map(|(at, _)| at).find(|at| details[..*at].ends_with('\n'));
    Some(added.map_or(details, |at| &details[..at - 1]))
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

/// The place of a name in [`NAMES`]. SQLite takes names in any letters, and so do we.
fn place_of(name: &str) -> Option<usize> {
    NAMES.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// The field of this name.
pub(super) fn field(name: &str) -> Option<Field> {
    place_of(name).map(|place| NAMES[place].1)
}

/// The name that a field has in messages: the one it was given under, or else its first one.
fn default_name(field: Field) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == field).map_or("", |(name, _)| *name)
}

/// The cells of one line or row, by field. Repeats that do not belong are noted, and the rest of the
/// input is still looked at.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// Each with the place of its name in [`NAMES`].
    by_field: [Option<(usize, Cell)>; FIELDS],
    /// What has no field, as text, and its name.
    extra: Vec<(String, String)>,
    /// Of two names for one field, a table's are meant in the other order.
    table: bool,
    problem: Option<String>,
}

/// What is to be told of a record.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) empty_alterid: bool,
    pub(super) unknown_words: u64,
    pub(super) extra: Vec<String>,
    pub(super) time: Option<SourceTime>,
}

impl Cells {
    /// The cells of a row in a table.
    pub(super) fn of_row() -> Self {
        Self { table: true, ..Self::default() }
    }

    /// Puts a value under a name of the source.
    pub(super) fn put(&mut self, name: &str, cell: Cell) {
        let Some(place) = place_of(name) else {
            self.put_extra(name, cell.into_text());
            return;
        };
        let slot = &mut self.by_field[NAMES[place].1 as usize];
        let Some((before, there)) = slot.take() else {
            *slot = Some((place, cell));
            return;
        };
        if before == place {
            let name = NAMES[place].0;
            self.problem.get_or_insert_with(|| format!("{name} is given twice"));
            return;
        }
        // Two names of one field: the one that is meant, and one more.
        let first = match (&there, &cell) {
            (_, Cell::Null) => true,
            (Cell::Null, _) => false,
            _ => (before < place) != self.table,
        };
        let ((kept, cell), (other, more)) =
            if first { ((before, there), (place, cell)) } else { ((place, cell), (before, there)) };
        let more = (more != cell).then(|| more.into_text()).flatten();
        *slot = Some((kept, cell));
        self.put_extra(NAMES[other].0, more);
    }

    /// Puts what has no field. Nothing is lost where there is no value.
    pub(super) fn put_extra(&mut self, name: &str, text: Option<String>) {
        // A name that could be taken for more than a name stands in quotes.
        let plain = !name.chars().any(|letter| letter.is_control() || letter == ':');
        let name = if plain { name.to_owned() } else { format!("{name:?}") };
        self.extra.extend(text.map(|text| (name, text)));
    }

    /// Whether this can be more than a piece of something else.
    pub(super) fn look_like_an_event(&self) -> bool {
        self.has(Field::CompanyGuid) || self.has(Field::Message)
    }

    fn has(&self, field: Field) -> bool {
        self.by_field[field as usize].is_some()
    }

    fn name(&self, field: Field) -> &'static str {
        self.by_field[field as usize]
            .as_ref()
            .map_or_else(|| default_name(field), |(place, _)| NAMES[*place].0)
    }

    fn take(&mut self, field: Field) -> Cell {
        self.by_field[field as usize].take().map_or(Cell::Null, |(_, cell)| cell)
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

    /// A text, or a number that serves as one.
    fn name_or_number(&mut self, field: Field) -> Result<Option<String>, String> {
        if let Some((_, Cell::Integer(number))) = self.by_field[field as usize] {
            self.take(field);
            return Ok(Some(number.to_string()));
        }
        Ok(self.text(field)?.filter(|text| !text.trim().is_empty()))
    }

    /// A level or status. One that is none is put into `unknown`.
    fn word<T: std::str::FromStr>(
        &mut self,
        field: Field,
        unknown: &mut Vec<String>,
    ) -> Result<Option<T>, String> {
        let name = self.name(field);
        let Some(word) = self.text(field)?.filter(|word| !word.trim().is_empty()) else { return Ok(None) };
        // What is no known word goes into the details.
        let known = word.trim().parse().ok();
        if known.is_none() {
            unknown.push(format!("{name}: {word}"));
        }
        Ok(known)
    }

    fn store(&mut self, field: Field) -> Result<Option<StoreId>, String> {
        let name = self.name(field);
        self.text(field)?
            .map(|text| text.parse().map_err(|_| format!("{name} is not 32 hex digits")))
            .transpose()
    }

    fn time(
        &mut self,
        field: Field,
        reading: &Reading<'_>,
    ) -> Result<(SourceTime, Option<Timestamp>), String> {
        let name = self.name(field);
        let text = self.required(field)?;
        let time = (reading.read_time)(&text).map_err(|error| match error {
            Error::Invalid { reason, .. } => format!("{name} {reason}"),
            other => format!("{name}: {other}"),
        })?;
        let wrong = reading.wrong_time.filter(|_| !matches!(time, SourceTime::Zoned(_)));
        // A time that could not be read then was not imported.
        Ok((time, wrong.and_then(|read| read(&text).ok()).map(SourceTime::timestamp)))
    }

    /// Whether this is a line of our own export. One field of it alone may be anybody's.
    fn is_own(&self) -> bool {
        let has = |field: Field| matches!(self.by_field[field as usize], Some((_, ref cell)) if *cell != Cell::Null);
        let (seq, store) = (has(Field::Seq), has(Field::Store));
        (seq && store) || ((seq || store) && has(Field::AppendedAt))
    }

    /// The record, or what is wrong.
    pub(super) fn into_record(
        mut self,
        line: u64,
        object: u64,
        reading: &Reading<'_>,
    ) -> Result<(Record, Seen), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let mut seen = Seen::default();
        let mut words = Vec::new();
        let own = self.is_own();
        let mut origin = None;
        let legacy_id;
        let exact = Reading { wrong_time: None, read_time: &utc, ..*reading };
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
            legacy_id = self.integer(Field::LegacyId)?;
            if self.has(Field::AppendedAt) {
                self.time(Field::AppendedAt, &exact)?;
            }
        } else {
            for (place, cell) in self.by_field[Field::Seq as usize..].iter_mut().filter_map(Option::take) {
                self.extra.extend(cell.into_text().map(|text| (NAMES[place].0.to_owned(), text)));
            }
            legacy_id = self.integer(Field::LegacyRowId)?;
            let alterid = &mut self.by_field[Field::CompanyAlterid as usize];
            if let Some((_, cell)) = alterid
                && cell.is_blank()
            {
                // The older system writes an empty one where it knows none.
                *cell = Cell::Text("-".into());
                seen.empty_alterid = true;
            }
        }
        let (key, run) = if own {
            (self.text(Field::Key)?, self.text(Field::Run)?)
        } else {
            (self.name_or_number(Field::Key)?, self.name_or_number(Field::Run)?)
        };
        let company = Company {
            guid: self.required(Field::CompanyGuid)?,
            alterid: self.required(Field::CompanyAlterid)?,
            name: self.required(Field::CompanyName)?,
        };
        let has_level =
            matches!(self.by_field[Field::Level as usize], Some((_, ref cell)) if *cell != Cell::Null);
        let level: Option<Level> = self.word(Field::Level, &mut words)?;
        if !has_level {
            return Err("log_level is missing".into());
        }
        let status = self.word(Field::Status, &mut words)?;
        if own && let Some(word) = words.first() {
            // Without a colon there is no such line.
            let (name, word) = word.split_once(": ").unwrap_or_default();
            return Err(format!("{name} is the unknown word {}", shown(word)));
        }
        seen.unknown_words = words.len() as u64;
        let (time, wrong_time) = self.time(Field::Time, if own { &exact } else { reading })?;
        seen.time = Some(time);
        let mut event = SyncEvent {
            company,
            level: level.unwrap_or(Level::default_for(status)),
            message: self.required(Field::Message)?,
            details: self.text(Field::Details)?,
            status,
            records_synced: self.integer(Field::Records)?,
            error_code: self.text(Field::ErrorCode)?,
            error_message: self.text(Field::ErrorMessage)?,
            duration_seconds: self.real(Field::Duration)?,
            created_at: Some(time.timestamp()),
            run,
            legacy_id,
            origin,
        };
        let mut lines: Vec<String> = event.details.take().into_iter().chain(words).collect();
        for (name, text) in self.extra {
            if reading.extra == Extra::Details {
                lines.push(format!("{EXTRA}{name}: {text}"));
            }
            seen.extra.push(name);
        }
        event.details = (!lines.is_empty()).then(|| lines.join("\n"));
        event.prepare(Timestamp::MIN).map_err(|error| error.to_string())?;
        Ok((Record { line, object, event, key, wrong_time }, seen))
    }
}

/// A piece of input in a message: short, quoted, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}
