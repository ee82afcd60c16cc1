//! S13: one append from the command line, beside one row by the program `sqlite3`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::contestant::Result;
use crate::events;
use crate::fixture::Fixture;
use crate::machine;
use crate::report::{Figure, Goal, Row};
use crate::rounds;

/// Runs in a round; the round's figure is their median.
const RUNS: usize = 9;

/// The program `synclog`: the one that was named, or the one that the repository's own build makes.
fn synclog(args: &Args) -> Result<PathBuf> {
    if let Some(path) = &args.synclog {
        return Ok(path.clone());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/release/synclog");
    if !path.exists() {
        eprintln!("  building the program synclog");
        let status = Command::new("cargo")
            .args(["build", "--release", "--features", "cli", "--bin", "synclog"])
            .current_dir(&root)
            .env_remove("CARGO_TARGET_DIR")
            .status()?;
        if !status.success() {
            return Err(format!("the build ended with {status}").into());
        }
    }
    Ok(path)
}

fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let taken = start.elapsed();
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(taken)
}

fn append(program: &Path, store: &Path, number: u64) -> Result<Duration> {
    let event = events::event(number);
    time(
        Command::new(program)
            .arg("--dir")
            .arg(store)
            .args(["append", "--company-guid", &event.company.guid])
            .args(["--company-alterid", &event.company.alterid])
            .args(["--company-name", &event.company.name])
            .args(["--level", event.level.as_str(), "--message", &event.message])
            .args(["--details", event.details.as_deref().unwrap_or_default()])
            .args(["--status", event.status.map_or("started", synclog::Status::as_str)])
            .args(["--records", &event.records_synced.unwrap_or_default().to_string()])
            .args(["--run", event.run.as_deref().unwrap_or_default()]),
    )
}

fn insert(database: &Path, number: u64) -> Result<Duration> {
    let event = events::event(number);
    let frame = events::frame(number).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sql = format!(
        "PRAGMA synchronous=FULL; INSERT INTO sync_logs (company_guid, company_alterid, company_name, log_level, \
         log_message, log_details, sync_status, records_synced, created_at, run, frame) VALUES \
         ('{}', '{}', '{}', '{}', '{}', '{}', '{}', {}, '{}', '{}', x'{frame}');",
        event.company.guid,
        event.company.alterid,
        event.company.name,
        event.level,
        event.message,
        event.details.unwrap_or_default(),
        event.status.map_or("", synclog::Status::as_str),
        event.records_synced.unwrap_or_default(),
        event.created_at.map(|time| time.to_string()).unwrap_or_default(),
        event.run.unwrap_or_default(),
    );
    time(Command::new("sqlite3").arg("-batch").arg(database).arg(sql))
}

/// S13. It appends to the fixture, so it comes last.
pub fn run(args: &Args, fixture: &Fixture) -> Result<Row> {
    let work = format!("one append from the command line, {} events", fixture.events);
    let Some(version) = machine::program_version("sqlite3", "--version") else {
        return Ok(Row::not_exercised("S13", work, "there is no program sqlite3 here"));
    };
    let program = match synclog(args) {
        Ok(program) => program,
        Err(error) => return Ok(Row::not_exercised("S13", work, format!("no program synclog: {error}"))),
    };
    let db = rusqlite::Connection::open(&fixture.plain)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.close().map_err(|(_, error)| error)?;
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let mut number = fixture.events;
    for round in 0..args.rounds {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            for place in rounds::order(round + run, 2) {
                if place == 0 {
                    ours.push(append(&program, &fixture.store, number)?.as_secs_f64() * 1000.0);
                } else {
                    theirs.push(insert(&fixture.plain, number)?.as_secs_f64() * 1000.0);
                }
            }
            number += 1;
        }
        own.push(Figure::new("", "ms", ours).median());
        other.push(Figure::new("", "ms", theirs).median());
    }
    let mut row = Row::new("S13", work);
    row.ratio("synclog append / sqlite3 insert", &own, &other, Goal::AtMost(3.0));
    row.figures.push(Figure::new("synclog append", "ms", own));
    row.figures.push(Figure::new("sqlite3, WAL, FULL", "ms", other));
    let version = version.split_whitespace().next().unwrap_or_default().to_owned();
    row.notes.push(format!("the program sqlite3 has version {version}; {RUNS} runs of both in a round"));
    Ok(row)
}
