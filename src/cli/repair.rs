//! `repair`: mends the log from what the database proves, and names what is lost.

use clap::Args;
use synclog::{Finding, FindingKind, RepairReport, Store, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Failure, Stop};
use super::out::{self, Fields, Out};
use super::text::escape;

/// Options of `repair`.
#[derive(Args)]
pub(crate) struct RepairArgs {
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take the log for whole where the database has seen more or other events than it holds; the others are
    /// kept in quarantine/
    #[arg(long, conflicts_with = "accept_loss")]
    trust_log: bool,
    /// Give up what cannot be brought back, if it is this many events; the log says so ever after
    #[arg(long, value_name = "N", conflicts_with = "dry_run")]
    accept_loss: Option<u64>,
}

/// Runs `repair`. What is lost is listed in any case, and makes the exit code 4.
pub(crate) fn run(global: &Global, args: &RepairArgs, out: &mut Out) -> Result<Exit, Stop> {
    let output = global.output();
    let report = repair(global, args).map_err(|stop| match stop {
        // That replay is the cure would be wrong here: it opens the log first.
        Stop::Failed(Failure { exit: Exit::Differs, message, .. }) => Stop::new(Exit::Failure, message)
            .hint("make the database readable, or move it away: then nothing speaks for what the log lacks"),
        stop => stop,
    })?;
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
    let lost: u64 = report.lost.iter().map(Finding::events).sum();
    let quarantined: Vec<_> = report.quarantined.iter().map(|path| path.to_string_lossy()).collect();
    let summary = Fields::new()
        .with("healed_events", report.healed_events)
        .with("lost_findings", report.lost.len())
        .with("lost_events", lost)
        .with("given_up", report.given_up)
        .with("acceptable", report.acceptable)
        .with("quarantined", quarantined)
        .with("dry_run", args.dry_run);
    match output {
        Output::Json | Output::Ndjson => {
            out.json(&Fields::new().with("summary", out::value(&summary)))?;
        }
        Output::Table => out.text(&summary.lines())?,
    }
    let cut = report.findings.iter().any(|finding| finding.kind == FindingKind::CutSegment);
    if report.lost.is_empty() && cut {
        out.flush()?;
        global.note("note: the newest segment was cut; whether events were lost with its end, nothing tells");
        return Ok(Exit::Damaged);
    }
    if report.lost.is_empty() {
        return Ok(Exit::Ok);
    }
    out.flush()?;
    global.note("note: what is listed as lost could not be brought back; a copy of the log may hold it");
    match (report.acceptable, args.accept_loss) {
        (Some(right), Some(named)) => {
            global.note(&format!("note: nothing was given up: it would be {right} event(s), not {named}"));
        }
        (Some(right), None) => global.note(&format!(
            "note: `synclog repair --accept-loss {right}` gives it up, for good, and takes appends again"
        )),
        (None, Some(_)) => {
            global.note("note: giving it up would not make the log whole, so nothing was given up");
        }
        (None, None) => {}
    }
    Ok(Exit::Damaged)
}

/// Mends what rows prove, and only then gives up what they do not, if the user wants that.
fn repair(global: &Global, args: &RepairArgs) -> Result<RepairReport, Stop> {
    let dir = global.dir()?;
    let options = global.options(false);
    if let Some(events) = args.accept_loss {
        return Ok(Store::<SyncEvent>::accept_loss(&dir, options, events)?);
    }
    let mut report = Store::<SyncEvent>::repair(&dir, options.clone(), args.dry_run, false)?;
    let beyond =
        |finding: &Finding| matches!(finding.kind, FindingKind::AppliedBeyondLog | FindingKind::TwoHistories);
    if args.dry_run || !args.trust_log || !report.lost.iter().any(beyond) {
        return Ok(report);
    }
    if !report.lost.iter().all(beyond) {
        global.note("note: the log is damaged as well, so nothing was given up");
        return Ok(report);
    }
    let mut then = Store::<SyncEvent>::repair(&dir, options, false, true)?;
    // What rows proved is in a file now, and not lost.
    report.lost.retain(|finding| finding.kind != FindingKind::TwoHistories);
    report.healed_events += then.healed_events;
    report.findings.append(&mut then.findings);
    report.quarantined.append(&mut then.quarantined);
    report.lost.append(&mut then.lost);
    Ok(report)
}
