//! What must be in the store: kept from what was sent and answered, and compared with log and rows.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rusqlite::types::Value;
use synclog::{Company, Item, Level, Reader, Status, SyncEvent, Timestamp};

/// Events from this number on are heavy: a group of them takes a while to write.
pub(crate) const HEAVY: u64 = 1 << 32;

/// Everything in event `number` follows from the number.
pub(crate) fn event(number: u64) -> SyncEvent {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let company = Company::new(format!("guid-{}", mixed % 3), "102209.0", "Acme \"Traders\" & Söhne");
    let level = Level::ALL[(mixed / 3 % 4) as usize];
    let mut event = SyncEvent::new(company, level, format!("e{number}"));
    let length = match mixed % 100 {
        _ if number >= HEAVY => 60_000,
        0..=69 => mixed % 300,
        70..=95 => mixed % 3000,
        _ => mixed % 60_000,
    };
    // A page of zeros inside a frame is what an unwritten one looks like.
    let letter = if mixed.is_multiple_of(17) { "\0" } else { "x" };
    event.details = (!mixed.is_multiple_of(5) || number >= HEAVY)
        .then(|| format!("{number} {}", letter.repeat(length as usize)));
    event.status = mixed.is_multiple_of(2).then_some(Status::ALL[(mixed / 7 % 4) as usize]);
    event.records_synced = (!mixed.is_multiple_of(11)).then_some(number.cast_signed());
    event.duration_seconds = mixed.is_multiple_of(3).then_some(number as f64 / 8.0);
    event.created_at = Some(time(number));
    event
}

fn time(number: u64) -> Timestamp {
    let (days, seconds, micros) = (number / 80_000 % 28 + 1, number % 80_000, number % 1_000_000);
    let text = format!(
        "2025-03-{days:02} {:02}:{:02}:{:02}.{micros:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    text.parse().unwrap()
}

/// The event as a line of `append --stdin` and of `import`.
pub(crate) fn line(number: u64, key: bool) -> String {
    let event = event(number);
    let mut line = serde_json::json!({
        "company_guid": event.company.guid, "company_alterid": event.company.alterid,
        "company_name": event.company.name, "log_level": event.level, "log_message": event.message,
        "log_details": event.details, "sync_status": event.status, "records_synced": event.records_synced,
        "duration_seconds": event.duration_seconds, "timestamp": event.created_at.map(|time| time.to_string()),
    });
    if key {
        line["key"] = format!("key-{number}").into();
    }
    line.to_string() + "\n"
}

/// Events that one sender sends one after the other: of these a prefix may be there, in order.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) start: u64,
    /// Behind the last number that may have been sent.
    pub(crate) end: u64,
    /// So many are one atomic batch.
    pub(crate) batch: u64,
    next: u64,
}

impl Lane {
    pub(crate) fn new(start: u64, end: u64, batch: u64) -> Self {
        Self { start, end, batch, next: start }
    }
}

/// What is known of one store.
#[derive(Default)]
pub(crate) struct Model {
    /// The number of the event at each seq, from 1 on, as the last check found them.
    pub(crate) known: Vec<u64>,
    seen: HashSet<u64>,
    /// By seq: acknowledged, and not yet checked.
    acknowledged: BTreeMap<u64, u64>,
    lanes: Vec<Lane>,
    next_number: u64,
}

impl Model {
    /// Numbers that were never used in this store.
    pub(crate) fn fresh(&mut self, count: u64) -> u64 {
        let first = self.next_number + 1;
        self.next_number += count;
        first
    }

    pub(crate) fn sent(&mut self, lane: Lane) {
        self.lanes.push(lane);
    }

    pub(crate) fn acknowledged(&mut self, seq: u64, number: u64) {
        let before = self.acknowledged.insert(seq, number).or_else(|| {
            let known = self.known.get(usize::try_from(seq).unwrap().checked_sub(1)?);
            known.copied()
        });
        assert!(before.is_none_or(|before| before == number), "P3: seq {seq} was acknowledged twice");
    }

    /// Events that were acknowledged since the last check.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Everything that was acknowledged is in what a reader shows of the store as the crash left it.
    pub(crate) fn check_unopened(&self, dir: &Path) {
        let Ok(reader) = Reader::<SyncEvent>::open(dir) else {
            assert!(self.known.is_empty() && self.acknowledged.is_empty(), "P5: a reader cannot open it");
            return;
        };
        let found = numbers(&reader);
        assert!(found.starts_with(&self.known), "P3: what was there is there");
        let summary = Reader::<SyncEvent>::verify(dir, true, |_| {}).unwrap();
        assert_eq!(summary.log_damaged, 0, "P5: a kill is no damage");
        self.check_acknowledged(&found);
    }

