//! Append, scan and replay, each beside what it is to be measured against, in one run.
//!
//! `cargo bench --bench engine` prints the figures of each side; the last lines are ratios from
//! interleaved rounds, which hold on a noisy machine where single figures do not.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use synclog::{Company, Item, Level, Options, Reader, Status, Store, SyncEvent};

fn event(number: u64) -> SyncEvent {
    let company =
        Company::new("8f0c1d52-41c7-4b0e-9a57-2f6a5f0c7d11", "102209.0", "Acme Traders Pvt Ltd 25-26");
    SyncEvent::new(company, Level::Info, "100 vouchers inserted")
        .with_details(format!("Batch {number}, total {}", number * 100))
        .with_status(Status::InProgress)
        .with_records((number * 100).cast_signed())
}

fn open(dir: &Path) -> Store<SyncEvent> {
    Store::open(dir, Options::default()).expect("a store")
}

/// The other side of the append: one SQLite database, WAL, a sync at every commit, the same table.
struct Plain(rusqlite::Connection);

impl Plain {
    fn open(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("plain.db")).expect("a database");
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, company_guid TEXT, company_alterid TEXT,
               company_name TEXT, log_level TEXT, log_message TEXT, log_details TEXT, sync_status TEXT,
               records_synced INTEGER, created_at TEXT);
             CREATE INDEX a ON sync_logs (company_guid, company_alterid, created_at);
             CREATE INDEX b ON sync_logs (log_level, created_at);
             CREATE INDEX c ON sync_logs (created_at);",
        )
        .expect("tables");
        Self(db)
    }

    fn append(&mut self, numbers: std::ops::Range<u64>) {
        let tx = self.0.transaction().expect("a transaction");
        for number in numbers {
            let event = event(number);
            tx.prepare_cached(
                "INSERT INTO sync_logs (company_guid, company_alterid, company_name, log_level, log_message,
                   log_details, sync_status, records_synced, created_at) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
            )
            .expect("a statement")
            .execute(rusqlite::params![
                event.company.guid,
                event.company.alterid,
                event.company.name,
                event.level.as_str(),
                event.message,
                event.details,
                event.status.map(Status::as_str),
                event.records_synced,
                synclog::Timestamp::now().to_string(),
            ])
            .expect("a row");
        }
        tx.commit().expect("a commit");
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for batch in [1_u64, 16, 256] {
        group.throughput(Throughput::Elements(batch));
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        group.bench_function(BenchmarkId::new("durable and projected", batch), |bench| {
            bench.iter(|| store.append_all((0..batch).map(event)).expect("receipts"));
        });
        let mut plain = Plain::open(dir.path());
        group.bench_function(BenchmarkId::new("SQLite alone, FULL", batch), |bench| {
            bench.iter(|| plain.append(0..batch));
        });
    }
    group.finish();
}

fn filled(count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for start in (0..count).step_by(10_000) {
        store.append_all((start..count.min(start + 10_000)).map(event)).expect("receipts");
    }
    assert!(store.wait_projected(Duration::from_mins(1)));
    store.close().expect("closed");
    dir
}

fn scan_and_replay(criterion: &mut Criterion) {
    const COUNT: u64 = 50_000;
    let dir = filled(COUNT);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    group.bench_function("scan and decode the log", |bench| {
        bench.iter(|| {
            let reader = Reader::<SyncEvent>::open(dir.path()).expect("a reader");
            let events =
                reader.items(1).expect("items").filter(|item| matches!(item, Ok(Item::Event(_)))).count();
            assert_eq!(black_box(events) as u64, COUNT);
        });
    });
    group.bench_function("verify log and rows", |bench| {
        bench.iter(|| {
            assert!(Reader::<SyncEvent>::verify(dir.path(), false, |_| {}).expect("a summary").is_sound());
        });
    });
    group.bench_function("rebuild the database", |bench| {
        bench.iter_batched(
            || (),
            |()| Store::<SyncEvent>::replay(dir.path(), Options::default(), true).expect("a report"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Interleaved rounds of both sides, and the ratio of their medians.
fn ratios() {
    const ROUNDS: usize = 21;
    for batch in [1_u64, 16, 256] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, mut plain) = (open(dir.path()), Plain::open(dir.path()));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            (0..20).for_each(|_| assert!(store.append_all((0..batch).map(event)).is_ok()));
            ours.push(start.elapsed());
            let start = Instant::now();
            (0..20).for_each(|_| plain.append(0..batch));
            theirs.push(start.elapsed());
        }
        ours.sort_unstable();
        theirs.sort_unstable();
        let rate = |times: &[Duration]| (20 * batch) as f64 / times[ROUNDS / 2].as_secs_f64();
        let (own, plain) = (rate(&ours), rate(&theirs));
        println!(
            "batch {batch:>3}: synclog {own:>9.0} events/s, SQLite FULL alone {plain:>9.0} events/s, ratio {:.2}",
            own / plain
        );
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    append(&mut criterion);
    scan_and_replay(&mut criterion);
    criterion.final_summary();
    if !std::env::args().any(|argument| argument == "--test") {
        ratios();
    }
}
