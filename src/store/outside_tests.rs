//! A clock that shows anything, and a system that has no thread to give (P12).

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Outcome};
use crate::proof::outside::Outside;
use crate::sync::{Company, Filter, Level, RunFilter, RunState, Status, SyncEvent, SyncLog};
use crate::time::Timestamp;

use super::{Options, Reader, Store};

fn company() -> Company {
    Company::new("g", "1", "A")
}

fn event(text: &str) -> SyncEvent {
    SyncEvent::new(company(), Level::Info, text)
}

fn verify(dir: &Path, log_only: bool) -> super::VerifySummary {
    let mut findings = Vec::new();
    let summary = Reader::<SyncEvent>::verify(dir, log_only, |finding| findings.push(finding)).unwrap();
    assert!(summary.is_sound() && findings.is_empty(), "{findings:?}");
    summary
}

/// Everything that asks the clock, with a clock that stands far off, and that is set back while a store is open.
#[test]
fn p12_no_clock_is_fatal() {
    let outside = Outside::begin();
    let year = 31_556_952_000_000;
    for clock in [i64::MAX, 8030 * year, 200_000 * year, -1, -60 * year, -2_000 * year, i64::MIN + 1] {
        let dir = tempfile::tempdir().unwrap();
        outside.set_clock(1_700_000_000_000_000);
        let log = SyncLog::open(dir.path()).unwrap();
        log.append(event("before")).unwrap();
        // In the caller's thread, and in the one that commits.
        outside.set_clock(clock);
        let run = log.start_run(&company()).unwrap();
        run.progress(1, "half").unwrap();
        let tickets: Vec<_> = (0..9).map(|_| log.store().submit([event("many")]).unwrap()).collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        log.store().append_with_key(event("keyed"), "key").unwrap();
        outside.set_clock(1_700_000_000_000_001);
        run.complete(2).unwrap();
        log.append(event("after")).unwrap();
        outside.set_clock(clock);
        assert!(log.store().wait_projected(Duration::from_mins(1)));
        let reader = log.reader().unwrap();
        let rows = reader.list(&Filter::new().since(Timestamp::MIN)).unwrap();
        assert_eq!(rows.len(), 15);
        let shown =
            Timestamp::from_micros(clock.clamp(Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros()));
        assert_eq!(rows.iter().filter(|row| row.event.created_at == shown).count(), 12, "{clock}");
        assert!(!reader.runs(&RunFilter::default()).unwrap().is_empty());
        log.close().unwrap();
        assert_eq!(verify(dir.path(), false).rows, 15);
        for rebuild in [false, true] {
            Store::<SyncEvent>::replay(dir.path(), Options::default(), rebuild).unwrap();
        }
        // A database that is no one of ours is moved aside, under a name made of the time.
        std::fs::write(dir.path().join("synclog.db"), "no database at all").unwrap();
        let patient = Options::default().projection_wait(Duration::from_mins(1));
        let log = SyncLog::open_with(dir.path(), patient).unwrap();
        assert!(!log.store().open_report().findings.is_empty());
        log.close().unwrap();
        assert_eq!(verify(dir.path(), false).rows, 15);
    }
}

/// A run is silent as long as the clock says, and not at all where the clock stands before its last event.
#[test]
fn p12_a_clock_that_goes_backwards_makes_no_run_stuck() {
    let outside = Outside::begin();
    let dir = tempfile::tempdir().unwrap();
    outside.set_clock(1_700_000_000_000_000);
    let log = SyncLog::open(dir.path()).unwrap();
    log.append(event("start").with_status(Status::Started)).unwrap();
    for (clock, state) in [(1_600_000_000_000_000, RunState::Open), (i64::MAX, RunState::Stuck)] {
        outside.set_clock(clock);
        let runs = log.reader().unwrap().runs(&RunFilter::default()).unwrap();
        assert_eq!(runs.first().map(|run| run.state), Some(state));
    }
    log.close().unwrap();
}

/// Where no thread can be had, its work is done by whoever wanted it, or the call says so and nothing stays
/// locked.
#[test]
fn p12_no_thread_to_be_had_is_not_fatal() {
    let outside = Outside::begin();
    let dir = tempfile::tempdir().unwrap();
    // Several segments, so that a scan would have several threads.
    let options = || Options::default().segment_bytes(16 * 1024, 32 * 1024);
    let store = Store::open(dir.path(), options()).unwrap();
    store.append_all((0..600).map(|number| event(&format!("event {number} {}", "x".repeat(300))))).unwrap();
    store.close().unwrap();
    outside.set_no_threads(true);
    let error = Store::<SyncEvent>::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotWritten);
    assert_eq!(verify(dir.path(), true).events, 600);
    assert_eq!(verify(dir.path(), false).rows, 600);
    for rebuild in [false, true] {
        let (report, _) = Store::<SyncEvent>::replay(dir.path(), options(), rebuild).unwrap();
        assert_eq!((report.rebuilt, report.already_present + report.restored), (rebuild, 600));
    }
    std::fs::remove_file(dir.path().join("synclog.db")).unwrap();
    assert!(Store::<SyncEvent>::replay(dir.path(), options(), false).unwrap().0.rebuilt);
    assert!(Store::<SyncEvent>::repair(dir.path(), options(), false, false).unwrap().lost.is_empty());
    assert_eq!(verify(dir.path(), false).rows, 600);
    outside.set_no_threads(false);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.append(event("and on")).unwrap().seq, 601);
    store.close().unwrap();
}

/// A projector that panics says why the rows do not follow, and tries again.
#[test]
fn p12_a_projector_that_panics_is_told_and_goes_on() {
    let outside = Outside::begin();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    store.append(event("first")).unwrap();
    outside.set_panics(true);
    let receipts = store.submit([event("second")]).unwrap().wait().unwrap();
    assert_eq!(
        receipts.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(),
        [2],
        "it is durable all the same"
    );
    let trouble = loop {
        if let Some(trouble) = store.projection_trouble() {
            break trouble;
        }
        std::thread::yield_now();
    };
    assert!(trouble.contains("a test wants a panic"), "{trouble}");
    outside.set_panics(false);
    assert!(store.wait_projected(Duration::from_mins(1)));
    assert_eq!((store.projection_trouble(), store.applied_seq()), (None, 2));
    store.close().unwrap();
}
