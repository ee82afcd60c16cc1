//! What others have made on tables of ours: triggers, indexes, columns. What changes or refuses rows is put
//! aside with its text, so that rows are what their events say (P7); the rest is kept.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::time::Timestamp;

use super::apply::INSERT_SET_ASIDE;
use super::schema::{REPLACED, SHADOW, Schema};
use super::{Projection, Trouble};

/// A trigger or an index on a table of ours, or a view in its place, that is not ours.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    /// `trigger`, `index` or `view`.
    kind: String,
    name: String,
    table: String,
    sql: String,
    /// It changes rows, or may refuse them.
    pub(super) meddles: bool,
}

/// A name as SQL takes it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Foreign {
    /// In words, for a finding.
    pub(super) fn words(&self) -> String {
        format!("the {} {} on the table {} is not ours", self.kind, self.name, self.table)
    }

    pub(super) fn is_index(&self) -> bool {
        self.kind == "index"
    }

    pub(super) fn drop_it(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(&format!("DROP {} IF EXISTS {}", self.kind.to_uppercase(), quoted(&self.name)))
    }

    /// Makes an index again, on the table that has its table's name now.
    pub(super) fn make_again(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(&self.sql)
    }

    /// The index of this name, on whichever table it is.
    pub(super) fn index(db: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND name = ?1 COLLATE NOCASE";
        let found = db.query_row(sql, [name], |row| {
            Ok(Self {
                kind: "index".into(),
                name: name.into(),
                table: row.get(0)?,
                sql: row.get(1)?,
                meddles: true,
            })
        });
        found.optional()
    }

    /// The table that it is on.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Keeps its text.
    pub(super) fn record(&self, db: &Connection, reason: &str) -> rusqlite::Result<()> {
        let text = serde_json::json!({
            "type": self.kind, "name": self.name, "tbl_name": self.table, "sql": self.sql,
        });
        let now = Timestamp::now().to_string();
        db.execute(INSERT_SET_ASIDE, params![now, "sqlite_schema", 0, reason, text.to_string()])?;
        Ok(())
    }
}

/// Everything on tables of ours that is not ours, and what has the name of a table of ours and is none.
pub(super) fn on_ours(db: &Connection, schema: &Schema) -> Result<Vec<Foreign>, Trouble> {
    let mut found = Vec::new();
    let mut query = db.prepare_cached(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema \
         WHERE sql IS NOT NULL AND tbl_name = ?1 COLLATE NOCASE AND type <> 'table'",
    )?;
    let mut meddles = db.prepare_cached(
        "SELECT 1 FROM pragma_index_list(?1) AS list WHERE list.name = ?2 AND (list.\"unique\" OR list.partial \
         OR EXISTS (SELECT 1 FROM pragma_index_info(?2) WHERE cid < -1))",
    )?;
    for table in schema.table_names() {
        let objects = query.query_map([table], |row| {
            Ok(Foreign {
                kind: row.get(0)?,
                name: row.get(1)?,
                table: row.get(2)?,
                sql: row.get(3)?,
                meddles: true,
            })
        })?;
        for object in objects {
            let mut object = object?;
            let is_ours = match object.kind.as_str() {
                "index" => schema.index_names().any(|name| name == object.name),
                _ => false,
            };
            if is_ours || object.name.starts_with(SHADOW) || object.name.starts_with(REPLACED) {
                continue;
            }
            if object.is_index() {
                object.meddles = meddles.exists([table, &object.name])?;
            }
            found.push(object);
        }
    }
    Ok(found)
}

