//! The one filter that every query goes through: lists, counts and pages alike.
//!
//! A filter says the same thing in two ways: as SQL, for the database, and as [`Filter::matches`],
//! for events that come straight from the log. Whatever the user gave reaches SQL as a bound
//! parameter and in no other way.

use crate::event::Value;
use crate::time::Timestamp;

use super::event::{Level, Status, SyncEvent};

/// The SQL function `synclog_contains(text, needle)`. A connection that runs the SQL of a filter
/// must have it registered: 1 where [`contains_any_case`] says so, 0 otherwise and for NULL.
pub(crate) const CONTAINS_FUNCTION: &str = "synclog_contains";

/// The place of an event in the order of lists: where the next page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// When it happened.
    pub created_at: Timestamp,
    /// Its seq, the `id` of its row.
    pub id: u64,
}

/// Which events, in which order, and how many. A default filter is every event, newest first.
///
/// ```
/// use synclog::{Filter, Level};
///
/// let filter = Filter::new().company("8f0c1d52", "102209.0").level(Level::Error).limit(100);
/// assert_eq!(filter.limit, Some(100));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only companies with this guid.
    pub company_guid: Option<String>,
    /// Only companies with this alterid.
    pub company_alterid: Option<String>,
    /// Only events of this level.
    pub level: Option<Level>,
    /// Only events of this status.
    pub status: Option<Status>,
    /// Only events of this run.
    pub run: Option<String>,
    /// Only events with this error code.
    pub error_code: Option<String>,
    /// Only events with this text, in any letter case, in message, details or error message.
    pub text: Option<String>,
    /// Only events from this time on.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
    /// Only events with a greater seq.
    pub after_seq: Option<u64>,
    /// Only events with a smaller seq.
    pub before_seq: Option<u64>,
    /// Only what comes behind this key in the order of the list; not looked at by counts.
    pub after: Option<Key>,
    /// Oldest first.
    pub reverse: bool,
    /// How many at most; `None` is all. Not looked at by counts.
    pub limit: Option<u64>,
}

impl Filter {
    /// A filter that lets every event through, newest first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the company of this pair.
    #[must_use]
    pub fn company(mut self, guid: impl Into<String>, alterid: impl Into<String>) -> Self {
        self.company_guid = Some(guid.into());
        self.company_alterid = Some(alterid.into());
        self
    }

    /// Only companies with this guid.
    #[must_use]
    pub fn company_guid(mut self, guid: impl Into<String>) -> Self {
        self.company_guid = Some(guid.into());
        self
    }

    /// Only companies with this alterid.
    #[must_use]
    pub fn company_alterid(mut self, alterid: impl Into<String>) -> Self {
        self.company_alterid = Some(alterid.into());
        self
    }

    /// Only events of this level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// Only events of this status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Only events of this run.
    #[must_use]
    pub fn run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Only events with this error code.
    #[must_use]
    pub fn error_code(mut self, code: impl Into<String>) -> Self {
        self.error_code = Some(code.into());
        self
    }

