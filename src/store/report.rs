//! What opening a store found and did.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::finding::Finding;
use crate::log::directory::LogDir;
use crate::replay::ReplayReport;
use crate::time::Timestamp;

use super::project::Projector;

/// What the last opening for writing found and did. Kept in the store as `last-open.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenReport {
    /// When.
    pub opened_at: String,
    /// Whether the store was made by this opening.
    pub created: bool,
    /// The rows of the torn-or-corrupt table that decided about the log's end, in order.
    pub tail: Vec<String>,
    /// The last event's seq; 0 in an empty store.
    pub last_seq: u64,
    /// Bytes at the log's end that nothing proved durable and that were written again.
    pub rewritten_bytes: u64,
    /// Events whose damaged frames came back from their rows.
    pub healed_events: u64,
    /// Files with bytes that were put aside.
    #[serde(serialize_with = "lossy_paths")]
    pub quarantined: Vec<PathBuf>,
    /// Everything worth telling, with file and offset.
    pub findings: Vec<Finding>,
    /// What replay did to the rows.
    pub replay: ReplayReport,
    /// Why the rows are not up to date, if they are not: another process holds the database, say, or more was
    /// to be done than [`crate::Options::projection_wait`] allows. They catch up by themselves, and
    /// `last-open.json` then says how.
    pub projection_pending: Option<String>,
}

fn lossy_paths<S: serde::Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

impl OpenReport {
    /// Whether there is anything that somebody would want to read.
    pub fn is_notable(&self) -> bool {
        !self.findings.is_empty() || !self.replay.changed_nothing() || self.projection_pending.is_some()
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("last-open.json")
    }

    /// Keeps the report beside the log, if that is still where it was. Losing it does no harm.
    pub(super) fn save(&self, log: &LogDir) {
        if log.check().is_err() {
            return;
        }
        let saved = serde_json::to_vec_pretty(self)
            .map_err(std::io::Error::other)
            .and_then(|bytes| disk::replace_small(&Self::path(&log.store_dir), &bytes));
        if let Err(error) = saved {
            tracing::warn!(%error, "the open report could not be kept");
        }
    }

    /// The report of the last opening; `None` where there is none that can be read.
    pub(crate) fn load(dir: &Path) -> Option<Self> {
        let bytes = disk::read_small(&Self::path(dir), 4 * 1024 * 1024).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn now() -> String {
        Timestamp::now().to_string()
    }

    /// Takes in what was done to the rows since.
    pub(super) fn take_rows(&mut self, projector: &mut Projector, pending: Option<String>) {
        for finding in &projector.findings {
            tracing::warn!(%finding, "found while opening the store");
        }
        self.findings.append(&mut projector.findings);
        self.replay = projector.report.clone();
        self.projection_pending = pending;
    }
}
