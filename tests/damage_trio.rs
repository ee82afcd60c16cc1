//! Every byte of the three files that SQLite keeps, damaged: the rows come back, all of them, with
//! every column (P7), the log loses nothing (P3), and nothing panics or hangs (P12).
//!
//! Two stores are damaged: one as a kill leaves it, with events in `synclog.db-wal` that are not in
//! `synclog.db` yet, and one that was closed. Each case is verified, opened for writing, and replayed
//! where that is still needed. `cargo test` takes a sample. All of it, in well under an hour:
//! `SYNCLOG_DAMAGE=full cargo test --release --test damage_trio -- --nocapture`

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::scratch;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use synclog::{
    Company, Finding, Level, Options, Origin, Reader, Severity, Status, Store, SyncEvent, VerifySummary,
};

const DATABASE: &str = "synclog.db";
const WAL: &str = "synclog.db-wal";
const SHM: &str = "synclog.db-shm";
const PAGE: usize = 4096;

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Rows = Vec<Vec<Value>>;

fn options() -> Options {
    Options::default().segment_bytes(16 * 1024, 16 * 1024).lock_wait(Duration::from_secs(5))
}

/// An event with every column filled, or with none that may be empty.
fn event(number: u64, full: bool) -> SyncEvent {
    let company = Company::new(format!("guid-{number}"), "102209.0", "Acme Traders Pvt Ltd 25-26");
    let plain = SyncEvent::new(company, Level::Warning, format!("event {number}"));
    if !full {
        return plain;
    }
    let mut event = plain
        .with_details("d\"é\u{1F600}".repeat(20))
        .with_status(Status::Failed)
        .with_records(number.cast_signed() * 1_000_003)
        .with_error("FETCH_ERROR", "[HY000] timeout\n  at fetch()")
        .with_duration(number as f64 + 0.25)
        .with_run(format!("run-{number}"));
    event.legacy_id = Some(number.cast_signed() + 70);
    let store = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    event.origin = Some(Origin { store, seq: number + 500 });
    event
}

/// A store's files, and what its rows must be.
struct Template {
    files: Files,
    /// The segments once the store was opened and closed without any damage.
    log: Files,
    rows: Rows,
    /// The database of another store, and an older one of this store.
    other: Vec<u8>,
    older: Vec<u8>,
}

fn collect(dir: &Path, root: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().into(), std::fs::read(&path).unwrap());
        }
    }
}

fn files(dir: &Path) -> Files {
    let mut files = Files::new();
    collect(dir, dir, &mut files);
    files
}

fn segments(dir: &Path) -> Files {
    let mut files = files(dir);
    files.retain(|path, _| path.starts_with("log"));
    files
}

fn lay(dir: &Path, files: &Files) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir.join("log")).unwrap();
    for (path, bytes) in files {
        std::fs::write(dir.join(path), bytes).unwrap();
    }
}

