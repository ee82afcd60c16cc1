//! The log read in stretches: the events of each as rows, what has none, and what is damaged.
//!
//! Memory is one step: at most [`STEP_ROWS`] rows or about [`STEP_BYTES`] of payload, whatever the log's size.

use std::sync::mpsc::{channel, sync_channel};

use crate::codec;
use crate::erasures::{Erasures, covers, merged};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Cursor, Entry};
use crate::log::deletion::Deletion;
use crate::log::frame::Header;
use crate::log::view::LogView;
use crate::projection::row::Row;
use crate::projection::{Applied, LOST, Step};
use crate::threads;
use crate::time::Timestamp;

use super::Stop;

pub(super) const STEP_ROWS: usize = 512;
const STEP_BYTES: usize = 1024 * 1024;

/// The finding for a gap, without its place.
pub(crate) fn gap_finding(header: &Header) -> Finding {
    let at = header.gap().map_or(0, |gap| i64::from(gap.accepted_at) * 1_000_000);
    let at = Timestamp::from_micros(at).unwrap_or(Timestamp::MIN);
    let what = format!("lost, and given up at {at}");
    Finding::new(FindingKind::AcceptedLoss, what).seqs(header.seq, header.next_seq() - 1)
}

/// One stretch of the log, ready to be applied or compared.
#[derive(Default)]
pub(crate) struct Stretch {
    pub(crate) step: Step,
    /// Unknown events and damage.
    pub(crate) findings: Vec<Finding>,
    /// Seqs whose frames are damaged or missing: nothing can be said about their rows.
    pub(crate) damaged: Vec<(u64, u64)>,
    pub(crate) events: u64,
    /// The seq of the event behind this stretch.
    pub(crate) next_seq: u64,
    /// Bytes that are not zero behind the last frame of a segment.
    pub(crate) stray: Vec<Finding>,
    /// Erased events: seq, segment, offset.
    erased: Vec<(u64, u64, u64)>,
    /// What a deletion record further on covers.
    pub(super) gone: Vec<(u64, u64)>,
}

impl Stretch {
    /// Takes out the rows of deleted events. The stretch begins at event `from`.
    fn leave_out(&mut self, deleted: &[(u64, u64)], from: u64) {
        let first = deleted.partition_point(|(_, last)| *last < from);
        let behind = deleted.partition_point(|(first, _)| *first < self.next_seq);
        // Both are within it.
        self.gone = deleted.get(first..behind).unwrap_or_default().to_vec();
        if !self.gone.is_empty() {
            self.step.rows.retain(|row| !covers(&self.gone, row.seq));
        }
    }

    /// The events that cannot be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = Finding> {
        self.findings.iter().filter(|finding| finding.kind.is_unread()).cloned()
    }

    /// Hands on what was erased and deleted here.
    pub(crate) fn note_erasures(&self, erasures: &mut Erasures, view: &LogView) {
        for (seq, segment, offset) in &self.erased {
            erasures.erased(*seq, view.log.segment_path(*segment), *offset);
        }
        erasures.deleted(&self.step.deleted);
    }
}

/// Reads the next stretch; `None` at the horizon.
pub(crate) fn gather<E: Event>(cursor: &mut Cursor) -> Result<Option<Stretch>> {
    gather_steps::<E>(cursor, 1)
}

