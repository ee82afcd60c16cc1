//! S1 to S5: appends that are on disk when they are acknowledged.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::args::Args;
use crate::contestant::{Contestant, Kind, Result, Setup, Syncs};
use crate::report::{Figure, Goal, Row};
use crate::rounds::{self, Plan, Sample};
use crate::table::Table;

const THREADS: usize = 64;
const BATCH: u64 = 256;

/// How many events an append takes in while a store is filled.
const PREFILL_BATCH: u64 = 1000;

/// What each contestant did in each round.
pub struct Results(Vec<(Kind, Vec<Sample>)>);

impl Results {
    fn of(&self, kind: Kind, figure: fn(&Sample) -> f64) -> Vec<f64> {
        let found = self.0.iter().find(|(other, _)| *other == kind);
        found.map(|(_, samples)| samples.iter().map(figure).collect()).unwrap_or_default()
    }

    fn rates(&self, kind: Kind) -> Vec<f64> {
        self.of(kind, |sample| sample.rate)
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.iter().map(|(kind, _)| *kind)
    }

    /// Adds the rates of these contestants to a row.
    fn add_rates(&self, row: &mut Row, kinds: impl IntoIterator<Item = Kind>) {
        for kind in kinds {
            row.figures.push(Figure::new(kind.title(), "events/s", self.rates(kind)));
        }
    }

    /// Adds how long single appends of these contestants took to a row.
    fn add_latencies(&self, row: &mut Row, kinds: impl IntoIterator<Item = Kind>) {
        for kind in kinds {
            let (p50, p99) = (self.of(kind, |sample| sample.p50), self.of(kind, |sample| sample.p99));
            row.figures.push(Figure::new(format!("{}, p50", kind.title()), "ms", p50));
            row.figures.push(Figure::new(format!("{}, p99", kind.title()), "ms", p99));
        }
    }
}

/// Fills every contestant once, then lets them append in turn, round after round, in the same files.
fn contest(
    args: &Args,
    table: &Table,
    dir: &Path,
    kinds: &[Kind],
    workers: usize,
    batch: u64,
) -> Result<Results> {
    let dir = tempfile::Builder::new().prefix("durable").tempdir_in(dir)?;
    let setup = Setup { table, workers, syncs: Syncs::Each };
    let next = AtomicU64::new(args.prefill);
    let mut open: Vec<(Kind, Box<dyn Contestant>)> = Vec::new();
    for &kind in kinds {
        eprintln!("  {} threads, batches of {batch}: filling {}", workers, kind.title());
        let contestant = kind.open(&dir.path().join(kind.id()), &setup)?;
        // Past the first checkpoints, and past the first, small segments.
        if kind != Kind::Limit {
            rounds::load(contestant.as_ref(), 0..args.prefill, PREFILL_BATCH)?;
        }
        open.push((kind, contestant));
    }
    let plan = Plan { workers, batch, duration: Duration::from_secs_f64(args.seconds) };
    let mut results = Results(kinds.iter().map(|&kind| (kind, Vec::new())).collect());
    for round in 0..args.rounds {
        eprintln!("  {workers} threads, batches of {batch}: round {} of {}", round + 1, args.rounds);
        for place in rounds::order(round, open.len()) {
            rounds::rest()?;
            let sample = rounds::appends(open[place].1.as_ref(), plan, &next)
                .map_err(|error| format!("{}: {error}", open[place].0.title()))?;
            results.0[place].1.push(sample);
        }
    }
    Ok(results)
}

