//! Log to projection: catching up, comparing, healing, rebuilding. One apply, different ranges.
//!
//! Only this module and the store see both sides. Memory is one step of [`stretch`], and [`BULK`] times that where
//! rows are far behind.

mod donor;
mod stretch;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::absences;
pub(crate) use crate::erasures::covers;
use crate::erasures::merged;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::Cursor;
use crate::log::view::LogView;
use crate::projection::rebuild::{OldRows, Rebuild};
use crate::projection::row::Row;
use crate::projection::schema::Schema;
use crate::projection::unread;
use crate::projection::{Applied, Changes, Connection, Projection, Step, Trouble, compare};

pub(crate) use donor::RowDonor;
use stretch::{STEP_ROWS, gather_steps};
pub(crate) use stretch::{Stretch, deletions, gap_finding, gather, read_ahead};

/// Where rows are far behind, one transaction holds as many: every index's pages are then written once for all
/// of them.
const BULK: usize = 8;

/// What a replay did to the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Rows that were missing and are back.
    pub restored: u64,
    /// Rows that differed from their events and were replaced.
    pub replaced: u64,
    /// Rows that no event explains, moved to the table `synclog_set_aside`.
    pub set_aside: u64,
    /// Rows that were compared and found equal.
    pub already_present: u64,
    /// Rows that still differ after they were healed, because of a trigger for example.
    pub unhealable: u64,
    /// Whether all rows were made anew. Where an interrupted rebuild was gone on with, `restored` counts those that
    /// were made since.
    pub rebuilt: bool,
}

impl ReplayReport {
    fn add(&mut self, changes: Changes) {
        self.restored += changes.restored;
        self.replaced += changes.replaced;
        self.set_aside += changes.set_aside;
        self.already_present += changes.already_present;
    }

    /// Whether the rows were all there and equal.
    pub fn changed_nothing(&self) -> bool {
        self.restored + self.replaced + self.set_aside + self.unhealable == 0 && !self.rebuilt
    }
}

/// Why a replay stopped: the side that failed.
#[derive(Debug)]
pub(crate) enum Stop {
    Log(Error),
    View(Trouble),
}

/// Why work was left in the middle: its handle is being closed.
pub(crate) fn halted() -> Trouble {
    Trouble::Busy("the store was closed before its rows had caught up; the next opening goes on".into())
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::View(trouble)
    }
}

impl Stop {
    pub(crate) fn into_error(self, database: &Path) -> Error {
        match self {
            Self::Log(error) => error,
            Self::View(trouble) => trouble.into_error(database),
        }
    }
}

/// A stretch without damage, or the error that names it: rows are never built over a gap, and rows
/// of events that the log has lost are never dropped.
fn sound(stretch: Stretch, view_dir: &Path) -> Result<Stretch> {
    if crate::log::damage::any_damage(&stretch.findings) {
        return Err(Error::Damaged { dir: view_dir.into(), findings: stretch.findings });
    }
    Ok(stretch)
}

/// Applies everything from the cursor to its horizon, reads each step back, and heals once what
/// differs. `applied` is told after each step how far the rows are now. Stops early where `go_on` says no.
pub(crate) fn catch_up<E: Event>(
    projection: &mut Projection,
    cursor: &mut Cursor,
    dir: &Path,
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
    go_on: &dyn Fn() -> bool,
    mut applied: impl FnMut(u64, &[u64]),
) -> Result<(), Stop> {
    while go_on()
        && let Some(prepared) = prepare::<E>(projection, cursor, dir)?
    {
        finish(projection, prepared, report, findings, &mut applied)?;
    }
    Ok(())
}

/// A step that is in SQLite's transaction and not committed: its events may not be durable yet (P2).
pub(crate) struct Prepared(Stretch, Changes);

impl Prepared {
    /// The seq behind its events.
    pub(crate) fn next_seq(&self) -> u64 {
        self.0.next_seq
    }
}

/// Prepares the next step in a transaction; `None` at the cursor's horizon.
pub(crate) fn prepare<E: Event>(
    projection: &mut Projection,
    cursor: &mut Cursor,
    dir: &Path,
) -> Result<Option<Prepared>, Stop> {
    let Some(stretch) = gather_steps::<E>(cursor, BULK)? else { return Ok(None) };
    let stretch = sound(stretch, dir)?;
    let changes = projection.prepare(&stretch.step)?;
    Ok(Some(Prepared(stretch, changes)))
}

/// Commits a step, whose events must be durable by now, reads it back, and heals once what differs.
pub(crate) fn finish(
    projection: &mut Projection,
    Prepared(stretch, changes): Prepared,
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
    applied: &mut impl FnMut(u64, &[u64]),
) -> Result<(), Stop> {
    projection.commit(&stretch.step)?;
    report.add(changes);
    let mut unhealed = verify_step(projection, &stretch.step.rows, report, findings)?;
    let unreadable = |finding: &&Finding| finding.kind == FindingKind::UnreadableEvent;
    unhealed.extend(stretch.findings.iter().filter(unreadable).filter_map(|finding| finding.seq));
    findings.extend(stretch.findings);
    if let Some(newest) = stretch.step.applied {
        applied(newest.seq, &unhealed);
    }
    Ok(())
}

