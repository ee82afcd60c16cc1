//! One frame: pure bytes, no I/O. The format is told in [`super`]; this module is its only
//! encoder and its only decoder, used by append, recovery, verify, tail and fuzzing alike.

use crc32fast::Hasher;

use crate::store_id::StoreId;

/// Bytes of a frame's header.
pub(crate) const HEADER_LEN: usize = 48;
/// Frames start and end at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// The largest payload: a 16 MiB event and its idempotency key.
pub(crate) const MAX_PAYLOAD: u32 = 16 * 1024 * 1024 + 1024;
/// The largest seq. SQLite's row ids go up to 2^63 - 1; this leaves room to count on.
pub(crate) const MAX_SEQ: u64 = 1 << 62;
/// Bytes of a whole mark.
pub(crate) const MARK_LEN: u64 = frame_len(0);

const FIRST_BYTE: u8 = 0xF1;
const LAST_HEADER_BYTE: u8 = 0x1F;
const LAST_FRAME_BYTE: u8 = 0x5A;
/// Where a header has the time of its append.
pub(crate) const APPENDED_AT: usize = 16;
/// Where a header has its own checksum.
pub(crate) const HEADER_SUM_AT: usize = 40;

/// Set in `flags` of every event of a batch but the last.
pub(crate) const FLAG_MORE: u8 = 1;
/// Set in `flags` where the payload starts with an idempotency key.
pub(crate) const FLAG_KEY: u8 = 2;
const KNOWN_FLAGS: u8 = FLAG_MORE | FLAG_KEY;

/// Bytes of the body (payload, padding, last byte) of a frame with `payload_len` bytes of payload.
pub(crate) const fn body_len(payload_len: u32) -> u64 {
    (payload_len as u64 + 1).next_multiple_of(ALIGN)
}

/// Bytes of the whole frame with `payload_len` bytes of payload.
pub(crate) const fn frame_len(payload_len: u32) -> u64 {
    HEADER_LEN as u64 + body_len(payload_len)
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Carries one event.
    Event,
    /// Carries nothing; proves what is before it.
    Mark,
    /// Carries a deletion record.
    Deletion,
    /// Stands where events were lost that somebody has given up. Everything it says is in its header.
    Gap,
}

impl FrameKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Mark => 2,
            Self::Deletion => 3,
            Self::Gap => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Event),
            2 => Some(Self::Mark),
            3 => Some(Self::Deletion),
            4 => Some(Self::Gap),
            _ => None,
        }
    }
}

/// What a gap says: events that were lost, and where the chain goes on behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// How many seqs were given up, from the frame's own on. 0 where no event was lost.
    pub(crate) events: u32,
    /// When, in seconds since 1970.
    pub(crate) accepted_at: u32,
    /// What the next frame names as the header checksum of the frame before it.
    pub(crate) goes_on: u32,
}

/// The header of a frame, without its magic bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    /// The event type, 0 for marks and deletion records. A gap has half of a checksum here.
    pub(crate) event_kind: u16,
    /// The version of the payload's encoding, 0 for marks. A gap has half of a checksum here.
    pub(crate) version: u16,
    pub(crate) flags: u8,
    /// The event's seq; for other kinds the seq that the next event would have.
    pub(crate) seq: u64,
    /// When it was appended, microseconds since 1970; 0 for marks. A gap has two numbers here.
    pub(crate) appended_at: i64,
    pub(crate) payload_len: u32,
    /// Up to here this handle had proved the log durable when it built the header.
    pub(crate) durable_end: u32,
    /// The header checksum of the frame before.
    pub(crate) previous: u32,
    /// The checksum of the body.
    pub(crate) body_sum: u32,
    /// The checksum of this header.
    pub(crate) sum: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        frame_len(self.payload_len)
    }

    /// What a gap says; `None` for other kinds.
    pub(crate) fn gap(&self) -> Option<Gap> {
        (self.kind == FrameKind::Gap).then(|| Gap {
            events: self.appended_at as u32,
            accepted_at: (self.appended_at as u64 >> 32) as u32,
            goes_on: u32::from(self.event_kind) | u32::from(self.version) << 16,
        })
    }

    /// The seq that the next event has.
    pub(crate) fn next_seq(&self) -> u64 {
        match self.gap() {
            Some(gap) => self.seq + u64::from(gap.events),
            None => self.seq + u64::from(self.kind == FrameKind::Event),
        }
    }

    /// What the next frame must name as the header checksum of the frame before it.
    pub(crate) fn link(&self) -> u32 {
        self.gap().map_or(self.sum, |gap| gap.goes_on)
    }

    /// Whether a further event of the same batch must follow.
    pub(crate) fn more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }
}

