//! Mending on demand: the rows from the log, and the log from the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::lock::{WriterLock, writer_lives};
use crate::log::damage::all_gone;
use crate::log::deletion;
use crate::log::directory::LogDir;
use crate::log::loss;
use crate::log::lost_records;
use crate::log::open::{OpenLog, Recovered, newest};
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::Limits;
use crate::projection::schema::Schema;
use crate::projection::{Connection, database_path};
use crate::replay::ReplayReport;
use crate::time::Timestamp;

use super::evidence::{self, Fallback, Peeked};
use super::histories::{self, Log};
use super::open;
use super::{OpenReport, Options, Store};

/// What a repair of the log did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Events whose frames came back, bit for bit.
    pub healed_events: u64,
    /// What was healed, cleared or noticed.
    pub findings: Vec<Finding>,
    /// Files with the bytes that were put aside.
    pub quarantined: Vec<PathBuf>,
    /// What could not be brought back. Appends are refused while there is any.
    pub lost: Vec<Finding>,
    /// How many events [`Store::accept_loss`] would have to name to give up what is lost. Where damaged
    /// bytes do not tell how many events they held, as many are counted as could have been there. `None`
    /// where nothing is lost, where giving up does not help, and where a repair must come first.
    pub acceptable: Option<u64>,
    /// Events that were given up by this call.
    pub given_up: u64,
    /// The newest event that anybody has seen.
    seen: Option<Witness>,
}

impl<E: Event> Store<E> {
    /// Compares every row with its event, both ways, and mends what differs; or builds a new
    /// database. Takes the lock, so no other handle may be writing.
    pub fn replay(
        dir: impl AsRef<Path>,
        options: Options,
        rebuild: bool,
    ) -> Result<(ReplayReport, OpenReport)> {
        let options = options.create(false).projection(true);
        let mut opened = open::open::<E>(Arc::new(RealDisk), dir.as_ref(), &options, false)?;
        let position = opened.writer.position();
        opened.bring_up::<E>(options.projection_wait)?;
        // What opening has just built or mended is not counted a second time.
        let before = opened.projector.report.clone();
        if !before.rebuilt {
            // Told again with every other event.
            opened.report.findings.retain(|finding| !finding.kind.is_unread());
            opened
                .projector
                .replay_all::<E>(position, rebuild, options.projection_wait)
                .map_err(|stop| stop.into_error(&opened.projector.database))?;
        }
        let mended = before.restored + before.replaced;
        if !opened.projector.report.rebuilt {
            let report = &mut opened.projector.report;
            report.already_present = report.already_present.saturating_sub(mended);
        }
        opened.writer.mark()?;
        opened.writer.note_tail();
        opened.report.findings.append(&mut opened.projector.findings);
        Ok((opened.projector.report, opened.report))
    }

    /// Records that these events are deleted, stretches in their order, and takes their rows away. Takes the
    /// lock, so no other handle may be writing.
    pub(crate) fn delete(dir: &Path, options: Options, ranges: &[(u64, u64)]) -> Result<()> {
        let options = options.create(false).projection(true);
        let mut opened = open::open::<E>(Arc::new(RealDisk), dir, &options, false)?;
        for record in deletion::records(ranges) {
            opened.writer.append_deletion(&record, Timestamp::now().as_micros())?;
        }
        // The record is durable: where the rows cannot follow now, they do so with the next opening.
        if let Err(error) = opened.bring_up::<E>(options.projection_wait) {
            tracing::warn!(%error, "the rows of deleted events are still there");
        }
        opened.writer.note_tail();
        Ok(())
    }

