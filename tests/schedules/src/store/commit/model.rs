//! A log that counts events, and rows that count after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use shuttle::thread;

use crate::error::{Error, Result};
use crate::log::writer::Position;

use super::queue::Batch;
use super::rows::{Rows, Turn};
use super::shared::{Commit, Shared};
use super::slot::Promise;
use super::sync::Arc;

/// A batch of some events.
pub(super) struct Entry {
    pub(super) events: u64,
    pub(super) slot: Promise,
    /// A key that the newest event has already: here its seq is left, and nothing is appended.
    pub(super) repeats: Option<Arc<AtomicU64>>,
}

impl Batch for Entry {
    fn bytes(&self) -> u64 {
        // Two batches fill the queue, and a group takes one or two.
        32 * 1024 * 1024
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        std::iter::empty()
    }

    fn refuse(self, error: Error) {
        self.slot.put_all(Err(error));
    }
}

/// What is true, whatever the threads believe. Its counters are not part of any schedule.
#[derive(Default)]
pub(super) struct Truth {
    /// The newest durable event.
    pub(super) durable: AtomicU64,
    /// The newest event with a row.
    pub(super) rows: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) marks: AtomicU64,
}

fn get(number: &AtomicU64) -> u64 {
    number.load(Ordering::SeqCst)
}

pub(super) struct Core {
    pub(super) truth: Arc<Truth>,
    /// The sync that fails, if any.
    pub(super) fails: Option<u64>,
    pub(super) wants_mark: bool,
}

pub(super) struct Projector {
    pub(super) truth: Arc<Truth>,
    /// Rows in a transaction that is not committed, up to this event.
    pub(super) prepared: Option<u64>,
}

impl Projector {
    /// Rows up to an event, which must be durable.
    fn make(&mut self, durable: Position, applied: &mut dyn FnMut(u64, &[u64])) {
        assert!(self.prepared.take().is_none_or(|prepared| prepared < durable.seq), "P2: a prepared row");
        assert!(durable.seq - 1 <= get(&self.truth.durable), "P2: no row before its event is durable");
        thread::yield_now();
        let before = self.truth.rows.fetch_max(durable.seq - 1, Ordering::SeqCst);
        assert!(before < durable.seq, "rows go forward");
        applied(durable.seq - 1, &[]);
    }
}

impl Commit<Entry> for Core {
    type Projector = Projector;

    fn commit(
        &mut self,
        batches: Vec<Entry>,
        rows: &Rows<Box<Projector>>,
        projector: Option<&mut Projector>,
    ) -> Result<()> {
        let (repeats, batches): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(|batch| batch.repeats.is_some());
        for repeat in repeats {
            let newest = get(&self.truth.durable);
            repeat.repeats.iter().for_each(|left| left.store(newest, Ordering::SeqCst));
            repeat.slot.put(Ok(Vec::new()));
            thread::yield_now();
            rows.await_old(newest, repeat.slot.slot());
        }
        if batches.is_empty() {
            return Ok(());
        }
        let first = get(&self.truth.durable) + 1;
        let end = first + batches.iter().map(|batch| batch.events).sum::<u64>();
        let inline = projector.is_some();
        if let Some(projector) = projector {
            assert_eq!(get(&projector.truth.rows) + 1, first, "whoever prepares rows has all before them");
            projector.prepared = Some(end - 1);
        }
        thread::yield_now();
        if self.fails == Some(self.truth.syncs.fetch_add(1, Ordering::SeqCst)) {
            batches.iter().for_each(|batch| batch.slot.put(Err(Error::Sync)));
            return Err(Error::Sync);
        }
        let before = self.truth.durable.swap(end - 1, Ordering::SeqCst);
        assert_eq!(before + 1, first, "P1: one group in flight");
        self.wants_mark = true;
        let mut seq = first;
        let mut callers = Vec::new();
        for batch in batches {
            batch.slot.put(Ok((seq..seq + batch.events).collect()));
            seq += batch.events;
            callers.push((seq - 1, batch.slot.slot()));
        }
        rows.advance(Position { seq: end }, callers.into_iter(), inline);
        Ok(())
    }

    fn prove(&mut self) -> Result<()> {
        self.truth.marks.fetch_add(1, Ordering::SeqCst);
        self.wants_mark = false;
        Ok(())
    }

    fn wants_mark(&self) -> bool {
        self.wants_mark
    }

    fn follow(
        projector: &mut Projector,
        durable: Position,
        _until: Option<Instant>,
        applied: &mut dyn FnMut(u64, &[u64]),
    ) {
        if projector.prepared.is_some_and(|prepared| prepared >= durable.seq) {
            projector.prepared = None; // in vain: the sync failed
        }
        projector.make(durable, applied);
    }

    fn forget(projector: &mut Projector) {
        projector.prepared = None;
    }
}

/// The thread that makes rows where no caller does, as in the library.
pub(super) fn project(shared: &Shared<Entry, Core>) {
    loop {
        let Turn { mut projector, durable, applied, closing, suspect } = shared.rows.next(None);
        if closing && applied + 1 >= durable.seq {
            return;
        }
        if suspect {
            projector.prepared = None;
        }
        projector.make(durable, &mut |seq, unhealed| shared.rows.set_applied(seq, unhealed));
        shared.rows.give_back(projector);
    }
}
