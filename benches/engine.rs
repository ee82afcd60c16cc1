//! The parts, one by one: encoding, appending, opening, reading, checking, rebuilding.
//!
//! What these come to beside other stores and beside the disk is measured by the package in `benches/speed`.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use synclog::{Company, Event, Item, Level, Options, Reader, Status, Store, SyncEvent};

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

fn append(criterion: &mut Criterion) {
    for (name, projected) in [("append, log only", false), ("append, projected and verified", true)] {
        let mut group = criterion.benchmark_group(name);
        for batch in [1_u64, 16, 256] {
            group.throughput(Throughput::Elements(batch));
            let dir = tempfile::tempdir().expect("a directory");
            let options = Options::default().projection(projected);
            let store = Store::open(dir.path(), options).expect("a store");
            group.bench_function(BenchmarkId::from_parameter(batch), |bench| {
                bench.iter(|| store.append_all((0..batch).map(event)).expect("receipts"));
            });
        }
        group.finish();
    }
}

fn encode(criterion: &mut Criterion) {
    let mut event = event(7);
    event.prepare(synclog::Timestamp::now()).expect("what an append makes of it");
    let payload = event.encode(SyncEvent::VERSION).expect("a payload");
    let row = event.to_row();
    let mut group = criterion.benchmark_group("event");
    group.bench_function("encode", |bench| bench.iter(|| black_box(&event).encode(SyncEvent::VERSION)));
    group.bench_function("decode", |bench| {
        bench.iter(|| SyncEvent::decode(SyncEvent::VERSION, black_box(&payload)));
    });
    group.bench_function("to a row", |bench| bench.iter(|| black_box(&event).to_row()));
    group.bench_function("from a row", |bench| bench.iter(|| SyncEvent::from_row(black_box(&row))));
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

fn read(criterion: &mut Criterion) {
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
    group.bench_function("open and close", |bench| {
        bench.iter(|| open(dir.path()).close().expect("closed"));
    });
    group.bench_function("verify the log", |bench| {
        bench.iter(|| {
            assert!(Reader::<SyncEvent>::verify(dir.path(), true, |_| {}).expect("a summary").is_sound());
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

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encode(&mut criterion);
    append(&mut criterion);
    read(&mut criterion);
    criterion.final_summary();
}
