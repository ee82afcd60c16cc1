//! Between an event and the payload of its frame: salt and idempotency key in front, size limits.
//!
//! The payload of an event starts with 8 bytes of salt. Where flag 2 is set in the frame, the key's
//! length as `u16`, little-endian, and the key come next; the event's own encoding follows. Erasure
//! takes the salt away with the payload, so that the checksum that stays in the header cannot be used
//! to find out what was erased.

use std::hash::{BuildHasher, RandomState};

use crate::application;
use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::faithful;
use crate::finding::{Finding, FindingKind};
use crate::log::frame::{APPENDED_AT, FLAG_KEY, HEADER_LEN, Header};
use crate::log::writer::NewEvent;
use crate::projection;
use crate::projection::row::{FrameKeep, Row};
use crate::time::Timestamp;

/// Bytes of salt in front of every event's payload.
pub(crate) const SALT_LEN: usize = 8;

/// The longest idempotency key in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// What a frame holds.
pub(crate) enum Decoded<E> {
    Event {
        event: E,
        key: Option<String>,
    },
    /// Kept, not projected, and reported.
    Unread(Unread),
}

/// An event that this program cannot read.
pub(crate) struct Unread {
    pub(crate) reason: String,
    /// It is of a kind and version that this program knows.
    pub(crate) known: bool,
    /// Its idempotency key, which stands before what cannot be read.
    pub(crate) key: Option<String>,
}

impl Unread {
    fn unreadable(error: &Error, key: Option<String>) -> Self {
        Self { reason: error.to_string(), known: true, key }
    }

    /// Why it has no row, in the table of absent ones.
    pub(crate) fn word(&self) -> &'static str {
        if self.known { projection::UNREADABLE } else { projection::UNKNOWN }
    }

    /// Told with the seq of the event.
    pub(crate) fn finding(&self, seq: u64) -> Finding {
        let kind = if self.known { FindingKind::UnreadableEvent } else { FindingKind::UnknownEvent };
        let what = format!("kept in the log and not projected: {}", self.reason);
        Finding::new(kind, what).seq(seq)
    }
}

pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("key", "is empty"));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::TooLarge {
            what: "the idempotency key",
            bytes: key.len() as u64,
            limit: MAX_KEY_BYTES as u64,
        });
    }
    Ok(())
}

/// Gives out salt: a keyed hash of a counter, under a key from the system's random numbers.
#[derive(Default)]
pub(crate) struct Salter {
    key: RandomState,
    count: std::sync::atomic::AtomicU64,
}

impl Salter {
    fn next(&self) -> [u8; SALT_LEN] {
        let count = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.key.hash_one(count).to_le_bytes()
    }
}

/// The frame contents for an event that [`Event::prepare`] has passed. An event that would not come back is
/// refused.
pub(crate) fn encode<E: Event>(
    event: &E,
    key: Option<&str>,
    max_event_bytes: u64,
    salter: &Salter,
) -> Result<NewEvent> {
    let own = application::encode(event, E::VERSION)?;
    if own.len() as u64 > max_event_bytes {
        return Err(Error::TooLarge { what: "the event", bytes: own.len() as u64, limit: max_event_bytes });
    }
    faithful::check(event, &own)?;
    let payload = join(salter.next(), key, &own);
    Ok(NewEvent { event_kind: E::KIND, version: E::VERSION, keyed: key.is_some(), payload })
}

fn join(salt: [u8; SALT_LEN], key: Option<&str>, own: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(SALT_LEN + 2 + key.map_or(0, str::len) + own.len());
    payload.extend_from_slice(&salt);
    if let Some(key) = key {
        payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
        payload.extend_from_slice(key.as_bytes());
    }
    payload.extend_from_slice(own);
    payload
}

fn split<'p>(header: &Header, payload: &'p [u8]) -> Option<(Option<String>, &'p [u8])> {
    let (_, rest) = payload.split_first_chunk::<SALT_LEN>()?;
    if header.flags & FLAG_KEY == 0 {
        return Some((None, rest));
    }
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (key, own) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    // A key that is no text is none that this program wrote.
    Some((Some(std::str::from_utf8(key).ok()?.to_owned()), own))
}

