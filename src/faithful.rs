//! What an event must keep to: it comes back equal from its bytes and from its row, and its row fits its table.
//!
//! Asked before an event is queued, so that nothing is acknowledged that cannot be read back (P1); and, as far as
//! the table goes, of every row that is made from the log, because older programs asked less.

use crate::application;
use crate::error::{Error, Result};
use crate::event::{Column, ColumnType, Event, Table, Value};

/// What the values of one row may take, in bytes. SQLite holds up to a thousand million in a row.
pub(crate) const MAX_ROW_BYTES: u64 = 128 * 1024 * 1024;

/// Refuses an event that does not come back as it is. `own` is its encoding in the present version.
pub(crate) fn check<E: Event>(event: &E, own: &[u8]) -> Result<()> {
    let row = application::to_row(event)?;
    fits(&E::TABLE, &row)?;
    let decoded = application::decode::<E>(E::VERSION, own)
        .map_err(|error| unreadable(error, "cannot be read back from its encoding"))?;
    same(event, decoded, &row, "is another one when it is read back from its encoding")?;
    let read = application::from_row::<E>(&row)
        .map_err(|error| unreadable(error, "cannot be read back from its row"))?;
    same(event, read, &row, "is another one when it is read back from its row")
}

fn unreadable(error: Error, what: &str) -> Error {
    match error {
        Error::Application { .. } => error,
        error => Error::invalid("event", format!("{what}: {error}")),
    }
}

/// Names the first column in which the event that came back differs, where a column tells.
fn same<E: Event>(event: &E, back: E, row: &[Value], what: &str) -> Result<()> {
    let equal = application::equal(event, &back);
    let other = if matches!(equal, Ok(true)) { Ok(Vec::new()) } else { application::to_row(&back) };
    application::discard(back);
    if equal? {
        return Ok(());
    }
    let other = other?;
    let differs = E::TABLE.columns.iter().zip(row.iter().zip(&other)).find(|(_, (own, other))| own != other);
    let field = differs.map_or("event", |(column, _)| column.name);
    Err(Error::invalid(field, what))
}

/// Whether values can stand in the columns of their table and come back as they are.
pub(crate) fn fits(table: &Table, row: &[Value]) -> Result<()> {
    if row.len() != table.columns.len() {
        let what = format!("has {} columns, and the event's row {} values", table.columns.len(), row.len());
        return Err(Error::invalid(table.name, what));
    }
    for (column, value) in table.columns.iter().zip(row) {
        if let Some(reason) = misfit(column, value) {
            return Err(Error::invalid(column.name, reason));
        }
    }
    let bytes = row.iter().map(|value| match value {
        Value::Text(text) => text.len() as u64,
        Value::Blob(bytes) => bytes.len() as u64,
        Value::Null | Value::Integer(_) | Value::Real(_) => 8,
    });
    let bytes = bytes.fold(0, u64::saturating_add);
    if bytes > MAX_ROW_BYTES {
        return Err(Error::TooLarge { what: "the event's row", bytes, limit: MAX_ROW_BYTES });
    }
    Ok(())
}

fn misfit(column: &Column, value: &Value) -> Option<String> {
    let (kind, found) = match value {
        Value::Null if column.not_null => return Some("is NULL, and its column is NOT NULL".into()),
        Value::Null => return None,
        Value::Integer(_) => (ColumnType::Integer, "an integer"),
        Value::Real(number) if !number.is_finite() => return Some("is not a finite number".into()),
        Value::Real(number) if *number == 0.0 && number.is_sign_negative() => {
            return Some("is -0.0, which SQLite gives back as 0.0".into());
        }
        Value::Real(_) => (ColumnType::Real, "a number with a fraction"),
        Value::Text(_) => (ColumnType::Text, "text"),
        Value::Blob(_) => (ColumnType::Blob, "bytes"),
    };
    let wanted = match column.kind {
        ColumnType::Integer => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Text => "TEXT",
        ColumnType::Blob => "BLOB",
    };
    (kind != column.kind).then(|| format!("is {found}, and its column is {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table {
        name: "things",
        columns: &[
            Column::required("number", ColumnType::Integer),
            Column::nullable("real", ColumnType::Real),
            Column::nullable("text", ColumnType::Text),
            Column::nullable("bytes", ColumnType::Blob),
        ],
        indexes: &[],
    };

    #[test]
    fn a_row_fits_its_table_or_the_column_is_named() {
        let values = [
            Value::Null,
            Value::Integer(7),
            Value::Real(0.0),
            Value::Text("t\0".into()),
            Value::Blob(vec![0, 255]),
        ];
        let sound = [values[1].clone(), Value::Null, Value::Null, Value::Null];
        fits(&TABLE, &sound).unwrap();
        for (at, column) in TABLE.columns.iter().enumerate() {
            for (kind, value) in values.iter().enumerate() {
                let mut row = sound.clone();
                row[at] = value.clone();
                match fits(&TABLE, &row) {
                    Ok(()) => assert!(kind == at + 1 || (kind == 0 && at > 0), "{column:?} {value:?}"),
                    Err(Error::Invalid { field, reason }) => {
                        assert!(kind != at + 1 && field == column.name, "{field} {reason}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0] {
            let row = [Value::Integer(7), Value::Real(number), Value::Null, Value::Null];
            assert!(matches!(fits(&TABLE, &row), Err(Error::Invalid { field, .. }) if field == "real"));
        }
        assert!(fits(&TABLE, &sound[..3]).unwrap_err().to_string().contains("4 columns"));
        assert!(fits(&TABLE, &[]).is_err() && fits(&TABLE, &[&sound[..], &sound[..]].concat()).is_err());
        let mut large = sound;
        large[3] = Value::Blob(vec![0; MAX_ROW_BYTES as usize]);
        assert!(matches!(fits(&TABLE, &large), Err(Error::TooLarge { .. })));
    }
}
