//! `verify`: every frame and every row; nothing is changed.

use clap::Args;
use synclog::{Finding, Reader, Severity, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::out::{self, Fields, Out};
use super::text::escape;

/// Options of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Check the log alone, not the rows
    #[arg(long)]
    log_only: bool,
}

/// Runs `verify`.
pub(crate) fn run(global: &Global, args: &VerifyArgs, out: &mut Out) -> Result<Exit, Stop> {
    let output = global.output();
    let mut failed = None;
    let mut exit = Exit::Ok;
    let summary = Reader::<SyncEvent>::verify(global.dir()?, args.log_only, |finding| {
        exit = exit.or(severity(&finding));
        if failed.is_none() {
            failed = tell(out, output, &finding).err();
        }
    });
    if let Some(stop) = failed {
        return Err(stop);
    }
    let summary = summary.map_err(unchecked)?;
    if summary.unreadable > 0 {
        exit = exit.or(Exit::Failure);
    }
    match output {
        Output::Json | Output::Ndjson => out.json(&Fields::new().with("summary", out::value(&summary)))?,
        Output::Table => {
            let unreadable = match summary.unreadable {
                0 => String::new(),
                count => format!(", {count} event(s) that this program cannot read"),
            };
            out.line(&format!(
                "{} events, {} rows compared: {} difference(s), {} damage(s) of the log, {} row(s) to come{unreadable}",
                summary.events, summary.rows, summary.differences, summary.log_damaged, summary.lag
            ))?;
        }
    }
    match exit {
        Exit::Damaged => {
            global
                .note("hint: `synclog repair --dry-run` tells what can be brought back, and changes nothing");
        }
        Exit::Differs => global.note("hint: run `synclog replay`"),
        _ => {}
    }
    Ok(exit)
}

/// The failure to look at the rows at all. What replay would mend comes as a finding instead.
pub(crate) fn unchecked(error: synclog::Error) -> Stop {
    match error {
        synclog::Error::Projection { busy: false, .. } => Stop::new(Exit::Failure, error.to_string())
            .hint("`synclog verify --log-only` checks the log without the database"),
        error => error.into(),
    }
}

/// What a finding means for the exit code.
pub(crate) fn severity(finding: &Finding) -> Exit {
    match finding.kind.severity() {
        Severity::LogDamaged => Exit::Damaged,
        Severity::ProjectionDiffers => Exit::Differs,
        Severity::Note => Exit::Ok,
    }
}

/// Writes a finding to stdout.
pub(crate) fn tell(out: &mut Out, output: Output, finding: &Finding) -> Result<(), Stop> {
    match output {
        Output::Json | Output::Ndjson => out.json(&out::finding(finding)),
        Output::Table => out.line(&escape(&finding.to_string())),
    }
}
