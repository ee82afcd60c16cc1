//! Deletion records that were lost with a part of the log, written anew (P8).
//!
//! A record has neither seq nor row, so nothing proves its bytes. What it had deleted is known all the same: to
//! whoever has followed it and says so of seqs without rows. That is believed only where a part of the log is
//! lost, and only of somebody whose rows are the log's up to its end: in a whole log, what is deleted follows from
//! the log alone (P7). The record that is written instead has the seqs; of an erasure it has no more the company.

use crate::error::Result;
use crate::finding::{Finding, FindingKind};
use crate::time::Timestamp;

use super::cursor::{Cursor, Entry, Horizon};
use super::deletion::{self, Deletion};
use super::directory::{Listing, LogDir};
use super::frame::{self, Draft, MARK_LEN, Seed, frame_len};
use super::heal::Donor;
use super::open::{OpenLog, Recovered, open_listed};
use super::segment::{MAX_SEGMENT, SegmentHeader};
use super::survey::{Chain, Sighting, survey};

/// Which events up to `last` somebody knows to be deleted, and no record that can be read covers. `parts` are
/// segments that are not whole.
pub(crate) fn lost(
    log: &LogDir,
    segments: &[SegmentHeader],
    parts: &[SegmentHeader],
    last: u64,
    donor: &mut dyn Donor,
) -> Result<Vec<(u64, u64)>> {
    let known = donor.deleted(last)?;
    let (Some(first), Some(active), false) = (segments.first(), segments.last(), known.is_empty()) else {
        return Ok(known);
    };
    // To the end of the last segment, whatever is damaged on the way.
    let horizon = Horizon { segment: active.number, offset: active.size, seq: active.first_seq };
    let mut cursor = Cursor::at_segment_of(log.clone(), *first, parts.to_vec(), horizon)?;
    let mut recorded = Vec::new();
    while let Some(entry) = cursor.next()? {
        if let Entry::Deletion { payload } = entry
            && let Some(record) = Deletion::decode(payload)
        {
            recorded.extend(record.ranges);
        }
    }
    Ok(deletion::without(&known, &deletion::merged(recorded)))
}

/// Writes records behind the end of a log that is whole again. Its rows must be known to be the log's up to event
/// `last`.
pub(crate) fn write_again(
    log: &LogDir,
    with: &mut OpenLog<'_>,
    last: u64,
    done: &mut Recovered,
) -> Result<()> {
    let listing = log.list()?;
    let ranges = lost(log, &listing.segments, &[], last, with.donor)?;
    if ranges.is_empty() {
        return Ok(());
    }
    let open = OpenLog { donor: &mut *with.donor, unread: None, ..*with };
    let (mut writer, opened) = open_listed(log, listing, open)?;
    done.findings.extend(opened.findings);
    done.quarantined.extend(opened.quarantined);
    for record in deletion::records(&ranges) {
        writer.append_deletion(&record, Timestamp::now().as_micros())?;
        done.findings.push(finding(&record, false));
    }
    writer.note_tail();
    Ok(())
}

/// Behind the end of a newest segment that was cut. Only where the log has the newest event that the rows have
/// followed, and has it as they do.
pub(super) fn behind_cut(
    log: &LogDir,
    with: &mut OpenLog<'_>,
    listing: &Listing,
    parts: &[SegmentHeader],
    dry_run: bool,
    done: &mut Recovered,
) -> Result<()> {
    let Some(witness) = with.witness else { return Ok(()) };
    let place = listing.segments.iter().rfind(|header| header.first_seq <= witness.seq);
    let Some(place) = place else { return Ok(()) };
    let surveyed = survey(&mut log.reader_of(place, parts)?, Some(witness), None)?;
    if !matches!(surveyed.sighting, Sighting::Here(_)) {
        return Ok(());
    }
    if !dry_run {
        return write_again(log, with, witness.seq, done);
    }
    let ranges = lost(log, &listing.segments, parts, witness.seq, with.donor)?;
    done.findings.extend(deletion::records(&ranges).iter().map(|record| finding(record, true)));
    Ok(())
}

/// Records that go behind the last frame of a segment that is made again.
#[derive(Default)]
pub(super) struct Again(Vec<Deletion>);

impl Again {
    /// As many as there is room for behind `end`; whoever opens the log next writes the rest.
    pub(super) fn behind(end: u64, ranges: &[(u64, u64)]) -> Self {
        let mut again = Self::default();
        for record in deletion::records(ranges) {
            again.0.push(record);
            if end + again.len() > MAX_SEGMENT {
                again.0.pop();
                break;
            }
        }
        again
    }

    /// The bytes that they take in the log, with a mark behind them.
    pub(super) fn len(&self) -> u64 {
        let frames = self.0.iter().map(|record| frame_len(record.encode().len() as u32)).sum::<u64>();
        if self.0.is_empty() { 0 } else { frames + MARK_LEN }
    }

    /// Their frames. All before them is durable together with them.
    pub(super) fn frames(&self, seed: &Seed, end: &Chain, now: i64) -> Vec<u8> {
        let (mut bytes, mut previous) = (Vec::new(), end.previous);
        for record in &self.0 {
            let payload = record.encode();
            let draft = deletion::draft(&payload, end.seq, now, end.offset, previous);
            previous = frame::encode(seed, end.offset + bytes.len() as u64, &draft, &mut bytes);
        }
        if !bytes.is_empty() {
            // A record may hold a sector of zeros, so only a mark tells it from a torn one.
            let at = end.offset + bytes.len() as u64;
            frame::encode(seed, at, &Draft::mark(at, end.seq, previous), &mut bytes);
        }
        bytes
    }

    pub(super) fn findings(&self, dry_run: bool) -> impl Iterator<Item = Finding> {
        self.0.iter().map(move |record| finding(record, dry_run))
    }
}

/// What is told of a record that is written anew.
pub(crate) fn finding(record: &Deletion, dry_run: bool) -> Finding {
    let stretches = record.ranges.len();
    let what = format!(
        "these events ({stretches} stretch(es)) were deleted, as the rows know that reach to the log's end, and \
         the record of it is lost: it {} anew, so that they stay deleted",
        if dry_run { "would be written" } else { "is written" }
    );
    let first = record.ranges.first().map_or(0, |range| range.0);
    let last = record.ranges.last().map_or(0, |range| range.1);
    Finding::new(FindingKind::DeletionRecorded, what).seqs(first, last)
}
