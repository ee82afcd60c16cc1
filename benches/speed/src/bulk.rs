//! S6: many events at once. S7: the rows made anew.

use std::path::Path;
use std::time::Instant;

use synclog::{Options, Store, SyncEvent};

use crate::args::Args;
use crate::contestant::{Kind, Result, Setup, Syncs};
use crate::fixture::{self, CHUNK, Fixture};
use crate::report::{Figure, Goal, Row};
use crate::rounds;
use crate::table::Table;

/// Those who take part in S6. The limit does not: it is about single appends.
const LOADED: [Kind; 9] = [
    Kind::Synclog,
    Kind::SqliteNormal,
    Kind::SynclogLog,
    Kind::RaftEngine,
    Kind::Okaywal,
    Kind::Fjall,
    Kind::Redb,
    Kind::Seglog,
    Kind::JsonLines,
];

/// S6, in a new directory each time.
pub fn append(args: &Args, table: &Table, dir: &Path) -> Result<Row> {
    let setup = Setup { table, workers: 1, syncs: Syncs::End };
    let mut rates = vec![Vec::new(); LOADED.len()];
    for round in 0..args.rounds {
        for place in rounds::order(round, LOADED.len()) {
            let kind = LOADED[place];
            eprintln!("  bulk, round {} of {}: {}", round + 1, args.rounds, kind.title());
            let dir = tempfile::Builder::new().prefix("bulk").tempdir_in(dir)?;
            let contestant = kind.open(&dir.path().join(kind.id()), &setup)?;
            rounds::rest()?;
            let taken = rounds::load(contestant.as_ref(), 0..args.events, CHUNK)
                .map_err(|error| format!("{}: {error}", kind.title()))?;
            rates[place].push(args.events as f64 / taken.as_secs_f64());
        }
    }
    let mut row = Row::new("S6", format!("bulk append of {} events", args.events));
    for (kind, rates) in LOADED.into_iter().zip(&rates) {
        row.figures.push(Figure::new(kind.title(), "events/s", rates.clone()));
    }
    row.ratio("synclog / SQLite WAL NORMAL", &rates[0], &rates[1], Goal::AtLeast(0.8));
    for (place, kind) in LOADED.into_iter().enumerate().skip(3) {
        row.ratio(format!("synclog, log only / {}", kind.title()), &rates[2], &rates[place], Goal::None);
    }
    row.notes.push(format!("batches of {CHUNK}; events are made inside the time, on all sides"));
    row.notes.push("peers sync once, at the end; okaywal syncs each batch, synclog too".into());
    Ok(row)
}

/// S7.
pub fn rebuild(args: &Args, table: &Table, fixture: &Fixture) -> Result<Row> {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        eprintln!("  rebuild, round {} of {}", round + 1, args.rounds);
        for place in rounds::order(round, 2) {
            rounds::rest()?;
            if place == 0 {
                let start = Instant::now();
                let (report, _) = Store::<SyncEvent>::replay(&fixture.store, Options::default(), true)?;
                own.push(fixture.events as f64 / start.elapsed().as_secs_f64());
                if !report.rebuilt {
                    return Err("nothing was rebuilt".into());
                }
            } else {
                let taken = fixture::load_plain(&fixture.plain, table, fixture.events)?;
                other.push(fixture.events as f64 / taken.as_secs_f64());
            }
        }
    }
    let mut row = Row::new("S7", format!("rebuild of the projection from {} events", fixture.events));
    row.ratio("synclog / bare SQLite load", &own, &other, Goal::AtLeast(0.9));
    row.figures.push(Figure::new("synclog, rebuild", "events/s", own));
    row.figures.push(Figure::new("SQLite OFF/OFF, indexes after", "events/s", other));
    row.notes.push("the bare load gets its rows ready made; the rebuild reads and decodes the log".into());
    Ok(row)
}
