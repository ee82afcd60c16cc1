//! SQLite: one table, WAL, synchronous=FULL. Twice: with all rows in the -wal file, as between two
//! checkpoints, and closed, with all rows in the database.

use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;

use crate::peer::{Found, Log, Peer, Result};

pub struct Sqlite {
    pub closes: bool,
}

struct Open(Connection);

const PAGE: usize = 4096;
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

fn open(dir: &Path) -> Result<Connection> {
    let db = Connection::open(dir.join("records.db"))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, record TEXT NOT NULL)")?;
    Ok(db)
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let transaction = self.0.transaction()?;
        for record in batch {
            transaction
                .prepare_cached("INSERT INTO records (record) VALUES (?1)")?
                .execute([std::str::from_utf8(record)?])?;
        }
        Ok(transaction.commit()?)
    }
}

impl Peer for Sqlite {
    fn id(&self) -> &'static str {
        if self.closes { "sqlite-db" } else { "sqlite-wal" }
    }

    fn title(&self) -> String {
        let place = if self.closes { "closed, rows in the database" } else { "killed, rows in -wal" };
        format!("SQLite {} ({place})", rusqlite::version())
    }

    fn means(&self) -> &'static str {
        "journal_mode=WAL, synchronous=FULL, COMMIT"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(Open(open(dir)?)))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let db = open(dir)?;
        found.opened = true;
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if check != "ok" {
            found.told.push(format!("integrity_check: {check}"));
        }
        let mut rows = db.prepare("SELECT record FROM records ORDER BY id")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            match row.get_ref(0)? {
                rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) => {
                    found.record(bytes);
                }
                other => found.record(format!("{other:?}").as_bytes()),
            }
        }
        Ok(())
    }

    fn closes(&self) -> bool {
        self.closes
    }

    /// In `-wal`: the header of the frame. In the database: the cell's header, which starts with the
    /// payload's length and the row's id.
    fn framing(&self, _file: &[u8], _before: usize, at: usize) -> Option<Range<usize>> {
        if self.closes {
            return Some(at - 8..at);
        }
        let frame = (at - WAL_HEADER) / (FRAME_HEADER + PAGE);
        let start = WAL_HEADER + frame * (FRAME_HEADER + PAGE);
        Some(start..start + FRAME_HEADER)
    }

    fn framing_words(&self) -> &'static str {
        if self.closes {
            "the cell's header: payload length, row id, column types"
        } else {
            "the header of the frame that committed it: page, size, salts, checksums"
        }
    }
}
