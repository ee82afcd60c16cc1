//! Giving up what is lost (P3): a gap is written where the events were, so that the log says so ever
//! after, and their seqs are never used again.
//!
//! What is lost is what a reader passes over: the plan is made by the same [`Cursor`]. Damaged bytes go
//! to `quarantine` before anything is written over them, and whole files that are no segment of this log
//! are moved there.

use std::sync::Arc;

use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::cursor::{Cursor, Entry, Horizon};
use super::damage::known_end;
use super::directory::{Listing, LogDir, Unusable};
use super::frame::{self, ALIGN, Draft, Gap, MARK_LEN, MAX_PAYLOAD, MAX_SEQ, Seed, frame_len};
use super::open::{Recovered, newest, zero};
use super::quarantine;
use super::recovery::{Verdict, decide};
use super::segment::{self, FIRST_FRAME, HEADER_BLOCK, SegmentHeader};
use super::survey::{Chain, Witness, survey, survey_from};
use super::tail;

/// An event's frame is at least this long: 48 bytes of header, 8 of salt, and the rest of the body.
const SHORTEST_EVENT: u64 = frame_len(8);

/// No more segments than this are made anew for one loss. A file whose name has a number far beyond the
/// others is no trace of that many lost segments, and to make them all would fill the disk (P12).
const MOST_MISSING: u64 = 4096;

/// One stretch of the log that cannot be brought back.
#[derive(Clone, Copy, Debug)]
struct Loss {
    segment: u64,
    /// Where it starts: the first seq that is lost, and what the gap must name.
    start: Chain,
    events: u64,
    /// What the frame behind the gap names as the one before it.
    goes_on: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Up to a frame at this offset.
    Before(u64),
    /// Up to the end of the segment.
    ToEnd,
    /// In a new segment that follows on this one.
    NextSegment,
    /// From the number of the loss on, segments up to this number must be made; then a sound one follows,
    /// or nothing.
    Missing { last: u64, later: Option<SegmentHeader> },
}

/// Everything that cannot be brought back.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    stretches: Vec<Loss>,
    /// Numbers of files before the first segment that are none, and need not be any.
    needless: Vec<u64>,
    store: StoreId,
}

impl Losses {
    /// How many seqs would be given up. Where the number of events in damaged bytes is not known, as many
    /// as could have been there.
    pub(crate) fn events(&self) -> u64 {
        self.stretches.iter().map(|loss| loss.events).sum()
    }

    /// The last event before the end of what is lost. A deletion record in there speaks of no later one.
    pub(crate) fn last_seq(&self) -> u64 {
        self.stretches.iter().map(|loss| loss.start.seq + loss.events - 1).max().unwrap_or(0)
    }
}