    /// Brings damaged frames back from their rows, in every segment, and returns what came back and
    /// what is lost. With `dry_run` nothing changes. With `trust_log` an applied seq beyond the
    /// log's end is given up: the log is taken for whole.
    pub fn repair(
        dir: impl AsRef<Path>,
        options: Options,
        dry_run: bool,
        trust_log: bool,
    ) -> Result<RepairReport> {
        let schema = Schema::of::<E>()?;
        let dir =
            crate::disk::absolute(dir.as_ref()).map_err(|error| Error::io("resolve", dir.as_ref(), error))?;
        let mut log = LogDir::new(Arc::new(RealDisk), &dir);
        let found = open::contents(&log)?;
        // Where the whole log is gone, rows may prove what was in it.
        if !matches!(found, open::Contents::Store | open::Contents::LogMissing) {
            return Err(open::no_store(&log, &found, false));
        }
        open::check_type::<E>(&log)?;
        let lock =
            if dry_run { None } else { Some(WriterLock::acquire(&log.disk, &dir, options.lock_wait)?) };
        if let Some(lock) = &lock {
            log = LogDir::locked(lock);
        }
        let store = log.list()?.segments.last().map(|header| header.store);
        let fallback = match &lock {
            Some(_) => Fallback::ReadWrite,
            None if writer_lives(&RealDisk, &dir)? => Fallback::Nothing,
            None => Fallback::FileAlone,
        };
        let peeked = evidence::peek(&log, &schema, store, options.projection_wait, fallback);
        if let Some(unread) = &peeked.unread {
            // A row that nobody could look at is no proof of a loss.
            let reason =
                format!("the rows may hold what the log lacks, and cannot be read ({})", unread.reason);
            return Err(Error::Projection { path: database_path(&dir), reason, busy: unread.busy });
        }
        let mut rows = peeked.rows::<E>(&schema);
        let mut with = OpenLog {
            limits: Limits::default(),
            witness: peeked.witness(store),
            claim: peeked.claim(store),
            trust_log,
            tail: None,
            donor: &mut rows,
            unread: None,
        };
        let (mut done, mut lost) = crate::log::open::repair(&log, &mut with, dry_run)?;
        if found == open::Contents::LogMissing && done.healed_events == 0 && lost.is_empty() {
            lost.push(all_gone(&log, None)); // no row and no witness tells what was in it
        }
        let settled = !dry_run || done.healed_events == 0;
        let two_histories = match LogView::open(log.clone(), None, false)? {
            Some(view) => {
                let found = Log::of(&view);
                if trust_log && !dry_run && lost.is_empty() {
                    put_aside::<E>(&found, peeked.own(), &schema, &mut done)?;
                    let then = "the log is trusted, so they are shown again";
                    let last = view.last_seq();
                    tell_lost_records::<E>(&log, &peeked, &schema, last, then, &mut done.findings)?;
                    false
                } else {
                    let found = histories::findings::<E>(&found, &peeked.sources(), &schema)?;
                    lost.extend(found.iter().cloned());
                    !found.is_empty()
                }
            }
            None => false,
        };
        // Giving events up would not tell which history is to go on.
        let acceptable = if lost.is_empty() || !settled || two_histories {
            None
        } else {
            let plan = loss::plan(&log, newest(peeked.witness(store), done.seen), peeked.store())?;
            if let Some(plan) = &plan {
                let then = "`synclog repair --accept-loss` records it anew, `--trust-log` brings them back";
                let last = plan.last_seq();
                tell_lost_records::<E>(&log, &peeked, &schema, last, then, &mut done.findings)?;
            }
            plan.map(|plan| plan.events())
        };
        drop((lock, peeked));
        if trust_log && !dry_run && lost.is_empty() {
            // The rows beyond the log's end are set aside, and the applied seq is the log's again.
            let options = options.create(false).projection(true);
            open::open::<E>(Arc::new(RealDisk), &dir, &options, true)?
                .bring_up::<E>(options.projection_wait)?;
            // Only now: what was just replaced is among them.
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let lock = WriterLock::acquire(&disk, &dir, options.lock_wait)?;
            evidence::overrule(&LogDir::locked(&lock))?;
        }
        Ok(RepairReport {
            healed_events: done.healed_events,
            findings: done.findings,
            quarantined: done.quarantined,
            lost,
            acceptable,
            given_up: 0,
            seen: done.seen,
        })
    }

