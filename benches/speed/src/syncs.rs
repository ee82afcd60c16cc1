//! Whether each contestant syncs before it acknowledges: its syncs are counted from outside.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::contestant::{Kind, Result, Setup, Syncs};
use crate::events;
use crate::table::Table;

/// How many events the child appends, one at a time.
const APPENDS: u64 = 200;

/// The head of the table, and one line for each contestant.
pub type Lines = (Vec<String>, Vec<Vec<String>>);

/// What the child does: opens, appends, closes.
pub fn child(id: &str, dir: &Path, appends: u64) -> Result<()> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.id() == id).ok_or(format!("no contestant {id}"))?;
    let table = Table::from_synclog(&dir.join("table"))?;
    let setup = Setup { table: &table, workers: 1, syncs: Syncs::Each };
    let contestant = kind.open(&dir.join(id), &setup)?;
    for number in 0..appends {
        contestant.append(0, events::unit(number..number + 1, contestant.takes_records())?)?;
    }
    Ok(())
}

/// Counts the syncs of a child.
fn count(kind: Kind, dir: &Path, appends: u64) -> Result<u64> {
    let dir = tempfile::Builder::new().prefix("syncs").tempdir_in(dir)?;
    let counts = dir.path().join("counts");
    let status = Command::new("strace")
        .args([
            "-f",
            "-c",
            "-U",
            "calls,name",
            "-e",
            "trace=fdatasync,fsync,msync,sync_file_range,syncfs",
            "-o",
        ])
        .arg(&counts)
        .arg(std::env::current_exe()?)
        .args(["child", "syncs", kind.id()])
        .arg(dir.path())
        .arg(appends.to_string())
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("{} under strace ended with {status}", kind.title()).into());
    }
    let text = std::fs::read_to_string(&counts)?;
    let calls = text.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        let known = ["fdatasync", "fsync", "msync"].contains(&name.trim());
        known.then(|| calls.parse::<u64>().ok()).flatten()
    });
    Ok(calls.sum())
}

/// Counts the syncs of all contestants, with appends and without.
pub fn run(dir: &Path) -> Result<Lines> {
    let head = ["contestant", "appends", "syncs with them", "without them", "for each append"];
    let mut lines = Vec::new();
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        let reason = "NOT EXERCISED: strace does not run here";
        lines.push(vec![reason.into(), String::new(), String::new(), String::new(), String::new()]);
        return Ok((head.map(str::to_owned).into(), lines));
    }
    for kind in Kind::ALL {
        eprintln!("  syncs of {}", kind.title());
        let (with, without) = (count(kind, dir, APPENDS)?, count(kind, dir, 0)?);
        let each = (with as f64 - without as f64) / APPENDS as f64;
        lines.push(vec![
            kind.title().into(),
            APPENDS.to_string(),
            with.to_string(),
            without.to_string(),
            format!("{each:.2}"),
        ]);
    }
    Ok((head.map(str::to_owned).into(), lines))
}
