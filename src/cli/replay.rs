//! `replay`: mends the database from the log.

use clap::Args;
use synclog::{FindingKind, Reader, ReplayReport, Store, SyncEvent};

use super::args::Global;
use super::exit::{Exit, Stop};
use super::out::{self, Fields, Out};
use super::verify::{severity, unchecked};

/// Options of `replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Make all rows anew, whatever the old ones are like
    #[arg(long)]
    rebuild: bool,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `replay`.
pub(crate) fn run(global: &Global, args: &ReplayArgs, out: &mut Out) -> Result<Exit, Stop> {
    if args.dry_run {
        return dry_run(global, args.rebuild, out);
    }
    let replayed = Store::<SyncEvent>::replay(global.dir()?, global.options(false), args.rebuild);
    let (report, opened) = replayed.map_err(|error| match error {
        // That replay itself is the cure would be a strange hint here.
        synclog::Error::Projection { busy: false, .. } => Stop::new(Exit::Failure, error.to_string())
            .hint("look at the owner and the mode of the database, and whether there is room on its disk"),
        error => error.into(),
    })?;
    let mut exit = if report.unhealable > 0 { Exit::Differs } else { Exit::Ok };
    for finding in &opened.findings {
        out::tell(&finding.to_string());
        // What replay found in the database it has mended; what is wrong with the log stays.
        if severity(finding) == Exit::Damaged && finding.kind != FindingKind::DamagedFiller {
            exit = exit.or(Exit::Damaged);
        }
    }
    tell(global, &report, false, out)?;
    if report.unhealable > 0 {
        out.flush()?;
        let cure = if args.rebuild { "then replay again" } else { "or run `synclog replay --rebuild`" };
        global.note(&format!(
            "hint: {} row(s) still differ after they were written: look for a trigger or an index on `sync_logs` \
             that is not synclog's and remove it, {cure}",
            report.unhealable
        ));
    }
    Ok(exit)
}

fn tell(global: &Global, report: &ReplayReport, dry_run: bool, out: &mut Out) -> Result<(), Stop> {
    let fields = Fields::new()
        .with("restored", report.restored)
        .with("replaced", report.replaced)
        .with("set_aside", report.set_aside)
        .with("already_present", report.already_present)
        .with("unhealable", report.unhealable)
        .with("rebuilt", report.rebuilt)
        .with("dry_run", dry_run);
    out.object(global.output(), &fields)
}

/// Compares, and counts what a replay would do.
fn dry_run(global: &Global, rebuild: bool, out: &mut Out) -> Result<Exit, Stop> {
    let mut report = ReplayReport::default();
    let (mut exit, mut differing) = (Exit::Ok, None);
    let summary = Reader::<SyncEvent>::verify(global.dir()?, false, |finding| {
        exit = exit.or(severity(&finding));
        match finding.kind {
            FindingKind::RowMissing => report.restored += finding.events(),
            // One finding for each column, the columns of a row together.
            FindingKind::RowDiffers if differing != finding.seq => {
                differing = finding.seq;
                report.replaced += 1;
            }
            FindingKind::RowUnknown => report.set_aside += 1,
            FindingKind::DatabaseMissing
            | FindingKind::DatabaseDamaged
            | FindingKind::DatabaseForeign
            | FindingKind::SchemaDiffers
            | FindingKind::TablesOutdated => report.rebuilt = true,
            _ => {}
        }
        if finding.kind.severity() != synclog::Severity::Note {
            out::tell(&finding.to_string());
        }
    })
    .map_err(unchecked)?;
    if report.rebuilt || rebuild {
        // Every row is written again, so nothing is merely compared.
        report = ReplayReport { restored: summary.events, set_aside: report.set_aside, ..report };
        report.replaced = 0;
        report.rebuilt = true;
    } else {
        report.already_present = summary.rows.saturating_sub(report.replaced);
    }
    tell(global, &report, true, out)?;
    Ok(exit)
}
