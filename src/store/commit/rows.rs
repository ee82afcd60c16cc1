//! How far the log and the rows are, who waits for rows, and who makes them.
//!
//! Whoever holds the *projector* makes rows: it is taken out and put back, like the queue's core.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::log::writer::Position;

use super::slot::{Slot, Waited};
use super::sync::{Arc, Condvar, Mutex, PoisonError, lock};

/// Callers that wait for rows; with more nobody waits until the rows have caught up.
const WAITING: usize = 16 * 1024;
/// Seqs whose rows still differ after healing, as far as they are remembered.
const UNHEALED_KEPT: usize = 1024;

struct State<P> {
    /// Everything before this place is durable.
    durable: Position,
    /// The newest event that the rows reflect.
    applied: u64,
    /// An append timed out on the rows; nobody waits until they have caught up.
    lagging: bool,
    /// Why the rows do not follow at present.
    trouble: Option<String>,
    /// Rows that differ even after they were healed.
    unhealed: BTreeSet<u64>,
    /// Of rows up to this one it is not remembered any more which of them differ.
    forgotten: u64,
    closing: bool,
    /// Somebody found the database not as it should be.
    suspect: bool,
    projector: Option<P>,
    /// Who waits for the row of which event, in order.
    waiting: VecDeque<(u64, Arc<Slot>)>,
}

impl<P> State<P> {
    fn caught_up(&self) -> bool {
        self.applied + 1 >= self.durable.seq
    }

    fn judge(&self, seq: u64) -> Waited {
        if self.applied >= seq && self.unhealed.is_empty() { Waited::RowsAreThere } else { Waited::Durable }
    }
}

/// The rows' side of what callers and threads share. `P` is what is needed to make rows.
pub(in crate::store) struct Rows<P> {
    state: Mutex<State<P>>,
    /// For those who wait until everything is there.
    moved: Condvar,
    /// For the thread that makes rows.
    more: Condvar,
    patience: Duration,
    /// The projection is switched off.
    off: bool,
}

/// Where things stand when the thread gets the projector.
pub(in crate::store) struct Turn<P> {
    pub(in crate::store) projector: P,
    pub(in crate::store) durable: Position,
    pub(in crate::store) applied: u64,
    pub(in crate::store) closing: bool,
    /// The database must be opened and checked anew.
    pub(in crate::store) suspect: bool,
}

impl<P> Rows<P> {
    /// Without a projector nobody makes rows. `trouble` is why rows do not follow from the start.
    pub(in crate::store) fn new(
        durable: Position,
        applied: u64,
        projector: Option<P>,
        trouble: Option<String>,
        patience: Duration,
    ) -> Self {
        let off = projector.is_none();
        let suspect = trouble.is_some() && !off;
        let state = State {
            durable,
            applied,
            lagging: trouble.is_some() || off,
            trouble,
            unhealed: BTreeSet::new(),
            forgotten: 0,
            closing: false,
            // Rows that do not follow are looked at first, though no event is waiting.
            suspect,
            projector,
            waiting: VecDeque::new(),
        };
        Self { state: Mutex::new(state), moved: Condvar::new(), more: Condvar::new(), patience, off }
    }

    /// How long callers wait for rows.
    pub(in crate::store) fn patience(&self) -> Duration {
        self.patience
    }

    /// Everything before this place is durable.
    pub(in crate::store) fn durable(&self) -> Position {
        lock(&self.state).durable
    }

    /// The newest event that the rows reflect.
    pub(in crate::store) fn applied(&self) -> u64 {
        lock(&self.state).applied
    }

    /// The newest event up to which rows are what their events say, as far as that is remembered: they answer for
    /// the keys up to there.
    pub(in crate::store) fn answered(&self) -> u64 {
        let state = lock(&self.state);
        match state.unhealed.first() {
            _ if state.forgotten > 0 => 0,
            Some(first) => state.applied.min(first.saturating_sub(1)),
            None => state.applied,
        }
    }

    /// Why the rows do not follow at present.
    pub(in crate::store) fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    /// Whether each event's row is there and equals its event.
    pub(in crate::store) fn projected(&self, seqs: &[u64]) -> Vec<bool> {
        let state = lock(&self.state);
        let is_right = |seq: &u64| *seq > state.forgotten && !state.unhealed.contains(seq);
        seqs.iter().map(|seq| state.applied >= *seq && is_right(seq)).collect()
    }

