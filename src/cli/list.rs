//! `list`: rows from the database.

use std::fmt::{self, Write};
use std::str::FromStr;

use clap::Args;
use jiff::tz::TimeZone;
use serde::Serialize;
use synclog::{Filter, Level, LogEntry, PageCursor, Severity, Status, StoreId, SyncEvent, SyncReader};

use super::args::{CompanyArgs, Global, Output, word};
use super::exit::{Exit, Stop};
use super::out::{self, Fields, Out};
use super::text::{cell, escape};
use super::time;

/// Rows that are listed unless the user says otherwise.
const DEFAULT_ROWS: u64 = 100;

/// Options of `list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    company: CompanyArgs,
    /// Only rows of this level
    #[arg(long, ignore_case = true, value_parser = word::<Level>(Level::ALL.map(Level::as_str)))]
    level: Option<Level>,
    /// Only rows of this status
    #[arg(long, ignore_case = true, value_parser = word::<Status>(Status::ALL.map(Status::as_str)))]
    status: Option<Status>,
    /// Only rows of this run
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Only rows with this error code
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// Only rows with this text, in any case, in message, details or error message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    grep: Option<String>,
    /// Only rows from this time on: RFC 3339, a date, a date and time, or 24h for 24 hours ago
    ///
    /// A time without a zone is UTC unless --tz is given.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only rows before this time, in the same forms
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only rows with a greater seq
    ///
    /// This filters. Rows are sorted by time, and imported history has later seqs than its times, so that it is no way
    /// to page: see --page.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// The page that this cursor starts: one that was written to stderr, or the field `page` of a row, which stands for
    /// the rows behind it
    #[arg(long, value_name = "CURSOR", conflicts_with = "count")]
    page: Option<Page>,
    /// Oldest first
    #[arg(long)]
    reverse: bool,
    /// Only how many rows there are, whatever -n says
    #[arg(long)]
    count: bool,
    /// How many rows at most
    #[arg(short, long, value_name = "ROWS", default_value_t = DEFAULT_ROWS)]
    number: u64,
    /// All rows
    #[arg(long, conflicts_with = "number")]
    all: bool,
}

/// Runs `list`.
pub(crate) fn run(global: &Global, args: &ListArgs, out: &mut Out) -> Result<Exit, Stop> {
    let reader = SyncReader::open(global.dir()?)?;
    answer(global, &reader, || list(global, args, &reader, out))
}

/// Tells what is wrong with log and rows, then shows what there is all the same.
pub(crate) fn answer(
    global: &Global,
    reader: &SyncReader,
    show: impl FnOnce() -> Result<(), Stop>,
) -> Result<Exit, Stop> {
    let mut exit = warn_of_damage(reader);
    let shown = note_rows(global, reader).and_then(|found| {
        exit = exit.or(found);
        show()
    });
    match shown {
        Err(Stop::Failed(mut failure)) => {
            failure.exit = failure.exit.or(exit);
            Err(Stop::Failed(failure))
        }
        Err(stop) => Err(stop),
        Ok(()) => Ok(exit),
    }
}

/// Tells what is wrong with the log. The rows may be whole all the same.
fn warn_of_damage(reader: &SyncReader) -> Exit {
    let mut exit = Exit::Ok;
    for finding in reader.reader().findings() {
        if finding.kind.severity() == Severity::LogDamaged {
            out::tell(&format!("warning: the log is damaged: {finding}"));
            exit = Exit::Damaged;
        }
    }
    if exit == Exit::Damaged {
        out::tell("hint: `synclog repair --dry-run` tells what can be brought back, and changes nothing");
    }
    exit
}

/// Tells where rows are gone, and where they are still to come.
fn note_rows(global: &Global, reader: &SyncReader) -> Result<Exit, Stop> {
    let lag = reader.lag()?;
    if lag > 0 {
        let next = if reader.reader().has_live_writer() {
            "the writer that holds the store adds them"
        } else {
            "`synclog replay` adds them"
        };
        global.note(&format!("note: the newest {lag} event(s) have no rows yet; {next}"));
    }
    if let Some(made) = reader.reader().rows_in_making().filter(|_| lag > 0) {
        let all = reader.reader().last_seq();
        let note = format!("note: rows are still being made, up to event {made} of {all} so far");
        if !reader.reader().has_live_writer() {
            out::tell(&format!("{note}; `synclog replay` goes on with it"));
            return Ok(Exit::Differs);
        }
        global.note(&note);
    }
    let missing = reader.missing_rows()?;
    if missing == 0 {
        return Ok(Exit::Ok);
    }
    out::tell(&format!(
        "warning: {missing} row(s) are gone from the view; `synclog replay` brings them back"
    ));
    Ok(Exit::Differs)
}

