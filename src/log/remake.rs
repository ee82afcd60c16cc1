//! Segments that are gone, or that are none of this log, made again from rows (P9).
//!
//! A row keeps the header of its event's frame, and that header's checksum is seeded with store, segment and
//! offset: it tells where the frame stood, once that place is tried. From the end of the segment before, or
//! from the start of the log, frame is put behind frame; marks between them follow from their place. All of it
//! is proved where the chain arrives at the header of the next sound segment, or at an event that a witness has
//! seen. What is not proved is not written. Where a row is missing, its place stays zero: damage like any
//! other, which names the event. Memory: one row. The rows are walked through twice ([`super::row_walk`]), first
//! to prove them, then to write them.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::directory::{Listing, LogDir};
use super::fork::sum_of;
use super::frame::Seed;
use super::heal::Donor;
use super::lost_records::{self, Again};
use super::open::{OpenLog, Recovered, newest, sync_dirs};
use super::quarantine;
use super::row_walk::Walk;
use super::segment::{self, FIRST_FRAME, HEADER_BLOCK, MAX_SEGMENT, SegmentHeader};
use super::survey::{Chain, Witness, survey};
use super::tail;

/// So many numbers are tried for the segment in which a frame may stand. A file whose name has a number far
/// beyond the others is no trace of that many lost segments.
const MOST_MISSING: u64 = 4096;
/// The same behind the last segment, where nothing says how many there were. Segments without an event are rare.
const MOST_BEHIND: u64 = 16;

/// What was made again, or would be.
#[derive(Default)]
pub(super) struct Remade {
    files: Vec<PathBuf>,
    /// The newest one is among them, with what it lacked of deletion records.
    pub(super) newest: bool,
    /// First and last seq of each run of events that came back.
    events: Vec<(u64, u64)>,
}

impl Remade {
    /// Leaves of what is named as lost that which would come back.
    pub(super) fn leave_out(&self, lost: Vec<Finding>) -> Vec<Finding> {
        let mut left = Vec::new();
        for finding in lost {
            let Some(first) = finding.seq else {
                let whole = matches!(finding.kind, FindingKind::BadSegment | FindingKind::MissingSegment);
                if !(whole && finding.file.as_ref().is_some_and(|file| self.files.contains(file))) {
                    left.push(finding);
                }
                continue;
            };
            let last = finding.last_seq.unwrap_or(first);
            let mut from = first;
            for (start, end) in &self.events {
                if (from..=last).contains(start) && *start > from {
                    left.push(finding.clone().seqs(from, start - 1));
                }
                if *start <= last && *end >= from {
                    from = end + 1;
                }
            }
            if from <= last {
                left.push(finding.seqs(from, last));
            }
        }
        left
    }
}

/// What frames from rows must arrive at.
#[derive(Clone, Copy)]
enum Goal {
    Segment(SegmentHeader),
    Seen([Option<Witness>; 2]),
}

impl Goal {
    /// The seq behind the last event that is looked for.
    fn until(self) -> u64 {
        match self {
            Self::Segment(later) => later.first_seq,
            Self::Seen([one, other]) => newest(one, other).map_or(0, |newest| newest.seq + 1),
        }
    }
}

/// Frames of one segment, next to each other but for holes.
struct Stretch {
    number: u64,
    /// The segment that is there, where the first frames go behind those that it has.
    there: Option<SegmentHeader>,
    start: Chain,
    /// Where they end, and the seq of the event behind them.
    end: u64,
    next_seq: u64,
    events: u64,
    made_at: Option<i64>,
    /// What is written behind the last frame of the log.
    again: Again,
}

impl Stretch {
    fn new(number: u64, start: Chain) -> Self {
        let (end, next_seq) = (start.offset, start.seq);
        Self { number, there: None, start, end, next_seq, events: 0, made_at: None, again: Again::default() }
    }
}

struct Plan {
    stretches: Vec<Stretch>,
    events: Vec<(u64, u64)>,
    /// The first of them follows on what is there.
    tied: bool,
    /// Where the chain ends, behind the last frame.
    end: Chain,
}

