//! `tail`: the last events, from the log itself, and what follows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use synclog::{ExportLine, Finding, Item, Reader, Severity, StoreId, Stored, SyncEvent};

use super::args::{Global, Output};
use super::exit::{Exit, Stop};
use super::list::EventTable;
use super::out::{self, Out};
use super::signals::{self, Caught};
use super::tail_files::{Cursor, Traces};

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
    /// Go on after the seq in this file, and keep it up to date; without the file, start at the first event
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
    let after = match (&cursor, args.after) {
        (Some(cursor), _) => cursor.read(reader.id())?,
        (None, Some(after)) => after,
        (None, None) => reader.last_seq().saturating_sub(args.number),
    };
    let mut tail = Tail {
        output: global.output(),
        table: EventTable::new(global),
        store: reader.id(),
        next: after.saturating_add(1),
        written: 0,
        told: BTreeSet::new(),
        exit: Exit::Ok,
        proved_only: args.follow || cursor.is_some(),
        cursor,
        caught: None,
    };
    if tail.cursor.is_some() && after > reader.last_seq() && !reader.has_live_writer() {
        return Err(Stop::new(
            Exit::Damaged,
            format!("the cursor has seen event {after}, but the log ends at {}", reader.last_seq()),
        )
        .hint("an older copy of the store may have been put in its place"));
    }
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
        std::thread::sleep(POLL);
        let now = Traces::of(&dir);
        if now == traces && read_at.elapsed() < READ_ANYWAY && failing.is_none() {
            continue;
        }
        (traces, read_at) = (now, Instant::now());
        match Reader::<SyncEvent>::open(&dir) {
            Ok(reader) => {
                failing = None;
                tail.show(&reader, out)?;
            }
            Err(error) => {
                let since = *failing.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error.into());
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
        for item in reader.items(self.next)? {
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
                    pending += 1;
                }
                Item::Damage(finding) => self.pass(&finding),
                Item::Unknown(finding) | Item::Lost(finding) => {
                    self.tell(&finding);
                    self.pass(&finding);
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
        match &mut self.cursor {
            Some(cursor) => cursor.keep(self.store, self.next - 1),
            None => Ok(()),
        }
    }
}
