//! Opening a log for writing: recovery. Can be interrupted anywhere and run again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::cursor::Segments;
use super::damage::{all_gone, beyond_finding, cut_batch_finding, name_damage, name_gaps};
use super::directory::{Listing, LogDir};
use super::fork;
use super::heal::{self, Donor, Patch};
use super::lost_records;
use super::quarantine;
use super::recovery::{Verdict, decide};
use super::remake::remake;
use super::salvage::salvage;
use super::segment::{self, FIRST_FRAME, HEADER_BLOCK, SegmentHeader, SegmentReader};
use super::survey::{Sighting, Survey, Witness, survey, walk};
use super::tail;
use super::writer::{Limits, LogWriter};

/// What recovery found and did.
#[derive(Clone, Default)]
pub(crate) struct Recovered {
    /// The names of the rows of the decision table that decided, in order.
    pub(crate) rows: Vec<&'static str>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) quarantined: Vec<PathBuf>,
    /// Bytes that were written again because nothing proved them durable.
    pub(crate) rewritten_bytes: u64,
    pub(crate) healed_events: u64,
    pub(crate) sighting: Option<Sighting>,
    /// The newest event that anybody has seen.
    pub(crate) seen: Option<Witness>,
    pub(crate) created: bool,
    pub(crate) segments: Segments,
}

/// What opening for writing needs to know.
pub(crate) struct OpenLog<'a> {
    pub(crate) limits: Limits,
    pub(crate) witness: Option<Witness>,
    /// An applied seq that has no row to vouch for it. It counts only where bytes at the log's end would be cut off:
    /// those may be what it speaks of.
    pub(crate) claim: Option<Witness>,
    pub(crate) donor: &'a mut dyn Donor,
    /// There may be a witness, but it cannot be read now. Then nothing is ever cut off: the bytes
    /// could be what the witness proves.
    pub(crate) unread: Option<Unread>,
    /// The log is taken for whole, whatever witnesses say.
    pub(crate) trust_log: bool,
    /// What the file `tail` says; read when the log is opened.
    pub(crate) tail: Option<Witness>,
}

/// Why a witness cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) reason: String,
    /// Another process holds it, so waiting helps.
    pub(crate) busy: bool,
}

impl OpenLog<'_> {
    /// Asks the log's own witness, or silences both. What is odd about it is told.
    fn choose_witness(&mut self, log: &LogDir, store: StoreId, dry_run: bool) -> Result<Option<Finding>> {
        if !self.trust_log {
            let found = tail::read(log)?;
            self.tail = tail::of_store(found, store);
            return Ok(tail::foreign(found, store, log.tail_path()));
        }
        (self.witness, self.claim) = (None, None);
        if dry_run {
            return Ok(None);
        }
        match log.disk.remove(&log.tail_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &log.tail_path(), error))
            }
            _ => Ok(None),
        }
    }
}

