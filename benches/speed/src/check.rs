//! S8: the log checked. S9: the log and every row checked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::Mmap;
use rusqlite::{Connection, OpenFlags};
use synclog::{Reader, SyncEvent};

use crate::args::Args;
use crate::contestant::Result;
use crate::fixture::{CHUNK, Fixture};
use crate::report::{Figure, Goal, Row};
use crate::rounds;
use crate::table::{self, Table};

/// Where frames start in a segment, where a frame has its payload's length, and how long its header is: as
/// the specification of the log's format says.
const FIRST_FRAME: usize = 8192;
const LENGTH_AT: usize = 24;
const HEADER_BYTES: usize = 48;
const FIRST_BYTE: u8 = 0xF1;

/// Verifies a store, and makes sure that there was something to verify and that it was sound.
pub fn verify(dir: &Path, log_only: bool, events: u64) -> Result<Duration> {
    let start = Instant::now();
    let summary = Reader::<SyncEvent>::verify(dir, log_only, |finding| eprintln!("  {finding}"))?;
    let taken = start.elapsed();
    if !summary.is_sound() || summary.events < events || (!log_only && summary.rows < events) {
        return Err(format!("the store is not as it was made: {summary:?}").into());
    }
    Ok(taken)
}

/// The segments of a store, in order.
pub fn segments(store: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(store.join("log"))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut paths: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect();
    paths.sort();
    Ok(paths)
}

/// The files are mapped while nobody writes to them: the store is closed, and its directory is ours alone.
#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Mmap> {
    Ok(unsafe { Mmap::map(&File::open(path)?) }?)
}

/// What the frames of a store come to.
#[derive(Default)]
pub struct Frames {
    pub count: u64,
    pub bytes: u64,
    /// The sum of all checksums, so that none of them can be left out.
    sum: u64,
}

/// Walks over the frames of a store, with one checksum for each, over all of its bytes.
pub fn frames(store: &Path) -> Result<Frames> {
    let mut frames = Frames::default();
    for path in segments(store)? {
        let map = map(&path)?;
        let mut rest = map.get(FIRST_FRAME..).unwrap_or_default();
        while rest.first() == Some(&FIRST_BYTE) && rest.len() >= HEADER_BYTES {
            let (_, from) = rest.split_at(LENGTH_AT);
            let length = from.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
            let frame_bytes = HEADER_BYTES + (length + 1).next_multiple_of(8);
            let Some((frame, after)) = rest.split_at_checked(frame_bytes) else { break };
            frames.sum = frames.sum.wrapping_add(u64::from(crc32fast::hash(frame)));
            frames.count += 1;
            frames.bytes += frame_bytes as u64;
            rest = after;
        }
    }
    Ok(frames)
}

/// Reads every row of a plain database and compares every column. The rows to compare with are made while the
/// clock stands.
pub fn read_back(path: &Path, table: &Table, events: u64) -> Result<Duration> {
    let mut start = Instant::now();
    let mut taken = Duration::ZERO;
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = db.prepare(&table.select)?;
    let mut found = query.query([])?;
    let mut first = 0;
    while first < events {
        let last = events.min(first + CHUNK);
        taken += start.elapsed();
        let rows: Vec<table::Row> = (first..last).map(table::Row::new).collect();
        start = Instant::now();
        for (id, row) in (first.cast_signed() + 1..).zip(&rows) {
            let same = found.next()?.map(|found| row.equals(id, found)).transpose()?;
            if same != Some(true) {
                return Err(format!("row {id} differs").into());
            }
        }
        first = last;
    }
    Ok(taken + start.elapsed())
}

/// S8.
pub fn log(args: &Args, fixture: &Fixture) -> Result<Row> {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        eprintln!("  verify of the log, round {} of {}", round + 1, args.rounds);
        for place in rounds::order(round, 2) {
            rounds::rest()?;
            if place == 0 {
                let taken = verify(&fixture.store, true, fixture.events)?;
                own.push(fixture.events as f64 / taken.as_secs_f64());
            } else {
                let start = Instant::now();
                let frames = std::hint::black_box(frames(&fixture.store)?);
                other.push(fixture.events as f64 / start.elapsed().as_secs_f64());
                if frames.count < fixture.events || frames.sum == 0 {
                    return Err(format!("only {} frames were found", frames.count).into());
                }
            }
        }
    }
    let mut row = Row::new("S8", format!("verify of the log only, {} events", fixture.events));
    row.ratio("synclog / mmap + CRC-32 of each frame", &own, &other, Goal::AtLeast(0.6));
    row.figures.push(Figure::new("synclog, verify --log-only", "events/s", own));
    row.figures.push(Figure::new("mmap + CRC-32 of each frame", "events/s", other));
    Ok(row)
}

/// S9.
pub fn rows(args: &Args, table: &Table, fixture: &Fixture) -> Result<Row> {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        eprintln!("  full verify, round {} of {}", round + 1, args.rounds);
        for place in rounds::order(round, 2) {
            rounds::rest()?;
            let (rates, taken) = if place == 0 {
                (&mut own, verify(&fixture.store, false, fixture.events)?)
            } else {
                (&mut other, read_back(&fixture.plain, table, fixture.events)?)
            };
            rates.push(fixture.events as f64 / taken.as_secs_f64());
        }
    }
    let mut row = Row::new("S9", format!("full verify, every column of {} rows", fixture.events));
    row.ratio("synclog / bare read-back", &own, &other, Goal::AtLeast(0.45));
    row.figures.push(Figure::new("synclog, verify", "events/s", own));
    row.figures.push(Figure::new("SQLite, read and compare", "events/s", other));
    row.notes.push("verify also reads the log and has SQLite check its pages".into());
    Ok(row)
}