    fn check_acknowledged(&self, found: &[u64]) {
        for (seq, number) in &self.acknowledged {
            let there = found.get(*seq as usize - 1);
            assert_eq!(there, Some(number), "P3: event {number} was acknowledged as seq {seq}");
        }
    }

    /// The store was opened for writing and closed: log and rows are exactly what they must be.
    pub(crate) fn check(&mut self, dir: &Path) {
        let reader = Reader::<SyncEvent>::open(dir).unwrap();
        assert!(!reader.has_live_writer(), "a killed writer's lock is free");
        let found = numbers(&reader);
        assert!(found.starts_with(&self.known), "P3: what was there stays, in its place");
        self.check_acknowledged(&found);
        for number in &found[self.known.len()..] {
            assert!(self.seen.insert(*number), "P4: event {number} is there twice");
            let lane = self.lanes.iter_mut().find(|lane| lane.next == *number && lane.next < lane.end);
            lane.unwrap_or_else(|| panic!("P4: event {number} was not sent, or not here")).next += 1;
        }
        for lane in &self.lanes {
            let whole = lane.next == lane.end || (lane.next - lane.start).is_multiple_of(lane.batch);
            assert!(whole, "a batch is there in part: {lane:?}");
        }
        self.known = found;
        self.acknowledged.clear();
        // What did not arrive until now must never arrive.
        self.lanes.clear();
        self.check_rows(dir);
        let mut findings = Vec::new();
        let summary = Reader::<SyncEvent>::verify(dir, false, |finding| findings.push(finding)).unwrap();
        assert!(summary.is_sound() && summary.lag == 0 && findings.is_empty(), "{summary:?} {findings:?}");
        assert_eq!((summary.events, summary.rows), (self.known.len() as u64, self.known.len() as u64));
    }

    /// How many of a lane's events the last check found, where it begins at `start`.
    pub(crate) fn arrived(&self, start: u64, end: u64) -> u64 {
        (start..end).take_while(|number| self.seen.contains(number)).count() as u64
    }

    /// The rows, read by nothing of ours.
    fn check_rows(&self, dir: &Path) {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(dir.join("synclog.db"), flags).unwrap();
        let columns = "id, log_message, company_guid, log_level, log_details, sync_status, records_synced, \
                       duration_seconds, created_at";
        let mut query = db.prepare(&format!("SELECT {columns} FROM sync_logs ORDER BY id")).unwrap();
        let mut rows = query.query([]).unwrap();
        for (seq, number) in (1i64..).zip(&self.known) {
            let row = rows.next().unwrap().unwrap_or_else(|| panic!("P7: no row for event {seq}"));
            let event = event(*number);
            let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
            let wanted = [
                Value::Integer(seq),
                text(Some(event.message)),
                text(Some(event.company.guid)),
                text(Some(event.level.to_string())),
                text(event.details),
                text(event.status.map(|status| status.to_string())),
                event.records_synced.map_or(Value::Null, Value::Integer),
                event.duration_seconds.map_or(Value::Null, Value::Real),
                text(event.created_at.map(|time| time.to_string())),
            ];
            for (at, wanted) in wanted.iter().enumerate() {
                assert_eq!(&row.get::<_, Value>(at).unwrap(), wanted, "P6: seq {seq}, column {at}");
            }
        }
        assert!(rows.next().unwrap().is_none(), "P4: a row without an event");
    }
}

/// The numbers of the log's events in order, each with exactly its content.
fn numbers(reader: &Reader<SyncEvent>) -> Vec<u64> {
    let mut numbers = Vec::new();
    for item in reader.items(1).unwrap() {
        let stored = match item.unwrap() {
            Item::Event(stored) => stored,
            other => panic!("P3: {other:?}"),
        };
        assert_eq!(stored.seq, numbers.len() as u64 + 1, "P4: no gap");
        let number = stored.event.message[1..].parse().unwrap();
        assert_eq!(stored.event, event(number), "P4: seq {}", stored.seq);
        numbers.push(number);
    }
    numbers
}
