//! The tables of the projection, and whether a database has them as they should be.

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::event::{ColumnType, Event, Table};

/// Raised when the engine's own tables or columns change; an older projection is then rebuilt.
pub(crate) const PROJECTION_VERSION: i64 = 1;

/// Names that an event's table must not use.
const TAKEN: [&str; 3] = ["id", "idempotency_key", "frame"];

/// The engine's own tables, and what follows their names in the SQL that makes them.
const ENGINE_TABLES: [(&str, &str); 3] = [
    (META, "(name TEXT PRIMARY KEY, value) WITHOUT ROWID"),
    (ABSENT, "(first INTEGER PRIMARY KEY, last INTEGER NOT NULL, reason TEXT NOT NULL)"),
    (
        SET_ASIDE,
        "(number INTEGER PRIMARY KEY, noticed_at TEXT NOT NULL, \
         source_table TEXT NOT NULL, row_id INTEGER NOT NULL, reason TEXT NOT NULL, row TEXT NOT NULL)",
    ),
];

const META: &str = "synclog_meta";
const ABSENT: &str = "synclog_absent";
const SET_ASIDE: &str = "synclog_set_aside";
/// Every table and index that a rebuild makes, until it has the name that it is made for.
pub(super) const SHADOW: &str = "synclog_new_";
/// What a rebuild has replaced, until it is dropped.
pub(super) const REPLACED: &str = "synclog_old_";
/// The tables of a rebuild.
const SHADOW_ROWS: &str = "synclog_new_rows";
const SHADOW_ABSENT: &str = "synclog_new_absent";

fn create_table(name: &str, rest: &str) -> String {
    format!("CREATE TABLE {name} {rest}")
}

fn create_index(name: &str, table: &str, rest: &str) -> String {
    format!("CREATE INDEX {name} ON {table} {rest}")
}

/// The projection's tables for one event type, as SQL.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// The event's table.
    pub(crate) table: &'static str,
    /// The event type and its version, for whoever opens the database next. 0 where nobody said.
    pub(super) event: (u16, u16),
    /// All its columns: `id`, the event's own, `idempotency_key`, `frame`.
    pub(crate) columns: Vec<&'static str>,
    /// In SQL, what stands for a column in a table that lacks it: a value that the column may hold.
    pub(super) stand_ins: Vec<&'static str>,
    /// The table of the seqs that lawfully have no row.
    pub(super) absent: &'static str,
    /// Where the seq and the checksum of the newest event are kept that the rows reflect.
    pub(super) progress: [&'static str; 2],
    /// Names and what follows them in the SQL. The last one is the event's.
    tables: Vec<(&'static str, String)>,
    /// The same. The first one is that of the idempotency keys.
    indexes: Vec<(String, String)>,
    /// Adds a row where there is none with its id.
    pub(super) insert: String,
    /// Adds a row, or puts it in the place of the one with its id; no other row goes, whatever index there is.
    pub(super) replace: String,
}

/// See [`Schema::insert`] and [`Schema::replace`].
fn insert_and_replace(table: &str, columns: &[&str]) -> [String; 2] {
    let marks: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    let into = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), marks.join(", "));
    let set: Vec<String> = columns.iter().skip(1).map(|name| format!("{name} = excluded.{name}")).collect();
    [
        format!("{into} ON CONFLICT (id) DO NOTHING"),
        format!("{into} ON CONFLICT (id) DO UPDATE SET {}", set.join(", ")),
    ]
}

fn check_name(name: &'static str) -> Result<()> {
    let mut chars = name.chars();
    let head = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let fits = head && chars.all(|next| next.is_ascii_alphanumeric() || next == '_') && name.len() <= 64;
    let taken = name.starts_with("synclog_") || name.starts_with("sqlite_");
    if fits && !taken {
        return Ok(());
    }
    let reason = "is not a free SQL name of up to 64 letters, digits and underscores";
    Err(Error::invalid(name, reason))
}

impl Schema {
    /// The schema of an event type, which must have a number that a frame can hold.
    pub(crate) fn of<E: Event>() -> Result<Self> {
        if E::KIND == 0 || E::VERSION == 0 {
            return Err(Error::invalid("event type", "KIND and VERSION start at 1"));
        }
        Ok(Self { event: (E::KIND, E::VERSION), ..Self::new(&E::TABLE)? })
    }

