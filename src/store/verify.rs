//! Verify: every frame, every row, every column, both ways; and nothing is changed (P11).

use serde::Serialize;

use crate::absences;
use crate::codec;
use crate::erasures::Erasures;
use crate::error::Result;
use crate::event::Event;
use crate::finding::{Finding, FindingKind, Severity};
use crate::log::view::LogView;
use crate::projection::{Applied, Connection, Db, Trouble, compare, foreign};
use crate::replay::{self, Stop};
use crate::threads;

use super::reader::Reader;
use super::scan::scan;

/// What verify saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifySummary {
    /// Events that were read from the log.
    pub events: u64,
    /// Rows that were compared with their events.
    pub rows: u64,
    /// Findings that say that the log is damaged or events are missing.
    pub log_damaged: u64,
    /// Findings that say that the rows differ.
    pub differences: u64,
    /// Events without rows yet, beside a live writer.
    pub lag: u64,
    /// Events that the event type's own code cannot read.
    pub unreadable: u64,
    /// The newest event.
    pub last_seq: u64,
    /// The newest event that the rows reflect.
    pub applied_seq: u64,
}

/// How often rows are looked at again because writers come and go.
const ATTEMPTS: usize = 10;
/// The thread in which SQLite checks its own pages.
const PAGES: &str = "synclog-pages";

pub(super) struct Check<'a> {
    pub(super) summary: VerifySummary,
    tell: &'a mut dyn FnMut(Finding),
}

impl Check<'_> {
    pub(super) fn tell(&mut self, finding: Finding) {
        match finding.kind.severity() {
            Severity::LogDamaged => self.summary.log_damaged += 1,
            Severity::ProjectionDiffers => self.summary.differences += 1,
            Severity::Note => {
                self.summary.unreadable += u64::from(finding.kind == FindingKind::UnreadableEvent);
            }
        }
        (self.tell)(finding);
    }
}

impl VerifySummary {
    /// Whether the log is whole, the event type can read every event that it knows, and every row equals its
    /// event.
    pub fn is_sound(&self) -> bool {
        self.log_damaged + self.differences + self.unreadable == 0
    }
}

impl<E: Event> Reader<E> {
    /// Checks every frame of the log and, unless `log_only`, reads every event and compares every column of every
    /// row. Tells each finding as it comes up. Memory does not grow with the log.
    pub fn verify(
        dir: impl AsRef<std::path::Path>,
        log_only: bool,
        mut tell: impl FnMut(Finding),
    ) -> Result<VerifySummary> {
        let dir = dir.as_ref();
        let mut check = Check { summary: VerifySummary::default(), tell: &mut tell };
        // First the rows' snapshot, then the log's: so the log has every event that the rows show.
        let mut reader = Self::open(dir)?;
        let mut rows = if log_only { None } else { reader.snapshot(&mut check)? };
        for attempt in 1..=ATTEMPTS {
            let Some((_, seen)) = &rows else { break };
            let found = Self::open(dir)?;
            if found.id() != reader.id() {
                break;
            }
            reader = found;
            if reader.has_live_writer() || seen.seq >= reader.last_seq() || attempt == ATTEMPTS {
                break;
            }
            // Rows are missing and nobody is about to add them. Or a writer has come or gone since they
            // were looked at; then they have moved, and a second look tells.
            let seen = seen.seq;
            rows = reader.snapshot(&mut check)?;
            if rows.as_ref().is_none_or(|(_, again)| again.seq == seen) {
                break;
            }
        }
        for finding in reader.findings() {
            check.tell(finding.clone());
        }
        check.summary.last_seq = reader.last_seq();
        let Some((db, applied)) = rows else {
            scan(reader.view(), codec::Known::of::<E>(), &mut check)?;
            return Ok(check.summary);
        };
        // SQLite's check of its own pages takes as long as all the rest, so it runs beside it.
        let look =
            || reader.connect_in_place().and_then(|(db, _)| compare::integrity(&db, reader.schema(), 10));
        let (broken, pages) = std::thread::scope(|scope| {
            let pages = threads::spawn_scoped(scope, PAGES, look);
            let broken = reader.compare(&db, applied, &mut check);
            (broken, pages.map(|pages| threads::ended(PAGES, pages.join())))
        });
        let broken = broken?;
        // Where no thread could be had, the pages are looked at now.
        match pages.unwrap_or_else(|_| Ok(look()))? {
            Ok(sentences) => {
                for sentence in sentences {
                    let what = format!("SQLite says: {sentence}; `synclog replay` builds it anew");
                    check.tell(Finding::new(FindingKind::DatabaseDamaged, what).file(reader.database()));
                }
            }
            // Said already.
            Err(trouble) if broken && trouble.wants_rebuild() => {}
            Err(trouble) => reader.tell_trouble(trouble, &mut check)?,
        }
        Ok(check.summary)
    }

