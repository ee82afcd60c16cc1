//! What is read from other systems: JSON lines, exports, databases; and matching, which must never take
//! in a record twice.

use std::path::Path;

use crate::event::Event as _;
use crate::proof::disk::Rng;
use crate::sync::{ImportPlan, Matcher, Reading, Record, import_source, read_import_lines, utc};
use crate::{Company, ExportLine, Level, Origin, Status, StoreId, SyncEvent, Timestamp};

use super::scratch;

const STORE: StoreId = StoreId([0xA5; 16]);

/// The first byte chooses: a tape of records to match, a database, or lines.
pub fn import(data: &[u8]) {
    match data.split_first() {
        Some((0, tape)) => matching(&mut Rng::from_tape(tape)),
        Some((1, tape)) => database(&mut Rng::from_tape(tape)),
        Some((_, bytes)) => lines(bytes),
        None => {}
    }
}

/// Lines are events or rejected; what is taken is exported and read back the same.
fn lines(bytes: &[u8]) {
    let source = read_import_lines(bytes, Path::new("input"), &Reading::of(&utc))
        .unwrap_or_else(|error| panic!("{error}"));
    for rejection in &source.rejections {
        assert!(rejection.line > 0 && rejection.reason.len() < 4096, "{rejection:?}");
    }
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let taken = source.records.iter().filter(|record| record.line == number).count();
        let rejected = source.rejections.iter().filter(|rejection| rejection.line == number).count();
        let objects = line.split(|byte| *byte == b'{').count() - 1;
        assert!(taken <= objects, "a record is an object");
        assert!(taken + rejected <= 2 * objects + 1, "what is rejected is an object or lies between two");
        let blank = line
            .strip_prefix(b"\xef\xbb\xbf")
            .filter(|_| number == 1)
            .unwrap_or(line)
            .trim_ascii()
            .is_empty();
        assert_eq!(taken + rejected > 0, !blank, "a line is taken or rejected, whatever it holds");
    }
    for record in &source.records {
        exported_and_back(record);
    }
    imported_twice(&[], source.records);
}

fn exported_and_back(record: &Record) {
    let mut prepared = record.event.clone();
    prepared.prepare(Timestamp::MIN).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(prepared, record.event, "a record is prepared");
    // As a row, as a payload, and as a line of an export.
    let row = record.event.to_row();
    assert_eq!(SyncEvent::from_row(&row).ok().as_ref(), Some(&record.event));
    let payload = record.event.encode(SyncEvent::VERSION).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(SyncEvent::decode(SyncEvent::VERSION, &payload).ok().as_ref(), Some(&record.event));
    let time = Timestamp::MAX;
    let line = ExportLine::new(7, STORE, &record.event, record.key.as_deref(), time);
    let text = serde_json::to_string(&line).unwrap_or_else(|error| panic!("{error}"));
    let back = read_import_lines(text.as_bytes(), Path::new("export"), &Reading::of(&utc));
    let back = back.unwrap_or_else(|error| panic!("{error}"));
    assert!(back.rejections.is_empty(), "our own export: {:?} in {text}", back.rejections);
    let origin = record.event.origin.unwrap_or(Origin { store: STORE, seq: 7 });
    let wanted = SyncEvent { origin: Some(origin), ..record.event.clone() };
    assert_eq!(back.records[0].event, wanted, "{text}");
    assert_eq!(back.records[0].key, record.key);
}

fn plan(present: &[SyncEvent], records: Vec<Record>) -> ImportPlan {
    let mut matcher = Matcher::new(records, STORE);
    for (event, seq) in present.iter().zip(1..) {
        matcher.observe(seq, event);
    }
    matcher.plan(|_| false)
}

/// Imports a source into a store with these events, then once more: nothing is taken in twice.
fn imported_twice(present: &[SyncEvent], records: Vec<Record>) {
    let count = records.len() as u64;
    let first = plan(present, records.clone());
    assert_eq!(first.import.len() as u64 + first.already_present, count, "each record is one or the other");
    assert!(first.id_conflicts <= first.import.len() as u64 && first.deleted == 0);
    if first.time_offset.is_some() {
        return; // nothing is written
    }
    let mut order = records.iter();
    assert!(first.import.iter().all(|record| order.any(|other| other == record)), "in the source's order");
    let mut after = present.to_vec();
    after.extend(first.import.into_iter().map(|record| record.event));
    each_has_an_event_of_its_own(&after, &records);
    let second = plan(&after, records);
    assert!(second.import.is_empty(), "taken in twice: {:?}", second.import);
    assert_eq!(second.already_present, count);
}

