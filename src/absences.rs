//! Seqs that lawfully have no row. The table `synclog_absent` names them so that rows can be counted, and
//! whoever can edit rows can edit it too: it is believed only where the log says the same (P3, P7).

use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Cursor, Entry};
use crate::log::deletion::{self, Deletion};
use crate::log::view::LogView;
use crate::projection::schema::Schema;
use crate::projection::{Connection, Projection, compare};
use crate::replay::{self, Stop};

/// Entries of the table that are looked at together.
const PAGE: usize = 65_536;
/// More stretches than this are told, and forgotten, as one.
const MOST: usize = 1024;

type Range = (u64, u64);

/// What the table says and the log does not.
#[derive(Default)]
pub(crate) struct Absences {
    /// Stretches of which the log has the events.
    pub(crate) unproved: Vec<Range>,
    /// Events that may be deleted, as the table says: behind them the log is damaged, where their record may
    /// have stood. Until that is mended they stay away (P8). They have no rows.
    pub(crate) open: Vec<Range>,
}

/// Stretches of seqs up to `last` of which the table says that they have no row, and of which the log has the
/// events. Reads only the segments that the table speaks of, and all behind them where it is wrong.
pub(crate) fn judge<E: Event>(
    view: &LogView,
    db: &Connection,
    last: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<Absences, Stop> {
    let first = view.first_seq();
    let (mut found, mut after) = (Absences::default(), i64::MIN);
    loop {
        let page = compare::absences(db, first, last, after, PAGE)?;
        let Some((newest, _)) = page.last() else { return Ok(found) };
        after = *newest;
        let mut ranges: Vec<Range> = Vec::new();
        for (low, high) in page {
            // The query has left out what does not reach into these bounds.
            let (low, high) = (low.max(first as i64) as u64, high.min(last as i64) as u64);
            match ranges.last_mut() {
                Some(before) if low <= before.1 => before.1 = before.1.max(high),
                _ if low <= high => ranges.push((low, high)),
                _ => {}
            }
        }
        let events = events_in::<E>(view, &ranges, go_on)?;
        let (mut events, damaged) = without_deleted(view, events)?;
        if damaged > 0 && !events.is_empty() {
            let deleted = compare::deleted(db, &Schema::of::<E>()?, last.min(damaged - 1))?;
            let deleted = deletion::merged(deleted);
            let unproved = deletion::without(&events, &deleted);
            found.open.extend(deletion::without(&events, &unproved));
            events = unproved;
        }
        found.unproved.extend(events);
        if let [first, .., last] = found.unproved[..]
            && found.unproved.len() > MOST
        {
            found.unproved = vec![(first.0, last.1)];
        }
    }
}

/// The events of the log with seqs in `ranges`, which ascend, as stretches.
fn events_in<E: Event>(
    view: &LogView,
    ranges: &[Range],
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<Range>, Stop> {
    let segment = |seq: u64| view.segments.headers.partition_point(|header| header.first_seq <= seq);
    let mut events: Vec<Range> = Vec::new();
    let (mut cursor, mut seqs): (Option<Cursor>, Vec<u64>) = (None, Vec::new());
    for (low, high) in ranges.iter().copied() {
        loop {
            for seq in seqs.iter().copied().filter(|seq| (low..=high).contains(seq)) {
                // With too many to tell apart the last one takes in the rest.
                let many = events.len() > MOST;
                match events.last_mut() {
                    Some(before) if before.1 >= seq => {}
                    Some(before) if before.1 + 1 == seq || many => before.1 = seq,
                    _ => events.push((seq, seq)),
                }
            }
            let at = match &mut cursor {
                Some(at) if at.next_seq() > high => break,
                Some(at) if segment(at.next_seq()) >= segment(low) => at,
                _ => cursor.insert(view.cursor(low)?.0),
            };
            if !go_on() {
                return Err(replay::halted().into());
            }
            let Some(stretch) = replay::gather::<E>(at)? else { break };
            seqs = stretch.step.rows.iter().map(|row| row.seq).collect();
        }
    }
    Ok(events)
}

/// What is left of stretches of events when those that a deletion record covers are taken away. The record
/// stands behind its events; with them the seq behind the last damage, 0 where there is none.
fn without_deleted(view: &LogView, mut events: Vec<Range>) -> Result<(Vec<Range>, u64), Stop> {
    let Some((first, _)) = events.first() else { return Ok((events, 0)) };
    let (mut cursor, _) = view.cursor(*first)?;
    let mut damaged = 0;
    while let Some(entry) = cursor.next()? {
        if matches!(entry, Entry::Damage(_)) {
            damaged = cursor.next_seq();
            continue;
        }
        let Entry::Deletion { payload } = entry else { continue };
        let ranges = Deletion::decode(payload).map_or_else(Vec::new, |record| record.ranges);
        for (low, high) in ranges {
            events = events
                .into_iter()
                .flat_map(|(first, last)| {
                    [(first, last.min(low.saturating_sub(1))), (first.max(high.saturating_add(1)), last)]
                })
                .filter(|(first, last)| first <= last)
                .collect();
            events.dedup();
        }
    }
    Ok((events, damaged))
}

/// The finding for a stretch that is not proved.
pub(crate) fn finding((first, last): Range, projection: &str) -> Finding {
    let what = format!(
        "the table synclog_absent says that they have no rows, and the log has the events, so it is not \
         believed; {projection}"
    );
    Finding::new(FindingKind::AbsenceUnproved, what).seqs(first, last)
}

/// Takes away what the table says without proof: what is lawful of it comes back with the log, like the rows.
/// Returns the events of which nothing can be said yet.
pub(crate) fn settle<E: Event>(
    projection: &Projection,
    view: &LogView,
    go_on: &dyn Fn() -> bool,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Range>, Stop> {
    let last = projection.applied().seq.min(view.last_seq());
    let found = judge::<E>(view, projection.reader(), last, go_on)?;
    for range in found.unproved {
        projection.forget_absence(range.0, range.1)?;
        findings.push(finding(range, "their rows are brought back").file(projection.path()));
    }
    Ok(found.open)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::store::{Options, Reader, Store};
    use crate::sync::{Company, Level, SyncEvent};

    fn event(number: u64) -> SyncEvent {
        SyncEvent::new(Company::new("g", "1", "A"), Level::Info, format!("event {number}"))
    }

    fn options() -> Options {
        Options::default().projection_wait(Duration::from_mins(1))
    }

    /// 200 events, of which most have no row and are entered as absent.
    fn hidden(sql: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), options()).unwrap();
        store.append_all((1..=200).map(event)).unwrap();
        store.close().unwrap();
        let db = Connection::open(dir.path().join("synclog.db")).unwrap();
        db.execute_batch("DELETE FROM sync_logs WHERE id <= 150").unwrap();
        db.execute_batch(sql).unwrap();
        dir
    }

    fn counts(dir: &Path) -> (i64, i64) {
        let db = Connection::open(dir.join("synclog.db")).unwrap();
        let sql = "SELECT (SELECT count(*) FROM sync_logs), (SELECT count(*) FROM synclog_absent)";
        db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    fn verify(dir: &Path) -> Vec<(Option<u64>, Option<u64>)> {
        let mut found = Vec::new();
        Reader::<SyncEvent>::verify(dir, false, |finding| found.push(finding)).unwrap();
        found.retain(|finding| finding.kind == FindingKind::AbsenceUnproved);
        found.iter().map(|finding| (finding.seq, finding.last_seq)).collect()
    }

    const ENTRIES: [&str; 4] = [
        "INSERT INTO synclog_absent VALUES (1, 150, 'lost')",
        "INSERT INTO synclog_absent VALUES (1, 100, 'deleted'), (50, 150, 'erased')",
        "WITH RECURSIVE each(seq) AS (VALUES (1) UNION ALL SELECT seq + 1 FROM each WHERE seq < 150) \
         INSERT INTO synclog_absent SELECT seq, seq, 'unknown' FROM each",
        "INSERT INTO synclog_absent VALUES (-5, 150, '')",
    ];

    #[test]
    fn rows_entered_as_absent_without_proof_come_back_by_themselves() {
        for sql in ENTRIES {
            let dir = hidden(sql);
            assert_eq!(verify(dir.path()), [(Some(1), Some(150))], "{sql}");
            let store = Store::open(dir.path(), options()).unwrap();
            store.append(event(201)).unwrap();
            store.close().unwrap();
            assert_eq!(counts(dir.path()), (201, 0), "{sql}");
            assert_eq!(verify(dir.path()), []);
        }
    }

    #[test]
    fn replay_makes_the_table_from_the_log() {
        let dir = hidden(ENTRIES[0]);
        let (report, opened) = Store::<SyncEvent>::replay(dir.path(), options(), false).unwrap();
        assert_eq!(counts(dir.path()), (200, 0));
        assert_eq!(report.restored, 150);
        let told = opened.findings.iter().any(|finding| finding.kind == FindingKind::AbsenceUnproved);
        assert!(told, "{:?}", opened.findings);
    }
}
