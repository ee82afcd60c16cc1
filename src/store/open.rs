//! Opening a store for writing: lock, recovery, projection, replay, threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::lock::WriterLock;
use crate::log::damage::all_gone;
use crate::log::directory::LogDir;
use crate::log::event_kind::event_kind;
use crate::log::open::{self as log_open, OpenLog, Recovered};
use crate::log::tail;
use crate::log::writer::LogWriter;
use crate::projection::schema::Schema;
use crate::projection::{self, Db};
use crate::replay::{ReplayReport, Stop};
use crate::time::Timestamp;

use super::evidence::{Fallback, peek};
use super::histories::{self, Log};
use super::known::{Counting, Known, KnownRows};
use super::options::Options;
use super::project::Projector;
use super::report::OpenReport;

/// A store that is locked and recovered, before its threads start.
pub(super) struct Opened {
    pub(super) writer: LogWriter,
    pub(super) projector: Projector,
    /// Without what becomes of the rows.
    pub(super) report: OpenReport,
    /// Dropped last.
    pub(super) lock: WriterLock,
}

/// What a directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Segments of a log.
    Store,
    /// Nothing, or what a crash leaves of a store in the making.
    Empty,
    /// A database of ours without a log.
    LogMissing,
    /// Something else.
    Other,
}

/// Looks at a directory without changing it. A directory that is not there is empty.
pub(crate) fn contents(log: &LogDir) -> Result<Contents> {
    // First the names, then the log: whoever makes a store at this moment makes its first segment
    // before anything else, so that a database without a log is none that is still being made.
    let dir = &log.store_dir;
    let names = match log.disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contents::Empty),
        Err(error) => return Err(Error::io("list", dir, error)),
    };
    let in_log = match log.disk.list(&log.log_dir()) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("list", &log.log_dir(), error)),
    };
    if in_log.iter().any(|name| crate::log::segment::number_of(name).is_some()) {
        return Ok(Contents::Store);
    }
    let unfinished = in_log.iter().all(|name| crate::log::segment::is_unfinished(name));
    if names.iter().all(|name| name == "lock" || (name == "log" && unfinished)) {
        return Ok(Contents::Empty);
    }
    if names.iter().any(|name| name == "synclog.db" || name == "tail") {
        return Ok(Contents::LogMissing);
    }
    Ok(Contents::Other)
}

/// Refuses a store of another event type, before anything of it is touched. The log says which type it is of;
/// where it holds no event, the database may know.
pub(super) fn check_type<E: Event>(log: &LogDir) -> Result<()> {
    let found = match event_kind(log, E::KIND)? {
        Some(found) => Some(found),
        None => kind_of_database(log),
    };
    match found {
        Some(found) if found != E::KIND => {
            Err(Error::OtherEvents { dir: log.store_dir.clone(), found, expected: E::KIND })
        }
        _ => Ok(()),
    }
}

fn kind_of_database(log: &LogDir) -> Option<u16> {
    // What cannot be read here is met again, and told, by the rest of the opening.
    let path = projection::database_path(&log.store_dir);
    disk::identity(&path).ok().flatten()?;
    let store = log.list().ok()?.segments.last()?.store;
    // Nor is this the last to open it.
    let db = projection::open_for_reading(&path, Duration::ZERO).ok()?;
    projection::event_kind_of(&db, store)
}

/// The error for a directory without a log that cannot be made into a store.
pub(crate) fn no_store(log: &LogDir, found: &Contents, create: bool) -> Error {
    let dir = log.store_dir.clone();
    match found {
        Contents::LogMissing => {
            // Whoever opens the log reads it again, and meets the error.
            let seen = tail::read(log).ok().flatten().map(|(_, witness)| witness);
            Error::Damaged { dir, findings: vec![all_gone(log, seen)] }
        }
        Contents::Other if create => Error::NotEmpty { dir },
        _ => Error::NoStore { dir },
    }
}

/// Makes the directory and all above it that are missing, each durable in its parent (P1).
fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = dir;
    loop {
        match disk.list(at) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(at.to_path_buf()),
            // One may be allowed to pass through a directory and not to list it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(Error::io("list", at, error)),
            Ok(_) => break,
        }
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for path in missing.iter().rev() {
        disk.create_dir(path).map_err(|error| Error::io("create", path, error))?;
        if let Some(parent) = path.parent() {
            disk.sync_dir(parent).map_err(|error| Error::io("sync the directory", parent, error))?;
        }
    }
    Ok(())
}

