//! Between an event and the payload of its frame: the idempotency key in front, size limits.
//!
//! A payload with a key (flag 2 in the frame) starts with the key's length as `u16`, little-endian,
//! and the key; the event's own encoding follows.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::log::frame::{FLAG_KEY, Header};
use crate::log::writer::NewEvent;
use crate::projection::row::{FrameHeader, Row};

/// The longest idempotency key in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// What a frame holds.
pub(crate) enum Decoded<E> {
    Event {
        event: E,
        key: Option<String>,
    },
    /// Kept, not projected, and reported: why this program cannot read it.
    Unknown(String),
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

/// The frame contents for an event that [`Event::prepare`] has passed.
pub(crate) fn encode<E: Event>(event: &E, key: Option<&str>, max_event_bytes: u64) -> Result<NewEvent> {
    let own = event.encode(E::VERSION)?;
    if own.len() as u64 > max_event_bytes {
        return Err(Error::TooLarge { what: "the event", bytes: own.len() as u64, limit: max_event_bytes });
    }
    Ok(NewEvent {
        event_kind: E::KIND,
        version: E::VERSION,
        keyed: key.is_some(),
        payload: with_key(key, own),
    })
}

fn with_key(key: Option<&str>, own: Vec<u8>) -> Vec<u8> {
    let Some(key) = key else { return own };
    let mut payload = Vec::with_capacity(2 + key.len() + own.len());
    payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
    payload.extend_from_slice(key.as_bytes());
    payload.extend_from_slice(&own);
    payload
}

fn split_key<'p>(header: &Header, payload: &'p [u8]) -> Option<(Option<String>, &'p [u8])> {
    if header.flags & FLAG_KEY == 0 {
        return Some((None, payload));
    }
    let (len, rest) = payload.split_first_chunk::<2>()?;
    let (key, own) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((Some(std::str::from_utf8(key).ok()?.to_owned()), own))
}

/// The event in a frame whose checksums fit.
pub(crate) fn decode<E: Event>(header: &Header, payload: &[u8]) -> Decoded<E> {
    if header.event_kind != E::KIND {
        return Decoded::Unknown(format!(
            "its kind is {}, this store's events are of kind {}",
            header.event_kind,
            E::KIND
        ));
    }
    if header.version > E::VERSION {
        return Decoded::Unknown(format!(
            "its version is {}, this program knows up to {}",
            header.version,
            E::VERSION
        ));
    }
    let Some((key, own)) = split_key(header, payload) else {
        return Decoded::Unknown("its idempotency key cannot be read".into());
    };
    match E::decode(header.version, own) {
        Ok(event) => Decoded::Event { event, key },
        Err(error) => Decoded::Unknown(error.to_string()),
    }
}

/// The row of an event.
pub(crate) fn row_of<E: Event>(seq: u64, event: &E, key: Option<String>, frame: FrameHeader) -> Row {
    Row { seq, values: event.to_row(), key, frame }
}

/// The payload that the frame of an event had, from what its row holds.
pub(crate) fn payload_again<E: Event>(event: &E, key: Option<&str>, version: u16) -> Result<Vec<u8>> {
    Ok(with_key(key, event.encode(version)?))
}
