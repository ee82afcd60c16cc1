//! What the commit path locks and waits with.

pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A lock that a panic elsewhere does not poison for good: what it guards is whole after every call.
pub(in crate::store) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
