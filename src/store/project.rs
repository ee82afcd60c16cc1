//! The projector: the thread that brings rows up to what is durable, and keeps trying while another
//! process holds the database. Its backlog is a position in the log, not memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::absences;
use crate::error::Error;
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Cursor, Entry, Segments};
use crate::log::directory::LogDir;
use crate::log::survey::Sighting;
use crate::log::view::LogView;
use crate::log::writer::Position;
use crate::projection::compare::Tally;
use crate::projection::schema::Schema;
use crate::projection::{self, Applied, Connection, Projection, Step, Trouble, compare};
use crate::replay::{self, Prepared, ReplayReport, Stop};
use crate::room::Room;
use crate::standing::Standing;
use crate::store_id::StoreId;
use crate::threads;

use super::commit::{Shared, Turn};
use super::histories::{self, Log};
use super::known::{Counting, Known, KnownRows};
use super::opening::{Halt, Opening};

/// The thread that makes rows.
pub(super) const PROJECTOR: &str = "synclog-project";
/// How long one attempt waits for another process before it lets go and tries again later.
const ATTEMPT: Duration = Duration::from_millis(20);
/// How long to pause after the first failed attempt, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Rows that every opening compares with the log, newest first.
const RECENT_ROWS: u64 = 64;
/// Rows that are added one by one where there are none yet; more are made anew, which is faster.
const EMPTY_UP_TO: u64 = 4096;
/// Stretches of missing rows that an opening mends one by one; with more it compares everything.
const STRETCHES: usize = 64;

/// A database that was opened, and that may be this log's.
struct Found {
    projection: Projection,
    /// It was there before.
    existed: bool,
    counting: Option<Counting>,
}

/// Brings rows up to the log. Owned by whoever projects.
pub(super) struct Projector {
    pub(super) log: LogDir,
    pub(super) store: StoreId,
    pub(super) schema: Schema,
    pub(super) database: PathBuf,
    /// Rows beyond the log's end are given up.
    pub(super) trust_log: bool,
    pub(super) open: Option<(Projection, Cursor)>,
    /// What is prepared of the group that is being synced. It goes with what is open.
    prepared: Option<Prepared>,
    pub(super) report: ReplayReport,
    pub(super) findings: Vec<Finding>,
    /// For the first look at the log and at the rows.
    known: Known,
    /// What the first look at the rows has opened.
    looked_at: Option<(LogView, Found)>,
    /// When to stop in the middle of it.
    pub(super) halt: Halt,
    /// Seqs whose rows still differ after opening has mended them; to be told with the next step.
    unhealed: Vec<u64>,
    /// Whether SQLite may be used.
    pub(super) room: Arc<Room>,
    /// What was told of what is found again and again.
    standing: Standing,
}

