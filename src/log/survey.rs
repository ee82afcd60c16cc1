//! The walk through one segment: which frames are valid, where they end, and the evidence there.

use crate::error::Result;

use super::frame::{
    ALIGN, FrameKind, HEADER_LEN, Header, HeaderFault, decode_header, is_erased_body, may_be_header,
};
use super::recovery::Evidence;
use super::segment::{FIRST_FRAME, SegmentHeader, SegmentReader};

/// No group is longer: the largest batch and its mark.
pub(crate) const MAX_GROUP: u64 = 34 * 1024 * 1024;
/// Disks write whole sectors of at least this many bytes.
const SECTOR: u64 = 512;
/// How far apart waypoints are; closer in tests, whose segments are small.
const WAY: u64 = if cfg!(any(test, fuzzing)) { 1024 } else { 64 * 1024 };

/// Where a walk stands: the next frame's place, and what it must say to be in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) offset: u64,
    /// The seq of the next event.
    pub(crate) seq: u64,
    /// The header checksum of the frame before.
    pub(crate) previous: u32,
    /// The frame before said that its batch goes on.
    pub(crate) in_batch: bool,
}

impl Chain {
    /// The start of a segment.
    pub(crate) fn start_of(header: &SegmentHeader) -> Self {
        Self { offset: FIRST_FRAME, seq: header.first_seq, previous: header.previous, in_batch: false }
    }

    /// Where the walk stands behind a frame.
    #[inline]
    pub(crate) fn after(offset: u64, header: &Header) -> Self {
        Self {
            offset: offset + header.frame_len(),
            seq: header.next_seq(),
            previous: header.link(),
            in_batch: header.more(),
        }
    }

    /// Whether a segment ends here, by what the next one says.
    pub(crate) fn arrives_at(&self, later: &SegmentHeader) -> bool {
        (self.seq, self.previous) == (later.first_seq, later.previous) && !self.in_batch
    }
}

/// A valid frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    /// The payload was erased: it is all zeros. Lawful only in a sealed segment and under a recorded
    /// deletion, which whoever reads on must check.
    pub(crate) erased: bool,
}

/// Why no valid frame follows, by the numbered conditions of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Conditions 1 to 6: no valid header.
    Header(HeaderFault),
    /// Condition 7: the header does not name the header before it.
    OutOfChain(Header),
    /// Condition 8: not the next seq, or something else than an event inside a batch.
    OutOfOrder(Header),
    /// Condition 9: the body's checksum.
    Body(Header),
}

impl Fault {
    /// In words.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Header(HeaderFault::Zero) => "nothing was written here",
            Self::Header(HeaderFault::NoRoom) => "the segment is full",
            Self::Header(HeaderFault::Magic) => "no frame starts here (condition 2)",
            Self::Header(HeaderFault::Checksum) => "the header's checksum does not fit (condition 3)",
            Self::Header(HeaderFault::Fields) => "the header's fields do not fit its kind (condition 4)",
            Self::Header(HeaderFault::Length) => "the frame would pass the segment's end (condition 5)",
            Self::Header(HeaderFault::DurableEnd) => "durable_end lies outside the log (condition 6)",
            Self::OutOfChain(_) => "the frame follows on another one than the one before it (condition 7)",
            Self::OutOfOrder(_) => "the frame has not the next seq (condition 8)",
            Self::Body(_) => "the payload's checksum does not fit (condition 9)",
        }
    }
}

/// The valid frame at `chain`, or why there is none. The one decoder of frames in files; the
/// payload is left in the reader's window.
pub(crate) fn frame_at(
    reader: &mut SegmentReader,
    chain: &Chain,
) -> Result<std::result::Result<Frame, Fault>> {
    let header = match header_at(reader, chain.offset)? {
        Ok(header) => header,
        Err(fault) => return Ok(Err(Fault::Header(fault))),
    };
    if header.previous != chain.previous {
        return Ok(Err(Fault::OutOfChain(header)));
    }
    let may_be_inside_batch = matches!(header.kind, FrameKind::Event | FrameKind::Gap);
    if header.seq != chain.seq || (chain.in_batch && !may_be_inside_batch) {
        return Ok(Err(Fault::OutOfOrder(header)));
    }
    let seed = reader.seed.clone();
    let body = body_at(reader, chain.offset, &header)?;
    let erased = if seed.body_sum(chain.offset, body) == header.body_sum {
        false
    } else if header.kind == FrameKind::Event && is_erased_body(header.payload_len, body) {
        true
    } else {
        return Ok(Err(Fault::Body(header)));
    };
    Ok(Ok(Frame { offset: chain.offset, header, erased }))
}