    /// For a caller who is about to commit: the projector, where the rows are caught up, nothing is wrong
    /// with them, and nobody else holds it. It must be given back.
    pub(super) fn take_idle(&self) -> Option<P> {
        let mut state = lock(&self.state);
        let idle = state.caught_up() && state.trouble.is_none() && !state.lagging && !state.suspect;
        let wanted = idle && !state.closing && !self.patience.is_zero();
        state.projector.take_if(|_| wanted)
    }

    /// A group is durable; these callers wait for rows up to these seqs. With `inline` whoever holds the
    /// projector makes them.
    pub(super) fn advance(
        &self,
        durable: Position,
        callers: impl Iterator<Item = (u64, Arc<Slot>)>,
        inline: bool,
    ) {
        let mut state = lock(&self.state);
        state.durable = durable;
        state.waiting.extend(callers);
        state.lagging |= state.waiting.len() > WAITING;
        let nobody_waits = state.lagging || self.patience.is_zero();
        let woken = if nobody_waits { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        woken.into_iter().for_each(|(_, slot)| slot.settle(Waited::Durable));
        if !inline {
            self.more.notify_one();
        }
    }

    /// A caller waits for the row of an event of long ago.
    pub(super) fn await_old(&self, seq: u64, slot: Arc<Slot>) {
        let mut state = lock(&self.state);
        if state.applied >= seq || state.lagging || self.patience.is_zero() {
            let how = state.judge(seq);
            drop(state);
            slot.settle(how);
            return;
        }
        let at = state.waiting.partition_point(|(other, _)| *other <= seq);
        state.waiting.insert(at, (seq, slot));
    }

    /// A caller has lost patience: nobody waits until the rows have caught up.
    pub(in crate::store) fn stop_waiting(&self) {
        let mut state = lock(&self.state);
        if state.caught_up() {
            return;
        }
        state.lagging = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|(_, slot)| slot.settle(Waited::Durable));
    }

    /// Blocks until the rows reflect everything durable, or `deadline` passes.
    pub(in crate::store) fn wait_caught_up(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        while !state.caught_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.off {
                return false;
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// For the thread: blocks until there are rows to make, or the store closes; with `pause` until that
    /// has passed. Whoever drops the projector must not call this again.
    pub(in crate::store) fn next(&self, pause: Option<Duration>) -> Turn<P> {
        let deadline = pause.map(|pause| Instant::now() + pause);
        let mut state = lock(&self.state);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let due = match left {
                None => !state.caught_up() || state.suspect,
                Some(left) => left.is_zero(),
            };
            if (due || state.closing)
                && let Some(projector) = state.projector.take()
            {
                let (durable, applied, closing) = (state.durable, state.applied, state.closing);
                let suspect = std::mem::take(&mut state.suspect);
                return Turn { projector, durable, applied, closing, suspect };
            }
            state = match left.filter(|left| !left.is_zero()) {
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The projector again.
    pub(in crate::store) fn give_back(&self, projector: P) {
        let mut state = lock(&self.state);
        state.projector = Some(projector);
        let needed = !state.caught_up() || state.closing || state.suspect;
        drop(state);
        if needed {
            self.more.notify_one();
        }
    }

    /// The rows reflect `seq` now.
    pub(in crate::store) fn set_applied(&self, seq: u64, unhealed: &[u64]) {
        let mut state = lock(&self.state);
        state.applied = seq;
        state.unhealed.extend(unhealed);
        while state.unhealed.len() > UNHEALED_KEPT {
            state.forgotten = state.unhealed.pop_first().unwrap_or(0);
        }
        state.trouble = None;
        if state.caught_up() {
            state.lagging = false;
        }
        let there = state.waiting.partition_point(|(wanted, _)| *wanted <= seq);
        let how = state.judge(seq);
        let woken: Vec<_> = state.waiting.drain(..there).collect();
        drop(state);
        woken.into_iter().for_each(|(_, slot)| slot.settle(how));
        self.moved.notify_all();
    }

    /// The database is not as it should be: the thread is to check it, though no event is waiting.
    pub(super) fn suspect(&self) {
        lock(&self.state).suspect = true;
        self.more.notify_one();
    }

    /// Why the rows do not follow.
    pub(in crate::store) fn set_trouble(&self, trouble: String) {
        lock(&self.state).trouble = Some(trouble);
    }

    /// Lets the thread stop.
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.more.notify_all();
        self.moved.notify_all();
    }
}