    /// Repairs, and gives up what could not be brought back, if that are `events` events: a gap is written
    /// where they were, so that the log says so ever after, and appends are taken again. Damaged bytes are
    /// kept in `quarantine/`, rows of what was lost are set aside. With another number nothing is given up,
    /// and the report says which number it would have to be.
    ///
    /// A lost event is gone for good where no copy of it exists: look for one first.
    pub fn accept_loss(dir: impl AsRef<Path>, options: Options, events: u64) -> Result<RepairReport> {
        let dir = dir.as_ref();
        let mut report = Self::repair(dir, options.clone(), false, false)?;
        if report.acceptable != Some(events) {
            return Ok(report);
        }
        let schema = Schema::of::<E>()?;
        let dir = crate::disk::absolute(dir).map_err(|error| Error::io("resolve", dir, error))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let lock = WriterLock::acquire(&disk, &dir, options.lock_wait)?;
        let log = LogDir::locked(&lock);
        // Looked at again under this lock: somebody may have mended it meanwhile.
        let store = log.list()?.segments.last().map(|header| header.store);
        let peeked = evidence::peek(&log, &schema, store, options.projection_wait, Fallback::ReadWrite);
        let plan = loss::plan(&log, newest(peeked.witness(store), report.seen), peeked.store())?;
        let Some(plan) = plan.filter(|plan| plan.events() == events && peeked.unread.is_none()) else {
            return Ok(report);
        };
        // Where the newest segment is sound, before anything else, so that no crash comes in between.
        match record_again::<E>(&log, &peeked, &schema, plan.last_seq(), &mut report) {
            // Where it is not, that comes first.
            Ok(()) | Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut done = loss::give_up(&log, &plan, Timestamp::now().as_micros())?;
        report.findings.append(&mut done.findings);
        record_again::<E>(&log, &peeked, &schema, plan.last_seq(), &mut report)?;
        report.quarantined.append(&mut done.quarantined);
        report.given_up = events;
        report.acceptable = None;
        report.lost.clear();
        drop((lock, peeked));
        let (_, opened) = Self::replay(&dir, options, false)?;
        report.findings.extend(opened.findings);
        Ok(report)
    }
}

/// Writes deletion records of events up to `last` anew that are lost with what is given up (P8).
fn record_again<E: Event>(
    log: &LogDir,
    peeked: &Peeked,
    schema: &Schema,
    last: u64,
    report: &mut RepairReport,
) -> Result<()> {
    let store = log.list()?.segments.last().map(|header| header.store);
    let Some(witness) = peeked.witness(store) else { return Ok(()) };
    let mut with = OpenLog {
        limits: Limits::default(),
        witness: Some(witness),
        claim: None,
        trust_log: false,
        tail: None,
        donor: &mut peeked.rows::<E>(schema),
        unread: None,
    };
    let mut done = Recovered::default();
    lost_records::write_again(log, &mut with, last.min(witness.seq), &mut done)?;
    report.findings.append(&mut done.findings);
    report.quarantined.append(&mut done.quarantined);
    Ok(())
}

/// Names what was deleted, up to event `last`, by records that are in what is lost, and what becomes of it `then`.
fn tell_lost_records<E: Event>(
    log: &LogDir,
    peeked: &Peeked,
    schema: &Schema,
    last: u64,
    then: &str,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let segments = log.list()?.segments;
    let Some(witness) = peeked.witness(segments.last().map(|header| header.store)) else { return Ok(()) };
    let last = last.min(witness.seq);
    let lost = lost_records::lost(log, &segments, &[], last, &mut peeked.rows::<E>(schema))?;
    for record in deletion::records(&lost) {
        let (Some((first, _)), Some((_, last))) = (record.ranges.first(), record.ranges.last()) else {
            continue;
        };
        let what = format!(
            "the database says that these events ({} stretch(es)) were deleted, and the log does not tell any \
             more: {then}",
            record.ranges.len()
        );
        findings.push(Finding::new(FindingKind::AbsenceUnproved, what).seqs(*first, *last));
    }
    Ok(())
}

/// Keeps the history of the rows, where it is not the log's: the log's rows are about to take its place.
fn put_aside<E: Event>(
    log: &Log<'_>,
    db: Option<&Connection>,
    schema: &Schema,
    done: &mut Recovered,
) -> Result<()> {
    let Some(db) = db else { return Ok(()) };
    let database = database_path(&log.dir.store_dir);
    let Some(fork) = histories::of_rows::<E>(log, &database, db, schema)? else { return Ok(()) };
    let (path, finding) = histories::put_aside::<E>(log.dir, &fork, db, schema)?;
    done.findings.push(finding);
    done.quarantined.push(path);
    Ok(())
}