/// The same, of as many steps.
pub(super) fn gather_steps<E: Event>(cursor: &mut Cursor, steps: usize) -> Result<Option<Stretch>> {
    let mut stretch = Stretch::default();
    let log = cursor.log().clone();
    let (mut bytes, mut entries) = (0, 0);
    while stretch.step.rows.len() < steps * STEP_ROWS
        && entries < 4 * steps * STEP_ROWS
        && bytes < steps * STEP_BYTES
    {
        let Some(entry) = cursor.next()? else { break };
        entries += 1;
        if let Entry::Event { payload, .. } | Entry::Deletion { payload } = &entry {
            bytes += payload.len();
        }
        match entry {
            Entry::Event { header, raw, payload } => {
                stretch.events += 1;
                stretch.step.applied = Some(Applied { seq: header.seq, sum: header.sum });
                match codec::row::<E>(&header, raw, payload) {
                    Ok(row) => stretch.step.rows.push(row),
                    Err(unread) => {
                        stretch.step.absent.push((header.seq, header.seq, unread.word()));
                        stretch.findings.push(unread.finding(header.seq));
                        stretch.step.unread_keys.extend(unread.key.map(|key| (header.seq, key)));
                    }
                }
            }
            Entry::Deletion { payload } => {
                if let Some(record) = Deletion::decode(payload) {
                    stretch.step.deleted.extend(record.ranges);
                }
            }
            Entry::Erased { seq, segment, offset, .. } => {
                stretch.events += 1;
                stretch.erased.push((seq, segment, offset));
                stretch.step.absent.push((seq, seq, "erased"));
            }
            Entry::Gap { header, segment, offset } => {
                let (first, last) = (header.seq, header.next_seq() - 1);
                // What the gap says of its last event is where the rows stand behind it.
                stretch.step.applied = Some(Applied { seq: last, sum: header.sum });
                stretch.step.absent.push((first, last, LOST));
                let path = log.segment_path(segment);
                stretch.findings.push(gap_finding(&header).at(path, offset));
            }
            Entry::Damage(finding) => {
                if let Some(first) = finding.seq {
                    stretch.damaged.push((first, finding.last_seq.unwrap_or(first)));
                }
                stretch.findings.push(finding);
            }
        }
    }
    // Whoever reads rows back after a step must not miss one that the step itself takes away.
    let Step { rows, deleted, .. } = &mut stretch.step;
    if !deleted.is_empty() {
        let deleted = merged(deleted.clone());
        rows.retain(|row| !covers(&deleted, row.seq));
    }
    stretch.next_seq = cursor.next_seq();
    stretch.stray = cursor.take_stray();
    Ok((entries > 0).then_some(stretch))
}

/// Which events deletion records cover, as stretches in their order. The records lie behind what they cover.
pub(crate) fn deletions(view: &LogView) -> Result<Vec<(u64, u64)>> {
    let (mut cursor, _) = view.cursor(view.first_seq())?;
    let mut found = Vec::new();
    while let Some(entry) = cursor.next()? {
        if let Entry::Deletion { payload } = entry
            && let Some(record) = Deletion::decode(payload)
        {
            found.extend(record.ranges);
        }
    }
    Ok(merged(found))
}

/// Reads the log to the cursor's horizon in a thread of its own, a few stretches ahead of `each`: reading
/// and decoding take about as long as SQLite takes for its part. `each` gives back the rows that it has done
/// with: the thread that has made them frees them, so that the two do not wait for each other's memory. Where
/// no thread can be had, one thread does both.
///
/// Rows of events that are deleted anywhere in the log are left out.
pub(crate) fn read_ahead<E: Event>(
    view: &LogView,
    mut cursor: Cursor,
    mut each: impl FnMut(Stretch) -> Result<Vec<Row>, Stop>,
) -> Result<(), Stop> {
    const AHEAD: usize = 4;
    const READER: &str = "synclog-read";
    let deleted = deletions(view)?;
    let mut from = cursor.next_seq();
    let mut gather = |cursor: &mut Cursor| {
        let mut stretch = gather::<E>(cursor)?;
        if let Some(stretch) = &mut stretch {
            stretch.leave_out(&deleted, from);
            from = stretch.next_seq;
        }
        Ok::<_, Error>(stretch)
    };
    let (cursor, gather) = (&mut cursor, &mut gather);
    let done = std::thread::scope(|scope| {
        let (sender, stretches) = sync_channel(AHEAD);
        let (give_back, done_with) = channel::<Vec<Row>>();
        let reader = threads::spawn_scoped(scope, READER, || {
            // Moved here, so that they go when this ends.
            let (sender, done_with) = (sender, done_with);
            // Whoever reads no further has dropped the other end.
            while let Some(stretch) = gather(cursor).transpose()
                && let sound = stretch.is_ok()
                && sender.send(stretch).is_ok()
                && sound
            {
                done_with.try_iter().for_each(drop);
            }
        });
        let Ok(reader) = reader else { return None };
        let done = stretches.into_iter().try_for_each(|stretch| {
            // At its end the reader is gone, and takes nothing back.
            drop(give_back.send(each(stretch?)?));
            Ok(())
        });
        // The scope alone would not wait until the thread is gone, only until its work is done. One that died
        // has not read to the end.
        let ended = threads::ended(READER, reader.join());
        Some(done.and_then(|()| Ok(ended?)))
    });
    if let Some(done) = done {
        return done;
    }
    while let Some(stretch) = gather(cursor)? {
        drop(each(stretch)?);
    }
    Ok(())
}