/// Makes segments again wherever rows prove what was in them. `parts` are segments of the listing that are not whole.
pub(super) fn remake(
    log: &LogDir,
    with: &mut OpenLog<'_>,
    listing: &Listing,
    parts: &[SegmentHeader],
    dry_run: bool,
    done: &mut Recovered,
) -> Result<Remade> {
    let mut remade = Remade::default();
    let found = tail::read(log)?;
    let named = listing.segments.last().map(|header| header.store).or(with.donor.store());
    let Some(store) = named.or(found.map(|(store, _)| store)) else { return Ok(remade) };
    let own = tail::of_store(found, store);
    let seen = if with.trust_log { [None, None] } else { [with.witness, own] };
    let mut told = Vec::new();
    // The end of the log first, and of each loss the last segment, so that whatever an interruption leaves is
    // still seen as missing.
    for (before, goal) in gaps(listing, seen).into_iter().rev() {
        let most_unusable = listing.unusable.iter().map(|unusable| unusable.number).max().unwrap_or(0);
        let number = before.map_or(1, |header| header.number);
        let most = match goal {
            Goal::Segment(later) => later.number - 1,
            Goal::Seen(_) => most_unusable.max(number + MOST_BEHIND),
        };
        let most = most.min(number + MOST_MISSING);
        let (start, last_event) = match &before {
            Some(header) => end_of(log, header, parts)?,
            None => (Chain { offset: FIRST_FRAME, seq: 1, previous: 0, in_batch: false }, None),
        };
        let mut walk = Walk::new(store, number, start, most, goal.until(), with.donor);
        walk.size = before.map_or(MAX_SEGMENT, |header| header.size);
        let Some(mut plan) = plan(&mut walk, before, goal)? else { continue };
        let seam = !plan.tied && before.is_some();
        if seam && matches!(goal, Goal::Seen(_)) && !is_known(last_event, with.donor)? {
            continue; // they may be rows of another history of this store
        }
        if let Goal::Seen(_) = goal {
            // A file behind the last frame that is no segment has the place of one that held nothing, as far
            // as anybody has seen.
            let next = plan.stretches.last().map_or(number + 1, |last| last.number + 1);
            if listing.unusable.iter().any(|unusable| unusable.number == next) {
                plan.stretches.push(Stretch::new(next, Chain { offset: FIRST_FRAME, ..plan.end }));
            }
        }
        if plan.stretches.iter().all(|stretch| stretch.there.is_some()) {
            continue; // no segment is missing
        }
        let first_retained = match goal {
            Goal::Segment(later) => later.first_retained,
            Goal::Seen(_) => before.map_or(1, |header| header.first_retained),
        };
        if let Goal::Seen(seen) = goal
            && (!plan.events.is_empty() || (last_event.is_some() && seen[0] == last_event))
            && let Some(last) = plan.stretches.last_mut()
        {
            // Their rows are the log's up to here, so they have followed every record that is lost before it.
            let ranges = lost_records::lost(log, &listing.segments, parts, plan.end.seq - 1, with.donor)?;
            last.again = Again::behind(last.end, &ranges);
            let place = log.segment_path(last.number);
            told.extend(last.again.findings(dry_run).map(|finding| finding.at(&place, last.end)));
        }
        let writer = Writer { log, store, first_retained, dry_run };
        for stretch in plan.stretches.iter().rev() {
            told.extend(writer.write(stretch, with, done, &mut remade)?);
        }
        if let (Goal::Seen(_), Some(last)) = (goal, plan.stretches.last()) {
            remade.newest = true;
            let what = format!(
                "the newest segment is made again from rows; whether events after {} stood in it, or deletions that \
                 no row has followed, nothing tells: if there were any, they are lost, unless a copy of this file \
                 holds them",
                plan.end.seq - 1
            );
            let finding = Finding::new(FindingKind::CutSegment, what).seq(plan.end.seq);
            told.insert(0, finding.at(log.segment_path(last.number), last.end));
        }
        remade.events.append(&mut plan.events);
    }
    remade.events.sort_unstable();
    done.findings.extend(told.into_iter().rev());
    Ok(remade)
}

/// Where segments are missing: the one before, and what must be arrived at.
fn gaps(listing: &Listing, seen: [Option<Witness>; 2]) -> Vec<(Option<SegmentHeader>, Goal)> {
    let mut gaps = Vec::new();
    let mut before: Option<SegmentHeader> = None;
    let first_retained = listing.segments.last().map_or(1, |header| header.first_retained);
    for header in &listing.segments {
        // Retention may have dropped whole segments at the start.
        let lawful = before.is_none() && header.first_seq <= first_retained;
        if header.number != before.map_or(1, |before| before.number + 1) && !lawful {
            gaps.push((before, Goal::Segment(*header)));
        }
        before = Some(*header);
    }
    if seen.iter().any(Option::is_some) {
        gaps.push((before, Goal::Seen(seen)));
    }
    gaps
}

