//! How to open a store.

use std::time::Duration;

use crate::log::writer::Limits;

/// The largest limit that [`Options::max_event_bytes`] takes.
pub const MAX_EVENT_BYTES: u64 = 16 * 1024 * 1024;

/// No wait is longer; SQLite and the system's clock count no farther than this safely.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);

/// How to open a store for writing.
///
/// ```
/// use std::time::Duration;
/// let options = synclog::Options::default().create(false).lock_wait(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) lock_wait: Duration,
    pub(crate) projection: bool,
    pub(crate) projection_wait: Duration,
    pub(crate) max_event_bytes: u64,
    pub(crate) idle_mark: Duration,
    pub(crate) limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            lock_wait: Duration::from_secs(10),
            projection: true,
            projection_wait: Duration::from_millis(250),
            max_event_bytes: 1024 * 1024,
            idle_mark: Duration::from_millis(20),
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// Whether a store is made where the directory is missing or empty. Default: true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How long to wait for another writer's lock. Default: 10 s, at most a week.
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait.min(LONGEST_WAIT);
        self
    }

    /// Whether rows are made at all. Default: true. Without them this handle only appends to the log: no
    /// receipt says `projected`, and appends with idempotency keys are refused, because keys live in the
    /// rows. The next handle with rows catches up.
    ///
    /// ```
    /// # use synclog::{Company, Level, Options, Store, SyncEvent};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = Store::<SyncEvent>::open(dir.path(), Options::default().projection(false))?;
    /// let company = Company::new("8f0c1d52", "4401", "Acme Traders");
    /// assert!(!store.append(SyncEvent::new(company, Level::Info, "Sync started"))?.projected);
    /// store.close()?;
    /// let store = Store::<SyncEvent>::open(dir.path(), Options::default())?;
    /// assert_eq!(store.applied_seq(), 1);
    /// # Ok::<(), synclog::Error>(())
    /// ```
    #[must_use]
    pub fn projection(mut self, projection: bool) -> Self {
        self.projection = projection;
        self
    }

    /// How long an append, once durable, waits for its row in SQLite. Default: 250 ms, at most a week. After one
    /// time-out appends stop waiting until the projection has caught up.
    #[must_use]
    pub fn projection_wait(mut self, wait: Duration) -> Self {
        self.projection_wait = wait.min(LONGEST_WAIT);
        self
    }

    /// The largest encoded event in bytes. Default: 1 MiB; at most [`MAX_EVENT_BYTES`].
    #[must_use]
    pub fn max_event_bytes(mut self, limit: u64) -> Self {
        self.max_event_bytes = limit.min(MAX_EVENT_BYTES);
        self
    }

    /// Sizes of the log's segments in bytes: the first one, and the largest. Default: 256 KiB and
    /// 16 MiB. Each segment is twice as large as the one before. Values are kept between 16 KiB and
    /// 64 MiB, and are rounded up to 4 KiB. A batch that would not fit gets a larger segment, and one that
    /// takes more than a sixteenth gets a segment for a few of its size.
    #[must_use]
    pub fn segment_bytes(mut self, first: u64, largest: u64) -> Self {
        let fit = |bytes: u64| bytes.clamp(16 * 1024, 64 * 1024 * 1024).next_multiple_of(4096);
        self.limits = Limits { first_segment: fit(first), max_segment: fit(largest.max(first)) };
        self
    }
}
