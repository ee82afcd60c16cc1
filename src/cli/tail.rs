//! `tail`: the last events, from the log itself, and what follows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use synclog::{Error, ExportLine, Finding, Item, LogPosition, Reader, Severity, StoreId, Stored, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::list::EventTable;
use super::out::{self, Out};
use super::signals::{self, Caught};
use super::tail_files::{Cursor, Start, Traces};
use super::wait;

/// How often the store is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Without any trace of a write the log is read all the same after this time.
const READ_ANYWAY: Duration = Duration::from_secs(2);
/// How long a store that cannot be opened is tried again, a writer that starts may be the cause.
const PATIENCE: Duration = Duration::from_secs(3);
/// Events after which the cursor is kept, so that a long batch is not repeated as a whole.
const BATCH: u64 = 1000;

/// Options of `tail`.
#[derive(Args)]
pub(crate) struct TailArgs {
    /// How many of the last events
    #[arg(short, long, value_name = "EVENTS", default_value_t = 10)]
    number: u64,
    /// Go on with what is appended
    #[arg(short, long)]
    follow: bool,
    /// Everything after this seq, instead of the last events
    #[arg(long, value_name = "SEQ", conflicts_with = "number")]
    after: Option<u64>,
    /// Go on behind the event that this file names, and keep it up to date
    ///
    /// It holds seq, store and checksum of the last event that was shown, and is kept durably before the call ends.
    /// Where the log has another event under that seq, or ends before it, nothing is shown and the exit code is 4.
    /// Without the file, start at the first event. A bare seq is taken as well.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["number", "after"])]
    cursor_file: Option<PathBuf>,
}

/// Runs `tail`.
pub(crate) fn run(global: &Global, args: &TailArgs, out: &mut Out) -> Result<Exit, Stop> {
    if global.output == Some(Output::Json) && args.follow {
        return Err(Stop::usage("an array has no end with --follow; use --output ndjson"));
    }
    let dir = global.dir()?;
    // Before the first look, so that no write falls between the two.
    let mut traces = Traces::of(&dir);
    let reader = Reader::<SyncEvent>::open(&dir)?;
    let cursor = args.cursor_file.as_ref().map(|file| Cursor::new(file.clone()));
    let mut tail = Tail {
        output: global.output(),
        table: EventTable::new(global),
        store: reader.id(),
        next: 1,
        position: None,
        written: 0,
        told: BTreeSet::new(),
        exit: Exit::Ok,
        proved_only: args.follow || cursor.is_some(),
        cursor,
        caught: None,
    };
    tail.start(args, &reader)?;
    if args.follow {
        tail.caught = Some(signals::watch(|| {})?);
    }
    tail.show(&reader, out)?;
    drop(reader);
    if !args.follow {
        if tail.output == Output::Json {
            out.array_end(tail.written == 0)?;
        }
        return Ok(tail.exit);
    }
    let (mut read_at, mut failing) = (Instant::now(), None);
    loop {
        if let Some(exit) = tail.stopped() {
            return Ok(exit);
        }
        wait::pause(POLL)?;
        let now = Traces::of(&dir);
        if now == traces && read_at.elapsed() < READ_ANYWAY && failing.is_none() {
            continue;
        }
        (traces, read_at) = (now, Instant::now());
        // The store may have been replaced, or the log cut, since it was read.
        let opened = Reader::<SyncEvent>::open(&dir).and_then(|reader| tail.check(&reader).map(|()| reader));
        match opened {
            Ok(reader) => {
                failing = None;
                tail.show(&reader, out)?;
            }
            Err(error) => {
                let since = *failing.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(tail.stop(error));
                }
            }
        }
    }
}

struct Tail {
    output: Output,
    table: EventTable,
    store: StoreId,
    /// The next seq to show.
    next: u64,
    /// The last event that was shown, or passed over where it was lost: what a store must still have that is
    /// opened anew. Behind it may lie damage.
    position: Option<LogPosition>,
    written: u64,
    /// Damage that was told already; it is met again at every look.
    told: BTreeSet<String>,
    exit: Exit,
    /// Stop before what a power cut could take back.
    proved_only: bool,
    cursor: Option<Cursor>,
    caught: Option<Caught>,
}

impl Tail {
    fn stopped(&self) -> Option<Exit> {
        self.caught.as_ref().and_then(Caught::exit)
    }