/// Where the frames of a segment end, damaged ones among them or not, and its last event.
fn end_of(log: &LogDir, header: &SegmentHeader, parts: &[SegmentHeader]) -> Result<(Chain, Option<Witness>)> {
    let surveyed = survey(&mut log.reader_of(header, parts)?, None, None)?;
    let end = match surveyed.beyond {
        Some((offset, header)) if header.seq >= surveyed.end.seq => Chain::after(offset, &header),
        _ => surveyed.end,
    };
    Ok((end, surveyed.last_event))
}

/// Whether the rows have this event of the log as the log has it. Where the first row behind the log's end is
/// missing, nothing else ties the further ones to this log (P4).
fn is_known(event: Option<Witness>, donor: &mut dyn Donor) -> Result<bool> {
    let Some(event) = event else { return Ok(false) };
    Ok(donor.frame(event.seq)?.and_then(|frame| sum_of(&frame)) == Some(event.sum))
}

/// Walks through rows until they arrive; `None` where they do not.
fn plan(walk: &mut Walk<'_>, before: Option<SegmentHeader>, goal: Goal) -> Result<Option<Plan>> {
    let mut stretches = vec![Stretch { there: before, ..Stretch::new(walk.number, walk.chain) }];
    let mut events: Vec<(u64, u64)> = Vec::new();
    let (first, start) = (walk.number, walk.chain);
    let (mut proved, mut tied) = (None, None);
    loop {
        if let Goal::Segment(later) = goal
            && walk.chain.seq >= later.first_seq
        {
            let ends = [Some(walk.chain), walk.mark().map(|(_, after)| after)];
            let arrives =
                |end: &Chain| (end.seq, end.previous) == (later.first_seq, later.previous) && !end.in_batch;
            let Some(end) = ends.into_iter().flatten().find(arrives) else { return Ok(None) };
            leave(&mut stretches, &end, later.number);
            return Ok(Some(Plan { stretches, events, tied: tied.unwrap_or(true), end }));
        }
        let Some(found) = walk.next()? else { break };
        tied.get_or_insert(found.tied);
        leave(&mut stretches, &found.left, found.number);
        if stretches.last().is_none_or(|last| last.number != found.number) {
            stretches.push(Stretch::new(found.number, found.start));
        }
        let header = found.header;
        if let Some(last) = stretches.last_mut() {
            (last.end, last.next_seq) = (walk.chain.offset, walk.chain.seq);
            last.events += 1;
            last.made_at.get_or_insert(header.appended_at);
        }
        match events.last_mut() {
            Some((_, last)) if *last + 1 == header.seq => *last = header.seq,
            _ => events.push((header.seq, header.seq)),
        }
        if let Goal::Seen(seen) = goal
            && seen.contains(&Some(Witness { seq: header.seq, sum: header.sum }))
        {
            proved = stretches.last().map(|last| (stretches.len(), walk.chain, last.events));
        }
    }
    let Goal::Seen(seen) = goal else { return Ok(None) };
    let Some((count, end, in_last)) = proved else {
        // Nothing is lost that anybody has seen; a file may be in the way all the same.
        let whole = before.is_some() && seen.iter().flatten().any(|witness| witness.seq + 1 == start.seq);
        let stretches = vec![Stretch { there: before, ..Stretch::new(first, start) }];
        return Ok(whole.then_some(Plan { stretches, events: Vec::new(), tied: true, end: start }));
    };
    stretches.truncate(count);
    if let Some(last) = stretches.last_mut() {
        (last.end, last.next_seq, last.events) = (end.offset, end.seq, in_last);
    }
    events.retain_mut(|(first, last)| {
        *last = (*last).min(end.seq - 1);
        first <= last
    });
    Ok(Some(Plan { stretches, events, tied: tied.unwrap_or(true), end }))
}

/// Ends the present stretch where the chain leaves its segment for another, and adds segments that hold no frame
/// in between.
fn leave(stretches: &mut Vec<Stretch>, end: &Chain, next: u64) {
    let Some(last) = stretches.last_mut().filter(|last| last.number != next) else { return };
    last.end = end.offset;
    for number in last.number + 1..next {
        stretches.push(Stretch::new(number, Chain { offset: FIRST_FRAME, ..*end }));
    }
}

struct Writer<'a> {
    log: &'a LogDir,
    store: StoreId,
    first_retained: u64,
    dry_run: bool,
}

