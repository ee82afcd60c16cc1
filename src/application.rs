//! Calls of the event type's own code, which is the application's.
//!
//! Nothing that it does may end more than the call that needed it: a panic is caught here, where the code is
//! called, and told as the application's own fault. A process that aborts on panics ends all the same. What
//! an event has to keep to, so that it may be acknowledged, is in [`crate::faithful`].

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::threads;
use crate::time::Timestamp;

/// Calls `function` of the event type. Whatever it has touched when it panics is not looked at again: it works
/// on an event that is refused, or on a new one.
fn call<R>(function: &'static str, work: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let reason = threads::message(panic.as_ref());
        // What was thrown is the application's too, and may panic when it goes.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        Error::Application { function, seq: None, reason }
    })
}

pub(crate) fn prepare<E: Event>(event: &mut E, now: Timestamp) -> Result<()> {
    call("prepare", || event.prepare(now))?
}

pub(crate) fn encode<E: Event>(event: &E, version: u16) -> Result<Vec<u8>> {
    call("encode", || event.encode(version))?
}

pub(crate) fn decode<E: Event>(version: u16, payload: &[u8]) -> Result<E> {
    call("decode", || E::decode(version, payload))?
}

pub(crate) fn to_row<E: Event>(event: &E) -> Result<Vec<Value>> {
    call("to_row", || event.to_row())
}

pub(crate) fn from_row<E: Event>(row: &[Value]) -> Result<E> {
    call("from_row", || E::from_row(row))?
}

pub(crate) fn repeats<E: Event>(given: &E, stored: &E) -> Result<bool> {
    call("repeats", || given.repeats(stored))
}

pub(crate) fn equal<E: Event>(one: &E, other: &E) -> Result<bool> {
    call("eq", || one == other)
}

pub(crate) fn copy<E: Event>(event: &E) -> Result<E> {
    call("clone", || event.clone())
}

/// An event that is kept for a while, and dropped without harm to whoever keeps it. Clones are one event.
pub(crate) struct Held<E>(Arc<Guarded<E>>);

struct Guarded<E>(Option<E>);

impl<E> Held<E> {
    pub(crate) fn new(event: E) -> Self {
        Self(Arc::new(Guarded(Some(event))))
    }
}

impl<E> Clone for Held<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Deref for Held<E> {
    type Target = E;

    fn deref(&self) -> &E {
        match &self.0.0 {
            Some(event) => event,
            None => unreachable!("only dropping takes the event out"),
        }
    }
}

impl<E> Drop for Guarded<E> {
    fn drop(&mut self) {
        let event = self.0.take();
        // Nothing depends on it any more.
        let _ = call("drop", || drop(event));
    }
}

/// Drops an event that was needed for a moment.
pub(crate) fn discard<E>(event: E) {
    drop(Guarded(Some(event)));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_panic_of_any_kind_is_an_error_that_says_what_it_said() {
        let said = |work: fn()| match call("decode", work) {
            Err(Error::Application { function: "decode", seq: None, reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(|| panic!("plain")), "plain");
        assert_eq!(said(|| panic!("number {}", std::hint::black_box(7))), "number 7");
        assert_eq!(said(|| std::panic::panic_any(7_u8)), "it gave no reason");
        assert_eq!(said(|| std::panic::panic_any(Bomb)), "it gave no reason");
        assert!(matches!(call("to_row", || 7), Ok(7)));
    }

    #[test]
    fn what_is_held_may_panic_when_it_goes() {
        drop(Held::new(Bomb));
        let while_another_panics = std::panic::catch_unwind(|| {
            let _held = Held::new(Bomb);
            panic!("first");
        });
        assert!(while_another_panics.is_err());
    }
}
