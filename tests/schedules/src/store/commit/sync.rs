//! What the commit path locks and waits with, here.

// Counting references needs no schedule of its own.
pub(super) use std::sync::Arc;

pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(super) use std::sync::PoisonError;

pub(in crate::store) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
