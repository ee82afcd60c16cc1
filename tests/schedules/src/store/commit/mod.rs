//! The commit path's own files, with other locks, and a log and rows that only count.

#[path = "../../../../../src/store/commit/queue.rs"]
#[allow(dead_code, clippy::all)]
mod queue;
#[path = "../../../../../src/store/commit/rows.rs"]
#[allow(dead_code, clippy::all)]
mod rows;
#[path = "../../../../../src/store/commit/shared.rs"]
#[allow(dead_code, clippy::all)]
mod shared;
#[path = "../../../../../src/store/commit/slot.rs"]
#[allow(dead_code, clippy::all)]
mod slot;
mod sync;

mod model;
mod tests;