fn rows(dir: &Path) -> rusqlite::Result<Rows> {
    let db = Connection::open_with_flags(dir.join(DATABASE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = db.prepare("SELECT * FROM sync_logs ORDER BY id")?;
    let columns = query.column_count();
    query.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?.collect()
}

fn template(killed: bool) -> Template {
    let scratch = scratch();
    let dir = scratch.path().join("store");
    // Two transactions: one lone event, one batch.
    let fill = |store: &Store<SyncEvent>, first: u64| {
        store.append_with_key(event(first, false), &format!("key-{first}")).unwrap();
        store.append_all((first + 1..first + 4).map(|number| event(number, true))).unwrap();
        assert!(store.wait_projected(Duration::from_secs(20)));
    };
    let store = Store::open(&dir, options()).unwrap();
    fill(&store, 1);
    store.close().unwrap();
    let older = files(&dir)[Path::new(DATABASE)].clone();
    let store = Store::open(&dir, options()).unwrap();
    fill(&store, 5);
    // Idle now: the mark and the file `tail` are written.
    std::thread::sleep(Duration::from_millis(300));
    let mut found = files(&dir);
    store.close().unwrap();
    if !killed {
        found = files(&dir);
    }
    assert_eq!(found.get(Path::new(WAL)).is_some_and(|wal| wal.len() > PAGE), killed);

    lay(&dir, &found);
    Store::<SyncEvent>::open(&dir, options()).unwrap().close().unwrap();
    let rows = rows(&dir).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (8, 19));
    assert!((0..19).all(|column| rows.iter().any(|row| row[column] != Value::Null)), "every column is used");

    let another = scratch.path().join("other");
    let store = Store::open(&another, options()).unwrap();
    fill(&store, 1);
    store.close().unwrap();
    let other = files(&another)[Path::new(DATABASE)].clone();
    Template { files: found, log: segments(&dir), rows, other, older }
}

/// What is done to one file; `None` for one that is deleted.
struct Harm {
    kind: &'static str,
    file: &'static str,
    bytes: Option<Vec<u8>>,
}

/// The cases of one file, counted through: bytes, sectors, pages, lengths, and a few more.
fn harm(template: &Template, file: &'static str, index: usize) -> Option<Harm> {
    let whole = template.files.get(Path::new(file));
    let len = whole.map_or(0, Vec::len);
    let of = |kind, bytes| Some(Harm { kind, file, bytes });
    let zeroed = |at: usize, size: usize| {
        let mut bytes = whole?.clone();
        let end = (at + size).min(len);
        bytes[at..end].fill(0);
        Some(bytes)
    };
    let mut index = index;
    if index < len {
        let mut bytes = whole?.clone();
        bytes[index] ^= 1 << (index % 8);
        return of("a bit of each byte", Some(bytes));
    }
    index -= len;
    for (kind, size) in [("512 bytes zeroed", 512), ("a page zeroed", PAGE)] {
        if index < len.div_ceil(size) {
            return of(kind, zeroed(index * size, size));
        }
        index -= len.div_ceil(size);
    }
    if index < len.div_ceil(PAGE) {
        return of("cut at each page", whole.map(|bytes| bytes[..index * PAGE].to_vec()));
    }
    index -= len.div_ceil(PAGE);
    let garbage: Vec<u8> = (0..32768_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    match (index, file) {
        (0, _) if whole.is_some() => of("deleted", None),
        (0 | 1, _) => of("garbage", Some(garbage)),
        (2, DATABASE) => of("another store's", Some(template.other.clone())),
        (3, DATABASE) => of("an older copy", Some(template.older.clone())),
        _ => None,
    }
}

fn cases(template: &Template, file: &str) -> usize {
    let len = template.files.get(Path::new(file)).map_or(0, Vec::len);
    len + len.div_ceil(512) + 2 * len.div_ceil(PAGE) + 4
}

/// How a case ended; the columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Every row was right, verify was content, opening changed nothing.
    Harmless,
    /// Opening mended rows.
    HealedByOpen,
    /// Opening built a new database.
    RebuiltByOpen,
    /// Opening was not enough; replay mended rows.
    HealedByReplay,
    /// Opening was not enough; replay built a new database.
    RebuiltByReplay,
}

const ENDS: [End; 5] =
    [End::Harmless, End::HealedByOpen, End::RebuiltByOpen, End::HealedByReplay, End::RebuiltByReplay];

fn verify(dir: &Path) -> (Result<VerifySummary, synclog::Error>, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = Reader::<SyncEvent>::verify(dir, false, |finding| findings.push(finding));
    (summary, findings)
}

/// Rows right, verify content, SQLite content; and verify has left these files as they are.
fn is_right(dir: &Path, template: &Template, laid: Option<&Files>) -> Result<bool, String> {
    let (summary, findings) = verify(dir);
    // Before the rows are read here: beside an empty database SQLite deletes the write-ahead log.
    for (path, bytes) in laid.into_iter().flatten() {
        if path != Path::new(SHM) && std::fs::read(dir.join(path)).ok().as_ref() != Some(bytes) {
            return Err(format!("P11: verify changed {}", path.display()));
        }
    }
    let sound = summary.as_ref().is_ok_and(VerifySummary::is_sound);
    let found = rows(dir);
    let right = found.as_ref().is_ok_and(|found| *found == template.rows);
    if sound && !right {
        return Err(format!("P7: verify is content, the rows are wrong: {found:?}, {findings:?}"));
    }
    if !sound && findings.is_empty() && summary.is_ok() {
        return Err("verify says no, and not why".into());
    }
    if findings.iter().any(|finding| finding.kind.severity() == Severity::LogDamaged) {
        return Err(format!("the log is sound, verify says: {findings:?}"));
    }
    Ok(sound)
}

fn run(dir: &Path, template: &Template, harm: &Harm) -> Result<End, String> {
    let mut laid = template.files.clone();
    match &harm.bytes {
        Some(bytes) => laid.insert(harm.file.into(), bytes.clone()),
        None => laid.remove(Path::new(harm.file)),
    };
    lay(dir, &laid);
    let was_right = is_right(dir, template, Some(&laid))?;
    let store = Store::<SyncEvent>::open(dir, options().create(false));
    let store = store.map_err(|error| format!("P7: opening fails: {error}"))?;
    let report = store.open_report().clone();
    store.close().map_err(|error| format!("closing fails: {error}"))?;
    let end = if is_right(dir, template, None)? {
        match report.replay.rebuilt {
            true => End::RebuiltByOpen,
            false if was_right && !report.is_notable() => End::Harmless,
            false => End::HealedByOpen,
        }
    } else {
        let replayed = Store::<SyncEvent>::replay(dir, options(), false);
        let (replayed, _) = replayed.map_err(|error| format!("P7: replay fails: {error}"))?;
        if !is_right(dir, template, None)? {
            return Err(format!("P7: wrong after replay: {:?}", verify(dir).1));
        }
        if replayed.rebuilt { End::RebuiltByReplay } else { End::HealedByReplay }
    };
    let db = Connection::open(dir.join(DATABASE)).map_err(|error| error.to_string())?;
    let said: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| format!("P7: {error}"))?;
    if said != "ok" {
        return Err(format!("P7: SQLite says: {said}"));
    }
    if segments(dir) != template.log {
        return Err("P3: the log's bytes have changed".into());
    }
    Ok(end)
}

