//! One file for each contestant.

pub mod fjall;
pub mod json_lines;
pub mod limit;
pub mod okaywal;
pub mod raft_engine;
pub mod redb;
pub mod seglog;
pub mod sqlite;
pub mod synclog_store;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that a panicking worker does not take away from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
