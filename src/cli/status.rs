//! `status`: where the store is, how it is, and what to run next.

use synclog::{OpenReport, Reader, Severity, SyncEvent, SyncReader};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::out::{Fields, Out, finding, value};

/// What is to be said about a store in a word, what to run next, and the exit code.
struct Verdict {
    state: &'static str,
    next: Option<&'static str>,
    exit: Exit,
}

/// Runs `status`.
pub(crate) fn run(global: &Global, out: &mut Out) -> Result<Exit, Stop> {
    let log = SyncReader::open(global.dir()?)?;
    let reader = log.reader();
    let database = reader.database_identity();
    let missing = log.missing_rows();
    // Why it is not known is told as `database_error`.
    let applied = database.as_ref().ok().map(|(_, applied)| *applied);
    let lag = applied.map(|applied| reader.last_seq().saturating_sub(applied));
    let verdict = judge(reader, &database, lag, &missing);
    let output = global.output();
    // What keeps this from being known is told beside it, as the database's own trouble.
    let unread = reader.unread_events().unwrap_or_default();
    let findings: Vec<_> = reader
        .findings()
        .iter()
        .chain(reader.damage())
        .chain(&unread)
        .map(|found| value(&finding(found)))
        .collect();
    let mut fields = Fields::new()
        .with("state", verdict.state)
        .with("next", verdict.next)
        .with("store", reader.dir().to_string_lossy())
        .with("log", reader.dir().join("log").to_string_lossy())
        .with("database", reader.database().to_string_lossy())
        .with("log_store_id", reader.id().to_string())
        // As above, and so is the count below.
        .with("database_store_id", database.as_ref().ok().map(|(id, _)| id.to_string()))
        .with("first_seq", reader.first_seq())
        .with("last_seq", reader.last_seq())
        .with("applied_seq", applied)
        .with("lag", lag)
        .with("rows_in_making", reader.rows_in_making())
        // Null where they cannot be counted.
        .with("missing_rows", missing.as_ref().ok().copied())
        .with("log_bytes", reader.log_bytes())
        .with("database_bytes", reader.database_bytes())
        .with("live_writer", reader.has_live_writer())
        .with("writer_pid", reader.writer_pid());
    if let Some(error) = database.as_ref().err().or(missing.as_ref().err()) {
        fields = fields.with("database_error", error.to_string());
    }
    match output {
        Output::Json | Output::Ndjson => {
            let report = reader.last_open_report();
            let report = report.map(|report| value(&report));
            out.json(&fields.with("findings", findings).with("last_open", report))?;
        }
        Output::Table => {
            out.text(&fields.lines())?;
            for found in reader.findings().iter().chain(reader.damage()).chain(&unread) {
                out.line(&format!("finding: {}", super::text::escape(&found.to_string())))?;
            }
            if let Some(report) = reader.last_open_report() {
                last_open(&report, out)?;
            }
        }
    }
    Ok(verdict.exit)
}

fn judge(
    reader: &Reader<SyncEvent>,
    database: &synclog::Result<(synclog::StoreId, u64)>,
    lag: Option<u64>,
    missing: &synclog::Result<u64>,
) -> Verdict {
    let damaged = reader
        .findings()
        .iter()
        .chain(reader.damage())
        .any(|found| found.kind.severity() == Severity::LogDamaged);
    let differs = Verdict { state: "projection differs", next: Some("synclog replay"), exit: Exit::Differs };
    match database {
        _ if damaged => {
            Verdict { state: "log damaged", next: Some("synclog repair --dry-run"), exit: Exit::Damaged }
        }
        Err(synclog::Error::Projection { busy: true, .. }) => {
            Verdict { state: "database busy", next: None, exit: Exit::Ok }
        }
        // Readers then make their rows from the log, where they can.
        Err(synclog::Error::Io { .. }) => {
            let exit = if missing.is_ok() { Exit::Ok } else { Exit::Failure };
            Verdict { state: "database unreadable", next: None, exit }
        }
        // Whatever else keeps it from being used, replay mends.
        Err(_) => differs,
        Ok((id, _)) if *id != reader.id() => differs,
        Ok(_) if matches!(missing, Err(synclog::Error::Projection { busy: true, .. })) => {
            Verdict { state: "database busy", next: None, exit: Exit::Ok }
        }
        // Rows that cannot be counted are not as they should be.
        Ok(_) if !matches!(missing, Ok(0)) => differs,
        Ok(_) if lag == Some(0) => Verdict { state: "ok", next: None, exit: Exit::Ok },
        Ok(_) if reader.has_live_writer() => Verdict { state: "lagging", next: None, exit: Exit::Ok },
        Ok(_) => Verdict { state: "lagging", ..differs },
    }
}

fn last_open(report: &OpenReport, out: &mut Out) -> Result<(), Stop> {
    let fields = Fields::new()
        .with("last opened", report.opened_at.as_str())
        .with("  created", report.created)
        .with("  last_seq", report.last_seq)
        .with("  tail", report.tail.join("; "))
        .with("  rewritten_bytes", report.rewritten_bytes)
        .with("  healed_events", report.healed_events)
        .with("  rows restored", report.replay.restored)
        .with("  rows replaced", report.replay.replaced)
        .with("  rows set aside", report.replay.set_aside)
        .with("  findings", report.findings.len());
    out.text(&fields.lines())
}
