//! S11: memory. Each work runs in a process of its own, and its anonymous memory is looked at all the time.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use synclog::{ExportLine, Item, Options, Reader, Store, SyncEvent};

use crate::args::Args;
use crate::check;
use crate::contestant::Result;
use crate::fixture;
use crate::report::{Figure, Goal, Row};

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// The works, in their order: the first one makes the store.
const WORKS: [&str; 4] = ["append", "rebuild", "verify", "export"];

/// The goal, without SQLite's cache.
const ALLOWED_MIB: f64 = 64.0;

/// What the child does.
pub fn child(work: &str, dir: &Path, events: u64) -> Result<()> {
    match work {
        "append" => {
            fixture::fill_store(dir, events)?;
        }
        "rebuild" => {
            Store::<SyncEvent>::replay(dir, Options::default(), true)?;
        }
        "verify" => {
            check::verify(dir, false, events)?;
        }
        "export" => export(dir)?,
        _ => return Err(format!("no work {work}").into()),
    }
    Ok(())
}

/// The same as `synclog export`, into nothing.
fn export(dir: &Path) -> Result<()> {
    let reader = Reader::<SyncEvent>::open(dir)?;
    let mut out = BufWriter::new(std::fs::File::options().write(true).open("/dev/null")?);
    for item in reader.items(1)? {
        let Item::Event(stored) = item? else { return Err("there is something else than events".into()) };
        let key = stored.key.as_deref();
        let line = ExportLine::new(stored.seq, reader.id(), &stored.event, key, stored.appended_at);
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Anonymous memory of a process in MiB; `None` where it has ended or the system does not tell.
fn anonymous(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// S11. One round: memory does not depend on what else the machine does.
pub fn run(args: &Args, dir: &Path) -> Result<Row> {
    let events = args.most_events();
    let work = format!("anonymous memory, {events} events");
    if anonymous(std::process::id()).is_none() {
        return Ok(Row::not_exercised("S11", work, "this system has no RssAnon in /proc/PID/status"));
    }
    let dir = tempfile::Builder::new().prefix("memory").tempdir_in(dir)?;
    let store = dir.path().join("store");
    let mut row = Row::new("S11", work);
    for work in WORKS {
        eprintln!("  memory of {work}");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", "memory", work])
            .arg(&store)
            .arg(events.to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let mut most = 0.0_f64;
        let status = loop {
            most = most.max(anonymous(child.id()).unwrap_or(0.0));
            match child.try_wait()? {
                Some(status) => break status,
                None => std::thread::sleep(EVERY),
            }
        };
        if !status.success() {
            return Err(format!("{work} ended with {status}").into());
        }
        row.figures.push(Figure::new(format!("synclog, {work}"), "MiB", vec![most]));
        row.ratio(format!("{work} / 64 MiB"), &[most], &[ALLOWED_MIB], Goal::AtMost(1.0));
    }
    row.notes
        .push("SQLite's cache is in these figures, and the goal allows it on top: 2 MB a connection".into());
    row.notes.push(format!("append holds one batch of {} events", fixture::CHUNK));
    Ok(row)
}