    /// A connection inside a read transaction, or a finding about why there is none.
    fn snapshot(&self, check: &mut Check<'_>) -> Result<Option<(Db, Applied)>> {
        let found = self.connect_in_place().and_then(|(db, _)| {
            db.execute_batch("BEGIN")?;
            let (_, applied) = crate::projection::check(&db, self.schema(), Some(self.id()))?;
            Ok((db, applied))
        });
        found.map(Some).or_else(|trouble| self.tell_trouble(trouble, check).map(|()| None))
    }

    /// A finding about why there are no rows to compare; an error where replay does not mend that.
    fn tell_trouble(&self, trouble: Trouble, check: &mut Check<'_>) -> Result<()> {
        let path = self.database();
        let missing = crate::disk::identity(&path).is_ok_and(|found| found.is_none());
        let (kind, reason) = match trouble {
            Trouble::Busy(_) | Trouble::Failed(_) => return Err(trouble.into_error(&path)),
            Trouble::Foreign(reason) => (FindingKind::DatabaseForeign, reason),
            Trouble::Unfinished(reason) => (FindingKind::DatabaseMissing, reason),
            Trouble::Unusable(reason) if missing => (FindingKind::DatabaseMissing, reason),
            Trouble::Outdated(reason) => (FindingKind::TablesOutdated, reason),
            Trouble::Altered(reason) => (FindingKind::SchemaDiffers, reason),
            Trouble::Unusable(reason) => (FindingKind::DatabaseDamaged, reason),
        };
        let what = format!("{reason}; `synclog replay` builds it anew from the log");
        check.tell(Finding::new(kind, what).file(path));
        Ok(())
    }

    /// Compares the log with the rows, both ways. Whether the database is too damaged for that.
    fn compare(&self, db: &Connection, applied: Applied, check: &mut Check<'_>) -> Result<bool> {
        check.summary.applied_seq = applied.seq;
        let trouble = walk::<E>(self.view(), self.schema(), db, applied, check)?;
        // Tables that cannot be read are told by the comparison.
        for foreign in foreign::meddling(db, self.schema()).unwrap_or_default() {
            let what = format!("{foreign}; `synclog replay` puts it aside");
            check.tell(Finding::new(FindingKind::ForeignObject, what).file(self.database()));
        }
        let broken = trouble.is_some();
        match trouble {
            Some(Trouble::Unusable(reason)) => {
                let what = format!("{reason}; `synclog replay` builds it anew from the log");
                check.tell(Finding::new(FindingKind::DatabaseDamaged, what).file(self.database()));
            }
            Some(trouble) => return Err(trouble.into_error(&self.database())),
            None => {}
        }
        let last = self.last_seq();
        let beyond = |finding: &Finding| finding.kind == FindingKind::AppliedBeyondLog;
        if applied.seq > last && !self.findings().iter().any(beyond) {
            let what = format!("the applied seq is {}, and no row of it stands behind it", applied.seq);
            check.tell(Finding::new(FindingKind::AppliedDiffers, what).file(self.database()));
        }
        if applied.seq < last && self.has_live_writer() {
            check.summary.lag = last - applied.seq;
            let what = "their rows are still to come; the writer that holds the store adds them";
            check.tell(Finding::new(FindingKind::Lag, what).seqs(applied.seq + 1, last));
        } else if applied.seq < last {
            let what = "they have no rows; `synclog replay` adds them";
            check.tell(Finding::new(FindingKind::RowMissing, what).seqs(applied.seq + 1, last));
        }
        Ok(broken)
    }
}

