//! What callers and threads do with the queue and the rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::log::writer::Position;

use super::queue::{Batch, Done, Queue, Task};
use super::rows::Rows;
use super::sync::Arc;

/// What commits batches of type `T`, and what makes rows: a [`Commit::Projector`].
pub(in crate::store) trait Commit<T> {
    type Projector;

    /// Makes batches durable and answers them. A projector prepares their rows meanwhile. An error is the
    /// end of the handle.
    fn commit(
        &mut self,
        batches: Vec<T>,
        rows: &Rows<Box<Self::Projector>>,
        projector: Option<&mut Self::Projector>,
    ) -> Result<()>;

    /// Proves the last group with a mark.
    fn prove(&mut self) -> Result<()>;

    /// Whether the log ends in a group that no mark proves.
    fn wants_mark(&self) -> bool;

    /// Makes the rows of everything up to `durable`, and tells how far they are. What goes wrong is left to
    /// the thread, and so is what is not done when `until` has passed.
    fn follow(
        projector: &mut Self::Projector,
        durable: Position,
        until: Option<Instant>,
        applied: &mut dyn FnMut(u64, &[u64]),
    );

    /// Gives up what the projector holds open.
    fn forget(projector: &mut Self::Projector);
}

/// What callers and both threads share.
pub(in crate::store) struct Shared<T, C: Commit<T>> {
    queue: Queue<T, Box<C>>,
    pub(in crate::store) rows: Rows<Box<C::Projector>>,
}

impl<T: Batch, C: Commit<T>> Shared<T, C> {
    pub(in crate::store) fn new(core: C, rows: Rows<Box<C::Projector>>) -> Self {
        let wants_mark = core.wants_mark();
        Self { queue: Queue::new(Box::new(core), wants_mark), rows }
    }

    /// Puts a batch into the queue, to be committed by the thread; waits while the queue is full.
    pub(in crate::store) fn submit(&self, entry: T) -> Result<()> {
        self.queue.join(entry, false).map(|_| ())
    }

    /// Puts a batch into the queue, and commits it here where nobody else does.
    pub(in crate::store) fn append(&self, entry: T) -> Result<()> {
        let Some((mut core, entries)) = self.queue.join(entry, true)? else { return Ok(()) };
        let batches = entries.len();
        let mut projector = self.rows.take_idle();
        let rows = projector.as_deref_mut();
        if self.guarded(|| core.commit(entries, &self.rows, rows)).is_some() {
            let wants_mark = core.wants_mark();
            self.queue.give_back(core, Done { batches, wants_mark });
        }
        if let Some(projector) = projector {
            self.project(projector);
        }
        Ok(())
    }

    /// Makes the rows of the group that the caller has just made durable. What goes wrong is left to the
    /// thread, which tries again.
    fn project(&self, mut projector: Box<C::Projector>) {
        let durable = self.rows.durable();
        let until = Instant::now().checked_add(self.rows.patience());
        let done = catch_unwind(AssertUnwindSafe(|| {
            C::follow(&mut projector, durable, until, &mut |seq, unhealed| {
                self.rows.set_applied(seq, unhealed);
            });
        }));
        if done.is_err() {
            self.rows.set_trouble(Error::Abandoned.to_string());
            C::forget(&mut projector);
        }
        self.rows.give_back(projector);
    }

    /// Runs what writes to the log. An error or a panic is the end of this handle (P10).
    fn guarded<R>(&self, work: impl FnOnce() -> Result<R>) -> Option<R> {
        // A panic here is a bug of ours; it must not leave anybody waiting.
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Abandoned));
        done.map_err(|cause| {
            tracing::error!(%cause, "the log took its last write (P10)");
            self.die(cause);
        })
        // Told just now; who waits has it from `die`.
        .ok()
    }

    /// All waiters get the error, later calls fail at once (P10).
    pub(in crate::store) fn die(&self, cause: Error) {
        self.queue.die(cause);
    }

    /// Why nothing can be appended any more.
    pub(in crate::store) fn dead(&self) -> Option<Arc<Error>> {
        self.queue.dead()
    }

    /// Lets the committing thread finish what is queued and stop.
    pub(in crate::store) fn close(&self) {
        self.queue.close();
    }

    /// Lets the projecting thread stop.
    pub(in crate::store) fn close_projection(&self) {
        self.rows.close();
    }

    /// The thread that commits where callers meet, and proves the last group when the log falls idle.
    pub(in crate::store) fn run(&self, idle: Duration) {
        let mut back = None;
        loop {
            let (core, done) = match self.queue.next(back.take(), idle) {
                Task::Commit(mut core, entries) => {
                    let batches = entries.len();
                    if self.guarded(|| core.commit(entries, &self.rows, None)).is_none() {
                        return;
                    }
                    let wants_mark = core.wants_mark();
                    (core, Some(Done { batches, wants_mark }))
                }
                Task::Idle(mut core) => {
                    if self.guarded(|| core.prove()).is_none() {
                        return;
                    }
                    (core, None)
                }
                Task::Close(mut core) => {
                    self.guarded(|| core.prove());
                    return;
                }
                Task::Dead => return,
            };
            back = Some((core, done));
        }
    }
}
