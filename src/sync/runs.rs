//! Runs: what started, what ended how, and what never ended.
//!
//! Nothing about a run is stored; it is joined from events each time, by the rules that stand at
//! [`RunSummary`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::time::Timestamp;

use super::event::{Company, Status, SyncEvent, words};

/// How long a run may be silent before it counts as stuck, unless the caller says otherwise.
pub const STUCK_AFTER: Duration = Duration::from_hours(1);

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// `open`: no end yet.
    Open,
    /// `stuck`: no end, and silent for too long.
    Stuck,
    /// `ok`: completed.
    Ok,
    /// `failed`
    Failed,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Stuck, Self::Ok, Self::Failed];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stuck => "stuck",
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

words!(RunState, "state", "is not open, stuck, ok or failed");

/// An event dated further ahead of the clock than this, in microseconds, is silent from its append on.
const AHEAD: i64 = 24 * 3600 * 1_000_000;

/// An end without a start belongs to the ok run that ended at most this long before, in microseconds.
const EXTENDS: u64 = 10 * 60 * 1_000_000;

/// One run, joined from its events.
///
/// With a run id, events of one company pair and one id belong together, in the order of their times;
/// `started` after an end opens a new run under the same id, so that an id may be used every night.
///
/// Without one, as imported history has them, the events of a company pair are joined by their order:
///
/// - `started` opens a run, and leaves one that is open as it is: without an end.
/// - Completed or failed ends the open run, or is a run without a start.
/// - An end without a start that comes within 10 minutes of the ok end of a run that has a start belongs
///   to that run, which then ends as this one says: an older system writes up to three `completed` for
///   one sync, and the last has the records.
/// - `in_progress` never opens a run. An event without a status belongs to the open one, if it has a run
///   id; else to none.
///
/// The order is that of `created_at` and seq. Where one of two times has whole seconds only and both events
/// have a `legacy_id`, their seconds are compared, and then the `legacy_id`.
///
/// A run is stuck when it has no end and was silent for too long. An event that was dated more than a day
/// ahead of the clock is silent from its append on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its id; `None` where it was joined by order.
    pub run: Option<String>,
    /// Its company, under the name that its last event gives.
    #[serde(flatten)]
    pub company: Company,
    /// Where it stands.
    pub state: RunState,
    /// When its first `started` event happened.
    #[serde(serialize_with = "optional_time")]
    pub started_at: Option<Timestamp>,
    /// When the event happened that ended it.
    #[serde(serialize_with = "optional_time")]
    pub ended_at: Option<Timestamp>,
    /// When its last event happened.
    #[serde(serialize_with = "time")]
    pub last_at: Timestamp,
    /// The smallest seq among its events.
    pub first_seq: u64,
    /// The greatest.
    pub last_seq: u64,
    /// How many events it has.
    pub events: u64,
    /// The last number of synced records that any of its events gave.
    pub records: Option<i64>,
    /// The duration that its end gave, or else the time from its start to its end.
    pub duration_seconds: Option<f64>,
    /// The last error code, unless it ended well.
    pub error_code: Option<String>,
    /// The last error message, unless it ended well.
    pub error_message: Option<String>,
}

/// A time in JSON, in the form of the `created_at` column.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn optional_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

/// Which runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFilter {
    /// Only runs in this state. A stuck run is an open one too.
    pub state: Option<RunState>,
    /// Only runs of the company with this guid and alterid.
    pub company: Option<(String, String)>,
    /// How long a run without an end may be silent before it is stuck.
    pub older_than: Duration,
}

impl Default for RunFilter {
    fn default() -> Self {
        Self { state: None, company: None, older_than: STUCK_AFTER }
    }
}

impl RunFilter {
    /// Whether the run is asked for.
    pub fn matches(&self, run: &RunSummary) -> bool {
        let state = match self.state {
            None => true,
            Some(RunState::Open) => run.ended_at.is_none(),
            Some(state) => run.state == state,
        };
        let company = self
            .company
            .as_ref()
            .is_none_or(|(guid, alterid)| *guid == run.company.guid && *alterid == run.company.alterid);
        state && company
    }
}

/// Joins events to runs, with no more than one run in memory.
///
/// Events must come sorted by run id (those without one together), company pair and time: the order of
/// [`RunJoiner::order`]. A change of run id or company is the end of what came before.
#[derive(Debug)]
pub(crate) struct RunJoiner {
    now: Timestamp,
    older_than: Duration,
    current: Option<Joined>,
}

/// A run in the making.
#[derive(Debug)]
struct Joined {
    run: RunSummary,
    /// Since when it is silent: its last event's time, or the append of one dated far ahead.
    silent_since: Timestamp,
    /// The run with what came after its end and belongs to it only if a further end does.
    further: Option<RunSummary>,
}

impl RunJoiner {
    /// Which events matter, as SQL.
    pub(crate) const WHERE: &str = "run IS NOT NULL OR sync_status IS NOT NULL";

    /// The order in which events of `table` must come, as SQL. Times order them, and for equal times the
    /// seq. Within a second that has a time without a fraction and a legacy id, legacy ids go first: an
    /// older system's table has whole seconds, and its backup fractions.
    pub(crate) fn order(table: &str) -> String {
        let second = "substr(created_at, 1, 19)";
        format!(
            "run, company_guid, company_alterid, {second}, CASE WHEN legacy_id IS NOT NULL AND EXISTS \
             (SELECT 1 FROM {table} AS whole WHERE whole.company_guid = {table}.company_guid \
             AND whole.company_alterid = {table}.company_alterid \
             AND whole.created_at = substr({table}.created_at, 1, 19) || '.000000' \
             AND whole.legacy_id IS NOT NULL) THEN legacy_id END, created_at, id"
        )
    }

