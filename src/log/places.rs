//! Where events lie, as far as somebody has looked: so that one event is found again without a listing of the log's
//! directory, and without a walk from the start of its segment.

use std::collections::BTreeMap;

use crate::error::Result;

use super::cursor::{Cursor, Entry};
use super::directory::LogDir;
use super::frame::Header;
use super::segment::SegmentHeader;
use super::survey::Chain;
use super::writer::Position;

/// How far apart the places are that a walk leaves behind; closer in tests, whose segments are small.
const WAY: u64 = if cfg!(any(test, fuzzing)) { 1024 } else { 256 * 1024 };
/// Places that are remembered at most; about 2 MiB.
const MOST: usize = 64 * 1024;

/// What is known of where events lie. Positions in sealed segments never change, and the newest one only grows.
#[derive(Default)]
pub(crate) struct Places {
    segments: BTreeMap<u64, SegmentHeader>,
    /// By segment and seq of the event that stands there.
    ways: BTreeMap<(u64, u64), Chain>,
}

/// What a search has seen on its way, to be remembered.
#[derive(Default)]
pub(crate) struct Seen(Places);

impl Places {
    /// Remembers what a search has seen.
    pub(crate) fn learn(&mut self, seen: Seen) {
        if self.ways.len() + seen.0.ways.len() > MOST {
            self.ways.clear();
        }
        self.segments.extend(seen.0.segments);
        self.ways.extend(seen.0.ways);
    }

    /// The segments that must be looked at for this event, as far as they are known: where to search on.
    pub(crate) fn near(&self, seq: u64) -> Self {
        let below = self.segments.values().rev().find(|header| header.first_seq <= seq);
        let above = self.segments.values().find(|header| header.first_seq > seq);
        let segments = below.into_iter().chain(above).map(|header| (header.number, *header)).collect();
        let way = below.and_then(|header| {
            self.ways
                .range((header.number, 0)..=(header.number, seq))
                .next_back()
                .map(|(at, way)| (*at, *way))
        });
        Self { segments, ways: way.into_iter().collect() }
    }

    /// Hands the event with this seq to `read`; `None` where the log does not hold it. Reads the headers of a few
    /// segments and a part of one.
    pub(crate) fn find<R>(
        &self,
        log: &LogDir,
        seq: u64,
        durable: Position,
        seen: &mut Seen,
        read: impl FnOnce(&Header, &[u8]) -> R,
    ) -> Result<Option<R>> {
        let Some(header) = self.segment_of(log, seq, durable, seen)? else { return Ok(None) };
        let way = self.ways.range((header.number, 0)..=(header.number, seq)).next_back().map(|(_, way)| *way);
        let mut cursor = Cursor::at_place(log.clone(), header, way, durable)?;
        let mut noted = way.map_or(0, |way| way.offset);
        while let Some(chain) = cursor.chain_in(header.number).filter(|chain| chain.seq <= seq) {
            let (here, far) = (chain.seq == seq, chain.offset >= noted + WAY);
            if far || (here && chain.offset > noted) {
                noted = chain.offset;
                seen.0.ways.insert((header.number, chain.seq), chain);
            }
            match cursor.next()? {
                Some(Entry::Event { header, payload, .. }) if header.seq == seq => {
                    return Ok(Some(read(&header, payload)));
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }

    /// The segment that holds this event: numbers and first seqs ascend together.
    fn segment_of(
        &self,
        log: &LogDir,
        seq: u64,
        durable: Position,
        seen: &mut Seen,
    ) -> Result<Option<SegmentHeader>> {
        let known = |header: Option<&SegmentHeader>| header.map(|header| header.number);
        let mut low = known(self.segments.values().rev().find(|header| header.first_seq <= seq)).unwrap_or(1);
        let mut high = known(self.segments.values().find(|header| header.first_seq > seq))
            .map_or(durable.segment, |number| number - 1);
        let (mut found, mut gap) = (None, false);
        while low <= high {
            let middle = low + (high - low).div_ceil(2);
            let header = match self.segments.get(&middle) {
                Some(header) => Some(*header),
                None => log.header_of(middle)?,
            };
            seen.0.segments.extend(header.map(|header| (middle, header)));
            match header {
                Some(header) if header.first_seq > seq => high = middle - 1,
                other => {
                    gap |= other.is_none();
                    found = other.or(found);
                    low = middle + 1;
                }
            }
        }
        if found.is_none() && gap {
            // Some segment is not there, or its header is damaged: only a list tells which ones are.
            let segments = log.list()?.segments;
            return Ok(segments.into_iter().rev().find(|header| header.first_seq <= seq));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::FrameKind;
    use crate::log::open::create;
    use crate::log::writer::{Limits, NewEvent};
    use crate::proof::disk::{Rng, SimDisk};
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn every_event_is_found_from_whatever_is_known() {
        let dir = Path::new("/store");
        let disk = SimDisk::default();
        disk.add_dir(dir);
        disk.add_dir(&dir.join("log"));
        let log = LogDir::new(Arc::new(disk), dir);
        let limits = Limits { first_segment: 16 * 1024, max_segment: 32 * 1024 };
        let (mut writer, _) = create(&log, limits, 0).unwrap();
        let mut rng = Rng::new(7);
        let payload = |seq: u64| vec![seq as u8; 20 + (seq % 900) as usize];
        for seq in 1..=600 {
            let event = NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload(seq) };
            if event.payload.len() as u64 + 64 > writer.room() {
                writer.roll(2048).unwrap();
            }
            assert_eq!(writer.append(&[vec![event]], 0).unwrap(), seq);
            if rng.below(5) == 0 {
                writer.mark().unwrap();
            }
        }
        let durable = writer.position();
        assert!(durable.segment > 8, "many segments");
        let mut places = Places::default();
        for _ in 0..3000 {
            let seq = rng.below(602);
            let near = places.near(seq);
            assert!(near.segments.len() <= 2 && near.ways.len() <= 1);
            let mut seen = Seen::default();
            let read = |header: &Header, bytes: &[u8]| (header.kind, header.seq, bytes.to_vec());
            let found = near.find(&log, seq, durable, &mut seen, read).unwrap();
            let there = (1..=600).contains(&seq);
            assert_eq!(found, there.then(|| (FrameKind::Event, seq, payload(seq))), "event {seq}");
            places.learn(seen);
        }
        assert_eq!(places.segments.len() as u64, durable.segment);
        // What is remembered is bounded.
        assert!(places.ways.len() <= 600);
    }
}
