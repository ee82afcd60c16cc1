//! `kill -9` at random moments, over and over on the same store, also while it recovers from the last
//! kill and while its database is deleted or replaced in between. Then: the store opens without help
//! (P5), every acknowledged event is there with exactly its content (P3), nothing is there that was not
//! sent, nothing twice and no batch in part (P4), and every row equals its event (P6, P7).
//!
//! `SYNCLOG_KILL_ROUNDS` sets the number of kills of a writer (1000 take about two minutes),
//! `SYNCLOG_KILL_SEED` the seed. The moments are drawn from the seed; what the machine makes of them is
//! not the same twice.
#![cfg(all(feature = "cli", unix))]

#[path = "../cli_support/mod.rs"]
mod cli_support;
mod model;
mod writers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cli_support::{Rng, number_from_env};
use model::Model;
use synclog::SyncLog;

/// A store lives so many kills of a writer, unless it grows too large before.
const KILLS_OF_A_STORE: u64 = 40;
const LARGE: usize = 3000;

/// What was done, to be printed: a test that never tears anything shows it here.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, what: impl Into<String>, count: u64) {
        *self.0.entry(what.into()).or_default() += count;
    }
}

/// Not a test of its own: the writer of many threads, which is run from below and killed.
#[test]
fn the_writer_that_is_killed() {
    if let Ok(what) = std::env::var(writers::WRITER) {
        writers::append_until_killed(&what);
    }
}