/// Of two witnesses the one that has seen more.
pub(crate) fn newest(one: Option<Witness>, other: Option<Witness>) -> Option<Witness> {
    match (one, other) {
        (Some(one), Some(other)) if other.seq > one.seq => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// Makes the first segment of a new log. Every directory on the way is made durable (P1).
pub(crate) fn create(log: &LogDir, limits: Limits, now: i64) -> Result<(LogWriter, Recovered)> {
    create_as(log, limits, now, StoreId::random()?)
}

/// Makes a new log whose identity is given, so that it can be made again byte for byte.
pub(crate) fn create_as(
    log: &LogDir,
    limits: Limits,
    now: i64,
    store: StoreId,
) -> Result<(LogWriter, Recovered)> {
    sync_dirs(log, true)?;
    let header = SegmentHeader {
        store,
        number: 1,
        first_seq: 1,
        first_retained: 1,
        size: limits.segment_size(1, 0),
        created_at: now,
        previous: 0,
    };
    let file = segment::create(log.disk.as_ref(), &log.log_dir(), &header)?;
    let survey = survey(&mut SegmentReader::new(log.segment_path(1), header, Arc::clone(&file)), None, None)?;
    let writer = LogWriter::new(log.clone(), limits, header, file, &survey)?;
    Ok((writer, Recovered { created: true, segments: vec![header].into(), ..Recovered::default() }))
}

/// Makes the entries of the log in its directories durable. The directory above the store need not be
/// readable for a store that is there already: its making has synced it.
pub(super) fn sync_dirs(log: &LogDir, new: bool) -> Result<()> {
    let log_dir = log.log_dir();
    log.disk.create_dir(&log_dir).map_err(|error| Error::io("create", &log_dir, error))?;
    for dir in [&log_dir, &log.store_dir] {
        log.disk.sync_dir(dir).map_err(|error| Error::io("sync the directory", dir, error))?;
    }
    let Some(parent) = log.store_dir.parent() else { return Ok(()) };
    match log.disk.sync_dir(parent) {
        Err(error) if !new && error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map_err(|error| Error::io("sync the directory", parent, error)),
    }
}

/// Opens an existing log for writing. The caller holds the lock.
#[cfg(any(test, fuzzing))]
pub(crate) fn open(log: &LogDir, with: OpenLog<'_>) -> Result<(LogWriter, Recovered)> {
    open_listed(log, log.list()?, with)
}

/// The same where the segments are listed under the lock already.
pub(crate) fn open_listed(
    log: &LogDir,
    listing: Listing,
    mut with: OpenLog<'_>,
) -> Result<(LogWriter, Recovered)> {
    if !listing.refusals.is_empty() {
        return Err(refusal(log, listing, &mut with)?);
    }
    let Some(active) = listing.segments.last().copied() else {
        return Err(Error::NoStore { dir: log.store_dir.clone() });
    };
    let mut done = Recovered { findings: listing.notes, ..Recovered::default() };
    done.findings.extend(with.choose_witness(log, active.store, false)?);
    sync_dirs(log, false)?;
    for path in &listing.unfinished {
        log.disk.remove(path).map_err(|error| Error::io("remove", path, error))?;
    }
    for (number, at) in &listing.damaged_copies {
        heal_header_copy(log, *number, *at, &mut done)?;
    }

    let file = log.open_file(active.number, true)?;
    let mut mend = Mender { log, done: &mut done, parts: &[], dry_run: false, broken: false, kept_to: 0 };
    let surveyed = mend.segment(&active, &file, None, true, &mut with)?;
    // Only where the last segment holds no frame yet is its predecessor not sealed.
    if !surveyed.has_frames
        && let Some(before) = listing.segments.iter().rev().nth(1)
    {
        let file = log.open_file(before.number, true)?;
        mend.segment(before, &file, Some(&active), false, &mut with)?;
    }
    write_again(log, &active, &file, &surveyed, &mut done)?;
    done.sighting = Some(surveyed.sighting);
    done.segments =
        Segments { headers: listing.segments, waypoints: surveyed.waypoints.clone(), ..Segments::default() };
    Ok((LogWriter::new(log.clone(), with.limits, active, file, &surveyed)?, done))
}

/// The error for segments that are missing or none of this log: with what witnesses have seen behind the last one.
fn refusal(log: &LogDir, listing: Listing, with: &mut OpenLog<'_>) -> Result<Error> {
    let mut findings = listing.refusals;
    if let Some(active) = listing.segments.last().filter(|_| !with.trust_log) {
        let mut witness = newest(with.witness, tail::of_store(tail::read(log)?, active.store));
        let mut surveyed = survey(&mut log.reader(active)?, witness, None)?;
        let rows = fork::rows_behind(active, &surveyed, with.donor)?;
        if newest(witness, rows.seen) != witness {
            witness = rows.seen;
            surveyed = survey(&mut log.reader(active)?, witness, None)?;
        }
        findings.extend(beyond_finding(log, &surveyed, active, witness));
    }
    Ok(Error::Damaged { dir: log.store_dir.clone(), findings })
}

/// Brings back what can be proved in every segment, sealed ones included, and lists what cannot.
pub(crate) fn repair(
    log: &LogDir,
    with: &mut OpenLog<'_>,
    dry_run: bool,
) -> Result<(Recovered, Vec<Finding>)> {
    let mut done = Recovered::default();
    let parts = salvage(log, with, dry_run, &mut done)?;
    if !with.trust_log
        && let Some(last) = listed(log, &parts)?.segments.last()
    {
        let surveyed = survey(&mut log.reader_of(last, &parts)?, None, None)?;
        let rows = fork::rows_behind(last, &surveyed, with.donor)?;
        with.witness = newest(with.witness, rows.whole);
    }
    let remade = remake(log, with, &listed(log, &parts)?, &parts, dry_run, &mut done)?;
    let listing = listed(log, &parts)?;
    done.findings.extend(listing.notes);
    let mut lost = listing.refusals;
    if listing.segments.is_empty()
        && let Some(seen) = newest(with.witness, tail::read(log)?.map(|(_, witness)| witness))
    {
        lost.push(all_gone(log, Some(seen)));
    }
    if let Some(last) = listing.segments.last() {
        done.findings.extend(with.choose_witness(log, last.store, dry_run)?);
    }
    let broken = !lost.is_empty();
    if !dry_run {
        for (number, at) in &listing.damaged_copies {
            heal_header_copy(log, *number, *at, &mut done)?;
        }
    }
    for (index, header) in listing.segments.iter().enumerate() {
        let later = listing.segments.get(index + 1).filter(|later| later.number == header.number + 1);
        let part = parts.contains(header);
        let file = if part { log.padded(header.number)? } else { log.open_file(header.number, !dry_run)? };
        let mut mend = Mender { log, done: &mut done, parts: &parts, dry_run, broken, kept_to: 0 };
        let last = index + 1 == listing.segments.len();
        match mend.segment(header, &file, later, last, with) {
            Ok(surveyed) if last && !dry_run && !broken => {
                write_again(log, header, &file, &surveyed, &mut done)?;
            }
            Ok(_) => {}
            Err(Error::Damaged { findings, .. }) => lost.extend(findings),
            Err(error) => return Err(error),
        }
    }
    if broken {
        let segments = Segments { headers: listing.segments, parts: parts.clone(), ..Segments::default() };
        name_gaps(log, &segments, &mut lost)?;
    }
    if dry_run {
        lost = remade.leave_out(lost);
    }
    let cut = done.findings.iter().any(|finding| finding.kind == FindingKind::CutSegment);
    if cut && lost.is_empty() && !(dry_run && remade.newest) {
        let listing = listed(log, &parts)?;
        lost_records::behind_cut(log, with, &listing, &parts, dry_run, &mut done)?;
    }
    Ok((done, lost))
}

/// The segments, with those that are put together again in all but writing.
fn listed(log: &LogDir, parts: &[SegmentHeader]) -> Result<Listing> {
    let mut listing = log.list()?;
    log.add_parts(&mut listing, parts);
    let numbers: HashSet<_> = parts.iter().map(|part| part.number).collect();
    let is_part = |number: u64| numbers.contains(&number);
    listing.unusable.retain(|unusable| !is_part(unusable.number));
    let paths: HashSet<_> = parts.iter().map(|part| log.segment_path(part.number)).collect();
    let of_part = |finding: &Finding| finding.file.as_ref().is_some_and(|file| paths.contains(file));
    listing.refusals.retain(|finding| finding.kind != FindingKind::BadSegment || !of_part(finding));
    Ok(listing)
}

fn heal_header_copy(log: &LogDir, number: u64, at: u64, done: &mut Recovered) -> Result<()> {
    let path = log.segment_path(number);
    let Some(header) = log.header_of(number)? else { return Ok(()) };
    let file = log.open_file(number, true)?;
    let kept = quarantine::keep(log, file.as_ref(), number, at, at + HEADER_BLOCK)?;
    file.write_all_at(&header.encode(), at).map_err(|error| Error::io_at("write", &path, at, error))?;
    file.sync().map_err(|error| Error::io("sync", &path, error))?;
    let what = format!("written again from the other copy; the old bytes are in {}", kept.display());
    done.findings.push(Finding::new(FindingKind::HealedFrame, what).at(path, at));
    done.quarantined.push(kept);
    Ok(())
}

/// After a crash or a failed sync, bytes may be valid in memory only: what no header proves is
/// written again and synced before anything is built on it.
fn write_again(
    log: &LogDir,
    header: &SegmentHeader,
    file: &Arc<dyn DiskFile>,
    surveyed: &Survey,
    done: &mut Recovered,
) -> Result<()> {
    let path = log.segment_path(header.number);
    let mut reader = SegmentReader::new(path.clone(), *header, Arc::clone(file));
    let mut offset = surveyed.proved_end.min(surveyed.end.offset);
    done.rewritten_bytes += surveyed.end.offset - offset;
    while offset < surveyed.end.offset {
        let bytes = reader.bytes(offset, (surveyed.end.offset - offset).min(256 * 1024) as usize)?;
        let len = bytes.len() as u64;
        file.write_all_at(bytes, offset).map_err(|error| Error::io_at("write", &path, offset, error))?;
        offset += len;
    }
    file.sync().map_err(|error| Error::io("sync", &path, error))
}

/// How far a segment was healed: up to this offset, and this event.
#[derive(Clone, Copy)]
struct Healed {
    end: u64,
    last_seq: u64,
}

struct Mender<'a> {
    log: &'a LogDir,
    done: &'a mut Recovered,
    /// Segments that are not whole, in a dry run.
    parts: &'a [SegmentHeader],
    /// Tell what would be done, and change nothing.
    dry_run: bool,
    /// Segments are missing: what looks torn may have been sealed, so nothing is taken away.
    broken: bool,
    /// Up to here the damaged bytes of the present segment are kept.
    kept_to: u64,
}

impl Mender<'_> {
    /// Brings one segment into a state that needs no more mending, or fails and names the damage.
    fn segment(
        &mut self,
        header: &SegmentHeader,
        file: &Arc<dyn DiskFile>,
        later: Option<&SegmentHeader>,
        last: bool,
        with: &mut OpenLog<'_>,
    ) -> Result<Survey> {
        // A witness speaks of the newest event it has seen; in a sealed segment it proves nothing
        // that the next segment's header does not prove better.
        let (outside, own) = (with.witness.filter(|_| last), with.tail.filter(|_| last));
        let (mut witness, mut rows) = (newest(outside, own), None);
        let mut ask_rows = last && !with.trust_log;
        let (mut healed_to, mut cleared) = (0, false);
        self.kept_to = 0;
        loop {
            let path = self.log.segment_path(header.number);
            let mut reader = SegmentReader::new(path, *header, Arc::clone(file));
            let surveyed = survey(&mut reader, witness, later)?;
            if std::mem::take(&mut ask_rows) {
                let behind = fork::rows_behind(header, &surveyed, with.donor)?;
                let more = newest(witness, behind.seen) != witness;
                (witness, rows) = (newest(witness, behind.seen), behind.whole);
                if more {
                    continue;
                }
            }
            let row = decide(surveyed.evidence);
            let open_batch = surveyed.open_batch.filter(|_| later.is_none());
            let cuts = row.verdict == Verdict::CleanEnd && open_batch.is_some()
                || matches!(row.verdict, Verdict::TornTail | Verdict::DamagedFiller);
            let from = open_batch.unwrap_or(surveyed.end);
            if let Some(claim) = with.claim.take_if(|claim| last && cuts && claim.seq >= from.seq) {
                witness = newest(witness, Some(claim));
                continue;
            }
            self.done.rows.push(row.name);
            if last {
                self.done.seen = witness;
            }
            match row.verdict {
                Verdict::CleanEnd if open_batch.is_none() => return Ok(surveyed),
                Verdict::CleanEnd | Verdict::TornTail | Verdict::DamagedFiller => {
                    let kind = match (row.verdict, open_batch) {
                        (_, Some(_)) => FindingKind::UnfinishedBatch,
                        (Verdict::DamagedFiller, None) => FindingKind::DamagedFiller,
                        _ => FindingKind::TornTail,
                    };
                    if self.broken {
                        return Ok(surveyed);
                    }
                    if let Some(Unread { reason, busy }) = &with.unread {
                        let reason = format!(
                            "the log ends in bytes of an unfinished append, and only the database can \
                             tell whether they were acknowledged; try again when it can be read ({reason})"
                        );
                        let path = self.log.store_dir.clone();
                        return Err(Error::Projection { path, reason, busy: *busy });
                    }
                    if std::mem::replace(&mut cleared, true) {
                        // Once is enough on any disk that keeps what is written to it.
                        let error = std::io::Error::other("zeros that were written are not there");
                        return Err(Error::io_at(
                            "clear",
                            &self.log.segment_path(header.number),
                            from.offset,
                            error,
                        ));
                    }
                    self.clear(kind, &surveyed, header, file, from.offset)?;
                    if self.dry_run {
                        return Ok(surveyed);
                    }
                }
                Verdict::Corruption => {
                    let healed = if surveyed.end.offset < healed_to {
                        None
                    } else {
                        self.heal(&mut reader, &surveyed, file, later, &[outside, own, rows], with.donor)?
                    };
                    match healed {
                        Some(healed) if self.dry_run => {
                            return self.name_rest(&surveyed, header, later, witness, healed);
                        }
                        Some(healed) => healed_to = healed.end,
                        None => return Err(self.damage(&surveyed, header, later, witness)),
                    }
                }
                // A failed read came back as an error, and refusals came from the listing.
                Verdict::IoError | Verdict::Refuse => {
                    return Err(self.damage(&surveyed, header, later, witness));
                }
            }
        }
    }

    /// Heals from the end of the valid frames on, as long as something behind each damage proves that there was more:
    /// one survey tells that of all of them. `None` where the first damage cannot be healed.
    fn heal(
        &mut self,
        reader: &mut SegmentReader,
        surveyed: &Survey,
        file: &Arc<dyn DiskFile>,
        later: Option<&SegmentHeader>,
        witnesses: &[Option<Witness>],
        donor: &mut dyn Donor,
    ) -> Result<Option<Healed>> {
        let (mut at, mut healed) = (surveyed.end, None);
        let seen = witnesses.iter().copied().fold(None, newest);
        while let Some(patches) = heal::plan(reader, at, witnesses, later, donor)? {
            let header = reader.header;
            let done = self.apply(&patches, &header, file, surveyed.stray_end)?;
            healed = Some(done);
            if self.dry_run {
                return Ok(healed);
            }
            reader.refresh();
            at = walk(reader, at)?;
            // A header that proves what lies before its `durable_end` stands behind that itself.
            let goes_on = surveyed.proved_end > at.offset
                || seen.is_some_and(|seen| seen.seq >= at.seq)
                || later.is_some_and(|later| !at.arrives_at(later));
            if !goes_on || at.offset < done.end {
                break;
            }
        }
        if healed.is_some() {
            file.sync().map_err(|error| Error::io("sync", &reader.path, error))?;
        }
        Ok(healed)
    }

    /// In a dry run only the first heal can be judged; the rest is named as damage.
    fn name_rest(
        &self,
        surveyed: &Survey,
        header: &SegmentHeader,
        later: Option<&SegmentHeader>,
        witness: Option<Witness>,
        healed: Healed,
    ) -> Result<Survey> {
        let Error::Damaged { dir, mut findings } = self.damage(surveyed, header, later, witness) else {
            return Ok(surveyed.clone());
        };
        // One finding may be about events that come back and about others that do not.
        findings.retain_mut(|finding| {
            if finding.offset.is_none_or(|at| at >= healed.end) {
                return true;
            }
            let last = finding.last_seq.or(finding.seq).filter(|last| *last > healed.last_seq);
            if let Some(last) = last {
                *finding = finding.clone().seqs(healed.last_seq + 1, last);
                finding.offset = Some(healed.end);
            }
            last.is_some()
        });
        if findings.is_empty() { Ok(surveyed.clone()) } else { Err(Error::Damaged { dir, findings }) }
    }

    /// Puts everything from `from` on aside and writes zeros in its place.
    fn clear(
        &mut self,
        kind: FindingKind,
        surveyed: &Survey,
        header: &SegmentHeader,
        file: &Arc<dyn DiskFile>,
        from: u64,
    ) -> Result<()> {
        let path = self.log.segment_path(header.number);
        let end = surveyed.stray_end.max(surveyed.end.offset);
        let lost_nothing = match kind {
            FindingKind::DamagedFiller => "stray bytes where nothing had been written",
            FindingKind::UnfinishedBatch => "a batch that was never finished and so never acknowledged",
            _ => "an append that a crash cut off before it was acknowledged",
        };
        if self.dry_run {
            let what = format!("{lost_nothing}; {} bytes would be put aside", end - from);
            self.done.findings.push(Finding::new(kind, what).at(path, from));
            return Ok(());
        }
        let kept = quarantine::keep(self.log, file.as_ref(), header.number, from, end)?;
        zero(file.as_ref(), from, end).map_err(|error| Error::io_at("write zeros to", &path, from, error))?;
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        let what = format!("{lost_nothing}; {} bytes were put aside in {}", end - from, kept.display());
        self.done.findings.push(Finding::new(kind, what).at(path, from));
        self.done.quarantined.push(kept);
        Ok(())
    }

    /// Writes healed frames, to be synced, and returns where they end. The second time in a segment all that
    /// follows is kept, up to `stray_end`: damage to every other frame makes two files and not thousands.
    fn apply(
        &mut self,
        patches: &[Patch],
        header: &SegmentHeader,
        file: &Arc<dyn DiskFile>,
        stray_end: u64,
    ) -> Result<Healed> {
        let path = self.log.segment_path(header.number);
        let start = patches.first().map_or(FIRST_FRAME, |patch| patch.offset);
        let end = patches.last().map_or(start, |patch| patch.offset + patch.bytes.len() as u64);
        if !self.dry_run {
            if end > self.kept_to {
                let to = if self.kept_to == 0 { end } else { end.max(stray_end) };
                let kept = quarantine::keep(self.log, file.as_ref(), header.number, start, to)?;
                self.done.quarantined.push(kept);
                self.kept_to = to;
            }
            for patch in patches {
                file.write_all_at(&patch.bytes, patch.offset)
                    .map_err(|error| Error::io_at("write", &path, patch.offset, error))?;
            }
        }
        for patch in patches {
            let what = match (patch.seq, self.dry_run) {
                (Some(_), false) => "came back from its row, proved by its checksums",
                (Some(_), true) => "would come back from its row, proved by its checksums",
                (None, false) => "a mark was written again",
                (None, true) => "a mark would be written again",
            };
            let mut finding = Finding::new(FindingKind::HealedFrame, what).at(&path, patch.offset);
            finding.seq = patch.seq;
            self.done.findings.push(finding);
            self.done.healed_events += u64::from(patch.seq.is_some());
        }
        let last_seq = patches.iter().filter_map(|patch| patch.seq).max().unwrap_or(0);
        Ok(Healed { end, last_seq })
    }

    /// The error that names each damage in a segment that cannot be mended.
    fn damage(
        &self,
        surveyed: &Survey,
        header: &SegmentHeader,
        later: Option<&SegmentHeader>,
        witness: Option<Witness>,
    ) -> Error {
        let mut findings = match name_damage(self.log, surveyed, header, later, self.parts) {
            Ok(findings) => findings,
            Err(error) => return error,
        };
        findings.extend(beyond_finding(self.log, surveyed, header, witness));
        findings.extend(cut_batch_finding(self.log, surveyed, header));
        if findings.is_empty() {
            // Only somebody who makes checksums fit gets here; even then nothing is refused without a word.
            let what = "a header behind the last frame says that more was durable, and the next segment goes on \
                        without it; put back a copy of this segment";
            let path = self.log.segment_path(header.number);
            findings.push(Finding::new(FindingKind::DamagedFrame, what).at(path, surveyed.end.offset));
        }
        Error::Damaged { dir: self.log.store_dir.clone(), findings }
    }
}

/// Writes zeros to a stretch of a file.
pub(super) fn zero(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; (to - from).min(1024 * 1024) as usize];
    let mut offset = from;
    while offset < to {
        let len = (to - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..len as usize], offset)?;
        offset += len;
    }
    Ok(())
}
