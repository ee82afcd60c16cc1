//! Looking at a log without writing to it: how far may a reader go, and what is wrong.

use std::collections::HashSet;

use crate::error::Result;
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::cursor::{Cursor, Horizon, Segments};
use super::damage::{beyond_finding, cut_batch_finding, known_end, name_damage};
use super::directory::{LogDir, Unfit, Unusable};
use super::fork;
use super::heal::Donor;
use super::open::newest;
use super::recovery::{Verdict, decide};
use super::salvage;
use super::segment::{FIRST_FRAME, SegmentHeader};
use super::survey::{Chain, Sighting, Witness, survey};
use super::tail;

/// A log as a reader sees it at one moment.
pub(crate) struct LogView {
    pub(crate) log: LogDir,
    pub(crate) store: StoreId,
    /// The segments with a sound header.
    pub(crate) segments: Segments,
    pub(crate) horizon: Horizon,
    /// The seq behind the last event that is proved durable: no power cut takes back what is before.
    pub(crate) proved_seq: u64,
    /// What is wrong with the list of segments and with the last one's tail.
    pub(crate) findings: Vec<Finding>,
    /// The first damage in the last segment, where something behind it proves that there was more.
    /// Whoever reads the events meets each damage by itself; this is for those who do not.
    pub(crate) damage: Option<Finding>,
    pub(crate) sighting: Sighting,
    /// Where the frames end, or the batch starts that has no end there, and whether a writer would cut anything off
    /// behind that; `None` beside a live writer.
    pub(crate) end: Option<(Chain, bool)>,
}

impl LogView {
    /// Looks at the log. Beside a live writer only what is proved durable counts, by the log itself
    /// or by the witness. `None` where there is no segment at all.
    pub(crate) fn open(log: LogDir, witness: Option<Witness>, live_writer: bool) -> Result<Option<Self>> {
        // Before the list: a writer that goes on meanwhile must not make the witness look ahead of it.
        let tail = tail::read(&log)?;
        let mut listing = log.list()?;
        let parts = salvage::readable(&log, &listing)?;
        log.add_parts(&mut listing, &parts);
        let mut findings = listing.refusals;
        findings.extend(listing.notes);
        for (number, at) in listing.damaged_copies {
            let what =
                "one of two copies of the segment's header is damaged; `synclog repair` writes it again";
            findings
                .push(Finding::new(FindingKind::DamagedHeaderCopy, what).at(log.segment_path(number), at));
        }
        let Some(active) = listing.segments.last().copied() else {
            return Ok(None);
        };
        findings.extend(tail::foreign(tail, active.store, log.tail_path()));
        let witness = newest(witness, tail::of_store(tail, active.store));
        let mut view = Self {
            store: active.store,
            segments: Segments { headers: listing.segments, parts, ..Segments::default() },
            horizon: Horizon { segment: active.number, offset: FIRST_FRAME, seq: active.first_seq },
            proved_seq: active.first_seq,
            findings,
            damage: None,
            sighting: Sighting::Elsewhere,
            end: None,
            log,
        };
        view.judge(&active, witness, live_writer)?;
        // One that is longer than it was has lost nothing at its end.
        let open = |unusable: &&Unusable| {
            unusable.number >= active.number
                && !matches!(unusable.why, Unfit::Length(header) if unusable.len > header.size)
        };
        let open = listing.unusable.iter().filter(open).map(|unusable| unusable.number);
        view.tell_open_end(open.collect());
        Ok(Some(view))
    }

    /// Where the newest segment is not whole, what is left does not tell where the log ended.
    fn tell_open_end(&mut self, unusable: Vec<u64>) {
        let last = self.last_seq();
        let paths: HashSet<_> = unusable.into_iter().map(|number| self.log.segment_path(number)).collect();
        for finding in &mut self.findings {
            if finding.kind == FindingKind::BadSegment
                && finding.file.as_ref().is_some_and(|file| paths.contains(file))
            {
                finding.detail = format!(
                    "{}; the log is read up to event {last}, and whether more events stood in this file, nothing \
                     in it tells",
                    finding.detail
                );
            }
        }
    }

