//! `append`: one event from options, or many from stdin.

use clap::Args;
use synclog::{Company, Level, Outcome, Receipt, Status, SyncEvent, SyncLog, Timestamp};

use super::args::{Global, word};
use super::exit::{Exit, Stop, outcome_word};
use super::out::{self, Fields, Out};
use super::{stdin, time};

/// Options of `append`.
#[derive(Args)]
pub(crate) struct AppendArgs {
    /// Read events as JSON lines from stdin, one answer for each
    ///
    /// Fields: `company_guid`, `company_alterid`, `company_name`, `log_level`, `log_message`,
    /// `log_details`, `sync_status`, `records_synced`, `error_code`, `error_message`,
    /// `duration_seconds`, `created_at` (or timestamp), run, key. Each line that is not blank is answered, in order:
    /// with its seq once it is on disk, or with the reason why it was rejected.
    #[arg(long, conflicts_with = "event")]
    stdin: bool,
    /// Do not make a store where there is none
    #[arg(long)]
    no_create: bool,
    #[command(flatten)]
    event: EventArgs,
}

/// The event, as options.
#[derive(Args)]
#[group(id = "event", multiple = true)]
struct EventArgs {
    /// The company's guid
    #[arg(long, value_name = "GUID", required_unless_present = "stdin")]
    company_guid: Option<String>,
    /// The company's alterid
    #[arg(long, value_name = "ALTERID", required_unless_present = "stdin")]
    company_alterid: Option<String>,
    /// The company's name
    #[arg(long, value_name = "NAME", required_unless_present = "stdin")]
    company_name: Option<String>,
    /// How much it matters [default: by the status]
    #[arg(long, ignore_case = true, value_parser = word::<Level>(Level::ALL.map(Level::as_str)))]
    level: Option<Level>,
    /// What happened [default: by the status]
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["stdin", "status"], allow_hyphen_values = true)]
    message: Option<String>,
    /// More about it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    details: Option<String>,
    /// Where the run stands
    #[arg(long, ignore_case = true, value_parser = word::<Status>(Status::ALL.map(Status::as_str)))]
    status: Option<Status>,
    /// How many records were synced so far [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    records: Option<i64>,
    /// A code for what went wrong
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// What went wrong
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error_message: Option<String>,
    /// How long it took, in seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    duration: Option<f64>,
    /// When it happened: RFC 3339, or a date and time, UTC unless --tz is given [default: now]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// The run that it belongs to
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// An idempotency key: the same append again returns the same seq
    #[arg(long)]
    key: Option<String>,
}

/// Runs `append`.
pub(crate) fn run(global: &Global, args: &AppendArgs, out: &mut Out) -> Result<Exit, Stop> {
    if args.stdin {
        let log = open(global, !args.no_create)?;
        return stdin::run(log, global.read_zone(), out);
    }
    let event = args.event.event(global)?;
    let ahead = event.is_ahead(Timestamp::now());
    let log = open(global, !args.no_create).map_err(|stop| ended(stop, Outcome::NotWritten))?;
    let appended = match &args.event.key {
        Some(key) => log.store().append_with_key(event, key),
        None => log.append(event),
    };
    let receipt = appended.map_err(|error| {
        let outcome = error.outcome();
        let conflict =
            matches!(error, synclog::Error::KeyConflict { .. } | synclog::Error::KeyUnreadable { .. });
        let stop = Stop::from(error);
        if conflict { stop } else { ended(stop, outcome) }
    })?;
    out.json(&answer(Fields::new(), receipt, ahead))?;
    out.flush()?;
    if ahead {
        out::tell("warning: the event is dated more than a day ahead of this clock; it will head every list");
    }
    if let Err(error) = log.close() {
        // The event is on disk all the same, so this is no failure of the append.
        out::tell(&format!("warning: the event is on disk, but the store was not closed well: {error}"));
    }
    Ok(Exit::Ok)
}

/// What is said about an event that is on disk. `ahead` is there only where it is true.
pub(crate) fn answer(fields: Fields, receipt: Receipt, ahead: bool) -> Fields {
    let fields = fields.with("seq", receipt.seq).with("durable", true).with("projected", receipt.projected);
    if ahead { fields.with("ahead", true) } else { fields }
}

/// With the outcome for the event as the last word (P10).
fn ended(stop: Stop, outcome: Outcome) -> Stop {
    stop.add_hint(&format!("outcome for this event: {}", outcome_word(outcome)))
}

/// Opens the store for writing, and tells where it was made if it was.
pub(crate) fn open(global: &Global, create: bool) -> Result<SyncLog, Stop> {
    let log = SyncLog::open_with(global.dir()?, global.options(create))?;
    if log.store().open_report().created {
        out::tell(&format!("made a store in {}", log.store().dir().display()));
    }
    Ok(log)
}

impl EventArgs {
    fn event(&self, global: &Global) -> Result<SyncEvent, Stop> {
        // Clap has seen to it that these were given.
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        let company =
            Company::new(given(&self.company_guid), given(&self.company_alterid), given(&self.company_name));
        let level = self.level.unwrap_or_else(|| Level::default_for(self.status));
        let mut event = SyncEvent::new(company, level, given(&self.message));
        event.details.clone_from(&self.details);
        event.status = self.status;
        event.records_synced = self.records.or(event.records_synced);
        event.error_code.clone_from(&self.error_code);
        event.error_message.clone_from(&self.error_message);
        event.duration_seconds = self.duration;
        event.run.clone_from(&self.run);
        if let Some(text) = &self.timestamp {
            event.created_at = Some(time::read(text, &global.read_zone())?);
        }
        if self.message.is_none()
            && let Some(message) = default_message(&event, self.records.is_some())
        {
            event.message = message;
        }
        Ok(event)
    }
}

/// The message of an event whose caller gave only a status. `counted` says whether the caller gave a
/// number of records.
pub(crate) fn default_message(event: &SyncEvent, counted: bool) -> Option<String> {
    let name = &event.company.name;
    let records = event.records_synced.filter(|_| counted);
    Some(match event.status? {
        Status::Started => format!("Sync started for {name}"),
        Status::InProgress => match records {
            Some(records) => format!("Sync in progress for {name}: {records} records synced"),
            None => format!("Sync in progress for {name}"),
        },
        Status::Completed => match (records, event.duration_seconds) {
            (Some(records), Some(seconds)) => {
                format!("Sync completed successfully: {records} records synced in {seconds:.2} seconds")
            }
            (Some(records), None) => format!("Sync completed successfully: {records} records synced"),
            (None, Some(seconds)) => format!("Sync completed successfully in {seconds:.2} seconds"),
            (None, None) => "Sync completed successfully".into(),
        },
        Status::Failed => match event.error_message.as_ref().or(event.error_code.as_ref()) {
            Some(text) => format!("Sync failed: {text}"),
            None => format!("Sync failed for {name}"),
        },
    })
}
