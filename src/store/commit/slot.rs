//! Where one caller waits: until its batch is durable, then until its rows are there.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::sync::{Arc, Condvar, Mutex, PoisonError, lock};

/// What a caller of [`Slot::wait`] has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Waited {
    /// Every row is there and equals its event.
    RowsAreThere,
    /// Nobody waits for rows at present, or a row differs from its event.
    Durable,
    /// The rows did not come in time.
    TimedOut,
}

#[derive(Default)]
struct State {
    answer: Option<Result<Vec<u64>>>,
    durable_at: Option<Instant>,
    settled: Option<Waited>,
}

/// Where a caller waits for its batch. It is woken once: by an error, or when nothing is left to wait for.
#[derive(Default)]
pub(in crate::store) struct Slot {
    state: Mutex<State>,
    ready: Condvar,
}

impl Slot {
    /// The batch is durable, or failed. A second answer is ignored.
    fn answer(&self, answer: Result<Vec<u64>>) {
        let mut state = lock(&self.state);
        if state.answer.is_some() {
            return;
        }
        let failed = answer.is_err();
        state.answer = Some(answer);
        if failed {
            drop(state);
            self.ready.notify_one();
        } else {
            state.durable_at = Some(Instant::now());
        }
    }

    /// Nothing is left to wait for.
    pub(super) fn settle(&self, how: Waited) {
        lock(&self.state).settled.get_or_insert(how);
        self.ready.notify_one();
    }

    /// Blocks until the batch failed, or is durable and settled; from the moment when it is durable at
    /// most for `patience`.
    pub(in crate::store) fn wait(&self, patience: Duration) -> Result<(Vec<u64>, Waited)> {
        let mut state = lock(&self.state);
        loop {
            let left = match (&state.answer, state.settled) {
                (None, _) => None,
                (Some(Ok(seqs)), Some(how)) => return Ok((seqs.clone(), how)),
                (Some(Ok(seqs)), None) => {
                    let left = state
                        .durable_at
                        .map_or(Duration::ZERO, |since| patience.saturating_sub(since.elapsed()));
                    if left.is_zero() {
                        return Ok((seqs.clone(), Waited::TimedOut));
                    }
                    Some(left)
                }
                (Some(Err(error)), _) => return Err(error.clone()),
            };
            // Becoming durable wakes nobody, so whoever has not seen it looks again after a while.
            let left = left.unwrap_or_else(|| patience.max(Duration::from_millis(1)));
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the batch is durable or failed.
    pub(in crate::store) fn is_answered(&self) -> bool {
        lock(&self.state).answer.is_some()
    }
}

/// The committer's side of a [`Slot`]: whatever becomes of it, the caller gets an answer.
pub(in crate::store) struct Promise(Arc<Slot>);

impl Promise {
    /// A slot for a caller, and the promise to fill it.
    pub(in crate::store) fn new() -> (Arc<Slot>, Self) {
        let slot = Arc::new(Slot::default());
        (Arc::clone(&slot), Self(slot))
    }

    /// Answers the caller, who goes on waiting for rows where the batch is durable.
    pub(super) fn put(&self, answer: Result<Vec<u64>>) {
        self.0.answer(answer);
    }

    /// Answers a caller who has nothing to wait for.
    pub(in crate::store) fn put_all(&self, answer: Result<Vec<u64>>) {
        self.put(answer);
        self.0.settle(Waited::RowsAreThere);
    }

    pub(super) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.0)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // Only a bug gets here unanswered; nobody may hang because of it.
        self.0.answer(Err(Error::Abandoned));
    }
}
