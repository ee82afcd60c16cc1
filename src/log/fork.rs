//! Two histories of one store: events that were durable, and that the log holds otherwise (P3, P4).
//!
//! A store that was copied and went on in both places has one past and two presents. Where a part of one
//! copy is then put into the other, its log and what stands beside it contradict each other: the same seq
//! under another checksum. Neither may silently take the other's place.
//!
//! Frames that are known from elsewhere prove the other history. A frame's header holds the checksum of
//! the header before it, and its own is seeded with its place: so a frame that sits on the last one that
//! both have in common, and those that sit on it, were written to this store and by nobody else.

use crate::error::Result;
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::cursor::{Cursor, Entry, Horizon, Segments};
use super::directory::LogDir;
use super::frame::{self, Draft, FrameKind, Header, MARK_LEN, Seed, body_of, decode_header};
use super::heal::{Donor, DonorFrame};
use super::segment::{FIRST_FRAME, SegmentHeader};
use super::survey::{Chain, Survey, Witness};

/// Where a history's next frame stands.
#[derive(Clone, Copy, Debug)]
struct Stand {
    segment: u64,
    chain: Chain,
}

/// A history that is not the log's.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    store: StoreId,
    /// Behind the last event that both have in common.
    stand: Stand,
    /// The header checksum of its first event.
    sum: u32,
    /// The last event that is proved, with those before it back to what is in common.
    pub(crate) last: u64,
    /// How many of its events are proved whole, payload and all.
    pub(crate) whole: u64,
    /// The newest event of the log.
    log_last: u64,
}

impl Fork {
    /// The first event of it, and the first that the log holds otherwise or not at all.
    pub(crate) fn first(&self) -> u64 {
        self.stand.chain.seq
    }

    /// An identity for it. Its events have the seqs of other events of this store, so the store's own id and
    /// a seq would not tell them apart. The first half is the store's, and the same fork has the same one
    /// whenever it is found.
    pub(crate) fn identity(&self) -> StoreId {
        let mut id = self.store.0;
        for (byte, seq) in id[8..12].iter_mut().zip((self.first() as u32).to_le_bytes()) {
            *byte ^= seq;
        }
        id[12..].copy_from_slice(&self.sum.to_le_bytes());
        StoreId(id)
    }

    /// Both histories, with their first differing seq. Without its file.
    pub(crate) fn finding(&self) -> Finding {
        let (first, last, log_last) = (self.first(), self.last, self.log_last);
        let what = format!(
            "two histories of this store, the same up to {}: rows prove events {first} to {last}, and the log \
             holds others as {first} to {log_last}; put the log back that belongs to the rows, or take this one \
             with `synclog repair --trust-log`, which keeps the {} event(s) of the rows in a file that `synclog \
             import` takes",
            first - 1,
            self.whole
        );
        Finding::new(FindingKind::TwoHistories, what).seqs(first, last)
    }

    /// Hands the seqs of all events that are proved whole to `each`, in order.
    pub(crate) fn each(&self, donor: &mut dyn Donor, mut each: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut stand = self.stand;
        while stand.chain.seq <= self.last {
            let seq = stand.chain.seq;
            let Some((next, _, whole)) = next(self.store, &stand, donor)? else { break };
            if whole {
                each(seq)?;
            }
            stand = next;
        }
        Ok(())
    }
}

/// What the log holds under a seq, as its frame's header checksum; `None` where no event is to be had there.
fn sum_at(log: &LogDir, segments: &Segments, horizon: Horizon, seq: u64) -> Result<Option<u32>> {
    if seq == 0 || seq >= horizon.seq {
        return Ok(None);
    }
    let (mut cursor, _) = Cursor::new(log.clone(), segments, seq, horizon)?;
    Ok(match cursor.next()? {
        Some(Entry::Event { header, .. }) if header.seq == seq => Some(header.sum),
        _ => None,
    })
}

/// The header checksum that a row remembers for an event.
pub(crate) fn sum_of_row(seq: u64, donor: &mut dyn Donor) -> Result<Option<u32>> {
    Ok(donor.frame(seq)?.and_then(|frame| sum_of(&frame)))
}

/// The finding for a witness that has seen another event than the log holds under its seq. Without its file.
pub(crate) fn of_witness(
    log: &LogDir,
    segments: &Segments,
    horizon: Horizon,
    witness: Witness,
) -> Result<Option<Finding>> {
    let own = sum_at(log, segments, horizon, witness.seq)?;
    Ok(own.filter(|own| *own != witness.sum).map(|_| {
        let what = "two histories of this store: this file has seen another event under this seq than the log \
                    holds; put the log back that belongs to it, or take this one with `synclog repair --trust-log`";
        Finding::new(FindingKind::TwoHistories, what).seq(witness.seq)
    }))
}

