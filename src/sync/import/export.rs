//! Our own export: every event as one JSON object, with nothing left out.

use serde::Serialize;

use crate::event::{Event, Value};
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::super::event::{Level, Status, SyncEvent};
use super::super::runs::time;

/// One line of an export. Fields may be added in later versions, never renamed.
///
/// An import of the line gives back an equal event, numbers bit for bit. Only what belongs to a
/// store changes there: the new store gives its own `seq` and `appended_at`, and keeps where the
/// event came from as `origin_store` and `origin_seq`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportLine<'a> {
    seq: u64,
    store: StoreId,
    company_guid: &'a str,
    company_alterid: &'a str,
    company_name: &'a str,
    log_level: Level,
    log_message: &'a str,
    log_details: Option<&'a str>,
    sync_status: Option<Status>,
    records_synced: Option<i64>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    duration_seconds: Option<f64>,
    #[serde(serialize_with = "time")]
    created_at: Timestamp,
    run: Option<&'a str>,
    legacy_id: Option<i64>,
    origin_store: Option<StoreId>,
    origin_seq: Option<u64>,
    key: Option<&'a str>,
    #[serde(serialize_with = "time")]
    appended_at: Timestamp,
}

impl<'a> ExportLine<'a> {
    /// The names of the fields, in their order.
    pub const FIELDS: [&'static str; 20] = [
        "seq",
        "store",
        "company_guid",
        "company_alterid",
        "company_name",
        "log_level",
        "log_message",
        "log_details",
        "sync_status",
        "records_synced",
        "error_code",
        "error_message",
        "duration_seconds",
        "created_at",
        "run",
        "legacy_id",
        "origin_store",
        "origin_seq",
        "key",
        "appended_at",
    ];

    /// The line of a stored event.
    pub fn new(
        seq: u64,
        store: StoreId,
        event: &'a SyncEvent,
        key: Option<&'a str>,
        appended_at: Timestamp,
    ) -> Self {
        Self {
            seq,
            store,
            company_guid: &event.company.guid,
            company_alterid: &event.company.alterid,
            company_name: &event.company.name,
            log_level: event.level,
            log_message: &event.message,
            log_details: event.details.as_deref(),
            sync_status: event.status,
            records_synced: event.records_synced,
            error_code: event.error_code.as_deref(),
            error_message: event.error_message.as_deref(),
            duration_seconds: event.duration_seconds,
            // A stored event always has its time.
            created_at: event.created_at.unwrap_or(appended_at),
            run: event.run.as_deref(),
            legacy_id: event.legacy_id,
            origin_store: event.origin.map(|origin| origin.store),
            origin_seq: event.origin.map(|origin| origin.seq),
            key,
            appended_at,
        }
    }

    /// The values of [`ExportLine::FIELDS`] for a stored event.
    pub fn values(
        seq: u64,
        store: StoreId,
        event: &SyncEvent,
        key: Option<&str>,
        appended_at: Timestamp,
    ) -> Vec<Value> {
        let mut values = vec![Value::Integer(seq.cast_signed()), Value::Text(store.to_string())];
        values.extend(event.to_row());
        values.push(key.map(String::from).into());
        values.push(Value::Text(appended_at.to_string()));
        values
    }
}