/// Why bytes are no valid header, by the numbered conditions of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// All 48 bytes are zero: nothing was written here, or it was taken away.
    Zero,
    /// Condition 1: the segment ends before a frame could.
    NoRoom,
    /// Condition 2: first byte, last byte or a reserved byte.
    Magic,
    /// Condition 3: the checksum.
    Checksum,
    /// Condition 4: kind, flags, or the fields that the kind fixes.
    Fields,
    /// Condition 5: the length.
    Length,
    /// Condition 6: `durable_end`.
    DurableEnd,
}

#[cfg(test)]
thread_local! {
    /// Bytes of bodies that this thread has made checksums of.
    pub(crate) static SUMMED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// What all checksums of one segment start from, so that bytes copied from anywhere else never fit.
#[derive(Clone)]
pub(crate) struct Seed {
    base: Hasher,
}

impl Seed {
    pub(crate) fn new(store: StoreId, segment: u64) -> Self {
        let mut base = Hasher::new();
        base.update(&store.0);
        base.update(&segment.to_le_bytes());
        Self { base }
    }

    fn header_sum(&self, offset: u64, raw: &[u8]) -> u32 {
        // In one piece: for so few bytes the calls are what takes the time.
        let mut bytes = [0; 8 + HEADER_LEN - 4];
        bytes[..8].copy_from_slice(&offset.to_le_bytes());
        bytes[8..8 + HEADER_SUM_AT].copy_from_slice(&raw[..HEADER_SUM_AT]);
        bytes[8 + HEADER_SUM_AT..].copy_from_slice(&raw[HEADER_SUM_AT + 4..HEADER_LEN]);
        let mut hasher = self.base.clone();
        hasher.update(&bytes);
        hasher.finalize()
    }

    /// The checksum of the body of the frame at `offset`.
    pub(crate) fn body_sum(&self, offset: u64, body: &[u8]) -> u32 {
        #[cfg(test)]
        SUMMED.set(SUMMED.get() + body.len() as u64);
        let mut hasher = self.base.clone();
        hasher.update(&(offset + HEADER_LEN as u64).to_le_bytes());
        hasher.update(body);
        hasher.finalize()
    }
}

/// What the writer of a frame decides; the rest follows from place and chain.
#[derive(Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) event_kind: u16,
    pub(crate) version: u16,
    pub(crate) flags: u8,
    pub(crate) seq: u64,
    pub(crate) appended_at: i64,
    pub(crate) durable_end: u32,
    pub(crate) previous: u32,
    pub(crate) payload: &'a [u8],
}

impl Draft<'_> {
    /// The mark for this place: everything in it follows from offset, seq and chain, so that a
    /// damaged mark can be built again.
    pub(crate) fn mark(offset: u64, seq: u64, previous: u32) -> Self {
        Self {
            kind: FrameKind::Mark,
            event_kind: 0,
            version: 0,
            flags: 0,
            seq,
            appended_at: 0,
            durable_end: offset as u32,
            previous,
            payload: &[],
        }
    }

    /// A gap at the place where event `seq` was. `filler` are as many zeros as make it fill the place.
    pub(crate) fn gap(seq: u64, gap: Gap, durable_end: u64, previous: u32, filler: &[u8]) -> Draft<'_> {
        Draft {
            kind: FrameKind::Gap,
            event_kind: gap.goes_on as u16,
            version: (gap.goes_on >> 16) as u16,
            flags: 0,
            seq,
            appended_at: (u64::from(gap.accepted_at) << 32 | u64::from(gap.events)) as i64,
            durable_end: durable_end as u32,
            previous,
            payload: filler,
        }
    }
}

