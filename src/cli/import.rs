//! `import`: history from a file, each record once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use synclog::{Extra, ImportOptions, ImportReport, ImportSource, SyncLog};

use super::args::Global;
use super::exit::{Exit, Stop};
use super::out::{self, Fields, Out, json_text};
use super::{append, time};

/// Options of `import`.
#[derive(Args)]
pub(crate) struct ImportArgs {
    /// JSON lines, a SQLite database with a table `sync_logs`, or an export
    file: PathBuf,
    /// Tell what would be imported, and append nothing; the store must exist
    #[arg(long)]
    dry_run: bool,
    /// The zone of times without one: a name such as Asia/Kolkata, or an offset such as +05:30
    #[arg(long, value_name = "ZONE", default_value = "UTC", allow_hyphen_values = true)]
    source_tz: String,
    /// Take back what an earlier import of this file brought when it read times without a zone in this one
    ///
    /// Its events come in once more, in the zone of --source-tz; then those in the wrong zone are deleted, by a
    /// record in the log. --dry-run tells how many that are.
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    was_tz: Option<String>,
    /// How many events are to be taken back
    #[arg(long, value_name = "NUMBER", requires = "was_tz")]
    take_back: Option<u64>,
    /// What becomes of fields and columns that an event has no place for
    #[arg(long, value_enum, value_name = "WHERE", default_value = "details")]
    extra: ExtraArg,
    /// Do not make a store where there is none
    #[arg(long)]
    no_create: bool,
}

/// [`Extra`] as an argument.
#[derive(Clone, Copy, ValueEnum)]
enum ExtraArg {
    /// They go into the details, a line each
    Details,
    /// They are left out
    Drop,
}

/// Runs `import`.
pub(crate) fn run(global: &Global, args: &ImportArgs, out: &mut Out) -> Result<Exit, Stop> {
    let zone = |option: &str, text: &str| {
        time::zone(text).map_err(|reason| Stop::usage(format!("{option} {text:?} {reason}")))
    };
    let source_zone = zone("--source-tz", &args.source_tz)?;
    let was_zone = args.was_tz.as_deref().map(|text| zone("--was-tz", text)).transpose()?;
    let mut options = ImportOptions::default()
        .dry_run(args.dry_run)
        .source_wait(global.wait)
        .extra(match args.extra {
            ExtraArg::Details => Extra::Details,
            ExtraArg::Drop => Extra::Drop,
        })
        .source_zone(args.source_tz.clone(), move |text| time::read_source(text, &source_zone));
    let corrects = was_zone.is_some();
    if let Some(zone) = was_zone {
        options = options.was_zone(move |text| time::read_source(text, &zone));
    }
    // Nothing is made, and nobody kept waiting, before the source is read.
    let source = ImportSource::read(&args.file, &options).map_err(unreadable)?;
    let report = if corrects {
        SyncLog::correct_zone(global.dir()?, &global.options(false), source, &options, args.take_back)
            .map_err(unconfirmed)?
    } else {
        let log = append::open(global, !args.no_create && !args.dry_run)?;
        let report = log.import_source(source, &options)?;
        log.close()?;
        report
    };
    for rejection in &report.rejections {
        out::tell(&json_text(rejection));
    }
    tell(global, args, &report);
    let fields = Fields::new()
        .with("imported", report.imported)
        .with("already_present", report.already_present)
        .with("rejected", report.rejected)
        .with("deleted", report.deleted)
        .with("id_conflicts", report.id_conflicts)
        .with("look_alikes", report.look_alikes)
        .with("corrected", report.corrected)
        .with("empty_alterids", report.empty_alterids)
        .with("unknown_words", report.unknown_words)
        .with("extra_fields", report.extra_fields)
        .with("in_future", report.in_future)
        .maybe("newest_in_future", report.newest_in_future.map(|time| time.to_string()))
        .with("skipped_times", report.skipped_times)
        .with("doubled_times", report.doubled_times)
        .with("source_tz", report.source_tz)
        .with("dry_run", report.dry_run);
    out.object(global.output(), &fields)?;
    out.flush()?;
    Ok(if report.rejected > 0 { Exit::Rejected } else { Exit::Ok })
}

/// A source that cannot be read is a failure, and none of the store.
fn unreadable(error: synclog::Error) -> Stop {
    match error {
        synclog::Error::Projection { busy: true, .. } => Stop::new(Exit::Failure, error.to_string())
            .hint("another process holds the source; --wait sets how long to wait for it"),
        other => other.into(),
    }
}

/// Where the number of events to take back is missing or another one.
fn unconfirmed(error: synclog::Error) -> Stop {
    let hint = "--dry-run tells what would be done, and --take-back NUMBER confirms the number";
    let asks = matches!(&error, synclog::Error::Invalid { field, .. } if field.contains("take back"));
    let stop = Stop::from(error);
    if asks { stop.hint(hint) } else { stop }
}

/// What the user should know beside the numbers.
fn tell(global: &Global, args: &ImportArgs, report: &ImportReport) {
    if let Some(newest) = report.newest_in_future {
        out::tell(&format!(
            "WARNING: {} record(s) lie in the future, the newest at {newest} UTC; times without a zone were read \
             in {}: is --source-tz the zone of this source?",
            report.in_future, report.source_tz
        ));
    }
    let clocks = report.skipped_times + report.doubled_times;
    if clocks > 0 {
        global.note(&format!(
            "{clocks} local time(s) fall into a change of the clocks of {}: {} that never were are moved on by the \
             gap, and of {} that were twice the earlier one is taken",
            report.source_tz, report.skipped_times, report.doubled_times
        ));
    }
    if !report.extra_fields.is_empty() {
        let where_to = match args.extra {
            ExtraArg::Details => "went into the details (--extra drop leaves them out)",
            ExtraArg::Drop => "were left out (--extra details keeps them)",
        };
        global.note(&format!(
            "fields without a place of their own {where_to}: {}",
            report.extra_fields.join(", ")
        ));
    }
    if report.empty_alterids > 0 {
        global.note(&format!("{} record(s) without an alterid have - in its place", report.empty_alterids));
    }
    if report.unknown_words > 0 {
        let note = "word(s) are no level or status, and stand in the details";
        global.note(&format!("{} {note}", report.unknown_words));
    }
    if report.look_alikes > 0 {
        let note = "imported record(s) equal another event in all but the id: the same event twice?";
        global.note(&format!("{} {note}", report.look_alikes));
    }
}
