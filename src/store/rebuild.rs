//! Where rows are made anew: inside the database, or in a new file that takes its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk;
use crate::error::Error;
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::log::view::LogView;
use crate::log::writer::Position;
use crate::projection::rebuild::{OldRows, Rebuild, is_held, settle};
use crate::projection::{self, Db, Trouble};
use crate::replay::{self, Stop};

use super::evidence;
use super::project::Projector;

impl Projector {
    /// Makes all rows anew: inside the database where that can be, so that whoever has it open goes on; in a new
    /// file where there is none that can be used. That takes the old one's place once it is finished, and the old
    /// one is kept.
    pub(super) fn rebuild<E: Event>(
        &mut self,
        durable: Position,
        why: &Trouble,
        wait: Duration,
    ) -> Result<(), Stop> {
        self.log.check()?;
        let view = self.view(durable)?;
        let found = disk::identity(&self.database);
        let there = found.map_err(|error| Error::io("look up", &self.database, error))?.is_some();
        let db = match projection::open_for_reading(&self.database, wait) {
            Ok(db) => Some(db),
            // Somebody is changing it, and nothing tells yet whose it is.
            Err(trouble @ Trouble::Busy(_)) => return Err(trouble.into()),
            Err(_) => None,
        };
        let ours = db.as_ref().is_some_and(|db| projection::names_store(db, self.store));
        let mut another = ours;
        if let Some(db) = &db {
            self.check_history::<E>(&view, db)?;
            self.check_behind(&view, db)?;
            if let Some(applied) = projection::evidence(db, self.store) {
                self.check_end(&view, db, applied)?;
                another = !Self::applied_fits(&view, applied)?;
            }
        }
        let old = db.filter(|_| ours);
        let kind = match why {
            _ if !there => FindingKind::DatabaseMissing,
            Trouble::Unfinished(_) => FindingKind::DatabaseMissing,
            Trouble::Outdated(_) => FindingKind::TablesUpgraded,
            Trouble::Altered(_) if ours => FindingKind::SchemaDiffers,
            Trouble::Foreign(_) => FindingKind::DatabaseForeign,
            _ => FindingKind::DatabaseDamaged,
        };
        let reason = if there { why.reason() } else { "it was not there" };
        let what = format!("{reason}; it was built anew from the log");
        let differs = matches!(why, Trouble::Outdated(_) | Trouble::Altered(_) | Trouble::Unfinished(_));
        let before = self.report.clone();
        if !there || (ours && differs) {
            match self.rebuild_at::<E>(&self.database.clone(), &view, OldRows { beside: None, another }, wait)
            {
                // So it cannot be used after all.
                Err(Stop::View(trouble)) if trouble.wants_rebuild() => self.report = before,
                done => {
                    done?;
                    if there || view.last_seq() > 0 {
                        self.findings.push(Finding::new(kind, what).file(&self.database));
                    }
                    return Ok(());
                }
            }
        }
        let kept = self.rebuild_beside::<E>(&view, old, another, wait)?;
        let what = kept
            .map_or(what.clone(), |kept| format!("{what}, and the old one is kept as {}", kept.display()));
        self.findings.push(Finding::new(kind, what).file(&self.database));
        Ok(())
    }

    /// Makes all rows anew in the database at `path`, which is there or is made.
    fn rebuild_at<E: Event>(
        &mut self,
        path: &Path,
        view: &LogView,
        old: OldRows<'_>,
        wait: Duration,
    ) -> Result<(), Stop> {
        let (halt, stop) = (self.halt.clone(), self.halt.clone());
        let stop = move || stop.is_due();
        let mut new = Rebuild::start(path, &self.schema, self.store, wait, stop)?;
        if new.applied().seq > 0 && !Self::applied_fits(view, new.applied())? {
            new.restart()?;
        }
        let (report, findings) = (&mut self.report, &mut self.findings);
        let kept = replay::rebuild::<E>(new, view, old, &|| !halt.is_due(), report, findings)?;
        let told =
            kept.into_iter().map(|what| Finding::new(FindingKind::ForeignObject, what).file(&self.database));
        self.findings.extend(told);
        Ok(())
    }

    /// Makes all rows anew in a file beside the database, and puts that in its place. Where the old one is kept.
    fn rebuild_beside<E: Event>(
        &mut self,
        view: &LogView,
        old: Option<Db>,
        another: bool,
        wait: Duration,
    ) -> Result<Option<PathBuf>, Stop> {
        let database = self.database.clone();
        let io = |error: std::io::Error| Stop::Log(Error::io("replace", &database, error));
        let (new, before) = (projection::beside(&self.database, ".new"), self.report.clone());
        projection::leave_access(&database).map_err(io)?;
        let rows = OldRows { beside: old.as_deref(), another };
        match self.rebuild_at::<E>(&new, view, rows, wait) {
            Err(Stop::View(trouble)) if trouble.wants_rebuild() => {
                // What was left of an earlier one is of no use.
                self.remove_unfinished()?;
                projection::leave_access(&database).map_err(io)?;
                self.report = before;
                self.rebuild_at::<E>(&new, view, rows, wait)?;
            }
            done => done?,
        }
        drop(old);
        settle(&new, wait)?;
        if let Some(busy) = is_held(&self.database, wait) {
            return Err(busy.into());
        }
        let kept = self.move_aside()?;
        // A new file with an old write-ahead log beside it would show old rows, and a journal that a kill left
        // would be rolled back into it.
        for suffix in ["-wal", "-journal"] {
            let beside = projection::beside(&self.database, suffix);
            let cleared = disk::truncate_if_there(&beside).and_then(|()| disk::remove_if_there(&beside));
            cleared.map_err(|error| Error::io("remove", &beside, error))?;
        }
        let beside = projection::beside(&self.database, "-shm");
        disk::remove_if_there(&beside).map_err(|error| Error::io("remove", &beside, error))?;
        disk::rename_durably(&new, &self.database).map_err(io)?;
        Ok(kept)
    }

    /// Removes a new database that is not finished, and not needed any more.
    pub(super) fn remove_unfinished(&self) -> Result<(), Error> {
        let new = projection::beside(&self.database, ".new");
        ["", "-wal", "-shm", "-journal"].iter().try_for_each(|suffix| {
            let path = projection::beside(&new, suffix);
            disk::remove_if_there(&path).map_err(|error| Error::io("remove", &path, error))
        })
    }

    /// Keeps a database that cannot be used, and says where; there is nothing to keep of an empty file.
    fn move_aside(&self) -> Result<Option<PathBuf>, Stop> {
        self.log.check()?;
        let io = |error: std::io::Error| Stop::Log(Error::io("move aside", &self.database, error));
        if disk::file_len(&self.database).map_err(io)? == 0 {
            return Ok(None);
        }
        let dir = self.log.quarantine_dir();
        self.log.make_quarantine().map_err(|error| Error::io("keep the old database in", &dir, error))?;
        let kept = evidence::kept_path(&self.log);
        evidence::move_database(&self.database, &kept).map_err(io)?;
        Ok(Some(kept))
    }
}