impl Writer<'_> {
    fn write(
        &self,
        stretch: &Stretch,
        with: &mut OpenLog<'_>,
        done: &mut Recovered,
        remade: &mut Remade,
    ) -> Result<Option<Finding>> {
        let path = self.log.segment_path(stretch.number);
        let written = stretch.there.is_some() && stretch.end == stretch.start.offset;
        if written {
            return Ok(None);
        }
        let mut walk = Walk::new(
            self.store,
            stretch.number,
            stretch.start,
            stretch.number,
            stretch.next_seq,
            with.donor,
        );
        let kept = match &stretch.there {
            _ if self.dry_run => None,
            Some(header) => Some(self.go_on(header, stretch, &mut walk)?),
            None => self.make(stretch, &mut walk, with.limits.segment_size(stretch.number, 0))?,
        };
        let mut what = String::from(if self.dry_run { "would be made again" } else { "made again" });
        what.push_str(match (stretch.events, &stretch.there) {
            (0, None) => ": no event was in it",
            (_, None) => " from its rows, proved by the chain of headers",
            (_, Some(_)) => ": frames at its end, from their rows, proved by the chain of headers",
        });
        if let Some(kept) = &kept {
            what = format!("{what}; what was there is in {}", kept.display());
        }
        let mut finding = Finding::new(FindingKind::HealedFrame, what).at(&path, stretch.start.offset);
        if stretch.events > 0 {
            finding = finding.seqs(stretch.start.seq, stretch.next_seq - 1);
        }
        done.healed_events += stretch.events;
        done.quarantined.extend(kept);
        remade.files.push(path);
        Ok(Some(finding))
    }

    /// Makes a segment. What had its name goes to quarantine.
    fn make(&self, stretch: &Stretch, walk: &mut Walk<'_>, usual: u64) -> Result<Option<PathBuf>> {
        let number = stretch.number;
        let header = SegmentHeader {
            store: self.store,
            number,
            first_seq: stretch.start.seq,
            first_retained: self.first_retained.min(stretch.start.seq),
            size: usual.max((stretch.end + stretch.again.len()).next_multiple_of(HEADER_BLOCK)),
            created_at: stretch.made_at.unwrap_or_else(|| crate::time::Timestamp::now().as_micros()),
            previous: stretch.start.previous,
        };
        sync_dirs(self.log, false)?;
        let kept = quarantine::keep_file(self.log, number)?;
        let path = self.log.segment_path(number);
        segment::create_with(self.log.disk.as_ref(), &self.log.log_dir(), &header, |file| {
            fill(walk, stretch.end, &path, |bytes, offset| file.write_all_at(bytes, offset))?;
            // In one file with the events: whatever interrupts this, they are not there without it (P8).
            let now = crate::time::Timestamp::now().as_micros();
            let records = stretch.again.frames(&Seed::new(self.store, number), &walk.chain, now);
            file.write_all_at(&records, stretch.end)
                .map_err(|error| Error::io_at("write", &path, stretch.end, error))
        })?;
        Ok(kept)
    }

    /// Writes frames behind those that a segment has.
    fn go_on(&self, header: &SegmentHeader, stretch: &Stretch, walk: &mut Walk<'_>) -> Result<PathBuf> {
        let path = self.log.segment_path(stretch.number);
        let surveyed = survey(&mut self.log.reader(header)?, None, None)?;
        let file = self.log.open_file(stretch.number, true)?;
        let (start, end) = (stretch.start.offset, surveyed.stray_end.max(stretch.end));
        let kept = quarantine::keep(self.log, file.as_ref(), stretch.number, start, end)?;
        walk.size = header.size;
        fill(walk, stretch.end, &path, |bytes, offset| file.write_all_at(bytes, offset))?;
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        Ok(kept)
    }
}

/// Writes what the walk meets up to `end`.
fn fill(
    walk: &mut Walk<'_>,
    end: u64,
    path: &std::path::Path,
    put: impl Fn(&[u8], u64) -> std::io::Result<()>,
) -> Result<()> {
    while walk.chain.offset < end {
        let start = walk.chain.offset;
        let mark = walk.mark();
        let failed = |error| Error::io_at("write", path, start, error);
        if let Some(found) = walk.next()? {
            found.mark.map_or(Ok(()), |bytes| put(&bytes, start)).map_err(failed)?;
            put(&found.bytes, found.offset).map_err(failed)?;
        } else if let Some((bytes, after)) = mark.filter(|(_, after)| after.offset == end) {
            put(&bytes, start).map_err(failed)?;
            walk.chain = after;
        } else {
            return Err(failed(std::io::Error::other("rows have changed meanwhile; run the repair again")));
        }
    }
    Ok(())
}
