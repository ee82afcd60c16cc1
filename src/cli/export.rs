//! `export`: every event of the log, in seq order, with nothing left out.

use clap::{Args, ValueEnum};
use synclog::{ExportLine, Item, Reader, Severity, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::out::{self, Out};

/// Options of `export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The form of the export
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
}

/// Forms of an export.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object a line, which `import` reads back
    Ndjson,
}

/// Runs `export`.
pub(crate) fn run(global: &Global, args: &ExportArgs, out: &mut Out) -> Result<Exit, Stop> {
    let Format::Ndjson = args.format;
    if global.output.is_some_and(|output| output != Output::Ndjson) {
        return Err(Stop::usage("an export is written as ndjson; leave --output out"));
    }
    let reader = Reader::<SyncEvent>::open(global.dir()?)?;
    let mut exit = Exit::Ok;
    for finding in reader.findings() {
        if finding.kind.severity() == Severity::LogDamaged {
            out::tell(&format!("error: {finding}"));
            exit = exit.or(Exit::Damaged);
        }
    }
    let deleted = reader.deleted()?;
    let is_deleted = |seq: u64| {
        let behind = deleted.partition_point(|(first, _)| *first <= seq);
        deleted[..behind].last().is_some_and(|(_, last)| *last >= seq)
    };
    for item in reader.items(1)? {
        match item? {
            Item::Event(stored) if is_deleted(stored.seq) => {}
            Item::Event(stored) => out.json(&ExportLine::new(
                stored.seq,
                reader.id(),
                &stored.event,
                stored.key.as_deref(),
                stored.appended_at,
            ))?,
            Item::Lost(finding) => out::tell(&format!("note: {finding}")),
            Item::Damage(finding) => {
                out::tell(&format!("error: {finding}"));
                exit = exit.or(Exit::Damaged);
            }
            // The export would not be whole, and a caller who keeps it as a copy must know.
            Item::Unknown(finding) => {
                out::tell(&format!("error: left out: {finding}"));
                exit = exit.or(Exit::Failure);
            }
            _ => {}
        }
    }
    out.flush()?;
    if exit == Exit::Damaged {
        out::tell("hint: `synclog repair --dry-run` tells what can be brought back, and changes nothing");
    }
    Ok(exit)
}
