//! `runs`: what started, what ended how, and what never ended.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use synclog::{RunFilter, RunState, RunSummary, SyncReader};

use super::args::{CompanyArgs, Global, Output, word};
use super::exit::{Exit, Stop};
use super::list::answer;
use super::out::Out;
use super::text::{cell, escape};
use super::time;

/// Options of `runs`.
#[derive(Args)]
pub(crate) struct RunsArgs {
    #[command(flatten)]
    company: CompanyArgs,
    /// Only runs in this state; a stuck run is an open one too
    #[arg(long, ignore_case = true, value_parser = word::<RunState>(RunState::ALL.map(RunState::as_str)))]
    state: Option<RunState>,
    /// How long a run without an end may be silent before it is stuck
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time::duration)]
    older_than: Duration,
}

/// Runs `runs`.
pub(crate) fn run(global: &Global, args: &RunsArgs, out: &mut Out) -> Result<Exit, Stop> {
    let reader = SyncReader::open(global.dir()?)?;
    answer(global, &reader, || list(global, args, &reader, out))
}

fn list(global: &Global, args: &RunsArgs, reader: &SyncReader, out: &mut Out) -> Result<(), Stop> {
    let filter = RunFilter { state: args.state, older_than: args.older_than, ..RunFilter::default() };
    let mut runs = reader.runs(&filter)?;
    let company = &args.company;
    runs.retain(|run| {
        company.company_guid.as_ref().is_none_or(|guid| *guid == run.company.guid)
            && company.company_alterid.as_ref().is_none_or(|alterid| *alterid == run.company.alterid)
    });
    match global.output() {
        Output::Ndjson => runs.iter().try_for_each(|run| out.json(run)),
        Output::Json => {
            let mut numbered = runs.iter().enumerate();
            numbered.try_for_each(|(index, run)| out.array_item(index == 0, run))?;
            out.array_end(runs.is_empty())
        }
        Output::Table => table(global, &runs, out),
    }
}

fn table(global: &Global, runs: &[RunSummary], out: &mut Out) -> Result<(), Stop> {
    if runs.is_empty() {
        return Ok(());
    }
    out.line(&format!(
        "{:<6}  {:<25}  {:>9}  {:>8}  {:>6}  {:<24}  RUN",
        "STATE", "STARTED", "SECONDS", "RECORDS", "EVENTS", "COMPANY"
    ))?;
    let (zone, color) = (global.shown_zone(), global.color());
    for run in runs {
        let (on, off) = match run.state {
            _ if !color => ("", ""),
            RunState::Failed => ("\x1b[31m", "\x1b[0m"),
            RunState::Stuck => ("\x1b[33m", "\x1b[0m"),
            RunState::Ok => ("\x1b[32m", "\x1b[0m"),
            RunState::Open => ("", ""),
        };
        let started = run.started_at.map_or_else(|| "-".into(), |at| time::show(at, &zone));
        let seconds = run.duration_seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.2}"));
        let records = run.records.map_or_else(|| "-".into(), |records| records.to_string());
        let mut line = format!(
            "{on}{:<6}{off}  {started:<25}  {seconds:>9}  {records:>8}  {:>6}  {}  ",
            run.state,
            run.events,
            cell(&run.company.name, 24),
        );
        // Writing to a string cannot fail.
        let _ = match &run.run {
            Some(id) => write!(line, "{}", escape(id)),
            None => write!(line, "events {}-{}", run.first_seq, run.last_seq),
        };
        if let Some(code) = &run.error_code {
            // As above.
            let _ = write!(line, " [{}]", escape(code));
        }
        out.line(&line)?;
    }
    Ok(())
}