/// Opens a store: everything up to the point where its threads may start.
pub(super) fn open<E: Event>(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    trust_log: bool,
) -> Result<Opened> {
    let schema = Schema::of::<E>()?;
    let dir = disk::absolute(dir).map_err(|error| Error::io("resolve", dir, error))?;
    if let Some(why) =
        projection::refuses_path(&projection::database_path(&dir)).filter(|_| options.projection)
    {
        return Err(Error::invalid("the path of the database", why)); // rows would never follow
    }
    let log = LogDir::new(disk, &dir);
    let found = contents(&log)?;
    match (&found, options.create) {
        (Contents::Store, _) => check_type::<E>(&log)?,
        (Contents::Empty, true) => {
            schema.try_out()?;
            create_dirs(log.disk.as_ref(), &dir)?;
        }
        (found, create) => return Err(no_store(&log, found, create)),
    }
    // Links in the path can be resolved only now that the directory is there.
    let dir = disk::absolute(&dir).map_err(|error| Error::io("resolve", &dir, error))?;
    let lock = WriterLock::acquire(&log.disk, &dir, options.lock_wait)?;
    let log = LogDir::locked(&lock);

    // Another process may have made the store while this one waited.
    let (writer, recovered, known) = match contents(&log)? {
        Contents::Empty => {
            let (writer, recovered) = log_open::create(&log, options.limits, Timestamp::now().as_micros())?;
            (writer, recovered, Known::default())
        }
        Contents::Store => {
            check_type::<E>(&log)?;
            open_log::<E>(&log, options, &schema, trust_log)?
        }
        found => return Err(no_store(&log, &found, options.create)),
    };

    let mut projector = Projector::new(log, writer.store(), schema, trust_log, known);
    // What is wrong with the rows is for whoever brings them up; what they prove of the log is for now.
    if options.projection
        && let Err(Stop::Log(error)) = projector.look(writer.position())
    {
        return Err(error);
    }
    let report = report(&recovered, &writer);
    Ok(Opened { writer, projector, report, lock })
}

impl Opened {
    /// Brings the rows up to the log here and now, for whoever has come for that, and keeps the report.
    pub(super) fn bring_up<E: Event>(&mut self, wait: Duration) -> Result<()> {
        let done = self.projector.bring_up::<E>(self.writer.position(), wait, |_, _| {});
        let done = done.map_err(|stop| stop.into_error(&self.projector.database));
        let pending = done.as_ref().err().map(ToString::to_string);
        self.report.take_rows(&mut self.projector, pending);
        self.report.save(&self.projector.log);
        done
    }
}

fn open_log<E: Event>(
    log: &LogDir,
    options: &Options,
    schema: &Schema,
    trust_log: bool,
) -> Result<(LogWriter, Recovered, Known)> {
    let listing = log.list()?;
    let store = listing.segments.last().map(|header| header.store);
    let peeked = peek(log, schema, store, options.projection_wait, Fallback::ReadWrite);
    if peeked.db.is_none() {
        schema.try_out()?;
    }
    let database = projection::database_path(&log.store_dir);
    let counting = peeked
        .db
        .as_deref()
        .filter(|_| options.projection)
        .and_then(|db| Counting::start(db, &database, schema, peeked.applied));
    let mut rows = peeked.rows::<E>(schema);
    let with = OpenLog {
        limits: options.limits,
        witness: peeked.witness(store),
        claim: peeked.claim(store),
        donor: &mut rows,
        unread: peeked.unread.clone(),
        trust_log,
        tail: None,
    };
    let (writer, mut recovered) = log_open::open_listed(log, listing, with)?;
    if !trust_log {
        let found = Log { dir: log, segments: &recovered.segments, horizon: writer.position() };
        histories::refuse(log, histories::findings::<E>(&found, &peeked.sources(), schema)?)?;
    }
    let only_reads = |db: &Db| db.is_readonly("main").unwrap_or(false);
    let rows = peeked.db.filter(only_reads).zip(peeked.identity);
    let known = Known {
        segments: Some(std::mem::take(&mut recovered.segments)),
        // What is known of the rows holds only now.
        rows: rows.filter(|_| options.projection).map(|(db, identity)| KnownRows { identity, db, counting }),
    };
    Ok((writer, recovered, known))
}

fn report(recovered: &Recovered, writer: &LogWriter) -> OpenReport {
    let findings = recovered.findings.clone();
    for finding in &findings {
        tracing::warn!(%finding, "found while opening the store");
    }
    OpenReport {
        opened_at: OpenReport::now(),
        created: recovered.created,
        tail: recovered.rows.iter().map(|row| (*row).to_owned()).collect(),
        last_seq: writer.position().seq - 1,
        rewritten_bytes: recovered.rewritten_bytes,
        healed_events: recovered.healed_events,
        quarantined: recovered.quarantined.clone(),
        findings,
        replay: ReplayReport::default(),
        projection_pending: None,
    }
}
