//! The tables of the projection, and whether a database has them as they should be.

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::event::{ColumnType, Event, Table};

/// Raised when the engine's own tables or columns change; an older projection is then rebuilt.
pub(crate) const PROJECTION_VERSION: i64 = 1;

/// Names that an event's table must not use.
const TAKEN: [&str; 3] = ["id", "idempotency_key", "frame"];

const ENGINE_TABLES: [(&str, &str); 3] = [
    ("synclog_meta", "CREATE TABLE synclog_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID"),
    (
        "synclog_absent",
        "CREATE TABLE synclog_absent (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, reason TEXT NOT NULL)",
    ),
    (
        "synclog_set_aside",
        "CREATE TABLE synclog_set_aside (number INTEGER PRIMARY KEY, noticed_at TEXT NOT NULL, \
         source_table TEXT NOT NULL, row_id INTEGER NOT NULL, reason TEXT NOT NULL, row TEXT NOT NULL)",
    ),
];

/// The projection's tables for one event type, as SQL.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// The event's table.
    pub(crate) table: &'static str,
    /// All its columns: `id`, the event's own, `idempotency_key`, `frame`.
    pub(crate) columns: Vec<&'static str>,
    tables: Vec<(&'static str, String)>,
    /// The first one is that of the idempotency keys.
    indexes: Vec<(String, String)>,
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
        Self::new(&E::TABLE)
    }

    /// Checks the names of an event's table and builds the SQL for it. Only names that passed the
    /// check ever become part of an SQL text (P12).
    pub(crate) fn new(table: &Table) -> Result<Self> {
        check_name(table.name)?;
        let mut columns = vec!["id"];
        let mut parts = vec!["id INTEGER PRIMARY KEY".to_owned()];
        for column in table.columns {
            check_name(column.name)?;
            if TAKEN.contains(&column.name) || columns.contains(&column.name) {
                return Err(Error::invalid(column.name, "is used twice or taken by the engine"));
            }
            let kind = match column.kind {
                ColumnType::Integer => "INTEGER",
                ColumnType::Real => "REAL",
                ColumnType::Text => "TEXT",
                ColumnType::Blob => "BLOB",
            };
            let null = if column.not_null { " NOT NULL" } else { "" };
            parts.push(format!("{} {kind}{null}", column.name));
            columns.push(column.name);
        }
        columns.extend(["idempotency_key", "frame"]);
        parts.extend(["idempotency_key TEXT".to_owned(), "frame BLOB NOT NULL".to_owned()]);
        let mut tables: Vec<_> = ENGINE_TABLES.iter().map(|(name, sql)| (*name, (*sql).to_owned())).collect();
        tables.push((table.name, format!("CREATE TABLE {} ({})", table.name, parts.join(", "))));
        let mut indexes = vec![(
            format!("{}_by_key", table.name),
            format!(
                "CREATE INDEX {0}_by_key ON {0} (idempotency_key) WHERE idempotency_key IS NOT NULL",
                table.name
            ),
        )];
        for index in table.indexes {
            check_name(index.name)?;
            if let Some(unknown) = index.columns.iter().find(|column| !columns.contains(column)) {
                return Err(Error::invalid(*unknown, "is indexed but is no column"));
            }
            let sql = format!("CREATE INDEX {} ON {} ({})", index.name, table.name, index.columns.join(", "));
            indexes.push((index.name.to_owned(), sql));
        }
        Ok(Self { table: table.name, columns, tables, indexes })
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
        for sql in self.tables.iter().map(|(_, sql)| sql).chain(self.indexes.iter().map(|(_, sql)| sql)) {
            hasher.update(sql.as_bytes());
            hasher.update(&[0]);
        }
        i64::from(hasher.finalize())
    }

    /// Makes the tables.
    pub(crate) fn create_tables(&self, db: &Connection) -> rusqlite::Result<()> {
        self.tables.iter().try_for_each(|(_, sql)| db.execute_batch(sql))
    }

    /// Makes the indexes.
    pub(crate) fn create_indexes(&self, db: &Connection) -> rusqlite::Result<()> {
        self.create_key_index(db)?;
        self.create_other_indexes(db)
    }

    /// Makes the index of idempotency keys.
    pub(crate) fn create_key_index(&self, db: &Connection) -> rusqlite::Result<()> {
        self.indexes[..1].iter().try_for_each(|(_, sql)| db.execute_batch(sql))
    }

    /// Takes the index of idempotency keys away.
    pub(crate) fn drop_key_index(&self, db: &Connection) -> rusqlite::Result<()> {
        self.indexes[..1].iter().try_for_each(|(name, _)| db.execute_batch(&format!("DROP INDEX {name}")))
    }

    /// Makes the indexes that are no keys'; a rebuild does so after the rows are in, which is faster.
    pub(crate) fn create_other_indexes(&self, db: &Connection) -> rusqlite::Result<()> {
        self.indexes[1..].iter().try_for_each(|(_, sql)| db.execute_batch(sql))
    }

    /// The first table or index that is not as this version makes it.
    pub(crate) fn difference(&self, db: &Connection) -> rusqlite::Result<Option<String>> {
        let mut query = db.prepare_cached("SELECT sql FROM sqlite_schema WHERE name = ?1 AND type = ?2")?;
        let wanted = self.tables.iter().map(|(name, sql)| (*name, "table", sql));
        let wanted = wanted.chain(self.indexes.iter().map(|(name, sql)| (name.as_str(), "index", sql)));
        for (name, kind, sql) in wanted {
            let mut rows = query.query((name, kind))?;
            match rows.next()? {
                None => return Ok(Some(format!("the {kind} {name} is not there"))),
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
