//! `import`: history from a file, each record once.

use std::path::PathBuf;

use clap::Args;
use synclog::ImportOptions;

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
    /// Do not make a store where there is none
    #[arg(long)]
    no_create: bool,
}

/// Runs `import`.
pub(crate) fn run(global: &Global, args: &ImportArgs, out: &mut Out) -> Result<Exit, Stop> {
    let zone = time::zone(&args.source_tz)
        .map_err(|reason| Stop::usage(format!("--source-tz {:?} {reason}", args.source_tz)))?;
    // A wrong file name must not leave an empty store behind.
    match std::fs::metadata(&args.file) {
        Ok(found) if found.is_dir() => {
            return Err(Stop::new(Exit::Failure, format!("{} is a directory", args.file.display())));
        }
        Ok(_) => {}
        Err(error) => {
            return Err(Stop::new(Exit::Failure, format!("cannot read {}: {error}", args.file.display())));
        }
    }
    let log = append::open(global, !args.no_create && !args.dry_run)?;
    let options = ImportOptions::default()
        .dry_run(args.dry_run)
        .source_zone(args.source_tz.clone(), move |text| time::read(text, &zone));
    let report = log.import(&args.file, &options)?;
    for rejection in &report.rejections {
        out::tell(&json_text(rejection));
    }
    let fields = Fields::new()
        .with("imported", report.imported)
        .with("already_present", report.already_present)
        .with("rejected", report.rejected)
        .with("deleted", report.deleted)
        .with("id_conflicts", report.id_conflicts)
        .with("source_tz", report.source_tz)
        .with("dry_run", report.dry_run);
    out.object(global.output(), &fields)?;
    out.flush()?;
    log.close()?;
    Ok(if report.rejected > 0 { Exit::Rejected } else { Exit::Ok })
}
