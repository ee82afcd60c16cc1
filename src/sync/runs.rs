//! Runs: what started, what ended how, and what never ended.
//!
//! Nothing about a run is stored; it is joined from events each time. Events with a run id belong
//! together by that id. Events without one, as imported history has them, are joined by their order
//! within a company: `started` opens a run, completed or failed ends it.

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

/// One run, joined from its events.
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
/// Events must come sorted by run id (those without one together), company pair, time and seq: the
/// order of [`RunJoiner::ORDER`]. A change of run id or company is the end of what came before.
#[derive(Debug)]
pub(crate) struct RunJoiner {
    now: Timestamp,
    older_than: Duration,
    current: Option<RunSummary>,
}

impl RunJoiner {
    /// The order in which events must come, as SQL.
    pub(crate) const ORDER: &str = "run, company_guid, company_alterid, created_at, id";

    /// Which events matter, as SQL.
    pub(crate) const WHERE: &str = "run IS NOT NULL OR sync_status IS NOT NULL";

    /// A joiner that judges open runs as of `now`.
    pub(crate) fn new(now: Timestamp, older_than: Duration) -> Self {
        Self { now, older_than, current: None }
    }

    /// Takes the next event, and gives back the run before it if that turns out to be over.
    pub(crate) fn push(&mut self, seq: u64, event: &SyncEvent) -> Option<RunSummary> {
        if event.run.is_none() && event.status.is_none() {
            return None;
        }
        let belongs = self.current.as_ref().is_some_and(|run| {
            let same = run.run == event.run
                && run.company.guid == event.company.guid
                && run.company.alterid == event.company.alterid;
            // Without a run id, an end closes the run, and a start never joins one that is open.
            let joins = run.ended_at.is_none() && event.status != Some(Status::Started);
            same && (event.run.is_some() || joins)
        });
        if belongs {
            if let Some(run) = &mut self.current {
                add(run, seq, event);
            }
            return None;
        }
        let before = self.finish();
        let opens = event.run.is_some() || event.status != Some(Status::InProgress);
        if opens {
            let mut run = empty(seq, event);
            add(&mut run, seq, event);
            self.current = Some(run);
        }
        before
    }

    /// The last run, once there are no more events.
    pub(crate) fn finish(&mut self) -> Option<RunSummary> {
        let mut run = self.current.take()?;
        match run.state {
            RunState::Ok => {
                run.error_code = None;
                run.error_message = None;
            }
            RunState::Failed => {}
            RunState::Open | RunState::Stuck => {
                let silent = i128::from(self.now.as_micros()) - i128::from(run.last_at.as_micros());
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