    /// Finds where to start, and proves that the place is still what it was and that a cursor can be kept, before
    /// anything is written.
    fn start(&mut self, args: &TailArgs, reader: &Reader<SyncEvent>) -> Result<(), Stop> {
        let start = match (&self.cursor, args.after) {
            (Some(cursor), _) => cursor.read(self.store)?,
            (None, after) => {
                let last = if self.proved_only { reader.proved_seq() } else { reader.last_seq() };
                let seq = after.unwrap_or(last.saturating_sub(args.number));
                if seq > reader.last_seq() {
                    self.tell_once(&format!("note: the log ends at {}", reader.last_seq()));
                }
                Start { seq, position: None }
            }
        };
        self.next = start.seq.saturating_add(1);
        self.position = start.position;
        if self.position.is_none() && self.cursor.is_some() {
            self.position = reader.position(start.seq).map_err(|error| self.stop(error))?;
        } else if self.position.is_none() && args.follow {
            // Whoever names a seq of the future waits for it.
            self.position = reader.position(start.seq.min(reader.proved_seq()))?;
        }
        self.check(reader).map_err(|error| self.stop(error))?;
        self.keep_cursor()
    }

    /// Whether the log still has what was read of it.
    fn check(&self, reader: &Reader<SyncEvent>) -> Result<(), Error> {
        match &self.position {
            Some(position) if reader.id() == self.store => reader.check(position),
            _ => Ok(()),
        }
    }

    /// The error, with what to do now.
    fn stop(&self, error: Error) -> Stop {
        let differs = matches!(error, Error::PositionDiffers { .. });
        let stop = Stop::from(error);
        match &self.cursor {
            Some(cursor) if differs => stop.hint(format!(
                "was an older copy of the store put in its place? Compare what was read with \
                 `synclog export`, then write the last seq that both have into {}, or remove it to start at the \
                 first event",
                cursor.path().display()
            )),
            None if differs => stop.hint(
                "was an older copy of the store put in its place? Compare what was read with `synclog export`, \
                 then start again with --after and the last seq that both have",
            ),
            _ => stop,
        }
    }

    /// Shows everything from `next` on that the reader has.
    fn show(&mut self, reader: &Reader<SyncEvent>, out: &mut Out) -> Result<(), Stop> {
        if reader.id() != self.store {
            return Err(Stop::new(Exit::Failure, "another store was put in the place of this one"));
        }
        for finding in reader.findings() {
            self.tell(finding);
        }
        if reader.last_seq() < self.next {
            return out.flush();
        }
        let mut pending = 0;
        let mut items = reader.items(self.next)?;
        while let Some(item) = items.next() {
            match item? {
                Item::Event(stored) if self.proved_only && stored.seq > reader.proved_seq() => {
                    self.tell_once(
                        "the last events are not proved durable before the next writer opens the store",
                    );
                    break;
                }
                Item::Event(stored) => {
                    self.event(&stored, out)?;
                    self.next = stored.seq + 1;
                    self.position = items.position();
                    pending += 1;
                }
                Item::Damage(finding) => self.pass(&finding),
                Item::Unknown(finding) | Item::Lost(finding) => {
                    self.tell(&finding);
                    self.pass(&finding);
                    self.position = items.position().or(self.position);
                }
                _ => {}
            }
            if pending >= BATCH {
                pending = 0;
                self.keep(out)?;
            }
            if self.stopped().is_some() {
                break;
            }
        }
        self.keep(out)
    }

    fn event(&mut self, stored: &Stored<SyncEvent>, out: &mut Out) -> Result<(), Stop> {
        self.written += 1;
        let key = stored.key.as_deref();
        let line = ExportLine::new(stored.seq, self.store, &stored.event, key, stored.appended_at);
        match self.output {
            Output::Table => self.table.write(out, stored.seq, &stored.event),
            Output::Ndjson => out.json(&line),
            Output::Json => out.array_item(self.written == 1, &line),
        }
    }

    /// Tells a finding once, and goes on behind the events that it is about.
    fn pass(&mut self, finding: &Finding) {
        self.tell(finding);
        if let Some(last) = finding.last_seq.or(finding.seq) {
            self.next = self.next.max(last.saturating_add(1));
        }
    }

    fn tell(&mut self, finding: &Finding) {
        if finding.kind.severity() == Severity::LogDamaged {
            self.exit = self.exit.or(Exit::Damaged);
        }
        self.tell_once(&finding.to_string());
    }

    fn tell_once(&mut self, text: &str) {
        if self.told.len() < 1000 && self.told.insert(text.to_owned()) {
            out::tell(text);
        }
    }

    /// Hands what was written to the system; then the cursor may say so.
    fn keep(&mut self, out: &mut Out) -> Result<(), Stop> {
        out.flush()?;
        self.keep_cursor()
    }

    fn keep_cursor(&mut self) -> Result<(), Stop> {
        let start = match self.position {
            // What was damaged behind the event comes once it is healed.
            Some(position) => Start { seq: position.seq, position: Some(position) },
            None => Start { seq: self.next - 1, position: None },
        };
        match &mut self.cursor {
            Some(cursor) => cursor.keep(self.store, start),
            None => Ok(()),
        }
    }
}
