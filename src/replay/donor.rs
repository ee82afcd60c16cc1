//! Rows as copies of the log: what is damaged there comes back from them (P9).

use std::path::Path;

use crate::application;
use crate::codec;
use crate::erasures::merged;
use crate::error::Result;
use crate::event::{Event, Value};
use crate::log::heal::{Donor, DonorFrame};
use crate::projection::schema::Schema;
use crate::projection::{Connection, Trouble, compare};
use crate::store_id::StoreId;

/// Rows as a source of frames for [`crate::log::heal`].
pub(crate) struct RowDonor<'a, E> {
    db: &'a Connection,
    schema: &'a Schema,
    event: std::marker::PhantomData<E>,
}

impl<'a, E: Event> RowDonor<'a, E> {
    pub(crate) fn new(db: &'a Connection, schema: &'a Schema) -> Self {
        Self { db, schema, event: std::marker::PhantomData }
    }
}

impl<E: Event> Donor for RowDonor<'_, E> {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        let id = seq as i64;
        let mut rows = match compare::rows_between(self.db, self.schema, id, id, 1) {
            Ok(rows) => rows,
            // A row that cannot be read now is no proof that there is none.
            Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => {
                return Err(trouble.into_error(Path::new(self.db.path().unwrap_or_default())));
            }
            // A damaged database gives nothing; the damage of the log is then named as what it is.
            Err(_) => return Ok(None),
        };
        let Some(row) = rows.pop() else { return Ok(None) };
        let Value::Blob(kept) = row.frame else { return Ok(None) };
        let key = match row.key {
            Value::Null => None,
            Value::Text(key) => Some(key),
            _ => return Ok(None),
        };
        let frame = application::from_row::<E>(&row.values).and_then(|event| {
            let again = codec::frame_again(&event, key.as_deref(), &kept);
            application::discard(event);
            again
        });
        // A row that makes no frame proves none.
        Ok(frame.ok().map(|(header, payload)| DonorFrame { header, payload }))
    }

    fn deleted(&mut self, last: u64) -> Result<Vec<(u64, u64)>> {
        match compare::deleted(self.db, self.schema, last) {
            Ok(found) => Ok(merged(found)),
            // What cannot be read now is no proof that nothing was deleted. The path is for the message.
            Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => {
                Err(trouble.into_error(Path::new(self.db.path().unwrap_or_default())))
            }
            // A damaged database gives nothing.
            Err(_) => Ok(Vec::new()),
        }
    }

    fn store(&self) -> Option<StoreId> {
        crate::projection::store_of(self.db)
    }
}