#[test]
fn whatever_is_killed_whenever_nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let rounds = number_from_env("SYNCLOG_KILL_ROUNDS").unwrap_or(60);
    let seed = number_from_env("SYNCLOG_KILL_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("SYNCLOG_KILL_ROUNDS={rounds} SYNCLOG_KILL_SEED={seed}");
    let start = Instant::now();
    // One store on a real disk; one in memory, where everything is over sooner and a sync takes no time.
    let memory = Path::new("/dev/shm");
    let places = [std::env::temp_dir(), if memory.is_dir() { memory.into() } else { std::env::temp_dir() }];
    let mut tally = Tally::default();
    let left = AtomicU64::new(rounds);
    std::thread::scope(|scope| {
        let left = &left;
        let running: Vec<_> = (seed..)
            .zip(places)
            .map(|(seed, place)| scope.spawn(move || torture(Rng::new(seed), &place, left)))
            .collect();
        for place in running {
            for (what, count) in place.join().unwrap().0 {
                tally.add(what, count);
            }
        }
    });
    for (what, count) in &tally.0 {
        println!("{count:>9} {what}");
    }
    println!(
        "{rounds} cycles in {:.1} s, seed {seed}: nothing lost, nothing invented",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(tally.0["kills of a writer"], rounds);
    assert!(rounds < 50 || tally.0["acknowledged events"] > rounds, "the writers come to write");
}

/// One store after the other, until enough was killed.
fn torture(mut rng: Rng, place: &Path, left: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    let more = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    while left.load(Ordering::Relaxed) > 0 {
        let temp = tempfile::tempdir_in(place).unwrap();
        let dir = temp.path().join("store");
        let mut model = Model::default();
        tally.add("stores", 1);
        let mut kills = 0;
        while kills < KILLS_OF_A_STORE && model.known.len() < LARGE && more() {
            cycle(&dir, &mut model, &mut rng, &mut tally);
            kills += 1;
        }
        tally.add("events in the stores at their ends", model.known.len() as u64);
    }
    tally
}

fn cycle(dir: &Path, model: &mut Model, rng: &mut Rng, tally: &mut Tally) {
    let before = model.known.len();
    let (mut import, mut keyed) = (None, None);
    match rng.below(12) {
        0 | 1 => writers::one_by_one(dir, model, rng),
        2..=4 => writers::pipelined(dir, model, rng),
        5 | 6 => writers::threads(dir, model, rng),
        7 => writers::several(dir, model, rng),
        8 | 9 => import = Some(writers::import(dir, model, rng)),
        10 => keyed = Some(writers::keyed(dir, model, rng)),
        _ => writers::mender(dir, rng),
    }
    tally.add("kills of a writer", 1);
    while rng.below(3) == 0 {
        disturb_database(dir, rng, tally);
        writers::mender(dir, rng);
        tally.add("kills of a recovery", 1);
    }
    if rng.below(3) == 0 {
        model.check_unopened(dir);
        tally.add("looks at the store before anybody opened it", 1);
    }
    disturb_database(dir, rng, tally);
    tally.add("acknowledged events", model.acknowledged_count());
    open(dir, rng, tally);
    model.check(dir);
    tally.add("events that arrived", (model.known.len() - before) as u64);
    if let Some(numbers) = import {
        writers::import_again(dir, model, numbers);
        model.check(dir);
    }
    if let Some(numbers) = keyed {
        writers::keyed_again(dir, model, numbers);
        model.check(dir);
    }
    if rng.below(4) == 0 {
        copy_database(dir, &older(dir));
    }
}

/// Opens the store for writing, which must need no help, and closes it.
fn open(dir: &Path, rng: &mut Rng, tally: &mut Tally) {
    if rng.below(3) > 0 {
        let log = SyncLog::open(dir).unwrap_or_else(|error| panic!("P5: {error}"));
        let report = log.store().open_report();
        for row in &report.tail {
            tally.add(format!("openings that found: {row}"), 1);
        }
        for finding in &report.findings {
            tally.add(format!("findings: {}", finding.kind.as_str()), 1);
        }
        tally.add("bytes that recovery put aside", quarantined(dir));
        tally.add("openings that wrote bytes again", u64::from(report.rewritten_bytes > 0));
        tally.add("openings that restored rows", u64::from(report.replay.restored > 0));
        assert_eq!(report.healed_events, 0, "a kill damages nothing");
        assert!(
            log.store().wait_projected(Duration::from_secs(20)),
            "{:?}",
            log.store().projection_trouble()
        );
        log.close().unwrap();
        return;
    }
    // By the command line, where there is a store already.
    let args: &[&str] = if rng.below(2) == 0 { &["append", "--stdin"] } else { &["replay"] };
    let has_log = std::fs::read_dir(dir.join("log")).is_ok_and(|mut names| {
        names.any(|name| name.unwrap().path().extension().is_some_and(|end| end == "seg"))
    });
    let args = if has_log { args } else { &["append", "--stdin"] };
    let done = writers::start(dir, args, Stdio::null()).wait().unwrap();
    assert_eq!(done.code(), Some(0), "P5: {args:?}");
}

/// Bytes put aside since the last look, which takes them away.
fn quarantined(dir: &Path) -> u64 {
    let Ok(names) = std::fs::read_dir(dir.join("quarantine")) else { return 0 };
    names
        .map(|name| {
            let path = name.unwrap().path();
            let len = path.metadata().unwrap().len();
            std::fs::remove_file(path).unwrap();
            len
        })
        .sum()
}

fn older(dir: &Path) -> PathBuf {
    dir.with_extension("older")
}

/// Sometimes deletes the database, or puts an older copy of it back.
fn disturb_database(dir: &Path, rng: &mut Rng, tally: &mut Tally) {
    match rng.below(12) {
        0 => {
            remove_database(dir);
            tally.add("databases deleted", 1);
        }
        1 if older(dir).join("synclog.db").exists() => {
            remove_database(dir);
            copy_database(&older(dir), dir);
            tally.add("databases replaced by an older copy", 1);
        }
        2 => {
            let _ = std::fs::remove_file(dir.join("synclog.db-wal"));
            tally.add("write-ahead logs of SQLite deleted", 1);
        }
        _ => {}
    }
}

const PARTS: [&str; 3] = ["synclog.db-shm", "synclog.db-wal", "synclog.db"];

fn remove_database(dir: &Path) {
    for name in PARTS {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

fn copy_database(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    remove_database(to);
    for name in &PARTS[1..] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}