/// What would have to be given up so that the log is whole again. `None` where giving events up does not
/// help: a copy of the log is needed, or a witness must be silenced. `store` is what somebody beside the log
/// says the store is.
pub(crate) fn plan(log: &LogDir, witness: Option<Witness>, store: Option<StoreId>) -> Result<Option<Losses>> {
    let listing = log.list()?;
    let (Some(first), Some(active)) = (listing.segments.first(), listing.segments.last()) else {
        return nothing_left(log, &listing, witness, store);
    };
    let witness = newest(witness, tail::of_store(tail::read(log)?, active.store));
    let mut losses = Vec::new();
    if first.number > 1 && first.first_seq > active.first_retained {
        let start =
            Chain { offset: FIRST_FRAME, seq: active.first_retained.max(1), previous: 0, in_batch: false };
        let place = Place::Missing { last: first.number - 1, later: Some(*first) };
        let events = first.first_seq - start.seq;
        losses.push(Loss { segment: 1, start, events, goes_on: first.previous, place });
    }
    let surveyed = survey(&mut log.reader(active)?, witness, None)?;
    let mut horizon = known_end(active.number, &surveyed);
    let mut cursor = Cursor::at_segment(log.clone(), *first, horizon)?;
    loop {
        while let Some(entry) = cursor.next()? {
            if !matches!(entry, Entry::Damage(_)) {
                continue;
            }
            let Some(((segment, start), behind)) = cursor.around_damage() else { continue };
            let Some(loss) = Loss::between(log, segment, start, behind, horizon)? else { return Ok(None) };
            losses.push(loss);
        }
        match unproved_end(log, active, &cursor)? {
            Some(farther) if farther.offset > horizon.offset => horizon = farther,
            _ => break,
        }
        cursor.extend(horizon);
    }
    // A loss that reaches to the end may be longer than the log itself tells.
    let open_end = losses.pop_if(|loss| loss.segment == active.number && matches!(loss.place, Place::ToEnd));
    let end = open_end.map(|loss| loss.start).or(cursor.chain_in(active.number)).unwrap_or(surveyed.end);
    let known = open_end.map_or(0, |loss| loss.events);
    let beyond = witness.filter(|witness| witness.seq >= end.seq + known);
    let (events, goes_on) = match beyond {
        Some(witness) => (witness.seq + 1 - end.seq, witness.sum),
        None => (known, 0),
    };
    let after: Vec<&Unusable> =
        listing.unusable.iter().filter(|unusable| unusable.number > active.number).collect();
    if let Some(last) = after.iter().map(|unusable| unusable.number).max() {
        // As many events as the files could have held, where no witness says more.
        let held: u64 = after.iter().map(|unusable| (unusable.len / SHORTEST_EVENT).max(1)).sum();
        let events = if beyond.is_some() { events } else { events + held };
        let place = Place::Missing { last, later: None };
        losses.push(Loss { segment: active.number + 1, start: end, events, goes_on, place });
    } else {
        // Of a batch that was durable at least one event is gone.
        let cut = open_end.is_none() && beyond.is_none() && cut_batch(log, active, &losses, witness)?;
        if cut || open_end.is_some() || beyond.is_some() {
            let events = if cut { 1 } else { events };
            let room = end.offset + MARK_LEN <= active.size;
            let place = if room { Place::ToEnd } else { Place::NextSegment };
            losses.push(Loss { segment: active.number, start: end, events, goes_on, place });
        }
    }
    // What lies among the missing segments is moved away when they are made anew.
    let whole_from = losses.first().map_or(first.number, |loss| loss.segment.min(first.number));
    let needless: Vec<u64> = listing
        .unusable
        .iter()
        .map(|unusable| unusable.number)
        .filter(|number| *number < whole_from)
        .collect();
    let helps = losses.iter().all(|loss| loss.fits(&listing.segments)) && losses.len() + needless.len() > 0;
    Ok(helps.then_some(Losses { stretches: losses, needless, store: active.store }))
}

/// Everything up to the newest event that anybody has seen, where no segment is left.
fn nothing_left(
    log: &LogDir,
    listing: &Listing,
    witness: Option<Witness>,
    store: Option<StoreId>,
) -> Result<Option<Losses>> {
    let found = tail::read(log)?;
    let Some(store) = store.or(found.map(|(store, _)| store)) else { return Ok(None) };
    let Some(seen) = newest(witness, tail::of_store(found, store)) else { return Ok(None) };
    let last = listing.unusable.iter().map(|unusable| unusable.number).max().unwrap_or(1);
    let start = Chain { offset: FIRST_FRAME, seq: 1, previous: 0, in_batch: false };
    let place = Place::Missing { last, later: None };
    let loss = Loss { segment: 1, start, events: seen.seq, goes_on: seen.sum, place };
    Ok(loss.fits(&[]).then_some(Losses { stretches: vec![loss], needless: Vec::new(), store }))
}

/// Whether the log ends inside a batch that was durable: then what is missing of it is lost.
fn cut_batch(
    log: &LogDir,
    active: &SegmentHeader,
    losses: &[Loss],
    witness: Option<Witness>,
) -> Result<bool> {
    let behind = losses.iter().rev().find_map(|loss| match loss.place {
        Place::Before(offset) if loss.segment == active.number => {
            let seq = loss.start.seq + loss.events;
            Some(Chain { offset, seq, previous: loss.goes_on, in_batch: false })
        }
        _ => None,
    });
    let from = behind.unwrap_or(Chain::start_of(active));
    let surveyed = survey_from(&mut log.reader(active)?, from, witness, None)?;
    Ok(surveyed.open_batch.is_some() && surveyed.evidence.proof_beyond)
}

impl Loss {
    /// What lies between the start of a damage and the place where reading goes on behind it.
    fn between(
        log: &LogDir,
        segment: u64,
        start: Chain,
        behind: Option<(u64, Chain)>,
        horizon: Horizon,
    ) -> Result<Option<Self>> {
        let Some((next, chain)) = behind else {
            let events = horizon.seq.saturating_sub(start.seq);
            return Ok(Some(Self { segment, start, events, goes_on: 0, place: Place::ToEnd }));
        };
        // A segment that starts before its predecessor ends cannot be explained by a loss.
        let Some(events) = chain.seq.checked_sub(start.seq) else { return Ok(None) };
        let (segment, place) = match next - segment {
            0 => (segment, Place::Before(chain.offset)),
            1 => (segment, Place::ToEnd),
            _ => {
                let later = log.header_of(next)?;
                (segment + 1, Place::Missing { last: next - 1, later })
            }
        };
        Ok(Some(Self { segment, start, events, goes_on: chain.previous, place }))
    }

