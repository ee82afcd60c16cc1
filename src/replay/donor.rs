//! Rows as copies of the log: what is damaged there comes back from them (P9).

use std::path::Path;

use crate::application;
use crate::codec;
use crate::erasures::merged;
use crate::error::Result;
use crate::event::{Event, Value};
use crate::log::heal::{Donor, DonorFrame};
use crate::projection::row::FoundRow;
use crate::projection::schema::Schema;
use crate::projection::{self, Connection, OwnRows, Trouble, compare};
use crate::store_id::StoreId;

/// Rows as a source of frames for [`crate::log::heal`]: of one database, and of others where that has none.
pub(crate) struct RowDonor<'a, E> {
    schema: &'a Schema,
    sources: Vec<Source<'a>>,
    event: std::marker::PhantomData<E>,
}

struct Source<'a> {
    db: &'a Connection,
    /// Looked up with the first row.
    rows: Option<OwnRows<'a>>,
}

impl Source<'_> {
    fn row(&mut self, schema: &Schema, seq: u64) -> std::result::Result<Option<FoundRow>, Trouble> {
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => OwnRows::of(self.db, schema)?,
        };
        self.rows.insert(rows).row(seq as i64)
    }
}

impl<'a, E: Event> RowDonor<'a, E> {
    pub(crate) fn new(db: &'a Connection, schema: &'a Schema) -> Self {
        Self::of([db], schema)
    }

    /// Rows of several databases; the first one that has a row for an event gives it.
    pub(crate) fn of(dbs: impl IntoIterator<Item = &'a Connection>, schema: &'a Schema) -> Self {
        let sources = dbs.into_iter().map(|db| Source { db, rows: None }).collect();
        Self { schema, sources, event: std::marker::PhantomData }
    }
}

/// The frame that a row says its event had. A row that makes no frame proves none.
fn frame_of_row<E: Event>(row: FoundRow) -> Option<DonorFrame> {
    let Value::Blob(kept) = row.frame else { return None };
    let key = match row.key {
        Value::Null => None,
        Value::Text(key) => Some(key),
        _ => return None,
    };
    let frame = application::from_row::<E>(&row.values).and_then(|event| {
        let again = codec::frame_again(&event, key.as_deref(), &kept);
        application::discard(event);
        again
    });
    // As said above.
    frame.ok().map(|(header, payload)| DonorFrame { header, payload })
}

/// What a database says is deleted, up to the event that its rows vouch for; `None` where they vouch for none. A row can
/// be proved, its absence cannot.
fn deleted_in(
    db: &Connection,
    schema: &Schema,
    last: u64,
) -> std::result::Result<Option<Vec<(u64, u64)>>, Trouble> {
    let said = projection::store_of(db).and_then(|store| projection::evidence(db, store));
    match said {
        Some(applied) if projection::vouches_for(db, schema, applied)? => {
            compare::deleted(db, schema, last.min(applied.seq)).map(Some)
        }
        _ => Ok(None),
    }
}

impl<E: Event> Donor for RowDonor<'_, E> {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        for source in &mut self.sources {
            match source.row(self.schema, seq) {
                Ok(Some(row)) => {
                    if let Some(frame) = frame_of_row::<E>(row) {
                        return Ok(Some(frame));
                    }
                }
                // A row that cannot be read now is no proof that there is none. The path is for the message.
                Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => {
                    return Err(trouble.into_error(Path::new(source.db.path().unwrap_or_default())));
                }
                // A damaged database gives nothing; the damage of the log is then named as what it is.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(None)
    }

    fn deleted(&mut self, last: u64) -> Result<Vec<(u64, u64)>> {
        // Of an older one and a newer one both are right: what is deleted stays so.
        let mut said = Vec::new();
        for Source { db, .. } in &self.sources {
            match deleted_in(db, self.schema, last) {
                Ok(Some(found)) => said.extend(found),
                // What cannot be read now is no proof that nothing was deleted. The path is for the message.
                Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => {
                    return Err(trouble.into_error(Path::new(db.path().unwrap_or_default())));
                }
                // A damaged database gives nothing.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(merged(said))
    }

    fn store(&self) -> Option<StoreId> {
        self.sources.iter().find_map(|source| projection::store_of(source.db))
    }
}
