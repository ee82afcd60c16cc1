//! The commit path: it holds the only locks. Appends join the queue, one thread at a time makes groups
//! durable, one at a time makes their rows, and everybody who waits is woken here.
//!
//! A caller who is alone does both itself. Two threads take over where callers meet: one commits while
//! the other one makes the rows of the group before.
//!
//! [`queue`], [`rows`], [`slot`] and [`shared`] know neither log nor database. The package `tests/schedules`
//! runs the same files under a scheduler that tries orders of steps.

mod confirm;
mod group;
mod queue;
mod rows;
mod shared;
mod slot;
mod sync;

pub(super) use confirm::Confirm;
pub(super) use group::{Claimed, Core, Entry};
pub(super) use rows::{Rows, Turn};
pub(super) use slot::{Promise, Slot, Waited};
pub(super) use sync::lock;

/// What callers and both threads of a store share.
pub(super) type Shared<E> = shared::Shared<Entry<E>, Core<E>>;