fn list(global: &Global, args: &ListArgs, reader: &SyncReader, out: &mut Out) -> Result<(), Stop> {
    let mut filter = args.filter(global)?;
    if args.count {
        let count = reader.count(&filter)?;
        return match global.output() {
            Output::Table => out.line(&count.to_string()),
            Output::Json | Output::Ndjson => out.json(&Fields::new().with("count", count)),
        };
    }
    filter.limit = (!args.all).then_some(args.number);
    let store = reader.reader().id();
    match args.page {
        Some(page) if page.store != tag(store) => {
            return Err(Stop::usage(format!("the page cursor is not of this store, which is {store}")));
        }
        Some(Page { back: false, place, .. }) => filter.after = Some(place),
        Some(Page { back: true, place, .. }) => filter.before = Some(place),
        None => {}
    }
    let mut rows = Rows::new(global, store);
    let mut failed = None;
    reader.each(&filter, |entry| match rows.write(out, &entry) {
        Ok(()) => true,
        Err(stop) => {
            failed = Some(stop);
            false
        }
    })?;
    if let Some(stop) = failed {
        return Err(stop);
    }
    rows.finish(out)?;
    out.flush()?;
    if filter.limit == Some(rows.written) {
        let all = reader.count(&filter)?;
        if all > rows.written {
            global.note(&format!("{} of {all}", rows.written));
        }
    }
    if let Some((first, last)) = rows.ends {
        let ends = Filter { after: None, before: None, limit: Some(1), ..filter.clone() };
        let page = |back, place| Page { back, store: tag(store), place };
        if !args.all && !reader.list(&ends.clone().after(last))?.is_empty() {
            global.note(&format!("next page: --page {}", page(false, last)));
        }
        if args.page.is_some() && !reader.list(&ends.before(first))?.is_empty() {
            global.note(&format!("previous page: --page {}", page(true, first)));
        }
    }
    Ok(())
}

/// Where a page starts, or ends. Opaque to whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    /// The rows before the place, not those behind it.
    back: bool,
    /// The first bytes of the store's id: a place says nothing in another one.
    store: [u8; 4],
    place: PageCursor,
}

fn tag(store: StoreId) -> [u8; 4] {
    let [a, b, c, d, ..] = *store.as_bytes();
    [a, b, c, d]
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.back { 'p' } else { 'n' };
        write!(f, "{direction}{:08x}{}", u32::from_be_bytes(self.store), self.place)
    }
}

impl FromStr for Page {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "it is no page cursor".to_owned();
        let (back, rest) = match (text.strip_prefix('p'), text.strip_prefix('n')) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad()),
        };
        let (store, place) = rest.split_at_checked(8).ok_or_else(bad)?;
        let is_hex = store.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Refused as any other word that is no cursor.
        let store = u32::from_str_radix(store, 16).ok().filter(|_| is_hex).ok_or_else(bad)?;
        Ok(Self { back, store: store.to_be_bytes(), place: place.parse().map_err(|_| bad())? })
    }
}

impl ListArgs {
    fn filter(&self, global: &Global) -> Result<Filter, Stop> {
        let instant = |name: &str, text: &Option<String>| {
            let read = |text: &String| {
                time::instant(text, &global.read_zone())
                    .map_err(|error| Stop::usage(format!("--{name} {text:?}: {error}")))
            };
            text.as_ref().map(read).transpose()
        };
        let mut filter = Filter::new().reverse(self.reverse);
        filter.company_guid.clone_from(&self.company.company_guid);
        filter.company_alterid.clone_from(&self.company.company_alterid);
        filter.level = self.level;
        filter.status = self.status;
        filter.run.clone_from(&self.run);
        filter.error_code.clone_from(&self.error_code);
        filter.text.clone_from(&self.grep);
        filter.since = instant("since", &self.since)?;
        filter.until = instant("until", &self.until)?;
        filter.after_seq = self.after;
        Ok(filter)
    }
}

