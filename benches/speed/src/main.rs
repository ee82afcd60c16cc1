//! `speed`: synclog beside what one would use instead, on the same events and the same disk.
//!
//! - [`events`] makes the events, [`table`] the rows for SQLite alone.
//! - [`contestant`] has the trait and the list; `contestants` has one file for each of them.
//! - [`rounds`] takes the time. [`durable`], [`bulk`], [`check`], [`open`], [`memory`], [`space`] and
//!   [`program`] are the rows S1 to S13, [`growth`] and [`syncs`] the other tables.
//! - [`report`] prints.
#![deny(unsafe_code)]

mod args;
mod bulk;
mod check;
mod contestant;
mod contestants;
mod durable;
mod events;
mod fixture;
mod growth;
mod machine;
mod memory;
mod open;
mod program;
mod report;
mod rounds;
mod space;
mod syncs;
mod table;

use std::path::Path;
use std::process::ExitCode;

use args::Args;
use contestant::Result;
use fixture::Fixture;
use report::{Report, Row};
use table::Table;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, what, which, dir, count] = words.as_slice()
        && first == "child"
    {
        let (dir, count) = (Path::new(dir), count.parse()?);
        return if what == "memory" {
            memory::child(which, dir, count)
        } else {
            syncs::child(which, dir, count)
        };
    }
    let args = Args::parse(words.into_iter())?;
    if args.help {
        print!("{}", args::HELP);
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("synclog-speed-").tempdir_in(&args.dir)?;
    let facts = machine::facts(dir.path());
    let mut report = Report { facts, rows: Vec::new(), growth: None, syncs: None };
    if args.check_syncs {
        report.syncs = Some(syncs::run(dir.path())?);
    } else if args.growth {
        report.growth = Some(growth::run(&args, dir.path())?);
    } else {
        report.rows = rows(&args, dir.path())?;
    }
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&report.json())? + "\n")?;
    }
    print!("{}", report.print(args.markdown));
    Ok(())
}

/// The rows that are wanted, in their order. Those that share a store come together.
fn rows(args: &Args, dir: &Path) -> Result<Vec<Row>> {
    let made = tempfile::Builder::new().prefix("table").tempdir_in(dir)?;
    let table = Table::from_synclog(made.path())?;
    let mut rows = durable::run(args, &table, dir)?;
    if args.wants("S6") {
        rows.push(bulk::append(args, &table, dir)?);
    }
    let open_is_huge = args.huge && args.wants("S10");
    if args.wants_any(&["S7", "S8", "S9", "S12", "S13"]) || (args.wants("S10") && !open_is_huge) {
        let made = tempfile::Builder::new().prefix("fixture").tempdir_in(dir)?;
        let fixture = Fixture::make(made.path(), &table, args.events)?;
        if args.wants("S7") {
            rows.push(bulk::rebuild(args, &table, &fixture)?);
        }
        if args.wants("S8") {
            rows.push(check::log(args, &fixture)?);
        }
        if args.wants("S9") {
            rows.push(check::rows(args, &table, &fixture)?);
        }
        if args.wants("S10") && !open_is_huge {
            rows.push(open::run(args, &fixture)?);
        }
        if args.wants("S12") {
            rows.push(space::run(&fixture, dir)?);
        }
        if args.wants("S13") {
            rows.push(program::run(args, &fixture)?);
        }
    }
    if open_is_huge {
        let made = tempfile::Builder::new().prefix("fixture").tempdir_in(dir)?;
        rows.push(open::run(args, &Fixture::make(made.path(), &table, args::HUGE)?)?);
    }
    if args.wants("S11") {
        rows.push(memory::run(args, dir)?);
    }
    rows.sort_by_key(|row| row.id[1..].parse::<u32>().unwrap_or(u32::MAX));
    Ok(rows)
}