/// Columns of the event's table that are not ours and that somebody has filled.
pub(super) fn filled_columns(db: &Connection, schema: &Schema) -> Result<Vec<String>, Trouble> {
    let mut query = db.prepare_cached("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
    let names = query.query_map([schema.table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut filled = Vec::new();
    for name in names {
        if schema.columns.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            continue;
        }
        let sql = format!("SELECT 1 FROM {} WHERE {} IS NOT NULL LIMIT 1", schema.table, quoted(&name));
        if db.prepare(&sql)?.query_row([], |_| Ok(())).optional()?.is_some() {
            filled.push(name);
        }
    }
    Ok(filled)
}

/// A free name for a table that keeps what is somebody else's.
pub(super) fn free_name(db: &Connection) -> Result<String, Trouble> {
    let mut taken = db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE")?;
    for number in 1_u32.. {
        let name = format!("synclog_kept_{number}");
        if !taken.exists([&name])? {
            return Ok(name);
        }
    }
    Err(Trouble::Unusable("it has too many tables of kept columns".into()))
}

/// What others have made on tables of ours and what may change or refuse rows, in words.
pub(crate) fn meddling(db: &Connection, schema: &Schema) -> Result<Vec<String>, Trouble> {
    let found = on_ours(db, schema)?;
    Ok(found.iter().filter(|foreign| foreign.meddles).map(Foreign::words).collect())
}

/// Whether anything in the database is an expression that a check of it would run, in an index or a column, and
/// not ours; with `table`, anything of that table.
pub(super) fn computes(db: &Connection, schema: &Schema, table: Option<&str>) -> Result<bool, Trouble> {
    let sql = "SELECT 1 FROM sqlite_schema AS it WHERE (?1 IS NULL OR tbl_name = ?1 COLLATE NOCASE) AND CASE \
         WHEN type = 'index' THEN it.name IS NOT ?2 AND (EXISTS (SELECT 1 FROM pragma_index_list(tbl_name) AS list \
             WHERE list.name = it.name AND list.partial) \
             OR EXISTS (SELECT 1 FROM pragma_index_info(it.name) WHERE cid < -1)) \
         WHEN type = 'table' AND rootpage > 0 THEN \
             EXISTS (SELECT 1 FROM pragma_table_xinfo(it.name) WHERE hidden <> 0) \
         ELSE type = 'table' END";
    Ok(db.prepare_cached(sql)?.exists(params![table, schema.index_names().next()])?)
}

impl Projection {
    /// Puts aside what others have made on tables of ours and what would change or refuse rows, and keeps it from
    /// being run if somebody makes more. In words, each.
    pub(crate) fn put_aside(&mut self) -> Result<Vec<String>, Trouble> {
        self.write.mind(self.schema.table)?;
        let mut told = Vec::new();
        let look = self.write.unchecked_transaction()?;
        let found = on_ours(&look, &self.schema)?;
        if found.iter().any(|foreign| foreign.meddles) {
            drop(look);
            let tx = Transaction::new_unchecked(&self.write, TransactionBehavior::Immediate)?;
            told = put_aside_in(&tx, &on_ours(&tx, &self.schema)?)?;
            self.ready(&tx)?;
            tx.commit()?;
        } else {
            self.ready(&look)?;
            look.commit()?;
        }
        self.write.seal();
        Ok(told)
    }

    /// Makes the statements that add rows, as of the moment at which tables and indexes were looked at.
    fn ready(&self, db: &Connection) -> Result<(), Trouble> {
        if let Some(difference) = self.schema.difference(db)? {
            return Err(Trouble::Altered(difference));
        }
        for sql in [&self.schema.insert, &self.schema.replace] {
            drop(db.prepare_cached(sql)?);
        }
        Ok(())
    }
}

/// The same in the caller's transaction, of what was found there.
pub(super) fn put_aside_in(db: &Connection, found: &[Foreign]) -> Result<Vec<String>, Trouble> {
    let meddling: Vec<_> = found.iter().filter(|foreign| foreign.meddles).collect();
    // First all go: one may be on the table that keeps the text.
    for foreign in &meddling {
        foreign.drop_it(db)?;
    }
    let mut told = Vec::new();
    for foreign in meddling {
        foreign.record(db, "it changes or refuses rows of ours")?;
        told.push(format!(
            "{}, and would change or refuse rows: it was put aside, and its text is in synclog_set_aside",
            foreign.words()
        ));
    }
    Ok(told)
}