/// One pass over the log, beside one pass over the rows, as far as these can be read: why not to their end.
fn walk<E: Event>(
    view: &LogView,
    schema: &crate::projection::schema::Schema,
    db: &Connection,
    applied: Applied,
    check: &mut Check<'_>,
) -> Result<Option<Trouble>> {
    let (cursor, missing) = view.cursor(view.first_seq())?;
    missing.into_iter().for_each(|finding| check.tell(finding));
    let judged = absences::judge::<E>(view, db, applied.seq.min(view.last_seq()), &|| true);
    let (absences, unjudged) = match judged {
        Ok(found) => (found, None),
        Err(Stop::Log(error)) => return Err(error),
        Err(Stop::View(found)) => (absences::Absences::default(), Some(found)),
    };
    let mut erasures = Erasures::default();
    let mut floor = view.first_seq() as i64;
    let tell_all = |check: &mut Check<'_>, first, last| {
        compare::each_id(db, schema, first, last, |ids| {
            ids.into_iter().for_each(|id| tell_unknown(check, id));
        })
        .err()
    };
    let mut trouble = tell_all(check, i64::MIN, floor - 1);
    let done = replay::read_ahead::<E>(view, cursor, |mut stretch| {
        check.summary.events += stretch.events;
        let found = std::mem::take(&mut stretch.stray).into_iter();
        found.chain(std::mem::take(&mut stretch.findings)).for_each(|finding| check.tell(finding));
        stretch.note_erasures(&mut erasures, view);
        if let Some(row) = stretch.step.rows.iter().find(|row| row.seq == applied.seq)
            && row.frame[40..44] != applied.sum.to_le_bytes()
        {
            let what = "the checksum kept beside the applied seq is not that of its event";
            check.tell(Finding::new(FindingKind::AppliedDiffers, what).seq(applied.seq));
        }
        if trouble.is_some() {
            return Ok(Vec::new()); // the rest of the log all the same
        }
        let ceiling = (stretch.next_seq as i64 - 1).min(applied.seq as i64);
        stretch.step.rows.retain(|row| row.seq <= applied.seq);
        let differences = match replay::compare_stretch(db, schema, &stretch, floor, ceiling) {
            Ok(differences) => differences,
            Err(found) => {
                trouble = Some(found);
                return Ok(Vec::new());
            }
        };
        let there = stretch.step.rows.len()
            - differences.rows.iter().filter(|(_, columns)| columns.is_empty()).count();
        check.summary.rows += there as u64;
        floor = ceiling + 1;
        for (seq, columns) in differences.rows {
            // Of those that may be deleted the damage is told.
            if columns.is_empty() && !replay::covers(&absences.open, seq) {
                check.tell(Finding::new(FindingKind::RowMissing, "the event has no row").seq(seq));
            }
            for column in columns {
                let what = "the row differs from its event";
                check.tell(Finding::new(FindingKind::RowDiffers, what).seq(seq).column(column));
            }
        }
        for seq in differences.keys {
            let what = "the key of this event, which has no row, is not kept as it should be";
            check.tell(Finding::new(FindingKind::RowDiffers, what).seq(seq).column("idempotency_key"));
        }
        for id in differences.unknown.into_iter().chain(differences.erased) {
            tell_unknown(check, id);
        }
        Ok(stretch.step.rows)
    });
    match done {
        Ok(()) => {}
        Err(Stop::Log(error)) => return Err(error),
        Err(Stop::View(found)) => return Ok(Some(found)),
    }
    erasures.unexplained().into_iter().for_each(|finding| check.tell(finding));
    let next = "`synclog replay` brings their rows back";
    absences.unproved.into_iter().for_each(|range| check.tell(absences::finding(range, next)));
    if unjudged.is_some() {
        return Ok(unjudged);
    }
    floor = floor.max((applied.seq as i64).saturating_add(1));
    Ok(trouble.or_else(|| tell_all(check, floor, i64::MAX)))
}

fn tell_unknown(check: &mut Check<'_>, id: i64) {
    let what = format!("no event explains the row with id {id}; `synclog replay` sets it aside");
    let finding = Finding::new(FindingKind::RowUnknown, what);
    check.tell(if id > 0 { finding.seq(id as u64) } else { finding });
}