/// Which events this program knows.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    kind: u16,
    version: u16,
}

impl Known {
    pub(crate) fn of<E: Event>() -> Self {
        Self { kind: E::KIND, version: E::VERSION }
    }

    /// Why this program cannot know what a frame holds, by its header alone; `None` where it may.
    pub(crate) fn lacks(self, header: &Header) -> Option<String> {
        let Self { kind, version } = self;
        if header.event_kind != kind {
            return Some(format!(
                "its kind is {}, this store's events are of kind {kind}",
                header.event_kind
            ));
        }
        (header.version > version)
            .then(|| format!("its version is {}, this program knows up to {version}", header.version))
    }
}

/// The event in a frame whose checksums fit.
pub(crate) fn decode<E: Event>(header: &Header, payload: &[u8]) -> Decoded<E> {
    if let Some(reason) = Known::of::<E>().lacks(header) {
        let key = split(header, payload).and_then(|(key, _)| key);
        return Decoded::Unread(Unread { reason, known: false, key });
    }
    let Some((key, own)) = split(header, payload) else {
        let error = Error::codec("its salt or idempotency key cannot be read");
        return Decoded::Unread(Unread::unreadable(&error, None));
    };
    match application::decode(header.version, own) {
        Ok(event) => Decoded::Event { event, key },
        Err(error) => Decoded::Unread(Unread::unreadable(&error.of_event(header.seq), key)),
    }
}

/// The row of the event in a frame whose checksums fit.
pub(crate) fn row<E: Event>(
    header: &Header,
    raw: &[u8; HEADER_LEN],
    payload: &[u8],
) -> std::result::Result<Row, Unread> {
    match decode::<E>(header, payload) {
        Decoded::Event { event, key } => {
            let values = application::to_row(&event)
                .and_then(|values| faithful::fits(&E::TABLE, &values).map(|()| values));
            application::discard(event);
            match values {
                Ok(values) => Ok(Row { seq: header.seq, values, key, frame: keep(raw, payload) }),
                Err(error) => Err(Unread::unreadable(&error.of_event(header.seq), key)),
            }
        }
        Decoded::Unread(unread) => Err(unread),
    }
}

/// What a row keeps of its event's frame: `raw` is the frame's header, `payload` its whole payload.
fn keep(raw: &[u8; HEADER_LEN], payload: &[u8]) -> FrameKeep {
    let mut frame: FrameKeep = [0; HEADER_LEN + SALT_LEN];
    frame[..HEADER_LEN].copy_from_slice(raw);
    // An event that was decoded has its salt.
    let salt = &payload[..SALT_LEN.min(payload.len())];
    frame[HEADER_LEN..HEADER_LEN + salt.len()].copy_from_slice(salt);
    frame
}

/// When the event of a row was appended, where the row still tells.
pub(crate) fn appended_at(frame: &Value) -> Option<Timestamp> {
    let Value::Blob(kept) = frame else { return None };
    let micros: [u8; 8] = kept.get(APPENDED_AT..APPENDED_AT + 8)?.try_into().ok()?;
    Timestamp::from_micros(i64::from_le_bytes(micros))
}

/// The header and the payload that the frame of an event had, from what its row keeps.
pub(crate) fn frame_again<E: Event>(
    event: &E,
    key: Option<&str>,
    frame: &[u8],
) -> Result<(Vec<u8>, Vec<u8>)> {
    let kept: &FrameKeep = frame.try_into().map_err(|_| Error::codec("its frame was not kept"))?;
    let (header, salt) = kept.split_at(HEADER_LEN);
    let version = u16::from_le_bytes([header[4], header[5]]);
    let mut own_salt = [0; SALT_LEN];
    own_salt.copy_from_slice(salt);
    Ok((header.to_vec(), join(own_salt, key, &application::encode(event, version)?)))
}
