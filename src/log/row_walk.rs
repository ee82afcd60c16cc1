//! Frames from rows, one behind the other, each at the place that its header's checksum names. Whether they are
//! the log's is for [`super::remake`] to prove.

use crate::error::Result;
use crate::store_id::StoreId;

use super::frame::{self, ALIGN, Draft, Header, MARK_LEN, Seed, decode_header};
use super::heal::{Donor, frame_of};
use super::segment::{FIRST_FRAME, MAX_SEGMENT};
use super::survey::{Chain, MAX_GROUP};

/// So many rows in a row may be missing for the one behind them to be looked for, and so many searches may be in
/// vain for one loss: each tries every place that the longest group leaves.
const WIDEST_HOLE: u64 = 10_000;
const MOST_SEARCHES: u32 = 8;
/// So far behind the hole's start is looked first, in each segment: most holes are small.
const NEAR: u64 = 64 * 1024;

/// A frame in its place.
pub(super) struct Found {
    pub(super) number: u64,
    /// Where the chain left the segment before, or a mark that stands before the frame.
    pub(super) left: Chain,
    /// What the header of its segment must say, if it is another one than before.
    pub(super) start: Chain,
    pub(super) mark: Option<Vec<u8>>,
    /// Its header names the frame or the mark before it. Behind a hole nothing does.
    pub(super) tied: bool,
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) bytes: Vec<u8>,
}

/// A place between frames that come from rows.
pub(super) struct Walk<'a> {
    store: StoreId,
    donor: &'a mut dyn Donor,
    pub(super) number: u64,
    seed: Seed,
    /// No frame of this segment ends behind it.
    pub(super) size: u64,
    pub(super) chain: Chain,
    /// The last segment that may hold frames.
    most: u64,
    /// Events from this seq on are not looked for.
    until: u64,
    searches: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        store: StoreId,
        number: u64,
        chain: Chain,
        most: u64,
        until: u64,
        donor: &'a mut dyn Donor,
    ) -> Self {
        let seed = Seed::new(store, number);
        Self { store, donor, number, seed, size: MAX_SEGMENT, chain, most, until, searches: MOST_SEARCHES }
    }

    /// The mark that may stand here, and where the chain is behind it.
    pub(super) fn mark(&self) -> Option<(Vec<u8>, Chain)> {
        let Chain { offset, seq, previous, in_batch } = self.chain;
        if in_batch || offset + MARK_LEN > self.size {
            return None;
        }
        let mut bytes = Vec::new();
        let previous = frame::encode(&self.seed, offset, &Draft::mark(offset, seq, previous), &mut bytes);
        Some((bytes, Chain { offset: offset + MARK_LEN, previous, ..self.chain }))
    }

    /// The frame of the next event of which there is a row that fits; `None` where there is none.
    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        if self.chain.seq >= self.until {
            return Ok(None);
        }
        let Some(row) = self.donor.frame(self.chain.seq)? else { return self.behind_hole() };
        let plain = self.chain;
        if let Some(frame) = frame_of(&self.seed, &plain, self.size, &row) {
            return Ok(Some(self.found(self.number, plain, None, plain.offset, frame)));
        }
        let (mark, after) = self.mark().unzip();
        if let Some(after) = after
            && let Some(frame) = frame_of(&self.seed, &after, self.size, &row)
        {
            return Ok(Some(self.found(self.number, after, mark, after.offset, frame)));
        }
        // A batch lies in one segment.
        let last = if plain.in_batch { self.number } else { self.most };
        for number in self.number + 1..=last {
            let seed = Seed::new(self.store, number);
            for end in [Some(plain), after].into_iter().flatten() {
                let start = Chain { offset: FIRST_FRAME, ..end };
                if let Some(frame) = frame_of(&seed, &start, MAX_SEGMENT, &row) {
                    return Ok(Some(self.found(number, end, None, FIRST_FRAME, frame)));
                }
            }
        }
        self.behind_hole()
    }

    /// Goes behind a frame.
    fn found(
        &mut self,
        number: u64,
        left: Chain,
        mark: Option<Vec<u8>>,
        offset: u64,
        (header, bytes): (Header, Vec<u8>),
    ) -> Found {
        if number != self.number {
            (self.number, self.seed, self.size) = (number, Seed::new(self.store, number), MAX_SEGMENT);
        }
        self.chain = Chain::after(offset, &header);
        let start = Chain { offset: FIRST_FRAME, ..left };
        Found { number, left, start, mark, tied: true, offset, header, bytes }
    }

    /// The next event that has a row, where some have none, or where what stood before it had no seq and so no row:
    /// a deletion record. Its frame is looked for at every place where it can have stood.
    fn behind_hole(&mut self) -> Result<Option<Found>> {
        let end = self.until.min(self.chain.seq.saturating_add(WIDEST_HOLE));
        for seq in self.chain.seq..end {
            let Some(row) = self.donor.frame(seq)? else { continue };
            // Four bytes, always.
            let Some(durable_end) = row.header.get(28..32).and_then(|raw| raw.try_into().ok()) else {
                continue;
            };
            let durable_end = u64::from(u32::from_le_bytes(durable_end));
            let numbers = self.number..=self.most.min(self.number + 1);
            for (span, number) in [NEAR, MAX_GROUP]
                .into_iter()
                .flat_map(|span| numbers.clone().map(move |number| (span, number)))
            {
                let (seed, size, from) = if number == self.number {
                    (self.seed.clone(), self.size, self.chain.offset)
                } else {
                    (Seed::new(self.store, number), MAX_SEGMENT, FIRST_FRAME)
                };
                // A group starts where the log was durable before it.
                let from = from.max(durable_end.next_multiple_of(ALIGN));
                let place = (from..size.min(from + span)).step_by(ALIGN as usize).find_map(|offset| {
                    let header = decode_header(&seed, offset, &row.header, FIRST_FRAME, size).ok()?;
                    Some(Chain { offset, seq, previous: header.previous, in_batch: false })
                });
                if let Some(chain) = place
                    && let Some(frame) = frame_of(&seed, &chain, size, &row)
                {
                    let mut found = self.found(number, self.chain, None, chain.offset, frame);
                    found.tied = false;
                    if chain.offset == FIRST_FRAME {
                        found.start = chain; // what is missing stood in the segment before
                    }
                    return Ok(Some(found));
                }
            }
            if self.searches == 0 {
                return Ok(None);
            }
            self.searches -= 1;
        }
        Ok(None)
    }
}
