//! Starting threads and waiting for them: the one place that does, because a system may have none to give.
//!
//! A thread that cannot be started is an error, or its work is done by whoever wanted it. A thread that panics
//! ends the call that waits for it with an error; nothing that it did not finish is taken for done.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle, Result as Ended, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Starts a thread of its own.
pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    #[cfg(test)]
    let work = crate::proof::outside::inherited(work)?;
    Builder::new().name(name.into()).spawn(work)
}

/// Starts a thread that ends before `scope` does. What the work borrows is free again behind the scope, also
/// where the thread was not started.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    #[cfg(test)]
    let work = crate::proof::outside::inherited(work)?;
    Builder::new().name(name.into()).spawn_scoped(scope, work)
}

/// What a thread came to; an error where it panicked.
pub(crate) fn ended<T>(name: &'static str, ended: Ended<T>) -> Result<T> {
    ended.map_err(|panic| Error::WorkerDied { worker: name, reason: message(panic.as_ref()) })
}

/// Runs work whose panic must not leave anybody waiting.
pub(crate) fn guarded<T>(name: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    ended(name, catch_unwind(AssertUnwindSafe(work)))
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Outcome;

    #[test]
    fn a_thread_that_dies_is_an_error_that_says_why() {
        let thread = spawn("synclog-test", || assert_eq!(1, 2, "they differ")).unwrap();
        let error = ended("synclog-test", thread.join()).unwrap_err();
        assert!(error.to_string().contains("they differ"), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(guarded("synclog-test", || panic!("at once")).unwrap_err().to_string().contains("at once"));
    }
}