/// Reads rows back through the second connection; heals a difference once and compares again (P6).
/// Returns the seqs that still differ.
pub(crate) fn verify_step(
    projection: &mut Projection,
    rows: &[Row],
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
) -> Result<Vec<u64>, Trouble> {
    let differing = projection.read_back(rows)?;
    if differing.is_empty() {
        return Ok(Vec::new());
    }
    let wrong: Vec<Row> =
        rows.iter().filter(|row| differing.iter().any(|(seq, _)| *seq == row.seq)).cloned().collect();
    projection.apply(&Step { rows: wrong.clone(), ..Step::default() })?;
    let still = projection.read_back(&wrong)?;
    report.unhealable += still.len() as u64;
    for (seq, columns) in &still {
        let what = if columns.is_empty() {
            "is not there".into()
        } else {
            format!("differs in {}", columns.join(", "))
        };
        let what = format!("the row {what} after it was written twice: look for a trigger on its table");
        findings.push(Finding::new(FindingKind::RowUnhealable, what).seq(*seq).file(projection.path()));
    }
    Ok(still.into_iter().map(|(seq, _)| seq).collect())
}

/// How the rows of one stretch differ from the events.
pub(crate) struct Differences {
    /// Seq and columns; no columns where the row is missing.
    pub(crate) rows: Vec<(u64, Vec<&'static str>)>,
    /// Ids of rows that no event explains.
    pub(crate) unknown: Vec<i64>,
    /// Ids of rows of events that were erased.
    pub(crate) erased: Vec<i64>,
    /// Events without rows whose idempotency keys are not kept as they should be.
    pub(crate) keys: Vec<u64>,
}

/// Compares one stretch with the rows from `floor` up to the stretch's last seq.
pub(crate) fn compare_stretch(
    db: &Connection,
    schema: &Schema,
    stretch: &Stretch,
    floor: i64,
    ceiling: i64,
) -> Result<Differences, Trouble> {
    let rows = compare::read_back(db, schema, &stretch.step.rows)?;
    let (mut unknown, mut erased) = (Vec::new(), Vec::new());
    let erased_here =
        stretch.step.absent.iter().filter(|(_, _, why)| *why == "erased").map(|(a, b, _)| (*a, *b));
    let gone = erased_here.chain(stretch.step.deleted.iter().copied()).chain(stretch.gone.iter().copied());
    let (gone, damaged) = (merged(gone.collect()), merged(stretch.damaged.clone()));
    let mut from = floor;
    let mut known = stretch.step.rows.iter().map(|row| row.seq as i64).peekable();
    while from <= ceiling {
        let ids = compare::ids_between(db, schema, from, ceiling, 4 * STEP_ROWS)?;
        let Some(last) = ids.last().copied() else { break };
        for id in ids {
            while known.next_if(|seq| *seq < id).is_some() {}
            if known.peek() == Some(&id) {
                continue;
            }
            let is_in = |ranges: &[(u64, u64)]| id > 0 && covers(ranges, id as u64);
            if is_in(&damaged) {
                continue; // the row may be the only copy
            }
            if is_in(&gone) { erased.push(id) } else { unknown.push(id) }
        }
        from = last + 1;
    }
    let keys = unread::differing(db, floor, ceiling, &stretch.step.unread_keys)?;
    Ok(Differences { rows, unknown, erased, keys })
}

/// Compares every row with its event, both ways, and heals what differs.
pub(crate) fn heal_all<E: Event>(
    projection: &mut Projection,
    view: &LogView,
    go_on: &dyn Fn() -> bool,
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
) -> Result<(), Stop> {
    let (cursor, missing) = view.cursor(view.first_seq())?;
    if !missing.is_empty() {
        return Err(Error::Damaged { dir: view.log.store_dir.clone(), findings: missing }.into());
    }
    let open = absences::settle::<E>(projection, view, go_on, findings)?;
    let mut floor = view.first_seq() as i64;
    set_aside_between(projection, i64::MIN, floor - 1, report)?;
    // Each of these is told once, however often the rows are compared.
    findings.retain(|finding| !finding.kind.is_unread());
    read_ahead::<E>(view, cursor, |stretch| {
        if !go_on() {
            return Err(halted().into());
        }
        let mut stretch = sound(stretch, &view.log.store_dir)?;
        stretch.step.rows.retain(|row| !covers(&open, row.seq));
        findings.extend(stretch.unread());
        let ceiling = stretch.next_seq as i64 - 1;
        let differences =
            compare_stretch(projection.reader(), projection.schema(), &stretch, floor, ceiling)?;
        heal_stretch(projection, stretch, differences, report, findings)?;
        floor = ceiling + 1;
        Ok(Vec::new())
    })?;
    set_aside_between(projection, floor, i64::MAX, report)?;
    Ok(())
}

/// Sets rows aside that lie where no event is.
pub(crate) fn set_aside_between(
    projection: &mut Projection,
    first: i64,
    last: i64,
    report: &mut ReplayReport,
) -> Result<(), Trouble> {
    let ids = |projection: &Projection, from, to, limit| {
        compare::ids_between(projection.reader(), projection.schema(), from, to, limit)
    };
    // A trigger may put rows back, or others in their place: each is taken away once.
    let Some(most) = compare::largest_id(projection.reader(), projection.schema(), last)? else {
        return Ok(());
    };
    let mut from = first;
    while from <= most {
        let unknown = ids(projection, from, most, STEP_ROWS)?;
        let Some(newest) = unknown.last().copied() else { break };
        report.add(projection.apply(&Step { unknown, ..Step::default() })?);
        from = newest.saturating_add(1);
        if from > most || newest == i64::MAX {
            break;
        }
    }
    if ids(projection, first, last, 1)?.is_empty() {
        return Ok(());
    }
    Err(Trouble::Unusable("rows that no event explains do not go away, because of a trigger perhaps".into()))
}

fn heal_stretch(
    projection: &mut Projection,
    stretch: Stretch,
    differences: Differences,
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
) -> Result<(), Trouble> {
    let equal = stretch.step.rows.len() - differences.rows.len();
    report.already_present += equal as u64;
    let is_wrong = |row: &Row| differences.rows.iter().any(|(seq, _)| *seq == row.seq);
    let newest = stretch.step.applied.filter(|newest| newest.seq > projection.applied().seq);
    let step = Step {
        rows: stretch.step.rows.into_iter().filter(is_wrong).collect(),
        absent: stretch.step.absent,
        deleted: differences
            .erased
            .iter()
            .map(|id| (*id as u64, *id as u64))
            .chain(stretch.step.deleted)
            .collect(),
        unknown: differences.unknown,
        unread_keys: stretch.step.unread_keys,
        wrong_keys: differences.keys,
        applied: newest,
    };
    if step.rows.is_empty()
        && step.unknown.is_empty()
        && step.deleted.is_empty()
        && step.absent.is_empty()
        && step.wrong_keys.is_empty()
        && newest.is_none()
    {
        return Ok(());
    }
    report.add(projection.apply(&step)?);
    verify_step(projection, &step.rows, report, findings)?;
    Ok(())
}

/// Makes all rows anew from the log, from where `new` stands, and puts them in the old ones' place. Old rows that no
/// event explains are carried over as set aside. Events that cannot be
/// read go to `findings`; what others had on tables of ours is told in words.
pub(crate) fn rebuild<E: Event>(
    mut new: Rebuild,
    view: &LogView,
    old: OldRows<'_>,
    go_on: &dyn Fn() -> bool,
    report: &mut ReplayReport,
    findings: &mut Vec<Finding>,
) -> Result<Vec<String>, Stop> {
    let behind = new.applied().seq;
    let (mut cursor, missing) = view.cursor(view.first_seq().max(behind + 1))?;
    if !missing.is_empty() {
        return Err(Error::Damaged { dir: view.log.store_dir.clone(), findings: missing }.into());
    }
    if behind >= view.first_seq() {
        cursor = view.cursor_behind(behind)?;
    }
    read_ahead::<E>(view, cursor, |stretch| {
        if !go_on() {
            return Err(halted().into());
        }
        let stretch = sound(stretch, &view.log.store_dir)?;
        findings.extend(stretch.unread());
        let (changes, done) = new.apply(stretch.step)?;
        report.add(changes);
        Ok(done)
    })?;
    // It took a while: the path may lead to another store's database by now.
    view.log.check()?;
    let swapped = new.finish(old)?;
    report.set_aside += swapped.set_aside;
    report.rebuilt = true;
    Ok(swapped.kept)
}

/// Fills an empty, private database from the log, for a reader who cannot open the store's own. What
/// is damaged is left out: the caller has its findings.
pub(crate) fn fill<E: Event>(db: &Connection, schema: &Schema, view: &LogView) -> Result<Applied, Stop> {
    let (cursor, _) = view.cursor(view.first_seq())?;
    let mut applied = Applied::default();
    db.execute_batch("BEGIN").map_err(Trouble::from)?;
    read_ahead::<E>(view, cursor, |stretch| {
        crate::projection::apply_in(db, schema, &stretch.step, applied)?;
        applied = stretch.step.applied.unwrap_or(applied);
        Ok(stretch.step.rows)
    })?;
    db.execute_batch("COMMIT").map_err(Trouble::from)?;
    Ok(applied)
}