    /// A joiner that judges open runs as of `now`.
    pub(crate) fn new(now: Timestamp, older_than: Duration) -> Self {
        Self { now, older_than, current: None }
    }

    /// Takes the next event, and gives back the run before it if that turns out to be over. `appended` is
    /// when the event was appended, where its row still tells.
    pub(crate) fn push(
        &mut self,
        seq: u64,
        event: &SyncEvent,
        appended: Option<Timestamp>,
    ) -> Option<RunSummary> {
        if event.run.is_none() && event.status.is_none() {
            return None;
        }
        let silent_since = |at: Timestamp| appended.filter(|appended| is_ahead(at, *appended)).unwrap_or(at);
        if let Some(current) = self.current.as_mut().filter(|current| current.takes(event)) {
            current.add(seq, event);
            let silent_since = silent_since(event.created_at.unwrap_or(current.run.last_at));
            current.silent_since = current.silent_since.max(silent_since);
            return None;
        }
        let before = self.finish();
        let opens = event.run.is_some() || event.status != Some(Status::InProgress);
        if opens {
            let mut run = empty(seq, event);
            add(&mut run, seq, event);
            let silent_since = silent_since(run.last_at);
            self.current = Some(Joined { run, silent_since, further: None });
        }
        before
    }

    /// The last run, once there are no more events.
    pub(crate) fn finish(&mut self) -> Option<RunSummary> {
        let Joined { mut run, silent_since, .. } = self.current.take()?;
        match run.state {
            RunState::Ok => {
                run.error_code = None;
                run.error_message = None;
            }
            RunState::Failed => {}
            RunState::Open | RunState::Stuck => {
                let silent = i128::from(self.now.as_micros()) - i128::from(silent_since.as_micros());
                // A time to come is no silence.
                let stuck = u128::try_from(silent).is_ok_and(|silent| silent > self.older_than.as_micros());
                run.state = if stuck { RunState::Stuck } else { RunState::Open };
            }
        }
        if let (None, Some(start), Some(end)) = (run.duration_seconds, run.started_at, run.ended_at) {
            // An end before its start can only be a clock that was set back.
            let micros = end.as_micros().saturating_sub(start.as_micros());
            run.duration_seconds = (micros >= 0).then_some(micros as f64 / 1e6);
        }
        Some(run)
    }
}

impl Joined {
    /// Whether the event belongs to this run, or may turn out to.
    fn takes(&self, event: &SyncEvent) -> bool {
        let run = &self.run;
        let same = run.run == event.run
            && run.company.guid == event.company.guid
            && run.company.alterid == event.company.alterid;
        let starts = event.status == Some(Status::Started);
        same && match (run.ended_at, &event.run) {
            (None, Some(_)) => true,
            (None, None) | (Some(_), Some(_)) => !starts,
            (Some(end), None) => {
                let at = event.created_at.unwrap_or(end);
                let soon = at.as_micros().abs_diff(end.as_micros()) <= EXTENDS;
                !starts && soon && run.state == RunState::Ok && run.started_at.is_some()
            }
        }
    }

    /// Adds an event that belongs to this run.
    fn add(&mut self, seq: u64, event: &SyncEvent) {
        // Without a run id, what comes after an end belongs to the run only if one more end does.
        if event.run.is_none() && self.run.ended_at.is_some() {
            let mut further = self.further.take().unwrap_or_else(|| self.run.clone());
            add(&mut further, seq, event);
            if event.status == Some(Status::InProgress) {
                self.further = Some(further);
            } else {
                self.run = further;
            }
        } else {
            add(&mut self.run, seq, event);
        }
    }
}

/// Whether a time lies more than a day ahead of the clock.
pub(super) fn is_ahead(at: Timestamp, clock: Timestamp) -> bool {
    at.as_micros().saturating_sub(clock.as_micros()) > AHEAD
}

/// A run that no event was added to yet.
fn empty(seq: u64, event: &SyncEvent) -> RunSummary {
    RunSummary {
        run: event.run.clone(),
        company: event.company.clone(),
        state: RunState::Open,
        started_at: None,
        ended_at: None,
        last_at: event.created_at.unwrap_or(Timestamp::MIN),
        first_seq: seq,
        last_seq: seq,
        events: 0,
        records: None,
        duration_seconds: None,
        error_code: None,
        error_message: None,
    }
}

fn add(run: &mut RunSummary, seq: u64, event: &SyncEvent) {
    // A stored event always has its time.
    let at = event.created_at.unwrap_or(run.last_at);
    run.company.name.clone_from(&event.company.name);
    run.last_at = run.last_at.max(at);
    run.first_seq = run.first_seq.min(seq);
    run.last_seq = run.last_seq.max(seq);
    run.events += 1;
    run.records = event.records_synced.or(run.records);
    if event.error_code.is_some() {
        run.error_code.clone_from(&event.error_code);
    }
    if event.error_message.is_some() {
        run.error_message.clone_from(&event.error_message);
    }
    match event.status {
        Some(Status::Started) => run.started_at = run.started_at.or(Some(at)),
        Some(Status::Completed | Status::Failed) => {
            let ok = event.status == Some(Status::Completed);
            run.state = if ok { RunState::Ok } else { RunState::Failed };
            run.ended_at = Some(at);
            run.duration_seconds = event.duration_seconds;
        }
        Some(Status::InProgress) | None => {}
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
