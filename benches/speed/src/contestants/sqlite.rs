//! SQLite with the same rows and the same indexes, written by the same version of SQLite.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::lock;
use crate::contestant::{Contestant, Result, Setup, Unit};
use crate::events;

pub struct Sqlite {
    /// One for each worker.
    connections: Vec<Mutex<Connection>>,
    insert: String,
    next: AtomicU64,
}

impl Sqlite {
    pub fn open(dir: &Path, setup: &Setup<'_>, synchronous: &str) -> Result<Self> {
        let path = dir.join("rows.db");
        let connect = || -> Result<Connection> {
            let db = Connection::open(&path)?;
            db.busy_timeout(Duration::from_secs(600))?;
            db.pragma_update(None, "journal_mode", "wal")?;
            db.pragma_update(None, "synchronous", synchronous)?;
            Ok(db)
        };
        let first = connect()?;
        setup.table.create(&first)?;
        setup.table.create_indexes(&first)?;
        let mut connections = vec![Mutex::new(first)];
        for _ in 1..setup.workers {
            connections.push(Mutex::new(connect()?));
        }
        Ok(Self { connections, insert: setup.table.insert.clone(), next: AtomicU64::new(0) })
    }
}

impl Contestant for Sqlite {
    fn takes_records(&self) -> bool {
        false
    }

    /// One row at a time needs no transaction of its own: the statement is one. Several threads begin with
    /// the write lock, as they must where a transaction may grow.
    fn append(&self, worker: usize, unit: Unit) -> Result<()> {
        let events = unit.events()?;
        let db = lock(&self.connections[worker]);
        let alone = events.len() == 1 && self.connections.len() == 1;
        if !alone {
            db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        let mut insert = db.prepare_cached(&self.insert)?;
        for event in &events {
            let frame = events::frame(self.next.fetch_add(1, Ordering::Relaxed));
            crate::table::bind(&mut insert, None, event, &frame)?;
            insert.raw_execute()?;
        }
        if !alone {
            db.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }
}
