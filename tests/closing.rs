//! Closing waits for rows only while they come.

mod common;

use std::sync::mpsc::channel;
use std::time::Duration;

use common::{assert_rows_equal_log, database, full_event, small, verify};
use synclog::Store;

#[test]
fn closing_does_not_wait_for_rows_that_cannot_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small().projection_wait(Duration::from_hours(1))).unwrap();
    assert!(store.append(full_event(1)).unwrap().projected);
    let holder = rusqlite::Connection::open(database(dir.path())).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ticket = store.submit([full_event(2)]).unwrap();
    let (tell, told) = channel();
    let closing = std::thread::spawn(move || tell.send(store.close()));
    // Far less than the hour for which rows that come are waited for.
    told.recv_timeout(Duration::from_mins(1)).expect("it waits for whoever holds the database").unwrap();
    closing.join().unwrap().unwrap();
    drop((ticket, holder));
    let store = Store::<synclog::SyncEvent>::open(dir.path(), small()).unwrap();
    assert_eq!(store.last_seq(), 2);
    assert!(store.wait_projected(Duration::from_mins(1)));
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}