    /// Checks the names of an event's table and builds the SQL for it. Only names that passed the
    /// check ever become part of an SQL text (P12).
    pub(crate) fn new(table: &Table) -> Result<Self> {
        check_name(table.name)?;
        let (mut columns, mut stand_ins) = (vec!["id"], vec!["NULL"]);
        let mut parts = vec!["id INTEGER PRIMARY KEY".to_owned()];
        for column in table.columns {
            check_name(column.name)?;
            if TAKEN.contains(&column.name) || columns.contains(&column.name) {
                return Err(Error::invalid(column.name, "is used twice or taken by the engine"));
            }
            let (kind, stand_in) = match column.kind {
                ColumnType::Integer => ("INTEGER", "0"),
                ColumnType::Real => ("REAL", "0.0"),
                ColumnType::Text => ("TEXT", "''"),
                ColumnType::Blob => ("BLOB", "x''"),
            };
            let null = if column.not_null { " NOT NULL" } else { "" };
            parts.push(format!("{} {kind}{null}", column.name));
            columns.push(column.name);
            stand_ins.push(if column.not_null { stand_in } else { "NULL" });
        }
        columns.extend(["idempotency_key", "frame"]);
        stand_ins.extend(["NULL", "NULL"]);
        parts.extend(["idempotency_key TEXT".to_owned(), "frame BLOB NOT NULL".to_owned()]);
        let mut tables: Vec<_> =
            ENGINE_TABLES.iter().map(|(name, rest)| (*name, (*rest).to_owned())).collect();
        tables.push((table.name, format!("({})", parts.join(", "))));
        let by_key = "(idempotency_key) WHERE idempotency_key IS NOT NULL".to_owned();
        let mut indexes = vec![(format!("{}_by_key", table.name), by_key)];
        for index in table.indexes {
            check_name(index.name)?;
            if let Some(unknown) = index.columns.iter().find(|column| !columns.contains(column)) {
                return Err(Error::invalid(*unknown, "is indexed but is no column"));
            }
            indexes.push((index.name.to_owned(), format!("({})", index.columns.join(", "))));
        }
        let progress = ["applied_seq", "applied_sum"];
        let [insert, replace] = insert_and_replace(table.name, &columns);
        let (table, event, absent) = (table.name, (0, 0), ABSENT);
        Ok(Self { table, event, columns, stand_ins, absent, progress, tables, indexes, insert, replace })
    }

    /// The same rows in tables and indexes of other names, which a rebuild fills beside these.
    pub(super) fn shadow(&self) -> Self {
        let tables = self.tables.iter().filter_map(|(name, rest)| {
            let name = if *name == self.table {
                SHADOW_ROWS
            } else if *name == self.absent {
                SHADOW_ABSENT
            } else {
                return None;
            };
            Some((name, rest.clone()))
        });
        let indexes = self.indexes.iter().enumerate();
        let [insert, replace] = insert_and_replace(SHADOW_ROWS, &self.columns);
        Self {
            insert,
            replace,
            table: SHADOW_ROWS,
            event: self.event,
            columns: self.columns.clone(),
            stand_ins: self.stand_ins.clone(),
            absent: SHADOW_ABSENT,
            progress: ["rebuilt_seq", "rebuilt_sum"],
            tables: tables.collect(),
            indexes: indexes.map(|(at, (_, rest))| (format!("{SHADOW}{at}"), rest.clone())).collect(),
        }
    }

    /// Every table and index: whether it is an index, its name, the SQL that makes it.
    fn objects(&self) -> impl Iterator<Item = (&'static str, &str, String)> {
        let tables = self.tables.iter().map(|(name, rest)| ("table", *name, create_table(name, rest)));
        let indexes = self.indexes.iter();
        tables
            .chain(indexes.map(|(name, rest)| ("index", name.as_str(), create_index(name, self.table, rest))))
    }