/// A row in JSON: the columns of the table, the key, and where the page behind it starts.
#[derive(Serialize)]
struct Row<'a> {
    id: u64,
    company_guid: &'a str,
    company_alterid: &'a str,
    company_name: &'a str,
    log_level: Level,
    log_message: &'a str,
    log_details: Option<&'a str>,
    sync_status: Option<Status>,
    records_synced: Option<i64>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    duration_seconds: Option<f64>,
    created_at: Option<String>,
    run: Option<&'a str>,
    legacy_id: Option<i64>,
    origin_store: Option<StoreId>,
    origin_seq: Option<u64>,
    key: Option<&'a str>,
    page: String,
}

impl<'a> Row<'a> {
    fn new(entry: &'a LogEntry, store: StoreId) -> Self {
        let event = &entry.event;
        Self {
            id: entry.seq,
            company_guid: &event.company.guid,
            company_alterid: &event.company.alterid,
            company_name: &event.company.name,
            log_level: event.level,
            log_message: &event.message,
            log_details: event.details.as_deref(),
            sync_status: event.status,
            records_synced: event.records_synced,
            error_code: event.error_code.as_deref(),
            error_message: event.error_message.as_deref(),
            duration_seconds: event.duration_seconds,
            created_at: event.created_at.map(|time| time.to_string()),
            run: event.run.as_deref(),
            legacy_id: event.legacy_id,
            origin_store: event.origin.map(|origin| origin.store),
            origin_seq: event.origin.map(|origin| origin.seq),
            key: entry.key.as_deref(),
            page: Page { back: false, store: tag(store), place: entry.page_cursor() }.to_string(),
        }
    }
}

/// Rows as they are written, in one of the forms.
struct Rows {
    output: Output,
    table: EventTable,
    store: StoreId,
    written: u64,
    /// The places of the first row and of the last one.
    ends: Option<(PageCursor, PageCursor)>,
}

impl Rows {
    fn new(global: &Global, store: StoreId) -> Self {
        Self { output: global.output(), table: EventTable::new(global), store, written: 0, ends: None }
    }

    fn write(&mut self, out: &mut Out, entry: &LogEntry) -> Result<(), Stop> {
        self.written += 1;
        let place = entry.page_cursor();
        self.ends = Some((self.ends.map_or(place, |(first, _)| first), place));
        match self.output {
            Output::Table => self.table.write(out, entry.seq, &entry.event),
            Output::Ndjson => out.json(&Row::new(entry, self.store)),
            Output::Json => out.array_item(self.written == 1, &Row::new(entry, self.store)),
        }
    }

    fn finish(&self, out: &mut Out) -> Result<(), Stop> {
        if self.output == Output::Json { out.array_end(self.written == 0) } else { Ok(()) }
    }
}

/// Events as lines for people. Column widths are fixed, so that any number of events needs no memory.
pub(crate) struct EventTable {
    zone: TimeZone,
    color: bool,
    titled: bool,
}

impl EventTable {
    pub(crate) fn new(global: &Global) -> Self {
        Self { zone: global.shown_zone(), color: global.color(), titled: false }
    }

    /// Writes one event, after the titles of the columns if it is the first.
    pub(crate) fn write(&mut self, out: &mut Out, seq: u64, event: &SyncEvent) -> Result<(), Stop> {
        if !self.titled {
            self.titled = true;
            out.line(&format!(
                "{:>8}  {:<25}  {:<7}  {:<11}  {:<24}  {:>8}  MESSAGE",
                "ID", "TIME", "LEVEL", "STATUS", "COMPANY", "RECORDS"
            ))?;
        }
        out.line(&self.event(seq, event))
    }

    fn event(&self, seq: u64, event: &SyncEvent) -> String {
        let time = event.created_at.map_or_else(|| "-".into(), |time| time::show(time, &self.zone));
        let (on, off) = match event.level {
            _ if !self.color => ("", ""),
            Level::Error => ("\x1b[31m", "\x1b[0m"),
            Level::Warning => ("\x1b[33m", "\x1b[0m"),
            Level::Success => ("\x1b[32m", "\x1b[0m"),
            Level::Info => ("", ""),
        };
        let status = event.status.map_or("-", Status::as_str);
        let records = event.records_synced.map_or_else(|| "-".into(), |records| records.to_string());
        let mut line = format!(
            "{seq:>8}  {time:<25}  {on}{:<7}{off}  {status:<11}  {}  {records:>8}  {}",
            event.level,
            cell(&event.company.name, 24),
            escape(&event.message)
        );
        if let Some(code) = &event.error_code {
            // Writing to a string cannot fail.
            let _ = write!(line, " [{}]", escape(code));
        }
        line
    }
}