/// The valid header at `offset`, whatever became of its body.
#[inline]
pub(crate) fn header_at(
    reader: &mut SegmentReader,
    offset: u64,
) -> Result<std::result::Result<Header, HeaderFault>> {
    let (seed, size) = (reader.seed.clone(), reader.header.size);
    let raw = reader.bytes(offset, HEADER_LEN)?;
    Ok(decode_header(&seed, offset, raw, FIRST_FRAME, size))
}

/// The body of a frame whose header is valid.
#[inline]
pub(crate) fn body_at<'r>(reader: &'r mut SegmentReader, offset: u64, header: &Header) -> Result<&'r [u8]> {
    reader.bytes(offset + HEADER_LEN as u64, (header.frame_len() as usize) - HEADER_LEN)
}

/// An event that somebody outside the log has seen there: its seq and the checksum of the header that
/// tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) seq: u64,
    pub(crate) sum: u32,
}

impl Witness {
    /// What a frame makes a witness of: an event of itself, a gap of the last event given up.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        let last = header.next_seq() - 1;
        (last >= header.seq).then_some(Self { seq: last, sum: header.sum })
    }
}

/// How a witness's event was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// It lies before this segment, or was given up as lost, or there is no witness.
    Elsewhere,
    /// It is here, and ends at this place.
    Here(Chain),
    /// Its seq is here with another checksum: the witness speaks of another history.
    Differs,
    /// It would lie beyond the end of the valid frames.
    Beyond,
}

/// Where the valid frames end that follow on a place, erased ones not counted.
pub(super) fn walk(reader: &mut SegmentReader, mut chain: Chain) -> Result<Chain> {
    while let Ok(frame) = frame_at(reader, &chain)?
        && !frame.erased
    {
        chain = Chain::after(frame.offset, &frame.header);
    }
    Ok(chain)
}

/// What the walk through one segment found.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// X: behind the last valid frame.
    pub(crate) end: Chain,
    /// Why no valid frame follows at X.
    pub(crate) fault: Fault,
    /// The start of a batch that has no end before X.
    pub(crate) open_batch: Option<Chain>,
    /// Up to here some valid header proves the segment durable, and the next seq there.
    pub(crate) proved_end: u64,
    pub(crate) proved_seq: u64,
    /// Whether any valid frame was found, and whether the last one is a mark.
    pub(crate) has_frames: bool,
    pub(crate) ends_in_mark: bool,
    /// Behind the last byte that is not zero; X where all is zero.
    pub(crate) stray_end: u64,
    /// The last valid header behind X.
    pub(crate) beyond: Option<(u64, Header)>,
    pub(crate) sighting: Sighting,
    /// The last event among the valid frames, or the gap behind it.
    pub(crate) last_event: Option<Witness>,
    /// Places before X where a walk may start without what lies before them.
    pub(crate) waypoints: Vec<Chain>,
    pub(crate) evidence: Evidence,
}

/// Walks through a segment from its start, then looks through the rest for whatever is evidence.
/// `later` is the header of the next segment, if there is one.
pub(crate) fn survey(
    reader: &mut SegmentReader,
    witness: Option<Witness>,
    later: Option<&SegmentHeader>,
) -> Result<Survey> {
    let start = Chain::start_of(&reader.header);
    survey_from(reader, start, witness, later)
}

