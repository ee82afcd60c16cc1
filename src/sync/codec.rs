//! Sync events as bytes: the frozen form of every version, and the way to and from today's type.
//!
//! postcard writes no names, no types and no lengths of structs. So a form that was ever written
//! must never change again, in any way:
//!
//! - an enum is a number: variants in another order decode to other words, in silence;
//! - a new field at the end fails on every older payload;
//! - `skip_serializing_if` leaves a field out, and the decoder reads the next one in its place;
//! - `postcard::from_bytes` ignores what follows the value, so [`decode`] takes the rest and refuses it.
//!
//! A new form is a new type beside the old one, with a version of its own and a step that turns
//! the old into the new. The golden files under `tests/data/golden` hold every version to its bytes.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::event::{Company, Level, Origin, Status, SyncEvent, check_duration, check_origin};

/// Frozen: the order of the variants is the format.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum LevelV1 {
    Info,
    Warning,
    Error,
    Success,
}

/// Frozen: the order of the variants is the format.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum StatusV1 {
    Started,
    InProgress,
    Completed,
    Failed,
}

/// Frozen: the order and the types of the fields are the format.
#[derive(Serialize, Deserialize)]
struct SyncEventV1<'a> {
    company_guid: &'a str,
    company_alterid: &'a str,
    company_name: &'a str,
    level: LevelV1,
    message: &'a str,
    details: Option<&'a str>,
    status: Option<StatusV1>,
    records_synced: Option<i64>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    duration_seconds: Option<f64>,
    /// Microseconds since 1970, UTC.
    created_at: i64,
    run: Option<&'a str>,
    legacy_id: Option<i64>,
    /// Store id and seq.
    origin: Option<([u8; 16], u64)>,
}

/// The payload of `event` in version 1. The event must have been prepared.
pub(super) fn encode(event: &SyncEvent) -> Result<Vec<u8>> {
    let created_at = event.created_at.ok_or_else(|| Error::codec("the event has no time yet"))?;
    let form = SyncEventV1 {
        company_guid: &event.company.guid,
        company_alterid: &event.company.alterid,
        company_name: &event.company.name,
        level: match event.level {
            Level::Info => LevelV1::Info,
            Level::Warning => LevelV1::Warning,
            Level::Error => LevelV1::Error,
            Level::Success => LevelV1::Success,
        },
        message: &event.message,
        details: event.details.as_deref(),
        status: event.status.map(|status| match status {
            Status::Started => StatusV1::Started,
            Status::InProgress => StatusV1::InProgress,
            Status::Completed => StatusV1::Completed,
            Status::Failed => StatusV1::Failed,
        }),
        records_synced: event.records_synced,
        error_code: event.error_code.as_deref(),
        error_message: event.error_message.as_deref(),
        duration_seconds: event.duration_seconds,
        created_at: created_at.as_micros(),
        run: event.run.as_deref(),
        legacy_id: event.legacy_id,
        origin: event.origin.map(|origin| (*origin.store.as_bytes(), origin.seq)),
    };
    postcard::to_stdvec(&form).map_err(|error| Error::codec(error.to_string()))
}

/// The event of a version 1 payload.
pub(super) fn decode(payload: &[u8]) -> Result<SyncEvent> {
    let (form, rest): (SyncEventV1<'_>, _) =
        postcard::take_from_bytes(payload).map_err(|error| Error::codec(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::codec(format!("{} bytes follow the event", rest.len())));
    }
    if let Some(seconds) = form.duration_seconds {
        check_duration(seconds)?;
    }
    let origin = form.origin.map(|(store, seq)| Origin { store: StoreId(store), seq });
    check_origin(origin)?;
    let created_at = Timestamp::from_micros(form.created_at)
        .ok_or_else(|| Error::codec("the time is outside the years 0001 to 9999"))?;
    Ok(SyncEvent {
        company: Company::new(form.company_guid, form.company_alterid, form.company_name),
        level: match form.level {
            LevelV1::Info => Level::Info,
            LevelV1::Warning => Level::Warning,
            LevelV1::Error => Level::Error,
            LevelV1::Success => Level::Success,
        },
        message: form.message.into(),
        details: form.details.map(Into::into),
        status: form.status.map(|status| match status {
            StatusV1::Started => Status::Started,
            StatusV1::InProgress => Status::InProgress,
            StatusV1::Completed => Status::Completed,
            StatusV1::Failed => Status::Failed,
        }),
        records_synced: form.records_synced,
        error_code: form.error_code.map(Into::into),
        error_message: form.error_message.map(Into::into),
        duration_seconds: form.duration_seconds,
        created_at: Some(created_at),
        run: form.run.map(Into::into),
        legacy_id: form.legacy_id,
        origin,
    })
}
