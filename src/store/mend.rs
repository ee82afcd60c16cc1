//! Mending on demand: the rows from the log, and the log from the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::RealDisk;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::finding::Finding;
use crate::lock::WriterLock;
use crate::log::directory::LogDir;
use crate::log::open::OpenLog;
use crate::log::writer::Limits;
use crate::projection::schema::Schema;
use crate::replay::{ReplayReport, RowDonor};

use super::{OpenReport, Options, Store, open};

/// What a repair of the log did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Events whose frames came back, bit for bit.
    pub healed_events: u64,
    /// What was healed, cleared or noticed.
    pub findings: Vec<Finding>,
    /// Files with the bytes that were put aside.
    pub quarantined: Vec<PathBuf>,
    /// What could not be brought back.
    pub lost: Vec<Finding>,
}

impl<E: Event> Store<E> {
    /// Compares every row with its event, both ways, and mends what differs; or builds a new
    /// database. Takes the lock, so no other handle may be writing.
    pub fn replay(
        dir: impl AsRef<Path>,
        options: Options,
        rebuild: bool,
    ) -> Result<(ReplayReport, OpenReport)> {
        let options = options.create(false);
        let mut opened = open::open::<E>(Arc::new(RealDisk), dir.as_ref(), &options, false)?;
        let position = opened.writer.position();
        if let Some(error) = opened.pending {
            return Err(error);
        }
        // What opening has just built or mended is not counted a second time.
        let before = opened.projector.report.clone();
        if !before.rebuilt {
            opened
                .projector
                .replay_all::<E>(position, rebuild, options.projection_wait)
                .map_err(|stop| stop.into_error(&opened.projector.database))?;
        }
        let mended = before.restored + before.replaced;
        if !opened.projector.report.rebuilt {
            let report = &mut opened.projector.report;
            report.already_present = report.already_present.saturating_sub(mended);
        }
        opened.writer.mark()?;
        opened.writer.note_tail();
        opened.report.findings.append(&mut opened.projector.findings);
        Ok((opened.projector.report, opened.report))
    }

    /// Brings damaged frames back from their rows, in every segment, and returns what came back and
    /// what is lost. With `dry_run` nothing changes. With `trust_log` an applied seq beyond the
    /// log's end is given up: the log is taken for whole.
    pub fn repair(
        dir: impl AsRef<Path>,
        options: Options,
        dry_run: bool,
        trust_log: bool,
    ) -> Result<RepairReport> {
        let schema = Schema::new(&E::TABLE)?;
        let dir =
            crate::disk::absolute(dir.as_ref()).map_err(|error| Error::io("resolve", dir.as_ref(), error))?;
        let log = LogDir::new(Arc::new(RealDisk), &dir);
        let found = open::contents(&log)?;
        if found != open::Contents::Store {
            return Err(open::no_store(&log, &found, false));
        }
        let lock = if dry_run { None } else { Some(WriterLock::acquire(&dir, options.lock_wait)?) };
        let store = log.list()?.segments.last().map(|header| header.store);
        let peeked = open::peek(&dir, &schema, store, options.projection_wait);
        let mut rows = peeked.db.as_ref().map(|db| RowDonor::<E>::new(db, &schema));
        let mut none = crate::log::heal::NoDonor;
        let mut with = OpenLog {
            limits: Limits::default(),
            witness: peeked.witness,
            trust_log,
            tail: None,
            donor: match &mut rows {
                Some(rows) => rows,
                None => &mut none,
            },
            busy: peeked.busy,
        };
        let (done, lost) = crate::log::open::repair(&log, &mut with, dry_run)?;
        drop(lock);
        if trust_log && !dry_run && lost.is_empty() {
            // The rows beyond the log's end are set aside, and the applied seq is the log's again.
            let opened = open::open::<E>(Arc::new(RealDisk), &dir, &options.create(false), true)?;
            if let Some(error) = opened.pending {
                return Err(error);
            }
        }
        Ok(RepairReport {
            healed_events: done.healed_events,
            findings: done.findings,
            quarantined: done.quarantined,
            lost,
        })
    }
}
