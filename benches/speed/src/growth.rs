//! How the times grow with the store.

use std::path::Path;
use std::time::{Duration, Instant};

use synclog::{Options, Store, SyncEvent};

use crate::args::{Args, HUGE};
use crate::check;
use crate::contestant::Result;
use crate::fixture;
use crate::open;
use crate::report::number;

/// The head of the table, and one line for each size.
pub fn run(args: &Args, dir: &Path) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let mut sizes = if args.quick { vec![500, 1_000, 2_000] } else { vec![10_000, 100_000, 1_000_000] };
    sizes.extend((args.huge && !args.quick).then_some(HUGE));
    let head = ["events", "append, events/s", "open, ms", "verify log, ms", "verify all, ms", "rebuild, ms"];
    let mut lines = Vec::new();
    for events in sizes {
        eprintln!("  growth: {events} events");
        let dir = tempfile::Builder::new().prefix("growth").tempdir_in(dir)?;
        let store = dir.path().join("store");
        let rate = events as f64 / fixture::fill_store(&store, events)?.as_secs_f64();
        let ms = |taken: Duration| taken.as_secs_f64() * 1000.0;
        let opens = (0..args.rounds).map(|_| Ok(ms(open::open_and_close(&store)?)));
        let mut opens = opens.collect::<Result<Vec<_>>>()?;
        opens.sort_unstable_by(f64::total_cmp);
        let log = ms(check::verify(&store, true, events)?);
        let all = ms(check::verify(&store, false, events)?);
        let start = Instant::now();
        Store::<SyncEvent>::replay(&store, Options::default(), true)?;
        let rebuild = ms(start.elapsed());
        let figures = [rate, opens[opens.len() / 2], log, all, rebuild];
        lines.push(std::iter::once(events.to_string()).chain(figures.map(number)).collect());
    }
    Ok((head.map(str::to_owned).into(), lines))
}