    fn judge(&mut self, active: &SegmentHeader, witness: Option<Witness>, live_writer: bool) -> Result<()> {
        let is_part = self.segments.parts.contains(active);
        let mut reader = if is_part { self.log.reader_of_part(active)? } else { self.log.reader(active)? };
        let mut surveyed = survey(&mut reader, witness, None)?;
        if live_writer {
            // A frame may have been read while it was being written; then a second look finds it whole.
            for _ in 0..3 {
                if !surveyed.evidence.proof_beyond {
                    break;
                }
                reader.refresh();
                surveyed = survey(&mut reader, witness, None)?;
            }
        }
        self.sighting = surveyed.sighting;
        self.segments.waypoints = std::mem::take(&mut surveyed.waypoints);
        self.proved_seq = match surveyed.sighting {
            Sighting::Here(end) => end.seq.max(surveyed.proved_seq),
            _ => surveyed.proved_seq,
        };
        if live_writer {
            let proved =
                Horizon { segment: active.number, offset: surveyed.proved_end, seq: surveyed.proved_seq };
            self.horizon = match surveyed.sighting {
                Sighting::Here(end) if end.offset > proved.offset => {
                    Horizon { segment: active.number, offset: end.offset, seq: end.seq }
                }
                _ => proved,
            };
            self.findings.extend(beyond_finding(&self.log, &surveyed, active, witness));
            return Ok(());
        }
        self.horizon = match surveyed.open_batch {
            Some(batch) if !surveyed.evidence.proof_beyond => {
                Horizon { segment: active.number, offset: batch.offset, seq: batch.seq }
            }
            _ => known_end(active.number, &surveyed),
        };
        let stray = surveyed.stray_end > surveyed.end.offset || surveyed.open_batch.is_some();
        self.end = Some((surveyed.open_batch.unwrap_or(surveyed.end), stray));
        let path = self.log.segment_path(active.number);
        let row = decide(surveyed.evidence);
        match row.verdict {
            // What a file that was cut ends in is no unfinished append.
            Verdict::CleanEnd | Verdict::TornTail | Verdict::DamagedFiller if is_part => {
                self.findings.extend(name_damage(&self.log, &surveyed, active, None, &self.segments.parts)?);
            }
            Verdict::Corruption => {
                if !surveyed.evidence.proof_beyond {
                    self.findings.extend(name_damage(
                        &self.log,
                        &surveyed,
                        active,
                        None,
                        &self.segments.parts,
                    )?);
                }
                if known_end(active.number, &surveyed).offset > surveyed.end.offset {
                    let what = format!("{}; `synclog verify` names each damage", surveyed.fault.describe());
                    let finding = Finding::new(FindingKind::DamagedFrame, what);
                    self.damage = Some(finding.seq(surveyed.end.seq).at(&path, surveyed.end.offset));
                }
                self.findings.extend(beyond_finding(&self.log, &surveyed, active, witness));
                self.findings.extend(cut_batch_finding(&self.log, &surveyed, active));
            }
            Verdict::TornTail | Verdict::DamagedFiller => {
                let kind = if row.verdict == Verdict::TornTail {
                    FindingKind::TornTail
                } else {
                    FindingKind::DamagedFiller
                };
                let what = format!("{} bytes behind the log's end; the next append puts them aside", {
                    surveyed.stray_end - surveyed.end.offset
                });
                self.findings.push(Finding::new(kind, what).at(path, surveyed.end.offset));
            }
            _ => {}
        }
        Ok(())
    }

    /// The same with rows that may know events behind the log's end, and with an applied seq that no row vouches for:
    /// as recovery would ask them.
    pub(crate) fn open_beside(
        log: LogDir,
        witness: Option<Witness>,
        claim: Option<Witness>,
        donor: &mut dyn Donor,
        live_writer: bool,
    ) -> Result<Option<Self>> {
        let Some(view) = Self::open(log.clone(), witness, live_writer)? else { return Ok(None) };
        let behind = view.known_behind(claim, donor)?;
        if newest(witness, behind) == witness {
            return Ok(Some(view));
        }
        Self::open(log, behind, live_writer)
    }

    fn known_behind(&self, claim: Option<Witness>, donor: &mut dyn Donor) -> Result<Option<Witness>> {
        let Some((end, stray)) = self.end else { return Ok(None) };
        let rows = fork::follow(self.store, self.horizon.segment, end, donor)?;
        Ok(newest(claim.filter(|claim| stray && claim.seq >= end.seq), rows.seen))
    }

    /// The seq of the last event, 0 where there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.horizon.seq - 1
    }

    /// The seq of the first event that the log still has.
    pub(crate) fn first_seq(&self) -> u64 {
        self.segments.headers.first().map_or(1, |header| header.first_seq)
    }

    /// A cursor before event `from`, and what is missing before it.
    pub(crate) fn cursor(&self, from: u64) -> Result<(Cursor, Vec<Finding>)> {
        Cursor::new(self.log.clone(), &self.segments, from, self.horizon)
    }

    /// A cursor behind event `seq`, before all that stands there: a deletion record may be the last of its segment.
    pub(crate) fn cursor_behind(&self, seq: u64) -> Result<Cursor> {
        let (cursor, _) = self.cursor(seq)?;
        Ok(cursor.starting_at(seq + 1))
    }

    /// Cursors over the whole log, at most `most` of them, each over a run of segments of about the same
    /// size; and what is missing before the first one.
    pub(crate) fn cursors(&self, most: usize) -> Result<(Vec<Cursor>, Vec<Finding>)> {
        let (first, missing) = self.cursor(self.first_seq())?;
        let mut runs = vec![first];
        let inside: Vec<_> =
            self.segments.headers.iter().filter(|header| header.number <= self.horizon.segment).collect();
        let total: u64 = inside.iter().map(|header| header.size).sum();
        let mut before = 0;
        for header in inside {
            if before * most as u64 >= total * runs.len() as u64 && before > 0 {
                // The run before ends where this one starts.
                let start = Horizon { segment: header.number, offset: FIRST_FRAME, seq: header.first_seq };
                if let Some(last) = runs.last_mut() {
                    last.stop_at(start);
                }
                let parts = self.segments.parts.clone();
                runs.push(Cursor::at_segment_of(self.log.clone(), *header, parts, self.horizon)?);
            }
            before += header.size;
        }
        Ok((runs, missing))
    }
}