/// The same from a place where a frame starts.
pub(crate) fn survey_from(
    reader: &mut SegmentReader,
    start: Chain,
    witness: Option<Witness>,
    later: Option<&SegmentHeader>,
) -> Result<Survey> {
    let (mut end, mut open_batch) = (start, None);
    let (mut proved_end, mut proved_seq) = (FIRST_FRAME, start.seq);
    let mut ends_in_mark = false;
    let (mut sighting, mut last_event) = (Sighting::Elsewhere, None);
    let (mut waypoints, mut next_waypoint) = (Vec::new(), start.offset + WAY);
    let mut deletions = false;
    let fault = loop {
        let frame = match frame_at(reader, &end)? {
            Ok(frame) if !frame.erased => frame,
            Ok(frame) => break Fault::Body(frame.header),
            Err(fault) => break fault,
        };
        let header = frame.header;
        if u64::from(header.durable_end) > proved_end {
            // Between durable_end and the first header that carries it there are only marks.
            (proved_end, proved_seq) = (u64::from(header.durable_end), header.seq);
        }
        open_batch = header.more().then(|| open_batch.unwrap_or(end));
        end = Chain::after(frame.offset, &header);
        ends_in_mark = header.kind == FrameKind::Mark;
        deletions |= header.kind == FrameKind::Deletion;
        // A deletion record is ahead of nobody by its seq: whoever starts behind it would never meet it (P8).
        if end.offset >= next_waypoint && !deletions {
            waypoints.push(end);
            next_waypoint = end.offset + WAY;
        }
        let Some(own) = Witness::of(&header) else { continue };
        last_event = Some(own);
        if let Some(witness) = witness.filter(|witness| witness.seq == own.seq) {
            sighting = match header.kind {
                _ if witness.sum == own.sum => Sighting::Here(end),
                // It speaks of the event that was lost here.
                FrameKind::Gap => Sighting::Elsewhere,
                _ => Sighting::Differs,
            };
        }
    };
    // An unfinished batch is about to go: what a witness has seen of it elsewhere lies beyond as well.
    let next_seq = open_batch.filter(|_| sighting == Sighting::Differs).map_or(end.seq, |batch| batch.seq);
    if witness.is_some_and(|witness| witness.seq >= next_seq) {
        sighting = Sighting::Beyond;
    }

    let rest = look_beyond(reader, end.offset)?;
    if rest.proved_end > proved_end {
        // Of a torn group a later header may be the first that is left: its seq is not the one there.
        let seq = if rest.proved_end <= end.offset { end.seq } else { rest.proved_seq };
        (proved_end, proved_seq) = (rest.proved_end, seq);
    }
    let extent_end = match fault {
        Fault::Header(_) => end.offset + HEADER_LEN as u64,
        Fault::OutOfChain(header) | Fault::OutOfOrder(header) | Fault::Body(header) => {
            end.offset + header.frame_len()
        }
    };
    let goes_on = later.map(|later| end.arrives_at(later));
    // A batch lies in one group: what proves a part of it proves the whole.
    let batch_proved = open_batch.is_some_and(|batch: Chain| {
        proved_end > batch.offset
            || (matches!(sighting, Sighting::Here(_))
                && witness.is_some_and(|witness| witness.seq >= batch.seq))
    });
    let proof_beyond =
        batch_proved || proved_end > end.offset || goes_on == Some(false) || sighting == Sighting::Beyond;
    let evidence = Evidence {
        io_error: false,
        refused_segment: false,
        proof_beyond,
        rest_is_zero: rest.stray_end == end.offset,
        later_segment_goes_on: goes_on == Some(true),
        zero_piece: has_zero_piece(reader, end.offset, extent_end)?,
        within_one_group: rest.stray_end - end.offset <= MAX_GROUP,
        zero_at_end: matches!(fault, Fault::Header(HeaderFault::Zero)),
    };
    Ok(Survey {
        end,
        fault,
        open_batch,
        proved_end,
        proved_seq,
        has_frames: end.offset > FIRST_FRAME,
        ends_in_mark,
        stray_end: rest.stray_end,
        beyond: rest.last,
        sighting,
        last_event,
        waypoints,
        evidence,
    })
}

struct Rest {
    stray_end: u64,
    proved_end: u64,
    proved_seq: u64,
    last: Option<(u64, Header)>,
}