    /// Only events with this text, in any letter case, in message, details or error message.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Only events from this time on.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Only events before this time.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.until = Some(time);
        self
    }

    /// Only events with a greater seq.
    #[must_use]
    pub fn after_seq(mut self, seq: u64) -> Self {
        self.after_seq = Some(seq);
        self
    }

    /// Only events with a smaller seq.
    #[must_use]
    pub fn before_seq(mut self, seq: u64) -> Self {
        self.before_seq = Some(seq);
        self
    }

    /// The page behind the event with this key.
    #[must_use]
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }

    /// Oldest first, or newest first again.
    #[must_use]
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.reverse = reverse;
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether a stored event is among those that a count counts: order, page and limit aside.
    pub fn matches(&self, seq: u64, event: &SyncEvent) -> bool {
        fn same(wanted: Option<&String>, found: Option<&String>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        same(self.company_guid.as_ref(), Some(&event.company.guid))
            && same(self.company_alterid.as_ref(), Some(&event.company.alterid))
            && self.level.is_none_or(|level| event.level == level)
            && self.status.is_none_or(|status| event.status == Some(status))
            && same(self.run.as_ref(), event.run.as_ref())
            && same(self.error_code.as_ref(), event.error_code.as_ref())
            && self.since.is_none_or(|since| event.created_at.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| event.created_at.is_some_and(|time| time < until))
            && self.after_seq.is_none_or(|after| seq > after)
            && self.before_seq.is_none_or(|before| seq < before)
            && self.text.as_ref().is_none_or(|text| {
                let needle = fold_case(text);
                [Some(&event.message), event.details.as_ref(), event.error_message.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|field| contains_any_case(field, &needle))
            })
    }

    /// The query for one page and the values of its parameters. `columns` and `table` are put into
    /// the text as they are, so they must be the program's own.
    pub(crate) fn to_sql(&self, columns: &str, table: &str) -> (String, Vec<Value>) {
        let mut sql = Sql::new(format!("SELECT {columns} FROM {table}"));
        self.conditions(&mut sql);
        let (less, order) = if self.reverse { (">", "ASC") } else { ("<", "DESC") };
        if let Some(key) = self.after {
            let time = sql.bind(Value::Text(key.created_at.to_string()));
            let id = sql.bind(seq(key.id));
            sql.condition(&format!("(created_at, id) {less} ({time}, {id})"));
        }
        sql.text += " ORDER BY created_at ";
        sql.text += order;
        sql.text += ", id ";
        sql.text += order;
        if let Some(limit) = self.limit {
            let limit = sql.bind(seq(limit));
            sql.text += " LIMIT ";
            sql.text += &limit;
        }
        (sql.text, sql.values)
    }

    /// The query for how many events there are on all pages together.
    pub(crate) fn count_sql(&self, table: &str) -> (String, Vec<Value>) {
        let mut sql = Sql::new(format!("SELECT count(*) FROM {table}"));
        self.conditions(&mut sql);
        (sql.text, sql.values)
    }

    fn conditions(&self, sql: &mut Sql) {
        let texts = [
            ("company_guid", self.company_guid.as_deref()),
            ("company_alterid", self.company_alterid.as_deref()),
            ("log_level", self.level.map(Level::as_str)),
            ("sync_status", self.status.map(Status::as_str)),
            ("run", self.run.as_deref()),
            ("error_code", self.error_code.as_deref()),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                sql.compare(column, "=", Value::Text(text.into()));
            }
        }
        // Text order is time order in the one form in which times are stored.
        if let Some(since) = self.since {
            sql.compare("created_at", ">=", Value::Text(since.to_string()));
        }
        if let Some(until) = self.until {
            sql.compare("created_at", "<", Value::Text(until.to_string()));
        }
        if let Some(after) = self.after_seq {
            sql.compare("id", ">", seq(after));
        }
        if let Some(before) = self.before_seq {
            sql.compare("id", "<", seq(before));
        }
        if let Some(text) = &self.text {
            let needle = sql.bind(Value::Text(fold_case(text)));
            let tests = ["log_message", "log_details", "error_message"]
                .map(|column| format!("{CONTAINS_FUNCTION}({column}, {needle})"));
            sql.condition(&format!("({})", tests.join(" OR ")));
        }
    }
}

/// A query as it grows, with its parameters.
struct Sql {
    text: String,
    values: Vec<Value>,
    conditions: usize,
}

impl Sql {
    fn new(text: String) -> Self {
        Self { text, values: Vec::new(), conditions: 0 }
    }

    /// Adds a value and returns the name of its parameter.
    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    fn condition(&mut self, condition: &str) {
        self.text += if self.conditions == 0 { " WHERE " } else { " AND " };
        self.text += condition;
        self.conditions += 1;
    }

    fn compare(&mut self, column: &str, operator: &str, value: Value) {
        let parameter = self.bind(value);
        self.condition(&format!("{column} {operator} {parameter}"));
    }
}

/// A seq or a count as SQL has it. No row has an id beyond the largest signed number.
fn seq(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Text with the differences of letter case taken out, so that two texts that differ only in case
/// become equal: `STRASSE` and `straße`, `ΟΔΟΣ` and `οδος`. Once up and once down again catches
/// the letters that have two small forms, such as the Greek sigma, or no single capital.
pub(crate) fn fold_case(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            folded.push(letter.to_ascii_lowercase());
        } else {
            let up = letter.to_lowercase().flat_map(char::to_uppercase);
            folded.extend(up.flat_map(char::to_lowercase));
        }
    }
    folded
}

/// Whether `haystack` contains the text that `lowered_needle` came from by [`fold_case`], in any
/// letter case. SQLite's own `LIKE` knows the case of ASCII letters only.
pub(crate) fn contains_any_case(haystack: &str, lowered_needle: &str) -> bool {
    fold_case(haystack).contains(lowered_needle)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