    /// What of `shadow` becomes what of this schema: both names, the table's name and the SQL.
    pub(super) fn renames<'a>(
        &'a self,
        shadow: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a str, String)> {
        let tables = [(shadow.absent, self.absent), (shadow.table, self.table)].into_iter();
        let tables = tables.filter_map(|(from, to)| {
            let (_, rest) = self.tables.iter().find(|(name, _)| *name == to)?;
            Some((from, to, to, create_table(to, rest)))
        });
        let indexes = shadow.indexes.iter().zip(&self.indexes).map(|((from, _), (to, rest))| {
            (from.as_str(), to.as_str(), self.table, create_index(to, self.table, rest))
        });
        tables.chain(indexes)
    }

    /// The tables that are ours, the event's last.
    pub(super) fn table_names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.iter().map(|(name, _)| *name)
    }

    /// The indexes that are ours.
    pub(super) fn index_names(&self) -> impl Iterator<Item = &str> {
        self.indexes.iter().map(|(name, _)| name.as_str())
    }

    /// Makes everything once where it disturbs nobody: only SQLite knows all its words. Where a database has
    /// these tables there is nothing to find out.
    pub(crate) fn try_out(&self) -> Result<()> {
        let make = |db: Connection| self.create_tables(&db).and_then(|()| self.create_indexes(&db));
        Connection::open_in_memory().and_then(make).map_err(|error| {
            let reason =
                format!("cannot be made in SQLite, perhaps because a name is a word of SQL: {error}");
            Error::invalid(self.table, reason)
        })
    }

    /// A number that changes whenever the SQL does.
    pub(crate) fn digest(&self) -> i64 {
        let mut hasher = crc32fast::Hasher::new();
        for (_, _, sql) in self.objects() {
            hasher.update(sql.as_bytes());
            hasher.update(&[0]);
        }
        i64::from(hasher.finalize())
    }

    /// The digest of the tables that are there, and of the indexes on the event's, in the order in which they were
    /// made: where it is the one that is kept beside them, nobody has altered what another version has made.
    pub(super) fn digest_of(&self, db: &Connection) -> rusqlite::Result<i64> {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |sql: &str| {
            hasher.update(sql.as_bytes());
            hasher.update(&[0]);
        };
        let mut table = db.prepare("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
        for name in self.table_names() {
            let mut rows = table.query([name])?;
            if let Some(row) = rows.next()? {
                // What is no text adds nothing.
                add(row.get_ref(0)?.as_str().unwrap_or_default());
            }
        }
        let mut indexes = db.prepare(
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL ORDER BY rowid",
        )?;
        let mut rows = indexes.query([self.table])?;
        while let Some(row) = rows.next()? {
            // As above.
            add(row.get_ref(0)?.as_str().unwrap_or_default());
        }
        Ok(i64::from(hasher.finalize()))
    }

    /// Makes the tables.
    pub(crate) fn create_tables(&self, db: &Connection) -> rusqlite::Result<()> {
        self.tables.iter().try_for_each(|(name, rest)| db.execute_batch(&create_table(name, rest)))
    }

    /// Makes one of the tables.
    pub(super) fn create_table(&self, db: &Connection, name: &str) -> rusqlite::Result<()> {
        let table = self.tables.iter().find(|(own, _)| *own == name);
        table.map_or(Ok(()), |(name, rest)| db.execute_batch(&create_table(name, rest)))
    }

    /// Whether anything has the name of a table, in whatever letters.
    pub(super) fn is_there(db: &Connection, name: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE";
        db.prepare_cached(sql)?.exists([name])
    }

    /// Whether this is a table whose rows lie in the file as they are read: no view, no virtual table, and no column
    /// that is an expression. Nothing else of somebody else's is read (P12).
    pub(super) fn is_plain(db: &Connection, name: &str) -> rusqlite::Result<bool> {
        let sql =
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name = ?1 COLLATE NOCASE";
        let table = db.prepare_cached(sql)?.exists([name])?;
        let computed = "SELECT 1 FROM pragma_table_xinfo(?1) WHERE hidden <> 0";
        Ok(table && !db.prepare_cached(computed)?.exists([name])?)
    }

    /// Whether one of the tables is as this version makes it.
    pub(super) fn is_as_made(&self, db: &Connection, name: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 AND sql = ?2";
        let Some((_, rest)) = self.tables.iter().find(|(own, _)| *own == name) else { return Ok(false) };
        db.prepare_cached(sql)?.exists([name, &create_table(name, rest)])
    }

    /// Whether all tables are as this version makes them.
    pub(super) fn has_tables(&self, db: &Connection) -> rusqlite::Result<bool> {
        self.table_names().try_fold(true, |all, name| Ok(all && self.is_as_made(db, name)?))
    }

    /// Whether nobody has made an index on one of the tables.
    pub(super) fn has_no_other_index(&self, db: &Connection) -> rusqlite::Result<bool> {
        let mut query = db.prepare_cached(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE",
        )?;
        let is_own = |name: &str, sql: &str| {
            let mut own = self.indexes.iter();
            own.any(|(own, rest)| own == name && create_index(own, self.table, rest) == sql)
        };
        for table in self.table_names() {
            let mut rows = query.query([table])?;
            while let Some(row) = rows.next()? {
                let (name, sql) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str());
                // What is no text is not ours.
                if !name.is_ok_and(|name| sql.is_ok_and(|sql| is_own(name, sql))) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Makes the indexes.
    pub(crate) fn create_indexes(&self, db: &Connection) -> rusqlite::Result<()> {
        (0..self.indexes.len()).try_for_each(|at| self.create_index(db, at))
    }

    /// How many indexes there are.
    pub(super) fn indexes(&self) -> usize {
        self.indexes.len()
    }

    /// Makes one of the indexes where it is not there; the first one is that of the idempotency keys.
    pub(super) fn create_index(&self, db: &Connection, at: usize) -> rusqlite::Result<()> {
        let Some((name, rest)) = self.indexes.get(at) else { return Ok(()) };
        let there = db
            .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?
            .exists([name])?;
        if there { Ok(()) } else { db.execute_batch(&create_index(name, self.table, rest)) }
    }

    /// Takes the index of idempotency keys away where it is there.
    pub(super) fn drop_key_index(&self, db: &Connection) -> rusqlite::Result<()> {
        let drop = |(name, _): &(String, _)| db.execute_batch(&format!("DROP INDEX IF EXISTS {name}"));
        self.indexes.first().map_or(Ok(()), drop)
    }

    /// The first table or index that is not as this version makes it.
    pub(crate) fn difference(&self, db: &Connection) -> rusqlite::Result<Option<String>> {
        let mut query = db.prepare_cached("SELECT sql FROM sqlite_schema WHERE name = ?1 AND type = ?2")?;
        for (kind, name, sql) in self.objects() {
            let mut rows = query.query((name, kind))?;
            match rows.next()? {
                None => return Ok(Some(format!("the {kind} {name} is not there"))),
                // What is no text is not the SQL of ours either.
                Some(row) if row.get_ref(0)?.as_str().ok() != Some(sql.as_str()) => {
                    return Ok(Some(format!("the {kind} {name} is not as this version makes it")));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, Index};

    const TABLE: Table = Table {
        name: "readings",
        columns: &[Column::required("celsius", ColumnType::Real)],
        indexes: &[Index { name: "readings_hot", columns: &["celsius", "id"] }],
    };

    #[test]
    fn made_tables_are_found_equal_and_changed_ones_are_named() {
        let schema = Schema::new(&TABLE).unwrap();
        let db = Connection::open_in_memory().unwrap();
        assert!(schema.difference(&db).unwrap().is_some());
        schema.create_tables(&db).unwrap();
        assert_eq!(schema.difference(&db).unwrap().unwrap(), "the index readings_by_key is not there");
        schema.create_indexes(&db).unwrap();
        assert_eq!(schema.difference(&db).unwrap(), None);
        db.execute_batch("ALTER TABLE readings ADD COLUMN other").unwrap();
        assert!(schema.difference(&db).unwrap().unwrap().contains("table readings"));
    }

    #[test]
    fn names_that_are_not_ours_never_become_sql() {
        let tried = |table: &Table| Schema::new(table).and_then(|schema| schema.try_out());
        assert!(tried(&TABLE).is_ok());
        for name in ["", "a b", "a;drop table x", "1a", "sqlite_x", "synclog_meta", "a\"", "é"] {
            assert!(Schema::new(&Table { name, ..TABLE }).is_err(), "{name}");
        }
        assert!(tried(&Table { name: "order", ..TABLE }).is_err());
        let frame = [Column::required("frame", ColumnType::Blob)];
        assert!(Schema::new(&Table { columns: Box::leak(Box::new(frame)), ..TABLE }).is_err());
        for name in ["select", "ID", "Frame"] {
            let column = [Column::required(name, ColumnType::Blob)];
            let refused = tried(&Table { columns: Box::leak(Box::new(column)), indexes: &[], ..TABLE });
            assert!(refused.unwrap_err().to_string().contains("SQLite"), "{name}");
        }
        let index = [Index { name: "x", columns: &["nowhere"] }];
        assert!(Schema::new(&Table { indexes: Box::leak(Box::new(index)), ..TABLE }).is_err());
    }
}
