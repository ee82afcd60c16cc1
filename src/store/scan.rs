//! Every frame of the log and nothing else, on all cores: each thread takes a run of segments.

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use crate::codec::Known;
use crate::erasures::Erasures;
use crate::error::Result;
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Cursor, Entry};
use crate::log::deletion::Deletion;
use crate::log::view::LogView;
use crate::replay::gap_finding;
use crate::threads;

use super::verify::Check;

/// More threads than this only wait for the memory.
const MOST_THREADS: usize = 8;
/// The name of such a thread.
const SCANNER: &str = "synclog-scan";
/// What one thread may be ahead of the one that tells.
const AHEAD: usize = 256;

/// What is met beside sound events.
enum Met {
    Finding(Finding),
    Erased(u64, PathBuf, u64),
    Deleted(Vec<(u64, u64)>),
}

/// Checks every frame and tells findings in the order of the log.
pub(super) fn scan(view: &LogView, known: Known, check: &mut Check<'_>) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let (mut cursors, missing) = view.cursors(threads)?;
    missing.into_iter().for_each(|finding| check.tell(finding));
    let mut erasures = Erasures::default();
    let mut meet = |check: &mut Check<'_>, met| match met {
        Met::Finding(finding) => check.tell(finding),
        Met::Erased(seq, path, offset) => erasures.erased(seq, path, offset),
        Met::Deleted(ranges) => erasures.deleted(&ranges),
    };
    let scanned = std::thread::scope(|scope| {
        let mut started = Vec::new();
        for cursor in &mut cursors {
            let (sender, met) = sync_channel(AHEAD);
            // Whoever listens goes on to the end; where nobody does any more, an error came first.
            let run = move || scan_run(cursor, known, &mut |met| drop(sender.send(met)));
            match threads::spawn_scoped(scope, SCANNER, run) {
                Ok(thread) => started.push((met, thread)),
                // What no thread can be had for is left to this one.
                Err(_) => break,
            }
        }
        let (mut done, scanned) = (Ok(()), started.len());
        for (met, thread) in started {
            met.into_iter().for_each(|met| meet(check, met));
            match threads::ended(SCANNER, thread.join()).flatten() {
                Ok(events) => check.summary.events += events,
                Err(error) => done = done.and(Err(error)),
            }
        }
        done.map(|()| scanned)
    })?;
    for cursor in cursors.iter_mut().skip(scanned) {
        let events = scan_run(cursor, known, &mut |met| meet(check, met))?;
        check.summary.events += events;
    }
    erasures.unexplained().into_iter().for_each(|finding| check.tell(finding));
    Ok(())
}

/// The events of one run of segments. It knows no event type, so that it is compiled with what it calls, and
/// not with whoever has the events.
fn scan_run(cursor: &mut Cursor, known: Known, meet: &mut dyn FnMut(Met)) -> Result<u64> {
    let log = cursor.log().clone();
    let mut events = 0;
    loop {
        // In place: moving an entry takes about as long as what is done with it here.
        match &cursor.next() {
            Err(error) => return Err(error.clone()),
            Ok(None) => break,
            Ok(Some(Entry::Event { header, .. })) => {
                events += 1;
                if let Some(reason) = known.lacks(header) {
                    let what = format!("kept in the log and not projected: {reason}");
                    meet(Met::Finding(Finding::new(FindingKind::UnknownEvent, what).seq(header.seq)));
                }
            }
            Ok(Some(Entry::Deletion { payload })) => {
                if let Some(record) = Deletion::decode(payload) {
                    meet(Met::Deleted(record.ranges));
                }
            }
            Ok(Some(Entry::Erased { seq, segment, offset, .. })) => {
                events += 1;
                meet(Met::Erased(*seq, log.segment_path(*segment), *offset));
            }
            Ok(Some(Entry::Gap { header, segment, offset })) => {
                meet(Met::Finding(gap_finding(header).at(log.segment_path(*segment), *offset)));
            }
            Ok(Some(Entry::Damage(finding))) => meet(Met::Finding(finding.clone())),
        }
        if cursor.has_stray() {
            cursor.take_stray().into_iter().for_each(|finding| meet(Met::Finding(finding)));
        }
    }
    cursor.take_stray().into_iter().for_each(|finding| meet(Met::Finding(finding)));
    Ok(events)
}