    /// Whether a gap can tell of it, and has room in its place.
    fn fits(&self, segments: &[SegmentHeader]) -> bool {
        let room = match self.place {
            Place::Before(offset) => offset - self.start.offset >= MARK_LEN,
            Place::ToEnd => segments
                .binary_search_by_key(&self.segment, |header| header.number)
                .is_ok_and(|at| self.start.offset + MARK_LEN <= segments[at].size), // none has no room
            Place::NextSegment => true,
            Place::Missing { last, .. } => last - self.segment < MOST_MISSING,
        };
        // Nor is one written that no reader would take for a frame.
        let counts = self.start.seq.checked_add(self.events).is_some_and(|next| next <= MAX_SEQ);
        room && counts && u32::try_from(self.events).is_ok()
    }
}

/// Where bytes end that follow on what is proved, and of which nothing tells whether they were
/// acknowledged: as many events are counted as could have been there. `None` where there are none.
fn unproved_end(log: &LogDir, active: &SegmentHeader, cursor: &Cursor) -> Result<Option<Horizon>> {
    let Some(chain) = cursor.chain_in(active.number) else { return Ok(None) };
    let surveyed = survey_from(&mut log.reader(active)?, chain, None, None)?;
    if decide(surveyed.evidence).verdict != Verdict::Corruption {
        return Ok(None);
    }
    let bytes = surveyed.stray_end - surveyed.end.offset;
    let offset = surveyed.stray_end.next_multiple_of(ALIGN);
    let seq = surveyed.end.seq + (bytes / SHORTEST_EVENT).max(1);
    Ok(Some(Horizon { segment: active.number, offset, seq }))
}

/// Writes the gaps. Can be interrupted anywhere: what is not done yet is planned again.
pub(crate) fn give_up(log: &LogDir, plan: &Losses, now_us: i64) -> Result<Recovered> {
    let mut done = Recovered::default();
    for number in &plan.needless {
        done.quarantined.extend(quarantine::keep_file(log, *number)?);
        quarantine::remove(log, *number)?;
    }
    let mut known = None;
    for loss in &plan.stretches {
        let writer = GapWriter { log, loss, now_us, store: plan.store };
        let path = match loss.place {
            Place::Before(end) => writer.in_place(Some(end), &mut known, &mut done)?,
            Place::ToEnd => writer.in_place(None, &mut known, &mut done)?,
            Place::NextSegment => writer.new_segments(loss.segment + 1, loss.segment + 1, None, &mut done)?,
            Place::Missing { last, later } => writer.new_segments(loss.segment, last, later, &mut done)?,
        };
        let mut finding = Finding::new(FindingKind::AcceptedLoss, "given up as lost");
        if loss.events > 0 {
            finding = finding.seqs(loss.start.seq, loss.start.seq + loss.events - 1);
        }
        done.findings.push(finding.at(path.0, path.1));
    }
    Ok(done)
}

/// What is known of the segment of the last gap, for further ones in it.
#[derive(Clone, Copy)]
struct Known {
    segment: u64,
    proved_end: u64,
    stray_end: u64,
    /// Up to here its bytes are in quarantine as they were.
    kept_to: u64,
}

struct GapWriter<'a> {
    log: &'a LogDir,
    loss: &'a Loss,
    now_us: i64,
    store: StoreId,
}