/// Looks from `from` to the segment's end for bytes that are not zero and for valid headers.
fn look_beyond(reader: &mut SegmentReader, from: u64) -> Result<Rest> {
    const STEP: u64 = 128 * 1024;
    let (seed, size) = (reader.seed.clone(), reader.header.size);
    let mut rest = Rest { stray_end: from, proved_end: 0, proved_seq: 0, last: None };
    let mut offset = from;
    while offset < size {
        let raw = reader.bytes(offset, STEP as usize + HEADER_LEN)?;
        let own = &raw[..raw.len().min(STEP as usize)];
        if let Some(last) = last_set(own) {
            rest.stray_end = offset + last as u64 + 1;
            for at in (0..own.len()).step_by(ALIGN as usize) {
                if !may_be_header(&raw[at..]) {
                    continue;
                }
                let place = offset + at as u64;
                if let Ok(header) = decode_header(&seed, place, &raw[at..], FIRST_FRAME, size) {
                    if u64::from(header.durable_end) > rest.proved_end {
                        (rest.proved_end, rest.proved_seq) = (u64::from(header.durable_end), header.seq);
                    }
                    rest.last = Some((place, header));
                }
            }
        }
        offset += STEP;
    }
    Ok(rest)
}

/// Bytes that are looked at together: nearly all of what follows a log's end are zeros.
const BLOCK: usize = 512;

fn is_zero(bytes: &[u8]) -> bool {
    // Not `all`, which stops at the first other byte and so looks at one at a time.
    bytes.iter().fold(0, |seen, byte| seen | byte) == 0
}

/// Where the first byte is that is not zero.
pub(super) fn first_set(bytes: &[u8]) -> Option<usize> {
    let zeros = BLOCK * bytes.chunks(BLOCK).take_while(|block| is_zero(block)).count();
    Some(zeros + bytes.get(zeros..)?.iter().position(|byte| *byte != 0)?)
}

/// Where the last byte is that is not zero.
fn last_set(bytes: &[u8]) -> Option<usize> {
    let zeros = BLOCK * bytes.rchunks(BLOCK).take_while(|block| is_zero(block)).count();
    bytes[..bytes.len().checked_sub(zeros)?].iter().rposition(|byte| *byte != 0)
}

/// Whether a piece of `start..end`, cut at sector boundaries, is all zero.
fn has_zero_piece(reader: &mut SegmentReader, start: u64, end: u64) -> Result<bool> {
    let bytes = reader.bytes(start, (end - start) as usize)?;
    Ok(zero_piece_in(bytes, start))
}

/// Whether a piece of `bytes`, which lie at `start` in their file, cut at sector boundaries, is all
/// zero. Written frames with such a piece need a synced mark before they are acknowledged.
pub(crate) fn zero_piece_in(mut bytes: &[u8], mut start: u64) -> bool {
    while !bytes.is_empty() {
        let len = ((SECTOR - start % SECTOR) as usize).min(bytes.len());
        let (piece, rest) = bytes.split_at(len);
        if piece.iter().all(|byte| *byte == 0) {
            return true;
        }
        bytes = rest;
        start += len as u64;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{first_set, last_set, zero_piece_in};

    #[test]
    fn the_first_and_the_last_byte_that_is_not_zero() {
        for len in [0, 1, 511, 512, 513, 1300] {
            assert_eq!((first_set(&vec![0; len]), last_set(&vec![0; len])), (None, None));
            for (one, other) in (0..len).map(|at| (at, (at * 7 + 3) % len)) {
                let mut bytes = vec![0; len];
                (bytes[one], bytes[other]) = (1, 0x80);
                assert_eq!(first_set(&bytes), Some(one.min(other)));
                assert_eq!(last_set(&bytes), Some(one.max(other)));
            }
        }
    }

    #[test]
    fn pieces_are_cut_at_sector_boundaries() {
        let mut bytes = vec![1; 48];
        bytes.resize(48 + 511, 0);
        bytes.push(1);
        assert!(!zero_piece_in(&bytes, 1024), "464 zeros, then 47 zeros and the last byte");
        bytes.insert(48, 0);
        bytes.resize(bytes.len() + 1100, 0);
        assert!(zero_piece_in(&bytes, 1024));
        assert!(!zero_piece_in(&[0, 0, 1], 511 + 1), "one piece with a byte");
        assert!(zero_piece_in(&[0, 1], 511), "the boundary cuts a zero off");
    }
}
