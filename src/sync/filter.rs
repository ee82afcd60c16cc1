//! The one filter that every query goes through: lists, counts and pages alike.
//!
//! A filter says the same thing in two ways: as SQL, for the database, and as [`Filter::matches`],
//! for events that come straight from the log. Whatever the user gave reaches SQL as a bound
//! parameter and in no other way.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::Value;
use crate::time::Timestamp;

use super::event::{Level, Status, SyncEvent};

/// The SQL function `synclog_contains(text, needle)`. A connection that runs the SQL of a filter
/// must have it registered: 1 where [`contains_any_case`] says so, 0 otherwise and for NULL.
pub(crate) const CONTAINS_FUNCTION: &str = "synclog_contains";

/// The place of an event in the order of lists, which is that of (`created_at`, `id`): where the next page starts, or
/// the one before ends. The order of seqs is another one where history was imported, so that no seq tells a page's
/// place.
///
/// As text it is opaque: whatever [`PageCursor::to_string`](ToString::to_string) gave is parsed again.
///
/// ```
/// use synclog::{Filter, PageCursor};
/// # use synclog::{Company, SyncLog};
/// # let dir = tempfile::tempdir().unwrap();
/// # let log = SyncLog::open(dir.path())?;
/// # for number in 0..5 { log.info(&Company::new("g", "1", "n"), format!("m{number}"))?; }
///
/// let reader = log.reader()?;
/// let page = reader.list(&Filter::new().limit(2))?;
/// let behind: PageCursor = page[1].page_cursor().to_string().parse()?;
/// let next = reader.list(&Filter::new().limit(2).after(behind))?;
/// let back = reader.list(&Filter::new().limit(2).before(next[0].page_cursor()))?;
/// assert_eq!(back, page);
/// # Ok::<(), synclog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCursor {
    /// When it happened.
    pub created_at: Timestamp,
    /// Its seq, the `id` of its row.
    pub id: u64,
}

/// The former name of [`PageCursor`].
pub type Key = PageCursor;

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.created_at.as_micros(), self.id)
    }
}

impl FromStr for PageCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid("page cursor", "is none that was given out");
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| bad());
        let created_at = Timestamp::from_micros(number(&text[..16])? as i64).ok_or_else(bad)?;
        Ok(Self { created_at, id: number(&text[16..])? })
    }
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
    /// Only what comes behind this place in the order of the list; not looked at by counts.
    pub after: Option<PageCursor>,
    /// Only what comes before this place in the order of the list; with a limit what is nearest to it, still in
    /// that order. Not looked at by counts.
    pub before: Option<PageCursor>,
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

    /// The page behind the event with this place.
    #[must_use]
    pub fn after(mut self, place: PageCursor) -> Self {
        self.after = Some(place);
        self
    }

    /// The page before the event with this place.
    #[must_use]
    pub fn before(mut self, place: PageCursor) -> Self {
        self.before = Some(place);
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
        self.page_sql(columns, table, false)
    }

    /// The same for a page of many: rows are then met in the order of the list, and never sorted. A page that is
    /// sorted looks at all rows of all pages.
    pub(crate) fn one_of_many_sql(&self, columns: &str, table: &str) -> (String, Vec<Value>) {
        self.page_sql(columns, table, true)
    }

    fn page_sql(&self, columns: &str, table: &str, of_many: bool) -> (String, Vec<Value>) {
        let mut sql = Sql::new(format!("SELECT {columns} FROM {table}"));
        self.conditions(&mut sql, of_many);
        let (less, more, order) = if self.reverse { (">", "<", "ASC") } else { ("<", ">", "DESC") };
        for (place, side) in [(self.after, less), (self.before, more)] {
            if let Some(place) = place {
                let time = sql.bind(Value::Text(place.created_at.to_string()));
                let id = sql.bind(seq(place.id));
                sql.condition(&format!("(created_at, id) {side} ({time}, {id})"));
            }
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

    /// The query for the place before which a page starts that ends before a place, and its parameters: what
    /// stands just before the page, so that it is the place after which the page comes. `None` where the page has
    /// no such end, or no limit.
    pub(crate) fn start_sql(&self, table: &str) -> Option<(String, Vec<Value>)> {
        let (Some(_), Some(limit)) = (self.before, self.limit) else { return None };
        let backward = Self {
            reverse: !self.reverse,
            after: self.before,
            before: self.after,
            limit: None,
            ..self.clone()
        };
        let (sql, mut values) = backward.to_sql("id, created_at", table);
        values.push(seq(limit));
        Some((format!("{sql} LIMIT 1 OFFSET ?{}", values.len()), values))
    }

    /// The query for how many events there are on all pages together.
    pub(crate) fn count_sql(&self, table: &str) -> (String, Vec<Value>) {
        let mut sql = Sql::new(format!("SELECT count(*) FROM {table}"));
        self.conditions(&mut sql, false);
        (sql.text, sql.values)
    }

    /// With `in_order` no index serves that has the rows in another order: a plus keeps SQLite from using one.
    fn conditions(&self, sql: &mut Sql, in_order: bool) {
        let half_a_company = in_order && self.company_alterid.is_none();
        let texts = [
            (if half_a_company { "+company_guid" } else { "company_guid" }, self.company_guid.as_deref()),
            ("company_alterid", self.company_alterid.as_deref()),
            ("log_level", self.level.map(Level::as_str)),
            ("sync_status", self.status.map(Status::as_str)),
            (if in_order { "+run" } else { "run" }, self.run.as_deref()),
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