/// The rows that are wanted of S1 to S5.
pub fn run(args: &Args, table: &Table, dir: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.wants_any(&["S1", "S2"]) {
        let pair = [Kind::Synclog, Kind::SqliteFull];
        let kinds: &[Kind] = if args.wants("S1") { &Kind::ALL } else { &pair };
        let results = contest(args, table, dir, kinds, 1, 1)?;
        rows.extend(args.wants("S1").then(|| log_alone(&results)));
        rows.extend(args.wants("S2").then(|| projected_alone(&results)));
    }
    if args.wants_any(&["S3", "S4"]) {
        let mut kinds = Vec::new();
        if args.wants("S3") {
            kinds.extend([Kind::Synclog, Kind::SqliteFull]);
        }
        if args.wants("S4") {
            kinds.extend([Kind::SynclogLog, Kind::RaftEngine, Kind::Okaywal, Kind::Fjall, Kind::Redb]);
        }
        let results = contest(args, table, dir, &kinds, THREADS, 1)?;
        rows.extend(args.wants("S3").then(|| projected_together(&results)));
        rows.extend(args.wants("S4").then(|| log_together(&results)));
    }
    if args.wants("S5") {
        let results = contest(args, table, dir, &[Kind::Synclog, Kind::SqliteFull], 1, BATCH)?;
        let mut row = Row::new("S5", "atomic batches of 256, projected and verified, 1 thread");
        results.add_rates(&mut row, results.kinds());
        let (own, other) = (results.rates(Kind::Synclog), results.rates(Kind::SqliteFull));
        row.ratio("synclog / SQLite WAL FULL", &own, &other, Goal::AtLeast(1.2));
        rows.push(row);
    }
    Ok(rows)
}

fn log_alone(results: &Results) -> Row {
    let mut row = Row::new("S1", "durable append, log only, 1 thread");
    results.add_rates(&mut row, results.kinds());
    let limit = results.rates(Kind::Limit);
    for kind in results.kinds().filter(|&kind| kind != Kind::Limit) {
        let goal = if kind == Kind::SynclogLog { Goal::AtLeast(0.95) } else { Goal::None };
        row.ratio(format!("{} / limit", kind.title()), &results.rates(kind), &limit, goal);
    }
    row
}

fn projected_alone(results: &Results) -> Row {
    let mut row = Row::new("S2", "durable, projected and verified append, 1 thread");
    results.add_rates(&mut row, [Kind::Synclog, Kind::SqliteFull]);
    results.add_latencies(&mut row, [Kind::Synclog, Kind::SqliteFull]);
    let (own, other) = (results.rates(Kind::Synclog), results.rates(Kind::SqliteFull));
    row.ratio("synclog / SQLite WAL FULL", &own, &other, Goal::AtLeast(1.2));
    let p50 = |kind| results.of(kind, |sample| sample.p50);
    row.ratio("p50 synclog / SQLite WAL FULL", &p50(Kind::Synclog), &p50(Kind::SqliteFull), Goal::None);
    let p99 = |kind| results.of(kind, |sample| sample.p99);
    let name = "p99 synclog / SQLite WAL FULL";
    row.ratio(name, &p99(Kind::Synclog), &p99(Kind::SqliteFull), Goal::AtMost(1.5));
    row
}

fn projected_together(results: &Results) -> Row {
    let mut row = Row::new("S3", "durable, projected and verified append, 64 threads");
    results.add_rates(&mut row, [Kind::Synclog, Kind::SqliteFull]);
    results.add_latencies(&mut row, [Kind::Synclog, Kind::SqliteFull]);
    let (own, other) = (results.rates(Kind::Synclog), results.rates(Kind::SqliteFull));
    row.ratio("synclog / SQLite WAL FULL", &own, &other, Goal::AtLeast(15.0));
    row
}

fn log_together(results: &Results) -> Row {
    let mut row = Row::new("S4", "durable append, log only, 64 threads");
    let own = results.rates(Kind::SynclogLog);
    let others = [Kind::RaftEngine, Kind::Okaywal, Kind::Fjall, Kind::Redb];
    results.add_rates(&mut row, [Kind::SynclogLog].into_iter().chain(others));
    let better: Vec<f64> = results
        .rates(Kind::RaftEngine)
        .into_iter()
        .zip(results.rates(Kind::Okaywal))
        .map(|(raft, okay)| raft.max(okay))
        .collect();
    row.ratio("synclog / the better of raft-engine and okaywal", &own, &better, Goal::AtLeast(1.5));
    for kind in others {
        row.ratio(format!("synclog / {}", kind.title()), &own, &results.rates(kind), Goal::None);
    }
    row
}