#[derive(Default)]
struct Table {
    counts: BTreeMap<(&'static str, &'static str), BTreeMap<End, u64>>,
    failures: Vec<String>,
}

impl Table {
    fn print(&self, name: &str) {
        print!("\n{name:<36} {:>8}", "cases");
        ENDS.iter().for_each(|end| print!(" {:>15}", format!("{end:?}")));
        println!(" {:>8}", "broken");
        let mut total = [0; ENDS.len()];
        for ((file, kind), counts) in &self.counts {
            print!("{:<36} {:>8}", format!("{file}, {kind}"), counts.values().sum::<u64>());
            for (end, total) in ENDS.iter().zip(&mut total) {
                let count = counts.get(end).copied().unwrap_or(0);
                *total += count;
                print!(" {count:>15}");
            }
            println!();
        }
        print!("{:<36} {:>8}", "all", total.iter().sum::<u64>());
        total.iter().for_each(|count| print!(" {count:>15}"));
        println!(" {:>8}", self.failures.len());
    }
}

fn enumerate(template: &Template, stride: usize) -> Table {
    const PATIENCE: Duration = Duration::from_mins(5);
    let mut all: Vec<(&'static str, usize)> = Vec::new();
    for file in [DATABASE, WAL, SHM] {
        let len = template.files.get(Path::new(file)).map_or(0, Vec::len);
        // Few of the cases are not single bytes: a sample takes all of those.
        let sample = (0..len).step_by(stride).chain(len..cases(template, file));
        all.extend(sample.map(|index| (file, index)));
    }
    let (next, mut table) = (AtomicUsize::new(0), Table::default());
    let (sender, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        let (all, next) = (&all, &next);
        for _ in 0..2 {
            let sender = sender.clone();
            scope.spawn(move || {
                let scratch = scratch();
                let dir = scratch.path().join("store");
                while let Some((file, index)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(harm) = harm(template, file, *index) else { continue };
                    if template.files.get(Path::new(file)) == harm.bytes.as_ref() {
                        continue;
                    }
                    let end = catch_unwind(AssertUnwindSafe(|| run(&dir, template, &harm)))
                        .unwrap_or_else(|_| Err("P12: a panic".into()));
                    sender.send((*file, harm.kind, *index, end)).unwrap();
                }
            });
        }
        drop(sender);
        loop {
            match ended.recv_timeout(PATIENCE) {
                Ok((file, kind, _, Ok(end))) => {
                    *table.counts.entry((file, kind)).or_default().entry(end).or_default() += 1;
                }
                Ok((file, kind, index, Err(why))) => {
                    table.failures.push(format!("{file}, {kind}, case {index}: {why}"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // The scope would wait for ever.
                    eprintln!("P12: a case near {:?} does not end", all.get(next.load(Ordering::Relaxed)));
                    std::process::abort();
                }
            }
        }
    });
    table
}

fn judge(name: &str, killed: bool) {
    let full = std::env::var("SYNCLOG_DAMAGE").is_ok_and(|how| how == "full");
    let started = Instant::now();
    let template = template(killed);
    let table = enumerate(&template, if full { 1 } else { 197 });
    table.print(name);
    println!("({:.1} s)", started.elapsed().as_secs_f64());
    table.failures.iter().take(20).for_each(|failure| println!("FAILED: {failure}"));
    assert!(table.failures.is_empty(), "promises were broken; see above");
    assert!(table.counts.values().flatten().map(|(_, count)| count).sum::<u64>() > 100);
}

#[test]
fn every_byte_of_a_killed_stores_database_may_go_wrong() {
    judge("killed", true);
}

#[test]
fn every_byte_of_a_closed_stores_database_may_go_wrong() {
    judge("closed", false);
}
