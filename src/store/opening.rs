//! Opening goes on behind the first acknowledgement (P5): until when, and who tells how it ended.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::log::directory::LogDir;

use super::project::Projector;
use super::report::OpenReport;

/// Until when work behind the acknowledgements may go on once its handle is being closed.
#[derive(Clone, Default)]
pub(super) struct Halt(Arc<OnceLock<Instant>>);

impl Halt {
    /// The handle is being closed. What is done by then is kept; the next opening goes on from there.
    pub(super) fn at(&self, deadline: Instant) {
        let _ = self.0.set(deadline);
    }

    /// Whether to stop now.
    pub(super) fn is_due(&self) -> bool {
        self.0.get().is_some_and(|deadline| Instant::now() >= *deadline)
    }
}

/// The report of an opening whose rows are still looked at, in the hands of the thread that does so.
pub(super) struct Opening {
    report: OpenReport,
    log: LogDir,
    /// Whoever opens the store, for as long as it waits.
    opener: Option<SyncSender<OpenReport>>,
}

/// A report that is ready to be handed over.
pub(super) struct Told {
    report: OpenReport,
    log: LogDir,
    opener: Option<SyncSender<OpenReport>>,
}

impl Opening {
    /// An opening, and where its report will come from.
    pub(super) fn new(report: OpenReport, log: LogDir) -> (Self, Receiver<OpenReport>) {
        // Without a buffer a report is either taken or comes back: nobody saves an older one over it.
        let (opener, reports) = sync_channel(0);
        (Self { report, log, opener: Some(opener) }, reports)
    }

    /// The rows were brought up to the log, or cannot be for now.
    pub(super) fn told(&mut self, projector: &mut Projector, pending: Option<String>) -> Option<Told> {
        if pending.is_some() && self.opener.is_none() {
            return None; // told already that they do not follow
        }
        self.report.take_rows(projector, pending);
        Some(Told { report: self.report.clone(), log: self.log.clone(), opener: self.opener.take() })
    }
}

impl Told {
    /// Hands it to whoever waits for the opening; keeps it in the store where nobody does any more.
    pub(super) fn send(self) {
        let unsent = match self.opener {
            Some(opener) => opener.send(self.report).err().map(|unsent| unsent.0),
            None => Some(self.report),
        };
        if let Some(report) = unsent {
            report.save(&self.log);
        }
    }
}

/// Waits for the report of an opening. Where it takes longer, `report` says so in its place.
pub(super) fn await_report(
    reports: Receiver<OpenReport>,
    wait: Duration,
    mut report: OpenReport,
    log: &LogDir,
) -> OpenReport {
    match reports.recv_timeout(wait) {
        Ok(whole) => report = whole,
        // It takes longer, or its thread is gone: either way the rows are not there.
        Err(_) => report.projection_pending = Some(BEHIND.into()),
    }
    report.save(log);
    // Only now may the thread keep a report that is newer.
    drop(reports);
    report
}

/// Why rows do not follow while opening still looks at them.
pub(super) const BEHIND: &str = "the rows are still compared with the log, or made from it";
