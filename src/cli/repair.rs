//! `repair`: mends the log from what the database proves, and names what is lost.

use clap::Args;
use synclog::{Store, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::out::{self, Fields, Out};
use super::text::escape;

/// Options of `repair`.
#[derive(Args)]
pub(crate) struct RepairArgs {
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take the log for whole where the database has seen more events than it holds
    #[arg(long)]
    trust_log: bool,
}

/// Runs `repair`.
pub(crate) fn run(global: &Global, args: &RepairArgs, out: &mut Out) -> Result<Exit, Stop> {
    let output = global.output();
    let report =
        Store::<SyncEvent>::repair(global.dir()?, global.options(false), args.dry_run, args.trust_log)?;
    let told = report.findings.iter().map(|finding| (finding, false));
    for (finding, lost) in told.chain(report.lost.iter().map(|finding| (finding, true))) {
        match output {
            Output::Json | Output::Ndjson => out.json(&out::finding(finding).with("lost", lost))?,
            Output::Table => {
                let what = if lost { "lost: " } else { "" };
                out.line(&format!("{what}{}", escape(&finding.to_string())))?;
            }
        }
    }
    let lost: u64 = report.lost.iter().map(synclog::Finding::events).sum();
    let quarantined: Vec<_> = report.quarantined.iter().map(|path| path.to_string_lossy()).collect();
    let summary = Fields::new()
        .with("healed_events", report.healed_events)
        .with("lost_findings", report.lost.len())
        .with("lost_events", lost)
        .with("quarantined", quarantined)
        .with("dry_run", args.dry_run);
    match output {
        Output::Json | Output::Ndjson => {
            out.json(&Fields::new().with("summary", serde_json::to_value(&summary).unwrap_or_default()))?;
        }
        Output::Table => out.text(&summary.lines())?,
    }
    if report.lost.is_empty() {
        return Ok(Exit::Ok);
    }
    out.flush()?;
    global.note("note: what is listed as lost could not be brought back; a copy of the log may hold it");
    Ok(Exit::Damaged)
}
