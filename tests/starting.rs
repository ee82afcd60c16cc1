//! Starting is never a gate (P5): appends are taken while rows are still made behind them.

mod common;

use std::time::Duration;

use common::{assert_rows_equal_log, database, full_event, small, verify};
use synclog::{Error, Outcome, Store};

/// More than any opening brings back at once.
const COUNT: u64 = 20_000;

/// A log without a database.
fn without_rows() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small().projection(false)).unwrap();
    for first in (1..=COUNT).step_by(2000) {
        store.append_all((first..first + 2000).map(full_event)).unwrap();
    }
    store.close().unwrap();
    assert!(!database(dir.path()).exists());
    dir
}

#[test]
fn appends_are_taken_while_a_lost_database_is_made_again() {
    let dir = without_rows();
    let store = Store::open(dir.path(), small().projection_wait(Duration::ZERO)).unwrap();
    let report = store.open_report();
    assert!(report.projection_pending.is_some(), "{report:?}");
    let receipt = store.append(full_event(COUNT + 1)).unwrap();
    assert_eq!((receipt.seq, receipt.projected), (COUNT + 1, false));
    // Which event has the key cannot be known yet.
    let refused = store.append_with_key(full_event(1), "a key").unwrap_err();
    assert!(matches!(&refused, Error::KeysUnavailable { reason } if reason.contains("up to")), "{refused}");
    assert_eq!(refused.outcome(), Outcome::NotWritten);
    assert!(store.projection_trouble().is_some());
    assert!(store.wait_projected(Duration::from_mins(2)));
    assert_eq!(store.projection_trouble(), None);
    assert_eq!(store.append_with_key(full_event(1), "a key").unwrap().seq, COUNT + 2);
    assert!(store.wait_projected(Duration::from_mins(2)));
    let rest = store.reader().unwrap().last_open_report().unwrap();
    store.close().unwrap();
    assert_eq!(rest.projection_pending, None);
    assert!(rest.replay.rebuilt && rest.replay.restored >= COUNT, "{rest:?}");
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}