/// The history that rows prove, where it is not the log's. `applied` is the newest event that the rows say
/// they have. Looks at one event where the two agree; `None` where they do, and where nothing is proved.
pub(crate) fn find(
    log: &LogDir,
    segments: &Segments,
    horizon: Horizon,
    applied: Witness,
    donor: &mut dyn Donor,
) -> Result<Option<Fork>> {
    let Some(newest) = segments.headers.last() else { return Ok(None) };
    let store = newest.store;
    let last = applied.seq.min(horizon.seq - 1);
    let Some(own) = sum_at(log, segments, horizon, last)? else { return Ok(None) };
    let row = donor.frame(last)?.map(|frame| sum_of(&frame));
    let agree = row.is_none_or(|row| row == Some(own)) && (applied.seq != last || applied.sum == own);
    if agree {
        return Ok(None);
    }
    // From the newest segment on whose start a row sits, both are the same up to there.
    let mut start = None;
    for header in segments.headers.iter().rev() {
        let stand = Stand { segment: header.number, chain: Chain::start_of(header) };
        start = Some(*header);
        if header.first_seq <= last && next(store, &stand, donor)?.is_some() {
            break;
        }
    }
    let Some(start) = start else { return Ok(None) };
    let mut cursor = Cursor::at_segment(log.clone(), start, horizon)?;
    let mut stand = Stand { segment: start.number, chain: Chain::start_of(&start) };
    // Behind damage only an event that both have tells again what is in common.
    let mut broken = false;
    while let Some(entry) = cursor.next()? {
        broken |= matches!(entry, Entry::Damage(_));
        if let Entry::Event { header, .. } = entry {
            if header.seq > last {
                break;
            }
            match donor.frame(header.seq)?.and_then(|frame| sum_of(&frame)) {
                Some(row) if row == header.sum => broken = false,
                Some(_) => {
                    let fork = prove(store, stand, horizon.seq - 1, donor)?;
                    return Ok(fork.filter(|fork| fork.last >= header.seq));
                }
                None => {}
            }
        }
        if !broken {
            stand = at(&cursor);
        }
    }
    Ok(None)
}

/// What rows hold behind the log's end.
#[derive(Clone, Copy, Default)]
pub(super) struct RowsBehind {
    /// The last event of a row whose header sits on the one before it, and so on back to the log's end.
    pub(super) seen: Option<Witness>,
    /// The last one up to which every payload fits as well, and that ends a batch: a part of one would be dropped.
    pub(super) whole: Option<Witness>,
}

/// Follows rows from the end of the frames of the last segment on, or from the start of the batch that has no end
/// there. No applied seq is needed for that: a row is made only of what was durable (P2).
pub(super) fn rows_behind(
    segment: &SegmentHeader,
    surveyed: &Survey,
    donor: &mut dyn Donor,
) -> Result<RowsBehind> {
    follow(segment.store, segment.number, surveyed.open_batch.unwrap_or(surveyed.end), donor)
}

/// The same from a place in a segment on.
pub(super) fn follow(
    store: StoreId,
    segment: u64,
    chain: Chain,
    donor: &mut dyn Donor,
) -> Result<RowsBehind> {
    let (mut stand, mut found) = (Stand { segment, chain }, RowsBehind::default());
    let mut sound = true;
    while let Some((behind, header, whole)) = next(store, &stand, donor)? {
        let own = Some(Witness { seq: header.seq, sum: header.sum });
        sound &= whole;
        if sound && !header.more() {
            found.whole = own;
        }
        found.seen = own;
        stand = behind;
    }
    Ok(found)
}

fn at(cursor: &Cursor) -> Stand {
    let (segment, chain) = cursor.place();
    Stand { segment, chain }
}

/// The header checksum that a frame from elsewhere gives.
pub(super) fn sum_of(frame: &DonorFrame) -> Option<u32> {
    let bytes = frame.header.get(frame::HEADER_SUM_AT..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Follows frames from elsewhere from a place on.
fn prove(store: StoreId, stand: Stand, log_last: u64, donor: &mut dyn Donor) -> Result<Option<Fork>> {
    let mut fork = Fork { store, stand, sum: 0, last: 0, whole: 0, log_last };
    let mut reached = stand;
    while let Some((behind, header, whole)) = next(store, &reached, donor)? {
        if fork.last == 0 {
            fork.sum = header.sum;
        }
        fork.last = header.seq;
        fork.whole += u64::from(whole);
        reached = behind;
    }
    Ok((fork.whole > 0).then_some(fork))
}

/// The frame from elsewhere that sits at this place, where the next one would, and whether its payload is
/// proved too. `None` where there is none that does.
fn next(store: StoreId, stand: &Stand, donor: &mut dyn Donor) -> Result<Option<(Stand, Header, bool)>> {
    let Some(frame) = donor.frame(stand.chain.seq)? else { return Ok(None) };
    Ok(places(store, stand).into_iter().find_map(|place| {
        let (seed, chain) = (Seed::new(store, place.segment), place.chain);
        // How large the segment was is not known; that it was large enough is.
        let header = decode_header(&seed, chain.offset, &frame.header, FIRST_FRAME, u64::MAX).ok()?;
        let sits =
            header.kind == FrameKind::Event && header.seq == chain.seq && header.previous == chain.previous;
        let whole = header.payload_len as usize == frame.payload.len()
            && seed.body_sum(chain.offset, &body_of(&frame.payload)) == header.body_sum;
        let behind = Stand { segment: place.segment, chain: Chain::after(chain.offset, &header) };
        sits.then_some((behind, header, whole))
    }))
}

/// Where the next event may stand: here, behind a mark, or so at the start of the next segment.
fn places(store: StoreId, stand: &Stand) -> Vec<Stand> {
    let mut places = vec![*stand];
    if stand.chain.in_batch {
        return places;
    }
    places.push(behind_mark(store, stand));
    for here in places.clone() {
        let start = Stand { segment: here.segment + 1, chain: Chain { offset: FIRST_FRAME, ..here.chain } };
        places.extend([start, behind_mark(store, &start)]);
    }
    places
}

fn behind_mark(store: StoreId, stand: &Stand) -> Stand {
    let Chain { offset, seq, previous, .. } = stand.chain;
    let seed = Seed::new(store, stand.segment);
    let sum = frame::encode(&seed, offset, &Draft::mark(offset, seq, previous), &mut Vec::new());
    let chain = Chain { offset: offset + MARK_LEN, previous: sum, ..stand.chain };
    Stand { chain, ..*stand }
}