impl Projector {
    pub(super) fn new(log: LogDir, store: StoreId, schema: Schema, trust_log: bool, known: Known) -> Self {
        let database = projection::database_path(&log.store_dir);
        let room = Arc::new(Room::new(&log.store_dir));
        Self {
            room,
            standing: Standing::default(),
            log,
            store,
            schema,
            database,
            trust_log,
            open: None,
            prepared: None,
            report: ReplayReport::default(),
            findings: Vec::new(),
            known,
            looked_at: None,
            halt: Halt::default(),
            unhealed: Vec::new(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.log.store_dir.clone()
    }

    /// Opens the database, where it can be used at once, and reads what it proves of the log: whoever appends
    /// must know that first. What takes longer than that is left to [`Projector::bring_up`].
    pub(super) fn look(&mut self, durable: Position) -> Result<(), Stop> {
        let view = self.view(durable)?;
        let found = self.find(&view, ATTEMPT)?;
        self.looked_at = Some((view, found));
        Ok(())
    }

    /// Everything up to `durable` becomes rows: opens and checks the database where that has not
    /// been done, rebuilds it where it cannot be used.
    pub(super) fn bring_up<E: Event>(
        &mut self,
        durable: Position,
        wait: Duration,
        mut applied: impl FnMut(u64, &[u64]),
    ) -> Result<(), Stop> {
        if !self.room.is_back() {
            self.forget();
            return Err(Trouble::Failed(Room::REASON.into()).into());
        }
        if self.open.as_ref().is_some_and(|(projection, _)| !projection.is_in_place()) {
            // Somebody deleted or replaced the file: what this handle writes would be lost.
            self.forget();
        }
        let halt = self.halt.clone();
        let go_on = || !halt.is_due();
        let mut done = self.step::<E>(durable, wait, &go_on, &mut applied);
        if let Err(Stop::View(trouble)) = &done
            && trouble.wants_rebuild()
            && go_on()
        {
            let trouble = trouble.clone();
            self.forget();
            done = self
                .rebuild::<E>(durable, &trouble, wait)
                .and_then(|()| self.step::<E>(durable, wait, &go_on, &mut applied));
        }
        if let Err(stop) = &done {
            self.give_up(stop);
        }
        done
    }

    /// Makes the rows of a group in the thread of whoever made it durable. What cannot be done at once
    /// is left to the thread, and so is what is not done when `until` has passed.
    pub(super) fn follow<E: Event>(
        &mut self,
        durable: Position,
        until: Option<Instant>,
        applied: impl FnMut(u64, &[u64]),
    ) {
        let in_vain = self.prepared.as_ref().is_some_and(|prepared| prepared.next_seq() > durable.seq);
        let ready = self.room.is_there()
            && self.open.as_ref().is_some_and(|(projection, _)| projection.is_in_place());
        let mut applied = applied;
        let go_on = || until.is_none_or(|until| Instant::now() < until);
        let mut made = false;
        if in_vain || !ready {
            self.forget();
        } else {
            match self.step::<E>(durable, ATTEMPT, &go_on, &mut applied) {
                Ok(()) => made = true,
                Err(stop) => self.give_up(&stop),
            }
        }
        self.tell(made);
    }

    /// Puts the rows of a group that is written, and that the disk is about to sync, into a transaction.
    /// [`Projector::follow`] commits it when the group is durable, or takes it back (P2).
    pub(super) fn prepare<E: Event>(&mut self, written: Position) {
        let dir = self.dir();
        let Some((projection, cursor)) = &mut self.open else { return };
        // The log waits for nobody who holds the database.
        if self.prepared.is_some()
            || !self.room.is_there()
            || !projection.is_in_place()
            || projection.set_wait(Duration::ZERO).is_err()
            || projection.begin().is_err()
        {
            return;
        }
        cursor.extend(written);
        match replay::prepare::<E>(projection, cursor, &dir) {
            Ok(prepared) => self.prepared = prepared,
            Err(stop) => return self.give_up(&stop),
        }
        projection.flush();
    }

    /// Something failed: the cursor may be behind events that were not applied, so that all is opened anew. Where it
    /// was for want of room, that waits until there is some.
    fn give_up(&mut self, stop: &Stop) {
        match stop {
            Stop::Log(error) => drop(self.room.note(error)),
            Stop::View(Trouble::Failed(_)) => self.room.suspect(),
            Stop::View(_) => {}
        }
        self.forget();
    }

    /// Closes the database, and takes back what is prepared in it. It is opened and checked when rows are
    /// made again.
    pub(super) fn forget(&mut self) {
        self.prepared = None;
        let (open, looked_at) = (self.open.take(), self.looked_at.take());
        if !self.room.is_there() {
            self.known.rows = None;
            let looked_at = looked_at.map(|(_, found)| found.projection);
            open.map(|(projection, _)| projection).into_iter().chain(looked_at).for_each(Projection::leave);
        }
    }

    /// Hands on what was found while nobody asked, and the end of what lasted: rows were `made` without anything
    /// being found.
    fn tell(&mut self, made: bool) {
        let sound = made && self.findings.is_empty();
        for finding in self.findings.drain(..) {
            // The same of another row is the same fault.
            if self.standing.met(&format!("{} {}", finding.kind.as_str(), finding.detail), Instant::now()) {
                tracing::warn!(%finding, "found while rows were brought up to the log");
            }
        }
        if sound
            && let Some(more) = self.standing.over()
            && more > 0
        {
            tracing::warn!(more, "what was found while rows were brought up to the log is over");
        }
    }

    fn step<E: Event>(
        &mut self,
        durable: Position,
        wait: Duration,
        go_on: &dyn Fn() -> bool,
        applied: &mut impl FnMut(u64, &[u64]),
    ) -> Result<(), Stop> {
        let prepared = self.prepared.take();
        if self.open.is_none() {
            self.open = Some(self.open_and_check::<E>(durable, wait)?);
        }
        let dir = self.dir();
        let Some((projection, cursor)) = &mut self.open else { return Ok(()) };
        projection.set_wait(wait)?;
        if let Some(prepared) = prepared {
            replay::finish(projection, prepared, &mut self.report, &mut self.findings, applied)?;
        }
        cursor.extend(durable);
        let (report, findings) = (&mut self.report, &mut self.findings);
        replay::catch_up::<E>(projection, cursor, &dir, report, findings, go_on, &mut *applied)?;
        // Also where there was nothing to catch up with.
        applied(projection.applied().seq, &std::mem::take(&mut self.unhealed));
        Ok(())
    }

    pub(super) fn view(&mut self, durable: Position) -> Result<LogView, Error> {
        let last = |segments: &Segments| segments.headers.last().map(|header| header.number);
        let segments = match self.known.segments.take() {
            Some(segments) if last(&segments) == Some(durable.segment) => segments,
            _ => self.log.list()?.segments.into(),
        };
        Ok(LogView {
            log: self.log.clone(),
            store: self.store,
            segments,
            horizon: durable,
            proved_seq: durable.seq,
            findings: Vec::new(),
            damage: None,
            sighting: Sighting::Elsewhere,
            end: None,
        })
    }

    /// Opens the database. Where it proves events that the log does not hold, that is an error of the log.
    fn find(&mut self, view: &LogView, wait: Duration) -> Result<Found, Stop> {
        self.log.check()?;
        let existed = crate::disk::identity(&self.database).is_ok_and(|found| found.is_some());
        // A missing database is built by a rebuild, which is faster than row by row.
        let create = view.last_seq() == 0;
        let known = self.known.rows.take().filter(|known| known.is_in_place(&self.database));
        let (db, counting) = known
            .map_or((None, None), |KnownRows { identity, db, counting }| (Some((db, identity)), counting));
        let mut projection =
            Projection::open(&self.database, self.schema.clone(), self.store, wait, create, db)?;
        projection.mind(&self.room);
        self.log.check()?;
        let applied = projection.applied();
        let unfinished = projection.unfinished()?.is_some_and(|made| applied.seq <= made);
        // A kill can leave a database without rows before a rebuild has begun.
        let empty = applied.seq == 0 && view.last_seq() > EMPTY_UP_TO;
        if (unfinished && applied.seq < view.last_seq()) || empty {
            return Err(Trouble::Unfinished("making its rows was interrupted".into()).into());
        }
        self.check_end(view, projection.reader(), applied)?;
        self.check_behind(view, projection.reader())?;
        Ok(Found { projection, existed, counting })
    }

    /// Opens the database and compares it with the log: the applied seq and its checksum, count,
    /// smallest and largest seq, and recent rows. Mends what is missing.
    fn open_and_check<E: Event>(
        &mut self,
        durable: Position,
        wait: Duration,
    ) -> Result<(Projection, Cursor), Stop> {
        let looked_at = self.looked_at.take().filter(|(_, found)| found.projection.is_in_place());
        let (view, found) = if let Some(looked_at) = looked_at {
            looked_at
        } else {
            let view = self.view(durable)?;
            let found = self.find(&view, wait)?;
            (view, found)
        };
        let Found { mut projection, existed, counting } = found;
        projection.set_wait(wait)?;
        let stop = self.halt.clone();
        projection.stop_where(move || stop.is_due());
        projection.drop_leftovers()?;
        // Of an earlier rebuild; this database is good enough.
        let _ = self.remove_unfinished();
        let aside = projection.put_aside()?.into_iter();
        let told = aside.map(|what| Finding::new(FindingKind::ForeignObject, what).file(&self.database));
        self.findings.extend(told);
        let applied = projection.applied();
        if existed && applied.seq > 0 {
            let fits = Self::applied_fits(&view, applied)?;
            if fits && !projection.is_behind()? {
                self.mend_quickly::<E>(&mut projection, &view, counting)?;
            } else {
                self.check_history::<E>(&view, projection.reader())?;
                let (kind, what) = if fits {
                    let what = "an older program could not read events that this one may know: every row is compared";
                    (FindingKind::TablesUpgraded, what)
                } else {
                    let what = "the applied seq and its checksum are not of this log: every row is compared";
                    (FindingKind::AppliedDiffers, what)
                };
                let finding = Finding::new(kind, what).file(&self.database);
                self.findings.push(if fits { finding } else { finding.seq(applied.seq) });
                replay::heal_all::<E>(
                    &mut projection,
                    &view,
                    &|| !self.halt.is_due(),
                    &mut self.report,
                    &mut self.findings,
                )?;
                let newest = Self::applied_at(&view)?;
                projection.force_applied(newest)?;
                projection.is_abreast()?;
            }
        }
        let cursor = view.cursor_behind(projection.applied().seq)?;
        Ok((projection, cursor))
    }

    /// Refuses to put the log's rows in the place of rows that prove another history.
    pub(super) fn check_history<E: Event>(&self, view: &LogView, rows: &Connection) -> Result<(), Error> {
        if self.trust_log {
            return Ok(());
        }
        let found = histories::against::<E>(&Log::of(view), &self.database, rows, &self.schema)?;
        histories::refuse(&self.log, found.into_iter().collect())
    }

    /// Refuses to go on where SQLite says that it has applied an event behind the log's end. Its row may be gone, so
    /// that nothing proves the event; its seq is not given twice all the same (P3). Where the checksum is that of
    /// the log's last event, somebody has edited the number.
    pub(super) fn check_end(&self, view: &LogView, rows: &Connection, applied: Applied) -> Result<(), Stop> {
        let last = Applied { seq: view.last_seq(), ..applied };
        if applied.seq <= last.seq || self.trust_log {
            return Ok(());
        }
        let edited = last.seq > 0 && Self::applied_fits(view, last)?;
        if edited && !projection::vouches_for(rows, &self.schema, applied)? {
            return Ok(());
        }
        Err(self.beyond(view, applied.seq))
    }

    /// The same of rows that have kept the frames of events behind the log's end, though no applied seq counts them
    /// and nothing ties them to that end: a record without a seq, or given-up events, may have stood between.
    pub(super) fn check_behind(&self, view: &LogView, rows: &Connection) -> Result<(), Stop> {
        let last = view.last_seq();
        if self.trust_log {
            return Ok(());
        }
        let Some(kept) = projection::kept_behind(rows, &self.schema, last)? else { return Ok(()) };
        // Of this store: it says so, or its rows have the log's last event.
        let own = projection::names_store(rows, self.store)
            || match projection::kept(rows, &self.schema, last)? {
                Some(sum) => Self::applied_fits(view, Applied { seq: last, sum })?,
                None => false,
            };
        if own { Err(self.beyond(view, kept.seq)) } else { Ok(()) }
    }

    fn beyond(&self, view: &LogView, last: u64) -> Stop {
        let what = "SQLite has seen events that the log does not hold; `synclog repair` brings back what their rows \
                    prove, `synclog repair --trust-log` sets the others aside";
        let finding = Finding::new(FindingKind::AppliedBeyondLog, what)
            .seqs(view.last_seq() + 1, last)
            .file(&self.database);
        Error::Damaged { dir: self.dir(), findings: vec![finding] }.into()
    }

    /// Whether the log holds the applied event under the checksum that the rows remember.
    pub(super) fn applied_fits(view: &LogView, applied: Applied) -> Result<bool, Error> {
        if applied.seq > view.last_seq() {
            return Ok(false);
        }
        if applied.seq < view.first_seq() {
            return Ok(true); // given up by retention; nothing to compare with
        }
        let (mut cursor, _) = view.cursor(applied.seq)?;
        Ok(match cursor.next()? {
            Some(Entry::Event { header, .. }) => header.seq == applied.seq && header.sum == applied.sum,
            Some(Entry::Gap { header, .. }) => {
                header.next_seq() == applied.seq + 1 && header.sum == applied.sum
            }
            Some(Entry::Erased { .. }) => true,
            _ => false,
        })
    }

    /// The newest event of the log, as an applied seq.
    fn applied_at(view: &LogView) -> Result<Applied, Error> {
        let (mut cursor, _) = view.cursor(view.last_seq())?;
        let mut applied = Applied::default();
        while let Some(entry) = cursor.next()? {
            if let Entry::Event { header, .. } | Entry::Gap { header, .. } = entry {
                applied = Applied { seq: header.next_seq() - 1, sum: header.sum };
            }
        }
        Ok(applied)
    }

    /// Counts and halves to find missing rows, compares recent ones, sets unknown ones aside.
    fn mend_quickly<E: Event>(
        &mut self,
        projection: &mut Projection,
        view: &LogView,
        counting: Option<Counting>,
    ) -> Result<(), Stop> {
        let applied = projection.applied().seq;
        let first = view.first_seq();
        // Before anything is counted that the table says.
        let halt = self.halt.clone();
        absences::settle::<E>(projection, view, &|| !halt.is_due(), &mut self.findings)?;
        let db = projection.reader();
        let tally = match counting.and_then(Counting::tally) {
            Some(tally) => tally,
            None => Tally::of(db, &self.schema)?,
        };
        let mut stretches = compare::missing_between(db, &self.schema, tally, first, applied, STRETCHES)?;
        let recent = applied.saturating_sub(RECENT_ROWS - 1).max(first);
        stretches.push((recent, applied));
        // A row above the applied seq may be the next event's; apply tells the two apart.
        let behind = view.last_seq() as i64 + 1;
        replay::set_aside_between(projection, i64::MIN, first as i64 - 1, &mut self.report)?;
        replay::set_aside_between(projection, behind, i64::MAX, &mut self.report)?;
        for (low, high) in stretches {
            let (mut cursor, _) = view.cursor(low)?;
            while cursor.next_seq() <= high {
                if self.halt.is_due() {
                    return Err(replay::halted().into());
                }
                let Some(mut stretch) = replay::gather::<E>(&mut cursor)? else { break };
                if crate::log::damage::any_damage(&stretch.findings) {
                    let dir = self.dir();
                    return Err(Error::Damaged { dir, findings: stretch.findings }.into());
                }
                stretch.step.rows.retain(|row| row.seq <= high);
                let mut wrong = Vec::new();
                for (seq, _) in projection.read_back(&stretch.step.rows)? {
                    if !compare::was_deleted(projection.reader(), seq)? {
                        wrong.push(seq);
                    }
                }
                stretch.step.rows.retain(|row| wrong.contains(&row.seq));
                if stretch.step.rows.is_empty() && stretch.step.absent.is_empty() {
                    continue;
                }
                let Step { rows, absent, unread_keys, .. } = stretch.step;
                let step = Step { rows: rows.clone(), absent, unread_keys, ..Step::default() };
                let changes = projection.apply(&step)?;
                self.report.restored += changes.restored;
                self.report.replaced += changes.replaced;
                self.report.set_aside += changes.set_aside;
                let still = replay::verify_step(projection, &rows, &mut self.report, &mut self.findings)?;
                self.unhealed.extend(still);
            }
        }
        Ok(())
    }

    /// Compares every row with its event and mends what differs, or builds the database anew: where
    /// that was asked for, and where SQLite finds it damaged.
    pub(super) fn replay_all<E: Event>(
        &mut self,
        durable: Position,
        rebuild: bool,
        wait: Duration,
    ) -> Result<(), Stop> {
        if rebuild {
            self.log.check()?;
            self.open = None;
            // What opening mended in the old database is gone with it.
            self.report = ReplayReport::default();
            self.findings
                .retain(|finding| finding.kind != FindingKind::RowUnhealable && !finding.kind.is_unread());
            let kept = self.findings.len();
            let why = match projection::open_for_reading(&self.database, wait) {
                Ok(db) => compare::pages(&db, &self.schema).err(),
                // It is made anew, whatever it is like.
                Err(_) => None,
            };
            let why = why.unwrap_or_else(|| Trouble::Altered("this was asked for".into()));
            self.rebuild::<E>(durable, &why, wait)?;
            if matches!(why, Trouble::Altered(_)) {
                // Nothing was wrong with it.
                let asked = |finding: &Finding| finding.kind == FindingKind::SchemaDiffers;
                let at = self.findings.iter().skip(kept).position(asked);
                at.map(|at| self.findings.remove(kept + at));
            }
        } else {
            match self.heal_rows::<E>(durable) {
                Err(Stop::View(trouble)) if trouble.wants_rebuild() => {
                    self.open = None;
                    self.rebuild::<E>(durable, &trouble, wait)?;
                }
                other => return other,
            }
        }
        self.bring_up::<E>(durable, wait, |_, _| {})
    }

    fn heal_rows<E: Event>(&mut self, durable: Position) -> Result<(), Stop> {
        let view = self.view(durable)?;
        let Some((projection, _)) = &mut self.open else { return Ok(()) };
        let damaged = compare::integrity(projection.reader(), &self.schema, 3)?;
        if !damaged.is_empty() {
            return Err(Trouble::Unusable(damaged.join("; ")).into());
        }
        // Every row is looked at again, those that opening could not heal included.
        self.report.unhealable = 0;
        self.findings.retain(|finding| finding.kind != FindingKind::RowUnhealable);
        let before = self.report.restored + self.report.replaced;
        replay::heal_all::<E>(projection, &view, &|| true, &mut self.report, &mut self.findings)?;
        if self.report.restored + self.report.replaced > before {
            // Writing one row may have changed another, where somebody made a trigger.
            let mut again = ReplayReport::default();
            replay::heal_all::<E>(projection, &view, &|| true, &mut again, &mut self.findings)?;
            self.report.unhealable = self.report.unhealable.max(again.restored + again.replaced);
        }
        Ok(())
    }
}

/// The thread: applies what becomes durable until the store closes, wherever no caller did.
/// Tells how its first turn, the rest of an opening, has ended.
pub(super) fn run<E: Event>(shared: &Arc<Shared<E>>, mut opening: Option<Opening>) {
    let rows = &shared.rows;
    let mut pause: Option<Duration> = None;
    let mut standing = Standing::default();
    loop {
        let Turn { mut projector, durable, applied, closing, suspect } = rows.next(pause);
        if closing && (applied + 1 >= durable.seq || projector.halt.is_due()) {
            // As is right where there is no room.
            projector.forget();
            return;
        }
        if suspect && opening.is_none() {
            projector.forget();
        }
        let brought = threads::guarded(PROJECTOR, || {
            #[cfg(test)]
            crate::proof::outside::may_panic();
            projector.bring_up::<E>(durable, ATTEMPT, |seq, unhealed| rows.set_applied(seq, unhealed))
        });
        let result = brought.unwrap_or_else(|error| {
            // Nothing is known of what it was in the middle of. It is tried again like any failure.
            projector.forget();
            Err(error.into())
        });
        // Nobody who closes a store waits for what does not come.
        let (mut told, mut gives_up) = (None, false);
        match result {
            Ok(()) if rows.applied() + 1 >= durable.seq => {
                pause = None;
                if let Some(more) = standing.over() {
                    tracing::warn!(more, "rows follow the log again");
                }
                told = opening.take().and_then(|mut opening| opening.told(&mut projector, None));
            }
            Ok(()) => {
                // Nothing failed and yet something is missing: never try in a tight circle.
                rows.set_trouble("the log could not be read to its end".into());
                projector.forget();
                pause = Some(pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)));
            }
            Err(stop) => {
                let error = stop.into_error(&projector.database);
                let forbidden =
                    histories::forbids_appends(&error) || matches!(&error, Error::Displaced { .. });
                if forbidden || (opening.is_some() && matches!(&error, Error::Damaged { .. })) {
                    // More was acknowledged than the log holds: another append would use a seq twice. Or this
                    // is another store's database, or none. Or the log itself, which an opening reads for its rows,
                    // is damaged.
                    shared.die(error);
                    return;
                }
                if !error.is_busy() && standing.met(&error.to_string(), Instant::now()) {
                    tracing::warn!(%error, "rows do not follow the log at present");
                }
                rows.set_trouble(error.to_string());
                told = opening
                    .as_mut()
                    .and_then(|opening| opening.told(&mut projector, Some(error.to_string())));
                pause = Some(pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)));
                gives_up = closing;
            }
        }
        projector.tell(rows.applied() > applied);
        rows.give_back(projector);
        if let Some(told) = told {
            told.send();
        }
        if gives_up {
            return;
        }
    }
}
