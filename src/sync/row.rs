//! Sync events as rows of the `sync_logs` table, and back.

use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::event::{Company, Level, Origin, Status, SyncEvent, check_duration, check_origin};

/// The values of the table's columns, in their order. The event must have been prepared.
pub(super) fn write(event: &SyncEvent) -> Vec<Value> {
    let word = |text: &str| Value::Text(text.into());
    vec![
        word(&event.company.guid),
        word(&event.company.alterid),
        word(&event.company.name),
        word(event.level.as_str()),
        word(&event.message),
        event.details.clone().into(),
        event.status.map_or(Value::Null, |status| word(status.as_str())),
        event.records_synced.into(),
        event.error_code.clone().into(),
        event.error_message.clone().into(),
        event.duration_seconds.into(),
        event.created_at.map(|time| time.to_string()).into(),
        event.run.clone().into(),
        event.legacy_id.into(),
        event.origin.map(|origin| origin.store.to_string()).into(),
        // `prepare` refused a seq that does not fit.
        event.origin.map(|origin| origin.seq.cast_signed()).into(),
    ]
}

/// The event of a row. Only what [`write`] can have written is accepted, so that the two are exact
/// inverses: a word in other letters or a time in another form is not the row of any event.
pub(super) fn read(row: &[Value]) -> Result<SyncEvent> {
    let columns = SyncEvent::TABLE.columns;
    if row.len() != columns.len() {
        return Err(Error::codec(format!("a row of {} columns, not {}", row.len(), columns.len())));
    }
    let mut cells = columns.iter().map(|column| column.name).zip(row);
    // The columns are taken one after the other, in the order of the table.
    let mut next = || cells.next().unwrap_or(("", &Value::Null));
    let company = Company::new(required(next())?, required(next())?, required(next())?);
    let level = level(required(next())?)?;
    let message = required(next())?.into();
    let details = text(next())?.map(Into::into);
    let status = text(next())?.map(status).transpose()?;
    let records_synced = integer(next())?;
    let error_code = text(next())?.map(Into::into);
    let error_message = text(next())?.map(Into::into);
    let duration_seconds = real(next())?;
    let created_at = Some(time(required(next())?)?);
    let run = text(next())?.map(Into::into);
    let legacy_id = integer(next())?;
    let origin = match (text(next())?, integer(next())?) {
        (None, None) => None,
        (Some(store), Some(seq)) => {
            let id: StoreId = store.parse().map_err(|_| Error::codec("origin_store is not 32 hex digits"))?;
            if id.to_string() != store {
                return Err(Error::codec("origin_store is not in lower-case hex digits"));
            }
            let seq = u64::try_from(seq).map_err(|_| Error::codec("origin_seq is negative"))?;
            Some(Origin { store: id, seq })
        }
        _ => return Err(Error::codec("only one of origin_store and origin_seq is there")),
    };
    check_origin(origin)?;
    Ok(SyncEvent {
        company,
        level,
        message,
        details,
        status,
        records_synced,
        error_code,
        error_message,
        duration_seconds,
        created_at,
        run,
        legacy_id,
        origin,
    })
}

type Cell<'a> = (&'static str, &'a Value);

fn wrong(column: &str, expected: &str) -> Error {
    Error::codec(format!("{column} is not {expected}"))
}

fn text((column, value): Cell<'_>) -> Result<Option<&str>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        _ => Err(wrong(column, "text")),
    }
}

fn required(cell: Cell<'_>) -> Result<&str> {
    text(cell)?.ok_or_else(|| wrong(cell.0, "there"))
}

fn integer((column, value): Cell<'_>) -> Result<Option<i64>> {
    match value {
        Value::Null => Ok(None),
        Value::Integer(number) => Ok(Some(*number)),
        _ => Err(wrong(column, "an integer")),
    }
}

fn real((column, value): Cell<'_>) -> Result<Option<f64>> {
    match value {
        Value::Null => Ok(None),
        Value::Real(number) => check_duration(*number).map(|()| Some(*number)),
        _ => Err(wrong(column, "a number with a fraction")),
    }
}

fn level(text: &str) -> Result<Level> {
    word(text, Level::ALL, Level::as_str)
}

fn status(text: &str) -> Result<Status> {
    word(text, Status::ALL, Status::as_str)
}

/// A level or status, in the very letters that are written.
fn word<T: Copy, const N: usize>(text: &str, all: [T; N], as_str: fn(T) -> &'static str) -> Result<T> {
    all.into_iter()
        .find(|word| as_str(*word) == text)
        .ok_or_else(|| Error::codec(format!("{text:?} is no level or status")))
}

fn time(text: &str) -> Result<Timestamp> {
    Timestamp::from_written(text)
        .ok_or_else(|| Error::codec(format!("created_at {text:?} is not in the form that is written")))
}