/// Appends the frame for `offset` to `out` and returns its header checksum.
///
/// The caller has checked lengths; a frame that is built here passes [`decode_header`].
pub(crate) fn encode(seed: &Seed, offset: u64, draft: &Draft<'_>, out: &mut Vec<u8>) -> u32 {
    assert!(draft.payload.len() <= MAX_PAYLOAD as usize && offset.is_multiple_of(ALIGN));
    let payload_len = draft.payload.len() as u32;
    let start = out.len();
    out.extend_from_slice(&[FIRST_BYTE, draft.kind.to_byte()]);
    out.extend_from_slice(&draft.event_kind.to_le_bytes());
    out.extend_from_slice(&draft.version.to_le_bytes());
    out.extend_from_slice(&[draft.flags, 0]);
    out.extend_from_slice(&draft.seq.to_le_bytes());
    out.extend_from_slice(&draft.appended_at.to_le_bytes());
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(&draft.durable_end.to_le_bytes());
    out.extend_from_slice(&draft.previous.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    out[start + HEADER_LEN - 1] = LAST_HEADER_BYTE;
    out.extend_from_slice(draft.payload);
    out.resize(start + frame_len(payload_len) as usize, 0);
    if let Some(last) = out.last_mut() {
        *last = LAST_FRAME_BYTE;
    }
    let body_sum = seed.body_sum(offset, &out[start + HEADER_LEN..]);
    out[start + 36..start + 40].copy_from_slice(&body_sum.to_le_bytes());
    let sum = seed.header_sum(offset, &out[start..start + HEADER_LEN]);
    out[start + HEADER_SUM_AT..start + HEADER_SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    sum
}

fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from(u32_at(raw, at)) | u64::from(u32_at(raw, at + 4)) << 32
}

/// Cheap test that sorts out nearly every offset that holds no header.
pub(crate) fn may_be_header(raw: &[u8]) -> bool {
    raw.len() >= HEADER_LEN && raw[0] == FIRST_BYTE && raw[HEADER_LEN - 1] == LAST_HEADER_BYTE
}

/// Reads the header in the first 48 bytes of `raw`, which lie at `offset` in a segment of
/// `segment_size` bytes whose frames start at `first_offset`. Checks conditions 1 to 6.
pub(crate) fn decode_header(
    seed: &Seed,
    offset: u64,
    raw: &[u8],
    first_offset: u64,
    segment_size: u64,
) -> Result<Header, HeaderFault> {
    if raw.len() < HEADER_LEN || !offset.is_multiple_of(ALIGN) || offset < first_offset {
        return Err(HeaderFault::NoRoom);
    }
    let raw = &raw[..HEADER_LEN];
    if raw[0] == 0 && raw.iter().all(|byte| *byte == 0) {
        return Err(HeaderFault::Zero);
    }
    if !may_be_header(raw) || raw[7] != 0 || raw[44..47] != [0; 3] {
        return Err(HeaderFault::Magic);
    }
    let sum = u32_at(raw, HEADER_SUM_AT);
    if seed.header_sum(offset, raw) != sum {
        return Err(HeaderFault::Checksum);
    }
    let header = Header {
        kind: FrameKind::from_byte(raw[1]).ok_or(HeaderFault::Fields)?,
        event_kind: u16_at(raw, 2),
        version: u16_at(raw, 4),
        flags: raw[6],
        seq: u64_at(raw, 8),
        appended_at: u64_at(raw, APPENDED_AT) as i64,
        payload_len: u32_at(raw, 24),
        durable_end: u32_at(raw, 28),
        previous: u32_at(raw, 32),
        body_sum: u32_at(raw, 36),
        sum,
    };
    let fields_fit = match header.kind {
        FrameKind::Event => header.event_kind != 0 && header.flags & !KNOWN_FLAGS == 0,
        FrameKind::Deletion => header.event_kind == 0 && header.flags == 0,
        FrameKind::Gap => header.flags == 0 && header.seq <= MAX_SEQ && header.next_seq() <= MAX_SEQ,
        FrameKind::Mark => {
            header.event_kind == 0
                && header.version == 0
                && header.flags == 0
                && header.appended_at == 0
                && header.payload_len == 0
                && u64::from(header.durable_end) == offset
        }
    };
    if !fields_fit || header.seq == 0 || header.seq > MAX_SEQ {
        return Err(HeaderFault::Fields);
    }
    if header.payload_len > MAX_PAYLOAD || offset + header.frame_len() > segment_size {
        return Err(HeaderFault::Length);
    }
    let durable_end = u64::from(header.durable_end);
    if durable_end < first_offset || durable_end > offset || !durable_end.is_multiple_of(ALIGN) {
        return Err(HeaderFault::DurableEnd);
    }
    Ok(header)
}

/// The body that belongs to a payload: padded with zeros, ended by the last byte.
pub(crate) fn body_of(payload: &[u8]) -> Vec<u8> {
    let mut body = payload.to_vec();
    body.resize(body_len(payload.len() as u32) as usize, 0);
    if let Some(last) = body.last_mut() {
        *last = LAST_FRAME_BYTE;
    }
    body
}

/// Whether a body is what erasure leaves: a payload of zeros, padded and ended as any other.
pub(crate) fn is_erased_body(payload_len: u32, body: &[u8]) -> bool {
    let ended = body
        .split_last()
        .is_some_and(|(last, rest)| *last == LAST_FRAME_BYTE && rest.iter().all(|byte| *byte == 0));
    payload_len > 0 && ended
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