/// Two times with fractions are never one event: there are as many events as there are such times under
/// one id and content.
fn each_has_an_event_of_its_own(after: &[SyncEvent], records: &[Record]) {
    let time = |event: &SyncEvent| event.created_at.unwrap_or(Timestamp::MIN);
    let plain = |event: &SyncEvent, id: Option<i64>| {
        let mut plain = event.clone();
        (plain.created_at, plain.legacy_id, plain.run, plain.origin) = (None, id, None, None);
        plain
    };
    for record in records.iter().filter(|record| record.event.origin.is_none()) {
        let Some(id) = record.event.legacy_id else { continue };
        let wanted = plain(&record.event, Some(id));
        let same = records.iter().map(|record| &record.event).filter(|event| {
            event.origin.is_none() && event.legacy_id == Some(id) && plain(event, Some(id)) == wanted
        });
        let fractions: std::collections::BTreeSet<Timestamp> =
            same.map(time).filter(|time| !time.is_whole_second()).collect();
        // An event without an id can be taken for one that has it.
        let events = after
            .iter()
            .filter(|event| event.legacy_id.is_none_or(|known| known == id))
            .filter(|event| plain(event, Some(id)) == wanted);
        assert!(fractions.len() <= events.count(), "lost: {record:?}");
    }
}

/// Events of very few sorts, so that many are alike.
fn event(rng: &mut Rng) -> SyncEvent {
    let message = ["one", "two"][rng.below(2) as usize];
    let company = Company::new("g", ["a", "b"][rng.below(8) as usize / 7], "n");
    let mut event = SyncEvent::new(company, Level::Info, message);
    let micros = [
        0,
        0,
        1,
        250_000,
        1_000_000,
        900_000_000,
        900_000_001,
        -900_000_000,
        19_800_000_000,
        2_500_000,
        59_000_000,
        959_000_000,
    ];
    event.created_at = Timestamp::from_micros(1_700_000_000_000_000 + micros[rng.below(12) as usize]);
    match rng.below(10) {
        0..=3 => event.legacy_id = Some(rng.below(3) as i64),
        4 => event.origin = Some(Origin { store: STORE, seq: 1 + rng.below(4) }),
        5 => event.origin = Some(Origin { store: StoreId([1; 16]), seq: 1 + rng.below(3) }),
        6 => event.status = Some(Status::Failed),
        7 => event.duration_seconds = Some(0.5),
        _ => {}
    }
    event
}

fn matching(rng: &mut Rng) {
    let present: Vec<SyncEvent> = (0..rng.below(8)).map(|_| event(rng)).collect();
    let mut records = Vec::new();
    for line in 1..=1 + rng.below(10) {
        records.push(Record { line, object: 0, event: event(rng), key: None, wrong_time: None });
    }
    imported_twice(&present, records);
}

/// A database with a table `sync_logs` of any columns and values.
fn database(rng: &mut Rng) {
    let dir = scratch();
    let path = dir.path().join("legacy.db");
    let columns = [
        "id",
        "log_id",
        "company_guid",
        "company_alterid",
        "company_name",
        "log_level",
        "log_message",
        "log_details",
        "sync_status",
        "records_synced",
        "error_code",
        "error_message",
        "duration_seconds",
        "created_at",
        "timestamp",
        "seq",
        "Run",
        "\"KEY\"",
        "host",
        "\"\u{1b}[2J\"",
    ];
    let values = [
        "NULL",
        "1",
        "'g'",
        "'INFO'",
        "'failed'",
        "0.5",
        "-9223372036854775808",
        "1e999",
        "x'ff00'",
        "'2025-12-17 09:00:00'",
        "'2025-12-17 09:00:00.25'",
        "''",
        "'\u{1b}'",
        "char(0)",
        "CAST(x'ff' AS TEXT)",
        "'0000-00-00'",
    ];
    let lawful = rng.chance(60);
    let chosen: Vec<&str> =
        columns.into_iter().skip(usize::from(lawful) * 2).filter(|_| rng.below(8) > 0 || lawful).collect();
    let chosen: Vec<&str> = chosen.into_iter().filter(|name| !lawful || name.len() > 3).collect();
    let made: rusqlite::Result<()> = (|| {
        let db = rusqlite::Connection::open(&path)?;
        db.execute_batch(&format!(
            "PRAGMA synchronous = OFF; CREATE TABLE sync_logs ({})",
            chosen.join(", ")
        ))?;
        for _ in 0..rng.below(5) {
            let row: Vec<&str> = chosen
                .iter()
                .map(|name| match *name {
                    "log_level" if lawful => "'INFO'",
                    "created_at" if lawful => "'2025-12-17 09:00:00'",
                    _ => values[rng.below(values.len() as u64) as usize],
                })
                .collect();
            db.execute_batch(&format!("INSERT INTO sync_logs VALUES ({})", row.join(", ")))?;
        }
        Ok(())
    })();
    if made.is_err() {
        return;
    }
    // A value that SQLite refuses to give out is an error of the source as a whole.
    let Ok(source) = import_source(&path, &Reading::of(&utc)) else { return };
    for record in &source.records {
        exported_and_back(record);
    }
    imported_twice(&[], source.records);
}