impl GapWriter<'_> {
    /// Writes the gap over the damage, and zeros behind it where nothing follows.
    fn in_place(
        &self,
        end: Option<u64>,
        known: &mut Option<Known>,
        done: &mut Recovered,
    ) -> Result<(std::path::PathBuf, u64)> {
        let (number, start) = (self.loss.segment, self.loss.start);
        let path = self.log.segment_path(number);
        let Some(header) = self.log.header_of(number)? else {
            return Err(Error::NoStore { dir: self.log.store_dir.clone() });
        };
        let file = self.log.open_file(number, true)?;
        let mut found = if let Some(known) = known.filter(|known| known.segment == number) {
            known
        } else {
            let surveyed = survey(&mut self.log.reader(&header)?, None, None)?;
            let (proved_end, stray_end) = (surveyed.proved_end, surveyed.stray_end);
            Known { segment: number, proved_end, stray_end, kept_to: 0 }
        };
        let fill_to = end.unwrap_or(start.offset + MARK_LEN);
        let stray_end = end.unwrap_or_else(|| found.stray_end.max(fill_to));
        if stray_end > found.kept_to {
            // The second time all that follows: many losses make no more than two files.
            let to = if found.kept_to == 0 { stray_end } else { stray_end.max(found.stray_end) };
            done.quarantined.push(quarantine::keep(self.log, file.as_ref(), number, start.offset, to)?);
            found.kept_to = to;
        }
        *known = Some(found);
        // What is before it is proved where something behind it says so; the gap claims no more.
        let durable_end = found.proved_end.min(start.offset);
        let bytes = self.frames(&Seed::new(self.store, number), start.offset, fill_to, durable_end);
        self.write(&file, number, &bytes, start.offset)?;
        if fill_to < stray_end {
            zero(file.as_ref(), fill_to, stray_end)
                .and_then(|()| file.sync())
                .map_err(|error| Error::io_at("write zeros to", &path, fill_to, error))?;
        }
        Ok((path, start.offset))
    }

    /// Makes segments where there are none, the last one first, so that whatever an interruption leaves
    /// is still seen as missing; the gap goes into the first one.
    fn new_segments(
        &self,
        first: u64,
        last: u64,
        later: Option<SegmentHeader>,
        done: &mut Recovered,
    ) -> Result<(std::path::PathBuf, u64)> {
        self.clear_before(first, done)?;
        for number in (first..=last).rev() {
            // A file of that name is none of this log; the new segment takes its place.
            done.quarantined.extend(quarantine::keep_file(self.log, number)?);
            let (seq, previous) = if number == first {
                (self.loss.start.seq, self.loss.start.previous)
            } else {
                (self.loss.start.seq + self.loss.events, self.loss.goes_on)
            };
            let header = SegmentHeader {
                store: self.store,
                number,
                first_seq: seq,
                first_retained: later.map_or(1, |later| later.first_retained).min(seq),
                size: FIRST_FRAME + HEADER_BLOCK,
                created_at: self.now_us,
                previous,
            };
            let end = if number == first { FIRST_FRAME + MARK_LEN } else { FIRST_FRAME };
            let bytes = self.frames(&Seed::new(self.store, number), FIRST_FRAME, end, FIRST_FRAME);
            let path = self.log.segment_path(number);
            segment::create_with(self.log.disk.as_ref(), &self.log.log_dir(), &header, |file| {
                let written = file.write_all_at(&bytes, FIRST_FRAME);
                written.map_err(|error| Error::io_at("write", &path, FIRST_FRAME, error))
            })?;
        }
        Ok((self.log.segment_path(first), FIRST_FRAME))
    }

    /// Takes away what stands behind the end of the segment before the missing ones.
    fn clear_before(&self, first: u64, done: &mut Recovered) -> Result<()> {
        let Some(header) = self.log.header_of(first - 1)?.filter(|header| header.store == self.store) else {
            return Ok(());
        };
        let surveyed = survey(&mut self.log.reader(&header)?, None, None)?;
        let from = self.loss.start.offset;
        if surveyed.stray_end <= from {
            return Ok(());
        }
        let path = self.log.segment_path(header.number);
        let file = self.log.open_file(header.number, true)?;
        done.quarantined.push(quarantine::keep(
            self.log,
            file.as_ref(),
            header.number,
            from,
            surveyed.stray_end,
        )?);
        zero(file.as_ref(), from, surveyed.stray_end)
            .and_then(|()| file.sync())
            .map_err(|error| Error::io_at("write zeros to", &path, from, error))
    }

    /// One gap, or several where one frame cannot be so long. Only the first gives events up.
    fn frames(&self, seed: &Seed, start: u64, end: u64, durable_end: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((end - start) as usize);
        let mut gap = Gap {
            events: self.loss.events as u32,
            accepted_at: (self.now_us / 1_000_000).clamp(0, i64::from(u32::MAX)) as u32,
            goes_on: self.loss.goes_on,
        };
        let (mut seq, mut previous) = (self.loss.start.seq, self.loss.start.previous);
        let mut offset = start;
        while offset < end {
            let mut len = (end - offset).min(frame_len(MAX_PAYLOAD));
            if (1..MARK_LEN).contains(&(end - offset - len)) {
                len -= MARK_LEN;
            }
            let filler = vec![0; (len - MARK_LEN) as usize];
            let draft = Draft::gap(seq, gap, durable_end, previous, &filler);
            frame::encode(seed, offset, &draft, &mut bytes);
            (seq, previous) = (seq + u64::from(gap.events), gap.goes_on);
            gap.events = 0;
            offset += len;
        }
        bytes
    }

    fn write(&self, file: &Arc<dyn DiskFile>, number: u64, bytes: &[u8], at: u64) -> Result<()> {
        let path = self.log.segment_path(number);
        file.write_all_at(bytes, at).map_err(|error| Error::io_at("write", &path, at, error))?;
        file.sync().map_err(|error| Error::io("sync", &path, error))
    }
}
